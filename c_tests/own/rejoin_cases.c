/* Rejoin and catch-up, one end or the other played by hand: the message's bytes, the ranges, each error, the connection
 * that a follower opens anew, the slot that a leader finds, and the heartbeat that finds a stopped process. */
#include "wire.h"
#include "logship.h"
#include <pthread.h>

static struct replication_config config;
static struct wal_writer writer;
static int peer[MAX_FOLLOWERS];
static uint8_t log_bytes[4096];
static size_t ends[32]; /* where record n ends in the log, from 1 */

static void quiet(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}
/* Records 1..count by hand; sizes differ, so that a wrong offset shows. */
static void make_log(int count)
{
    for (int n = 1; n <= count; n++) {
        char key[16], value[40];
        sprintf(key, "key%d", n);
        snprintf(value, sizeof value, "value%d%.*s", n, n, "abcdefghijklmnopqrstuvwxyz");
        ends[n] = ends[n - 1] + own_set(log_bytes + ends[n - 1], key, value, (uint64_t)(1000 + n));
    }
}
static const uint8_t *rec(int n)
{
    return log_bytes + ends[n - 1];
}
static size_t len(int n)
{
    return ends[n] - ends[n - 1];
}
static void append(int n)
{
    struct wal_record record;
    REQUIRE(wal_record_decode(rec(n), len(n), &record) == 0);
    REQUIRE(wal_append(&writer, &record) == 0);
    wal_record_free(&record);
}
static void make_config(int count)
{
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = count;
    for (int i = 0; i < count; i++)
        config.followers[i].host = "127.0.0.1";
}
static void connect_slot(int i, int online)
{
    REQUIRE(own_pair(&config.followers[i].fd, &peer[i], 0) == 0);
    config.followers[i].online = (uint8_t)online;
}
/* A leader with a log of ten, follower 0 online, follower 1 connected anew and offline. */
static void start(void)
{
    make_log(14);
    make_config(2);
    REQUIRE(wal_open(&writer, "leader.wal") == 0);
    for (int n = 1; n <= 10; n++)
        append(n);
    connect_slot(0, 1);
    connect_slot(1, 0);
}
static int frames_are(int fd, int from, int to)
{
    for (int n = from; n <= to; n++)
        if (!own_frame_is(fd, rec(n), len(n)))
            return 0;
    return 1;
}

/* ---- the message ---- */

static void message_bytes(void)
{
    uint8_t got[24], want[24];
    const uint64_t lsns[] = {5, 0, 0x0102030405060708u};
    for (int i = 0; i < 6; i++) {
        int leader, follower, fds, node = i < 3 ? 0 : 7;
        uint64_t lsn = lsns[i % 3];
        REQUIRE(own_pair(&leader, &follower, 0) == 0 && logship_set_self(node) == 0);
        fds = own_count_fds();
        CHECK_EQ(repl_follower_rejoin(follower, lsn), 0); /* the live connection is the new connection */
        own_put_be(want, lsn, 8);
        own_ack(want + 8, lsn, REPL_ACK_OK, 1);
        want[8 + 14] = (uint8_t)node;
        CHECK(own_get(leader, got, node ? 24 : 8)); /* of a node with a number: an ack behind it, marked */
        CHECK(memcmp(got, want, node ? 24 : 8) == 0);
        CHECK(own_quiet(follower, leader));
        CHECK_EQ(own_count_fds(), fds);
        close(leader), close(follower);
    }
}
static void *dribble(void *fds)
{
    uint8_t bytes[8];
    own_put_be(bytes, 0x0102030405060708u, 8);
    for (int i = 0; i < 8; i++) {
        own_put_all(((int *)fds)[0], bytes + i, 1);
        own_drained(((int *)fds)[1], 20);
    }
    return NULL;
}
static void reading_the_message(void)
{
    int follower, leader, pair[2];
    uint64_t lsn = 0;
    uint8_t bytes[64], got[16], want[16];
    pthread_t thread;
    REQUIRE(own_pair(&leader, &follower, 0) == 0);
    own_put_be(bytes, 5, 8);
    own_ack(bytes + 8, 5, REPL_ACK_OK, 1);
    own_ack(bytes + 24, 6, REPL_ACK_OK, 1); /* an ack for a record, behind it: not part of the message */
    CHECK(own_put_all(follower, bytes, 40) == 0 && own_settle(leader, 40));
    CHECK_EQ(repl_read_rejoin(leader, &lsn), 0);
    CHECK_EQ(lsn, 5);
    CHECK(recv_full(leader, got, 16) == 0 && memcmp(got, bytes + 24, 16) == 0);
    close(leader), close(follower);

    REQUIRE(own_pair(&leader, &follower, 0) == 0); /* a plain follower: the 8 bytes, then acks of its own */
    own_put_be(bytes, 7, 8);
    own_ack(bytes + 8, 8, REPL_ACK_OK, 0);
    own_ack(want, 8, REPL_ACK_OK, 0);
    CHECK(own_put_all(follower, bytes, 24) == 0 && own_settle(leader, 24));
    CHECK_EQ(repl_read_rejoin(leader, &lsn), 0);
    CHECK_EQ(lsn, 7);
    CHECK(recv_full(leader, got, 16) == 0 && memcmp(got, want, 16) == 0);
    own_put_be(bytes, 9, 8); /* and one that says nothing more */
    CHECK(own_put_all(follower, bytes, 8) == 0);
    int64_t from = own_now_ms();
    CHECK_EQ(repl_read_rejoin(leader, &lsn), 0);
    CHECK_EQ(lsn, 9);
    CHECK(own_now_ms() - from < 4000); /* nobody waits for an ack that does not come */
    pair[0] = follower, pair[1] = leader;
    REQUIRE(pthread_create(&thread, NULL, dribble, pair) == 0);
    CHECK_EQ(repl_read_rejoin(leader, &lsn), 0);
    CHECK(lsn == 0x0102030405060708u);
    pthread_join(thread, NULL);
    close(follower);
    CHECK_EQ(repl_read_rejoin(leader, &lsn), -1);
    close(leader);
    for (size_t cut = 1; cut < 8; cut++) {
        REQUIRE(own_pair(&leader, &follower, 0) == 0);
        CHECK(own_put_all(follower, bytes, cut) == 0);
        close(follower);
        CHECK_EQ(repl_read_rejoin(leader, &lsn), -1);
        close(leader);
    }
}
static void silent_after_connecting(void)
{
    int leader, follower;
    uint64_t lsn;
    REQUIRE(repl_set_timeouts(200, 200) == 0);
    REQUIRE(own_pair(&leader, &follower, 0) == 0);
    CHECK(own_put_all(follower, "\0\0\0", 3) == 0);
    int64_t from = own_now_ms();
    CHECK_EQ(repl_read_rejoin(leader, &lsn), -1);
    CHECK(own_now_ms() - from < 10000);
}

