//! Building the store from the log, and from a checkpoint and the log's tail.
//!
//! Replay never skips a record: it stops at the first one that is not whole (lesson w10-l03), says where, and keeps
//! what came before. The choice between checkpoint and whole log is a table ([`plan`]), apart from the reading.
#![forbid(unsafe_code)]

use super::checkpoint::{self, Covered};
use super::scan::{self, Position};
use super::tail::LogTail;
use super::{CHECKPOINT_SUFFIX, meta, snapshot};
use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage};
use crate::types::Lsn;
use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What a replay did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Records replayed.
    pub records: u64,
    /// The byte after the last of them.
    pub end: u64,
    /// Whether something that is no whole record stands there.
    pub damaged: bool,
}

/// Applies every whole record from byte `offset` on.
pub fn replay(storage: &impl Storage, offset: u64, store: &mut impl StateMachine) -> Result<Replay> {
    let from = Position { offset, lsn: Lsn(1) };
    let end = scan::scan(storage, from, storage.len()?, |batch| {
        for record in batch.records {
            clock::observe(record.timestamp);
        }
        store.apply_all(batch.records)
    })?;
    Ok(Replay { records: end.last().0, end: end.next.offset, damaged: end.damaged })
}

/// What is known of a checkpoint before anything is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointState {
    /// There is none.
    Missing,
    /// It is damaged, or its offset is no record boundary of this log.
    Unusable,
    /// It is whole and covers the log up to this byte.
    Usable(u64),
}

/// How to recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Replay the log from its first record.
    WholeLog,
    /// Load the checkpoint, then replay from this byte.
    Checkpoint(u64),
}

/// The decision table, for a log that begins with record 1.
#[must_use]
pub fn plan(checkpoint: CheckpointState) -> Plan {
    match checkpoint {
        CheckpointState::Usable(offset) => Plan::Checkpoint(offset),
        CheckpointState::Missing | CheckpointState::Unusable => Plan::WholeLog,
    }
}

/// Whether `offset` is where a record of this log begins, or its end. Walks the headers from the first record: a
/// value may hold bytes that look like a record, so looking at `offset` alone proves nothing. Only when the log is
/// damaged before `offset` a whole record at that place must do: the checkpoint then holds what the log has lost.
pub fn is_boundary(storage: &impl Storage, offset: u64) -> Result<bool> {
    if offset > storage.len()? {
        return Ok(false);
    }
    let first = Position { offset: 0, lsn: Lsn(1) };
    // The record before the one where the walk ends: `offset` lies in it if the walk goes past `offset`.
    let (before, at) = (Cell::new(0), Cell::new(0));
    let walked = scan::walk(storage, first, |position| {
        before.set(at.replace(position.offset));
        position.offset >= offset
    })?;
    match walked {
        Some(end) if end.offset == offset => Ok(true),
        Some(_) if scan::is_record_at(storage, before.get())? => Ok(false),
        _ => Ok(offset == storage.len()? || scan::is_record_at(storage, offset)?),
    }
}

/// Where replay goes on behind a checkpoint of a compacted log, whose offset means nothing any more: its LSN does. It
/// must stand for every record that is gone, and for the same ones as far as the log can tell.
pub fn offset_behind(covered: &Covered, storage: &impl Storage, tail: &LogTail) -> Result<u64> {
    if covered.lsn < tail.base() {
        return Err(Error::Malformed("it covers less than was dropped from the log"));
    }
    // Of another log, or this one's end was cut: then it holds what nobody should have.
    if covered.lsn > tail.last() {
        return Err(Error::Malformed("it covers more than the log has"));
    }
    match tail.place_behind(storage, covered.lsn)? {
        Some((at, _, history)) if history == covered.history => Ok(at.offset),
        _ => Err(Error::Malformed("it was taken from another log")),
    }
}

/// A log that begins later, and no checkpoint stands for what is gone.
fn refuse() -> Error {
    Error::Malformed("the log was compacted and no usable checkpoint stands for what was dropped")
}

