//! `<wal>.meta`: what the log under this name has been, so that a file from another moment is told from it. A log that
//! was never compacted has none; a compacted one says itself where it begins, and is refused without it.
//!
//! ```text
//! "LSMETA\0\2" [entries:4] then per entry, 32 bytes:
//!   [lsn:8] [history:8]           the log has, or had, this record, and this history up to it
//!   [0:16]                        room for an epoch
//! [crc32:4]                       over every byte before it
//! ```
//! All integers are little-endian. A log fits if it has one of the entries: its history there is the entry's. A log and
//! its meta file can't be renamed in one step, so the meta file comes first. After a compaction its entry is the new
//! log's base, which the old log has too. A snapshot puts another log in the place of the old one, so there are entries
//! for both until that is done.
#![forbid(unsafe_code)]

use super::crc::crc32;
use super::tail::LogTail;
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::storage::file;
use crate::types::{History, Lsn};
use std::io::Write;
use std::path::Path;

/// What stands behind a log's name.
pub const SUFFIX: &str = ".meta";

const MAGIC: &[u8; 8] = b"LSMETA\0\x02";
const ENTRY_LEN: usize = 32;
/// More are never needed: the old log and the new one.
const ENTRIES_MAX: usize = 2;
const LEN_MAX: u64 = 8 + 4 + (ENTRY_LEN * ENTRIES_MAX) as u64 + 4;

/// A record that the log has, or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its LSN.
    pub lsn: Lsn,
    /// The history up to it.
    pub history: History,
}

impl Entry {
    fn is_of(&self, storage: &impl Storage, tail: &LogTail) -> Result<bool> {
        Ok(tail.history_at(storage, self.lsn)? == Some(self.history))
    }
}

/// The bytes of a meta file.
#[must_use]
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&count.to_le_bytes());
    for entry in entries {
        for number in [entry.lsn.0, entry.history.0, 0, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes.extend_from_slice(&crc32(&bytes).to_le_bytes());
    bytes
}

/// Reads a meta file.
pub fn decode(bytes: &[u8]) -> Result<Vec<Entry>> {
    let damaged = Error::Malformed("the log's .meta file is damaged");
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else { return Err(damaged) };
    if u32::from_le_bytes(*crc) != crc32(content) {
        return Err(damaged);
    }
    let Some(rest) = content.strip_prefix(MAGIC) else { return Err(damaged) };
    let Some((count, entries)) = rest.split_first_chunk::<4>() else { return Err(damaged) };
    let (entries, left) = entries.as_chunks::<ENTRY_LEN>();
    let count = u32::from_le_bytes(*count);
    if !left.is_empty() || u32::try_from(entries.len()) != Ok(count) || entries.len() > ENTRIES_MAX {
        return Err(damaged);
    }
    let number =
        |entry: &[u8; ENTRY_LEN], at: usize| u64::from_le_bytes(entry[at..].first_chunk().copied().unwrap_or_default());
    Ok(entries.iter().map(|entry| Entry { lsn: Lsn(number(entry, 0)), history: History(number(entry, 8)) }).collect())
}

/// What the meta file beside the log says; `None`: there is none. A damaged one, or what is no file, is EBADMSG.
pub fn read(storage: &impl Storage) -> Result<Option<Vec<Entry>>> {
    match storage.read_beside(SUFFIX, LEN_MAX) {
        Ok(bytes) => bytes.map(|bytes| decode(&bytes)).transpose(),
        Err(error) if error.raw_os_error() == Some(libc::EBADMSG) => {
            Err(Error::Malformed("what has the name of the log's .meta file is none"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuses a log, which `tail` has just read, that is not the one that its meta file is about, or lacks it.
pub fn check(storage: &impl Storage, tail: &LogTail) -> Result<()> {
    let is_compacted = tail.base() > Lsn::ZERO;
    let Some(entries) = read(storage)? else {
        if is_compacted {
            return Err(Error::WrongFiles(format!(
                "the log begins after LSN {}, and its .meta file is missing",
                tail.base()
            )));
        }
        return Ok(());
    };
    for entry in &entries {
        if entry.is_of(storage, tail)? {
            return Ok(());
        }
    }
    let wanted: Vec<_> = entries.iter().map(|Entry { lsn, history }| format!("LSN {lsn}, history {history}")).collect();
    Err(Error::WrongFiles(format!(
        "the log has LSN {} to {}, and its .meta file is of a log that has {}",
        tail.base().next(),
        tail.last(),
        wanted.join(" or ")
    )))
}

/// Writes the meta file of the log at `path`, durably.
pub fn save(path: &Path, entries: &[Entry]) -> Result<()> {
    file::replace(&file::beside(path, SUFFIX), path, |out| -> Result<()> { Ok(out.write_all(&encode(entries))?) })
}

/// Ends what a crash has left half done: the meta file, if there is one, says of the log at `path`, which fits it, only
/// where that begins.
pub fn settle(path: &Path, storage: &impl Storage, tail: &LogTail) -> Result<()> {
    let Some(entries) = read(storage)? else { return Ok(()) };
    let origin = tail.origin();
    let wanted = [Entry { lsn: origin.base, history: origin.history }];
    if origin.base == Lsn::ZERO {
        file::discard(&file::beside(path, SUFFIX));
    } else if entries != wanted {
        save(path, &wanted)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_every_flipped_bit_is_noticed() {
        let entries = [5, 9].map(|lsn| Entry { lsn: Lsn(lsn), history: History(lsn * 7) });
        let bytes = encode(&entries);
        assert_eq!(bytes.len() as u64, LEN_MAX);
        assert_eq!(decode(&bytes).unwrap(), entries);
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(decode(&damaged).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err());
        }
    }
}
