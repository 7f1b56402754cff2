//! Entries by key: an array of buckets, each a chain, as C walks it.
//!
//! Beside each bucket stands one byte that C does not see, the filter: a bit for every key in the chain, chosen by its
//! hash. A lookup of a key that is not there, as every new key is, mostly ends there and touches no entry. A table that
//! grows moves every entry's place in the chains at once, as a walk at any time demands; the entries stay where they
//! are. May touch: the arena's way of getting memory. Knows nothing of what time stamps mean.
#![allow(unsafe_code, reason = "the course's tests walk these chains: their pointers are C's")]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a walk along a chain reads in every step; split up it is unreadable"
)]

use super::arena::{self, UNIT};
use super::entry::Entry;
use super::key::{GROUP, Key, bucket_of};
use super::{Alloc, Table};
use crate::capi::kv_store::kv_entry;
use std::ptr::null_mut;

/// So few keys are no reason to grow: small tables keep the number of buckets that their program chose.
const NEVER_GROW_BELOW: usize = 64;
/// An array with this many buckets a key is large enough. Each key that shares a bucket costs the others a wait for
/// memory.
const BUCKETS_PER_KEY: usize = 2;
/// Growing fourfold moves each entry a third of a time on average, doubling once.
const GROWTH: usize = 4;

/// What stands in front of the buckets, so that it is found from what C sees.
#[repr(C)]
struct Head {
    owner: *mut Table,
    reserved: [u64; 6],
    magic: u64,
}

const HEAD: usize = size_of::<Head>();
const _: () = assert!(HEAD == UNIT);
const MAGIC: u64 = 0x6c6f_6773_6869_7006;

/// Entries by key.
pub(super) struct Chains {
    buckets: *mut *mut kv_entry,
    filter: *mut u8,
    /// 0 until the first entry comes, unless asked for earlier.
    num: u32,
    count: usize,
    /// The table grows beyond this count.
    limit: usize,
    /// What `owner_of` finds.
    owner: *mut Table,
}

impl Chains {
    /// No entries and no buckets yet.
    pub(super) const fn new(owner: *mut Table) -> Chains {
        Chains { buckets: null_mut(), filter: null_mut(), num: 0, count: 0, limit: 0, owner }
    }

    /// Makes sure that there are buckets.
    #[inline]
    pub(super) fn reserve(&mut self, num: u32) -> Alloc<()> {
        if self.num == 0 { self.allocate(num) } else { Ok(()) }
    }

    #[inline]
    pub(super) fn buckets(&self) -> *mut *mut kv_entry {
        self.buckets
    }

    #[inline]
    pub(super) fn num(&self) -> u32 {
        self.num
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The entry with this key.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<Link> {
        if self.count == 0 {
            return None;
        }
        let index = bucket_of(key.hash, self.num);
        // SAFETY: `index < num`, and there are that many filter bytes and buckets; chains hold whole entries and end
        // with NULL.
        unsafe {
            if self.filter.add(index).read() & filter_bit(key.hash) == 0 {
                return None;
            }
            let mut link = self.buckets.add(index);
            while let Some(entry) = Entry::at(link.read()) {
                if entry.has_key(key) {
                    return Some(Link { at: link, entry });
                }
                link = &raw mut (*entry.as_ptr()).next;
            }
        }
        None
    }

    /// Puts an entry at the head of its chain. There are buckets, and no entry with its key. May grow, if there is
    /// memory.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) {
        self.push(entry);
        self.count += 1;
        if self.count > self.limit {
            self.grow();
        }
    }

    /// Puts `new`, which has the same key, where the entry was.
    #[inline]
    pub(super) fn replace(&mut self, link: Link, new: Entry) {
        // SAFETY: `find` found the link, and nothing has changed since.
        unsafe {
            (*new.as_ptr()).next = link.entry.next();
            link.at.write(new.as_ptr());
        }
    }

    /// Takes an entry out of its chain.
    pub(super) fn remove(&mut self, link: Link) {
        let index = bucket_of(link.entry.hash(), self.num);
        // SAFETY: `find` found the link, and nothing has changed since; `index < num`.
        unsafe {
            link.at.write(link.entry.next());
            let mut filter = 0;
            let mut rest = self.buckets.add(index).read();
            while let Some(entry) = Entry::at(rest) {
                filter |= filter_bit(entry.hash());
                rest = entry.next();
            }
            self.filter.add(index).write(filter);
        }
        self.count -= 1;
    }

