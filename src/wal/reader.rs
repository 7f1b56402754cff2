//! Reading a log that somebody else may be appending to: nothing is locked, repaired, created or cut.
//!
//! A [`LogReader`] holds the file that had the log's name when it was opened. [`Records`] goes through it record by
//! record in bounded memory, checks every CRC, never skips, and can be asked again when the log has grown.
#![forbid(unsafe_code)]

use super::codec;
use super::origin::{self, Origin};
use super::record::{self, Next, Op, Record};
use super::scan::Position;
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage};
use crate::types::{Lsn, Timestamp};
use std::fs::File;
use std::path::Path;

/// How much is read at once. The largest record must fit.
const WINDOW: usize = 256 * 1024;
const _: () = assert!(WINDOW >= record::RECORD_MAX, "a record that fills the window would never be whole");

/// A log that is only read. Any number of them may be open beside the log's owner.
///
/// ```
/// use logship::{LogReader, Record, Timestamp, Wal};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("my.wal");
/// let mut wal = Wal::open(&path)?; // the owner, here or in another process
/// wal.append(&Record::set(b"name", b"alice", Timestamp(1)))?;
///
/// let reader = LogReader::open(&path)?;
/// let mut records = reader.records();
/// let first = records.next().ok_or(logship::Error::NotConnected)??;
/// assert_eq!((first.lsn.0, first.offset, first.record().key), (1, 0, b"name".as_slice()));
/// assert!(records.next().is_none()); // the end, for now
///
/// wal.append(&Record::set(b"city", b"oslo", Timestamp(2)))?;
/// let second = records.next().ok_or(logship::Error::NotConnected)??;
/// assert_eq!(second.record().value, b"oslo");
/// # Ok::<(), logship::Error>(())
/// ```
#[derive(Debug)]
pub struct LogReader<S: Storage = FileStorage<File>> {
    storage: S,
    origin: Origin,
}

impl LogReader {
    /// Opens the log at `path` for reading.
    ///
    /// Errors: that of open(2), and [`Error::Malformed`] when what stands in front of a compacted log does not tell
    /// where that begins. Damage in the log itself is found by [`Records`].
    pub fn open(path: impl AsRef<Path>) -> Result<LogReader> {
        LogReader::with_storage(file::open_read(path.as_ref())?)
    }
}

impl<S: Storage> LogReader<S> {
    /// Reads a log over any storage.
    pub fn with_storage(storage: S) -> Result<LogReader<S>> {
        let origin = origin::of(&storage)?;
        Ok(LogReader { storage, origin })
    }

    /// LSN before the first record: above [`Lsn::ZERO`] for a log that was compacted.
    pub fn base_lsn(&self) -> Lsn {
        self.origin.base
    }

    /// Where the log begins.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Bytes in the log now, whole records or not.
    pub fn len(&self) -> Result<u64> {
        Ok(self.storage.len()?)
    }

    /// Whether the log has no byte now.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.storage.is_empty()?)
    }

    /// The records, from the first on.
    pub fn records(&self) -> Records<'_, S> {
        self.records_from(self.origin.first())
    }

    /// The records from a place on where one begins, as [`Records::position`] gives it.
    pub fn records_from(&self, position: Position) -> Records<'_, S> {
        Records::new(&self.storage, position)
    }

    /// The storage, for looking at it.
    pub fn storage(&self) -> &S {
        &self.storage
    }
}

/// A record of a log, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its number.
    pub lsn: Lsn,
    /// The byte where it begins.
    pub offset: u64,
    /// Bytes that it takes in the log.
    pub len: usize,
    /// Its CRC, which is that of its bytes.
    pub crc: u32,
    op: Op,
    key: Vec<u8>,
    value: Vec<u8>,
    timestamp: Timestamp,
}

impl LogRecord {
    /// What it says.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        Record { op: self.op, key: &self.key, value: &self.value, timestamp: self.timestamp }
    }
}

/// The records of a log, one after another; see [`LogReader::records`].
///
/// It stops at the first place that holds no whole record:
///
/// - [`Error::Damaged`], with the offset and the LSN before it, is the last that it gives.
/// - [`Error::Unfinished`] means that the log ends before the record does. It is given once. When the log has grown,
///   `next` goes on.
/// - `None` is the end, for now: when the log has grown, `next` goes on.
#[derive(Debug)]
pub struct Records<'r, S: Storage> {
    storage: &'r S,
    window: Vec<u8>,
    used: usize,
    filled: usize,
    next: Position,
    state: State,
}

/// What is known of the place at which [`Records`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// So many bytes of an unfinished record were there when that was said.
    Unfinished(usize),
    Damaged,
}

