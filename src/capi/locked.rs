//! The store as receive, recovery and load use it: with its `lock` taken for writing around each change, so that a
//! program's own read-locked GETs are safe beside them; a checkpoint takes it for reading.
#![allow(unsafe_code, reason = "the visible rwlock is taken through its pointer")]

use super::kv_store::kv_store;
use super::kv_table::{CStore, Origin};
use super::replaced::store::ProgramStore;
use super::replaced::{self, File};
use crate::error::{Error, Result};
use crate::kv::{Applied, Entry, StateMachine};
use crate::wal::checkpoint::Covered;
use crate::wal::record::Record;
use libc::{CLOCK_REALTIME, c_int, pthread_rwlock_t, timespec};

/// A lock that nobody lets go of in this time is an error, not a hang.
const LOCK_TIMEOUT_S: libc::time_t = 5;

unsafe extern "C" {
    // The libc crate does not declare them. ThreadSanitizer knows these; of the ones with a clock of the caller's
    // choice it knows nothing, and takes what they guard for races.
    fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
    fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
}

/// How a lock is taken: at once if it is free, else by waiting.
struct LockCalls {
    now: unsafe extern "C" fn(*mut pthread_rwlock_t) -> c_int,
    until: unsafe extern "C" fn(*mut pthread_rwlock_t, *const timespec) -> c_int,
}

const WRITE: LockCalls = LockCalls { now: libc::pthread_rwlock_trywrlock, until: pthread_rwlock_timedwrlock };
const READ: LockCalls = LockCalls { now: libc::pthread_rwlock_tryrdlock, until: pthread_rwlock_timedrdlock };

/// A C store and its lock.
pub(super) struct LockedStore {
    store: AnyStore,
    lock: *mut pthread_rwlock_t,
}

/// A store of this library's, or one of which table or rule are the program's.
pub(super) enum AnyStore {
    Ours(CStore),
    Theirs(ProgramStore),
}

impl AnyStore {
    /// # Safety
    /// `store` is NULL, zeroed, or a live store that outlives the value.
    pub(super) unsafe fn from_ptr(store: *mut kv_store) -> Option<AnyStore> {
        if replaced::has(File::KvStore) || replaced::has(File::ReplConflict) {
            // SAFETY: the caller's promise.
            return unsafe { ProgramStore::from_ptr(store) }.map(AnyStore::Theirs);
        }
        // SAFETY: the caller's promise.
        unsafe { CStore::from_ptr(store) }.map(AnyStore::Ours)
    }
}

impl AnyStore {
    /// Where its content has come from; of a program's own table nobody knows.
    pub(super) fn origin(&self) -> Option<Origin> {
        match self {
            AnyStore::Ours(store) => Some(store.origin()),
            AnyStore::Theirs(_) => None,
        }
    }
}

impl StateMachine for AnyStore {
    fn apply(&mut self, record: &Record<'_>) -> Result<Applied> {
        match self {
            AnyStore::Ours(store) => store.apply(record),
            AnyStore::Theirs(store) => store.apply(record),
        }
    }

    fn apply_all(&mut self, records: &[Record<'_>]) -> Result<()> {
        match self {
            AnyStore::Ours(store) => store.apply_all(records),
            AnyStore::Theirs(store) => store.apply_all(records),
        }
    }

    fn forget(&mut self, key: &[u8]) -> Result<()> {
        match self {
            AnyStore::Ours(store) => store.forget(key),
            AnyStore::Theirs(store) => store.forget(key),
        }
    }

    fn note_given(&mut self, given: Covered) {
        match self {
            AnyStore::Ours(store) => store.note_given(given),
            AnyStore::Theirs(store) => store.note_given(given),
        }
    }

    fn given(&self) -> Option<Covered> {
        match self {
            AnyStore::Ours(store) => store.given(),
            AnyStore::Theirs(store) => store.given(),
        }
    }

    fn live(&self) -> usize {
        match self {
            AnyStore::Ours(store) => store.live(),
            AnyStore::Theirs(store) => store.live(),
        }
    }

    fn for_each(&self, visit: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        match self {
            AnyStore::Ours(store) => store.for_each(visit),
            AnyStore::Theirs(store) => store.for_each(visit),
        }
    }
}

struct Held(Option<*mut pthread_rwlock_t>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(lock) = self.0 {
            // SAFETY: this thread took it in `LockedStore::hold`.
            unsafe { libc::pthread_rwlock_unlock(lock) };
        }
    }
}

impl LockedStore {
    /// # Safety
    /// `store` is NULL, zeroed, or a live store that outlives the value.
    pub(super) unsafe fn from_ptr(store: *mut kv_store) -> Result<LockedStore> {
        // SAFETY: the caller's promise.
        let table = unsafe { AnyStore::from_ptr(store) }.ok_or(Error::Invalid("NULL or uninitialised store"))?;
        // SAFETY: not NULL, since a table was found behind it.
        let lock = unsafe { &raw mut (*store).lock };
        Ok(LockedStore { store: table, lock })
    }

    fn hold(&self, calls: &LockCalls) -> Result<Held> {
        // SAFETY: the lock is initialised with its store.
        if unsafe { (calls.now)(self.lock) } == 0 {
            return Ok(Held(Some(self.lock)));
        }
        let mut until = timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes the clock into a live struct.
        unsafe { libc::clock_gettime(CLOCK_REALTIME, &raw mut until) };
        until.tv_sec += LOCK_TIMEOUT_S;
        // SAFETY: the lock is initialised with its store, and the time is a live struct.
        match unsafe { (calls.until)(self.lock, &raw const until) } {
            0 => Ok(Held(Some(self.lock))),
            // The caller holds it for writing: what we need.
            libc::EDEADLK => Ok(Held(None)),
            // A table of the program's whose lock it never made: then nobody takes it.
            _ if matches!(&self.store, AnyStore::Theirs(store) if !store.is_our_table()) => Ok(Held(None)),
            libc::ETIMEDOUT => {
                crate::log_error!("the store's lock was not let go of for {LOCK_TIMEOUT_S} s");
                Err(Error::TimedOut)
            }
            errno => Err(Error::Io(std::io::Error::from_raw_os_error(errno))),
        }
    }
}

impl StateMachine for LockedStore {
    fn apply(&mut self, record: &Record<'_>) -> Result<Applied> {
        let _held = self.hold(&WRITE)?;
        self.store.apply(record)
    }

    fn apply_all(&mut self, records: &[Record<'_>]) -> Result<()> {
        let _held = self.hold(&WRITE)?;
        self.store.apply_all(records)
    }

    fn forget(&mut self, key: &[u8]) -> Result<()> {
        let _held = self.hold(&WRITE)?;
        self.store.forget(key)
    }

    fn note_given(&mut self, given: Covered) {
        self.store.note_given(given);
    }

    fn given(&self) -> Option<Covered> {
        self.store.given()
    }

    fn live(&self) -> usize {
        self.store.live()
    }

    fn for_each(&self, visit: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        self.store.for_each(visit)
    }
}

/// Runs `body` with the store locked for reading.
pub(super) fn reading<T>(store: &LockedStore, body: impl FnOnce(&AnyStore) -> Result<T>) -> Result<T> {
    let _held = store.hold(&READ)?;
    body(&store.store)
}
