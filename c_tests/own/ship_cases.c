/* repl_ship_record and repl_receive_record, the other end of the connection played by hand: the bytes, the damage, the
 * connections that end, stop, or are no longer what they were. */
#include "wire.h"
#include "logship.h"
#include <pthread.h>
#include <sys/resource.h>

static struct replication_config config;
static struct wal_writer writer;
static struct kv_store store;
static int peer[MAX_FOLLOWERS];
static int leader_end, follower_end; /* of a follower under test */
static uint8_t record[512];
static size_t record_len;

static void quiet(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}
static void connect_followers(int count)
{
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = count;
    for (int i = 0; i < count; i++) {
        config.followers[i].host = "127.0.0.1";
        REQUIRE(own_pair(&config.followers[i].fd, &peer[i], 0) == 0);
        config.followers[i].online = 1;
    }
}
static void make(int n)
{
    char key[16], value[16];
    sprintf(key, "key%d", n);
    sprintf(value, "value%d", n);
    record_len = own_set(record, key, value, (uint64_t)(1000 + n));
}
static int ship(int n)
{
    make(n);
    return repl_ship_record(&config, record, record_len);
}

/* ---- the leader's side ---- */

static void the_bytes(void)
{
    uint8_t bytes[512];
    connect_followers(3);
    config.followers[1].online = 0;
    for (int n = 0; n < 4; n++) {
        size_t len = n == 0   ? own_set(bytes, "foo", "bar", 77)
                     : n == 1 ? own_del(bytes, "foo", 78)
                     : n == 2 ? own_encode(bytes, 1, "k", 1, "v", 1, 0, 0)
                              : own_encode(bytes, 1, "k\0k", 3, "\0\xFF\0", 3, UINT64_MAX, 1);
        CHECK_EQ(repl_ship_record(&config, bytes, len), 2);
        CHECK(own_frame_is(peer[0], bytes, len));
        CHECK(own_frame_is(peer[2], bytes, len));
    }
    for (int i = 0; i < 3; i++)
        CHECK(own_quiet(config.followers[i].fd, peer[i])); /* and nothing more; nothing at all to the one that is offline */
}
static void the_largest(void)
{
    static uint8_t large[WAL_RECORD_MAX], got[WAL_RECORD_MAX + 4];
    static char key[65536], value[65536];
    connect_followers(1);
    memset(key, 'k', 65535);
    memset(value, 'v', 65535);
    REQUIRE(own_encode(large, 1, key, 65535, value, 65535, 5, 1) == WAL_RECORD_MAX);
    int big = 1 << 20; /* room for all of it, as nobody reads while it is sent */
    setsockopt(config.followers[0].fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    CHECK_EQ(repl_ship_record(&config, large, WAL_RECORD_MAX), 1);
    CHECK(own_get(peer[0], got, sizeof got));
    CHECK(memcmp(got, "\x00\x02\x00\x13", 4) == 0);
    CHECK(memcmp(got + 4, large, WAL_RECORD_MAX) == 0);
}
static void damaged_records_are_shipped(void)
{
    connect_followers(1);
    make(1);
    for (size_t at = 0; at < record_len; at += 5) {
        record[at] ^= 0x40;
        CHECK_EQ(repl_ship_record(&config, record, record_len), 1);
        CHECK(own_frame_is(peer[0], record, record_len));
        record[at] ^= 0x40;
    }
}
static void counts(void)
{
    connect_followers(3);
    CHECK_EQ(ship(1), 3);
    config.followers[0].online = 0;
    CHECK_EQ(ship(2), 2);
    config.followers[1].online = config.followers[2].online = 0;
    CHECK_EQ(ship(3), 0); /* nobody there is no error */
    config.follower_count = 0;
    CHECK_EQ(ship(4), 0);
    config.follower_count = 3;
    config.followers[0].online = 1;
    CHECK_EQ(ship(5), 1);
}
static int offline_and_closed(int i, int fd)
{
    return config.followers[i].online == 0 && config.followers[i].fd == -1 && !own_is_open(fd);
}
static void gone_at_the_first_record(void)
{
    for (int reset = 0; reset < 2; reset++) {
        connect_followers(3);
        CHECK_EQ(ship(1), 3);
        for (int i = 0; i < 3; i++)
            if (!(reset && i == 0))
                CHECK(own_frame_is(peer[i], record, record_len)); /* unread, the close would be a reset */
        int fd = config.followers[0].fd;
        close(peer[0]);
        CHECK(own_await(fd, POLLRDHUP));
        CHECK_EQ(ship(2), 2); /* the first record after it, not the second */
        CHECK(offline_and_closed(0, fd));
        struct repl_follower_status status;
        CHECK_EQ(repl_get_follower_status(&config, 0, &status), 0);
        CHECK(strstr(status.last_disconnect, reset ? "reset by peer" : "closed by the peer") != NULL);
        for (int i = 1; i < 3; i++) {
            CHECK(own_frame_is(peer[i], record, record_len));
            CHECK_EQ(config.followers[i].online, 1);
        }
        CHECK_EQ(ship(3), 2);
        for (int i = 1; i < 3; i++)
            close(config.followers[i].fd), close(peer[i]);
    }
}
static void killed(void)
{
    uint16_t port = 0;
    int listener = own_listen(&port);
    connect_followers(2);
    pid_t pid = own_fork();
    if (pid == 0) {
        close(peer[0]);
        close(peer[1]);
        int fd = own_connect(port, 0);
        while (fd >= 0)
            pause();
        _exit(1);
    }
    close(config.followers[1].fd);
    config.followers[1].fd = accept(listener, NULL, NULL);
    int fd = config.followers[1].fd;
    CHECK_EQ(ship(1), 2);
    kill(pid, SIGKILL);
    CHECK_EQ(own_reap(pid), 128 + SIGKILL);
    CHECK(own_await(fd, POLLRDHUP));
    CHECK_EQ(ship(2), 1);
    CHECK(offline_and_closed(1, fd));
}
static void hung_up_with_acks_unread(void)
{
    connect_followers(2);
    CHECK_EQ(ship(1), 2);
    CHECK(own_frame_is(peer[0], record, record_len));
    for (int i = 0; i < 50; i++)
        own_send_ack(peer[0], 1, REPL_ACK_OK, 0); /* unread data in front of the end of file */
    int fd = config.followers[0].fd;
    close(peer[0]);
    CHECK(own_await(fd, POLLRDHUP));
    CHECK_EQ(ship(2), 1);
    CHECK(offline_and_closed(0, fd));
}
/* Looking whether the peer is there takes nothing off the connection. */
static void ship_leaves_acks_alone(void)
{
    connect_followers(1);
    CHECK_EQ(ship(1), 1);
    own_send_ack(peer[0], 1, REPL_ACK_OK, 0);
    CHECK(own_settle(config.followers[0].fd, 16));
    CHECK_EQ(ship(2), 1);
    CHECK_EQ(ship(3), 1);
    uint8_t got[16], want[16];
    own_ack(want, 1, REPL_ACK_OK, 0);
    CHECK(recv_full(config.followers[0].fd, got, 16) == 0 && memcmp(got, want, 16) == 0);
}
static void no_sigpipe(void) /* SIGPIPE has its default action here: raised once, and this process is gone */
{
    int a, b;
    uint16_t nobody = 0;
    struct sigaction now;
    close(own_listen(&nobody));
    CHECK_EQ(repl_set_leader("127.0.0.1", nobody), 0);
    CHECK(sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    for (int again = 0; again < 3; again++) {
        REQUIRE(own_pair(&a, &b, 0) == 0);
        own_put_all(a, "unread", 6);
        own_settle(b, 6);
        close(b); /* a reset */
        own_await(a, POLLRDHUP);
        for (int i = 0; i < 3; i++) {
            CHECK(again == 0 ? send_full(a, "x", 1) == -1 : again == 1 ? repl_send_ack(a, 1, 0) == -1
                                                                       : repl_follower_rejoin(a, 1) <= 0);
        }
        close(a);
    }
    connect_followers(2);
    CHECK_EQ(ship(1), 2);
    int fd = config.followers[0].fd;
    close(peer[0]);
    own_await(fd, POLLRDHUP);
    CHECK_EQ(ship(2), 1);
    CHECK_EQ(ship(3), 1);
    fd = config.followers[1].fd;
    shutdown(fd, SHUT_WR); /* EPIPE on our own side */
    (void)ship(4);
    (void)repl_heartbeat(&config, 20);
    REQUIRE(own_pair(&a, &b, 0) == 0);
    shutdown(a, SHUT_WR);
    CHECK_FAILS(send_full(a, "x", 1), EPIPE);
    CHECK(sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL); /* and nobody has ignored it for us */
}
static void *read_all(void *bytes)
{
    static char buffer[65536];
    ssize_t n;
    while ((n = recv(peer[1], buffer, sizeof buffer, 0)) > 0)
        *(long long *)bytes += n;
    return NULL;
}
static void one_that_stops_reading(void)
{
    static char value[60001];
    static uint8_t large[60100];
    long long got = 0;
    int shipped = 0, rounds = 0, records_to_1 = 0;
    pthread_t thread;
    REQUIRE(repl_set_timeouts(400, 5000) == 0);
    memset(value, 'v', 60000);
    size_t len = own_set(large, "large", value, 1);
    connect_followers(2);
    close(config.followers[0].fd), close(peer[0]);
    REQUIRE(own_pair(&config.followers[0].fd, &peer[0], 8192) == 0);
    int fd = config.followers[0].fd;
    REQUIRE(pthread_create(&thread, NULL, read_all, &got) == 0);
    int64_t from = own_now_ms();
    do {
        shipped = repl_ship_record(&config, large, len);
        records_to_1 += shipped > 0;
    } while (shipped == 2 && ++rounds < 200);
    CHECK_EQ(shipped, 1);
    CHECK(own_now_ms() - from < 8000);
    CHECK(offline_and_closed(0, fd));
    CHECK_EQ(config.followers[1].online, 1);
    shutdown(config.followers[1].fd, SHUT_WR);
    pthread_join(thread, NULL);
    CHECK_EQ(got, records_to_1 * (long long)(len + 4)); /* the other had all of each */
}
/* A frame that was cut half-way is not continued: the next connection begins with a frame's beginning. */
static void nothing_left_over(void)
{
    static char value[60001];
    static uint8_t large[60100];
    REQUIRE(repl_set_timeouts(100, 5000) == 0);
    memset(value, 'v', 60000);
    size_t len = own_set(large, "large", value, 1);
    connect_followers(1);
    close(config.followers[0].fd), close(peer[0]);
    REQUIRE(own_pair(&config.followers[0].fd, &peer[0], 8192) == 0);
    for (int i = 0; i < 200 && config.followers[0].online; i++)
        (void)repl_ship_record(&config, large, len);
    CHECK_EQ(config.followers[0].online, 0);
    close(peer[0]);
    REQUIRE(own_pair(&config.followers[0].fd, &peer[0], 0) == 0);
    config.followers[0].online = 1;
    CHECK_EQ(ship(1), 1);
    CHECK(own_frame_is(peer[0], record, record_len));
    CHECK(own_quiet(config.followers[0].fd, peer[0]));
}
static void closed_by_the_program(void)
{
    connect_followers(2);
    CHECK_EQ(ship(1), 2);
    int fd = config.followers[0].fd;
    close(fd);
    CHECK_EQ(ship(2), 1);
    CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
    CHECK_EQ(config.followers[1].online, 1);
}
/* Closed by the program, and the number now belongs to a file: nothing goes into it, and it is not closed. */
static void number_taken_by_a_file(void)
{
    connect_followers(2);
    CHECK_EQ(ship(1), 2);
    int fd = config.followers[0].fd, file = open("precious", O_RDWR | O_CREAT, 0600), ends[2];
    REQUIRE(file >= 0 && dup2(file, fd) == fd);
    CHECK_EQ(ship(2), 1);
    CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
    CHECK(own_is_open(fd));
    CHECK_EQ(own_file_size("precious"), 0);
    fd = config.followers[1].fd;
    REQUIRE(pipe(ends) == 0 && dup2(ends[1], fd) == fd);
    CHECK_FAILS(repl_wait_quorum(&config, 1, 1000), ENOTCONN); /* the same in the other calls that look at it */
    (void)ship(3);
    CHECK(config.followers[1].online == 0 && config.followers[1].fd == -1);
    CHECK(own_is_open(fd));
    CHECK_EQ(own_pending(ends[0]), 0);
}
static void send_full_sends_all(void)
{
    static char out[300000], in[300000];
    REQUIRE(own_pair(&leader_end, &follower_end, 8192) == 0);
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (char)(i * 7 + i / 251);
    pid_t pid = own_fork();
    if (pid == 0) {
        close(follower_end);
        CHECK_EQ(send_full(leader_end, out, sizeof out), 0); /* far more than fits: many short writes */
        own_leave();
    }
    CHECK_EQ(recv_full(follower_end, in, sizeof in), 0);
    CHECK(memcmp(in, out, sizeof out) == 0);
    CHECK_EQ(own_reap(pid), 0);
    close(leader_end);
    CHECK_FAILS(recv_full(follower_end, in, 1), ENOTCONN); /* closed by the peer */
    REQUIRE(own_pair(&leader_end, &follower_end, 0) == 0);
    own_put_all(leader_end, "abc", 3);
    close(leader_end);
    CHECK_EQ(recv_full(follower_end, in, 4), -1); /* not all of it came */
}
static void acks_as_bytes(void)
{
    uint8_t got[16], want[16];
    struct repl_ack ack;
    REQUIRE(own_pair(&leader_end, &follower_end, 0) == 0);
    CHECK_EQ(repl_send_ack(follower_end, 0x0102030405060708u, REPL_ACK_CRC_FAIL), 0);
    CHECK(own_get(leader_end, got, 16));
    own_ack(want, 0x0102030405060708u, REPL_ACK_CRC_FAIL, 0);
    CHECK(memcmp(got, want, 9) == 0);
    CHECK(memcmp(got + 9, "LSHP", 4) != 0); /* no mark: a program counts as it likes */
    CHECK(own_quiet(follower_end, leader_end));
    memset(want + 9, 0xEE, 7);
    CHECK(own_put_all(follower_end, want, 16) == 0);
    CHECK_EQ(repl_recv_ack(leader_end, &ack), 1);
    CHECK(ack.lsn == 0x0102030405060708u && ack.status == REPL_ACK_CRC_FAIL);
    for (int i = 0; i < 2; i++)
        own_send_ack(follower_end, (uint64_t)i, REPL_ACK_OK, 0);
    close(follower_end);
    CHECK(repl_recv_ack(leader_end, &ack) == 1 && ack.lsn == 0);
    CHECK(repl_recv_ack(leader_end, &ack) == 1 && ack.lsn == 1);
    CHECK_EQ(repl_recv_ack(leader_end, &ack), 0); /* closed */
}

/* ---- the follower's side ---- */

static void start_follower(void)
{
    REQUIRE(own_pair(&leader_end, &follower_end, 0) == 0);
    REQUIRE(wal_open(&writer, "follower.wal") == 0 && kv_store_init(&store) == 0);
}
static void send_frame(const uint8_t *bytes, size_t len)
{
    uint8_t frame[600];
    REQUIRE(own_put_all(leader_end, frame, own_frame(frame, bytes, len)) == 0);
}
static int has(const char *key, const char *value)
{
    const char *got = kv_store_get(&store, key);
    return value ? got != NULL && strcmp(got, value) == 0 : got == NULL;
}
static void received_and_stored(void)
{
    uint8_t all[2048];
    size_t size = 0;
    start_follower();
    for (int n = 1; n <= 5; n++) {
        make(n);
        memcpy(all + size, record, record_len);
        size += record_len;
        send_frame(record, record_len);
        CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
        CHECK(own_file_is("follower.wal", all, size));
        CHECK_EQ(writer.offset, size);
        CHECK_EQ(logship_last_lsn(&writer), n);
        CHECK_EQ(kv_store_count(&store), n);
    }
    CHECK(has("key1", "value1") && has("key5", "value5"));
    size_t len = own_del(record, "key3", 5000);
    send_frame(record, len);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    CHECK(has("key3", NULL));
    CHECK(own_quiet(follower_end, leader_end)); /* it sent no ack: that is the caller's */
    close(leader_end);
    CHECK_FAILS(repl_receive_record(follower_end, &writer, &store), ENOTCONN);
    CHECK(own_is_open(follower_end)); /* the caller's too */
}
static void several_frames_in_one_segment(void)
{
    uint8_t frames[2048];
    size_t at = 0;
    start_follower();
    for (int n = 1; n <= 8; n++) {
        make(n);
        at += own_frame(frames + at, record, record_len);
    }
    CHECK(own_put_all(leader_end, frames, at) == 0);
    close(leader_end);
    for (int n = 1; n <= 8; n++) /* one record a call, and none lost to a buffer */
        CHECK(repl_receive_record(follower_end, &writer, &store) == 0 && kv_store_count(&store) == n);
    CHECK_FAILS(repl_receive_record(follower_end, &writer, &store), ENOTCONN);
}
static void conflict_rule_applies(void)
{
    start_follower();
    send_frame(record, own_set(record, "x", "new", 200));
    send_frame(record, own_set(record, "x", "old", 100));
    send_frame(record, own_set(record, "x", "aaa", 200));
    send_frame(record, own_del(record, "x", 150));
    for (int i = 0; i < 4; i++)
        CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0); /* skipped is stored too: the logs stay equal */
    CHECK(has("x", "new"));
    CHECK_EQ(logship_last_lsn(&writer), 4);
    send_frame(record, own_set(record, "x", "zzz", 200));
    send_frame(record, own_del(record, "y", 300));
    send_frame(record, own_set(record, "y", "late", 250));
    for (int i = 0; i < 3; i++)
        CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    CHECK(has("x", "zzz"));
    CHECK(has("y", NULL));
    send_frame(record, own_encode(record, 1, "w10", 3, "b", 1, 0, 0)); /* without timestamp: in the order of the log */
    send_frame(record, own_encode(record, 1, "w10", 3, "a", 1, 0, 0));
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    CHECK(has("w10", "a"));
}
static void damaged_on_the_way(void)
{
    start_follower();
    make(1);
    size_t before = 0;
    for (size_t at = 0; at < record_len; at++) {
        record[at] ^= 0x08;
        send_frame(record, record_len);
        CHECK_EQ(repl_receive_record(follower_end, &writer, &store), CRC_MISMATCH);
        record[at] ^= 0x08;
        CHECK_EQ(own_file_size("follower.wal"), before);
        CHECK_EQ(kv_store_count(&store), before != 0);
        if (at % 8 == 7) { /* in step: the next one is whole */
            send_frame(record, record_len);
            CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
            before += record_len;
            CHECK_EQ(own_file_size("follower.wal"), before);
        }
    }
    send_frame(record, record_len - 1); /* cut, or with a right CRC over fields that do not fit: damage just the same */
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), CRC_MISMATCH);
    send_frame(record, 1);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), CRC_MISMATCH);
    record[8] = 3;
    own_seal(record, record_len);
    send_frame(record, record_len);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), CRC_MISMATCH);
    CHECK_EQ(own_file_size("follower.wal"), before);
    make(1);
    send_frame(record, record_len);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    CHECK(own_quiet(follower_end, leader_end));
}
static void heartbeats_are_answered_inside(void)
{
    start_follower();
    make(1);
    CHECK(own_put_all(leader_end, "\0\0\0\0", 4) == 0);
    send_frame(record, record_len);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0); /* the record, not the heartbeat */
    CHECK(has("key1", "value1"));
    CHECK(own_settle(leader_end, 1)); /* and an answer to it */
    uint8_t answer[256];
    CHECK(recv(leader_end, answer, sizeof answer, 0) > 0);
    CHECK(own_quiet(follower_end, leader_end));
    make(2);
    send_frame(record, record_len);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    CHECK(own_quiet(follower_end, leader_end)); /* a record alone is not answered here */
    CHECK(own_put_all(leader_end, "\0\0\0\0\0\0\0\0\0\0\0\0", 12) == 0);
    shutdown(leader_end, SHUT_WR);
    CHECK_FAILS(repl_receive_record(follower_end, &writer, &store), ENOTCONN);
    CHECK_EQ(logship_last_lsn(&writer), 2);
}
static void lengths_that_cannot_be(void)
{
    const uint32_t lengths[] = {WAL_RECORD_MAX + 1, 0x7FFFFFFF, 0x01000000, 200000};
    REQUIRE(wal_open(&writer, "follower.wal") == 0 && kv_store_init(&store) == 0);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t head[8] = {0};
        REQUIRE(own_pair(&leader_end, &follower_end, 0) == 0);
        own_put_be(head, lengths[i], 4);
        CHECK(own_put_all(leader_end, head, 8) == 0);
        int64_t from = own_now_ms();
        CHECK_FAILS(repl_receive_record(follower_end, &writer, &store), EPROTO);
        CHECK(own_now_ms() - from < 4000); /* it did not wait for two gigabytes */
        CHECK_EQ(own_file_size("follower.wal"), 0);
        close(leader_end), close(follower_end);
    }
}
static void *dribble(void *unused)
{
    uint8_t frame[600];
    (void)unused;
    for (int n = 1; n <= 2; n++) {
        uint8_t bytes[512];
        char key[16];
        sprintf(key, "key%d", n);
        size_t len = own_frame(frame, bytes, own_set(bytes, key, "v", (uint64_t)n));
        for (size_t i = 0; i < len; i++) {
            own_put_all(leader_end, frame + i, 1);
            own_drained(follower_end, 20);
        }
    }
    return NULL;
}
static void a_byte_at_a_time(void)
{
    pthread_t thread;
    start_follower();
    REQUIRE(pthread_create(&thread, NULL, dribble, NULL) == 0);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    CHECK(has("key1", "v") && has("key2", "v"));
    pthread_join(thread, NULL);
}
static void ended_in_a_frame(void)
{
    uint8_t frame[600];
    REQUIRE(wal_open(&writer, "follower.wal") == 0 && kv_store_init(&store) == 0);
    make(1);
    size_t len = own_frame(frame, record, record_len);
    for (size_t cut = 0; cut < len; cut++) {
        REQUIRE(own_pair(&leader_end, &follower_end, 0) == 0);
        CHECK(own_put_all(leader_end, frame, cut) == 0);
        close(leader_end);
        errno = 0;
        CHECK_EQ(repl_receive_record(follower_end, &writer, &store), -1);
        CHECK(errno != 0);
        if (cut == 0)
            CHECK_EQ(errno, ENOTCONN);
        CHECK_EQ(own_file_size("follower.wal"), 0);
        CHECK_EQ(kv_store_count(&store), 0);
        close(follower_end);
    }
}
static void stopped_in_a_frame(void)
{
    uint8_t frame[600];
    REQUIRE(repl_set_timeouts(5000, 150) == 0);
    start_follower();
    make(1);
    size_t len = own_frame(frame, record, record_len);
    CHECK(own_put_all(leader_end, frame, len / 2) == 0);
    int64_t from = own_now_ms();
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), -1);
    CHECK(own_now_ms() - from < 4000); /* the deadline that was set, not for ever */
    CHECK_EQ(own_file_size("follower.wal"), 0);
}
static void *send_late(void *unused)
{
    (void)unused;
    poll(NULL, 0, 400); /* time passing is what is tested: there is no event to wait for */
    send_frame(record, record_len);
    return NULL;
}
static void idle_is_not_dead(void)
{
    pthread_t thread;
    REQUIRE(repl_set_timeouts(5000, 100) == 0);
    start_follower();
    make(1);
    REQUIRE(pthread_create(&thread, NULL, send_late, NULL) == 0);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0); /* an idle leader that lives is no failure */
    pthread_join(thread, NULL);
}
static void the_log_fails(void)
{
    struct rlimit limit, was;
    signal(SIGXFSZ, SIG_IGN);
    start_follower();
    make(1);
    send_frame(record, record_len);
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &was) == 0);
    limit = was;
    limit.rlim_cur = (rlim_t)record_len + 10;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    make(2);
    send_frame(record, record_len);
    CHECK_FAILS(repl_receive_record(follower_end, &writer, &store), EFBIG);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &was) == 0);
    CHECK(has("key2", NULL)); /* not stored, so not applied */
    CHECK_EQ(logship_last_lsn(&writer), 1);
    send_frame(record, record_len); /* and still in step */
    CHECK_EQ(repl_receive_record(follower_end, &writer, &store), 0);
    CHECK(has("key2", "value2"));
    CHECK_EQ(logship_last_lsn(&writer), 2);
}
static void follow_acks(void)
{
    uint8_t got[16];
    start_follower();
    for (int n = 1; n <= 3; n++) {
        make(n);
        send_frame(record, record_len);
        CHECK_EQ(logship_follow(follower_end, &writer, &store), 0);
        uint8_t want[16];
        own_ack(want, (uint64_t)n, REPL_ACK_OK, 1);
        if (n == 1)
            CHECK(own_hello_is(leader_end, 0)); /* and from now on it is known what this end is */
        CHECK(own_get(leader_end, got, 16));
        CHECK(memcmp(got, want, 16) == 0); /* LSN, status, "LSHP", version 1, no node number */
    }
    record[20] ^= 1;
    send_frame(record, record_len);
    CHECK_EQ(logship_follow(follower_end, &writer, &store), CRC_MISMATCH);
    CHECK(own_get(leader_end, got, 16));
    CHECK_EQ(got[8], REPL_ACK_CRC_FAIL);
    record[20] ^= 1;
    send_frame(record, record_len);
    CHECK_EQ(logship_follow(follower_end, &writer, &store), 0);
    CHECK(own_ack_is(leader_end, 4, REPL_ACK_OK));
    CHECK_EQ(logship_set_self(2), 0);
    make(5);
    send_frame(record, record_len);
    CHECK_EQ(logship_follow(follower_end, &writer, &store), 0);
    CHECK(own_get(leader_end, got, 16));
    CHECK_EQ(got[14], 2);
    CHECK(own_quiet(follower_end, leader_end));
    close(leader_end);
    CHECK_FAILS(logship_follow(follower_end, &writer, &store), ENOTCONN);
}

