//! A checkpoint that comes from another node: taken in beside the log, then put in the place of what the log has lost.
//!
//! The bytes that have come stay in `<wal>.snapshot-<lsn>-<crc>` until the log is replaced, so a transfer goes on where
//! it broke off. Nothing that was there before changes until the whole file is checked and durable; then the log is
//! replaced, and then the file becomes `<wal>.ckpt`.
#![forbid(unsafe_code)]

use super::checkpoint::{self, Checkpoint};
use super::compact;
use super::origin::Origin;
use super::tail::{self, LogTail};
use super::{CHECKPOINT_SUFFIX, codec};
use crate::error::{Error, Result};
use crate::kv::{Entry, StateMachine};
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage};
use crate::types::{History, Lsn};
use std::collections::HashSet;
use std::fs::File;
use std::hash::BuildHasher;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// How the name goes on behind the log's while it comes in.
const SUFFIX: &str = ".snapshot-";

/// Whether `behind` is exactly how such a name goes on: LSN and CRC, as [`Incoming::begin`] writes them.
#[must_use]
pub fn is_name(behind: &str) -> bool {
    let numbers = behind.strip_prefix(SUFFIX).and_then(|rest| rest.split_once('-'));
    let parsed = numbers.and_then(|(lsn, crc)| lsn.parse::<u64>().ok().zip(u32::from_str_radix(crc, 16).ok()));
    parsed.is_some_and(|(lsn, crc)| behind == format!("{SUFFIX}{lsn}-{crc:08x}"))
}

/// After so many bytes more the disk is told to begin with them.
const WRITE_BACK: u64 = tail::WRITE_BACK as u64;

/// A checkpoint as its sender describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// LSN of the last record that it covers.
    pub lsn: Lsn,
    /// The history of the log up to there.
    pub history: History,
    /// Bytes of the file.
    pub size: u64,
    /// The CRC in its trailer.
    pub crc: u32,
}

impl Snapshot {
    /// Describes a checkpoint. [`Error::Malformed`]: it does not say which records it covers.
    pub fn of<S: Storage>(found: &Checkpoint<S>) -> Result<Snapshot> {
        let (Some(crc), true) = (found.crc(), found.covered.lsn > Lsn::ZERO) else {
            return Err(Error::Malformed("the checkpoint does not say which records it covers"));
        };
        Ok(Snapshot { lsn: found.covered.lsn, history: found.covered.history, size: found.packed_len(), crc })
    }
}

/// A snapshot on its way in.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
    file: File,
    have: u64,
    snapshot: Snapshot,
}

impl Incoming {
    /// Begins, or goes on where an earlier connection broke off. What is there of other snapshots is removed.
    pub fn begin(wal_path: &Path, snapshot: &Snapshot) -> Result<Incoming> {
        let Snapshot { lsn, crc, size, .. } = snapshot;
        if *lsn == Lsn::ZERO || lsn.0 == u64::MAX {
            return Err(Error::Protocol("a snapshot of an LSN that no log has"));
        }
        let path = file::beside(wal_path, &format!("{SUFFIX}{lsn}-{crc:08x}"));
        for other in file::all_beside(wal_path, is_name)? {
            if other != path {
                file::discard(&other);
            }
        }
        let file = file::open_own_append(&path, file::model_of(&[wal_path]))?;
        let mut have = file.metadata()?.len();
        if have > *size {
            file.set_len(0)?;
            have = 0;
        }
        Ok(Incoming { path, file, have, snapshot: *snapshot })
    }

    /// Which snapshot it is.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How many of its bytes are there.
    #[must_use]
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Takes the next bytes.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset != self.have || self.have + bytes.len() as u64 > self.snapshot.size {
            return Err(Error::Protocol("a part of a snapshot out of its place"));
        }
        if let Err(error) = file::write_all(&mut self.file, bytes) {
            self.file.set_len(self.have)?;
            return Err(error.into());
        }
        let before = self.have / WRITE_BACK * WRITE_BACK;
        self.have += bytes.len() as u64;
        if self.have / WRITE_BACK * WRITE_BACK > before {
            // The disk is at work while the rest comes and is checked; what makes it durable is the fsync.
            FileStorage(&self.file).start_sync(before);
        }
        Ok(())
    }

    /// Checks the whole file, makes it durable, and makes `store` what it says. A file that is not what was announced
    /// is removed.
    fn restore(&mut self, store: &mut impl StateMachine) -> Result<Checkpoint> {
        let checked = checkpoint::open_packed(file::open_read(&self.path)?).and_then(|found| match found {
            Some(found) if Snapshot::of(&found)? == self.snapshot => Ok(found),
            _ => Err(Error::Malformed("the snapshot is not what was announced")),
        });
        if checked.is_err() {
            file::discard(&self.path);
        }
        let found = checked?;
        self.file.sync_all()?;
        make_equal(store, &found)?;
        Ok(found)
    }

    /// Makes `store` what the snapshot says, and the log at `wal_path`, which `tail` knows, one that begins with
    /// `record`, the last that it covers. Returns the log, open for appending. On failure the log is what it was.
    pub fn install<F: AsFd>(
        mut self,
        wal_path: &Path,
        storage: &FileStorage<F>,
        tail: &mut LogTail,
        origin: Origin,
        encoded: &[u8],
        store: &mut impl StateMachine,
    ) -> Result<File> {
        codec::decode(encoded)?;
        let head = encoded.first_chunk::<8>().copied().unwrap_or_default();
        if origin.base.next() != self.snapshot.lsn || origin.history.then(head) != self.snapshot.history {
            return Err(Error::Protocol("a snapshot's last record is not its own"));
        }
        let found = self.restore(store)?;
        let log = compact::replace(wal_path, storage, tail, origin, |new| Ok(file::write_all(new, encoded)?))?;
        store.note_given(tail.covered());
        // Behind the log: until then the old log may need the checkpoint that has this name. Recovery finds the
        // snapshot under its own name too, so that it could not be renamed is no failure.
        if let Err(error) = checkpoint::unpack(&found, &self.path, &file::beside(wal_path, CHECKPOINT_SUFFIX)) {
            crate::log_warn!("{}: keeps its name: {error}", self.path.display());
        }
        Ok(log)
    }
}

/// Makes a store what a checkpoint says, and leaves alone what is equal already: a program may hold pointers to it.
fn make_equal<S: Storage>(store: &mut impl StateMachine, found: &Checkpoint<S>) -> Result<()> {
    let hasher = rapidhash::quality::RandomState::default();
    let hash = |entry: &Entry<'_>| hasher.hash_one((entry.key, entry.value, entry.timestamp.0));
    let mut others = Vec::new();
    let mut is_empty = true;
    store.for_each(&mut |_| {
        is_empty = false;
        Ok(())
    })?;
    if !is_empty {
        let mut wanted = HashSet::new();
        found.for_each(|entry| {
            wanted.insert(hash(&entry));
            Ok(())
        })?;
        store.for_each(&mut |entry| {
            if !wanted.contains(&hash(&entry)) {
                others.push(entry.key.to_vec());
            }
            Ok(())
        })?;
    }
    for key in others {
        store.forget(&key)?;
    }
    found.apply(store)
}
