/* A link that flaps every second: a wrong record, a lost one or a leaked descriptor would show at the end.
 *
 * Two followers are beside the leader, the third is behind a link that is down for a second, up for a second, and so on:
 * taken down, its packets lost one way, the other, both. The leader commits all the time (Q = 2) and asks who lives; the
 * third follower comes back by itself. FAULTS_FLAP_SECONDS (10) is how long; needs root and ip(8). */
#include "net.h"

enum { FOLLOWERS = 3, FAR = 3, VALUE = 100, BEAT_MS = 250, PHASE_MS = 1000 };
static struct leader leader;
static pid_t pids[FOLLOWERS];
static struct net net;

/* Changes the link every second until the end, and leaves it up. In a process of its own. */
static void flap(long seconds)
{
    int64_t start = own_now_ms();
    for (long second = 1; second <= seconds; second++) {
        int kind = (int)((second - 1) / 2 % 4); /* what an odd second breaks the next one mends */
        if (kind == 0) {
            CHECK_EQ(net_run(&net, LEADER_SIDE, "ip link set va %s", second % 2 ? "down" : "up"), 0);
        } else {
            if (kind != 1)
                net_cut(&net, LEADER_SIDE, second % 2);
            if (kind != 2)
                net_cut(&net, FOLLOWER_SIDE, second % 2);
        }
        if (second % 2)
            shared->number[0]++;
        int64_t next = start + second * PHASE_MS;
        poll(NULL, 0, next > own_now_ms() ? (int)(next - own_now_ms()) : 0);
    }
    CHECK_EQ(net_run(&net, LEADER_SIDE, "ip link set va up"), 0);
    net_cut(&net, LEADER_SIDE, 0);
    net_cut(&net, FOLLOWER_SIDE, 0);
    shared->go = 1;
    own_leave();
}
static void flapping(void)
{
    const char *missing = net_missing();
    if (missing)
        own_skip(missing);
    long seconds = setting("FAULTS_FLAP_SECONDS", 10);
    alarm((unsigned)seconds + 60);
    faults_share();
    net_make(&net);
    net_enter(net.ns[LEADER_SIDE]);
    leader_listen(&leader, FOLLOWERS, (char *)(uintptr_t) "0.0.0.0");
    for (int i = 0; i < FOLLOWERS; i++) {
        pids[i] = own_fork();
        if (pids[i] == 0) {
            leader_let_go(&leader);
            if (i + 1 == FAR)
                net_enter(net.ns[FOLLOWER_SIDE]);
            follower_live(&(struct follower){.node = i + 1, .host = i + 1 == FAR ? leader_host : "127.0.0.1",
                                             .port = leader.config.leader.port, .listen_fd = -1});
        }
    }
    leader.beside = 1;
    leader_open(&leader);
    leader_gather(&leader, PATIENCE);
    pid_t flapper = own_fork();
    if (flapper == 0) {
        leader_let_go(&leader);
        flap(seconds);
    }
    int drops = 0, was_online = 1;
    int64_t beat = own_now_ms();
    double most = 0;
    while (!shared->go) {
        leader_append(&leader, VALUE);
        int64_t start = now_us();
        CHECK(leader_ship(&leader) >= 2);
        if (!CHECK_EQ(repl_wait_quorum(&leader.config, leader.lsn, PATIENCE), 0))
            own_leave();
        double ms = (double)(now_us() - start) / 1000;
        most = ms > most ? ms : most;
        if (own_now_ms() >= beat) {
            repl_heartbeat(&leader.config, BEAT_MS);
            beat = own_now_ms() + BEAT_MS;
        }
        leader_welcome(&leader);
        int online = leader.config.followers[FAR - 1].online;
        drops += was_online && !online;
        was_online = online;
        poll(NULL, 0, 1); /* so that the log stays small enough to be compared quickly */
    }
    CHECK_EQ(own_reap(flapper), 0);
    CHECK(drops > 0);
    printf("    link down %llu times in %ld s, follower offline %d times, it came %d times, %llu records, longest "
           "commit %.1f ms\n", (unsigned long long)shared->number[0], seconds, drops, shared->follower[FAR - 1].joins,
           (unsigned long long)leader.lsn, most);
    for (int i = 0; i < FOLLOWERS - 1; i++)
        CHECK_EQ(shared->follower[i].joins, 1);
    CHECK(leader_settle(&leader, PATIENCE));
    leader_end(&leader, pids);
}
int main(void)
{
    own_case("a link that flaps every second", flapping, 60);
    return own_end();
}
