//! Leaders and followers over real sockets: what a Rust program sees when followers leave, come back, or hold another past.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use logship::replication::quorum::Policy;
use logship::{Error, Follower, Leader, Lsn, Options, Record, Result, Timestamp, Wal};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

fn options(followers: usize) -> Options {
    Options { followers, commit_timeout: LONG, ..Options::default() }
}

/// A follower in a thread: it joins, follows until its log ends at `until`, and gives its store back as sorted pairs.
fn follower(directory: &Path, node: u8, port: u16, until: u64) -> JoinHandle<Vec<(Vec<u8>, Vec<u8>)>> {
    let directory = directory.to_path_buf();
    std::thread::spawn(move || {
        let mut follower = Follower::open(directory, node).unwrap();
        follower.join("127.0.0.1", port).unwrap();
        while follower.last_lsn() < Lsn(until) {
            match follower.follow() {
                Ok(_) | Err(Error::CrcMismatch) => {}
                Err(error) => panic!("follower {node}: {error}"),
            }
        }
        pairs(follower.store())
    })
}

fn pairs(store: &logship::Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    logship::kv::StateMachine::for_each(store, &mut |entry| {
        if let Some(value) = entry.value {
            pairs.push((entry.key.to_vec(), value.to_vec()));
        }
        Ok(())
    })
    .unwrap();
    pairs.sort();
    pairs
}

fn set_range(leader: &mut Leader, range: std::ops::Range<u32>) -> Result<()> {
    for number in range {
        leader.set(format!("key-{number}").as_bytes(), format!("value-{number}").as_bytes())?;
    }
    Ok(())
}

fn log_of(directory: &Path) -> Vec<u8> {
    std::fs::read(directory.join("logship.wal")).unwrap()
}

#[test]
fn a_follower_that_leaves_is_noticed_and_catches_up_when_it_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let away: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut leader = Leader::open(home.path(), options(2)).unwrap();
    let steady = follower(away[0].path(), 1, leader.port(), 11);
    let leaving = follower(away[1].path(), 2, leader.port(), 5);
    leader.accept(LONG).unwrap();
    leader.accept(LONG).unwrap();
    set_range(&mut leader, 0..5).unwrap();
    leaving.join().unwrap(); // Its process is "gone": log closed, connection closed.

    let alone = leader.set(b"key-5", b"value-5");
    assert!(matches!(alone, Err(Error::NoQuorum { .. })), "{alone:?}");
    assert_eq!(leader.last_lsn(), Lsn(6), "the write stays in the log");
    assert!(!leader.followers()[1].online && leader.followers()[0].online);

    let back = follower(away[1].path(), 2, leader.port(), 11);
    let joined = leader.accept(LONG).unwrap();
    assert_eq!((joined.index, joined.from, joined.records), (1, Lsn(5), 1));
    set_range(&mut leader, 6..11).unwrap();
    let expected = pairs(leader.store());
    assert_eq!(expected.len(), 11);
    assert_eq!(steady.join().unwrap(), expected);
    assert_eq!(back.join().unwrap(), expected);
    for directory in &away {
        assert_eq!(log_of(directory.path()), log_of(home.path()), "byte for byte");
    }
}

#[test]
fn peers_that_say_nothing_keep_no_follower_waiting() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut leader = Leader::open(home.path(), Options { policy: Policy::Degrade, ..options(2) }).unwrap();
    let mut silent: Vec<_> = (0..17).map(|_| TcpStream::connect(("127.0.0.1", leader.port())).unwrap()).collect();
    silent[16].write_all(&[0; 5]).unwrap(); // A part of a rejoin message.
    assert!(matches!(leader.admit(Duration::ZERO), Err(Error::TimedOut)));
    let only = follower(away.path(), 1, leader.port(), 1);
    assert_eq!(leader.accept(LONG).unwrap().index, 0);
    // They wait no longer for being silent: the rest of the message comes, and a mark that is cut is waited for.
    let ack = logship::replication::message::Ack { lsn: Lsn(0), status: 0, padding: *b"LSHP\x01\x02\x00" };
    silent[16].write_all(&[0; 3]).unwrap();
    silent[16].write_all(&ack.encode()[..9]).unwrap();
    let mut late = silent[16].try_clone().unwrap();
    let rest = std::thread::spawn(move || late.write_all(&ack.encode()[9..]).unwrap());
    assert_eq!(leader.admit(LONG).unwrap(), 1);
    rest.join().unwrap();
    // There is room for 16: the one that had been silent longest is closed.
    assert!(matches!(silent[0].read(&mut [0; 1]), Ok(0)), "closed");
    drop(silent);
    leader.set(b"a", b"1").unwrap();
    only.join().unwrap();
}

