/* The record codec of W10 and its CRC. Layouts are judged against the lesson's bytes and a CRC of this file's own, so
 * that a mistake in crc32.c and one in wal_record.c are told apart. Records of W10 have no time stamp, those of W11 one
 * of eight bytes, and no lesson says where: its place is learned from two records that differ in nothing else. */
#define _GNU_SOURCE
#include "course.h"

#include <sys/mman.h>

static uint32_t right_crc(const uint8_t *bytes, size_t len)
{
    uint32_t crc = 0xFFFFFFFFu;

    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 1) != 0 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
    }
    return ~crc;
}

/* ---- memory with an end -------------------------------------------------------------------------------------- */

static const char *guarded_call;

/* Not what a signal handler may do in general; here the process ends anyway, and the verdict is worth it. */
static void on_fault(int signo)
{
    check_fail(guarded_call, "no byte outside the buffer is touched", "signal %d (%s)", signo, strsignal(signo));
}

/* `size` bytes whose end is the end of the memory: one byte further is SIGSEGV. */
static uint8_t *guarded(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (size + page - 1) / page * page;
    uint8_t *start = (uint8_t *)mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    REQUIRE(start != MAP_FAILED, "map memory");
    REQUIRE(mprotect(start + room, page, PROT_NONE) == 0, "protect memory");
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    return start + room - size;
}

/* ---- bytes --------------------------------------------------------------------------------------------------- */

enum { ROOM = 1024, ROOM_FOR_ALL = 131200, SURE = 1000, WITHOUT_TIMESTAMP = 19 };

static uint64_t get_le(const uint8_t *bytes, int count)
{
    uint64_t number = 0;

    for (int i = count - 1; i >= 0; i--)
        number = number << 8 | bytes[i];
    return number;
}

static void put_le(uint8_t *bytes, uint64_t number, int count)
{
    for (int i = 0; i < count; i++)
        bytes[i] = (uint8_t)(number >> (8 * i));
}

