#ifndef LOGSHIP_W11_REPL_CONFLICT_H
#define LOGSHIP_W11_REPL_CONFLICT_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stdint.h>

/* What repl_resolve_conflict returns. */
enum { SKIP = 0, APPLY = 1 };


#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Judges an incoming write: returns APPLY (1) or SKIP (0). The higher time stamp wins; equal: the greater value as
 * unsigned bytes, a longer value over its own prefix; equal values SKIP. `existing_val` NULL (absent) is APPLY;
 * `incoming_val` NULL is a DEL, which loses to any SET of the same time stamp. Two writes without time stamp are told
 * apart by log order, which only their caller knows: here they are judged by value. Pure; safe in any thread.
 */
int repl_resolve_conflict(uint64_t existing_ts,
                          uint64_t incoming_ts,
                          const char *existing_val,
                          const char *incoming_val);

/**
 * A new time stamp for a write: CLOCK_MONOTONIC in nanoseconds, but always above every time stamp that this process
 * has given out, or seen in a log, record or checkpoint. Safe in any thread.
 */
uint64_t repl_next_timestamp(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif /* LOGSHIP_W11_REPL_CONFLICT_H */
