/* What the library may not do to the program that it is in: end it by a signal or by a cancelled thread, hang it after
 * fork(2), write into descriptors that are not its own, need a large stack, wait for a lock that it holds itself. */
#include "wire.h"
#include "logship.h"
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif

static struct kv_store store;
static struct wal_writer writer;
static struct replication_config config;
static uint8_t log_bytes[65536];
static size_t ends[1024]; /* where record n ends in the log, from 1 */
static atomic_int stop;

static void quiet(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}
static void make_log(int count)
{
    for (int n = 1; n <= count; n++) {
        char key[16], value[16];
        snprintf(key, sizeof key, "key%d", n);
        snprintf(value, sizeof value, "value%d", n);
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
static int append(struct wal_writer *log, int n)
{
    struct wal_record record;
    if (wal_record_decode(rec(n), len(n), &record) != 0)
        return -1;
    int got = wal_append(log, &record);
    wal_record_free(&record);
    return got;
}
static int send_record(int fd, int n)
{
    uint8_t frame[256];
    return own_put_all(fd, frame, own_frame(frame, rec(n), len(n)));
}
/* A log whose recovery has something to say: two whole records and a piece of the third. */
static void make_torn(void)
{
    make_log(20);
    REQUIRE(own_write_file("torn.wal", log_bytes, ends[2] + 5) == 0);
}

/* ---- SIGPIPE ---- */

static int sigpipe_pending(void)
{
    sigset_t set;
    return sigpending(&set) == 0 && sigismember(&set, SIGPIPE) == 1;
}
static int sigpipe_blocked(void)
{
    sigset_t set;
    return pthread_sigmask(SIG_SETMASK, NULL, &set) == 0 && sigismember(&set, SIGPIPE) == 1;
}
static void set_sigpipe(int how)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    REQUIRE(pthread_sigmask(how, &set, NULL) == 0);
}
static void log_line_without_a_reader(void) /* SIGPIPE has its default action here: raised once, and this process is gone */
{
    int ends_of[2];
    make_torn();
    logship_set_log(NULL, NULL);
    REQUIRE(pipe(ends_of) == 0);
    close(ends_of[0]);
    REQUIRE(dup2(ends_of[1], 2) == 2);
    close(ends_of[1]);
    REQUIRE(kv_store_init(&store) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(wal_recover("torn.wal", &store), 2);
        CHECK(!sigpipe_pending() && !sigpipe_blocked());
    }
    CHECK_EQ(wal_open(&writer, "torn.wal"), 0); /* cuts the piece off and says so */
    CHECK_EQ(append(&writer, 3), 0);
    CHECK_EQ(wal_close(&writer), 0);
    CHECK(own_file_is("torn.wal", log_bytes, ends[3]));
    kv_store_destroy(&store);
}
static atomic_int handled;
static void on_sigpipe(int number)
{
    (void)number;
    handled++;
}
static void into_the_void(int fd)
{
    CHECK_FAILS(write_full(fd, "x", 1), EPIPE);
    CHECK(!sigpipe_pending() && !sigpipe_blocked());
    signal(SIGPIPE, on_sigpipe);
    CHECK_FAILS(write_full(fd, "xyz", 3), EPIPE);
    CHECK_EQ(handled, 0);
    set_sigpipe(SIG_BLOCK);
    CHECK_FAILS(write_full(fd, "x", 1), EPIPE);
    CHECK(!sigpipe_pending() && sigpipe_blocked());
    raise(SIGPIPE); /* pending for this thread */
    CHECK(sigpipe_pending());
    CHECK_FAILS(write_full(fd, "x", 1), EPIPE);
    CHECK(sigpipe_pending() && sigpipe_blocked());
    set_sigpipe(SIG_UNBLOCK);
    CHECK_EQ(handled, 1); /* the one that the program raised */
    set_sigpipe(SIG_BLOCK);
    kill(getpid(), SIGPIPE); /* pending for the process */
    CHECK_FAILS(write_full(fd, "x", 1), EPIPE);
    CHECK(sigpipe_pending());
    set_sigpipe(SIG_UNBLOCK);
    CHECK(handled >= 2);
    handled = 0;
    signal(SIGPIPE, SIG_DFL);
    close(fd);
}
static void write_full_without_a_reader(void)
{
    int two[2], ours, theirs;
    REQUIRE(pipe(two) == 0);
    close(two[0]);
    into_the_void(two[1]);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, two) == 0);
    close(two[0]);
    into_the_void(two[1]);
    REQUIRE(own_pair(&ours, &theirs, 0) == 0);
    REQUIRE(shutdown(ours, SHUT_WR) == 0);
    into_the_void(ours);
    close(theirs);
}

