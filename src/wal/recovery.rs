//! Building the store from the log, and from a checkpoint and the log's tail.
//!
//! Replay never skips a record: it stops at the first one that is not whole (lesson w10-l03), says where, and keeps
//! what came before. A checkpoint is used only for the log of its own past: which records it covers is compared with
//! the log's history, not with a place in the file, where more than one log fits.
#![forbid(unsafe_code)]

use super::checkpoint::{self, Checkpoint, Covered};
use super::meta;
use super::origin::{self, Origin};
use super::scan::{self, Position};
use super::tail::LogTail;
use super::{CHECKPOINT_SUFFIX, snapshot, stamps};
use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage};
use crate::types::{History, Lsn};
use std::cell::Cell;
use std::path::Path;

/// What a replay did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Records replayed.
    pub records: u64,
    /// The last of them, and the byte after it.
    pub end: Covered,
    /// Whether something that is no whole record stands there.
    pub damaged: bool,
}

/// Applies every whole record behind `from`.
pub fn replay(storage: &impl Storage, from: Covered, store: &mut impl StateMachine) -> Result<Replay> {
    let first = Position { offset: from.offset, lsn: Lsn(1) };
    let mut history = from.history;
    let end = scan::scan(storage, first, storage.len()?, |batch| {
        let base = batch.offsets.first().copied().unwrap_or_default();
        for (record, offset) in batch.records.iter().zip(batch.offsets) {
            clock::observe(record.timestamp);
            let begin = usize::try_from(offset - base).unwrap_or(usize::MAX);
            history = history.then(batch.encoded[begin..].first_chunk().copied().unwrap_or_default());
        }
        store.apply_all(batch.records)
    })?;
    let (records, offset) = (end.last().0, end.next.offset);
    // Behind a place whose LSN nobody knows none is known.
    let is_known = from.lsn > Lsn::ZERO || from.offset == 0;
    let end_of = Covered { offset, lsn: from.lsn.plus(records), history };
    let unknown = Covered { offset, ..Covered::default() };
    Ok(Replay { records, end: if is_known { end_of } else { unknown }, damaged: end.damaged })
}

/// Replays the log at `path` into `store`, stopping at the first record that is not whole; returns how many records
/// were replayed. A missing file is an error (ENOENT). A log that was compacted needs the checkpoint that stands for
/// its first records: the one in `<path>.ckpt`, which a snapshot puts there, or it is refused.
pub fn recover(path: &Path, store: &mut impl StateMachine) -> Result<u64> {
    recover_from(path, None, store)
}

/// Recovers from a checkpoint and the log behind it; returns how many records of the log were replayed. A checkpoint
/// that is missing, damaged or of another past is passed over and the whole log replayed; if the log was compacted, or
/// ends before the checkpoint does, that is [`Error::WrongFiles`].
pub fn recover_with_checkpoint(wal_path: &Path, checkpoint_path: &Path, store: &mut impl StateMachine) -> Result<u64> {
    recover_from(wal_path, Some(checkpoint_path), store)
}

fn recover_from(path: &Path, given: Option<&Path>, store: &mut impl StateMachine) -> Result<u64> {
    let log = file::open_read(path)?;
    let mut tail = Box::<LogTail>::default();
    let from = if origin::of(&log)?.base > Lsn::ZERO {
        tail.refresh(&log)?;
        load_for_compacted(path, &log, &tail, given, store)?
    } else {
        if meta::read(&log)?.is_some() {
            tail.refresh(&log)?; // Refuses a log that is not the meta file's.
        }
        given.map_or(Ok(Covered::default()), |given| load_for_whole(path, &log, given, store))?
    };
    let replay = replay(&log, from, store)?;
    store.note_given(replay.end);
    if replay.damaged {
        crate::log_warn!(
            "{}: stopped at offset {}: no whole record there; {} records were replayed, {} bytes were not",
            path.display(),
            replay.end.offset,
            replay.records,
            log.len()?.saturating_sub(replay.end.offset)
        );
    }
    Ok(replay.records)
}

