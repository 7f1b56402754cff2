//! A process that compacts its log is killed (SIGKILL), again and again: nothing that it has acknowledged is lost.
//!
//! Nothing else runs in this test's process: a child that another test has just forked would hold the lock of a log
//! that was closed here, until it is another program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::compacted::{ALL, beside, is_whole, log_of, write};
use common::{Random, names_in, quiet, temp_dir};
use logship::kv::StateMachine;
use logship::kv::table::Store;
use logship::wal::checkpoint::{self, Covered};
use logship::wal::compact::Retention;
use logship::{Lsn, Wal, wal};
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "LOGSHIP_TEST_CHILD_DIRECTORY";

/// Appends and compacts until it is killed, and says which LSN it has appended. Not a test by itself: the next one
/// starts it in a process of its own.
#[test]
fn a_process_that_appends_and_compacts() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let path = PathBuf::from(directory).join("wal");
    let mut wal = Wal::open(&path).unwrap();
    let mut store = Store::new();
    wal::recover(&path, &mut store).unwrap();
    // libtest's own output is in front of the first line.
    let mut out = std::io::stdout().lock();
    writeln!(out).unwrap();
    for round in 0..100_000usize {
        for _ in 0..round % 3 {
            let next = write(usize::try_from(wal.last_lsn().0).unwrap() + 1);
            store.apply(&next.record()).unwrap();
            wal.append(&next.record()).unwrap();
        }
        let covered = Covered { offset: wal.len(), lsn: wal.last_lsn(), history: wal.tail().history() };
        if wal.last_lsn() > Lsn::ZERO {
            checkpoint::write(&store, &beside(&path, ".ckpt"), covered).unwrap();
            let keep = Retention { records: round as u64 % 4, ..ALL };
            wal.compact(beside(&path, ".ckpt"), &keep, None).unwrap();
        }
        writeln!(out, "acked {}", wal.last_lsn()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_process_killed_at_random_moments_of_200_compactions_loses_nothing() {
    quiet();
    let directory = temp_dir();
    let path = directory.path().join("wal");
    let (mut random, mut acked, mut killed_in) = (Random(3), 0, 0);
    for round in 0..70 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_appends_and_compacts", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(|line| line.ok());
        let mut rest = 2 + random.below(3);
        while rest > 0 {
            let line = lines.next().unwrap_or_else(|| panic!("round {round}: the child ended"));
            if let Some(lsn) = line.strip_prefix("acked ") {
                acked = lsn.parse().unwrap();
                rest -= 1;
            }
        }
        // A random moment of what comes after the line; every second time of what comes after a file has begun.
        let has_begun = || names_in(directory.path()).iter().any(|name| name.contains(".tmp-"));
        let patience = Instant::now() + Duration::from_secs(5);
        while round % 2 == 0 && !has_begun() && Instant::now() < patience {}
        let until = Instant::now() + Duration::from_micros(random.next() % if round % 2 == 0 { 50 } else { 500 });
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acked = lines.filter_map(|line| line.strip_prefix("acked ")?.parse().ok()).last().unwrap_or(acked);
        killed_in += usize::from(has_begun());

        let wal = Wal::open(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let (base, last) = (usize::try_from(wal.base_lsn().0).unwrap(), usize::try_from(wal.last_lsn().0).unwrap());
        drop(wal);
        // What was in flight may be there or not.
        assert!((acked..=acked + 2).contains(&last), "round {round}: {acked} were acknowledged, {last} are there");
        let log = log_of(last);
        is_whole(&path, &log, base, &format!("round {round}"));
        let mut left = names_in(directory.path());
        if base == 0 {
            // Written before the log was replaced, for both: the old log finds itself in it.
            left.retain(|name| name != "wal.meta");
        }
        // A kill between a checkpoint's two files leaves what belongs to neither.
        left.retain(|name| !name.contains(".stamps-"));
        let expected: &[&str] = if base > 0 { &["wal", "wal.ckpt", "wal.meta"] } else { &["wal", "wal.ckpt"] };
        assert_eq!(left, expected, "round {round}: nothing is left of what was interrupted");
    }
    assert!(acked >= 100, "{acked} records, 200 compactions");
    assert!(killed_in > 0, "none of the kills came in the middle of something");
}
