//! The write-ahead log: records one after another in one file, durable when `append` returns.
//!
//! [`record`] is the codec, [`scan`] reads, [`tail`] writes, [`index`] finds, [`recovery`] and [`checkpoint`] build the
//! store. [`Wal`] ties them to one open file for the Rust API; the C layer ties the same parts to a descriptor.

pub mod checkpoint;
pub mod crc;
pub mod index;
pub mod record;
pub mod recovery;
pub mod scan;
pub mod tail;

use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage};
use crate::types::Lsn;
use record::Record;
use scan::{Position, Tail};
use std::fs::File;
use std::path::{Path, PathBuf};
use tail::{Failure, LogTail};

/// Reads a log's end and makes it fit to append to: a torn tail is copied to `<path>.torn-N` and cut off, with a
/// warning; damage in the middle is [`Error::Damaged`] and nothing is changed.
///
/// `reader` and `writer` are the same file; a C log's descriptor is write-only.
pub fn repair(path: &Path, reader: &impl Storage, writer: &mut impl Storage, tail: &mut LogTail) -> Result<()> {
    let end = tail.refresh(reader)?;
    let offset = end.next.offset;
    match scan::judge_end(reader, &end)? {
        Tail::Clean => Ok(()),
        Tail::Torn => {
            let kept = file::save_torn_tail(path, reader, offset)?;
            let bytes = reader.len()?.saturating_sub(offset);
            crate::log_warn!(
                "{}: a torn record at offset {offset} (after LSN {}) was cut off; its {bytes} bytes are kept in {}",
                path.display(),
                end.last(),
                kept.display()
            );
            writer.truncate(offset)?;
            Ok(writer.sync()?)
        }
        Tail::Damaged => {
            crate::log_error!(
                "{}: damaged at offset {offset} (after LSN {}): whole records follow, so nothing was cut",
                path.display(),
                end.last()
            );
            Err(Error::Damaged { offset, after: end.last() })
        }
    }
}

/// Encodes records one after another; returns the end of each, counted from the beginning of `into`.
pub fn encode_all(records: &[Record<'_>], into: &mut Vec<u8>) -> Result<Vec<usize>> {
    into.clear();
    let mut ends = Vec::with_capacity(records.len());
    for one in records {
        let start = into.len();
        into.resize(start + one.encoded_len(), 0);
        record::encode(one, &mut into[start..])?;
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
    tail: Box<LogTail>,
    latched: bool,
    scratch: Vec<u8>,
}

impl Wal {
    /// Opens or creates the log at `path`, cuts a torn tail off (see [`repair`]) and finds its last record.
    pub fn open(path: impl AsRef<Path>) -> Result<Wal> {
        let path = path.as_ref();
        let file = file::open_append(path)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => Error::Locked,
            std::fs::TryLockError::Error(error) => Error::Io(error),
        })?;
        let reader = file::reopen_for_reading(&file)?;
        let mut storage = FileStorage(file);
        let mut tail = Box::<LogTail>::default();
        repair(path, &reader, &mut storage, &mut tail)?;
        Ok(Wal { storage, tail, latched: false, scratch: Vec::new() })
    }
}

