//! Receiving into a log that a program's own `wal_append` writes.
#![allow(unsafe_code, reason = "calls a function that the program has brought")]

use super::codec::lend;
use super::functions::linked;
use super::last_error;
use crate::capi::logs::OpenLog;
use crate::capi::wal_writer::wal_writer;
use crate::error::{Error, Result};
use crate::net::receive::FollowerLog;
use crate::types::{History, Lsn};
use crate::wal::codec;
use crate::wal::record::Record;
use libc::{c_char, c_int};

/// A log that is read as every other, and appended to by the program.
pub(in crate::capi) struct ThroughProgram<'a, 'fd> {
    pub(in crate::capi) log: &'a mut OpenLog<'fd>,
    /// A live writer, which nobody else uses meanwhile.
    pub(in crate::capi) writer: *mut wal_writer,
}

/// Appends records through the program's function, one by one.
///
/// # Safety
/// `writer` points to a live writer that no other thread uses.
pub(in crate::capi) unsafe fn append_all(writer: *mut wal_writer, records: &[Record<'_>]) -> Result<c_int> {
    for record in records {
        let one = lend(record)?;
        // SAFETY: a live writer, and a record with borrowed strings that are only read.
        if unsafe { linked!(wal_append)(writer, &raw const one) } < 0 {
            return Err(last_error());
        }
    }
    Ok(0)
}

/// `wal_open(path)` over the program's `wal_open(writer, path)`.
///
/// # Safety
/// `path` is a C string.
pub(in crate::capi) unsafe fn open(path: *const c_char) -> *mut wal_writer {
    // SAFETY: any size is fine.
    let writer: *mut wal_writer = unsafe { libc::calloc(1, size_of::<wal_writer>()) }.cast();
    // SAFETY: fresh memory of the right size, and the caller's promise.
    if !writer.is_null() && unsafe { linked!(wal_open)(writer, path) } < 0 {
        // SAFETY: allocated above; free(3) leaves errno alone.
        unsafe { libc::free(writer.cast()) };
        return std::ptr::null_mut();
    }
    writer
}

impl FollowerLog for ThroughProgram<'_, '_> {
    fn write_ahead(&mut self, _ahead: usize, _encoded: &[u8]) -> Result<()> {
        Err(Error::Internal("nothing is gathered for a program's wal_append"))
    }

    fn append(&mut self, _ahead: usize, encoded: &[u8], ends: &[usize]) -> Result<Lsn> {
        let mut start = 0;
        for end in ends {
            let record = codec::decode(&encoded[start..*end])?;
            // SAFETY: a live writer.
            unsafe { append_all(self.writer, &[record]) }?;
            start = *end;
        }
        self.last()
    }

    fn can_group(&self) -> bool {
        false // Its function takes one record.
    }

    fn last(&mut self) -> Result<Lsn> {
        self.log.last()
    }

    fn past(&mut self, lsn: Lsn) -> Result<Option<(u32, History)>> {
        self.log.past(lsn)
    }

    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>> {
        self.log.read(lsn)
    }

    fn unapplied(&mut self) -> &mut Option<Lsn> {
        self.log.unapplied()
    }

    fn ready(&self) -> u64 {
        self.log.ready()
    }

    fn set_ready(&mut self, count: u64, applied: bool) {
        self.log.set_ready(count, applied);
    }

    fn ready_are_applied(&self) -> bool {
        self.log.ready_are_applied()
    }
}
