/* The two tables, and the proof that they are two. */
#include "oracle.h"

/* plain C's functions under the names that run_oracle.sh gives them at link time. */
#define FUNCTION(result, name, arguments) result plain_##name arguments;
#include "functions.h"
#undef FUNCTION
uint32_t plain_crc32(const uint8_t *data, size_t len);

const struct library logship_library = {
    .name = "logship",
    .other = &plain_library,
#define FUNCTION(result, name, arguments) .name = name,
#include "functions.h"
#undef FUNCTION
    .crc32 = logship_crc32,
};

#ifdef CANARY_ONE_LIBRARY
/* The oracle that compares logship with itself: everything agrees, and shared_functions must notice. */
#define PLAIN(name) name
#define plain_crc32 logship_crc32
#else
#define PLAIN(name) plain_##name
#endif

const struct library plain_library = {
    .name = "plain",
    .other = &logship_library,
#define FUNCTION(result, name, arguments) .name = PLAIN(name),
#include "functions.h"
#undef FUNCTION
    .crc32 = plain_crc32,
};

int shared_functions(void)
{
    int shared = logship_library.crc32 == plain_library.crc32;

#define FUNCTION(result, name, arguments) shared += logship_library.name == plain_library.name;
#include "functions.h"
#undef FUNCTION
    return shared;
}
