//! The table behind `struct kv_store`: a true C table, because the course's tests walk its buckets.
//!
//! What C sees is `buckets` and the entries in them. Everything else (the counts, the memory, the tombstones) is a
//! [`Table`] on the heap, found through a head in front of the buckets that carries a magic number. So a struct that is
//! zeroed, destroyed or somebody else's is told apart from a store, and the visible struct needs no further field.
//! Tombstones are entries too, in chains of their own that no program walks.
//! May touch: memory only. Decides no conflict: `kv::lww` does.
#![allow(unsafe_code, reason = "the course's tests walk this table: its pointers are C's")]
#![allow(clippy::cast_possible_truncation, reason = "lengths are checked against LONGEST where they come in")]

mod arena;
mod chains;
mod entry;
mod key;
#[cfg(test)]
mod tests;

use crate::capi::kv_store::{kv_entry, kv_store};
use crate::error::{Error, Result};
use crate::kv::lww::{self, Existing};
use crate::kv::{Applied, Entry as Visited, StateMachine};
use crate::types::Timestamp;
use crate::wal::checkpoint::Covered;
use crate::wal::record::{Op, Record};
use arena::Arena;
use chains::{Chains, Link};
use entry::Entry;
pub(crate) use key::{Bytes, Key};
use libc::{c_char, c_int};
use std::ptr::{NonNull, null_mut};

/// The longest key or value: an entry keeps both lengths in 32 bits.
const LONGEST: usize = u32::MAX as usize;
/// The buckets of a store when the program doesn't choose.
pub(crate) const DEFAULT_BUCKETS: c_int = 64;
/// The buckets for tombstones, once there is one.
const GRAVES: u32 = 64;
/// How many records [`CStore::apply_all`] looks ahead.
const AHEAD: usize = 16;

/// The allocation failed; nothing was changed.
#[derive(Debug)]
struct NoMemory;

type Alloc<T> = std::result::Result<T, NoMemory>;

impl From<NoMemory> for Error {
    fn from(_: NoMemory) -> Error {
        Error::OutOfMemory
    }
}

/// Everything of a store that C does not see.
struct Table {
    live: Chains,
    dead: Chains,
    arena: Arena,
    origin: Origin,
}

/// Where the content of a store has come from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin {
    /// Up to where of a log this library has given it every record.
    pub(crate) given: Covered,
    /// Whether the program has changed it by itself.
    pub(crate) is_programs: bool,
}

impl Table {
    fn set(&mut self, key: Key, value: Bytes, timestamp: Option<u64>) -> Alloc<()> {
        let link = self.live.find(key);
        let grave = if link.is_none() { self.dead.find(key) } else { None };
        let before = link.or(grave).map_or(0, |link| link.entry.timestamp());
        self.put(link, grave, key, value, timestamp.unwrap_or(before))
    }

    fn delete(&mut self, key: Key) -> Alloc<bool> {
        match self.live.find(key) {
            Some(link) => self.bury(link, link.entry.timestamp()).map(|()| true),
            None => Ok(false),
        }
    }

    #[inline]
    fn apply(&mut self, key: Key, value: Option<Bytes>, timestamp: u64) -> Alloc<Applied> {
        let link = self.live.find(key);
        let grave = if link.is_none() { self.dead.find(key) } else { None };
        if !wins(link, grave, value, timestamp) {
            return Ok(Applied::Skipped);
        }
        match (value, link, grave) {
            (Some(value), _, _) => self.put(link, grave, key, value, timestamp)?,
            (None, Some(link), _) => self.bury(link, timestamp)?,
            (None, None, Some(grave)) => grave.entry.set_timestamp(timestamp),
            (None, None, None) if timestamp == 0 => {}
            (None, None, None) => {
                self.dead.reserve(GRAVES)?;
                let grave = Entry::new(&mut self.arena, key, Bytes::EMPTY, timestamp)?;
                self.dead.insert(grave);
            }
        }
        Ok(Applied::Applied)
    }

    /// Sets a key whose entry or tombstone the caller has looked up.
    #[inline]
    fn put(&mut self, link: Option<Link>, grave: Option<Link>, key: Key, value: Bytes, at: u64) -> Alloc<()> {
        let Some(link) = link else {
            let entry = Entry::new(&mut self.arena, key, value, at)?;
            if let Some(grave) = grave {
                self.dead.remove(grave);
                // SAFETY: it is in no chain any more, and C never saw it.
                unsafe { grave.entry.free(&mut self.arena) };
            }
            self.live.insert(entry);
            return Ok(());
        };
        if link.entry.suits(value.len) {
            // SAFETY: it fits.
            unsafe { link.entry.overwrite(value) };
            link.entry.set_timestamp(at);
        } else {
            let entry = Entry::new(&mut self.arena, key, value, at)?;
            self.live.replace(link, entry);
            // SAFETY: it is in no chain any more; pointers that C has into it were good until its key changed.
            unsafe { link.entry.free(&mut self.arena) };
        }
        Ok(())
    }