/* ---- pthread_cancel ---- */

struct call {
    int fd;
    int which;
    atomic_int tid;
    int cleaned_up, returned, result;
};
static void clean_up(void *call)
{
    ((struct call *)call)->cleaned_up = 1;
}
enum { RECEIVE, FOLLOW, RECV_FULL, ACCEPT, CALLS };
static int waiting_call(struct call *call)
{
    char bytes[16];
    switch (call->which) {
    case RECEIVE: return repl_receive_record(call->fd, &writer, &store);
    case FOLLOW: return logship_follow(call->fd, &writer, &store);
    case RECV_FULL: return recv_full(call->fd, bytes, sizeof bytes);
    default: return repl_accept(call->fd);
    }
}
static void *wait_to_be_cancelled(void *argument)
{
    struct call *call = argument;
    pthread_cleanup_push(clean_up, call);
    call->tid = (int)syscall(SYS_gettid);
    call->result = waiting_call(call);
    call->returned = 1;
    pthread_cleanup_pop(0);
    return NULL;
}
/* Waits until the thread sleeps in the kernel: its state in /proc is S. 1, or 0 after 5 s. */
static int asleep(const struct call *call)
{
    char path[64], stat[512];
    for (int64_t end = own_now_ms() + 5000; own_now_ms() < end; poll(NULL, 0, 1)) {
        if (call->tid == 0)
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)call->tid);
        int fd = open(path, O_RDONLY);
        ssize_t got = fd < 0 ? -1 : read(fd, stat, sizeof stat - 1);
        if (fd >= 0)
            close(fd);
        if (got <= 0)
            continue;
        stat[got] = '\0';
        const char *after = strrchr(stat, ')');
        if (after && after[1] == ' ' && after[2] == 'S')
            return 1;
    }
    return 0;
}
static void skip_cancellation(void)
{
    if (UNDER_ASAN)
        own_skip("AddressSanitizer does not unwind a cancelled thread");
}
enum { NOTHING, HEARTBEAT, POSITION, GAP };
/* Waits until the other end of a connection has read all that was sent from this one: 1, or 0 after 5 s. */
static int all_read(int from, int to)
{
    int unsent = -1;
    for (int64_t end = own_now_ms() + 5000; own_now_ms() < end; poll(NULL, 0, 1))
        if (ioctl(from, TIOCOUTQ, &unsent) == 0 && unsent == 0 && own_pending(to) == 0)
            return 1;
    return 0;
}
static void send_position(int fd, uint64_t lsn)
{
    uint8_t bytes[POSITION_LEN];
    CHECK_EQ(own_put_all(fd, bytes, own_position(bytes, lsn)), 0);
}
/* Tells the follower something that it takes inside its call, which goes on. */
static void tell(int what, int leader, const struct call *call, uint64_t next)
{
    switch (what) {
    case HEARTBEAT:
        REQUIRE(repl_config_init(&config) == 0);
        config.follower_count = 1;
        config.followers[0].fd = leader;
        config.followers[0].online = 1;
        CHECK_EQ(repl_heartbeat(&config, 5000), 1);
        break;
    case GAP: /* answered: it lacks a record */
        if (call->which == FOLLOW)
            CHECK(own_hello_is(leader, next - 1));
        send_position(leader, next + 1);
        CHECK(own_ack_is(leader, next, REPL_ACK_NOT_STORED));
        /* fall through */
    case POSITION: /* not answered */
        send_position(leader, next);
        CHECK(all_read(leader, call->fd));
        break;
    default: break;
    }
}
static void cancelled(int which, int told)
{
    struct call call = {.which = which};
    pthread_t thread;
    void *result = NULL;
    uint8_t ack[16], bytes[16];
    uint16_t port = 0;
    int leader = -1, fds = own_count_fds();
    if (which == ACCEPT)
        REQUIRE((call.fd = own_listen(&port)) >= 0);
    else
        REQUIRE(own_pair(&leader, &call.fd, 0) == 0);
    long before = logship_last_lsn(&writer);
    REQUIRE(pthread_create(&thread, NULL, wait_to_be_cancelled, &call) == 0);
    REQUIRE(asleep(&call));
    tell(told, leader, &call, (uint64_t)before + 1);
    REQUIRE(asleep(&call)); /* once more */
    CHECK_EQ(pthread_cancel(thread), 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
    CHECK_EQ(call.cleaned_up, 1);
    CHECK_EQ(call.returned, 0);
    /* and what it waited with is still of use */
    switch (which) {
    case RECEIVE:
    case FOLLOW:
        CHECK_EQ(send_record(leader, (int)before + 1), 0);
        CHECK_EQ(waiting_call(&call), 0);
        CHECK_EQ(logship_last_lsn(&writer), before + 1);
        if (which == FOLLOW && told != GAP && told != HEARTBEAT) /* the leader's heartbeat has taken it in */
            CHECK(own_hello_is(leader, (uint64_t)before));
        if (which == FOLLOW)
            CHECK(own_ack_is(leader, (uint64_t)before + 1, REPL_ACK_OK));
        break;
    case RECV_FULL:
        own_ack(ack, 5, REPL_ACK_OK, 0);
        CHECK_EQ(own_put_all(leader, ack, 16), 0);
        CHECK_EQ(recv_full(call.fd, bytes, 16), 0);
        CHECK(memcmp(ack, bytes, 16) == 0);
        break;
    default:
        leader = own_connect(port, 0);
        int got = repl_accept(call.fd);
        CHECK(got >= 0 && leader >= 0);
        close(got);
    }
    close(leader), close(call.fd);
    CHECK_EQ(own_count_fds(), fds);
}
static void threads_that_wait(void)
{
    skip_cancellation();
    make_log(20);
    REQUIRE(wal_open(&writer, "follower.wal") == 0 && kv_store_init(&store) == 0);
    for (int round = 0; round < 3; round++)
        for (int which = 0; which < CALLS; which++)
            cancelled(which, NOTHING);
    CHECK(own_file_is("follower.wal", log_bytes, ends[6])); /* three times a record for each of the two */
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
}
static void threads_that_have_answered(void)
{
    skip_cancellation();
    make_log(20);
    REQUIRE(wal_open(&writer, "follower.wal") == 0 && kv_store_init(&store) == 0);
    for (int round = 0; round < 3; round++)
        for (int told = HEARTBEAT; told <= GAP; told++) {
            cancelled(RECEIVE, told);
            cancelled(FOLLOW, told);
        }
    CHECK(own_file_is("follower.wal", log_bytes, ends[18]));
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
}
/* A request that is there already: a call that works on files and peers is not ended in the middle. */
static void *cancelled_beforehand(void *results)
{
    int *at = results;
    pthread_cancel(pthread_self());
    *at++ = append(&writer, 1);
    *at++ = repl_ship_record(&config, rec(1), len(1));
    *at++ = wal_recover("follower.wal", &store);
    *at++ = wal_close(&writer);
    *at++ = 77;
    pthread_testcancel();
    *at = 99;
    return NULL;
}
static void a_request_is_kept(void)
{
    int results[6] = {-9, -9, -9, -9, -9, -9}, peer;
    pthread_t thread;
    void *result = NULL;
    skip_cancellation();
    make_log(2);
    REQUIRE(wal_open(&writer, "follower.wal") == 0 && kv_store_init(&store) == 0);
    REQUIRE(repl_config_init(&config) == 0 && own_pair(&config.followers[0].fd, &peer, 0) == 0);
    config.follower_count = 1;
    config.followers[0].online = 1;
    REQUIRE(pthread_create(&thread, NULL, cancelled_beforehand, results) == 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
    const int want[6] = {0, 1, 1, 0, 77, -9};
    for (int i = 0; i < 6; i++)
        CHECK_EQ(results[i], want[i]);
    CHECK(own_file_is("follower.wal", log_bytes, ends[1]));
    CHECK(own_frame_is(peer, rec(1), len(1)));
    close(peer), close(config.followers[0].fd);
    kv_store_destroy(&store);
}

/* ---- fork ---- */

static void *noisy(void *unused)
{
    struct kv_store mine;
    (void)unused;
    if (kv_store_init(&mine) != 0)
        return NULL;
    while (!stop)
        wal_recover("torn.wal", &mine);
    kv_store_destroy(&mine);
    return NULL;
}
static void forks_while_threads_log(void)
{
    int lines[2], status;
    char rest[4096];
    pthread_t threads[2];
    /* Seen with gdb, gcc 12: the child spins on the mutex of LargeMmapAllocator, held by a thread that it has not. */
    if (UNDER_ASAN)
        own_skip("AddressSanitizer's lock for large blocks may be held in a child that was forked while threads allocate");
    make_torn();
    logship_set_log(NULL, NULL);
    REQUIRE(pipe(lines) == 0);
    pid_t reader = own_fork();
    REQUIRE(reader >= 0);
    if (reader == 0) { /* slow enough that a line is being written at any time */
        close(lines[1]);
        long total = 0;
        for (ssize_t got; (got = read(lines[0], rest, sizeof rest)) > 0;)
            total += got;
        CHECK(total > 0);
        own_leave();
    }
    close(lines[0]);
    REQUIRE(dup2(lines[1], 2) == 2);
    close(lines[1]);
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&threads[i], NULL, noisy, NULL) == 0);
    for (int i = 0; i < 200; i++) {
        pid_t pid = own_fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            struct kv_store mine;
            alarm(10); /* its deadline */
            int ok = kv_store_init(&mine) == 0 && wal_recover("torn.wal", &mine) == 2 && kv_store_count(&mine) == 2;
            _exit(ok ? 0 : 3);
        }
        status = own_reap(pid);
        if (!CHECK_EQ(status, 0)) { /* 142: it hung */
            NOTE("child %d", i + 1);
            break;
        }
    }
    stop = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    close(2);
    CHECK_EQ(own_reap(reader), 0);
}

