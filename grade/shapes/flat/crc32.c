/* Of a correct tree in another hand than plain_c. CRC-32 by a table that fills itself. */
#include "crc32.h"
static uint32_t t[256];
static int done;
void crc32_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        t[i] = c;
    } done = 1;
}

uint32_t crc32(const void *d, size_t n)
{
    const uint8_t *p = d;
    uint32_t c = ~0u;
    if (!done)
        crc32_init();
    while (n--)
        c = t[(c ^ *p++) & 255] ^ (c >> 8);
    return ~c;
}