/// Replays the log at `path` into `store`, stopping at the first record that is not whole; returns how many records
/// were replayed. A missing file is an error (ENOENT). A log that was compacted needs the checkpoint that stands for
/// its first records: the one in `<path>.ckpt`, which a snapshot puts there, or it is refused.
pub fn recover(path: &Path, store: &mut impl StateMachine) -> Result<u64> {
    let log = file::open_read(path)?;
    match meta::origin(&log)? {
        origin if origin.base == Lsn::ZERO => replay_from(path, &log, 0, store),
        _ => recover_compacted(path, &log, None, store),
    }
}

/// Recovers a log that does not begin with record 1: the first that fits of the checkpoint given, the one beside the
/// log and a snapshot whose installation a crash interrupted is loaded, and what it does not cover replayed.
fn recover_compacted(
    path: &Path,
    log: &FileStorage<File>,
    given: Option<&Path>,
    store: &mut impl StateMachine,
) -> Result<u64> {
    let mut tail = Box::<LogTail>::default();
    tail.refresh(log)?;
    let real = file::real(path);
    let beside = file::beside(&real, CHECKPOINT_SUFFIX);
    let snapshots = file::all_beside(&real, snapshot::SUFFIX)?;
    let candidates = given.into_iter().chain([beside.as_path()]).chain(snapshots.iter().map(PathBuf::as_path));
    for candidate in candidates {
        let found = file::open_read(candidate).map_err(Error::from).and_then(|storage| {
            let found = checkpoint::verify(&storage)?;
            let offset = offset_behind(&found.covered, log, &tail)?;
            found.apply(store)?;
            Ok(offset)
        });
        match found {
            Ok(offset) => {
                if snapshots.iter().any(|snapshot| snapshot == candidate) {
                    file::rename(candidate, &beside)?; // What the crash has left to do.
                }
                return replay_from(path, log, offset, store);
            }
            Err(error) => crate::log_warn!(
                "{}: not used for {}, which begins after LSN {}: {error}",
                candidate.display(),
                path.display(),
                tail.base()
            ),
        }
    }
    Err(refuse())
}

fn replay_from(path: &Path, storage: &impl Storage, offset: u64, store: &mut impl StateMachine) -> Result<u64> {
    let replay = replay(storage, offset, store)?;
    if replay.damaged {
        crate::log_warn!(
            "{}: stopped at offset {}: no whole record there; {} records were replayed, {} bytes were not",
            path.display(),
            replay.end,
            replay.records,
            storage.len()?.saturating_sub(replay.end)
        );
    }
    Ok(replay.records)
}

/// Recovers from a checkpoint and the log behind it; returns how many records of the log were replayed. A checkpoint
/// that is missing, damaged or does not fit the log is passed over and the whole log replayed.
pub fn recover_with_checkpoint(wal_path: &Path, checkpoint_path: &Path, store: &mut impl StateMachine) -> Result<u64> {
    let log = file::open_read(wal_path)?;
    if meta::origin(&log)?.base > Lsn::ZERO {
        return recover_compacted(wal_path, &log, Some(checkpoint_path), store);
    }
    let opened = match file::open_read(checkpoint_path) {
        Ok(storage) => Some(storage),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let found = opened.as_ref().map(checkpoint::verify);
    let state = match &found {
        None => CheckpointState::Missing,
        Some(Ok(found)) if is_boundary(&log, found.covered.offset)? => CheckpointState::Usable(found.covered.offset),
        Some(Ok(found)) => {
            crate::log_warn!(
                "{}: its offset {} is no record boundary of {} ({} bytes): replaying the whole log",
                checkpoint_path.display(),
                found.covered.offset,
                wal_path.display(),
                log.len()?
            );
            CheckpointState::Unusable
        }
        Some(Err(error)) => {
            crate::log_warn!("{}: {error}: replaying the whole log", checkpoint_path.display());
            CheckpointState::Unusable
        }
    };
    match (plan(state), found) {
        (Plan::Checkpoint(offset), Some(Ok(found))) => {
            found.apply(store)?;
            replay_from(wal_path, &log, offset, store)
        }
        _ => replay_from(wal_path, &log, 0, store),
    }
}
