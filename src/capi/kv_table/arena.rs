//! Memory for the C table: blocks in units of one cache line, from chunks that only [`Arena::release_all`] gives back.
//!
//! A block never moves, so pointers into it stay valid while the table grows. A freed block goes to the list of its
//! size and is taken from there first; before a new chunk is opened, a larger free block is split. So a store under
//! churn needs memory for the most that was ever live of each size, not for what was ever written.
//! Blocks above [`SMALL_UNITS`] come from malloc. Chunks double from 8 KiB to 32 MiB; from [`HUGE`] on they are
//! mappings with huge pages, without which every access to a big store costs a walk of the page tables besides.
//! May touch: malloc, mmap. Knows nothing of keys.
#![allow(unsafe_code, reason = "a memory allocator")]

use super::{Alloc, NoMemory};
use std::ptr::{NonNull, null_mut};

/// The size of blocks is a multiple of this: one cache line. Blocks in chunks are aligned to it too.
pub(super) const UNIT: usize = 64;
/// Larger blocks come from malloc.
const SMALL_UNITS: usize = 16;
const FIRST_CHUNK: usize = 8 << 10;
const LARGEST_CHUNK: usize = 32 << 20;
/// The size of a huge page on x86-64, and from where on memory is mapped instead of allocated.
const HUGE: usize = 2 << 20;

