/* Catching up while the leader goes on writing, several at once, and from a catch-up that died in the middle.
 *
 * A config is used by one thread at a time. repl_catch_up ships the whole gap in one call; repl_catch_up_begin lets it go
 * on inside the calls that commit. A program may also have a second config for followers that come back: a thread catches
 * them up there, again and again until the gap is small, and hands the connection over; the writer's own config ships the
 * rest in one short call.
 *
 * FAULTS_CATCH_UP records (200,000) are missed, FAULTS_CUTS catch-ups (200) die, FAULTS_SEED chooses where, FAULTS_MEMORY
 * records (1,000,000) are sent while memory is watched. */
#include "proxy.h"
#include <pthread.h>

enum { FOLLOWERS = 3, LATE = 3, SMALL_GAP = 200, VALUE = 100, CUT_RECORDS = 2000, MANY = 3 };
static struct leader leader;
static pid_t pids[NODES];

static void start(int number)
{
    pids[number - 1] = start_follower(&leader, &(struct follower){.node = number, .host = "127.0.0.1", .listen_fd = -1,
                                                                  .port = leader.config.leader.port});
}
/* Two followers that have everything, and one that has nothing and is not there. */
static void two_and_a_gap(void)
{
    faults_share();
    leader_listen(&leader, FOLLOWERS, NULL);
    start(1);
    start(2);
    leader_open(&leader);
    leader_preload(&leader, (uint64_t)setting("FAULTS_CATCH_UP", 200000), VALUE);
    REQUIRE(AWAIT((leader_welcome(&leader), leader_online(&leader) == 2), PATIENCE));
    REQUIRE(repl_wait_quorum(&leader.config, leader.lsn, 6 * PATIENCE) == 0);
}
struct times {
    double *ms;
    size_t used, size;
};
static double commit(struct times *times)
{
    leader_append(&leader, VALUE);
    int64_t begin = now_us();
    REQUIRE(leader_ship(&leader) >= 2);
    REQUIRE(repl_wait_quorum(&leader.config, leader.lsn, PATIENCE) == 0);
    double ms = (double)(now_us() - begin) / 1000;
    if (times->used < times->size)
        times->ms[times->used++] = ms;
    return ms;
}
static void times_begin(struct times *times)
{
    *times = (struct times){.size = 1 << 20};
    times->ms = calloc(times->size, sizeof *times->ms);
    REQUIRE(times->ms);
}
static void times_row(const char *text, struct times *times)
{
    if (times->used == 0)
        return;
    double most = percentile(times->ms, times->used, 1);
    printf("    %-44s %7zu commits, median %.3f, p99 %.3f, longest %.3f ms\n", text, times->used,
           percentile(times->ms, times->used, 0.5), percentile(times->ms, times->used, 0.99), most);
}
static void quiet(struct times *times)
{
    for (int i = 0; i < 1000; i++)
        commit(times);
}
/* The one config catches up, and nothing is written meanwhile: what a simple program does. */
static void in_one_thread(void)
{
    struct times before, after;
    times_begin(&before);
    times_begin(&after);
    two_and_a_gap();
    quiet(&before);
    start(LATE);
    int welcomed = 0;
    while (!welcomed) {
        commit(&after);
        int64_t begin = now_us();
        uint64_t caught_up = leader.caught_up;
        welcomed = leader_welcome(&leader);
        if (welcomed)
            printf("    one config: catch-up of %llu records, and no commit for %.1f ms\n",
                   (unsigned long long)(leader.caught_up - caught_up), (double)(now_us() - begin) / 1000);
    }
    while (shared->follower[LATE - 1].lsn < leader.lsn)
        commit(&after);
    times_row("before", &before);
    times_row("until it had everything", &after);
    CHECK(leader_settle(&leader, PATIENCE));
    CHECK_EQ(shared->follower[LATE - 1].joins, 1);
    leader_end(&leader, pids);
}
/* The same, but the catch-up goes on inside the calls that commit. */
static void beside_commits(void)
{
    struct times before, during, after;
    times_begin(&before);
    times_begin(&during);
    times_begin(&after);
    two_and_a_gap();
    quiet(&before);
    leader.beside = 1;
    start(LATE);
    REQUIRE(AWAIT((commit(&before), leader_welcome(&leader)), PATIENCE));
    int64_t begin = now_us();
    uint64_t first = leader.lsn;
    while (leader_online(&leader) < FOLLOWERS && own_now_ms() < begin / 1000 + 3 * PATIENCE)
        commit(&during);
    printf("    begun: online after %.1f ms, beside %llu commits\n", (double)(now_us() - begin) / 1000,
           (unsigned long long)(leader.lsn - first));
    for (int i = 0; i < 1000; i++)
        commit(&after);
    times_row("before", &before);
    times_row("while it was caught up", &during);
    times_row("with all three", &after);
    CHECK(leader_settle(&leader, PATIENCE));
    CHECK_EQ(shared->follower[LATE - 1].joins, 1);
    leader_end(&leader, pids);
}
/* All three lack everything; nothing can be committed, but records are appended and shipped all the time. */
static void begun_at_once(void)
{
    faults_share();
    leader_listen(&leader, MANY, NULL);
    leader_open(&leader);
    leader_preload(&leader, (uint64_t)setting("FAULTS_CATCH_UP", 200000), VALUE);
    leader.beside = 1;
    int64_t begin = now_us();
    uint64_t first = leader.lsn;
    for (int i = 1; i <= MANY; i++)
        start(i);
    while (leader_online(&leader) < MANY && CHECK(own_now_ms() < begin / 1000 + 3 * PATIENCE)) {
        leader_append(&leader, VALUE);
        leader_ship(&leader);
        leader_welcome(&leader);
    }
    double online = (double)(now_us() - begin) / 1000;
    CHECK_EQ(repl_wait_quorum(&leader.config, leader.lsn, PATIENCE), 0);
    printf("    begun for %d at once: %llu records each, all online after %.1f ms, beside %llu records shipped\n", MANY,
           (unsigned long long)first, online, (unsigned long long)(leader.lsn - first));
    CHECK(leader_settle(&leader, PATIENCE));
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(shared->follower[i].joins, 1);
    leader_end(&leader, pids);
}
/* A follower that lacks nothing has nothing to acknowledge. Its log counts all the same, when it says that it is ours,
 * be that before or after the leader has nothing more to send. */