/* ---- catch-up ---- */

static void ranges(void)
{
    start();
    for (int follower_lsn = 0; follower_lsn <= 10; follower_lsn++) {
        CHECK_EQ(repl_catch_up(&config, 1, (uint64_t)follower_lsn), 10 - follower_lsn);
        CHECK_EQ(config.followers[1].online, 1);
        CHECK(frames_are(peer[1], follower_lsn + 1, 10)); /* those after it, in order, each as it lies in the log */
        CHECK(own_quiet(config.followers[1].fd, peer[1]));
        CHECK(own_quiet(config.followers[0].fd, peer[0])); /* to that follower alone */
        CHECK_EQ(config.followers[0].online, 1);
        close(config.followers[1].fd), close(peer[1]);
        connect_slot(1, 0);
    }
    CHECK(wal_close(&writer) == 0);
    CHECK(own_file_is("leader.wal", log_bytes, ends[10])); /* catch-up only reads */
}
static void from_a_closed_log_and_a_named_one(void)
{
    start();
    CHECK(wal_close(&writer) == 0); /* "the one log that this process opened, open or closed by now" */
    CHECK(mkdir("elsewhere", 0700) == 0 && chdir("elsewhere") == 0); /* its path was made absolute */
    CHECK_EQ(repl_catch_up(&config, 1, 7), 3);
    CHECK(frames_are(peer[1], 8, 10));
    CHECK(own_write_file("other.wal", log_bytes, ends[4]) == 0);
    CHECK_EQ(repl_set_wal(&config, "other.wal"), 0); /* one that is named goes first */
    config.followers[1].online = 0;
    CHECK_EQ(repl_catch_up(&config, 1, 2), 2);
    CHECK(frames_are(peer[1], 3, 4));
    CHECK_EQ(config.followers[1].online, 1);
}
static void from_leader_wal_in_the_directory(void)
{
    make_log(10);
    make_config(1);
    connect_slot(0, 0);
    CHECK_FAILS(repl_catch_up(&config, 0, 0), ENOENT); /* no log at all */
    CHECK_EQ(config.followers[0].online, 0);
    if (config.followers[0].fd < 0) {
        close(peer[0]);
        connect_slot(0, 0);
    }
    CHECK(own_write_file("leader.wal", log_bytes, ends[10]) == 0);
    CHECK_EQ(repl_catch_up(&config, 0, 8), 2);
    CHECK(frames_are(peer[0], 9, 10));
}
static void several_logs(void)
{
    struct wal_writer second;
    start();
    REQUIRE(wal_open(&second, "second.wal") == 0);
    CHECK_FAILS(repl_catch_up(&config, 1, 5), EINVAL); /* it does not guess which of two logs is the leader's */
    CHECK_EQ(config.followers[1].online, 0);
    CHECK_EQ(repl_set_wal(&config, "leader.wal"), 0);
    if (config.followers[1].fd < 0)
        connect_slot(1, 0);
    CHECK_EQ(repl_catch_up(&config, 1, 5), 5);
    CHECK(frames_are(peer[1], 6, 10));
    CHECK(wal_close(&second) == 0);
}
/* A log that repl_receive_record writes is a follower's, and not a candidate. */
static void a_follower_in_the_same_process(void)
{
    struct wal_writer theirs;
    struct kv_store store;
    uint8_t frame[600];
    int a, b;
    start();
    REQUIRE(wal_open(&theirs, "follower.wal") == 0 && kv_store_init(&store) == 0 && own_pair(&a, &b, 0) == 0);
    CHECK(own_put_all(a, frame, own_frame(frame, rec(1), len(1))) == 0);
    CHECK_EQ(repl_receive_record(b, &theirs, &store), 0);
    CHECK_EQ(repl_catch_up(&config, 1, 6), 4);
    CHECK(frames_are(peer[1], 7, 10));
    kv_store_destroy(&store);
    CHECK(wal_close(&theirs) == 0);
}
static void failed(int got, int why, int want)
{
    CHECK_EQ(got, -1);
    CHECK_EQ(why, want);
    CHECK_EQ(config.followers[1].online, 0); /* offline it stays */
    CHECK_EQ(config.followers[0].online, 1);
    if (config.followers[1].fd < 0)
        connect_slot(1, 0);
}
#define FAILED(call, want) do { \
        errno = 0; \
        int failed_got = (call); \
        failed(failed_got, errno, (want)); \
    } while (0)