/* ---- connecting ---- */

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    return getsockopt(fd, level, name, &value, &len) == 0 ? value : -1;
}
static int kept_alive(int fd)
{
    return option(fd, SOL_SOCKET, SO_KEEPALIVE) > 0 && option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 5 &&
           option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 1 && option(fd, IPPROTO_TCP, TCP_KEEPCNT) == 3 &&
           option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 8000;
}
static char said[256];
static void note_line(int level, const char *message, void *context)
{
    (void)level, (void)context;
    snprintf(said, sizeof said, "%s", message);
}
static void unknown_host(void)
{
    static char host[] = "no-such-host.invalid";
    struct repl_node node = {.host = host, .port = 7001, .fd = -1};
    logship_set_log(note_line, NULL);
    CHECK_FAILS(repl_connect(&node), EADDRNOTAVAIL);
    CHECK(strstr(said, "unknown host no-such-host.invalid") != NULL);
    said[0] = 0;
    CHECK_FAILS(repl_listen(&node), EADDRNOTAVAIL);
    CHECK(strstr(said, "unknown host no-such-host.invalid") != NULL);
    said[0] = 0;
    CHECK_EQ(repl_set_leader(host, 7000), 0);
    CHECK_FAILS(repl_follower_rejoin(-1, 0), EADDRNOTAVAIL);
    CHECK(strstr(said, "unknown host no-such-host.invalid") != NULL);
    CHECK_EQ(node.fd, -1);
}
static void sockets(void)
{
    struct repl_node listening = {.host = "127.0.0.1", .port = 0, .fd = -1}, node = {.host = "127.0.0.1", .fd = -1};
    struct sockaddr_in addr;
    socklen_t len = sizeof addr;
    int listener = repl_listen(&listening), fds = own_count_fds();
    REQUIRE(listener >= 0);
    CHECK(listening.port != 0);
    CHECK(getsockname(listener, (struct sockaddr *)&addr, &len) == 0);
    CHECK_EQ(ntohs(addr.sin_port), listening.port);
    CHECK_EQ(ntohl(addr.sin_addr.s_addr), INADDR_LOOPBACK); /* the host it was given, not every interface */
    CHECK(option(listener, SOL_SOCKET, SO_REUSEADDR) > 0);
    node.port = listening.port;
    CHECK_EQ(repl_connect(&node), 0);
    CHECK(node.fd >= 0 && node.online == 1);
    CHECK(kept_alive(node.fd));
    CHECK(option(node.fd, IPPROTO_TCP, TCP_NODELAY) > 0);
    CHECK(option(node.fd, SOL_SOCKET, SO_REUSEADDR) > 0); /* as every TCP socket that the library makes */
    int accepted = repl_accept(listener);
    CHECK(accepted >= 0 && kept_alive(accepted) && option(accepted, SOL_SOCKET, SO_REUSEADDR) > 0);
    CHECK_EQ(send_full(accepted, "hello", 5), 0);
    char got[5];
    CHECK(recv_full(node.fd, got, 5) == 0 && memcmp(got, "hello", 5) == 0);
    close(node.fd), close(accepted);
    node.fd = -1, node.online = 0;
    CHECK_EQ(repl_connect(&node), 0);
    accepted = accept(listener, NULL, NULL); /* a program that calls accept(2) itself is covered */
    CHECK(accepted >= 0 && kept_alive(accepted));
    close(node.fd), close(accepted), close(listener);
    CHECK_EQ(own_count_fds(), fds - 1);
    node.fd = -1, node.online = 0;
    int64_t from = own_now_ms();
    CHECK_FAILS(repl_connect(&node), ECONNREFUSED); /* nobody listens there now */
    CHECK(own_now_ms() - from < 8000);
    CHECK(node.fd == -1 && node.online == 0);
    CHECK_EQ(own_count_fds(), fds - 1);
    REQUIRE(own_pair(&leader_end, &follower_end, 0) == 0);
    CHECK(!kept_alive(leader_end));
    CHECK_EQ(repl_set_keepalive(leader_end), 0);
    CHECK(kept_alive(leader_end));
}
/* A socket that the program made, at its first use for replication: the options of the library's own, whatever call it is. */
enum { SHIP, WAIT, CATCH_UP, HEARTBEAT, RECV_ACK, READ_REJOIN, SEND_ACK, REJOIN, RECEIVE, FOLLOW, FIRST_CALLS };

