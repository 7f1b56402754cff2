//! w10/wal_checkpoint.h: the whole store in one file.
#![allow(unsafe_code, reason = "the C boundary")]

use super::kv_store::kv_store;
use super::locked::{self, LockedStore};
use super::replaced::{self, File};
use super::{claims, guard, ptr};
use crate::wal::{self, checkpoint};
use libc::{c_char, c_int};

/// Writes the store to `checkpoint_path`, to stand for the log's first `wal_offset` bytes: under a temporary name,
/// fsynced, renamed, directory fsynced. The file has the lesson's bytes; what is ours (LSN, history, time stamps,
/// tombstones, a CRC) goes to `<checkpoint_path>.stamps-*` beside it, which belongs to it by its content. Returns 0, or
/// -1 with `errno` EMSGSIZE if a key or value is over 65,535 bytes, EINVAL for NULL, or what the file system says;
/// whatever was at the path stays then. Takes the store's `lock` for reading. A checkpoint never covers a record that
/// its store was not given: of a store that recovery, load or receive have filled a smaller offset is written if it has
/// less than `wal_offset` says. What a program has set by itself is taken at its word. EINVAL too if the log was
/// compacted and it can't be told which of its records the store has.
///
/// # Safety
/// `store` is a live store, `checkpoint_path` a C string.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn wal_checkpoint_write(
    store: *const kv_store,
    checkpoint_path: *const c_char,
    wal_offset: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { write(store, checkpoint_path, wal_offset) }
}

/// # Safety
/// As for [`wal_checkpoint_write`].
unsafe fn write(store: *const kv_store, checkpoint_path: *const c_char, wal_offset: u64) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        let path = unsafe { ptr::path(checkpoint_path) }?;
        // SAFETY: the caller's promise; only the lock is written to.
        let store = unsafe { LockedStore::from_ptr(store.cast_mut()) }?;
        locked::reading(&store, |store| {
            let covered = claims::covered(wal_offset, store.origin())?;
            checkpoint::write(store, path, covered)
        })?;
        Ok(0)
    })
}

/// Another name for `wal_checkpoint_write`.
///
/// # Safety
/// As for `wal_checkpoint_write`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wal_checkpoint(
    store: *const kv_store,
    checkpoint_path: *const c_char,
    wal_offset: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    let theirs = unsafe { replaced::write_checkpoint(store, checkpoint_path, wal_offset) };
    // SAFETY: as above.
    theirs.unwrap_or_else(|| unsafe { write(store, checkpoint_path, wal_offset) })
}

/// Loads a checkpoint into `store`, which must be initialised, by the conflict rule, and writes the offset up to which
/// it stands for the log to `*wal_offset_out`. A file with nothing of ours beside it (a lesson's) loads too. Returns 0,
/// or -1 with
/// `errno` EBADMSG if the file is damaged (the store is unchanged), ENOENT, EINVAL for NULL, ENOMEM. Takes the store's
/// `lock` for writing around each change.
///
/// # Safety
/// `checkpoint_path` is a C string, `store` a live store, `wal_offset_out` writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wal_checkpoint_load(
    checkpoint_path: *const c_char,
    store: *mut kv_store,
    wal_offset_out: *mut u64,
) -> c_int {
    guard::call(|| {
        ptr::check(wal_offset_out)?;
        // SAFETY: the caller's promise.
        let path = unsafe { ptr::path(checkpoint_path) }?;
        // SAFETY: the caller's promise.
        let mut store = unsafe { LockedStore::from_ptr(store) }?;
        let covered = wal::load_checkpoint(path, &mut store)?;
        // SAFETY: not NULL, writable by the caller's promise.
        unsafe { wal_offset_out.write(covered.offset) };
        Ok(0)
    })
}

/// Loads the checkpoint and replays the log behind it. A checkpoint that is missing, damaged, or of another log or
/// another past of this one is passed over, with a log line, and the whole log replayed. Returns how many records of
/// the log were replayed; -1 with `errno` ENOENT if there is no log; EBADMSG if it ends before the checkpoint does, or
/// was compacted and no checkpoint stands for what it has lost, and nothing is changed then; else as `wal_recover`.
///
/// # Safety
/// The paths are C strings, `store` a live store.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wal_recover_with_checkpoint(
    wal_path: *const c_char,
    checkpoint_path: *const c_char,
    store: *mut kv_store,
) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        let wal_path = unsafe { ptr::path(wal_path) }?;
        // SAFETY: the caller's promise.
        let checkpoint_path = unsafe { ptr::path(checkpoint_path) }?;
        // Without a checkpoint this is recovery from the whole log, which is another file's.
        if replaced::has(File::WalRecovery)
            && !wal::is_checkpoint(checkpoint_path)
            // SAFETY: the caller's promise.
            && let Some(replayed) = unsafe { replaced::recover(wal_path, store) }
        {
            return replayed;
        }
        // SAFETY: the caller's promise.
        let mut store = unsafe { LockedStore::from_ptr(store) }?;
        Ok(ptr::count(wal::recover_with_checkpoint(wal_path, checkpoint_path, &mut store)?))
    })
}
