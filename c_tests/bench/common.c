/* Time, figures, records, files and processes for the subjects. Measures nothing by itself. */
#define _GNU_SOURCE
#include "bench.h"

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "w10/wal_writer.h"

double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void emit(const char *name, double value, const char *unit)
{
    printf("%s %.6g %s\n", name, value, unit);
    fflush(stdout);
}

static int by_size(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

double median(double *values, size_t count)
{
    MUST(count > 0);
    qsort(values, count, sizeof *values, by_size);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

int bench_records(void)
{
    const char *set = getenv("BENCH_RECORDS");
    int count = set != NULL ? atoi(set) : 1000000;

    MUST(count >= 2000);
    return count;
}

void fill_sample(struct sample *sample, int number, int value_len)
{
    MUST(value_len <= LARGE_VALUE);
    memset(sample, 0, sizeof *sample);
    snprintf(sample->key, sizeof sample->key, "key-%012d", number);
    for (int i = 0; i < value_len; i++)
        sample->value[i] = (char)('a' + (number + i) % 26);
    sample->record.op = WAL_OP_SET;
    sample->record.key = sample->key;
    sample->record.key_len = KEY_LEN;
    sample->record.value = sample->value;
    sample->record.value_len = (uint16_t)value_len;
    sample->record.timestamp = (uint64_t)number;
}

void write_log(const char *path, int count, int value_len)
{
    enum { BUFFER = 1 << 20 };
    uint8_t *buffer = malloc(BUFFER);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    size_t filled = 0;
    struct sample sample;

    MUST(buffer != NULL && fd >= 0);
    for (int number = 1; number <= count; number++) {
        int len;

        fill_sample(&sample, number, value_len);
        len = wal_record_encode(&sample.record, buffer + filled, BUFFER - filled);
        MUST(len > 0);
        filled += (size_t)len;
        if (filled > BUFFER - 1024 || number == count) {
            MUST(write_full(fd, buffer, filled) == 0);
            filled = 0;
        }
    }
    MUST(fsync(fd) == 0);
    MUST(close(fd) == 0);
    free(buffer);
}

off_t file_size(const char *path)
{
    struct stat st;

    MUST(stat(path, &st) == 0);
    return st.st_size;
}

void copy_file(const char *from, const char *to, off_t bytes)
{
    enum { BUFFER = 1 << 20 };
    uint8_t *buffer = malloc(BUFFER);
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    MUST(buffer != NULL && in >= 0 && out >= 0);
    while (bytes > 0) {
        size_t part = bytes < BUFFER ? (size_t)bytes : BUFFER;

        MUST(read_full(in, buffer, part) == (ssize_t)part);
        MUST(write_full(out, buffer, part) == 0);
        bytes -= (off_t)part;
    }
    MUST(fsync(out) == 0);
    MUST(close(in) == 0 && close(out) == 0);
    free(buffer);
}

void warm_machine(size_t bytes)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    MUST(memory != MAP_FAILED);
    /* Without huge pages it is only slower. */
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 1, bytes);
    MUST(munmap(memory, bytes) == 0);
}

void touch_heap(size_t bytes)
{
    char *memory;

    /* One heap that never shrinks: no allocation below has a mapping of its own. */
    MUST(mallopt(M_MMAP_MAX, 0) == 1);
    MUST(mallopt(M_TRIM_THRESHOLD, INT32_MAX) == 1);
    memory = malloc(bytes);
    MUST(memory != NULL);
    memset(memory, 1, bytes);
    free(memory);
}

pid_t start_process(void (*body)(void *argument), void *argument)
{
    pid_t parent = getpid();
    pid_t pid;

    fflush(NULL);
    pid = fork();
    MUST(pid >= 0);
    if (pid > 0)
        return pid;
    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    MUST(getppid() == parent);
    body(argument);
    exit(0);
}

void reap(pid_t pid)
{
    int status = 0;

    MUST(waitpid(pid, &status, 0) == pid);
    MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int listen_any(struct repl_node *node)
{
    int fd;

    node->port = 0;
    fd = repl_listen(node);
    MUST(fd >= 0 && node->port != 0);
    return fd;
}

void connect_node(struct repl_node *node)
{
    MUST(repl_connect(node) == 0);
}
