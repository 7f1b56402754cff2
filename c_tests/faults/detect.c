/* How soon a leader knows that a follower is gone, with the real thing each time: from the fault to online == 0.
 *
 * Every row is a leader and a follower of its own, and all rows run at the same time: most of them wait for a clock of
 * TCP. No time is asserted, save that no wait may be longer than a leader may be left in the dark: 9 s by TCP alone
 * (its user timeout is 8 s), 3 intervals with heartbeats. FAULTS_HEARTBEAT_MS is the interval (500). */
#include "net.h"

enum { BY_TCP_MS = 9000, ROWS_MAX = 48, VALUE = 100 };
enum call { SHIP, WAIT, HEARTBEAT, LOOK };
enum fault { CLOSED, RESET, KILLED, KILLED_IN_FRAME, STOPPED, HOLE };
enum where { BOTH_WAYS, TO_FOLLOWER, FROM_FOLLOWER };

struct row {
    const char *fault_text, *call_text;
    enum fault fault;
    enum call call;
    enum where where;
    int in_flight;  /* data is on its way when the hole opens; else the connection is idle */
    int limit_ms;
    double ms;      /* the figure; below 0: it was not noticed, as it should be */
    const char *reason;
};

static int interval_ms;
static struct leader leader;
static struct net net;

/* Follows `records` records; the last one is stored and not acknowledged if the leader shall be waiting for that. Then
 * does to itself what the row says. */
