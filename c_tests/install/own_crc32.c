/* The lesson's crc32 as a program declares it that has none of our headers: static link only. */
#include <stddef.h>
#include <stdint.h>

uint32_t crc32(uint8_t *data, size_t len);

int main(void)
{
    uint8_t digits[] = "123456789";

    return crc32(digits, 9) == 0xCBF43926 ? 0 : 1;
}
