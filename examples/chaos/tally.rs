//! What is counted during a run, and how it is printed.

use crate::ledger::{Attempt, Outcome};
use crate::schedule::{Fault, Kind};
use crate::tool;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// The counts of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    begun: Instant,
    /// The same as milliseconds of UNIX time.
    pub(crate) begun_ms: u64,
    faults: BTreeMap<Kind, u64>,
    /// Rejoins for which the leader's log was enough, and those that needed a snapshot.
    pub(crate) partial: u64,
    pub(crate) full: u64,
    pub(crate) refused: u64,
    /// Joins that broke off.
    pub(crate) lost: u64,
    pub(crate) compacted: u64,
    /// Compactions that failed.
    pub(crate) uncompacted: u64,
    /// Torn records that were cut off a log when it was opened.
    pub(crate) torn: usize,
    /// The longest time between two acknowledged writes of one leader process, and its longest accept, heartbeat and
    /// commit.
    longest_ms: [u64; 4],
    /// What the leader's processes before this one have acknowledged, and this one.
    acked: (u64, u64),
    progress: bool,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            begun: Instant::now(),
            begun_ms: crate::role::now_ms(),
            faults: BTreeMap::new(),
            partial: 0,
            full: 0,
            refused: 0,
            lost: 0,
            compacted: 0,
            uncompacted: 0,
            torn: 0,
            longest_ms: [0; 4],
            acked: (0, 0),
            progress: std::io::stderr().is_terminal(),
        }
    }

    /// A line of the timeline. A remark says why nothing happened.
    pub(crate) fn fault(&mut self, fault: &Fault, remark: &str) {
        if remark.is_empty() {
            *self.faults.entry(fault.kind).or_default() += 1;
        }
        let lasts = match (fault.lasts_ms, remark) {
            (0, "") => String::new(),
            (lasts, "") => format!("for {}.{} s", lasts / 1_000, lasts % 1_000 / 100),
            (_, remark) => remark.to_owned(),
        };
        self.line(&format!("{:<12}{:<17}{lasts}", fault.whom, fault.kind.name()));
    }

    pub(crate) fn line(&self, text: &str) {
        self.clear();
        tool::print(&format!("t+{:>5.1} s  {}", self.begun.elapsed().as_secs_f64(), text.trim_end()));
    }

    /// What the leader's process says of itself from time to time.
    pub(crate) fn wrote(&mut self, acked: u64, longest_ms: [u64; 4]) {
        for (longest, now) in self.longest_ms.iter_mut().zip(longest_ms) {
            *longest = now.max(*longest);
        }
        self.acked.1 = acked;
        if self.progress {
            let (faults, acked) = (self.faults.values().sum::<u64>(), self.acked.0 + self.acked.1);
            eprint!("\r\x1b[Kt+{:>5.1} s  {faults} faults, {acked} writes", self.begun.elapsed().as_secs_f64());
            let _ = std::io::stderr().flush();
        }
    }

    /// Another leader's process begins.
    pub(crate) fn next_leader(&mut self) {
        self.acked = (self.acked.0 + self.acked.1, 0);
    }

    fn clear(&self) {
        if self.progress {
            eprint!("\r\x1b[K");
        }
    }

    /// The counts at the end.
    pub(crate) fn print(&self, attempts: &[Attempt], seconds: u64) {
        self.clear();
        let count = |wanted: fn(&Outcome) -> bool| attempts.iter().filter(|attempt| wanted(&attempt.outcome)).count();
        let acked = count(|outcome| matches!(outcome, Outcome::Acked(_)));
        let (unknown, absent) = (count(|one| *one == Outcome::Unknown), count(|one| *one == Outcome::Absent));
        let faults: Vec<_> = self.faults.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect();
        tool::print(&format!("faults        {} ({})", self.faults.values().sum::<u64>(), faults.join(", ")));
        tool::print(&format!(
            "writes        {acked} acknowledged ({} a second), {unknown} not committed, {absent} not logged",
            acked as u64 / seconds.max(1),
        ));
        let [pause, accept, heartbeat, commit] = self.longest_ms;
        tool::print(&format!("longest       {pause} ms between two acknowledged writes"));
        tool::print(&format!(
            "              {accept} ms in accept, {heartbeat} ms in heartbeat, {commit} ms in commit"
        ));
        tool::print(&format!(
            "rejoins       {} partial, {} full (by snapshot), {} refused, {} broken off",
            self.partial, self.full, self.refused, self.lost
        ));
        tool::print(&format!(
            "logs          compactions dropped {} records, {} failed; {} torn records were cut off",
            self.compacted, self.uncompacted, self.torn
        ));
    }
}
