//! Checkpoints: the whole store in one file, so that recovery replays only the log's tail.
//!
//! ```text
//! "CKPT" [wal_offset:8] [num_keys:4]
//! num_keys x   [key_len:2][key][value_len:2][value]
//! ```
//! All integers are little-endian. These are the bytes of the lesson (w10-l05) and no others; what is known beyond them
//! stands in a file of its own (`stamps`). A checkpoint without one was written by a lesson's code and loads too,
//! with time stamp 0 everywhere. Reading is two passes in bounded memory: the first checks everything, the second
//! applies, so a damaged file leaves the store as it was.
//!
//! On its way to another node both are one behind the other in one file: packed.
#![forbid(unsafe_code)]

use super::crc::Hasher;
use super::record::{Op, Record};
use super::stamps::{self, Content, Whole};
use super::window::Window;
use crate::clock;
use crate::error::{Error, Result};
use crate::kv::{Entry, StateMachine};
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage, Temporary};
use crate::types::{History, Lsn, Timestamp};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const MAGIC: &[u8; 4] = b"CKPT";
const HEADER_LEN: u64 = 16;

/// What a checkpoint says of the log it was taken from, and what of a log a store has been given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// The log is covered up to this byte.
    pub offset: u64,
    /// LSN of the last record covered; [`Lsn::ZERO`] if it is not known.
    pub lsn: Lsn,
    /// What the log had been through up to there, if the LSN is known.
    pub history: History,
}

impl Covered {
    /// With one more record, whose encoding this is.
    #[must_use]
    pub fn then(self, encoded: &[u8]) -> Covered {
        let head = encoded.first_chunk().copied().unwrap_or_default();
        Covered { offset: self.offset + encoded.len() as u64, lsn: self.lsn.next(), history: self.history.then(head) }
    }

    /// Whether both stand for the same records, wherever these end in their files.
    #[must_use]
    pub fn is_same_past(&self, other: &Covered) -> bool {
        (self.lsn, self.history) == (other.lsn, other.history)
    }
}

/// A writer that computes the length and the CRC of what passes through.
pub(super) struct Summed<W: Write> {
    inner: W,
    crc: Hasher,
    len: u64,
}

impl<W: Write> Summed<W> {
    pub(super) fn new(inner: W) -> Summed<W> {
        Summed { inner, crc: Hasher::new(), len: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        self.len += bytes.len() as u64;
        Ok(self.inner.write_all(bytes)?)
    }

    pub(super) fn put_string(&mut self, bytes: &[u8], what: &'static str) -> Result<()> {
        let len = u16::try_from(bytes.len()).map_err(|_| Error::TooLarge(what))?;
        self.put(&len.to_le_bytes())?;
        self.put(bytes)
    }

    /// Puts the CRC of everything behind it.
    pub(super) fn finish(mut self) -> Result<()> {
        let crc = self.crc.finalize();
        Ok(self.inner.write_all(&crc.to_le_bytes())?)
    }
}

/// Writes the store to `path`: under a temporary name first, fsynced, renamed, directory fsynced. A key or value that
/// does not fit (over 65,535 bytes) is [`Error::TooLarge`], and whatever was at `path` stays.
pub fn write(store: &impl StateMachine, path: &Path, covered: Covered) -> Result<()> {
    let mut temporary = Temporary::create(path, file::model_of(&[path, &log_beside(path)]))?;
    let content = temporary.fill(|out| write_entries(store, out, covered.offset))?;
    // Before the checkpoint has its name: whichever is there after a crash finds what belongs to it.
    let stamps = stamps::write(store, (path, temporary.name()), &content, covered)?;
    if let Err(error) = temporary.rename(path) {
        stamps.iter().for_each(|new| file::discard(new));
        return Err(error.into());
    }
    file::sync_directory_of(path)?;
    stamps::discard_others(path, &content);
    Ok(())
}

/// The log that a checkpoint stands beside, if it has the name that goes with one.
fn log_beside(path: &Path) -> PathBuf {
    let is_ours = path.extension().is_some_and(|extension| extension == "ckpt");
    if is_ours { path.with_extension("") } else { path.to_path_buf() }
}

fn write_entries(store: &impl StateMachine, out: &mut impl Write, offset: u64) -> Result<Content> {
    let mut out = Summed::new(out);
    let keys = u32::try_from(store.live()).map_err(|_| Error::TooLarge("more than 2^32 keys"))?;
    out.put(MAGIC)?;
    out.put(&offset.to_le_bytes())?;
    out.put(&keys.to_le_bytes())?;
    store.for_each(&mut |entry| match entry.value {
        Some(value) => {
            out.put_string(entry.key, "a key over 65,535 bytes")?;
            out.put_string(value, "a value over 65,535 bytes")
        }
        None => Ok(()),
    })?;
    Ok(Content { len: out.len, crc: out.crc.finalize(), offset, keys })
}

/// A checkpoint that was read and found whole; nothing is applied yet.
#[derive(Debug)]
pub struct Checkpoint<S: Storage = FileStorage> {
    /// What it says of its log.
    pub covered: Covered,
    entries: Rc<S>,
    content: Content,
    /// What belongs to it, and from which byte on; `None`: it is a lesson's.
    stamps: Option<(Rc<S>, u64, Whole)>,
}

/// Checks the lesson's part of a checkpoint; what it has behind that is another's affair.
fn scan_entries(storage: &impl Storage) -> Result<Content> {
    let mut reader = Window::new(storage, 0);
    if &reader.array::<4>()? != MAGIC {
        return Err(Error::Malformed("the checkpoint does not begin with CKPT"));
    }
    let offset = reader.u64()?;
    let keys = reader.u32()?;
    for _ in 0..keys {
        reader.string()?;
        reader.string()?;
    }
    Ok(Content { len: reader.offset(), crc: reader.crc(), offset, keys })
}

/// Opens the checkpoint at `path`, with what stands beside it, and checks both from the first to the last byte.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let storage = file::open_read(path)?;
    let content = scan_entries(&storage)?;
    if content.len != storage.len()? {
        return Err(Error::Malformed("the checkpoint has bytes after its last entry"));
    }
    let found = stamps::find(path, &content)?;
    Ok(Checkpoint::new(Rc::new(storage), content, found.map(|(file, whole)| (Rc::new(file), 0, whole))))
}

