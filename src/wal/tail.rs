//! What a writer knows of its log beside the bytes: where it ends, how many records it has, where they lie.
//!
//! The state is plain and of fixed size, so the C layer can keep it beside a `struct wal_writer`, whose layout has no
//! room for it. All writes of the crate to a log go through [`LogTail::append`].
#![forbid(unsafe_code)]

use super::index::SparseIndex;
use super::scan::{self, End, Position};
use crate::clock;
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::types::Lsn;

/// The end of a log.
#[derive(Clone, Debug)]
pub struct LogTail {
    /// Bytes of whole records.
    len: u64,
    /// LSN of the last record.
    last: Lsn,
    /// LSN before the first record of the file.
    base: Lsn,
    /// Where the last record begins, and the first 8 bytes (CRC and length) of the first and the last record: they tell
    /// whether a file that looks like this log still is.
    last_at: u64,
    heads: [[u8; 8]; 2],
    index: SparseIndex,
}

impl Default for LogTail {
    fn default() -> LogTail {
        let index = SparseIndex::new(Lsn::ZERO);
        LogTail { len: 0, last: Lsn::ZERO, base: Lsn::ZERO, last_at: 0, heads: [[0; 8]; 2], index }
    }
}

impl LogTail {
    /// Makes this the state of an empty log, in place.
    pub fn reset(&mut self) {
        self.len = 0;
        self.last = Lsn::ZERO;
        self.base = Lsn::ZERO;
        self.index.reset(Lsn::ZERO);
    }

    /// Bytes of whole records.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the log has no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// LSN of the last record; [`Lsn::ZERO`] for an empty log.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// Where the next record will stand.
    #[must_use]
    pub fn next(&self) -> Position {
        Position { offset: self.len, lsn: self.last.next() }
    }

    /// A place at or shortly before record `lsn`, to walk from.
    #[must_use]
    pub fn near(&self, lsn: Lsn) -> Position {
        let (lsn, offset) = self.index.floor(lsn);
        Position { offset, lsn }
    }

    /// The CRC of the last record; 0 for an empty log.
    #[must_use]
    pub fn last_crc(&self) -> u32 {
        let [a, b, c, d, ..] = self.heads[1];
        u32::from_le_bytes([a, b, c, d])
    }

    /// Whether the last record has this encoded length and CRC.
    #[must_use]
    pub fn last_is(&self, len: usize, crc: u32) -> bool {
        !self.is_empty() && self.len - self.last_at == len as u64 && self.last_crc() == crc
    }

    /// Brings the state up to date with a log that someone else (a forked child, a second writer) appended to, cut or
    /// replaced. Reads only what is new when the log has grown. Returns how the log ends.
    pub fn refresh(&mut self, storage: &impl Storage) -> Result<End> {
        let len = storage.len()?;
        if len < self.len || !self.is_of(storage)? {
            self.reset();
        }
        let from = self.next();
        if from.offset == len {
            return Ok(End { next: from, damaged: false, cut: false });
        }
        let end = scan::scan(storage, from, len, |batch| {
            let mut lsn = batch.first;
            for (record, offset) in batch.records.iter().zip(batch.offsets) {
                clock::observe(record.timestamp);
                self.index.note(lsn, *offset);
                lsn = lsn.next();
            }
            if let (Some(first), Some(last)) = (batch.offsets.first(), batch.offsets.last()) {
                self.note_heads(batch.encoded, *first, *last);
            }
            Ok(())
        })?;
        self.len = end.next.offset;
        self.last = end.last();
        Ok(end)
    }

    /// Appends `encoded`, which holds `ends.len()` whole records (`ends` are their ends, counted from its beginning),
    /// and returns when all of it is durable.
    ///
    /// The log must end where this state says, or nothing is written ([`Error::Damaged`]). A failed write is rolled
    /// back to the size that the file had before (only if nothing else grew it) and the next append may succeed. A
    /// failed sync rolls back too and is [`Failure::Sync`]: the caller must latch.
    pub fn append(
        &mut self,
        storage: &mut impl Storage,
        encoded: &[u8],
        ends: &[usize],
    ) -> std::result::Result<Lsn, Failure> {
        if ends.is_empty() {
            return Ok(self.last);
        }
        // More than our records: a torn one that could not be cut, or somebody else's. Behind it nothing would be
        // found.
        match storage.len() {
            Ok(len) if len == self.len => {}
            Ok(_) => return Err(Failure::Write(Error::Damaged { offset: self.len, after: self.last })),
            Err(error) => return Err(Failure::Write(error.into())),
        }
        if let Err(failed) = storage.append(encoded) {
            roll_back(storage, self.len, failed.written);
            return Err(Failure::Write(failed.error.into()));
        }
        if let Err(error) = storage.sync() {
            roll_back(storage, self.len, encoded.len() as u64);
            return Err(Failure::Sync(error.into()));
        }
        let (mut start, mut last_at) = (0, self.len);
        for end in ends {
            self.last = self.last.next();
            last_at = self.len + start as u64;
            self.index.note(self.last, last_at);
            start = *end;
        }
        self.note_heads(encoded, self.len, last_at);
        self.len += encoded.len() as u64;
        Ok(self.last)
    }
}

impl LogTail {
    /// Notes how the first and the last record begin. `encoded` begins at byte `first` of the log.
    fn note_heads(&mut self, encoded: &[u8], first: u64, last: u64) {
        let head = |at: u64| {
            let start = usize::try_from(at - first).unwrap_or(usize::MAX);
            encoded.get(start..).and_then(|rest| rest.first_chunk::<8>()).copied().unwrap_or_default()
        };
        if first == 0 {
            self.heads[0] = head(0);
        }
        self.heads[1] = head(last);
        self.last_at = last;
    }

    /// Whether `storage` begins, and goes on at the last record, as this state says.
    fn is_of(&self, storage: &impl Storage) -> Result<bool> {
        if self.len == 0 {
            return Ok(true);
        }
        for (at, head) in [(0, self.heads[0]), (self.last_at, self.heads[1])] {
            let mut there = [0; 8];
            if storage.read_at(&mut there, at)? < there.len() || there != head {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// An append that failed; the log is what it was.
#[derive(Debug)]
pub enum Failure {
    /// Before anything was made durable: the next append may succeed.
    Write(Error),
    /// In fsync: what the disk holds is unknown until the log is opened again.
    Sync(Error),
}

fn roll_back(storage: &mut impl Storage, before: u64, written: u64) {
    // Somebody else's bytes behind ours must stay; then our torn record stays too and the next open judges it.
    match storage.len() {
        Ok(len) if written > 0 && len == before + written => {
            if let Err(error) = storage.truncate(before) {
                crate::log_error!("wal: cannot cut a failed append back to offset {before}: {error}");
            }
        }
        Ok(_) => {}
        Err(error) => crate::log_error!("wal: cannot read the log's size after a failed append: {error}"),
    }
}
