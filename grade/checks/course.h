/* What the check programs of more than one week need: the two places where students read the lessons differently,
 * records and files, and children that can neither hang a check nor outlive it. */
#ifndef LOGSHIP_CHECK_COURSE_H
#define LOGSHIP_CHECK_COURSE_H

#include "shape.h"

#include "w10/crc32.h"

/* The lesson's crc32 needs crc32_init and the lesson's programs call it first, so a student may count on that. */
#ifdef GRADE_HAS_crc32_init
#ifndef GRADE_DECLARES_crc32_init
void crc32_init(void);
#endif
#define CHECK_PREPARE crc32_init
#endif

#include "check.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "w09/kv_store.h"
#include "w10/wal_record.h"
#include "w10/wal_writer.h"
#include "w10/wal_recovery.h"

/* ---- what students write differently -------------------------------------------------------------------------- */

/* Half of the students give kv_store_init a second argument, the number of buckets. A function that takes one does not
 * look at the register of the second. The header's macro does not get at the name: no parenthesis opens after it.
 * 0 or more is success; a void function has none to tell. */
static inline int check_store_init(struct kv_store *store)
{
    int (*init)(struct kv_store *, int) = (int (*)(struct kv_store *, int))(void (*)(void))kv_store_init;
    int rc;

    memset(store, 0, sizeof *store);
    rc = init(store, 1024);
#ifndef GRADE_INIT_RETURNS
    rc = 0;
#endif
    return rc > 0 ? 0 : rc;
}

#define CHECK_STORE_INIT(store) check_store_init(store)

/* The student's wal_open(path) returns a writer of its own, which wal_close frees: the check works on a copy, and
 * closing the copy closes the original. */
static inline int check_close_writer(struct wal_writer *writer)
{
#ifdef GRADE_CLOSE_RETURNS
    return (int)wal_close(writer);
#else
    wal_close(writer);
    return 0;
#endif
}

#ifdef GRADE_WAL_OPEN_PATH

struct wal_writer *wal_open_path(const char *path);

static struct check_original {
    struct wal_writer *original, *copy;
} check_originals[16];

static inline int check_open_log(struct wal_writer *writer, const char *path)
{
    struct wal_writer *original = wal_open_path(path);

    if (original == NULL)
        return -1;
    *writer = *original;
    for (size_t i = 0; i < sizeof check_originals / sizeof check_originals[0]; i++) {
        if (check_originals[i].original == NULL) {
            check_originals[i] = (struct check_original){ original, writer };
            return 0;
        }
    }
    check_fail("the check's own preparation: logs open at once", "at most 16", "more");
}

static inline int check_close_log(struct wal_writer *writer)
{
    for (size_t i = 0; i < sizeof check_originals / sizeof check_originals[0]; i++) {
        struct wal_writer *original = check_originals[i].original;

        if (original != NULL && check_originals[i].copy == writer) {
            check_originals[i].original = NULL;
            *original = *writer;
            return check_close_writer(original);
        }
    }
    return check_close_writer(writer);
}

#else

static inline int check_open_log(struct wal_writer *writer, const char *path)
{
    memset(writer, 0, sizeof *writer);
#ifdef GRADE_WAL_OPEN_SWAPPED
    return wal_open(path, writer) < 0 ? -1 : 0;
#else
    return wal_open(writer, path) < 0 ? -1 : 0;
#endif
}

static inline int check_close_log(struct wal_writer *writer)
{
    return check_close_writer(writer);
}

#endif

#define CHECK_WAL_OPEN(writer, path) check_open_log((writer), (path))
#define CHECK_WAL_CLOSE(writer) check_close_log(writer)

static inline int check_recover(const char *path, struct kv_store *store)
{
#ifdef GRADE_RECOVER_SWAPPED
    return (int)wal_recover(store, path);
#else
    return (int)wal_recover(path, store);
#endif
}

/* What recovery returns is the number of records that it has replayed, or in some trees only that it went well: then
 * the number is seen in the store alone. */
static inline void check_recovered(long long expected, long long rc, const char *what)
{
    if (shape_recover_counts())
        check_expect_int(expected, rc, what);
    else
        EXPECT(rc >= 0, what, "no error", "%lld", rc);
}

/* ---- records -------------------------------------------------------------------------------------------------- */

/* A record of W10 has no timestamp. */
#ifdef GRADE_RECORD_TIMESTAMP
#define CHECK_STAMP(record, time) ((record).timestamp = (time))
#else
#define CHECK_STAMP(record, time) ((void)(time))
#endif

