//! LSN -> byte offset, sparse and of fixed size: no allocation however long the log grows.
//!
//! Every `stride`-th record's place is kept; when the table is full every second one is dropped and the stride
//! doubles. A lookup gives the nearest record at or before the wanted one; the caller walks the rest, at most
//! `stride` record headers.
//!
//! Marks that come from an index file are believed only once they are proven: a walk over the records from one that is
//! known leads to them, or from them to one that is known. That is done where they are used, for those in between only.
#![forbid(unsafe_code)]

use super::scan::{self, Position};
use crate::error::Result;
use crate::storage::Storage;
use crate::types::{History, Lsn};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

const SLOTS: usize = 16_384;
const FIRST_STRIDE: u64 = 256;

/// Where a record begins, and what the log has been through before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Byte offset.
    pub offset: u64,
    /// The history of the records before it.
    pub before: History,
}

/// A sparse index. Slot `i` holds the mark of record `base + 1 + i * stride`. Zeroed memory is not a valid index;
/// [`reset`](SparseIndex::reset) makes one.
#[derive(Clone)]
pub struct SparseIndex {
    base: Lsn,
    stride: u64,
    used: usize,
    unproven: Unproven,
    marks: [Mark; SLOTS],
}

/// The slots from the first number up to the second hold what an index file says, and nothing has shown yet. Whoever
/// looks something up may prove some of them.
#[derive(Debug, Default)]
struct Unproven(AtomicUsize, AtomicUsize);

impl Unproven {
    fn get(&self) -> (usize, usize) {
        (self.0.load(Ordering::Relaxed), self.1.load(Ordering::Relaxed))
    }

    fn set(&mut self, (from, to): (usize, usize)) {
        *self = Unproven(AtomicUsize::new(from), AtomicUsize::new(to));
    }
}

impl Clone for Unproven {
    fn clone(&self) -> Unproven {
        let (from, to) = self.get();
        Unproven(AtomicUsize::new(from), AtomicUsize::new(to))
    }
}

impl fmt::Debug for SparseIndex {
    /// Without its thousands of marks: a program may print a log, or an error with one in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SparseIndex { base, stride, used, .. } = self;
        f.debug_struct("SparseIndex").field("base", base).field("stride", stride).field("used", used).finish()
    }
}

impl SparseIndex {
    /// An empty index of a log whose first record has LSN `base + 1`.
    #[must_use]
    pub fn new(base: Lsn) -> SparseIndex {
        SparseIndex {
            base,
            stride: FIRST_STRIDE,
            used: 0,
            unproven: Unproven::default(),
            marks: [Mark::default(); SLOTS],
        }
    }

    /// Empties the index in place.
    pub fn reset(&mut self, base: Lsn) {
        self.base = base;
        self.stride = FIRST_STRIDE;
        self.used = 0;
        self.unproven.set((0, 0));
    }

    /// Takes over what another index knows of record `from` and those behind it, in place; no more is copied. To
    /// look-ups this is then the index of a log that begins there.
    pub fn copy_from(&mut self, other: &SparseIndex, from: Lsn) {
        let first = other.slot(from).unwrap_or(0);
        (self.base, self.stride) = (other.base.plus(first as u64 * other.stride), other.stride);
        self.used = other.used - first;
        self.marks[..self.used].copy_from_slice(&other.marks[first..other.used]);
        let (from, to) = other.unproven.get();
        self.unproven.set((from.saturating_sub(first), to.saturating_sub(first)));
    }

    /// How many records lie between two marks, and the marks.
    #[must_use]
    pub fn parts(&self) -> (u64, &[Mark]) {
        (self.stride, &self.marks[..self.used])
    }

    /// Makes the index from its parts, for a log of `count` records whose first has LSN `base + 1`. `false`: they are
    /// none. The first and the last mark are the caller's to prove.
    pub fn set_parts(
        &mut self,
        base: Lsn,
        count: u64,
        stride: u64,
        marks: impl ExactSizeIterator<Item = Mark>,
    ) -> bool {
        let fits = (1..=SLOTS).contains(&marks.len()) && stride >= FIRST_STRIDE && stride.is_power_of_two();
        if !fits || marks.len() as u64 != count.div_ceil(stride) {
            return false;
        }
        (self.base, self.stride, self.used) = (base, stride, marks.len());
        for (to, from) in self.marks.iter_mut().zip(marks) {
            *to = from;
        }
        self.unproven.set((1, self.used - 1));
        self.marks[..self.used].is_sorted_by(|a, b| a.offset < b.offset)
    }

    /// Notes where record `lsn` begins. Records must be noted in order, each of them.
    pub fn note(&mut self, lsn: Lsn, offset: u64, before: History) {
        let ordinal = lsn.since(self.base.next());
        if ordinal != self.used as u64 * self.stride {
            return;
        }
        if self.used == SLOTS {
            for slot in 0..SLOTS / 2 {
                self.marks[slot] = self.marks[slot * 2];
            }
            self.used = SLOTS / 2;
            self.stride *= 2;
            let (from, to) = self.unproven.get();
            self.unproven.set((from.div_ceil(2), to.div_ceil(2)));
            if ordinal != self.used as u64 * self.stride {
                return;
            }
        }
        self.marks[self.used] = Mark { offset, before };
        self.used += 1;
    }

