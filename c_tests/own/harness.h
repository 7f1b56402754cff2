/* What every program here needs: checks, one forked process and one empty directory per case, a deadline, reaping.
 *
 * A case runs in a child, so that a crash, a hang or the library's per-process state in one case cannot reach the
 * next; it is a group leader and this process a subreaper, so that nothing a case started outlives it. A case that
 * checked nothing counts as failed: an empty test must not look like a passed one. */
#ifndef OWN_HARNESS_H
#define OWN_HARNESS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int own_passed, own_failed, own_skipped; /* cases, counted in the parent */
static int own_checks, own_bad;                 /* checks, counted in the case's process */
static char own_dir[256];

/* One failed condition: said once with its place, at most 8 a case (a loop over 500 bytes need not print 500). */
static inline int own_check(int ok, const char *file, int line, const char *text, long long got, long long want)
{
    int saved = errno;
    own_checks++;
    if (!ok && ++own_bad <= 8) {
        printf("    %s:%d: %s", file, line, text);
        if (got != want)
            printf(" (got %lld, want %lld)", got, want);
        printf(" [errno %d %s]\n", saved, strerror(saved));
        fflush(stdout);
    }
    errno = saved;
    return ok;
}
#define CHECK(cond) own_check(!!(cond), __FILE__, __LINE__, #cond, 0, 0)
#define CHECK_EQ(got, want) own_check_eq((long long)(got), (long long)(want), __FILE__, __LINE__, #got " == " #want)
static inline int own_check_eq(long long got, long long want, const char *file, int line, const char *text)
{
    return own_check(got == want, file, line, text, got, want);
}
/* The call returns -1 and errno says why. */
#define CHECK_FAILS(call, why) do { \
        errno = 0; \
        long long own_r = (long long)(call); \
        int own_e = errno; \
        own_check(own_r == -1, __FILE__, __LINE__, #call " == -1", own_r, -1); \
        own_check(own_e == (why), __FILE__, __LINE__, "errno == " #why " after " #call, own_e, (why)); \
    } while (0)
/* What a check that is about to fail has to say for itself; as rarely as the checks themselves. */
#define NOTE(...) do { \
        if (own_bad < 8) { \
            printf("    " __VA_ARGS__); \
            putchar('\n'); \
        } \
    } while (0)
/* Without this the rest of the case makes no sense. */
#define REQUIRE(cond) do { if (!CHECK(cond)) own_leave(); } while (0)

static inline void own_leave(void)
{
    fflush(stdout);
    _exit(own_bad ? 1 : own_checks ? 0 : 2);
}
/* Ends the case as skipped, loudly. */
static inline void own_skip(const char *why)
{
    printf("    SKIPPED: %s\n", why);
    fflush(stdout);
    _exit(77);
}
static inline int64_t own_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
/* A helper process of a case; it ends with own_leave() and its parent asks own_reap() whether it was content. */
static inline pid_t own_fork(void)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        own_checks = own_bad = 0;
    }
    return pid;
}
static inline int own_reap(pid_t pid)
{
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
static inline int own_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}
static inline int own_is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}
/* Descriptors that this process holds (the one that reads the directory not counted). */
static inline int own_count_fds(void)
{
    int count = -1;
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return count;
}
static inline void own_case(const char *name, void (*run)(void), unsigned deadline_s)
{
    static int number;
    char sub[320];
    if (!own_dir[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(own_dir, sizeof own_dir, "%s/logship-own.XXXXXX", tmp && *tmp && strlen(tmp) < 200 ? tmp : "/tmp");
        if (!mkdtemp(own_dir))
            perror(own_dir), exit(2);
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    }
    snprintf(sub, sizeof sub, "%s/%d", own_dir, ++number);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        signal(SIGPIPE, SIG_DFL); /* a test runner may have ignored it */
        signal(SIGALRM, SIG_DFL);
        if (mkdir(sub, 0700) != 0 || chdir(sub) != 0)
            perror(sub), _exit(1);
        alarm(deadline_s);
        run();
        own_leave();
    }
    int code = pid > 0 ? own_reap(pid) : 1;
    if (pid > 0)
        kill(-pid, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    const char *word = code == 0 ? "PASS" : code == 77 ? "SKIP" : "FAIL";
    printf("%-72s %s", name, word);
    if (code == 2)
        printf(" (checked nothing)");
    else if (code == 128 + SIGALRM)
        printf(" (still running after %u s)", deadline_s);
    else if (code > 128)
        printf(" (killed by signal %d)", code - 128);
    printf("\n");
    own_passed += code == 0;
    own_skipped += code == 77;
    own_failed += code != 0 && code != 77;
}
static inline int own_end(void)
{
    if (own_dir[0])
        nftw(own_dir, own_remove, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (own_skipped)
        printf("%d skipped\n", own_skipped);
    printf("%d passed, %d failed\n", own_passed, own_failed);
    fflush(stdout);
    return own_failed != 0;
}
#define CASE(name, function) own_case(name, function, 20)

#endif