static void to_hex(char *text, size_t size, const uint8_t *bytes, size_t len)
{
    size_t at = 0;

    text[0] = '\0';
    for (size_t i = 0; i < len && at + 4 < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%02x", i == 0 ? "" : " ", bytes[i]);
}

static void expect_bytes(const uint8_t *expected, const uint8_t *seen, size_t len, const char *what)
{
    char expected_text[200], seen_text[200];

    to_hex(expected_text, sizeof expected_text, expected, len);
    to_hex(seen_text, sizeof seen_text, seen, len);
    EXPECT(memcmp(expected, seen, len) == 0, what, expected_text, "%s", seen_text);
}

/* ---- crc32 --------------------------------------------------------------------------------------------------- */

static void expect_crc(uint32_t expected, const uint8_t *bytes, size_t len, const char *what)
{
    char text[32];
    uint32_t seen = (uint32_t)crc32(bytes, len);

    snprintf(text, sizeof text, "0x%08" PRIX32, expected);
    EXPECT(seen == expected, what, text, "0x%08" PRIX32, seen);
}

static void crc_known_values(void)
{
    uint8_t all[256], zeroes[32] = { 0 };

    for (int i = 0; i < 256; i++)
        all[i] = (uint8_t)i;
    expect_crc(0xCBF43926u, (const uint8_t *)"123456789", 9, "crc32(\"123456789\")");
    expect_crc(0xE8B7BE43u, (const uint8_t *)"a", 1, "crc32(\"a\")");
    expect_crc(0, (const uint8_t *)"", 0, "crc32 of no bytes");
    expect_crc(0x190A55ADu, zeroes, sizeof zeroes, "crc32 of 32 zero bytes");
    expect_crc(0x29058C73u, all, sizeof all, "crc32 of the bytes 0 to 255");
#ifdef CHECK_PREPARE
    CHECK_PREPARE();
    expect_crc(0xCBF43926u, (const uint8_t *)"123456789", 9, "crc32(\"123456789\") after a second crc32_init");
#endif
}

/* ---- the layout ---------------------------------------------------------------------------------------------- */

/* A record without its time stamp, and where that stood: -1 if there is none. */
struct plain_record {
    uint8_t bytes[ROOM];
    size_t len;
    int stamp_at;
};

static struct plain_record without_stamp(struct wal_record record)
{
    struct plain_record plain = { .stamp_at = -1 };
    uint8_t other[ROOM];
    size_t len, other_len, at = 4, count = 0;

    CHECK_STAMP(record, 0x0102030405060708u);
    len = check_encode(&record, plain.bytes, sizeof plain.bytes);
    CHECK_STAMP(record, 0xF1F2F3F4F5F6F7F8u);
    other_len = check_encode(&record, other, sizeof other);
    EXPECT_INT(len, other_len, "the bytes of a record with another timestamp");
    while (at < len && plain.bytes[at] == other[at])
        at++;
    while (at + count < len && plain.bytes[at + count] != other[at + count])
        count++;
    plain.len = len;
    if (count == 8) {
        plain.stamp_at = (int)at;
        memmove(plain.bytes + at, plain.bytes + at + 8, len - at - 8);
        plain.len = len - 8;
    }
    return plain;
}

/* The number in front of the fields. Whether a record's length counts its own bytes and the CRC's is a tree's own
 * choice, but it is one choice. */
static int length_beyond(const struct plain_record *plain)
{
    return (int)get_le(plain->bytes + 4, 4) - (int)plain->len;
}

static void layout_set(void)
{
    uint8_t expected[] = { 0, 3, 0, 'f', 'o', 'o', 3, 0, 'b', 'a', 'r' };
    struct plain_record plain = without_stamp(check_set_record("foo", "bar", 0));
    struct plain_record longer = without_stamp(check_set_record("foo", "a longer value", 0));

    expected[0] = (uint8_t)WAL_OP_SET;
    if (plain.stamp_at >= 0)
        check_note("this tree's timestamp stands at byte %d of SET foo=bar", plain.stamp_at);
    EXPECT_INT(19, plain.len, "the bytes of SET foo=bar without its timestamp: 4 + 4 + 1 + 2 + 3 + 2 + 3");
    expect_bytes(expected, plain.bytes + 8, sizeof expected, "SET foo=bar from its op on, without its timestamp");
    EXPECT_INT(length_beyond(&plain), length_beyond(&longer),
               "the length field (little-endian) less the bytes of the record, in a short one and in a longer one");
    EXPECT(length_beyond(&plain) >= -8 && length_beyond(&plain) <= 8, "the length field of SET foo=bar, little-endian",
           "11: the bytes after it", "%u", (unsigned)get_le(plain.bytes + 4, 4));
}

static void layout_del(void)
{
    uint8_t expected[] = { 0, 4, 0, 'n', 'a', 'm', 'e', 0, 0 };
    struct plain_record plain = without_stamp(check_del_record("name", 0));

    expected[0] = (uint8_t)WAL_OP_DEL;
    EXPECT_INT(17, plain.len, "the bytes of DEL name without its timestamp: 4 + 4 + 1 + 2 + 4 + 2");
    expect_bytes(expected, plain.bytes + 8, sizeof expected, "DEL name from its op to its value_len");
}

/* Whatever value the struct still holds. */
static void del_without_value(void)
{
    struct wal_record record = check_del_record("name", 5), decoded;
    uint8_t plain[ROOM], with_value[ROOM];
    size_t len = check_encode(&record, plain, sizeof plain), other;

    record.value = (void *)(uintptr_t)"alice";
    record.value_len = 5;
    other = check_encode(&record, with_value, sizeof with_value);
    EXPECT(len == other && memcmp(plain, with_value, len) == 0, "DEL name from a struct that still has a value",
           "no value: the same bytes as without", "%zu bytes, without %zu", other, len);
    memset(&decoded, 0, sizeof decoded);
    EXPECT(check_is_good((int)wal_record_decode(plain, len, &decoded), len), "decode of DEL name", "it is good",
           "it is refused");
    EXPECT_INT(0, decoded.value_len, "value_len of a decoded DEL");
    check_free_record(&decoded, plain, len);
}

static void crc_range(void)
{
    struct wal_record record = check_set_record("foo", "bar", 5);
    uint8_t buffer[ROOM];
    char expected[32];
    size_t len;

    /* What the buffer held before must not count. */
    memset(buffer, 0xA5, sizeof buffer);
    len = check_encode(&record, buffer, sizeof buffer);
    REQUIRE(len > 8, "a record with a header");
    snprintf(expected, sizeof expected, "0x%08" PRIX32, right_crc(buffer + 4, len - 4));
    EXPECT(get_le(buffer, 4) == right_crc(buffer + 4, len - 4), "the CRC of SET foo=bar, over all behind its 4 bytes",
           expected, "0x%08" PRIX32, (uint32_t)get_le(buffer, 4));
}

/* ---- there and back ------------------------------------------------------------------------------------------ */

/* A decoded key is a string of its own, or stands in the buffer, where no NUL can follow it. */
static int stands_in(const void *text, const uint8_t *buffer, size_t len)
{
    return (const uint8_t *)text >= buffer && (const uint8_t *)text < buffer + len;
}

static void expect_same_record(const struct wal_record *expected, const struct wal_record *seen, const uint8_t *buffer,
                               size_t len)
{
    EXPECT_INT(expected->op, seen->op, "op after encode and decode");
    EXPECT_INT(expected->key_len, seen->key_len, "key_len after encode and decode");
    EXPECT(seen->key != NULL, "key after encode and decode", "a string", "NULL");
    EXPECT(memcmp(expected->key, seen->key, expected->key_len) == 0, "key after encode and decode", "the same bytes",
           "others");
    if (!stands_in(seen->key, buffer, len))
        EXPECT_INT(0, seen->key[expected->key_len], "the byte behind the decoded key");
    EXPECT_INT(expected->value_len, seen->value_len, "value_len after encode and decode");
    if (expected->value_len > 0) {
        EXPECT(seen->value != NULL, "value after encode and decode", "a string", "NULL");
        EXPECT(memcmp(expected->value, seen->value, expected->value_len) == 0, "value after encode and decode",
               "the same bytes", "others");
        if (!stands_in(seen->value, buffer, len))
            EXPECT_INT(0, seen->value[expected->value_len], "the byte behind the decoded value");
    }
#ifdef GRADE_RECORD_TIMESTAMP
    if (len >= 8u + 5 + expected->key_len + expected->value_len + 8)
        EXPECT(expected->timestamp == seen->timestamp, "timestamp after encode and decode", "the same",
               "%" PRIu64 " for %" PRIu64, (uint64_t)seen->timestamp, (uint64_t)expected->timestamp);
#endif
}

static void there_and_back(const struct wal_record *record)
{
    static uint8_t buffer[ROOM_FOR_ALL];
    struct wal_record decoded;
    size_t len;
    int n = (int)wal_record_encode(record, buffer, sizeof buffer);

    /* A tree may have a largest record of its own. */
    if (n < 0 && (record->key_len > SURE || record->value_len > SURE)) {
        check_note("this tree encodes no record with a key of %d and a value of %d bytes", (int)record->key_len,
                   (int)record->value_len);
        return;
    }
    EXPECT(n > 0 && (size_t)n <= sizeof buffer, "what wal_record_encode returns for a record that fits",
           "the number of bytes", "%d", n);
    len = (size_t)n;
    memset(&decoded, 0, sizeof decoded);
    EXPECT(check_is_good((int)wal_record_decode(buffer, len, &decoded), len), "decode of an encoded record",
           "it is good", "it is refused");
    expect_same_record(record, &decoded, buffer, len);
    check_free_record(&decoded, buffer, len);
}

static char *letters(size_t len)
{
    char *text = (char *)malloc(len + 1);

    REQUIRE(text != NULL, "memory for a string");
    for (size_t i = 0; i < len; i++)
        text[i] = (char)(1 + i % 255);
    text[len] = '\0';
    return text;
}

static void round_trip(void)
{
    static const size_t lengths[] = { 1, 2, 127, 128, 255, 256, 300, 5000, 65535 };
    struct wal_record record = check_set_record("foo", "bar", 1);

    there_and_back(&record);
    record = check_set_record("empty", "", UINT64_MAX);
    there_and_back(&record);
    record = check_del_record("name", 0x8000000000000001u);
    there_and_back(&record);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char *text = letters(lengths[i]);

        record = check_set_record(text, "v", 1u << i);
        there_and_back(&record);
        record = check_set_record("k", text, 1u << i);
        there_and_back(&record);
        record = check_set_record(text, text, 1u << i);
        there_and_back(&record);
        record = check_del_record(text, 1u << i);
        there_and_back(&record);
        free(text);
    }
}

