/* Two system calls fail in each run of c_tests/own/failing_calls.c. */
#define FAULTY_PAIRS
#include "../own/failing_calls.c"
