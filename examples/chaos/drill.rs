//! The drill itself: start the cluster, let the faults happen and end, heal all, judge.

use crate::audit::Auditor;
use crate::disk::{self, RunDirectory};
use crate::foreign::{self, Planted};
use crate::ledger::{self, Attempt};
use crate::network::{self, Network};
use crate::nodes::{Event, Process, Start, Usage};
use crate::role;
use crate::schedule::{self, Able, FOLLOWERS, Fault, Kind, Node, Random};
use crate::setup::{self, NAME};
use crate::tally::Tally;
use crate::tool;
use crate::verdict::{self, Copy};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// For the cluster to form, and to be whole again when all is healed: a follower may have to wait for TCP to give up.
const FORM: Duration = Duration::from_secs(30);
const HEAL: Duration = Duration::from_secs(60);
const QUIT: Duration = Duration::from_secs(15);
/// Beyond what a process holds when the cluster has formed, for buffers and what malloc keeps.
const GROWTH_KB: u64 = 48 * 1024;
/// A node whose process ends by itself so often will not get better.
const ENDS_MAX: usize = 10;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
    /// Nothing that takes root.
    pub(crate) local: bool,
    /// The nodes' files are kept also if all is well.
    pub(crate) keep: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Well,
    Wrong,
    Interrupted,
}

/// Runs the drill; an error is about what it needs before it can begin.
pub(crate) fn run(plan: &Plan) -> Result<Ending, String> {
    let (sender, events) = channel();
    setup::watch_signals(sender.clone())?;
    let parent = std::env::temp_dir();
    setup::remove_leftovers(&parent);
    let run = format!("{NAME}-{}", std::process::id());
    let directory = RunDirectory::new(parent.join(&run))?;
    let (network, small_disks) = if plan.local {
        tool::print("--local: no partitions, slow links and full disks");
        (None, false)
    } else {
        (setup::make_network(&run), setup::make_disks(&directory, 64 + plan.seconds))
    };
    let mut drill = Drill {
        plan: *plan,
        events,
        sender,
        nodes: BTreeMap::new(),
        lives: 0,
        tally: Tally::new(),
        random: Random(!plan.seed),
        joined: [false; FOLLOWERS as usize],
        quiet: None,
        reports: BTreeMap::new(),
        planted: BTreeMap::new(),
        auditor: Auditor::default(),
        complaints: Vec::new(),
        ends: 0,
        ending: false,
        network,
        directory,
    };
    let able = Able { network: drill.network.is_some(), small_disks };
    let ending = drill.play(able);
    match ending {
        Err(Stopped::Interrupted) => {
            drill.tally.line("interrupted");
            Ok(Ending::Interrupted)
        }
        Err(Stopped::Failed(error)) => {
            drill.complaints.push(error);
            drill.confess();
            Ok(Ending::Wrong)
        }
        Ok(()) if drill.complaints.is_empty() => {
            if plan.keep {
                drill.keep();
            }
            tool::print("all is well: every acknowledged write is on every node, in the same order");
            Ok(Ending::Well)
        }
        Ok(()) => {
            drill.confess();
            Ok(Ending::Wrong)
        }
    }
}

/// Why a drill stops before its end.
enum Stopped {
    Interrupted,
    Failed(String),
}

impl From<String> for Stopped {
    fn from(error: String) -> Stopped {
        Stopped::Failed(error)
    }
}

/// Fields are dropped in this order: processes first, then their network, then their files.
struct Drill {
    nodes: BTreeMap<Node, Process>,
    network: Option<Network>,
    directory: RunDirectory,
    plan: Plan,
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// Processes started so far.
    lives: u64,
    tally: Tally,
    random: Random,
    joined: [bool; FOLLOWERS as usize],
    /// The leader's last LSN, digest and number of followers, once it writes no more.
    quiet: Option<(String, String, u8)>,
    reports: BTreeMap<Node, (String, String)>,
    planted: BTreeMap<Node, Planted>,
    auditor: Auditor,
    complaints: Vec<String>,
    /// Processes that ended by themselves.
    ends: usize,
    /// All were told to end.
    ending: bool,
}

#[derive(Clone, Copy)]
enum Step {
    Begin(Fault),
    End(Fault),
    /// Of a flapping link.
    Cut(Node),
    Join(Node),
}

