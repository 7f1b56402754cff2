//! A follower that is killed (SIGKILL) while it takes a snapshot in, or whose disk is full: its old state is there, or
//! the new one, and what has come is not sent again.
//!
//! Nothing else runs in this test's process: a child that another test has just forked would hold the lock of a log
//! that was closed here, until it is another program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::compacted::history_of;
use common::snapshot::{
    Frame, LONG, Proxy, WAL, both_are_equal, follow_to, home_with, join_through, leader, log_of, state_of,
};
use common::{Random, Write, kinds_in, names_in, quiet, temp_dir};
use logship::wal::checkpoint;
use logship::{Error, Lsn, Wal};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One test at a time: see above.
static ALONE: Mutex<()> = Mutex::new(());

const CHILD: &str = "LOGSHIP_TEST_FOLLOWER";

/// Follows a leader until its log is whole, or it is killed. Not a test by itself: the others start it in a process of
/// its own.
#[test]
fn a_process_that_follows() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let mut parts = arguments.splitn(3, ' ');
    let mut number = || parts.next().unwrap().parse::<u64>().unwrap();
    let (port, until) = (number(), number());
    follow_to(Path::new(parts.next().unwrap()), u16::try_from(port).unwrap(), Lsn(until)).unwrap();
}

fn start_follower(directory: &Path, port: u16, until: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_follows", "--nocapture"])
        .env(CHILD, format!("{port} {until} {}", directory.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn spin(duration: Duration) {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

#[test]
fn a_follower_killed_at_random_moments_has_its_old_state_or_the_new_one() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    quiet();
    let log = log_of(500);
    let home = home_with(&log, 490);
    let mut leader = leader(home.path());
    let old = common::Log::new((1..=40).map(|lsn| Write::set(b"mine", b"x", lsn)).collect());
    let mut random = Random(17);
    let (mut olds, mut news) = (0, 0);
    for round in 0..30usize {
        let what = format!("round {round}");
        let away = temp_dir();
        std::fs::write(away.path().join(WAL), &old.bytes).unwrap();
        let before = state_of(away.path());
        // Behind the offer, a chunk, the message that it is whole, or the first record of the tail; then something
        // between nothing and the time that an installation takes.
        let (event, count) = match round % 6 {
            0 => (Frame::Snapshot, 0),
            1 => (Frame::Chunk, 1 + random.below(3)),
            2 => (Frame::Record, 0),
            _ => (Frame::Install, 0),
        };
        let wait = Duration::from_micros(random.next() % if event == Frame::Install { 8000 } else { 200 });
        let child: Arc<Mutex<Option<Child>>> = Arc::default();
        let victim = Arc::clone(&child);
        let watch = move |frame: Frame, seen: &common::snapshot::Seen| {
            if frame == event && seen.chunks >= count {
                spin(wait);
                victim.lock().unwrap().as_mut().unwrap().kill().unwrap();
            }
        };
        let (port, passed) = Proxy { watch: Some(Box::new(watch)), ..Proxy::default() }.start(leader.port());
        *child.lock().unwrap() = Some(start_follower(away.path(), port, 500));
        let joined = leader.accept(LONG);
        passed.join().unwrap();
        child.lock().unwrap().take().unwrap().wait().unwrap();

        let state = state_of(away.path());
        if state.last == Lsn(40) {
            assert!(state == before, "{what}: its old state");
            olds += 1;
        } else {
            let last = usize::try_from(state.last.0).unwrap();
            assert!((490..=500).contains(&last) && state.base == Lsn(489), "{what}: {} {}", state.base, state.last);
            assert_eq!(state.history, history_of(&log, last), "{what}");
            assert!(state.store == log.store_of(last), "{what}: the new store");
            news += 1;
        }
        drop(joined); // The leader may have seen it come to its end or not.
        let (joined, _, ended) = join_through(&mut leader, away.path(), Lsn(500), Proxy::default());
        if state.last < Lsn(500) {
            joined.unwrap_or_else(|error| panic!("{what}: {error}"));
            ended.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let after = state_of(away.path());
        assert_eq!((after.last, after.history), (Lsn(500), history_of(&log, 500)), "{what}");
        assert!(after.store == log.store_of(500), "{what}: whole in the end");
        assert_eq!(
            kinds_in(away.path()),
            [WAL, "logship.wal.ckpt", "logship.wal.ckpt.stamps", "logship.wal.meta"],
            "{what}: nothing is left over"
        );
    }
    assert!(olds > 0 && news > 0, "{olds} times the old state, {news} times the new one");
}

/// A small file system that is gone when this is dropped.
struct SmallDisk {
    at: PathBuf,
    _directory: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`: this process may not mount one.
    fn mount(size: &str) -> Option<SmallDisk> {
        let directory = temp_dir();
        let at = directory.path().to_path_buf();
        let mounted = run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at.to_str().unwrap()]);
        mounted.then_some(SmallDisk { at, _directory: directory })
    }

    fn resize(&self, size: &str) {
        assert!(run("mount", &["-o", &format!("remount,size={size}"), self.at.to_str().unwrap()]));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["-l", self.at.to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn a_follower_whose_disk_is_full_keeps_its_state_and_goes_on_when_there_is_room() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    quiet();
    let Some(disk) = SmallDisk::mount("400k") else {
        // Past libtest, which would swallow it.
        writeln!(std::io::stderr(), "SKIPPED: a full disk needs a tmpfs, and this process may not mount one").unwrap();
        return;
    };
    let log = log_of(900);
    let home = home_with(&log, 890);
    let size = checkpoint::open(&home.path().join(WAL).with_extension("wal.ckpt")).unwrap().packed_len();
    assert!(size > 600_000);
    let path = disk.at.join(WAL);
    Wal::open(&path).unwrap().append(&Write::set(b"mine", b"x", 1).record()).unwrap();
    let before = state_of(&disk.at);
    let mut leader = leader(home.path());
    for _ in 0..2 {
        let (joined, _, ended) = join_through(&mut leader, &disk.at, Lsn(900), Proxy::default());
        assert!(joined.is_err(), "{joined:?}");
        assert!(matches!(&ended, Err(Error::Io(error)) if error.raw_os_error() == Some(libc::ENOSPC)), "{ended:?}");
        assert!(!leader.followers()[0].online);
        // It can't even note where a log begins; reading is enough.
        assert_eq!(state_of(&disk.at), before);
    }
    let part = names_in(&disk.at).into_iter().find(|name| name.contains(".snapshot-")).unwrap();
    let have = std::fs::metadata(disk.at.join(part)).unwrap().len();
    assert!(have > 100_000, "{have} bytes had room");
    disk.resize("16m");
    let (joined, seen, ended) = join_through(&mut leader, &disk.at, Lsn(900), Proxy::default());
    assert!(joined.unwrap().snapshot);
    ended.unwrap();
    assert_eq!(seen.chunk_bytes, size - have, "what had room is not sent again");
    drop(leader);
    both_are_equal(home.path(), &disk.at, "in the end");
}