static void each_error(void)
{
    start();
    FAILED(repl_catch_up(&config, 1, 11), ERANGE); /* the follower is ahead */
    FAILED(repl_catch_up(&config, 1, 1000), ERANGE);
    FAILED(repl_catch_up(&config, 1, UINT64_MAX), ERANGE);
    FAILED(repl_catch_up(&config, 2, 5), EINVAL);
    FAILED(repl_catch_up(&config, -1, 5), EINVAL);
    close(config.followers[1].fd);
    config.followers[1].fd = -1;
    FAILED(repl_catch_up(&config, 1, 5), ENOTCONN); /* and connected anew for what follows */
    CHECK_EQ(repl_set_wal(&config, "missing.wal"), 0);
    FAILED(repl_catch_up(&config, 1, 5), ENOENT);
    CHECK_EQ(repl_set_wal(&config, "leader.wal"), 0);
    CHECK(own_quiet(config.followers[1].fd, peer[1])); /* nothing was sent by all that */
    CHECK_EQ(repl_catch_up(&config, 1, 5), 5);
    CHECK(frames_are(peer[1], 6, 10));
}
static void byte_swapped(void)
{
    start(); /* a program that sent its LSN in host order */
    CHECK_EQ(repl_catch_up(&config, 1, (uint64_t)5 << 56), 5);
    CHECK(frames_are(peer[1], 6, 10));
    CHECK_EQ(config.followers[1].online, 1);
}
static void damage_in_the_range(void)
{
    uint8_t copy[4096];
    start();
    memcpy(copy, log_bytes, ends[10]);
    copy[ends[7] + 12] ^= 0x20; /* record 8 */
    CHECK(own_write_file("damaged.wal", copy, ends[10]) == 0);
    CHECK_EQ(repl_set_wal(&config, "damaged.wal"), 0);
    errno = 0;
    CHECK_EQ(repl_catch_up(&config, 1, 5), -1);
    CHECK_EQ(errno, EBADMSG);
    CHECK_EQ(config.followers[1].online, 0);
    CHECK(frames_are(peer[1], 6, 7)); /* what came before it was shipped; nothing after it was */
    if (config.followers[1].fd >= 0)
        CHECK(own_quiet(config.followers[1].fd, peer[1]));
    else
        CHECK(own_at_eof(peer[1]));
    CHECK(own_file_is("damaged.wal", copy, ends[10]));
}
/* A follower that shows the mark and then sends acks that don't follow in step, more than are kept, and never answers. */
static void flooded_with_acks(void)
{
    start();
    REQUIRE(own_send_ack(peer[1], 5, REPL_ACK_OK, 1) == 0); /* what stands behind a rejoin message */
    for (int n = 0; n < 1500; n++)
        REQUIRE(own_send_ack(peer[1], (uint64_t)(1 + n % 2), REPL_ACK_OK, 1) == 0);
    CHECK_EQ(repl_catch_up(&config, 1, 5), 5); /* it checks for itself, and here nobody does */
    close(peer[1]);
    connect_slot(1, 0);
    REQUIRE(own_send_ack(peer[1], 5, REPL_ACK_OK, 1) == 0);
    for (int n = 0; n < 1500; n++)
        REQUIRE(own_send_ack(peer[1], (uint64_t)(1 + n % 2), REPL_ACK_OK, 1) == 0);
    shutdown(peer[1], SHUT_WR);
    CHECK(own_await(config.followers[1].fd, POLLRDHUP));
    CHECK_EQ(repl_catch_up(&config, 1, 5), -1); /* and has closed */
    CHECK_EQ(config.followers[1].online, 0);
}
/* More acks than are kept, and behind them the answer to a heartbeat. */
static void heartbeat_behind_many_acks(void)
{
    uint8_t answer[16];
    start();
    for (int n = 0; n < 1500; n++)
        REQUIRE(own_send_ack(peer[0], (uint64_t)(1 + n % 2), REPL_ACK_OK, 1) == 0);
    own_ack(answer, 10, REPL_ACK_OK, 1);
    pid_t pid = own_fork();
    if (pid == 0) {
        uint8_t word[4];
        answer[15] = 1;
        CHECK(own_get(peer[0], word, 4) && own_put_all(peer[0], answer, 16) == 0);
        own_leave();
    }
    CHECK_EQ(repl_heartbeat(&config, 5000), 1);
    CHECK_EQ(config.followers[0].online, 1);
    CHECK_EQ(own_reap(pid), 0);
}
/* The log's last record is damaged, or cut, behind the writer that has it open: what is before it is shipped. */
static void damaged_behind_the_writer(void)
{
    for (int how = 0; how < 2; how++)
        for (int has = 5; has <= 9; has += 4) {
            unlink("leader.wal"), unlink("leader.wal.idx");
            start();
            int fd = open("leader.wal", O_WRONLY);
            REQUIRE(fd >= 0);
            if (how)
                REQUIRE(ftruncate(fd, (off_t)ends[10] - 3) == 0);
            else
                REQUIRE(pwrite(fd, "\xEE\xEE", 2, (off_t)ends[10] - 9) == 2);
            close(fd);
            CHECK_FAILS(repl_catch_up(&config, 1, (uint64_t)has), EBADMSG);
            CHECK(config.followers[1].online == 0 && config.followers[1].fd == -1);
            CHECK(frames_are(peer[1], has + 1, 9));
            CHECK(own_at_eof(peer[1]));
            if (own_bad)
                NOTE("the follower has %d, %s", has, how ? "cut" : "damaged");
            close(peer[0]), close(peer[1]), close(config.followers[0].fd);
            (void)wal_close(&writer);
        }
}
static void follower_gone(void)
{
    start();
    close(peer[1]);
    CHECK(own_await(config.followers[1].fd, POLLRDHUP));
    CHECK_EQ(repl_catch_up(&config, 1, 5), -1);
    CHECK_EQ(config.followers[1].online, 0);
}
static int leader_closed(void)
{
    return errno == ENOTCONN || errno == ECONNRESET || errno == EPIPE || errno == ESTALE; /* a reset, if something of ours was unread there */
}
/* The program reads the 8 bytes itself; the ack that follows them from a logship follower is taken off by catch-up. */
static void read_by_the_program(void)
{
    uint8_t message[8], got[16];
    start();
    CHECK(own_write_file("f.wal", log_bytes, ends[10]) == 0);
    pid_t pid = own_fork();
    if (pid == 0) {
        struct wal_writer theirs;
        struct kv_store store;
        close(config.followers[1].fd);
        REQUIRE(kv_store_init(&store) == 0 && wal_open(&theirs, "f.wal") == 0);
        REQUIRE(repl_follower_rejoin(peer[1], 10) == 0);
        while (logship_follow(peer[1], &theirs, &store) == 0)
            ;
        CHECK(leader_closed());
        CHECK_EQ(logship_last_lsn(&theirs), 11);
        own_leave();
    }
    close(peer[1]);
    CHECK(recv_full(config.followers[1].fd, message, 8) == 0 && message[7] == 10);
    CHECK(own_settle(config.followers[1].fd, 16));
    CHECK_EQ(repl_catch_up(&config, 1, 10), 0);
    CHECK_EQ(config.followers[1].online, 1);
    append(11);
    CHECK_EQ(repl_ship_record(&config, rec(11), len(11)), 2);
    CHECK(recv_full(config.followers[1].fd, got, 16) == 0);
    CHECK_EQ(got[0], 11); /* an ack for a record, the first that the program sees */
    CHECK_EQ(got[8], REPL_ACK_OK);
    close(config.followers[1].fd);
    CHECK_EQ(own_reap(pid), 0);
}
static void acks_of_caught_up_records(void)
{
    start();
    CHECK_EQ(repl_catch_up(&config, 1, 5), 5);
    for (int n = 6; n <= 10; n++) {
        CHECK(own_frame_is(peer[1], rec(n), len(n)));
        own_send_ack(peer[1], (uint64_t)n, REPL_ACK_OK, 0);
    }
    for (int n = 6; n <= 10; n++) {
        uint8_t got[16];
        CHECK(recv_full(config.followers[1].fd, got, 16) == 0);
        CHECK_EQ(got[0], n);
    }
}
static void the_newest_is_not_shipped_twice(void)
{
    start();
    append(11);
    CHECK_EQ(repl_catch_up(&config, 1, 5), 6); /* between the append and its ship */
    CHECK(frames_are(peer[1], 6, 11));
    (void)repl_ship_record(&config, rec(11), len(11));
    CHECK(frames_are(peer[0], 11, 11));
    append(12);
    CHECK_EQ(repl_ship_record(&config, rec(12), len(12)), 2);
    CHECK(frames_are(peer[0], 12, 12));
    CHECK(frames_are(peer[1], 12, 12)); /* 12 comes next: 11 was not sent again */
    CHECK(own_quiet(config.followers[1].fd, peer[1]));
    own_send_ack(peer[0], 11, REPL_ACK_OK, 0);
    own_send_ack(peer[1], 11, REPL_ACK_OK, 0);
    CHECK_EQ(repl_wait_quorum(&config, 11, 5000), 0); /* and its ack counts as any other */
}
/* A line of /proc/self/status, in kB. */
static long status_kb(const char *name)
{
    char line[128];
    long kb = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            kb = strtol(line + strlen(name) + 1, NULL, 10);
    if (file)
        fclose(file);
    return kb;
}
/* Far more than the buffers hold, to a follower that sends acks and reads one frame for each it could send. */
static int caught_up_frames;
static void *slow_follower(void *unused)
{
    (void)unused;
    for (;;) {
        static uint8_t frame[70000];
        uint8_t head[4];
        if (!own_get(peer[0], head, 4))
            return NULL;
        size_t size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        if (size > sizeof frame || !own_get(peer[0], frame, size))
            return NULL;
        caught_up_frames++;
        if (own_send_ack(peer[0], (uint64_t)caught_up_frames, REPL_ACK_OK, 0) != 0)
            return NULL;
    }
}
static void large_gap(void)
{
    enum { COUNT = 5000 };
    static char value[4001];
    static uint8_t record[4200];
    pthread_t thread;
    FILE *file = fopen("leader.wal", "wb");
    REQUIRE(file != NULL);
    memset(value, 'v', 4000);
    for (int n = 0; n < COUNT; n++) {
        char key[16];
        sprintf(key, "k%d", n);
        size_t size = own_set(record, key, value, (uint64_t)n + 1);
        REQUIRE(fwrite(record, 1, size, file) == size);
    }
    REQUIRE(fclose(file) == 0);
    make_config(1);
    REQUIRE(own_pair(&config.followers[0].fd, &peer[0], 16384) == 0);
    REQUIRE(repl_set_wal(&config, "leader.wal") == 0);
    REQUIRE(pthread_create(&thread, NULL, slow_follower, NULL) == 0);
    CHECK(own_write_file("/proc/self/clear_refs", "5", 1) == 0); /* the peak counts from here */
    long before = status_kb("VmRSS"), peak;
    CHECK_EQ(repl_catch_up(&config, 0, 0), COUNT);
    peak = status_kb("VmHWM");
    CHECK(before > 0 && peak >= before && peak - before < 12 * 1024); /* not the log's 20 MB */
    CHECK_EQ(config.followers[0].online, 1);
    for (int n = 1; n <= COUNT; n++) { /* none of the acks that came meanwhile is lost */
        struct repl_ack ack = {0, 9};
        if (!CHECK(repl_recv_ack(config.followers[0].fd, &ack) == 1 && ack.lsn == (uint64_t)n))
            break;
    }
    shutdown(config.followers[0].fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    CHECK_EQ(caught_up_frames, COUNT);
}
/* Both ends logship: the whole conversation, with what control messages there are. */
static pid_t logship_follower(const char *wal, uint16_t port, uint64_t until)
{
    pid_t pid = own_fork();
    if (pid == 0) {
        struct kv_store store;
        REQUIRE(repl_set_leader("127.0.0.1", port) == 0);
        REQUIRE(kv_store_init(&store) == 0 && wal_recover(wal, &store) >= 0 && wal_open(&writer, wal) == 0);
        int fd = repl_follower_rejoin(-1, (uint64_t)logship_last_lsn(&writer));
        REQUIRE(fd >= 0);
        while ((uint64_t)logship_last_lsn(&writer) < until)
            REQUIRE(logship_follow(fd, &writer, &store) == 0);
        while (logship_follow(fd, &writer, &store) == 0)
            ;
        CHECK(leader_closed());
        CHECK_EQ(logship_last_lsn(&writer), until);
        wal_close(&writer);
        kv_store_destroy(&store);
        own_leave();
    }
    return pid;
}
static void both_ends_logship(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port), index = -1;
    uint64_t lsn = 99;
    start();
    CHECK(own_write_file("f.wal", log_bytes, ends[4]) == 0);
    pid_t pid = logship_follower("f.wal", port, 12);
    close(peer[1]);
    CHECK_EQ(repl_accept_rejoin(&config, listener, &index, &lsn), 0);
    CHECK_EQ(index, 1);
    CHECK_EQ(lsn, 4);
    CHECK(config.followers[1].fd >= 0 && config.followers[1].online == 0); /* not before it is caught up */
    CHECK_EQ(repl_catch_up(&config, 1, lsn), 6);
    CHECK_EQ(config.followers[1].online, 1);
    config.followers[0].online = 0;
    CHECK_EQ(repl_set_quorum_policy(&config, REPL_QUORUM_DEGRADE), 0);
    CHECK_EQ(repl_wait_quorum(&config, 10, 5000), 0); /* caught up is sent; acked is what the quorum says */
    for (int n = 11; n <= 12; n++) {
        append(n);
        CHECK_EQ(repl_ship_record(&config, rec(n), len(n)), 1);
        CHECK_EQ(repl_wait_quorum(&config, (uint64_t)n, 5000), 0);
    }
    close(config.followers[1].fd);
    CHECK_EQ(own_reap(pid), 0);
    CHECK(own_file_is("f.wal", log_bytes, ends[12]));
}
static void diverged(void)
{
    uint16_t port = 0;
    uint8_t other[4096];
    int listener = own_listen(&port), index = -1;
    uint64_t lsn = 0;
    start();
    memcpy(other, log_bytes, ends[4]);
    size_t size = ends[4] + own_set(other + ends[4], "key5", "something else", 1005);
    CHECK(own_write_file("f.wal", other, size) == 0);
    pid_t pid = logship_follower("f.wal", port, 5);
    close(peer[1]);
    CHECK_EQ(repl_accept_rejoin(&config, listener, &index, &lsn), 0);
    CHECK_EQ(lsn, 5);
    CHECK_FAILS(repl_catch_up(&config, index, lsn), ESTALE); /* its record 5 is not ours */
    CHECK_EQ(config.followers[1].online, 0);
    if (config.followers[1].fd >= 0)
        close(config.followers[1].fd);
    CHECK_EQ(own_reap(pid), 0);
    CHECK(own_file_is("f.wal", other, size)); /* and nothing of ours has got into its log */
}

