//! What is known of each log beside `struct wal_writer`, which holds a descriptor and an offset only.
//!
//! An entry belongs to a descriptor and the inode behind it, so copies of the struct and structs filled by hand find it
//! too. It stays when the log is closed: its path tells which log a leader catches its followers up from. Every use
//! checks the file's size and reads what has been added since (by a forked child, another writer), so nothing here is
//! believed over the file.
#![allow(unsafe_code, reason = "state that begins as zeroed memory")]

use super::ptr::FixedPath;
use super::side::{self, Entry, FromZero, Mapped, Table};
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::net::receive::FollowerLog;
use crate::net::socket;
use crate::storage::Storage;
use crate::storage::file::{self, FileId, FileStorage};
use crate::types::{History, Lsn};
use crate::wal;
use crate::wal::checkpoint::Covered;
use crate::wal::compact::{self, Compacted, Retention};
use crate::wal::origin::Origin;
use crate::wal::scan::{End, Position};
use crate::wal::snapshot::{Incoming, Snapshot};
use crate::wal::tail::{Failure, LogTail};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Closed logs remembered before the oldest go.
const MANY: usize = 64;

/// What identifies a log's entry.
#[derive(Default)]
pub(super) struct LogKey {
    /// The writer's descriptor; `None` once closed.
    pub(super) fd: Option<RawFd>,
    pub(super) id: FileId,
    /// The process that opened it.
    pub(super) pid: u32,
    /// It was opened with `wal_open`, so a leader may have it.
    pub(super) opened: bool,
    /// Records were received into it: it is a follower's.
    pub(super) received: bool,
    /// Address of the writer that `wal_open_path` allocated; 0 for none.
    writer: usize,
    pub(super) path: FixedPath,
}

impl LogKey {
    fn has_path(&self, path: &Path) -> bool {
        self.path.get() == Some(path)
    }
}

// SAFETY: integers and arrays of them.
unsafe impl FromZero for LogTail {
    fn begin(&mut self) {
        self.reset();
    }
}

/// What is kept.
pub(super) struct LogState {
    pub(super) tail: LogTail,
    latched: bool,
    /// The first record that was received and could not be applied to the store.
    pub(super) unapplied: Option<Lsn>,
    /// The last record that this program did not append by itself: it was there, or was received.
    pub(super) foreign: Lsn,
}

// SAFETY: integers, a bool and an option of one; each has a value that is all zero.
unsafe impl FromZero for LogState {
    fn begin(&mut self) {
        self.tail.begin();
        (self.latched, self.unapplied, self.foreign) = (false, None, Lsn::ZERO);
    }
}

pub(super) static LOGS: Table<LogKey, LogState> = Table::new(MANY);

type LogEntry = Entry<'static, LogKey, LogState>;

/// Opens or creates a log as `wal_open` promises; returns the descriptor and the log's length.
pub(super) fn open(path: &Path) -> Result<(File, u64)> {
    let file = file::open_append(path)?;
    let reader = file::reopen_for_reading(&file)?;
    let mut storage = FileStorage(&file);
    let id = storage.id()?;
    let absolute = wal::absolute(path);
    let (fd, pid) = (file.as_raw_fd(), side::process_id());
    forget_descriptor(fd);
    // A log that was opened and closed again and again is one log.
    let mut entry =
        LOGS.find_or_add(|key| key.fd.is_none() && key.has_path(&absolute), |_| (), |key| key.fd.is_none())?;
    let is_known = entry.key(|key| key.id == id);
    let state = entry.value();
    let (before, own_from) = (state.tail.covered(), state.foreign);
    state.begin();
    wal::repair::repair(path, &reader, &mut storage, &mut state.tail)?;
    // What this program appended and then closed the log is its own still.
    let is_same = is_known && state.tail.covered().is_same_past(&before);
    state.foreign = if is_same { own_from } else { state.tail.last() };
    let len = state.tail.len();
    entry.key(|key| -> Result<()> {
        let received = key.received && key.id == id && len > 0;
        (key.fd, key.id, key.pid, key.opened, key.received) = (Some(fd), id, pid, true, received);
        key.path.set(&absolute)
    })?;
    Ok((file, len))
}

/// Records at the end of the log behind each descriptor that no receive has returned yet: twice their number, and one
/// more if they are not in the store yet. They stand apart from the
/// entries because a million of them are handed out one call each, and a look-up asks the kernel about the descriptor.
static READY: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

