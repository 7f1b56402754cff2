//! Entries by key: an array of buckets, each a chain, and the blocks that the entries are.
//!
//! An entry is one block: [`Prefix`], which C does not see, the visible [`kv_entry`], the key, the value. The prefix, the entry
//! and a key of up to 15 bytes fill one cache line, so a lookup that hits costs one access for the bucket and one for
//! the entry. Beside each bucket stands one byte, the filter: bit `hash % 8` of every key in the chain. A lookup
//! of a key that is not there, as every new key is, mostly ends there and touches no entry.
//! The bucket of a key is `hash * buckets / 2^32`, which works for any number of buckets and keeps order: when the
//! array doubles, bucket `i` becomes `2i` and `2i + 1`, so both arrays are read and written from front to back.
//! May touch: the arena. Knows nothing of time stamps' meaning.
#![allow(unsafe_code, reason = "the course's tests walk this table: its pointers are C's")]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a walk along a chain reads in every step; split up it is unreadable"
)]

use super::arena::{self, Arena, UNIT};
use super::{Alloc, Bytes};
use crate::capi::kv_store::kv_entry;
use libc::c_char;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_nano_inline};
use std::ptr::{NonNull, null_mut};

/// So few keys are no reason to grow: small tables keep the number of buckets that their program chose.
const NEVER_GROW_BELOW: usize = 64;

/// Fixed, so that a key's bucket is the same in every run; not rapidhash's own, for which collisions are published.
const SECRETS: RapidSecrets = RapidSecrets::seed(0x6c6f_6773_6869_7021);

/// A key and the hash of its bytes up to the first NUL, which is what C sees of it.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub(super) bytes: Bytes,
    pub(super) hash: u32,
}

impl Key {
    /// A key without NUL bytes inside.
    ///
    /// # Safety
    /// A C string, which stays as it is while the key is used.
    #[inline]
    pub(super) unsafe fn of_c_string(key: *const c_char) -> Key {
        // SAFETY: as above.
        let bytes = unsafe { Bytes::of_c_string(key) };
        // SAFETY: as above; the slice is gone before anything is written.
        let hash = hash(unsafe { bytes.as_slice() });
        Key { bytes, hash }
    }

    /// Any key.
    #[inline]
    pub(super) fn new(key: &[u8]) -> Key {
        // SAFETY: reads within the slice only.
        let nul = unsafe { libc::memchr(key.as_ptr().cast(), 0, key.len()) };
        let visible = if nul.is_null() { key.len() } else { nul.addr() - key.as_ptr().addr() };
        Key { bytes: key.into(), hash: hash(&key[..visible]) }
    }
}

/// So many buckets, two cache lines, are neighbours.
const GROUP: u8 = 16;

/// 29 bits of hash over all but the low 3 bits of the last byte, and those 3 bits mixed with 3 more.
///
/// Keys that differ only there, as `user:17` and `user:18`, share the 29 bits: they are neighbours, eight buckets in one cache line, and never
/// collide. Programs often write keys in such an order, and each line is then fetched once. No other
/// keys notice: their 29 bits are as random as ever, and the last 3 are flipped at random.
#[inline]
pub(super) fn hash(visible: &[u8]) -> u32 {
    let (&last, rest) = visible.split_last().unwrap_or((&0, visible));
    let group = rapidhash_v3_nano_inline::<true, false>(rest, &SECRETS) ^ u64::from(last >> 4);
    let mixed = group.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 32) as u32) ^ u32::from(last % GROUP)
}

/// The bucket, below `buckets`, of a key with this hash. Keeps order: when the array doubles, each line of eight becomes
/// two lines that follow each other.
#[inline]
pub(super) fn bucket_of(hash: u32, buckets: u32) -> usize {
    let scale = |hash: u32, to: u32| (u64::from(hash) * u64::from(to)) >> 32;
    let group = u32::from(GROUP);
    let bucket = if buckets.is_multiple_of(group) {
        scale(hash / group * group, buckets / group) * u64::from(group) + u64::from(hash % group)
    } else {
        scale(hash.wrapping_mul(0x9e37_79b1), buckets)
    };
    bucket as usize
}

