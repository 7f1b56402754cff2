//! The leader: append, ship, wait for a quorum; and catch up whoever joins.
#![forbid(unsafe_code)]

use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::kv::table::Store;
use crate::net::arrivals::Arrivals;
use crate::net::catch_up::{self, Piece, Source, Watch};
use crate::net::group::{Group, LeaderLog, MEMBERS_MAX};
use crate::net::io::Deadline;
use crate::net::link::{LastFrame, Link, Resyncs, STEP};
use crate::net::member::Member;
use crate::net::socket;
use crate::replication::quorum::Policy;
use crate::storage::file::{self, FileStorage};
use crate::types::{History, Lsn};
use crate::wal::checkpoint;
use crate::wal::compact::{Compacted, Retention};
use crate::wal::record::Record;
use crate::wal::scan::{End, Position};
use crate::wal::{self, Wal};
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a leader is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address that followers connect to.
    pub host: String,
    /// Port; 0 for any free one, see [`Leader::port`].
    pub port: u16,
    /// Followers that there are, up to 8; a quorum is half of them and one more.
    pub followers: usize,
    /// Over whom the quorum is counted.
    pub policy: Policy,
    /// How long a commit waits for its quorum.
    pub commit_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            host: "127.0.0.1".to_owned(),
            port: 0,
            followers: 2,
            policy: Policy::Strict,
            commit_timeout: Duration::from_secs(5),
        }
    }
}

/// A write that a quorum has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its LSN; of a batch, the last one.
    pub lsn: Lsn,
    /// Fewer followers than the strict quorum have it ([`Policy::Degrade`]).
    pub degraded: bool,
}

/// A follower that has joined and is caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its slot, from 0.
    pub index: usize,
    /// The last LSN that it had.
    pub from: Lsn,
    /// Records that it was sent.
    pub records: u64,
    /// Whether it got a snapshot first: its missing records were gone from the log.
    pub snapshot: bool,
}

/// What a leader knows of a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Whether it is shipped to and counted on.
    pub online: bool,
    /// The highest LSN it has acknowledged on this connection.
    pub acked: Lsn,
    /// Records in the log after that.
    pub lag: u64,
    /// When it was last heard.
    pub heard: Option<Instant>,
    /// Why it was marked offline last; empty for never.
    pub last_disconnect: String,
    /// Times it was marked offline.
    pub disconnects: u64,
    /// How its catch-ups ended.
    pub resyncs: Resyncs,
    /// Why it needed a snapshot last; empty for never.
    pub last_full_resync: String,
}

#[derive(Default)]
struct Slot {
    fd: Option<OwnedFd>,
    /// The follower's address, for log lines.
    host: String,
    port: u16,
    online: bool,
    link: Box<Link>,
}

/// A leader: a durable log, the store that it builds, and its followers.
///
/// ```
/// use logship::{Follower, Leader, Options};
/// use std::time::Duration;
/// # let (home, away) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let mut leader = Leader::open(home.path(), Options { followers: 1, ..Options::default() })?;
/// let port = leader.port();
/// let away = away.path().to_path_buf();
/// let follower = std::thread::spawn(move || -> logship::Result<usize> {
///     let mut follower = Follower::open(&away, 1)?;
///     follower.join("127.0.0.1", port)?;
///     while follower.last_lsn().0 < 2 {
///         follower.follow()?; // stored, durable, acknowledged
///     }
///     Ok(follower.store().len())
/// });
/// leader.accept(Duration::from_secs(5))?;
/// leader.set(b"name", b"alice")?; // on the leader's disk and on the follower's
/// let commit = leader.set(b"city", b"oslo")?;
/// assert_eq!(commit.lsn.0, 2);
/// assert_eq!(leader.get(b"name"), Some(&b"alice"[..]));
/// assert_eq!(follower.join().unwrap()?, 2);
/// # Ok::<(), logship::Error>(())
/// ```
pub struct Leader {
    wal: Wal,
    reader: FileStorage<File>,
    store: Store,
    slots: Vec<Slot>,
    last_frame: Box<LastFrame>,
    listener: OwnedFd,
    arrivals: Arrivals,
    port: u16,
    options: Options,
}

struct OwnLog<'a> {
    wal: &'a Wal,
    reader: &'a FileStorage<File>,
}

impl OwnLog<'_> {
    fn source<'a>(&'a self, checkpoint: Option<&'a Path>) -> Source<'a, FileStorage<File>> {
        let tail = self.wal.tail();
        let end = End { next: tail.next(), damaged: false, cut: false };
        Source { storage: self.reader, tail, end, checkpoint, watch: None }
    }
}

