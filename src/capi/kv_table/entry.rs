//! An entry of the table: one block with a prefix that C does not see, the visible [`kv_entry`], the key, the value.
//!
//! The prefix, the entry and a key of up to 15 bytes fill one cache line, so a lookup that hits waits for one line of
//! buckets and one of entry. Lengths stand in the prefix: what came from a record may hold NUL bytes. May touch: the
//! arena.
#![allow(unsafe_code, reason = "what it holds is C's, or beside it")]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a block is laid out, or read, in one go; split up it is unreadable"
)]

use super::Alloc;
use super::arena::{self, Arena, UNIT};
use super::key::{Bytes, Key};
use crate::capi::kv_store::kv_entry;
use std::ptr::{NonNull, null_mut};

/// What stands in front of every entry.
#[repr(C)]
#[derive(Clone, Copy)]
struct Prefix {
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
    /// The entry at a pointer that stands in a chain; `None` for NULL, its end.
    #[inline]
    pub(super) fn at(pointer: *mut kv_entry) -> Option<Entry> {
        NonNull::new(pointer).map(Entry)
    }

    /// Asks for the cache line of an entry's key, if there is one.
    #[inline]
    pub(super) fn prefetch(pointer: *mut kv_entry) {
        arena::prefetch(pointer.wrapping_byte_sub(ENTRY_AT));
    }

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
    pub(super) fn hash(self) -> u32 {
        self.prefix().hash
    }

    #[inline]
    pub(super) fn next(self) -> *mut kv_entry {
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
    pub(super) fn has_key(self, key: Key) -> bool {
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