impl<S: Storage> Wal<S> {
    /// A log over any storage; `storage` must be readable. Damage and torn tails are refused.
    pub fn with_storage(storage: S) -> Result<Wal<S>> {
        let mut tail = Box::<LogTail>::default();
        let end = tail.refresh(&storage)?;
        if end.damaged {
            return Err(Error::Damaged { offset: end.next.offset, after: end.last() });
        }
        Ok(Wal { storage, tail, latched: false, scratch: Vec::new() })
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
        if self.latched {
            return Err(Error::Latched);
        }
        if ends.is_empty() {
            return Ok(self.tail.last());
        }
        match self.tail.append(&mut self.storage, encoded, ends) {
            Ok(lsn) => Ok(lsn),
            Err(Failure::Write(error)) => Err(error),
            Err(Failure::Sync(error)) => {
                self.latched = true;
                Err(error)
            }
        }
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

    /// A place at or shortly before record `lsn`.
    pub fn near(&self, lsn: Lsn) -> Position {
        self.tail.near(lsn)
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

/// Replays the log at `path` into `store`, stopping at the first record that is not whole; returns how many records
/// were replayed. A missing file is an error (ENOENT).
pub fn recover(path: &Path, store: &mut impl StateMachine) -> Result<u64> {
    replay_from(path, &file::open_read(path)?, 0, store)
}

fn replay_from(path: &Path, storage: &impl Storage, offset: u64, store: &mut impl StateMachine) -> Result<u64> {
    let replay = recovery::replay(storage, offset, store)?;
    if replay.damaged {
        crate::log_warn!(
            "{}: stopped at offset {}: no whole record there; {} records were replayed, {} bytes were not",
            path.display(),
            replay.end,
            replay.records,
            storage.len()?.saturating_sub(replay.end)
        );
    }
    Ok(replay.records)
}

/// Reads the encoded record `lsn`, walking from `near`, a place at or before it. A log without it is ENOENT.
pub fn read_record(storage: &impl Storage, near: Position, lsn: Lsn) -> Result<Vec<u8>> {
    let missing = || Error::Io(std::io::Error::from_raw_os_error(libc::ENOENT));
    let at = scan::walk(storage, near, |at| at.lsn >= lsn)?.ok_or_else(missing)?;
    let mut bytes = vec![0; record::RECORD_MAX];
    let count = storage.read_at(&mut bytes, at.offset)?;
    let len = record::frame_len(&bytes[..count]).filter(|len| *len <= count).ok_or_else(missing)?;
    bytes.truncate(len);
    record::decode(&bytes)?;
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
    let Some(from) = scan::walk(storage, tail.near(oldest), |at| at.lsn >= oldest)? else { return Ok(None) };
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

/// The CRC of record `lsn`; `None` if the log does not have it.
pub fn read_crc(storage: &impl Storage, tail: &LogTail, lsn: Lsn) -> Result<Option<u32>> {
    Ok(read_head(storage, tail, lsn)?.map(|(_, crc)| crc))
}

/// The encoded length and the CRC of record `lsn`.
fn read_head(storage: &impl Storage, tail: &LogTail, lsn: Lsn) -> Result<Option<(usize, u32)>> {
    if lsn == Lsn::ZERO || lsn > tail.last() {
        return Ok(None);
    }
    let Some(at) = scan::walk(storage, tail.near(lsn), |at| at.lsn >= lsn)? else { return Ok(None) };
    let mut head = [0; 8];
    let count = storage.read_at(&mut head, at.offset)?;
    let head = &head[..count];
    Ok(record::frame_len(head).zip(record::stored_crc(head)))
}

/// Loads a checkpoint into `store`; the store is unchanged if the file is damaged.
pub fn load_checkpoint(path: &Path, store: &mut impl StateMachine) -> Result<checkpoint::Covered> {
    let storage = file::open_read(path)?;
    let found = checkpoint::verify(&storage).inspect_err(|error| {
        crate::log_error!("{}: checkpoint refused: {error}", path.display());
    })?;
    found.apply(store)?;
    Ok(found.covered)
}

/// Recovers from a checkpoint and the log behind it; returns how many records of the log were replayed. A checkpoint
/// that is missing, damaged or does not fit the log is passed over and the whole log replayed.
pub fn recover_with_checkpoint(wal_path: &Path, checkpoint_path: &Path, store: &mut impl StateMachine) -> Result<u64> {
    use recovery::{CheckpointState, Plan};
    let log = file::open_read(wal_path)?;
    let opened = match file::open_read(checkpoint_path) {
        Ok(storage) => Some(storage),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let found = opened.as_ref().map(checkpoint::verify);
    let state = match &found {
        None => CheckpointState::Missing,
        Some(Ok(found)) if recovery::is_boundary(&log, found.covered.offset)? => {
            CheckpointState::Usable(found.covered.offset)
        }
        Some(Ok(found)) => {
            crate::log_warn!(
                "{}: its offset {} is no record boundary of {} ({} bytes): replaying the whole log",
                checkpoint_path.display(),
                found.covered.offset,
                wal_path.display(),
                log.len()?
            );
            CheckpointState::Unusable
        }
        Some(Err(error)) => {
            crate::log_warn!("{}: {error}: replaying the whole log", checkpoint_path.display());
            CheckpointState::Unusable
        }
    };
    match (recovery::plan(state, false), found) {
        (Plan::Checkpoint(offset), Some(Ok(found))) => {
            found.apply(store)?;
            replay_from(wal_path, &log, offset, store)
        }
        (Plan::Refuse, _) => Err(recovery::refuse()),
        _ => replay_from(wal_path, &log, 0, store),
    }
}

/// The absolute form of a path, without asking that it exist.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
