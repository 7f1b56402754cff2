//! Reading a log from any record on: bounded memory, whole records only, and what stands at the end.
//!
//! Touches nothing but a [`Storage`]. A scan never skips: it ends at the first record that is not whole, and
//! [`judge`](super::judge) then tells a torn tail (a write that a crash cut off) from damage.
#![forbid(unsafe_code)]

use super::codec;
use super::record::{self, Next, Record};
use crate::error::Result;
use crate::storage::Storage;
use crate::types::Lsn;

/// How much is read at once.
const CHUNK: usize = 512 * 1024;
/// And by a walk, which is short: little, so that it costs no page faults.
const WALK: usize = 16 * 1024;
/// How many records a batch holds at most.
const BATCH: usize = 64;

/// A place in a log: where a record begins and which number it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Byte offset of the record.
    pub offset: u64,
    /// Its LSN.
    pub lsn: Lsn,
}

/// Some records that follow each other.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The records.
    pub records: &'a [Record<'a>],
    /// Where each of them begins in the log.
    pub offsets: &'a [u64],
    /// The encoded bytes of all of them, without gaps.
    pub encoded: &'a [u8],
    /// LSN of the first.
    pub first: Lsn,
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The byte after the last whole record, and the LSN that would come next.
    pub next: Position,
    /// Whether something that is no whole record stands there.
    pub damaged: bool,
    /// Whether that may be a write that has not ended: the log ends before the record would.
    pub cut: bool,
}

impl End {
    /// LSN of the last whole record.
    #[must_use]
    pub fn last(&self) -> Lsn {
        Lsn(self.next.lsn.0.saturating_sub(1))
    }
}

/// Reads records from `from` up to byte `limit` (or the end) and hands them out in batches.
///
/// The first error of `visit` ends the scan and is returned.
pub fn scan(
    storage: &impl Storage,
    from: Position,
    limit: u64,
    mut visit: impl FnMut(&Batch<'_>) -> Result<()>,
) -> Result<End> {
    let mut next = from;
    let mut buffer = vec![0; CHUNK];
    let mut kept = 0; // Bytes at the front of the buffer: the beginning of a record that the last read cut.
    loop {
        let read_from = next.offset + kept as u64;
        let room = usize::try_from(limit.saturating_sub(read_from)).unwrap_or(usize::MAX).min(buffer.len() - kept);
        let count = storage.read_at(&mut buffer[kept..kept + room], read_from)?;
        let filled = kept + count;
        let at_end = count < buffer.len() - kept;
        let (used, whole) = visit_chunk(&buffer[..filled], &mut next, &mut visit)?;
        kept = filled - used;
        if !whole || at_end {
            return Ok(End { next, damaged: !whole || kept > 0, cut: whole && kept > 0 });
        }
        buffer.copy_within(used..filled, 0);
    }
}

/// Visits the whole records of a chunk; returns the bytes used, and whether the rest may still become a record.
fn visit_chunk(
    chunk: &[u8],
    next: &mut Position,
    visit: &mut impl FnMut(&Batch<'_>) -> Result<()>,
) -> Result<(usize, bool)> {
    const NO_RECORD: Record<'_> =
        Record { op: record::Op::Del, key: &[], value: &[], timestamp: crate::types::Timestamp::NONE };
    let mut used = 0;
    loop {
        let mut records = [NO_RECORD; BATCH];
        let mut offsets = [0u64; BATCH];
        let mut count = 0;
        let start = used;
        let mut whole = true;
        let mut more = true;
        while count < BATCH {
            match codec::next_in(&chunk[used..]) {
                Next::Record { record, len } => {
                    records[count] = record;
                    offsets[count] = next.offset + (used - start) as u64;
                    count += 1;
                    used += len;
                }
                Next::Incomplete => {
                    more = false;
                    break;
                }
                Next::Damaged => {
                    (more, whole) = (false, false);
                    break;
                }
            }
        }
        if count > 0 {
            visit(&Batch {
                records: &records[..count],
                offsets: &offsets[..count],
                encoded: &chunk[start..used],
                first: next.lsn,
            })?;
            next.offset += (used - start) as u64;
            next.lsn = next.lsn.plus(count as u64);
        }
        if !more {
            return Ok((used, whole));
        }
    }
}

/// Walks record headers from `from` without looking at their content, until `stop` holds for a record's position.
/// `None`: the log ends, or makes no sense, before that.
pub fn walk(storage: &impl Storage, from: Position, stop: impl Fn(Position) -> bool) -> Result<Option<Position>> {
    walk_heads(storage, from, stop, |_| ())
}

/// As [`walk`], and calls `pass` with the first 8 bytes of each record that it passes.
pub fn walk_heads(
    storage: &impl Storage,
    from: Position,
    stop: impl Fn(Position) -> bool,
    mut pass: impl FnMut([u8; 8]),
) -> Result<Option<Position>> {
    let mut at = from;
    let mut buffer = vec![0; WALK];
    let mut start = at.offset;
    let mut filled = 0;
    while !stop(at) {
        let inside = usize::try_from(at.offset - start).unwrap_or(usize::MAX);
        if inside.saturating_add(8) > filled {
            start = at.offset;
            filled = storage.read_at(&mut buffer, start)?;
            if filled < 8 {
                return Ok(None);
            }
            continue;
        }
        let Some(len) = codec::frame_len(&buffer[inside..filled]) else { return Ok(None) };
        pass(buffer[inside..].first_chunk().copied().unwrap_or_default());
        at = Position { offset: at.offset + len as u64, lsn: at.lsn.next() };
    }
    Ok((at.offset <= storage.len()?).then_some(at))
}

/// Whether a whole record begins at byte `offset`.
pub fn is_record_at(storage: &impl Storage, offset: u64) -> Result<bool> {
    let mut bytes = vec![0; record::RECORD_MAX];
    let count = storage.read_at(&mut bytes, offset)?;
    Ok(matches!(codec::next_in(&bytes[..count]), Next::Record { .. }))
}
