/* A follower that stands still must not hold the others up: what a quorum commit takes on the other two of three (Q = 2)
 * while one is stopped, its socket buffers fill up and are full, against what it took before, in one run.
 *
 * Figures are printed, not asserted; what is asserted is that every commit succeeds and that all end with the same
 * log. FAULTS_COMMITS is the number of commits (2,000). */
#include "faults.h"

enum { FOLLOWERS = 3, STOPPED_NODE = 3 };
static struct leader leader;
static pid_t pids[FOLLOWERS];
static double *times;
static long commits;

/* What one run looks like. */
struct plan {
    const char *text;
    size_t value_len;
    int buffer;         /* SO_SNDBUF and SO_RCVBUF, 0 for the system's */
    int send_ms;        /* the deadline of a send */
};
struct figures {
    double median, p99, most, others_ms;
    long stuck_at;
};

/* Appends, ships and waits `count` times; times[] in ms. If a ship is held up, others_ms says after what time the two
 * others had that record. */
static struct figures commit_many(long count, size_t value_len)
{
    struct figures figures = {.stuck_at = -1, .others_ms = -1};
    for (long i = 0; i < count; i++) {
        leader_append(&leader, value_len);
        int64_t start = now_us();
        int online = leader_online(&leader);
        REQUIRE(leader_ship(&leader) >= FOLLOWERS - 1);
        double shipped = (double)(now_us() - start) / 1000;
        REQUIRE(repl_wait_quorum(&leader.config, leader.lsn, PATIENCE) == 0);
        times[i] = (double)(now_us() - start) / 1000;
        if (leader_online(&leader) < online) {
            figures.stuck_at = i + 1;
            figures.others_ms = (double)((int64_t)shared->number[0] - start) / 1000;
            printf("    (commit %ld: the ship took %.1f ms)\n", i + 1, shipped);
        }
    }
    figures.most = percentile(times, (size_t)count, 1);
    figures.p99 = percentile(times, (size_t)count, 0.99);
    figures.median = percentile(times, (size_t)count, 0.5);
    return figures;
}
static void row(const char *text, const struct figures *figures, const struct figures *healthy)
{
    printf("    %-44s %9.3f %9.3f %9.3f   %.2fx\n", text, figures->median, figures->p99, figures->most,
           figures->p99 / healthy->p99);
}
/* Notes when the last record that both others have came, for the one that is stuck. In a process of its own. */
static void watch_others(void)
{
    for (uint64_t seen = 0; !shared->stop; poll(NULL, 0, 1)) {
        uint64_t one = shared->follower[0].lsn, other = shared->follower[1].lsn, both = one < other ? one : other;
        if (both != seen) {
            seen = both;
            shared->number[0] = (uint64_t)now_us();
        }
    }
    _exit(0);
}
static void run_plan(const struct plan *plan)
{
    commits = setting("FAULTS_COMMITS", 2000);
    times = calloc((size_t)commits, sizeof *times);
    REQUIRE(times);
    faults_share();
    REQUIRE(repl_set_timeouts(plan->send_ms, 0) == 0);
    leader_listen(&leader, FOLLOWERS, NULL);
    for (int i = 0; i < FOLLOWERS; i++)
        pids[i] = start_follower(&leader, &(struct follower){.node = i + 1, .host = "127.0.0.1", .listen_fd = -1,
                                                             .port = leader.config.leader.port,
                                                             .small_buffer = plan->buffer});
    pid_t watcher = own_fork();
    if (watcher == 0)
        watch_others();
    leader_open(&leader);
    leader_gather(&leader, PATIENCE);
    for (int i = 0; plan->buffer && i < FOLLOWERS; i++)
        setsockopt(leader.config.followers[i].fd, SOL_SOCKET, SO_SNDBUF, &plan->buffer, sizeof plan->buffer);
    printf("    %s, append not counted        median ms    p99 ms    max ms   p99/healthy\n", plan->text);
    struct figures healthy = commit_many(commits, plan->value_len);
    row("three followers", &healthy, &healthy);
    kill(pids[STOPPED_NODE - 1], SIGSTOP);
    struct figures sick = commit_many(commits, plan->value_len);
    row("one stopped, its buffers fill up", &sick, &healthy);
    if (sick.stuck_at >= 0)
        printf("    at commit %ld its buffers were full; the others had that record after %.2f ms\n", sick.stuck_at,
               sick.others_ms);
    else
        printf("    its buffers took all %ld records\n", commits);
    struct figures without = commit_many(commits, plan->value_len);
    row("the same, later", &without, &healthy);
    kill(pids[STOPPED_NODE - 1], SIGCONT);
    CHECK(leader_settle(&leader, PATIENCE));
    leader_end(&leader, pids);
    CHECK_EQ(own_reap(watcher), 0);
}
static void large_records(void)
{
    run_plan(&(struct plan){.text = "4 KiB values", .value_len = 4096, .send_ms = 0});
}
static void small_buffers(void)
{
    run_plan(&(struct plan){.text = "100 B values", .value_len = 100, .buffer = 8192, .send_ms = 0});
}
static void short_deadline(void)
{
    run_plan(&(struct plan){.text = "4 KiB, send 50 ms", .value_len = 4096, .send_ms = 50});
}
int main(void)
{
    own_case("one of three stopped: 4 KiB values", large_records, 120);
    own_case("one of three stopped: 100-byte values, small buffers", small_buffers, 120);
    own_case("one of three stopped: 4 KiB values, a send deadline of 50 ms", short_deadline, 120);
    return own_end();
}
