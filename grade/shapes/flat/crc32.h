/* Of a correct tree in another hand than plain_c. CRC-32 by a table that fills itself. */
#pragma once
#include <stdint.h>
#include <stddef.h>
void crc32_init(void);
uint32_t crc32(const void *data, size_t len);
