/* repl_wait_quorum against scripted followers: acks that are late, early, double, in pieces, of the wrong LSN,
 * rejected; followers that go away. All peers are raw sockets without logship's mark. */
#include "oracle.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../own/wire.h"

enum { MOST = 5, FIRST = 2, STEPS = 12, SCRIPT = 256, SOON_MS = 15, NEVER_MS = 5000 };

struct scene {
    const struct library *lib;
    struct trace *trace;
    struct rng *rng;
    struct replication_config config;
    int peers[MOST], count;
    /* What each follower says in this step, and whether it goes away behind it. */
    uint8_t script[MOST][SCRIPT];
    size_t script_len[MOST];
    int leaves[MOST];
    /* The bookkeeping that says how a wait will end, so that it needs no long deadline when it times out. */
    int acked[MOST][STEPS + 4];
};

static void begin(struct scene *scene, const struct library *lib, struct trace *trace, struct rng *rng, int count)
{
    memset(scene, 0, sizeof *scene);
    scene->lib = lib;
    scene->trace = trace;
    scene->rng = rng;
    scene->count = count;
    REQUIRE_THAT(lib->repl_config_init(&scene->config) == 0);
    scene->config.follower_count = count;
    for (int i = 0; i < count; i++) {
        REQUIRE_THAT(own_pair(&scene->config.followers[i].fd, &scene->peers[i], 0) == 0);
        scene->config.followers[i].online = 1;
    }
}

static void end(struct scene *scene)
{
    for (int i = 0; i < scene->count; i++) {
        if (scene->config.followers[i].fd >= 0)
            close(scene->config.followers[i].fd);
        if (scene->peers[i] >= 0)
            close(scene->peers[i]);
    }
}

static void say_slots(struct scene *scene)
{
    for (int i = 0; i < scene->count; i++)
        trace_say(scene->trace, "follower %d: fd %s, online %u", i, scene->config.followers[i].fd >= 0 ? "there" : "-1",
                  scene->config.followers[i].online);
}

static void add_ack(struct scene *scene, int index, uint64_t lsn, int status)
{
    uint8_t *at = scene->script[index] + scene->script_len[index];

    REQUIRE_THAT(scene->script_len[index] + 16 <= SCRIPT);
    own_ack(at, lsn, status, 0);
    /* The padding is whatever lay on the stack. */
    rng_fill(scene->rng, at + 9, 7);
    scene->script_len[index] += 16;
    if (status == 0 && lsn >= 1 && lsn < STEPS + 4)
        scene->acked[index][lsn] = 1;
}

/* One follower's part of a step. */
static void write_script(struct scene *scene, int index, uint64_t lsn)
{
    scene->script_len[index] = 0;
    scene->leaves[index] = 0;
    if (scene->peers[index] < 0)
        return;
    switch (rng_below(scene->rng, 16)) {
    case 0: /* nothing */
        break;
    case 1: /* late: that of the step before */
        if (lsn > FIRST)
            add_ack(scene, index, lsn - 1, 0);
        break;
    case 2: /* early: it is not shipped, and logship counts what was */
        let_through(ACK_ABOVE_LOG);
        break;
    case 3: /* twice */
        add_ack(scene, index, lsn, 0);
        add_ack(scene, index, lsn, 0);
        break;
    case 4: /* a status that the lessons don't know; not 2, which is logship's own */
        let_through(NOT_STORED);
        add_ack(scene, index, lsn, 3 + (int)rng_below(scene->rng, 200));
        break;
    case 5: /* several at once */
        for (unsigned i = rng_below(scene->rng, 5); i > 0; i--)
            add_ack(scene, index, FIRST + rng_below(scene->rng, (unsigned)(lsn - FIRST) + 1), 0);
        break;
    case 6: /* goes away, having said it or not */
        if (rng_once_in(scene->rng, 2))
            add_ack(scene, index, lsn, 0);
        scene->leaves[index] = 1;
        break;
    case 7: /* goes away in the middle of an ack */
        add_ack(scene, index, lsn, 3);
        scene->script_len[index] -= 1 + rng_below(scene->rng, 15);
        scene->leaves[index] = 1;
        break;
    default:
        add_ack(scene, index, lsn, 0);
    }
}

