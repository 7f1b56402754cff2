//! w10/wal_recovery.h: the store from the log.
#![allow(unsafe_code, reason = "the C boundary")]

use super::kv_store::kv_store;
use super::locked::LockedStore;
use super::{guard, ptr};
use crate::wal;
use libc::{c_char, c_int};

/// Replays the log at `path` into `store`, which must be initialised, by the conflict rule; records without time stamp
/// apply in log order. Stops at the first record that is damaged or cut, never skips one, and warns with its offset.
/// Returns how many records were replayed (at most INT_MAX); -1 with `errno` ENOENT if there is no file, EINVAL for
/// NULL, ENOMEM, or read(2)'s. An empty file is 0. Takes the store's `lock` for writing around each batch of records;
/// memory beside the store stays under 2 MiB.
///
/// # Safety
/// `path` is a C string, `store` a live store.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn wal_recover(path: *const c_char, store: *mut kv_store) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        let path = unsafe { ptr::path(path) }?;
        // SAFETY: the caller's promise.
        let mut store = unsafe { LockedStore::from_ptr(store) }?;
        Ok(ptr::count(wal::recover(path, &mut store)?))
    })
}
