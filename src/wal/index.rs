//! LSN -> byte offset, sparse and of fixed size: no allocation however long the log grows.
//!
//! Every `stride`-th record's place is kept; when the table is full every second one is dropped and the stride
//! doubles. A lookup gives the nearest record at or before the wanted one; the caller walks the rest, at most
//! `stride` record headers.
#![forbid(unsafe_code)]

use crate::types::{History, Lsn};
use std::fmt;

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
    marks: [Mark; SLOTS],
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
        SparseIndex { base, stride: FIRST_STRIDE, used: 0, marks: [Mark::default(); SLOTS] }
    }

    /// Empties the index in place.
    pub fn reset(&mut self, base: Lsn) {
        self.base = base;
        self.stride = FIRST_STRIDE;
        self.used = 0;
    }

    /// Takes over what another index knows of record `from` and those behind it, in place; no more is copied. To
    /// look-ups this is then the index of a log that begins there.
    pub fn copy_from(&mut self, other: &SparseIndex, from: Lsn) {
        let first = other.slot(from).unwrap_or(0);
        (self.base, self.stride) = (other.base.plus(first as u64 * other.stride), other.stride);
        self.used = other.used - first;
        self.marks[..self.used].copy_from_slice(&other.marks[first..other.used]);
    }

    /// How many records lie between two marks, and the marks.
    #[must_use]
    pub fn parts(&self) -> (u64, &[Mark]) {
        (self.stride, &self.marks[..self.used])
    }

    /// Makes the index from its parts, for a log whose first record has LSN `base + 1`. `false`: they are none.
    pub fn set_parts(&mut self, base: Lsn, stride: u64, marks: impl ExactSizeIterator<Item = Mark>) -> bool {
        if marks.len() > SLOTS || stride < FIRST_STRIDE || !stride.is_power_of_two() {
            return false;
        }
        (self.base, self.stride, self.used) = (base, stride, marks.len());
        for (to, from) in self.marks.iter_mut().zip(marks) {
            *to = from;
        }
        true
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
            if ordinal != self.used as u64 * self.stride {
                return;
            }
        }
        self.marks[self.used] = Mark { offset, before };
        self.used += 1;
    }

    /// The last noted record at or before `lsn`, and its mark. `None` for an empty index, and for a record before the
    /// first.
    #[must_use]
    pub fn floor(&self, lsn: Lsn) -> Option<(Lsn, Mark)> {
        let slot = self.slot(lsn)?;
        Some((self.base.next().plus(slot as u64 * self.stride), self.marks[slot]))
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

    #[test]
    fn the_floor_is_a_noted_record_and_near_however_long_the_log() {
        let mut index = SparseIndex::new(Lsn(1000));
        assert_eq!(index.floor(Lsn(1001)), None);
        let records = SLOTS as u64 * FIRST_STRIDE * 5;
        for ordinal in 0..records {
            index.note(Lsn(1001 + ordinal), ordinal * 27, History(ordinal));
        }
        for ordinal in (0..records).step_by(9973) {
            let (lsn, mark) = index.floor(Lsn(1001 + ordinal)).unwrap();
            assert_eq!(mark, Mark { offset: (lsn.0 - 1001) * 27, before: History(lsn.0 - 1001) });
            assert!(lsn.0 <= 1001 + ordinal && 1001 + ordinal - lsn.0 < FIRST_STRIDE * 16);
        }
        assert_eq!(index.floor(Lsn(1000)), None);
        let mut copy = SparseIndex::new(Lsn::ZERO);
        copy.copy_from(&index, Lsn::ZERO);
        let mut part = SparseIndex::new(Lsn::ZERO);
        part.copy_from(&index, Lsn(77_777));
        assert!(part.used < index.used && part.floor(Lsn(1001)).is_none());
        for ordinal in (76_776..records).step_by(9973) {
            assert_eq!(part.floor(Lsn(1001 + ordinal)), index.floor(Lsn(1001 + ordinal)));
        }
        let (stride, marks) = index.parts();
        let mut made = SparseIndex::new(Lsn::ZERO);
        assert!(made.set_parts(Lsn(1000), stride, marks.iter().copied()));
        for same in [copy, made] {
            assert_eq!(same.floor(Lsn(77_777)), index.floor(Lsn(77_777)));
        }
    }
}