#[cfg(test)]
thread_local! {
    /// Makes every allocation of this thread fail, as without memory.
    pub(super) static FAIL_ALLOCATIONS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// What stands in the first unit of a chunk.
struct Chunk {
    previous: *mut Chunk,
    len: usize,
}

/// What stands in the first bytes of a free block.
struct Free {
    next: *mut Free,
}

/// Where a table's blocks come from.
pub(super) struct Arena {
    /// The part of the newest chunk that was never handed out.
    next: *mut u8,
    left_units: usize,
    chunks: *mut Chunk,
    /// Bytes in all chunks.
    total: usize,
    /// Blocks that malloc made and that are not freed.
    large: usize,
    /// Bit `n` is set when `free[n]`, the list of free blocks of `n + 1` units, is not empty.
    free_mask: u32,
    free: [*mut Free; SMALL_UNITS],
}

impl Arena {
    /// An arena that holds no memory yet.
    pub(super) const fn new() -> Arena {
        Arena {
            next: null_mut(),
            left_units: 0,
            chunks: null_mut(),
            total: 0,
            large: 0,
            free_mask: 0,
            free: [null_mut(); SMALL_UNITS],
        }
    }

    /// A block of `units` units, uninitialised.
    #[inline]
    pub(super) fn alloc(&mut self, units: usize) -> Alloc<NonNull<u8>> {
        if units > SMALL_UNITS {
            return self.alloc_large(units);
        }
        if self.free_mask >> (units - 1) & 1 != 0 {
            return Ok(self.pop(units));
        }
        if units <= self.left_units {
            return Ok(self.bump(units));
        }
        self.alloc_slow(units)
    }

    /// Gives back a block of `units` units.
    ///
    /// # Safety
    /// `alloc(units)` of this arena made the block, and nothing uses it any more.
    #[inline]
    pub(super) unsafe fn free(&mut self, block: *mut u8, units: usize) {
        if units > SMALL_UNITS {
            self.large -= 1;
            // SAFETY: `alloc_large` made it with malloc; the caller is done with it.
            unsafe { libc::free(block.cast()) };
        } else {
            self.push(block, units);
        }
    }

    /// How many blocks [`Arena::release_all`] does not release: the large ones.
    pub(super) fn large(&self) -> usize {
        self.large
    }

    /// Whether a block of so many units is one that [`Arena::release_all`] does not release.
    pub(super) fn is_large(units: usize) -> bool {
        units > SMALL_UNITS
    }

    /// Bytes in all chunks.
    #[cfg(test)]
    #[allow(dead_code, reason = "for the table's tests")]
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Releases all chunks, and with them every block that is not large.
    pub(super) fn release_all(&mut self) {
        let mut chunk = self.chunks;
        while !chunk.is_null() {
            // SAFETY: the list holds chunks that `open_chunk` made, each whole until the next line releases it.
            let Chunk { previous, len } = unsafe { chunk.read() };
            // SAFETY: `obtain(len)` made it, and no block of it is used any more.
            unsafe { release(chunk.cast(), len) };
            chunk = previous;
        }
        *self = Arena::new();
    }

    #[cold]
    #[inline(never)]
    fn alloc_large(&mut self, units: usize) -> Alloc<NonNull<u8>> {
        let block = malloc(units * UNIT)?;
        self.large += 1;
        Ok(block)
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&mut self, units: usize) -> Alloc<NonNull<u8>> {
        let larger = self.free_mask >> units << units;
        if larger != 0 {
            let found = larger.trailing_zeros() as usize + 1;
            let block = self.pop(found);
            // SAFETY: `found > units`, so the rest of the block is `found - units` units.
            self.push(unsafe { block.as_ptr().add(units * UNIT) }, found - units);
            return Ok(block);
        }
        self.open_chunk()?;
        Ok(self.bump(units))
    }

    /// Opens a chunk as large as all before it together, so that a small store stays small and a big one has few.
    fn open_chunk(&mut self) -> Alloc<()> {
        let len = self.total.clamp(FIRST_CHUNK, LARGEST_CHUNK);
        let base = obtain(len)?.as_ptr();
        if self.left_units > 0 {
            // At most SMALL_UNITS - 1 units: more would have been enough for any block.
            let (rest, units) = (self.next, self.left_units);
            self.push(rest, units);
        }
        let chunk: *mut Chunk = base.cast();
        // SAFETY: `base` starts `len` bytes, aligned to a unit, which is larger than a `Chunk`.
        unsafe { chunk.write(Chunk { previous: self.chunks, len }) };
        self.chunks = chunk;
        self.total += len;
        // SAFETY: `len` is many units.
        self.next = unsafe { base.add(UNIT) };
        self.left_units = len / UNIT - 1;
        Ok(())
    }

    #[inline]
    fn bump(&mut self, units: usize) -> NonNull<u8> {
        // SAFETY: a chunk is open, so `next` is not NULL.
        let block = unsafe { NonNull::new_unchecked(self.next) };
        // SAFETY: callers have seen that `units <= left_units`, which all lie in this chunk.
        self.next = unsafe { self.next.add(units * UNIT) };
        self.left_units -= units;
        block
    }

    #[inline]
    fn push(&mut self, block: *mut u8, units: usize) {
        let free: *mut Free = block.cast();
        // SAFETY: a free block is at least one unit, aligned as `Free` must be, and nobody else's.
        unsafe { free.write(Free { next: self.free[units - 1] }) };
        self.free[units - 1] = free;
        self.free_mask |= 1 << (units - 1);
    }

    /// The callers have seen in `free_mask` that there is one.
    #[inline]
    fn pop(&mut self, units: usize) -> NonNull<u8> {
        let free = self.free[units - 1];
        // SAFETY: the mask says that the list is not empty, and `push` wrote what is at its head.
        let next = unsafe { free.read() }.next;
        self.free[units - 1] = next;
        self.free_mask &= !(u32::from(next.is_null()) << (units - 1));
        // SAFETY: as above, not NULL.
        unsafe { NonNull::new_unchecked(free.cast()) }
    }
}

/// Memory from malloc, for free to release.
pub(super) fn malloc(len: usize) -> Alloc<NonNull<u8>> {
    #[cfg(test)]
    if FAIL_ALLOCATIONS.get() {
        return Err(NoMemory);
    }
    // SAFETY: malloc takes any size; the result is checked.
    NonNull::new(unsafe { libc::malloc(len) }.cast()).ok_or(NoMemory)
}

/// `len` zeroed bytes, aligned to a unit; a mapping with huge pages when that many are asked for.
pub(super) fn obtain(len: usize) -> Alloc<NonNull<u8>> {
    #[cfg(test)]
    if FAIL_ALLOCATIONS.get() {
        return Err(NoMemory);
    }
    if len < HUGE {
        // SAFETY: the alignment is a power of two, and the length a multiple of it.
        let base = unsafe { libc::aligned_alloc(UNIT, len.next_multiple_of(UNIT)) };
        let base = NonNull::new(base.cast::<u8>()).ok_or(NoMemory)?;
        // SAFETY: that many bytes were just allocated.
        unsafe { base.as_ptr().write_bytes(0, len) };
        return Ok(base);
    }
    // A huge page must be aligned to its size: map one more and cut off what sticks out.
    let wanted = len.checked_next_multiple_of(HUGE).ok_or(NoMemory)?;
    let mapped = wanted.checked_add(HUGE).ok_or(NoMemory)?;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping, wherever the kernel likes.
    let raw = unsafe { libc::mmap(null_mut(), mapped, protection, flags, -1, 0) };
    if raw == libc::MAP_FAILED {
        return Err(NoMemory);
    }
    let raw: *mut u8 = raw.cast();
    let before = raw.align_offset(HUGE);
    let base = raw.wrapping_add(before);
    if before > 0 {
        // SAFETY: the front of the mapping, which nobody uses.
        unsafe { libc::munmap(raw.cast(), before) };
    }
    // SAFETY: the end of the mapping, which nobody uses; `before <= HUGE - 1`, so it is not empty.
    unsafe { libc::munmap(base.wrapping_add(wanted).cast(), HUGE - before) };
    // SAFETY: our mapping. Advice only: without huge pages it is slower, not wrong.
    unsafe { libc::madvise(base.cast(), wanted, libc::MADV_HUGEPAGE) };
    NonNull::new(base).ok_or(NoMemory)
}

/// Releases what [`obtain`] made.
///
/// # Safety
/// `obtain(len)` made it, and nothing uses it any more.
pub(super) unsafe fn release(base: *mut u8, len: usize) {
    if len < HUGE {
        // SAFETY: `obtain` allocated it.
        unsafe { libc::free(base.cast()) };
    } else {
        // SAFETY: `obtain` mapped that much.
        unsafe { libc::munmap(base.cast(), len.next_multiple_of(HUGE)) };
    }
}

/// Asks for a cache line. Any address will do: it is only a hint.
#[inline]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