/* ---- the follower's connection ---- */

/* The message arrives on a new connection, and what the leader says there is read from fd. */
static void check_new_connection(int listener, int fd, uint64_t lsn)
{
    uint8_t message[24], want[8];
    int accepted = own_await(listener, POLLIN) ? accept(listener, NULL, NULL) : -1;
    REQUIRE(accepted >= 0);
    own_put_be(want, lsn, 8);
    CHECK(own_get(accepted, message, 8) && memcmp(message, want, 8) == 0);
    CHECK(own_put_all(accepted, "hello", 5) == 0);
    CHECK(own_get(fd, message, 5) && memcmp(message, "hello", 5) == 0);
    close(accepted);
}
static void connection_closed_by_the_leader(void)
{
    for (int how = 0; how < 3; how++) {
        uint16_t port = 0;
        int listener = own_listen(&port);
        int fd = own_connect(port, 0), leader = accept(listener, NULL, NULL);
        REQUIRE(fd >= 0 && leader >= 0 && repl_set_leader("127.0.0.1", port) == 0);
        if (how == 1)
            CHECK(own_put_all(leader, "data that hides the end of file", 31) == 0);
        if (how == 2) /* unread at the leader: its close is a reset */
            CHECK(own_put_all(fd, "unread", 6) == 0 && own_settle(leader, 6));
        close(leader);
        CHECK(own_await(fd, POLLRDHUP));
        int fds = own_count_fds();
        CHECK_EQ(repl_follower_rejoin(fd, 7), 0);
        CHECK_EQ(own_count_fds(), fds); /* under the same number, the old one closed */
        check_new_connection(listener, fd, 7);
        close(fd), close(listener);
    }
}
static void no_connection_yet(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port), fds = own_count_fds();
    CHECK_EQ(repl_set_leader("127.0.0.1", port), 0);
    int fd = repl_follower_rejoin(-1, 3);
    REQUIRE(fd >= 0);
    CHECK_EQ(own_count_fds(), fds + 1);
    int on = 0;
    socklen_t size = sizeof on;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &size) == 0 && on > 0);
    check_new_connection(listener, fd, 3);
    close(fd), close(listener);
}
static void nobody_listens(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port);
    int fd = own_connect(port, 0), leader = accept(listener, NULL, NULL);
    close(listener), close(leader);
    CHECK(own_await(fd, POLLRDHUP));
    CHECK_EQ(repl_set_leader("127.0.0.1", port), 0);
    int fds = own_count_fds();
    CHECK_FAILS(repl_follower_rejoin(-1, 3), ECONNREFUSED);
    CHECK_FAILS(repl_follower_rejoin(fd, 3), ECONNREFUSED);
    CHECK(own_count_fds() <= fds);
    listener = -1;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    listener = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    REQUIRE(bind(listener, (struct sockaddr *)&addr, sizeof addr) == 0 && listen(listener, 4) == 0);
    if (own_is_open(fd)) { /* the leader is back: the same call, tried again, works */
        CHECK_EQ(repl_follower_rejoin(fd, 3), 0);
        check_new_connection(listener, fd, 3);
    }
}

