/* Checkpoints: each library's file is read by both, and a log is recovered behind it. */
#include "oracle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../own/bytes.h"

static const char wal[] = "a.wal", ckpt[] = "a.ckpt";

/* A lesson's checkpoint has no room for timestamps, so what they are afterwards is not compared. */
static void say_store(struct trace *trace, const struct library *lib, const struct kv_store *store)
{
    let_through(CHECKPOINT_STAMPS);
    trace_store(trace, lib, store, 0);
}

static void load(const struct library *lib, struct trace *trace, const char *path)
{
    struct kv_store store;
    uint64_t offset = 77;

    REQUIRE_THAT(lib->kv_store_init(&store) == 0);
    TRACE(trace, lib->wal_checkpoint_load(path, &store, &offset));
    trace_say(trace, "offset %llu", (unsigned long long)offset);
    say_store(trace, lib, &store);
    lib->kv_store_destroy(&store);
}

static void recover(const struct library *lib, struct trace *trace)
{
    struct kv_store store;

    REQUIRE_THAT(lib->kv_store_init(&store) == 0);
    TRACE(trace, lib->wal_recover_with_checkpoint(wal, ckpt, &store));
    say_store(trace, lib, &store);
    lib->kv_store_destroy(&store);
}

static size_t string_at(const uint8_t *bytes, size_t len, size_t at)
{
    size_t size = at + 2 <= len ? 2u + bytes[at] + 256u * bytes[at + 1] : len;

    REQUIRE_THAT(at + size <= len);
    return size;
}

/* The part that the lessons describe: head and pairs. The pairs come in the order of the table, which is each
 * library's own, so they are said as a sum. */
static void say_file(struct trace *trace)
{
    static uint8_t bytes[400000];
    long len = own_read_file(ckpt, bytes, sizeof bytes);
    size_t at = 16;
    uint64_t sum = 0;
    uint32_t count;

    REQUIRE_THAT(len >= 16);
    let_through(CHECKPOINT_ORDER);
    trace_bytes(trace, "head", bytes, 16);
    memcpy(&count, bytes + 12, 4);
    for (uint32_t i = 0; i < count; i++) {
        size_t size = string_at(bytes, (size_t)len, at);

        size += string_at(bytes, (size_t)len, at + size);
        sum += own_crc32(bytes + at, size);
        at += size;
    }
    trace_say(trace, "%u pairs, %zu bytes, sum %llx", count, at, (unsigned long long)sum);
}

static void append_some(const struct library *lib, struct wal_writer *writer, struct source *source,
                        struct kv_store *store, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct wal_record record = source_next(source);

        REQUIRE_THAT(lib->wal_append(writer, &record) == 0);
        if (store != NULL && record.op == WAL_OP_SET)
            REQUIRE_THAT(lib->kv_store_set_ts(store, record.key, record.value, record.timestamp) == 0);
        else if (store != NULL)
            REQUIRE_THAT(lib->kv_store_del(store, record.key) >= 0);
    }
}

void checkpoints(const struct library *lib, struct trace *trace, struct rng *rng)
{
    struct wal_writer writer;
    struct kv_store store;
    struct source source;
    uint64_t offset;

    /* Only rising timestamps or none: after a lesson's checkpoint an older record of the tail would win. */
    source_begin(&source, rng, rng_once_in(rng, 2) ? STAMPS_RISING : STAMPS_NONE);
    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->wal_open(&writer, wal) == 0);
    append_some(lib, &writer, &source, &store, rng_below(rng, 30));
    if (rng_once_in(rng, 4)) /* a key that no record can have */
        REQUIRE_THAT(lib->kv_store_set(&store, "", "value of the empty key") == 0);
    offset = writer.offset;
    if (rng_once_in(rng, 8))
        offset = rng_once_in(rng, 2) ? offset + 1 + rng_below(rng, 5000) : rng_next(rng);
    else if (offset > 0 && rng_once_in(rng, 8))
        offset = rng_below(rng, (unsigned)offset);
    TRACE(trace, lib->wal_checkpoint_write(&store, ckpt, offset));
    append_some(lib, &writer, &source, NULL, rng_below(rng, 12));
    TRACE(trace, lib->wal_close(&writer));
    say_file(trace);
    load(lib, trace, ckpt);
    load(lib->other, trace, ckpt);
    recover(lib, trace);
    recover(lib->other, trace);
    /* Written by the one, read and written again by the other: the same pairs in another order, which beside the stamps
     * of the first would be damage. */
    lib->kv_store_destroy(&store);
    REQUIRE_THAT(lib->other->kv_store_init(&store) == 0);
    TRACE(trace, lib->other->wal_checkpoint_load(ckpt, &store, &offset));
    remove_stamps();
    TRACE(trace, lib->other->wal_checkpoint_write(&store, ckpt, offset));
    lib->other->kv_store_destroy(&store);
    say_file(trace);
    load(lib, trace, ckpt);
    recover(lib, trace);
    trace_directory(trace);
}

/* A lesson's checkpoint, pair by pair, by code that is neither library's. */
static size_t make_checkpoint(struct rng *rng, uint8_t *bytes, uint64_t offset, unsigned pairs)
{
    uint8_t *at = own_put(bytes + 4, offset, 8);

    memcpy(bytes, "CKPT", 4);
    at = own_put(at, pairs, 4);
    for (unsigned i = 0; i < pairs; i++) {
        size_t value_len = rng_below(rng, 20);
        char key[16];
        int key_len = snprintf(key, sizeof key, "k%u", i);

        at = own_put(at, (uint64_t)key_len, 2);
        memcpy(at, key, (size_t)key_len);
        at = own_put(at + key_len, value_len, 2);
        memset(at, 'v', value_len);
        at += value_len;
    }
    return (size_t)(at - bytes);
}

/* What a file without a checksum shows of damage: a wrong head, an end too early, lengths that lead nowhere. Bytes
 * that are only different are told by logship's stamps file alone, and bytes behind the last pair by logship alone:
 * CHECKPOINT_CRC. */
void checkpoint_damage(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static uint8_t bytes[4096];
    static uint8_t log[40000];
    struct source source;
    size_t len, log_len = 0;

    source_begin(&source, rng, STAMPS_RISING);
    for (int i = 0; i < 5; i++)
        log_len += source_encoded(&source, log + log_len);
    REQUIRE_THAT(own_write_file(wal, log, log_len) == 0);
    recover(lib, trace);
    len = make_checkpoint(rng, bytes, rng_once_in(rng, 2) ? 0 : log_len, 1 + rng_below(rng, 10));
    let_through(CHECKPOINT_CRC);
    switch (rng_below(rng, 6)) {
    case 0:
        len = rng_below(rng, (unsigned)len);
        break;
    case 1:
        bytes[rng_below(rng, 4)] ^= 1;
        break;
    case 2: /* more pairs than there are */
        own_put(bytes + 12, 11 + rng_below(rng, 1000000), 4);
        break;
    case 3: /* a key that reaches over the end */
        own_put(bytes + 16, 60000, 2);
        break;
    case 4: /* a key of no bytes, the rest as it should be */
        own_put(bytes + 12, 1, 4);
        own_put(bytes + 16, 0, 4);
        len = 20;
        break;
    default:
        break;
    }
    REQUIRE_THAT(own_write_file(ckpt, bytes, len) == 0);
    load(lib, trace, ckpt);
    recover(lib, trace);
    REQUIRE_THAT(unlink(wal) == 0);
    recover(lib, trace);
    load(lib, trace, "no.ckpt");
}