    /// Takes an entry out of the live ones, and leaves a tombstone if there is a time stamp to remember.
    fn bury(&mut self, link: Link, timestamp: u64) -> Alloc<()> {
        if timestamp > 0 {
            self.dead.reserve(GRAVES)?;
        }
        let entry = link.entry;
        self.live.remove(link);
        let mut grave = None;
        if timestamp > 0 && entry.outgrows_key() {
            grave = Entry::new(&mut self.arena, entry.key(), Bytes::EMPTY, timestamp).ok();
        }
        if timestamp > 0 && grave.is_none() {
            // The entry itself can be the tombstone: so a DEL needs no memory.
            // SAFETY: no value is longer than none.
            unsafe { entry.overwrite(Bytes::EMPTY) };
            entry.set_timestamp(timestamp);
            self.dead.insert(entry);
            return Ok(());
        }
        // SAFETY: it is in no chain any more; pointers that C has into it were good until its key changed.
        unsafe { entry.free(&mut self.arena) };
        if let Some(grave) = grave {
            self.dead.insert(grave);
        }
        Ok(())
    }

    /// Takes a key out without a trace.
    fn forget(&mut self, key: Key) {
        for chains in [&mut self.live, &mut self.dead] {
            if let Some(link) = chains.find(key) {
                chains.remove(link);
                // SAFETY: it is in no chain any more; pointers that C has into it were good until its key changed.
                unsafe { link.entry.free(&mut self.arena) };
            }
        }
    }

    fn release(&mut self) {
        for chains in [&self.live, &self.dead] {
            if self.arena.large() == 0 {
                break;
            }
            for entry in chains.iter().filter(|entry| entry.is_large()) {
                // SAFETY: nobody uses the chains any more: they are released below.
                unsafe { entry.free(&mut self.arena) };
            }
        }
        self.live.release();
        self.dead.release();
        self.arena.release_all();
    }
}

/// Whether a write wins over what the table has of its key.
#[inline]
fn wins(link: Option<Link>, grave: Option<Link>, value: Option<Bytes>, timestamp: u64) -> bool {
    let existing = match (link, grave) {
        (None, None) => return true,
        (Some(link), _) => {
            // SAFETY: an entry's value is readable, and nothing is written before the slice is gone.
            Existing::Live(Timestamp(link.entry.timestamp()), unsafe { link.entry.value().as_slice() })
        }
        (None, Some(grave)) => Existing::Dead(Timestamp(grave.entry.timestamp())),
    };
    // SAFETY: the argument is readable, and nothing is written before the slice is gone.
    let incoming = value.map(|value| unsafe { value.as_slice() });
    lww::wins(existing, Timestamp(timestamp), incoming)
}

/// A `struct kv_store` that was checked: a live store of this library.
pub(crate) struct CStore {
    store: NonNull<kv_store>,
    /// Found once: the head that names it moves when the buckets grow.
    table: NonNull<Table>,
}

impl CStore {
    /// The store, or `None` if the struct is NULL, zeroed, destroyed, or has buckets that this library didn't make.
    ///
    /// # Safety
    /// If not NULL it is initialised, zeroed or destroyed, and lives as long as the result. While the result is used
    /// nobody else writes the store; if it is written through, nobody else reads it either.
    #[inline]
    pub(crate) unsafe fn from_ptr(store: *mut kv_store) -> Option<CStore> {
        let store = NonNull::new(store)?;
        // SAFETY: not NULL, so it is readable.
        let buckets = unsafe { (*store.as_ptr()).buckets };
        // SAFETY: NULL, or buckets that an allocation begins some bytes before: ours, or a program's own.
        let owner = unsafe { chains::owner_of(buckets) };
        Some(CStore { store, table: NonNull::new(owner)? })
    }