/* ---- the leader's slot ---- */

static void send_rejoin(int fd, uint64_t lsn, int node)
{
    uint8_t bytes[24];
    own_put_be(bytes, lsn, 8);
    own_ack(bytes + 8, lsn, REPL_ACK_OK, 1);
    bytes[8 + 14] = (uint8_t)node;
    REQUIRE(own_put_all(fd, bytes, sizeof bytes) == 0);
}
static void first_offline_slot(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port), index = -1;
    uint64_t lsn = 0;
    make_config(3);
    connect_slot(0, 1);
    config.followers[1].host = "127.0.0.2"; /* offline, but another machine's */
    connect_slot(2, 0);
    int old = config.followers[2].fd, client = own_connect(port, 0);
    send_rejoin(client, 6, 0);
    CHECK_EQ(repl_accept_rejoin(&config, listener, &index, &lsn), 0);
    CHECK_EQ(index, 2);
    CHECK_EQ(lsn, 6);
    CHECK_EQ(config.followers[2].online, 0);
    CHECK(own_at_eof(peer[2])); /* the old socket is closed, not leaked */
    CHECK(config.followers[2].fd >= 0 && (config.followers[2].fd == old || !own_is_open(old)));
    CHECK(own_put_all(config.followers[2].fd, "hello", 5) == 0);
    char got[5];
    CHECK(own_get(client, got, 5) && memcmp(got, "hello", 5) == 0);
    CHECK_EQ(own_pending(config.followers[2].fd), 0); /* the whole message was taken off */
    CHECK_EQ(config.followers[0].online, 1);
    CHECK(own_quiet(config.followers[0].fd, peer[0]));
}
static void by_node_number(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port), index = -1;
    uint64_t lsn = 0;
    make_config(3);
    int client = own_connect(port, 0);
    send_rejoin(client, 6, 2); /* it says that it is follower 2, whose index is 1 */
    CHECK_EQ(repl_accept_rejoin(&config, listener, &index, &lsn), 0);
    CHECK_EQ(index, 1);
    CHECK(config.followers[1].fd >= 0);
    CHECK(config.followers[0].fd == -1 && config.followers[2].fd == -1);
}
static void no_slot(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port), index = 55;
    uint64_t lsn = 77;
    for (int count = 0; count < 2; count++) {
        make_config(count);
        if (count)
            config.followers[0].host = "127.0.0.2";
        int client = own_connect(port, 0), fds = own_count_fds();
        send_rejoin(client, 6, 0);
        CHECK_FAILS(repl_accept_rejoin(&config, listener, &index, &lsn), EADDRNOTAVAIL);
        CHECK(own_at_eof(client)); /* not left waiting */
        CHECK_EQ(own_count_fds(), fds);
        CHECK_EQ(config.followers[0].fd, -1);
        close(client);
    }
}
/* Online in the leader's eyes, but the process behind it is gone or stopped: the new connection takes its place. */
static void slot_that_does_not_answer(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port), index = -1;
    uint64_t lsn = 0;
    REQUIRE(repl_set_timeouts(300, 300) == 0);
    make_config(1);
    connect_slot(0, 1); /* nobody reads at the other end, so nobody answers */
    int client = own_connect(port, 0);
    send_rejoin(client, 6, 0);
    CHECK_EQ(repl_accept_rejoin(&config, listener, &index, &lsn), 0);
    CHECK_EQ(index, 0);
    CHECK_EQ(config.followers[0].online, 0);
    uint8_t byte;
    while (own_await(peer[0], POLLIN) && recv(peer[0], &byte, 1, 0) > 0)
        ;
    CHECK(own_at_eof(peer[0]));
    CHECK(own_put_all(config.followers[0].fd, "x", 1) == 0 && own_get(client, &byte, 1) && byte == 'x');
}

