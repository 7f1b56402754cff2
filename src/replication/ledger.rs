//! What one follower has acknowledged, in fixed memory.
//!
//! A logship follower's ack covers everything up to its LSN. Any other peer's ack counts for its own LSN only, and only
//! once: the wait that it makes succeed uses it up. The same ack twice is one ack.
#![forbid(unsafe_code)]

use crate::types::Lsn;

const RANGES: usize = 2048;

/// A set of LSNs: everything up to one, and ranges above it.
#[derive(Clone, Debug)]
pub struct Ledger {
    through: Lsn,
    /// Sorted, apart from each other, both ends included.
    ranges: [(u64, u64); RANGES],
    used: usize,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { through: Lsn::ZERO, ranges: [(0, 0); RANGES], used: 0 }
    }
}

impl Ledger {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.through = Lsn::ZERO;
        self.used = 0;
    }

    /// Everything up to `lsn` is durable there.
    pub fn add_through(&mut self, lsn: Lsn) {
        self.through = self.through.max(lsn);
    }

    /// Record `lsn` is durable there. When more separate ranges come than fit, the oldest is dropped: it stands for
    /// records that nobody has waited for while hundreds of gaps opened above them.
    pub fn add(&mut self, lsn: Lsn) {
        let value = lsn.0;
        let at = self.ranges[..self.used].partition_point(|range| range.1 < value);
        if at < self.used && self.ranges[at].0 <= value {
            return;
        }
        let joins_left = at > 0 && self.ranges[at - 1].1.checked_add(1) == Some(value);
        let joins_right = at < self.used && value.checked_add(1) == Some(self.ranges[at].0);
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = value,
            (false, true) => self.ranges[at].0 = value,
            (false, false) => self.insert(at, (value, value)),
        }
    }

    /// As [`add`](Ledger::add), for all records from `first` to `last`.
    pub fn add_range(&mut self, first: Lsn, last: Lsn) {
        let at = self.ranges[..self.used].partition_point(|range| range.1 < first.0);
        let (mut from, mut to) = (first.0, last.0);
        while at < self.used && self.ranges[at].0 <= last.0 {
            (from, to) = (from.min(self.ranges[at].0), to.max(self.ranges[at].1));
            self.remove(at);
        }
        if from <= to {
            self.insert(at, (from, to));
        }
    }

    /// Whether record `lsn` was acknowledged and not used up.
    #[must_use]
    pub fn has(&self, lsn: Lsn) -> bool {
        lsn <= self.through || self.find(lsn).is_some()
    }

    /// Uses up the ack of record `lsn`; a cumulative one stays.
    pub fn use_up(&mut self, lsn: Lsn) {
        let Some(at) = self.find(lsn) else { return };
        let (first, last) = self.ranges[at];
        match (first == lsn.0, last == lsn.0) {
            (true, true) => self.remove(at),
            (true, false) => self.ranges[at].0 += 1,
            (false, true) => self.ranges[at].1 -= 1,
            (false, false) => {
                self.ranges[at].1 = lsn.0 - 1;
                self.insert(at + 1, (lsn.0 + 1, last));
            }
        }
    }

    fn find(&self, lsn: Lsn) -> Option<usize> {
        let at = self.ranges[..self.used].partition_point(|range| range.1 < lsn.0);
        (at < self.used && self.ranges[at].0 <= lsn.0).then_some(at)
    }

    fn insert(&mut self, mut at: usize, range: (u64, u64)) {
        if self.used == RANGES {
            if at == 0 {
                return; // It would be the oldest itself.
            }
            self.remove(0);
            at -= 1;
        }
        self.ranges.copy_within(at..self.used, at + 1);
        self.ranges[at] = range;
        self.used += 1;
    }

    fn remove(&mut self, at: usize) {
        self.ranges.copy_within(at + 1..self.used, at);
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((1u64..60, any::<bool>()), 0..300)) {
            let (mut ledger, mut model) = (Ledger::default(), BTreeSet::new());
            for (lsn, add) in steps {
                if add {
                    ledger.add(Lsn(lsn));
                    model.insert(lsn);
                } else {
                    ledger.use_up(Lsn(lsn));
                    model.remove(&lsn);
                }
                for probe in 0..62 {
                    prop_assert_eq!(ledger.has(Lsn(probe)), probe == 0 || model.contains(&probe));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_range_is_all_its_members(ranges in proptest::collection::vec((1u64..60, 0u64..20), 0..40)) {
            let (mut ledger, mut model) = (Ledger::default(), BTreeSet::new());
            for (first, more) in ranges {
                ledger.add_range(Lsn(first), Lsn(first + more));
                model.extend(first..=first + more);
                for probe in 1..82 {
                    prop_assert_eq!(ledger.has(Lsn(probe)), model.contains(&probe));
                }
            }
        }
    }

    #[test]
    fn the_oldest_of_too_many_gaps_is_dropped() {
        let mut ledger = Ledger::default();
        for lsn in (2..).step_by(2).take(RANGES + 1) {
            ledger.add(Lsn(lsn));
        }
        assert!(!ledger.has(Lsn(2)));
        assert!(ledger.has(Lsn(4)));
        assert!(ledger.has(Lsn(2 * (RANGES as u64 + 1))));
        ledger.add(Lsn(2));
        assert!(!ledger.has(Lsn(2)));
        ledger.add(Lsn(u64::MAX));
        assert!(ledger.has(Lsn(u64::MAX)));
    }

    #[test]
    fn a_cumulative_ack_covers_all_below_and_is_never_used_up() {
        let mut ledger = Ledger::default();
        ledger.add_through(Lsn(10));
        ledger.add_through(Lsn(4));
        ledger.use_up(Lsn(7));
        assert!(ledger.has(Lsn(7)) && ledger.has(Lsn(10)) && !ledger.has(Lsn(11)));
    }
}
