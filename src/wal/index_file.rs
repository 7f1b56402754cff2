//! `<wal>.idx`: the index of a long log, so that opening it reads only its end.
//!
//! ```text
//! "LSINDEX\2" [modified:8] [inode:8]                    of the log file, when the index was written
//! [base:8] [base_history:8] [len:8] [last:8] [history:8] [last_at:8] [first_head:8] [last_head:8]
//! [stride:8] [count:8] then count x [offset:8][history:8]
//! [crc32:4]                                             over every byte before it
//! ```
//! All integers are little-endian. Never believed over the log, however right its CRC: it must be about this file, its
//! first mark must be the log's beginning, its last must lead to where it says that it ends, and reading on from there
//! must lead to just what the log's [`Note`](super::note) knows, LSN and history included; if the log has not grown
//! since, the file must not have been written to either. Else the log is read from its first record, as without it, and
//! so it is before anything behind the last whole record is judged. The marks in between are proven where they are
//! used. It is not fsynced and may be deleted at any time.
#![forbid(unsafe_code)]

use super::crc::crc32;
use super::index::Mark;
use super::origin::Origin;
use super::record::RECORD_MIN;
use super::scan::{self, Position};
use super::tail::{LogTail, Summary};
use crate::error::Result;
use crate::storage::Storage;
use crate::types::{History, Lsn};
use std::cell::Cell;

/// What stands behind a log's name.
pub const SUFFIX: &str = ".idx";

/// Records by which a log outgrows its index file before that is written anew. A shorter log has none.
pub const INTERVAL: u64 = 65_536;

const MAGIC: &[u8; 8] = b"LSINDEX\x02";
/// No index file is longer: the numbers in front, 16,384 entries, the CRC.
const LEN_MAX: u64 = 8 + 12 * 8 + 16_384 * 16 + 4;

/// Writes the index file of the log in `storage`, which `tail` is about.
pub(super) fn save(tail: &LogTail, storage: &impl Storage) -> Result<()> {
    let Summary { origin, len, last, history, last_at, heads } = tail.summary();
    let (stride, marks) = tail.index().parts();
    let mut bytes = MAGIC.to_vec();
    let mut put = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    for number in [storage.modified()?, storage.inode()?, origin.base.0, origin.history.0] {
        put(number);
    }
    for number in [len, last.0, history.0, last_at] {
        put(number);
    }
    for head in heads {
        put(u64::from_le_bytes(head));
    }
    put(stride);
    put(marks.len() as u64);
    for mark in marks {
        put(mark.offset);
        put(mark.before.0);
    }
    bytes.extend_from_slice(&crc32(&bytes).to_le_bytes());
    Ok(storage.write_beside(SUFFIX, &bytes)?)
}

/// Fills `tail`, which knows only where the log begins, with what the index file says, if that may be so of the log of
/// `len` bytes in `storage`. What it says of the end has to be compared with the log's note still.
pub(super) fn load(tail: &mut LogTail, storage: &impl Storage, len: u64) -> Result<Loaded> {
    // A record takes 19 bytes at least: a shorter log has no index file, and none is looked for.
    if len < INTERVAL * 19 {
        return Ok(Loaded::Nothing);
    }
    // One that can't be read is none.
    let Ok(Some(bytes)) = storage.read_beside(SUFFIX, LEN_MAX) else { return Ok(Loaded::Nothing) };
    Ok(if parse(&bytes, tail, storage, len)?.is_some() { Loaded::Claims } else { Loaded::Misfit })
}

/// What an index file gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// There is none.
    Nothing,
    /// It does not fit the log.
    Misfit,
    /// The tail is what it claims.
    Claims,
}

fn parse(bytes: &[u8], tail: &mut LogTail, storage: &impl Storage, len: u64) -> Result<Option<()>> {
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
    let Some(rest) = content.strip_prefix(MAGIC) else { return Ok(None) };
    if u32::from_le_bytes(*crc) != crc32(content) {
        return Ok(None);
    }
    let (words, []) = rest.as_chunks::<8>() else { return Ok(None) };
    let Some((head, marks)) = words.split_first_chunk::<12>() else { return Ok(None) };
    let number = |at: usize| u64::from_le_bytes(head[at]);
    let origin = Origin { base: Lsn(number(2)), history: History(number(3)) };
    let summary = Summary {
        origin,
        len: number(4),
        last: Lsn(number(5)),
        history: History(number(6)),
        last_at: number(7),
        heads: [head[8], head[9]],
    };
    let is_this = storage.inode()? == number(1) && origin == tail.origin() && summary.len <= len;
    let is_untouched = summary.len < len || storage.modified()? == number(0);
    let (pairs, left) = marks.as_chunks::<2>();
    let counts = left.is_empty() && pairs.len() as u64 == number(11);
    let count = summary.last.since(origin.base);
    let is_possible = count <= summary.len / RECORD_MIN as u64 && summary.last_at < summary.len;
    if !is_this || !is_untouched || !counts || !is_possible || !summary.is_of(storage)? {
        return Ok(None);
    }
    let mark = |pair: &[[u8; 8]; 2]| Mark {
        offset: u64::from_le_bytes(pair[0]),
        before: History(u64::from_le_bytes(pair[1])),
    };
    let is_index = tail.index_mut().set_parts(origin.base, count, number(10), pairs.iter().map(mark));
    let begins = pairs.first().map(mark) == Some(Mark { offset: origin.first().offset, before: origin.history });
    let Some((last, before)) = tail.index().last().filter(|_| is_index && begins) else { return Ok(None) };
    if last.offset >= summary.len || !leads_to(storage, last, before, &summary)? {
        return Ok(None);
    }
    tail.set_summary(&summary);
    Ok(Some(()))
}

/// Whether the records from a place on lead to the end that an index file says.
fn leads_to(storage: &impl Storage, from: Position, before: History, summary: &Summary) -> Result<bool> {
    let (last_at, at, mut history) = (Cell::new(0), Cell::new(0), before);
    let stop = |position: Position| {
        last_at.set(at.replace(position.offset));
        position.lsn > summary.last || position.offset >= summary.len
    };
    let end = Position { offset: summary.len, lsn: summary.last.next() };
    let walked = scan::walk_heads(storage, from, stop, |head| history = history.then(head))?;
    Ok(walked == Some(end) && history == summary.history && last_at.get() == summary.last_at)
}
