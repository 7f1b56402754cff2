/* Every system call that an operation makes on files fails once, with EIO or with ENOSPC in the middle of a write; built
 * with FAULTY_PAIRS (make faults) two of them fail. What returned 0 is there after reopening, in a program that goes on
 * with the writer that it has and a copy of it; an error is an error. */
#include "bytes.h"
#include "faulty.h"
#include "logship.h"
#include <sys/socket.h>

enum { HAD = 6, GIVEN = 3 }; /* records before the operation, and those that it brings */
static struct wal_writer writer, second;
static struct kv_store store;
static int follower = -1, leader = -1; /* the ends of a connection */

static void silent(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}
static struct wal_record record(int n)
{
    static char keys[32][8], values[32][40];
    snprintf(keys[n], sizeof keys[n], "key%02d", n);
    snprintf(values[n], sizeof values[n], "value%.*s", n, "abcdefghijklmnopqrstuvwxyz");
    return (struct wal_record){.op = WAL_OP_SET, .key = keys[n], .key_len = 5, .value = values[n],
                               .value_len = (uint16_t)strlen(values[n]), .timestamp = (uint64_t)n};
}
static int append(struct wal_writer *to, int n)
{
    struct wal_record one = record(n);
    return wal_append(to, &one);
}

/* ---- the operations: they return whether they succeeded ---- */
static int op_append(void)
{
    return append(&writer, HAD + 1) == 0;
}
static int op_batch(void)
{
    struct wal_record batch[GIVEN];
    for (int n = 0; n < GIVEN; n++)
        batch[n] = record(HAD + 1 + n);
    return logship_append_batch(&writer, batch, GIVEN) >= 0;
}
static int op_receive(void)
{
    return repl_receive_record(follower, &writer, &store) == 0;
}
static int op_checkpoint(void)
{
    return wal_checkpoint_write(&store, "x.ckpt", writer.offset) == 0;
}
static int op_compact(void)
{
    return logship_wal_compact("x.wal", "x.ckpt") >= 0;
}
static int op_truncate(void)
{
    return logship_wal_truncate_to("x.wal", 5) >= 0;
}
static int op_open(void)
{
    return wal_open(&writer, "x.wal") == 0;
}
static int op_recover(void)
{
    struct kv_store found;
    REQUIRE(kv_store_init(&found) == 0);
    int replayed = wal_recover_with_checkpoint("x.wal", "x.ckpt", &found);
    if (replayed >= 0)
        CHECK_EQ(kv_store_count(&found), HAD); /* never fewer with a 0 */
    kv_store_destroy(&found);
    return replayed >= 0;
}
static const struct operation {
    const char *name;
    int (*run)(void);
    int given;        /* records that it brings */
    int left;         /* records of those before that it leaves */
    int opens;        /* it opens the log */
    int is_compacted; /* the log */
} operations[] = {
    {"append", op_append, 1, HAD, 0, 0},         {"batch", op_batch, GIVEN, HAD, 0, 0},
    {"receive", op_receive, 1, HAD, 0, 0},       {"checkpoint", op_checkpoint, 0, HAD, 0, 0},
    {"compact", op_compact, 0, HAD, 0, 0},       {"compact again", op_compact, 0, HAD, 0, 1},
    {"truncate", op_truncate, 0, 5, 0, 0},       {"open", op_open, 0, HAD, 1, 0},
    {"open compacted", op_open, 0, HAD, 1, 1},   {"recover", op_recover, 0, HAD, 0, 0},
    {"recover compacted", op_recover, 0, HAD, 0, 1},
};

