/* Last writer wins, the same on every replica whatever order the records come in. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w11/repl_conflict.h"

#include <string.h>

int repl_resolve_conflict(uint64_t existing_ts, uint64_t incoming_ts, const char *existing_val,
                          const char *incoming_val)
{
    if (existing_val == NULL)
        return APPLY;
    if (incoming_ts != existing_ts)
        return incoming_ts > existing_ts ? APPLY : SKIP;
    /* The same moment: a rule that looks at the values only, so that all replicas choose alike. strcmp compares as unsigned
     * char. A delete has no value and loses to any. */
    if (incoming_val == NULL)
        return SKIP;
    return strcmp(incoming_val, existing_val) > 0 ? APPLY : SKIP;
}