#[test]
fn with_the_degraded_policy_a_write_commits_with_those_online_and_says_so() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut leader = Leader::open(home.path(), Options { policy: Policy::Degrade, ..options(3) }).unwrap();
    let only = follower(away.path(), 1, leader.port(), 1);
    leader.accept(LONG).unwrap();
    assert!(leader.set(b"a", b"1").unwrap().degraded);
    only.join().unwrap();
}

#[test]
fn a_batch_is_one_commit_and_reaches_every_follower_in_order() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut leader = Leader::open(home.path(), options(1)).unwrap();
    let only = follower(away.path(), 1, leader.port(), 500);
    leader.accept(LONG).unwrap();
    let keys: Vec<_> = (0..500).map(|number| format!("key-{number}").into_bytes()).collect();
    let batch: Vec<_> = keys.iter().map(|key| Record::set(key, b"value", Timestamp(7))).collect();
    assert_eq!(leader.commit(&batch).unwrap().lsn, Lsn(500));
    assert_eq!(only.join().unwrap(), pairs(leader.store()));
    assert!(matches!(leader.commit(&[]), Err(Error::Invalid(_))));
}

fn wal_with(directory: &Path, values: &[&[u8]]) {
    let mut wal = Wal::open(directory.join("logship.wal")).unwrap();
    for value in values {
        wal.append(&Record::set(b"key", value, Timestamp(1))).unwrap();
    }
}

#[test]
fn a_node_number_that_no_slot_can_have_is_refused_and_nothing_is_created() {
    let away = tempfile::tempdir().unwrap();
    let directory = away.path().join("follower");
    assert!(matches!(Follower::open(&directory, 9), Err(Error::Invalid(_))));
    assert!(!directory.exists());
    assert!(Follower::open(&directory, 8).is_ok());
    let unknown = Follower::open(away.path().join("other"), 0).unwrap().join("no-such-host.invalid", 7000);
    assert_eq!(unknown.unwrap_err().to_string(), "unknown host no-such-host.invalid");
}

/// Joins once and reports how following ended.
fn join_once(directory: PathBuf, port: u16) -> JoinHandle<(Error, Lsn)> {
    std::thread::spawn(move || {
        let mut follower = Follower::open(directory, 1).unwrap();
        follower.join("127.0.0.1", port).unwrap();
        loop {
            if let Err(error) = follower.follow() {
                return (error, follower.last_lsn());
            }
        }
    })
}

#[test]
fn a_follower_with_another_past_is_refused_and_takes_nothing() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    wal_with(home.path(), &[b"1", b"2", b"3"]);
    wal_with(away.path(), &[b"1", b"other"]);
    let before = log_of(away.path());
    let mut leader = Leader::open(home.path(), options(1)).unwrap();
    let refused = join_once(away.path().to_path_buf(), leader.port());
    let seen = leader.accept(LONG);
    assert!(matches!(seen, Err(Error::Diverged { lsn: Lsn(2) })), "{seen:?}");
    let (error, last) = refused.join().unwrap();
    assert!(matches!(error, Error::Diverged { lsn: Lsn(2) }), "{error:?}");
    assert_eq!(last, Lsn(2));
    assert_eq!(log_of(away.path()), before);
    assert!(!leader.followers()[0].online);
}

#[test]
fn a_follower_ahead_of_the_leader_is_refused() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    wal_with(home.path(), &[b"1"]);
    wal_with(away.path(), &[b"1", b"2"]);
    let mut leader = Leader::open(home.path(), options(1)).unwrap();
    let refused = join_once(away.path().to_path_buf(), leader.port());
    let seen = leader.accept(LONG);
    assert!(matches!(seen, Err(Error::FollowerAhead { follower: Lsn(2), leader: Lsn(1) })), "{seen:?}");
    assert_eq!(refused.join().unwrap().1, Lsn(2));
}

#[test]
fn a_second_leader_is_kept_out_of_the_directory() {
    let home = tempfile::tempdir().unwrap();
    let first = Leader::open(home.path(), options(1)).unwrap();
    assert!(matches!(Leader::open(home.path(), options(1)), Err(Error::Locked)));
    drop(first);
    Leader::open(home.path(), options(1)).unwrap();
}