/// Checks a checkpoint that is packed with what belongs to it. `None`: that is not there.
pub fn open_packed<S: Storage>(storage: S) -> Result<Option<Checkpoint<S>>> {
    let content = scan_entries(&storage)?;
    if content.len == storage.len()? {
        return Ok(None);
    }
    let whole = stamps::verify(&storage, content.len)?;
    if whole.header.content != content {
        return Err(Error::Malformed("the stamps are not the checkpoint's"));
    }
    let storage = Rc::new(storage);
    Ok(Some(Checkpoint::new(Rc::clone(&storage), content, Some((storage, content.len, whole)))))
}

/// Gives the packed checkpoint at `from` the name `to`, as two files. A crash at any moment leaves the packed one, or
/// one that [`open_unpacked`] finds.
pub fn unpack(found: &Checkpoint, from: &Path, to: &Path) -> Result<()> {
    if let Some((storage, at, whole)) = &found.stamps {
        stamps::copy(&**storage, *at, whole, to)?;
        file::cut_own(from, found.content.len)?;
    }
    file::rename(from, to)?;
    stamps::discard_others(to, &found.content);
    Ok(())
}

/// Opens what [`unpack`] is to make of the file `from`, whatever a crash has left of that.
pub fn open_unpacked(from: &Path, to: &Path) -> Result<Checkpoint> {
    let missing = || Error::Malformed("the snapshot lacks its stamps");
    let open = || -> Result<_> { Ok(FileStorage(file::open_own(from)?.ok_or_else(missing)?)) };
    if let Some(found) = open_packed(open()?)? {
        return Ok(found);
    }
    let storage = open()?;
    let content = scan_entries(&storage)?;
    let (file, whole) = stamps::find(to, &content)?.ok_or_else(missing)?;
    Ok(Checkpoint::new(Rc::new(storage), content, Some((Rc::new(file), 0, whole))))
}

impl<S: Storage> Checkpoint<S> {
    fn new(entries: Rc<S>, content: Content, stamps: Option<(Rc<S>, u64, Whole)>) -> Checkpoint<S> {
        let of_a_lesson = Covered { offset: content.offset, ..Covered::default() };
        let covered = stamps.as_ref().map_or(of_a_lesson, |(.., whole)| whole.header.covered);
        Checkpoint { covered, entries, content, stamps }
    }

    /// How many live keys it holds.
    #[must_use]
    pub fn keys(&self) -> u32 {
        self.content.keys
    }

    /// The CRC of what belongs to it, which covers its own; `None`: it is a lesson's.
    #[must_use]
    pub fn crc(&self) -> Option<u32> {
        self.stamps.as_ref().map(|(.., whole)| whole.crc)
    }

    /// Its length when packed.
    #[must_use]
    pub fn packed_len(&self) -> u64 {
        self.content.len + self.stamps.as_ref().map_or(0, |(.., whole)| whole.len)
    }

    /// Reads from its packed form.
    pub fn read_packed_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let room = self.content.len.saturating_sub(offset);
        if room > 0 {
            let count = buffer.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            return Ok(self.entries.read_at(&mut buffer[..count], offset)?);
        }
        let Some((storage, at, _)) = &self.stamps else { return Ok(0) };
        Ok(storage.read_at(buffer, at + offset - self.content.len)?)
    }

    /// Calls `visit` for every live key, then for every tombstone.
    pub fn for_each(&self, mut visit: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        let mut entries = Window::new(&*self.entries, HEADER_LEN);
        let stamps = self.stamps.as_ref();
        let mut stamps = stamps
            .map(|(storage, at, whole)| (Window::new(&**storage, at + stamps::HEADER_LEN), whole.header.tombstones));
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for _ in 0..self.content.keys {
            entries.string_into(&mut key)?;
            entries.string_into(&mut value)?;
            let timestamp = match &mut stamps {
                Some((stamps, _)) => Timestamp(stamps.u64()?),
                None => Timestamp::NONE,
            };
            visit(Entry { key: &key, value: Some(&value), timestamp })?;
        }
        if let Some((mut stamps, tombstones)) = stamps {
            for _ in 0..tombstones {
                stamps.string_into(&mut key)?;
                let timestamp = Timestamp(stamps.u64()?);
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
    let found = open(path).inspect_err(|error| {
        crate::log_error!("{}: checkpoint refused: {error}", path.display());
    })?;
    found.apply(store)?;
    store.note_given(found.covered);
    Ok(found.covered)
}

/// Whether there is a whole checkpoint at `path`.
pub fn is_checkpoint(path: &Path) -> bool {
    open(path).is_ok()
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