impl<'r, S: Storage> Records<'r, S> {
    fn new(storage: &'r S, next: Position) -> Records<'r, S> {
        Records { storage, window: vec![0; WINDOW], used: 0, filled: 0, next, state: State::Reading }
    }

    /// Where the record begins that `next` will look at.
    #[must_use]
    pub fn position(&self) -> Position {
        self.next
    }

    /// Takes the record at the front of what was read, if a whole one is there.
    fn take(&mut self) -> Option<LogRecord> {
        let bytes = &self.window[self.used..self.filled];
        let Next::Record { record, len } = codec::next_in(bytes) else { return None };
        let taken = LogRecord {
            lsn: self.next.lsn,
            offset: self.next.offset,
            len,
            crc: record::stored_crc(bytes).unwrap_or_default(),
            op: record.op,
            key: record.key.to_vec(),
            value: record.value.to_vec(),
            timestamp: record.timestamp,
        };
        self.used += len;
        self.next = Position { offset: taken.offset + len as u64, lsn: taken.lsn.next() };
        self.state = State::Reading;
        Some(taken)
    }

    /// Says why there is no whole record here, or that the log ends. What was read is what the file holds now.
    fn stop(&mut self) -> Result<()> {
        let Position { offset, lsn } = self.next;
        let after = Lsn(lsn.0.saturating_sub(1));
        let is_cut_back = self.filled == 0 && self.storage.len()? < offset;
        match codec::next_in(&self.window[..self.filled]) {
            _ if is_cut_back => self.state = State::Damaged,
            _ if self.filled == 0 || self.state == State::Unfinished(self.filled) => return Ok(()),
            Next::Incomplete => {
                self.state = State::Unfinished(self.filled);
                return Err(Error::Unfinished { offset, after });
            }
            Next::Record { .. } | Next::Damaged => self.state = State::Damaged,
        }
        Err(Error::Damaged { offset, after })
    }
}

impl<S: Storage> Iterator for Records<'_, S> {
    type Item = Result<LogRecord>;

    fn next(&mut self) -> Option<Result<LogRecord>> {
        if self.state == State::Damaged {
            return None;
        }
        if let Some(record) = self.take() {
            return Some(Ok(record));
        }
        // Anew from here: the log may have grown, and an append that failed may have been cut off and another have come
        // in its place.
        (self.used, self.filled) = (0, 0);
        match self.storage.read_at(&mut self.window, self.next.offset) {
            Ok(count) => self.filled = count,
            Err(error) => return Some(Err(error.into())),
        }
        self.take().map(Ok).or_else(|| self.stop().err().map(Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn encoded(key: &[u8], value: &[u8]) -> Vec<u8> {
        let record = Record::set(key, value, Timestamp(7));
        let mut bytes = vec![0; record.encoded_len()];
        record::encode(&record, &mut bytes).unwrap();
        bytes
    }

    fn reader(bytes: Vec<u8>) -> LogReader<MemoryStorage> {
        LogReader::with_storage(MemoryStorage { bytes, ..MemoryStorage::default() }).unwrap()
    }

    #[test]
    fn records_longer_than_the_window_together_come_one_by_one() {
        let value = vec![b'v'; 65_535];
        let one = encoded(&[b'k'; 65_535], &value);
        let reader = reader(one.repeat(5));
        let found: Vec<LogRecord> = reader.records().map(Result::unwrap).collect();
        let places: Vec<_> = found.iter().map(|record| (record.lsn.0, record.offset)).collect();
        let len = one.len() as u64;
        assert_eq!(places, [(1, 0), (2, len), (3, 2 * len), (4, 3 * len), (5, 4 * len)]);
        assert!(found.iter().all(|record| record.record().value == value && record.len == one.len()));
    }

    #[test]
    fn damage_ends_it_with_its_place() {
        let one = encoded(b"k", b"v");
        let mut bytes = one.repeat(3);
        bytes[one.len() + 12] ^= 1;
        let reader = reader(bytes);
        let mut records = reader.records();
        assert!(records.next().unwrap().is_ok());
        match records.next() {
            Some(Err(Error::Damaged { offset, after })) => assert_eq!((offset, after), (one.len() as u64, Lsn(1))),
            other => panic!("{other:?}"),
        }
        assert!(records.next().is_none() && records.next().is_none());
    }

    #[test]
    fn a_record_cut_anywhere_is_unfinished_once_and_read_when_the_rest_is_there() {
        let one = encoded(b"key", b"value");
        for len in 1..one.len() {
            let mut whole = reader(one.clone());
            whole.storage.bytes.extend(&one[..len]);
            let mut records = whole.records();
            assert!(records.next().unwrap().is_ok());
            let Some(Err(Error::Unfinished { offset, after })) = records.next() else { panic!("{len} bytes") };
            assert_eq!((offset, after), (one.len() as u64, Lsn(1)));
            assert!(records.next().is_none(), "{len} bytes are no news");
            let (position, state) = (records.position(), records.state);
            whole.storage.bytes.extend(&one[len..]);
            let mut records = whole.records_from(position);
            records.state = state;
            assert_eq!(records.next().unwrap().unwrap().lsn, Lsn(2));
            assert!(records.next().is_none());
        }
    }

    #[test]
    fn a_log_that_was_cut_back_is_damaged() {
        let one = encoded(b"k", b"v");
        let reader = reader(one.clone());
        let mut records = reader.records_from(Position { offset: 2 * one.len() as u64, lsn: Lsn(3) });
        assert!(matches!(records.next(), Some(Err(Error::Damaged { after: Lsn(2), .. }))));
        assert!(records.next().is_none());
    }
}
