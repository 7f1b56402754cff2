/* crc32: bytes per second over a buffer that the caches hold. */
#define _GNU_SOURCE
#include "bench.h"

#include "w10/crc32.h"

static void measure(const char *name, const uint8_t *data, size_t len)
{
    double start, elapsed = 0;
    uint32_t expected = crc32(data, len);
    size_t done = 0;

    start = now_s();
    while (elapsed < 0.25) {
        for (int i = 0; i < 8; i++)
            MUST(crc32(data, len) == expected);
        done += 8 * len;
        elapsed = now_s() - start;
    }
    emit(name, (double)done / elapsed / 1e6, "MB/s");
}

void bench_crc32(void)
{
    enum { LARGE = 1 << 20, SMALL = 64 << 10 };
    uint8_t *data = malloc(LARGE);

    MUST(data != NULL);
    for (uint32_t i = 0, state = 1; i < LARGE; i++) {
        state = state * 1664525 + 1013904223;
        data[i] = (uint8_t)(state >> 24);
    }
    crc32_init();
    MUST(crc32((const uint8_t *)"123456789", 9) == 0xCBF43926);
    measure("crc32.64KiB", data, SMALL);
    measure("crc32.1MiB", data, LARGE);
    free(data);
}
