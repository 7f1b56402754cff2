//! The write-ahead log: records one after another in one file, durable when `append` returns.
//!
//! [`record`] is the codec, [`scan`] reads, [`judge`] and [`repair`] say what may be cut off, [`tail`] writes,
//! [`index`] finds, [`recovery`] and [`checkpoint`] build the store. [`Wal`] ties them to one open file for the Rust
//! API; the C layer ties the same parts to a descriptor.
//! [`reader`], [`survey`], [`fit`] and [`salvage`] are for who looks at a log, whole or damaged, and decides what to do
//! with it.

pub mod checkpoint;
pub mod codec;
pub mod compact;
pub mod crc;
pub mod fit;
pub mod index;
pub mod index_file;
pub mod judge;
pub mod meta;
pub mod note;
pub mod origin;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod repair;
pub mod salvage;
pub mod scan;
pub mod snapshot;
mod stamps;
pub mod survey;
pub mod tail;
mod window;

pub use checkpoint::{is_checkpoint, load_checkpoint};
pub use recovery::{recover, recover_with_checkpoint};

use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage};
use crate::types::{History, Lsn};
use compact::{Compacted, Retention};
use judge::Verdict;
use note::Note;
use record::Record;
use scan::Position;
use std::fs::File;
use std::path::{Path, PathBuf};
use tail::{Failure, LogTail};

/// What stands behind the name of a log for the checkpoint that a snapshot installed.
pub const CHECKPOINT_SUFFIX: &str = ".ckpt";

/// Why a log does not take a record; see [`clock::admits`].
pub const BEYOND_THE_CLOCK: Error = Error::Invalid("a time stamp that the clock can't pass");

/// Encodes records one after another; returns the end of each, counted from the beginning of `into`.
pub fn encode_all(records: &[Record<'_>], into: &mut Vec<u8>) -> Result<Vec<usize>> {
    into.clear();
    let mut ends = Vec::with_capacity(records.len());
    for one in records {
        if !clock::admits(one.timestamp) {
            return Err(BEYOND_THE_CLOCK);
        }
        let start = into.len();
        into.resize(start + codec::encoded_len_max(one), 0);
        let len = codec::encode(one, &mut into[start..])?;
        into.truncate(start + len);
        clock::observe(one.timestamp);
        ends.push(into.len());
    }
    Ok(ends)
}

/// An open log. One owner at a time: opening takes a lock on the file, which a second `open` is refused.
///
/// ```
/// use logship::{Record, Timestamp, Wal};
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("my.wal");
/// let mut wal = Wal::open(&path)?;
/// let lsn = wal.append(&Record::set(b"name", b"alice", Timestamp(1)))?; // durable now
/// assert_eq!(lsn.0, 1);
/// # Ok::<(), logship::Error>(())
/// ```
#[derive(Debug)]
pub struct Wal<S: Storage = FileStorage<File>> {
    storage: S,
    /// Its name; empty for a log that is no file.
    path: PathBuf,
    tail: Box<LogTail>,
    latched: bool,
    scratch: Vec<u8>,
}

impl Wal {
    /// Opens or creates the log at `path`, cuts a torn tail off (see [`repair::repair`]) and finds its last record.
    pub fn open(path: impl AsRef<Path>) -> Result<Wal> {
        let path = path.as_ref();
        let file = file::open_append(path)?;
        lock(&file)?;
        let reader = file::reopen_for_reading(&file)?;
        let mut storage = FileStorage(file);
        let mut tail = Box::<LogTail>::default();
        repair::repair(path, &reader, &mut storage, &mut tail)?;
        Ok(Wal { storage, path: file::real(path), tail, latched: false, scratch: Vec::new() })
    }

    /// Drops the records that the checkpoint at `checkpoint_path` covers and that `keep` does not want, nor `slowest`,
    /// the LSN that the slowest follower has acknowledged. A crash at any moment leaves the old log or the new one.
    ///
    /// Errors: [`Error::Malformed`]: the checkpoint is damaged, or not of this log; nothing was changed.
    pub fn compact(
        &mut self,
        checkpoint_path: impl AsRef<Path>,
        keep: &Retention,
        slowest: Option<Lsn>,
    ) -> Result<Compacted> {
        let reader = file::open_read(&self.path)?;
        let plan = compact::plan(checkpoint_path.as_ref(), &reader, &self.tail, keep, slowest)?;
        if plan.records > 0 {
            let file = compact::drop_front(&self.path, &reader, &mut self.tail, plan.base);
            self.take_over(file, &reader)?;
        }
        Ok(plan)
    }

    /// Drops every record after `lsn`; the bytes are kept in `<path>.cut-N`, whose name is returned. It is the way out
    /// for a follower whose log has diverged from its leader's. [`Error::OutOfRange`]: the log does not have `lsn`.
    pub fn truncate_to(&mut self, lsn: Lsn) -> Result<Option<PathBuf>> {
        let reader = file::open_read(&self.path)?;
        compact::truncate_to(&self.path, &reader, &mut self.storage, &mut self.tail, lsn)
    }

    /// Puts a snapshot in the log's and the store's place; see [`snapshot::Incoming::install`].
    pub(crate) fn install(
        &mut self,
        incoming: snapshot::Incoming,
        origin: origin::Origin,
        record: &[u8],
        store: &mut impl StateMachine,
    ) -> Result<()> {
        let reader = file::open_read(&self.path)?;
        let file = incoming.install(&self.path, &reader, &mut self.tail, origin, record, store);
        self.take_over(file, &reader)
    }

    /// Makes ready to take a snapshot in.
    pub(crate) fn receive_snapshot(&self, snapshot: &snapshot::Snapshot) -> Result<snapshot::Incoming> {
        snapshot::Incoming::begin(&self.path, snapshot)
    }

    /// Goes on in the file that has taken the place of `old`.
    fn take_over(&mut self, file: Result<File>, old: &FileStorage<File>) -> Result<()> {
        match file.and_then(|file| lock(&file).map(|()| file)) {
            Ok(file) => {
                (self.storage, self.latched) = (FileStorage(file), false);
                Ok(())
            }
            Err(error) => {
                // If it failed half-way the file that is open here is not the log any more, and must take nothing.
                self.latched |= !old.id().is_ok_and(|id| file::is_named(&self.path, id));
                Err(error)
            }
        }
    }
}

/// Takes the lock that keeps a second owner out.
fn lock(file: &File) -> Result<()> {
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => Error::Locked,
        std::fs::TryLockError::Error(error) => Error::Io(error),
    })
}