static void leave(struct scene *scene, int index)
{
    int leader_end = scene->config.followers[index].fd;

    close(scene->peers[index]);
    scene->peers[index] = -1;
    REQUIRE_THAT(leader_end < 0 || own_await(leader_end, POLLRDHUP));
}

/* Everything is said before the leader looks. */
static void play_before(struct scene *scene)
{
    for (int i = 0; i < scene->count; i++) {
        int leader_end = scene->config.followers[i].fd, waiting = leader_end >= 0 ? own_pending(leader_end) : 0;

        if (scene->peers[i] < 0)
            continue;
        if (scene->script_len[i] > 0)
            REQUIRE_THAT(own_put_all(scene->peers[i], scene->script[i], scene->script_len[i]) == 0);
        REQUIRE_THAT(leader_end < 0 || own_settle(leader_end, waiting + (int)scene->script_len[i]));
        if (scene->leaves[i])
            leave(scene, i);
    }
}

/* The same in another thread, a byte at a time, the followers taking turns, while the leader waits. */
static void *play_bytewise(void *argument)
{
    struct scene *scene = argument;

    for (size_t at = 0; at < SCRIPT; at++) {
        for (int i = 0; i < scene->count; i++) {
            if (scene->peers[i] >= 0 && at < scene->script_len[i])
                own_put_all(scene->peers[i], scene->script[i] + at, 1);
            if (scene->peers[i] >= 0 && at >= scene->script_len[i] && scene->leaves[i]) {
                close(scene->peers[i]);
                scene->peers[i] = -1;
            }
        }
    }
    return NULL;
}

/* 1: a quorum will be there, 0: not, and somebody may still answer, -1: nobody may. */
static int outcome(const struct scene *scene, uint64_t lsn)
{
    int needed = scene->count / 2 + 1, have = 0, can = 0;

    for (int i = 0; i < scene->count; i++) {
        have += scene->acked[i][lsn];
        can += !scene->acked[i][lsn] && scene->peers[i] >= 0 && !scene->leaves[i];
    }
    return have >= needed ? 1 : can > 0 ? 0 : -1;
}

static void step(struct scene *scene, struct source *source, uint64_t lsn)
{
    static uint8_t record[BIG_ENOUGH];
    size_t len = source_encoded(source, record);
    int expected, bytewise;
    pthread_t player;

    TRACE(scene->trace, scene->lib->repl_ship_record(&scene->config, record, len));
    /* After a ship it is known who is there: it looks for those that have hung up. */
    say_slots(scene);
    for (int i = 0; i < scene->count; i++) {
        if (scene->config.followers[i].online)
            trace_say(scene->trace, "frame %d", own_frame_is(scene->peers[i], record, len));
        write_script(scene, i, lsn);
    }
    expected = outcome(scene, lsn);
    bytewise = expected != 0 && rng_once_in(scene->rng, 2);
    if (bytewise)
        REQUIRE_THAT(pthread_create(&player, NULL, play_bytewise, scene) == 0);
    else
        play_before(scene);
    TRACE(scene->trace, scene->lib->repl_wait_quorum(&scene->config, lsn, expected == 0 ? SOON_MS : NEVER_MS));
    if (bytewise) {
        REQUIRE_THAT(pthread_join(player, NULL) == 0);
        for (int i = 0; i < scene->count; i++)
            if (scene->leaves[i] && scene->config.followers[i].fd >= 0)
                REQUIRE_THAT(own_await(scene->config.followers[i].fd, POLLRDHUP));
    }
    /* The one who was late comes after all, and one waits again. */
    for (int i = 0; i < scene->count && expected == 0; i++) {
        scene->script_len[i] = 0;
        scene->leaves[i] = 0;
        if (scene->peers[i] >= 0 && !scene->acked[i][lsn])
            add_ack(scene, i, lsn, 0);
    }
    if (expected == 0) {
        play_before(scene);
        TRACE(scene->trace, scene->lib->repl_wait_quorum(&scene->config, lsn, NEVER_MS));
    }
}

