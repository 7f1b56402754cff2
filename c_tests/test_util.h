/*
 * What the lessons' programs share: checks that say what went wrong, and a supervisor that gives a test a fresh
 * directory and a deadline, and that cleans up after it however it ends.
 *
 * The including file defines _GNU_SOURCE before its first #include.
 */
#ifndef LESSON_TEST_UTIL_H
#define LESSON_TEST_UTIL_H

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Longer than any test needs, under valgrind on a busy machine too: it only ends a test that hangs. */
#ifndef TEST_DEADLINE_S
#define TEST_DEADLINE_S 120
#endif

/*
 * A failed check ends the process at once. Nothing is cleaned up here: the supervisor below does that from outside, so
 * that a check may fail anywhere, in a follower as well as in the leader.
 */
static inline void test_fail(const char *file, int line, const char *what)
{
    int why = errno;

    fflush(stdout);
    fprintf(stderr, "%s:%d: check failed: %s (errno %d: %s)\n", file, line, what, why, strerror(why));
    _exit(1);
}

static inline void test_fail_number(const char *file, int line, const char *what, long long got, long long want)
{
    int why = errno;

    fflush(stdout);
    fprintf(stderr, "%s:%d: check failed: %s is %lld, expected %lld (errno %d: %s)\n", file, line, what, got, want, why,
            strerror(why));
    _exit(1);
}

static inline void test_check_string(const char *file, int line, const char *what, const char *got, const char *want)
{
    if (got != NULL && strcmp(got, want) == 0)
        return;
    fflush(stdout);
    fprintf(stderr, "%s:%d: check failed: %s is %s, expected %s\n", file, line, what, got == NULL ? "(nil)" : got, want);
    _exit(1);
}

#define CHECK(condition)                                     \
    do {                                                     \
        if (!(condition))                                    \
            test_fail(__FILE__, __LINE__, #condition);       \
    } while (0)

#define CHECK_EQ(got, want)                                                       \
    do {                                                                          \
        long long got_ = (long long)(got), want_ = (long long)(want);             \
        if (got_ != want_)                                                        \
            test_fail_number(__FILE__, __LINE__, #got, got_, want_);              \
    } while (0)

#define CHECK_STR(got, want) test_check_string(__FILE__, __LINE__, #got, (got), (want))

/* ---- the supervisor ---------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t test_interrupted;
static volatile sig_atomic_t test_group;

/* kill(2) is safe in a signal handler, the rest of the cleaning up is not: it follows when waiting ends. */
static inline void test_on_signal(int signo)
{
    test_interrupted = signo;
    if (test_group > 0)
        kill(-(pid_t)test_group, SIGKILL);
}

static inline void test_catch_signals(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = test_on_signal;
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGINT, &action, NULL) == 0);
    CHECK(sigaction(SIGTERM, &action, NULL) == 0);
    CHECK(sigaction(SIGHUP, &action, NULL) == 0);
}

static inline void test_make_dir(char *dir, size_t size)
{
    const char *tmp = getenv("TMPDIR");
    int n = snprintf(dir, size, "%s/logship-test-XXXXXX", tmp != NULL && *tmp != '\0' ? tmp : "/tmp");

    CHECK(n > 0 && (size_t)n < size);
    CHECK(mkdtemp(dir) != NULL);
}

