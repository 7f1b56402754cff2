/* The part of beside_zlib.c that sees zlib.h, where crc32 is zlib's. */
unsigned long zlib_crc32_of(const char *text, unsigned len);
int zlib_writes_and_reads(const char *path, const char *text);