/* ---- heartbeat ---- */

/* A follower process on the other end of slot i, following until its leader closes. */
static pid_t live_follower(int i)
{
    int a, b, ready[2];
    char go = 0;
    REQUIRE(own_pair(&a, &b, 0) == 0 && pipe(ready) == 0);
    pid_t pid = own_fork();
    if (pid == 0) {
        struct kv_store store;
        char name[16];
        for (int n = 0; n < i; n++)
            close(config.followers[n].fd); /* else they stay open here when the leader closes them */
        close(a);
        sprintf(name, "h%d.wal", i);
        REQUIRE(kv_store_init(&store) == 0 && wal_open(&writer, name) == 0);
        REQUIRE(write(ready[1], "!", 1) == 1);
        while (logship_follow(b, &writer, &store) == 0)
            ;
        CHECK(leader_closed());
        CHECK_EQ(logship_last_lsn(&writer), 0);
        wal_close(&writer);
        kv_store_destroy(&store);
        own_leave();
    }
    close(b);
    REQUIRE(read(ready[0], &go, 1) == 1);
    close(ready[0]), close(ready[1]);
    config.followers[i].fd = a;
    config.followers[i].online = 1;
    return pid;
}
static void heartbeat(void)
{
    pid_t pids[3];
    int status = 0;
    make_config(4);
    for (int i = 0; i < 3; i++)
        pids[i] = live_follower(i);
    CHECK_EQ(repl_heartbeat(&config, 5000), 3); /* slot 3 is offline: not asked */
    CHECK_EQ(repl_heartbeat(&config, 5000), 3);
    kill(pids[1], SIGSTOP);
    REQUIRE(waitpid(pids[1], &status, WUNTRACED) == pids[1] && WIFSTOPPED(status));
    int fd = config.followers[1].fd;
    int64_t from = own_now_ms();
    CHECK_EQ(repl_heartbeat(&config, 300), 2); /* TCP is content with a stopped process; we are not */
    CHECK(own_now_ms() - from < 4000);
    CHECK(config.followers[1].online == 0 && config.followers[1].fd == -1 && !own_is_open(fd));
    CHECK(config.followers[0].online == 1 && config.followers[2].online == 1);
    kill(pids[1], SIGCONT);
    CHECK_EQ(own_reap(pids[1]), 0); /* and it finds its leader gone */
    CHECK_EQ(repl_heartbeat(&config, 5000), 2);
    close(config.followers[2].fd);
    config.followers[2].online = 0;
    config.followers[2].fd = -1;
    CHECK_EQ(own_reap(pids[2]), 0);
    kill(pids[0], SIGKILL);
    CHECK_EQ(own_reap(pids[0]), 128 + SIGKILL);
    CHECK_EQ(repl_heartbeat(&config, 5000), 0);
    CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
    CHECK_EQ(repl_heartbeat(&config, 5000), 0);
}
static void heartbeat_bytes(void)
{
    uint8_t bytes[5];
    make_config(1);
    connect_slot(0, 1);
    int64_t from = own_now_ms();
    CHECK_EQ(repl_heartbeat(&config, 50), 0);
    CHECK(own_now_ms() - from < 4000);
    CHECK_EQ(config.followers[0].online, 0);
    CHECK(own_get(peer[0], bytes, 4) && memcmp(bytes, "\0\0\0\0", 4) == 0); /* length 0, to a peer not known to be logship */
    CHECK(own_at_eof(peer[0]));
}

