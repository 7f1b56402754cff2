//! Checkpoints: the whole store in one file, so that recovery replays only the log's tail.
//!
//! ```text
//! "CKPT" [wal_offset:8] [num_keys:4]
//! num_keys x   [key_len:2][key][value_len:2][value]                 what the lesson (w10-l05) asks for
//! "LSCK" [version:4] [lsn:8] [history:8] [0:8] [num_tombstones:8]   our trailer, which a lesson's reader ignores
//! num_keys x   [timestamp:8]                                        in the order of the keys above
//! num_tombstones x [key_len:2][key][timestamp:8]
//! [crc32:4] "LSCKEND\n"                                            the CRC is over every byte before it
//! ```
//! All integers are little-endian. A file that ends where the trailer would begin was written by a lesson's code and
//! loads too, with time stamp 0 everywhere; but one that ends with our last eight bytes did have a trailer, and then a
//! damaged length made it look like a value. Reading is two passes in bounded memory: the first checks everything, the
//! second applies, so a damaged file leaves the store as it was.
#![forbid(unsafe_code)]

use super::crc::Hasher;
use super::record::{Op, Record};
use crate::clock;
use crate::error::{Error, Result};
use crate::kv::{Entry, StateMachine};
use crate::storage::Storage;
use crate::storage::file;
use crate::types::{History, Lsn, Timestamp};
use std::io::Write;
use std::path::Path;

const MAGIC: &[u8; 4] = b"CKPT";
const TRAILER_MAGIC: &[u8; 4] = b"LSCK";
const END: &[u8; 8] = b"LSCKEND\n";
const VERSION: u32 = 1;

/// What a checkpoint says of the log it was taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// The log is covered up to this byte.
    pub offset: u64,
    /// LSN of the last record covered; [`Lsn::ZERO`] if it is not known.
    pub lsn: Lsn,
    /// What the log had been through up to there, if the LSN is known.
    pub history: History,
}

/// A writer that computes the CRC of what passes through.
struct Summed<W: Write> {
    inner: W,
    crc: Hasher,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        Ok(self.inner.write_all(bytes)?)
    }

    fn put_string(&mut self, bytes: &[u8], what: &'static str) -> Result<()> {
        let len = u16::try_from(bytes.len()).map_err(|_| Error::TooLarge(what))?;
        self.put(&len.to_le_bytes())?;
        self.put(bytes)
    }
}

/// Writes the store to `path`: under a temporary name first, fsynced, renamed, directory fsynced. A key or value that
/// does not fit (over 65,535 bytes) is [`Error::TooLarge`], and whatever was at `path` stays.
pub fn write(store: &impl StateMachine, path: &Path, covered: Covered) -> Result<()> {
    file::replace(path, |out| {
        let mut out = Summed { inner: out, crc: Hasher::new() };
        let live = u32::try_from(store.live()).map_err(|_| Error::TooLarge("more than 2^32 keys"))?;
        out.put(MAGIC)?;
        out.put(&covered.offset.to_le_bytes())?;
        out.put(&live.to_le_bytes())?;
        let mut tombstones = 0u64;
        store.for_each(&mut |entry| match entry.value {
            Some(value) => {
                out.put_string(entry.key, "a key over 65,535 bytes")?;
                out.put_string(value, "a value over 65,535 bytes")
            }
            None => {
                tombstones += 1;
                Ok(())
            }
        })?;
        out.put(TRAILER_MAGIC)?;
        out.put(&VERSION.to_le_bytes())?;
        out.put(&covered.lsn.0.to_le_bytes())?;
        out.put(&covered.history.0.to_le_bytes())?;
        out.put(&[0; 8])?;
        out.put(&tombstones.to_le_bytes())?;
        store.for_each(&mut |entry| {
            if entry.value.is_none() {
                out.put_string(entry.key, "a key over 65,535 bytes")?;
            }
            out.put(&entry.timestamp.0.to_le_bytes())
        })?;
        let crc = out.crc.finalize();
        out.inner.write_all(&crc.to_le_bytes())?;
        Ok(out.inner.write_all(END)?)
    })
}

