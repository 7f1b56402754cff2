/* CRC-32 with the reflected polynomial 0xEDB88320, the one zlib and Ethernet use. */
#ifndef PLAIN_W10_CRC32_H
#define PLAIN_W10_CRC32_H

#include <stddef.h>
#include <stdint.h>

void crc32_init(void);
uint32_t crc32(const uint8_t *data, size_t len);

#endif
