/* The headers as different programs hold them: both forms of kv_store_init and wal_open, every spelling of an include,
 * any order, C99 to C23. Built with -DHEADER_ORDER=1..5 it is a translation unit that only has to compile: then our
 * headers come before any other and no feature macro is set (run.sh does that for each standard). */
#ifdef HEADER_ORDER
#if HEADER_ORDER == 1 /* the lessons' order */
#include "w09/kv_store.h"
#include "w10/crc32.h"
#include "w10/wal_record.h"
#include "w10/wal_writer.h"
#include "w10/wal_recovery.h"
#include "w10/wal_checkpoint.h"
#include "w11/repl_config.h"
#include "w11/repl_ack.h"
#include "w11/repl_ship.h"
#include "w11/repl_quorum.h"
#include "w11/repl_conflict.h"
#include "w11/repl_rejoin.h"
#include "logship.h"
#elif HEADER_ORDER == 2 /* backwards, and as from inside w11/ */
#include "logship.h"
#include "repl_rejoin.h"
#include "repl_conflict.h"
#include "repl_quorum.h"
#include "repl_ship.h"
#include "repl_ack.h"
#include "repl_config.h"
#include "../w10/wal_checkpoint.h"
#include "../w10/wal_recovery.h"
#include "../w10/wal_writer.h"
#include "../w10/wal_record.h"
#include "../w10/crc32.h"
#include "../w09/kv_store.h"
#elif HEADER_ORDER == 3 /* each twice, under different spellings */
#include "repl_rejoin.h"
#include "w11/repl_rejoin.h"
#include "../w11/repl_rejoin.h"
#include "wal_checkpoint.h"
#include "w10/wal_checkpoint.h"
#include "kv_store.h"
#include "w09/kv_store.h"
#include "w10/kv_store.h"
#include "../w10/kv_store.h"
#include "logship.h"
#include "logship.h"
#elif HEADER_ORDER == 4 /* after the C library's headers, which a strict -std= has already cut down */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include "repl_ship.h"
#include "w10/wal_checkpoint.h"
#include "logship.h"
#else /* the umbrella alone */
#include "logship.h"
#endif
int header_order_uses(struct kv_store *store, struct replication_config *config, const uint8_t *bytes);
int header_order_uses(struct kv_store *store, struct replication_config *config, const uint8_t *bytes)
{
    struct wal_writer writer, *opened = wal_open("x");
    struct wal_record record;
    struct repl_ack ack;
    uint64_t lsn = 0;
    (void)opened;
    return kv_store_init(store) + kv_store_init(store, 16) + wal_open(&writer, "x") + wal_append(&writer, &record) +
           wal_record_decode(bytes, 5, &record) + (int)crc32(bytes, 5) + wal_recover("x", store) +
           wal_checkpoint_load("x", store, &lsn) + wal_checkpoint(store, "x", 5) + repl_config_init(config) +
           repl_recv_ack(3, &ack) + repl_ship_record(config, bytes, 5) + repl_wait_quorum(config, 1, MAX_FOLLOWERS) +
           repl_resolve_conflict(1, 2, "a", "b") + SKIP + APPLY + repl_catch_up(config, 0, 0) +
           repl_set_timeouts(REPL_ACK_OK, WAL_OP_SET) + CRC_MISMATCH;
}
#else

#include "harness.h"
#include "repl_ship.h"
#include "../w10/wal_record.h"
#include "../w10/wal_checkpoint.h"
#include "w10/kv_store.h"
#include "w11/repl_rejoin.h"
#include "logship.h"

