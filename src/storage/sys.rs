//! The system calls of `storage` that the safe crates don't offer.
#![allow(unsafe_code, reason = "sync_file_range(2) and extended attributes on a borrowed descriptor")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The attribute that holds a log's note.
const NOTE: &CStr = c"user.logship.durable";
/// A name that no file has.
const NO_NOTE: &CStr = c"user.logship.none";
/// More bytes than any note has.
const NOTE_MAX: usize = 256;

/// fgetxattr(2): a file's note. `None`: it has none, or its file system keeps no attributes. A note that is there and
/// can't be read is an error: what was durable would be taken for a torn write without it.
pub(super) fn note(fd: impl AsFd) -> io::Result<Option<Vec<u8>>> {
    let mut note = vec![0; NOTE_MAX];
    let into = note.as_mut_ptr().cast();
    // SAFETY: a borrowed, hence open, descriptor, a C string, and a buffer of the length that is said.
    let len = unsafe { libc::fgetxattr(fd.as_fd().as_raw_fd(), NOTE.as_ptr(), into, NOTE_MAX) };
    if let Ok(len) = usize::try_from(len) {
        note.truncate(len);
        return Ok(Some(note));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::EOPNOTSUPP | libc::ENOSYS | libc::ERANGE | libc::EPERM) => Ok(None),
        _ => Err(error),
    }
}

/// fsetxattr(2): replaces a file's note, if its file system keeps any.
pub(super) fn set_note(fd: impl AsFd, note: &[u8]) {
    // SAFETY: a borrowed, hence open, descriptor, a C string, and a readable slice.
    unsafe { libc::fsetxattr(fd.as_fd().as_raw_fd(), NOTE.as_ptr(), note.as_ptr().cast(), note.len(), 0) };
}

/// Waits for a write(2) that is going on: changing an attribute takes the lock of the inode that a write holds from its
/// first byte to its last. The attribute that is removed is one that the file does not have.
pub(super) fn settle(fd: impl AsFd) {
    // SAFETY: a borrowed, hence open, descriptor, and a C string.
    unsafe { libc::fremovexattr(fd.as_fd().as_raw_fd(), NO_NOTE.as_ptr()) };
}

/// sync_file_range(2): begins to write a file's dirty pages back from byte `from` on, and does not wait for it. Makes
/// nothing durable, and that it failed means nothing: fsync(2) writes what is left, and says so if it can't.
pub(super) fn start_write_back(fd: impl AsFd, from: u64) {
    let Ok(from) = i64::try_from(from) else { return };
    // SAFETY: a borrowed, hence open, descriptor and three integers. Length 0 is "to the end of the file".
    unsafe { libc::sync_file_range(fd.as_fd().as_raw_fd(), from, 0, libc::SYNC_FILE_RANGE_WRITE) };
}
