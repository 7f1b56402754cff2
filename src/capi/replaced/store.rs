//! Applying records to a program's own table, or by its own conflict rule.
#![allow(unsafe_code, reason = "calls functions that the program has brought, and walks its table")]

use super::functions::{is_theirs, linked};
use super::{Own, enter, last_error};
use crate::capi::kv_store::{self as kv, kv_entry, kv_store};
use crate::capi::kv_table::CStore;
use crate::error::{Error, Result};
use crate::kv::{Applied, Entry, StateMachine};
use crate::types::Timestamp;
use crate::wal::record::{Op, Record};
use libc::c_char;
use std::ffi::{CStr, CString};
use std::ptr::null;

/// What repl_resolve_conflict returns for a write that wins.
const APPLY: libc::c_int = 1;

/// A store that is reached through at least one function of the program's. If the table is the program's it has no
/// tombstones: what an older SET revives is the program's affair.
#[derive(Clone, Copy)]
pub(in crate::capi) struct ProgramStore {
    store: *mut kv_store,
    /// The table is this library's, and what the program has brought are functions over it.
    is_ours: bool,
}

impl ProgramStore {
    /// `None` if the struct is NULL, or not initialised.
    ///
    /// # Safety
    /// `store` is NULL, or a store of the program's that outlives the value and that nobody else writes meanwhile.
    pub(in crate::capi) unsafe fn from_ptr(store: *mut kv_store) -> Option<ProgramStore> {
        // SAFETY: not NULL, so it is readable.
        let is_there = !store.is_null() && unsafe { !(*store).buckets.is_null() };
        // SAFETY: the caller's promise.
        let is_ours = is_there && unsafe { CStore::from_ptr(store) }.is_some();
        is_there.then_some(ProgramStore { store, is_ours })
    }

    /// Whether the table is this library's. Then the functions that the program has brought work by way of this
    /// library's others, which must not call them in turn.
    pub(in crate::capi) fn is_our_table(self) -> bool {
        self.is_ours
    }

    /// Every entry of the table, as the lesson's struct lets everyone walk it.
    fn entries(self) -> impl Iterator<Item = *mut kv_entry> {
        // SAFETY: a live store.
        let (buckets, num) = unsafe { ((*self.store).buckets, (*self.store).num_buckets) };
        (0..usize::try_from(num).unwrap_or(0)).flat_map(move |bucket| {
            // SAFETY: within the buckets.
            let first = unsafe { *buckets.add(bucket) };
            // SAFETY: an entry's `next` is NULL or an entry.
            std::iter::successors(entry_at(first), |entry| entry_at(unsafe { (**entry).next }))
        })
    }

    /// The entry of a key, or NULL.
    pub(in crate::capi) fn find(self, key: &CStr) -> *mut kv_entry {
        if is_theirs!(kv_store_find) {
            // SAFETY: a live store and a C string.
            let found = enter(Own::Find, || unsafe { linked!(kv_store_find)(self.store, key.as_ptr()) });
            return found.unwrap_or_else(|| self.find_here(key));
        }
        // SAFETY: as above.
        let get = || unsafe { linked!(kv_store_get)(self.store, key.as_ptr()) };
        if is_theirs!(kv_store_get) && enter(Own::Get, get).is_some_and(|value| value.is_null()) {
            return std::ptr::null_mut();
        }
        self.find_here(key)
    }

    /// The entry of a key by no function of the program's: in a table of its own only the program knows its hash, and
    /// the lesson's functions give no entry.
    fn find_here(self, key: &CStr) -> *mut kv_entry {
        if self.is_ours {
            // SAFETY: a live store and a C string.
            return unsafe { kv::find(self.store, key.as_ptr()) };
        }
        // SAFETY: an entry's key is a C string.
        self.entries().find(|entry| unsafe { CStr::from_ptr((**entry).key) } == key).unwrap_or(std::ptr::null_mut())
    }

