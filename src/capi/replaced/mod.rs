//! The functions of the course's files as the linker has resolved them, which need not be this library's.
//!
//! A grader links one of a student's files with this library in place of all the others. The static library's functions
//! are weak (`make lib`), so the student's win, and what the test program calls is the student's. What the library
//! calls must be too, where the call goes from one file of the course to another: a log is appended to by the
//! student's `wal_append`, a record applied to the student's table, by the student's rule. So such calls go through
//! [`functions`], a table that the linker fills, read volatile, since the compiler takes its own functions for the only
//! ones. When nothing is replaced none is made: the rooms of the core are entered directly, and what that costs to know
//! is one load.
//!
//! Whose a function is, is told by where it is: this library's stand in a section of their own. `codec` puts a
//! program's record codec, or its CRC, in the place of `wal::record`'s; `store` applies records through a program's
//! table and rule; `log` appends through its `wal_append`.
#![allow(unsafe_code, reason = "functions that the program may have brought")]

pub(super) mod codec;
mod functions;
pub(super) mod log;
pub(super) mod store;

use super::kv_store::kv_store;
use super::repl_config::repl_node;
use crate::error::{Error, Result};
use functions::{is_theirs, linked};
use libc::{c_char, c_int};
use nix::errno::Errno;
use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file of the course that a program may bring, if another file calls it. None calls checkpoint, quorum or rejoin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum File {
    KvStore = 1,
    Crc32 = 2,
    WalRecord = 4,
    WalWriter = 8,
    WalRecovery = 16,
    ReplConfig = 32,
    ReplShip = 64,
    ReplConflict = 128,
    ReplAccept = 256,
}

/// Which files the program has brought, once [`look`] has been: the sum of their bits, and [`KNOWN`].
static REPLACED: AtomicU32 = AtomicU32::new(0);
const KNOWN: u32 = 1 << 31;

/// Finds out what is replaced, the first time. Every call into the library begins with it.
#[inline]
pub(super) fn know() -> u32 {
    match REPLACED.load(Ordering::Relaxed) {
        0 => look(),
        known => known,
    }
}

#[cold]
fn look() -> u32 {
    let mut files = KNOWN;
    let mut add = |file: File, theirs: bool| files |= if theirs { file as u32 } else { 0 };
    let reads = is_theirs!(kv_store_get) || is_theirs!(kv_store_find);
    let writes = is_theirs!(kv_store_set) || is_theirs!(kv_store_set_ts) || is_theirs!(kv_store_del);
    add(File::KvStore, reads || writes);
    add(File::Crc32, is_theirs!(logship_crc32) || functions::crc32_by_its_own_name().is_some());
    add(File::WalRecord, is_theirs!(wal_record_encode) || is_theirs!(wal_record_decode));
    add(File::WalWriter, is_theirs!(wal_append));
    add(File::WalRecovery, is_theirs!(wal_recover));
    add(File::ReplConfig, is_theirs!(repl_connect));
    add(File::ReplAccept, is_theirs!(repl_accept));
    add(File::ReplShip, is_theirs!(send_full) || is_theirs!(repl_ship_record) || is_theirs!(repl_receive_record));
    add(File::ReplConflict, is_theirs!(repl_resolve_conflict));
    // Every thread that comes here finds the same. The codec first: who reads the number may need it.
    if files & (File::Crc32 as u32 | File::WalRecord as u32) != 0 {
        codec::install();
    }
    REPLACED.store(files, Ordering::Relaxed);
    files
}

/// A function of the program's that may leave its work to another one of this library's.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Own {
    Init = 1,
    Set = 2,
    SetTs = 4,
    Get = 8,
    Find = 16,
    Del = 32,
    Crc32 = 64,
    Open = 128,
    Append = 256,
    Recover = 512,
    Checkpoint = 1024,
    Encode = 2048,
    Decode = 4096,
}

