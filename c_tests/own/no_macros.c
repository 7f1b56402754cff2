/* Structs of function pointers, as a program has them that compares implementations: with LOGSHIP_NO_MACROS no name of
 * the lessons is a macro, so each may be a member's. Without it all but three forms work: see header_forms.c. */
#define LOGSHIP_NO_MACROS
#include "harness.h"
#include "logship.h"

struct by_path { struct wal_writer *(*wal_open)(const char *path); };
struct by_writer {
    int (*wal_open)(struct wal_writer *writer, const char *path);
    int (*kv_store_init)(struct kv_store *store, int num_buckets);
    uint32_t (*crc32)(const uint8_t *data, size_t len);
};

static void members_have_the_lessons_names(void)
{
    struct by_path path, *paths = &path;
    struct by_writer writer = {.wal_open = wal_open, .crc32 = crc32}, *writers = &writer;
    struct wal_writer two, *one;
    struct kv_store store;

    path.wal_open = wal_open_path;
    writer.kv_store_init = kv_store_init_sized;
    one = paths->wal_open("one.wal");
    REQUIRE(one != NULL);
    CHECK_EQ(wal_close(one), 0);
    CHECK_EQ(writers->wal_open(&two, "two.wal"), 0);
    CHECK_EQ(wal_close(&two), 0);
    CHECK_EQ(writers->kv_store_init(&store, 16), 0);
    CHECK_EQ(store.num_buckets, 16);
    kv_store_destroy(&store);
    CHECK_EQ(kv_store_init(&store), 0);
    kv_store_destroy(&store);
    CHECK_EQ(writers->crc32((const uint8_t *)"123456789", 9), 0xCBF43926u);
    CHECK_EQ(crc32((const uint8_t *)"123456789", 9), 0xCBF43926u);
    CHECK(crc32 == logship_crc32);
}

int main(void)
{
    CASE("members called wal_open, kv_store_init and crc32", members_have_the_lessons_names);
    return own_end();
}
