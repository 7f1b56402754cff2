//! The note that a log's file carries: up to where the log is known to be durable, and whether a large write is going
//! on behind that.
//!
//! ```text
//! "LSD\2" [crc32:4]                     over every byte after these eight
//! [durable:8] [last:8]                  bytes that an fsync has covered, LSN of the last record in them
//! [writing_to:8]                        0; else a write of several records began there, and ends before this byte
//! [first_head:8]                        the first eight bytes of the first record
//! [last_at:8] [last_head:8]             where the last record begins, and its first eight bytes
//! [history:8] [newest:8]                what the log has been through up to it; no record has a greater time stamp
//! ```
//! All integers are little-endian. It is an extended attribute of the log's own inode, so it costs no fsync, goes where
//! the file goes and ends with it. It is written after an fsync, and before a write that a crash could leave with a
//! hole in it; the next fsync of the log makes it durable. So it may be older than the log, and says less then; it
//! never says more than an fsync of this file has covered. A file may be given another content without its attributes
//! being touched: a note that is not about the records that are there is no note.
#![forbid(unsafe_code)]

use super::crc::crc32;
use super::origin;
use super::scan::End;
use crate::error::Result;
use crate::storage::Storage;
use crate::types::{History, Lsn, Timestamp};

const MAGIC: &[u8; 4] = b"LSD\x02";
const LEN: usize = 72;

/// What a log's file says of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Bytes that an fsync has covered.
    pub durable: u64,
    /// LSN of the last record in them.
    pub last: Lsn,
    /// Where a write that began at `durable` ends; 0 if none was going on.
    pub writing_to: u64,
    /// The first 8 bytes of the first record.
    pub first_head: [u8; 8],
    /// Where the last record begins.
    pub last_at: u64,
    /// The first 8 bytes of the last record.
    pub last_head: [u8; 8],
    /// What the log has been through up to the last record.
    pub history: History,
    /// No record up to there has a greater time stamp.
    pub newest: Timestamp,
}

impl Note {
    /// The bytes of a note.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(LEN);
        for number in [self.durable, self.last.0, self.writing_to] {
            content.extend_from_slice(&number.to_le_bytes());
        }
        content.extend_from_slice(&self.first_head);
        content.extend_from_slice(&self.last_at.to_le_bytes());
        content.extend_from_slice(&self.last_head);
        for number in [self.history.0, self.newest.0] {
            content.extend_from_slice(&number.to_le_bytes());
        }
        [&MAGIC[..], &crc32(&content).to_le_bytes(), &content].concat()
    }

    /// Reads a note; `None`: it is none, or damaged, or of a later version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Note> {
        let (crc, content) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        if bytes.len() != LEN || u32::from_le_bytes(*crc) != crc32(content) {
            return None;
        }
        let (fields, _) = content.as_chunks::<8>();
        let &[durable, last, writing_to, first_head, last_at, last_head, history, newest] =
            fields.first_chunk::<8>()?;
        let number = u64::from_le_bytes;
        Some(Note {
            durable: number(durable),
            last: Lsn(number(last)),
            writing_to: number(writing_to),
            first_head,
            last_at: number(last_at),
            last_head,
            history: History(number(history)),
            newest: Timestamp(number(newest)),
        })
    }

    /// The note of a log, if it has one that is about the records that a scan found there up to `end`.
    pub fn of(storage: &impl Storage, end: &End) -> Result<Option<Note>> {
        let Some(note) = storage.note()?.and_then(|bytes| Note::decode(&bytes)) else { return Ok(None) };
        Ok(note.is_about(storage, end)?.then_some(note))
    }

    /// Whether the whole records that are there are the note's. Where there is none, what the note says can't be
    /// refuted: records that were durable are damaged or gone.
    fn is_about(&self, storage: &impl Storage, end: &End) -> Result<bool> {
        let first = origin::of(storage)?.first().offset;
        for (at, head) in [(first, self.first_head), (self.last_at, self.last_head)] {
            let mut there = [0; 8];
            if self.durable > 0 && at < end.next.offset {
                storage.read_at(&mut there, at)?;
                if there != head {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether two notes know the same log durable.
    pub(super) fn is_same_log(&self, other: &Note) -> bool {
        let Note { writing_to, newest, .. } = *self;
        *self == Note { writing_to, newest, ..*other }
    }

    /// How many bytes of a log of `len` bytes are durable by the note. A write of several records that the log has
    /// outgrown was durable before the next began.
    #[must_use]
    pub fn durable_of(&self, len: u64) -> u64 {
        if self.writing_to > 0 && len > self.writing_to { self.writing_to } else { self.durable }
    }

    /// Whether all that a log of `len` bytes has behind what is durable was being written when the note was.
    #[must_use]
    pub fn covers_the_rest(&self, len: u64) -> bool {
        self.writing_to > 0 && len <= self.writing_to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_every_flipped_bit_is_noticed() {
        let note = Note {
            durable: 1 << 40,
            last: Lsn(7),
            writing_to: 1 << 41,
            first_head: [1; 8],
            last_at: 77,
            last_head: *b"headhead",
            history: History(1 << 50),
            newest: Timestamp(1 << 60),
        };
        let bytes = note.encode();
        assert_eq!(bytes.len(), LEN);
        assert_eq!(Note::decode(&bytes), Some(note));
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert_eq!(Note::decode(&damaged), None, "bit {at}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Note::decode(&bytes[..len]), None);
        }
        assert_eq!(Note::decode(&[&bytes[..], b"!"].concat()), None);
    }

    #[test]
    fn a_write_that_the_log_has_outgrown_is_durable() {
        let note = Note { durable: 100, writing_to: 200, ..Note::default() };
        assert_eq!((note.durable_of(200), note.covers_the_rest(200)), (100, true));
        assert_eq!((note.durable_of(201), note.covers_the_rest(201)), (200, false));
        let idle = Note { durable: 100, ..Note::default() };
        assert_eq!((idle.durable_of(500), idle.covers_the_rest(500)), (100, false));
    }
}
