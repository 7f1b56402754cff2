//! Records that have arrived together are stored with one fsync, handed out one by one, and acknowledged once, after it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Write, quiet};
use logship::net::io::Deadline;
use logship::net::receive::{Acks, FollowerLog, Receiver};
use logship::replication::follower::Follower;
use logship::replication::frame;
use logship::replication::message::{ACK_LEN, ACK_NOT_STORED, ACK_OK, Ack, Control};
use logship::storage::memory::MemoryStorage;
use logship::types::History;
use logship::wal::checkpoint::Covered;
use logship::{Error, Lsn, Result, Store, Wal};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

struct Log {
    wal: Wal<MemoryStorage>,
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
    fn past(&mut self, _: Lsn) -> Result<Option<(u32, History)>> {
        Ok(None)
    }
    fn write_ahead(&mut self, ahead: usize, encoded: &[u8]) -> Result<()> {
        self.wal.write_ahead(ahead, encoded)
    }
    fn append(&mut self, ahead: usize, encoded: &[u8], ends: &[usize]) -> Result<Lsn> {
        self.wal.append_behind(ahead, encoded, ends)
    }
    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>> {
        logship::wal::read_record(self.wal.storage(), self.wal.tail().near(self.wal.storage(), lsn)?, lsn)
    }
    fn unapplied(&mut self) -> &mut Option<Lsn> {
        &mut self.unapplied
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
}

/// Both ends of a connection, and the follower's state.
struct Ends {
    leader: UnixStream,
    here: UnixStream,
    follower: Follower,
    log: Log,
    store: Store,
    acks: Acks,
}

impl Ends {
    fn new(storage: MemoryStorage, acks: Acks) -> Ends {
        quiet();
        let (leader, here) = UnixStream::pair().unwrap();
        leader.set_nonblocking(true).unwrap();
        let log = Log { wal: Wal::with_storage(storage).unwrap(), unapplied: None, ready: 0, ready_applied: true };
        Ends { leader, here, follower: Follower::default(), log, store: Store::default(), acks }
    }

    fn send(&mut self, records: impl IntoIterator<Item = Vec<u8>>) {
        for encoded in records {
            self.leader.write_all(&frame::record_header(encoded.len()).unwrap()).unwrap();
            self.leader.write_all(&encoded).unwrap();
        }
    }

    /// The same in one write; returns how long the records are.
    fn send_at_once(&mut self, records: impl Iterator<Item = Vec<u8>>) -> usize {
        let (mut bytes, mut len) = (Vec::new(), 0);
        for encoded in records {
            bytes.extend(frame::record_header(encoded.len()).unwrap());
            bytes.extend(&encoded);
            len += encoded.len();
        }
        self.leader.write_all(&bytes).unwrap();
        len
    }

    fn position(&mut self, next: u64) {
        self.leader.write_all(&Control::Position(Lsn(next)).encode().unwrap()).unwrap();
    }

    fn receive(&mut self) -> Result<Lsn> {
        let Ends { here, follower, log, store, acks, .. } = self;
        let idle = Deadline::after_ms(0);
        Receiver { fd: here.as_raw_fd(), follower, log, store, node: 1, acks: *acks, idle }.receive()
    }

    fn acks(&mut self) -> Vec<(u64, u8)> {
        let mut acks = Vec::new();
        let mut bytes = [0; ACK_LEN];
        while let Ok(ACK_LEN) = self.leader.read(&mut bytes) {
            let ack = Ack::decode(bytes);
            acks.push((ack.lsn.0, ack.status));
        }
        acks
    }