/* ---- damage -------------------------------------------------------------------------------------------------- */

static void expect_refused(const uint8_t *buffer, size_t len, const char *what)
{
    struct wal_record decoded;
    int rc;

    memset(&decoded, 0, sizeof decoded);
    rc = (int)wal_record_decode(buffer, len, &decoded);
    EXPECT(!check_is_good(rc, len), what, "CRC_MISMATCH", "%d: taken for a whole record", rc);
}

/* The number that CRC_MISMATCH stands for is the student's own: it is only not 0. */
static void bit_flips(void)
{
    struct wal_record records[] = { check_set_record("foo", "bar", 0x0102030405060708u), check_del_record("name", 77) };
    char what[120];

    for (size_t i = 0; i < 2; i++) {
        uint8_t *buffer, plain[ROOM];
        size_t len = check_encode(&records[i], plain, sizeof plain);

        buffer = guarded(len);
        guarded_call = "wal_record_decode of a record with one bit flipped";
        for (size_t bit = 0; bit < len * 8; bit++) {
            memcpy(buffer, plain, len);
            buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
            snprintf(what, sizeof what, "decode of %s with bit %zu of byte %zu flipped",
                     i == 0 ? "SET foo=bar" : "DEL name", bit % 8, bit / 8);
            expect_refused(buffer, len, what);
        }
    }
}

