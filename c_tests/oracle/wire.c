/* What goes over the wire to a peer that is no logship: caught by a raw socket, byte for byte. */
#include "oracle.h"

#include <errno.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../own/wire.h"

enum { RECORDS = 30, CAUGHT = 1 << 20 };

static void say_slot(struct trace *trace, const struct replication_config *config, int index)
{
    trace_say(trace, "follower %d: fd %s, online %u", index, config->followers[index].fd >= 0 ? "there" : "-1",
              config->followers[index].online);
}

/* Everything that has come since the last time from a sender in this thread: it is all here once the peer's side of
 * the connection has confirmed everything, or the end has come. */
static void say_caught(struct trace *trace, int sender, int peer)
{
    static uint8_t caught[CAUGHT];
    int64_t end = own_now_ms() + 5000;
    int on_the_way, pending;
    size_t len = 0;

    REQUIRE_THAT(sender >= 0 || own_await(peer, POLLRDHUP));
    do {
        on_the_way = 0;
        REQUIRE_THAT(own_now_ms() < end && (sender < 0 || ioctl(sender, SIOCOUTQ, &on_the_way) == 0));
        /* Behind the question: what was confirmed before it is seen here. */
        pending = own_pending(peer);
        REQUIRE_THAT(pending >= 0 && len + (size_t)pending <= CAUGHT);
        REQUIRE_THAT(pending == 0 || own_get(peer, caught + len, (size_t)pending));
        len += (size_t)pending;
    } while (on_the_way > 0 || pending > 0);
    trace_bytes(trace, "caught", caught, len);
}

