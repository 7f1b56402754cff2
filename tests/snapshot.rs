//! A follower whose missing records were compacted away gets the leader's checkpoint: whole or not at all, going on
//! where a connection broke off, with its old state kept through every failure before the installation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::compacted::{beside, history_of};
use common::snapshot::{
    LONG, Proxy, Seen, WAL, both_are_equal, follow_to, home_with, join_through, leader, log_of, state_of, tail_of,
};
use common::{Log, Write, kinds_in, names_in, quiet, temp_dir};
use logship::wal::checkpoint::{self, Covered};
use logship::wal::compact::Retention;
use logship::wal::record::RECORD_MAX;
use logship::{Error, Follower, Lsn, Wal};
use std::io::Write as _;
use std::net::TcpStream;
use tempfile::TempDir;

/// A follower's directory with this log.
fn away_with(writes: &[Write]) -> TempDir {
    let away = temp_dir();
    let mut wal = Wal::open(away.path().join(WAL)).unwrap();
    let records: Vec<_> = writes.iter().map(Write::record).collect();
    wal.append_batch(&records).unwrap();
    away
}

#[test]
fn a_follower_behind_the_base_gets_the_snapshot_and_then_the_tail() {
    quiet();
    let log = log_of(400);
    // An empty follower, one that is far behind, and one that lacks just the first record that is gone; a log whose
    // tail is long, short, and empty.
    for (has, covered) in [(0, 250), (100, 399), (248, 250), (0, 400), (398, 400)] {
        let what = format!("{has} of {covered} of 400");
        let (home, away) = (home_with(&log, covered), away_with(&log.writes[..has]));
        let mut leader = leader(home.path());
        let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(400), Proxy::default());
        let joined = joined.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((joined.index, joined.from, joined.snapshot), (0, Lsn(has as u64), true), "{what}");
        assert_eq!(joined.records, 400 - covered as u64, "{what}: only the tail comes record by record");
        assert_eq!(seen.records, 400 - covered, "{what}");
        ended.unwrap_or_else(|error| panic!("{what}: {error}"));
        drop(leader);
        both_are_equal(home.path(), away.path(), &what);
        assert_eq!(state_of(away.path()).base, Lsn(covered as u64 - 1), "{what}");
        assert_eq!(
            kinds_in(away.path()),
            [WAL, "logship.wal.ckpt", "logship.wal.ckpt.stamps", "logship.wal.meta"],
            "{what}"
        );
    }
}

#[test]
fn a_follower_at_the_base_or_above_it_gets_records_only() {
    quiet();
    let log = log_of(60);
    for has in [39, 40, 59] {
        let (home, away) = (home_with(&log, 40), away_with(&log.writes[..has]));
        let mut leader = leader(home.path());
        let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(60), Proxy::default());
        let joined = joined.unwrap();
        assert_eq!((joined.records, joined.snapshot), (60 - has as u64, false), "{has}");
        assert_eq!((seen.chunks, seen.snapshots), (0, 0), "{has}");
        ended.unwrap();
        drop(leader);
        assert_eq!(state_of(away.path()).base, Lsn(0), "{has}: its log is its own");
        assert_eq!(state_of(away.path()).store, state_of(home.path()).store, "{has}");
    }
}

#[test]
fn what_is_written_after_the_snapshot_comes_too_and_is_there_after_all_reopen() {
    quiet();
    let (home, away) = (home_with(&log_of(50), 50), temp_dir());
    let mut leader = leader(home.path());
    let port = leader.port();
    let directory = away.path().to_path_buf();
    let follower = std::thread::spawn(move || follow_to(&directory, port, Lsn(53)));
    assert!(leader.accept(LONG).unwrap().snapshot);
    for number in 0..3 {
        assert_eq!(leader.set(format!("new-{number}").as_bytes(), b"value").unwrap().lsn, Lsn(51 + number));
    }
    follower.join().unwrap().unwrap();
    // Compacted on, with the follower that is up to date: it needs no snapshot.
    leader.compact(&Retention::default()).unwrap();
    let directory = away.path().to_path_buf();
    let follower = std::thread::spawn(move || follow_to(&directory, port, Lsn(54)));
    assert!(!leader.accept(LONG).unwrap().snapshot);
    leader.set(b"one", b"more").unwrap();
    follower.join().unwrap().unwrap();
    drop(leader);
    let (home, away) = (state_of(home.path()), state_of(away.path()));
    assert_eq!((home.base, home.last, home.history), (Lsn(52), away.last, away.history));
    assert_eq!(away.base, Lsn(49));
    assert!(home.store == away.store, "the stores differ");
}

