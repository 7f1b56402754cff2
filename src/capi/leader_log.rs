//! Which log is the leader's, and reading it: the one that a program names, or the one that it opened.
#![forbid(unsafe_code)]

use super::logs::{LOGS, LogKey, copy_of};
use super::side::{self, Mapped};
use crate::error::{Error, Result};
use crate::net::catch_up::{self, Piece, Source};
use crate::net::group::LeaderLog;
use crate::net::link::STEP;
use crate::storage::file::{self, FileId, FileStorage};
use crate::types::{History, Lsn};
use crate::wal;
use crate::wal::scan::{self, End, Position};
use crate::wal::tail::LogTail;
use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which log a leader has.
enum Found {
    /// This one; `open` if this process has it open for writing.
    Log { path: PathBuf, open: bool },
    /// Several might be it.
    Ambiguous(Vec<PathBuf>),
    /// None was opened: `leader.wal` in the current directory, if there is one.
    Default,
}

struct Candidate {
    own: bool,
    open: bool,
    path: PathBuf,
}

/// Finds the log that this process opened with `wal_open` and never received into; one inherited through fork comes
/// after. COMPAT: of several the only one that is there, or the only one that is open, is taken; the contract has
/// EINVAL, and a harness that opens and closes one log after another would never get further.
fn find_leader_log() -> Found {
    let me = side::process_id();
    let mut candidates: Vec<Candidate> = Vec::new();
    LOGS.for_each_key(|key| {
        let Some(path) = key.path.get().filter(|_| key.opened && !key.received) else { return };
        let (own, open) = (key.pid == me, key.fd.is_some());
        match candidates.iter_mut().find(|known| known.path == path) {
            Some(known) => {
                known.own |= own;
                known.open |= open;
            }
            None => candidates.push(Candidate { own, open, path: path.to_path_buf() }),
        }
    });
    for own in [true, false] {
        let mut left: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.own == own).collect();
        if left.len() > 1 {
            narrow_down(&mut left);
        }
        match left.as_slice() {
            [] => {}
            [only] => return Found::Log { path: only.path.clone(), open: only.open },
            several => return Found::Ambiguous(several.iter().map(|candidate| candidate.path.clone()).collect()),
        }
    }
    Found::Default
}

/// Keeps those that are there, of them those that are open, and of the names of one file one.
fn narrow_down(left: &mut Vec<&Candidate>) {
    narrow(left, |candidate| candidate.path.exists());
    narrow(left, |candidate| candidate.open);
    let mut files = Vec::new();
    left.retain(|candidate| {
        let id = std::fs::metadata(&candidate.path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        let is_new = id.is_none() || !files.contains(&id);
        files.push(id);
        is_new
    });
}

/// Keeps those that have `quality`, if any has it.
fn narrow(left: &mut Vec<&Candidate>, quality: impl Fn(&Candidate) -> bool) {
    if left.iter().any(|candidate| quality(candidate)) {
        left.retain(|candidate| quality(candidate));
    }
}

/// A leader's log as a C program names it: by `repl_set_wal`, or not at all. For the time of one call.
pub(super) struct LeaderLogByPath {
    set: Option<PathBuf>,
    found: OnceCell<Found>,
    last: Option<Option<Lsn>>,
    opened: Option<ReadableLog>,
}

/// A leader's log, opened for reading, with a copy of what is known of it: another thread may append meanwhile.
pub(super) struct ReadableLog {
    storage: FileStorage<File>,
    tail: Mapped<LogTail>,
    /// Records before this one would be looked for from the beginning of the log.
    from: Lsn,
    end: End,
    pub(super) path: PathBuf,
}

impl LeaderLogByPath {
    pub(super) fn new(set: Option<&Path>) -> LeaderLogByPath {
        LeaderLogByPath { set: set.map(Path::to_path_buf), found: OnceCell::new(), last: None, opened: None }
    }

    fn found(&self) -> &Found {
        self.found.get_or_init(find_leader_log)
    }

    fn path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.set {
            return Ok(path.clone());
        }
        match self.found() {
            Found::Log { path, .. } => Ok(path.clone()),
            Found::Default => Ok(wal::absolute(Path::new("leader.wal"))),
            Found::Ambiguous(paths) => {
                crate::log_error!("which log is the leader's? {paths:?}: call repl_set_wal");
                Err(Error::Invalid("several logs might be the leader's: call repl_set_wal"))
            }
        }
    }

    /// The log, opened once a call as far as it goes: for an earlier record than before it is opened anew.
    fn opened(&mut self, from: Lsn) -> Result<&ReadableLog> {
        if self.opened.as_ref().is_none_or(|log| from < log.from) {
            let log = self.open(from)?;
            // It may have grown, and what is sent of it may be acknowledged.
            self.last = self.last.map(|_| Some(log.last()));
            self.opened = Some(log);
        }
        self.opened.as_ref().ok_or(Error::Internal("a log that is not open"))
    }

    /// Records and bytes after `acked`.
    pub(super) fn lag(&self, acked: Lsn) -> Result<(u64, u64)> {
        let log = self.open(acked)?;
        let records = log.last().since(acked);
        if records == 0 {
            return Ok((0, 0));
        }
        let from = scan::walk(&log.storage, log.tail.near(&log.storage, acked.next())?, |at| at.lsn > acked)?;
        Ok((records, log.tail.len().saturating_sub(from.map_or(0, |at| at.offset))))
    }

    /// Opens the log for reading and brings what is known of it up to date. Records from `from` on can be found.
    pub(super) fn open(&self, from: Lsn) -> Result<ReadableLog> {
        let path = self.path()?;
        let storage = file::open_read(&path)?;
        let id = storage.id()?;
        let by_id = |key: &LogKey| key.id == id;
        let fill = |key: &mut LogKey| {
            (key.id, key.pid) = (id, side::process_id());
            let _ = key.path.set(&path);
        };
        let mut entry = LOGS.find_or_add(by_id, fill, |key| key.fd.is_none())?;
        let end = entry.value().tail.refresh(&storage)?;
        let tail = copy_of(&entry.value().tail, from);
        Ok(ReadableLog { storage, tail, from, end, path })
    }

    /// Asks what is known of the log, without opening it; `None` if that is not up to date.
    fn if_up_to_date<T>(&self, ask: impl FnOnce(&mut LogTail) -> T) -> Result<Option<T>> {
        let metadata = std::fs::metadata(self.path()?)?;
        let id = FileId { dev: metadata.dev(), ino: metadata.ino() };
        let Some(mut entry) = LOGS.find(|key| key.id == id)? else { return Ok(None) };
        let tail = &mut entry.value().tail;
        Ok((tail.len() == metadata.len()).then(|| ask(tail)))
    }

    fn find_last(&self) -> Result<Lsn> {
        match self.if_up_to_date(|tail| tail.last())? {
            Some(last) => Ok(last),
            None => Ok(self.open(Lsn(u64::MAX))?.last()),
        }
    }

    /// Whether the log is surely this leader's: `repl_set_wal` names it, or this process has it open. A program may
    /// ship records without any log, and a log left over from something else must not be believed about them.
    fn is_ours(&self) -> bool {
        self.set.is_some() || matches!(self.found(), Found::Log { open: true, .. })
    }
}