/* The record borrows key and value: it must not be freed. */
static inline struct wal_record check_set_record(const char *key, const char *value, uint64_t timestamp)
{
    struct wal_record record;

    memset(&record, 0, sizeof record);
    record.op = WAL_OP_SET;
    record.key = (void *)(uintptr_t)key;
    record.key_len = (uint16_t)strlen(key);
    record.value = (void *)(uintptr_t)value;
    record.value_len = (uint16_t)strlen(value);
    CHECK_STAMP(record, timestamp);
    return record;
}

static inline struct wal_record check_del_record(const char *key, uint64_t timestamp)
{
    struct wal_record record;

    memset(&record, 0, sizeof record);
    record.op = WAL_OP_DEL;
    record.key = (void *)(uintptr_t)key;
    record.key_len = (uint16_t)strlen(key);
    CHECK_STAMP(record, timestamp);
    return record;
}

/* Key and value of a decoded record are copies that somebody must free, or stand in the buffer. */
static inline void check_free_record(struct wal_record *record, const uint8_t *buffer, size_t len)
{
#ifdef GRADE_HAS_wal_record_free
#ifndef GRADE_DECLARES_wal_record_free
    void wal_record_free(struct wal_record *record);
#endif
    (void)buffer;
    (void)len;
    wal_record_free(record);
#else
    const uint8_t *key = (const uint8_t *)record->key, *value = (const uint8_t *)record->value;

    if (key != NULL && (key < buffer || key >= buffer + len))
        free((void *)(uintptr_t)record->key);
    if (value != NULL && (value < buffer || value > buffer + len))
        free((void *)(uintptr_t)record->value);
#endif
}

/* The bytes of a record, by the code that is checked. */
static inline size_t check_encode(const struct wal_record *record, uint8_t *buffer, size_t size)
{
    int n = wal_record_encode(record, buffer, size);

    EXPECT(n > 0 && (size_t)n <= size, "what wal_record_encode returns for a record that fits", "the number of bytes",
           "%d", n);
    return (size_t)n;
}

/* A good record is 0 in most trees, the number of its bytes or 1 in others: what this one says is seen once. */
static inline int check_is_good(int rc, size_t len)
{
    static int known, good, by_length;
    struct wal_record record = check_set_record("key", "some value", 1), decoded;
    uint8_t buffer[256];
    int n;

    if (!known) {
        known = 1;
        n = (int)wal_record_encode(&record, buffer, sizeof buffer);
        if (n > 0) {
            memset(&decoded, 0, sizeof decoded);
            good = (int)wal_record_decode(buffer, (size_t)n, &decoded);
            by_length = good == n;
            check_free_record(&decoded, buffer, (size_t)n);
        }
        if (good < 0)
            good = 0;
    }
    return by_length ? rc == (int)len : rc == good;
}

/* ---- the store ------------------------------------------------------------------------------------------------- */

/* Some write kv_store_get without const. */
#define CHECK_STORE(store) ((struct kv_store *)(uintptr_t)(store))

#ifdef GRADE_STORE_WALK

/* By walking the buckets: no course function counts keys. Ends on a chain that is a ring. */
static inline int check_count_keys(const struct kv_store *store)
{
    int keys = 0;

    for (size_t i = 0; i < (size_t)store->num_buckets; i++) {
        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next) {
            keys++;
            EXPECT(keys <= 10000000, "a walk over the buckets of the store", "it ends", "a chain without end");
        }
    }
    return keys;
}

/* `what` says which store; a key of `want` that is missing or different is named. */
static inline void check_same_store(const struct kv_store *want, const struct kv_store *seen, const char *what)
{
    char text[300];

    for (size_t i = 0; i < (size_t)want->num_buckets; i++) {
        for (const struct kv_entry *entry = want->buckets[i]; entry != NULL; entry = entry->next) {
            snprintf(text, sizeof text, "%s: GET %.60s", what, entry->key);
            check_expect_string(entry->value, kv_store_get(CHECK_STORE(seen), entry->key), text);
        }
    }
    snprintf(text, sizeof text, "%s: number of keys", what);
    EXPECT_INT(check_count_keys(want), check_count_keys(seen), text);
}

#else

/* A store with other fields is asked for every key that checks use. */
static inline const char *check_key_of_checks(int i)
{
    static const char *const others[] = { "missing", "foo", "name", "count", "a", "b", "c", "d", "last", "nobody",
                                          "long", "empty", "x", "y", "damaged", "key" };
    static char text[32];

    if (i < (int)(sizeof others / sizeof others[0]))
        return others[i];
    snprintf(text, sizeof text, "key-%d", i - (int)(sizeof others / sizeof others[0]));
    return i < 1100 ? text : NULL;
}