#[test]
fn a_connection_cut_after_every_chunk_goes_on_where_it_broke_off() {
    quiet();
    let log = log_of(1200);
    let (home, away) = (home_with(&log, 1190), away_with(&log.writes[..30]));
    let before = state_of(away.path());
    let size = checkpoint::open(&home.path().join(WAL).with_extension("wal.ckpt")).unwrap().packed_len();
    let mut leader = leader(home.path());
    let mut sent = 0;
    let mut attempts = 0;
    loop {
        let cut = Proxy { cut_after_chunks: Some(1), ..Proxy::default() };
        let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(1200), cut);
        assert_eq!(seen.snapshots, 1, "it is offered every time");
        if seen.chunks == 0 {
            // It was whole: no byte is sent again, it is installed, and the tail comes.
            assert_eq!((joined.unwrap().records, sent), (10, size));
            ended.unwrap();
            break;
        }
        sent += seen.chunk_bytes;
        attempts += 1;
        assert_eq!(seen.chunks, 1);
        assert!(joined.is_err() && ended.is_err(), "cut");
        assert!(!leader.followers()[0].online);
        assert_eq!(state_of(away.path()), before, "the old state, {attempts} chunks");
    }
    assert!(attempts > 8, "{attempts} chunks");
    drop(leader);
    both_are_equal(home.path(), away.path(), "in the end");
}

#[test]
fn a_connection_cut_before_and_behind_the_install_message() {
    quiet();
    let log = log_of(300);
    let (home, away) = (home_with(&log, 290), away_with(&log.writes[..30]));
    let before = state_of(away.path());
    let mut leader = leader(home.path());
    let cut = Proxy { cut_before_install: true, ..Proxy::default() };
    let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(300), cut);
    assert!(joined.is_err() && ended.is_err() && seen.chunks > 0);
    assert_eq!(state_of(away.path()), before);
    // The follower gets it, and the leader never hears of it.
    let cut = Proxy { cut_behind_install: true, ..Proxy::default() };
    let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(300), cut);
    assert!(joined.is_err() && ended.is_err());
    assert_eq!((seen.snapshots, seen.chunks), (1, 0), "all of it was there");
    let state = state_of(away.path());
    assert_eq!((state.base, state.last, state.history), (Lsn(289), Lsn(290), history_of(&log, 290)));
    assert!(state.store == log.store_of(290));
    let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(300), Proxy::default());
    let joined = joined.unwrap();
    assert_eq!((joined.from, joined.records, joined.snapshot, seen.snapshots), (Lsn(290), 10, false, 0));
    ended.unwrap();
    drop(leader);
    both_are_equal(home.path(), away.path(), "in the end");
}

#[test]
fn a_damaged_chunk_is_noticed_and_what_came_before_it_is_not_sent_again() {
    quiet();
    let log = log_of(700);
    let (home, away) = (home_with(&log, 700), away_with(&log.writes[..30]));
    let before = state_of(away.path());
    let mut leader = leader(home.path());
    // A bit of the content, of its CRC, and of its offset.
    for (chunk, at) in [(1, 500), (1, 10), (2, 3)] {
        let damage = Proxy { damage_chunk: Some((chunk, at)), ..Proxy::default() };
        let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(700), damage);
        let joined = joined.unwrap_err();
        assert!(matches!(joined, Error::Refused(_) | Error::NotConnected | Error::Io(_)), "{joined}");
        assert!(matches!(ended, Err(Error::Protocol(_))), "{ended:?}");
        assert!(seen.chunks >= chunk);
        assert_eq!(state_of(away.path()), before);
    }
    let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(700), Proxy::default());
    assert!(joined.unwrap().snapshot);
    let size = std::fs::metadata(home.path().join("logship.wal.ckpt")).unwrap().len();
    // Chunks 0, then 0 of the second attempt (the second of all), then 0 and 1 of the third came through whole.
    assert!(seen.chunk_bytes < size - 2 * 128 * 1024, "{} of {size} bytes were sent in the end", seen.chunk_bytes);
    ended.unwrap();
    drop(leader);
    both_are_equal(home.path(), away.path(), "in the end");
}

