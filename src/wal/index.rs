//! LSN -> byte offset, sparse and of fixed size: no allocation however long the log grows.
//!
//! Every `stride`-th record's offset is kept; when the table is full every second one is dropped and the stride
//! doubles. A lookup gives the nearest record at or before the wanted one; the caller walks the rest, at most
//! `stride` record headers.
#![forbid(unsafe_code)]

use crate::types::Lsn;

const SLOTS: usize = 16_384;
const FIRST_STRIDE: u64 = 256;

/// A sparse index. Slot `i` holds the offset of record `base + 1 + i * stride`. Zeroed memory is not a valid index;
/// [`reset`](SparseIndex::reset) makes one.
#[derive(Clone, Debug)]
pub struct SparseIndex {
    base: Lsn,
    stride: u64,
    used: usize,
    offsets: [u64; SLOTS],
}

impl SparseIndex {
    /// An empty index of a log whose first record has LSN `base + 1`.
    #[must_use]
    pub fn new(base: Lsn) -> SparseIndex {
        SparseIndex { base, stride: FIRST_STRIDE, used: 0, offsets: [0; SLOTS] }
    }

    /// Empties the index in place.
    pub fn reset(&mut self, base: Lsn) {
        self.base = base;
        self.stride = FIRST_STRIDE;
        self.used = 0;
    }

    /// Notes that record `lsn` begins at `offset`. Records must be noted in order, each of them.
    pub fn note(&mut self, lsn: Lsn, offset: u64) {
        let ordinal = lsn.since(self.base.next());
        if ordinal != self.used as u64 * self.stride {
            return;
        }
        if self.used == SLOTS {
            for slot in 0..SLOTS / 2 {
                self.offsets[slot] = self.offsets[slot * 2];
            }
            self.used = SLOTS / 2;
            self.stride *= 2;
            if ordinal != self.used as u64 * self.stride {
                return;
            }
        }
        self.offsets[self.used] = offset;
        self.used += 1;
    }

    /// Forgets every record from `lsn` on.
    pub fn truncate_from(&mut self, lsn: Lsn) {
        let ordinal = lsn.since(self.base.next());
        let keep = ordinal.div_ceil(self.stride);
        self.used = self.used.min(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// The last noted record at or before `lsn`, and its offset. For an empty index the first record at 0.
    #[must_use]
    pub fn floor(&self, lsn: Lsn) -> (Lsn, u64) {
        let first = self.base.next();
        if self.used == 0 {
            return (first, 0);
        }
        let wanted = usize::try_from(lsn.since(first) / self.stride).unwrap_or(usize::MAX);
        let slot = wanted.min(self.used - 1);
        (first.plus(slot as u64 * self.stride), self.offsets[slot])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_a_noted_record_and_near_however_long_the_log() {
        let mut index = SparseIndex::new(Lsn(1000));
        let records = SLOTS as u64 * FIRST_STRIDE * 5;
        for ordinal in 0..records {
            index.note(Lsn(1001 + ordinal), ordinal * 27);
        }
        for ordinal in (0..records).step_by(9973) {
            let (lsn, offset) = index.floor(Lsn(1001 + ordinal));
            assert_eq!(offset, (lsn.0 - 1001) * 27);
            assert!(lsn.0 <= 1001 + ordinal && 1001 + ordinal - lsn.0 < FIRST_STRIDE * 16);
        }
    }

    #[test]
    fn after_a_truncation_new_offsets_are_noted_again() {
        let mut index = SparseIndex::new(Lsn::ZERO);
        for lsn in 1..=1000 {
            index.note(Lsn(lsn), lsn * 10);
        }
        index.truncate_from(Lsn(600));
        for lsn in 600..=1000 {
            index.note(Lsn(lsn), lsn * 20);
        }
        for lsn in 1..=1000 {
            let (at, offset) = index.floor(Lsn(lsn));
            assert_eq!(offset, at.0 * if at.0 < 600 { 10 } else { 20 });
        }
    }
}
