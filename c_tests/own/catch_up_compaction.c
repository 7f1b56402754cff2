/* A log that is compacted while a follower is being caught up from it, beside the commits: the follower never gets a
 * record in another one's place. It gets them all, or it is given up. */
#include "wire.h"
#include "logship.h"

/* Records of one length, so that any place where one began before is where another one begins after. */
enum { MANY = 400, VALUE = 1000 };

static struct replication_config config;
static struct wal_writer writer;

static void quiet(int level, const char *message, void *context)
{
    (void)level, (void)message, (void)context;
}
static size_t numbered(int n, uint8_t *out)
{
    char key[16], value[VALUE + 1];
    memset(value, 'a' + n % 26, VALUE);
    value[VALUE] = '\0';
    snprintf(key, sizeof key, "key%05d", n);
    return own_set(out, key, value, (uint64_t)n);
}
/* The follower's process: reads nothing before it is told to, then frames to the end. All must be in order. */
static void read_in_order(int fd, int go, int count)
{
    uint8_t record[VALUE + 64], want[VALUE + 68], frame[VALUE + 68], byte;
    int got = 0;
    REQUIRE(read(go, &byte, 1) == 1);
    while (got < MANY && !own_bad) {
        size_t size = own_frame(want, record, numbered(got + 1, record));
        if (!own_get(fd, frame, size))
            break; /* given up, perhaps in the middle of a frame */
        if (CHECK(memcmp(frame, want, size) == 0))
            got++;
        else
            NOTE("another record in the place of record %d", got + 1);
    }
    REQUIRE(write(count, &got, sizeof got) == sizeof got);
}
/* So many records are dropped when the follower has been sent some. */
static void compaction_in_a_catch_up(int drop)
{
    uint8_t *bytes = malloc((size_t)MANY * (VALUE + 64));
    size_t all = 0;
    int peer, go[2], count[2], left, got = -1;
    struct kv_store store;
    for (int n = 1; bytes && n <= MANY; n++)
        all += numbered(n, bytes + all);
    REQUIRE(bytes && own_write_file("leader.wal", bytes, all) == 0 && wal_open(&writer, "leader.wal") == 0);
    REQUIRE(kv_store_init(&store) == 0 && wal_recover("leader.wal", &store) == MANY);
    CHECK_EQ(wal_checkpoint_write(&store, "c.ckpt", writer.offset), 0);
    REQUIRE(repl_config_init(&config) == 0 && repl_set_wal(&config, "leader.wal") == 0);
    config.follower_count = 1;
    REQUIRE(own_pair(&config.followers[0].fd, &peer, 4096) == 0 && pipe(go) == 0 && pipe(count) == 0);
    pid_t child = own_fork();
    if (child == 0) {
        close(config.followers[0].fd), close(go[1]);
        read_in_order(peer, go[0], count[1]);
        own_leave();
    }
    close(peer), close(count[1]);
    CHECK_EQ(repl_catch_up_begin(&config, 0, 0), 0);
    CHECK_EQ(repl_catch_up_go_on(&config, 50), 1); /* the socket takes no more */
    struct logship_retention keep = {.records = (uint64_t)(MANY - drop)};
    CHECK_EQ(repl_compact(&config, "c.ckpt", &keep), drop < MANY ? drop : MANY - 1);
    CHECK(write(go[1], "g", 1) == 1);
    for (int64_t end = own_now_ms() + 5000; (left = repl_catch_up_go_on(&config, 1000)) > 0 && own_now_ms() < end;)
        ;
    CHECK_EQ(left, 0);
    int online = config.followers[0].online;
    if (config.followers[0].fd >= 0)
        close(config.followers[0].fd);
    REQUIRE(read(count[0], &got, sizeof got) == sizeof got);
    CHECK_EQ(own_reap(child), 0);
    CHECK(got > 0 && (got == MANY || !online));
    if (drop == 1)
        CHECK_EQ(got, MANY); /* nothing that it lacks is gone */
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
    free(bytes);
}
static void behind(void)
{
    compaction_in_a_catch_up(1);
}
static void beyond(void)
{
    compaction_in_a_catch_up(MANY - 100);
}
static void to_the_end(void)
{
    compaction_in_a_catch_up(MANY);
}

int main(void)
{
    logship_set_log(quiet, NULL);
    CASE("a compaction behind where a catch-up is", behind);
    CASE("a compaction beyond where a catch-up is", beyond);
    CASE("a compaction to the end in a catch-up", to_the_end);
    return own_end();
}
