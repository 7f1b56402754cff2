/* repl_wait_quorum against followers that are driven by hand, byte by byte, over real TCP connections. */
#include "wire.h"
#include "logship.h"
#include <pthread.h>

static struct replication_config config;
static struct wal_writer writer;
static int peer[MAX_FOLLOWERS]; /* the followers' ends of config.followers[i].fd */
static int written;
static uint8_t sent[512];       /* the record last written, encoded by hand, and its length */
static size_t sent_len;

static void quiet(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}
static void connect_followers(int count, int buffer)
{
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = count;
    for (int i = 0; i < count; i++) {
        config.followers[i].host = "127.0.0.1";
        REQUIRE(own_pair(&config.followers[i].fd, &peer[i], buffer) == 0);
        config.followers[i].online = 1;
    }
}
static void start(int followers)
{
    connect_followers(followers, 0);
    REQUIRE(wal_open(&writer, "leader.wal") == 0);
}
static void next_record(void)
{
    char key[16], value[16];
    written++;
    sprintf(key, "key%d", written);
    sprintf(value, "value%d", written);
    sent_len = own_set(sent, key, value, (uint64_t)(1000 + written));
}
/* The next record into the log and to the followers; how many got it. */
static int write_one(void)
{
    struct wal_record record;
    next_record();
    if (wal_record_decode(sent, sent_len, &record) != 0 || wal_append(&writer, &record) != 0)
        return -2;
    wal_record_free(&record);
    return repl_ship_record(&config, sent, sent_len);
}
static int wait_ms(uint64_t lsn, int timeout_ms, int *why, int64_t *took)
{
    int64_t from = own_now_ms();
    errno = 0;
    int got = repl_wait_quorum(&config, lsn, timeout_ms);
    *why = errno;
    *took = own_now_ms() - from;
    return got;
}
#define TIMES_OUT(lsn) CHECK_FAILS(repl_wait_quorum(&config, (lsn), 40), ETIMEDOUT)
#define COMMITS(lsn) CHECK_EQ(repl_wait_quorum(&config, (lsn), 5000), 0)
/* A hand-written ack, and until it is there to be read. */
static void ack(int i, uint64_t lsn, int status, int marked)
{
    int before = own_pending(config.followers[i].fd);
    REQUIRE(own_send_ack(peer[i], lsn, status, marked) == 0);
    CHECK(own_settle(config.followers[i].fd, before + 16));
}
enum { PLAIN = 0, MARKED = 1 };