    /// The last noted record at or before `lsn`, and its mark, proven in the log that `storage` reads: an earlier one
    /// if the index file has lied. `None` for an empty index, and for a record before the first.
    pub fn floor(&self, storage: &impl Storage, lsn: Lsn) -> Result<Option<(Position, History)>> {
        let Some(slot) = self.slot(lsn) else { return Ok(None) };
        let (from, to) = self.unproven.get();
        let is_proven = !(from..to).contains(&slot) || self.prove(storage, slot, from..to)?;
        Ok(Some(self.mark(if is_proven { slot } else { from - 1 })))
    }

    /// The last mark.
    #[must_use]
    pub fn last(&self) -> Option<(Position, History)> {
        self.used.checked_sub(1).map(|slot| self.mark(slot))
    }

    fn mark(&self, slot: usize) -> (Position, History) {
        let Mark { offset, before } = self.marks[slot];
        (Position { offset, lsn: self.base.next().plus(slot as u64 * self.stride) }, before)
    }

    /// Proves a mark, and those on the way to the nearest that is known: of `unproven` none, on both sides.
    fn prove(&self, storage: &impl Storage, slot: usize, unproven: Range<usize>) -> Result<bool> {
        let Range { start, end } = unproven;
        let is_nearer_to_end = end - slot <= slot - start;
        for one in if is_nearer_to_end { slot..end } else { start - 1..slot } {
            if !self.leads_on(storage, one)? {
                crate::log_info!("the log's index file does not fit the log behind LSN {}", self.mark(one).0.lsn);
                return Ok(false);
            }
        }
        if is_nearer_to_end {
            self.unproven.1.fetch_min(slot, Ordering::Relaxed);
        } else {
            self.unproven.0.fetch_max(slot + 1, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// Whether the records from one mark on lead to the next.
    fn leads_on(&self, storage: &impl Storage, slot: usize) -> Result<bool> {
        let ((from, mut history), to) = (self.mark(slot), self.mark(slot + 1));
        let stop = |at: Position| at.lsn >= to.0.lsn || at.offset >= to.0.offset;
        let walked = scan::walk_heads(storage, from, stop, |head| history = history.then(head))?;
        Ok(walked.map(|at| (at, history)) == Some(to))
    }

    fn slot(&self, lsn: Lsn) -> Option<usize> {
        let first = self.base.next();
        if self.used == 0 || lsn < first {
            return None;
        }
        let wanted = usize::try_from(lsn.since(first) / self.stride).unwrap_or(usize::MAX);
        Some(wanted.min(self.used - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn the_floor_is_a_noted_record_and_near_however_long_the_log() {
        let mut index = SparseIndex::new(Lsn(1000));
        let floor = |index: &SparseIndex, lsn| index.floor(&MemoryStorage::default(), Lsn(lsn)).unwrap();
        assert_eq!(floor(&index, 1001), None);
        let records = SLOTS as u64 * FIRST_STRIDE * 5;
        for ordinal in 0..records {
            index.note(Lsn(1001 + ordinal), ordinal * 27, History(ordinal));
        }
        for ordinal in (0..records).step_by(9973) {
            let (at, before) = floor(&index, 1001 + ordinal).unwrap();
            assert_eq!((at.offset, before), ((at.lsn.0 - 1001) * 27, History(at.lsn.0 - 1001)));
            assert!(at.lsn.0 <= 1001 + ordinal && 1001 + ordinal - at.lsn.0 < FIRST_STRIDE * 16);
        }
        assert_eq!(floor(&index, 1000), None);
        let mut copy = SparseIndex::new(Lsn::ZERO);
        copy.copy_from(&index, Lsn::ZERO);
        let mut part = SparseIndex::new(Lsn::ZERO);
        part.copy_from(&index, Lsn(77_777));
        assert!(part.used < index.used && floor(&part, 1001).is_none());
        for ordinal in (76_776..records).step_by(9973) {
            assert_eq!(floor(&part, 1001 + ordinal), floor(&index, 1001 + ordinal));
        }
        let (stride, marks) = index.parts();
        let mut made = SparseIndex::new(Lsn::ZERO);
        assert!(!made.set_parts(Lsn(1000), records + 2 * stride, stride, marks.iter().copied()));
        assert!(made.set_parts(Lsn(1000), records, stride, marks.iter().copied()));
        assert_eq!(floor(&copy, 77_777), floor(&index, 77_777));
        // Of an index file: nothing of it is in this empty log but the first mark.
        assert_eq!(floor(&made, 77_777), floor(&index, 1001));
    }
}
