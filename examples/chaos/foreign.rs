//! What the drill does to a stopped node's log.
//!
//! A follower that was, for its last records, another leader's has a tail that the leader never wrote: it must be
//! refused and take nothing until its log is cut back to what both have. A node that was killed while it wrote has a
//! part of a record at the end.

use logship::types::History;
use logship::{Lsn, Record, Timestamp, Wal};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// What was planted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planted {
    /// The last record that is the leader's.
    fork: Lsn,
    last: Lsn,
    history: History,
}

/// Replaces the last records of a stopped follower's log by others. `None`: the log is too short.
pub(crate) fn plant(wal: &Path, count: u64, more: u64) -> Result<Option<Planted>, String> {
    let mut wal = Wal::open(wal).map_err(|error| format!("plant: {error}"))?;
    // The first record of a log that begins with a snapshot belongs to the snapshot.
    if wal.last_lsn().0 < wal.base_lsn().0 + count + 2 {
        return Ok(None);
    }
    let fork = Lsn(wal.last_lsn().0 - count);
    wal.truncate_to(fork).map_err(|error| format!("plant: {error}"))?;
    let keys: Vec<_> = (0..count + more).map(|number| format!("foreign-{number}")).collect();
    let records: Vec<_> = keys.iter().map(|key| Record::set(key.as_bytes(), b"foreign", Timestamp(1))).collect();
    let last = wal.append_batch(&records).map_err(|error| format!("plant: {error}"))?;
    Ok(Some(Planted { fork, last, history: wal.tail().history() }))
}

/// The way out: cuts a stopped follower's log back to what is the leader's. Says what is wrong if the log is not as it
/// was planted: a refused follower takes nothing.
pub(crate) fn uproot(wal: &Path, planted: &Planted) -> Result<Option<String>, String> {
    let mut wal = Wal::open(wal).map_err(|error| format!("uproot: {error}"))?;
    if wal.base_lsn() >= planted.last {
        return Ok(None); // Its records were gone from the leader's log, so it got a snapshot, which replaces all.
    }
    let (last, history) = (wal.last_lsn(), wal.tail().history());
    let complaint = ((last, history) != (planted.last, planted.history)).then(|| {
        format!(
            "a follower with another past was not refused: its log ended at LSN {} (history {}), now at LSN {last} \
             (history {history})",
            planted.last, planted.history
        )
    });
    wal.truncate_to(planted.fork).map_err(|error| format!("uproot: {error}"))?;
    Ok(complaint)
}

/// Puts the first bytes of a record behind the log, `at` of them, or fewer: never a whole one.
pub(crate) fn tear(wal: &Path, at: usize) -> Result<(), String> {
    let record = Record::set(b"torn", &[b't'; 5_000], Timestamp(1));
    let mut bytes = vec![0; record.encoded_len()];
    logship::wal::record::encode(&record, &mut bytes).map_err(|error| format!("tear: {error}"))?;
    let part = &bytes[..at.clamp(1, bytes.len() - 1)];
    let written = OpenOptions::new().append(true).open(wal).and_then(|mut log| log.write_all(part));
    written.map_err(|error| format!("{}: {error}", wal.display()))
}
