/* Replaying the log into a store: from the first record to the first that is damaged, never past it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w10/wal_recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "plain_wal.h"
#include "w10/wal_record.h"
#include "w10/wal_writer.h"

/* The rule of W11's repl_resolve_conflict, here once more because the programs of W10 are built without W11. A follower logs
 * what it skips, so a replay must skip it again. Two records without a timestamp are as old as their place in the log. */
static int wins(const struct kv_entry *existing, const struct wal_record *record)
{
    if (existing == NULL)
        return 1;
    if (existing->last_write_ts != record->timestamp)
        return record->timestamp > existing->last_write_ts;
    if (record->timestamp == 0)
        return 1;
    return record->op == WAL_OP_SET && strcmp(record->value, existing->value) > 0;
}

static int apply(struct kv_store *store, const struct wal_record *record)
{
    /* EDEADLK: the caller holds the lock, which is as good. */
    int locked = pthread_rwlock_wrlock(&store->lock) == 0;
    int rc = 0;

    if (wins(kv_store_find(store, record->key), record)) {
        if (record->op == WAL_OP_SET)
            rc = kv_store_set_ts(store, record->key, record->value, record->timestamp);
        else if (kv_store_del(store, record->key) < 0) /* 0, nothing to delete, is no error */
            rc = -1;
    }
    if (locked)
        pthread_rwlock_unlock(&store->lock);
    return rc;
}

/* 1 applied, 0 damaged, -1 the program failed (memory), not the log. */
static int replay_one(const uint8_t *buffer, size_t len, struct kv_store *store)
{
    struct wal_record record;
    int rc;

    if (!plain_decodes(buffer, len, &record))
        return errno == EBADMSG ? 0 : -1;
    rc = apply(store, &record);
    wal_record_free(&record);
    return rc == 0 ? 1 : -1;
}

static int replay(int fd, const char *path, uint64_t offset, struct kv_store *store)
{
    uint8_t buffer[WAL_RECORD_MAX];
    enum plain_read got;
    size_t len;
    int count = 0;

    while ((got = plain_read_record(fd, buffer, &len)) == PLAIN_RECORD) {
        int rc = replay_one(buffer, len, store);

        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        offset += len;
        count++;
    }
    if (got == PLAIN_ERROR)
        return -1;
    if (got != PLAIN_END)
        fprintf(stderr, "wal_recover: %s: damaged record at offset %llu, stopped after %d records\n", path,
                (unsigned long long)offset, count);
    return count;
}

int plain_replay_from(const char *path, uint64_t offset, struct kv_store *store)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int count = -1, saved;

    if (fd < 0)
        return -1;
    if (lseek(fd, (off_t)offset, SEEK_SET) >= 0)
        count = replay(fd, path, offset, store);
    saved = errno;
    close(fd);
    errno = saved;
    return count;
}

int wal_recover(const char *path, struct kv_store *store)
{
    if (path == NULL || store == NULL || store->buckets == NULL) {
        errno = EINVAL;
        return -1;
    }
#if PLAIN_RECOVER
    int count = plain_replay_from(path, 0, store);

    printf("recovery: replayed %d records\n", count);
    return count < 0 ? -1 : 0;
#else
    return plain_replay_from(path, 0, store);
#endif
}
