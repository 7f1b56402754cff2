/* Of a correct tree in another hand than plain_c. Last writer wins. */
#include "repl_conflict.h"
#include <string.h>
conflict_result repl_resolve_conflict(uint64_t e, uint64_t i, const char *ev, const char *iv)
{
    if (i != e)
        return i > e ? APPLY : SKIP;
    return strcmp(iv, ev) > 0 ? APPLY : SKIP;
}