void quorum_scripts(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static struct scene scene;
    struct source source;

    source_begin(&source, rng, STAMPS_RISING);
    begin(&scene, lib, trace, rng, 1 + (int)rng_below(rng, MOST));
    for (uint64_t lsn = FIRST; lsn < STEPS; lsn++)
        step(&scene, &source, lsn);
    end(&scene);
}

/* Rejected records ------------------------------------------------------------------------------------------------- */

struct rejecting {
    int fd, rejections;
    uint8_t seen[64 * 1024];
    size_t seen_len;
    uint64_t lsn;
};

/* Answers every frame: with status 1 as often as it was told, then with 0. */
static void *reject(void *argument)
{
    struct rejecting *peer = argument;
    uint8_t word[4];

    while (own_get(peer->fd, word, 4)) {
        size_t len = (size_t)word[0] << 24 | (size_t)word[1] << 16 | (size_t)word[2] << 8 | word[3];
        int rejected = peer->rejections > 0;

        if (peer->seen_len + 4 + len > sizeof peer->seen)
            break;
        memcpy(peer->seen + peer->seen_len, word, 4);
        if (!own_get(peer->fd, peer->seen + peer->seen_len + 4, len))
            break;
        peer->seen_len += 4 + len;
        peer->rejections -= rejected;
        if (own_send_ack(peer->fd, peer->lsn, rejected, 0) != 0)
            break;
    }
    return NULL;
}

/* One record to one or two followers, who are all needed, and who reject it 0 to 5 times. */
void quorum_reships(const struct library *lib, struct trace *trace, struct rng *rng)
{
    static struct rejecting peers[2];
    static uint8_t record[BIG_ENOUGH];
    static struct scene scene;
    struct wal_writer writer;
    struct source source;
    struct wal_record last = {0};
    pthread_t threads[2];
    int damaged = rng_once_in(rng, 3), named = rng_once_in(rng, 2);
    uint64_t lsn = 1 + rng_below(rng, 4);
    int len = 0, ships;

    source_begin(&source, rng, STAMPS_RISING);
    begin(&scene, lib, trace, rng, 1 + (int)rng_below(rng, 2));
    REQUIRE_THAT(lib->wal_open(&writer, "q.wal") == 0);
    for (uint64_t i = 0; i < lsn; i++) {
        last = source_next(&source);
        REQUIRE_THAT(lib->wal_append(&writer, &last) == 0);
    }
    len = lib->wal_record_encode(&last, record, sizeof record);
    REQUIRE_THAT(len > 0);
    if (named)
        TRACE(trace, lib->repl_set_wal(&scene.config, "q.wal"));
    else
        TRACE(trace, lib->wal_close(&writer)); /* else logship would find it by itself: LEADER_LOG_OPENED */
    if (damaged)
        record[12] ^= 4;
    for (int i = 0; i < scene.count; i++) {
        memset(&peers[i], 0, sizeof peers[i]);
        peers[i].fd = scene.peers[i];
        peers[i].lsn = lsn;
        peers[i].rejections = damaged && !named ? 1 : (int)rng_below(rng, 6);
        /* Without a good copy the record is never sent again: the wait can only time out. */
        if (damaged && named && peers[i].rejections == 0)
            peers[i].rejections = 1;
        REQUIRE_THAT(pthread_create(&threads[i], NULL, reject, &peers[i]) == 0);
    }
    ships = lib->repl_ship_record(&scene.config, record, (size_t)len);
    trace_say(trace, "shipped to %d", ships);
    TRACE(trace, lib->repl_wait_quorum(&scene.config, lsn, damaged && !named ? 50 : NEVER_MS));
    /* When one is given up nobody waits for the other any more: how far that one got is chance. */
    if (scene.count == 1)
        say_slots(&scene);
    for (int i = 0; i < scene.count; i++) {
        if (scene.config.followers[i].fd >= 0)
            shutdown(scene.config.followers[i].fd, SHUT_WR);
        REQUIRE_THAT(pthread_join(threads[i], NULL) == 0);
        if (scene.count == 1)
            trace_bytes(trace, "the follower saw", peers[i].seen, peers[i].seen_len);
    }
    if (named)
        REQUIRE_THAT(lib->wal_close(&writer) == 0);
    end(&scene);
}
