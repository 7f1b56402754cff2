/* The log: written, closed, opened again, recovered; torn, damaged. One library's logs are read, and gone on with,
 * by the other. */
#include "oracle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../own/bytes.h"

static const char path[] = "a.wal";

static void recover(const struct library *lib, struct trace *trace)
{
    struct kv_store store;

    REQUIRE_THAT(lib->kv_store_init(&store) == 0);
    TRACE(trace, lib->wal_recover(path, &store));
    trace_store(trace, lib, &store, 1);
    lib->kv_store_destroy(&store);
}

static int open_log(const struct library *lib, struct trace *trace, struct wal_writer *writer)
{
    int rc;

    memset(writer, 0x5A, sizeof *writer);
    errno = 0;
    rc = lib->wal_open(writer, path);
    trace_result(trace, "open", rc, errno);
    trace_say(trace, "fd %s, offset %llu", writer->fd >= 0 ? "there" : "none", (unsigned long long)writer->offset);
    return rc;
}

static void append(const struct library *lib, struct trace *trace, struct wal_writer *writer, struct source *source)
{
    struct wal_record record = source_next(source);

    if (rng_once_in(source->rng, 15)) {
        switch (rng_below(source->rng, 4)) {
        case 0:
            record.op = (uint8_t)(3 + rng_below(source->rng, 250));
            break;
        case 1:
            record.op = 0;
            break;
        case 2:
            record.key_len = 0;
            break;
        default:
            record.key = NULL;
        }
    }
    TRACE(trace, lib->wal_append(writer, &record));
    trace_say(trace, "offset %llu, file %lld", (unsigned long long)writer->offset, own_file_size(path));
}

/* `lib` begins; at every reopening the other one may go on. */
void log_life(const struct library *lib, struct trace *trace, struct rng *rng)
{
    const struct library *now = lib;
    struct source source;
    struct wal_writer writer;

    source_begin(&source, rng, (enum stamps)rng_below(rng, 3));
    recover(lib, trace);
    for (int life = 0; life < 4; life++) {
        open_log(now, trace, &writer);
        for (unsigned i = 1 + rng_below(rng, 12); i > 0; i--)
            append(now, trace, &writer, &source);
        if (rng_once_in(rng, 3)) {
            /* Somebody recovers while the log is open. */
            recover(now->other, trace);
            append(now, trace, &writer, &source);
        }
        TRACE(trace, now->wal_close(&writer));
        trace_say(trace, "closed: fd %d", writer.fd);
        TRACE(trace, now->wal_close(&writer));
        TRACE(trace, now->wal_append(&writer, &(struct wal_record){.op = 1, .key = (char[]){"k"}, .key_len = 1}));
        recover(now, trace);
        if (rng_once_in(rng, 2))
            now = now->other;
    }
    recover(lib->other, trace);
    trace_file(trace, path);
    trace_directory(trace);
}

/* A log in memory: records with and without timestamp, a value now and then that holds records itself. */
static size_t make_log(struct rng *rng, uint8_t *log, size_t *starts, int count)
{
    struct source source;
    size_t len = 0;
    int big = rng_once_in(rng, 5) ? (int)rng_below(rng, (unsigned)count) : -1;

    source_begin(&source, rng, (enum stamps)rng_below(rng, 3));
    for (int i = 0; i < count; i++) {
        static uint8_t inner[BIG_ENOUGH];

        starts[i] = len;
        if (i == big) {
            rng_fill(rng, inner, 65535);
            len += own_encode(log + len, WAL_OP_SET, "big", 3, inner, 65535, 9, 1);
        } else if (rng_once_in(rng, 6)) {
            size_t inner_len = own_set(inner, "inner", "value", 7);

            if (rng_once_in(rng, 2))
                inner_len += own_set(inner + inner_len, "inner", "again", 8);
            len += own_encode(log + len, WAL_OP_SET, "outer", 5, inner, inner_len, 2000000, 1);
        } else if (source.stamps == STAMPS_NONE && rng_once_in(rng, 2)) {
            struct wal_record record = source_next(&source);

            len += own_encode(log + len, record.op, record.key, record.key_len, record.value, record.value_len, 0, 0);
        } else {
            len += source_encoded(&source, log + len);
        }
    }
    starts[count] = len;
    return len;
}

static size_t damage_log(struct rng *rng, uint8_t *log, size_t len, const size_t *starts, int count)
{
    size_t at = rng_below(rng, (unsigned)len);
    int record = (int)rng_below(rng, (unsigned)count);

    switch (rng_below(rng, 9)) {
    case 0:
        return at;
    case 1: /* a cut inside the last record */
        return starts[count - 1] + 1 + rng_below(rng, (unsigned)(starts[count] - starts[count - 1] - 1));
    case 2:
        log[at] ^= (uint8_t)(1u << rng_below(rng, 8));
        return len;
    case 3:
        memset(log + at, 0, len - at < 64 ? len - at : 64);
        return len;
    case 4: /* zeros behind, as after a crash of a file system that grows files first */
        memset(log + len, 0, 100);
        return len + 1 + rng_below(rng, 99);
    case 5:
        rng_fill(rng, log + len, 100);
        return len + 1 + rng_below(rng, 99);
    case 6: /* the length of one record */
        rng_fill(rng, log + starts[record] + 4, 1 + rng_below(rng, 4));
        return len;
    case 7: /* a right CRC over an op that is none */
        log[starts[record] + 8] = 9;
        own_seal(log + starts[record], starts[record + 1] - starts[record]);
        return len;
    default: /* a hole: bytes missing in the middle */
        if (at + 5 >= len)
            return at;
        memmove(log + at, log + at + 5, len - at - 5);
        return len - 5;
    }
}

void log_damage(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static uint8_t log[200000];
    size_t starts[32];
    int count = 1 + (int)rng_below(rng, 20);
    size_t len = make_log(rng, log, starts, count);
    struct wal_writer writer;
    struct source source;
    int opened;

    for (unsigned i = rng_below(rng, 3); i > 0 && len > 0; i--)
        len = damage_log(rng, log, len, starts, count);
    REQUIRE_THAT(own_write_file(path, log, len) == 0);
    if (rng_once_in(rng, 4))
        REQUIRE_THAT(own_write_file("a.wal.torn-1", "old", 3) == 0);
    recover(lib, trace);
    trace_file(trace, path);

    opened = open_log(lib, trace, &writer) == 0;
    trace_file(trace, path);
    trace_file(trace, "a.wal.torn-1");
    trace_file(trace, "a.wal.torn-2");
    trace_directory(trace);
    if (!opened)
        return;
    source_begin(&source, rng, STAMPS_RISING);
    source.now = 3000000;
    for (int i = 0; i < 3; i++)
        append(lib, trace, &writer, &source);
    TRACE(trace, lib->wal_close(&writer));
    recover(lib->other, trace);
    trace_file(trace, path);
}