thread_local! {
    /// The program's functions that this thread is in, called from here: the sum of their bits.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Calls a function of the program's, unless this thread is in it already: then it has left its work to the function of
/// this library's that calls here, which has to do it itself. Without that the two would call each other for ever.
fn enter<T>(own: Own, call: impl FnOnce() -> T) -> Option<T> {
    struct Leave(u32);
    impl Drop for Leave {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }
    let before = INSIDE.get();
    if before & own as u32 != 0 {
        return None;
    }
    let _leave = Leave(before);
    INSIDE.set(before | own as u32);
    Some(call())
}

/// Whether the program has a `wal_append` that is to be called now.
pub(super) fn appends() -> bool {
    has(File::WalWriter) && INSIDE.get() & Own::Append as u32 == 0
}

/// Why a function of the program's has failed: its errno.
fn last_error() -> Error {
    match Errno::last() as i32 {
        0 => Error::Internal("a function of the program's failed without errno"),
        _ => Errno::last().into(),
    }
}

/// Whether the program has brought this file.
#[inline]
pub(super) fn has(file: File) -> bool {
    know() & file as u32 != 0
}

/// Whether records are encoded and decoded with something of the program's.
#[inline]
pub(super) fn has_codec() -> bool {
    know() & (File::WalRecord as u32 | File::Crc32 as u32) != 0
}

/// Whether the peers that a program's own functions make can't be told what logship tells its own: their receive would
/// not know the messages, or their log not bear them out.
pub(super) fn speaks_plainly() -> bool {
    has(File::ReplShip) || has(File::WalWriter) || has(File::WalRecord)
}

/// The program's `wal_checkpoint_write`, if it has one that is to be called now.
///
/// # Safety
/// As for `wal_checkpoint_write`.
pub(super) unsafe fn write_checkpoint(store: *const kv_store, path: *const c_char, offset: u64) -> Option<c_int> {
    if !is_theirs!(wal_checkpoint_write) {
        return None;
    }
    // SAFETY: the caller's promise.
    enter(Own::Checkpoint, || unsafe { linked!(wal_checkpoint_write)(store, path, offset) })
}

/// The program's `wal_recover`, if it has one that is to be called now.
///
/// # Safety
/// As for `wal_recover`.
pub(super) unsafe fn recover(path: &Path, store: *mut kv_store) -> Option<Result<c_int>> {
    if !has(File::WalRecovery) {
        return None;
    }
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return None };
    // SAFETY: a C string, and the caller's promise.
    let replayed = enter(Own::Recover, || unsafe { linked!(wal_recover)(path.as_ptr(), store) })?;
    Some(if replayed < 0 { Err(last_error()) } else { Ok(replayed) })
}

/// `repl_connect`, as it is linked: a new connection.
pub(super) fn connect(host: &str, port: u16) -> Result<OwnedFd> {
    let host = CString::new(host).map_err(|_| Error::Invalid("a host with a NUL"))?;
    let mut node = repl_node { host: host.as_ptr().cast_mut(), port, fd: -1, online: 0 };
    // SAFETY: a node whose host is a C string.
    if unsafe { linked!(repl_connect)(&raw mut node) } < 0 || node.fd < 0 {
        return Err(last_error());
    }
    // SAFETY: a descriptor that the function has made for its caller.
    Ok(unsafe { OwnedFd::from_raw_fd(node.fd) })
}

/// `repl_accept`, as it is linked.
pub(super) fn accept(listen_fd: c_int) -> Result<OwnedFd> {
    // SAFETY: any number is fine.
    let fd = unsafe { linked!(repl_accept)(listen_fd) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: a descriptor that the function has made for its caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `send_full`, as it is linked.
pub(super) fn send(fd: c_int, bytes: &[u8]) -> Result<()> {
    // SAFETY: readable bytes.
    if unsafe { linked!(send_full)(fd, bytes.as_ptr().cast(), bytes.len()) } < 0 { Err(last_error()) } else { Ok(()) }
}

/// Fills a store in as the program does: by the form of `kv_store_init` that it has, the lesson's or the one with a
/// number of buckets. `None`: it has neither, or has left the work to us.
///
/// # Safety
/// `store` is writable memory that is no live store.
pub(super) unsafe fn init_store(store: *mut kv_store, num_buckets: c_int) -> Option<c_int> {
    if is_theirs!(kv_store_init_sized) {
        // SAFETY: the caller's promise.
        return enter(Own::Init, || unsafe { linked!(kv_store_init_sized)(store, num_buckets) });
    }
    if !is_theirs!(kv_store_init) {
        return None;
    }
    // Compiled against a header of its own, the form with the number has the other's name; and the other does not look
    // at a second argument.
    let init = linked!(kv_store_init) as *const ();
    // SAFETY: in C's calling conventions one argument more does no harm.
    let init: unsafe extern "C" fn(*mut kv_store, c_int) -> c_int = unsafe { std::mem::transmute(init) };
    // SAFETY: the caller's promise.
    enter(Own::Init, || unsafe { init(store, num_buckets) })
}
