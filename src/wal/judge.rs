//! What stands behind the last whole record of a log: nothing, a write that never ended, or damage.
//!
//! Nothing that was known durable is ever cut off. What was known stands in the log's [`Note`]; where there is none,
//! whole records behind a place that is none tell that it is no torn write.
//!
//! | the log | judged |
//! |---|---|
//! | is empty | whole: a new log |
//! | ends before what the note knows to be durable | damaged |
//! | consists of whole records | whole |
//! | has something else where it is known to be durable | damaged |
//! | has it where the note says that a write was going on | torn: that write was not acknowledged |
//! | has it, and whole records follow that can't be a part of it | damaged |
//! | has it, and nothing whole follows | torn |
//!
//! A torn write at the beginning of the file must look like one besides, or the file is no log at all.
#![forbid(unsafe_code)]

use super::codec;
use super::note::Note;
use super::record::{self, Next};
use super::scan::End;
use crate::error::Result;
use crate::storage::Storage;
use crate::storage::file::is_zero;
use crate::types::Lsn;
use std::fmt;

/// How much is searched at once.
const CHUNK: usize = 512 * 1024;
/// The least that a disk writes at once, about.
const PAGE: usize = 4096;

/// What a log's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The log ends with a whole record.
    Whole,
    /// A write that never ended: nothing that was acknowledged is lost by cutting it off.
    Torn,
    /// Nothing may be cut off.
    Refused(Reason),
}

/// Why nothing may be cut off a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The log was durable up to this byte and record, and ends before.
    Shortened(u64, Lsn),
    /// The log was durable up to this byte and record, and is damaged before.
    Durable(u64, Lsn),
    /// A whole record begins at this byte behind the damage, and is no part of it.
    RecordsFollow(u64),
    /// The file does not begin with a record, nor with what a crash could leave of one.
    NotALog,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Shortened(durable, last) => {
                write!(f, "it was durable up to byte {durable} (LSN {last}) and has been cut")
            }
            Reason::Durable(durable, last) => write!(f, "it was durable up to byte {durable} (LSN {last})"),
            Reason::RecordsFollow(at) => write!(f, "whole records follow, from byte {at} on"),
            Reason::NotALog => write!(f, "not a log: it does not begin with a record"),
        }
    }
}

/// Judges what a scan that began at the first record has found, with what is known of the log.
pub fn judge(storage: &impl Storage, end: &End, note: Option<&Note>) -> Result<Verdict> {
    let (len, at) = (storage.len()?, end.next.offset);
    let durable = note.map_or(0, |note| note.durable_of(len));
    let last = note.map_or(Lsn::ZERO, |note| note.last);
    if len > 0 && len < durable {
        return Ok(Verdict::Refused(Reason::Shortened(durable, last)));
    }
    if !end.damaged {
        return Ok(Verdict::Whole);
    }
    if at < durable {
        return Ok(Verdict::Refused(Reason::Durable(durable, last)));
    }
    let mut front = vec![0; record::RECORD_MAX];
    let count = storage.read_at(&mut front, at)?;
    let front = &front[..count];
    if !note.is_some_and(|note| note.covers_the_rest(len)) {
        // A flipped bit may make a record seem as much longer as a time stamp is.
        let from = at + codec::extent(front).map_or(1, |len| len - 8) as u64;
        if let Some(follows) = find_record(storage, from, len)? {
            return Ok(Verdict::Refused(Reason::RecordsFollow(follows)));
        }
    }
    let is_a_log = at > 0 || may_be_a_first_write(front, len, note.is_some());
    Ok(if is_a_log { Verdict::Torn } else { Verdict::Refused(Reason::NotALog) })
}

/// Whether a file that begins with `front` can be what a crash has left of the first write to a log: less than a
/// record, a record's fields, or a page that was never written. Zeros alone may be any file's, so without a note as
/// many as a record has at most.
fn may_be_a_first_write(front: &[u8], len: u64, is_noted: bool) -> bool {
    len < record::RECORD_MIN as u64
        || codec::extent(front).is_some()
        || is_noted && is_zero(&front[..front.len().min(PAGE)])
        || front.len() as u64 == len && is_zero(front)
}

/// Where the first whole record begins from byte `from` on, be it at no border of a record.
fn find_record(storage: &impl Storage, from: u64, len: u64) -> Result<Option<u64>> {
    let mut buffer = vec![0; CHUNK + record::RECORD_MAX];
    let mut start = from;
    while start < len {
        let count = storage.read_at(&mut buffer, start)?;
        let bytes = &buffer[..count];
        // A record that begins behind these may go on beyond the buffer.
        let tried = if count < buffer.len() { count } else { CHUNK };
        if tried == 0 {
            break;
        }
        // No record is all zero, and a file that was stretched is nothing else for gigabytes.
        if !is_zero(bytes) {
            let is_record = |at: &usize| matches!(codec::next_in(&bytes[*at..]), Next::Record { .. });
            if let Some(found) = (0..tried).find(is_record) {
                return Ok(Some(start + found as u64));
            }
        }
        start += tried as u64;
    }
    Ok(None)
}
