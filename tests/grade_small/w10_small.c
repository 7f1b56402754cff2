/* Some checks that take no time, for the tests of the command itself; grade/checks/ has those of the lessons. */
#define _GNU_SOURCE
#include "check.h"
#include "w10/crc32.h"
#include "w10/wal_record.h"
#include "w10/wal_writer.h"

static void known_crc(void)
{
    crc32_init();
    EXPECT_INT(0xCBF43926, crc32((const uint8_t *)"123456789", 9), "crc32 of 123456789");
}

static void record_has_a_crc(void)
{
    char key[] = "foo", value[] = "bar";
    struct wal_record record = { .op = WAL_OP_SET, .key = key, .key_len = 3, .value = value, .value_len = 3 };
    uint8_t buffer[64];
    int length = wal_record_encode(&record, buffer, sizeof buffer);
    uint32_t stored;

    EXPECT(length > 8, "wal_record_encode", "more than 8 bytes", "%d", length);
    memcpy(&stored, buffer, 4);
    EXPECT_INT(crc32(buffer + 4, (size_t)length - 4), stored, "the record's first four bytes");
}

static void writer_opens(void)
{
#ifdef GRADE_WAL_OPEN_PATH
    struct wal_writer *writer = wal_open_path("log");
    EXPECT(writer != NULL, "wal_open", "a writer", "NULL");
#else
    struct wal_writer own, *writer = &own;
    EXPECT_INT(0, wal_open(writer, "log"), "wal_open");
#endif
    EXPECT_INT(0, wal_close(writer), "wal_close");
}

static const struct check checks[] = {
    { "known_crc", "W10-R1", "w10-l01", "crc32.c", 5, "the CRC that everybody knows", "crc32 is zlib's.", known_crc },
    { "record_has_a_crc", "W10-R3", "w10-l03", "wal_record.c,crc32.c", 5, "a record begins with its CRC",
      "The CRC covers everything after its own four bytes.", record_has_a_crc },
    { "writer_opens", "W10-R2", "w10-l02", "wal_writer.c", 5, "a log opens", "wal_open makes the file.", writer_opens },
    { "small_harness", "W10-R7", "w10-l06", "crc32.c", 5, "what valgrind looks at", "6/6 tests passed.", known_crc },
};

CHECK_MAIN(checks)
