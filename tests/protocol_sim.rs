//! Leader and follower without sockets, seeded: their state machines over an ordered stream of bytes in which record
//! bodies are damaged at random, while records are in flight, acks come late and frames arrive in pieces.
//!
//! What must hold (contract, w11): with positions stated the follower's log is always a beginning of the leader's, an
//! ack covers nothing that is not there, and once the damage ends both logs are equal. Without positions, a lesson's
//! leader that ships one record at a time gets the same. The drivers here do with bytes what `net` does with sockets.
//!
//! A failure prints its seed; `LOGSHIP_SIM_SEED=<seed> cargo test --test protocol_sim` runs that one alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Random, Write};
use logship::replication::follower::{Fingerprint, Follower, Take};
use logship::replication::frame::{self, Header};
use logship::replication::inbox::Inbox;
use logship::replication::message::{
    self, ACK_CRC_FAIL, ACK_LEN, ACK_NOT_STORED, ACK_OK, Ack, Control, FLAG_LIVENESS, Mark,
};
use logship::replication::progress::{Progress, RESHIPS_MAX, Verdict};
use logship::replication::rejoin;
use logship::wal::crc::crc32;
use logship::wal::record;
use logship::{Lsn, Timestamp};
use std::collections::VecDeque;

/// How leader and follower talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Two logship ends: positions stated, any number of records in flight.
    Positioned,
    /// A lesson's ends: no positions, and the next record goes out when the last is acknowledged.
    OneAtATime,
    /// No positions and records in flight: what no program may do, here as the canary.
    Careless,
}

/// How often what goes wrong; 0 never.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// One in so many record frames is damaged.
    damage: usize,
    /// One in so many appends of the follower fails.
    full_disk: usize,
    /// One in so many steps the connection breaks and all bytes in flight are lost.
    disconnect: usize,
    /// One in so many rejoins names an older LSN than the follower has: what was applied lags behind what is stored.
    stale: usize,
    /// One in so many rejoins names an LSN that the follower does not have: its log was cut, or the program is wrong.
    overstated: usize,
}

/// What happened in a run: that nothing was proven about what never came up must be seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    damaged: usize,
    rejected: usize,
    reshipped: usize,
    discarded: usize,
    known: usize,
    gaps: usize,
    given_up: usize,
}

struct Simulation {
    mode: Mode,
    faults: Faults,
    random: Random,
    seen: Seen,
    /// The leader: its log, what it knows of the follower, acks that it has read, the frame it shipped last.
    log: Vec<Vec<u8>>,
    progress: Box<Progress>,
    inbox: Box<Inbox>,
    last_frame: Vec<u8>,
    /// How often the newest record was damaged: without positions nobody catches up a follower that was given up.
    damaged_in_a_row: u32,
    /// The follower: its log, its state, the beginning of a frame.
    copy: Vec<Vec<u8>>,
    follower: Follower,
    partial: Vec<u8>,
    /// Bytes in flight, down to the follower and up to the leader.
    down: VecDeque<u8>,
    up: VecDeque<u8>,
}

type Outcome<T = ()> = Result<T, String>;

impl Simulation {
    fn new(mode: Mode, faults: Faults, seed: u64) -> Simulation {
        Simulation {
            mode,
            faults,
            random: Random(seed),
            seen: Seen::default(),
            log: Vec::new(),
            progress: Box::default(),
            inbox: Box::default(),
            last_frame: Vec::new(),
            damaged_in_a_row: 0,
            copy: Vec::new(),
            follower: Follower::default(),
            partial: Vec::new(),
            down: VecDeque::new(),
            up: VecDeque::new(),
        }
    }

