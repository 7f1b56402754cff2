/* A log of five records, cut at every byte and changed at every byte, a fresh copy each time: recovery keeps exactly the
 * whole records before the damage, wal_open cuts a torn tail (keeping its bytes) and refuses damage in the middle. */
#include "bytes.h"
#include "logship.h"

enum { RECORDS = 5 };
static uint8_t log_bytes[1024];
static size_t ends[RECORDS + 1]; /* ends[k]: where the k-th record ends, ends[0] = 0 */
static const char *const names[] = {"a", "b", "c", "d"};
static const char *after[RECORDS + 1][4] = { /* what the four keys hold after k records */
    {NULL, NULL, NULL, NULL}, {"1", NULL, NULL, NULL}, {"1", "two", NULL, NULL},
    {"1", NULL, NULL, NULL}, {"1", NULL, "3", NULL}, {"1", NULL, "3", "44"},
};
static void build(void)
{
    size_t at = 0;
    at += own_set(log_bytes + at, "a", "1", 0), ends[1] = at;
    at += own_set(log_bytes + at, "b", "two", 0), ends[2] = at;
    at += own_del(log_bytes + at, "b", 0), ends[3] = at;
    at += own_set(log_bytes + at, "c", "3", 77), ends[4] = at;
    at += own_set(log_bytes + at, "d", "44", 78), ends[5] = at;
}
static int whole_before(size_t byte) /* records that end at or before this byte */
{
    int k = 0;
    while (k < RECORDS && ends[k + 1] <= byte)
        k++;
    return k;
}
static int store_is(struct kv_store *store, int k)
{
    int live = 0;
    for (int i = 0; i < 4; i++) {
        const char *got = kv_store_get(store, names[i]);
        if ((got == NULL) != (after[k][i] == NULL) || (got && strcmp(got, after[k][i]) != 0))
            return 0;
        live += got != NULL;
    }
    return kv_store_count(store) == live;
}
/* wal_recover on this file gives k records and the store they make, and leaves the file as it is. */
static int recovers(const char *path, int k)
{
    struct kv_store store;
    if (kv_store_init(&store) != 0)
        return 0;
    int got = wal_recover(path, &store), good = got == k && store_is(&store, k);
    if (!good)
        NOTE("%s: recovered %d, want %d", path, got, k);
    kv_store_destroy(&store);
    return good;
}
static void clean(void)
{
    char name[256];
    while (own_count_files("x.wal", name, sizeof name) > 0 && unlink(name) == 0)
        ;
}
static int warnings;
static char last_warning[512];
static void listen_to_log(int level, const char *message, void *count)
{
    if (level > LOGSHIP_LOG_WARN || !message)
        return;
    ++*(int *)count;
    snprintf(last_warning, sizeof last_warning, "%s", message);
}
/* The last warning names this offset: the number, not as part of a longer one. */
static int warned_of(size_t offset)
{
    char want[32];
    int len = snprintf(want, sizeof want, "%zu", offset);
    for (const char *at = last_warning; (at = strstr(at, want)) != NULL; at++)
        if ((at == last_warning || at[-1] < '0' || at[-1] > '9') && (at[len] < '0' || at[len] > '9'))
            return 1;
    NOTE("no offset %zu in \"%s\"", offset, last_warning);
    return 0;
}

