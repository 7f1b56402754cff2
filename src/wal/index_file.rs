//! `<wal>.idx`: the index of a long log, so that opening it reads only its end.
//!
//! ```text
//! "LSINDEX\1" [modified:8] [inode:8]                    of the log file, when the index was written
//! [base:8] [base_history:8] [len:8] [last:8] [history:8] [last_at:8] [first_head:8] [last_head:8]
//! [timestamp:8]                                         no record covered has a greater one
//! [stride:8] [count:8] then count x [offset:8][history:8]
//! [crc32:4]                                             over every byte before it
//! ```
//! All integers are little-endian. Never believed over the log: it must be whole, be about this file, and say rightly
//! how the first and the last record that it covers begin; if the log has not grown since, the file must not have been
//! written to either. Else the log is read from its first record, as without it. It is not fsynced and may be deleted
//! at any time.
#![forbid(unsafe_code)]

use super::crc::crc32;
use super::index::Mark;
use super::origin::Origin;
use super::tail::{LogTail, Summary};
use crate::clock;
use crate::error::Result;
use crate::storage::Storage;
use crate::types::{History, Lsn, Timestamp};

/// What stands behind a log's name.
pub const SUFFIX: &str = ".idx";

/// Records by which a log outgrows its index file before that is written anew. A shorter log has none.
pub const INTERVAL: u64 = 65_536;

const MAGIC: &[u8; 8] = b"LSINDEX\x01";
/// No index file is longer: the numbers in front, 16,384 entries, the CRC.
const LEN_MAX: u64 = 8 + 13 * 8 + 16_384 * 16 + 4;

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
    put(clock::newest().0);
    put(stride);
    put(marks.len() as u64);
    for mark in marks {
        put(mark.offset);
        put(mark.before.0);
    }
    bytes.extend_from_slice(&crc32(&bytes).to_le_bytes());
    Ok(storage.write_beside(SUFFIX, &bytes)?)
}

/// Fills `tail`, which knows only where the log begins, with what the index file says, if that can be believed of the
/// log of `len` bytes in `storage`.
pub(super) fn load(tail: &mut LogTail, storage: &impl Storage, len: u64) -> Result<()> {
    // A record takes 19 bytes at least: a shorter log has no index file, and none is looked for.
    if len < INTERVAL * 19 {
        return Ok(());
    }
    // One that can't be read is none.
    let Ok(Some(bytes)) = storage.read_beside(SUFFIX, LEN_MAX) else { return Ok(()) };
    if parse(&bytes, tail, storage, len)?.is_none() {
        let base = tail.base();
        tail.index_mut().reset(base);
        crate::log_info!("the log's index file does not fit the log: the whole log is read");
    }
    Ok(())
}

fn parse(bytes: &[u8], tail: &mut LogTail, storage: &impl Storage, len: u64) -> Result<Option<()>> {
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
    let Some(rest) = content.strip_prefix(MAGIC) else { return Ok(None) };
    if u32::from_le_bytes(*crc) != crc32(content) {
        return Ok(None);
    }
    let (words, []) = rest.as_chunks::<8>() else { return Ok(None) };
    let Some((head, marks)) = words.split_first_chunk::<13>() else { return Ok(None) };
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
    let counts = left.is_empty() && pairs.len() as u64 == number(12);
    if !is_this || !is_untouched || !counts || !summary.is_of(storage)? {
        return Ok(None);
    }
    let mark = |pair: &[[u8; 8]; 2]| Mark {
        offset: u64::from_le_bytes(pair[0]),
        before: History(u64::from_le_bytes(pair[1])),
    };
    if !tail.index_mut().set_parts(origin.base, number(11), pairs.iter().map(mark)) {
        return Ok(None);
    }
    clock::observe(Timestamp(number(10)));
    tail.set_summary(&summary);
    Ok(Some(()))
}
