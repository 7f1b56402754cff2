/*
 * W11 L04: the last writer wins, whatever the order in which writes arrive. Each test ships writes to one key to a fresh
 * follower and looks at what is left there, in its memory and in a replay of its log.
 */
#define _GNU_SOURCE
#include "repl_test_util.h"
#include "w11/repl_conflict.h"

struct outcome {
    char value[64];
    unsigned long long timestamp;
};

/* The log has the records in the order of their arrival: recovery has to decide as the follower did. */
static void check_replayed_value(const char *expected, int records)
{
    struct kv_store replayed;

    CHECK_EQ(kv_store_init(&replayed), 0);
    CHECK_EQ(wal_recover("follower-1.wal", &replayed), records);
    CHECK_STR(kv_store_get(&replayed, "x"), expected);
    CHECK_EQ(count_keys(&replayed), 1);
    kv_store_destroy(&replayed);
}

/* Two writes to x in this order; what x is afterwards. */
static struct outcome write_x(struct wal_record first, struct wal_record second)
{
    struct wal_record records[] = { first, second };
    struct follower_process follower;
    struct outcome outcome;
    char line[256];

    run_on_fresh_follower(&follower, records, 2);
    hear(&follower, line, sizeof line);
    CHECK_EQ(sscanf(line, "x %63s %llu", outcome.value, &outcome.timestamp), 2);
    hear(&follower, line, sizeof line);
    CHECK_STR(line, ""); /* x is the only key */
    reap_follower(&follower);
    check_replayed_value(outcome.value, 2);
    return outcome;
}

static void check_outcome(const struct outcome *outcome, const char *value, unsigned long long timestamp)
{
    CHECK_STR(outcome->value, value);
    CHECK_EQ(outcome->timestamp, timestamp);
}

static void test_in_order(void)
{
    struct outcome x = write_x(set_record("x", "old", 100), set_record("x", "new", 200));

    check_outcome(&x, "new", 200);
    printf("test 1: in-order writes — x=%s (t=%llu) ✓\n", x.value, x.timestamp);
}

/* A DEL is a write like any other: one that comes late must not delete what is newer. */
static void test_out_of_order(void)
{
    struct outcome x = write_x(set_record("x", "new", 200), set_record("x", "old", 100));
    struct outcome after_stale_del = write_x(set_record("x", "new", 200), del_record("x", 100));

    check_outcome(&x, "new", 200);
    check_outcome(&after_stale_del, "new", 200);
    printf("test 2: out-of-order writes — x=%s (t=%llu) kept, old (t=100) skipped ✓\n", x.value, x.timestamp);
}

/* Two replicas may see the two writes in different order; both must end with the same one. */
static void test_tiebreaker(void)
{
    struct outcome ascending = write_x(set_record("x", "aaa", 100), set_record("x", "zzz", 100));
    struct outcome descending = write_x(set_record("x", "zzz", 100), set_record("x", "aaa", 100));

    check_outcome(&ascending, "zzz", 100);
    check_outcome(&descending, "zzz", 100);
    printf("test 3: same timestamp tiebreaker — x=%s wins over x=aaa ✓\n", descending.value);
}

/* The rule by itself. */
static void check_rule(void)
{
    CHECK_EQ(repl_resolve_conflict(100, 200, "old", "new"), APPLY);
    CHECK_EQ(repl_resolve_conflict(200, 100, "new", "old"), SKIP);
    CHECK_EQ(repl_resolve_conflict(100, 100, "aaa", "zzz"), APPLY);
    CHECK_EQ(repl_resolve_conflict(100, 100, "zzz", "aaa"), SKIP);
    CHECK_EQ(repl_resolve_conflict(100, 100, "aaa", "aaa"), SKIP);
    CHECK_EQ(repl_resolve_conflict(0, 100, NULL, "new"), APPLY);
}

static void test_conflict(void)
{
    check_rule();
    test_in_order();
    test_out_of_order();
    test_tiebreaker();
    printf("3/3 conflict tests passed\n");
}

int main(void)
{
    return run_test(test_conflict);
}
