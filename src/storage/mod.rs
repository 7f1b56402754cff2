//! Where the bytes of a log lie: five verbs and a hint, so that every fault can be made by a test; small files that
//! stand beside the log under its name and a suffix; and a note that the log's file carries.
//!
//! [`mod@file`] and [`mod@beside`] are the only modules of the crate that open, write, fsync, rename or truncate files;
//! [`memory`] is the twin for tests and the place where faults are injected.

pub mod beside;
pub mod file;
pub mod memory;
mod sys;

use std::io;

/// A log's bytes. All methods but the two that read change it, and after an error the caller asks `len` again.
pub trait Storage {
    /// How many bytes there are.
    fn len(&self) -> io::Result<u64>;
    /// Whether there is none.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads into `buffer` from `offset`; fewer bytes than asked for only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The first byte at or behind `offset` that was ever written, as far as can be told: what lies before it is zero.
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }
    /// Adds `bytes` at the end. On failure the first `written` bytes of them may be there.
    fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError>;
    /// Cuts everything from `len` on.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Returns when everything is durable.
    fn sync(&mut self) -> io::Result<()>;
    /// A hint that a sync will come, and that what stands from `offset` on may go to the disk already. Makes nothing
    /// durable.
    fn start_sync(&mut self, _offset: u64) {}

    /// The file beside the log whose name ends with `suffix`; `None` if there is none. One that has more than `limit`
    /// bytes, or is no regular file, is EBADMSG.
    fn read_beside(&self, _suffix: &str, _limit: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    /// Puts a file beside the log, whole or not at all, but not durably: it must be one that can be lost.
    fn write_beside(&self, _suffix: &str, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
    /// What tells this log from another one under the same name; 0 if nothing does.
    fn inode(&self) -> io::Result<u64> {
        Ok(0)
    }
    /// When the bytes were changed last, in nanoseconds of some clock; 0 if nothing tells.
    fn modified(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// How many bytes there are, for one who is about to append: ESTALE if what is appended would be lost, because the
    /// file has no name any more.
    fn len_to_append(&self) -> io::Result<u64> {
        self.len()
    }
    /// Returns when no write(2) of another process is half done.
    fn settle(&self) {}

    /// The few bytes that the log's file carries about itself, beside its content; `None` if it has none, or can't.
    fn note(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    /// Replaces them, whole or not at all; they become durable with the next sync. They are a help, so that they can't
    /// be written is no failure.
    fn set_note(&self, _note: &[u8]) {}
}

/// An append that failed, perhaps half-way.
#[derive(Debug)]
pub struct AppendError {
    /// Bytes that reached the file before the failure.
    pub written: u64,
    /// Why it failed.
    pub error: io::Error,
}
