//! Beside commits a catch-up leaves no more than a window unacknowledged. It must come to its end all the same when the
//! follower acknowledges nothing before it has everything, also while a commit waits for nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Log, Write, quiet};
use logship::net::catch_up::{self, Piece, Source};
use logship::net::group::{Group, LeaderLog};
use logship::net::io::Deadline;
use logship::net::link::{LastFrame, Link, STEP};
use logship::net::member::Member;
use logship::net::socket;
use logship::replication::message::{ACK_NOT_STORED, ACK_OK, Ack, FLAG_CHECKED, FLAG_LIVENESS, Mark};
use logship::replication::quorum::Policy;
use logship::storage::memory::MemoryStorage;
use logship::types::History;
use logship::wal::scan::{End, Position};
use logship::wal::tail::LogTail;
use logship::{Lsn, Result, wal};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SndBuf;
use std::io::{Read as _, Write as _};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;

const RECORDS: u64 = 2_000;
/// Bytes of the message POSITION.
const POSITION_LEN: usize = 17;
/// The type of the message CHECK.
const CHECK: u8 = 2;

struct Leader<'a>(Source<'a, MemoryStorage>);

impl LeaderLog for Leader<'_> {
    fn last(&mut self) -> Option<Lsn> {
        Some(self.0.tail.last())
    }
    fn locate(&mut self, lsn: Lsn) -> Result<Position> {
        catch_up::locate(&self.0, lsn)
    }
    fn frames(&mut self, lsn: Lsn, into: &mut Vec<u8>) -> Result<Piece> {
        catch_up::read_frames(&self.0, catch_up::locate(&self.0, lsn)?, STEP, into)
    }
    fn past(&mut self, lsn: Lsn) -> Option<(u32, History)> {
        wal::read_past(self.0.storage, self.0.tail, lsn).ok().flatten()
    }
    fn find(&mut self, len: usize, crc: u32, expected: Option<Lsn>) -> Option<Lsn> {
        wal::find_recent(self.0.storage, self.0.tail, len, crc, expected).ok().flatten()
    }
    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>> {
        wal::read_record(self.0.storage, self.0.tail.near(self.0.storage, lsn)?, lsn)
    }
}

/// A log of so many records with values of 1,000 bytes, and its frames one behind another.
fn log_of(records: u64) -> (MemoryStorage, Box<LogTail>, Vec<u8>) {
    quiet();
    let log = Log::new((1..=records).map(|n| Write::set(b"key", &[b'v'; 1000], n)).collect());
    let mut frames = Vec::new();
    for record in log.bytes.chunks_exact(log.bytes.len() / usize::try_from(records).unwrap()) {
        frames.extend_from_slice(&u32::try_from(record.len()).unwrap().to_be_bytes());
        frames.extend_from_slice(record);
    }
    let storage = MemoryStorage { bytes: log.bytes, ..MemoryStorage::default() };
    let mut tail = Box::<LogTail>::default();
    tail.refresh(&storage).unwrap();
    (storage, tail, frames)
}

fn source<'a>(storage: &'a MemoryStorage, tail: &'a LogTail) -> Source<'a, MemoryStorage> {
    let end = End { next: tail.next(), damaged: false, cut: false };
    Source { storage, tail, end, checkpoint: None, watch: None }
}

/// A follower that has shown that it is logship.
fn member(here: UnixStream, link: &mut Link) -> Member<'_> {
    let fd = here.into_raw_fd();
    link.attach(socket::identify(fd).unwrap());
    link.progress.is_logship = true;
    Member { index: 0, host: "follower", port: 1, fd, online: false, link }
}

fn connected(link: &mut Link) -> (Member<'_>, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    (member(here, link), there)
}

fn ack(lsn: u64, status: u8, flags: u8) -> [u8; 16] {
    Ack::marked(Lsn(lsn), status, Mark { node: 1, flags }).encode()
}