fn ready_slot(fd: RawFd) -> Option<&'static AtomicU64> {
    usize::try_from(fd).ok().and_then(|fd| READY.get(fd))
}

/// Takes one record that was stored, applied and acknowledged together with an earlier one. `false`: there is none.
pub(super) fn take_ready(fd: RawFd) -> bool {
    let one_less = |word: u64| if word & 1 == 0 { word.checked_sub(2) } else { None };
    let slot = ready_slot(fd);
    slot.is_some_and(|slot| slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok())
}

/// How many records at the end of the log behind a descriptor are in no store yet.
pub(super) fn waiting(fd: RawFd) -> u64 {
    let word = ready_slot(fd).map_or(0, |slot| slot.load(Ordering::Relaxed));
    if word & 1 == 1 { word >> 1 } else { 0 }
}

/// The descriptor is closed, or about to be.
pub(super) fn forget_descriptor(fd: RawFd) {
    if let Some(slot) = ready_slot(fd) {
        slot.store(0, Ordering::Relaxed);
    }
    LOGS.for_each_key(|key| {
        if key.fd == Some(fd) {
            (key.fd, key.writer) = (None, 0);
        }
    });
}

/// Notes that the writer at `address` was allocated by `wal_open_path`.
pub(super) fn adopt_writer(fd: RawFd, address: usize) {
    LOGS.for_each_key(|key| {
        if key.fd == Some(fd) {
            key.writer = address;
        }
    });
}

/// Whether the writer at `address` was allocated by `wal_open_path`.
pub(super) fn is_adopted(fd: RawFd, address: usize) -> bool {
    let mut adopted = false;
    LOGS.for_each_key(|key| adopted |= key.fd == Some(fd) && key.writer == address);
    adopted
}

/// Makes what stands in the log durable before its descriptor is closed. After a failed fsync there is nothing left to
/// try: a second one would report success about bytes that are not there.
pub(super) fn sync_at_close(fd: RawFd) -> Result<()> {
    // SAFETY: the descriptor is a live writer's.
    let mut log = OpenLog::of(unsafe { super::wal_writer::borrow(fd) }?)?;
    let LogState { tail, latched, .. } = log.entry.value();
    if *latched {
        return Ok(());
    }
    log.storage.sync()?;
    if tail.durable() < tail.len() && tail.len() <= log.storage.len()? {
        tail.now_durable(&log.storage);
    }
    Ok(())
}

/// A log that a C program writes to: its descriptor, and what is known beside it.
pub(super) struct OpenLog<'fd> {
    storage: FileStorage<BorrowedFd<'fd>>,
    entry: LogEntry,
    /// The program's writer has written nothing yet, so the log may have been emptied for it.
    pub(super) is_new: bool,
}

/// Looks at a log that others write to before it is called busy.
const LOOKS: u32 = 1000;

