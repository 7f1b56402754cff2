/* Looks at what the checked code asks of the kernel: the definitions here win over the C library's for all that is
 * linked into the program, count, can make trouble, and go on to the kernel. What goes through stdio is not seen as a
 * write, so that the questions are asked of the files: how long was this one when it was last synced?
 *
 * One program includes this once; it is not for two files of one program. */
#ifndef LOGSHIP_CHECK_CALLS_H
#define LOGSHIP_CHECK_CALLS_H

#include "course.h"

enum trouble {
    TROUBLE_NONE,
    TROUBLE_SHORT,       /* reads and writes move a part of what they are asked to */
    TROUBLE_INTERRUPTED, /* every other one is interrupted (EINTR) before it moves anything */
    TROUBLE_DISK_FULL    /* writes fail with ENOSPC */
};

static enum trouble trouble;

/* Calls on regular files since the last calls_forget. */
static struct {
    int reads, writes, syncs, troubles;
} calls;

struct synced_file {
    dev_t device;
    ino_t inode;
    long long size; /* when it was last synced */
};

static struct synced_file synced_files[64];
static size_t synced_count;

/* Called before a name is given to another file or a file is cut or removed, with the path of what is lost, or NULL and
 * the descriptor; a check that cares sets it. */
static void (*calls_on_loss)(const char *path, int fd);
static void (*calls_on_rename)(const char *from, const char *to);

static inline void calls_forget(void)
{
    memset(&calls, 0, sizeof calls);
    synced_count = 0;
}

/* How long the file was when it was last synced; -1 if it never was. */
static inline long long calls_synced_size(const char *path)
{
    struct stat info;

    if (stat(path, &info) != 0)
        return -1;
    for (size_t i = 0; i < synced_count; i++)
        if (synced_files[i].device == info.st_dev && synced_files[i].inode == info.st_ino)
            return synced_files[i].size;
    return -1;
}

/* The same for a verdict. */
static inline const char *calls_synced_text(const char *path)
{
    static char text[32];
    long long size = calls_synced_size(path);

    snprintf(text, sizeof text, size < 0 ? "no fsync" : "%lld", size);
    return text;
}

/* The verdict, messages and sockets are none of the log's business. */
static inline int calls_watched(int fd)
{
    struct stat info;

    return fd > STDERR_FILENO && fd != check_result_fd && fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
}

static inline int calls_sync(int fd, long number)
{
    struct synced_file now;
    struct stat info;
    size_t i = 0;

    if (calls_watched(fd) && fstat(fd, &info) == 0) {
        calls.syncs++;
        now = (struct synced_file){ info.st_dev, info.st_ino, (long long)info.st_size };
        while (i < synced_count && (synced_files[i].device != now.device || synced_files[i].inode != now.inode))
            i++;
        if (i < sizeof synced_files / sizeof synced_files[0])
            synced_files[i] = now;
        if (i == synced_count && synced_count < sizeof synced_files / sizeof synced_files[0])
            synced_count++;
        /* That it was asked for is all that is judged: no check outlives a power cut, and disks are slow. */
        return 0;
    }
    return (int)syscall(number, fd);
}

int fsync(int fd)
{
    return calls_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return calls_sync(fd, SYS_fdatasync);
}

/* How many bytes a call may move that asks for `size`; -1 with errno if it must fail. */
static inline ssize_t calls_allowed(int call, size_t size, int writing)
{
    if (trouble == TROUBLE_DISK_FULL && writing) {
        calls.troubles++;
        errno = ENOSPC;
        return -1;
    }
    if (trouble == TROUBLE_INTERRUPTED && call % 2 == 1) {
        calls.troubles++;
        errno = EINTR;
        return -1;
    }
    if (trouble == TROUBLE_SHORT && size > 1) {
        calls.troubles++;
        return (ssize_t)(writing ? size / 2 : 1);
    }
    return (ssize_t)size;
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    ssize_t allowed = (ssize_t)size;

    if (calls_watched(fd) && (allowed = calls_allowed(++calls.writes, size, 1)) < 0)
        return -1;
    return syscall(SYS_write, fd, bytes, (size_t)allowed);
}

static inline ssize_t calls_pwrite(int fd, const void *bytes, size_t size, off_t at)
{
    ssize_t allowed = (ssize_t)size;

    if (calls_watched(fd) && (allowed = calls_allowed(++calls.writes, size, 1)) < 0)
        return -1;
    return syscall(SYS_pwrite64, fd, bytes, (size_t)allowed, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at)
{
    return calls_pwrite(fd, bytes, size, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at)
{
    return calls_pwrite(fd, bytes, size, (off_t)at);
}

ssize_t read(int fd, void *bytes, size_t size)
{
    ssize_t allowed = (ssize_t)size;

    if (calls_watched(fd) && (allowed = calls_allowed(++calls.reads, size, 0)) < 0)
        return -1;
    return syscall(SYS_read, fd, bytes, (size_t)allowed);
}

static inline ssize_t calls_pread(int fd, void *bytes, size_t size, off_t at)
{
    ssize_t allowed = (ssize_t)size;

    if (calls_watched(fd) && (allowed = calls_allowed(++calls.reads, size, 0)) < 0)
        return -1;
    return syscall(SYS_pread64, fd, bytes, (size_t)allowed, at);
}

ssize_t pread(int fd, void *bytes, size_t size, off_t at)
{
    return calls_pread(fd, bytes, size, at);
}

ssize_t pread64(int fd, void *bytes, size_t size, off64_t at)
{
    return calls_pread(fd, bytes, size, (off_t)at);
}

static inline void calls_loss(const char *path, int fd)
{
    if (calls_on_loss != NULL)
        calls_on_loss(path, fd);
}

int unlink(const char *path)
{
    calls_loss(path, -1);
    return (int)syscall(SYS_unlink, path);
}

/* Not the C library's own: that calls unlink inside itself. */
int remove(const char *path)
{
    int rc;

    calls_loss(path, -1);
    rc = (int)syscall(SYS_unlink, path);
    return rc != 0 && errno == EISDIR ? (int)syscall(SYS_rmdir, path) : rc;
}

int truncate(const char *path, off_t size)
{
    calls_loss(path, -1);
    return (int)syscall(SYS_truncate, path, size);
}

int ftruncate(int fd, off_t size)
{
    calls_loss(NULL, fd);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    calls_loss(NULL, fd);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int rename(const char *from, const char *to)
{
    if (calls_on_rename != NULL)
        calls_on_rename(from, to);
    return (int)syscall(SYS_rename, from, to);
}

#endif