/* ---- closed standard descriptors ---- */

static void closed_stderr(void)
{
    struct repl_node node = {.host = "127.0.0.1", .port = 0, .fd = -1};
    make_torn();
    logship_set_log(NULL, NULL);
    close(0), close(2); /* the harness prints its checks on 1 */
    REQUIRE(kv_store_init(&store) == 0);
    REQUIRE(wal_open(&writer, "w.wal") == 0);
    CHECK(writer.fd > 2);
    CHECK_EQ(append(&writer, 1), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(wal_recover("torn.wal", &store), 2); /* says something */
    CHECK(own_file_is("w.wal", log_bytes, ends[1]));
    CHECK_EQ(append(&writer, 2), 0);
    CHECK(own_file_is("w.wal", log_bytes, ends[2]));
    int listener = repl_listen(&node);
    CHECK(listener > 2);
    CHECK_EQ(repl_connect(&node), 0);
    CHECK(node.fd > 2);
    int accepted = repl_accept(listener);
    CHECK(accepted > 2);
    CHECK_EQ(repl_set_leader("127.0.0.1", node.port), 0);
    int rejoined = repl_follower_rejoin(-1, 5);
    CHECK(rejoined > 2);
    CHECK_EQ(wal_recover("torn.wal", &store), 2);
    CHECK_EQ(own_pending(accepted), 0); /* no text on a connection */
    CHECK(!own_is_open(0) && !own_is_open(2));
    close(listener), close(accepted), close(node.fd), close(rejoined);
    CHECK_EQ(wal_checkpoint_write(&store, "c.ckpt", 0), 0);
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
}

static int lines_heard, lines_with_low_files;
static void look(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
    lines_heard++;
    lines_with_low_files += own_is_open(0) || own_is_open(2);
}
static const char TEXT[] = "what the program has to say";
static atomic_int is_watching, text_landed;
/* A program that prints to its closed descriptors, as soon as there is something in the file. */
static void *print_while(void *path)
{
    for (is_watching = 1; !stop;)
        if (own_file_size(path) > 0)
            text_landed += write(0, TEXT, sizeof TEXT) > 0 || write(2, TEXT, sizeof TEXT) > 0;
    return NULL;
}
static void start_printing(pthread_t *thread, char *path)
{
    stop = is_watching = 0;
    REQUIRE(pthread_create(thread, NULL, print_while, path) == 0);
    while (!is_watching)
        ;
}
static void stop_printing(pthread_t thread)
{
    stop = 1;
    pthread_join(thread, NULL);
    CHECK_EQ(text_landed, 0);
    CHECK(!own_is_open(0) && !own_is_open(2));
}
/* Large ones, so that there is time to print into them. */
static void closed_stderr_and_files(void)
{
    enum { TORN = 32 << 20, KEYS = 200, VALUE = 60000 };
    static char torn_copy[] = "big.wal.torn-1", temporary[] = "c.ckpt.tmp-1", value[VALUE + 1];
    pthread_t thread;
    struct kv_store loaded;
    uint64_t offset;
    make_torn();
    uint8_t *tail = calloc(1, TORN);
    REQUIRE(tail && kv_store_init(&store) == 0 && kv_store_init(&loaded) == 0);
    memcpy(tail, rec(3), 5);
    REQUIRE(own_write_file("big.wal", log_bytes, ends[2] + 5) == 0 && truncate("big.wal", (off_t)ends[2] + TORN) == 0);
    REQUIRE(own_write_file("bad.ckpt", "CKPT", 4) == 0);
    logship_set_log(look, NULL);
    close(0), close(2);

    start_printing(&thread, torn_copy);
    CHECK_EQ(wal_open(&writer, "big.wal"), 0);
    stop_printing(thread);
    CHECK(own_file_is("big.wal", log_bytes, ends[2]));
    CHECK(own_file_is(torn_copy, tail, TORN));
    CHECK_EQ(wal_close(&writer), 0);
    CHECK_EQ(lines_heard, 1);

    CHECK_EQ(wal_recover("torn.wal", &store), 2); /* says so while it has the log open */
    CHECK_EQ(lines_heard, 2);
    CHECK_EQ(wal_recover_with_checkpoint("torn.wal", "bad.ckpt", &store), 2); /* and here both */
    CHECK_EQ(lines_heard, 4);
    CHECK_EQ(lines_with_low_files, 0);

    memset(value, 'v', VALUE);
    for (int n = 1; n <= KEYS; n++) {
        char key[24];
        snprintf(key, sizeof key, "large%d", n);
        CHECK_EQ(kv_store_set(&store, key, value), 0);
    }
    start_printing(&thread, temporary);
    CHECK_EQ(wal_checkpoint_write(&store, "c.ckpt", 0), 0);
    stop_printing(thread);
    CHECK_EQ(own_file_size(temporary), -1);
    CHECK_EQ(wal_checkpoint_load("c.ckpt", &loaded, &offset), 0);
    CHECK_EQ(kv_store_count(&loaded), kv_store_count(&store));
    kv_store_destroy(&store);
    kv_store_destroy(&loaded);
    free(tail);
}

/* ---- small stacks ---- */

static void *all_calls(void *unused)
{
    struct wal_record record;
    struct repl_follower_status status;
    struct kv_store other;
    struct wal_writer theirs;
    int peer, second, second_peer;
    uint64_t offset;
    (void)unused;
    CHECK_EQ(kv_store_init(&store), 0);
    CHECK_EQ(kv_store_init(&other), 0);
    CHECK_EQ(wal_open(&writer, "small.wal"), 0);
    for (int n = 1; n <= 5; n++)
        CHECK_EQ(append(&writer, n), 0);
    CHECK_EQ(wal_record_decode(rec(6), len(6), &record), 0);
    CHECK_EQ(logship_append_batch(&writer, &record, 1), 0);
    wal_record_free(&record);
    CHECK_EQ(logship_last_lsn(&writer), 6);
    CHECK_EQ(wal_recover("small.wal", &store), 6);
    CHECK_EQ(wal_checkpoint_write(&store, "small.ckpt", writer.offset), 0);
    CHECK_EQ(wal_checkpoint_load("small.ckpt", &other, &offset), 0);
    CHECK_EQ(wal_recover_with_checkpoint("small.wal", "small.ckpt", &other), 0);
    CHECK_EQ(wal_recover("torn.wal", &other), 2); /* and logs */

    CHECK_EQ(repl_config_init(&config), 0);
    CHECK_EQ(repl_set_wal(&config, "small.wal"), 0);
    config.follower_count = 1;
    REQUIRE(own_pair(&config.followers[0].fd, &peer, 0) == 0);
    CHECK_EQ(own_send_ack(peer, 4, REPL_ACK_OK, 0), 0);
    CHECK_EQ(repl_catch_up(&config, 0, 4), 2);
    CHECK(own_frame_is(peer, rec(5), len(5)) && own_frame_is(peer, rec(6), len(6)));
    CHECK_EQ(append(&writer, 7), 0);
    CHECK_EQ(repl_ship_record(&config, rec(7), len(7)), 1);
    CHECK(own_frame_is(peer, rec(7), len(7)));
    CHECK_EQ(own_send_ack(peer, 7, REPL_ACK_CRC_FAIL, 0), 0);
    CHECK_FAILS(repl_wait_quorum(&config, 7, 1), ETIMEDOUT);
    CHECK_EQ(own_send_ack(peer, 7, REPL_ACK_OK, 0), 0);
    CHECK_EQ(repl_wait_quorum(&config, 7, 5000), 0);
    CHECK_EQ(repl_get_follower_status(&config, 0, &status), 0);
    CHECK_EQ(repl_heartbeat(&config, 10), 0);
    close(peer);

    CHECK_EQ(wal_open(&theirs, "theirs.wal"), 0);
    REQUIRE(own_pair(&second, &second_peer, 0) == 0);
    CHECK_EQ(send_record(second, 1), 0);
    CHECK_EQ(send_record(second, 2), 0);
    CHECK_EQ(repl_receive_record(second_peer, &theirs, &other), 0);
    CHECK_EQ(logship_follow(second_peer, &theirs, &other), 0);
    CHECK_EQ(repl_follower_rejoin(second_peer, 2), 0);
    close(second), close(second_peer);
    CHECK_EQ(wal_close(&theirs), 0);
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
    kv_store_destroy(&other);
    return NULL;
}
static void stack_of_64_kib(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    make_torn();
    REQUIRE(pthread_attr_init(&attributes) == 0);
    if (pthread_attr_setstacksize(&attributes, 64 * 1024) != 0)
        own_skip("no thread can have 64 KiB of stack here");
    int why = pthread_create(&thread, &attributes, all_calls, NULL);
    if (why != 0)
        own_skip("no thread can be made with 64 KiB of stack here");
    CHECK_EQ(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
}

/* ---- descriptors and paths that are something else ---- */

static void fifo(void)
{
    char byte = 0;
    uint64_t offset;
    REQUIRE(mkfifo("f", 0600) == 0 && kv_store_init(&store) == 0 && repl_config_init(&config) == 0);
    for (int open_already = 0; open_already <= 1; open_already++) {
        int fd = open_already ? open("f", O_RDWR | O_NONBLOCK) : -1;
        if (open_already)
            REQUIRE(fd >= 0 && write(fd, "x", 1) == 1);
        CHECK_EQ(wal_open(&writer, "f"), -1); /* a hang ends in the case's deadline */
        CHECK(wal_open_path("f") == NULL);
        CHECK_EQ(wal_recover("f", &store), -1);
        CHECK_EQ(wal_checkpoint_load("f", &store, &offset), -1);
        CHECK_EQ(wal_recover_with_checkpoint("f", "f", &store), -1);
        int ours, theirs;
        REQUIRE(own_pair(&ours, &theirs, 0) == 0);
        config.followers[0].fd = ours;
        CHECK_EQ(repl_set_wal(&config, "f"), 0);
        CHECK_EQ(repl_catch_up(&config, 0, 0), -1);
        close(theirs);
        if (config.followers[0].fd >= 0)
            close(ours);
        if (open_already) {
            CHECK(read(fd, &byte, 1) == 1 && byte == 'x'); /* nothing was read from it, nothing written */
            CHECK_EQ(read(fd, &byte, 1), -1);
            close(fd);
        }
    }
    struct stat st;
    CHECK(stat("f", &st) == 0 && S_ISFIFO(st.st_mode));
    kv_store_destroy(&store);
}
static void rejoin_on_something_else(void)
{
    uint16_t port = 0;
    struct stat before, after;
    int listener = own_listen(&port), listening = 0, two[2];
    socklen_t size = sizeof listening;
    REQUIRE(listener >= 0 && repl_set_leader("127.0.0.1", port) == 0); /* a new connection would be possible */
    int file = open("file", O_RDWR | O_CREAT, 0600);
    REQUIRE(file >= 0 && write(file, "text", 4) == 4 && fstat(file, &before) == 0);
    CHECK_FAILS(repl_follower_rejoin(file, 3), ENOTSOCK);
    CHECK(fstat(file, &after) == 0 && S_ISREG(after.st_mode) && after.st_ino == before.st_ino && after.st_size == 4);
    CHECK(own_file_is("file", "text", 4));
    CHECK_EQ(lseek(file, 0, SEEK_CUR), 4);

    REQUIRE(pipe(two) == 0 && fstat(two[1], &before) == 0);
    CHECK_FAILS(repl_follower_rejoin(two[1], 3), ENOTSOCK);
    CHECK(fstat(two[1], &after) == 0 && S_ISFIFO(after.st_mode) && after.st_ino == before.st_ino);
    close(two[0]), close(two[1]);

    CHECK_FAILS(repl_follower_rejoin(listener, 3), EINVAL);
    CHECK(getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening == 1);

    int number = dup(file), fds = own_count_fds();
    close(number);
    CHECK_FAILS(repl_follower_rejoin(number, 3), EBADF);
    CHECK(!own_is_open(number));
    CHECK_EQ(own_count_fds(), fds - 1);
    struct pollfd p = {.fd = listener, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 0), 0); /* nobody has connected */
    close(listener), close(file);
}

/* ---- a log function that calls the library ---- */

static int lines_seen, inner_failed, outer_is_wal;
static struct wal_writer other_log;
static int follower_fd;

static void expect_busy(long long got, const char *file, int line)
{
    int why = errno;
    inner_failed += own_check(got == -1 && why == EBUSY, file, line, "the inner call is -1/EBUSY", why, EBUSY);
}
#define BUSY(call) (errno = 0, expect_busy((call), __FILE__, __LINE__))
static void talkative(int level, const char *message, void *context)
{
    static int inside;
    (void)level, (void)message;
    CHECK(context == &lines_seen);
    if (inside)
        return;
    inside = 1;
    lines_seen++;
    if (outer_is_wal) {
        BUSY(append(&writer, 9));
        BUSY(logship_last_lsn(&writer));
        if (outer_is_wal == 2) /* from a receive */
            BUSY(repl_receive_record(follower_fd, &writer, &store));
    } else {
        BUSY(repl_ship_record(&config, rec(1), len(1)));
        BUSY(repl_wait_quorum(&config, 1, 1000));
        BUSY(repl_heartbeat(&config, 1000));
        BUSY(repl_catch_up(&config, 0, 0));
        BUSY(repl_set_wal(&config, "x.wal"));
    }
    CHECK_EQ(append(&other_log, 1), 0); /* another object is not in use */
    CHECK(repl_next_timestamp() > 0);
    logship_set_log(talkative, &lines_seen); /* nor is this */
    inside = 0;
}
static void log_function_calls_back(void)
{
    struct rlimit all, small;
    int theirs, leader, peer;
    make_log(20);
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &all) == 0 && kv_store_init(&store) == 0);
    REQUIRE(wal_open(&writer, "w.wal") == 0 && wal_open(&other_log, "other.wal") == 0);
    for (int n = 1; n <= 8; n++)
        REQUIRE(append(&writer, n) == 0);
    logship_set_log(talkative, &lines_seen);
    small = all;
    small.rlim_cur = (rlim_t)writer.offset + 3;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    outer_is_wal = 1;
    CHECK_FAILS(append(&writer, 9), EFBIG); /* says so, while it has the log */
    CHECK(lines_seen > 0 && inner_failed > 0);
    outer_is_wal = 2;
    lines_seen = 0;
    REQUIRE(own_pair(&leader, &follower_fd, 0) == 0 && send_record(leader, 9) == 0);
    CHECK_FAILS(repl_receive_record(follower_fd, &writer, &store), EFBIG);
    CHECK(lines_seen > 0);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &all) == 0);
    CHECK_EQ(send_record(leader, 9), 0);
    CHECK_EQ(repl_receive_record(follower_fd, &writer, &store), 0); /* and goes on as if nothing had been */
    CHECK_EQ(append(&writer, 10), 0);
    CHECK(own_file_is("w.wal", log_bytes, ends[10]));
    close(leader), close(follower_fd);

    outer_is_wal = 0;
    lines_seen = 0;
    REQUIRE(repl_config_init(&config) == 0 && own_pair(&config.followers[0].fd, &peer, 0) == 0);
    REQUIRE(own_pair(&config.followers[1].fd, &theirs, 0) == 0);
    config.followers[0].online = config.followers[1].online = 1;
    close(peer);
    REQUIRE(own_await(config.followers[0].fd, POLLRDHUP));
    CHECK_EQ(repl_ship_record(&config, rec(1), len(1)), 1); /* says that follower-1 is offline */
    CHECK(lines_seen > 0);
    CHECK_EQ(config.followers[0].online, 0);
    CHECK(own_frame_is(theirs, rec(1), len(1)));
    CHECK_EQ(repl_ship_record(&config, rec(2), len(2)), 1);
    CHECK(own_frame_is(theirs, rec(2), len(2)));
    lines_seen = 0;
    CHECK_EQ(own_send_ack(theirs, 2, REPL_ACK_OK, 0), 0);
    CHECK_FAILS(repl_wait_quorum(&config, 2, 1000), ENOTCONN); /* says that there is no quorum */
    CHECK(lines_seen > 0);
    close(theirs), close(config.followers[1].fd);
    logship_set_log(quiet, NULL);
    CHECK(wal_close(&writer) == 0 && wal_close(&other_log) == 0);
    kv_store_destroy(&store);
}