/* ---- a run ---- */
static void begin(const struct operation *op)
{
    char name[300];
    while (own_count_files("x.", name, sizeof name) > 0)
        REQUIRE(unlink(name) == 0);
    REQUIRE(kv_store_init(&store) == 0 && wal_open(&writer, "x.wal") == 0);
    for (int n = 1; n <= HAD; n++) {
        REQUIRE(append(&writer, n) == 0);
        struct wal_record one = record(n);
        REQUIRE(kv_store_apply(&store, &one) == 1);
        if (n == 3 || n == 5)
            REQUIRE(wal_checkpoint_write(&store, "x.ckpt", writer.offset) == 0);
        if (n == 3 && op->is_compacted)
            REQUIRE(logship_wal_compact("x.wal", "x.ckpt") == 2);
    }
    second = writer;
    if (op->opens)
        REQUIRE(wal_close(&writer) == 0);
    if (op->run == op_receive) {
        int ends[2];
        uint8_t encoded[256], header[4] = {0};
        struct wal_record one = record(HAD + 1);
        int len = wal_record_encode(&one, encoded, sizeof encoded);
        header[3] = (uint8_t)len;
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        leader = ends[0], follower = ends[1];
        REQUIRE(send(leader, header, 4, 0) == 4 && send(leader, encoded, (size_t)len, 0) == len);
    }
}
static int has(const struct kv_store *found, int n)
{
    struct wal_record one = record(n);
    const char *value = kv_store_get(found, one.key);
    return value && strcmp(value, one.value) == 0;
}
/* What is there when the program is started again. */
static void ends_well(const struct operation *op, int succeeded, int went_on, int pair)
{
    struct wal_writer again;
    struct kv_store found;
    if (!CHECK_EQ(wal_open(&again, "x.wal"), 0))
        return;
    REQUIRE(kv_store_init(&found) == 0);
    if (CHECK(wal_recover_with_checkpoint("x.wal", "x.ckpt", &found) >= 0)) {
        int there = 0, all = 0;
        for (int n = 1; n <= HAD; n++)
            there += has(&found, n);
        if (succeeded)
            CHECK_EQ(there, op->left);
        else
            CHECK(there == op->left || there == HAD);
        for (int n = HAD + 1; n <= HAD + op->given; n++)
            all += has(&found, n);
        if (succeeded)
            CHECK_EQ(all, op->given);
        else
            CHECK(all == 0 || pair);
        for (int n = 20; n < 22; n++)
            CHECK(has(&found, n) || !(went_on & 1 << (n - 20)));
        CHECK_EQ(logship_last_lsn(&again), kv_store_count(&found)); /* every key is one record's */
    }
    kv_store_destroy(&found);
    CHECK_EQ(own_count_files("x.wal.tmp-", NULL, 0), 0);
    CHECK_EQ(append(&again, 22), 0);
    CHECK_EQ(wal_close(&again), 0);
}
static long attempt(const struct operation *op, long first, long second_fault, int kind)
{
    int bad = own_bad;
    begin(op);
    faulty_arm(first, second_fault, kind);
    int succeeded = op->run();
    long calls = faulty_disarm();
    int went_on = 0, is_open = !op->opens || succeeded;
    if (is_open) {
        went_on = (append(&writer, 20) == 0) | (append(op->opens ? &writer : &second, 21) == 0) << 1;
        wal_close(&writer);
    }
    ends_well(op, succeeded, went_on, second_fault > 0);
    if (own_bad > bad)
        printf("    %s: of %ld calls %ld and %ld failed (kind %d):%s; it %s\n", op->name, calls, first, second_fault,
               kind, faulty.failed, succeeded ? "succeeded" : "failed");
    kv_store_destroy(&store);
    if (leader >= 0)
        close(leader), close(follower), leader = follower = -1;
    return calls;
}
static const struct operation *tried;
static void every_call(void)
{
    logship_set_log(silent, NULL);
    long runs = 0, calls = attempt(tried, 0, 0, 0);
    REQUIRE(calls > 2);
    for (long first = 1; first <= calls && own_bad == 0; first++) {
#ifdef FAULTY_PAIRS
        for (long other = first + 1; other <= calls + 12 && own_bad == 0; other++, runs++)
            attempt(tried, first, other, 0);
#else
        attempt(tried, first, 0, 0);
        attempt(tried, first, 0, 1);
        runs += 2;
#endif
    }
    printf("    %ld runs\n", runs);
}
int main(void)
{
    /* Thousands of logs are made durable: in memory, where there is room for files. */
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    for (size_t at = 0; at < sizeof operations / sizeof *operations; at++) {
        tried = &operations[at];
        own_case(tried->name, every_call, 250);
    }
    return own_end();
}
