/* The differential oracle: one test body, run with logship and with plain C, must leave the same trace.
 *
 * A body calls the course's functions through a struct library and says in its trace what it saw: results, errno,
 * bytes, files, stores. The two traces are compared line by line in oracle.c, and nothing in them may differ. Where
 * the two are meant to differ the body stays away or leaves the thing out of its trace, and says so by
 * let_through(), with an entry of the one table of deviations.c: there each deviation is shown to be what it is
 * called. */
#ifndef ORACLE_H
#define ORACLE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "logship.h"
/* Macros that give one name two forms would come between the tables and the names in them. */
#undef kv_store_init
#undef wal_open
#undef crc32

struct library {
    const char *name;
    const struct library *other;
#define FUNCTION(result, name, arguments) result(*name) arguments;
#include "functions.h"
#undef FUNCTION
    uint32_t (*crc32)(const uint8_t *, size_t);
};

extern const struct library logship_library, plain_library;

/* How many functions of the two tables are the same code. 0 if the two are two libraries. In libraries.c. */
int shared_functions(void);

/* Random numbers: xorshift64*, so that a seed means the same on every machine. ------------------------------------- */

struct rng {
    uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)
{
    rng->state ^= rng->state >> 12;
    rng->state ^= rng->state << 25;
    rng->state ^= rng->state >> 27;
    return rng->state * 0x2545F4914F6CDD1DULL;
}

static inline unsigned rng_below(struct rng *rng, unsigned bound)
{
    return (unsigned)((rng_next(rng) >> 33) % bound);
}

/* True once in n times. */
static inline int rng_once_in(struct rng *rng, unsigned n)
{
    return rng_below(rng, n) == 0;
}

static inline struct rng rng_of(uint64_t seed)
{
    struct rng rng = {seed * 0x9E3779B97F4A7C15ULL ^ 0xD1B54A32D192ED03ULL};

    for (int i = 0; i < 4; i++)
        rng_next(&rng);
    return rng;
}

void rng_fill(struct rng *rng, void *bytes, size_t len);

/* Traces. In trace.c. ---------------------------------------------------------------------------------------------- */

struct trace {
    char **lines;
    size_t count, room;
};

__attribute__((format(printf, 2, 3))) void trace_say(struct trace *trace, const char *format, ...);
void trace_bytes(struct trace *trace, const char *what, const void *bytes, size_t len);
/* Size and bytes of a file, or that there is none. */
void trace_file(struct trace *trace, const char *path);
/* Names in the current directory, in order. */
void trace_directory(struct trace *trace);
/* Removes what logship has put beside the checkpoints of this directory; returns how many files. */
int remove_stamps(void);
void trace_record(struct trace *trace, const struct wal_record *record);
void trace_result(struct trace *trace, const char *call, long long result, int error);
/* Walks the store: every key once and in its bucket, count right; says all of it in the order of the keys. */
void trace_store(struct trace *trace, const struct library *lib, const struct kv_store *store, int with_timestamps);
void trace_clear(struct trace *trace);
/* True if they are the same; else prints the first difference and what stands before it. */
int traces_agree(const struct trace *logship, const struct trace *plain);

/* One call: its text, its result, and its errno if it failed. */
#define TRACE(trace, call)                               \
    do {                                                 \
        errno = 0;                                       \
        long long result_ = (long long)(call);           \
        trace_result((trace), #call, result_, errno);    \
    } while (0)

/* For what neither library is to blame for. Ends the process with 1. */
#define REQUIRE_THAT(condition) ((condition) ? (void)0 : require_failed(#condition, __FILE__, __LINE__))
__attribute__((noreturn)) void require_failed(const char *what, const char *file, int line);

/* Records. In records.c. ------------------------------------------------------------------------------------------- */

enum { SOURCE_KEYS = 24, BIG_ENOUGH = WAL_RECORD_MAX };

enum stamps {
    STAMPS_NONE,    /* all 0: log order decides */
    STAMPS_RISING,  /* each above the one before: every record applies */
    STAMPS_MIXED    /* older, equal and newer ones, and some without */
};

/* Makes records one after another. It remembers enough to stay away from tombstones: see records.c. */
struct source {
    struct rng *rng;
    enum stamps stamps;
    uint64_t now;
    uint64_t deleted_at[SOURCE_KEYS];
    int deleted[SOURCE_KEYS];
    char key[64], value[4096];
};

void source_begin(struct source *source, struct rng *rng, enum stamps stamps);
/* A valid record; its strings are the source's, until the next one. */
struct wal_record source_next(struct source *source);
/* The bytes of the next one, written by code that is neither library's. */
size_t source_encoded(struct source *source, uint8_t *buffer);

/* Known deviations. In deviations.c. ------------------------------------------------------------------------------- */

enum deviation {
    TOMBSTONES,
    CHECKPOINT_STAMPS,
    STAMPS_FILE,
    CHECKPOINT_ORDER,
    CHECKPOINT_CRC,
    NUL_IN_KEY,
    HEARTBEAT_ANSWER,
    HEARTBEAT_FOUR_BYTES,
    ACK_ABOVE_LOG,
    LEADER_LOG_OPENED,
    SHIPPED_BY_CATCH_UP,
    TABLE_GROWS,
    NO_SUCH_SIZE,
    NOT_STORED,
    DEVIATIONS
};

void let_through(enum deviation deviation);
void deviations_begin(void);
/* One round: each deviation is what its entry says, for both libraries. True if so. */
int deviations_hold(void);
void deviations_print(void);

/* The subjects. ---------------------------------------------------------------------------------------------------- */

typedef void subject_run(const struct library *lib, struct trace *trace, struct rng *rng);

subject_run store_operations;
subject_run codec_round_trips, codec_damage, checksums, conflicts;
subject_run log_life, log_damage, checkpoints, checkpoint_damage;
subject_run bad_arguments, bad_descriptors;
subject_run wire_ship, wire_small, heartbeats, catch_ups;
subject_run quorum_scripts, quorum_reships;
subject_run receive_streams, receive_stalls;
subject_run cluster;

#endif