/// Where a checkpoint stands in a log that begins with record 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Behind these records.
    Behind(Covered),
    /// It covers records that the log does not have: the log ends with this one.
    PastTheEnd(Lsn),
    /// Nowhere: it is another log's.
    OtherPast,
}

/// Loads the checkpoint, if it is of this log's past; returns what it stands for: nothing, if it was passed over.
fn load_for_whole(path: &Path, log: &FileStorage, given: &Path, store: &mut impl StateMachine) -> Result<Covered> {
    let found = match checkpoint::open(given) {
        Ok(found) => found,
        Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return reaches(path, log, given).map(|()| Covered::default());
        }
        Err(Error::Io(error)) if error.raw_os_error() != Some(libc::EBADMSG) => return Err(error.into()),
        Err(error) => {
            reaches(path, log, given)?;
            crate::log_warn!("{}: {error}: replaying the whole log", given.display());
            return Ok(Covered::default());
        }
    };
    let covered = found.covered;
    let place = if covered.lsn > Lsn::ZERO {
        place_by_history(&covered, log)?
    } else {
        reaches(path, log, given)?;
        place_by_offset(&covered, log)?
    };
    match place {
        Place::Behind(from) => found.apply(store).map(|()| from),
        Place::PastTheEnd(last) => Err(past_the_end(given, covered.lsn, path, last)),
        Place::OtherPast => {
            crate::log_warn!(
                "{}: it was taken from another log than {} is, or from another past of it (LSN {}, history {}, \
                 offset {}): replaying the whole log",
                given.display(),
                path.display(),
                covered.lsn,
                covered.history,
                covered.offset
            );
            Ok(Covered::default())
        }
    }
}

fn past_the_end(given: &Path, covered: Lsn, path: &Path, last: Lsn) -> Error {
    let (given, path) = (given.display(), path.display());
    Error::WrongFiles(format!("{given} covers the log up to LSN {covered}, and {path} ends with LSN {last}"))
}

/// Refuses a log that ends before what some checkpoint of this name has covered, though that one can't be used: what is
/// left of it tells that the log is of an earlier moment.
fn reaches(path: &Path, log: &impl Storage, given: &Path) -> Result<()> {
    let covered = stamps::highest(given)?;
    if covered == Lsn::ZERO {
        return Ok(());
    }
    let last = scan::scan(log, Origin::default().first(), log.len()?, |_| Ok(()))?.last();
    if last < covered { Err(past_the_end(given, covered, path, last)) } else { Ok(()) }
}

/// Finds a checkpoint's place by what its log had been through. If the log is damaged before it, its history tells
/// nothing any more, and a whole record where the checkpoint ends, or the log's end there, must do: the checkpoint then
/// holds what the log has lost.
fn place_by_history(covered: &Covered, log: &impl Storage) -> Result<Place> {
    let first = Origin::default().first();
    let mut history = History::EMPTY;
    let walked = scan::walk_heads(log, first, |at| at.lsn > covered.lsn, |head| history = history.then(head))?;
    // The cfg is a canary build's mistake, which a test must notice (make canaries).
    if let Some(at) = walked
        && (history == covered.history || cfg!(logship_canary_any_past))
    {
        return Ok(Place::Behind(Covered { offset: at.offset, lsn: covered.lsn, history: covered.history }));
    }
    let end = scan::scan(log, first, log.len()?, |_| Ok(()))?;
    if end.damaged && end.next.offset < covered.offset && ends_at(log, covered.offset)? {
        return Ok(Place::Behind(*covered));
    }
    Ok(if end.last() < covered.lsn { Place::PastTheEnd(end.last()) } else { Place::OtherPast })
}

