//! Cutting a log back because a person says so: first what that would keep and lose, then the cut.
//!
//! [`plan`] only reads. [`cut`] does what the plan says if the log still is what the plan was made of. What it cuts off
//! is kept beside the log in `<path>.cut-N`.
#![forbid(unsafe_code)]

use super::origin::{self, Origin};
use super::scan;
use super::survey::{self, Behind};
use super::tail::LogTail;
use super::{compact, lock};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage};
use crate::types::Lsn;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};

/// So many different keys are counted, which takes 16 MiB; more are "at least so many".
pub const KEYS_MAX: usize = 1_000_000;
/// So many of them are named.
const KEYS_NAMED: usize = 3;

/// What a cut behind record `to` keeps and loses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The last record that stays.
    pub to: Lsn,
    /// LSN before the first record.
    pub base: Lsn,
    /// Bytes that stay.
    pub kept_bytes: u64,
    /// Bytes that go, whole records or not.
    pub lost_bytes: u64,
    /// The last record that goes and whose LSN is known; `to` if there is none.
    pub lost_to: Lsn,
    /// Whole records that go and whose LSN is not known, since they stand behind damage.
    pub behind: Behind,
    /// Bytes that go and belong to no whole record.
    pub broken_bytes: u64,
    /// What the records that go were about.
    pub keys: Keys,
}

impl Plan {
    /// How many records stay.
    #[must_use]
    pub fn kept_records(&self) -> u64 {
        self.to.since(self.base)
    }

    /// How many whole records go.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.lost_to.since(self.to) + self.behind.records
    }
}

/// Different keys, counted in bounded memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// How many; at least so many if it is [`KEYS_MAX`].
    pub count: usize,
    /// The first few of them.
    pub named: Vec<Vec<u8>>,
}

/// Counts different keys by a hash of 64 bits: two of a million that are alike are one in 40 million runs.
#[derive(Default)]
struct KeyCounter {
    hasher: RandomState,
    seen: HashSet<u64>,
    keys: Keys,
}

impl KeyCounter {
    fn note(&mut self, key: &[u8]) {
        if self.seen.len() < KEYS_MAX && self.seen.insert(self.hasher.hash_one(key)) {
            self.keys.count += 1;
            if self.keys.named.len() < KEYS_NAMED {
                self.keys.named.push(key.to_vec());
            }
        }
    }
}

/// Finds what a cut of the log in `storage` behind record `to` would keep and lose. `progress` is told how many bytes
/// have been read.
///
/// Errors: [`Error::OutOfRange`]: the log does not have `to` before its first damage, or it was compacted and no record
/// would be left, without which it could not tell where it begins.
pub fn plan(storage: &impl Storage, origin: Origin, to: Lsn, mut progress: impl FnMut(u64)) -> Result<Plan> {
    let base = origin.base;
    let mut plan = Plan { to, base, ..Plan::default() };
    let mut keys = KeyCounter::default();
    let len = storage.len()?;
    let first = origin.first();
    let end = scan::scan(storage, first, len, |batch| {
        let start = batch.offsets.first().copied().unwrap_or_default();
        let end = start + batch.encoded.len() as u64;
        let mut lsn = batch.first;
        let ends = batch.offsets.iter().skip(1).copied().chain([end]);
        for (one, end) in batch.records.iter().zip(ends) {
            if lsn <= to {
                plan.kept_bytes = end
            } else {
                keys.note(one.key)
            }
            lsn = lsn.next();
        }
        progress(end);
        Ok(())
    })?;
    let last = end.last();
    if to > last || (to <= base && base > Lsn::ZERO) {
        return Err(Error::OutOfRange { lsn: to, base, last });
    }
    if end.damaged {
        survey::search(storage, end.next.offset + 1, |found| {
            plan.behind.note(found);
            keys.note(found.record.key);
            progress(found.offset);
            Ok(())
        })?;
    }
    plan.lost_to = last;
    plan.lost_bytes = len - plan.kept_bytes;
    plan.broken_bytes = len - end.next.offset - plan.behind.bytes;
    plan.keys = keys.keys;
    Ok(plan)
}