    /// The whole run: faults first, then none, until both logs are equal.
    fn run(mut self, steps: usize) -> Outcome<Seen> {
        self.connect()?;
        for _ in 0..steps {
            self.step()?;
        }
        self.faults = Faults::default();
        for _ in 0..2 * RESHIPS_MAX {
            self.settle()?;
            if self.copy == self.log && (self.log.is_empty() || self.progress.ledger.has(self.last())) {
                return Ok(self.seen);
            }
        }
        Err(format!("the follower stays at {} of {} records: {:?}", self.copy.len(), self.log.len(), self.follower))
    }

    fn step(&mut self) -> Outcome {
        if self.faults.disconnect > 0 && self.random.one_in(self.faults.disconnect) {
            return self.connect();
        }
        match self.random.below(8) {
            0..3 => self.write()?,
            3 => self.down.extend(frame::HEARTBEAT),
            4..6 => {
                let count = self.random.below(120);
                self.deliver_down(count)?;
            }
            6 => {
                let count = self.random.below(3 * ACK_LEN);
                self.deliver_up(count)?;
            }
            _ => {
                self.deliver_down(usize::MAX)?;
                self.deliver_up(usize::MAX)?;
            }
        }
        Ok(())
    }

    /// Everything in flight arrives, and the leader does what it does before its next record.
    fn settle(&mut self) -> Outcome {
        self.reship();
        for _ in 0..100 {
            if self.down.is_empty() && self.up.is_empty() {
                return Ok(());
            }
            self.deliver_down(usize::MAX)?;
            self.deliver_up(usize::MAX)?;
        }
        Err("both ends go on talking although nothing is written or damaged".to_owned())
    }

    fn last(&self) -> Lsn {
        Lsn(self.log.len() as u64)
    }

    /// The record `lsn` of the leader's log.
    fn record(&self, lsn: Lsn) -> Vec<u8> {
        self.log[usize::try_from(lsn.0 - 1).unwrap()].clone()
    }

    // The leader, as in net::group and net::catch_up.

    /// A new connection: everything in flight is gone, the follower says where its log ends and gets the rest.
    fn connect(&mut self) -> Outcome {
        (self.follower, self.partial) = (Follower::default(), Vec::new());
        (self.down, self.up) = (VecDeque::new(), VecDeque::new());
        self.progress.clear();
        self.inbox.clear();
        let mut end = Lsn(self.copy.len() as u64);
        if self.faults.stale > 0 && self.random.one_in(self.faults.stale) {
            end = Lsn(self.random.below(self.copy.len() + 1) as u64);
        }
        if self.faults.overstated > 0 && self.random.one_in(self.faults.overstated) {
            end = self.last();
        }
        let after = match rejoin::decide(message::decode_rejoin(message::encode_rejoin(end)), self.last()) {
            Ok(rejoin::Decision::UpToDate) => self.last(),
            Ok(rejoin::Decision::ShipAfter(after)) => after,
            Err(error) => return Err(format!("rejoin at {end}: {error}")),
        };
        if self.mode == Mode::Positioned {
            // The marked ack behind the rejoin message: what was acknowledged on a connection that broke still counts.
            if end <= Lsn(self.copy.len() as u64) {
                self.progress.on_ack(&Ack::marked(end, ACK_OK, Mark::default()), Some(self.last()));
            }
            self.down.extend(Control::Position(after.next()).encode().unwrap());
        }
        for lsn in after.next().0..=self.last().0 {
            self.send_record(&self.record(Lsn(lsn)));
        }
        if self.mode == Mode::Positioned {
            self.progress.next = Some(self.last().next());
        }
        Ok(())
    }

    /// Appends a record to the leader's log and ships it.
    fn write(&mut self) -> Outcome {
        if self.mode == Mode::OneAtATime && !self.log.is_empty() && !self.progress.ledger.has(self.last()) {
            return Ok(());
        }
        self.reship();
        let number = self.log.len() as u64 + 1;
        let value = vec![b'v'; self.random.below(60)];
        let encoded = Write::set(format!("key-{number}").as_bytes(), &value, number).encoded();
        self.log.push(encoded.clone());
        self.damaged_in_a_row = 0;
        self.last_frame.clone_from(&encoded);
        self.send_record(&encoded);
        self.progress.on_shipped(Some(self.last()));
        Ok(())
    }

