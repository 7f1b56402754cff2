/* CRC-32, one byte at a time through a table of 256 words. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "w10/crc32.h"

#include <errno.h>
#include <pthread.h>

static uint32_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t rest = byte;

        for (int bit = 0; bit < 8; bit++)
            rest = (rest & 1) != 0 ? (rest >> 1) ^ 0xEDB88320u : rest >> 1;
        table[byte] = rest;
    }
}

void crc32_init(void)
{
    pthread_once(&table_once, fill_table);
}

uint32_t crc32(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xFFFFFFFFu;

    if (data == NULL) {
        if (len > 0)
            errno = EINVAL;
        return 0;
    }
    /* A caller that forgot crc32_init would get a checksum of zeros that fits any damage. */
    crc32_init();
    for (size_t i = 0; i < len; i++)
        crc = (crc >> 8) ^ table[(crc ^ data[i]) & 0xFF];
    return crc ^ 0xFFFFFFFFu;
}