/// What stands in front of every entry.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Prefix {
    hash: u32,
    key_len: u32,
    value_len: u32,
    /// Size of the block.
    units: u32,
}

const ENTRY_AT: usize = size_of::<Prefix>();
const KEY_AT: usize = ENTRY_AT + size_of::<kv_entry>();

/// An entry of a table: never NULL, and its block as [`Entry::new`] made it. Copies are the same entry.
#[derive(Clone, Copy)]
pub(super) struct Entry(NonNull<kv_entry>);

impl Entry {
    /// A block with this key and value, in no chain.
    pub(super) fn new(arena: &mut Arena, key: Key, value: Bytes, timestamp: u64) -> Alloc<Entry> {
        let units = units_for(key.bytes.len, value.len);
        let block = arena.alloc(units)?.as_ptr();
        let prefix =
            Prefix { hash: key.hash, key_len: key.bytes.len as u32, value_len: value.len as u32, units: units as u32 };
        // SAFETY: the block has room for the prefix, the entry, and both strings with their NULs; it is new, so it
        // overlaps neither of them.
        unsafe {
            block.cast::<Prefix>().write(prefix);
            let key_at = block.add(KEY_AT);
            let value_at = key_at.add(key.bytes.len + 1);
            let entry: *mut kv_entry = block.add(ENTRY_AT).cast();
            entry.write(kv_entry {
                key: key_at.cast(),
                value: value_at.cast(),
                next: null_mut(),
                last_write_ts: timestamp,
            });
            key_at.copy_from_nonoverlapping(key.bytes.start, key.bytes.len);
            value_at.sub(1).write(0);
            value_at.copy_from_nonoverlapping(value.start, value.len);
            value_at.add(value.len).write(0);
            Ok(Entry(NonNull::new_unchecked(entry)))
        }
    }

    /// Gives the block back.
    ///
    /// # Safety
    /// The entry is in no chain and nobody uses it any more.
    pub(super) unsafe fn free(self, arena: &mut Arena) {
        let units = self.prefix().units as usize;
        // SAFETY: `new` got the block from the arena with that size.
        unsafe { arena.free(self.block(), units) };
    }

    /// Whether a value fits into the block, and leaves not too much of a big one unused.
    #[inline]
    pub(super) fn suits(self, value_len: usize) -> bool {
        let prefix = self.prefix();
        let (needs, has) = (units_for(prefix.key_len as usize, value_len), prefix.units as usize);
        needs <= has && (has <= 4 || needs >= has / 4)
    }

    /// Overwrites the value in place.
    ///
    /// # Safety
    /// The new value is not longer than the old one, or [`Entry::suits`] says that it fits.
    #[inline]
    pub(super) unsafe fn overwrite(self, value: Bytes) {
        // SAFETY: it fits. The new value may be a part of the old one, so this is a memmove, and the NUL comes after.
        unsafe {
            let value_at = self.value().start.cast_mut();
            value_at.copy_from(value.start, value.len);
            value_at.add(value.len).write(0);
            (*self.block().cast::<Prefix>()).value_len = value.len as u32;
        }
    }

    #[inline]
    pub(super) fn as_ptr(self) -> *mut kv_entry {
        self.0.as_ptr()
    }

    #[inline]
    pub(super) fn key(self) -> Key {
        let prefix = self.prefix();
        // SAFETY: the key follows the entry.
        let start = unsafe { self.block().add(KEY_AT) };
        Key { bytes: Bytes { start, len: prefix.key_len as usize }, hash: prefix.hash }
    }

    #[inline]
    pub(super) fn value(self) -> Bytes {
        let prefix = self.prefix();
        // SAFETY: the value follows the key and its NUL.
        let start = unsafe { self.block().add(KEY_AT + prefix.key_len as usize + 1) };
        Bytes { start, len: prefix.value_len as usize }
    }

    #[inline]
    pub(super) fn timestamp(self) -> u64 {
        // SAFETY: the entry is initialised.
        unsafe { (*self.as_ptr()).last_write_ts }
    }

    #[inline]
    pub(super) fn set_timestamp(self, timestamp: u64) {
        // SAFETY: the entry is initialised, and whoever writes a store has it alone.
        unsafe { (*self.as_ptr()).last_write_ts = timestamp };
    }

