/* A follower that stands still must not hold the others up: what a quorum commit takes on the other two of three (Q =
 * 2) while one is stopped, its socket buffers fill up and are full, against what it took before, in one run.
 *
 * Times are printed, not asserted; what is asserted is that every commit succeeds, that the one that stands still is
 * given up in the end, or goes on where it was if it wakes up before that, and that all end with the same log.
 * FAULTS_COMMITS is the number of commits (2,000). With one of three gone the slower of two disks decides, where
 * before it was the second of three: compare the rows "one stopped" with "two followers" too. */
#include "faults.h"

enum { FOLLOWERS = 3, STOPPED_NODE = 3 };
static struct leader leader;
static pid_t pids[FOLLOWERS];

struct plan {
    const char *text;
    size_t value_len;
    int buffer;         /* SO_SNDBUF and SO_RCVBUF, 0 for the system's */
    int send_ms;        /* the deadline of a send, 0 for the library's */
};
/* One row: commits until there are enough and, if it shall be given up, the stopped follower is offline. */
struct phase {
    double *ms;
    size_t used, size;
    double longest_ship;
    long short_at;      /* the first commit whose ship did not reach all three */
};
static double healthy_p99;

static void commit(struct phase *phase, size_t value_len)
{
    leader_append(&leader, value_len);
    int64_t start = now_us();
    int shipped = leader_ship(&leader);
    REQUIRE(shipped >= FOLLOWERS - 1);
    double ship = (double)(now_us() - start) / 1000;
    REQUIRE(repl_wait_quorum(&leader.config, leader.lsn, PATIENCE) == 0);
    phase->longest_ship = ship > phase->longest_ship ? ship : phase->longest_ship;
    if (phase->used < phase->size)
        phase->ms[phase->used++] = (double)(now_us() - start) / 1000;
    if (shipped < FOLLOWERS && phase->short_at == 0)
        phase->short_at = (long)phase->used;
}
static struct phase run_phase(const struct plan *plan, const char *text, int until_offline)
{
    struct phase phase = {.size = 1 << 17};
    long commits = setting("FAULTS_COMMITS", 2000);
    int64_t end = own_now_ms() + PATIENCE;
    phase.ms = calloc(phase.size, sizeof *phase.ms);
    REQUIRE(phase.ms && commits > 0);
    for (long i = 0; i < commits; i++)
        commit(&phase, plan->value_len);
    while (until_offline && leader.config.followers[STOPPED_NODE - 1].online && CHECK(own_now_ms() < end)) {
        commit(&phase, plan->value_len);
        poll(NULL, 0, 1); /* so that the log stays small enough to be compared quickly */
    }
    double longest = percentile(phase.ms, phase.used, 1), p99 = percentile(phase.ms, phase.used, 0.99);
    healthy_p99 = healthy_p99 > 0 ? healthy_p99 : p99;
    printf("    %-36s %8zu %9.3f %9.3f %9.3f %9.3f %9.2fx\n", text, phase.used,
           percentile(phase.ms, phase.used, 0.5), p99, longest, phase.longest_ship, p99 / healthy_p99);
    free(phase.ms);
    return phase;
}
static void begin(const struct plan *plan)
{
    faults_share();
    REQUIRE(repl_set_timeouts(plan->send_ms, 0) == 0);
    leader_listen(&leader, FOLLOWERS, NULL);
    for (int i = 0; i < FOLLOWERS; i++)
        pids[i] = start_follower(&leader, &(struct follower){.node = i + 1, .host = "127.0.0.1", .listen_fd = -1,
                                                             .port = leader.config.leader.port,
                                                             .small_buffer = plan->buffer});
    leader_open(&leader);
    leader_gather(&leader, PATIENCE);
    for (int i = 0; plan->buffer && i < FOLLOWERS; i++)
        setsockopt(leader.config.followers[i].fd, SOL_SOCKET, SO_SNDBUF, &plan->buffer, sizeof plan->buffer);
    printf("    %-36s %8s %9s %9s %9s %9s %10s\n", plan->text, "commits", "median", "p99", "longest", "its ship",
           "p99/first");
    run_phase(plan, "three followers", 0);
    kill(pids[STOPPED_NODE - 1], SIGSTOP);
}
static void given_up(const struct plan *plan)
{
    begin(plan);
    struct phase sick = run_phase(plan, "one stopped, buffers full, given up", 1);
    CHECK(sick.short_at > 0);
    printf("    (commit %ld was the first whose ship did not reach it)\n", sick.short_at);
    run_phase(plan, "two followers", 0);
    CHECK_EQ(leader_online(&leader), FOLLOWERS - 1);
    kill(pids[STOPPED_NODE - 1], SIGCONT);
    CHECK(leader_settle(&leader, PATIENCE));
    CHECK_EQ(shared->follower[STOPPED_NODE - 1].joins, 2);
    leader_end(&leader, pids);
}
static void large_records(void)
{
    given_up(&(struct plan){.text = "4 KiB values, ms (append not counted)", .value_len = 4096});
}
static void small_buffers(void)
{
    given_up(&(struct plan){.text = "100-byte values, small buffers", .value_len = 100, .buffer = 8192});
}
static void short_deadline(void)
{
    given_up(&(struct plan){.text = "4 KiB values, send deadline 50 ms", .value_len = 4096, .send_ms = 50});
}
/* It wakes up before it is given up: it gets what it has missed from the log, and nobody had to rejoin. */
static void wakes_up(void)
{
    static const struct plan plan = {.text = "100-byte values, it wakes up", .value_len = 100, .buffer = 8192,
                                     .send_ms = PATIENCE};
    begin(&plan);
    CHECK(run_phase(&plan, "one stopped, buffers full", 0).short_at > 0);
    kill(pids[STOPPED_NODE - 1], SIGCONT);
    run_phase(&plan, "awake again", 0);
    CHECK(leader_settle(&leader, PATIENCE));
    for (int i = 0; i < FOLLOWERS; i++)
        CHECK_EQ(shared->follower[i].joins, 1);
    leader_end(&leader, pids);
}
int main(void)
{
    own_case("one of three stopped: 4 KiB values", large_records, 120);
    own_case("one of three stopped: 100-byte values, small buffers", small_buffers, 120);
    own_case("one of three stopped: 4 KiB values, a send deadline of 50 ms", short_deadline, 120);
    own_case("one of three stopped, and awake again in time", wakes_up, 120);
    return own_end();
}