static void lacks_nothing(void)
{
    faults_share();
    leader.beside = 1;
    leader_listen(&leader, 1, NULL);
    leader_open(&leader);
    leader_preload(&leader, 3, VALUE);
    start(1);
    leader_gather(&leader, PATIENCE);
    CHECK_EQ(repl_wait_quorum(&leader.config, leader.lsn, PATIENCE), 0);
    shutdown(leader.config.followers[0].fd, SHUT_RDWR);
    CHECK_EQ(repl_heartbeat(&leader.config, 1000), 0); /* gone, and what it has said with it */
    struct pollfd p = {.fd = leader.listen_fd, .events = POLLIN};
    REQUIRE(poll(&p, 1, PATIENCE) == 1);
    int slot;
    uint64_t lsn;
    CHECK_EQ(repl_accept_rejoin(&leader.config, leader.listen_fd, &slot, &lsn), 0);
    kill(pids[0], SIGSTOP);
    CHECK_EQ(repl_catch_up_begin(&leader.config, slot, lsn), 0);
    CHECK_EQ(repl_catch_up_go_on(&leader.config, 0), 0);
    CHECK_EQ(leader_online(&leader), 1);
    kill(pids[0], SIGCONT);
    CHECK_EQ(repl_wait_quorum(&leader.config, leader.lsn, 5000), 0);
    CHECK(leader_all_acked(&leader));
    leader_end(&leader, pids);
}
/* What the thread that catches up tells the writer. */
static struct handover {
    struct replication_config config;
    uint64_t lsn;       /* the last record that the follower was sent */
    int slot, rounds, failed;
    _Atomic int ready;
} handover;
static void *catch_up_beside(void *argument)
{
    struct handover *over = argument;
    if (repl_accept_rejoin(&over->config, leader.listen_fd, &over->slot, &over->lsn) != 0)
        over->failed = errno;
    for (int sent = INT32_MAX; !over->failed && sent > SMALL_GAP; over->rounds++) {
        sent = repl_catch_up(&over->config, over->slot, over->lsn);
        if (sent < 0)
            over->failed = errno;
        else
            over->lsn += (uint64_t)sent;
        /* It has stored what it was sent: so the writer's catch-up will not wait for its answer. */
        if (!over->failed && repl_wait_quorum(&over->config, over->lsn, 6 * PATIENCE) != 0)
            over->failed = errno;
    }
    over->ready = 1;
    return NULL;
}
static void beside_a_writer(void)
{
    struct times before, during, after;
    pthread_t thread;
    times_begin(&before);
    times_begin(&during);
    times_begin(&after);
    two_and_a_gap();
    quiet(&before);
    REQUIRE(repl_config_init(&handover.config) == 0);
    handover.config.follower_count = FOLLOWERS;
    REQUIRE(repl_set_wal(&handover.config, leader_wal) == 0);
    REQUIRE(repl_set_quorum_policy(&handover.config, REPL_QUORUM_DEGRADE) == 0); /* its one follower is all it has */
    uint64_t first = leader.lsn;
    start(LATE);
    int64_t begin = now_us();
    REQUIRE(pthread_create(&thread, NULL, catch_up_beside, &handover) == 0);
    while (!handover.ready)
        commit(&during);
    REQUIRE(pthread_join(thread, NULL) == 0);
    REQUIRE(CHECK_EQ(handover.failed, 0));
    double beside = (double)(now_us() - begin) / 1000;
    begin = now_us();
    leader.config.followers[handover.slot].fd = handover.config.followers[handover.slot].fd;
    handover.config.followers[handover.slot].fd = -1;
    handover.config.followers[handover.slot].online = 0;
    int rest = repl_catch_up(&leader.config, handover.slot, handover.lsn);
    CHECK(rest >= 0);
    printf("    two configs: %.1f ms in %d rounds beside %llu commits, then %d records in %.1f ms between two commits\n",
           beside, handover.rounds, (unsigned long long)(leader.lsn - first), rest, (double)(now_us() - begin) / 1000);
    for (int i = 0; i < 1000; i++)
        commit(&after);
    times_row("before", &before);
    times_row("while it was caught up", &during);
    times_row("with all three", &after);
    CHECK(leader_settle(&leader, PATIENCE));
    CHECK_EQ(shared->follower[LATE - 1].joins, 1);
    leader_end(&leader, pids);
}
/* Serves one follower from a process that has nothing to do with the writer, save the log's file. */
static void serve(int number, int listen_fd)
{
    struct replication_config config;
    int slot;
    uint64_t lsn;
    REQUIRE(repl_config_init(&config) == 0);
    config.follower_count = MANY;
    REQUIRE(repl_set_wal(&config, leader_wal) == 0 && repl_set_quorum_policy(&config, REPL_QUORUM_DEGRADE) == 0);
    REQUIRE(repl_accept_rejoin(&config, listen_fd, &slot, &lsn) == 0);
    CHECK_EQ(slot, number - 1);
    for (int last = 0; !last;) {
        last = shared->go; /* whatever the log has now is all */
        int sent = repl_catch_up(&config, slot, lsn);
        REQUIRE(CHECK(sent >= 0));
        lsn += (uint64_t)sent;
        REQUIRE(repl_wait_quorum(&config, lsn, 6 * PATIENCE) == 0);
    }
    own_leave();
}
static void at_the_same_time(void)
{
    pid_t servers[MANY];
    faults_share();
    leader_listen(&leader, 0, NULL);
    leader_open(&leader);
    leader_preload(&leader, (uint64_t)setting("FAULTS_CATCH_UP", 200000), VALUE);
    int64_t begin = now_us();
    for (int i = 0; i < MANY; i++) {
        struct repl_node own = {.host = (char *)(uintptr_t) "127.0.0.1", .fd = -1};
        int listen_fd = repl_listen(&own);
        REQUIRE(listen_fd >= 0);
        pids[i] = own_fork();
        if (pids[i] == 0) {
            close(listen_fd);
            leader_let_go(&leader);
            REQUIRE(wal_close(&leader.wal) == 0); /* it is not this process's log */
            follower_live(&(struct follower){.node = i + 1, .host = "127.0.0.1", .port = own.port, .listen_fd = -1});
        }
        servers[i] = own_fork();
        if (servers[i] == 0)
            serve(i + 1, listen_fd);
        close(listen_fd);
    }
    uint64_t before = leader.lsn;
    while (shared->follower[0].lsn < before || shared->follower[1].lsn < before || shared->follower[2].lsn < before) {
        leader_append(&leader, VALUE);
        for (int i = 0; i < MANY; i++)
            CHECK_EQ(waitpid(servers[i], NULL, WNOHANG), 0);
        if (own_bad)
            own_leave();
    }
    double ms = (double)(now_us() - begin) / 1000;
    printf("    %d followers at the same time: %llu records each in %.1f ms, beside %llu appends\n", MANY,
           (unsigned long long)before, ms, (unsigned long long)(leader.lsn - before));
    shared->go = 1;
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(own_reap(servers[i]), 0);
    leader.config.follower_count = MANY;
    leader_end(&leader, pids);
}
static void one_after_the_other(void)
{
    faults_share();
    leader_listen(&leader, MANY, NULL);
    leader_open(&leader);
    leader_preload(&leader, (uint64_t)setting("FAULTS_CATCH_UP", 200000), VALUE);
    for (int i = 1; i <= MANY; i++) {
        int64_t begin = now_us();
        start(i);
        REQUIRE(AWAIT(leader_welcome(&leader), PATIENCE));
        double sent = (double)(now_us() - begin) / 1000;
        REQUIRE(AWAIT(shared->follower[i - 1].lsn == leader.lsn, 6 * PATIENCE));
        printf("    follower %d: %llu records sent after %.1f ms, stored after %.1f ms\n", i,
               (unsigned long long)leader.lsn, sent, (double)(now_us() - begin) / 1000);
        leader_append(&leader, VALUE);
        CHECK_EQ(leader_ship(&leader), i);
    }
    CHECK(leader_settle(&leader, PATIENCE));
    leader_end(&leader, pids);
}