static void first_use(int call)
{
    struct repl_ack ack;
    uint64_t lsn;
    int fd;
    REQUIRE(own_pair(&leader_end, &follower_end, 0) == 0 && repl_config_init(&config) == 0);
    fd = dup(call < SEND_ACK ? leader_end : follower_end); /* the socket stays open, also if its slot is closed */
    REQUIRE(repl_set_wal(&config, "leader.wal") == 0);
    CHECK(!kept_alive(fd) && option(fd, IPPROTO_TCP, TCP_NODELAY) == 0);
    config.follower_count = 1;
    config.followers[0].fd = leader_end;
    config.followers[0].online = call != CATCH_UP;
    make(1);
    switch (call) {
    case SHIP: CHECK_EQ(repl_ship_record(&config, record, record_len), 1); break;
    case WAIT: CHECK_FAILS(repl_wait_quorum(&config, 1, 0), ETIMEDOUT); break;
    case CATCH_UP: CHECK_EQ(repl_catch_up(&config, 0, 0), 0); break;
    case HEARTBEAT: CHECK_EQ(repl_heartbeat(&config, 0), 0); break;
    case RECV_ACK:
        CHECK_EQ(own_send_ack(follower_end, 1, 0, 0), 0);
        CHECK_EQ(repl_recv_ack(leader_end, &ack), 1);
        break;
    case READ_REJOIN:
        CHECK_EQ(own_put_all(follower_end, "\0\0\0\0\0\0\0\5", 8), 0);
        CHECK(repl_read_rejoin(leader_end, &lsn) == 0 && lsn == 5);
        break;
    case SEND_ACK: CHECK_EQ(repl_send_ack(follower_end, 1, 0), 0); break;
    case REJOIN: CHECK_EQ(repl_follower_rejoin(follower_end, 1), 0); break;
    default:
        send_frame(record, record_len);
        CHECK_EQ(call == FOLLOW ? logship_follow(follower_end, &writer, &store)
                                : repl_receive_record(follower_end, &writer, &store), 0);
    }
    CHECK(kept_alive(fd));
    CHECK(option(fd, IPPROTO_TCP, TCP_NODELAY) > 0);
    if (own_bad)
        NOTE("call %d", call);
    close(fd), close(follower_end);
    if (call != HEARTBEAT)
        close(leader_end);
}
static void sockets_of_the_program(void)
{
    struct wal_writer leaders;
    REQUIRE(wal_open(&leaders, "leader.wal") == 0 && wal_open(&writer, "first.wal") == 0 && kv_store_init(&store) == 0);
    for (int call = 0; call < FIRST_CALLS; call++)
        first_use(call);
    REQUIRE(wal_close(&leaders) == 0 && wal_close(&writer) == 0);
    kv_store_destroy(&store);
}
/* A receive that waits on a socket that the program made has the options before anything comes. */
static void *receive_one(void *unused)
{
    (void)unused;
    CHECK_FAILS(repl_receive_record(follower_end, &writer, &store), ENOTCONN);
    return NULL;
}
static void while_it_waits(void)
{
    pthread_t thread;
    REQUIRE(wal_open(&writer, "first.wal") == 0 && kv_store_init(&store) == 0);
    REQUIRE(own_pair(&leader_end, &follower_end, 0) == 0);
    REQUIRE(pthread_create(&thread, NULL, receive_one, NULL) == 0);
    for (int64_t end = own_now_ms() + 5000; own_now_ms() < end && !kept_alive(follower_end); poll(NULL, 0, 1))
        ;
    CHECK(kept_alive(follower_end) && option(follower_end, IPPROTO_TCP, TCP_NODELAY) > 0);
    close(leader_end);
    pthread_join(thread, NULL);
    close(follower_end);
    REQUIRE(wal_close(&writer) == 0);
    kv_store_destroy(&store);
}
/* TCP must not give up before the send deadline: on new connections, and on those that are there. */
static void user_timeout_follows_the_send_deadline(void)
{
    connect_followers(1);
    CHECK_EQ(ship(1), 1);
    CHECK_EQ(option(config.followers[0].fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 8000);
    CHECK_EQ(repl_set_timeouts(60000, 0), 0);
    CHECK_EQ(ship(2), 1);
    CHECK_EQ(option(config.followers[0].fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 60000);
    REQUIRE(own_pair(&leader_end, &follower_end, 0) == 0);
    CHECK_EQ(repl_send_ack(follower_end, 1, 0), 0);
    CHECK_EQ(option(follower_end, IPPROTO_TCP, TCP_USER_TIMEOUT), 60000);
    CHECK_EQ(repl_set_timeouts(1000, 0), 0);
    CHECK_EQ(ship(3), 1);
    CHECK_EQ(option(config.followers[0].fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 8000); /* never below what keepalive takes */
}
static void listening_again_at_once(void) /* SO_REUSEADDR: connections in TIME_WAIT do not hold the port */
{
    struct repl_node node = {.host = "127.0.0.1", .port = 0, .fd = -1};
    int listener = repl_listen(&node);
    REQUIRE(listener >= 0);
    int client = own_connect(node.port, 0), server = accept(listener, NULL, NULL);
    REQUIRE(client >= 0 && server >= 0);
    close(server); /* the listening side closes first and keeps TIME_WAIT */
    CHECK(own_at_eof(client));
    close(client), close(listener);
    uint16_t port = node.port;
    listener = repl_listen(&node);
    CHECK(listener >= 0);
    CHECK_EQ(node.port, port);
    struct repl_node second = node;
    CHECK_FAILS(repl_listen(&second), EADDRINUSE);
    close(listener);
}

int main(void)
{
    logship_set_log(quiet, NULL);
    CASE("the frames' bytes", the_bytes);
    CASE("the largest record", the_largest);
    CASE("damaged records are shipped as they are", damaged_records_are_shipped);
    CASE("the count of those that got it", counts);
    CASE("a dead follower is noticed at the first record, others are served", gone_at_the_first_record);
    CASE("a killed follower too", killed);
    CASE("hung up behind unread acks", hung_up_with_acks_unread);
    CASE("ship takes no acks off the connection", ship_leaves_acks_alone);
    CASE("SIGPIPE is never raised", no_sigpipe);
    CASE("a follower that stops reading goes offline, the other gets all", one_that_stops_reading);
    CASE("a frame cut half-way is not continued elsewhere", nothing_left_over);
    CASE("the program closed the descriptor itself", closed_by_the_program);
    CASE("the descriptor's number now belongs to a file or a pipe", number_taken_by_a_file);
    CASE("send_full and recv_full", send_full_sends_all);
    CASE("acks as bytes; repl_recv_ack", acks_as_bytes);
    CASE("received, stored, applied, not acked", received_and_stored);
    CASE("several frames in one segment", several_frames_in_one_segment);
    CASE("the conflict rule on the follower", conflict_rule_applies);
    CASE("damaged on the way: CRC_MISMATCH, nothing stored, in step", damaged_on_the_way);
    CASE("heartbeats are answered inside", heartbeats_are_answered_inside);
    CASE("lengths that cannot be: EPROTO", lengths_that_cannot_be);
    CASE("frames a byte at a time", a_byte_at_a_time);
    CASE("the stream ends in a frame, at every byte", ended_in_a_frame);
    CASE("the stream stops in a frame", stopped_in_a_frame);
    CASE("an idle leader is not a dead one", idle_is_not_dead);
    CASE("the follower's log fails: its errno, not applied, in step", the_log_fails);
    CASE("logship_follow acks, marked and cumulative", follow_acks);
    CASE("repl_listen, repl_connect, repl_accept, keepalive", sockets);
    CASE("a host that nobody knows: one errno, one line", unknown_host);
    CASE("sockets that the program made, at their first use", sockets_of_the_program);
    CASE("a receive that waits on one", while_it_waits);
    CASE("the user timeout follows the send deadline", user_timeout_follows_the_send_deadline);
    CASE("listening on the same port again at once", listening_again_at_once);
    return own_end();
}
