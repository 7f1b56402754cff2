#ifndef LOGSHIP_W10_CRC32_H
#define LOGSHIP_W10_CRC32_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>

/* zlib exports another crc32: a program may link both. */
#ifndef LOGSHIP_NO_MACROS
#define crc32 logship_crc32
#endif


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

/* The same without a macro, unless the name is zlib's in this file. */
#if defined(LOGSHIP_NO_MACROS) && !defined(ZLIB_H) && !defined(ZLIB_H_)
#ifdef __cplusplus
extern "C"
#endif
uint32_t crc32(const uint8_t *data, size_t len) __asm__("logship_crc32");
#endif

#endif /* LOGSHIP_W10_CRC32_H */