    /// Makes a store in memory that may hold anything.
    ///
    /// # Safety
    /// Writable, and no live store.
    pub(crate) unsafe fn create(store: *mut kv_store, num_buckets: c_int) -> Result<()> {
        let num = u32::try_from(num_buckets).ok().filter(|num| *num > 0);
        let num = num.ok_or(Error::Invalid("a store needs buckets"))?;
        let owner: NonNull<Table> = arena::malloc(size_of::<Table>())?.cast();
        let mut live = Chains::new(owner.as_ptr());
        if live.reserve(num).is_err() {
            // SAFETY: allocated above.
            unsafe { libc::free(owner.as_ptr().cast()) };
            return Err(Error::OutOfMemory);
        }
        let buckets = live.buckets();
        // SAFETY: allocated above, large enough, and aligned as malloc does.
        unsafe {
            owner.write(Table { live, dead: Chains::new(null_mut()), arena: Arena::new(), origin: Origin::default() })
        };
        // SAFETY: writable, says the caller.
        unsafe { (*store).buckets = buckets };
        // SAFETY: as above.
        unsafe { (*store).num_buckets = num_buckets };
        // SAFETY: as above.
        let lock = unsafe { &raw mut (*store).lock };
        // SAFETY: it is no live lock.
        unsafe { init_lock(lock) };
        Ok(())
    }

    /// Releases everything and leaves a struct that is known to be destroyed.
    pub(crate) fn destroy(mut self) {
        let store = self.store.as_ptr();
        self.table_mut().release();
        // SAFETY: `create` got it from malloc. It has nothing left to drop.
        unsafe { libc::free(self.table.as_ptr().cast()) };
        // SAFETY: a live store is writable.
        unsafe { (*store).buckets = null_mut() };
        // SAFETY: as above.
        unsafe { (*store).num_buckets = 0 };
        // SAFETY: as above.
        let lock = unsafe { &raw mut (*store).lock };
        // SAFETY: `create` initialised it.
        unsafe { libc::pthread_rwlock_destroy(lock) };
    }

    /// A key for the calls below. Its bucket is asked for from memory already.
    ///
    /// # Safety
    /// A C string, which stays as it is while the key is used. It may be a part of the store.
    #[inline]
    pub(crate) unsafe fn key(&self, key: *const c_char) -> Key {
        // SAFETY: as above.
        let key = unsafe { Key::of_c_string(key) };
        self.table().live.prefetch_bucket(key.hash);
        key
    }

    /// The entry of a key, or NULL.
    ///
    /// # Safety
    /// The key is readable.
    #[inline]
    pub(crate) unsafe fn find(&self, key: Key) -> *mut kv_entry {
        self.table().live.find(key).map_or(null_mut(), |link| link.entry.as_ptr())
    }

    /// Sets a key, whatever is there: with the time stamp, or with the one that the key or its tombstone has.
    ///
    /// # Safety
    /// Both are readable. They may be parts of the store.
    #[inline]
    pub(crate) unsafe fn set(&mut self, key: Key, value: Bytes, timestamp: Option<u64>) -> Result<()> {
        check(key, value)?;
        self.table_mut().set(key, value, timestamp)?;
        self.publish();
        Ok(())
    }

    /// Deletes a key and leaves a tombstone; `false` if it wasn't there.
    ///
    /// # Safety
    /// The key is readable. It may be a part of the store.
    #[inline]
    pub(crate) unsafe fn delete(&mut self, key: Key) -> Result<bool> {
        Ok(self.table_mut().delete(key)?)
    }

    #[inline]
    fn table(&self) -> &Table {
        // SAFETY: a live store's table, which C doesn't see. A shared reference: lookups in several threads may hold
        // one each.
        unsafe { self.table.as_ref() }
    }

    #[inline]
    fn table_mut(&mut self) -> &mut Table {
        // SAFETY: as in `table`; whoever writes has the store alone.
        unsafe { self.table.as_mut() }
    }

    /// Where its content has come from.
    pub(crate) fn origin(&self) -> Origin {
        self.table().origin
    }

    /// Notes that the program changes it by itself.
    #[inline]
    pub(crate) fn note_program(&mut self) {
        self.table_mut().origin.is_programs = true;
    }

    /// Shows C the buckets, which may have grown.
    #[inline]
    fn publish(&mut self) {
        let (buckets, num) = (self.table().live.buckets(), self.table().live.num());
        let store = self.store.as_ptr();
        // SAFETY: a live store is writable, and whoever writes has it alone.
        unsafe { (*store).buckets = buckets };
        // SAFETY: as above. `grow` stays within an `int`.
        unsafe { (*store).num_buckets = num.cast_signed() };
    }

