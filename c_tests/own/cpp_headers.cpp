// Every header in a C++ program, and a call through each: C linkage, no name that C++ reserves.
#include "harness.h"
#include "w09/kv_store.h"
#include "w10/crc32.h"
#include "w10/kv_store.h"
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

static void store_and_log()
{
    char key[] = "foo", value[] = "bar";
    kv_store store;
    wal_writer writer;
    wal_record record = wal_record(), back;
    uint8_t bytes[64];
    uint64_t offset = 0;
    record.op = WAL_OP_SET;
    record.key = key;
    record.key_len = 3;
    record.value = value;
    record.value_len = 3;
    CHECK_EQ(crc32(reinterpret_cast<const uint8_t *>("123456789"), 9), 0xCBF43926u);
    CHECK_EQ(wal_record_encode(&record, bytes, sizeof bytes), 27);
    CHECK_EQ(wal_record_decode(bytes, 27, &back), 0);
    wal_record_free(&back);
    bytes[20] = static_cast<uint8_t>(bytes[20] ^ 1);
    CHECK_EQ(wal_record_decode(bytes, 27, &back), CRC_MISMATCH);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_open(&writer, "cpp.wal"), 0);
    CHECK_EQ(wal_append(&writer, &record), 0);
    CHECK_EQ(wal_close(&writer), 0);
    wal_writer *opened = wal_open("cpp.wal");
    CHECK(opened != nullptr && wal_close(opened) == 0);
    CHECK_EQ(wal_recover("cpp.wal", &store), 1);
    CHECK(strcmp(kv_store_get(&store, "foo"), "bar") == 0);
    CHECK_EQ(wal_checkpoint_write(&store, "cpp.ckpt", 27), 0);
    CHECK_EQ(wal_checkpoint_load("cpp.ckpt", &store, &offset), 0);
    CHECK_EQ(wal_recover_with_checkpoint("cpp.wal", "cpp.ckpt", &store), 0);
    kv_store_destroy(&store);
    kv_store second;
    CHECK_EQ(kv_store_init(&second, 16), 0);
    kv_store_destroy(&second);
}
static void replication()
{
    replication_config config;
    repl_ack ack = repl_ack();
    uint64_t lsn = 0;
    uint8_t byte = 0;
    CHECK_EQ(repl_config_init(&config), 0);
    CHECK_EQ(config.follower_count, 2);
    CHECK_EQ(repl_ship_record(&config, &byte, 1), 0);
    CHECK_EQ(repl_heartbeat(&config, 0), 0);
    CHECK_EQ(repl_wait_quorum(&config, 1, 0), -1);
    CHECK_EQ(repl_resolve_conflict(1, 2, "a", "b"), APPLY);
    uint64_t earlier = repl_next_timestamp(), later = repl_next_timestamp();
    CHECK(earlier < later);
    CHECK_EQ(repl_catch_up(&config, 0, 0), -1);
    CHECK_EQ(repl_recv_ack(-1, &ack), -1);
    CHECK_EQ(repl_read_rejoin(-1, &lsn), -1);
    CHECK_EQ(repl_set_quorum_policy(&config, REPL_QUORUM_DEGRADE), 0);
    CHECK(strcmp(logship_version(), LOGSHIP_VERSION) == 0);
    logship_set_log(nullptr, nullptr);
}

int main()
{
    CASE("C++: store, codec, log, checkpoint", store_and_log);
    CASE("C++: replication and additions", replication);
    return own_end();
}