    /// Puts a record frame on the wire, whose body may get damaged there.
    fn send_record(&mut self, encoded: &[u8]) {
        self.down.extend(frame::record_header(encoded.len()).unwrap());
        let mut body = encoded.to_vec();
        let may_damage = self.mode != Mode::OneAtATime || self.damaged_in_a_row < RESHIPS_MAX;
        if may_damage && self.faults.damage > 0 && self.random.one_in(self.faults.damage) {
            for _ in 0..=self.random.below(3) {
                let bit = self.random.below(body.len() * 8);
                body[bit / 8] ^= 1 << (bit % 8);
            }
            // The same bit twice is no damage.
            self.seen.damaged += usize::from(body != encoded);
            self.damaged_in_a_row += u32::from(body != encoded);
        }
        self.down.extend(body);
    }

    fn deliver_up(&mut self, count: usize) -> Outcome {
        let count = count.min(self.up.len()).min(self.inbox.room());
        let bytes: Vec<u8> = self.up.drain(..count).collect();
        self.inbox.push(&bytes);
        while let Some(ack) = self.inbox.pop_ack() {
            match self.progress.on_ack(&ack, Some(self.last())) {
                Verdict::Durable | Verdict::Alive => {}
                Verdict::Rejected => {
                    self.seen.rejected += 1;
                    if self.progress.reship.is_some_and(|reship| reship.now) {
                        self.reship();
                    }
                }
                Verdict::GiveUp => {
                    self.seen.given_up += 1;
                    self.connect()?;
                }
                Verdict::Ignored | Verdict::Diverged | Verdict::Unsure(_) => {
                    return Err(format!("the leader ignores {ack:?}"));
                }
            }
            self.check()?;
        }
        Ok(())
    }

    /// Sends the rejected record again: with positions everything from it on, else the record shipped last.
    fn reship(&mut self) {
        let Some(rejected) = self.progress.reship.take() else { return };
        match self.progress.next {
            Some(next) if rejected.lsn < next => {
                self.down.extend(Control::Position(rejected.lsn).encode().unwrap());
                for lsn in rejected.lsn.0..next.0 {
                    self.send_record(&self.record(Lsn(lsn)));
                }
            }
            _ => self.send_record(&self.last_frame.clone()),
        }
        self.seen.reshipped += 1;
        self.progress.reshipped(rejected.lsn);
    }

    // The follower, as in net::receive.

