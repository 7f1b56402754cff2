/* The store: set, get, del, find, count and the walk, in any order. */
#include "oracle.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { KEYS = 60, OPERATIONS = 400, LONG_KEY = 5000 };

struct body {
    const struct library *lib;
    struct trace *trace;
    struct rng *rng;
    struct kv_store store;
    char key[LONG_KEY + 1], value[LONG_KEY + 1];
    /* What a tombstone would have to be known by. */
    int live[KEYS];
    uint64_t stamp[KEYS];
};

static void name_key(struct body *body, int number)
{
    switch (number) {
    case 0:
        body->key[0] = '\0';
        return;
    case 1:
        memset(body->key, 'k', LONG_KEY);
        body->key[LONG_KEY] = '\0';
        return;
    default:
        sprintf(body->key, "%s%d", number % 2 ? "\xfe\x80" : "k", number);
    }
}

static void pick_value(struct body *body)
{
    size_t len = rng_once_in(body->rng, 20) ? rng_below(body->rng, LONG_KEY) : rng_below(body->rng, 30);

    for (size_t i = 0; i < len; i++)
        body->value[i] = (char)(1 + rng_below(body->rng, 255));
    body->value[len] = '\0';
}

static void say_string(struct body *body, const char *what, const char *string)
{
    if (string == NULL)
        trace_say(body->trace, "%s: NULL, errno %d", what, errno);
    else
        trace_bytes(body->trace, what, string, strlen(string));
}

static void set(struct body *body, int number, int with_stamp)
{
    pick_value(body);
    /* A key that was deleted with a timestamp gets that back from its tombstone. */
    if (!with_stamp && !body->live[number] && body->stamp[number] != 0) {
        let_through(TOMBSTONES);
        with_stamp = 1;
    }
    if (with_stamp) {
        body->stamp[number] = rng_once_in(body->rng, 3) ? 0 : rng_next(body->rng);
        TRACE(body->trace, body->lib->kv_store_set_ts(&body->store, body->key, body->value, body->stamp[number]));
    } else {
        TRACE(body->trace, body->lib->kv_store_set(&body->store, body->key, body->value));
    }
    body->live[number] = 1;
}

static void step(struct body *body)
{
    int number = (int)rng_below(body->rng, KEYS);
    const struct kv_entry *entry;

    name_key(body, number);
    errno = 0;
    switch (rng_below(body->rng, 10)) {
    case 0:
    case 1:
    case 2:
        set(body, number, 0);
        break;
    case 3:
        set(body, number, 1);
        break;
    case 4:
    case 5:
        TRACE(body->trace, body->lib->kv_store_del(&body->store, body->key));
        if (!body->live[number])
            break;
        body->live[number] = 0;
        break;
    case 6:
        TRACE(body->trace, body->lib->kv_store_count(&body->store));
        break;
    case 7:
        entry = body->lib->kv_store_find(&body->store, body->key);
        trace_say(body->trace, "find: %s, at %llu", entry ? "there" : "absent",
                  entry ? (unsigned long long)entry->last_write_ts : 0);
        if (entry != NULL)
            say_string(body, "found", entry->value);
        break;
    case 8:
        /* A part of the store as an argument: the value must not be freed before it is copied. */
        if (body->live[number])
            TRACE(body->trace, body->lib->kv_store_set(&body->store, body->key,
                                                      body->lib->kv_store_get(&body->store, body->key)));
        break;
    default:
        say_string(body, "get", body->lib->kv_store_get(&body->store, body->key));
    }
}

void store_operations(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static struct body body;

    memset(&body, 0, sizeof body);
    body.lib = lib;
    body.trace = trace;
    body.rng = rng;
    TRACE(trace, lib->kv_store_init(&body.store));
    for (int i = 0; i < OPERATIONS; i++) {
        step(&body);
        if (i % 100 == 99)
            trace_store(trace, lib, &body.store, 1);
    }
    lib->kv_store_destroy(&body.store);
    trace_say(trace, "destroyed: buckets %s, %d", body.store.buckets ? "there" : "NULL", body.store.num_buckets);
    lib->kv_store_destroy(&body.store);
    TRACE(trace, lib->kv_store_count(&body.store));
    TRACE(trace, lib->kv_store_set(&body.store, "a", "b"));
    say_string(&body, "get from a destroyed store", (errno = 0, lib->kv_store_get(&body.store, "a")));
}