impl Drill {
    fn play(&mut self, able: Able) -> Result<(), Stopped> {
        let faults = schedule::schedule(self.plan.seed, self.plan.seconds, able);
        let by = self.network.as_ref().map_or("none", Network::slow_by);
        tool::print(&format!(
            "seed {}, {} s, {} faults; slow links by {by}",
            self.plan.seed,
            self.plan.seconds,
            faults.len()
        ));
        for node in Node::all() {
            self.start(node)?;
        }
        self.wait_until(FORM, "the cluster did not form", |drill| drill.joined.iter().all(|joined| *joined))?;
        let before = self.usage()?;
        let mut steps: Vec<(u64, Step)> = Vec::new();
        for fault in faults {
            steps.push((fault.at_ms, Step::Begin(fault)));
            if fault.kind == Kind::Flap {
                for cut in schedule::cuts(&fault) {
                    steps.extend([(cut.start, Step::Cut(fault.whom)), (cut.end, Step::Join(fault.whom))]);
                }
            } else if fault.lasts_ms > 0 {
                steps.push((fault.at_ms + fault.lasts_ms, Step::End(fault)));
            }
        }
        steps.sort_by_key(|(at, _)| *at);
        let begun = Instant::now();
        for (at, step) in steps {
            self.listen_until(begun + Duration::from_millis(at))?;
            self.audit()?;
            match step {
                Step::Begin(fault) => self.begin(&fault)?,
                Step::End(fault) => self.end(&fault)?,
                Step::Cut(node) => self.network.as_ref().map_or(Ok(()), |network| network.cut(node))?,
                Step::Join(node) => self.network.iter().for_each(|network| network.join(node)),
            }
        }
        self.listen_until(begun + Duration::from_secs(self.plan.seconds))?;
        self.become_whole()?;
        let after = self.usage()?;
        self.compare_usage(&before, &after);
        self.quit()?;
        self.judge()?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path.join(name)
    }

    fn wal(&self, node: Node) -> PathBuf {
        self.path(&node.to_string()).join("logship.wal")
    }

    fn start(&mut self, node: Node) -> Result<(), String> {
        self.lives += 1;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (parent, begun) = (std::process::id().to_string(), self.tally.begun_ms.to_string());
        let (directory, address) = (text(self.path(&node.to_string())), text(self.path("address")));
        let arguments = match node {
            Node::Leader => {
                let host = match &self.network {
                    Some(_) => network::address(Node::Leader),
                    None => "127.0.0.1".to_owned(),
                };
                let (seed, life) = (self.plan.seed.to_string(), self.lives.to_string());
                self.tally.next_leader();
                vec![
                    "leader".to_owned(),
                    parent,
                    begun,
                    directory,
                    address,
                    text(self.path("ledger")),
                    host,
                    seed,
                    life,
                ]
            }
            Node::Follower(number) => {
                vec!["follower".to_owned(), parent, begun, directory, address, number.to_string()]
            }
        };
        let enter = self.network.as_ref().map(|network| network.enter(node)).unwrap_or_default();
        let log = self.path(&format!("{node}.log"));
        let process = Process::start(Start { node, life: self.lives, enter, arguments, log: &log }, &self.sender)?;
        self.nodes.insert(node, process);
        Ok(())
    }

    fn kill(&mut self, node: Node) {
        if let Some(process) = self.nodes.remove(&node) {
            process.kill();
        }
    }

