/* Checkpoints, little-endian: "CKPT"[wal_offset:8][num_keys:4], then per key [key_len:2][key][value_len:2][value]. The format
 * has no room for timestamps: a key that comes back from a checkpoint has timestamp 0. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w10/wal_checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plain_wal.h"
#include "w10/wal_record.h"
#include "w10/wal_recovery.h"
#include "w10/wal_writer.h"

enum { CKPT_HEADER_BYTES = 4 + 8 + 4, LONGEST_STRING = 65535 };

static void write_le(FILE *file, uint64_t number, int bytes)
{
    for (int i = 0; i < bytes; i++)
        putc((int)(number >> (8 * i) & 0xFF), file);
}

static uint64_t read_le(const uint8_t *in, int bytes)
{
    uint64_t number = 0;

    for (int i = 0; i < bytes; i++)
        number |= (uint64_t)in[i] << (8 * i);
    return number;
}

static void write_string(FILE *file, const char *string)
{
    size_t len = strlen(string);

    write_le(file, len, 2);
    fwrite(string, 1, len, file);
}

/* Looked at before the first byte is written, so that a store that does not fit leaves no half file. */
static int fits_format(const struct kv_store *store)
{
    for (int i = 0; i < store->num_buckets; i++) {
        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next) {
            /* An empty key is one too: the store takes it, though no record can. */
            if (strlen(entry->key) > LONGEST_STRING || strlen(entry->value) > LONGEST_STRING)
                return 0;
        }
    }
    return 1;
}

static void write_store(FILE *file, const struct kv_store *store, uint64_t wal_offset)
{
    fwrite("CKPT", 1, 4, file);
    write_le(file, wal_offset, 8);
    write_le(file, (uint64_t)kv_store_count(store), 4);
    for (int i = 0; i < store->num_buckets; i++) {
        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next) {
            write_string(file, entry->key);
            write_string(file, entry->value);
        }
    }
}

/* The file is complete and on the disk when this returns 0; only then may it take the checkpoint's name. */
static int write_file(const char *path, const struct kv_store *store, uint64_t wal_offset)
{
    FILE *file = fopen(path, "wb");
    int rc;

    if (file == NULL)
        return -1;
    write_store(file, store, wal_offset);
    rc = ferror(file) == 0 && fflush(file) == 0 && fsync(fileno(file)) == 0 ? 0 : -1;
    if (fclose(file) != 0)
        rc = -1;
    return rc;
}

static int write_and_rename(const struct kv_store *store, const char *path, uint64_t wal_offset)
{
    char temporary[PATH_MAX];

    if (!fits_format(store)) {
        errno = EMSGSIZE;
        return -1;
    }
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (write_file(temporary, store, wal_offset) != 0 || rename(temporary, path) != 0) {
        int saved = errno;

        unlink(temporary);
        errno = saved;
        return -1;
    }
    return plain_sync_directory(path);
}

int wal_checkpoint_write(const struct kv_store *store, const char *checkpoint_path, uint64_t wal_offset)
{
    pthread_rwlock_t *lock;
    int locked, rc, saved;

    if (store == NULL || store->buckets == NULL || checkpoint_path == NULL) {
        errno = EINVAL;
        return -1;
    }
    /* Reading the table is const for the caller; the lock around it is not for C. */
    lock = (pthread_rwlock_t *)&store->lock;
    locked = pthread_rwlock_rdlock(lock) == 0;
    rc = write_and_rename(store, checkpoint_path, wal_offset);
    saved = errno;
    if (locked)
        pthread_rwlock_unlock(lock);
    errno = saved;
    return rc;
}

/* The whole file in memory, to be freed by the caller, so that it can be checked before the store is touched. */
static uint8_t *read_file(const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *bytes = NULL;
    struct stat st;
    int saved;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && (bytes = malloc((size_t)st.st_size + 1)) != NULL) {
        ssize_t got = read_full(fd, bytes, (size_t)st.st_size);

        if (got < 0) {
            saved = errno;
            free(bytes);
            bytes = NULL;
            errno = saved;
        } else {
            *len = (size_t)got;
        }
    }
    saved = errno;
    close(fd);
    errno = saved;
    return bytes;
}

/* Moves *at over one string and gives its place and length. -1 if the file ends before it does. */
static int next_string(const uint8_t *bytes, size_t len, size_t *at, const uint8_t **string, size_t *string_len)
{
    if (len - *at < 2)
        return -1;
    *string_len = (size_t)read_le(bytes + *at, 2);
    *at += 2;
    if (len - *at < *string_len)
        return -1;
    *string = bytes + *at;
    *at += *string_len;
    return 0;
}

static int next_pair(const uint8_t *bytes, size_t len, size_t *at, const uint8_t **key, size_t *key_len,
                     const uint8_t **value, size_t *value_len)
{
    if (next_string(bytes, len, at, key, key_len) != 0)
        return -1;
    return next_string(bytes, len, at, value, value_len);
}