static void both_of_two(void)
{
    start(2);
    for (uint64_t lsn = 1; lsn <= 5; lsn++) {
        CHECK_EQ(write_one(), 2);
        TIMES_OUT(lsn);
        ack(0, lsn, REPL_ACK_OK, PLAIN);
        TIMES_OUT(lsn); /* one of two is no quorum */
        ack(1, lsn, REPL_ACK_OK, PLAIN);
        COMMITS(lsn); /* and the first was not lost in the wait that timed out */
    }
    CHECK(config.followers[0].online == 1 && config.followers[1].online == 1);
}
static void quorum_sizes(void)
{
    const int need[] = {0, 1, 2, 2, 3, 3, 4, 4, 5};
    REQUIRE(wal_open(&writer, "leader.wal") == 0);
    for (int n = 1; n <= MAX_FOLLOWERS; n++) {
        connect_followers(n, 0);
        CHECK_EQ(write_one(), n);
        for (int i = 0; i < need[n] - 1; i++)
            ack(n - 1 - i, (uint64_t)written, REPL_ACK_OK, PLAIN);
        TIMES_OUT((uint64_t)written);
        ack(0, (uint64_t)written, REPL_ACK_OK, PLAIN);
        COMMITS((uint64_t)written);
        for (int i = 0; i < n; i++)
            close(config.followers[i].fd), close(peer[i]);
    }
}
static void leader_without_a_log(void)
{
    connect_followers(2, 0);
    for (uint64_t lsn = 1; lsn <= 3; lsn++) {
        next_record();
        CHECK_EQ(repl_ship_record(&config, sent, sent_len), 2);
        ack(0, lsn, REPL_ACK_OK, PLAIN);
        ack(1, lsn, REPL_ACK_OK, PLAIN);
        COMMITS(lsn);
    }
}
static void no_followers(void)
{
    start(0);
    CHECK_EQ(write_one(), 0);
    CHECK_EQ(repl_wait_quorum(&config, 1, 0), 0);
    CHECK_EQ(repl_wait_quorum(&config, 1, 1000), 0);
    CHECK_EQ(repl_wait_quorum(&config, 1, -1), 0);
}
/* Sends each byte only when the leader has taken the one before. */
static void *byte_by_byte(void *unused)
{
    uint8_t bytes[32];
    (void)unused;
    own_ack(bytes, 1, REPL_ACK_OK, PLAIN);
    own_ack(bytes + 16, 2, REPL_ACK_OK, PLAIN);
    for (int i = 0; i < 32; i++) {
        own_put_all(peer[0], bytes + i, 1);
        own_put_all(peer[1], bytes + i, 1);
        own_drained(config.followers[0].fd, 50);
        own_drained(config.followers[1].fd, 50);
    }
    return NULL;
}
static void a_byte_at_a_time(void)
{
    pthread_t thread;
    start(2);
    CHECK_EQ(write_one(), 2);
    CHECK_EQ(write_one(), 2);
    REQUIRE(pthread_create(&thread, NULL, byte_by_byte, NULL) == 0);
    COMMITS(1);
    COMMITS(2);
    pthread_join(thread, NULL);
}
/* An ack cut at each place by a wait that times out, the rest after it. */
static void cut_by_a_timeout(void)
{
    start(1);
    for (int cut = 1; cut < 16; cut++) {
        uint8_t bytes[16];
        CHECK_EQ(write_one(), 1);
        own_ack(bytes, (uint64_t)written, REPL_ACK_OK, PLAIN);
        CHECK(own_put_all(peer[0], bytes, (size_t)cut) == 0 && own_settle(config.followers[0].fd, cut));
        CHECK_FAILS(repl_wait_quorum(&config, (uint64_t)written, 10), ETIMEDOUT);
        CHECK(own_put_all(peer[0], bytes + cut, (size_t)(16 - cut)) == 0);
        COMMITS((uint64_t)written);
    }
}
static void several_at_once(void)
{
    start(2);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(write_one(), 2);
    for (int i = 0; i < 2; i++) {
        uint8_t bytes[48];
        for (int n = 0; n < 3; n++)
            own_ack(bytes + 16 * n, (uint64_t)(n + 1), REPL_ACK_OK, PLAIN);
        CHECK(own_put_all(peer[i], bytes, 48) == 0 && own_settle(config.followers[i].fd, 48));
    }
    COMMITS(1);
    COMMITS(2); /* the later ones were read early, perhaps, and not lost */
    COMMITS(3);
}
static void another_lsn(void)
{
    start(2);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(write_one(), 2);
    for (int i = 0; i < 2; i++) {
        ack(i, 1, REPL_ACK_OK, PLAIN);
        ack(i, 3, REPL_ACK_OK, PLAIN); /* not marked: 3 says nothing about 2 */
    }
    TIMES_OUT(2);
    COMMITS(3);
    COMMITS(1);
    TIMES_OUT(2);
}
/* A leader that logs a record only when it is committed, and one that logs it elsewhere, under numbers of its own. */
static void logged_later(void)
{
    struct wal_record record;
    start(2);
    for (uint64_t lsn = 1; lsn <= 5; lsn++) {
        next_record();
        CHECK_EQ(repl_ship_record(&config, sent, sent_len), 2);
        ack(0, lsn, REPL_ACK_OK, PLAIN);
        ack(1, lsn, REPL_ACK_OK, MARKED);
        COMMITS(lsn);
        REQUIRE(wal_record_decode(sent, sent_len, &record) == 0 && wal_append(&writer, &record) == 0);
        wal_record_free(&record);
    }
    for (uint64_t lsn = 101; lsn <= 105; lsn++) {
        next_record();
        CHECK_EQ(repl_ship_record(&config, sent, sent_len), 2);
        ack(0, lsn, REPL_ACK_OK, PLAIN);
        ack(1, lsn, REPL_ACK_OK, PLAIN);
        COMMITS(lsn);
    }
    ack(0, 200, REPL_ACK_OK, PLAIN); /* as many as were shipped have been acknowledged: this is none of them */
    ack(1, 200, REPL_ACK_OK, PLAIN);
    TIMES_OUT(200);
}
/* A follower that says it has more than there is, and goes: it counts for nothing to come, also when the log is gone. */
static void gone_with_a_lie(void)
{
    for (int marked = 0; marked <= 1; marked++) {
        unlink("leader.wal"), unlink("leader.wal.idx");
        written = 0;
        start(1);
        CHECK_EQ(write_one(), 1);
        ack(0, UINT64_MAX, REPL_ACK_OK, marked);
        for (int n = 0; n < 2000; n++) /* more than is kept of acks that nobody has asked for */
            REQUIRE(own_send_ack(peer[0], UINT64_MAX - (uint64_t)(3 * n), REPL_ACK_OK, marked) == 0);
        close(peer[0]);
        CHECK(own_await(config.followers[0].fd, POLLRDHUP));
        REQUIRE(rename("leader.wal", "elsewhere.wal") == 0);
        for (uint64_t lsn = 1; lsn <= 2; lsn++) {
            next_record();
            (void)repl_ship_record(&config, sent, sent_len);
            CHECK_FAILS(repl_wait_quorum(&config, lsn, 1000), ENOTCONN);
        }
        (void)wal_close(&writer);
    }
}
static void above_the_last(void)
{
    start(2);
    CHECK_EQ(write_one(), 2);
    for (int i = 0; i < 2; i++) {
        ack(i, 2, REPL_ACK_OK, PLAIN);
        ack(i, 1000, REPL_ACK_OK, MARKED);
        ack(i, UINT64_MAX, REPL_ACK_OK, MARKED);
        ack(i, UINT64_MAX, REPL_ACK_OK, PLAIN);
    }
    TIMES_OUT(1);
    for (int i = 0; i < 2; i++)
        ack(i, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
}
static void one_follower_twice(void)
{
    start(3);
    CHECK_EQ(write_one(), 3);
    for (int n = 0; n < 5; n++)
        ack(1, 1, REPL_ACK_OK, n % 2 ? MARKED : PLAIN);
    TIMES_OUT(1);
    TIMES_OUT(1);
    ack(2, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
}
static void an_ack_is_used_up(void)
{
    start(2);
    CHECK_EQ(write_one(), 2);
    ack(0, 1, REPL_ACK_OK, PLAIN);
    ack(1, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
    TIMES_OUT(1); /* a program that numbers its records anew gets no commit on an old ack */
    ack(0, 1, REPL_ACK_OK, PLAIN);
    ack(1, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
}
static void marked_acks_are_cumulative(void)
{
    start(2);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(write_one(), 2);
    ack(0, 3, REPL_ACK_OK, MARKED);
    ack(1, 3, REPL_ACK_OK, MARKED);
    COMMITS(2);
    COMMITS(1);
    COMMITS(3);
    COMMITS(3); /* not used up: it is durable there, and stays so */
    COMMITS(1);
    TIMES_OUT(4);
    ack(0, 2, REPL_ACK_OK, MARKED); /* a lower one later takes nothing back */
    COMMITS(3);
    ack(1, 4, REPL_ACK_OK, MARKED);
    TIMES_OUT(4);
    ack(0, 4, REPL_ACK_OK, MARKED);
    COMMITS(4);
}
static void almost_the_mark(void)
{
    start(1);
    CHECK_EQ(write_one(), 1);
    CHECK_EQ(write_one(), 1);
    for (int wrong = 9; wrong < 13; wrong++) { /* a plain follower's padding may hold anything; only all of "LSHP" is the mark */
        uint8_t bytes[16];
        own_ack(bytes, 2, REPL_ACK_OK, MARKED);
        bytes[wrong] ^= 0x20;
        CHECK(own_put_all(peer[0], bytes, 16) == 0);
        COMMITS(2);
        TIMES_OUT(1);
    }
}
static void another_socket_forgets(void)
{
    start(2);
    CHECK_EQ(write_one(), 2);
    ack(0, 1, REPL_ACK_OK, MARKED);
    TIMES_OUT(1); /* read, and kept */
    close(peer[0]);
    close(config.followers[0].fd);
    REQUIRE(own_pair(&config.followers[0].fd, &peer[0], 0) == 0); /* very likely under the same number */
    config.followers[0].online = 1;
    ack(1, 1, REPL_ACK_OK, PLAIN);
    TIMES_OUT(1);
    ack(0, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
}
static void status_1_ships_again(void)
{
    start(2);
    CHECK_EQ(write_one(), 2);
    CHECK(own_frame_is(peer[0], sent, sent_len) && own_frame_is(peer[1], sent, sent_len));
    ack(0, 1, REPL_ACK_OK, PLAIN);
    for (int i = 0; i < 3; i++) {
        ack(1, 1, REPL_ACK_CRC_FAIL, PLAIN);
        TIMES_OUT(1); /* a rejection is no ack */
        CHECK(own_frame_is(peer[1], sent, sent_len)); /* the same frame again, whole */
        CHECK_EQ(own_pending(peer[1]), 0);
        CHECK_EQ(config.followers[1].online, 1);
    }
    int fd = config.followers[1].fd;
    ack(1, 1, REPL_ACK_CRC_FAIL, PLAIN); /* the fourth time it is the follower that is broken */
    CHECK_FAILS(repl_wait_quorum(&config, 1, 5000), ENOTCONN);
    CHECK_EQ(config.followers[1].online, 0);
    CHECK_EQ(config.followers[1].fd, -1);
    CHECK(!own_is_open(fd));
    CHECK(own_at_eof(peer[1]));
    CHECK(own_quiet(config.followers[0].fd, peer[0])); /* the other got nothing twice */
}
static int rejected;
static void *reject_all(void *unused)
{
    uint8_t frame[512];
    (void)unused;
    while (own_get(peer[0], frame, sent_len + 4) && own_send_ack(peer[0], 1, REPL_ACK_CRC_FAIL, PLAIN) == 0)
        rejected++;
    return NULL;
}
static void status_1_in_one_wait(void)
{
    pthread_t thread;
    start(1);
    CHECK_EQ(write_one(), 1);
    REQUIRE(pthread_create(&thread, NULL, reject_all, NULL) == 0);
    CHECK_FAILS(repl_wait_quorum(&config, 1, 5000), ENOTCONN);
    CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
    pthread_join(thread, NULL);
    CHECK_EQ(rejected, 4); /* the first and three more */
}
static void status_1_then_ok(void)
{
    start(2);
    for (int n = 0; n < 5; n++) { /* "at most 3" is for one record, not for a connection's life */
        CHECK_EQ(write_one(), 2);
        CHECK(own_frame_is(peer[1], sent, sent_len));
        ack(0, (uint64_t)written, REPL_ACK_OK, PLAIN);
        ack(1, (uint64_t)written, REPL_ACK_CRC_FAIL, PLAIN);
        TIMES_OUT((uint64_t)written);
        CHECK(own_frame_is(peer[1], sent, sent_len));
        ack(1, (uint64_t)written, REPL_ACK_OK, PLAIN);
        COMMITS((uint64_t)written);
    }
    CHECK(own_quiet(config.followers[1].fd, peer[1]));
}
static void damaged_frame_replaced_from_the_log(int named)
{
    struct wal_record record;
    uint8_t damaged[512];
    start(1);
    if (named)
        CHECK_EQ(repl_set_wal(&config, "leader.wal"), 0);
    next_record();
    REQUIRE(wal_record_decode(sent, sent_len, &record) == 0 && wal_append(&writer, &record) == 0);
    wal_record_free(&record);
    memcpy(damaged, sent, sent_len);
    damaged[sent_len / 2] ^= 4;
    CHECK_EQ(repl_ship_record(&config, damaged, sent_len), 1); /* it ships what it is given */
    CHECK(own_frame_is(peer[0], damaged, sent_len));
    ack(0, 1, REPL_ACK_CRC_FAIL, PLAIN);
    TIMES_OUT(1);
    CHECK(own_frame_is(peer[0], sent, sent_len)); /* and then what is in the log */
    ack(0, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
    CHECK(own_quiet(config.followers[0].fd, peer[0]));
}
static void from_the_log_that_was_named(void)
{
    damaged_frame_replaced_from_the_log(1);
}
static void from_the_log_that_this_process_writes(void)
{
    damaged_frame_replaced_from_the_log(0);
}
static void damaged_frame_without_a_log(void)
{
    connect_followers(1, 0);
    next_record();
    sent[sent_len - 1] ^= 1;
    CHECK_EQ(repl_ship_record(&config, sent, sent_len), 1);
    CHECK(own_frame_is(peer[0], sent, sent_len));
    for (int i = 0; i < 6; i++) {
        ack(0, 1, REPL_ACK_CRC_FAIL, PLAIN);
        CHECK_FAILS(repl_wait_quorum(&config, 1, 20), ETIMEDOUT);
    }
    CHECK_EQ(config.followers[0].online, 1); /* there is nothing to send again: it just does not count */
    CHECK(own_quiet(config.followers[0].fd, peer[0]));
}
static volatile int stop_talking;
static void *talk(void *unused) /* acks that do not count, all the time, so that poll() never sleeps long */
{
    (void)unused;
    for (int i = 0; i < 200 && !stop_talking; i++) {
        own_send_ack(peer[0], 1, REPL_ACK_OK, PLAIN);
        poll(NULL, 0, 20);
    }
    return NULL;
}
static void one_deadline(void)
{
    pthread_t thread;
    int why;
    int64_t took;
    start(2);
    CHECK_EQ(write_one(), 2);
    CHECK_EQ(write_one(), 2);
    REQUIRE(pthread_create(&thread, NULL, talk, NULL) == 0);
    CHECK_EQ(wait_ms(2, 200, &why, &took), -1);
    stop_talking = 1;
    CHECK_EQ(why, ETIMEDOUT);
    CHECK(took >= 190 && took < 2500); /* 4 s if each arrival began it anew */
    pthread_join(thread, NULL);
    CHECK_EQ(wait_ms(2, 0, &why, &took), -1);
    CHECK_EQ(why, ETIMEDOUT);
    CHECK(took < 1000);
    ack(0, 2, REPL_ACK_OK, PLAIN);
    ack(1, 2, REPL_ACK_OK, PLAIN);
    CHECK_EQ(wait_ms(2, 0, &why, &took), 0); /* timeout 0 still takes what is there */
}
static volatile int signals;
static void on_signal(int number)
{
    (void)number;
    signals++;
}
static void interrupted(void)
{
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART */
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec every = {{0, 5000000}, {0, 5000000}};
    timer_t timer;
    int why;
    int64_t took;
    start(1);
    CHECK_EQ(write_one(), 1);
    REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0 && timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    REQUIRE(timer_settime(timer, 0, &every, NULL) == 0);
    CHECK_EQ(wait_ms(1, 150, &why, &took), -1);
    CHECK_EQ(why, ETIMEDOUT);
    CHECK(took >= 140 && took < 2500);
    CHECK(signals > 0);
    ack(0, 1, REPL_ACK_OK, PLAIN);
    CHECK_EQ(wait_ms(1, 5000, &why, &took), 0);
    timer_delete(timer);
}
static void *ack_after_the_frames(void *unused)
{
    (void)unused;
    for (int i = 0; i < 2; i++) {
        if (!own_frame_is(peer[i], sent, sent_len))
            return NULL;
        poll(NULL, 0, 30); /* time in which a wait that does not wait would have returned */
        own_send_ack(peer[i], 1, REPL_ACK_OK, PLAIN);
    }
    return NULL;
}
static void waiting_for_ever(void)
{
    pthread_t thread;
    start(2);
    CHECK_EQ(write_one(), 2);
    REQUIRE(pthread_create(&thread, NULL, ack_after_the_frames, NULL) == 0);
    CHECK_EQ(repl_wait_quorum(&config, 1, -1), 0);
    pthread_join(thread, NULL);
}
static void unreachable(void)
{
    int why;
    int64_t took;
    start(3);
    CHECK_EQ(write_one(), 3);
    close(peer[0]);
    CHECK(own_await(config.followers[0].fd, POLLRDHUP));
    ack(1, 1, REPL_ACK_OK, PLAIN);
    CHECK_FAILS(repl_wait_quorum(&config, 1, 40), ETIMEDOUT); /* 2 of 3 may still come */
    CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
    close(peer[2]);
    CHECK(own_await(config.followers[2].fd, POLLRDHUP));
    CHECK_EQ(wait_ms(1, 15000, &why, &took), -1);
    CHECK_EQ(why, ENOTCONN);
    CHECK(took < 5000); /* at once, not after 15 s */
    CHECK_EQ(wait_ms(1, -1, &why, &took), -1); /* not even for ever */
    CHECK_EQ(why, ENOTCONN);
    CHECK_EQ(config.followers[1].online, 1);
}
/* One of two is gone, so no quorum can come; the other is read all the same, or what it has said becomes a reset when the
 * leader closes, and a lesson's follower stops at that. */
static void too_few_are_read(void)
{
    int why;
    int64_t took;
    start(2);
    close(peer[1]);
    CHECK(own_await(config.followers[1].fd, POLLRDHUP));
    CHECK_EQ(write_one(), 1);
    CHECK_EQ(wait_ms(1, 50, &why, &took), -1);
    CHECK(why == ETIMEDOUT && took >= 50); /* the one that is left has not answered */
    ack(0, 1, REPL_ACK_OK, PLAIN);
    CHECK_EQ(wait_ms(1, -1, &why, &took), -1);
    CHECK_EQ(why, ENOTCONN); /* it has: nobody else may come */
    CHECK_EQ(own_pending(config.followers[0].fd), 0);
    CHECK_EQ(write_one(), 1);
    ack(0, 2, REPL_ACK_CRC_FAIL, PLAIN);
    CHECK_EQ(wait_ms(2, 50, &why, &took), -1);
    CHECK_EQ(why, ETIMEDOUT);
    CHECK(own_get(peer[0], sent, 4) && own_get(peer[0], sent, 4)); /* and what it rejected was sent again */
    close(peer[0]);
    CHECK_EQ(wait_ms(2, -1, &why, &took), -1);
    CHECK_EQ(why, ENOTCONN);
    CHECK_EQ(config.followers[0].online, 0);
}
static void offline_from_the_start(void)
{
    int why;
    int64_t took;
    start(2);
    config.followers[1].online = 0;
    CHECK_EQ(write_one(), 1);
    ack(0, 1, REPL_ACK_OK, PLAIN);
    CHECK_EQ(wait_ms(1, 15000, &why, &took), -1);
    CHECK_EQ(why, ENOTCONN);
    CHECK(took < 5000);
    config.followers[1].online = 1; /* back: the ack of the first is still known */
    ack(1, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
}
static void offline_followers_are_not_polled(void)
{
    start(3);
    CHECK_EQ(write_one(), 3);
    config.followers[1].online = 0;
    for (int i = 0; i < 3; i++)
        ack(i, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
    CHECK_EQ(own_pending(config.followers[1].fd), 16); /* what it sent was not looked at */
    CHECK_EQ(write_one(), 2);
    ack(0, 2, REPL_ACK_OK, PLAIN);
    ack(1, 2, REPL_ACK_OK, PLAIN);
    TIMES_OUT(2);
    CHECK_EQ(own_pending(config.followers[1].fd), 32);
    int fd = config.followers[1].fd;
    close(peer[1]);
    config.followers[1].fd = 9999; /* no descriptor: POLLNVAL if it were polled */
    ack(2, 2, REPL_ACK_OK, PLAIN);
    COMMITS(2);
    CHECK(config.followers[1].fd == 9999 && config.followers[1].online == 0);
    CHECK(own_is_open(fd));
}
static void acked_and_gone(void)
{
    start(2);
    CHECK_EQ(write_one(), 2);
    CHECK(own_frame_is(peer[0], sent, sent_len));
    ack(0, 1, REPL_ACK_OK, PLAIN);
    close(peer[0]);
    CHECK(own_await(config.followers[0].fd, POLLRDHUP));
    ack(1, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
    CHECK_EQ(write_one(), 1);
    CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
    ack(1, 2, REPL_ACK_OK, PLAIN);
    CHECK_FAILS(repl_wait_quorum(&config, 2, 5000), ENOTCONN);
}
/* The next ship finds it gone; the ack that it had sent before counts all the same. */
static void acked_and_found_gone_by_ship(void)
{
    start(2);
    CHECK_EQ(write_one(), 2);
    CHECK(own_frame_is(peer[0], sent, sent_len));
    ack(0, 1, REPL_ACK_OK, PLAIN);
    close(peer[0]);
    CHECK(own_await(config.followers[0].fd, POLLRDHUP));
    CHECK_EQ(write_one(), 1);
    CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
    ack(1, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
}
/* Closed with a frame unread, which resets the connection: the ack before it counts too. */
static void acked_and_reset(void)
{
    start(2);
    CHECK_EQ(write_one(), 2);
    ack(0, 1, REPL_ACK_OK, PLAIN);
    close(peer[0]);
    CHECK(own_await(config.followers[0].fd, POLLRDHUP | POLLHUP | POLLERR));
    ack(1, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
    CHECK_EQ(write_one(), 1);
    CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
}
static void gone_in_mid_ack(void)
{
    start(1);
    CHECK_EQ(write_one(), 1);
    CHECK(own_put_all(peer[0], "\1\0\0\0\0\0\0\0\0", 9) == 0); /* LSN and status of an ack, and no more of it */
    close(peer[0]);
    CHECK(own_await(config.followers[0].fd, POLLRDHUP));
    CHECK_FAILS(repl_wait_quorum(&config, 1, 5000), ENOTCONN);
    CHECK(config.followers[0].online == 0 && config.followers[0].fd == -1);
}

/* A follower that sends acks until it can send no more, reads nothing until then, and then reads everything. */
static int acks_sent, large_frames, first_large;
static void *full_both_ways(void *unused)
{
    static uint8_t frame[70000];
    (void)unused;
    acks_sent = 0;
    while (acks_sent < first_large - 1) {
        struct pollfd writable = {.fd = peer[0], .events = POLLOUT};
        uint8_t bytes[16];
        own_ack(bytes, (uint64_t)acks_sent + 1, REPL_ACK_OK, PLAIN);
        ssize_t n = send(peer[0], bytes, 16, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && poll(&writable, 1, 3000) != 1) /* full; room comes only when the leader takes acks off while it sends */
            break;
        if (n > 0 && n < 16)
            own_put_all(peer[0], bytes + n, (size_t)(16 - n));
        acks_sent += n > 0;
    }
    for (int i = 0; i < large_frames; i++) {
        uint8_t head[4];
        if (!own_get(peer[0], head, 4))
            return NULL;
        size_t len = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        if (len > sizeof frame || !own_get(peer[0], frame, len))
            return NULL;
    }
    return &acks_sent;
}
static int fill_both_ways(pthread_t *thread)
{
    static char value[60001];
    static uint8_t large[60100];
    memset(value, 'v', 60000);
    connect_followers(1, 4096);
    first_large = 3001;
    large_frames = 40;
    for (int n = 1; n < first_large; n++) { /* 3,000 records for the acks to speak of; the follower reads them as they come */
        uint8_t frame[512];
        next_record();
        CHECK_EQ(repl_ship_record(&config, sent, sent_len), 1);
        REQUIRE(own_get(peer[0], frame, sent_len + 4));
    }
    REQUIRE(pthread_create(thread, NULL, full_both_ways, NULL) == 0);
    size_t len = own_set(large, "large", value, 1);
    int shipped = 0;
    for (int i = 0; i < large_frames; i++)
        shipped += repl_ship_record(&config, large, len);
    return shipped;
}
static void no_deadlock(void)
{
    pthread_t thread;
    void *done = NULL;
    int shipped = fill_both_ways(&thread);
    CHECK_EQ(shipped, large_frames);
    pthread_join(thread, &done);
    CHECK(done != NULL);
    CHECK_EQ(acks_sent, first_large - 1);
    CHECK_EQ(config.followers[0].online, 1);
    for (int n = 1; n < first_large; n++) { /* whatever was taken off while sending, the caller gets first, in order */
        uint8_t got[16], want[16];
        own_ack(want, (uint64_t)n, REPL_ACK_OK, PLAIN);
        if (n % 2) {
            if (!CHECK(recv_full(config.followers[0].fd, got, 16) == 0 && memcmp(got, want, 16) == 0))
                break;
        } else {
            struct repl_ack one = {0, 9};
            if (!CHECK(repl_recv_ack(config.followers[0].fd, &one) == 1 && one.lsn == (uint64_t)n && one.status == 0))
                break;
        }
    }
    CHECK_EQ(own_pending(config.followers[0].fd), 0);
}
static void drained_acks_count(void)
{
    pthread_t thread;
    void *done = NULL;
    int shipped = fill_both_ways(&thread);
    CHECK_EQ(shipped, large_frames);
    pthread_join(thread, &done);
    CHECK(done != NULL);
    for (int n = 1; n < first_large; n++)
        if (!CHECK_EQ(repl_wait_quorum(&config, (uint64_t)n, 5000), 0))
            break;
}
/* recv_full of part of an ack gives that part, and the rest next. */
static void drained_acks_in_pieces(void)
{
    pthread_t thread;
    void *done = NULL;
    int shipped = fill_both_ways(&thread);
    CHECK_EQ(shipped, large_frames);
    pthread_join(thread, &done);
    CHECK(done != NULL);
    for (int n = 1; n < first_large; n++) {
        uint8_t got[16], want[16];
        own_ack(want, (uint64_t)n, REPL_ACK_OK, PLAIN);
        if (!CHECK(recv_full(config.followers[0].fd, got, 8) == 0 && recv_full(config.followers[0].fd, got + 8, 1) == 0 &&
                   recv_full(config.followers[0].fd, got + 9, 7) == 0 && memcmp(got, want, 16) == 0))
            break;
    }
}

static void degraded_commits(void)
{
    start(2);
    CHECK_EQ(repl_set_quorum_policy(&config, REPL_QUORUM_DEGRADE), 0);
    CHECK_EQ(write_one(), 2);
    ack(0, 1, REPL_ACK_OK, PLAIN);
    TIMES_OUT(1); /* both online: both needed */
    ack(1, 1, REPL_ACK_OK, PLAIN);
    COMMITS(1);
    CHECK_EQ(repl_last_commit_degraded(&config), 0);
    close(peer[1]);
    CHECK(own_await(config.followers[1].fd, POLLRDHUP));
    CHECK_EQ(write_one(), 1);
    TIMES_OUT(2); /* one is still one, not none */
    ack(0, 2, REPL_ACK_OK, PLAIN);
    COMMITS(2);
    CHECK_EQ(repl_last_commit_degraded(&config), 1);
    CHECK_EQ(repl_set_quorum_policy(&config, REPL_QUORUM_STRICT), 0);
    CHECK_EQ(write_one(), 1);
    ack(0, 3, REPL_ACK_OK, PLAIN);
    CHECK_FAILS(repl_wait_quorum(&config, 3, 5000), ENOTCONN);
    CHECK_EQ(repl_set_quorum_policy(&config, REPL_QUORUM_DEGRADE), 0);
    COMMITS(3);
    CHECK_EQ(repl_last_commit_degraded(&config), 1);
    REQUIRE(own_pair(&config.followers[1].fd, &peer[1], 0) == 0);
    config.followers[1].online = 1;
    CHECK_EQ(write_one(), 2);
    ack(0, 4, REPL_ACK_OK, PLAIN);
    ack(1, 4, REPL_ACK_OK, PLAIN);
    COMMITS(4);
    CHECK_EQ(repl_last_commit_degraded(&config), 0);
    close(peer[0]);
    close(peer[1]);
    CHECK(own_await(config.followers[0].fd, POLLRDHUP) && own_await(config.followers[1].fd, POLLRDHUP));
    CHECK_EQ(write_one(), 0);
    CHECK_FAILS(repl_wait_quorum(&config, 5, 5000), ENOTCONN); /* at least one, always */
}
static void strict_is_the_default(void)
{
    start(2);
    config.followers[1].online = 0;
    CHECK_EQ(write_one(), 1);
    ack(0, 1, REPL_ACK_OK, PLAIN);
    CHECK_FAILS(repl_wait_quorum(&config, 1, 5000), ENOTCONN);
    CHECK_EQ(repl_last_commit_degraded(&config), 0);
}

int main(void)
{
    logship_set_log(quiet, NULL);
    CASE("two followers: neither alone, both together", both_of_two);
    CASE("quorum of 1 to 8 followers", quorum_sizes);
    CASE("no followers: nothing to wait for", no_followers);
    CASE("a leader that has no log", leader_without_a_log);
    CASE("acks a byte at a time", a_byte_at_a_time);
    CASE("an ack cut in two by a timeout, at every byte", cut_by_a_timeout);
    CASE("several acks in one read", several_at_once);
    CASE("an ack for another LSN", another_lsn);
    CASE("an ack above the log's last LSN", above_the_last);
    CASE("records that the leader logs later, or elsewhere", logged_later);
    CASE("a follower that lies about what it has, and goes", gone_with_a_lie);
    CASE("one follower many times", one_follower_twice);
    CASE("a wait that succeeds uses a plain ack up", an_ack_is_used_up);
    CASE("marked acks are cumulative", marked_acks_are_cumulative);
    CASE("padding that is almost the mark", almost_the_mark);
    CASE("another socket in the slot forgets", another_socket_forgets);
    CASE("status 1: the same frame again, 3 times, then offline", status_1_ships_again);
    CASE("status 1 for ever, in one wait: 3 times, then offline", status_1_in_one_wait);
    CASE("status 1 once for each of five records", status_1_then_ok);
    CASE("status 1 for a damaged frame: the record from the log that was named", from_the_log_that_was_named);
    CASE("status 1 for a damaged frame: the record from the leader's own log", from_the_log_that_this_process_writes);
    CASE("status 1 for a damaged frame and no log: does not count, stays online", damaged_frame_without_a_log);
    CASE("one deadline for the whole call; timeout 0", one_deadline);
    CASE("signals do not end the wait", interrupted);
    CASE("a negative timeout waits until the acks come", waiting_for_ever);
    CASE("quorum out of reach: ENOTCONN once nobody is left to answer", unreachable);
    CASE("too few online: they are read all the same", too_few_are_read);
    CASE("a follower offline from the start", offline_from_the_start);
    CASE("offline followers are not polled", offline_followers_are_not_polled);
    CASE("acked and closed: counts", acked_and_gone);
    CASE("acked and closed, found by ship: counts", acked_and_found_gone_by_ship);
    CASE("acked and reset: counts", acked_and_reset);
    CASE("closed in the middle of an ack: does not", gone_in_mid_ack);
    CASE("buffers full both ways: no deadlock, recv_full and repl_recv_ack hand out", no_deadlock);
    CASE("acks drained while sending count", drained_acks_count);
    CASE("recv_full hands out drained acks in pieces", drained_acks_in_pieces);
    CASE("degrade: counts over those online, and says so", degraded_commits);
    CASE("strict is the default", strict_is_the_default);
    return own_end();
}
