/* repl_conflict.c: the last writer wins, on every replica alike. */
#define _GNU_SOURCE
#include "wire.h"

static const char *verdict_name(int verdict)
{
    return verdict == APPLY ? "APPLY" : verdict == SKIP ? "SKIP" : "neither APPLY nor SKIP";
}

struct write {
    uint64_t timestamp;
    const char *value;
};

static int resolve(struct write existing, struct write incoming)
{
    int verdict;

    CALL(verdict, "repl_resolve_conflict",
         repl_resolve_conflict(existing.timestamp, incoming.timestamp, existing.value, incoming.value));
    return verdict;
}

static void expect_verdict(int expected, struct write existing, struct write incoming)
{
    char what[200];
    int verdict = resolve(existing, incoming);

    snprintf(what, sizeof what, "repl_resolve_conflict: %s (t=%" PRIu64 ") is there, %s (t=%" PRIu64 ") comes in",
             existing.value == NULL ? "nothing" : existing.value, existing.timestamp,
             incoming.value == NULL ? "a DEL" : incoming.value, incoming.timestamp);
    EXPECT(verdict == expected, what, verdict_name(expected), "%s", verdict_name(verdict));
}

static void newer_wins(void)
{
    expect_verdict(APPLY, (struct write){ 100, "old" }, (struct write){ 200, "new" });
    /* The time decides, not the value. */
    expect_verdict(APPLY, (struct write){ 100, "zzz" }, (struct write){ 200, "aaa" });
    /* All 64 bits: nanoseconds since boot fill more than 32. */
    expect_verdict(APPLY, (struct write){ 0xffffffff, "old" }, (struct write){ 0x100000000, "new" });
    expect_verdict(APPLY, (struct write){ 5, "old" }, (struct write){ 0x9000000000000000, "new" });
}

static void older_is_skipped(void)
{
    expect_verdict(SKIP, (struct write){ 200, "new" }, (struct write){ 100, "old" });
    expect_verdict(SKIP, (struct write){ 200, "aaa" }, (struct write){ 100, "zzz" });
    expect_verdict(SKIP, (struct write){ 0x100000000, "new" }, (struct write){ 0xffffffff, "old" });
    expect_verdict(SKIP, (struct write){ 200, "aaa" }, (struct write){ 199, "zzz" });
}

static void stale_del(void)
{
    /* A DEL has no value; the time alone decides, so no value is needed. */
    expect_verdict(SKIP, (struct write){ 200, "new" }, (struct write){ 100, "" });
    expect_verdict(APPLY, (struct write){ 200, "new" }, (struct write){ 300, "" });
}

static void first_write(void)
{
    expect_verdict(APPLY, (struct write){ 0, "" }, (struct write){ 100, "first" });
}

static void tie_greater_value(void)
{
    expect_verdict(APPLY, (struct write){ 100, "aaa" }, (struct write){ 100, "zzz" });
    expect_verdict(SKIP, (struct write){ 100, "zzz" }, (struct write){ 100, "aaa" });
    /* By the bytes, not by how many they are. */
    expect_verdict(APPLY, (struct write){ 100, "aaa" }, (struct write){ 100, "z" });
    expect_verdict(SKIP, (struct write){ 100, "z" }, (struct write){ 100, "aaa" });
}

/* Of two different values with one timestamp the same one must be left, whichever comes first. */
static void tie_any_order(void)
{
    static const char *const values[] = { "a", "b", "aa", "B", "", "9", "10", "zzz" };
    char what[100];

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        for (size_t j = 0; j < i; j++) {
            int one = resolve((struct write){ 7, values[i] }, (struct write){ 7, values[j] });
            int other = resolve((struct write){ 7, values[j] }, (struct write){ 7, values[i] });

            snprintf(what, sizeof what, "'%s' and '%s' with one timestamp, in one order and in the other", values[i],
                     values[j]);
            EXPECT((one == APPLY) != (other == APPLY), what,
                   "APPLY in one order, SKIP in the other: the same value is left",
                   "%s in both", verdict_name(one));
        }
    }
}

static const struct check checks[] = {
    { "conflict_newer_wins", "W11-R5", "w11-l04", "repl_conflict.c", 20, "the higher timestamp wins",
      "A write with a higher timestamp is applied: x=new (t=200).", newer_wins },
    { "conflict_older_skipped", "W11-R5", "w11-l04", "repl_conflict.c", 20, "the lower timestamp is skipped",
      "Out of order writes: x=new (t=200) kept, old (t=100) skipped.", older_is_skipped },
    { "conflict_first_write", "W11-R5", "w11-l04", "repl_conflict.c", 20, "a write to an absent key is applied",
      "A key that is not there yet has no conflict.", first_write },
    { "conflict_tie_greater_value", "W11-R5", "w11-l04", "repl_conflict.c", 20, "equal timestamps: zzz wins over aaa",
      "Same timestamp tie-break: x=zzz wins over x=aaa.", tie_greater_value },
    { "conflict_tie_any_order", "W11-R5", "w11-l04", "repl_conflict.c", 20,
      "equal timestamps: the same value is left in either order",
      "The tie-break must be the same on every replica, whatever order the writes come in.", tie_any_order },
    { "conflict_stale_del", "W11-R5", "w11-l04", "repl_conflict.c", 20, "a DEL with a lower timestamp is skipped",
      "A stale DEL must not delete a newer value.", stale_del },
};

CHECK_MAIN(checks)