impl<'fd> OpenLog<'fd> {
    /// The log behind a writer's descriptor.
    pub(super) fn of(fd: BorrowedFd<'fd>) -> Result<OpenLog<'fd>> {
        let storage = FileStorage(fd);
        let id = storage.id()?;
        let number = fd.as_raw_fd();
        let is_it = |key: &LogKey| key.fd == Some(number) && key.id == id;
        if let Some(entry) = LOGS.find(is_it)? {
            return Ok(OpenLog { storage, entry, is_new: false });
        }
        // A struct filled by hand, or a descriptor that now leads to another file.
        forget_descriptor(number);
        let path = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
        let fill = |key: &mut LogKey| {
            (key.fd, key.id, key.pid) = (Some(number), id, side::process_id());
            // A path that is too long only means that this log can't be found by it.
            let _ = key.path.set(&path);
        };
        let entry = LOGS.find_or_add(is_it, fill, |key| key.fd.is_none())?;
        Ok(OpenLog { storage, entry, is_new: false })
    }

    /// Brings the state up to date with the file, to which other processes may be writing.
    fn refresh(&mut self) -> Result<&mut LogTail> {
        let len = self.storage.len()?;
        if len < self.entry.value().tail.len() && !(len == 0 && self.is_new) {
            let (known, after) = (self.entry.value().tail.len(), self.entry.value().tail.last());
            crate::log_error!("{}: cut from {known} bytes to {len} by somebody else: reopen it", self.name());
            return Err(Error::Damaged { offset: len, after });
        }
        if len != self.entry.value().tail.len() {
            self.read_on()?;
            let state = self.entry.value();
            state.foreign = state.tail.last();
        }
        Ok(&mut self.entry.value().tail)
    }

    /// Reads what others have added, and again as long as one of them is in the middle of a write.
    fn read_on(&mut self) -> Result<()> {
        let reader = file::reopen_for_reading(self.storage.0)?;
        let mut before = None;
        for _ in 0..LOOKS {
            let end = self.entry.value().tail.refresh(&reader)?;
            let len = reader.len()?;
            if !end.damaged {
                return Ok(());
            }
            if before == Some(len) {
                let offset = end.next.offset;
                crate::log_error!("{}: ends with a damaged record at offset {offset}: reopen it", self.name());
                return Err(Error::Damaged { offset, after: end.last() });
            }
            before = Some(len);
            reader.settle();
        }
        Err(Error::Io(std::io::Error::from_raw_os_error(libc::EBUSY)))
    }

    /// The log's name for a message.
    fn name(&mut self) -> String {
        let path = self.entry.key(|key| key.path.get().map(|path| path.display().to_string()));
        path.unwrap_or_else(|| String::from("a log without a path"))
    }

    fn ready_word(&self) -> u64 {
        ready_slot(self.storage.0.as_raw_fd()).map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    /// Forgets which records at the end no receive has returned, before the program appends some of its own: they stay,
    /// and those that are not in the store yet are applied by the next receive.
    pub(super) fn return_no_more(&mut self) -> Result<()> {
        let ready = self.ready();
        if ready > 0 && !self.ready_are_applied() {
            let first = Lsn(self.end()?.0.0.saturating_sub(ready)).next();
            self.unapplied().get_or_insert(first);
        }
        self.set_ready(0, true);
        Ok(())
    }

    fn begin_append(&mut self, ahead: usize) -> Result<()> {
        if self.entry.value().latched {
            return Err(Error::Latched);
        }
        // What was written ahead is no part of the log yet.
        if ahead == 0 { self.refresh().map(drop) } else { Ok(()) }
    }

    /// Appends encoded records; see [`LogTail::append`]. Returns the last LSN and the log's length.
    pub(super) fn append(&mut self, ahead: usize, encoded: &[u8], ends: &[usize]) -> Result<(Lsn, u64)> {
        let mut failed = None;
        for _ in 0..LOOKS {
            self.begin_append(ahead)?;
            let state = self.entry.value();
            let (len, next) = (state.tail.len(), state.tail.next());
            match state.tail.append(&mut self.storage, ahead, encoded, ends) {
                Ok(lsn) => return Ok((lsn, state.tail.len())),
                Err(Failure::Mixed) => return self.find_appended(next, encoded, ends.len()),
                // Somebody else's record came first.
                Err(Failure::Write(error @ Error::Damaged { .. })) if ahead == 0 => failed = Some(error),
                Err(Failure::Write(error)) => {
                    crate::log_error!("{}: append at offset {len}: {error}; rolled back", self.name());
                    return Err(error);
                }
                Err(Failure::Sync(error)) => {
                    state.latched = true;
                    crate::log_error!(
                        "{}: fsync at offset {len}: {error}; the log takes nothing until reopened",
                        self.name()
                    );
                    return Err(error);
                }
            }
        }
        Err(failed.unwrap_or(Error::Internal("a log that is always written to")))
    }

    /// Finds `count` records that were appended, and are durable, among those that others have appended at the same
    /// time, from record `from` on. Returns the LSN of the last, and the log's length.
    fn find_appended(&mut self, from: Position, encoded: &[u8], count: usize) -> Result<(Lsn, u64)> {
        self.read_on()?;
        let tail = &self.entry.value().tail;
        let reader = file::reopen_for_reading(self.storage.0)?;
        let first = wal::find_encoded(&reader, from, tail.len(), encoded)?;
        let missing = Error::Damaged { offset: from.offset, after: from.lsn };
        first.map(|first| (first.plus(count as u64 - 1), tail.len())).ok_or(missing)
    }

    /// The last LSN and the log's length.
    pub(super) fn end(&mut self) -> Result<(Lsn, u64)> {
        let tail = self.refresh()?;
        Ok((tail.last(), tail.len()))
    }

    fn path(&mut self) -> Result<PathBuf> {
        let path = self.entry.key(|key| key.path.get().map(Path::to_path_buf));
        path.map(|path| file::real(&path)).ok_or(Error::Invalid("a log without a path"))
    }

    /// Puts another file, which the state is about now, under this writer's descriptor, and those of other writers.
    fn switch_to(&mut self, file: File) -> Result<()> {
        let old = self.entry.key(|key| key.id);
        // Of the old file nothing is taken any more, whatever fails from here on.
        let new = FileStorage(&file).id().inspect_err(|_| self.entry.value().latched = true)?;
        let file = OwnedFd::from(file);
        self.entry.value().latched = false;
        self.entry.key(|key| key.id = new);
        let known = copy_of(&self.entry.value().tail, Lsn::ZERO);
        let others = tell_others(old, new, &known, |_, state| state.latched = false);
        replace_all(&file, others.into_iter().chain([self.storage.0.as_raw_fd()]))
    }

    /// Marks the log as a follower's: no leader catches anyone up from it.
    pub(super) fn mark_received(&mut self) {
        self.entry.key(|key| key.received = true);
    }
}

impl FollowerLog for OpenLog<'_> {
    fn last(&mut self) -> Result<Lsn> {
        Ok(self.end()?.0)
    }

    fn covered(&mut self) -> Result<Covered> {
        Ok(self.refresh()?.covered())
    }

    fn past(&mut self, lsn: Lsn) -> Result<Option<(u32, History)>> {
        self.refresh()?;
        let reader = file::reopen_for_reading(self.storage.0)?;
        wal::read_past(&reader, &self.entry.value().tail, lsn)
    }

    fn receive_snapshot(&mut self, snapshot: &Snapshot) -> Result<Incoming> {
        Incoming::begin(&self.path()?, snapshot)
    }

    fn install(
        &mut self,
        incoming: Incoming,
        origin: Origin,
        record: &[u8],
        store: &mut impl StateMachine,
    ) -> Result<()> {
        let path = self.path()?;
        self.refresh()?;
        let reader = file::reopen_for_reading(self.storage.0)?;
        let id = reader.id()?;
        let LogState { tail, latched, .. } = self.entry.value();
        let file = incoming.install(&path, &reader, tail, origin, record, store).inspect_err(|_| {
            *latched |= !file::is_named(&path, id);
        })?;
        self.set_ready(0, true);
        *self.unapplied() = None;
        self.entry.value().foreign = self.entry.value().tail.last();
        self.switch_to(file)
    }

    fn write_ahead(&mut self, ahead: usize, encoded: &[u8]) -> Result<()> {
        self.begin_append(ahead)?;
        self.entry.value().tail.write_ahead(&mut self.storage, ahead, encoded)
    }

    fn append(&mut self, ahead: usize, encoded: &[u8], ends: &[usize]) -> Result<Lsn> {
        let lsn = OpenLog::append(self, ahead, encoded, ends)?.0;
        self.entry.value().foreign = lsn;
        Ok(lsn)
    }

    fn ready(&self) -> u64 {
        self.ready_word() >> 1
    }

    fn set_ready(&mut self, count: u64, applied: bool) {
        if let Some(slot) = ready_slot(self.storage.0.as_raw_fd()) {
            slot.store(if count == 0 { 0 } else { count << 1 | u64::from(!applied) }, Ordering::Relaxed);
        }
    }

    fn ready_are_applied(&self) -> bool {
        self.ready_word() & 1 == 0
    }

    fn can_group(&self) -> bool {
        ready_slot(self.storage.0.as_raw_fd()).is_some()
    }

    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>> {
        let reader = file::reopen_for_reading(self.storage.0)?;
        let near = self.refresh()?.near(&reader, lsn)?;
        wal::read_record(&reader, near, lsn)
    }

    fn unapplied(&mut self) -> &mut Option<Lsn> {
        &mut self.entry.value().unapplied
    }
}

/// A copy made in place: it is too large for a thread's stack. It knows the places of `from` and the records behind it.
pub(super) fn copy_of(tail: &LogTail, from: Lsn) -> Mapped<LogTail> {
    let mut copy = Mapped::<LogTail>::new();
    copy.copy_from(tail, from);
    copy
}

/// Opens a log that is named by its path, and brings what is known of it up to date.
fn open_by_path(path: &Path) -> Result<(FileStorage<File>, FileId, LogEntry, End)> {
    let storage = file::open_read(path)?;
    let id = storage.id()?;
    let fill = |key: &mut LogKey| {
        (key.id, key.pid) = (id, side::process_id());
        let _ = key.path.set(&wal::absolute(path));
    };
    let mut entry = LOGS.find_or_add(|key| key.id == id, fill, |key| key.fd.is_none())?;
    let fd = entry.key(|key| key.fd);
    let (len, known) = (storage.len()?, entry.value().tail.len());
    if len < known && fd.is_some_and(|fd| is_file(fd, id)) {
        // What its writer knows stays, so that it notices too.
        return Err(Error::Damaged { offset: len, after: entry.value().tail.last() });
    }
    let end = entry.value().tail.refresh(&storage)?;
    Ok((storage, id, entry, end))
}

/// Drops the records of the log at `path` that a checkpoint covers; see [`compact::plan`]. Writers of this process that
/// have it open go on in the new file.
pub(super) fn compact(path: &Path, checkpoint: &Path, keep: &Retention, slowest: Option<Lsn>) -> Result<Compacted> {
    let path = &file::real(path);
    let (storage, id, mut entry, end) = open_by_path(path)?;
    if end.damaged {
        return Err(Error::Damaged { offset: end.next.offset, after: end.last() });
    }
    let LogState { tail, latched, .. } = entry.value();
    let plan = compact::plan(checkpoint, &storage, tail, keep, slowest)?;
    if plan.records == 0 {
        return Ok(plan);
    }
    let file = compact::drop_front(path, &storage, tail, plan.base).inspect_err(|_| {
        // What the descriptor leads to is not the log any more, and must take nothing.
        *latched |= !file::is_named(path, id);
    })?;
    let file = OwnedFd::from(file);
    // Of the old file nothing is taken any more, whatever fails from here on.
    let new = FileStorage(&file).id().inspect_err(|_| *latched = true)?;
    let known = copy_of(tail, Lsn::ZERO);
    let own = entry.key(|key| {
        key.id = new;
        key.fd.filter(|fd| is_file(*fd, id))
    });
    drop(entry);
    let others = tell_others(id, new, &known, |_, state| state.latched = false);
    replace_all(&file, others.into_iter().chain(own))?;
    Ok(plan)
}

/// Makes descriptors lead to `file`, all that can be made to: another one leads to a file without a name, which takes
/// nothing.
fn replace_all(file: &OwnedFd, fds: impl Iterator<Item = RawFd>) -> Result<()> {
    let mut all = Ok(());
    for fd in fds {
        all = all.and(socket::replace_fd(file, fd));
    }
    all
}

/// Whether a descriptor leads to this file. The program may have closed it by itself, and opened something else.
pub(super) fn is_file(fd: RawFd, id: FileId) -> bool {
    // SAFETY: asked for its identity only; a closed one gives EBADF.
    let borrowed = unsafe { super::wal_writer::borrow(fd) };
    borrowed.is_ok_and(|fd| FileStorage(fd).id().is_ok_and(|found| found == id))
}

/// The log that was the file `old` is `new` now, or the same and shorter: `known` says what there is to know. Makes the
/// other writers of this process know it too, with a `change` to what is kept of each, and returns their descriptors.
/// The caller's entry is about `new` already.
fn tell_others(old: FileId, new: FileId, known: &LogTail, change: impl Fn(RawFd, &mut LogState)) -> Vec<RawFd> {
    let mut fds = Vec::new();
    LOGS.for_each_key(|key| {
        if key.id == old && key.fd.is_some_and(|fd| is_file(fd, old)) {
            key.id = new;
            fds.extend(key.fd);
        } else if key.id == old && old != new {
            (key.fd, key.id) = (None, FileId::default()); // Closed, or something else by now.
        }
    });
    for fd in &fds {
        // One that is busy is the caller's own.
        if let Ok(Some(mut entry)) = LOGS.find(|key| key.fd == Some(*fd) && key.id == new) {
            entry.value().tail.copy_from(known, Lsn::ZERO);
            change(*fd, entry.value());
        }
    }
    fds
}

/// Drops every record after `lsn`; see [`compact::truncate_to`]. No receive returns any more what was stored together
/// with others before.
pub(super) fn truncate_to(path: &Path, lsn: Lsn) -> Result<Option<PathBuf>> {
    let path = &file::real(path);
    let (storage, id, mut entry, _) = open_by_path(path)?;
    let mut writer = FileStorage(file::open_append(path)?);
    let kept = compact::truncate_to(path, &storage, &mut writer, &mut entry.value().tail, lsn)?;
    let known = copy_of(&entry.value().tail, Lsn::ZERO);
    drop(entry);
    tell_others(id, id, &known, |fd, state| {
        if let Some(slot) = ready_slot(fd) {
            slot.store(0, Ordering::Relaxed);
        }
        state.unapplied.take_if(|first| *first > lsn);
    });
    Ok(kept)
}