static void follower_of(const struct row *row, int records)
{
    struct wal_writer wal;
    struct kv_store store;
    struct linger at_once = {.l_onoff = 1};
    close(leader.listen_fd);
    if (row->fault == HOLE)
        net_enter(net.ns[FOLLOWER_SIDE]);
    REQUIRE(kv_store_init(&store) == 0 && wal_open(&wal, "follower-1.wal") == 0);
    REQUIRE(repl_set_leader(leader.config.leader.host, leader.config.leader.port) == 0 && logship_set_self(1) == 0);
    int fd = repl_follower_rejoin(-1, 0), mute = row->call == WAIT || row->call == LOOK;
    REQUIRE(fd >= 0);
    for (int i = 1; i < records; i++)
        REQUIRE(logship_follow(fd, &wal, &store) == 0);
    REQUIRE((mute ? repl_receive_record(fd, &wal, &store) : logship_follow(fd, &wal, &store)) == 0);
    if (row->fault == CLOSED || row->fault == RESET) {
        if (row->fault == RESET)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        REQUIRE(AWAIT(shared->go, PATIENCE));
        shared->event_us = now_us();
        close(fd);
    }
    shared->number[0] = 1; /* it has received what it should */
    if (mute || row->fault == KILLED_IN_FRAME)
        for (;;)
            pause();
    while (logship_follow(fd, &wal, &store) == 0)
        ;
    if (row->fault == HOLE)
        shared->number[1] = (uint64_t)now_us(); /* it has noticed too */
    for (;;)
        pause();
}
/* In a process of its own, when the leader is in the middle of a frame: its socket takes nothing any more. */
static void kill_in_frame(pid_t follower)
{
    int fd = leader.config.followers[0].fd, before = -1, same = 0;
    for (int64_t end = own_now_ms() + PATIENCE; same < 20 && own_now_ms() < end; poll(NULL, 0, 2)) {
        int unsent = 0;
        ioctl(fd, TIOCOUTQ, &unsent);
        same = unsent > 0 && unsent == before ? same + 1 : 0;
        before = unsent;
    }
    CHECK_EQ(same, 20);
    shared->event_us = now_us();
    kill(follower, SIGKILL);
    own_leave();
}
static void open_hole(const struct row *row)
{
    shared->event_us = now_us();
    if (row->where != FROM_FOLLOWER)
        net_cut(&net, LEADER_SIDE, 1);
    if (row->where != TO_FOLLOWER)
        net_cut(&net, FOLLOWER_SIDE, 1);
}
/* Uses the call until the follower is offline or the time is over. */
static void watch(const struct row *row, int64_t until_ms)
{
    const uint8_t *online = &leader.config.followers[0].online;
    switch (row->call) {
    case SHIP:
        for (; *online && own_now_ms() < until_ms; poll(NULL, 0, 1)) {
            leader_append(&leader, VALUE);
            leader_ship(&leader);
        }
        break;
    case WAIT: /* the call has one deadline; what it returns is the follower's end, not its own */
        repl_wait_quorum(&leader.config, leader.lsn, (int)(until_ms - own_now_ms()));
        break;
    case HEARTBEAT:
        for (int64_t next = own_now_ms(); *online && own_now_ms() < until_ms;) {
            repl_heartbeat(&leader.config, interval_ms);
            next += interval_ms;
            poll(NULL, 0, next > own_now_ms() ? (int)(next - own_now_ms()) : 0);
        }
        break;
    case LOOK: { /* nothing to write for a while: the first record after TCP has given up */
        struct pollfd p = {.fd = leader.config.followers[0].fd, .events = POLLRDHUP};
        poll(&p, 1, (int)(until_ms - own_now_ms()));
        leader_append(&leader, VALUE);
        leader_ship(&leader);
        break;
    }
    }
}
static void run_row(struct row *row)
{
    pid_t helper = -1;
    if (row->fault == HOLE) {
        net_make(&net);
        net_cut(&net, LEADER_SIDE, 0);
        net_cut(&net, FOLLOWER_SIDE, 0);
        net_enter(net.ns[LEADER_SIDE]);
    }
    leader_listen(&leader, 1, row->fault == HOLE ? (char *)(uintptr_t)leader_host : NULL);
    int records = 2;
    pid_t pid = own_fork();
    if (pid == 0)
        follower_of(row, records);
    leader_open(&leader);
    leader_gather(&leader, PATIENCE);
    for (int i = 1; i <= records; i++) {
        leader_append(&leader, VALUE);
        CHECK_EQ(leader_ship(&leader), 1);
        if (i < records || (row->call != WAIT && row->call != LOOK && row->fault != CLOSED && row->fault != RESET))
            CHECK_EQ(repl_wait_quorum(&leader.config, leader.lsn, PATIENCE), 0);
    }
    shared->go = 1;
    REQUIRE(AWAIT(shared->number[0] == 1, PATIENCE));
    int64_t event_ms = own_now_ms();
    switch (row->fault) {
    case CLOSED:
    case RESET:
        break;
    case KILLED:
        shared->event_us = now_us();
        kill(pid, SIGKILL);
        break;
    case STOPPED:
        shared->event_us = now_us();
        kill(pid, SIGSTOP);
        break;
    case HOLE:
        open_hole(row);
        event_ms = shared->event_us / 1000;
        if (row->in_flight) {
            leader_append(&leader, VALUE);
            CHECK_EQ(leader_ship(&leader), 1); /* TCP takes it, and it is never heard of again */
        }
        break;
    case KILLED_IN_FRAME:
        helper = own_fork();
        if (helper == 0)
            kill_in_frame(pid);
        memset(leader.encoded, 'x', sizeof leader.encoded); /* one frame after another until one sticks */
        while (leader.config.followers[0].online)
            repl_ship_record(&leader.config, leader.encoded, sizeof leader.encoded);
        CHECK_EQ(own_reap(helper), 0);
        break;
    }
    watch(row, event_ms + row->limit_ms);
    row->ms = (double)(now_us() - shared->event_us) / 1000;
    if (row->fault == STOPPED && row->call == WAIT) {
        CHECK_EQ(leader.config.followers[0].online, 1); /* TCP is content with it */
        row->ms = -1;
    } else {
        CHECK_EQ(leader.config.followers[0].online, 0);
        CHECK_EQ(leader.config.followers[0].fd, -1);
    }
    if (own_bad)
        NOTE("in the row \"%s\", %s", row->fault_text, row->call_text);
    kill(pid, SIGKILL);
    own_reap(pid);
    own_leave();
}

