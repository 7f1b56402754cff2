#ifndef LOGSHIP_W10_WAL_WRITER_H
#define LOGSHIP_W10_WAL_WRITER_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wal_record.h"

/* The layout that the library was built with. A #pragma pack that is still open, or another header with a struct of
 * the same name, does not compile: docs/linking.md. */
#ifndef LOGSHIP_LAYOUT
#if defined(__cplusplus) && __cplusplus >= 201103L
#define LOGSHIP_LAYOUT(name, holds, otherwise) static_assert(holds, otherwise)
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define LOGSHIP_LAYOUT(name, holds, otherwise) _Static_assert(holds, otherwise)
#else
#define LOGSHIP_LAYOUT(name, holds, otherwise) typedef char logship_layout_##name[(holds) ? 1 : -1]
#endif
#endif
LOGSHIP_LAYOUT(wal_writer_wal_record, sizeof(struct wal_record) == 48 &&
    offsetof(struct wal_record, op) == 0 &&
    offsetof(struct wal_record, key) == 8 &&
    offsetof(struct wal_record, key_len) == 16 &&
    offsetof(struct wal_record, value) == 24 &&
    offsetof(struct wal_record, value_len) == 32 &&
    offsetof(struct wal_record, crc) == 36 &&
    offsetof(struct wal_record, timestamp) == 40,
    "struct wal_record is laid out otherwise in liblogship: delete the wal_record.h of your own, or end #pragma pack");


/**
 * An open log. Copies of the struct, and structs that a program fills by hand with a descriptor opened for appending,
 * work too: what else is known of the log is kept beside it, by descriptor and inode.
 */
struct wal_writer {
    /**
     * The log's descriptor; -1 once closed.
     */
    int fd;
    /**
     * Bytes in the log after the last call.
     */
    uint64_t offset;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens or creates the log at `path` for appending (O_WRONLY|O_CREAT|O_APPEND, 0644, never O_TRUNC) and finds the end
 * of its last whole record. A torn tail is cut off, its bytes kept in `<path>.torn-N`, with a warning. Returns 0, or
 * -1 with `errno`: EBADMSG if the log is damaged or cut where it was durable, if whole records follow the damage, or
 * if the file is no log (nothing is changed; `logship_wal_truncate_to` is the way on), EINVAL for NULL, or what
 * open(2), read(2) or fsync(2) say; `fd` is -1 then. `wal_close` closes it. Takes no lock. (`wal_open(path)` is
 * `wal_open_path`.)
 */
int wal_open(struct wal_writer *writer,
             const char *path);

/**
 * As `wal_open`, for the lesson's form `wal_open(path)`: returns a writer allocated with malloc(3) that `wal_close`
 * frees, or NULL with `errno` as `wal_open`, or ENOMEM.
 */
struct wal_writer *wal_open_path(const char *path);

/**
 * Appends one record; it is durable (fsync) when this returns 0. Returns -1 with `errno` if not: the log is then what
 * it was. After ENOSPC, EIO or a short write the next append may succeed; after a failed fsync every later append
 * fails with EIO until the log is reopened. EINVAL for NULL, a record that can't be encoded, or a time stamp that the
 * clock can't pass. EBADMSG if someone has cut the log since it was opened, or damaged its end; ESTALE if someone has
 * removed the file or put another in its place: what is appended to it would be lost. Reopen it then. One log from one
 * thread at a time; several processes may append to one. Blocks as long as the disk does.
 */
int wal_append(struct wal_writer *writer,
               const struct wal_record *record);

/**
 * Makes the log durable (fsync), closes it and sets `fd` to -1; a writer from `wal_open(path)` is freed. Returns 0, or
 * -1 with `errno`: EINVAL for NULL, EBADF if it is closed already, what fsync(2) says, and the log is closed then too.
 * Every append that returned 0 is durable already.
 */
int wal_close(struct wal_writer *writer);

/**
 * Writes all `len` bytes of `buf`; short writes and EINTR are gone on with. Returns 0, or -1 with write(2)'s `errno`
 * (some bytes may be written then), EINVAL for NULL. Blocks as long as `fd` does.
 */
int write_full(int fd,
               const void *buf,
               size_t len);

/**
 * Reads `len` bytes into `buf`; short reads and EINTR are gone on with. Returns `len`; fewer, down to 0, at the end of
 * the file; -1 with read(2)'s `errno`, EINVAL for NULL. Blocks as long as `fd` does.
 */
ssize_t read_full(int fd,
                  void *buf,
                  size_t len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/* The layout that the library was built with. A #pragma pack that is still open, or another header with a struct of
 * the same name, does not compile: docs/linking.md. */
#ifndef LOGSHIP_LAYOUT
#if defined(__cplusplus) && __cplusplus >= 201103L
#define LOGSHIP_LAYOUT(name, holds, otherwise) static_assert(holds, otherwise)
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define LOGSHIP_LAYOUT(name, holds, otherwise) _Static_assert(holds, otherwise)
#else
#define LOGSHIP_LAYOUT(name, holds, otherwise) typedef char logship_layout_##name[(holds) ? 1 : -1]
#endif
#endif
LOGSHIP_LAYOUT(wal_writer_wal_writer, sizeof(struct wal_writer) == 16 &&
    offsetof(struct wal_writer, fd) == 0 &&
    offsetof(struct wal_writer, offset) == 8,
    "struct wal_writer is laid out otherwise in liblogship: delete the wal_writer.h of your own, or end #pragma pack");

/* The lesson writes wal_open(path): one argument gives a `struct wal_writer *`, two an int. Where a struct of function
 * pointers has a wal_open with one argument, #define LOGSHIP_NO_MACROS before the first include: docs/linking.md. */
#if defined(LOGSHIP_NO_MACROS)
#elif !defined(__cplusplus)
#define LOGSHIP_WAL_OPEN_PICK(_1, _2, name, ...) name
#define wal_open(...) LOGSHIP_WAL_OPEN_PICK(__VA_ARGS__, wal_open, wal_open_path, 0)(__VA_ARGS__)
#else
extern "C++" inline struct wal_writer *wal_open(const char *path)
{
    return wal_open_path(path);
}
#endif

#endif /* LOGSHIP_W10_WAL_WRITER_H */
