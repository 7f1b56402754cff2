/* repl_receive_record fed by a scripted leader: good, damaged, too long, cut. */
#include "oracle.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../own/wire.h"

enum { STREAM = 600000, FRAMES = 25 };

struct stream {
    uint8_t bytes[STREAM];
    size_t len;
    int frames, heartbeats;
};

static void add_frame(struct stream *stream, const uint8_t *record, size_t len)
{
    REQUIRE_THAT(stream->len + len + 4 <= STREAM);
    stream->len += own_frame(stream->bytes + stream->len, record, len);
    stream->frames++;
}

/* 0 when nothing can come behind it. */
static int add_something(struct stream *stream, struct source *source)
{
    static uint8_t record[BIG_ENOUGH];
    struct rng *rng = source->rng;
    size_t len = source_encoded(source, record);

    switch (rng_below(rng, 24)) {
    case 0: /* a bit flips, anywhere in the record */
    case 1:
        record[rng_below(rng, (unsigned)len)] ^= (uint8_t)(1u << rng_below(rng, 8));
        add_frame(stream, record, len);
        return 1;
    case 2: /* too short to be a record */
        len = 1 + rng_below(rng, 13);
        rng_fill(rng, record, len);
        add_frame(stream, record, len);
        return 1;
    case 3: /* a right CRC over fields that make no record */
        record[8] = (uint8_t)(3 + rng_below(rng, 250));
        own_seal(record, len);
        add_frame(stream, record, len);
        return 1;
    case 4:
        own_put_be(stream->bytes + stream->len, 0, 4);
        stream->len += 4;
        stream->heartbeats++;
        return 1;
    case 5: /* the largest there is */
        if (stream->len + WAL_RECORD_MAX + 4 > STREAM - 20000)
            return 1;
        memset(record, 'x', sizeof record);
        {
            static char key[65535], value[65535];

            memset(key, 'k', sizeof key);
            memset(value, 'v', sizeof value);
            len = own_encode(record, 1, key, sizeof key, value, sizeof value, 1, 1);
        }
        add_frame(stream, record, len);
        return 1;
    case 6: /* a length that no frame has; also with the top bit set, beyond every control message */
        own_put_be(stream->bytes + stream->len,
                   rng_once_in(rng, 2) ? (uint64_t)WAL_RECORD_MAX + 1 + rng_below(rng, 1000000)
                                       : 0x80000000u + 200000u + rng_below(rng, 0x70000000u),
                   4);
        stream->len += 4;
        return 0;
    case 7: /* the stream ends inside a frame */
        add_frame(stream, record, len);
        stream->len -= 1 + rng_below(rng, (unsigned)len + 3);
        return 0;
    default:
        add_frame(stream, record, len);
        return 1;
    }
}

struct feeder {
    int fd, bytewise;
    const struct stream *stream;
};

static void *feed(void *argument)
{
    const struct feeder *feeder = argument;
    size_t piece = feeder->bytewise && feeder->stream->len < 5000 ? 1 : 1 + feeder->stream->len / 7;

    for (size_t at = 0; at < feeder->stream->len; at += piece)
        if (own_put_all(feeder->fd, feeder->stream->bytes + at,
                        feeder->stream->len - at < piece ? feeder->stream->len - at : piece) != 0)
            return NULL;
    shutdown(feeder->fd, SHUT_WR);
    return NULL;
}

void receive_streams(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static struct stream stream;
    struct wal_writer writer;
    struct kv_store store;
    struct source source;
    struct feeder feeder = {.bytewise = rng_once_in(rng, 2), .stream = &stream};
    pthread_t thread;
    int fd, rc, calls = 0, error;

    memset(&stream, 0, sizeof stream);
    source_begin(&source, rng, (enum stamps)rng_below(rng, 3));
    for (int i = 0; i < FRAMES && add_something(&stream, &source); i++)
        ;
    REQUIRE_THAT(own_pair(&feeder.fd, &fd, 0) == 0);
    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->wal_open(&writer, "r.wal") == 0);
    REQUIRE_THAT(pthread_create(&thread, NULL, feed, &feeder) == 0);
    do {
        errno = 0;
        rc = lib->repl_receive_record(fd, &writer, &store);
        error = errno;
        trace_result(trace, "receive", rc, error);
        trace_say(trace, "log of %llu bytes, file of %lld", (unsigned long long)writer.offset, own_file_size("r.wal"));
    } while (rc != -1 && ++calls < FRAMES + 5);
    /* Nothing but the answers to heartbeats has gone out. */
    let_through(HEARTBEAT_ANSWER);
    shutdown(fd, SHUT_RDWR);
    REQUIRE_THAT(pthread_join(thread, NULL) == 0);
    trace_say(trace, "answered %d bytes, asked %d times", error == EPROTO ? -1 : own_pending(feeder.fd),
              stream.heartbeats);
    close(fd);
    close(feeder.fd);
    TRACE(trace, lib->wal_close(&writer));
    trace_store(trace, lib, &store, 1);
    lib->kv_store_destroy(&store);
    trace_file(trace, "r.wal");
    REQUIRE_THAT(lib->other->kv_store_init(&store) == 0);
    TRACE(trace, lib->other->wal_recover("r.wal", &store));
    trace_store(trace, lib->other, &store, 1);
    lib->other->kv_store_destroy(&store);
    trace_directory(trace);
}

/* A leader that stops in the middle of a frame and neither goes on nor goes away. run_oracle.sh makes plain C's
 * deadline two seconds; logship is told. */
void receive_stalls(const struct library *lib, struct trace *trace, struct rng *rng)
{
    struct wal_writer writer;
    struct kv_store store;
    uint8_t frame[64], record[60];
    size_t len = own_set(record, "key", "value", 9), at;
    int fd, peer;

    REQUIRE_THAT(repl_set_timeouts(2000, 2000) == 0);
    REQUIRE_THAT(lib->kv_store_init(&store) == 0 && lib->wal_open(&writer, "s.wal") == 0);
    len = own_frame(frame, record, len);
    at = 1 + rng_below(rng, (unsigned)len - 1);
    REQUIRE_THAT(own_pair(&peer, &fd, 0) == 0 && own_put_all(peer, frame, at) == 0);
    TRACE(trace, lib->repl_receive_record(fd, &writer, &store));
    trace_file(trace, "s.wal");
    close(fd);
    close(peer);
    TRACE(trace, lib->wal_close(&writer));
    lib->kv_store_destroy(&store);
}
