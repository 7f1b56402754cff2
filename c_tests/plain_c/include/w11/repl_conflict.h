/* Last writer wins. */
#ifndef PLAIN_W11_REPL_CONFLICT_H
#define PLAIN_W11_REPL_CONFLICT_H

#include <stdint.h>

enum { SKIP = 0, APPLY = 1 };

int repl_resolve_conflict(uint64_t existing_ts, uint64_t incoming_ts, const char *existing_val,
                          const char *incoming_val);

#endif