    /// Applies a record whose key is hashed already.
    #[inline]
    fn apply_hashed(&mut self, key: Key, record: &Record<'_>) -> Result<Applied> {
        let value = match record.op {
            Op::Set => Some(Bytes::from(record.value)),
            Op::Del => None,
        };
        check(key, value.unwrap_or(Bytes::EMPTY))?;
        let applied = self.table_mut().apply(key, value, record.timestamp.0)?;
        self.publish();
        Ok(applied)
    }
}

/// Refuses what an entry can't hold.
#[inline]
fn check(key: Key, value: Bytes) -> Result<()> {
    if key.bytes.len > LONGEST || value.len > LONGEST {
        return Err(Error::TooLarge("a key or value of 4 GiB"));
    }
    Ok(())
}

impl StateMachine for CStore {
    fn apply(&mut self, record: &Record<'_>) -> Result<Applied> {
        self.apply_hashed(Key::new(record.key), record)
    }

    /// Each record's bucket is asked for 16 records before it is needed, and the entry there 8 before: the waits for
    /// memory overlap, which is most of what applying a record costs.
    fn apply_all(&mut self, records: &[Record<'_>]) -> Result<()> {
        let mut keys = [Key::new(b""); 2 * AHEAD];
        for step in 0..records.len() + AHEAD {
            if let Some(record) = records.get(step) {
                let key = Key::new(record.key);
                self.table().live.prefetch_bucket(key.hash);
                keys[step % keys.len()] = key;
            }
            if step >= AHEAD / 2 {
                let key = keys[(step - AHEAD / 2) % keys.len()];
                self.table().live.prefetch_entry(key.hash);
            }
            if step >= AHEAD {
                self.apply_hashed(keys[(step - AHEAD) % keys.len()], &records[step - AHEAD])?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, key: &[u8]) -> Result<()> {
        self.table_mut().forget(Key::new(key));
        Ok(())
    }

    fn note_given(&mut self, given: Covered) {
        self.table_mut().origin.given = given;
    }

    fn given(&self) -> Option<Covered> {
        Some(self.table().origin.given)
    }

    fn live(&self) -> usize {
        self.table().live.count()
    }

    fn for_each(&self, visit: &mut dyn FnMut(Visited<'_>) -> Result<()>) -> Result<()> {
        let table = self.table();
        let live = table.live.iter().map(|entry| (entry, true));
        let dead = table.dead.iter().map(|entry| (entry, false));
        for (entry, is_live) in live.chain(dead) {
            // SAFETY: an entry's key is readable, and nobody writes the store while it is borrowed.
            let key = unsafe { entry.key().bytes.as_slice() };
            // SAFETY: as above.
            let value = is_live.then(|| unsafe { entry.value().as_slice() });
            visit(Visited { key, value, timestamp: Timestamp(entry.timestamp()) })?;
        }
        Ok(())
    }
}

/// The bucket of a key, for a program that hashes by itself.
///
/// # Safety
/// A C string.
#[inline]
pub(crate) unsafe fn bucket(key: *const c_char, num_buckets: u32) -> u32 {
    // SAFETY: as above.
    let key = unsafe { Key::of_c_string(key) };
    key::bucket_of(key.hash, num_buckets) as u32
}

unsafe extern "C" {
    // glibc; the libc crate does not declare it.
    fn pthread_rwlockattr_setkind_np(attributes: *mut libc::pthread_rwlockattr_t, kind: c_int) -> c_int;
}

/// glibc's PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP.
const PREFER_WRITER: c_int = 2;

/// Initialises the lock so that a waiting writer goes before new readers: with the default, programs whose threads read
/// all the time would keep receive and recovery out for ever. None of this can fail on Linux.
///
/// # Safety
/// `lock` is writable and no live lock.
unsafe fn init_lock(lock: *mut libc::pthread_rwlock_t) {
    let mut attributes = std::mem::MaybeUninit::uninit();
    // SAFETY: room for the attributes, which this call initialises.
    unsafe { libc::pthread_rwlockattr_init(attributes.as_mut_ptr()) };
    // SAFETY: initialised just now.
    unsafe { pthread_rwlockattr_setkind_np(attributes.as_mut_ptr(), PREFER_WRITER) };
    // SAFETY: the caller's promise, and live attributes.
    unsafe { libc::pthread_rwlock_init(lock, attributes.as_ptr()) };
    // SAFETY: initialised above and not used any more.
    unsafe { libc::pthread_rwlockattr_destroy(attributes.as_mut_ptr()) };
}