static void undamaged(void)
{
    struct wal_writer writer;
    CHECK(own_write_file("x.wal", log_bytes, ends[5]) == 0);
    CHECK(recovers("x.wal", 5));
    CHECK_EQ(warnings, 0);
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    CHECK_EQ(writer.offset, ends[5]);
    CHECK_EQ(logship_last_lsn(&writer), 5);
    CHECK(wal_close(&writer) == 0);
    CHECK_EQ(warnings, 0);
    CHECK(own_file_is("x.wal", log_bytes, ends[5]));
    CHECK_EQ(own_count_files("x.wal", NULL, 0), 1);
}
static void the_library_writes_these_bytes(void)
{
    struct wal_writer writer;
    struct wal_record records[] = {
        {.op = WAL_OP_SET, .key = "a", .key_len = 1, .value = "1", .value_len = 1},
        {.op = WAL_OP_SET, .key = "b", .key_len = 1, .value = "two", .value_len = 3},
        {.op = WAL_OP_DEL, .key = "b", .key_len = 1},
        {.op = WAL_OP_SET, .key = "c", .key_len = 1, .value = "3", .value_len = 1, .timestamp = 77},
        {.op = WAL_OP_SET, .key = "d", .key_len = 1, .value = "44", .value_len = 2, .timestamp = 78}};
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    for (int i = 0; i < RECORDS; i++) {
        CHECK(wal_append(&writer, &records[i]) == 0);
        CHECK_EQ(writer.offset, ends[i + 1]);
        CHECK_EQ(own_file_size("x.wal"), ends[i + 1]);
    }
    CHECK(wal_close(&writer) == 0);
    CHECK(own_file_is("x.wal", log_bytes, ends[5]));
}
static void missing_and_empty(void)
{
    struct kv_store store;
    struct wal_writer writer;
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_FAILS(wal_recover("x.wal", &store), ENOENT);
    CHECK_EQ(own_count_files("", NULL, 0), 0); /* it was not created by looking */
    CHECK(own_write_file("x.wal", "", 0) == 0);
    CHECK_EQ(wal_recover("x.wal", &store), 0);
    CHECK_EQ(kv_store_count(&store), 0);
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    CHECK_EQ(writer.offset, 0);
    CHECK_EQ(logship_last_lsn(&writer), 0);
    CHECK(wal_close(&writer) == 0);
    CHECK_FAILS(wal_open(&writer, "missing/x.wal"), ENOENT);
    kv_store_destroy(&store);
}
static void cut_at_every_byte(void)
{
    for (size_t cut = 0; cut <= ends[5]; cut++) {
        CHECK(own_write_file("x.wal", log_bytes, cut) == 0);
        warnings = 0;
        CHECK(recovers("x.wal", whole_before(cut)));
        CHECK_EQ(warnings > 0, cut != ends[whole_before(cut)]); /* it warns of a cut record, and of nothing else */
        CHECK(own_file_is("x.wal", log_bytes, cut));
    }
}
static void changed_at_every_byte(void)
{
    uint8_t copy[1024];
    const uint8_t masks[] = {0xFF, 0x01, 0x80};
    for (size_t at = 0; at < ends[5]; at++)
        for (size_t m = 0; m < sizeof masks; m++) {
            memcpy(copy, log_bytes, ends[5]);
            copy[at] ^= masks[m];
            CHECK(own_write_file("x.wal", copy, ends[5]) == 0);
            warnings = 0;
            CHECK(recovers("x.wal", whole_before(at)));
            CHECK(warnings > 0 && warned_of(ends[whole_before(at)]));
        }
}
/* One torn log: opened, its tail set aside, one record appended, all of it recovered. */
static void open_torn(const uint8_t *bytes, size_t size, size_t keep, int records)
{
    struct wal_writer writer;
    struct wal_record more = {.op = WAL_OP_SET, .key = "z", .key_len = 1, .value = "26", .value_len = 2};
    struct kv_store store;
    char torn[256];
    clean();
    CHECK(own_write_file("x.wal", bytes, size) == 0);
    warnings = 0;
    if (!CHECK_EQ(wal_open(&writer, "x.wal"), 0))
        return;
    CHECK_EQ(writer.offset, keep);
    CHECK_EQ(logship_last_lsn(&writer), records);
    CHECK(own_file_is("x.wal", bytes, keep));
    if (keep == size) {
        CHECK_EQ(own_count_files("x.wal.torn-", torn, sizeof torn), 0);
        CHECK_EQ(warnings, 0);
    } else if (CHECK_EQ(own_count_files("x.wal.torn-", torn, sizeof torn), 1)) {
        CHECK(own_file_is(torn, bytes + keep, size - keep));
        CHECK(warnings > 0);
    }
    CHECK_EQ(wal_append(&writer, &more), 0);
    CHECK(wal_close(&writer) == 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("x.wal", &store), records + 1);
    CHECK(kv_store_get(&store, "z") && strcmp(kv_store_get(&store, "z"), "26") == 0);
    kv_store_destroy(&store);
}
static void open_cut_at_every_byte(void)
{
    for (size_t cut = 0; cut <= ends[5]; cut++)
        open_torn(log_bytes, cut, ends[whole_before(cut)], whole_before(cut));
}
static void open_changed_in_the_last_record(void)
{
    uint8_t copy[1024];
    for (size_t at = ends[4]; at < ends[5]; at++) {
        memcpy(copy, log_bytes, ends[5]);
        copy[at] ^= 0x10;
        open_torn(copy, ends[5], ends[4], 4);
    }
}
static void open_with_rubbish_behind(void)
{
    uint8_t copy[1024];
    memcpy(copy, log_bytes, ends[5]);
    memset(copy + ends[5], 0, 100);
    open_torn(copy, ends[5] + 100, ends[5], 5); /* zeroed blocks, as after a power cut */
    memset(copy + ends[5], 0xFF, 100);
    open_torn(copy, ends[5] + 100, ends[5], 5);
    open_torn(copy, ends[5] + 1, ends[5], 5);
}
static void open_changed_in_the_middle(void)
{
    uint8_t copy[1024];
    for (size_t at = 0; at < ends[4]; at++) {
        struct wal_writer writer = {.fd = 55, .offset = 66};
        memcpy(copy, log_bytes, ends[5]);
        copy[at] ^= 0x10;
        clean();
        CHECK(own_write_file("x.wal", copy, ends[5]) == 0);
        int fds = own_count_fds();
        warnings = 0;
        CHECK_FAILS(wal_open(&writer, "x.wal"), EBADMSG);
        CHECK(warnings > 0 && warned_of(ends[whole_before(at)]));
        CHECK(own_file_is("x.wal", copy, ends[5]));
        CHECK_EQ(own_count_files("x.wal", NULL, 0), 1);
        CHECK_EQ(own_count_fds(), fds);
    }
    for (int k = 0; k < RECORDS - 1; k++) { /* a whole record zeroed, or gone and the next one in its place but for a byte */
        struct wal_writer writer;
        memcpy(copy, log_bytes, ends[5]);
        memset(copy + ends[k], 0, ends[k + 1] - ends[k]);
        CHECK(own_write_file("x.wal", copy, ends[5]) == 0);
        CHECK_FAILS(wal_open(&writer, "x.wal"), EBADMSG);
        CHECK(own_file_is("x.wal", copy, ends[5]));
        CHECK(recovers("x.wal", k));
        memmove(copy + ends[k] + 1, log_bytes + ends[k + 1], ends[5] - ends[k + 1]);
        size_t size = ends[5] - (ends[k + 1] - ends[k]) + 1;
        CHECK(own_write_file("x.wal", copy, size) == 0);
        CHECK_FAILS(wal_open(&writer, "x.wal"), EBADMSG);
        CHECK(own_file_is("x.wal", copy, size));
    }
}
static void torn_twice(void)
{
    struct wal_writer writer;
    uint8_t copy[1024];
    char name[256];
    int first = 0, second = 0;
    DIR *dir;
    memcpy(copy, log_bytes, ends[5]);
    CHECK(own_write_file("x.wal", copy, ends[5] - 3) == 0);
    REQUIRE(wal_open(&writer, "x.wal") == 0 && wal_close(&writer) == 0);
    CHECK_EQ(own_count_files("x.wal.torn-", name, sizeof name), 1);
    CHECK(own_write_file("x.wal", copy, ends[5] - 5) == 0);
    REQUIRE(wal_open(&writer, "x.wal") == 0 && wal_close(&writer) == 0);
    CHECK_EQ(own_count_files("x.wal.torn-", name, sizeof name), 2); /* the first is not overwritten */
    dir = opendir(".");
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        if (strncmp(entry->d_name, "x.wal.torn-", 11) != 0)
            continue;
        first += own_file_is(entry->d_name, copy + ends[4], ends[5] - 3 - ends[4]);
        second += own_file_is(entry->d_name, copy + ends[4], ends[5] - 5 - ends[4]);
    }
    if (dir)
        closedir(dir);
    CHECK(first == 1 && second == 1);
}
/* Values that hold whole records: they are values. */
static void values_that_look_like_records(void)
{
    uint8_t inner[256], outer[1024], copy[2048];
    size_t in = own_set(inner, "evil", "1", 0), at;
    struct kv_store store;
    struct wal_writer writer;
    in += own_set(inner + in, "evil", "2", 0);
    memset(inner + in, 0x99, 5);
    size_t out = own_encode(outer, 1, "k", 1, inner, in + 5, 0, 1);
    memcpy(copy, log_bytes, ends[5]);
    memcpy(copy + ends[5], outer, out);
    at = ends[5] + out;
    for (size_t cut = ends[5] + 1; cut < at; cut++)
        open_torn(copy, cut, ends[5], 5);
    copy[ends[5] + 9] ^= 1; /* its fields contradict each other: the inner records may be the ones behind it */
    CHECK(own_write_file("y.wal", copy, at) == 0);
    CHECK_FAILS(wal_open(&writer, "y.wal"), EBADMSG);
    CHECK(own_file_is("y.wal", copy, at));
    copy[ends[5] + 9] ^= 1;
    memcpy(copy + at, log_bytes, ends[1]); /* now in the middle */
    at += ends[1];
    CHECK(own_write_file("y.wal", copy, at) == 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("y.wal", &store), 7);
    CHECK(kv_store_get(&store, "evil") == NULL);
    CHECK(kv_store_get(&store, "k") != NULL);
    kv_store_destroy(&store);
    REQUIRE(wal_open(&writer, "y.wal") == 0);
    CHECK_EQ(logship_last_lsn(&writer), 7);
    CHECK(wal_close(&writer) == 0);
    copy[ends[5]] ^= 1; /* damaged there: recovery stops, and does not find the inner ones */
    CHECK(own_write_file("y.wal", copy, at) == 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("y.wal", &store), 5);
    CHECK(kv_store_get(&store, "evil") == NULL);
    kv_store_destroy(&store);
    CHECK_FAILS(wal_open(&writer, "y.wal"), EBADMSG);
}
/* decode says want, and on failure leaves the struct zeroed. */
static int decodes(const uint8_t *bytes, size_t len, int want, int want_errno)
{
    struct wal_record record, zero;
    memset(&record, 0x5A, sizeof record);
    memset(&zero, 0, sizeof zero);
    errno = 0;
    int got = wal_record_decode(bytes, len, &record), why = errno;
    int zeroed = record.op == 0 && record.key == NULL && record.key_len == 0 && record.value == NULL &&
                 record.value_len == 0 && record.crc == 0 && record.timestamp == 0;
    if (got == 0)
        wal_record_free(&record);
    else if (!zeroed)
        NOTE("struct not zeroed after a failed decode");
    if (got != want)
        NOTE("decode of %zu bytes: %d, want %d", len, got, want);
    return got == want && (got == 0 || zeroed) && (want_errno == 0 || why == want_errno);
}
static void every_bit_of_a_record(void)
{
    uint8_t large[300];
    for (int i = 0; i < 300; i++)
        large[i] = (uint8_t)i;
    for (int kind = 0; kind < 4; kind++) {
        uint8_t bytes[512];
        size_t len = kind == 0   ? own_set(bytes, "foo", "bar", 0x1122334455u)
                     : kind == 1 ? own_del(bytes, "foo", 0)
                     : kind == 2 ? own_encode(bytes, 1, "foo", 3, "bar", 3, 0, 0)
                                 : own_encode(bytes, 1, "k", 1, large, 300, UINT64_MAX, 1);
        CHECK(decodes(bytes, len, 0, 0));
        for (size_t bit = 0; bit < 8 * len; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            CHECK(decodes(bytes, len, CRC_MISMATCH, 0));
            bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        for (size_t part = 0; part < len; part++) { /* too short to be a record; else not the length it says */
            if (part < 13)
                CHECK(decodes(bytes, part, -1, EBADMSG));
            else if (part > 13)
                CHECK(decodes(bytes, part, CRC_MISMATCH, 0));
        }
        CHECK(decodes(bytes, len + 1, CRC_MISMATCH, 0));
    }
}
static void right_crc_over_fields_that_do_not_fit(void)
{
    uint8_t good[128], bytes[128];
    size_t len = own_set(good, "foo", "bar", 5);
#define BROKEN(change) do { \
        memcpy(bytes, good, sizeof bytes); \
        change; \
        own_seal(bytes, len); \
        CHECK(decodes(bytes, len, -1, EBADMSG)); \
    } while (0)
    CHECK(decodes(good, len, 0, 0));
    BROKEN(bytes[8] = 0);
    BROKEN(bytes[8] = 3);
    BROKEN(bytes[8] = 255);
    BROKEN(bytes[9] = 0);                         /* no key */
    BROKEN(bytes[9] = 200);                       /* a key past the end */
    BROKEN((bytes[9] = 0xFF, bytes[10] = 0xFF));
    BROKEN(bytes[9] = 16);                        /* a key to the very end: no room for value_len */
    BROKEN(bytes[9] = 15);
    BROKEN(bytes[14] = 4);                        /* 7 bytes left over: neither 8 nor 0 */
    BROKEN(bytes[14] = 2);                        /* 9 left over */
    BROKEN(bytes[14] = 10);
    BROKEN(bytes[14] = 12);
    BROKEN((bytes[14] = 0xFF, bytes[15] = 0xFF));
#undef BROKEN
    memcpy(bytes, good, sizeof bytes);
    bytes[14] = 11; /* exactly to the end: that is a W10 record whose value ends in 8 strange bytes */
    own_seal(bytes, len);
    CHECK(decodes(bytes, len, 0, 0));
}
static void records_without_timestamp(void)
{
    uint8_t bytes[128];
    struct wal_record record;
    struct kv_store store;
    size_t len = own_encode(bytes, 1, "foo", 3, "bar", 3, 0, 0), at;
    CHECK_EQ(len, 19);
    memset(&record, 0x5A, sizeof record);
    REQUIRE(wal_record_decode(bytes, len, &record) == 0);
    CHECK(record.op == WAL_OP_SET && record.key_len == 3 && record.value_len == 3);
    CHECK(strcmp(record.key, "foo") == 0 && strcmp(record.value, "bar") == 0);
    CHECK_EQ(record.timestamp, 0);
    wal_record_free(&record);
    at = len;
    at += own_encode(bytes + at, 1, "foo", 3, "older?", 6, 0, 0);
    at += own_encode(bytes + at, 2, "foo", 3, NULL, 0, 0, 0);
    at += own_encode(bytes + at, 1, "foo", 3, "aaa", 3, 0, 0); /* log order, not the greater value */
    at += own_set(bytes + at, "new", "1", 9);
    CHECK(own_write_file("x.wal", bytes, at) == 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("x.wal", &store), 5);
    CHECK(kv_store_get(&store, "foo") && strcmp(kv_store_get(&store, "foo"), "aaa") == 0);
    CHECK(kv_store_get(&store, "new") != NULL);
    kv_store_destroy(&store);
    struct wal_writer writer;
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    CHECK_EQ(logship_last_lsn(&writer), 5);
    CHECK(wal_close(&writer) == 0);
}
static void largest_record(void)
{
    static char key[65536], value[65536];
    static uint8_t bytes[WAL_RECORD_MAX + 1], mine[WAL_RECORD_MAX + 1];
    struct wal_record record = {.op = WAL_OP_SET, .key = key, .key_len = 65535, .value = value, .value_len = 65535}, back;
    struct wal_writer writer;
    struct kv_store store;
    memset(key, 'k', 65535);
    memset(value, 'v', 65535);
    CHECK_EQ(wal_record_encode(&record, bytes, sizeof bytes), WAL_RECORD_MAX);
    CHECK_EQ(own_encode(mine, 1, key, 65535, value, 65535, 0, 1), WAL_RECORD_MAX);
    CHECK(memcmp(bytes, mine, WAL_RECORD_MAX) == 0);
    REQUIRE(wal_record_decode(bytes, WAL_RECORD_MAX, &back) == 0);
    CHECK(back.key_len == 65535 && back.value_len == 65535 && strcmp(back.value, value) == 0);
    wal_record_free(&back);
    REQUIRE(wal_open(&writer, "x.wal") == 0);
    CHECK(wal_append(&writer, &record) == 0 && wal_append(&writer, &record) == 0);
    CHECK(wal_close(&writer) == 0);
    REQUIRE(kv_store_init(&store) == 0);
    CHECK_EQ(wal_recover("x.wal", &store), 2);
    CHECK(kv_store_get(&store, key) && strcmp(kv_store_get(&store, key), value) == 0);
    kv_store_destroy(&store);
    CHECK(own_write_file("y.wal", bytes, WAL_RECORD_MAX) == 0); /* a crash cut the second one off */
    int fd = open("y.wal", O_WRONLY | O_APPEND);
    CHECK(write(fd, bytes, WAL_RECORD_MAX - 1) == WAL_RECORD_MAX - 1 && close(fd) == 0);
    REQUIRE(wal_open(&writer, "y.wal") == 0);
    CHECK_EQ(writer.offset, WAL_RECORD_MAX);
    CHECK(wal_close(&writer) == 0);
}

int main(void)
{
    build();
    logship_set_log(listen_to_log, &warnings);
    CASE("an undamaged log: opened and recovered without a word", undamaged);
    CASE("the library writes the bytes that this test wrote by hand", the_library_writes_these_bytes);
    CASE("no file, an empty file, no directory", missing_and_empty);
    CASE("wal_recover: cut at every byte", cut_at_every_byte);
    CASE("wal_recover: changed at every byte", changed_at_every_byte);
    CASE("wal_open: cut at every byte, tail set aside, append, recover", open_cut_at_every_byte);
    CASE("wal_open: last record changed at every byte", open_changed_in_the_last_record);
    CASE("wal_open: zeroes or rubbish behind the last record", open_with_rubbish_behind);
    CASE("wal_open: changed at every byte of the middle is refused, nothing changed", open_changed_in_the_middle);
    CASE("wal_open: torn twice, both tails kept", torn_twice);
    CASE("values that look like records", values_that_look_like_records);
    CASE("decode: every bit flip, every length", every_bit_of_a_record);
    CASE("decode: right CRC over fields that do not fit", right_crc_over_fields_that_do_not_fit);
    CASE("records without timestamp (a W10 log)", records_without_timestamp);
    CASE("the largest record", largest_record);
    return own_end();
}
