/* The append side of the log: open, append with one fsync a record, close. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w10/wal_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plain_wal.h"
#include "w10/wal_recovery.h"

/* In writer->fd after a failed fsync. The kernel may have dropped the dirty pages, so no later fsync can be believed: the
 * writer must not accept another record until the log has been opened, and read, again. */
enum { FD_LATCHED = -2 };

int write_full(int fd, const void *buf, size_t len)
{
    const uint8_t *next = buf;

    if (buf == NULL && len > 0) {
        errno = EINVAL;
        return -1;
    }
    while (len > 0) {
        ssize_t n = write(fd, next, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        next += n;
        len -= (size_t)n;
    }
    return 0;
}

ssize_t read_full(int fd, void *buf, size_t len)
{
    uint8_t *next = buf;
    size_t got = 0;

    if (buf == NULL && len > 0) {
        errno = EINVAL;
        return -1;
    }
    while (got < len) {
        ssize_t n = read(fd, next + got, len - got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

/* The whole size of the record that starts at `header`, or 0 if its length field cannot be right. Eight bytes are read. */
static size_t record_size(const uint8_t *header)
{
    size_t length = (size_t)header[4] | (size_t)header[5] << 8 | (size_t)header[6] << 16 | (size_t)header[7] << 24;

    /* 6: op, key_len, one byte of key, value_len. */
    return length < 6 || length > WAL_RECORD_MAX - 8 ? 0 : length + 8;
}

enum plain_read plain_read_record(int fd, uint8_t *buffer, size_t *len)
{
    ssize_t got = read_full(fd, buffer, 8);

    if (got < 0)
        return PLAIN_ERROR;
    if (got == 0)
        return PLAIN_END;
    if (got < 8)
        return PLAIN_CUT;
    *len = record_size(buffer);
    if (*len == 0)
        return PLAIN_DAMAGED;
    got = read_full(fd, buffer + 8, *len - 8);
    if (got < 0)
        return PLAIN_ERROR;
    return (size_t)got == *len - 8 ? PLAIN_RECORD : PLAIN_CUT;
}

int plain_sync_directory(const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int fd, rc, saved;

    if (slash == NULL)
        snprintf(directory, sizeof directory, ".");
    else
        snprintf(directory, sizeof directory, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    rc = fsync(fd);
    saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

static int is_record(const uint8_t *bytes, size_t len)
{
    struct wal_record record;

    if (!plain_decodes(bytes, len, &record))
        return 0;
    wal_record_free(&record);
    return 1;
}

/* Finds where the last of the whole records at the start of the file ends. 0, -1. */
static int find_end(int fd, uint64_t *end)
{
    uint8_t buffer[WAL_RECORD_MAX];
    enum plain_read got;
    size_t len;

    *end = 0;
    while ((got = plain_read_record(fd, buffer, &len)) == PLAIN_RECORD && is_record(buffer, len))
        *end += len;
    return got == PLAIN_ERROR ? -1 : 0;
}

/* How long the record at rest[0] was to be, whole or not, if its length, op and two lengths agree; else 0. */
static size_t extent(const uint8_t *rest, size_t len)
{
    size_t size = len >= 11 ? record_size(rest) : 0, value_at, value_len;

    if (size == 0 || (rest[8] != WAL_OP_SET && rest[8] != WAL_OP_DEL))
        return 0;
    value_at = 11 + ((size_t)rest[9] | (size_t)rest[10] << 8);
    if (value_at == 11 || value_at + 2 > size)
        return 0;
    if (value_at + 2 > len)
        return size; /* cut before it says more */
    value_len = (size_t)rest[value_at] | (size_t)rest[value_at + 1] << 8;
    return size == value_at + 2 + value_len + 8 || size == value_at + 2 + value_len ? size : 0;
}

/* Is there, somewhere behind the damage at rest[0], a whole record? Then the damage is not a write that a crash cut short,
 * and cutting there would throw away records that were promised. Within the record that was to stand there it proves
 * nothing: a value may hold such bytes. */
static int records_follow(const uint8_t *rest, size_t len)
{
    size_t own = extent(rest, len);

    for (size_t start = own > 0 ? own - 8 : 1; start + 8 <= len; start++) {
        size_t size = record_size(rest + start);

        if (size > 0 && size <= len - start && is_record(rest + start, size))
            return 1;
    }
    return 0;
}

/* Can a file that begins with these bytes be what a crash has left of the first write to a log? Any other file is no log. */
static int may_be_first_write(const uint8_t *rest, size_t len)
{
    size_t zeros = 0;

    while (zeros < len && rest[zeros] == 0)
        zeros++;
    return len < 14 || extent(rest, len) > 0 || (zeros == len && len <= WAL_RECORD_MAX);
}

/* Keeps the torn bytes beside the log: they are of no use to the program, but somebody may want to look. */
static int keep_torn_bytes(const char *path, const uint8_t *rest, size_t len)
{
    char name[PATH_MAX];
    int fd = -1, rc;

    for (int n = 1; fd < 0; n++) {
        if (snprintf(name, sizeof name, "%s.torn-%d", path, n) >= (int)sizeof name) {
            errno = ENAMETOOLONG;
            return -1;
        }
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0 && errno != EEXIST)
            return -1;
    }
    rc = write_full(fd, rest, len) == 0 && fsync(fd) == 0 ? 0 : -1;
    if (close(fd) != 0)
        rc = -1;
    return rc == 0 ? plain_sync_directory(path) : -1;
}

/* Cuts the log at `end` if what follows is a torn write; fails with EBADMSG and changes nothing if it is damage. */
static int cut_torn_tail(int fd, int read_fd, const char *path, uint64_t end, size_t len)
{
    uint8_t *rest = malloc(len);
    int rc = -1;

    if (rest == NULL)
        return -1;
    if (lseek(read_fd, (off_t)end, SEEK_SET) < 0 || read_full(read_fd, rest, len) != (ssize_t)len) {
        errno = EIO;
    } else if (records_follow(rest, len)) {
        fprintf(stderr, "wal_open: %s: damaged record at offset %llu, whole records follow\n", path,
                (unsigned long long)end);
        errno = EBADMSG;
    } else if (end == 0 && !may_be_first_write(rest, len)) {
        fprintf(stderr, "wal_open: %s: not a log\n", path);
        errno = EBADMSG;
    } else if (keep_torn_bytes(path, rest, len) == 0 && ftruncate(fd, (off_t)end) == 0 && fsync(fd) == 0) {
        fprintf(stderr, "wal_open: %s: cut %zu torn bytes at offset %llu\n", path, len, (unsigned long long)end);
        rc = 0;
    }
    free(rest);
    return rc;
}

/* Leaves the end of the last whole record in *end, and the file ends there. */
static int check_log(int fd, const char *path, uint64_t *end)
{
    struct stat st;
    int read_fd, rc, saved;

    *end = 0;
    if (fstat(fd, &st) != 0)
        return -1;
    if (st.st_size == 0)
        return plain_sync_directory(path);
    read_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (read_fd < 0)
        return -1;
    rc = find_end(read_fd, end);
    if (rc == 0 && *end < (uint64_t)st.st_size)
        rc = cut_torn_tail(fd, read_fd, path, *end, (size_t)((uint64_t)st.st_size - *end));
    saved = errno;
    close(read_fd);
    errno = saved;
    return rc;
}

int plain_open(struct wal_writer *writer, const char *path)
{
    int fd;

    if (writer == NULL || path == NULL || path[0] == '\0') {
        errno = EINVAL;
        return -1;
    }
    writer->fd = -1;
    writer->offset = 0;
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    if (check_log(fd, path, &writer->offset) != 0) {
        int saved = errno;

        close(fd);
        writer->offset = 0;
        errno = saved;
        return -1;
    }
    writer->fd = fd;
    return 0;
}

/* The name is in parentheses because a header may also define a macro wal_open(...). */
#if PLAIN_OPEN
struct wal_writer *(wal_open)(const char *path)
{
    struct wal_writer *writer = calloc(1, sizeof *writer);

    if (writer != NULL && plain_open(writer, path) != 0) {
        free(writer);
        writer = NULL;
    }
    return writer;
}
#else
int (wal_open)(struct wal_writer *writer, const char *path)
{
    return plain_open(writer, path);
}
#endif

/* Takes back what a failed write left behind, unless somebody else has written behind it. */
static void roll_back(int fd, off_t size_before, size_t len)
{
    struct stat st;
    int saved = errno;

    if (fstat(fd, &st) == 0 && st.st_size > size_before && st.st_size <= size_before + (off_t)len &&
        ftruncate(fd, size_before) != 0)
        fprintf(stderr, "wal_append: could not take back a failed write: %s\n", strerror(errno));
    errno = saved;
}

int wal_append(struct wal_writer *writer, const struct wal_record *record)
{
    uint8_t buffer[WAL_RECORD_MAX];
    struct stat st;
    int len;

    if (writer == NULL) {
        errno = EINVAL;
        return -1;
    }
    if (writer->fd == FD_LATCHED) {
        errno = EIO;
        return -1;
    }
    len = wal_record_encode(record, buffer, sizeof buffer);
    if (len < 0 || fstat(writer->fd, &st) != 0)
        return -1;
    if (write_full(writer->fd, buffer, (size_t)len) != 0) {
        roll_back(writer->fd, st.st_size, (size_t)len);
        return -1;
    }
    if (fsync(writer->fd) != 0) {
        int saved = errno;

        roll_back(writer->fd, st.st_size, (size_t)len);
        close(writer->fd);
        writer->fd = FD_LATCHED;
        errno = saved;
        return -1;
    }
    writer->offset += (uint64_t)len;
    return 0;
}

int wal_close(struct wal_writer *writer)
{
    int fd;

    if (writer == NULL) {
        errno = EINVAL;
        return -1;
    }
    fd = writer->fd;
    writer->fd = -1;
    if (PLAIN_OPEN)
        free(writer);
    if (fd == FD_LATCHED)
        return 0;
    if (fsync(fd) != 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return close(fd);
}
