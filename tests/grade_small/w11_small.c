/* See w10_small.c. */
#define _GNU_SOURCE
#include "check.h"
#include "w11/repl_conflict.h"

static void newer_wins(void)
{
    EXPECT_INT(APPLY, repl_resolve_conflict(100, 200, "old", "new"), "a newer record");
    EXPECT_INT(SKIP, repl_resolve_conflict(200, 100, "new", "old"), "an older record");
}

static const struct check checks[] = {
    { "newer_wins", "W11-R5", "w11-l04", "repl_conflict.c", 5, "the newer write wins", "The higher timestamp wins.",
      newer_wins },
};

CHECK_MAIN(checks)