int main(void)
{
    logship_set_log(quiet, NULL);
    CASE("the rejoin message: 8 bytes in network order; a marked ack from a node with a number", message_bytes);
    CASE("repl_read_rejoin: with the ack, without it, in pieces, cut", reading_the_message);
    CASE("repl_read_rejoin: a peer that stays silent", silent_after_connecting);
    CASE("catch-up from each LSN", ranges);
    CASE("catch-up from a closed log, from a named log", from_a_closed_log_and_a_named_one);
    CASE("catch-up from leader.wal in the directory; ENOENT without", from_leader_wal_in_the_directory);
    CASE("catch-up with several logs: EINVAL until one is named", several_logs);
    CASE("catch-up beside a follower in the same process", a_follower_in_the_same_process);
    CASE("catch-up: ERANGE, EINVAL, ENOTCONN, ENOENT", each_error);
    CASE("catch-up: an LSN in the wrong byte order", byte_swapped);
    CASE("catch-up: damage in the needed range", damage_in_the_range);
    CASE("catch-up: a follower that sends acks without end", flooded_with_acks);
    CASE("heartbeat: the answer stands behind many acks", heartbeat_behind_many_acks);
    CASE("catch-up: the last record is damaged or cut behind the writer", damaged_behind_the_writer);
    CASE("catch-up: the follower is gone again", follower_gone);
    CASE("catch-up: the message read by the program itself", read_by_the_program);
    CASE("catch-up: acks are there to be read", acks_of_caught_up_records);
    CASE("catch-up and ship of the same record", the_newest_is_not_shipped_twice);
    CASE("catch-up of 20 MB to a slow follower that acks", large_gap);
    CASE("both ends logship", both_ends_logship);
    CASE("both ends logship, the logs diverged: ESTALE", diverged);
    CASE("repl_follower_rejoin: closed by the leader: anew, under the same number", connection_closed_by_the_leader);
    CASE("repl_follower_rejoin(-1): a new descriptor", no_connection_yet);
    CASE("repl_follower_rejoin: nobody listens", nobody_listens);
    CASE("repl_accept_rejoin: the first offline slot of that host", first_offline_slot);
    CASE("repl_accept_rejoin: by node number", by_node_number);
    CASE("repl_accept_rejoin: no slot: EADDRNOTAVAIL, closed", no_slot);
    CASE("repl_accept_rejoin: an online slot that does not answer is taken over", slot_that_does_not_answer);
    CASE("heartbeat: live, stopped and killed followers", heartbeat);
    CASE("heartbeat: its bytes", heartbeat_bytes);
    return own_end();
}