/// A checkpoint that was read and found whole; nothing is applied yet.
#[derive(Debug)]
pub struct Checkpoint<'s, S: Storage> {
    storage: &'s S,
    /// What it says of its log.
    pub covered: Covered,
    keys: u32,
    tombstones: u64,
    /// Where the time stamps begin; `None` without our trailer.
    timestamps_at: Option<u64>,
    crc: Option<u32>,
}

const HEADER_LEN: u64 = 16;

/// Checks a checkpoint from its first to its last byte.
pub fn verify<S: Storage>(storage: &S) -> Result<Checkpoint<'_, S>> {
    let len = storage.len()?;
    let mut reader = Reader::new(storage, 0);
    if &reader.array::<4>()? != MAGIC {
        return Err(Error::Malformed("the checkpoint does not begin with CKPT"));
    }
    let offset = reader.u64()?;
    let keys = reader.u32()?;
    for _ in 0..keys {
        reader.string()?;
        reader.string()?;
    }
    let mut found = Checkpoint {
        storage,
        covered: Covered { offset, ..Covered::default() },
        keys,
        tombstones: 0,
        timestamps_at: None,
        crc: None,
    };
    if reader.offset() == len {
        let mut last = [0; END.len()];
        storage.read_at(&mut last, len.saturating_sub(END.len() as u64))?;
        return if &last == END { Err(Error::Malformed("the checkpoint's lengths are damaged")) } else { Ok(found) };
    }
    if &reader.array::<4>()? != TRAILER_MAGIC || reader.u32()? != VERSION {
        return Err(Error::Malformed("bytes after the checkpoint's last entry are no trailer"));
    }
    found.covered.lsn = Lsn(reader.u64()?);
    found.covered.history = History(reader.u64()?);
    reader.u64()?;
    found.tombstones = reader.u64()?;
    found.timestamps_at = Some(reader.offset());
    for _ in 0..keys {
        reader.u64()?;
    }
    for _ in 0..found.tombstones {
        reader.string()?;
        reader.u64()?;
    }
    reader.sum();
    let computed = reader.crc.clone().finalize();
    if reader.u32()? != computed {
        return Err(Error::Malformed("the checkpoint's CRC does not match"));
    }
    found.crc = Some(computed);
    if &reader.array::<8>()? != END || reader.offset() != len {
        return Err(Error::Malformed("the checkpoint has bytes after its CRC"));
    }
    Ok(found)
}

impl<S: Storage> Checkpoint<'_, S> {
    /// How many live keys it holds.
    #[must_use]
    pub fn keys(&self) -> u32 {
        self.keys
    }

    /// The CRC in its trailer; `None` without one.
    #[must_use]
    pub fn crc(&self) -> Option<u32> {
        self.crc
    }

    /// Calls `visit` for every live key, then for every tombstone.
    pub fn for_each(&self, mut visit: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        let mut entries = Reader::new(self.storage, HEADER_LEN);
        let mut stamps = self.timestamps_at.map(|at| Reader::new(self.storage, at));
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for _ in 0..self.keys {
            entries.string_into(&mut key)?;
            entries.string_into(&mut value)?;
            let timestamp = match &mut stamps {
                Some(stamps) => Timestamp(stamps.u64()?),
                None => Timestamp::NONE,
            };
            visit(Entry { key: &key, value: Some(&value), timestamp })?;
        }
        if let Some(mut tombstones) = stamps {
            for _ in 0..self.tombstones {
                tombstones.string_into(&mut key)?;
                let timestamp = Timestamp(tombstones.u64()?);
                visit(Entry { key: &key, value: None, timestamp })?;
            }
        }
        Ok(())
    }

    /// Applies every entry to `store` by the conflict rule.
    pub fn apply(&self, store: &mut impl StateMachine) -> Result<()> {
        let mut batch = Batch::default();
        self.for_each(|entry| {
            clock::observe(entry.timestamp);
            batch.push(&entry);
            if batch.entries.len() < BATCH { Ok(()) } else { batch.apply(store) }
        })?;
        batch.apply(store)
    }
}