/// Cuts the log at `path` as `plan` says; returns the name of the file that has what was cut off, or `None` if the plan
/// loses nothing.
///
/// Errors: [`Error::Locked`]: another process holds the log's lock. [`Error::Refused`]: the log is not what it was when
/// the plan was made. Nothing was changed then.
pub fn cut(path: &Path, plan: &Plan) -> Result<Option<PathBuf>> {
    let real = file::real(path);
    file::open_read(&real)?; // Opening for appending would create it.
    let appender = file::open_append(&real)?;
    lock(&appender)?;
    let reader = file::reopen_for_reading(&appender)?;
    let origin = origin::of(&reader)?;
    if reader.len()? != plan.kept_bytes + plan.lost_bytes || origin.base != plan.base {
        return Err(Error::Refused("the log has changed since it was looked at"));
    }
    let mut tail = Box::<LogTail>::default();
    // Without the index file: it may cover damage.
    tail.rescan(&reader, origin)?;
    compact::truncate_to(&real, &reader, &mut FileStorage(appender), &mut tail, plan.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::types::Timestamp;
    use crate::wal::record::{self, Record};

    /// Ten records of two keys; all have the same length.
    fn log() -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        for number in 0..10_u64 {
            let key = [b'a' + u8::try_from(number % 2).unwrap()];
            let record = Record::set(&key, b"value", Timestamp(number));
            let mut one = vec![0; record.encoded_len()];
            record::encode(&record, &mut one).unwrap();
            bytes.extend(one);
        }
        let len = bytes.len() / 10;
        (bytes, len)
    }

    fn plan_of(bytes: &[u8], to: u64) -> Result<Plan> {
        let storage = MemoryStorage { bytes: bytes.to_vec(), ..MemoryStorage::default() };
        plan(&storage, Origin::default(), Lsn(to), |_| ())
    }

    #[test]
    fn a_plan_counts_what_stays_and_what_goes() {
        let (mut bytes, len) = log();
        bytes[5 * len + 10] ^= 1; // Record 6.
        let plan = plan_of(&bytes, 3).unwrap();
        assert_eq!((plan.kept_records(), plan.kept_bytes), (3, 3 * len as u64));
        assert_eq!((plan.lost_to, plan.lost_records(), plan.lost_bytes), (Lsn(5), 2 + 4, 7 * len as u64));
        let behind = Behind { records: 4, bytes: 4 * len as u64, runs: 1, first: 6 * len as u64 };
        assert_eq!((plan.behind, plan.broken_bytes), (behind, len as u64));
        assert_eq!((plan.keys.count, plan.keys.named.len()), (2, 2));
    }

    #[test]
    fn a_record_behind_the_damage_is_no_place_to_cut() {
        let (mut bytes, len) = log();
        bytes[5 * len + 10] ^= 1;
        assert!(plan_of(&bytes, 5).is_ok());
        let refused = plan_of(&bytes, 6);
        assert!(matches!(refused, Err(Error::OutOfRange { lsn: Lsn(6), last: Lsn(5), .. })), "{refused:?}");
    }

    #[test]
    fn a_compacted_log_keeps_a_record() {
        let origin = Origin { base: Lsn(100), ..Origin::default() };
        let bytes = [origin.marker(), log().0].concat();
        let storage = MemoryStorage { bytes, ..MemoryStorage::default() };
        assert!(matches!(plan(&storage, origin, Lsn(100), |_| ()), Err(Error::OutOfRange { .. })));
        let plan = plan(&storage, origin, Lsn(101), |_| ()).unwrap();
        assert_eq!((plan.kept_records(), plan.lost_records()), (1, 9));
    }
}