impl LeaderLog for OwnLog<'_> {
    fn locate(&mut self, lsn: Lsn) -> Result<Position> {
        catch_up::locate(&self.source(None), lsn)
    }

    fn frames(&mut self, lsn: Lsn, into: &mut Vec<u8>) -> Result<Piece> {
        let source = self.source(None);
        catch_up::read_frames(&source, catch_up::locate(&source, lsn)?, STEP, into)
    }

    fn last(&mut self) -> Option<Lsn> {
        Some(self.wal.last_lsn())
    }

    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>> {
        wal::read_record(self.reader, self.wal.tail().near(self.reader, lsn)?, lsn)
    }

    fn past(&mut self, lsn: Lsn) -> Option<(u32, History)> {
        wal::read_past(self.reader, self.wal.tail(), lsn).ok().flatten()
    }

    fn find(&mut self, len: usize, crc: u32, expected: Option<Lsn>) -> Option<Lsn> {
        wal::find_recent(self.reader, self.wal.tail(), len, crc, expected).ok().flatten()
    }
}

impl Leader {
    /// Opens the log in `directory` (created with it if missing; locked against a second leader), builds the store from
    /// it and listens for followers.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Leader> {
        if options.followers > MEMBERS_MAX {
            return Err(Error::Invalid("a leader has at most 8 followers"));
        }
        let (path, wal, store) = super::follower::open_log(directory.as_ref())?;
        let reader = file::open_read(&path)?;
        let (listener, port) = socket::listen(&options.host, options.port)?;
        let slots = std::iter::repeat_with(Slot::default).take(options.followers).collect();
        let (last_frame, arrivals) = (Box::default(), Arrivals::default());
        Ok(Leader { wal, reader, store, slots, last_frame, listener, arrivals, port, options })
    }

    /// The port that followers connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for one follower to join or rejoin, catches it up and counts on it from then on.
    ///
    /// A peer that connects and says nothing keeps no follower waiting; it is closed after 5 s.
    /// A follower that gives its number n gets slot n - 1, also if the slot seems online: its old connection is dead.
    /// Errors: [`Error::TimedOut`] nobody came; [`Error::NoSlot`]; [`Error::FollowerAhead`] and [`Error::Diverged`]:
    /// its log is no part of this one, and it is refused.
    pub fn accept(&mut self, timeout: Duration) -> Result<Joined> {
        self.accept_and_watch(timeout, &|_| ())
    }

    /// As [`accept`](Leader::accept); tells `watch` how far the catch-up has come.
    pub fn accept_and_watch(&mut self, timeout: Duration, watch: Watch<'_>) -> Result<Joined> {
        let (index, from) = self.take_in(timeout)?;
        let summary = self.with_source(index, |member, source| {
            catch_up::catch_up(member, &Source { watch: Some(watch), ..*source }, from)
        })?;
        Ok(Joined { index, from, records: summary.records, snapshot: summary.snapshot.is_some() })
    }

    /// Waits for a follower, and puts it into its slot.
    fn take_in(&mut self, timeout: Duration) -> Result<(usize, Lsn)> {
        let deadline = Deadline::after_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
        let (fd, message) = self.arrivals.next(self.listener.as_raw_fd(), deadline)?;
        let node = message.mark.map_or(0, |mark| usize::from(mark.node));
        let index = match node {
            0 => self.slots.iter().position(|slot| !slot.online),
            number => Some(number - 1).filter(|index| *index < self.slots.len()),
        };
        let index = index.ok_or(Error::NoSlot)?;
        let slot = &mut self.slots[index];
        slot.link.attach(socket::identify(fd.as_raw_fd()).ok_or(Error::NotConnected)?);
        slot.link.progress.is_logship = message.mark.is_some();
        slot.online = false;
        if let Some((address, port)) = socket::peer_address(fd.as_raw_fd()) {
            (slot.host, slot.port) = (address.to_string(), port);
        }
        slot.fd = Some(fd);
        Ok((index, message.last))
    }

    /// As [`accept`](Leader::accept), but only begins to catch the follower up: that goes on in every later call,
    /// beside the commits, and from its end on the follower is counted on. See [`catch_up_for`](Leader::catch_up_for).
    pub fn admit(&mut self, timeout: Duration) -> Result<usize> {
        let (index, from) = self.take_in(timeout)?;
        self.with_source(index, |member, source| catch_up::begin(member, source, from))?;
        Ok(index)
    }

    /// Goes on with the catch-ups that [`admit`](Leader::admit) has begun, for at most `timeout`; returns how many go
    /// on.
    pub fn catch_up_for(&mut self, timeout: Duration) -> Result<usize> {
        let deadline = Deadline::after_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
        self.with_group(|group| group.catch_up_until(deadline))
    }

    fn with_source<T>(
        &mut self,
        index: usize,
        body: impl FnOnce(&mut Member<'_>, &Source<'_, FileStorage<File>>) -> Result<T>,
    ) -> Result<T> {
        let log = OwnLog { wal: &self.wal, reader: &self.reader };
        let checkpoint = checkpoint_of(&self.wal);
        let mut member = member(index, &mut self.slots[index]);
        let result = body(&mut member, &log.source(Some(&checkpoint)));
        if let Err(error) = &result
            && member.fd >= 0
        {
            member.go_offline(format_args!("catch-up: {error}"));
        }
        let (fd, online) = (member.fd, member.online);
        self.publish(index, fd, online);
        result
    }

    /// Sets a key. Returns once the write is durable here and on a quorum.
    ///
    /// Errors: [`Error::TimedOut`] and [`Error::NoQuorum`]: it is durable here and maybe on some followers, not
    /// committed; it stays in the log and followers get it when they rejoin. Any other error: it is not in the log.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<Commit> {
        self.commit(&[Record::set(key, value, clock::next_timestamp())])
    }

    /// Deletes a key; as [`set`](Leader::set).
    pub fn delete(&mut self, key: &[u8]) -> Result<Commit> {
        self.commit(&[Record::del(key, clock::next_timestamp())])
    }

    /// Writes records with one fsync and waits until a quorum has all of them; as [`set`](Leader::set).
    pub fn commit(&mut self, records: &[Record<'_>]) -> Result<Commit> {
        if records.is_empty() {
            return Err(Error::Invalid("an empty batch"));
        }
        let mut encoded = Vec::new();
        let ends = wal::encode_all(records, &mut encoded)?;
        let first = self.wal.last_lsn().next();
        let lsn = self.wal.append_encoded(&encoded, &ends)?;
        self.store.apply_all(records)?;
        let (policy, timeout) = (self.options.policy, self.options.commit_timeout);
        let degraded = self.with_group(|group| {
            let (mut start, mut next) = (0, first);
            for end in &ends {
                group.ship(&encoded[start..*end], Some(next))?;
                (start, next) = (*end, next.next());
            }
            let deadline = Deadline::after_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
            group.wait_quorum(lsn, policy, deadline)
        })?;
        Ok(Commit { lsn, degraded })
    }

    /// Asks every online follower whether it lives; those that stay silent are marked offline. Returns how many
    /// answered.
    pub fn heartbeat(&mut self, timeout: Duration) -> Result<usize> {
        let deadline = Deadline::after_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
        self.with_group(|group| group.heartbeat(deadline))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.store.get(key)
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// LSN of the last record in the log, committed or not.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.wal.last_lsn()
    }

    /// What is known of each follower.
    #[must_use]
    pub fn followers(&self) -> Vec<FollowerStatus> {
        let status = |slot: &Slot| FollowerStatus {
            online: slot.online,
            acked: slot.link.progress.acked,
            lag: self.wal.last_lsn().since(slot.link.progress.acked),
            heard: slot.link.heard,
            last_disconnect: slot.link.reason.to_string(),
            disconnects: slot.link.disconnects,
            resyncs: slot.link.resyncs,
            last_full_resync: slot.link.full_resync.to_string(),
        };
        self.slots.iter().map(status).collect()
    }

    /// Writes the store to the checkpoint beside the log and drops from the log what it covers, except what `keep`
    /// says. A follower whose missing records are gone gets the checkpoint when it rejoins.
    pub fn compact(&mut self, keep: &Retention) -> Result<Compacted> {
        let path = checkpoint_of(&self.wal);
        checkpoint::write(&self.store, &path, self.wal.tail().covered())?;
        let slowest = self.with_group(|group| Ok(group.slowest()))?;
        let done = self.wal.compact(&path, keep, slowest)?;
        self.reader = file::open_read(self.wal.path())?;
        Ok(done)
    }

    fn with_group<T>(&mut self, body: impl FnOnce(&mut Group<'_>) -> Result<T>) -> Result<T> {
        let mut log = OwnLog { wal: &self.wal, reader: &self.reader };
        let members: Vec<_> = self.slots.iter_mut().enumerate().map(|(index, slot)| member(index, slot)).collect();
        let mut group = Group { members, last_frame: &mut self.last_frame, log: &mut log };
        let result = body(&mut group);
        let after: Vec<_> = group.members.iter().map(|member| (member.index, member.fd, member.online)).collect();
        for (index, fd, online) in after {
            self.publish(index, fd, online);
        }
        result
    }

    /// Takes over what a call has made of a slot. A member that went offline has closed its socket already.
    fn publish(&mut self, index: usize, fd: RawFd, online: bool) {
        let slot = &mut self.slots[index];
        slot.online = online;
        if fd < 0
            && let Some(closed) = slot.fd.take()
        {
            let _ = closed.into_raw_fd();
        }
    }
}

/// The checkpoint beside a log, which recovery finds by itself.
fn checkpoint_of(wal: &Wal) -> PathBuf {
    file::beside(wal.path(), wal::CHECKPOINT_SUFFIX)
}

fn member(index: usize, slot: &mut Slot) -> Member<'_> {
    let fd = slot.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    Member { index, host: &slot.host, port: slot.port, fd, online: slot.online, link: &mut slot.link }
}