    fn deliver_down(&mut self, count: usize) -> Outcome {
        let count = count.min(self.down.len());
        self.partial.extend(self.down.drain(..count));
        while let Some((header, body)) = self.next_frame()? {
            match header {
                Header::Heartbeat => self.answer(ACK_OK, FLAG_LIVENESS),
                Header::Control(_) => self.on_control(&body)?,
                Header::Record(_) => self.on_record(&body),
            }
            self.check()?;
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Outcome<Option<(Header, Vec<u8>)>> {
        let Some(word) = self.partial.first_chunk() else { return Ok(None) };
        let header = frame::header(*word).map_err(|error| error.to_string())?;
        let len = match header {
            Header::Heartbeat => 0,
            Header::Record(len) | Header::Control(len) => len,
        };
        if self.partial.len() < frame::HEADER_LEN + len {
            return Ok(None);
        }
        let frame: Vec<u8> = self.partial.drain(..frame::HEADER_LEN + len).collect();
        Ok(Some((header, frame[frame::HEADER_LEN..].to_vec())))
    }

    fn on_control(&mut self, body: &[u8]) -> Outcome {
        match Control::decode(body) {
            Some(Control::Position(next)) => {
                if !self.follower.on_position(next, Lsn(self.copy.len() as u64)) {
                    self.seen.gaps += 1;
                    self.answer(ACK_NOT_STORED, 0);
                }
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    }

    fn on_record(&mut self, encoded: &[u8]) {
        let field = record::stored_crc(encoded).unwrap_or(0);
        let fingerprint = Fingerprint { len: encoded.len(), field, rest: crc32(&encoded[4..]) };
        match self.follower.on_record(&fingerprint) {
            Take::Refuse => unreachable!("only a follower that awaits a record before any position refuses"),
            Take::Discard => self.seen.discarded += 1,
            Take::Known => {
                self.seen.known += 1;
                self.answer(ACK_OK, 0);
            }
            Take::Store if record::decode(encoded).is_err() => {
                self.follower.on_not_stored(fingerprint, self.mode == Mode::Positioned);
                self.answer(ACK_CRC_FAIL, 0);
            }
            Take::Store if self.faults.full_disk > 0 && self.random.one_in(self.faults.full_disk) => {
                self.follower.on_not_stored(fingerprint, self.mode == Mode::Positioned);
                self.answer(ACK_NOT_STORED, 0);
            }
            Take::Store => {
                self.copy.push(encoded.to_vec());
                self.answer(ACK_OK, 0);
            }
        }
    }

    /// OK names the last record, a refusal the one after it.
    fn answer(&mut self, status: u8, flags: u8) {
        let last = Lsn(self.copy.len() as u64);
        let lsn = if status == ACK_OK { last } else { last.next() };
        let ack = match (self.mode, flags) {
            // A lesson's follower sends no marks. (What it answers a heartbeat with is not this test's subject.)
            (Mode::Positioned, _) | (_, FLAG_LIVENESS) => Ack::marked(lsn, status, Mark { node: 1, flags }),
            _ => Ack::plain(lsn, status),
        };
        self.up.extend(ack.encode());
    }

    // What must hold at any time.

    fn check(&self) -> Outcome {
        if let Some(newest) = self.copy.last() {
            // The records before it were looked at when they were the newest.
            let lsn = self.copy.len();
            match self.log.get(lsn - 1) {
                Some(ours) if ours == newest => {}
                ours => {
                    let here = record::decode(newest).map(|record| record.timestamp);
                    let there = ours.and_then(|ours| record::decode(ours).ok()).map(|record| record.timestamp);
                    return Err(format!(
                        "record {lsn} of the follower was written as {here:?}, the leader's as {there:?}"
                    ));
                }
            }
        }
        let missing = Lsn(self.copy.len() as u64 + 1);
        if self.progress.ledger.has(missing) || self.progress.acked >= missing {
            return Err(format!("record {missing} counts as durable at the follower, which does not have it"));
        }
        Ok(())
    }
}

/// Runs many seeds, or the one that the environment names, and adds up what was seen.
fn run_seeds(mode: Mode, faults: Faults, seeds: u64) -> Seen {
    let one: Option<u64> = std::env::var("LOGSHIP_SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    let mut total = Seen::default();
    for seed in one.map_or(0..seeds, |seed| seed..seed + 1) {
        match Simulation::new(mode, faults, seed).run(250) {
            Ok(seen) => {
                total.damaged += seen.damaged;
                total.rejected += seen.rejected;
                total.reshipped += seen.reshipped;
                total.discarded += seen.discarded;
                total.known += seen.known;
                total.gaps += seen.gaps;
                total.given_up += seen.given_up;
            }
            Err(what) => panic!("seed {seed}, {mode:?}, {faults:?}: {what}"),
        }
    }
    total
}

/// Whether a single seed was asked for; then nothing can be said of how often what came up.
fn single() -> bool {
    std::env::var_os("LOGSHIP_SIM_SEED").is_some()
}

#[test]
fn without_faults_every_record_arrives_once_and_nothing_is_sent_again() {
    for mode in [Mode::Positioned, Mode::OneAtATime, Mode::Careless] {
        let seen = run_seeds(mode, Faults::default(), 100);
        assert_eq!((seen.rejected, seen.reshipped, seen.discarded, seen.known), (0, 0, 0, 0), "{mode:?}");
    }
}

#[test]
fn with_positions_the_followers_log_is_always_a_beginning_of_the_leaders_and_ends_equal() {
    for damage in [2, 5, 20] {
        let seen = run_seeds(Mode::Positioned, Faults { damage, ..Faults::default() }, 200);
        assert!(single() || seen.damaged > 200 && seen.reshipped > 200 && seen.discarded > 200, "{damage}: {seen:?}");
        assert!(single() || damage > 2 || seen.given_up > 0, "{seen:?}");
    }
}

#[test]
fn with_positions_a_follower_whose_disk_fails_now_and_then_ends_equal() {
    let seen = run_seeds(Mode::Positioned, Faults { full_disk: 6, damage: 12, ..Faults::default() }, 200);
    assert!(single() || seen.rejected > 200 && seen.discarded > 200, "{seen:?}");
}

#[test]
fn with_positions_a_connection_that_breaks_again_and_again_loses_and_repeats_nothing() {
    let faults = Faults { disconnect: 15, damage: 10, full_disk: 20, stale: 3, ..Faults::default() };
    let seen = run_seeds(Mode::Positioned, faults, 200);
    assert!(single() || seen.damaged > 200 && seen.rejected > 200 && seen.known > 200, "{seen:?}");
}

#[test]
fn with_positions_a_follower_that_named_an_lsn_it_does_not_have_is_given_what_is_missing() {
    let faults = Faults { disconnect: 15, damage: 15, overstated: 2, ..Faults::default() };
    let seen = run_seeds(Mode::Positioned, faults, 200);
    assert!(single() || seen.gaps > 200 && seen.discarded > 200, "{seen:?}");
}

#[test]
fn without_positions_a_leader_that_ships_one_record_at_a_time_ends_equal() {
    for damage in [2, 5, 20] {
        let seen = run_seeds(Mode::OneAtATime, Faults { damage, ..Faults::default() }, 200);
        assert!(single() || seen.damaged > 100 && seen.reshipped == seen.rejected, "{damage}: {seen:?}");
        assert_eq!(seen.given_up, 0);
    }
}

#[test]
fn without_positions_records_in_flight_take_a_rejected_ones_place() {
    // The canary: the same checks must see what positions are there to prevent.
    let faults = Faults { damage: 5, ..Faults::default() };
    let failed = (0..100).filter(|seed| Simulation::new(Mode::Careless, faults, *seed).run(250).is_err()).count();
    assert!(failed > 90, "only {failed} of 100 runs were seen to go wrong");
}

#[test]
fn a_run_is_the_same_for_the_same_seed() {
    let faults = Faults { damage: 4, full_disk: 9, disconnect: 30, stale: 2, overstated: 4 };
    let run = |seed| format!("{:?}", Simulation::new(Mode::Positioned, faults, seed).run(250).unwrap());
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

#[test]
fn a_record_that_is_rejected_again_and_again_is_given_up_and_comes_with_the_next_connection() {
    let mut simulation = Simulation::new(Mode::Positioned, Faults { damage: 1, ..Faults::default() }, 1);
    simulation.connect().unwrap();
    simulation.write().unwrap();
    for _ in 0..=RESHIPS_MAX {
        assert_eq!(simulation.seen.given_up, 0);
        simulation.deliver_down(usize::MAX).unwrap();
        simulation.deliver_up(usize::MAX).unwrap();
    }
    assert_eq!(simulation.seen.given_up, 1);
    assert_eq!(simulation.seen.reshipped, usize::try_from(RESHIPS_MAX).unwrap());
    assert!(simulation.copy.is_empty());
    simulation.faults = Faults::default();
    simulation.connect().unwrap();
    simulation.settle().unwrap();
    assert_eq!(simulation.copy, simulation.log);
    assert_eq!(record::decode(&simulation.copy[0]).unwrap().timestamp, Timestamp(1));
}
