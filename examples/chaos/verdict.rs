//! What must hold when all is over: read from the nodes' files, with the library's public log, and from the ledger.

use crate::ledger::{Attempt, Outcome, number_of};
use logship::storage::file;
use logship::wal::scan;
use logship::{Op, Store, Wal};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// One node's log and store, as its files say.
pub(crate) struct Copy {
    name: String,
    base: u64,
    /// Encoded records, from LSN base + 1 on.
    records: Vec<Vec<u8>>,
    store: Store,
}

impl Copy {
    /// Reads a node's log and recovers its store.
    pub(crate) fn load(name: &str, path: &Path) -> Result<Copy, String> {
        let failed = |error: logship::Error| format!("{name}: its log can't be opened: {error}");
        let wal = Wal::open(path).map_err(failed)?;
        let reader = file::open_read(path).map_err(|error| format!("{name}: {error}"))?;
        let (base, mut records) = (wal.base_lsn().0, Vec::new());
        let first = wal.tail().origin().first();
        scan::scan(&reader, first, wal.len(), |batch| {
            let start = batch.offsets[0];
            let end = start + batch.encoded.len() as u64;
            let mut rest = batch.encoded;
            for next in batch.offsets[1..].iter().chain([&end]) {
                let at = usize::try_from(next - start).unwrap_or(usize::MAX);
                let (one, others) = rest.split_at(at - (batch.encoded.len() - rest.len()));
                records.push(one.to_vec());
                rest = others;
            }
            Ok(())
        })
        .map_err(failed)?;
        if base + records.len() as u64 != wal.last_lsn().0 {
            return Err(format!("{name}: {} records after LSN {base}, last LSN {}", records.len(), wal.last_lsn()));
        }
        let mut store = Store::new();
        logship::wal::recover(path, &mut store).map_err(|error| format!("{name}: no recovery: {error}"))?;
        Ok(Copy { name: name.to_owned(), base, records, store })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// LSN of the first record that it has, and of the last.
    pub(crate) fn range(&self) -> (u64, u64) {
        (self.base + 1, self.last())
    }

    fn last(&self) -> u64 {
        self.base + self.records.len() as u64
    }

    fn record(&self, lsn: u64) -> Option<&[u8]> {
        let at = lsn.checked_sub(self.base + 1)?;
        self.records.get(usize::try_from(at).ok()?).map(Vec::as_slice)
    }
}

/// What is wrong; nothing if all is well. The first copy is the leader's.
pub(crate) fn judge(copies: &[Copy], attempts: &[Attempt]) -> Vec<String> {
    let mut complaints = Vec::new();
    let Some((leader, followers)) = copies.split_first() else { return vec!["no leader".to_owned()] };
    for follower in followers {
        complaints.extend(same_records(leader, follower));
        if leader.store != follower.store {
            complaints.push(format!("{}: its store is not the leader's", follower.name));
        }
    }
    for copy in copies {
        complaints.extend(in_order(copy));
        complaints.extend(acked_records(copy, attempts));
        complaints.extend(absent_records(copy, attempts));
        complaints.extend(last_values(copy, attempts));
    }
    complaints
}

/// Logs hold the same bytes wherever both have records, and end at the same one.
fn same_records(leader: &Copy, follower: &Copy) -> Vec<String> {
    let mut complaints = Vec::new();
    if follower.last() != leader.last() {
        complaints.push(format!(
            "{}: it ends at LSN {}, the leader at LSN {}",
            follower.name,
            follower.last(),
            leader.last()
        ));
    }
    let from = leader.base.max(follower.base) + 1;
    let differs = |lsn: &u64| leader.record(*lsn) != follower.record(*lsn);
    if let Some(lsn) = (from..=leader.last().min(follower.last())).find(differs) {
        complaints.push(format!("{}: its record {lsn} is not the leader's", follower.name));
    }
    complaints
}

/// The numbers of the SETs grow: one writer wrote them, in this order.
fn in_order(copy: &Copy) -> Option<String> {
    let mut before = 0;
    for (encoded, at) in copy.records.iter().zip(copy.base + 1..) {
        let Ok(record) = logship::wal::record::decode(encoded) else {
            return Some(format!("{}: record {at} is damaged", copy.name));
        };
        let Some(number) = (record.op == Op::Set).then(|| number_of(record.value)) else { continue };
        match number {
            Some(number) if number > before => before = number,
            Some(number) => {
                return Some(format!("{}: record {at} is write {number}, behind write {before}", copy.name));
            }
            None => return Some(format!("{}: record {at} was never written by the writer", copy.name)),
        }
    }
    None
}

/// Every acknowledged write stands under its LSN, as far as the log reaches back.
fn acked_records(copy: &Copy, attempts: &[Attempt]) -> Option<String> {
    let is_there = |attempt: &Attempt, lsn: u64| {
        let record = copy.record(lsn).and_then(|encoded| logship::wal::record::decode(encoded).ok());
        record.is_some_and(|record| {
            let op = if attempt.is_set { Op::Set } else { Op::Del };
            let is_it = !attempt.is_set || number_of(record.value) == Some(attempt.number);
            record.op == op && record.key == attempt.key.as_bytes() && is_it
        })
    };
    let mut missing = attempts.iter().filter_map(|attempt| match attempt.outcome {
        Outcome::Acked(lsn) if lsn > copy.base && !is_there(attempt, lsn) => Some((attempt, lsn)),
        _ => None,
    });
    let (attempt, lsn) = missing.next()?;
    let others = missing.count();
    Some(format!(
        "{}: write {} of {} was acknowledged as LSN {lsn} and is not there ({others} others neither)",
        copy.name, attempt.number, attempt.key
    ))
}

/// What the leader said is in no log is in none.
fn absent_records(copy: &Copy, attempts: &[Attempt]) -> Option<String> {
    let absent = attempts.iter().filter(|attempt| attempt.outcome == Outcome::Absent);
    let absent: HashSet<_> = absent.map(|attempt| attempt.number).collect();
    let wrote = |encoded: &Vec<u8>| {
        let record = logship::wal::record::decode(encoded).ok()?;
        (record.op == Op::Set).then(|| number_of(record.value)).flatten()
    };
    let found = copy.records.iter().filter_map(wrote).find(|number| absent.contains(number))?;
    Some(format!("{}: write {found} was refused as not logged, and is in the log", copy.name))
}

/// The store has, for each key, the last acknowledged write or a later one whose outcome nobody knows.
fn last_values(copy: &Copy, attempts: &[Attempt]) -> Option<String> {
    let mut by_key: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.outcome != Outcome::Absent) {
        by_key.entry(&attempt.key).or_default().push(attempt);
    }
    for (key, attempts) in &by_key {
        let acked = attempts.iter().rposition(|attempt| matches!(attempt.outcome, Outcome::Acked(_)));
        let value = copy.store.get(key.as_bytes());
        let may_be = |attempt: &&&Attempt| match value {
            Some(value) => attempt.is_set && number_of(value) == Some(attempt.number),
            None => !attempt.is_set,
        };
        let untouched = acked.is_none() && value.is_none();
        if !untouched && !attempts[acked.unwrap_or(0)..].iter().any(|attempt| may_be(&attempt)) {
            let (last, here) = (acked.map(|at| attempts[at].number), value.and_then(number_of));
            return Some(format!(
                "{}: {key} has the value of write {here:?}; its last acknowledged write is {last:?}",
                copy.name
            ));
        }
    }
    let unknown =
        copy.store.iter().find(|(key, _)| !std::str::from_utf8(key).is_ok_and(|key| by_key.contains_key(key)));
    unknown.map(|(key, _)| format!("{}: nobody wrote {}", copy.name, String::from_utf8_lossy(key)))
}

#[cfg(test)]
mod tests;
