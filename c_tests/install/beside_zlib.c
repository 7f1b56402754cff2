/* logship and zlib in one program: each crc32 is the right one, also where zlib calls its own. */
#include "zlib_part.h"
#include <logship.h>
#include <stdio.h>
#include <string.h>

/* gzread checks what it has read against zlib's own crc32; gzip(1) does so once more after the program has ended. */
int main(void)
{
#ifndef ONLY_ZLIB_CALLS_ITS_OWN
    char key[] = "k", value[] = "v";
    uint8_t encoded[64];
    struct wal_record record = { .op = WAL_OP_SET, .key = key, .key_len = 1, .value = value, .value_len = 1 };
    int len = wal_record_encode(&record, encoded, sizeof encoded);

    if (zlib_crc32_of("123456789", 9) != 0xCBF43926)
        return fprintf(stderr, "zlib's crc32 is another\n"), 1;
    if (len < 4 || zlib_crc32_of((const char *)encoded + 4, (unsigned)len - 4) !=
                       ((uint32_t)encoded[0] | (uint32_t)encoded[1] << 8 | (uint32_t)encoded[2] << 16 |
                        (uint32_t)encoded[3] << 24))
        return fprintf(stderr, "the record's checksum is not zlib's\n"), 1;
#endif
    if (crc32((const uint8_t *)"123456789", 9) != 0xCBF43926)
        return fprintf(stderr, "logship's crc32 is another\n"), 1;
    if (!zlib_writes_and_reads("beside.gz", "some text that is compressed"))
        return fprintf(stderr, "zlib does not read what it wrote\n"), 1;
    return 0;
}
