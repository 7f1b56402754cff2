/*
 * The store at a million keys: set of new keys, get in random order, set of keys that are there. Keys lie in the
 * order of use, so that what is measured is the store and not the reading of keys from all over memory.
 *
 * `store` has malloc's memory touched before (a table that maps its memory itself does not gain by that);
 * `store_cold` is a process that has just begun, as after a restart.
 */
#define _GNU_SOURCE
#include "bench.h"

#include "w09/kv_store.h"

typedef char key_text[KEY_LEN + 1];

static uint64_t random_below(uint64_t bound)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % bound;
}

/* Fisher and Yates. */
static void shuffle(key_text *keys, int count)
{
    for (int i = count - 1; i > 0; i--) {
        int other = (int)random_below((uint64_t)i + 1);
        key_text kept;

        memcpy(kept, keys[i], sizeof kept);
        memcpy(keys[i], keys[other], sizeof kept);
        memcpy(keys[other], kept, sizeof kept);
    }
}

static double rate(int count, double start)
{
    return count / (now_s() - start) / 1e6;
}

static void run(const char *prefix, size_t touch)
{
    static const char value[] = "a-16-byte-value.", other[] = "another-16-value";
    int count = bench_records();
    key_text *keys = calloc((size_t)count, sizeof *keys);
    key_text *shuffled = calloc((size_t)count, sizeof *shuffled);
    struct kv_store store;
    char name[64];
    double start;

    MUST(keys != NULL && shuffled != NULL);
    for (int i = 0; i < count; i++)
        snprintf(keys[i], sizeof keys[i], "key-%012d", i);
    memcpy(shuffled, keys, (size_t)count * sizeof *keys);
    shuffle(shuffled, count);
    warm_machine((size_t)count * 512);
    if (touch > 0)
        touch_heap(touch);

    start = now_s();
    MUST(kv_store_init(&store) == 0);
    for (int i = 0; i < count; i++)
        MUST(kv_store_set(&store, keys[i], value) == 0);
    snprintf(name, sizeof name, "%s.set_new", prefix);
    emit(name, rate(count, start), "M/s");

    start = now_s();
    for (int i = 0; i < count; i++)
        MUST(kv_store_get(&store, shuffled[i]) != NULL);
    snprintf(name, sizeof name, "%s.get_random", prefix);
    emit(name, rate(count, start), "M/s");

    start = now_s();
    for (int i = 0; i < count; i++)
        MUST(kv_store_get(&store, shuffled[i])[0] == 'a');
    snprintf(name, sizeof name, "%s.get_random_and_read", prefix);
    emit(name, rate(count, start), "M/s");

    start = now_s();
    for (int i = 0; i < count; i++)
        MUST(kv_store_set(&store, shuffled[i], other) == 0);
    snprintf(name, sizeof name, "%s.set_existing", prefix);
    emit(name, rate(count, start), "M/s");

    MUST(kv_store_count(&store) == count);
    kv_store_destroy(&store);
    free(shuffled);
    free(keys);
}

void bench_store(void)
{
    run("store", (size_t)bench_records() * 256);
}

void bench_store_cold(void)
{
    run("store_cold", 0);
}
