//! Building the store from the log, and from a checkpoint and the log's tail.
//!
//! Replay never skips a record: it stops at the first one that is not whole (lesson w10-l03), says where, and keeps
//! what came before. The choice between checkpoint and whole log is a table ([`plan`]), apart from the reading.
#![forbid(unsafe_code)]

use super::checkpoint::Covered;
use super::scan::{self, Position};
use super::tail::LogTail;
use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::storage::Storage;
use crate::types::Lsn;
use std::cell::Cell;

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
pub fn refuse() -> Error {
    Error::Malformed("the log was compacted and no usable checkpoint stands for what was dropped")
}
