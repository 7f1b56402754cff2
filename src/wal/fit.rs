//! Whether a checkpoint was taken from a log: compared by what the log had been through, not by a place in the file,
//! where more than one log fits. Nothing is changed, and no index file is believed.
#![forbid(unsafe_code)]

use super::checkpoint::Covered;
use super::origin::Origin;
use super::scan::{self, Position};
use crate::error::Result;
use crate::storage::Storage;
use crate::types::{History, Lsn};

/// How a checkpoint and a log go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The checkpoint is of this log's past, and so many whole records stand behind what it covers.
    Fits {
        /// The last record that it covers.
        lsn: Lsn,
        /// What recovery replays.
        behind: u64,
    },
    /// The log's last whole record comes before what the checkpoint covers: it is of an earlier moment, was cut, or is
    /// damaged before that.
    PastTheEnd {
        /// That last record.
        last: Lsn,
    },
    /// The log had been through something else at that record: another log, or another past of this one.
    OtherPast {
        /// What the log had been through there.
        history: History,
    },
    /// The log's first records were dropped, and the checkpoint does not stand for all of them.
    TooOld {
        /// The last record that was dropped.
        base: Lsn,
    },
    /// A lesson's checkpoint says only a byte offset, and no record of the log begins or ends there.
    NoBoundary,
    /// A lesson's checkpoint says only a byte offset, which means nothing in a log whose first records were dropped.
    Unknown,
}

/// Compares what a checkpoint says it covers with the log in `storage`, which begins at `origin`.
pub fn fit(covered: &Covered, storage: &impl Storage, origin: Origin) -> Result<Fit> {
    let says_lsn = covered.lsn > Lsn::ZERO;
    if !says_lsn && origin.base > Lsn::ZERO {
        return Ok(Fit::Unknown);
    }
    if says_lsn && covered.lsn < origin.base {
        return Ok(Fit::TooOld { base: origin.base });
    }
    let is_there = |at: Position| if says_lsn { at.lsn > covered.lsn } else { at.offset == covered.offset };
    let first = origin.first();
    let mut history = origin.history;
    // What the log had been through where the checkpoint ends, and the record behind that.
    let mut found = is_there(first).then_some((history, first.lsn));
    let end = scan::scan(storage, first, storage.len()?, |batch| {
        let base = batch.offsets.first().copied().unwrap_or_default();
        let end = base + batch.encoded.len() as u64;
        let ends = batch.offsets.iter().skip(1).copied().chain([end]);
        let mut lsn = batch.first;
        for (begin, end) in batch.offsets.iter().zip(ends) {
            if found.is_some() {
                break;
            }
            let at = usize::try_from(begin - base).unwrap_or(usize::MAX);
            let head = batch.encoded.get(at..).and_then(|rest| rest.first_chunk().copied());
            history = history.then(head.unwrap_or_default());
            lsn = lsn.next();
            found = is_there(Position { offset: end, lsn }).then_some((history, lsn));
        }
        Ok(())
    })?;
    let last = end.last();
    Ok(match found {
        Some((there, _)) if says_lsn && there != covered.history => Fit::OtherPast { history: there },
        Some((_, next)) => {
            let lsn = Lsn(next.0.saturating_sub(1));
            Fit::Fits { lsn, behind: last.since(lsn) }
        }
        None if says_lsn || covered.offset > end.next.offset => Fit::PastTheEnd { last },
        None => Fit::NoBoundary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::types::Timestamp;
    use crate::wal::record::{self, Record};

    /// A log of so many records, the ends of them, and its histories from that of no record on.
    fn log(count: u64) -> (MemoryStorage, Vec<u64>, Vec<History>) {
        let (mut bytes, mut ends, mut histories) = (Vec::new(), vec![0], vec![History::EMPTY]);
        for number in 1..=count {
            let record = Record::set(b"key", b"value", Timestamp(number));
            let mut one = vec![0; record.encoded_len()];
            record::encode(&record, &mut one).unwrap();
            histories.push(histories.last().unwrap().then(*one.first_chunk().unwrap()));
            bytes.extend(one);
            ends.push(bytes.len() as u64);
        }
        (MemoryStorage { bytes, ..MemoryStorage::default() }, ends, histories)
    }

    #[test]
    fn a_checkpoint_fits_the_log_of_its_past() {
        let (storage, ends, histories) = log(200);
        for at in [0, 1, 63, 64, 65, 199, 200] {
            let lsn = Lsn(at as u64);
            let behind = 200 - lsn.0;
            let ours = Covered { offset: 7, lsn, history: histories[at] };
            let lessons = Covered { offset: ends[at], ..Covered::default() };
            for covered in [ours, lessons] {
                if covered.lsn == Lsn::ZERO && covered.offset == 7 {
                    continue; // LSN 0 is "not said".
                }
                assert_eq!(fit(&covered, &storage, Origin::default()).unwrap(), Fit::Fits { lsn, behind }, "{at}");
            }
        }
    }

    #[test]
    fn a_checkpoint_of_anything_else_does_not() {
        let (mut storage, ends, histories) = log(10);
        let covered = |at: usize| Covered { offset: ends[at], lsn: Lsn(at as u64), history: histories[at] };
        let whole = Origin::default();
        let other = Covered { history: History(7), ..covered(5) };
        assert_eq!(fit(&other, &storage, whole).unwrap(), Fit::OtherPast { history: histories[5] });
        let inside = Covered { offset: ends[5] + 1, ..Covered::default() };
        assert_eq!(fit(&inside, &storage, whole).unwrap(), Fit::NoBoundary);
        let beyond = Covered { offset: ends[10] + 1, ..Covered::default() };
        assert_eq!(fit(&beyond, &storage, whole).unwrap(), Fit::PastTheEnd { last: Lsn(10) });
        let later = Origin { base: Lsn(6), history: histories[6] };
        let whole_bytes = storage.bytes.clone();
        storage.bytes = [later.marker(), whole_bytes.clone()].concat();
        assert_eq!(fit(&covered(5), &storage, later).unwrap(), Fit::TooOld { base: Lsn(6) });
        let lessons = Covered { offset: ends[5], ..Covered::default() };
        assert_eq!(fit(&lessons, &storage, later).unwrap(), Fit::Unknown);
        assert_eq!(fit(&covered(6), &storage, later).unwrap(), Fit::Fits { lsn: Lsn(6), behind: 10 });
        storage.bytes = whole_bytes;
        storage.bytes[usize::try_from(ends[3]).unwrap() + 10] ^= 1;
        assert_eq!(fit(&covered(3), &storage, whole).unwrap(), Fit::Fits { lsn: Lsn(3), behind: 0 });
        assert_eq!(fit(&covered(4), &storage, whole).unwrap(), Fit::PastTheEnd { last: Lsn(3) });
    }
}
