/* The codec of a small record through the C ABI: encode into a buffer, decode into malloc'd strings, free them. */
#define _GNU_SOURCE
#include "bench.h"

#include "w10/crc32.h"

enum { SAMPLES = 256, ROUNDS = 8000 };

static struct sample samples[SAMPLES];

static void pair(const struct wal_record *record, uint8_t *buffer)
{
    struct wal_record decoded;
    int len = wal_record_encode(record, buffer, WAL_RECORD_MAX);

    MUST(len > 0);
    MUST(wal_record_decode(buffer, (size_t)len, &decoded) == 0);
    MUST(decoded.key_len == KEY_LEN && decoded.value[0] == record->value[0]);
    wal_record_free(&decoded);
}

void bench_codec(void)
{
    static uint8_t buffer[WAL_RECORD_MAX];
    double start;

    crc32_init();
    for (int i = 0; i < SAMPLES; i++)
        fill_sample(&samples[i], i, SMALL_VALUE);
    start = now_s();
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < SAMPLES; i++)
            pair(&samples[i].record, buffer);
    emit("codec.encode+decode", (double)ROUNDS * SAMPLES / (now_s() - start) / 1e6, "M/s");
    start = now_s();
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < SAMPLES; i++)
            MUST(wal_record_encode(&samples[i].record, buffer, sizeof buffer) > 0);
    emit("codec.encode", (double)ROUNDS * SAMPLES / (now_s() - start) / 1e6, "M/s");
}
