/*
 * The benchmark over the public C functions: bench [SUBJECT...] prints one line `name value unit` for each figure.
 *
 * Each subject runs in a process and a directory of its own, under $BENCH_DIR, else $TMPDIR, else /tmp. Whatever
 * happens, Ctrl-C included, its processes are ended and reaped and its directory removed. Exit code 0 if all ran;
 * figures are never judged here.
 */
#define _GNU_SOURCE
#include "bench/bench.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct subject {
    const char *name;
    void (*run)(void);
} subjects[] = {
    {"probe", bench_probe},
    {"crc32", bench_crc32},
    {"codec", bench_codec},
    {"store", bench_store},
    {"store_cold", bench_store_cold},
    {"append", bench_append},
    {"recover", bench_recover},
    {"recover_cold", bench_recover_cold},
    {"quorum", bench_quorum},
    {"catch_up", bench_catch_up},
    {"rejoin", bench_rejoin},
};

enum { SUBJECTS = sizeof subjects / sizeof subjects[0] };

static volatile sig_atomic_t interrupted;
static volatile pid_t running;      /* the subject and its process group; 0 for none */

/* Ends the subject, so that nobody waits for it in vain; the rest is done outside of the handler. */
static void on_signal(int number)
{
    interrupted = number;
    if (running > 0)
        kill(-running, SIGKILL);
}

static void make_directory(char *path, size_t size)
{
    const char *base = getenv("BENCH_DIR");

    if (base == NULL || base[0] == '\0')
        base = getenv("TMPDIR");
    if (base == NULL || base[0] == '\0')
        base = "/tmp";
    MUST((size_t)snprintf(path, size, "%s/logship-bench-XXXXXX", base) < size);
    if (mkdtemp(path) == NULL) {
        fprintf(stderr, "bench: cannot make a directory in %s: %s\n", base, strerror(errno));
        exit(1);
    }
}

/* Subjects make files and no directories. */
static void remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;

    MUST(directory != NULL);
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            MUST(unlinkat(dirfd(directory), entry->d_name, 0) == 0);
    }
    closedir(directory);
    MUST(rmdir(path) == 0);
}

/*
 * Waits for the subject; ends and reaps whatever it has left behind, which is handed to this process. 0 if it went
 * well.
 */
static int wait_for(pid_t pid)
{
    int status = 0, left;
    pid_t ended;

    do
        ended = waitpid(pid, &status, 0);
    while (ended < 0 && errno == EINTR);
    MUST(ended == pid);
    running = 0;
    kill(-pid, SIGKILL);
    do
        ended = wait(&left);
    while (ended > 0 || (ended < 0 && errno == EINTR));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static int run_subject(const struct subject *subject)
{
    char path[4096];
    pid_t parent = getpid(), pid;
    int result;

    make_directory(path, sizeof path);
    fflush(NULL);
    pid = fork();
    MUST(pid >= 0);
    if (pid == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        MUST(chdir(path) == 0);
        subject->run();
        exit(0);
    }
    setpgid(pid, pid);
    running = pid;
    if (interrupted) /* before `running` was set */
        kill(-pid, SIGKILL);
    result = wait_for(pid);
    remove_directory(path);
    if (result != 0 && !interrupted)
        fprintf(stderr, "bench: %s failed\n", subject->name);
    return result;
}

static const struct subject *find_subject(const char *name)
{
    for (int i = 0; i < SUBJECTS; i++)
        if (strcmp(subjects[i].name, name) == 0)
            return &subjects[i];
    fprintf(stderr, "bench: no subject %s; there are:", name);
    for (int i = 0; i < SUBJECTS; i++)
        fprintf(stderr, " %s", subjects[i].name);
    fprintf(stderr, "\n");
    exit(2);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    int failed = 0;

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    for (int i = 1; i < argc; i++)
        find_subject(argv[i]);
    for (int i = 0; i < (argc > 1 ? argc - 1 : SUBJECTS) && !interrupted; i++)
        failed |= run_subject(argc > 1 ? find_subject(argv[i + 1]) : &subjects[i]);
    if (interrupted)
        return 128 + (int)interrupted;
    return failed != 0;
}
