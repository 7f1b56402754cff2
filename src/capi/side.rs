//! Memory for state that C's structs have no room for.
//!
//! A [`Table`] is a static list of entries, each in a mapping of its own: nothing of it is on the heap, so a program
//! that closes what it opened ends with "0 bytes in use at exit". A key is read and changed under the table's lock
//! only; a value belongs to whoever holds its [`Entry`]. The lock is held for a look-up, never during I/O on the value,
//! and survives fork(2): a child that inherits it locked by a thread it does not have takes it over.
#![allow(unsafe_code, reason = "static tables of mapped entries, shared by threads")]

use crate::error::{Error, Result};
use std::cell::UnsafeCell;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A thread of a process; zero is nobody. After fork(2) the child's copy names a thread that it does not have.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Holder {
    process: u32,
    thread: usize,
}

impl Holder {
    fn me() -> Holder {
        thread_local! {
            // Its address tells the thread from all others that live.
            static MARK: u8 = const { 0 };
        }
        Holder { process: process_id(), thread: MARK.with(|mark| std::ptr::from_ref(mark).addr()) }
    }

    fn is_alive(self, me: Holder) -> bool {
        self.process == me.process
    }
}

/// What looking for an entry gave.
enum Taken<'t, K, V> {
    Entry(Entry<'t, K, V>),
    None,
    /// Another thread is using it, for as long as one of its calls lasts.
    Busy,
}

/// How long a call waits for another thread's call on the same entry.
const PATIENCE: Duration = Duration::from_secs(5);

/// This process's id, without a system call a time: it is kept in a page that the kernel zeroes in a forked child.
pub(crate) fn process_id() -> u32 {
    static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let Some(fresh) = map_wiped_on_fork() else { return std::process::id() };
        page = match PAGE.compare_exchange(null_mut(), fresh.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh.as_ptr(),
            Err(others) => {
                // SAFETY: mapped above, and nobody else has seen it.
                unsafe { unmap(fresh) };
                others
            }
        };
    }
    // SAFETY: a mapping that is never unmapped.
    let cached = unsafe { &*page };
    match cached.load(Ordering::Relaxed) {
        0 => {
            cached.store(std::process::id(), Ordering::Relaxed);
            std::process::id()
        }
        known => known,
    }
}

fn map_wiped_on_fork() -> Option<NonNull<AtomicU32>> {
    let page = map::<AtomicU32>().ok()?;
    // SAFETY: a fresh mapping of one page.
    let advise = |advice| unsafe { libc::madvise(page.as_ptr().cast(), size_of::<AtomicU32>(), advice) };
    // qemu-user answers 0 to any advice and heeds none; a kernel refuses one that does not exist.
    if advise(-1) != 0 && advise(libc::MADV_WIPEONFORK) == 0 {
        return Some(page);
    }
    // SAFETY: mapped above, and nobody else has seen it.
    unsafe { unmap(page) };
    None
}

/// A lock that remembers which process took it.
struct ForkLock(AtomicU32);

impl ForkLock {
    fn lock(&self) -> ForkGuard<'_> {
        let me = process_id();
        let mut holder = 0;
        loop {
            match self.0.compare_exchange_weak(holder, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return ForkGuard(self),
                // Another process's id: this is a copy made by fork(2), and the thread that held it is not in it.
                Err(seen) if seen != 0 && seen != me => holder = seen,
                Err(_) => {
                    holder = 0;
                    std::thread::yield_now();
                }
            }
        }
    }
}

struct ForkGuard<'a>(&'a ForkLock);

impl Drop for ForkGuard<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Release);
    }
}

struct Node<K, V> {
    next: *mut Node<K, V>,
    /// Who has an [`Entry`] of it.
    holder: Holder,
    key: K,
    value: V,
}

/// State that begins as zeroed memory: a mapping's own. Values are too large to be made on a thread's stack first.
///
/// # Safety
/// All bytes zero are a valid value of the type: integers, arrays of them, `bool`, and enums and options whose layout
/// has a value for zero.
pub(crate) unsafe trait FromZero {
    /// Makes the zeroed value a fresh one.
    fn begin(&mut self);
}

/// A static table.
pub(crate) struct Table<K, V> {
    lock: ForkLock,
    head: UnsafeCell<*mut Node<K, V>>,
    /// Above this many entries, those that may go do.
    many: usize,
}

// SAFETY: the list and the keys are used under the lock only, a value by the one thread that made it busy.
unsafe impl<K: Send, V: Send> Sync for Table<K, V> {}

/// A value, for the time of one call.
pub(crate) struct Entry<'t, K, V> {
    table: &'t Table<K, V>,
    node: NonNull<Node<K, V>>,
}

impl<K: Default, V: FromZero> Table<K, V> {
    pub(crate) const fn new(many: usize) -> Table<K, V> {
        Table { lock: ForkLock(AtomicU32::new(0)), head: UnsafeCell::new(null_mut()), many }
    }

