//! Which fault hits whom and when: pure, and the same for the same seed.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// A follower's number is its node number, from 1.
pub(crate) const FOLLOWERS: u8 = 3;

/// A node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Node {
    Leader,
    Follower(u8),
}

impl Node {
    /// All of them, the leader first.
    pub(crate) fn all() -> impl Iterator<Item = Node> {
        (0..=FOLLOWERS).map(|number| if number == 0 { Node::Leader } else { Node::Follower(number) })
    }

    /// Its number, 0 for the leader.
    pub(crate) fn number(self) -> u8 {
        match self {
            Node::Leader => 0,
            Node::Follower(number) => number,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Leader => f.pad("leader"),
            Node::Follower(number) => f.pad(&format!("follower-{number}")),
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL; healed by a restart.
    Kill,
    /// SIGKILL; when it comes back it is killed once more while it rejoins.
    KillTwice,
    /// SIGKILL, and a part of a record at the end of its log, as if it had been writing it.
    Torn,
    /// SIGKILL while the leader compacts its log.
    KillCompacting,
    /// The node's file system is full, and it is killed and started while it is.
    KillFull,
    /// The follower comes back with an empty directory.
    Wiped,
    /// SIGSTOP; healed by SIGCONT.
    Stop,
    /// Nothing passes between this follower and the leader.
    Cut,
    /// The same, again and again for a short time.
    Flap,
    /// Nothing reaches the follower; what it sends arrives.
    CutToFollower,
    /// Nothing reaches the leader; what it sends arrives.
    CutToLeader,
    /// A slow and lossy link.
    Slow,
    /// The node's file system is full.
    DiskFull,
    /// The follower comes back with a tail of another leader's records, as long as what it lost.
    Foreign,
    /// The same, and longer than the leader's log.
    ForeignAhead,
    /// The leader drops what its checkpoint covers from its log.
    Compact,
}

impl Kind {
    /// The word in the timeline and in the counts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Kill => "killed",
            Kind::KillTwice => "killed twice",
            Kind::Torn => "killed, torn",
            Kind::KillCompacting => "killed, compact.",
            Kind::KillFull => "killed, full",
            Kind::Wiped => "lost its files",
            Kind::Stop => "stopped",
            Kind::Cut => "cut off",
            Kind::Flap => "flapping link",
            Kind::CutToFollower => "hears nothing",
            Kind::CutToLeader => "is not heard",
            Kind::Slow => "slow link",
            Kind::DiskFull => "disk full",
            Kind::Foreign => "foreign tail",
            Kind::ForeignAhead => "foreign, ahead",
            Kind::Compact => "compaction",
        }
    }

    fn needs_network(self) -> bool {
        matches!(self, Kind::Cut | Kind::Flap | Kind::CutToFollower | Kind::CutToLeader | Kind::Slow)
    }
}

/// One fault, with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at_ms: u64,
    pub(crate) lasts_ms: u64,
    pub(crate) kind: Kind,
    pub(crate) whom: Node,
}

/// What this machine can do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Able {
    /// Network namespaces: partitions, slow links.
    pub(crate) network: bool,
    /// Nodes whose directory is a small file system of its own.
    pub(crate) small_disks: bool,
}

/// Whether a node's directory is on a small file system. The others use the disk, whose fsync takes its time.
pub(crate) fn has_small_disk(node: Node) -> bool {
    matches!(node, Node::Leader | Node::Follower(1))
}

/// Seeded randomness: SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` up to and not `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low).max(1)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = usize::try_from(self.between(0, at as u64 + 1)).unwrap_or(at);
            items.swap(at, other);
        }
    }
}

/// Nothing happens before and after: the cluster forms, and everything has been healed.
const CALM_MS: u64 = 1_000;

