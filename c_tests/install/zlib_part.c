/* See zlib_part.h. */
#include "zlib_part.h"
#include <string.h>
#include <zlib.h>

#ifndef ONLY_ZLIB_CALLS_ITS_OWN
unsigned long zlib_crc32_of(const char *text, unsigned len)
{
    return crc32(crc32(0, Z_NULL, 0), (const Bytef *)text, len);
}
#endif

int zlib_writes_and_reads(const char *path, const char *text)
{
    unsigned len = (unsigned)strlen(text) + 1;
    char got[128];
    gzFile file = gzopen(path, "wb");

    if (file == NULL || gzwrite(file, text, len) != (int)len || gzclose(file) != Z_OK)
        return 0;
    file = gzopen(path, "rb");
    if (file == NULL || gzread(file, got, sizeof got) != (int)len || memcmp(got, text, len) != 0)
        return 0;
    return gzclose(file) == Z_OK;
}