static void crc_mismatch_value(void)
{
    struct wal_record record = check_set_record("foo", "bar", 0), decoded;
    uint8_t buffer[ROOM];
    size_t len = check_encode(&record, buffer, sizeof buffer);
    int rc;

    buffer[(uint8_t *)memmem(buffer, len, "bar", 3) - buffer] ^= 1;
    memset(&decoded, 0, sizeof decoded);
    rc = (int)wal_record_decode(buffer, len, &decoded);
#ifdef GRADE_NAMES_CRC
    EXPECT(rc == (int)CRC_MISMATCH, "what wal_record_decode returns for a record with a flipped bit in its value",
           "CRC_MISMATCH", "%d, CRC_MISMATCH being %d", rc, (int)CRC_MISMATCH);
#else
    EXPECT(!check_is_good(rc, len), "what wal_record_decode returns for a record with a flipped bit in its value",
           "CRC_MISMATCH", "%d, as for a good one", rc);
#endif
}

/* Every beginning of a record, at the end of the memory. */
static void decode_short(void)
{
    struct wal_record record = check_set_record("foo", "bar", 1);
    uint8_t plain[ROOM];
    size_t len = check_encode(&record, plain, sizeof plain);
    char what[120];

    guarded_call = "wal_record_decode of the beginning of a record";
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *buffer = guarded(cut + 1) + 1;

        memcpy(buffer, plain, cut);
        snprintf(what, sizeof what, "decode of the first %zu of %zu bytes", cut, len);
        expect_refused(buffer, cut, what);
    }
}

/* Lengths that reach behind the end, under a CRC that is right: a careful decode looks at both. */
static void decode_false_lengths(void)
{
    static const uint16_t key_lengths[] = { 4, 5, 12, 20, 255, 65535 }, value_lengths[] = { 12, 13, 100, 65535 };
    struct wal_record record = check_set_record("foo", "bar", 1);
    uint8_t plain[ROOM], *buffer;
    size_t len = check_encode(&record, plain, sizeof plain);
    char what[120];

    guarded_call = "wal_record_decode of a record whose lengths reach behind its end";
    uint8_t *key = (uint8_t *)memmem(plain, len, "foo", 3), *value = (uint8_t *)memmem(plain, len, "bar", 3);

    EXPECT(len >= WITHOUT_TIMESTAMP && key != NULL && value != NULL, "SET foo=bar, encoded", "it holds key and value",
           "%zu bytes without them", len);
    buffer = guarded(len);
    for (size_t i = 0; i < sizeof key_lengths / sizeof key_lengths[0]; i++) {
        /* 4 and 5 move value_len to bytes that make a huge number. */
        memcpy(buffer, plain, len);
        put_le(buffer + (key - plain) - 2, key_lengths[i], 2);
        put_le(buffer, right_crc(buffer + 4, len - 4), 4);
        snprintf(what, sizeof what, "decode of SET foo=bar with key_len %d and a right CRC", key_lengths[i]);
        expect_refused(buffer, len, what);
    }
    for (size_t i = 0; i < sizeof value_lengths / sizeof value_lengths[0]; i++) {
        memcpy(buffer, plain, len);
        put_le(buffer + (value - plain) - 2, value_lengths[i], 2);
        put_le(buffer, right_crc(buffer + 4, len - 4), 4);
        snprintf(what, sizeof what, "decode of SET foo=bar with value_len %d and a right CRC", value_lengths[i]);
        expect_refused(buffer, len, what);
    }
}