/// A leader's log as catch-up takes it.
pub(super) type LogSource<'a> = Source<'a, FileStorage<File>>;

impl ReadableLog {
    pub(super) fn last(&self) -> Lsn {
        self.tail.last()
    }

    /// The log as catch-up takes it.
    pub(super) fn source<'a>(&'a self, checkpoint: Option<&'a Path>) -> LogSource<'a> {
        Source { storage: &self.storage, tail: &self.tail, end: self.end, checkpoint, watch: None }
    }
}

impl LeaderLog for LeaderLogByPath {
    fn locate(&mut self, lsn: Lsn) -> Result<Position> {
        let log = self.opened(lsn)?;
        catch_up::locate(&log.source(None), lsn)
    }

    fn frames(&mut self, lsn: Lsn, into: &mut Vec<u8>) -> Result<Piece> {
        let source = self.opened(lsn)?.source(None);
        catch_up::read_frames(&source, catch_up::locate(&source, lsn)?, STEP, into)
    }

    fn last(&mut self) -> Option<Lsn> {
        if let Some(last) = self.last {
            return last;
        }
        let last = self.is_ours().then(|| self.find_last().ok()).flatten();
        self.last = Some(last);
        last
    }

    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>> {
        if !self.is_ours() {
            return Err(Error::Io(std::io::Error::from_raw_os_error(libc::ENOENT)));
        }
        let log = self.open(lsn)?;
        wal::read_record(&log.storage, log.tail.near(&log.storage, lsn)?, lsn)
    }

    fn past(&mut self, lsn: Lsn) -> Option<(u32, History)> {
        let log = self.is_ours().then(|| self.open(lsn).ok()).flatten()?;
        wal::read_past(&log.storage, &log.tail, lsn).ok().flatten()
    }

    fn newest(&mut self, len: usize, crc: u32) -> Option<Lsn> {
        let newest = |tail: &mut LogTail| tail.last_is(len, crc).then_some(tail.last());
        let found = self.is_ours().then(|| self.if_up_to_date(newest).ok()).flatten();
        found.flatten().flatten()
    }

    fn find(&mut self, len: usize, crc: u32, expected: Option<Lsn>) -> Option<Lsn> {
        if !self.is_ours() {
            return None;
        }
        if let Some(lsn) = self.newest(len, crc) {
            return Some(lsn);
        }
        let log = self.open(Lsn::ZERO).ok()?;
        wal::find_recent(&log.storage, &log.tail, len, crc, expected).ok().flatten()
    }
}

/// The log that a leader's followers are caught up from, as `repl_set_wal` or `wal_open` named it.
pub(super) fn leader_path(set: Option<&Path>) -> Result<PathBuf> {
    LeaderLogByPath::new(set).path()
}
