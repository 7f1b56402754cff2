//! The leader's process: it writes as fast as a quorum commits, and between two writes it takes whoever joins, asks who
//! lives, and does what the drill says.

use crate::ledger::{Ledger, NUMBERS_PER_LIFE, value_of};
use crate::role::{self, say};
use crate::schedule::{FOLLOWERS, Random};
use logship::wal::compact::Retention;
use logship::{Error, FollowerStatus, Joined, Leader, Options, Record, clock};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

const COMMIT: Duration = Duration::from_millis(700);
const HEARTBEAT_EVERY: Duration = Duration::from_millis(700);
const HEARTBEAT: Duration = Duration::from_millis(300);
/// How long a writer that was refused waits for somebody to join before it tries again.
const PAUSE: Duration = Duration::from_millis(30);
const KEYS: u64 = 2_000;

/// Where things are.
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    /// Followers read here where the leader listens.
    pub(crate) address: PathBuf,
    pub(crate) ledger: PathBuf,
    pub(crate) host: String,
}

/// Runs until the drill closes stdin or sends `quit`.
pub(crate) fn run(place: &Place, seed: u64, life: u64, commands: &Receiver<String>) -> Result<(), String> {
    let leader = open(place, commands)?;
    publish(&place.address, &format!("{} {}", place.host, leader.port()))?;
    let mut random = Random(seed ^ life.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let beside = random.between(0, 2) == 0;
    say(&format!("open {} {}", leader.last_lsn(), if beside { "admits" } else { "accepts" }));
    let writer = Writer { ledger: Ledger::open(&place.ledger, life)?, random, next: life * NUMBERS_PER_LIFE };
    let followers = leader.followers();
    let behind = [false; FOLLOWERS as usize];
    Node { leader, writer, counts: Counts::default(), beside, behind, followers }.serve(commands)
}

/// A disk that is full at this moment is waited for.
fn open(place: &Place, commands: &Receiver<String>) -> Result<Leader, String> {
    let mut said = false;
    loop {
        let options = Options {
            host: place.host.clone(),
            followers: usize::from(FOLLOWERS),
            commit_timeout: COMMIT,
            ..Options::default()
        };
        match Leader::open(&place.directory, options) {
            Ok(leader) => return Ok(leader),
            Err(error) if error.errno() == libc::ENOSPC => {
                if !std::mem::replace(&mut said, true) {
                    say(&format!("waiting {error}"));
                }
            }
            Err(error) => return Err(format!("open: {error}")),
        }
        match commands.recv_timeout(Duration::from_millis(100)) {
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err("the drill is gone".to_owned()),
            _ => continue,
        }
    }
}

/// A reader sees the old address or the new one.
fn publish(path: &Path, address: &str) -> Result<(), String> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, address)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[derive(Default)]
struct Counts {
    acked: u64,
    last_ack: Option<Instant>,
    longest_pause: Duration,
    /// The longest call of each kind: nothing else happens meanwhile.
    accept: Duration,
    heartbeat: Duration,
    commit: Duration,
}

struct Node {
    leader: Leader,
    writer: Writer,
    counts: Counts,
    /// Followers are caught up beside the commits, not before the next one.
    beside: bool,
    /// Those that are.
    behind: [bool; FOLLOWERS as usize],
    /// What was known of them before.
    followers: Vec<FollowerStatus>,
}

impl Node {
    fn serve(mut self, commands: &Receiver<String>) -> Result<(), String> {
        let (mut writes, mut closed) = (true, false);
        let mut heartbeat = Instant::now();
        let mut wait = Duration::ZERO;
        loop {
            match commands.try_recv() {
                Ok(command) if command == "quit" => return Ok(()),
                Ok(command) if command == "compact" => self.compact(),
                Ok(command) if command == "quiet" => writes = false,
                Err(TryRecvError::Disconnected) => return Ok(()),
                _ => {}
            }
            self.take_in(wait);
            self.notice_joined();
            if heartbeat.elapsed() >= HEARTBEAT_EVERY {
                heartbeat = Instant::now();
                self.leader.heartbeat(HEARTBEAT).map_err(|error| format!("heartbeat: {error}"))?;
                self.counts.heartbeat = self.counts.heartbeat.max(heartbeat.elapsed());
                self.tell();
            }
            let online = self.leader.followers().iter().filter(|follower| follower.online).count();
            // When all is over one more write must find its quorum.
            if writes || (!closed && online == usize::from(FOLLOWERS)) {
                let acked = self.writer.write(&mut self.leader, &mut self.counts)?;
                closed |= acked && !writes;
                wait = if acked && writes { Duration::ZERO } else { PAUSE };
            } else {
                wait = PAUSE;
                if closed {
                    let (last, digest) = (self.leader.last_lsn(), role::digest(self.leader.store()));
                    say(&format!("quiet {last} {digest:016x} {online}"));
                }
            }
        }
    }

