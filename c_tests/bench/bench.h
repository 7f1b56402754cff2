/*
 * What the subjects of the benchmark share. Every subject runs in a process of its own, in a directory of its own, and
 * prints its figures as lines `name value unit` on stdout; c_tests/bench.c starts it, c_tests/run_bench.sh reads it.
 *
 * The same sources are built twice: against logship, and with -DPLAIN_C against the course's functions in plain C.
 * The including file defines _GNU_SOURCE before its first #include.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "w10/wal_record.h"
#include "w11/repl_config.h"

/* Ends the process: a figure from a call that failed would be worse than none. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s (errno: %s)\n", __FILE__, __LINE__, #condition, strerror(errno));       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum {
    KEY_LEN = 16,       /* "key-000000000042" */
    SMALL_VALUE = 16,
    LARGE_VALUE = 100,
    PATIENCE_MS = 120000 /* only a bug makes a wait this long */
};

/* ---- time and figures -------------------------------------------------------------------------------------------- */

double now_s(void);
void emit(const char *name, double value, const char *unit);
double median(double *values, size_t count);    /* sorts them */

/* How many records or keys the large subjects use: BENCH_RECORDS, else 1,000,000. */
int bench_records(void);

/* ---- records ----------------------------------------------------------------------------------------------------- */

/* A record together with the strings that it points to. */
struct sample {
    struct wal_record record;
    char key[KEY_LEN + 1];
    char value[LARGE_VALUE + 1];
};

void fill_sample(struct sample *sample, int number, int value_len);

/* Writes a log of records 1 to `count` through the C encoder, with one fsync at the end. */
void write_log(const char *path, int count, int value_len);

/* A new file with the first `bytes` bytes of another. */
void copy_file(const char *from, const char *to, off_t bytes);
off_t file_size(const char *path);

/*
 * Touches `bytes` and gives them back to the kernel. On a virtual machine that reports its free pages to the host,
 * the first touch after a while costs twenty times the second: that would be a figure of the host, and of chance.
 */
void warm_machine(size_t bytes);

/* Makes malloc(3) keep its memory, and touches `bytes` of it, so that what follows pays for no page faults there. */
void touch_heap(size_t bytes);

/* ---- other processes --------------------------------------------------------------------------------------------- */

/* Runs body(argument) in a forked process, which ends with 0 when it returns, and with its parent in any case. */
pid_t start_process(void (*body)(void *argument), void *argument);
void reap(pid_t pid);

/* A connection to a process that was started with what listen_any returned: port 0, so no two runs meet. */
int listen_any(struct repl_node *node);
void connect_node(struct repl_node *node);

/* ---- the subjects ------------------------------------------------------------------------------------------------ */

void bench_probe(void);
void bench_crc32(void);
void bench_codec(void);
void bench_store(void);
void bench_store_cold(void);
void bench_append(void);
void bench_recover(void);
void bench_recover_cold(void);
void bench_quorum(void);
void bench_catch_up(void);
void bench_rejoin(void);

/*
 * Probes that other subjects repeat beside their own figures, because the disk's and the scheduler's mood change
 * by the second.
 */
void append_64_and_fsync(int fd);
int open_probe_file(const char *name);

/* The near end of a loopback connection whose far end, a process, sends back every 16 bytes. */
struct echo {
    int fd;
    pid_t pid;
};

/* With a file name the far end appends 64 bytes there and fsyncs before it answers. */
void echo_start(struct echo *echo, const char *fsync_name);
void echo_ask(const struct echo *echo);
void echo_answer(const struct echo *echo);
void echo_stop(struct echo *echo);

#endif