static void both_forms_of_kv_store_init(void)
{
    struct kv_store one, two, *pointer = &one;
    int (*function)(struct kv_store *) = kv_store_init; /* the name alone is the lesson's function */
    CHECK_EQ(kv_store_init(&one), 0);
    CHECK_EQ(kv_store_init(&two, 16), 0);
    CHECK(one.num_buckets > 0 && two.num_buckets > 0);
    CHECK_EQ(kv_store_set(&one, "a", "1"), 0);
    for (int i = 0; i < 500; i++) { /* far more than 16 buckets' worth */
        char key[16];
        sprintf(key, "k%d", i);
        CHECK_EQ(kv_store_set(&two, key, key), 0);
    }
    CHECK_EQ(kv_store_count(&one), 1);
    CHECK_EQ(kv_store_count(&two), 500);
    CHECK(kv_store_get(&two, "k499") && strcmp(kv_store_get(&two, "k499"), "k499") == 0);
    kv_store_destroy(&one);
    kv_store_destroy(&two);
    if (kv_store_init(pointer) != 0 || kv_store_set(pointer, "b", "2") != 0)
        CHECK(!"kv_store_init in a condition");
    kv_store_destroy(pointer);
    CHECK_EQ(kv_store_init(&two, (1 ? 4 : (int)sizeof(two))), 0);
    kv_store_destroy(&two);
    CHECK_EQ(function(&one), 0);
    CHECK_EQ(kv_store_count(&one), 0);
    kv_store_destroy(&one);
    CHECK_EQ(kv_store_init_sized(&one, 64), 0);
    kv_store_destroy(&one);
}
static void both_forms_of_wal_open(void)
{
    struct wal_writer by_hand, *opened;
    struct wal_record record = {WAL_OP_SET, NULL, 3, NULL, 3, 0, 9};
    int (*function)(struct wal_writer *, const char *) = wal_open;
    struct kv_store store;
    char key[] = "foo", value[] = "bar";
    record.key = key;
    record.value = value;
    CHECK_EQ(wal_open(&by_hand, "two.wal"), 0);
    CHECK_EQ(wal_append(&by_hand, &record), 0);
    CHECK_EQ(wal_close(&by_hand), 0);
    CHECK_EQ(by_hand.fd, -1);
    if ((opened = wal_open("one.wal")) == NULL)
        REQUIRE(!"wal_open(path) returns a writer");
    CHECK_EQ(wal_append(opened, &record), 0);
    CHECK_EQ(opened->offset, 27);
    CHECK(fcntl(opened->fd, F_GETFL) & O_APPEND);
    int fd = opened->fd;
    CHECK_EQ(wal_close(opened), 0);
    CHECK(fcntl(fd, F_GETFD) < 0);
    opened = wal_open_path("one.wal");
    REQUIRE(opened != NULL);
    CHECK_EQ(opened->offset, 27);
    CHECK_EQ(wal_close(opened), 0);
    errno = 0;
    CHECK(wal_open("no/such/directory/x.wal") == NULL);
    CHECK_EQ(errno, ENOENT);
    CHECK_EQ(function(&by_hand, "two.wal"), 0);
    CHECK_EQ(by_hand.offset, 27);
    CHECK_EQ((wal_open)(&by_hand, "three.wal"), 0); /* leaks the first by_hand.fd, as C lets one do */
    CHECK_EQ(wal_close(&by_hand), 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("one.wal", &store), 1);
    CHECK_EQ(wal_recover("two.wal", &store), 1);
    kv_store_destroy(&store);
}
/* The macros take part in calls only, and leave those alone that have the lesson's arguments. */
static void members_of_the_lessons_names(void)
{
    struct {
        int (*wal_open)(struct wal_writer *, const char *);
        int (*kv_store_init)(struct kv_store *);
        uint32_t (*crc32)(const uint8_t *, size_t);
    } table = {.wal_open = wal_open, .kv_store_init = kv_store_init}, *tables = &table;
    struct { struct wal_writer *(*wal_open)(const char *); } by_path = {.wal_open = wal_open_path};
    struct wal_writer writer, *opened;
    struct kv_store store;

    table.crc32 = crc32;
    table.wal_open = wal_open;
    CHECK_EQ(tables->wal_open(&writer, "member.wal"), 0);
    CHECK_EQ(wal_close(&writer), 0);
    opened = (by_path.wal_open)("member.wal"); /* in brackets: the macro does not see it */
    CHECK(opened != NULL && wal_close(opened) == 0);
    CHECK_EQ(tables->kv_store_init(&store), 0);
    kv_store_destroy(&store);
    CHECK_EQ(tables->crc32((const uint8_t *)"123456789", 9), 0xCBF43926u);
}
static void names_that_have_two_spellings(void)
{
    struct kv_store store;
    uint64_t offset = 0;
    const uint8_t digits[] = "123456789";
    crc32_init();
    CHECK(crc32(digits, 9) == 0xCBF43926u);
    CHECK(logship_crc32(digits, 9) == 0xCBF43926u);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(kv_store_set(&store, "k", "v"), 0);
    CHECK_EQ(wal_checkpoint(&store, "a.ckpt", 5), 0);
    CHECK_EQ(wal_checkpoint_write(&store, "b.ckpt", 6), 0);
    CHECK_EQ(wal_checkpoint_load("a.ckpt", &store, &offset), 0);
    CHECK_EQ(offset, 5);
    CHECK_EQ(wal_checkpoint_load("b.ckpt", &store, &offset), 0);
    CHECK_EQ(offset, 6);
    CHECK(strcmp(logship_version(), LOGSHIP_VERSION) == 0);
    kv_store_destroy(&store);
}

int main(void)
{
    CASE("kv_store_init(&s) and kv_store_init(&s, 16)", both_forms_of_kv_store_init);
    CASE("wal_open(path) and wal_open(&w, path)", both_forms_of_wal_open);
    CASE("members called wal_open, kv_store_init, crc32", members_of_the_lessons_names);
    CASE("crc32 and logship_crc32, wal_checkpoint and wal_checkpoint_write", names_that_have_two_spellings);
    return own_end();
}
#endif
