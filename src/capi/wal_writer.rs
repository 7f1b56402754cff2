//! w10/wal_writer.h: appending, and moving whole buffers.
#![allow(unsafe_code, reason = "the C boundary")]
#![allow(non_camel_case_types, reason = "C's names")]

use super::logs::{self, OpenLog};
use super::replaced;
use super::wal_record::wal_record;
use super::{guard, ptr};
use crate::error::{Error, Result};
use crate::signal::shielded;
use crate::wal;
use crate::wal::record::Record;
use libc::{c_char, c_int, c_void, ssize_t};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};

/// An open log. Copies of the struct, and structs that a program fills by hand with a descriptor opened for appending,
/// work too: what else is known of the log is kept beside it, by descriptor and inode.
#[repr(C)]
pub struct wal_writer {
    /// The log's descriptor; -1 once closed.
    pub fd: c_int,
    /// Bytes in the log after the last call.
    pub offset: u64,
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(wal_writer, fd) == 0);
    assert!(offset_of!(wal_writer, offset) == 8);
    assert!(size_of::<wal_writer>() == 16);
};

/// Borrows a descriptor for the time of one call.
///
/// # Safety
/// The descriptor stays the caller's during `'a`; a closed one gives EBADF.
pub(super) unsafe fn borrow<'a>(fd: RawFd) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: not -1, and the caller's promise.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The log behind a writer.
///
/// # Safety
/// `writer` is NULL or points to a writer that no other thread uses during `'a`.
pub(super) unsafe fn log_of<'a>(writer: *const wal_writer) -> Result<OpenLog<'a>> {
    ptr::check(writer)?;
    // SAFETY: not NULL, and the caller promises a writer.
    let wal_writer { fd, offset } = unsafe { writer.read() };
    // SAFETY: the caller's promise.
    let mut log = OpenLog::of(unsafe { borrow(fd) }?)?;
    log.is_new = offset == 0;
    Ok(log)
}

/// Writes the log's length to the visible struct.
///
/// # Safety
/// `writer` points to a live writer.
pub(super) unsafe fn publish(writer: *mut wal_writer, len: u64) {
    // SAFETY: the caller's promise.
    unsafe { (*writer).offset = len };
}

/// Opens or creates the log at `path` for appending (O_WRONLY|O_CREAT|O_APPEND, 0644, never O_TRUNC) and finds the end
/// of its last whole record. A torn tail is cut off, its bytes kept in `<path>.torn-N`, with a warning. Returns 0, or
/// -1 with `errno`: EBADMSG if the log is damaged or cut where it was durable, if whole records follow the damage, or
/// if the file is no log (nothing is changed; `logship_wal_truncate_to` is the way on), EINVAL for NULL, or what
/// open(2), read(2) or fsync(2) say; `fd` is -1 then. `wal_close` closes it. Takes no lock. (`wal_open(path)` is
/// `wal_open_path`.)
///
/// # Safety
/// `writer` points to a writable struct, `path` is a C string.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn wal_open(writer: *mut wal_writer, path: *const c_char) -> c_int {
    guard::call(|| {
        ptr::check(writer)?;
        // SAFETY: the caller's promise.
        let opened = logs::open(unsafe { ptr::path(path) }?);
        // A program that closes what it could not open must not close what stands in memory that it never filled.
        let (fd, offset) = opened.as_ref().map_or((-1, 0), |(file, offset)| (file.as_raw_fd(), *offset));
        // SAFETY: not NULL, writable by the caller's promise.
        unsafe { writer.write(wal_writer { fd, offset }) };
        let _ = opened?.0.into_raw_fd(); // The writer's now.
        Ok(0)
    })
}

/// As `wal_open`, for the lesson's form `wal_open(path)`: returns a writer allocated with malloc(3) that `wal_close`
/// frees, or NULL with `errno` as `wal_open`, or ENOMEM.
///
/// # Safety
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wal_open_path(path: *const c_char) -> *mut wal_writer {
    // SAFETY: the caller's promise.
    if let Some(writer) = unsafe { replaced::log::open(path) } {
        return writer;
    }
    guard::call_or(
        || {
            // SAFETY: the caller's promise.
            let (file, offset) = logs::open(unsafe { ptr::path(path) }?)?;
            // SAFETY: any size is fine.
            let writer: *mut wal_writer = unsafe { libc::malloc(size_of::<wal_writer>()) }.cast();
            if writer.is_null() {
                logs::forget_descriptor(file.as_raw_fd());
                return Err(Error::OutOfMemory);
            }
            logs::adopt_writer(file.as_raw_fd(), writer.addr());
            // SAFETY: fresh memory of the right size.
            unsafe { writer.write(wal_writer { fd: file.into_raw_fd(), offset }) };
            Ok(writer)
        },
        |_| std::ptr::null_mut(),
    )
}

