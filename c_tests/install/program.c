/* What a program that was written against the installed headers does: a record through the log into a store. It is
 * compiled as C and as C++, linked shared and static. */
#define _POSIX_C_SOURCE 200809L
#include <logship.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REQUIRE(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            return 1; \
        } \
    } while (0)

int main(void)
{
    char key[] = "city", value[] = "oslo";
    const char *got;
    struct wal_record record;
    struct wal_writer wal;
    struct kv_store store;

    memset(&record, 0, sizeof record);
    record.op = WAL_OP_SET;
    record.key = key;
    record.key_len = 4;
    record.value = value;
    record.value_len = 4;
    record.timestamp = repl_next_timestamp();

    unlink("program.wal");
    REQUIRE(strcmp(logship_version(), LOGSHIP_VERSION) == 0);
    REQUIRE(wal_open(&wal, "program.wal") == 0);
    REQUIRE(wal_append(&wal, &record) == 0);
    REQUIRE(logship_last_lsn(&wal) == 1);
    REQUIRE(wal_close(&wal) == 0);
    REQUIRE(kv_store_init(&store) == 0);
    REQUIRE(wal_recover("program.wal", &store) == 1);
    got = kv_store_get(&store, "city");
    REQUIRE(got != NULL && strcmp(got, "oslo") == 0);
    REQUIRE(kv_hash("city", store.num_buckets) < (unsigned)store.num_buckets);
    kv_store_destroy(&store);
    REQUIRE(crc32((const uint8_t *)"123456789", 9) == 0xCBF43926);
    printf("%s\n", logship_version());
    return 0;
}