    pub(super) fn is_large(self) -> bool {
        Arena::is_large(self.prefix().units as usize)
    }

    /// Whether the block is larger than one for its key alone.
    pub(super) fn outgrows_key(self) -> bool {
        let prefix = self.prefix();
        prefix.units as usize > units_for(prefix.key_len as usize, 0)
    }

    #[inline]
    fn next(self) -> *mut kv_entry {
        // SAFETY: the entry is initialised.
        unsafe { (*self.as_ptr()).next }
    }

    #[inline]
    fn block(self) -> *mut u8 {
        // SAFETY: the prefix stands in front of every entry.
        unsafe { self.as_ptr().cast::<u8>().sub(ENTRY_AT) }
    }

    #[inline]
    fn prefix(self) -> Prefix {
        // SAFETY: the prefix stands in front of every entry and is initialised.
        unsafe { self.block().cast::<Prefix>().read() }
    }

    #[inline]
    fn has_key(self, key: Key) -> bool {
        let prefix = self.prefix();
        // SAFETY: both keys have that many bytes.
        prefix.hash == key.hash
            && prefix.key_len as usize == key.bytes.len
            && unsafe { same_bytes(self.block().add(KEY_AT), key.bytes.start, key.bytes.len) }
    }
}

/// The size of a block for a key and a value of these lengths.
#[inline]
fn units_for(key_len: usize, value_len: usize) -> usize {
    (KEY_AT + key_len + value_len + 2).div_ceil(UNIT)
}

/// Whether the two are equal; short keys without a call.
///
/// # Safety
/// `len` bytes are readable at both.
#[inline]
unsafe fn same_bytes(a: *const u8, b: *const u8, len: usize) -> bool {
    // SAFETY: every read lies within `len`, which the caller vouches for.
    unsafe {
        let words = |at: usize| a.add(at).cast::<u64>().read_unaligned() ^ b.add(at).cast::<u64>().read_unaligned();
        match len {
            8..=16 => words(0) | words(len - 8) == 0,
            17..=32 => words(0) | words(8) | words(len - 16) | words(len - 8) == 0,
            _ => libc::memcmp(a.cast(), b.cast(), len) == 0,
        }
    }
}

/// What stands in front of the buckets, so that it is found from what C sees.
#[repr(C)]
struct Head {
    owner: *mut u8,
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
    owner: *mut u8,
}

