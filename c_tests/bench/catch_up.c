/*
 * A follower that was away: the time from the call of repl_catch_up to its return, when the last byte is handed to
 * TCP, and to the moment when the follower has it all. One follower only counts bytes, as fast as they come: the
 * leader's side and the loopback. The other stores every record with an fsync of its own and acknowledges it: then
 * the disk is the limit, so it misses no more than the last 1,000.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <sys/socket.h>
#include <unistd.h>

#include "w09/kv_store.h"
#include "w10/wal_writer.h"
#include "w11/repl_ack.h"
#include "w11/repl_quorum.h"
#include "w11/repl_rejoin.h"
#include "w11/repl_ship.h"
#ifndef PLAIN_C
#include "logship.h"
#endif

enum { TAIL = 1000 };

static const char leader_path[] = "catch-up-leader.wal", follower_path[] = "catch-up-follower.wal";

struct follower {
    struct repl_node leader;
    uint64_t last_lsn;
    off_t bytes;                /* of frames to come */
};

static int rejoin(const struct follower *self)
{
    struct repl_node leader = self->leader;

    connect_node(&leader);
    return leader.fd;
}

/* Says what a plain follower says, so that both leaders send it the lesson's bytes and nothing else. */
static void count_bytes(void *argument)
{
    const struct follower *self = argument;
    int fd = rejoin(self);
    uint8_t message[8];
    char *buffer = malloc(1 << 20);
    off_t left = self->bytes;

    MUST(buffer != NULL);
    for (int i = 0; i < 8; i++)
        message[i] = (uint8_t)(self->last_lsn >> (8 * (7 - i)));
    MUST(send_full(fd, message, sizeof message) == 0);
    while (left > 0) {
        ssize_t got = recv(fd, buffer, 1 << 20, 0);

        MUST(got > 0);
        left -= got;
    }
    MUST(left == 0);
    /* "I have it all", in the one form that a leader understands. */
    MUST(repl_send_ack(fd, (uint64_t)bench_records(), REPL_ACK_OK) == 0);
    MUST(recv(fd, buffer, 1, 0) == 0);
    free(buffer);
    close(fd);
}

static void store_records(void *argument)
{
    const struct follower *self = argument;
    struct wal_writer wal;
    struct kv_store store;
    int fd;

    MUST(kv_store_init(&store) == 0);
    MUST(wal_open(&wal, follower_path) == 0);
    fd = rejoin(self);
    MUST(repl_follower_rejoin(fd, self->last_lsn) == 0);
#ifdef PLAIN_C
    for (uint64_t lsn = self->last_lsn + 1; repl_receive_record(fd, &wal, &store) == 0; lsn++)
        MUST(repl_send_ack(fd, lsn, REPL_ACK_OK) == 0);
#else
    while (logship_follow(fd, &wal, &store) == 0)
        ;
#endif
    MUST(errno == ENOTCONN);
    MUST(wal_close(&wal) == 0);
    kv_store_destroy(&store);
    close(fd);
}

static void catch_up(const char *name, int missed, void (*body)(void *argument))
{
    struct replication_config config;
    struct follower follower;
    uint64_t last = (uint64_t)bench_records(), said;
    off_t record = file_size(leader_path) / (off_t)last;
    double start, shipped, acked;
    int listen_fd;
    pid_t pid;
    char line[64];

    MUST(repl_config_init(&config) == 0);
    config.follower_count = 1;
    MUST(repl_set_wal(&config, leader_path) == 0);
    listen_fd = listen_any(&config.leader);
    follower.leader = config.leader;
    follower.last_lsn = last - (uint64_t)missed;
    follower.bytes = missed * (4 + record);
    pid = start_process(body, &follower);
    config.followers[0].fd = repl_accept(listen_fd);
    MUST(config.followers[0].fd >= 0);
    MUST(repl_read_rejoin(config.followers[0].fd, &said) == 0 && said == follower.last_lsn);

    start = now_s();
    MUST(repl_catch_up(&config, 0, said) == missed);
    shipped = now_s() - start;
    MUST(repl_wait_quorum(&config, last, PATIENCE_MS) == 0);
    acked = now_s() - start;

    close(config.followers[0].fd);
    close(listen_fd);
    reap(pid);
    snprintf(line, sizeof line, "catch_up.%s_sent", name);
    emit(line, shipped * 1e3, "ms");
    snprintf(line, sizeof line, "catch_up.%s_acked", name);
    emit(line, acked * 1e3, "ms");
}

void bench_catch_up(void)
{
    int count = bench_records();
    struct wal_writer wal;

    write_log(leader_path, count, LARGE_VALUE);
    copy_file(leader_path, follower_path, file_size(leader_path) / count * (count - TAIL));
    /* As in a leader that is running: its log is open, and what is known of it is there. */
    MUST(wal_open(&wal, leader_path) == 0);
    catch_up("all_counted", count, count_bytes);
    catch_up("last_1000_counted", TAIL, count_bytes);
    catch_up("last_1000_stored", TAIL, store_records);
    MUST(wal_close(&wal) == 0);
}
