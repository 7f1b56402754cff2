/* The formats on disk, written a second time from the contract: no test here asks the library what its own bytes are. */
#ifndef OWN_BYTES_H
#define OWN_BYTES_H
#include "harness.h"

static inline uint32_t own_crc32(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}
static inline uint8_t *own_put(uint8_t *at, uint64_t value, int bytes) /* little-endian */
{
    for (int i = 0; i < bytes; i++)
        *at++ = (uint8_t)(value >> (8 * i));
    return at;
}
static inline uint8_t *own_put_be(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--)
        *at++ = (uint8_t)(value >> (8 * i));
    return at;
}
/* Sets length and CRC of a record whose body (from byte 8 on) is in place. */
static inline size_t own_seal(uint8_t *record, size_t total)
{
    own_put(record + 4, total - 8, 4);
    own_put(record, own_crc32(record + 4, total - 4), 4);
    return total;
}
/* [crc:4][length:4][op:1][key_len:2][key][value_len:2][value], and the timestamp unless it is a W10 record. */
static inline size_t own_encode(uint8_t *out, int op, const char *key, size_t key_len, const void *value,
                                size_t value_len, uint64_t timestamp, int with_timestamp)
{
    uint8_t *at = out + 8;
    at = own_put(at, (uint64_t)op, 1);
    at = own_put(at, key_len, 2);
    memcpy(at, key, key_len);
    at = own_put(at + key_len, value_len, 2);
    if (value_len)
        memcpy(at, value, value_len);
    at += value_len;
    if (with_timestamp)
        at = own_put(at, timestamp, 8);
    return own_seal(out, (size_t)(at - out));
}
static inline size_t own_set(uint8_t *out, const char *key, const char *value, uint64_t timestamp)
{
    return own_encode(out, 1, key, strlen(key), value, strlen(value), timestamp, 1);
}
static inline size_t own_del(uint8_t *out, const char *key, uint64_t timestamp)
{
    return own_encode(out, 2, key, strlen(key), NULL, 0, timestamp, 1);
}
static inline int own_write_file(const char *path, const void *data, size_t len)
{
    unlink(path); /* a log's file remembers what was durable in it: other bytes are another file */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ssize_t wrote = fd < 0 ? -1 : write(fd, data, len);
    if (fd >= 0)
        close(fd);
    return wrote == (ssize_t)len ? 0 : -1;
}
/* The bytes of a file, or -1 when there is none or it is larger than the buffer. */
static inline long own_read_file(const char *path, void *buffer, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t total = 0, got = 1;
    while (fd >= 0 && (size_t)total < size && (got = read(fd, (char *)buffer + total, size - (size_t)total)) > 0)
        total += got;
    if (fd < 0)
        return -1;
    close(fd);
    return got < 0 || (size_t)total == size ? -1 : (long)total;
}
static inline int own_file_is(const char *path, const void *data, size_t len)
{
    uint8_t *buffer = malloc(len + 2);
    long got = buffer ? own_read_file(path, buffer, len + 2) : -1;
    int same = got == (long)len && memcmp(buffer, data, len) == 0;
    free(buffer);
    return same;
}
static inline long long own_file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (long long)st.st_size : -1;
}
/* Names in the current directory that begin with prefix; the last one found is copied to name. */
static inline int own_count_files(const char *prefix, char *name, size_t size)
{
    int count = 0;
    DIR *dir = opendir(".");
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        count++;
        if (name)
            snprintf(name, size, "%s", entry->d_name);
    }
    if (dir)
        closedir(dir);
    return count;
}

#endif