#[test]
fn nobody_coming_is_a_timeout_and_a_silent_peer_does_not_hang_the_leader() {
    let home = tempfile::tempdir().unwrap();
    let mut leader = Leader::open(home.path(), options(1)).unwrap();
    assert!(matches!(leader.accept(Duration::from_millis(10)), Err(Error::TimedOut)));
    let away = tempfile::tempdir().unwrap();
    let mut follower = Follower::open(away.path(), 1).unwrap();
    assert!(matches!(follower.follow(), Err(Error::NotConnected)));
    follower.join("127.0.0.1", leader.port()).unwrap();
    assert!(matches!(follower.follow_for(Duration::from_millis(10)), Err(Error::TimedOut)));
}

/// A proxy that copies bytes both ways, and on the way to the follower flips one bit in the body of every `every`-th
/// record frame it has not damaged before. Frame headers and control messages pass untouched.
fn proxy(leader_port: u16, every: u32) -> (u16, JoinHandle<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = std::thread::spawn(move || {
        let (follower, _) = listener.accept().unwrap();
        let leader = TcpStream::connect(("127.0.0.1", leader_port)).unwrap();
        let (mut up_from, mut up_to) = (follower.try_clone().unwrap(), leader.try_clone().unwrap());
        let up = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = up_from.read(&mut buffer) {
                if up_to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = up_to.shutdown(std::net::Shutdown::Both);
        });
        let flipped = copy_frames(leader, follower, every);
        up.join().unwrap();
        flipped
    });
    (port, handle)
}

fn copy_frames(mut from: TcpStream, mut to: TcpStream, every: u32) -> u32 {
    let (mut seen, mut flipped) = (0, 0);
    loop {
        let mut header = [0; 4];
        if from.read_exact(&mut header).is_err() {
            let _ = to.shutdown(std::net::Shutdown::Both);
            return flipped;
        }
        let word = u32::from_be_bytes(header);
        let mut body = vec![0; (word & 0x7fff_ffff) as usize];
        from.read_exact(&mut body).unwrap();
        if word & 0x8000_0000 == 0 && word > 0 {
            seen += 1;
            if seen % every == 0 {
                let at = seen as usize % body.len();
                body[at] ^= 1 << (seen % 8);
                flipped += 1;
            }
        }
        if to.write_all(&header).and_then(|()| to.write_all(&body)).is_err() {
            return flipped;
        }
    }
}

#[test]
fn a_bit_flipped_in_flight_never_lets_another_record_take_its_number() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut leader = Leader::open(home.path(), options(1)).unwrap();
    let (port, flips) = proxy(leader.port(), 37);
    let only = follower(away.path(), 1, port, 1000);
    leader.accept(LONG).unwrap();
    let keys: Vec<_> = (0..1000).map(|number| format!("key-{number}").into_bytes()).collect();
    for batch in keys.chunks(100) {
        let records: Vec<_> = batch.iter().map(|key| Record::set(key, b"value", Timestamp(9))).collect();
        leader.commit(&records).unwrap();
    }
    assert!(only.join().unwrap() == pairs(leader.store()), "the stores differ");
    assert!(log_of(away.path()) == log_of(home.path()), "the logs differ");
    drop(leader);
    assert!(flips.join().unwrap() > 10, "the proxy did its damage");
}

#[test]
fn many_followers_join_a_leader_that_has_a_long_log() {
    let home = tempfile::tempdir().unwrap();
    {
        let mut wal = Wal::open(home.path().join("logship.wal")).unwrap();
        let keys: Vec<_> = (0..20_000).map(|number| format!("key-{number}").into_bytes()).collect();
        let records: Vec<_> = keys.iter().map(|key| Record::set(key, &[b'x'; 100], Timestamp(1))).collect();
        wal.append_batch(&records).unwrap();
    }
    let mut leader = Leader::open(home.path(), options(3)).unwrap();
    let (port, (ready, wait)) = (leader.port(), mpsc::channel());
    let followers: Vec<_> = (1..=3u8)
        .map(|node| {
            let ready = ready.clone();
            std::thread::spawn(move || {
                let away = tempfile::tempdir().unwrap();
                let mut follower = Follower::open(away.path(), node).unwrap();
                follower.join("127.0.0.1", port).unwrap();
                ready.send(()).unwrap();
                while follower.last_lsn() < Lsn(100) {
                    follower.follow().unwrap();
                }
                follower.last_lsn()
            })
        })
        .collect();
    for _ in 0..3 {
        wait.recv().unwrap();
        // A follower that leaves in the middle of its catch-up is an error for the leader, not the end of it.
        let _ = leader.accept(LONG);
    }
    for follower in followers {
        assert_eq!(follower.join().unwrap(), Lsn(100));
    }
}