#[test]
fn a_commit_gets_the_ack_of_a_follower_that_acknowledges_everything_at_its_end() {
    let (storage, tail, frames) = log_of(RECORDS);
    let mut link = Box::<Link>::default();
    let (mut member, mut there) = connected(&mut link);
    // As one that has fallen behind: online, and needed.
    member.online = true;
    let follower = std::thread::spawn(move || {
        let mut everything = vec![0; POSITION_LEN + frames.len()];
        there.read_exact(&mut everything).unwrap();
        there.write_all(&ack(RECORDS, ACK_OK, 0)).unwrap();
        assert!(everything[POSITION_LEN..] == frames);
        there
    });
    let source = source(&storage, &tail);
    catch_up::begin(&mut member, &source, Lsn::ZERO).unwrap();
    let mut last_frame = Box::<LastFrame>::default();
    let mut group = Group { members: vec![member], last_frame: &mut last_frame, log: &mut Leader(source) };
    let committed = group.wait_quorum(Lsn(RECORDS), Policy::Strict, Deadline::after_ms(20_000));
    assert!(!committed.unwrap(), "not degraded");
    assert!(group.members[0].online && group.members[0].link.catch_up.is_none());
    drop(follower.join().unwrap());
    socket::close(group.members[0].fd);
}

#[test]
fn a_paused_catch_up_goes_on_for_what_is_shipped_beside_it_and_for_acks_that_nobody_has_asked_for() {
    let (storage, tail, _) = log_of(RECORDS);
    for acks in [false, true] {
        let source = source(&storage, &tail);
        let mut link = Box::<Link>::default();
        let (mut member, there) = connected(&mut link);
        catch_up::begin(&mut member, &source, Lsn::ZERO).unwrap();
        // Ten records are out and fill the window.
        let state = member.link.catch_up.as_mut().unwrap();
        state.advance_to(catch_up::locate(&source, Lsn(11)).unwrap(), 10_000);
        (state.window, state.rest) = (5_000, Deadline::NEVER);
        let mut last_frame = Box::<LastFrame>::default();
        let mut group = Group { members: vec![member], last_frame: &mut last_frame, log: &mut Leader(source) };
        let sent = |group: &Group<'_>| group.members[0].link.catch_up.unwrap().bytes - 10_000;
        group.ship(&[0; 100], None).unwrap();
        assert_eq!(sent(&group), 0, "paused");
        if acks {
            group.members[0].link.inbox.push(&ack(10, ACK_OK, 0));
            group.ship(&[0; 100], None).unwrap();
        } else {
            group.ship(&[0; 40_000], None).unwrap();
        }
        assert!(sent(&group) > 0, "it goes on, acks: {acks}");
        socket::close(group.members[0].fd);
        drop(there);
    }
}

#[test]
fn a_catch_up_that_begins_anew_in_the_middle_of_a_frame_sends_the_rest_of_it_first() {
    let (storage, tail, frames) = log_of(100);
    let frame_len = frames.len() / 100;
    let mut link = Box::<Link>::default();
    let (here, mut there) = UnixStream::pair().unwrap();
    // So little that what the socket takes at once ends inside a frame.
    setsockopt(&here, SndBuf, &4096).unwrap();
    let mut member = member(here, &mut link);
    // The follower says that it has nine records, and is asked: it has four. The answer is there before anything is
    // sent, so it is read when the socket takes no more.
    there.write_all(&ack(4, ACK_NOT_STORED, FLAG_LIVENESS | FLAG_CHECKED)).unwrap();
    let follower = std::thread::spawn(move || {
        let (mut records, mut checks) = (Vec::new(), 0);
        let mut word = [0; 4];
        while there.read_exact(&mut word).is_ok() {
            let len = u32::from_be_bytes(word);
            let mut body = vec![0; usize::try_from(len & 0x7FFF_FFFF).unwrap().min(200_000)];
            there.read_exact(&mut body).unwrap();
            if len >> 31 == 0 {
                records.push([&word[..], &body].concat());
            } else if body[0] == CHECK {
                checks += 1;
                if checks == 2 {
                    records.clear();
                    there.write_all(&ack(4, ACK_OK, FLAG_LIVENESS | FLAG_CHECKED)).unwrap();
                }
            }
        }
        records.concat()
    });
    let caught_up = catch_up::catch_up(&mut member, &source(&storage, &tail), Lsn(9)).unwrap();
    assert_eq!(caught_up.records, 96);
    socket::close(member.fd);
    let got = follower.join().unwrap();
    assert!(got == frames[4 * frame_len..], "{} bytes", got.len());
}
