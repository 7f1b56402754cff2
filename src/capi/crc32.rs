//! w10/crc32.h: the checksum.
#![allow(unsafe_code, reason = "the C boundary")]

use super::{errno, ptr};

/// Does nothing: the tables are ready. It exists because the lesson's crc32 needs it; calling it is never wrong.
#[unsafe(no_mangle)]
pub extern "C" fn crc32_init() {}

/// The CRC-32 of `len` bytes at `data`: zlib's (polynomial 0xEDB88320, reflected, inverted at both ends);
/// `crc32("123456789", 9)` is 0xCBF43926. `len` 0 gives 0. NULL with a length gives 0 with `errno` EINVAL.
/// Known to the linker as `logship_crc32`, because zlib exports another `crc32`. Safe in any thread.
//
// The lesson's own name, for programs that declare it themselves, is not defined here but in an object of its own that
// `make lib` puts into the static library (packaging/crc32.S). In this object it would be part of every program, and
// even a weak definition there wins over that of a shared libz: gzip files came out with our checksum of a wrong place.
///
/// # Safety
/// `data` points to `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn logship_crc32(data: *const u8, len: usize) -> u32 {
    if len == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    match unsafe { ptr::bytes(data, len) } {
        Ok(bytes) => crate::wal::crc::crc32(bytes),
        Err(error) => {
            errno::set(error.errno());
            0
        }
    }
}
