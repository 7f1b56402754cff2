//! w10/crc32.h: the checksum.
#![allow(unsafe_code, reason = "the C boundary")]

use super::{errno, ptr, replaced};

/// Does nothing: the tables are ready. It exists because the lesson's crc32 needs it; calling it is never wrong.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub extern "C" fn crc32_init() {}

/// The CRC-32 of `len` bytes at `data`: zlib's (polynomial 0xEDB88320, reflected, inverted at both ends);
/// `crc32("123456789", 9)` is 0xCBF43926. `len` 0 gives 0. NULL with a length gives 0 with `errno` EINVAL.
/// Known to the linker as `logship_crc32`, because zlib exports another `crc32`. Safe in any thread.
//
// The lesson's own name, for programs that declare it themselves, is not defined here but in an object of its own
// (packaging/crc32.S, build.rs). In this object it would be part of every program, and even a weak definition there
// wins over that of a shared libz: gzip files came out with our checksum of a wrong place.
///
/// # Safety
/// `data` points to `len` readable bytes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn logship_crc32(data: *const u8, len: usize) -> u32 {
    if len == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    match unsafe { ptr::bytes(data, len) } {
        // Someone calls it by this name, which our header gives it, and has brought one by the lesson's.
        Ok(bytes) if replaced::has(replaced::File::Crc32) => replaced::codec::crc32(bytes),
        Ok(bytes) => crate::wal::crc::crc32(bytes),
        Err(error) => {
            errno::set(error.errno());
            0
        }
    }
}