/// Loads a checkpoint into `store`; the store is unchanged if the file is damaged.
pub fn load_checkpoint(path: &Path, store: &mut impl StateMachine) -> Result<Covered> {
    let storage = file::open_read(path)?;
    let found = verify(&storage).inspect_err(|error| {
        crate::log_error!("{}: checkpoint refused: {error}", path.display());
    })?;
    found.apply(store)?;
    Ok(found.covered)
}

/// Whether there is a whole checkpoint at `path`.
pub fn is_checkpoint(path: &Path) -> bool {
    file::open_read(path).is_ok_and(|storage| verify(&storage).is_ok())
}

/// How many entries are applied at once: a table looks ahead in them, and takes its lock once.
const BATCH: usize = 64;

/// Entries on their way into a store.
#[derive(Default)]
struct Batch {
    /// Their keys and values, one behind another.
    bytes: Vec<u8>,
    /// Of each: what it does, where its key and its value end, and its time stamp.
    entries: Vec<(Op, usize, usize, Timestamp)>,
}

impl Batch {
    fn push(&mut self, entry: &Entry<'_>) {
        let op = if entry.value.is_some() { Op::Set } else { Op::Del };
        self.bytes.extend_from_slice(entry.key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(entry.value.unwrap_or_default());
        self.entries.push((op, key_end, self.bytes.len(), entry.timestamp));
    }

    /// Applies them, and is empty then.
    fn apply(&mut self, store: &mut impl StateMachine) -> Result<()> {
        let mut start = 0;
        let mut records = Vec::with_capacity(self.entries.len());
        for (op, key_end, end, timestamp) in self.entries.drain(..) {
            let (key, value) = (&self.bytes[start..key_end], &self.bytes[key_end..end]);
            records.push(Record { op, key, value, timestamp });
            start = end;
        }
        store.apply_all(&records)?;
        self.bytes.clear();
        Ok(())
    }
}

/// Reads forward through a window, summing what it passes.
struct Reader<'s, S: Storage> {
    storage: &'s S,
    window: Vec<u8>,
    used: usize,
    /// How far the window is in the CRC: it grows by long stretches, since many short ones take several times as long.
    summed: usize,
    filled: usize,
    /// Offset of the window's first byte.
    start: u64,
    crc: Hasher,
}

impl<'s, S: Storage> Reader<'s, S> {
    fn new(storage: &'s S, offset: u64) -> Reader<'s, S> {
        Reader {
            storage,
            window: vec![0; 256 * 1024],
            used: 0,
            summed: 0,
            filled: 0,
            start: offset,
            crc: Hasher::new(),
        }
    }

    fn offset(&self) -> u64 {
        self.start + self.used as u64
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        if self.filled - self.used < count {
            self.sum();
            self.start += self.used as u64;
            self.filled = self.storage.read_at(&mut self.window, self.start)?;
            (self.used, self.summed) = (0, 0);
            if self.filled < count {
                return Err(Error::Malformed("the checkpoint ends too soon"));
            }
        }
        let bytes = &self.window[self.used..self.used + count];
        self.used += count;
        Ok(bytes)
    }

    /// Brings the CRC up to what was taken.
    fn sum(&mut self) {
        self.crc.update(&self.window[self.summed..self.used]);
        self.summed = self.used;
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<&[u8]> {
        let len = usize::from(u16::from_le_bytes(self.array()?));
        self.take(len)
    }

    fn string_into(&mut self, into: &mut Vec<u8>) -> Result<()> {
        into.clear();
        into.extend_from_slice(self.string()?);
        Ok(())
    }
}