/// The faults of a run, by their beginning. No two hit one node at the same time; all end before the run does.
///
/// They are dealt from a shuffled deck with one card for each fault and each node that it can hit, so that a run of a
/// minute sees every kind, whatever the seed.
pub(crate) fn schedule(seed: u64, seconds: u64, able: Able) -> Vec<Fault> {
    let mut random = Random(seed);
    let (mut faults, mut deck) = (Vec::new(), Vec::new());
    let mut busy_until = [0u64; FOLLOWERS as usize + 1];
    let end = (seconds * 1_000).saturating_sub(CALM_MS);
    let mut now = CALM_MS;
    loop {
        now += random.between(150, 1_400);
        if now + 300 >= end {
            break;
        }
        if deck.is_empty() {
            deck = cards(able);
            random.shuffle(&mut deck);
            // One card of each kind is on top.
            let mut seen = BTreeSet::new();
            deck.sort_by_cached_key(|(kind, _)| seen.insert(*kind));
        }
        // Mostly there is a quorum: a writer that gets nothing acknowledged has nothing to lose.
        let away = busy_until[1..].iter().filter(|until| **until >= now).count();
        if away > 1 && random.between(0, 100) < 70 {
            continue;
        }
        // The next card whose node is free; none: some time later.
        let free = |whom: Node| busy_until[usize::from(whom.number())] < now;
        let Some(at) = deck.iter().rposition(|(_, whom)| free(*whom)) else { continue };
        let (kind, whom) = deck.remove(at);
        let lasts_ms = lasts(kind, whom, &mut random).min(end - now);
        busy_until[usize::from(whom.number())] = now + lasts_ms + 200;
        faults.push(Fault { at_ms: now, lasts_ms, kind, whom });
        // While a follower is away, or behind, the leader drops what it will want: it needs a snapshot then.
        let leaves = [
            Kind::Kill,
            Kind::KillTwice,
            Kind::Wiped,
            Kind::Cut,
            Kind::Stop,
            Kind::Slow,
            Kind::DiskFull,
            Kind::KillFull,
        ];
        let is_away = whom != Node::Leader && leaves.contains(&kind);
        let middle = now + lasts_ms / 2;
        if is_away && lasts_ms > 600 && busy_until[0] < middle && random.between(0, 100) < 60 {
            busy_until[0] = middle + 100;
            faults.push(Fault { at_ms: middle, lasts_ms: 0, kind: Kind::Compact, whom: Node::Leader });
        }
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// When a flapping link is cut, in milliseconds of the run.
pub(crate) fn cuts(fault: &Fault) -> Vec<Range<u64>> {
    let (mut cuts, mut random) = (Vec::new(), Random(fault.at_ms));
    let (mut now, end) = (fault.at_ms, fault.at_ms + fault.lasts_ms);
    while now < end {
        let joined = now + random.between(20, 500);
        cuts.push(now..joined.min(end));
        now = joined + random.between(20, 500);
    }
    cuts
}

fn cards(able: Able) -> Vec<(Kind, Node)> {
    let mut cards = Vec::new();
    for whom in Node::all() {
        let own: &[Kind] = match whom {
            Node::Leader => &[Kind::Kill, Kind::Kill, Kind::KillCompacting, Kind::Stop, Kind::DiskFull, Kind::Compact],
            Node::Follower(_) => &[
                Kind::Kill,
                Kind::KillTwice,
                Kind::Torn,
                Kind::Stop,
                Kind::Cut,
                Kind::CutToFollower,
                Kind::CutToLeader,
                Kind::Slow,
                Kind::Flap,
                Kind::DiskFull,
                Kind::KillFull,
                Kind::Foreign,
            ],
        };
        let can = |kind: &&Kind| match kind {
            Kind::DiskFull | Kind::KillFull => able.small_disks && has_small_disk(whom),
            kind => able.network || !kind.needs_network(),
        };
        cards.extend(own.iter().filter(can).map(|kind| (*kind, whom)));
    }
    // Much is sent again after these, so they come once a deck.
    cards.extend([(Kind::ForeignAhead, Node::Follower(2)), (Kind::Wiped, Node::Follower(3))]);
    cards
}

fn lasts(kind: Kind, whom: Node, random: &mut Random) -> u64 {
    match (kind, whom) {
        (Kind::Compact, _) => 0,
        (_, Node::Leader) => random.between(200, 1_800),
        // Some end before anybody has noticed, some after TCP has given up.
        (Kind::Cut | Kind::CutToFollower | Kind::CutToLeader, _) => random.between(300, 10_000),
        _ => random.between(200, 5_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABLE: Able = Able { network: true, small_disks: true };

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_seed_others() {
        assert_eq!(schedule(7, 60, ABLE), schedule(7, 60, ABLE));
        assert_ne!(schedule(7, 60, ABLE), schedule(8, 60, ABLE));
    }

    #[test]
    fn no_two_faults_hit_one_node_at_once_and_all_end_in_time() {
        for seed in 0..200 {
            let faults = schedule(seed, 60, ABLE);
            for (at, fault) in faults.iter().enumerate() {
                let end = fault.at_ms + fault.lasts_ms;
                assert!(fault.at_ms >= CALM_MS && end <= 60_000 - CALM_MS, "{fault:?}");
                for other in faults[at + 1..].iter().filter(|other| other.whom == fault.whom) {
                    assert!(other.at_ms > end, "seed {seed}: {fault:?} and {other:?}");
                }
            }
        }
    }

    #[test]
    fn a_minute_sees_every_kind_of_fault() {
        for seed in 0..200 {
            let faults = schedule(seed, 60, ABLE);
            let kinds: std::collections::BTreeSet<_> = faults.iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds.len(), 16, "seed {seed}: {kinds:?}");
        }
    }

    #[test]
    fn a_flapping_link_is_cut_in_its_time_only() {
        let fault = Fault { at_ms: 5_000, lasts_ms: 3_000, kind: Kind::Flap, whom: Node::Follower(1) };
        let cuts = cuts(&fault);
        assert!(cuts.len() > 2 && cuts[0].start == 5_000 && cuts.iter().all(|cut| cut.end <= 8_000), "{cuts:?}");
        assert!(cuts.windows(2).all(|two| two[0].end < two[1].start), "{cuts:?}");
    }

    #[test]
    fn what_the_machine_cannot_do_is_not_asked_for() {
        for fault in schedule(1, 600, Able::default()) {
            assert!(!fault.kind.needs_network() && fault.kind != Kind::DiskFull, "{fault:?}");
        }
    }
}