impl<S: Storage> Wal<S> {
    /// A log over any storage; `storage` must be readable. Damage and torn tails are refused.
    pub fn with_storage(storage: S) -> Result<Wal<S>> {
        let mut tail = Box::<LogTail>::default();
        let end = tail.refresh(&storage)?;
        let note = Note::of(&storage, &end)?;
        if judge::judge(&storage, &end, note.as_ref())? != Verdict::Whole {
            return Err(Error::Damaged { offset: end.next.offset, after: end.last() });
        }
        Ok(Wal { storage, path: PathBuf::new(), tail, latched: false, scratch: Vec::new() })
    }

    /// Appends one record; it is durable when this returns its LSN. See [`LogTail::append`] for failures.
    pub fn append(&mut self, record: &Record<'_>) -> Result<Lsn> {
        self.append_batch(std::slice::from_ref(record))
    }

    /// Appends records with one write and one fsync; all are durable when this returns the last LSN, or none is.
    pub fn append_batch(&mut self, records: &[Record<'_>]) -> Result<Lsn> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = encode_all(records, &mut scratch).and_then(|ends| self.append_encoded(&scratch, &ends));
        self.scratch = scratch;
        result
    }

    /// Appends records that are encoded already; `ends` are their ends within `encoded`.
    pub fn append_encoded(&mut self, encoded: &[u8], ends: &[usize]) -> Result<Lsn> {
        self.append_behind(0, encoded, ends)
    }

    /// Writes records of which an append is to come; see [`LogTail::write_ahead`].
    pub fn write_ahead(&mut self, ahead: usize, encoded: &[u8]) -> Result<()> {
        if self.latched {
            return Err(Error::Latched);
        }
        self.tail.write_ahead(&mut self.storage, ahead, encoded)
    }

    /// Appends records of whose bytes the first `ahead` are written; see [`LogTail::append`].
    pub fn append_behind(&mut self, ahead: usize, encoded: &[u8], ends: &[usize]) -> Result<Lsn> {
        if self.latched {
            return Err(Error::Latched);
        }
        if ends.is_empty() {
            return Ok(self.tail.last());
        }
        match self.tail.append(&mut self.storage, ahead, encoded, ends) {
            Ok(lsn) => Ok(lsn),
            Err(Failure::Write(error)) => Err(error),
            Err(Failure::Sync(error)) => {
                self.latched = true;
                Err(error)
            }
            Err(Failure::Mixed) => {
                self.latched = true;
                Err(Error::Damaged { offset: self.tail.len(), after: self.tail.last() })
            }
        }
    }

    /// Its name; empty for a log that is no file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// LSN before the first record that it has: above [`Lsn::ZERO`] once it was compacted.
    pub fn base_lsn(&self) -> Lsn {
        self.tail.base()
    }

    /// LSN of the last record.
    pub fn last_lsn(&self) -> Lsn {
        self.tail.last()
    }

    /// Bytes in the log.
    pub fn len(&self) -> u64 {
        self.tail.len()
    }

    /// Whether the log has no record.
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// What is known of the log beside its bytes.
    pub fn tail(&self) -> &LogTail {
        &self.tail
    }

    /// The storage, for looking at it.
    pub fn storage(&self) -> &S {
        &self.storage
    }
}

/// Reads the encoded record `lsn`, walking from `near`, a place at or before it. A log without it is ENOENT, also one
/// that was compacted and begins behind it.
pub fn read_record(storage: &impl Storage, near: Position, lsn: Lsn) -> Result<Vec<u8>> {
    let missing = || Error::Io(std::io::Error::from_raw_os_error(libc::ENOENT));
    let at = scan::walk(storage, near, |at| at.lsn >= lsn)?.filter(|at| at.lsn == lsn).ok_or_else(missing)?;
    let mut bytes = vec![0; record::RECORD_MAX];
    let count = storage.read_at(&mut bytes, at.offset)?;
    let len = codec::frame_len(&bytes[..count]).filter(|len| *len <= count).ok_or_else(missing)?;
    bytes.truncate(len);
    codec::decode(&bytes)?;
    Ok(bytes)
}

/// Finds the record with this encoded length and CRC: the newest if it is that one, else `expected`, else the first
/// such among the last 1,024.
pub fn find_recent(
    storage: &impl Storage,
    tail: &LogTail,
    len: usize,
    crc: u32,
    expected: Option<Lsn>,
) -> Result<Option<Lsn>> {
    const WINDOW: u64 = 1024;
    if tail.last_is(len, crc) {
        return Ok(Some(tail.last()));
    }
    if let Some(expected) = expected
        && read_head(storage, tail, expected)? == Some((len, crc))
    {
        return Ok(Some(expected));
    }
    let oldest = Lsn(tail.last().0.saturating_sub(WINDOW - 1).max(1));
    let Some(from) = scan::walk(storage, tail.near(storage, oldest)?, |at| at.lsn >= oldest)? else { return Ok(None) };
    let mut found = None;
    scan::scan(storage, from, tail.len(), |batch| {
        let mut lsn = batch.first;
        let ends = batch.offsets.iter().skip(1).copied();
        let end = batch.offsets.first().map_or(0, |first| first + batch.encoded.len() as u64);
        for (start, end) in batch.offsets.iter().zip(ends.chain([end])) {
            let begin = usize::try_from(start - batch.offsets[0]).unwrap_or(usize::MAX);
            let matches =
                end - start == len as u64 && batch.encoded.get(begin..).and_then(record::stored_crc) == Some(crc);
            if matches {
                found.get_or_insert(lsn);
            }
            lsn = lsn.next();
        }
        Ok(())
    })?;
    Ok(found)
}

/// The LSN of the first of the encoded records, if they stand somewhere in the log from record `from` on.
pub fn find_encoded(storage: &impl Storage, from: Position, limit: u64, encoded: &[u8]) -> Result<Option<Lsn>> {
    let mut there = vec![0; encoded.len()];
    let mut found = None;
    scan::scan(storage, from, limit, |batch| {
        let mut lsn = batch.first;
        for offset in batch.offsets {
            if found.is_none() && storage.read_at(&mut there, *offset)? == encoded.len() && there == encoded {
                found = Some(lsn);
            }
            lsn = lsn.next();
        }
        Ok(())
    })?;
    Ok(found)
}

/// The CRC of record `lsn` (0 if it is gone), and the log's history up to it; `None` if the log does not have it.
pub fn read_past(storage: &impl Storage, tail: &LogTail, lsn: Lsn) -> Result<Option<(u32, History)>> {
    if lsn == Lsn::ZERO {
        return Ok(None);
    }
    Ok(tail.place_behind(storage, lsn)?.map(|(_, crc, history)| (crc, history)))
}

/// The encoded length and the CRC of record `lsn`.
fn read_head(storage: &impl Storage, tail: &LogTail, lsn: Lsn) -> Result<Option<(usize, u32)>> {
    if lsn <= tail.base() || lsn > tail.last() {
        return Ok(None);
    }
    let Some(at) = scan::walk(storage, tail.near(storage, lsn)?, |at| at.lsn >= lsn)? else { return Ok(None) };
    let mut head = [0; 8];
    let count = storage.read_at(&mut head, at.offset)?;
    let head = &head[..count];
    Ok(codec::frame_len(head).zip(record::stored_crc(head)))
}

/// The absolute form of a path, without asking that it exist.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