    /// Sets a key with its time stamp, whatever is there.
    pub(in crate::capi) fn set(self, key: &CStr, value: &CStr, timestamp: u64) -> Result<()> {
        let (store, key_ptr, value_ptr) = (self.store, key.as_ptr(), value.as_ptr());
        if is_theirs!(kv_store_set_ts) {
            // SAFETY: a live store and C strings.
            let set = enter(Own::SetTs, || unsafe { linked!(kv_store_set_ts)(store, key_ptr, value_ptr, timestamp) });
            return set.map_or_else(|| self.set_here(key, value, timestamp), done);
        }
        // SAFETY: as above.
        let set = || unsafe { linked!(kv_store_set)(store, key_ptr, value_ptr) };
        let Some(set) = is_theirs!(kv_store_set).then(|| enter(Own::Set, set)).flatten() else {
            return self.set_here(key, value, timestamp);
        };
        done(set)?;
        // A store of W09 has no field for it, and no record of W10 a time stamp.
        let entry = if timestamp == 0 { std::ptr::null_mut() } else { self.find(key) };
        if !entry.is_null() {
            // SAFETY: an entry of the store.
            unsafe { (*entry).last_write_ts = timestamp };
        }
        Ok(())
    }

    fn set_here(self, key: &CStr, value: &CStr, timestamp: u64) -> Result<()> {
        if !self.is_ours {
            return Err(Error::Internal("a store of the program's whose functions leave their work to each other"));
        }
        // SAFETY: a live store and C strings.
        unsafe { kv::set(self.store, key.as_ptr(), value.as_ptr(), Some(timestamp)) }.map(drop)
    }

    /// Whether its entries have the field for a time stamp.
    fn has_stamps(self) -> bool {
        self.is_ours || is_theirs!(kv_store_set_ts)
    }

    fn delete(self, key: &CStr) -> Result<()> {
        // SAFETY: a live store and a C string.
        let deleted = enter(Own::Del, || unsafe { linked!(kv_store_del)(self.store, key.as_ptr()) });
        match deleted {
            Some(deleted) => done(deleted),
            // SAFETY: as above.
            None => unsafe { kv::delete(self.store, key.as_ptr()) }.map(drop),
        }
    }
}

/// `None` at the end of a chain.
fn entry_at(entry: *mut kv_entry) -> Option<*mut kv_entry> {
    (!entry.is_null()).then_some(entry)
}

/// 0 and more is success.
fn done(result: libc::c_int) -> Result<()> {
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::Invalid("a key or value with a NUL, for a table of C strings"))
}

/// Whether a record wins over what is there, by the rule that is linked. Two without time stamp are as old as their
/// place in the log; and then the field, which a store of W09 does not have, is not looked at.
///
/// # Safety
/// `entry` is an entry of a live store.
unsafe fn wins(entry: *mut kv_entry, has_stamps: bool, timestamp: u64, incoming: *const c_char) -> bool {
    if timestamp == 0 && !has_stamps {
        return true;
    }
    // SAFETY: the caller's promise.
    let (existing, at) = unsafe { ((*entry).value, (*entry).last_write_ts) };
    if at == 0 && timestamp == 0 {
        return true;
    }
    // SAFETY: C strings, or NULL for a DEL.
    unsafe { linked!(repl_resolve_conflict)(at, timestamp, existing, incoming) == APPLY }
}

impl StateMachine for ProgramStore {
    fn apply(&mut self, record: &Record<'_>) -> Result<Applied> {
        let (key, value) = (c_string(record.key)?, c_string(record.value)?);
        let incoming = if record.op == Op::Set { value.as_ptr() } else { null() };
        let entry = self.find(&key);
        // SAFETY: an entry of the store.
        if !entry.is_null() && !unsafe { wins(entry, self.has_stamps(), record.timestamp.0, incoming) } {
            return Ok(Applied::Skipped);
        }
        match record.op {
            Op::Set => self.set(&key, &value, record.timestamp.0)?,
            Op::Del => self.delete(&key)?,
        }
        Ok(Applied::Applied)
    }

    fn forget(&mut self, key: &[u8]) -> Result<()> {
        self.delete(&c_string(key)?)
    }

    fn live(&self) -> usize {
        self.entries().count()
    }

    fn for_each(&self, visit: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        for entry in self.entries() {
            // SAFETY: an entry's key is a C string.
            let key = unsafe { CStr::from_ptr((*entry).key) }.to_bytes();
            // SAFETY: so is its value.
            let value = Some(unsafe { CStr::from_ptr((*entry).value) }.to_bytes());
            // SAFETY: an entry with the field.
            let timestamp = if self.has_stamps() { unsafe { (*entry).last_write_ts } } else { 0 };
            visit(Entry { key, value, timestamp: Timestamp(timestamp) })?;
        }
        Ok(())
    }
}
