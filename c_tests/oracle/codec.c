/* Pure functions: the record codec, the checksum, the conflict rule. */
#include "oracle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../own/bytes.h"

enum { ROUNDS = 60, SMALL = 400 };

static void decode(const struct library *lib, struct trace *trace, const uint8_t *bytes, size_t len)
{
    struct wal_record record;
    /* Exactly len bytes of heap: a look behind them is seen by the sanitizers and valgrind. */
    uint8_t *exact = malloc(len ? len : 1);

    REQUIRE_THAT(exact != NULL);
    memcpy(exact, bytes, len);
    memset(&record, 0x5A, sizeof record);
    TRACE(trace, lib->wal_record_decode(exact, len, &record));
    trace_record(trace, &record);
    lib->wal_record_free(&record);
    trace_say(trace, "freed: %d %d", record.key == NULL, record.value == NULL);
    free(exact);
}

/* Keys and values of any bytes and any length. */
static void any_record(struct rng *rng, struct wal_record *record, char *key, char *value)
{
    memset(record, 0, sizeof *record);
    record->op = rng_once_in(rng, 12) ? (uint8_t)rng_next(rng) : (uint8_t)(1 + rng_below(rng, 2));
    record->key_len = (uint16_t)(rng_once_in(rng, 15) ? 65535 - rng_below(rng, 3) : rng_below(rng, 40));
    record->value_len = (uint16_t)(rng_once_in(rng, 15) ? 65535 - rng_below(rng, 3) : rng_below(rng, 40));
    record->timestamp = rng_once_in(rng, 4) ? 0 : rng_next(rng);
    record->crc = (uint32_t)rng_next(rng);
    rng_fill(rng, key, record->key_len);
    rng_fill(rng, value, record->value_len);
    record->key = rng_once_in(rng, 30) ? NULL : key;
    record->value = rng_once_in(rng, 10) ? NULL : value;
}

void codec_round_trips(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static uint8_t buffer[WAL_RECORD_MAX + 16];
    static char key[65536], value[65536];

    for (int i = 0; i < ROUNDS; i++) {
        struct wal_record record;
        size_t room = WAL_RECORD_MAX;
        int len;

        any_record(rng, &record, key, value);
        if (rng_once_in(rng, 5))
            room = rng_below(rng, 120);
        memset(buffer, 0xA5, sizeof buffer);
        errno = 0;
        len = lib->wal_record_encode(&record, buffer, room);
        trace_result(trace, "encode", len, errno);
        /* What stands behind the record must be what it was; so must everything if there was no record. */
        trace_bytes(trace, "buffer", buffer, sizeof buffer);
        if (len > 0)
            decode(lib, trace, buffer, (size_t)len);
    }
}

/* Damage of every kind, to one record. */
static size_t damage(struct rng *rng, uint8_t *bytes, size_t len)
{
    size_t at = rng_below(rng, (unsigned)len);

    switch (rng_below(rng, 8)) {
    case 0:
    case 1:
        bytes[at] ^= (uint8_t)(1u << rng_below(rng, 8));
        return len;
    case 2:
        return at;
    case 3:
        rng_fill(rng, bytes + len, 9);
        return len + 1 + rng_below(rng, 8);
    case 4:
        memset(bytes + at, 0, len - at < 8 ? len - at : 8);
        return len;
    case 5:
        rng_fill(rng, bytes, len);
        return len;
    case 6:
        /* The CRC is right, the fields may not be. */
        if (len < 9)
            return len;
        at = 8 + rng_below(rng, len > 20 ? 8 : (unsigned)len - 8);
        bytes[at < len ? at : len - 1] = (uint8_t)rng_below(rng, 6);
        return own_seal(bytes, len);
    default:
        /* The same, of another length. */
        len = 8 + rng_below(rng, (unsigned)len + 12);
        return own_seal(bytes, len);
    }
}

void codec_damage(const struct library *lib, struct trace *trace, struct rng *rng)
{
    uint8_t bytes[SMALL];

    for (int i = 0; i < 2 * ROUNDS; i++) {
        char key[20], value[60];
        size_t key_len = 1 + rng_below(rng, sizeof key - 1), value_len = rng_below(rng, sizeof value);
        int op = 1 + (int)rng_below(rng, 2);
        size_t len;

        memset(bytes, 0, sizeof bytes);
        rng_fill(rng, key, sizeof key);
        rng_fill(rng, value, sizeof value);
        if (op == WAL_OP_DEL && !rng_once_in(rng, 5))
            value_len = 0;
        /* Records of W10 have no timestamp. */
        len = own_encode(bytes, op, key, key_len, value, value_len, rng_next(rng), !rng_once_in(rng, 3));
        if (!rng_once_in(rng, 5))
            len = damage(rng, bytes, len);
        decode(lib, trace, bytes, len);
    }
    for (size_t len = 0; len < 24; len++) {
        rng_fill(rng, bytes, sizeof bytes);
        if (len >= 8)
            own_seal(bytes, len);
        decode(lib, trace, bytes, len);
    }
}

void checksums(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static uint8_t bytes[70000];

    lib->crc32_init();
    lib->crc32_init();
    rng_fill(rng, bytes, 4096 + rng_below(rng, sizeof bytes - 4096));
    for (int i = 0; i < ROUNDS; i++) {
        size_t start = rng_below(rng, 64);
        size_t len = rng_once_in(rng, 10) ? rng_below(rng, sizeof bytes - 64) : rng_below(rng, 300);

        trace_say(trace, "crc32 of %zu bytes: %08x", len, lib->crc32(bytes + start, len));
    }
    trace_say(trace, "the check value: %08x", lib->crc32((const uint8_t *)"123456789", 9));
    errno = 0;
    trace_say(trace, "nothing at NULL: %08x", lib->crc32(NULL, 0));
    trace_say(trace, "errno %d", errno);
    trace_say(trace, "something at NULL: %08x", lib->crc32(NULL, 5));
    trace_say(trace, "errno %d", errno);
}

void conflicts(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static const char *const values[] = {NULL,  "",     "a",    "aa",       "ab",   "b",
                                         "\x7f", "\x80", "\xff", "\xff\x01", "a\x80", "zzz"};
    enum { VALUES = sizeof values / sizeof values[0] };
    static const uint64_t stamps[] = {0, 1, 2, 100, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 1, UINT64_MAX};
    enum { STAMPS = sizeof stamps / sizeof stamps[0] };

    for (int i = 0; i < 20 * ROUNDS; i++) {
        unsigned old_value = rng_below(rng, VALUES), new_value = rng_below(rng, VALUES);
        uint64_t old_stamp = stamps[rng_below(rng, STAMPS)];
        uint64_t new_stamp = rng_once_in(rng, 2) ? old_stamp : stamps[rng_below(rng, STAMPS)];

        trace_say(trace, "value %u at %llu, value %u at %llu: %d", old_value, (unsigned long long)old_stamp, new_value,
                  (unsigned long long)new_stamp,
                  lib->repl_resolve_conflict(old_stamp, new_stamp, values[old_value], values[new_value]));
    }
}
