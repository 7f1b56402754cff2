//! What a checkpoint may say that it covers. Its program says only "the first `offset` bytes of some log", and several
//! logs of a process may have as many. What this library has given to the store decides, and whose records are in the
//! logs that fit; an offset, a length or a path alone never does.
#![allow(unsafe_code, reason = "a log's descriptor is borrowed for reading")]

use super::kv_table::Origin;
use super::logs::{self, LOGS, LogState};
use crate::error::{Error, Result};
use crate::storage::file::{self, FileStorage};
use crate::types::Lsn;
use crate::wal::checkpoint::Covered;
use crate::wal::tail::LogTail;
use std::os::fd::RawFd;
use std::path::Path;

/// What a log says of the store that was given so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// All of it is the log's past, up to here.
    Past(Covered),
    /// The log begins behind it.
    Gone,
}

/// A log of this process in which a record ends at the checkpoint's offset, and whose past may be the store's.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Everything before the offset, without the records that were received and are in no store yet.
    applied: Covered,
    /// The last record that the program did not append by itself.
    foreign: Lsn,
    given: Given,
    is_compacted: bool,
}

/// What the checkpoint of a store covers whose program says that it has the first `offset` bytes of a log. Records that
/// the store was given by this library, and those that the program appended by itself, are what it can have. Less than
/// the program says is covered if it has less; where that can't be told, the offset is taken and no LSN said, as in a
/// lesson's checkpoint. `origin` is `None` for a table of the program's own.
///
/// [`Error::Invalid`]: the log was compacted, and a checkpoint without LSN would be of no use.
pub(super) fn covered(offset: u64, origin: Option<Origin>) -> Result<Covered> {
    let unclaimed = |offset| Covered { offset, ..Covered::default() };
    let known = origin.unwrap_or_default();
    let candidates = candidates(offset, &known.given);
    let Some(Origin { given, is_programs }) = origin else {
        let least = candidates.iter().map(|log| log.applied.offset).min();
        return Ok(unclaimed(least.unwrap_or(offset)));
    };
    let mut claims: Vec<Covered> = candidates.iter().filter_map(|log| claim(log, &given, is_programs)).collect();
    claims.sort_by_key(|claim| claim.lsn);
    let agree = claims.windows(2).all(|pair| pair[0].is_same_past(&pair[1]));
    match claims.first() {
        // All of them have the past that the store was given, and one has no more of it applied than this.
        Some(least) if agree || given.lsn > Lsn::ZERO => Ok(*least),
        _ if candidates.iter().any(|log| log.is_compacted) => {
            Err(Error::Invalid("which records the store was given of the compacted log can't be told"))
        }
        None if candidates.is_empty() && !is_programs && given.offset <= offset && given != Covered::default() => {
            Ok(given)
        }
        _ => Ok(unclaimed(candidates.iter().map(|log| log.applied.offset).min().unwrap_or(offset))),
    }
}

/// Which records of a log the store has; `None`: that can't be told.
fn claim(log: &Candidate, given: &Covered, is_programs: bool) -> Option<Covered> {
    let all_are_given = log.applied.lsn <= given.lsn;
    let rest_is_programs = is_programs && log.foreign <= given.lsn;
    match log.given {
        Given::Past(_) if all_are_given || rest_is_programs => Some(log.applied),
        Given::Past(place) if !is_programs || given.lsn > Lsn::ZERO => Some(place),
        Given::Gone if rest_is_programs => Some(log.applied),
        _ => None,
    }
}

/// The logs of this process, open or closed, that may be meant, as far as they can be read.
fn candidates(offset: u64, given: &Covered) -> Vec<Candidate> {
    let mut known = Vec::new();
    LOGS.for_each_key(|key| {
        if key.opened {
            known.push((key.fd, key.id, key.path.get().map(Path::to_path_buf)));
        }
    });
    let found = known.into_iter().filter_map(|(fd, id, path)| {
        let storage = match fd {
            Some(fd) if logs::is_file(fd, id) => {
                // SAFETY: the descriptor is a log's that this process has open.
                file::reopen_for_reading(unsafe { super::wal_writer::borrow(fd) }.ok()?).ok()?
            }
            _ => file::open_read(&path?).ok().filter(|storage| storage.id().is_ok_and(|found| found == id))?,
        };
        let mut entry = LOGS.find(|key| key.opened && key.fd == fd && key.id == id).ok().flatten()?;
        candidate(fd, entry.value(), &storage, offset, given).ok().flatten()
    });
    found.collect()
}

fn candidate(
    fd: Option<RawFd>,
    state: &mut LogState,
    storage: &FileStorage,
    offset: u64,
    given: &Covered,
) -> Result<Option<Candidate>> {
    let last = state.tail.last();
    state.tail.refresh(storage)?;
    if state.tail.last() != last {
        state.foreign = state.tail.last(); // Somebody else's.
    }
    let tail = &state.tail;
    let Some(at) = tail.covered_before(storage, offset)? else { return Ok(None) };
    let ready = Lsn(tail.last().0.saturating_sub(fd.map_or(0, logs::waiting)));
    let ready = state.unapplied.map_or(ready, |first| ready.min(Lsn(first.0.saturating_sub(1))));
    let applied = if ready >= at.lsn { Some(at) } else { covered_to(tail, storage, ready)? };
    let place = covered_to(tail, storage, given.lsn)?;
    let given = match place {
        Some(place) if place.is_same_past(given) => Given::Past(place),
        None if given.lsn < tail.base() => Given::Gone,
        _ => return Ok(None), // Another past.
    };
    let (foreign, is_compacted) = (state.foreign, tail.base() > Lsn::ZERO);
    Ok(applied.map(|applied| Candidate { applied, foreign, given, is_compacted }))
}

/// What a log has up to record `lsn`.
fn covered_to(tail: &LogTail, storage: &FileStorage, lsn: Lsn) -> Result<Option<Covered>> {
    let place = tail.place_behind(storage, lsn)?;
    Ok(place.map(|(at, _, history)| Covered { offset: at.offset, lsn, history }))
}
