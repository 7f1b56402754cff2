/* What the machine can do: the figures beside which all others are read. No function of either library is measured. */
#define _GNU_SOURCE
#include "bench.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "w10/wal_writer.h"
#include "w11/repl_ship.h"

enum { FSYNCS = 400, ROUND_TRIPS = 4000, STREAM_CHUNK = 256 * 1024 };

#define STREAM_BYTES (512L << 20)

int open_probe_file(const char *name)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

    MUST(fd >= 0);
    return fd;
}

void append_64_and_fsync(int fd)
{
    static const char bytes[64] = "64 bytes, as a small record has";

    MUST(write_full(fd, bytes, sizeof bytes) == 0);
    MUST(fsync(fd) == 0);
}

/* ---- a process that sends back every 16 bytes -------------------------------------------------------------------- */

struct far_end {
    int listen_fd;
    const char *fsync_name;
};

static void echo_body(void *argument)
{
    const struct far_end *self = argument;
    int fd = repl_accept(self->listen_fd);
    int file = self->fsync_name != NULL ? open_probe_file(self->fsync_name) : -1;
    char bytes[16];

    MUST(fd >= 0);
    while (recv(fd, bytes, sizeof bytes, MSG_WAITALL) == (ssize_t)sizeof bytes) {
        if (file >= 0)
            append_64_and_fsync(file);
        MUST(send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) == (ssize_t)sizeof bytes);
    }
    close(fd);
}

static void connect_to_child(struct echo *echo, void (*body)(void *argument), const char *fsync_name)
{
    struct replication_config config;
    struct repl_node *node = &config.followers[0];
    struct far_end far_end = {.fsync_name = fsync_name};

    MUST(repl_config_init(&config) == 0);
    far_end.listen_fd = listen_any(node);
    echo->pid = start_process(body, &far_end);
    connect_node(node);
    close(far_end.listen_fd);
    echo->fd = node->fd;
}

void echo_start(struct echo *echo, const char *fsync_name)
{
    connect_to_child(echo, echo_body, fsync_name);
}

void echo_ask(const struct echo *echo)
{
    char bytes[16] = "16 bytes, an ack";

    MUST(send(echo->fd, bytes, sizeof bytes, MSG_NOSIGNAL) == (ssize_t)sizeof bytes);
}

void echo_answer(const struct echo *echo)
{
    char bytes[16];

    MUST(recv(echo->fd, bytes, sizeof bytes, MSG_WAITALL) == (ssize_t)sizeof bytes);
}

void echo_stop(struct echo *echo)
{
    MUST(close(echo->fd) == 0);
    reap(echo->pid);
}

/* ---- the figures ------------------------------------------------------------------------------------------------- */

static void probe_fsync(void)
{
    static double one[FSYNCS], two[FSYNCS];
    int first = open_probe_file("probe-1"), second = open_probe_file("probe-2");

    for (int i = 0; i < FSYNCS; i++) {
        double start = now_s();

        append_64_and_fsync(first);
        one[i] = now_s() - start;
        append_64_and_fsync(second);
        two[i] = now_s() - start;
    }
    MUST(close(first) == 0 && close(second) == 0);
    emit("probe.fsync_per_s", 1 / median(one, FSYNCS), "1/s");
    emit("probe.two_fsyncs", median(two, FSYNCS) * 1e6, "us");
}

static void probe_round_trip(void)
{
    static double each[ROUND_TRIPS];
    struct echo echo;

    echo_start(&echo, NULL);
    for (int i = 0; i < ROUND_TRIPS; i++) {
        double start = now_s();

        echo_ask(&echo);
        echo_answer(&echo);
        each[i] = now_s() - start;
    }
    echo_stop(&echo);
    emit("probe.round_trip", median(each, ROUND_TRIPS) * 1e6, "us");
}

static void sink_body(void *argument)
{
    int fd = repl_accept(((const struct far_end *)argument)->listen_fd);
    char *buffer = malloc(STREAM_CHUNK);
    long left = STREAM_BYTES;

    MUST(fd >= 0 && buffer != NULL);
    while (left > 0) {
        ssize_t got = recv(fd, buffer, STREAM_CHUNK, 0);

        MUST(got > 0);
        left -= got;
    }
    MUST(send(fd, "e", 1, MSG_NOSIGNAL) == 1);
    free(buffer);
    close(fd);
}

static void probe_stream(void)
{
    struct echo sink;
    char *chunk = calloc(1, STREAM_CHUNK);
    double start;
    char end;

    MUST(chunk != NULL);
    connect_to_child(&sink, sink_body, NULL);
    start = now_s();
    for (long left = STREAM_BYTES; left > 0; left -= STREAM_CHUNK)
        MUST(send_full(sink.fd, chunk, STREAM_CHUNK) == 0);
    MUST(recv(sink.fd, &end, 1, MSG_WAITALL) == 1);
    emit("probe.loopback_stream", (double)STREAM_BYTES / (now_s() - start) / 1e6, "MB/s");
    echo_stop(&sink);
    free(chunk);
}

void bench_probe(void)
{
    probe_fsync();
    probe_round_trip();
    probe_stream();
}
