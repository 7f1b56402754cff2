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

// The lesson's own name for programs that declare it themselves: weak, so that a definition of the program or of zlib
// wins, and in the static library only (rustc exports no assembly symbol from the shared one).
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection logship_calls, \"ax\", @progbits",
    ".weak crc32",
    ".type crc32, @function",
    "crc32:",
    "jmp {target}",
    ".popsection",
    target = sym logship_crc32,
);
