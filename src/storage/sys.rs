//! The system call of `storage` that the safe crates don't offer.
#![allow(unsafe_code, reason = "sync_file_range(2) on a borrowed descriptor")]

use std::os::fd::{AsFd, AsRawFd};

/// sync_file_range(2): begins to write a file's dirty pages back from byte `from` on, and does not wait for it. Makes
/// nothing durable, and that it failed means nothing: fsync(2) writes what is left, and says so if it can't.
pub(super) fn start_write_back(fd: impl AsFd, from: u64) {
    let Ok(from) = i64::try_from(from) else { return };
    // SAFETY: a borrowed, hence open, descriptor and three integers. Length 0 is "to the end of the file".
    unsafe { libc::sync_file_range(fd.as_fd().as_raw_fd(), from, 0, libc::SYNC_FILE_RANGE_WRITE) };
}
