/* Runs the subjects: each with both libraries from the same seed, and compares the traces.
 *
 *   oracle [--only SUBJECT] [--seed N] [--rounds N | --seconds N]
 *
 * A round's seed is a number: the first round's is --seed (1), and it grows by one. Without --rounds each subject
 * has a number of rounds of its own, the same each time; --seconds shares that time among the subjects. A difference
 * ends its subject and says with which arguments it comes again. */
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../own/harness.h"

static const struct subject {
    const char *name, *what;
    subject_run *run;
    unsigned rounds; /* 0: only when it is asked for by name */
} subjects[] = {
    {"store", "the store: set, get, del, count, walk", store_operations, 60},
    {"codec", "records encoded and decoded", codec_round_trips, 4},
    {"codec-damage", "damaged, cut and random bytes decoded", codec_damage, 60},
    {"crc32", "checksums", checksums, 20},
    {"conflict", "the conflict rule", conflicts, 10},
    {"log", "logs written, reopened by the other, recovered", log_life, 40},
    {"log-damage", "torn and damaged logs", log_damage, 250},
    {"checkpoint", "checkpoints, each read by the other", checkpoints, 60},
    {"checkpoint-damage", "checkpoints that are damaged or missing", checkpoint_damage, 60},
    {"arguments", "NULL and impossible values", bad_arguments, 1},
    {"descriptors", "descriptors that are no connection", bad_descriptors, 1},
    {"ship", "the bytes of shipped records, to followers that go away", wire_ship, 30},
    {"wire", "the bytes of acks and rejoin messages, out and in", wire_small, 5},
    {"heartbeat", "heartbeats to those who answer and those who don't", heartbeats, 8},
    {"catch-up", "catch-up of a plain peer, from whole and damaged logs", catch_ups, 60},
    {"quorum", "quorum waits over scripted acks", quorum_scripts, 25},
    {"reship", "records that are rejected", quorum_reships, 25},
    {"receive", "scripted streams received", receive_streams, 60},
    {"cluster", "mixed clusters: kill, go on, rejoin, take over", cluster, 3},
    {"stall", "half a frame, and then nothing", receive_stalls, 0},
};

enum { SUBJECTS = sizeof subjects / sizeof subjects[0], CASE_DEADLINE_S = 120 };

static const struct subject *current;
static uint64_t first_seed = 1;
static unsigned long rounds_asked, seconds_asked;
/* In memory that the process of a subject shares: it may end in any way. */
static uint64_t *seed_running;

/* In a directory of its own, so that both libraries see the same names. */
static void run_with(const struct library *lib, uint64_t seed, struct trace *trace)
{
    struct rng rng = rng_of(seed);

    REQUIRE(mkdir(lib->name, 0700) == 0 && chdir(lib->name) == 0);
    current->run(lib, trace, &rng);
    REQUIRE(chdir("..") == 0);
    REQUIRE(nftw(lib->name, own_remove, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

static void run_round(uint64_t seed)
{
    struct trace logship = {0}, plain = {0};

    *seed_running = seed;
    run_with(&logship_library, seed, &logship);
    run_with(&plain_library, seed, &plain);
    REQUIRE(logship.count > 0);
    REQUIRE(traces_agree(&logship, &plain));
    trace_clear(&logship);
    trace_clear(&plain);
}

static void run_subject(void)
{
    unsigned long rounds = rounds_asked > 0 ? rounds_asked : current->rounds > 0 ? current->rounds : 1, done = 0;
    int64_t begin = own_now_ms(), end = begin + (int64_t)seconds_asked * 1000 / SUBJECTS;

    while (seconds_asked > 0 ? own_now_ms() < end : done < rounds)
        run_round(first_seed + done++);
    printf("  %-18s %6lu rounds, %lld ms\n", current->name, done, (long long)(own_now_ms() - begin));
}

static void two_libraries(void)
{
    CHECK_EQ(shared_functions(), 0);
    CHECK(logship_library.other == &plain_library && plain_library.other == &logship_library);
}

static void known_deviations(void)
{
    CHECK(deviations_hold());
}

static int usage(const char *name)
{
    fprintf(stderr, "usage: %s [--only SUBJECT] [--seed N] [--rounds N | --seconds N]\n", name);
    return 2;
}

int main(int argc, char **argv)
{
    const char *only = NULL;
    int found = 0, failed_before;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--seed") == 0)
            first_seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--rounds") == 0)
            rounds_asked = strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds_asked = strtoul(argv[i + 1], NULL, 10);
        else
            return usage(argv[0]);
    }
    if (argc % 2 == 0)
        return usage(argv[0]);
    deviations_begin();
    seed_running = mmap(NULL, sizeof *seed_running, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (seed_running == MAP_FAILED)
        return 2;
    if (only == NULL || strcmp(only, "two-libraries") == 0) {
        CASE("two libraries: no function of one is the other's", two_libraries);
        found = 1;
    }
    for (int i = 0; i < SUBJECTS; i++) {
        if (only != NULL ? strcmp(only, subjects[i].name) != 0 : subjects[i].rounds == 0)
            continue;
        current = &subjects[i];
        failed_before = own_failed;
        own_case(current->what, run_subject, CASE_DEADLINE_S + (unsigned)seconds_asked);
        if (own_failed > failed_before)
            printf("    again: --only %s --seed %llu --rounds 1\n", current->name, (unsigned long long)*seed_running);
        found = 1;
    }
    if (only == NULL || strcmp(only, "deviations") == 0) {
        CASE("each known deviation is what its entry says", known_deviations);
        deviations_print();
        found = 1;
    }
    if (!found)
        fprintf(stderr, "no subject %s\n", only);
    return own_end() != 0 || !found;
}