    /// Every entry. One that was yielded may be freed, or put into other chains.
    pub(super) fn iter(&self) -> Iter<'_> {
        Iter { chains: self, index: 0, next: null_mut() }
    }

    /// Asks for the bucket of a key.
    #[inline]
    pub(super) fn prefetch_bucket(&self, hash: u32) {
        let index = bucket_of(hash, self.num);
        arena::prefetch(self.buckets.wrapping_add(index));
        arena::prefetch(self.filter.wrapping_add(index));
    }

    /// Asks for the first entry in the bucket of a key, unless the filter says that it is not the one.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: u32) {
        if self.num == 0 {
            return;
        }
        let index = bucket_of(hash, self.num);
        // SAFETY: `index < num`.
        unsafe {
            if self.filter.add(index).read() & filter_bit(hash) != 0 {
                Entry::prefetch(self.buckets.add(index).read());
            }
        }
    }

    /// Releases the buckets; the entries are the arena's.
    pub(super) fn release(&mut self) {
        if self.num > 0 {
            let len = bytes_for(self.num);
            // SAFETY: `allocate` made it, the head in front.
            unsafe { arena::release(self.buckets.cast::<u8>().sub(HEAD), len) };
        }
        *self = Chains::new(self.owner);
    }

    fn allocate(&mut self, num: u32) -> Alloc<()> {
        let base = arena::obtain(bytes_for(num))?.as_ptr();
        // SAFETY: `bytes_for` counts a head, the buckets, the filter. Zeroed bytes are NULL pointers and empty filters.
        unsafe {
            base.cast::<Head>().write(Head { owner: self.owner, reserved: [0; 6], magic: MAGIC });
            self.buckets = base.add(HEAD).cast();
            self.filter = self.buckets.add(num as usize).cast();
        }
        self.num = num;
        self.limit = (num as usize / BUCKETS_PER_KEY).max(NEVER_GROW_BELOW);
        Ok(())
    }

    /// Puts an entry at the head of its chain.
    #[inline]
    fn push(&mut self, entry: Entry) {
        let hash = entry.hash();
        let index = bucket_of(hash, self.num);
        // SAFETY: `index < num`; the entry is in no chain.
        unsafe {
            let bucket = self.buckets.add(index);
            let filter = self.filter.add(index);
            // An empty bucket, as the filter tells, is written without being read: so nothing waits for it.
            let next = if filter.read() == 0 { null_mut() } else { bucket.read() };
            (*entry.as_ptr()).next = next;
            bucket.write(entry.as_ptr());
            *filter |= filter_bit(hash);
        }
    }

    /// Moves all entries to an array that is wide enough. If there is no memory for it, the chains just get longer.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let mut new = Chains::new(self.owner);
        let wanted = (self.num as usize * GROWTH).max(self.count * BUCKETS_PER_KEY).next_multiple_of(GROUP as usize);
        // C counts buckets in an `int`.
        let wanted = i32::try_from(wanted).ok().map(i32::cast_unsigned);
        if wanted.is_none_or(|num| new.allocate(num).is_err()) {
            self.limit = self.count * 2;
            return;
        }
        for entry in self.iter() {
            new.push(entry);
        }
        new.count = self.count;
        self.release();
        *self = new;
    }

    /// Asks for the entries of the buckets that a walk comes to next: the first of one far ahead, the second of a
    /// nearer one.
    #[inline]
    fn prefetch_ahead(&self, index: usize) {
        let num = self.num as usize;
        // SAFETY: both indexes are checked; a head that is not NULL is a whole entry.
        unsafe {
            if index + 16 < num {
                Entry::prefetch(self.buckets.add(index + 16).read());
            }
            if index + 8 < num
                && let Some(entry) = Entry::at(self.buckets.add(index + 8).read())
            {
                Entry::prefetch(entry.next());
            }
        }
    }
}

/// An entry, and where the pointer to it stands. Good until the chains change.
#[derive(Clone, Copy)]
pub(super) struct Link {
    at: *mut *mut kv_entry,
    pub(super) entry: Entry,
}

/// Every entry of some chains, bucket after bucket.
pub(super) struct Iter<'a> {
    chains: &'a Chains,
    index: usize,
    next: *mut kv_entry,
}

impl Iterator for Iter<'_> {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = Entry::at(self.next) {
                self.next = entry.next();
                return Some(entry);
            }
            if self.index == self.chains.num as usize {
                return None;
            }
            self.chains.prefetch_ahead(self.index);
            // SAFETY: `index < num`.
            self.next = unsafe { self.chains.buckets.add(self.index).read() };
            self.index += 1;
        }
    }
}

/// The table that owns these buckets, or NULL if they are none of this library's.
///
/// # Safety
/// NULL, or the 8 bytes in front are readable, as they are in front of every allocation.
#[inline]
pub(super) unsafe fn owner_of(buckets: *mut *mut kv_entry) -> *mut Table {
    if buckets.is_null() {
        return null_mut();
    }
    // SAFETY: the magic number is what stands in the 8 bytes in front; if it is right, so is the rest of the head.
    unsafe {
        let head: *const Head = buckets.byte_sub(HEAD).cast();
        if (&raw const (*head).magic).read() == MAGIC { (*head).owner } else { null_mut() }
    }
}

/// The bit of a hash in its bucket's filter. It comes from bits that the bucket doesn't depend on.
#[inline]
fn filter_bit(hash: u32) -> u8 {
    1 << (hash / GROUP % 8)
}

/// The size of a head and so many buckets with their filter.
fn bytes_for(num: u32) -> usize {
    (HEAD + num as usize * (size_of::<*mut kv_entry>() + 1)).next_multiple_of(UNIT)
}