static struct row *rows;
static int row_count;
static void row_add(struct row row)
{
    REQUIRE(row_count < ROWS_MAX);
    rows[row_count++] = row;
}
static void run_rows(void)
{
    pid_t pids[ROWS_MAX];
    for (int i = 0; i < row_count; i++) {
        char dir[16];
        snprintf(dir, sizeof dir, "%d", i);
        REQUIRE(mkdir(dir, 0700) == 0);
        pids[i] = own_fork();
        if (pids[i] == 0) {
            faults_share();
            REQUIRE(chdir(dir) == 0);
            run_row(&rows[i]);
        }
    }
    for (int i = 0; i < row_count; i++)
        if (!CHECK_EQ(own_reap(pids[i]), 0))
            NOTE("the row \"%s\", %s", rows[i].fault_text, rows[i].call_text);
    printf("    %-52s %-28s %12s\n", "fault", "noticed by", "ms");
    for (int i = 0; i < row_count; i++)
        if (rows[i].ms < 0)
            printf("    %-52s %-28s %12s\n", rows[i].fault_text, rows[i].call_text, "not noticed");
        else
            printf("    %-52s %-28s %12.1f\n", rows[i].fault_text, rows[i].call_text, rows[i].ms);
}
static void begin_rows(void)
{
    interval_ms = (int)setting("FAULTS_HEARTBEAT_MS", 500);
    rows = mmap(NULL, ROWS_MAX * sizeof *rows, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(rows != MAP_FAILED);
}

static const char *const calls[] = {"repl_ship_record", "repl_wait_quorum", "repl_heartbeat", "TCP, then a ship"};

static void processes(void)
{
    static const struct { enum fault fault; const char *text; } faults[] = {
        {CLOSED, "follower closes"}, {RESET, "follower resets (SO_LINGER 0)"}, {KILLED, "follower gets SIGKILL"}};
    begin_rows();
    for (size_t f = 0; f < sizeof faults / sizeof *faults; f++)
        for (enum call call = SHIP; call <= HEARTBEAT; call++)
            row_add((struct row){.fault_text = faults[f].text, .call_text = calls[call], .fault = faults[f].fault,
                                 .call = call, .limit_ms = call == HEARTBEAT ? 3 * interval_ms : BY_TCP_MS});
    row_add((struct row){.fault_text = "SIGKILL in the middle of a frame", .call_text = "repl_ship_record",
                         .fault = KILLED_IN_FRAME, .call = SHIP, .limit_ms = BY_TCP_MS});
    row_add((struct row){.fault_text = "SIGSTOP", .call_text = "TCP alone, 10 s", .fault = STOPPED, .call = WAIT,
                         .limit_ms = 10000});
    row_add((struct row){.fault_text = "SIGSTOP", .call_text = "repl_heartbeat", .fault = STOPPED, .call = HEARTBEAT,
                         .limit_ms = 3 * interval_ms});
    run_rows();
}
static void holes(void)
{
    static const char *const texts[2][3] = {
        {"black hole, idle, both ways", "black hole, idle, leader to follower", "black hole, idle, follower to leader"},
        {"black hole, data in flight, both ways", "black hole, data in flight, leader to follower",
         "black hole, data in flight, follower to leader"}};
    const char *missing = net_missing();
    if (missing)
        own_skip(missing);
    begin_rows();
    for (int in_flight = 0; in_flight < 2; in_flight++)
        for (enum where where = BOTH_WAYS; where <= FROM_FOLLOWER; where++)
            for (enum call call = SHIP; call <= LOOK; call++) {
                if ((call == LOOK || call == SHIP) && call == (in_flight ? LOOK : SHIP))
                    continue; /* what ships is not idle */
                row_add((struct row){.fault_text = texts[in_flight][where], .call_text = calls[call], .fault = HOLE,
                                     .call = call, .where = where, .in_flight = in_flight,
                                     .limit_ms = call == HEARTBEAT ? 3 * interval_ms : BY_TCP_MS});
            }
    run_rows();
}
/* The other end: a follower whose leader has vanished notices it too, else it would never come back. */
static void leader_vanishes(void)
{
    const char *missing = net_missing();
    if (missing)
        own_skip(missing);
    static const struct row row = {.fault = HOLE, .call = HEARTBEAT};
    faults_share();
    net_make(&net);
    net_cut(&net, LEADER_SIDE, 0);
    net_cut(&net, FOLLOWER_SIDE, 0);
    net_enter(net.ns[LEADER_SIDE]);
    leader_listen(&leader, 1, (char *)(uintptr_t)leader_host);
    pid_t pid = own_fork();
    if (pid == 0)
        follower_of(&row, 1);
    leader_open(&leader);
    leader_gather(&leader, PATIENCE);
    leader_append(&leader, VALUE);
    CHECK_EQ(leader_ship(&leader), 1);
    CHECK_EQ(repl_wait_quorum(&leader.config, leader.lsn, PATIENCE), 0);
    REQUIRE(AWAIT(shared->number[0] == 1, PATIENCE));
    open_hole(&row);
    CHECK(AWAIT(shared->number[1] != 0, BY_TCP_MS));
    printf("    %-52s %-28s %12.1f\n", "black hole, idle: the leader is gone", "logship_follow",
           (double)((int64_t)shared->number[1] - shared->event_us) / 1000);
    kill(pid, SIGKILL);
    own_reap(pid);
}
int main(void)
{
    own_case("a follower that ends, resets or stops is noticed", processes, 60);
    own_case("a follower behind a black hole is noticed within 9 s", holes, 60);
    own_case("a leader behind a black hole is noticed within 9 s", leader_vanishes, 60);
    return own_end();
}
