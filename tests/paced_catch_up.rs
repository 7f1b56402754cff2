//! Beside commits a catch-up leaves no more than a window unacknowledged. It must come to its end all the same when the
//! follower acknowledges nothing before it has everything, also while a commit waits for nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Log, Write, quiet};
use logship::net::catch_up::{self, Piece, Source};
use logship::net::group::{Group, LeaderLog};
use logship::net::io::Deadline;
use logship::net::link::{LastFrame, Link};
use logship::net::member::Member;
use logship::net::socket;
use logship::replication::message::{ACK_OK, Ack, Mark};
use logship::replication::quorum::Policy;
use logship::storage::memory::MemoryStorage;
use logship::types::History;
use logship::wal::scan::Position;
use logship::wal::tail::LogTail;
use logship::{Lsn, Result, wal};
use std::io::{Read as _, Write as _};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;

const RECORDS: u64 = 2_000;

struct Leader<'a>(Source<'a, MemoryStorage>);

impl LeaderLog for Leader<'_> {
    fn last(&mut self) -> Option<Lsn> {
        Some(self.0.tail.last())
    }
    fn locate(&mut self, lsn: Lsn) -> Result<Position> {
        catch_up::locate(&self.0, lsn)
    }
    fn frames(&mut self, lsn: Lsn, into: &mut Vec<u8>) -> Result<Piece> {
        catch_up::read_frames(&self.0, catch_up::locate(&self.0, lsn)?, catch_up::SMALL_PIECE, into)
    }
    fn past(&mut self, lsn: Lsn) -> Option<(u32, History)> {
        wal::read_past(self.0.storage, self.0.tail, lsn).ok().flatten()
    }
    fn find(&mut self, len: usize, crc: u32, expected: Option<Lsn>) -> Option<Lsn> {
        wal::find_recent(self.0.storage, self.0.tail, len, crc, expected).ok().flatten()
    }
    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>> {
        wal::read_record(self.0.storage, self.0.tail.near(lsn), lsn)
    }
}

#[test]
fn a_commit_gets_the_ack_of_a_follower_that_acknowledges_everything_at_its_end() {
    quiet();
    let log = Log::new((1..=RECORDS).map(|n| Write::set(b"key", &[b'v'; 1000], n)).collect());
    // A POSITION of 17 bytes, then the frames.
    let expected = 17 + log.bytes.len() + 4 * usize::try_from(RECORDS).unwrap();
    let storage = MemoryStorage { bytes: log.bytes, ..MemoryStorage::default() };
    let mut tail = Box::<LogTail>::default();
    let end = tail.refresh(&storage).unwrap();
    let source = Source { storage: &storage, tail: &tail, end, checkpoint: None, watch: None };

    let (here, mut there) = UnixStream::pair().unwrap();
    let fd = here.into_raw_fd();
    let mut link = Box::<Link>::default();
    link.attach(socket::identify(fd).unwrap());
    link.progress.is_logship = true;
    // As one that has fallen behind: online, and needed.
    let mut member = Member { index: 0, host: "follower", port: 1, fd, online: true, link: &mut link };
    let follower = std::thread::spawn(move || {
        let mut everything = vec![0; expected];
        there.read_exact(&mut everything).unwrap();
        there.write_all(&Ack::marked(Lsn(RECORDS), ACK_OK, Mark { node: 1, flags: 0 }).encode()).unwrap();
        there
    });
    catch_up::begin(&mut member, &source, Lsn::ZERO).unwrap();
    let mut last_frame = Box::<LastFrame>::default();
    let mut group = Group { members: vec![member], last_frame: &mut last_frame, log: &mut Leader(source) };
    let committed = group.wait_quorum(Lsn(RECORDS), Policy::Strict, Deadline::after_ms(20_000));
    assert!(!committed.unwrap(), "not degraded");
    assert!(group.members[0].online && group.members[0].link.catch_up.is_none());
    drop(follower.join().unwrap());
    socket::close(group.members[0].fd);
}
