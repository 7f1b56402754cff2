//! w09/kv_store.h: the store's C functions. Each checks its pointers, calls the table, sets errno last.
#![allow(unsafe_code, reason = "the C boundary")]
#![allow(non_camel_case_types, reason = "C's names")]

use crate::capi::errno;
use crate::capi::guard::guard;
use crate::capi::kv_table::{self, Bytes, CStore};
use crate::capi::locked::AnyStore;
use crate::capi::replaced::store::ProgramStore;
use crate::capi::replaced::{self, File};
use crate::capi::wal_record::wal_record;
use crate::error::{Error, Result};
use crate::kv::{Applied, StateMachine};
use crate::types::Timestamp;
use crate::wal::record::{Op, Record};
use libc::{c_char, c_int, c_uint, pthread_rwlock_t};
use std::ffi::CStr;
use std::ptr::null_mut;

/// One key with its value, in the chain of its bucket. `key` and `value` end with a NUL and are never NULL. Programs
/// may read all of it and change `last_write_ts`.
#[repr(C)]
pub struct kv_entry {
    /// The key.
    pub key: *mut c_char,
    /// The value.
    pub value: *mut c_char,
    /// The next entry of the same bucket, or NULL.
    pub next: *mut kv_entry,
    /// When the value was written; 0 if nobody said.
    pub last_write_ts: u64,
}

/// A hash table with chains. Every entry is in bucket `kv_hash(key, num_buckets)`, no key is there twice.
#[repr(C)]
pub struct kv_store {
    /// `num_buckets` chains; NULL when the store is not initialised or destroyed.
    pub buckets: *mut *mut kv_entry,
    /// Grows as keys come.
    pub num_buckets: c_int,
    /// For the program: the calls below never take it.
    pub lock: pthread_rwlock_t,
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(kv_entry, key) == 0);
    assert!(offset_of!(kv_entry, value) == 8);
    assert!(offset_of!(kv_entry, next) == 16);
    assert!(offset_of!(kv_entry, last_write_ts) == 24);
    assert!(size_of::<kv_entry>() == 32);
    assert!(offset_of!(kv_store, buckets) == 0);
    assert!(offset_of!(kv_store, num_buckets) == 8);
    assert!(offset_of!(kv_store, lock) == 16);
    assert!(size_of::<kv_store>() == 16 + size_of::<pthread_rwlock_t>());
};

/// Makes an empty store of 64 buckets in `*store`, whatever that memory holds. Returns 0, or -1 with `errno` ENOMEM, or
/// EINVAL if `store` is NULL. `kv_store_destroy` releases it. (`kv_store_init(&store, n)` is `kv_store_init_sized`.)
///
/// # Safety
/// `store` is NULL or writable memory that is no live store.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn kv_store_init(store: *mut kv_store) -> c_int {
    // SAFETY: what the caller promises.
    guard(-1, || unsafe { status(create(store, kv_table::DEFAULT_BUCKETS)) })
}

/// Makes an empty store that begins with `num_buckets` buckets. Returns 0, or -1 with `errno` ENOMEM, or EINVAL if
/// `store` is NULL or `num_buckets` not above 0. The number grows when there are more keys than buckets, and more than
/// 64.
///
/// # Safety
/// `store` is NULL or writable memory that is no live store.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn kv_store_init_sized(store: *mut kv_store, num_buckets: c_int) -> c_int {
    // SAFETY: what the caller promises.
    guard(-1, || unsafe { status(create(store, num_buckets)) })
}

/// Sets `key` to a copy of `value`, whatever is there. The key keeps its time stamp; a new key gets that of its
/// tombstone, which is cleared, else 0. Returns 0, or -1 with `errno` ENOMEM (nothing is changed then) or EINVAL if an
/// argument is NULL or the store not initialised. `num_buckets` may grow; entries and values of other keys stay where
/// they are. Never takes `lock`: no other call on this store may run at the same time.
///
/// # Safety
/// `store` is NULL, zeroed, or a store; the strings are NULL or end with a NUL, and may be parts of the store.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn kv_store_set(store: *mut kv_store, key: *const c_char, value: *const c_char) -> c_int {
    // SAFETY: what the caller promises.
    guard(-1, || unsafe { status(set(store, key, value, None)) })
}

/// Sets `key` to a copy of `value` with the time stamp `ts`, whatever is there; a tombstone is cleared. Returns and
/// rules as for `kv_store_set`.
///
/// # Safety
/// As for `kv_store_set`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn kv_store_set_ts(
    store: *mut kv_store,
    key: *const c_char,
    value: *const c_char,
    ts: u64,
) -> c_int {
    // SAFETY: what the caller promises.
    guard(-1, || unsafe { status(set(store, key, value, Some(ts))) })
}