/* ---- deaths ---- */

static void cut_only(void)
{
}
static void kill_follower(void)
{
    kill((pid_t)shared->number[1], SIGKILL);
}
static void live_behind(const struct proxy *proxy, const struct follower *follower)
{
    leader_let_go(&leader);
    close(proxy->listen_fd);
    shared->number[1] = (uint64_t)getpid();
    follower_live(follower);
}
/* One catch-up that ends after `bytes`; then the follower comes back, as a process that lives on or as a new one. */
static void die_after(uint64_t bytes, int by_kill, const struct proxy *proxy, uint16_t port)
{
    struct follower follower = {.node = 1, .host = "127.0.0.1", .port = port, .listen_fd = -1};
    const char *const files[] = {"follower-1.wal", "follower-1.wal.meta", "follower-1.wal.idx"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        unlink(files[i]);
    memset(&shared->follower[0], 0, sizeof shared->follower[0]);
    shared->stop = 0;
    shared->number[0] = bytes;
    int fds = own_count_fds();
    struct proxy mine = *proxy;
    mine.on_cut = by_kill ? kill_follower : cut_only;
    pid_t proxy_pid = proxy_start(&mine, leader.listen_fd);
    pids[0] = own_fork();
    if (pids[0] == 0)
        live_behind(proxy, &follower);
    int killed = 0;
    int64_t end = own_now_ms() + PATIENCE;
    while (own_now_ms() < end) {
        struct pollfd p = {.fd = leader.listen_fd, .events = POLLIN};
        int status;
        poll(&p, 1, 1);
        leader_welcome(&leader);
        if (!killed && by_kill && waitpid(pids[0], &status, WNOHANG) == pids[0]) {
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            killed = 1;
            shared->follower[0].joins = 0;
            pids[0] = own_fork();
            if (pids[0] == 0)
                live_behind(proxy, &follower);
        }
        repl_catch_up_go_on(&leader.config, 0);
        repl_heartbeat(&leader.config, 1000);
        if (shared->number[0] == 0 && killed == by_kill && leader_online(&leader) == 1 && leader_all_acked(&leader))
            break;
    }
    if (!CHECK(own_now_ms() < end) || !CHECK(same_files(leader_wal, "follower-1.wal")))
        NOTE("cut after %llu bytes, %s", (unsigned long long)bytes, by_kill ? "killed" : "disconnected");
    shared->stop = 1;
    kill(proxy_pid, SIGKILL);
    own_reap(proxy_pid);
    CHECK_EQ(own_reap(pids[0]), 0);
    CHECK_EQ(shared->follower[0].fds_last, shared->follower[0].fds_first);
    CHECK_EQ(shared->follower[0].stale, 0);
    repl_heartbeat(&leader.config, 1000); /* notices that it has gone */
    CHECK_EQ(leader_online(&leader), 0);
    CHECK_EQ(own_count_fds(), fds);
}
static void deaths(void)
{
    uint64_t random = (uint64_t)setting("FAULTS_SEED", 1);
    long cuts = setting("FAULTS_CUTS", 200);
    struct proxy proxy = {.flips = NULL};
    struct kv_store store;
    uint16_t port;
    faults_share();
    leader_listen(&leader, 1, NULL);
    leader_open(&leader);
    leader_preload(&leader, CUT_RECORDS, VALUE);
    proxy.listen_fd = own_listen(&port);
    proxy.to = proxy.later = leader.config.leader.port;
    proxy.flips = &shared->number[2];
    proxy.limit = &shared->number[3]; /* 0: it flips nothing */
    proxy.budget = &shared->number[0];
    REQUIRE(proxy.listen_fd >= 0);
    uint64_t total = POSITION_LEN + (uint64_t)own_file_size(leader_wal) + 4 * leader.lsn;
    for (long i = 0; i < cuts && own_bad == 0; i++) {
        /* Half of them near the beginning: control message, frame headers, the first records. */
        uint64_t bytes = 1 + random_next(&random) % (i % 2 ? total : 512);
        leader.beside = i / 4 % 2;
        die_after(bytes < total ? bytes : total, i / 2 % 2, &proxy, port);
    }
    printf("    %ld catch-ups of %llu bytes died, half of them with the follower's process\n", cuts,
           (unsigned long long)total);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("follower-1.wal", &store), CUT_RECORDS); /* no record twice */
    kv_store_destroy(&store);
}

