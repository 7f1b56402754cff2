/* Bits that flip on the wire while hundreds of records are in flight: an LSN means the same record on both sides all the
 * time, so in the end the logs are the same, byte for byte.
 *
 * FAULTS_RECORDS is the number of records (100,000), FAULTS_SEED the seed. */
#include "proxy.h"

enum { FOLLOWERS = 2, WINDOW = 400, VALUE_MIN = 20 };
static struct leader leader;
static pid_t pids[FOLLOWERS], proxies[FOLLOWERS];

/* Follower 1 has rejoined, so it has a stated position; the leader has connected to follower 2, without a catch-up. */
static void start(const unsigned one_in[TARGETS])
{
    uint64_t seed = (uint64_t)setting("FAULTS_SEED", 1);
    faults_share();
    leader_listen(&leader, FOLLOWERS, NULL);
    for (int i = 0; i < FOLLOWERS; i++) {
        struct repl_node own = {.host = (char *)(uintptr_t) "127.0.0.1", .fd = -1};
        struct follower follower = {.node = i + 1, .host = "127.0.0.1", .listen_fd = -1};
        struct proxy proxy = {.to = leader.config.leader.port, .later = leader.config.leader.port,
                              .one_in = {one_in[BODIES], one_in[HEADERS], one_in[CONTROLS]}, .random = seed + (uint64_t)i, .flips = &shared->number[i],
                              .limit = &shared->number[4]};
        uint16_t port;
        proxy.listen_fd = own_listen(&port);
        REQUIRE(proxy.listen_fd >= 0);
        follower.port = port;
        if (i == 1) {
            follower.listen_fd = repl_listen(&own);
            REQUIRE(follower.listen_fd >= 0);
            proxy.leader_connects = 1;
            proxy.to = own.port;
        }
        proxies[i] = proxy_start(&proxy, leader.listen_fd);
        close(proxy.listen_fd);
        pids[i] = start_follower(&leader, &follower);
        if (follower.listen_fd >= 0)
            close(follower.listen_fd);
        leader.config.followers[i].port = port;
    }
    shared->number[4] = UINT64_MAX;
    printf("    seed %llu\n", (unsigned long long)seed);
    leader_open(&leader);
    REQUIRE(repl_connect(&leader.config.followers[1]) == 0);
    leader_gather(&leader, PATIENCE);
}
/* Ships a window without waiting, then waits for all of it. Who has gone meanwhile is taken back. */
static void window(int records)
{
    static struct sample samples[WINDOW];
    static struct wal_record batch[WINDOW];
    for (int i = 0; i < records; i++) {
        fill(&samples[i], leader.lsn + 1 + (uint64_t)i, VALUE_MIN + (size_t)(leader.lsn + (uint64_t)i) % 3 * 40);
        batch[i] = samples[i].record;
    }
    REQUIRE(logship_append_batch(&leader.wal, batch, (size_t)records) == 0);
    for (int i = 0; i < records; i++) {
        int len = wal_record_encode(&batch[i], leader.encoded, sizeof leader.encoded);
        leader.lsn++;
        REQUIRE(repl_ship_record(&leader.config, leader.encoded, (size_t)len) >= 0);
    }
    for (int64_t end = own_now_ms() + 2 * PATIENCE; repl_wait_quorum(&leader.config, leader.lsn, 100) != 0;) {
        REQUIRE(errno == ETIMEDOUT || errno == ENOTCONN);
        if (!CHECK(own_now_ms() < end)) {
            NOTE("LSN %llu; followers hold %llu and %llu", (unsigned long long)leader.lsn,
                 (unsigned long long)shared->follower[0].lsn, (unsigned long long)shared->follower[1].lsn);
            own_leave();
        }
        int left = errno;
        leader_welcome(&leader);
        repl_catch_up_go_on(&leader.config, 10); /* a wait that can't succeed yet returns at once */
        if (left == ENOTCONN || leader_online(&leader) < FOLLOWERS)
            poll(&(struct pollfd){.fd = leader.listen_fd, .events = POLLIN}, 1, 100);
    }
    /* A quorum of two is both: what they have said must be so. */
    for (int i = 0; i < FOLLOWERS; i++) {
        char name[32];
        wal_name(name, i + 1);
        CHECK_EQ(own_file_size(name), own_file_size(leader_wal));
    }
}
static void run(const unsigned one_in[TARGETS])
{
    long records = setting("FAULTS_RECORDS", 100000);
    start(one_in);
    int64_t start_ms = own_now_ms();
    for (long done = 0; done < records && own_bad == 0; done += WINDOW)
        window(records - done < WINDOW ? (int)(records - done) : WINDOW);
    double seconds = (double)(own_now_ms() - start_ms) / 1000;
    shared->number[4] = 0; /* the line is good from now on */
    if (!CHECK(leader_settle(&leader, PATIENCE)))
        own_leave();
    for (int i = 0; i < FOLLOWERS; i++) {
        const struct report *report = &shared->follower[i];
        CHECK(shared->number[i] > 0);
        printf("    follower %d (%s): %llu frames damaged, %d records rejected, joined %d times\n", i + 1,
               i == 0 ? "rejoined" : "connected to", (unsigned long long)shared->number[i], report->damaged,
               report->joins);
        if (one_in[HEADERS] + one_in[CONTROLS] == 0) {
            CHECK(report->damaged > 0);
            CHECK_EQ(report->joins, 1); /* a damaged record is no reason to go */
        }
    }
    printf("    %ld records in %.1f s, in windows of %d\n", records, seconds, WINDOW);
    leader_end(&leader, pids);
    for (int i = 0; i < FOLLOWERS; i++) {
        kill(proxies[i], SIGKILL);
        own_reap(proxies[i]);
    }
}
static void bodies(void)
{
    run((const unsigned[TARGETS]){[BODIES] = 500});
}
static void headers(void)
{
    run((const unsigned[TARGETS]){[HEADERS] = 4000});
}
/* Control messages come with rejected records and rejoins. */
static void controls(void)
{
    run((const unsigned[TARGETS]){[BODIES] = 500, [CONTROLS] = 4});
}
static void everything(void)
{
    run((const unsigned[TARGETS]){[BODIES] = 4000, [HEADERS] = 8000, [CONTROLS] = 8});
}
/* Followers that come back are caught up while windows are shipped. */
static void everything_beside(void)
{
    leader.beside = 1;
    everything();
}
int main(void)
{
    own_case("bits flip in records, 400 in flight", bodies, 240);
    own_case("bits flip in control messages and records", controls, 240);
    own_case("bits flip in frame headers", headers, 240);
    own_case("bits flip anywhere in the leader's stream", everything, 240);
    own_case("bits flip anywhere, catch-ups go on beside commits", everything_beside, 240);
    return own_end();
}