/* Bytes after the last pair are left alone: a newer format may put something there. */
static int well_formed(const uint8_t *bytes, size_t len)
{
    size_t at = CKPT_HEADER_BYTES, key_len, value_len;
    const uint8_t *key, *value;
    uint32_t count;

    if (len < CKPT_HEADER_BYTES || memcmp(bytes, "CKPT", 4) != 0)
        return 0;
    count = (uint32_t)read_le(bytes + 12, 4);
    for (uint32_t i = 0; i < count; i++)
        if (next_pair(bytes, len, &at, &key, &key_len, &value, &value_len) != 0)
            return 0;
    return 1;
}

static int set_pair(struct kv_store *store, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
    char *key_copy = strndup((const char *)key, key_len);
    char *value_copy = strndup((const char *)value, value_len);
    const struct kv_entry *existing;
    int rc = -1;

    if (key_copy != NULL && value_copy != NULL) {
        existing = kv_store_find(store, key_copy);
        /* The pair comes without a timestamp, so it is older than anything that has one. */
        if (existing != NULL && existing->last_write_ts > 0)
            rc = 0;
        else
            rc = kv_store_set(store, key_copy, value_copy);
    }
    free(key_copy);
    free(value_copy);
    return rc;
}

static int apply_pairs(const uint8_t *bytes, size_t len, struct kv_store *store)
{
    size_t at = CKPT_HEADER_BYTES, key_len, value_len;
    const uint8_t *key, *value;
    uint32_t count = (uint32_t)read_le(bytes + 12, 4);

    for (uint32_t i = 0; i < count; i++) {
        if (next_pair(bytes, len, &at, &key, &key_len, &value, &value_len) != 0)
            return -1; /* cannot be: well_formed has been here */
        if (set_pair(store, key, key_len, value, value_len) != 0)
            return -1;
    }
    return 0;
}

/* A checked checkpoint in memory, or NULL with errno. */
static uint8_t *read_checkpoint(const char *path, size_t *len, uint64_t *wal_offset)
{
    uint8_t *bytes = read_file(path, len);

    if (bytes == NULL)
        return NULL;
    if (!well_formed(bytes, *len)) {
        free(bytes);
        errno = EBADMSG;
        return NULL;
    }
    *wal_offset = read_le(bytes + 4, 8);
    return bytes;
}

static int apply_locked(const uint8_t *bytes, size_t len, struct kv_store *store)
{
    int locked = pthread_rwlock_wrlock(&store->lock) == 0;
    int rc = apply_pairs(bytes, len, store);
    int saved = errno;

    if (locked)
        pthread_rwlock_unlock(&store->lock);
    errno = saved;
    return rc;
}

int wal_checkpoint_load(const char *checkpoint_path, struct kv_store *store, uint64_t *wal_offset_out)
{
    uint64_t wal_offset;
    uint8_t *bytes;
    size_t len;
    int rc;

    if (checkpoint_path == NULL || store == NULL || store->buckets == NULL || wal_offset_out == NULL) {
        errno = EINVAL;
        return -1;
    }
    bytes = read_checkpoint(checkpoint_path, &len, &wal_offset);
    if (bytes == NULL)
        return -1;
    rc = apply_locked(bytes, len, store);
    free(bytes);
    if (rc == 0)
        *wal_offset_out = wal_offset;
    return rc;
}

/* Does a record of the log start, or the log end, at this offset? Walks the lengths from the start. 1, 0, -1. */
static int is_boundary(const char *wal_path, uint64_t offset)
{
    uint8_t buffer[WAL_RECORD_MAX];
    enum plain_read got = PLAIN_RECORD;
    uint64_t at = 0;
    size_t len;
    int fd = open(wal_path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    while (at < offset && got == PLAIN_RECORD) {
        got = plain_read_record(fd, buffer, &len);
        if (got == PLAIN_RECORD)
            at += len;
    }
    close(fd);
    return at == offset;
}

int wal_recover_with_checkpoint(const char *wal_path, const char *checkpoint_path, struct kv_store *store)
{
    uint64_t wal_offset = 0;
    int boundary, rc;
    uint8_t *bytes;
    size_t len;

    if (wal_path == NULL || checkpoint_path == NULL || store == NULL || store->buckets == NULL) {
        errno = EINVAL;
        return -1;
    }
    bytes = read_checkpoint(checkpoint_path, &len, &wal_offset);
    if (bytes == NULL && errno != ENOENT && errno != EBADMSG)
        return -1;
    boundary = is_boundary(wal_path, wal_offset);
    if (boundary < 0) {
        int saved = errno;

        free(bytes);
        errno = saved;
        return -1;
    }
    if (bytes == NULL || boundary == 0) {
        /* No checkpoint, or one that is not of this log. The log alone has everything. */
        free(bytes);
        return plain_replay_from(wal_path, 0, store);
    }
    rc = apply_locked(bytes, len, store);
    free(bytes);
    return rc == 0 ? plain_replay_from(wal_path, wal_offset, store) : -1;
}