    /// Calls `visit` for every key.
    pub(crate) fn for_each_key(&self, mut visit: impl FnMut(&mut K)) {
        let _guard = self.lock.lock();
        let mut node = self.head();
        while let Some(current) = NonNull::new(node) {
            // SAFETY: nodes of the list are live, and keys are touched under the lock only.
            visit(unsafe { &mut (*current.as_ptr()).key });
            // SAFETY: as above.
            node = unsafe { (*current.as_ptr()).next };
        }
    }

    /// Whether an entry's key matches, whoever is using it.
    pub(crate) fn has(&self, matches: impl Fn(&K) -> bool) -> bool {
        let mut found = false;
        self.for_each_key(|key| found |= matches(key));
        found
    }

    /// The entry whose key matches. EBUSY: a call that uses it is still running: below us, in a log function, or in
    /// another thread that does not come to an end.
    pub(crate) fn find(&self, matches: impl Fn(&K) -> bool) -> Result<Option<Entry<'_, K, V>>> {
        self.wait_for(|| self.take(&matches))
    }

    /// The entry whose key matches, or a new one whose key `fill` makes. Entries that `may_go` are dropped when there
    /// are many.
    pub(crate) fn find_or_add(
        &self,
        matches: impl Fn(&K) -> bool,
        fill: impl FnOnce(&mut K),
        may_go: impl Fn(&K) -> bool,
    ) -> Result<Entry<'_, K, V>> {
        let mut fill = Some(fill);
        let found = self.wait_for(|| match self.take(&matches)? {
            Taken::None => {
                self.make_room(&may_go);
                let mut key = K::default();
                if let Some(fill) = fill.take() {
                    fill(&mut key);
                }
                self.add(key).map(Taken::Entry)
            }
            taken => Ok(taken),
        })?;
        found.ok_or(Error::Internal("an entry was neither found nor added"))
    }

    /// Runs `look` under the lock until it finds nothing or something that is free.
    fn wait_for<'t>(&'t self, mut look: impl FnMut() -> Result<Taken<'t, K, V>>) -> Result<Option<Entry<'t, K, V>>> {
        let mut since = None;
        loop {
            let guard = self.lock.lock();
            match look()? {
                Taken::Entry(entry) => return Ok(Some(entry)),
                Taken::None => return Ok(None),
                Taken::Busy => drop(guard),
            }
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Err(busy());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Adds an entry. Under the lock.
    fn add(&self, key: K) -> Result<Entry<'_, K, V>> {
        let node = map::<Node<K, V>>()?;
        // SAFETY: a fresh mapping of the right size and alignment.
        unsafe { (&raw mut (*node.as_ptr()).key).write(key) };
        // SAFETY: the rest of it is zero: a null pointer, nobody, and a value that may be zero.
        let fresh = unsafe { &mut *node.as_ptr() };
        (fresh.next, fresh.holder) = (self.head(), Holder::me());
        fresh.value.begin();
        // SAFETY: under the lock.
        unsafe { *self.head.get() = node.as_ptr() };
        Ok(Entry { table: self, node })
    }

    fn head(&self) -> *mut Node<K, V> {
        // SAFETY: called under the lock only.
        unsafe { *self.head.get() }
    }

    /// Under the lock.
    fn take(&self, matches: impl Fn(&K) -> bool) -> Result<Taken<'_, K, V>> {
        let me = Holder::me();
        let mut node = self.head();
        while let Some(current) = NonNull::new(node) {
            // SAFETY: nodes of the list are live, and keys are touched under the lock only.
            if matches(unsafe { &(*current.as_ptr()).key }) {
                // SAFETY: as above; the holder too is touched under the lock only.
                let holder = unsafe { &mut (*current.as_ptr()).holder };
                if *holder == me {
                    return Err(busy());
                }
                if holder.is_alive(me) {
                    return Ok(Taken::Busy);
                }
                *holder = me;
                return Ok(Taken::Entry(Entry { table: self, node: current }));
            }
            // SAFETY: as above.
            node = unsafe { (*current.as_ptr()).next };
        }
        Ok(Taken::None)
    }

    /// Unmaps entries that may go, oldest first, until no more than `many` are left. Under the lock.
    fn make_room(&self, may_go: impl Fn(&K) -> bool) {
        let me = Holder::me();
        let mut count = 0;
        let mut link: *mut *mut Node<K, V> = self.head.get();
        loop {
            // SAFETY: `link` points to the head or to a live node's `next`; all under the lock.
            let Some(current) = NonNull::new(unsafe { *link }) else { return };
            count += 1;
            // SAFETY: a live node; keys and holders are touched under the lock only.
            let goes = unsafe { !(*current.as_ptr()).holder.is_alive(me) && may_go(&(*current.as_ptr()).key) };
            // SAFETY: as above.
            let next = unsafe { &raw mut (*current.as_ptr()).next };
            if goes && count >= self.many {
                // SAFETY: as above; it leaves the list before it is unmapped.
                unsafe { *link = *next };
                // SAFETY: it was mapped by `map`, is in no list and not busy; its value holds no resource of its own.
                unsafe { unmap(current) };
            } else {
                link = next;
            }
        }
    }
}

