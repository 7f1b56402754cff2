/* A log and what must come out of it: a workload that sets, overwrites and deletes, written by the checked code, and
 * the store that its first n records make. */
#ifndef LOGSHIP_CHECK_WAL_H
#define LOGSHIP_CHECK_WAL_H

#include "course.h"

#include <dirent.h>

/* The most records of a workload that a check uses. */
enum { WORKLOAD_MAX = 40 };

/* The keys and values that a record borrows. */
struct workload_text {
    char key[32];
    char value[64];
};

/* Record i, from 0: every fifth deletes the key that the one before it has set, every seventh writes to key-0 again,
 * and record 9 deletes a key that is not there. Time stamps grow, so that a store with the conflict rule of W11 takes
 * them in this order too. */
static inline struct wal_record workload_record(int i, struct workload_text *text)
{
    snprintf(text->value, sizeof text->value, "value-%d-%.*s", i, i % 9, "abcdefghi");
    if (i == 9)
        return check_del_record("missing", (uint64_t)i + 1);
    if (i % 5 == 4) {
        snprintf(text->key, sizeof text->key, "key-%d", i - 1);
        return check_del_record(text->key, (uint64_t)i + 1);
    }
    snprintf(text->key, sizeof text->key, "key-%d", i % 7 == 6 ? 0 : i);
    return check_set_record(text->key, text->value, (uint64_t)i + 1);
}

/* Appends records first to last - 1. starts[i] is where record i begins, starts[last] where the log ends: sizes of the
 * file, because a student's offset may be wrong. */
static inline void write_workload(const char *path, int first, int last, uint64_t *starts)
{
    struct wal_writer writer;

    EXPECT_INT(0, CHECK_WAL_OPEN(&writer, path), "what wal_open returns");
    for (int i = first; i < last; i++) {
        struct workload_text text;
        struct wal_record record = workload_record(i, &text);

        starts[i] = (uint64_t)check_file_size(path);
        EXPECT(wal_append(&writer, &record) >= 0, "what wal_append returns", "0", "a negative number");
        starts[i + 1] = (uint64_t)check_file_size(path);
        EXPECT(starts[i + 1] > starts[i], "the log after wal_append", "longer than before",
               "%" PRIu64 " bytes, before %" PRIu64, starts[i + 1], starts[i]);
    }
    EXPECT(CHECK_WAL_CLOSE(&writer) >= 0, "what wal_close returns", "0", "a negative number");
}

static inline void apply_workload(struct kv_store *store, int first, int last)
{
    for (int i = first; i < last; i++) {
        struct workload_text text;
        struct wal_record record = workload_record(i, &text);

        if (record.op == WAL_OP_SET)
            EXPECT(kv_store_set(store, record.key, record.value) >= 0, "what kv_store_set returns", "0", "less");
        else
            EXPECT(kv_store_del(store, record.key) >= 0, "what kv_store_del returns", "0 or 1", "less");
    }
}

/* A fresh store must become what the first `count` records make. */
static inline void expect_recovery(const char *path, int count, const char *what)
{
    struct kv_store expected, seen;
    char text[300];

    EXPECT_INT(0, CHECK_STORE_INIT(&expected), "what kv_store_init returns");
    EXPECT_INT(0, CHECK_STORE_INIT(&seen), "what kv_store_init returns");
    apply_workload(&expected, 0, count);
    snprintf(text, sizeof text, "%.200s: records replayed", what);
    check_recovered(count, check_recover(path, &seen), text);
    check_same_store(&expected, &seen, what);
    kv_store_destroy(&expected);
    kv_store_destroy(&seen);
}

/* Descriptors that this process has open. */
static inline int count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    REQUIRE(directory != NULL, "look at /proc/self/fd");
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

#endif
