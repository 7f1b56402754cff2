//! `<wal>.meta`: where a log begins whose first records are gone. A log that was never compacted has none.
//!
//! ```text
//! "LSMETA\0\1" [entries:4] then per entry, 64 bytes:
//!   [base:8] [history:8]          the LSN before the first record, and the history up to it
//!   [inode:8]                     the log file that the entry is about...
//!   [first_head:8]                ...whose first record begins like this,
//!   [len:8] [last_at:8]           ...which had this length when it was made, its last record then at this place,
//!   [last_head:8] [reserved:8]    ...which begins like this
//! [crc32:4]                       over every byte before it
//! ```
//! All integers are little-endian. A log and its meta file can't be renamed in one step. So the new meta file, which
//! has entries for the old log and for the new one, comes first; then the new log takes the old one's place. After a
//! crash at any moment the log that is there finds its entry, by its inode, since logs may begin alike. An entry of a
//! log that was removed, or copied over by another one, fits nothing and is passed over; the file is removed when an
//! empty log is opened beside it.
#![forbid(unsafe_code)]

use super::crc::crc32;
use super::scan;
use super::tail::LogTail;
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::storage::file;
use crate::types::{History, Lsn};
use std::io::Write;
use std::path::Path;

/// What stands behind a log's name.
pub const SUFFIX: &str = ".meta";

const MAGIC: &[u8; 8] = b"LSMETA\0\x01";
const ENTRY_LEN: usize = 64;
/// More are never needed: the old log and the new one.
const ENTRIES_MAX: usize = 2;

/// Where a log begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The LSN before its first record.
    pub base: Lsn,
    /// The history of the records up to there.
    pub history: History,
}

/// An origin, and the log file that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the log begins.
    pub origin: Origin,
    inode: u64,
    first_head: [u8; 8],
    len: u64,
    last_at: u64,
    last_head: [u8; 8],
}

impl Entry {
    /// The entry of a log as `tail` knows it.
    pub fn of(storage: &impl Storage, tail: &LogTail) -> Result<Entry> {
        let (last_at, [first_head, last_head]) = tail.ends();
        let (origin, len) = (tail.origin(), tail.len());
        Ok(Entry { origin, inode: storage.inode()?, first_head, len, last_at, last_head })
    }

    /// The same, said of the file `inode`.
    #[must_use]
    pub fn in_file(self, inode: u64) -> Entry {
        Entry { inode, ..self }
    }

    /// Whether `storage` is the file that the entry is about, and not another one under its inode.
    fn is_about(&self, storage: &impl Storage) -> Result<bool> {
        Ok(storage.inode()? == self.inode && read_head(storage, 0)? == Some(self.first_head))
    }

    /// Whether `storage` is a copy of that file: another inode, the same records.
    fn is_of_copy(&self, storage: &impl Storage) -> Result<bool> {
        let is_long = storage.len()? >= self.len;
        let has = |at, head| -> Result<bool> { Ok(read_head(storage, at)? == Some(head)) };
        Ok(is_long && has(0, self.first_head)? && has(self.last_at, self.last_head)?)
    }

    fn put(&self, into: &mut Vec<u8>) {
        for number in [self.origin.base.0, self.origin.history.0, self.inode] {
            into.extend_from_slice(&number.to_le_bytes());
        }
        into.extend_from_slice(&self.first_head);
        into.extend_from_slice(&self.len.to_le_bytes());
        into.extend_from_slice(&self.last_at.to_le_bytes());
        into.extend_from_slice(&self.last_head);
        into.extend_from_slice(&[0; 8]);
    }

    fn take(bytes: &[u8; ENTRY_LEN]) -> Entry {
        let field = |at: usize| -> [u8; 8] { bytes[at..].first_chunk().copied().unwrap_or_default() };
        let number = |at| u64::from_le_bytes(field(at));
        Entry {
            origin: Origin { base: Lsn(number(0)), history: History(number(8)) },
            inode: number(16),
            first_head: field(24),
            len: number(32),
            last_at: number(40),
            last_head: field(48),
        }
    }
}

fn read_head(storage: &impl Storage, offset: u64) -> Result<Option<[u8; 8]>> {
    let mut head = [0; 8];
    Ok((storage.read_at(&mut head, offset)? == head.len()).then_some(head))
}

/// The bytes of a meta file.
#[must_use]
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&count.to_le_bytes());
    for entry in entries {
        entry.put(&mut bytes);
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
    Ok(entries.iter().map(Entry::take).collect())
}

/// Where the log in `storage` begins: what its meta file says, else record 1. A damaged meta file, or one that can't be
/// compared with the log because its first record is damaged, is [`Error::Malformed`]: every LSN would be wrong.
pub fn origin(storage: &impl Storage) -> Result<Origin> {
    let Some(bytes) = storage.read_beside(SUFFIX)? else { return Ok(Origin::default()) };
    if storage.is_empty()? {
        return Ok(Origin::default());
    }
    let entries = decode(&bytes)?;
    for entry in &entries {
        if entry.is_about(storage)? {
            return Ok(entry.origin);
        }
    }
    // The newest first: if all records are alike both fit, and logs are copied rather after a compaction than in one.
    for entry in entries.iter().rev() {
        if entry.is_of_copy(storage)? {
            return Ok(entry.origin);
        }
    }
    if entries.iter().any(|entry| entry.origin.base > Lsn::ZERO) && !scan::is_record_at(storage, 0)? {
        return Err(Error::Malformed("the first record is damaged: whether the .meta file is the log's can't be told"));
    }
    Ok(Origin::default())
}

/// Writes the meta file of the log at `path`, durably.
pub fn save(path: &Path, entries: &[Entry]) -> Result<()> {
    file::replace(&file::beside(path, SUFFIX), |out| -> Result<()> { Ok(out.write_all(&encode(entries))?) })
}

/// Notes where the log at `path` begins before, or after, it is cut. One that is a copy is known by its inode from then
/// on: shorter than the entry says it would not be known by its records.
pub fn note_cut(path: &Path, storage: &impl Storage, tail: &LogTail) -> Result<()> {
    if tail.base() == Lsn::ZERO {
        return Ok(());
    }
    save(path, &[Entry::of(storage, tail)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(base: u64) -> Entry {
        Entry {
            origin: Origin { base: Lsn(base), history: History(base * 7) },
            inode: 1,
            first_head: [1; 8],
            len: 100,
            last_at: 50,
            last_head: [2; 8],
        }
    }

    #[test]
    fn what_was_written_is_read_and_every_flipped_bit_is_noticed() {
        let entries = [entry(5), entry(9)];
        let bytes = encode(&entries);
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
