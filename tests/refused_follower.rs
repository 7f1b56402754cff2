//! A follower that rejoins and is refused, because its log is ahead of the leader's or holds another past, counts for
//! no quorum: the records that it has under these numbers are not the leader's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Log, Write, quiet};
use logship::net::catch_up::{self, Piece, Source};
use logship::net::group::{Group, LeaderLog};
use logship::net::io::Deadline;
use logship::net::link::{LastFrame, Link};
use logship::net::member::Member;
use logship::net::socket;
use logship::replication::message::{ACK_DIVERGED, ACK_OK, Ack, FLAG_CHECKED, FLAG_LIVENESS, Mark};
use logship::replication::quorum::Policy;
use logship::storage::memory::MemoryStorage;
use logship::types::History;
use logship::wal::scan::{End, Position};
use logship::wal::tail::LogTail;
use logship::{Error, Lsn, Result};
use std::io::Write as _;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;

/// The leader's log has so many records.
const RECORDS: u64 = 3;

struct Leader(Lsn);

impl LeaderLog for Leader {
    fn last(&mut self) -> Option<Lsn> {
        Some(self.0)
    }
    fn locate(&mut self, _: Lsn) -> Result<Position> {
        Err(Error::Invalid("nothing is sent again here"))
    }
    fn frames(&mut self, _: Lsn, _: &mut Vec<u8>) -> Result<Piece> {
        Err(Error::Invalid("nothing is sent again here"))
    }
    fn past(&mut self, _: Lsn) -> Option<(u32, History)> {
        None
    }
    fn find(&mut self, _: usize, _: u32, _: Option<Lsn>) -> Option<Lsn> {
        None
    }
    fn read(&mut self, _: Lsn) -> Result<Vec<u8>> {
        Err(Error::Invalid("nothing is sent again here"))
    }
}

/// The ack that a logship follower sends behind its rejoin message.
fn mark(last: u64) -> Vec<u8> {
    Ack::marked(Lsn(last), ACK_OK, Mark { node: 1, flags: 0 }).encode().to_vec()
}

/// Its answer to the question whether its record is the leader's.
fn answer(last: u64, status: u8) -> Vec<u8> {
    Ack::marked(Lsn(last), status, Mark { node: 1, flags: FLAG_LIVENESS | FLAG_CHECKED }).encode().to_vec()
}

/// A follower whose log ends at `last` rejoins and sends these bytes, before its mark is looked for and after. Returns
/// how the catch-up ended, and whether it counts as having the leader's first record.
fn rejoin(last: u64, before: &[u8], after: &[u8]) -> (Result<u64>, Result<bool>) {
    quiet();
    let log = Log::new((1..=RECORDS).map(|n| Write::set(b"key", b"value", n)).collect());
    let storage = MemoryStorage { bytes: log.bytes, ..MemoryStorage::default() };
    let mut tail = Box::<LogTail>::default();
    let end: End = tail.refresh(&storage).unwrap();
    let source = Source { storage: &storage, tail: &tail, end, checkpoint: None, watch: None };

    // The library closes this end when it marks the follower offline.
    let (here, mut there) = UnixStream::pair().unwrap();
    let fd = here.into_raw_fd();
    let mut link = Box::<Link>::default();
    link.attach(socket::identify(fd).unwrap());
    link.progress.is_logship = true;
    let mut member = Member { index: 0, host: "follower", port: 1, fd, online: false, link: &mut link };

    there.write_all(before).unwrap();
    catch_up::take_mark(&mut member, Some(Lsn(last))).unwrap();
    there.write_all(after).unwrap();
    let caught_up = catch_up::catch_up(&mut member, &source, Lsn(last)).map(|summary| summary.records);
    match caught_up {
        Ok(_) => member.online = true,
        Err(_) if member.fd >= 0 => member.go_offline(format_args!("refused")),
        Err(_) => {}
    }
    let mut last_frame = Box::<LastFrame>::default();
    let mut group = Group { members: vec![member], last_frame: &mut last_frame, log: &mut Leader(Lsn(RECORDS)) };
    let counts = group.wait_quorum(Lsn(1), Policy::Strict, Deadline::after_ms(0));
    if group.members[0].fd >= 0 {
        socket::close(group.members[0].fd);
    }
    (caught_up, counts)
}

#[test]
fn a_follower_whose_record_is_the_leaders_counts_for_what_its_rejoin_says() {
    // The canary of the tests below: the same steps with the right answer make the quorum.
    let (caught_up, counts) = rejoin(2, &mark(2), &answer(2, ACK_OK));
    assert_eq!(caught_up.unwrap(), 1);
    assert!(counts.is_ok(), "{counts:?}");
}

#[test]
fn a_follower_ahead_of_the_leader_counts_for_nothing() {
    let (caught_up, counts) = rejoin(1_000, &mark(1_000), b"");
    assert!(matches!(caught_up, Err(Error::FollowerAhead { .. })), "{caught_up:?}");
    assert!(matches!(counts, Err(Error::NoQuorum { .. })), "{counts:?}");
}

#[test]
fn a_follower_with_another_past_counts_for_nothing() {
    let (caught_up, counts) = rejoin(2, &mark(2), &answer(2, ACK_DIVERGED));
    assert!(matches!(caught_up, Err(Error::Diverged { lsn: Lsn(2) })), "{caught_up:?}");
    assert!(matches!(counts, Err(Error::NoQuorum { .. })), "{counts:?}");
}

#[test]
fn a_follower_with_another_past_counts_for_nothing_when_its_mark_comes_late_either() {
    let (caught_up, counts) = rejoin(2, b"", &[mark(2), answer(2, ACK_DIVERGED)].concat());
    assert!(matches!(caught_up, Err(Error::Diverged { lsn: Lsn(2) })), "{caught_up:?}");
    assert!(matches!(counts, Err(Error::NoQuorum { .. })), "{counts:?}");
}