/* Ships to one to four followers, of which some go away, by closing or with a reset, between two records. */
void wire_ship(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static struct replication_config config;
    static uint8_t bytes[BIG_ENOUGH];
    int peers[4], count = 1 + (int)rng_below(rng, 4);
    struct source source;

    source_begin(&source, rng, STAMPS_MIXED);
    REQUIRE_THAT(lib->repl_config_init(&config) == 0);
    config.follower_count = count;
    for (int i = 0; i < count; i++) {
        REQUIRE_THAT(own_pair(&config.followers[i].fd, &peers[i], 0) == 0);
        config.followers[i].online = !rng_once_in(rng, 5);
    }
    for (int i = 0; i < RECORDS; i++) {
        size_t len = source_encoded(&source, bytes);

        /* Nobody looks at what is shipped. */
        if (rng_once_in(rng, 4))
            rng_fill(rng, bytes, len);
        if (rng_once_in(rng, 10))
            len = 1 + rng_below(rng, 5);
        if (rng_once_in(rng, 15)) {
            len = WAL_RECORD_MAX - rng_below(rng, 3);
            rng_fill(rng, bytes, len);
        }
        if (rng_once_in(rng, 12)) {
            int gone = (int)rng_below(rng, (unsigned)count);

            if (peers[gone] >= 0) {
                struct linger at_once = {.l_onoff = 1, .l_linger = 0};

                if (rng_once_in(rng, 2))
                    REQUIRE_THAT(setsockopt(peers[gone], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
                close(peers[gone]);
                peers[gone] = -1;
                REQUIRE_THAT(config.followers[gone].fd < 0 || own_await(config.followers[gone].fd, POLLRDHUP));
            }
        }
        TRACE(trace, lib->repl_ship_record(&config, bytes, len));
        for (int f = 0; f < count; f++) {
            say_slot(trace, &config, f);
            if (peers[f] >= 0)
                say_caught(trace, config.followers[f].fd, peers[f]);
        }
    }
    for (int i = 0; i < count; i++) {
        if (config.followers[i].fd >= 0)
            close(config.followers[i].fd);
        if (peers[i] >= 0)
            close(peers[i]);
    }
}

/* Acks out and in, rejoin messages out and in, heartbeats. */
void wire_small(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static const int cuts[] = {1, 7, 8, 9, 15};
    struct repl_ack ack;
    uint8_t bytes[64];
    uint64_t lsn = rng_next(rng), got = 0;
    int fd, peer;

    REQUIRE_THAT(own_pair(&fd, &peer, 0) == 0);
    for (int i = 0; i < 10; i++) {
        TRACE(trace, lib->repl_send_ack(fd, rng_next(rng), (uint8_t)rng_next(rng)));
        say_caught(trace, fd, peer);
    }
    rng_fill(rng, bytes, sizeof bytes);
    TRACE(trace, lib->send_full(fd, bytes, rng_below(rng, sizeof bytes)));
    say_caught(trace, fd, peer);
    for (int i = 0; i < 10; i++) {
        /* Padding of any bytes, but not logship's mark. */
        rng_fill(rng, bytes, 16);
        REQUIRE_THAT(own_put_all(peer, bytes, 16) == 0);
        memset(&ack, 0, sizeof ack);
        TRACE(trace, lib->repl_recv_ack(fd, &ack));
        trace_say(trace, "ack of %llu, status %u", (unsigned long long)ack.lsn, ack.status);
    }
    REQUIRE_THAT(own_put_all(peer, bytes, 40) == 0);
    memset(bytes, 0, sizeof bytes);
    TRACE(trace, lib->recv_full(fd, bytes, 40));
    trace_bytes(trace, "received", bytes, 40);

    own_put_be(bytes, lsn, 8);
    REQUIRE_THAT(own_put_all(peer, bytes, 8) == 0);
    TRACE(trace, lib->repl_read_rejoin(fd, &got));
    trace_say(trace, "lsn %llu of %llu", (unsigned long long)got, (unsigned long long)lsn);

    TRACE(trace, lib->repl_follower_rejoin(fd, lsn));
    REQUIRE_THAT(own_get(peer, bytes, 8));
    trace_bytes(trace, "rejoin", bytes, 8);

    /* The peer ends in the middle of an ack, or before one. */
    if (rng_once_in(rng, 2))
        REQUIRE_THAT(own_put_all(peer, bytes, (size_t)cuts[rng_below(rng, 5)]) == 0);
    REQUIRE_THAT(shutdown(peer, SHUT_WR) == 0);
    if (rng_once_in(rng, 2))
        TRACE(trace, lib->repl_recv_ack(fd, &ack));
    else if (rng_once_in(rng, 2))
        TRACE(trace, lib->recv_full(fd, bytes, 16));
    else
        TRACE(trace, lib->repl_read_rejoin(fd, &got));
    close(fd);
    close(peer);
}

/* A peer that says how far it is, and a log, whole or not. */
void catch_ups(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static struct replication_config config;
    static uint8_t log[200000];
    struct source source;
    size_t len = 0, damaged_at = 0;
    unsigned count = rng_below(rng, 60);
    int peer, index = (int)rng_below(rng, 3);
    uint64_t lsn = rng_below(rng, count + 3);

    source_begin(&source, rng, STAMPS_MIXED);
    for (unsigned i = 0; i < count; i++) {
        size_t at = len;

        if (rng_once_in(rng, 5)) {
            struct wal_record record = source_next(&source);

            /* A record of W10, without timestamp. */
            len += own_encode(log + len, record.op, record.key, record.key_len, record.value, record.value_len, 0, 0);
        } else {
            len += source_encoded(&source, log + len);
        }
        /* Damage in what the follower lacks, not in what it has: how much of that is read is each one's own. */
        if (damaged_at == 0 && i >= lsn && rng_once_in(rng, 100)) {
            damaged_at = at + rng_below(rng, (unsigned)(len - at));
            log[damaged_at] ^= 0x10;
        }
    }
    if (lsn < count && damaged_at == 0 && rng_once_in(rng, 10))
        len -= 1 + rng_below(rng, 10);
    REQUIRE_THAT(own_write_file("c.wal", log, len) == 0);
    REQUIRE_THAT(lib->repl_config_init(&config) == 0);
    config.follower_count = 3;
    REQUIRE_THAT(own_pair(&config.followers[index].fd, &peer, 0) == 0);
    if (rng_once_in(rng, 8)) {
        TRACE(trace, lib->repl_set_wal(&config, "no.wal"));
        TRACE(trace, lib->repl_catch_up(&config, index, lsn));
        say_slot(trace, &config, index);
    }
    TRACE(trace, lib->repl_set_wal(&config, "c.wal"));
    /* In host byte order: who looks for such a number in a log meets its damage first. */
    if (rng_once_in(rng, 6) && damaged_at == 0)
        lsn = __builtin_bswap64(lsn);
    TRACE(trace, lib->repl_catch_up(&config, index, lsn));
    say_slot(trace, &config, index);
    say_caught(trace, config.followers[index].fd, peer);
    if (config.followers[index].online) {
        /* Not by chance the same bytes as the newest of the log, which catch-up has sent. */
        let_through(SHIPPED_BY_CATCH_UP);
        source.stamps = STAMPS_RISING;
        len = source_encoded(&source, log);
        TRACE(trace, lib->repl_ship_record(&config, log, len));
        say_caught(trace, config.followers[index].fd, peer);
        /* And once more. */
        TRACE(trace, lib->repl_catch_up(&config, index, lsn));
        say_caught(trace, config.followers[index].fd, peer);
    }
    if (config.followers[index].fd >= 0)
        close(config.followers[index].fd);
    close(peer);
}

/* Heartbeats ------------------------------------------------------------------------------------------------------ */

enum { ASKED = 4 };

enum manner { ANSWERS, ANSWERS_IN_PIECES, SILENT, LEAVES_WHEN_ASKED, MANNERS };

struct asked {
    int fd;
    enum manner manner;
    uint64_t lsn;
    char heard[4];
    int whole;
};

/* A follower's end: reads one heartbeat, and does what it does. */
static void *be_asked(void *argument)
{
    struct asked *asked = argument;
    uint8_t ack[16];

    asked->whole = own_get(asked->fd, asked->heard, 4);
    own_ack(ack, asked->lsn, 0, 0);
    if (asked->manner == ANSWERS)
        own_put_all(asked->fd, ack, 16);
    for (int i = 0; asked->manner == ANSWERS_IN_PIECES && i < 16; i++)
        own_put_all(asked->fd, ack + i, 1);
    if (asked->manner == LEAVES_WHEN_ASKED)
        shutdown(asked->fd, SHUT_RDWR);
    return NULL;
}

/* Who answers with an ack of LSN 0 lives; an ack that came before the question is no answer, but counts as an ack. */
void heartbeats(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static struct replication_config config;
    struct asked asked[ASKED] = {0};
    pthread_t threads[ASKED];
    int count = 1 + (int)rng_below(rng, ASKED), silent = 0;

    REQUIRE_THAT(lib->repl_config_init(&config) == 0);
    config.follower_count = count;
    for (int i = 0; i < count; i++) {
        REQUIRE_THAT(own_pair(&config.followers[i].fd, &asked[i].fd, 0) == 0);
        config.followers[i].online = 1;
        asked[i].manner = (enum manner)(rng_once_in(rng, 2) ? ANSWERS : rng_below(rng, MANNERS));
        silent += asked[i].manner == SILENT;
        if (rng_once_in(rng, 3))
            REQUIRE_THAT(own_send_ack(asked[i].fd, 7, 0, 0) == 0 && own_settle(config.followers[i].fd, 16));
        REQUIRE_THAT(pthread_create(&threads[i], NULL, be_asked, &asked[i]) == 0);
    }
    TRACE(trace, lib->repl_heartbeat(&config, silent > 0 ? 150 : 5000));
    for (int i = 0; i < count; i++) {
        REQUIRE_THAT(pthread_join(threads[i], NULL) == 0);
        trace_say(trace, "follower %d heard a whole one %d", i, asked[i].whole);
        trace_bytes(trace, "heartbeat", asked[i].heard, 4);
        say_slot(trace, &config, i);
    }
    TRACE(trace, lib->repl_wait_quorum(&config, 7, 20));
    for (int i = 0; i < count; i++) {
        if (config.followers[i].fd >= 0)
            close(config.followers[i].fd);
        close(asked[i].fd);
    }
}