/// What lies on the follower's disk is damaged while the connection is away: the whole is checked before it counts.
#[test]
fn a_part_that_was_damaged_on_the_followers_disk_is_noticed() {
    quiet();
    let log = log_of(500);
    let (home, away) = (home_with(&log, 500), away_with(&log.writes[..30]));
    let before = state_of(away.path());
    let mut leader = leader(home.path());
    let cut = Proxy { cut_after_chunks: Some(2), ..Proxy::default() };
    drop(join_through(&mut leader, away.path(), Lsn(500), cut));
    let part = names_in(away.path()).into_iter().find(|name| name.contains(".snapshot-")).unwrap();
    let mut bytes = std::fs::read(away.path().join(&part)).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(away.path().join(&part), &bytes).unwrap();
    let (joined, _, ended) = join_through(&mut leader, away.path(), Lsn(500), Proxy::default());
    assert!(matches!(joined, Err(Error::Refused(_))), "{joined:?}");
    assert!(matches!(ended, Err(Error::Malformed(_))), "{ended:?}");
    assert_eq!(state_of(away.path()), before);
    // More bytes than the whole has.
    std::fs::write(away.path().join(&part), vec![7; 4_000_000]).unwrap();
    let (joined, _, ended) = join_through(&mut leader, away.path(), Lsn(500), Proxy::default());
    assert!(joined.unwrap().snapshot);
    ended.unwrap();
    drop(leader);
    both_are_equal(home.path(), away.path(), "from the beginning");
}

#[test]
fn a_newer_snapshot_takes_the_place_of_one_that_broke_off() {
    quiet();
    let log = log_of(600);
    let (home, away) = (home_with(&log, 400), away_with(&log.writes[..30]));
    let mut leader = leader(home.path());
    let cut = Proxy { cut_after_chunks: Some(1), ..Proxy::default() };
    drop(join_through(&mut leader, away.path(), Lsn(600), cut));
    leader.compact(&Retention::default()).unwrap();
    let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(600), Proxy::default());
    assert_eq!((joined.unwrap().records, seen.records), (0, 0));
    ended.unwrap();
    drop(leader);
    both_are_equal(home.path(), away.path(), "the newer one");
    assert_eq!(kinds_in(away.path()), [WAL, "logship.wal.ckpt", "logship.wal.ckpt.stamps", "logship.wal.meta"]);
}

#[test]
fn a_follower_with_another_past_gets_exactly_the_leaders_store() {
    quiet();
    let log = log_of(200);
    // Keys that the leader never had, later values of its keys, and deletions that it has not seen; as long as what the
    // leader still has, almost, or short. One that was compacted itself.
    let other = |lsn: usize| match lsn % 4 {
        0 => Write::set(format!("mine-{lsn}").as_bytes(), b"?", 5_000_000 + lsn as u64),
        1 => Write::set(format!("key-{}", lsn % 97).as_bytes(), b"later", 5_000_000 + lsn as u64),
        2 => Write::del(format!("key-{}", lsn % 97).as_bytes(), 5_000_000 + lsn as u64),
        _ => Write::set(b"unstamped", b"x", 0),
    };
    for (has, compacted) in [(50, false), (148, false), (148, true)] {
        let what = format!("{has} records, compacted {compacted}");
        let (home, away) = (home_with(&log, 150), away_with(&(1..=has).map(other).collect::<Vec<_>>()));
        if compacted {
            let mut leader = leader(away.path());
            leader.compact(&Retention { records: 20, ..Retention::default() }).unwrap();
        }
        let mut leader = leader(home.path());
        let (joined, _, ended) = join_through(&mut leader, away.path(), Lsn(200), Proxy::default());
        assert!(joined.unwrap_or_else(|error| panic!("{what}: {error}")).snapshot, "{what}");
        ended.unwrap();
        drop(leader);
        both_are_equal(home.path(), away.path(), &what);
        assert!(state_of(away.path()).store == log.store_of(200), "{what}");
    }
}

/// Behind the base nobody can ask whose records a follower has. At the base and above it is refused.
#[test]
fn a_follower_with_another_past_that_the_log_can_tell_is_refused() {
    quiet();
    let log = log_of(60);
    for has in [39, 45] {
        let mut writes = log.writes[..has].to_vec();
        writes[has / 2].timestamp += 1; // Its last record is the leader's.
        let (home, away) = (home_with(&log, 40), away_with(&writes));
        let before = state_of(away.path());
        let mut leader = leader(home.path());
        let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(60), Proxy::default());
        assert!(matches!(joined, Err(Error::Diverged { .. })), "{has}: {joined:?}");
        assert!(matches!(ended, Err(Error::Diverged { .. })), "{has}: {ended:?}");
        assert_eq!(seen.snapshots, 0);
        assert_eq!(state_of(away.path()), before, "whatever was on its way");
    }
}

