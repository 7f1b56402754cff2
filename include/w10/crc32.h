#ifndef LOGSHIP_W10_CRC32_H
#define LOGSHIP_W10_CRC32_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>

/* zlib exports another crc32: a program may link both. */
#define crc32 logship_crc32


#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Does nothing: the tables are ready. It exists because the lesson's crc32 needs it; calling it is never wrong.
 */
void crc32_init(void);

/**
 * The CRC-32 of `len` bytes at `data`: zlib's (polynomial 0xEDB88320, reflected, inverted at both ends);
 * `crc32("123456789", 9)` is 0xCBF43926. `len` 0 gives 0. NULL with a length gives 0 with `errno` EINVAL.
 * Known to the linker as `logship_crc32`, because zlib exports another `crc32`. Safe in any thread.
 */
uint32_t logship_crc32(const uint8_t *data,
                       size_t len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif /* LOGSHIP_W10_CRC32_H */