/// Returns the value of `key`, or NULL if it is absent. The string is the store's: it is valid until that key is set or
/// deleted or the store destroyed, and must not be freed. NULL with `errno` EINVAL if an argument is NULL or the store
/// not initialised. Writes nothing and takes no lock: several threads may call it at once, while nobody writes.
///
/// # Safety
/// `store` is NULL, zeroed, or a store; `key` is NULL or ends with a NUL.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn kv_store_get(store: *const kv_store, key: *const c_char) -> *mut c_char {
    // SAFETY: what the caller promises.
    let entry = unsafe { find(store, key) };
    if entry.is_null() {
        return null_mut();
    }
    // SAFETY: an entry of the store, whole until its key changes.
    unsafe { (*entry).value }
}

/// Returns the entry of `key`, with its value and time stamp, or NULL if it is absent. Valid, owned and safe between
/// threads as `kv_store_get`'s string is.
///
/// # Safety
/// As for `kv_store_get`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn kv_store_find(store: *const kv_store, key: *const c_char) -> *mut kv_entry {
    // SAFETY: what the caller promises.
    unsafe { find(store, key) }
}

/// Deletes `key`. Returns 1, or 0 if it is absent (no error; with `errno` EINVAL if the store is not initialised), or
/// -1 with `errno` EINVAL if an argument is NULL, or ENOMEM (nothing is changed then). If the key has a time stamp, a
/// tombstone with it stays behind, which no program sees but `kv_store_apply` and checkpoints heed. Threads as for
/// `kv_store_set`.
///
/// # Safety
/// `store` is NULL, zeroed, or a store; `key` is NULL or ends with a NUL, and may be a part of the store.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn kv_store_del(store: *mut kv_store, key: *const c_char) -> c_int {
    // SAFETY: what the caller promises.
    guard(-1, || unsafe { status(delete(store, key)) })
}

/// Returns how many live keys the store holds (at most INT_MAX); 0 with `errno` EINVAL if it is not initialised, -1
/// with EINVAL if `store` is NULL. Threads as for `kv_store_get`.
///
/// # Safety
/// `store` is NULL, zeroed, or a store.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_store_count(store: *const kv_store) -> c_int {
    // SAFETY: what the caller promises; nothing is written through it.
    match unsafe { CStore::from_ptr(store.cast_mut()) } {
        Some(store) => c_int::try_from(store.live()).unwrap_or(c_int::MAX),
        None => {
            // SAFETY: as above.
            if let Some(theirs) = unsafe { their_store(store.cast_mut()) } {
                return c_int::try_from(theirs.live()).unwrap_or(c_int::MAX);
            }
            errno::set(libc::EINVAL);
            if store.is_null() { -1 } else { 0 }
        }
    }
}

/// Releases everything that the store holds. Safe on NULL, on a zeroed struct, and twice; `errno` is left alone.
///
/// # Safety
/// `store` is NULL, zeroed, or a store; no other call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_store_destroy(store: *mut kv_store) {
    guard((), || {
        // SAFETY: what the caller promises.
        if let Some(store) = unsafe { CStore::from_ptr(store) } {
            store.destroy();
        }
    });
}

/// Returns the bucket, below `num_buckets`, in which a store with that many buckets keeps `key`; 0 with `errno` EINVAL
/// if `key` is NULL or `num_buckets` not above 0. The same in every run. Safe in any thread.
///
/// # Safety
/// `key` is NULL or ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_hash(key: *const c_char, num_buckets: c_int) -> c_uint {
    match u32::try_from(num_buckets) {
        // SAFETY: what the caller promises.
        Ok(num @ 1..) if !key.is_null() => unsafe { kv_table::bucket(key, num) },
        _ => {
            errno::set(libc::EINVAL);
            0
        }
    }
}

/// Applies a record by the conflict rule: the higher time stamp wins, then the greater value, and a DEL leaves a
/// tombstone. Returns 1 if it was applied, 0 if an equal or newer write was there already, or -1 with `errno` ENOMEM
/// (nothing is changed then), or EINVAL if an argument is NULL or out of range or the store not initialised. The record
/// stays the caller's; its lengths count, so key and value need no NUL and may contain some. Never takes `lock`;
/// threads as for `kv_store_set`.
///
/// # Safety
/// `store` is NULL, zeroed, or a store; `record` is NULL or points to a record whose strings have their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_store_apply(store: *mut kv_store, record: *const wal_record) -> c_int {
    // SAFETY: what the caller promises.
    guard(-1, || unsafe { status(apply(store, record)) })
}

/// What a C function returns, with `errno` set for an error.
#[inline]
fn status(result: Result<c_int>) -> c_int {
    result.unwrap_or_else(|error| {
        let code = error.code();
        let errno = error.errno();
        drop(error);
        errno::set(errno);
        code
    })
}