impl Chains {
    /// Chains whose buckets are found by `owner_of`; with no buckets yet.
    pub(super) const fn new(owner: *mut u8) -> Chains {
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

    /// Where the pointer to the entry with this key stands, or NULL.
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
            while let Some(entry) = NonNull::new(link.read()) {
                let entry = Entry(entry);
                if entry.has_key(key) {
                    return Some(Link { at: link, entry });
                }
                link = &raw mut (*entry.as_ptr()).next;
            }
        }
        None
    }

    /// Puts an entry at the head of its chain. There are buckets, and no entry with its key. May grow, if there is memory.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) {
        let hash = entry.prefix().hash;
        let index = bucket_of(hash, self.num);
        // SAFETY: `index < num`; the entry is in no chain.
        unsafe {
            let bucket = self.buckets.add(index);
            let filter = self.filter.add(index);
            if filter.read() != 0 {
                // Only now: an empty bucket is written and not waited for.
                (*entry.as_ptr()).next = bucket.read();
            }
            bucket.write(entry.as_ptr());
            *filter |= filter_bit(hash);
        }
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
        let index = bucket_of(link.entry.prefix().hash, self.num);
        // SAFETY: `find` found the link, and nothing has changed since; `index < num`.
        unsafe {
            link.at.write(link.entry.next());
            let mut filter = 0;
            let mut rest = self.buckets.add(index).read();
            while let Some(entry) = NonNull::new(rest) {
                filter |= filter_bit(Entry(entry).prefix().hash);
                rest = Entry(entry).next();
            }
            self.filter.add(index).write(filter);
        }
        self.count -= 1;
    }

    /// Every entry. One that was yielded may be freed.
    pub(super) fn iter(&self) -> Iter<'_> {
        Iter { chains: self, index: 0, next: null_mut() }
    }

    /// Asks for the bucket of a key.
    #[inline]
    pub(super) fn prefetch_bucket(&self, hash: u32) {
        let index = bucket_of(hash, self.num);
        prefetch(self.buckets.wrapping_add(index));
        prefetch(self.filter.wrapping_add(index));
    }

    /// Asks for the first entry in the bucket of a key, unless the filter says that it is not the one.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: u32) {
        let index = bucket_of(hash, self.num);
        if self.num == 0 {
            return;
        }
        // SAFETY: `index < num`.
        unsafe {
            if self.filter.add(index).read() & filter_bit(hash) != 0 {
                prefetch(self.buckets.add(index).read().wrapping_byte_sub(ENTRY_AT));
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
        self.limit = (num as usize / 2).max(NEVER_GROW_BELOW);
        Ok(())
    }

    /// Doubles the number of buckets. If that can't be, the chains just get longer.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let mut new = Chains::new(self.owner);
        let wider = self.num.checked_mul(4).filter(|wider| i32::try_from(*wider).is_ok());
        if wider.is_none_or(|wider| new.allocate(wider).is_err()) {
            self.limit = self.count * 2;
            return;
        }
        for index in 0..self.num as usize {
            // SAFETY: `index < num`, and the new array has twice as many buckets and filter bytes. Every entry is in
            // one chain before and in one after.
            unsafe {
                let mut head = self.buckets.add(index).read();
                self.prefetch_ahead(index);
                while let Some(entry) = NonNull::new(head) {
                    let entry = Entry(entry);
                    head = entry.next();
                    let hash = entry.prefix().hash;
                    let to = bucket_of(hash, new.num);
                    (*entry.as_ptr()).next = new.buckets.add(to).read();
                    new.buckets.add(to).write(entry.as_ptr());
                    *new.filter.add(to) |= filter_bit(hash);
                }
            }
        }
        new.count = self.count;
        self.release();
        *self = new;
    }

    /// Asks for the entries of the buckets that a walk comes to next: the first of one far ahead, the second of a nearer one.
    #[inline]
    fn prefetch_ahead(&self, index: usize) {
        let num = self.num as usize;
        // SAFETY: both indexes are checked; a head that is not NULL is a whole entry.
        unsafe {
            if index + 16 < num {
                prefetch(self.buckets.add(index + 16).read().wrapping_byte_sub(ENTRY_AT));
            }
            if index + 8 < num
                && let Some(entry) = NonNull::new(self.buckets.add(index + 8).read())
            {
                prefetch(Entry(entry).next().wrapping_byte_sub(ENTRY_AT));
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
        while self.next.is_null() {
            if self.index >= self.chains.num as usize {
                return None;
            }
            self.chains.prefetch_ahead(self.index);
            // SAFETY: `index < num`.
            self.next = unsafe { self.chains.buckets.add(self.index).read() };
            self.index += 1;
        }
        let entry = Entry(NonNull::new(self.next)?);
        self.next = entry.next();
        Some(entry)
    }
}

/// The owner of the chains whose buckets these are, or NULL if they are nobody's that this library knows.
///
/// # Safety
/// NULL, or at least 64 bytes in front of it are readable, as in front of any buckets of this library.
#[inline]
pub(super) unsafe fn owner_of(buckets: *mut *mut kv_entry) -> *mut u8 {
    if buckets.is_null() {
        return null_mut();
    }
    // SAFETY: the head stands in front of the buckets.
    unsafe {
        let head: *const Head = buckets.cast::<u8>().sub(HEAD).cast();
        if (*head).magic == MAGIC { (*head).owner } else { null_mut() }
    }
}

#[inline]
fn filter_bit(hash: u32) -> u8 {
    1 << (hash / u32::from(GROUP) % 8)
}

/// The size of a head and so many buckets with their filter.
fn bytes_for(num: u32) -> usize {
    (HEAD + num as usize * (size_of::<*mut kv_entry>() + 1)).next_multiple_of(UNIT)
}

/// Asks for the cache line; any address will do.
#[inline]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
