/* Of a correct tree in another hand than plain_c. Last writer wins. */
#pragma once
#include <stdint.h>
typedef enum { SKIP, APPLY } conflict_result;
conflict_result repl_resolve_conflict(uint64_t existing_ts, uint64_t incoming_ts, const char *existing_val,
                                      const char *incoming_val);
