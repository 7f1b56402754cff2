/* What logship.h adds and what the contract promises beyond the lessons: the log function, timestamps, the conflict rule
 * as a law, a store that may be walked, its lock, the follower's status. */
#include "wire.h"
#include "logship.h"
#include <pthread.h>

static int messages, last_level;
static char last_message[512];
static void *last_context;
static void remember(int level, const char *message, void *context)
{
    messages++;
    last_level = level;
    last_context = context;
    snprintf(last_message, sizeof last_message, "%s", message ? message : "(null)");
}
static void torn_log(const char *path)
{
    uint8_t bytes[128];
    size_t size = own_set(bytes, "k", "v", 1);
    REQUIRE(own_write_file(path, bytes, size - 1) == 0);
}
static void log_function(void)
{
    struct wal_writer writer;
    int here, out, err, was_out = dup(1), was_err = dup(2);
    fflush(stdout);
    out = open("stdout", O_RDWR | O_CREAT, 0600), err = open("stderr", O_RDWR | O_CREAT, 0600);
    REQUIRE(was_out >= 0 && was_err >= 0 && dup2(out, 1) == 1 && dup2(err, 2) == 2);
    torn_log("a.wal");
    logship_set_log(remember, &here);
    int opened = wal_open(&writer, "a.wal");
    long long said = own_file_size("stderr");
    int heard = messages;
    torn_log("b.wal");
    logship_set_log(NULL, NULL);
    opened |= wal_open(&writer, "b.wal");
    fflush(stderr);
    dup2(was_out, 1), dup2(was_err, 2);
    CHECK_EQ(opened, 0);
    CHECK(heard > 0 && last_context == &here);
    CHECK(last_level == LOGSHIP_LOG_WARN && last_message[0] != '\0');
    CHECK_EQ(said, 0);                   /* where the program takes the lines, stderr has none */
    CHECK_EQ(messages, heard);           /* and NULL gives them back to it */
    CHECK(own_file_size("stderr") > 0);
    CHECK_EQ(own_file_size("stdout"), 0); /* stdout is the program's own */
}
static void version(void)
{
    char want[32];
    snprintf(want, sizeof want, "%d.%d.%d", LOGSHIP_VERSION_MAJOR, LOGSHIP_VERSION_MINOR, LOGSHIP_VERSION_PATCH);
    CHECK(strcmp(LOGSHIP_VERSION, want) == 0);
    CHECK(strcmp(logship_version(), want) == 0);
}
static const uint64_t future = (uint64_t)1 << 61;
static void timestamps(void)
{
    struct timespec now;
    uint64_t last = 0;
    REQUIRE(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    for (int i = 0; i < 10000; i++) {
        uint64_t next = repl_next_timestamp();
        if (!CHECK(next > last))
            break;
        last = next;
    }
    CHECK(last >= (uint64_t)now.tv_sec * 1000000000u); /* nanoseconds of the monotonic clock, so long as no log says more */
    CHECK(last < (uint64_t)(now.tv_sec + 60) * 1000000000u);
}
static void timestamps_after_recovery(void)
{
    uint8_t bytes[128];
    struct kv_store store;
    REQUIRE(kv_store_init(&store) == 0);
    CHECK(own_write_file("x.wal", bytes, own_set(bytes, "k", "v", future)) == 0);
    CHECK_EQ(wal_recover("x.wal", &store), 1);
    CHECK(repl_next_timestamp() > future); /* else a rebooted leader's writes would lose to its old ones */
    kv_store_destroy(&store);
}
static void timestamps_after_open(void)
{
    uint8_t bytes[128];
    struct wal_writer writer;
    CHECK(own_write_file("x.wal", bytes, own_set(bytes, "k", "v", future)) == 0);
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    CHECK(repl_next_timestamp() > future);
    wal_close(&writer);
}
static void timestamps_after_receive(void)
{
    uint8_t bytes[128], frame[132];
    struct wal_writer writer;
    struct kv_store store;
    int leader, follower;
    REQUIRE(own_pair(&leader, &follower, 0) == 0 && wal_open(&writer, "x.wal") == 0 && kv_store_init(&store) == 0);
    CHECK(own_put_all(leader, frame, own_frame(frame, bytes, own_set(bytes, "k", "v", future))) == 0);
    CHECK_EQ(repl_receive_record(follower, &writer, &store), 0);
    CHECK(repl_next_timestamp() > future);
    wal_close(&writer);
    kv_store_destroy(&store);
}
static int append_stamped(struct wal_writer *writer, const char *value, uint64_t timestamp)
{
    struct wal_record record = {.op = WAL_OP_SET, .key = "k", .key_len = 1, .value = (char *)value,
                                .value_len = (uint16_t)strlen(value), .timestamp = timestamp};
    return wal_append(writer, &record);
}
static void timestamps_that_cannot_be(void)
{
    const uint64_t beyond[] = {((uint64_t)1 << 62) + ((uint64_t)1 << 41), (uint64_t)1 << 63, UINT64_MAX};
    struct wal_record record;
    struct wal_writer writer;
    uint8_t bytes[128];
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    for (int i = 0; i < 3; i++) {
        CHECK_FAILS(append_stamped(&writer, "v", beyond[i]), EINVAL);
        CHECK_EQ(wal_record_decode(bytes, own_set(bytes, "k", "v", beyond[i]), &record), 0); /* a record all the same */
        wal_record_free(&record);
    }
    CHECK_EQ(writer.offset, 0);
    CHECK(repl_next_timestamp() < (uint64_t)1 << 62); /* one bad record must not use up all the time there is */
    CHECK_EQ(wal_close(&writer), 0);
}
static void the_last_timestamp_that_can_be(void)
{
    struct kv_store store;
    struct wal_writer writer;
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    CHECK_EQ(append_stamped(&writer, "old", ((uint64_t)1 << 62) - 1), 0);
    CHECK_EQ(append_stamped(&writer, "new", repl_next_timestamp()), 0);
    CHECK_EQ(wal_close(&writer), 0);
    pid_t again = own_fork(); /* a restart would begin with a fresh clock; this child's is at least not behind */
    if (again == 0) {
        REQUIRE(wal_open(&writer, "x.wal") == 0);
        CHECK_EQ(append_stamped(&writer, "newest", repl_next_timestamp()), 0);
        CHECK_EQ(wal_close(&writer), 0);
        own_leave();
    }
    CHECK_EQ(own_reap(again), 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("x.wal", &store), 3);
    CHECK(strcmp(kv_store_get(&store, "k"), "newest") == 0);
    kv_store_destroy(&store);
}
static void a_clock_that_begins_anew(void)
{
    const uint64_t late[] = {((uint64_t)1 << 62) - 1, (uint64_t)1 << 62, (uint64_t)1 << 63};
    for (int i = 0; i < 3; i++) {
        pid_t fresh = own_fork();
        if (fresh == 0) { /* as after a reboot: this process has seen no time stamp yet */
            struct kv_store store;
            struct wal_writer writer;
            uint8_t bytes[128];
            REQUIRE(own_write_file("y.wal", bytes, own_set(bytes, "k", "old", late[i])) == 0);
            REQUIRE(wal_open(&writer, "y.wal") == 0 && kv_store_init(&store) == 0);
            CHECK(repl_next_timestamp() > late[i]);
            CHECK_EQ(append_stamped(&writer, "new", repl_next_timestamp()), 0);
            CHECK_EQ(wal_close(&writer), 0);
            CHECK_EQ(wal_recover("y.wal", &store), 2);
            CHECK(strcmp(kv_store_get(&store, "k"), "new") == 0);
            CHECK(unlink("y.wal") == 0);
            kv_store_destroy(&store);
            own_leave();
        }
        CHECK_EQ(own_reap(fresh), 0);
    }
}
static void conflict_table(void)
{
    const struct { uint64_t old_ts, new_ts; const char *old_value, *new_value; int want; } rows[] = {
        {100, 200, "a", "b", APPLY},  {200, 100, "a", "b", SKIP},    {100, 200, "zzz", "a", APPLY},
        {200, 100, "a", "zzz", SKIP}, {100, 100, "aaa", "zzz", APPLY}, {100, 100, "zzz", "aaa", SKIP},
        {100, 100, "x", "x", SKIP},   {100, 100, "abc", "abcd", APPLY}, {100, 100, "abcd", "abc", SKIP},
        {100, 100, "", "a", APPLY},   {100, 100, "a", "", SKIP},     {100, 100, "a", "\xFF", APPLY}, /* as unsigned bytes */
        {100, 100, "\xFF", "a", SKIP}, {100, 50, NULL, "a", APPLY},  {0, 0, NULL, "a", APPLY},
        {100, 200, "a", NULL, APPLY}, {200, 100, "a", NULL, SKIP},   {100, 100, "a", NULL, SKIP}, /* a DEL loses a tie */
        {100, 100, "", NULL, SKIP},   {0, UINT64_MAX, "b", "a", APPLY}, {UINT64_MAX, 0, "b", "c", SKIP},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!CHECK_EQ(repl_resolve_conflict(rows[i].old_ts, rows[i].new_ts, rows[i].old_value, rows[i].new_value), rows[i].want))
            NOTE("row %zu", i);
}
static void any_order_any_number_of_times(void)
{
    enum { COUNT = 6 };
    struct wal_record records[COUNT] = {
        {.op = WAL_OP_SET, .key = "x", .key_len = 1, .value = "1", .value_len = 1, .timestamp = 10},
        {.op = WAL_OP_DEL, .key = "x", .key_len = 1, .timestamp = 20},
        {.op = WAL_OP_SET, .key = "x", .key_len = 1, .value = "late", .value_len = 4, .timestamp = 15},
        {.op = WAL_OP_SET, .key = "y", .key_len = 1, .value = "aa", .value_len = 2, .timestamp = 30},
        {.op = WAL_OP_SET, .key = "y", .key_len = 1, .value = "ab", .value_len = 2, .timestamp = 30},
        {.op = WAL_OP_DEL, .key = "y", .key_len = 1, .timestamp = 30}};
    for (int permutation = 0; permutation < 720; permutation++) {
        int order[COUNT], left[COUNT] = {0, 1, 2, 3, 4, 5}, rest = permutation;
        for (int i = 0; i < COUNT; i++) {
            int pick = rest % (COUNT - i);
            rest /= COUNT - i;
            order[i] = left[pick];
            memmove(left + pick, left + pick + 1, (size_t)(COUNT - 1 - pick) * sizeof *left);
        }
        struct kv_store store;
        REQUIRE(kv_store_init(&store) == 0);
        for (int i = 0; i < COUNT; i++) {
            int applied = kv_store_apply(&store, &records[order[i]]);
            CHECK(applied == 0 || applied == 1);
            CHECK_EQ(kv_store_apply(&store, &records[order[i]]), 0); /* a second time changes nothing */
            CHECK_EQ(kv_store_apply(&store, &records[order[permutation % (i + 1)]]), 0);
        }
        const char *y = kv_store_get(&store, "y");
        CHECK(kv_store_get(&store, "x") == NULL);
        CHECK(y != NULL && strcmp(y, "ab") == 0);
        CHECK_EQ(kv_store_count(&store), 1);
        kv_store_destroy(&store);
    }
}
static void set_and_del_by_hand(void)
{
    struct kv_store store;
    struct wal_record older = {.op = WAL_OP_SET, .key = "k", .key_len = 1, .value = "older", .value_len = 5, .timestamp = 99};
    struct wal_record same = {.op = WAL_OP_SET, .key = "k", .key_len = 1, .value = "same", .value_len = 4, .timestamp = 100};
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(kv_store_set_ts(&store, "k", "v", 100), 0);
    CHECK_EQ(kv_store_set(&store, "k", "w"), 0); /* unconditional, and keeps the key's timestamp */
    CHECK(kv_store_find(&store, "k") && kv_store_find(&store, "k")->last_write_ts == 100);
    CHECK(strcmp(kv_store_get(&store, "k"), "w") == 0);
    CHECK_EQ(kv_store_set_ts(&store, "k", "x", 50), 0); /* unconditional too: with a lower one */
    CHECK(kv_store_find(&store, "k")->last_write_ts == 50);
    CHECK_EQ(kv_store_set_ts(&store, "k", "x", 100), 0);
    CHECK_EQ(kv_store_del(&store, "k"), 1);
    CHECK_EQ(kv_store_del(&store, "k"), 0);
    CHECK_EQ(kv_store_del(&store, "never"), 0);
    CHECK_EQ(kv_store_apply(&store, &older), 0); /* its tombstone stands at the key's timestamp */
    CHECK(kv_store_get(&store, "k") == NULL && kv_store_find(&store, "k") == NULL);
    CHECK_EQ(kv_store_apply(&store, &same), 1);
    CHECK(kv_store_get(&store, "k") && strcmp(kv_store_get(&store, "k"), "same") == 0);
    CHECK_EQ(kv_store_del(&store, "k"), 1);
    CHECK_EQ(kv_store_set(&store, "k", "again"), 0); /* clears the tombstone */
    CHECK(kv_store_get(&store, "k") && strcmp(kv_store_get(&store, "k"), "again") == 0);
    kv_store_destroy(&store);
}
/* Every entry where its hash says, none twice, none NULL, as many as are counted. */
static int walkable(struct kv_store *store, int live)
{
    int entries = 0;
    for (int i = 0; i < store->num_buckets; i++)
        for (struct kv_entry *e = store->buckets[i]; e; e = e->next) {
            if (!e->key || !e->value || kv_hash(e->key, store->num_buckets) != (unsigned)i || kv_store_find(store, e->key) != e)
                return 0; /* found elsewhere under the same key: a duplicate */
            entries++;
        }
    return entries == live && kv_store_count(store) == live;
}
static void store_may_be_walked(void)
{
    struct kv_store store;
    char key[32];
    REQUIRE(kv_store_init(&store) == 0);
    int buckets = store.num_buckets, live = 0;
    CHECK(walkable(&store, 0));
    for (int n = 0; n < 100000; n++) {
        sprintf(key, "key%d", n);
        if (!CHECK_EQ(kv_store_set(&store, key, "v"), 0))
            break;
        live++;
        if (n % 10007 == 0)
            CHECK(walkable(&store, live));
    }
    CHECK(walkable(&store, live));
    CHECK(store.num_buckets > buckets && store.num_buckets >= live / 16); /* it has grown with its keys */
    for (int n = 0; n < 100000; n += 2) {
        sprintf(key, "key%d", n);
        CHECK_EQ(kv_store_del(&store, key), 1);
        live--;
    }
    CHECK(walkable(&store, live)); /* tombstones are not in it */
    for (int n = 0; n < 100000; n++) {
        sprintf(key, "key%d", n);
        CHECK_EQ(kv_store_get(&store, key) != NULL, n % 2);
    }
    kv_store_destroy(&store);
}
static struct kv_store locked;
static volatile int recovered;
static void *recover(void *unused)
{
    (void)unused;
    recovered = wal_recover("x.wal", &locked);
    return NULL;
}
static void the_lock(void)
{
    pthread_t thread;
    uint8_t bytes[256];
    size_t size = own_set(bytes, "a", "1", 1);
    uint64_t offset;
    size += own_set(bytes + size, "b", "2", 2);
    REQUIRE(own_write_file("x.wal", bytes, size) == 0 && kv_store_init(&locked) == 0);
    recovered = -9;
    CHECK_EQ(pthread_rwlock_rdlock(&locked.lock), 0);
    REQUIRE(pthread_create(&thread, NULL, recover, NULL) == 0);
    poll(NULL, 0, 100); /* time in which a recovery without the lock would be through */
    CHECK_EQ(kv_store_count(&locked), 0); /* nothing changes under a program that reads with the lock held */
    CHECK_EQ(recovered, -9);
    CHECK_EQ(pthread_rwlock_unlock(&locked.lock), 0);
    pthread_join(thread, NULL);
    CHECK_EQ(recovered, 2);
    CHECK_EQ(pthread_rwlock_wrlock(&locked.lock), 0); /* a caller that holds it is not stopped by it */
    CHECK_EQ(wal_recover("x.wal", &locked), 2);
    CHECK_EQ(wal_checkpoint_write(&locked, "c", size), 0);
    CHECK_EQ(wal_checkpoint_load("c", &locked, &offset), 0);
    CHECK_EQ(kv_store_set(&locked, "c", "3"), 0);
    CHECK(kv_store_get(&locked, "c") != NULL);
    CHECK_EQ(pthread_rwlock_unlock(&locked.lock), 0);
    CHECK_EQ(pthread_rwlock_trywrlock(&locked.lock), 0); /* and is the only one who held it */
    CHECK_EQ(pthread_rwlock_unlock(&locked.lock), 0);
    kv_store_destroy(&locked);
}
enum { APPEND, BATCH };
/* Five records are stored as a group and one is handed out; then the program appends one of its own. */
static void own_append(int by_hand, int how)
{
    struct wal_writer writer;
    struct kv_store store;
    struct wal_record own = {.op = WAL_OP_SET, .key = "own", .key_len = 3, .value = "o", .value_len = 1};
    uint8_t sent[512], log[512], record[64];
    size_t sent_len = own_position(sent, 1), group_len = 0, log_len = 0, size;
    char key[8];
    int leader, follower;
    unlink("follower.wal");
    REQUIRE(own_pair(&leader, &follower, 0) == 0 && kv_store_init(&store) == 0);
    REQUIRE(wal_open(&writer, "follower.wal") == 0);
    own.timestamp = 600;
    for (int n = 1; n <= 7; n++) {
        snprintf(key, sizeof key, n == 6 ? "own" : "key%d", n);
        size = own_set(record, key, n == 6 ? "o" : "v", (uint64_t)(100 * n));
        memcpy(log + log_len, record, size);
        log_len += size;
        if (n <= 5) {
            sent_len += own_frame(sent + sent_len, record, size);
            group_len = log_len;
        }
    }
    CHECK_EQ(own_put_all(leader, sent, sent_len), 0);
    REQUIRE(own_settle(follower, (int)sent_len));
    CHECK_EQ(by_hand ? repl_receive_record(follower, &writer, &store) : logship_follow(follower, &writer, &store), 0);
    CHECK_EQ(logship_last_lsn(&writer), 1);
    CHECK_EQ(own_file_size("follower.wal"), group_len); /* the group is on disk */
    CHECK_EQ(how == BATCH ? logship_append_batch(&writer, &own, 1) : wal_append(&writer, &own), 0);
    CHECK_EQ(logship_last_lsn(&writer), 6);
    if (!by_hand)
        CHECK(own_hello_is(leader, 0) && own_ack_is(leader, 5, REPL_ACK_OK));

    CHECK_EQ(own_put_all(leader, sent, own_frame(sent, record, size)), 0); /* a seventh */
    REQUIRE(own_settle(follower, (int)size + 4));
    CHECK_EQ(by_hand ? repl_receive_record(follower, &writer, &store) : logship_follow(follower, &writer, &store), 0);
    CHECK_EQ(own_pending(follower), 0); /* that one, none of the group */
    CHECK_EQ(logship_last_lsn(&writer), 7);
    if (!by_hand)
        CHECK(own_ack_is(leader, 7, REPL_ACK_OK));
    CHECK(own_quiet(follower, leader));
    CHECK(own_file_is("follower.wal", log, log_len));
    for (int n = 1; n <= 7; n++) {
        snprintf(key, sizeof key, "key%d", n);
        CHECK(n == 6 || kv_store_get(&store, key) != NULL); /* whether or not it was handed out */
    }
    close(leader), close(follower);
    CHECK_EQ(wal_close(&writer), 0);
    kv_store_destroy(&store);
    if (own_bad)
        NOTE("%s, %s", by_hand ? "repl_receive_record" : "logship_follow", how == BATCH ? "a batch" : "wal_append");
}
static void own_append_behind_a_group(void)
{
    for (int by_hand = 0; by_hand <= 1; by_hand++)
        for (int how = APPEND; how <= BATCH && !own_bad; how++)
            own_append(by_hand, how);
}
static void follower_status(void)
{
    struct replication_config config;
    struct wal_writer writer;
    struct repl_follower_status status;
    uint8_t bytes[128];
    int peer;
    size_t size = 0;
    REQUIRE(repl_config_init(&config) == 0 && wal_open(&writer, "leader.wal") == 0);
    CHECK_EQ(repl_get_follower_status(&config, 0, &status), 0);
    CHECK_EQ(status.state, REPL_FOLLOWER_OFFLINE);
    CHECK_EQ(status.acked_lsn, 0);
    CHECK(status.last_disconnect[0] == '\0' && status.last_full_resync[0] == '\0');
    REQUIRE(own_pair(&config.followers[0].fd, &peer, 0) == 0);
    config.followers[0].online = 1;
    for (int n = 1; n <= 3; n++) {
        struct wal_record record = {.op = WAL_OP_SET, .key = "k", .key_len = 1, .value = "v", .value_len = 1, .timestamp = (uint64_t)n};
        size = own_set(bytes, "k", "v", (uint64_t)n);
        CHECK_EQ(wal_append(&writer, &record), 0);
        CHECK_EQ(repl_ship_record(&config, bytes, size), 1);
    }
    own_send_ack(peer, 1, REPL_ACK_OK, 1);
    config.followers[1].online = 0;
    CHECK_EQ(repl_set_quorum_policy(&config, REPL_QUORUM_DEGRADE), 0);
    CHECK_EQ(repl_wait_quorum(&config, 1, 5000), 0);
    CHECK_EQ(repl_get_follower_status(&config, 0, &status), 0);
    CHECK_EQ(status.state, REPL_FOLLOWER_ONLINE);
    CHECK_EQ(status.acked_lsn, 1);
    CHECK_EQ(status.lag_records, 2);
    CHECK_EQ(status.lag_bytes, 2 * size);
    CHECK(status.ms_since_heard >= 0 && status.ms_since_heard < 10000);
    CHECK_EQ(repl_get_follower_status(&config, 1, &status), 0);
    CHECK_EQ(status.state, REPL_FOLLOWER_OFFLINE);
    own_send_ack(peer, 3, REPL_ACK_OK, 1);
    CHECK_EQ(repl_wait_quorum(&config, 3, 5000), 0);
    CHECK_EQ(repl_get_follower_status(&config, 0, &status), 0);
    CHECK(status.acked_lsn == 3 && status.lag_records == 0 && status.lag_bytes == 0);
    close(peer);
    CHECK(own_await(config.followers[0].fd, POLLRDHUP));
    CHECK_EQ(repl_ship_record(&config, bytes, size), 0);
    CHECK_EQ(repl_get_follower_status(&config, 0, &status), 0);
    CHECK_EQ(status.state, REPL_FOLLOWER_OFFLINE);
    CHECK(status.last_disconnect[0] != '\0' && memchr(status.last_disconnect, '\0', sizeof status.last_disconnect));
    CHECK_EQ(wal_close(&writer), 0);
}

int main(void)
{
    logship_set_log(remember, NULL);
    CASE("the log function, stderr, and never stdout", log_function);
    CASE("the version, as macros and as a function", version);
    CASE("timestamps rise, from the monotonic clock", timestamps);
    CASE("timestamps after recovery of a log from the future", timestamps_after_recovery);
    CASE("timestamps after wal_open of one", timestamps_after_open);
    CASE("timestamps after receiving one", timestamps_after_receive);
    CASE("timestamps that the clock can't pass are refused", timestamps_that_cannot_be);
    CASE("after the last timestamp that a log takes the clock goes on", the_last_timestamp_that_can_be);
    CASE("a clock that begins anew goes on above every timestamp of the log", a_clock_that_begins_anew);
    CASE("the conflict rule, row by row", conflict_table);
    CASE("any order, any number of times: the same store", any_order_any_number_of_times);
    CASE("set, set_ts and del by hand", set_and_del_by_hand);
    CASE("the store may be walked, and grows", store_may_be_walked);
    CASE("the store's lock", the_lock);
    CASE("an own append behind records that no receive has returned", own_append_behind_a_group);
    CASE("a follower's status", follower_status);
    return own_end();
}