    fn listen_until(&mut self, until: Instant) -> Result<(), Stopped> {
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => self.hear(event)?,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped::Interrupted),
            }
        }
    }

    fn listen_for(&mut self, ms: u64) -> Result<(), Stopped> {
        self.listen_until(Instant::now() + Duration::from_millis(ms))
    }

    fn wait_until(
        &mut self,
        patience: Duration,
        otherwise: &str,
        holds: impl Fn(&Drill) -> bool,
    ) -> Result<(), Stopped> {
        let deadline = Instant::now() + patience;
        while !holds(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.hear(event)?,
                Err(_) => return Err(Stopped::Failed(format!("{otherwise} within {} s", patience.as_secs()))),
            }
        }
        Ok(())
    }

    fn hear(&mut self, event: Event) -> Result<(), Stopped> {
        match event {
            Event::Interrupted => Err(Stopped::Interrupted),
            Event::Line { node, life, text } => {
                if self.nodes.get(&node).is_some_and(|process| process.life == life) {
                    self.note(node, &text);
                } else {
                    self.count(&text);
                }
                Ok(())
            }
            Event::Gone { node, life } => {
                if self.nodes.get(&node).is_none_or(|process| process.life != life) {
                    return Ok(()); // It was killed.
                }
                let Some(process) = self.nodes.remove(&node) else { return Ok(()) };
                let how = process.how_it_ended();
                if self.ending && how == "exit code 0" {
                    return Ok(());
                }
                let log = std::fs::read_to_string(self.path(&format!("{node}.log"))).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                self.tally.line(&format!("{node} ended by itself: {how}: {last}"));
                self.complaints.push(format!("{node} ended by itself: {how}: {last}"));
                self.ends += 1;
                if self.ending {
                    return Ok(());
                }
                if self.ends > ENDS_MAX {
                    return Err(Stopped::Failed(format!("{node} does not stay up: {last}")));
                }
                Ok(self.start(node)?)
            }
        }
    }

    /// Counts what a line tells, also of a process that is gone.
    fn count(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match words[0] {
            "resynced" if words.get(1) == Some(&"full") => self.tally.full += 1,
            "resynced" => self.tally.partial += 1,
            "refused" if words.len() == 2 => self.tally.refused += 1,
            "wrote" => self.tally.wrote(number(1), [number(2), number(3), number(4), number(5)]),
            "uncompacted" => self.tally.uncompacted += 1,
            "compacted" => self.tally.compacted += number(1),
            _ => {}
        }
    }

    fn note(&mut self, node: Node, text: &str) {
        self.count(text);
        let words: Vec<&str> = text.split(' ').collect();
        match (node, words.as_slice()) {
            (Node::Leader, ["joined", slot, ..]) => {
                let slot = slot.parse::<usize>().unwrap_or(0);
                let follower = Node::Follower(u8::try_from(slot).unwrap_or(0));
                if !self.planted.contains_key(&follower) {
                    self.auditor.joined(follower);
                }
                if let Some(joined) = slot.checked_sub(1).and_then(|at| self.joined.get_mut(at)) {
                    *joined = true;
                }
            }
            (Node::Leader, ["lost", ..]) => self.tally.lost += 1,
            (Node::Leader, ["quiet", lsn, digest, online]) => {
                self.quiet = Some(((*lsn).to_owned(), (*digest).to_owned(), online.parse().unwrap_or(0)));
                // The leader says so again and again; each time the followers are asked.
                for (other, process) in &mut self.nodes {
                    if *other != Node::Leader {
                        process.tell("report");
                    }
                }
            }
            (_, ["at", lsn, digest]) => {
                self.reports.insert(node, ((*lsn).to_owned(), (*digest).to_owned()));
            }
            _ => {}
        }
    }

    fn begin(&mut self, fault: &Fault) -> Result<(), Stopped> {
        let node = fault.whom;
        let mut remark = String::new();
        match (fault.kind, &self.network) {
            (Kind::Kill | Kind::KillTwice, _) => self.kill(node),
            (Kind::Torn, _) => {
                self.kill(node);
                let at = usize::try_from(self.random.between(1, 5_000)).unwrap_or(1);
                foreign::tear(&self.wal(node), at)?;
            }
            (Kind::KillCompacting, _) => {
                if let Some(process) = self.nodes.get_mut(&node) {
                    process.tell("compact");
                }
                let ms = self.random.between(0, 15);
                self.listen_for(ms)?;
                self.kill(node);
            }
            (Kind::Wiped, _) => {
                self.kill(node);
                self.auditor.distrust(node);
                disk::empty(&self.path(&node.to_string()))?;
            }
            (Kind::Stop, _) => self.nodes.get(&node).map_or(Ok(()), Process::stop)?,
            (Kind::Compact, _) => match self.nodes.get_mut(&node) {
                Some(process) => process.tell("compact"),
                None => remark = "nobody there".to_owned(),
            },
            (Kind::DiskFull, _) => {
                disk::fill(&self.path(&node.to_string()))?;
                if let (Node::Leader, Some(process)) = (node, self.nodes.get_mut(&node)) {
                    process.tell("compact");
                }
            }
            (Kind::KillFull, _) => {
                disk::fill(&self.path(&node.to_string()))?;
                self.kill(node);
                self.start(node)?;
            }
            (Kind::Foreign | Kind::ForeignAhead, _) => remark = self.plant(fault)?,
            (Kind::Cut, Some(network)) => network.cut(node)?,
            (Kind::CutToFollower, Some(network)) => network.cut_to_follower(node)?,
            (Kind::CutToLeader, Some(network)) => network.cut_to_leader(node)?,
            (Kind::Slow, Some(network)) => network.slow(node, &mut self.random)?,
            (Kind::Flap, _) | (_, None) => {}
        }
        self.tally.fault(fault, &remark);
        Ok(())
    }

    fn plant(&mut self, fault: &Fault) -> Result<String, String> {
        self.kill(fault.whom);
        let more = if fault.kind == Kind::ForeignAhead { 20_000 } else { 0 };
        self.auditor.distrust(fault.whom);
        let planted = foreign::plant(&self.wal(fault.whom), self.random.between(1, 6), more)?;
        self.start(fault.whom)?;
        Ok(match planted {
            Some(planted) => {
                self.planted.insert(fault.whom, planted);
                String::new()
            }
            None => "its log is too short".to_owned(),
        })
    }

    fn end(&mut self, fault: &Fault) -> Result<(), Stopped> {
        let node = fault.whom;
        match (fault.kind, &self.network) {
            (Kind::Kill | Kind::Torn | Kind::KillCompacting | Kind::Wiped, _) => self.start(node)?,
            (Kind::KillTwice, _) => {
                self.start(node)?;
                let ms = self.random.between(1, 250);
                self.listen_for(ms)?;
                self.kill(node);
                self.start(node)?;
            }
            (Kind::Stop, _) => self.nodes.get(&node).map_or(Ok(()), Process::go_on)?,
            (Kind::DiskFull | Kind::KillFull, _) => disk::free(&self.path(&node.to_string()))?,
            (Kind::Foreign | Kind::ForeignAhead, _) => {
                if let Some(planted) = self.planted.remove(&node) {
                    self.kill(node);
                    self.auditor.distrust(node);
                    if let Some(complaint) = foreign::uproot(&self.wal(node), &planted)? {
                        self.tally.line(&format!("{node}: {complaint}"));
                        self.complaints.push(format!("{node}: {complaint}"));
                    }
                    self.start(node)?;
                }
            }
            (Kind::Slow, Some(network)) => network.fast(node),
            (Kind::Cut | Kind::CutToFollower | Kind::CutToLeader, Some(network)) => network.join(node),
            (Kind::Compact | Kind::Flap, _) | (_, None) => {}
        }
        Ok(())
    }

    /// What is acknowledged at this moment must be on a quorum's disks. The files are read as they are.
    fn audit(&mut self) -> Result<(), Stopped> {
        let acked = self.auditor.last_acked(&self.path("ledger"))?;
        let mut complaint = String::new();
        // A log that is being replaced may be seen half-way; what is missing is missing the next time too.
        for _ in 0..4 {
            let wals = Node::all().skip(1).map(|node| (node, self.wal(node))).collect::<Vec<_>>();
            match self.auditor.audit(acked, &wals) {
                None => return Ok(()),
                Some(one) => complaint = one,
            }
            self.listen_for(25)?;
        }
        self.tally.line(&complaint);
        self.complaints.push(complaint);
        Ok(())
    }

    /// All is healed: the writer stops, and every follower must be where the leader is.
    fn become_whole(&mut self) -> Result<(), Stopped> {
        let healed = Instant::now();
        if let Some(process) = self.nodes.get_mut(&Node::Leader) {
            process.tell("quiet");
        }
        let same = |drill: &Drill, node: Node| match (&drill.quiet, drill.reports.get(&node)) {
            (Some((lsn, digest, _)), Some((here, its))) => lsn == here && digest == its,
            _ => false,
        };
        let is_whole = |drill: &Drill| {
            let online = drill.quiet.as_ref().is_some_and(|(.., online)| *online == FOLLOWERS);
            online && Node::all().skip(1).all(|node| same(drill, node))
        };
        match self.wait_until(HEAL, "not whole", is_whole) {
            Err(Stopped::Failed(_)) => {
                let (quiet, reports) = (&self.quiet, &self.reports);
                self.complaints.push(format!(
                    "not whole {} s after the last fault has ended: the leader says {quiet:?}, the followers \
                     {reports:?}",
                    HEAL.as_secs()
                ));
                Ok(())
            }
            Ok(()) => {
                self.tally.line(&format!("all healed and whole after {:.1} s", healed.elapsed().as_secs_f64()));
                Ok(())
            }
            other => other,
        }
    }

    /// What each process holds. The least of some samples: a file may be open for a moment.
    fn usage(&mut self) -> Result<BTreeMap<Node, Usage>, Stopped> {
        let mut least: BTreeMap<Node, Usage> = BTreeMap::new();
        for _ in 0..10 {
            self.listen_for(20)?;
            for (node, process) in &self.nodes {
                let now = process.usage()?;
                let seen = least.entry(*node).or_insert(now);
                seen.descriptors = seen.descriptors.min(now.descriptors);
                seen.kilobytes = seen.kilobytes.min(now.kilobytes);
            }
        }
        Ok(least)
    }

    fn compare_usage(&mut self, before: &BTreeMap<Node, Usage>, after: &BTreeMap<Node, Usage>) {
        for (node, after) in after {
            let before = before.get(node).copied().unwrap_or_default();
            tool::print(&format!(
                "{node:<12}  descriptors {} -> {}, resident {} -> {} KiB",
                before.descriptors, after.descriptors, before.kilobytes, after.kilobytes
            ));
            if after.descriptors > before.descriptors {
                let (before, after) = (before.descriptors, after.descriptors);
                self.complaints.push(format!("{node}: {after} descriptors are open, {before} were at the beginning"));
            }
            if after.kilobytes > before.kilobytes + GROWTH_KB {
                let (before, after) = (before.kilobytes, after.kilobytes);
                self.complaints.push(format!("{node}: {after} KiB are resident, {before} were at the beginning"));
            }
        }
    }

    /// Ends the nodes: they close their logs.
    fn quit(&mut self) -> Result<(), Stopped> {
        self.ending = true;
        for process in self.nodes.values_mut() {
            process.tell("quit");
        }
        match self.wait_until(QUIT, "not ended", |drill| drill.nodes.is_empty()) {
            Err(Stopped::Failed(_)) => {
                let left: Vec<_> = self.nodes.keys().map(Node::to_string).collect();
                let (left, patience) = (left.join(" "), QUIT.as_secs());
                self.complaints.push(format!("told to end, and still there after {patience} s: {left}"));
                self.nodes.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn judge(&mut self) -> Result<(), String> {
        let text = std::fs::read_to_string(self.path("ledger")).map_err(|error| format!("ledger: {error}"))?;
        let attempts: Vec<Attempt> = ledger::read(&text)?;
        let loaded: Vec<_> = Node::all().map(|node| Copy::load(&node.to_string(), &self.wal(node))).collect();
        let mut copies = Vec::new();
        for one in loaded {
            match one {
                Ok(copy) => copies.push(copy),
                Err(error) => self.complaints.push(error),
            }
        }
        self.tally.torn = Node::all().map(|node| disk::count(&self.path(&node.to_string()), ".torn-")).sum();
        self.tally.print(&attempts, self.plan.seconds);
        for copy in &copies {
            let (first, last) = copy.range();
            tool::print(&format!("{:<12}  has LSN {first} to {last}, {} keys", copy.name(), copy.store().len()));
        }
        if copies.len() == usize::from(FOLLOWERS) + 1 {
            self.complaints.extend(verdict::judge(&copies, &attempts));
        }
        // What the processes had in memory is what their files say.
        if let (Some((_, digest, _)), Some(leader)) = (&self.quiet, copies.first())
            && *digest != format!("{:016x}", role::digest(leader.store()))
        {
            self.complaints.push("the leader's store in memory was not what its log recovers to".to_owned());
        }
        Ok(())
    }

    /// Says what is wrong, keeps the files, and says how to repeat it.
    fn confess(&self) {
        for complaint in &self.complaints {
            tool::print(&format!("WRONG: {complaint}"));
        }
        self.keep();
        let local = if self.plan.local { " LOCAL=1" } else { "" };
        tool::print(&format!("to repeat it: make chaos SECONDS={} SEED={}{local}", self.plan.seconds, self.plan.seed));
    }

    fn keep(&self) {
        let kept = std::env::temp_dir().join(format!("{NAME}-kept-seed-{}-{}", self.plan.seed, std::process::id()));
        match self.directory.keep_as(&kept) {
            Ok(()) => tool::print(&format!("the nodes' files and logs are in {}", kept.display())),
            Err(error) => tool::print(&format!("the nodes' files were not kept: {error}")),
        }
    }
}