static inline int check_count_keys(const struct kv_store *store)
{
    int keys = 0;

    for (int i = 0; check_key_of_checks(i) != NULL; i++)
        keys += kv_store_get(CHECK_STORE(store), check_key_of_checks(i)) != NULL;
    return keys;
}

static inline void check_same_store(const struct kv_store *want, const struct kv_store *seen, const char *what)
{
    char text[300];

    for (int i = 0; check_key_of_checks(i) != NULL; i++) {
        const char *key = check_key_of_checks(i);

        snprintf(text, sizeof text, "%s: GET %.60s", what, key);
        check_expect_string(kv_store_get(CHECK_STORE(want), key), kv_store_get(CHECK_STORE(seen), key), text);
    }
}

#endif

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* -1 if there is none. */
static inline long long check_file_size(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 ? (long long)info.st_size : -1;
}

/* The whole file, for free(3). One byte more is allocated, so that an empty file has an address too. */
static inline uint8_t *check_read_file(const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    long long size = check_file_size(path);
    uint8_t *bytes;
    size_t got = 0;

    REQUIRE(fd >= 0 && size >= 0, "open a file to look at it");
    bytes = (uint8_t *)malloc((size_t)size + 1);
    REQUIRE(bytes != NULL, "memory for a file");
    while (got < (size_t)size) {
        ssize_t n = syscall(SYS_read, fd, bytes + got, (size_t)size - got);

        if (n == 0)
            break;
        REQUIRE(n > 0 || errno == EINTR, "read a file");
        got += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    *len = got;
    return bytes;
}

/* Replaces the file. */
static inline void check_write_file(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    REQUIRE(fd >= 0, "make a file");
    /* Not write(): a check program may have one of its own that writes half. */
    REQUIRE(syscall(SYS_write, fd, bytes, len) == (long)len, "write a file");
    REQUIRE(close(fd) == 0, "close a file");
}

/* Inverts bytes: unlike a fixed pattern, that always changes them. */
static inline void check_garble_file(const char *path, uint64_t offset, size_t len)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    REQUIRE(fd >= 0, "open a file to damage it");
    for (size_t i = 0; i < len; i++) {
        REQUIRE(pread(fd, &byte, 1, (off_t)(offset + i)) == 1, "read a byte to damage");
        byte = (uint8_t)~byte;
        REQUIRE(pwrite(fd, &byte, 1, (off_t)(offset + i)) == 1, "damage a byte");
    }
    close(fd);
}

/* ---- time and children ------------------------------------------------------------------------------------------ */

static inline long long check_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* As fork(); the child is killed when this process ends, however that comes. */
static inline pid_t check_fork(void)
{
    pid_t parent = getpid(), pid;

    fflush(NULL);
    pid = fork();
    REQUIRE(pid >= 0, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(3);
    }
    return pid;
}

/* Has the child ended within the time? Valgrind does not know pidfd_open: under it the question is asked again and
 * again. */
static inline int check_has_ended(pid_t pid, int timeout_ms)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    long long end = check_now_ms() + timeout_ms, left = timeout_ms;
    siginfo_t info = { 0 };

    REQUIRE(fd >= 0 || errno == ENOSYS, "pidfd_open");
    do {
        struct pollfd ready = { .fd = fd, .events = POLLIN, .revents = 0 };

        poll(&ready, 1, left <= 0 ? 0 : fd >= 0 ? (int)left : 5);
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
            break;
        left = end - check_now_ms();
    } while (left > 0);
    if (fd >= 0)
        close(fd);
    return info.si_pid == pid;
}

/* Waits for a child for at most `timeout_ms`, then kills it: a check never hangs here. The status is waitpid's, or -1
 * if the child had to be killed. Either way it is reaped. */
static inline int check_wait_ms(pid_t pid, int timeout_ms)
{
    int ended = check_has_ended(pid, timeout_ms), status = 0;

    if (!ended)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return ended ? status : -1;
}

static inline int check_verdict_given(void)
{
    struct stat info;

    return fstat(check_result_fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0;
}

/* Waits for a child that must end with exit code 0. A verdict that the child gave stands; `what` is for those that
 * ended without one. */
static inline void check_join(pid_t pid, int timeout_ms, const char *what)
{
    int status = check_wait_ms(pid, timeout_ms);

    if (status == 0)
        return;
    if (check_verdict_given())
        _exit(1);
    EXPECT(status != -1, what, "it ends", "it was still running after %d ms", timeout_ms);
    EXPECT(!WIFSIGNALED(status), what, "it ends with exit code 0", "signal %d (%s)", WTERMSIG(status),
           strsignal(WTERMSIG(status)));
    EXPECT_INT(0, WEXITSTATUS(status), what);
}

#endif