/* ---- threads beside each other ---- */

struct tally {
    long good, bad;
    int why;
};
static void *appender(void *argument)
{
    struct tally *tally = argument;
    for (int n = 1; !stop; n = n % 20 + 1) {
        if (append(&writer, n) == 0)
            tally->good++;
        else
            tally->bad++, tally->why = errno;
    }
    return NULL;
}
/* Reads frames until the end; how many whole ones. */
static void *frames(void *fd_and_count)
{
    int *at = fd_and_count;
    static uint8_t bytes[1 << 16];
    size_t have = 0;
    for (ssize_t got; (got = recv(at[0], bytes + have, sizeof bytes - have, 0)) > 0;) {
        size_t from = 0;
        have += (size_t)got;
        while (have - from >= 4) {
            size_t size = ((size_t)bytes[from] << 24 | (size_t)bytes[from + 1] << 16 | (size_t)bytes[from + 2] << 8 |
                           bytes[from + 3]) + 4;
            if (have - from < size)
                break;
            from += size;
            at[1]++;
        }
        memmove(bytes, bytes + from, have -= from);
    }
    return NULL;
}
static void append_beside_catch_up(void)
{
    struct tally tally = {0, 0, 0};
    pthread_t thread, drain;
    make_log(200);
    REQUIRE(wal_open(&writer, "leader.wal") == 0 && repl_config_init(&config) == 0);
    for (int n = 1; n <= 200; n++)
        REQUIRE(append(&writer, n) == 0);
    CHECK_EQ(repl_set_wal(&config, "leader.wal"), 0);
    config.follower_count = 1;
    REQUIRE(pthread_create(&thread, NULL, appender, &tally) == 0);
    for (int i = 0; i < 30; i++) {
        int peer[2] = {-1, 0};
        REQUIRE(own_pair(&config.followers[0].fd, &peer[0], 0) == 0);
        REQUIRE(pthread_create(&drain, NULL, frames, peer) == 0);
        int sent = repl_catch_up(&config, 0, 0);
        CHECK(sent >= 200); /* -1/EBUSY is what it was */
        CHECK_EQ(config.followers[0].online, 1);
        if (config.followers[0].fd >= 0)
            close(config.followers[0].fd);
        config.followers[0].fd = -1;
        config.followers[0].online = 0;
        pthread_join(drain, NULL);
        CHECK_EQ(peer[1], sent);
        close(peer[0]);
    }
    stop = 1;
    pthread_join(thread, NULL);
    CHECK(tally.good > 0);
    errno = tally.why;
    CHECK_EQ(tally.bad, 0);
    CHECK_EQ(logship_last_lsn(&writer), 200 + tally.good);
    CHECK_EQ(wal_close(&writer), 0);
}
static atomic_int reading[4];
static void *reader(void *which)
{
    atomic_int *mine = which;
    while (!stop) {
        pthread_rwlock_rdlock(&store.lock);
        for (int i = 0; i < 200; i++) {
            const char *value = kv_store_get(&store, "key1");
            if (value && strcmp(value, "value1") != 0)
                abort();
        }
        pthread_rwlock_unlock(&store.lock);
        if (*mine < INT_MAX)
            ++*mine;
    }
    return NULL;
}
static void readers_that_never_rest(void)
{
    pthread_t threads[4];
    int leader, peer;
    make_log(500);
    REQUIRE(kv_store_init(&store) == 0 && own_write_file("leader.wal", log_bytes, ends[500]) == 0);
    REQUIRE(wal_open(&writer, "follower.wal") == 0 && own_pair(&leader, &peer, 0) == 0);
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_create(&threads[i], NULL, reader, &reading[i]) == 0);
    for (int i = 0; i < 4; i++) /* all of them are at it */
        for (int64_t end = own_now_ms() + 5000; reading[i] < 3 && own_now_ms() < end; poll(NULL, 0, 1))
            ;
    CHECK_EQ(wal_recover("leader.wal", &store), 500); /* each write waits for the lock at most 5 s */
    for (int n = 1; n <= 20; n++) {
        CHECK_EQ(send_record(leader, n), 0);
        CHECK_EQ(repl_receive_record(peer, &writer, &store), 0);
    }
    CHECK_EQ(logship_last_lsn(&writer), 20);
    stop = 1;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(kv_store_count(&store), 500);
    close(leader), close(peer);
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
}

int main(void)
{
    logship_set_log(quiet, NULL);
    CASE("a log line on a pipe whose reader is gone", log_line_without_a_reader);
    CASE("write_full on a closed pipe and socket: EPIPE, no signal", write_full_without_a_reader);
    CASE("a thread that waits in a call can be cancelled", threads_that_wait);
    CASE("one that has answered a heartbeat or taken a position can, too", threads_that_have_answered);
    CASE("a call that works is not cancelled in the middle", a_request_is_kept);
    own_case("children forked while two threads log", forks_while_threads_log, 120);
    CASE("closed stdin and stderr: nothing gets their numbers", closed_stderr);
    CASE("closed stdin and stderr: no log, copy or checkpoint is written by others", closed_stderr_and_files);
    CASE("every call on a stack of 64 KiB", stack_of_64_kib);
    CASE("a FIFO is no log: refused at once", fifo);
    CASE("repl_follower_rejoin leaves alone what is no connection", rejoin_on_something_else);
    CASE("a log function that calls back: EBUSY, no deadlock", log_function_calls_back);
    own_case("appends beside catch-ups from the same log", append_beside_catch_up, 60);
    own_case("readers all the time keep no writer out", readers_that_never_rest, 60);
    return own_end();
}