/* Every buffer that is too small ends where the memory ends. */
static void encode_small_buffer(void)
{
    struct wal_record record = check_set_record("foo", "bar", 1);
    uint8_t plain[ROOM];
    size_t len = check_encode(&record, plain, sizeof plain);
    char what[120];

    guarded_call = "wal_record_encode into a buffer that is too small";
    for (size_t room = 0; room < len; room++) {
        uint8_t *buffer = guarded(room + 1) + 1;
        int rc = (int)wal_record_encode(&record, buffer, room);

        snprintf(what, sizeof what, "encode of SET foo=bar, %zu bytes, into a buffer of %zu", len, room);
        EXPECT(rc < 0, what, "-1", "%d", rc);
    }
    guarded_call = "wal_record_encode into a buffer that is just large enough";
    EXPECT_INT(len, wal_record_encode(&record, guarded(len), len), "encode into a buffer that is just large enough");
}

static const struct check checks[] = {
    { "crc_known_values", "W10-R1", "w10-l01", "crc32.c", 5, "crc32 of known bytes",
      "crc32 is the CRC-32 of zlib: polynomial 0xEDB88320, inverted at both ends; crc32_init fills its table.",
      crc_known_values },
    { "codec_layout_set", "W10-R1", "w10-l01", "wal_record.c", 5, "bytes of SET foo=bar",
      "crc32, length, op, key_len, key, value_len, value, little-endian; the timestamp stands anywhere.",
      layout_set },
    { "codec_layout_del", "W10-R1", "w10-l01", "wal_record.c", 5, "bytes of DEL name",
      "A DEL record has a value_len of 0 and no value.", layout_del },
    { "codec_del_without_value", "W10-R1", "w10-l01", "wal_record.c", 5, "a DEL has no value",
      "A DEL record has a value_len of 0 and no value.", del_without_value },
    { "codec_crc_range", "W10-R1", "w10-l01", "wal_record.c", 5, "what the CRC covers",
      "The CRC covers everything after its own four bytes, and not itself.", crc_range },
    { "codec_round_trip", "W10-R1", "w10-l01", "wal_record.c,crc32.c", 10, "encode and decode",
      "decode gives back op, key and value of what encode was given.", round_trip },
    { "codec_bit_flips", "W10-R1", "w10-l01", "wal_record.c,crc32.c", 10, "every single flipped bit",
      "A record with any bit flipped is CRC_MISMATCH.", bit_flips },
    { "codec_crc_mismatch", "W10-R1", "w10-l01", "wal_record.c", 5, "CRC_MISMATCH is a failure",
      "corrupt: decode returned CRC_MISMATCH.", crc_mismatch_value },
    { "codec_encode_small_buffer", "W10-R1", "w10-l01", "wal_record.c", 5, "encode stays in its buffer",
      "encode returns -1 and writes nothing behind the end when the buffer is too small.", encode_small_buffer },
    { "codec_decode_short", "W10-R1", "w10-l01", "wal_record.c", 5, "decode of cut records",
      "decode reads nothing behind the end of what it was given.", decode_short },
    { "codec_false_lengths", "W10-R1", "w10-l01", "wal_record.c", 5, "decode of false lengths",
      "decode believes no key_len or value_len that reaches behind the end of the record.", decode_false_lengths },
};

CHECK_MAIN(checks)