/* The tests make no directories inside theirs, so one level is all there is to remove. */
static inline void test_remove_dir(const char *dir)
{
    DIR *handle = opendir(dir);
    struct dirent *entry;

    CHECK(handle != NULL);
    while ((entry = readdir(handle)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            CHECK(unlinkat(dirfd(handle), entry->d_name, 0) == 0);
    }
    closedir(handle);
    CHECK(rmdir(dir) == 0);
}

/* The process that runs the test. exit() and not _exit(): leak checkers look at it then. */
static inline void test_run_body(void (*body)(void), int stderr_fd, const char *dir, pid_t supervisor)
{
    if (stderr_fd != STDERR_FILENO) {
        CHECK(dup2(stderr_fd, STDERR_FILENO) == STDERR_FILENO);
        CHECK(close(stderr_fd) == 0);
    }
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    CHECK(setpgid(0, 0) == 0);
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    CHECK(getppid() == supervisor);
    CHECK(chdir(dir) == 0);
    alarm(TEST_DEADLINE_S);
    body();
    exit(0);
}

/*
 * Waits until the test is over and ends what it left behind. The test's process stays a zombie (WNOWAIT) until its group
 * has been killed: as long as it is there, nobody else can have its number. Orphaned followers become children of this
 * process (it is a subreaper), so that they are reaped too. Returns how many there were.
 */
static inline int test_reap(pid_t pid, int *status)
{
    siginfo_t info;
    int left_behind = 0;

    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        CHECK(errno == EINTR);
    kill(-pid, SIGKILL);
    while (waitpid(pid, status, 0) != pid)
        CHECK(errno == EINTR);
    for (;;) {
        if (waitpid(-1, NULL, 0) > 0)
            left_behind++;
        else if (errno == ECHILD)
            return left_behind;
    }
}

static inline int test_verdict(int status, int left_behind)
{
    if (test_interrupted)
        fprintf(stderr, "interrupted by signal %d\n", (int)test_interrupted);
    else if (WIFSIGNALED(status))
        fprintf(stderr, "the test was ended by signal %d%s\n", WTERMSIG(status),
                WTERMSIG(status) == SIGALRM ? ": it did not finish before its deadline" : "");
    else if (WEXITSTATUS(status) == 0 && left_behind > 0)
        fprintf(stderr, "the test left %d child process(es) behind\n", left_behind);
    else
        return WEXITSTATUS(status);
    return 1;
}

/*
 * Runs body in a child process of its own, inside a fresh directory which is its current one, and returns 0 if it
 * passed. A test starts from nothing that way, and whatever happens in it (a failed check, a crash, a hang), its
 * followers are ended and reaped and its files are gone afterwards. Its stderr is stderr_fd.
 */
static inline int run_test_to(void (*body)(void), int stderr_fd)
{
    char dir[PATH_MAX];
    pid_t supervisor = getpid(), pid;
    int status = 0, left_behind;

    test_catch_signals();
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    test_make_dir(dir, sizeof dir);
    fflush(NULL);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        test_run_body(body, stderr_fd, dir, supervisor);
    setpgid(pid, pid); /* here as well as in the child: whichever comes first */
    test_group = pid;
    if (test_interrupted)
        kill(-pid, SIGKILL);
    left_behind = test_reap(pid, &status);
    test_group = 0;
    test_remove_dir(dir);
    return test_verdict(status, left_behind);
}

/* What main() of a program with one test returns. */
static inline int run_test(void (*body)(void))
{
    return run_test_to(body, STDERR_FILENO);
}

/* ---- a table of tests: what the two harness programs print ------------------------------------------------------- */

struct test_case {
    const char *label;
    void (*body)(void);
};

static inline void test_copy_to_stderr(int fd)
{
    char buffer[4096];
    ssize_t n;

    fflush(stdout);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        fwrite(buffer, 1, (size_t)n, stderr);
    CHECK(close(fd) == 0);
}

/*
 * One line a test. A test of failures makes the library say things on stderr: they are kept (in memory) until the line is
 * whole and follow it then, so that nothing stands in the middle of it and nothing is hidden.
 */
static inline int run_table_row(int number, const struct test_case *test)
{
    int stderr_fd = memfd_create("stderr of the test", MFD_CLOEXEC), failed;

    CHECK(stderr_fd >= 0);
    printf("[test %d] %s... ", number, test->label);
    failed = run_test_to(test->body, stderr_fd);
    printf("%s\n", failed ? "FAIL" : "PASS");
    test_copy_to_stderr(stderr_fd);
    return !failed;
}

/* Runs all of them, also after one has failed. Returns the exit code of the program. */
static inline int run_test_table(const struct test_case *tests, int count)
{
    int passed = 0;

    for (int i = 0; i < count && !test_interrupted; i++)
        passed += run_table_row(i + 1, &tests[i]);
    printf("%d/%d tests passed\n", passed, count);
    return passed == count ? 0 : 1;
}

#endif
