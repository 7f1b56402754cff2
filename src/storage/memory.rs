//! A log in memory, with faults on order: full disks, short writes, failing fsyncs.
#![forbid(unsafe_code)]

use super::{AppendError, Storage};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

/// Bytes in memory. Fields are public: a test damages `bytes` and sets the faults it wants.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    /// What the file holds.
    pub bytes: Vec<u8>,
    /// The disk's size: an append beyond it writes what fits and fails with ENOSPC.
    pub capacity: Option<usize>,
    /// How many syncs still succeed; then they fail with EIO.
    pub syncs_left: Option<u32>,
    /// Appends fail with EIO before a byte is written.
    pub broken: bool,
    /// Successful syncs so far.
    pub syncs: u32,
    /// How many bytes each hint was about that a sync will come.
    pub hints: Vec<usize>,
    /// The files beside the log, by suffix.
    pub beside: RefCell<BTreeMap<String, Vec<u8>>>,
    /// What the file carries about itself.
    pub note: RefCell<Option<Vec<u8>>>,
}

impl Storage for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let available = &self.bytes[start..];
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        Ok(count)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        if self.broken {
            return Err(AppendError { written: 0, error: io::Error::from_raw_os_error(libc::EIO) });
        }
        let room = self.capacity.map_or(bytes.len(), |capacity| capacity.saturating_sub(self.bytes.len()));
        let count = room.min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..count]);
        if count < bytes.len() {
            return Err(AppendError { written: count as u64, error: io::Error::from_raw_os_error(libc::ENOSPC) });
        }
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.syncs_left == Some(0) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.syncs_left = self.syncs_left.map(|left| left - 1);
        self.syncs += 1;
        Ok(())
    }

    fn start_sync(&mut self, offset: u64) {
        self.hints.push(self.bytes.len() - usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len()));
    }

    fn read_beside(&self, suffix: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        match self.beside.borrow().get(suffix) {
            Some(bytes) if bytes.len() as u64 > limit => Err(io::Error::from_raw_os_error(libc::EBADMSG)),
            found => Ok(found.cloned()),
        }
    }

    fn write_beside(&self, suffix: &str, bytes: &[u8]) -> io::Result<()> {
        self.beside.borrow_mut().insert(suffix.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn note(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.note.borrow().clone())
    }

    fn set_note(&self, note: &[u8]) {
        self.note.replace(Some(note.to_vec()));
    }
}
