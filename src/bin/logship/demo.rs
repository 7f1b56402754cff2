//! `logship demo`: a follower process is killed, misses records and comes back, with a progress line while it catches
//! up. The leader is this process, the follower this program started again.

use crate::args;
use indicatif::{ProgressBar, ProgressStyle};
use logship::net::catch_up::Report;
use logship::{Error, Follower, Leader, Lsn, Options, Record, Timestamp, clock};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take that another process does.
const PATIENCE: Duration = Duration::from_secs(30);
/// Records that are written with one fsync.
const BATCH: u64 = 1_000;

/// A process that is ended with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(options: &args::Demo) -> Result<u8, String> {
    let directory = tempfile::Builder::new().prefix("logship-demo-").tempdir().map_err(|error| error.to_string())?;
    // What the library has to say, a follower that is gone above all, the demo says itself.
    logship::diag::set_sink(Some(|_, _| ()));
    demo(directory.path(), options.missed).map_err(|error| error.to_string())?;
    Ok(0)
}

fn demo(directory: &Path, missed: u64) -> logship::Result<()> {
    let options = Options { followers: 1, ..Options::default() };
    let mut leader = Leader::open(directory.join("leader"), options)?;
    let home = directory.join("follower");
    let follower = start(&home, leader.port())?;
    leader.accept(PATIENCE)?;
    let commit = leader.set(b"name", b"alice")?;
    println!("leader: LSN {} is on the follower's disk too", commit.lsn);
    drop(follower);
    println!("follower: killed");
    write(&mut leader, missed)?;
    println!("leader: {missed} more records, without it; its log ends with LSN {}", leader.last_lsn());

    let again = start(&home, leader.port())?;
    let bar = ProgressBar::new(missed).with_style(style());
    let begin = Instant::now();
    let show = |report: &Report| {
        bar.set_length(report.total);
        bar.set_position(report.records);
        bar.set_message(format!("{} MB", report.bytes / 1_000_000));
    };
    let joined = leader.accept_and_watch(PATIENCE, &show)?;
    bar.finish_and_clear();
    let sent = begin.elapsed();
    println!("follower: back, its log ended with LSN {}, and it was sent {} records", joined.from, joined.records);
    let commit = leader.set(b"city", b"oslo")?;
    println!("leader: LSN {} is on the follower's disk, and all before it", commit.lsn);
    eprintln!("sent in {} ms, all acknowledged after {} ms", sent.as_millis(), begin.elapsed().as_millis());
    drop(again);
    Ok(())
}

fn write(leader: &mut Leader, count: u64) -> logship::Result<()> {
    let value = [b'v'; 100];
    for first in (0..count).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        let keys: Vec<String> = (first..count.min(first + BATCH)).map(|number| format!("key-{number:012}")).collect();
        let stamp = |_: &String| clock::next_timestamp();
        let stamps: Vec<Timestamp> = keys.iter().map(stamp).collect();
        let record = |(key, stamp)| Record::set(str::as_bytes(key), &value, stamp);
        let records: Vec<Record<'_>> = keys.iter().map(String::as_str).zip(stamps).map(record).collect();
        // With its only follower away, no quorum can have them. They are in the leader's log.
        leader.commit(&records).map(|_| ()).or_else(|error| match error {
            Error::NoQuorum { .. } => Ok(()),
            error => Err(error),
        })?;
    }
    Ok(())
}

fn start(home: &Path, port: u16) -> logship::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("__follow").arg(home).arg(port.to_string()).stdin(Stdio::null());
    Ok(Running(command.spawn()?))
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records, {msg}, {per_sec}, {eta} left");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The follower: receives until its leader is gone.
pub(crate) fn follow(options: &args::Follow) -> Result<u8, String> {
    let follow = || -> logship::Result<Lsn> {
        let mut follower = Follower::open(&options.home, 1)?;
        follower.join("127.0.0.1", options.port)?;
        loop {
            follower.follow_for(PATIENCE)?;
        }
    };
    match follow() {
        Ok(_) | Err(Error::NotConnected) => Ok(0),
        Err(error) => Err(format!("the demo's follower: {error}")),
    }
}
