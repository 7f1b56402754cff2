/*
 * W10 L01: one record is encoded, decoded, and refused once a bit of it has changed.
 */
#define _GNU_SOURCE
#include "wal_test_util.h"
#include "w10/crc32.h"

static uint32_t read_le32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* The bytes that other programs will read: lengths little-endian, the CRC over everything but itself. */
static void check_layout(const uint8_t *buffer, size_t len)
{
    CHECK_EQ(read_le32(buffer), crc32(buffer + 4, len - 4));
    CHECK_EQ(read_le32(buffer + 4), len - 8);
    CHECK_EQ(buffer[8], WAL_OP_SET);
    CHECK(buffer[9] == 3 && buffer[10] == 0 && memcmp(buffer + 11, "foo", 3) == 0);
    CHECK(buffer[14] == 3 && buffer[15] == 0 && memcmp(buffer + 16, "bar", 3) == 0);
    for (int i = 0; i < 8; i++)
        CHECK_EQ(buffer[19 + i], 0x11 * (8 - i));
}

static void test_encode(const struct wal_record *record, uint8_t *buffer, size_t *len)
{
    *len = encode_record(record, buffer);
    check_layout(buffer, *len);
    printf("encode: %zu bytes written\n", *len);
}

/* A buffer that is one byte too small is refused, and no byte behind its end is touched. */
static void test_small_buffer(const struct wal_record *record, size_t len)
{
    uint8_t buffer[RECORD_ROOM];

    for (size_t room = 0; room < len; room++) {
        memset(buffer, 0xA5, sizeof buffer);
        CHECK_EQ(wal_record_encode(record, buffer, room), -1);
        for (size_t i = room; i < sizeof buffer; i++)
            CHECK_EQ(buffer[i], 0xA5);
    }
    CHECK_EQ(wal_record_encode(record, buffer, len), len);
}

static void test_decode(const uint8_t *buffer, size_t len, uint64_t timestamp)
{
    struct wal_record decoded;

    CHECK_EQ(wal_record_decode(buffer, len, &decoded), 0);
    CHECK_EQ(decoded.op, WAL_OP_SET);
    CHECK_EQ(decoded.key_len, 3);
    CHECK_EQ(decoded.value_len, 3);
    CHECK_STR(decoded.key, "foo");
    CHECK_STR(decoded.value, "bar");
    CHECK_EQ(decoded.crc, read_le32(buffer));
    CHECK_EQ(decoded.timestamp, timestamp);
    printf("decode: op=SET key=%s value=%s crc=OK\n", decoded.key, decoded.value);
    wal_record_free(&decoded);
}

static void test_del_round_trip(void)
{
    struct wal_record record = del_record("name", 7), decoded;
    uint8_t buffer[RECORD_ROOM];
    size_t len = encode_record(&record, buffer);

    CHECK_EQ(wal_record_decode(buffer, len, &decoded), 0);
    CHECK_EQ(decoded.op, WAL_OP_DEL);
    CHECK_STR(decoded.key, "name");
    CHECK(decoded.value == NULL);
    CHECK_EQ(decoded.value_len, 0);
    CHECK_EQ(decoded.timestamp, 7);
    wal_record_free(&decoded);
}

/* Every bit, one at a time: in the length, the key, the value, the timestamp and in the CRC itself. */
static void test_corruption(uint8_t *buffer, size_t len)
{
    struct wal_record decoded;

    for (size_t bit = 0; bit < len * 8; bit++) {
        buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_EQ(wal_record_decode(buffer, len, &decoded), CRC_MISMATCH);
        buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    printf("corrupt: decode returned CRC_MISMATCH — correct\n");
}

/* A record that is cut short is refused too, and nothing is read behind the cut (valgrind and ASan see the malloc). */
static void test_cut_record(const uint8_t *buffer, size_t len)
{
    for (size_t cut = 1; cut < len; cut++) {
        struct wal_record decoded;
        uint8_t *copy = malloc(cut);

        CHECK(copy != NULL);
        memcpy(copy, buffer, cut);
        CHECK(wal_record_decode(copy, cut, &decoded) < 0);
        free(copy);
    }
}

static void test_record(void)
{
    struct wal_record record = set_record("foo", "bar", 0x1122334455667788);
    uint8_t buffer[RECORD_ROOM];
    size_t len;

    crc32_init();
    CHECK_EQ(crc32((const uint8_t *)"123456789", 9), 0xCBF43926);
    test_encode(&record, buffer, &len);
    test_small_buffer(&record, len);
    test_decode(buffer, len, record.timestamp);
    test_del_round_trip();
    test_corruption(buffer, len);
    test_cut_record(buffer, len);
}

int main(void)
{
    return run_test(test_record);
}