#[inline]
unsafe fn create(store: *mut kv_store, num_buckets: c_int) -> Result<c_int> {
    if store.is_null() {
        return Err(Error::Invalid("store is NULL"));
    }
    if replaced::has(File::KvStore) {
        // SAFETY: not NULL; the rest is the caller's promise.
        if let Some(result) = unsafe { replaced::init_store(store, num_buckets) } {
            return Ok(result);
        }
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    unsafe { CStore::create(store, num_buckets) }.map(|()| 0)
}

#[inline]
pub(super) unsafe fn set(
    store: *mut kv_store,
    key: *const c_char,
    value: *const c_char,
    ts: Option<u64>,
) -> Result<c_int> {
    // SAFETY: what the caller promises.
    if let Some(ts) = ts.filter(|_| replaced::has(File::KvStore) && !key.is_null() && !value.is_null())
        // SAFETY: what the caller promises.
        && let Some(theirs) = unsafe { their_store(store) }
        && !theirs.is_our_table()
    {
        // SAFETY: what the caller promises.
        let (key, value) = unsafe { (CStr::from_ptr(key), CStr::from_ptr(value)) };
        return theirs.set(key, value, ts).map(|()| 0);
    }
    // SAFETY: what the caller promises.
    let Some(mut store) = (unsafe { CStore::from_ptr(store) }).filter(|_| !key.is_null() && !value.is_null()) else {
        return Err(Error::Invalid("an argument is NULL, or the store is not initialised"));
    };
    store.note_program();
    // SAFETY: a C string, which stays as it is until this call changes the store.
    let key = unsafe { store.key(key) };
    // SAFETY: as above.
    let value = unsafe { Bytes::of_c_string(value) };
    // SAFETY: as above.
    unsafe { store.set(key, value, ts) }.map(|()| 0)
}

#[inline]
pub(super) unsafe fn delete(store: *mut kv_store, key: *const c_char) -> Result<c_int> {
    if store.is_null() || key.is_null() {
        return Err(Error::Invalid("store or key is NULL"));
    }
    // SAFETY: what the caller promises.
    let Some(mut store) = (unsafe { CStore::from_ptr(store) }) else {
        errno::set(libc::EINVAL);
        return Ok(0);
    };
    store.note_program();
    // SAFETY: a C string, which stays as it is until this call changes the store.
    let key = unsafe { store.key(key) };
    // SAFETY: as above.
    unsafe { store.delete(key) }.map(c_int::from)
}

#[inline]
pub(super) unsafe fn find(store: *const kv_store, key: *const c_char) -> *mut kv_entry {
    // SAFETY: what the caller promises; nothing is written through it.
    let Some(table) = (unsafe { CStore::from_ptr(store.cast_mut()) }).filter(|_| !key.is_null()) else {
        // SAFETY: what the caller promises.
        return unsafe { find_in_theirs(store, key) };
    };
    // SAFETY: a C string.
    let key = unsafe { table.key(key) };
    // SAFETY: as above.
    unsafe { table.find(key) }
}

/// [`find`] where there is no table of ours: in the program's, if it has brought one. Apart, so that a look-up in ours
/// is short.
///
/// # Safety
/// As for `kv_store_find`.
#[cold]
#[inline(never)]
unsafe fn find_in_theirs(store: *const kv_store, key: *const c_char) -> *mut kv_entry {
    // SAFETY: the caller's promise.
    match unsafe { their_store(store.cast_mut()) } {
        // SAFETY: as above.
        Some(theirs) if !key.is_null() => theirs.find(unsafe { CStr::from_ptr(key) }),
        _ => {
            errno::set(libc::EINVAL);
            null_mut()
        }
    }
}

/// A store whose table is the program's, of which this file's functions serve those that the program has not brought.
///
/// # Safety
/// `store` is NULL, zeroed, or a live store that outlives the value.
#[cold]
unsafe fn their_store(store: *mut kv_store) -> Option<ProgramStore> {
    // SAFETY: the caller's promise.
    if replaced::has(File::KvStore) { unsafe { ProgramStore::from_ptr(store) } } else { None }
}

unsafe fn apply(store: *mut kv_store, record: *const wal_record) -> Result<c_int> {
    // SAFETY: what the caller promises.
    let store = unsafe { AnyStore::from_ptr(store) };
    // SAFETY: as above; nobody writes the record meanwhile.
    let (Some(mut store), Some(record)) = (store, unsafe { record.as_ref() }) else {
        return Err(Error::Invalid("an argument is NULL, or the store is not initialised"));
    };
    let op = Op::from_byte(record.op).ok_or(Error::Invalid("no such op"))?;
    let value_len = if op == Op::Set { usize::from(record.value_len) } else { 0 };
    if record.key.is_null() || record.key_len == 0 || (record.value.is_null() && value_len > 0) {
        return Err(Error::Invalid("the record has no key or no value"));
    }
    // SAFETY: not NULL, and as long as the record says.
    let key = unsafe { std::slice::from_raw_parts(record.key.cast(), usize::from(record.key_len)) };
    let value = match value_len {
        0 => &[][..],
        // SAFETY: as above.
        len => unsafe { std::slice::from_raw_parts(record.value.cast(), len) },
    };
    if let AnyStore::Ours(store) = &mut store {
        store.note_program();
    }
    let applied = store.apply(&Record { op, key, value, timestamp: Timestamp(record.timestamp) })?;
    Ok(c_int::from(applied == Applied::Applied))
}
