/* Functions of a program's own that leave their work to others of the library's, each of which might call them back. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "logship.h"

#define MUST(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
            return 1; \
        } \
    } while (0)

static int inits, sets, appends, opens, recovers, checkpoints;

int (kv_store_init)(struct kv_store *store)
{
    inits++;
    return kv_store_init_sized(store, 32);
}

int kv_store_set(struct kv_store *store, const char *key, const char *value)
{
    sets++;
    return kv_store_set_ts(store, key, value, 0);
}

int kv_store_del(struct kv_store *store, const char *key)
{
    struct wal_record record = {.op = WAL_OP_DEL, .key = (char *)key, .key_len = (uint16_t)strlen(key)};

    return kv_store_apply(store, &record);
}

int wal_append(struct wal_writer *writer, const struct wal_record *record)
{
    appends++;
    return logship_append_batch(writer, record, 1);
}

int (wal_open)(struct wal_writer *writer, const char *path)
{
    struct wal_writer *opened = wal_open_path(path);

    opens++;
    if (opened == NULL)
        return -1;
    *writer = *opened; /* the other one is not closed: its descriptor is this one's */
    return 0;
}

int wal_recover(const char *path, struct kv_store *store)
{
    recovers++;
    return wal_recover_with_checkpoint(path, "none.ckpt", store);
}

int wal_checkpoint_write(const struct kv_store *store, const char *path, uint64_t offset)
{
    checkpoints++;
    return wal_checkpoint(store, path, offset);
}

int main(void)
{
    char key[] = "a", value[] = "1";
    struct wal_record record = {.op = WAL_OP_SET, .key = key, .key_len = 1, .value = value, .value_len = 1};
    struct wal_writer writer;
    struct kv_store store;

    unlink("delegates.wal");
    MUST(kv_store_init(&store) == 0 && inits > 0 && inits <= 2);
    MUST(kv_store_set(&store, "b", "2") == 0 && sets == 1);
    MUST(kv_store_apply(&store, &record) == 1 && sets == 2);
    MUST(strcmp(kv_store_get(&store, "a"), "1") == 0);
    MUST(kv_store_del(&store, "a") == 1 && kv_store_get(&store, "a") == NULL);
    MUST(wal_open(&writer, "delegates.wal") == 0 && opens > 0 && opens <= 2);
    MUST(wal_append(&writer, &record) == 0 && appends > 0 && appends <= 2);
    MUST(logship_last_lsn(&writer) == 1);
    MUST(wal_recover("delegates.wal", &store) == 1 && recovers > 0 && recovers <= 2);
    MUST(strcmp(kv_store_get(&store, "a"), "1") == 0 && strcmp(kv_store_get(&store, "b"), "2") == 0);
    MUST(wal_checkpoint_write(&store, "delegates.ckpt", writer.offset) == 0 && checkpoints > 0 && checkpoints <= 2);
    MUST(wal_close(&writer) == 0);
    kv_store_destroy(&store);
    return 0;
}