    fn tell(&mut self) {
        let Counts { acked, longest_pause, accept, heartbeat, commit, .. } = self.counts;
        let ms: Vec<_> =
            [longest_pause, accept, heartbeat, commit].iter().map(|one| one.as_millis().to_string()).collect();
        say(&format!("wrote {acked} {}", ms.join(" ")));
    }

    /// Takes who joins; in one of two ways, since a leader's process has either.
    fn take_in(&mut self, wait: Duration) {
        let begun = Instant::now();
        let result = if self.beside {
            // The time goes to the catch-ups, if there are any.
            let going_on = self.leader.catch_up_for(wait).unwrap_or(0);
            let wait = if going_on > 0 { Duration::ZERO } else { wait };
            self.leader.admit(wait).map(|index| {
                self.behind[index] = true;
                None
            })
        } else {
            self.leader.accept(wait).map(Some)
        };
        self.counts.accept = self.counts.accept.max(begun.elapsed());
        match result {
            Ok(None) => {}
            Ok(Some(Joined { index, from, records, snapshot })) => {
                let how = if snapshot { "after a snapshot" } else { "" };
                say(&format!("joined {} from {from}: {records} records {how}", index + 1));
            }
            // Nobody came; or somebody did, and then took too long.
            Err(Error::TimedOut) if begun.elapsed() < wait + Duration::from_millis(100) => {}
            // A refusal is counted by the leader itself.
            Err(Error::Diverged { .. } | Error::FollowerAhead { .. } | Error::Compacted { .. }) => {}
            Err(error) => say(&format!("lost {error}")),
        }
    }

    /// Catch-ups beside the commits end without a word; so do refusals in their course.
    fn notice_joined(&mut self) {
        let now = self.leader.followers();
        for (index, (status, before)) in now.iter().zip(&self.followers).enumerate() {
            for _ in before.resyncs.refused..status.resyncs.refused {
                say(&format!("refused {}", index + 1));
            }
            if self.behind[index] && status.online {
                self.behind[index] = false;
                say(&format!("joined {}", index + 1));
            }
            for _ in before.resyncs.full..status.resyncs.full {
                say("resynced full");
            }
            for _ in before.resyncs.partial..status.resyncs.partial {
                say("resynced partial");
            }
        }
        self.followers = now;
    }

    fn compact(&mut self) {
        let keep = Retention { records: 100, bytes: 0, follower_bytes: 64 * 1024 };
        match self.leader.compact(&keep) {
            Ok(done) => say(&format!("compacted {} {}", done.records, done.base)),
            Err(error) => say(&format!("uncompacted {error}")),
        }
    }
}

struct Writer {
    ledger: Ledger,
    random: Random,
    next: u64,
}

impl Writer {
    /// One commit of one or several records; whether a quorum has it.
    fn write(&mut self, leader: &mut Leader, counts: &mut Counts) -> Result<bool, String> {
        let count = if self.random.between(0, 10) == 0 { self.random.between(2, 40) } else { 1 };
        let mut batch = Vec::new();
        for _ in 0..count {
            self.next += 1;
            let key = format!("key-{}", self.random.between(0, KEYS));
            let is_set = self.random.between(0, 8) > 0;
            self.ledger.attempt(self.next, &key, is_set)?;
            batch.push((self.next, key, is_set, value_of(self.next)));
        }
        let record = |(_, key, is_set, value): &(u64, String, bool, Vec<u8>)| {
            let (key, at) = (key.clone(), clock::next_timestamp());
            (key, is_set.then(|| value.clone()), at)
        };
        let owned: Vec<_> = batch.iter().map(record).collect();
        let records: Vec<_> = owned
            .iter()
            .map(|(key, value, at)| match value {
                Some(value) => Record::set(key.as_bytes(), value, *at),
                None => Record::del(key.as_bytes(), *at),
            })
            .collect();
        let begun = Instant::now();
        let result = leader.commit(&records);
        counts.commit = counts.commit.max(begun.elapsed());
        if result.is_ok() {
            let now = Instant::now();
            if let Some(before) = counts.last_ack.replace(now) {
                counts.longest_pause = counts.longest_pause.max(now - before);
            }
            counts.acked += count;
        }
        for ((number, ..), before_last) in batch.iter().zip((0..count).rev()) {
            match &result {
                Ok(commit) => self.ledger.acked(*number, commit.lsn.0 - before_last)?,
                Err(error @ (Error::TimedOut | Error::NoQuorum { .. })) => {
                    self.ledger.unknown(*number, &error.to_string())?;
                }
                Err(error) => self.ledger.absent(*number, &error.to_string())?,
            }
        }
        Ok(result.is_ok())
    }
}