/// Appends one record; it is durable (fsync) when this returns 0. Returns -1 with `errno` if not: the log is then what
/// it was. After ENOSPC, EIO or a short write the next append may succeed; after a failed fsync every later append
/// fails with EIO until the log is reopened. EINVAL for NULL, a record that can't be encoded, or a time stamp that the
/// clock can't pass. EBADMSG if someone has cut the log since it was opened, or damaged its end; ESTALE if someone has
/// removed the file or put another in its place: what is appended to it would be lost. Reopen it then. One log from one
/// thread at a time; several processes may append to one. Blocks as long as the disk does.
///
/// # Safety
/// `writer` points to a writer, `record` to a record whose strings have their lengths.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn wal_append(writer: *mut wal_writer, record: *const wal_record) -> c_int {
    // SAFETY: the caller's promise.
    guard::call(|| unsafe { append_all(writer, &[super::wal_record::view(record)?]) })
}

/// Appends records with one write and one fsync.
///
/// # Safety
/// `writer` is NULL or points to a writer that no other thread uses.
pub(super) unsafe fn append_all(writer: *mut wal_writer, records: &[Record<'_>]) -> Result<c_int> {
    ptr::check(writer)?;
    if replaced::appends() {
        // SAFETY: the caller's promise.
        return unsafe { replaced::log::append_all(writer, records) };
    }
    // SAFETY: as above.
    let mut log = unsafe { log_of(writer) }?;
    let mut encoded = Vec::new();
    let ends = wal::encode_all(records, &mut encoded)?;
    if ends.is_empty() {
        return Ok(0);
    }
    log.return_no_more()?;
    let (_, len) = log.append(0, &encoded, &ends)?;
    // SAFETY: not NULL, since a log was found behind it.
    unsafe { publish(writer, len) };
    Ok(0)
}

/// Makes the log durable (fsync), closes it and sets `fd` to -1; a writer from `wal_open(path)` is freed. Returns 0, or
/// -1 with `errno`: EINVAL for NULL, EBADF if it is closed already, what fsync(2) says, and the log is closed then too.
/// Every append that returned 0 is durable already.
///
/// # Safety
/// `writer` is NULL or points to a writer; one from `wal_open_path` is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wal_close(writer: *mut wal_writer) -> c_int {
    guard::call(|| {
        ptr::check(writer)?;
        // SAFETY: not NULL, and the caller promises a writer.
        let fd = unsafe { (*writer).fd };
        if fd < 0 {
            return Err(Errno::EBADF.into());
        }
        let synced = logs::sync_at_close(fd);
        let ours = logs::is_adopted(fd, writer.addr());
        logs::forget_descriptor(fd);
        // SAFETY: as above.
        unsafe { (*writer).fd = -1 };
        if ours {
            // SAFETY: `wal_open_path` allocated it, and the caller gives it up.
            unsafe { libc::free(writer.cast()) };
        }
        // EINTR too leaves the descriptor closed on Linux.
        match nix::unistd::close(fd) {
            Ok(()) | Err(Errno::EINTR) => synced.map(|()| 0),
            Err(errno) => Err(errno.into()),
        }
    })
}

/// Writes all `len` bytes of `buf`; short writes and EINTR are gone on with. Returns 0, or -1 with write(2)'s `errno`
/// (some bytes may be written then), EINVAL for NULL. Blocks as long as `fd` does.
///
/// # Safety
/// `buf` points to `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write_full(fd: c_int, buf: *const c_void, len: usize) -> c_int {
    guard::call(|| {
        if len == 0 {
            return Ok(0);
        }
        // SAFETY: the caller's promise.
        let mut bytes = unsafe { ptr::bytes(buf.cast(), len) }?;
        // SAFETY: the descriptor is the caller's.
        let fd = unsafe { borrow(fd) }?;
        while !bytes.is_empty() {
            match shielded(|| nix::unistd::write(fd, bytes)) {
                Ok(0) => return Err(Errno::ENOSPC.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(0)
    })
}

/// Reads `len` bytes into `buf`; short reads and EINTR are gone on with. Returns `len`; fewer, down to 0, at the end of
/// the file; -1 with read(2)'s `errno`, EINVAL for NULL. Blocks as long as `fd` does.
///
/// # Safety
/// `buf` points to `len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read_full(fd: c_int, buf: *mut c_void, len: usize) -> ssize_t {
    let body = || -> Result<ssize_t> {
        if len == 0 {
            return Ok(0);
        }
        // SAFETY: the caller's promise.
        let bytes = unsafe { ptr::bytes_mut(buf.cast(), len) }?;
        let mut done = 0;
        while done < len {
            // SAFETY: the descriptor is the caller's.
            match nix::unistd::read(unsafe { borrow(fd) }?, &mut bytes[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        ssize_t::try_from(done).map_err(|_| Error::Invalid("impossible length"))
    };
    guard::call_or(body, |_| -1)
}