/// Finds the place of a checkpoint that says no more than its offset: a lesson's. The headers are walked from the first
/// record: a value may hold bytes that look like a record, so looking at the offset alone proves nothing. Only when the
/// log is damaged before it that must do.
fn place_by_offset(covered: &Covered, log: &impl Storage) -> Result<Place> {
    let offset = covered.offset;
    if offset > log.len()? {
        return Ok(Place::OtherPast);
    }
    // The record before the one where the walk ends: `offset` lies in it if the walk goes past `offset`.
    let (before, at) = (Cell::new(0), Cell::new(0));
    let mut history = History::EMPTY;
    let stop = |position: Position| {
        before.set(at.replace(position.offset));
        position.offset >= offset
    };
    let walked = scan::walk_heads(log, Origin::default().first(), stop, |head| history = history.then(head))?;
    Ok(match walked {
        Some(end) if end.offset == offset => {
            Place::Behind(Covered { offset, lsn: Lsn(end.lsn.0.saturating_sub(1)), history })
        }
        Some(_) if scan::is_record_at(log, before.get())? => Place::OtherPast,
        _ if ends_at(log, offset)? => Place::Behind(*covered),
        _ => Place::OtherPast,
    })
}

/// Whether a whole record begins at `offset`, or the log ends there.
fn ends_at(log: &impl Storage, offset: u64) -> Result<bool> {
    Ok(offset == log.len()? || scan::is_record_at(log, offset)?)
}

/// Loads what stands for the records that a compacted log has lost: the first that fits of the checkpoint given, the
/// one beside the log, and a snapshot whose installation a crash interrupted. Returns where replay goes on.
fn load_for_compacted(
    path: &Path,
    log: &FileStorage,
    tail: &LogTail,
    given: Option<&Path>,
    store: &mut impl StateMachine,
) -> Result<Covered> {
    let real = file::real(path);
    let beside = file::beside(&real, CHECKPOINT_SUFFIX);
    let snapshots = file::all_beside(&real, snapshot::is_name)?;
    let named = given.into_iter().chain([beside.as_path()]).map(|name| (name, false));
    let candidates = named.chain(snapshots.iter().map(|name| (name.as_path(), true)));
    let mut reasons = Vec::new();
    for (candidate, is_snapshot) in candidates {
        let open = || -> Result<(Checkpoint, Covered)> {
            let found =
                if is_snapshot { checkpoint::open_unpacked(candidate, &beside)? } else { checkpoint::open(candidate)? };
            let from = place_in_compacted(&found.covered, log, tail)?;
            Ok((found, from))
        };
        match open() {
            Ok((found, from)) => {
                found.apply(store)?;
                if is_snapshot {
                    checkpoint::unpack(&found, candidate, &beside)?; // What the crash has left to do.
                }
                return Ok(from);
            }
            Err(error) => {
                crate::log_warn!("{}: not used for {}: {error}", candidate.display(), path.display());
                reasons.push(format!("{}: {error}", candidate.display()));
            }
        }
    }
    Err(Error::WrongFiles(format!(
        "{} has LSN {} to {}, and no usable checkpoint stands for what was dropped ({})",
        path.display(),
        tail.base().next(),
        tail.last(),
        reasons.join("; ")
    )))
}

/// Where replay goes on behind a checkpoint of a compacted log, whose offset means nothing any more: its LSN does. It
/// must stand for every record that is gone, and for the same ones as far as the log can tell.
fn place_in_compacted(covered: &Covered, log: &impl Storage, tail: &LogTail) -> Result<Covered> {
    let Covered { lsn, history, .. } = *covered;
    let differs = |what: &str| Error::WrongFiles(format!("it covers LSN {lsn}, {what}"));
    if lsn == Lsn::ZERO {
        return Err(Error::Malformed("it does not say which records it covers"));
    }
    if lsn < tail.base() {
        return Err(differs(&format!("the log begins after LSN {}", tail.base())));
    }
    // The log is of an earlier moment, or its end was cut: then it holds what nobody should have.
    if lsn > tail.last() {
        return Err(differs(&format!("the log ends with LSN {}", tail.last())));
    }
    match tail.place_behind(log, lsn)? {
        Some((at, _, there)) if there == history => Ok(Covered { offset: at.offset, lsn, history }),
        _ => Err(differs(&format!("with another history ({history}) than the log's"))),
    }
}
