//! The follower: join the leader, take what was missed, follow.
#![forbid(unsafe_code)]

use super::WAL_NAME;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::kv::table::Store;
use crate::net::group::MEMBERS_MAX;
use crate::net::io::Deadline;
use crate::net::receive::{Acks, FollowerLog, Receiver};
use crate::net::{rejoin, socket};
use crate::replication::follower;
use crate::storage::file::{self, FileStorage};
use crate::types::{History, Lsn};
use crate::wal::checkpoint::Covered;
use crate::wal::origin::Origin;
use crate::wal::snapshot::{Incoming, Snapshot};
use crate::wal::{self, Wal};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A follower: a durable log, the store that it builds, and the connection to its leader. See [`Leader`](super::Leader)
/// for an example of both ends.
#[derive(Debug)]
pub struct Follower {
    log: Log,
    store: Store,
    connection: Option<OwnedFd>,
    state: follower::Follower,
    node: u8,
}

#[derive(Debug)]
struct Log {
    wal: Wal,
    reader: FileStorage<File>,
    unapplied: Option<Lsn>,
    ready: u64,
    ready_applied: bool,
}

impl FollowerLog for Log {
    fn last(&mut self) -> Result<Lsn> {
        Ok(self.wal.last_lsn())
    }

    fn covered(&mut self) -> Result<Covered> {
        Ok(self.wal.tail().covered())
    }

    fn past(&mut self, lsn: Lsn) -> Result<Option<(u32, History)>> {
        wal::read_past(&self.reader, self.wal.tail(), lsn)
    }

    fn write_ahead(&mut self, ahead: usize, encoded: &[u8]) -> Result<()> {
        self.wal.write_ahead(ahead, encoded)
    }

    fn append(&mut self, ahead: usize, encoded: &[u8], ends: &[usize]) -> Result<Lsn> {
        self.wal.append_behind(ahead, encoded, ends)
    }

    fn ready(&self) -> u64 {
        self.ready
    }

    fn set_ready(&mut self, count: u64, applied: bool) {
        (self.ready, self.ready_applied) = (count, applied);
    }

    fn ready_are_applied(&self) -> bool {
        self.ready_applied
    }

    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>> {
        wal::read_record(&self.reader, self.wal.tail().near(&self.reader, lsn)?, lsn)
    }

    fn unapplied(&mut self) -> &mut Option<Lsn> {
        &mut self.unapplied
    }

    fn receive_snapshot(&mut self, snapshot: &Snapshot) -> Result<Incoming> {
        self.wal.receive_snapshot(snapshot)
    }

    fn install(
        &mut self,
        incoming: Incoming,
        origin: Origin,
        record: &[u8],
        store: &mut impl StateMachine,
    ) -> Result<()> {
        self.wal.install(incoming, origin, record, store)?;
        self.reader = file::open_read(self.wal.path())?;
        (self.unapplied, self.ready) = (None, 0);
        Ok(())
    }
}

/// Opens a node's log and builds its store.
pub(super) fn open_log(directory: &Path) -> Result<(PathBuf, Wal, Store)> {
    if !directory.exists() {
        std::fs::create_dir_all(directory)?;
        file::sync_directory_of(&wal::absolute(directory))?;
    }
    let path = directory.join(WAL_NAME);
    let wal = Wal::open(&path)?;
    let mut store = Store::default();
    wal::recover(&path, &mut store)?;
    Ok((path, wal, store))
}

impl Follower {
    /// Opens the log in `directory` (created with it if missing; locked against a second process) and builds the store
    /// from it. `node` is this follower's number, 1 to 8, by which the leader finds its slot; 0 for any free one.
    /// Another number is [`Error::Invalid`], and nothing is created.
    pub fn open(directory: impl AsRef<Path>, node: u8) -> Result<Follower> {
        if usize::from(node) > MEMBERS_MAX {
            return Err(Error::Invalid("a follower's node number is 1 to 8, or 0 for any free slot"));
        }
        let (path, wal, store) = open_log(directory.as_ref())?;
        let log = Log { wal, reader: file::open_read(&path)?, unapplied: None, ready: 0, ready_applied: true };
        Ok(Follower { log, store, connection: None, state: follower::Follower::default(), node })
    }

    /// Connects to the leader within 5 s and tells it where this log ends; what was missed comes first from
    /// [`follow`](Follower::follow). Call it again after a connection was lost.
    pub fn join(&mut self, host: &str, port: u16) -> Result<()> {
        let connection = socket::connect(host, port)?;
        rejoin::send_rejoin(connection.as_raw_fd(), self.log.wal.last_lsn(), self.node)?;
        self.state = follower::Follower::default();
        self.connection = Some(connection);
        Ok(())
    }

    /// Waits for one record, as long as TCP says that the leader lives; stores it, applies it and acknowledges it. What
    /// has arrived behind it is stored with the same fsync and returned by the next calls. Returns its LSN. Heartbeats
    /// are answered meanwhile.
    ///
    /// Errors: [`Error::CrcMismatch`]: the record came damaged, the leader sends it again: go on.
    /// [`Error::NotConnected`]: the leader has closed, or `join` was not called. [`Error::Diverged`]: this log is not a
    /// part of the leader's. A failed append: nothing is stored. After any other error join again.
    pub fn follow(&mut self) -> Result<Lsn> {
        self.follow_until(Deadline::NEVER)
    }

    /// As [`follow`](Follower::follow), but waits no longer than `timeout` for a record to begin: [`Error::TimedOut`],
    /// and the connection is as good as before.
    pub fn follow_for(&mut self, timeout: Duration) -> Result<Lsn> {
        self.follow_until(Deadline::after_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)))
    }

    fn follow_until(&mut self, idle: Deadline) -> Result<Lsn> {
        let fd = self.connection.as_ref().ok_or(Error::NotConnected)?.as_raw_fd();
        let (log, store, follower) = (&mut self.log, &mut self.store, &mut self.state);
        Receiver { fd, follower, log, store, node: self.node, acks: Acks::ByUs, idle }.receive()
    }

    /// LSN of the last record that [`follow`](Follower::follow) has returned, or that was in the log when it was
    /// opened.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.log.wal.last_lsn().0 - self.log.ready)
    }

    /// The store: reads from a follower see what it has applied, which may be behind the leader.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}