/* ---- memory ---- */

static void memory(void)
{
    long records = setting("FAULTS_MEMORY", 1000000);
    faults_share();
    pid_t pid = own_fork(); /* what writing the log leaves in malloc's hands would hide what catching up takes */
    if (pid == 0) {
        leader_open(&leader);
        leader_preload(&leader, (uint64_t)records, VALUE);
        CHECK_EQ(wal_close(&leader.wal), 0);
        own_leave();
    }
    REQUIRE(own_reap(pid) == 0);
    leader_listen(&leader, 1, NULL);
    start(1);
    leader_open(&leader);
    CHECK_EQ(leader.lsn, records);
    REQUIRE(own_write_file("/proc/self/clear_refs", "5", 1) == 0 || errno == EPERM);
    long before = own_status_kib("VmHWM");
    int64_t begin = now_us();
    REQUIRE(AWAIT(leader_welcome(&leader), PATIENCE));
    double sent = (double)(now_us() - begin) / 1000;
    REQUIRE(repl_wait_quorum(&leader.config, leader.lsn, 6 * PATIENCE) == 0);
    double stored = (double)(now_us() - begin) / 1000;
    long after = own_status_kib("VmHWM");
    CHECK_EQ(leader.caught_up, records);
    CHECK(after - before < 8192);
    leader_end(&leader, pids);
    printf("    %ld records sent after %.1f ms, acknowledged after %.1f ms; the leader's high-water mark grew by %ld KiB "
           "from %ld\n", records, sent, stored, after - before, before);
    printf("    the follower's was %llu KiB, with %llu keys\n", (unsigned long long)shared->follower[0].resident_kib,
           (unsigned long long)shared->follower[0].keys);
}
int main(void)
{
    own_case("catching up in the writer's own thread", in_one_thread, 120);
    own_case("catching up inside the calls that commit", beside_commits, 120);
    own_case("three followers at once, inside the calls that ship", begun_at_once, 120);
    own_case("a follower that lacks nothing counts", lacks_nothing, 60);
    own_case("catching up beside a writer at full speed, and handed over", beside_a_writer, 120);
    own_case("three followers one after the other", one_after_the_other, 120);
    own_case("three followers at the same time, beside a writer", at_the_same_time, 120);
    own_case("a catch-up that dies at any byte", deaths, 240);
    own_case("the leader's memory while it catches up a million", memory, 120);
    return own_end();
}