impl<K, V> Entry<'_, K, V> {
    /// Reads or changes the key.
    pub(crate) fn key<T>(&mut self, change: impl FnOnce(&mut K) -> T) -> T {
        let _guard = self.table.lock.lock();
        // SAFETY: a live node; keys are touched under the lock only.
        change(unsafe { &mut (*self.node.as_ptr()).key })
    }

    pub(crate) fn value(&mut self) -> &mut V {
        // SAFETY: a live node, and a value belongs to the one entry that made it busy.
        unsafe { &mut (*self.node.as_ptr()).value }
    }
}

impl<K, V> Drop for Entry<'_, K, V> {
    fn drop(&mut self) {
        let _guard = self.table.lock.lock();
        // SAFETY: a live node; holders are touched under the lock only.
        unsafe { (*self.node.as_ptr()).holder = Holder::default() };
    }
}

/// A value in a mapping of its own, of which only the pages that are written to cost anything: on the heap a large one
/// would be zeroed, page by page. Given back when it is dropped.
pub(super) struct Mapped<T>(NonNull<T>);

impl<T: FromZero> Mapped<T> {
    /// A fresh value. Without memory the process ends, as it does for a `Box`.
    pub(super) fn new() -> Mapped<T> {
        let address = map::<T>().unwrap_or_else(|_| std::alloc::handle_alloc_error(std::alloc::Layout::new::<T>()));
        let mut fresh = Mapped(address);
        fresh.begin();
        fresh
    }
}

impl<T> std::ops::Deref for Mapped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a mapping that lives as long as this does, of a type for which zeroed memory is a value.
        unsafe { self.0.as_ref() }
    }
}

impl<T> std::ops::DerefMut for Mapped<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and nobody else has it.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `map`, and a value of integers holds nothing of its own.
        unsafe { unmap(self.0) };
    }
}

fn busy() -> Error {
    Error::Io(std::io::Error::from_raw_os_error(libc::EBUSY))
}

fn map<T>() -> Result<NonNull<T>> {
    const { assert!(align_of::<T>() <= 4096, "a mapping is page-aligned") };
    let (read_write, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: an anonymous mapping at an address of the kernel's choice.
    let address = unsafe { libc::mmap(null_mut(), size_of::<T>(), read_write, private, -1, 0) };
    match NonNull::new(address) {
        Some(address) if address.as_ptr() != libc::MAP_FAILED => Ok(address.cast()),
        _ => Err(Error::OutOfMemory),
    }
}

/// # Safety
/// `address` came from `map::<T>` and nothing uses it any more.
unsafe fn unmap<T>(address: NonNull<T>) {
    // SAFETY: the caller's promise. It can't fail for a mapping of ours.
    unsafe { libc::munmap(address.as_ptr().cast(), size_of::<T>()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: an integer.
    unsafe impl FromZero for u64 {
        fn begin(&mut self) {}
    }

    // SAFETY: integers.
    unsafe impl FromZero for [u64; 20] {
        fn begin(&mut self) {}
    }

    #[test]
    fn an_entry_is_found_again_busy_while_held_and_dropped_when_it_may_go() {
        let table: Table<u64, [u64; 20]> = Table::new(4);
        let add = |number: u64| table.find_or_add(|key| *key == number, |key| *key = number, |key| *key % 2 == 0);
        {
            let mut entry = add(7).unwrap();
            entry.value()[0] = 70;
            assert!(add(7).is_err(), "busy");
            assert!(table.find(|key| *key == 8).unwrap().is_none());
        }
        for number in 10..30 {
            drop(add(number).unwrap());
        }
        let mut entry = table.find(|key| *key == 7).unwrap().unwrap();
        assert_eq!(entry.value()[0], 70);
        assert!(table.find(|key| *key == 10).unwrap().is_none(), "an even key may go");
        assert!(table.find(|key| *key == 11).unwrap().is_some());
    }

    #[test]
    fn threads_share_a_table() {
        static TABLE: Table<u64, u64> = Table::new(1000);
        let threads: Vec<_> = (0..4u64)
            .map(|id| {
                std::thread::spawn(move || {
                    for _ in 0..1000 {
                        let mut entry = TABLE.find_or_add(|key| *key == id, |key| *key = id, |_| false).unwrap();
                        *entry.value() += 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        for id in 0..4 {
            assert_eq!(*TABLE.find(|key| *key == id).unwrap().unwrap().value(), 1000);
        }
    }
}
