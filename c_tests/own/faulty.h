/* System calls that fail on order: the n-th that the library makes on files, and with a second number another one.
 *
 * A program that includes this file has the calls of the library go through it, since an executable's definition wins.
 * Built as a shared object and preloaded it does the same for a program in another language, which gives its orders by
 * reading links that don't exist: /faulty/arm/<first>/<second>/<kind>, and /faulty/disarm, which "leads" to how many
 * calls were made and which of them failed. What one thread orders is for that thread. */
#ifndef OWN_FAULTY_H
#define OWN_FAULTY_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* kind 0: EIO. 1: ENOSPC, and a write(2) puts half of its bytes there first. */
static __thread struct {
    int armed, kind;
    long count, first, second;
    char failed[64];
} faulty;

static inline void faulty_arm(long first, long second, int kind)
{
    memset(&faulty, 0, sizeof faulty);
    faulty.first = first, faulty.second = second, faulty.kind = kind, faulty.armed = 1;
}
static inline long faulty_disarm(void)
{
    faulty.armed = 0;
    return faulty.count;
}
static inline int faulty_fails(const char *name)
{
    if (!faulty.armed)
        return 0;
    faulty.count++;
    if (faulty.count != faulty.first && faulty.count != faulty.second)
        return 0;
    size_t used = strlen(faulty.failed);
    snprintf(faulty.failed + used, sizeof faulty.failed - used, " %s", name);
    errno = faulty.kind ? ENOSPC : EIO;
    return 1;
}
#define FAULTY(type, name, parameters, call) \
    type name parameters \
    { \
        return faulty_fails(#name) ? -1 : (type)(call); \
    }
FAULTY(int, fsync, (int fd), syscall(SYS_fsync, fd))
FAULTY(int, ftruncate, (int fd, off_t len), syscall(SYS_ftruncate, fd, len))
FAULTY(int, ftruncate64, (int fd, off64_t len), syscall(SYS_ftruncate, fd, len))
FAULTY(off64_t, lseek64, (int fd, off64_t at, int whence), syscall(SYS_lseek, fd, at, whence))
FAULTY(off_t, lseek, (int fd, off_t at, int whence), syscall(SYS_lseek, fd, at, whence))
FAULTY(ssize_t, pread, (int fd, void *to, size_t len, off_t at), syscall(SYS_pread64, fd, to, len, at))
FAULTY(ssize_t, pread64, (int fd, void *to, size_t len, off64_t at), syscall(SYS_pread64, fd, to, len, at))
FAULTY(ssize_t, read, (int fd, void *to, size_t len), syscall(SYS_read, fd, to, len))
FAULTY(int, fchmod, (int fd, mode_t mode), syscall(SYS_fchmod, fd, mode))
FAULTY(int, fchown, (int fd, uid_t uid, gid_t gid), syscall(SYS_fchown, fd, uid, gid))
FAULTY(int, flock, (int fd, int how), syscall(SYS_flock, fd, how))
FAULTY(int, dup2, (int from, int to), syscall(SYS_dup3, from, to, 0))
FAULTY(int, dup3, (int from, int to, int flags), syscall(SYS_dup3, from, to, flags))
FAULTY(int, fstat, (int fd, struct stat *st), syscall(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH))
FAULTY(int, fstat64, (int fd, struct stat64 *st), syscall(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH))
FAULTY(int, rename, (const char *from, const char *to), syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0))
FAULTY(int, unlink, (const char *path), syscall(SYS_unlinkat, AT_FDCWD, path, 0))
FAULTY(int, statx, (int at, const char *restrict path, int flags, unsigned mask, struct statx *restrict st),
       syscall(SYS_statx, at, path, flags, mask, st))
FAULTY(ssize_t, fgetxattr, (int fd, const char *name, void *to, size_t len), syscall(SYS_fgetxattr, fd, name, to, len))
FAULTY(int, fsetxattr, (int fd, const char *name, const void *from, size_t len, int flags),
       syscall(SYS_fsetxattr, fd, name, from, len, flags))

static inline int faulty_open(const char *path, int flags, va_list rest)
{
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    return faulty_fails("open") ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
#define FAULTY_OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        va_list rest; \
        va_start(rest, flags); \
        int fd = faulty_open(path, flags, rest); \
        va_end(rest); \
        return fd; \
    }
FAULTY_OPEN(open)
FAULTY_OPEN(open64)

ssize_t write(int fd, const void *from, size_t len)
{
    /* Messages are no part of what is tried. */
    if (fd == 2 || !faulty_fails("write"))
        return syscall(SYS_write, fd, from, len);
    if (faulty.kind == 0 || len < 2)
        return -1;
    faulty.first = faulty.count + 1; /* the rest */
    return syscall(SYS_write, fd, from, len / 2);
}
DIR *opendir(const char *path)
{
    DIR *(*real)(const char *);
    void *found = dlsym(RTLD_NEXT, "opendir");
    memcpy(&real, &found, sizeof real);
    return faulty_fails("opendir") ? NULL : real(path);
}
char *realpath(const char *restrict path, char *restrict to)
{
    char *(*real)(const char *, char *);
    void *found = dlsym(RTLD_NEXT, "realpath");
    memcpy(&real, &found, sizeof real);
    return faulty_fails("realpath") ? NULL : real(path, to);
}
ssize_t readlink(const char *restrict path, char *restrict to, size_t len)
{
    long first, second;
    int kind;
    if (sscanf(path, "/faulty/arm/%ld/%ld/%d", &first, &second, &kind) == 3) {
        faulty_arm(first, second, kind);
        return 0;
    }
    if (strcmp(path, "/faulty/disarm") == 0)
        return snprintf(to, len, "%ld%s", faulty_disarm(), faulty.failed);
    return faulty_fails("readlink") ? -1 : syscall(SYS_readlinkat, AT_FDCWD, path, to, len);
}
#endif