    fn syncs(&self) -> u32 {
        self.log.wal.storage().syncs
    }
}

fn record(number: u64) -> Vec<u8> {
    Write::set(format!("key-{number}").as_bytes(), b"value", number).encoded()
}

fn records(range: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = Vec<u8>> {
    range.map(record)
}

#[test]
fn what_has_arrived_together_takes_one_sync_and_one_ack_and_is_returned_one_by_one() {
    let mut ends = Ends::new(MemoryStorage::default(), Acks::ByUs);
    ends.position(1);
    ends.send(records(1..=100));
    for lsn in 1..=100 {
        assert_eq!(ends.receive().unwrap(), Lsn(lsn));
        assert_eq!(ends.syncs(), 1);
    }
    assert_eq!(ends.acks(), [(100, ACK_OK)]);
    assert_eq!(ends.store.len(), 100);
    assert!(matches!(ends.receive(), Err(Error::TimedOut)), "nothing more is there");
    ends.send(records(101..=101));
    assert_eq!(ends.receive().unwrap(), Lsn(101));
    assert_eq!((ends.syncs(), ends.acks()), (2, vec![(101, ACK_OK)]));
}

#[test]
fn a_group_ends_before_a_damaged_record_a_heartbeat_and_half_a_frame() {
    let mut ends = Ends::new(MemoryStorage::default(), Acks::ByUs);
    ends.position(1);
    ends.send(records(1..=3));
    let mut damaged = record(4);
    damaged[20] ^= 1;
    ends.send([damaged]);
    for lsn in 1..=3 {
        assert_eq!(ends.receive().unwrap(), Lsn(lsn));
    }
    assert_eq!(ends.acks(), [(3, ACK_OK)]);
    assert!(matches!(ends.receive(), Err(Error::CrcMismatch)));
    ends.acks();
    ends.position(4);
    ends.send(records(4..=5));
    ends.leader.write_all(&frame::HEARTBEAT).unwrap();
    ends.send(records(6..=6));
    let half = record(7);
    ends.leader.write_all(&frame::record_header(half.len()).unwrap()).unwrap();
    ends.leader.write_all(&half[..9]).unwrap();
    for lsn in 4..=6 {
        assert_eq!(ends.receive().unwrap(), Lsn(lsn));
    }
    let lsns: Vec<_> = ends.acks().into_iter().map(|(lsn, _)| lsn).collect();
    assert_eq!(lsns, [5, 5, 6], "the group, the heartbeat's answer, the record behind it");
    ends.leader.write_all(&half[9..]).unwrap();
    assert_eq!(ends.receive().unwrap(), Lsn(7));
}

#[test]
fn no_ack_precedes_the_sync() {
    let mut ends = Ends::new(MemoryStorage { syncs_left: Some(0), ..MemoryStorage::default() }, Acks::ByUs);
    ends.position(1);
    ends.send(records(1..=10));
    assert!(ends.receive().is_err());
    assert_eq!(ends.acks(), [(1, ACK_NOT_STORED)]);
    assert_eq!(ends.log.wal.last_lsn(), Lsn::ZERO);
    assert_eq!(ends.store.len(), 0);
}

#[test]
fn what_does_not_fit_together_is_stored_as_far_as_it_fits_alone() {
    let room = record(1).len() * 2;
    let mut ends = Ends::new(MemoryStorage { capacity: Some(room), ..MemoryStorage::default() }, Acks::ByUs);
    ends.position(1);
    ends.send(records(1..=5));
    assert_eq!(ends.receive().unwrap(), Lsn(1));
    assert_eq!(ends.receive().unwrap(), Lsn(2));
    assert!(ends.receive().is_err());
    assert_eq!(ends.acks(), [(1, ACK_OK), (2, ACK_OK), (3, ACK_NOT_STORED)]);
    assert_eq!(ends.log.wal.last_lsn(), Lsn(2));
}

/// Records that are more than one piece of a group and yet fit into a socket that nobody reads.
const MANY: u64 = 4500;

#[test]
fn what_comes_in_several_pieces_takes_one_sync_and_one_ack() {
    let mut ends = Ends::new(MemoryStorage::default(), Acks::ByUs);
    ends.position(1);
    let len = ends.send_at_once(records(1..=MANY));
    assert_eq!(ends.receive().unwrap(), Lsn(1));
    assert_eq!((ends.syncs(), ends.acks()), (1, vec![(MANY, ACK_OK)]));
    assert_eq!((ends.log.wal.len(), ends.store.len() as u64), (len as u64, MANY));
    for lsn in 2..=MANY {
        assert_eq!(ends.receive().unwrap(), Lsn(lsn));
    }
    assert!(matches!(ends.receive(), Err(Error::TimedOut)), "nothing comes twice");
    assert_eq!(ends.syncs(), 1);
}

#[test]
fn what_was_written_ahead_of_a_sync_that_fails_is_not_there() {
    for acks in [Acks::ByUs, Acks::ByCaller] {
        let mut ends = Ends::new(MemoryStorage { syncs_left: Some(0), ..MemoryStorage::default() }, acks);
        ends.position(1);
        ends.send_at_once(records(1..=MANY));
        assert!(ends.receive().is_err());
        let refused: &[_] = &[(1, ACK_NOT_STORED)];
        assert_eq!(ends.acks(), if acks == Acks::ByUs { refused } else { &[] });
        assert_eq!((ends.log.wal.last_lsn(), ends.log.wal.storage().bytes.len()), (Lsn::ZERO, 0));
        assert_eq!((ends.store.len(), ends.log.ready), (0, 0));
        assert!(matches!(ends.receive(), Err(Error::TimedOut)), "nothing is handed out");
    }
}

#[test]
fn a_disk_that_is_full_before_the_last_piece_keeps_the_pieces_before_it() {
    let room = 130_000;
    let mut ends = Ends::new(MemoryStorage { capacity: Some(room), ..MemoryStorage::default() }, Acks::ByUs);
    ends.position(1);
    let len = ends.send_at_once(records(1..=MANY));
    assert!(len > room);
    assert_eq!(ends.receive().unwrap(), Lsn(1));
    let acks = ends.acks();
    let [(stored, ACK_OK)] = acks[..] else { panic!("one ack for what fits: {acks:?}") };
    assert_eq!((ends.syncs(), ends.log.wal.last_lsn(), ends.store.len() as u64), (1, Lsn(stored), stored));
    let bytes = ends.log.wal.storage().bytes.clone();
    assert_eq!(bytes, records(1..=stored).flatten().collect::<Vec<_>>(), "whole records and nothing behind them");
    for lsn in 2..=stored {
        assert_eq!(ends.receive().unwrap(), Lsn(lsn));
    }
    // The next one is still on the connection, and goes in alone while there is room.
    let mut last = stored;
    while ends.receive().is_ok() {
        last += 1;
        assert_eq!(ends.acks(), [(last, ACK_OK)]);
    }
    assert!(last > stored);
    assert_eq!((ends.log.wal.last_lsn(), ends.store.len() as u64), (Lsn(last), last));
    assert_eq!(ends.acks(), [(last + 1, ACK_NOT_STORED)]);
}

#[test]
fn before_a_plain_leader_records_are_taken_one_by_one() {
    for acks in [Acks::ByCaller, Acks::ByUs] {
        let mut ends = Ends::new(MemoryStorage::default(), acks);
        ends.send(records(1..=3));
        for lsn in 1..=3u32 {
            assert_eq!(ends.receive().unwrap(), Lsn(u64::from(lsn)));
            assert_eq!((ends.log.wal.last_lsn(), ends.syncs()), (Lsn(u64::from(lsn)), lsn));
        }
        let one_each: &[_] = &[(1, ACK_OK), (2, ACK_OK), (3, ACK_OK)];
        assert_eq!(ends.acks(), if acks == Acks::ByUs { one_each } else { &[] });
    }
}

#[test]
fn before_a_logship_leader_a_store_is_never_ahead_of_what_it_has_received() {
    let mut ends = Ends::new(MemoryStorage::default(), Acks::ByCaller);
    ends.position(1);
    ends.send(records(1..=3));
    for lsn in 1..=3 {
        assert_eq!(ends.receive().unwrap(), Lsn(lsn));
        assert_eq!(ends.store.len() as u64, lsn);
        assert_eq!((ends.log.wal.last_lsn(), ends.syncs()), (Lsn(3), 1));
    }
    assert!(ends.acks().is_empty(), "the caller answers");
}