#[test]
fn a_plain_peer_behind_the_base_is_told_that_its_records_are_gone() {
    quiet();
    let log = log_of(60);
    let home = home_with(&log, 40);
    let mut leader = leader(home.path());
    for lsn in [0u64, 38] {
        let mut peer = TcpStream::connect(("127.0.0.1", leader.port())).unwrap();
        peer.write_all(&lsn.to_be_bytes()).unwrap();
        let joined = leader.accept(LONG);
        match &joined {
            Err(error @ Error::Compacted { follower, base }) => {
                assert_eq!((*follower, *base, error.errno()), (Lsn(lsn), Lsn(39), libc::ENODATA));
            }
            other => panic!("{other:?}"),
        }
        assert!(!leader.followers()[0].online);
    }
    // At the base it gets the lesson's frames and nothing else.
    let mut peer = TcpStream::connect(("127.0.0.1", leader.port())).unwrap();
    peer.write_all(&39u64.to_be_bytes()).unwrap();
    assert_eq!(leader.accept(LONG).unwrap().records, 21);
    for lsn in 40..=60 {
        assert_eq!(tail_of(&mut peer), log.bytes[log.end_of(lsn - 1)..log.end_of(lsn)], "record {lsn}");
    }
}

#[test]
fn a_checkpoint_that_the_leader_can_not_use_changes_nothing_on_the_follower() {
    quiet();
    let log = log_of(300);
    let (home, away) = (home_with(&log, 200), away_with(&log.writes[..30]));
    let before = state_of(away.path());
    let mut leader = leader(home.path());
    let ckpt = beside(&home.path().join(WAL), ".ckpt");
    let kept = std::fs::read(&ckpt).unwrap();
    let mut damaged = kept.clone();
    damaged[kept.len() / 2] ^= 1;
    let at = |log: &Log, count: usize| {
        let covered = Covered { offset: 0, lsn: Lsn(count as u64), history: history_of(log, count) };
        checkpoint::write(&log.store_of(count), &ckpt, covered).unwrap();
    };
    let mut refused = |what: &str| {
        let (joined, seen, ended) = join_through(&mut leader, away.path(), Lsn(300), Proxy::default());
        assert_eq!(joined.map(|joined| panic!("{what}: {joined:?}")).unwrap_err().errno(), libc::EBADMSG, "{what}");
        assert!(ended.is_err(), "{what}");
        assert_eq!((seen.snapshots, seen.records), (0, 0), "{what}");
        assert_eq!(state_of(away.path()), before, "{what}");
    };
    std::fs::write(&ckpt, &damaged).unwrap();
    refused("damaged");
    std::fs::write(&ckpt, &kept[..kept.len() - 1]).unwrap();
    refused("cut");
    at(&log, 199);
    refused("covers less than is gone");
    at(&Log::new(log.writes.iter().map(|write| Write { timestamp: 1, ..write.clone() }).collect()), 250);
    refused("of another log");
    at(&log, 200);
    let (joined, _, ended) = join_through(&mut leader, away.path(), Lsn(300), Proxy::default());
    assert!(joined.unwrap().snapshot);
    ended.unwrap();
    drop(leader);
    both_are_equal(home.path(), away.path(), "in the end");
}

#[test]
fn the_record_that_goes_with_a_snapshot_may_be_of_the_largest_size() {
    quiet();
    let mut writes = log_of(20).writes;
    writes.push(Write::set(&[b'k'; 65_535], &[b'v'; 65_535], 77));
    writes.extend(log_of(5).writes);
    let log = Log::new(writes);
    assert_eq!(log.end_of(21) - log.end_of(20), RECORD_MAX);
    let (home, away) = (home_with(&log, 21), temp_dir());
    let mut leader = leader(home.path());
    let (joined, Seen { records, .. }, ended) = join_through(&mut leader, away.path(), Lsn(26), Proxy::default());
    assert_eq!((joined.unwrap().records, records), (5, 5));
    ended.unwrap();
    drop(leader);
    both_are_equal(home.path(), away.path(), "the largest");
}

/// Records that were received before the snapshot and not handed out yet are part of the log that it replaces.
#[test]
fn a_follower_that_got_a_snapshot_counts_from_there() {
    quiet();
    let (home, away) = (home_with(&log_of(90), 80), temp_dir());
    let mut leader = leader(home.path());
    let port = leader.port();
    let directory = away.path().to_path_buf();
    let follower = std::thread::spawn(move || {
        let mut follower = Follower::open(directory, 1).unwrap();
        follower.join("127.0.0.1", port).unwrap();
        let lsns: Vec<u64> = (0..10).map(|_| follower.follow().unwrap().0).collect();
        (lsns, follower.last_lsn())
    });
    leader.accept(LONG).unwrap();
    assert_eq!(follower.join().unwrap(), ((81..=90).collect(), Lsn(90)));
}
