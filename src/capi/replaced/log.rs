//! Receiving into a log that a program's own `wal_append` writes.
#![allow(unsafe_code, reason = "calls a function that the program has brought")]

use super::codec::lend;
use super::functions::{is_theirs, linked};
use super::{File, Own, enter, has, last_error};
use crate::capi::logs::OpenLog;
use crate::capi::wal_writer::{log_of, wal_writer};
use crate::error::{Error, Result};
use crate::net::receive::FollowerLog;
use crate::types::{History, Lsn};
use crate::wal::checkpoint::Covered;
use crate::wal::codec;
use crate::wal::record::Record;
use libc::{c_char, c_int};

/// A log that is read as every other, and appended to by the program.
pub(in crate::capi) struct ThroughProgram<'fd> {
    /// `None` while the program's function runs, which may leave its work to this library, and after a failure.
    log: Option<OpenLog<'fd>>,
    writer: *mut wal_writer,
    /// What is said of a log that was lost: nothing.
    lost: Option<Lsn>,
}

impl<'fd> ThroughProgram<'fd> {
    /// # Safety
    /// `writer` is the live writer of this log, which nobody else uses meanwhile.
    pub(in crate::capi) unsafe fn new(log: OpenLog<'fd>, writer: *mut wal_writer) -> ThroughProgram<'fd> {
        ThroughProgram { log: Some(log), writer, lost: None }
    }

    /// The log, unless it was lost.
    pub(in crate::capi) fn into_log(self) -> Option<OpenLog<'fd>> {
        self.log
    }

    fn log(&mut self) -> Result<&mut OpenLog<'fd>> {
        self.log.as_mut().ok_or(Error::Internal("the program's wal_append has lost its log"))
    }
}

/// Appends records through the program's function, one by one.
///
/// # Safety
/// `writer` points to a live writer that no other thread uses.
pub(in crate::capi) unsafe fn append_all(writer: *mut wal_writer, records: &[Record<'_>]) -> Result<c_int> {
    for record in records {
        let one = lend(record)?;
        // SAFETY: a live writer, and a record with borrowed strings that are only read.
        match enter(Own::Append, || unsafe { linked!(wal_append)(writer, &raw const one) }) {
            Some(0..) => {}
            Some(_) => return Err(last_error()),
            None => return Err(Error::Internal("a wal_append of the program's that calls itself")),
        }
    }
    Ok(0)
}

/// `wal_open(path)` over the program's `wal_open(writer, path)`, if it has one that is to be called now. A writer that
/// the program's `wal_append` is to use is opened so too.
///
/// # Safety
/// `path` is a C string.
pub(in crate::capi) unsafe fn open(path: *const c_char) -> Option<*mut wal_writer> {
    if !is_theirs!(wal_open) && !has(File::WalWriter) {
        return None;
    }
    // SAFETY: the caller's promise.
    enter(Own::Open, || unsafe { open_as_linked(path) })
}

/// # Safety
/// As for [`open`].
unsafe fn open_as_linked(path: *const c_char) -> *mut wal_writer {
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

impl FollowerLog for ThroughProgram<'_> {
    fn write_ahead(&mut self, _ahead: usize, _encoded: &[u8]) -> Result<()> {
        Err(Error::Internal("nothing is gathered for a program's wal_append"))
    }

    fn append(&mut self, _ahead: usize, encoded: &[u8], ends: &[usize]) -> Result<Lsn> {
        let mut start = 0;
        for end in ends {
            let record = codec::decode(&encoded[start..*end])?;
            drop(self.log.take());
            // SAFETY: a live writer.
            let appended = unsafe { append_all(self.writer, &[record]) };
            // SAFETY: as above.
            self.log = Some(unsafe { log_of(self.writer) }?);
            appended?;
            start = *end;
        }
        self.last()
    }

    fn can_group(&self) -> bool {
        false // Its function takes one record.
    }

    fn last(&mut self) -> Result<Lsn> {
        self.log()?.last()
    }

    fn covered(&mut self) -> Result<Covered> {
        self.log()?.covered()
    }

    fn past(&mut self, lsn: Lsn) -> Result<Option<(u32, History)>> {
        self.log()?.past(lsn)
    }

    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>> {
        self.log()?.read(lsn)
    }

    fn unapplied(&mut self) -> &mut Option<Lsn> {
        match &mut self.log {
            Some(log) => log.unapplied(),
            None => &mut self.lost,
        }
    }

    fn ready(&self) -> u64 {
        self.log.as_ref().map_or(0, OpenLog::ready)
    }

    fn set_ready(&mut self, count: u64, applied: bool) {
        if let Some(log) = &mut self.log {
            log.set_ready(count, applied);
        }
    }

    fn ready_are_applied(&self) -> bool {
        self.log.as_ref().is_some_and(OpenLog::ready_are_applied)
    }
}
