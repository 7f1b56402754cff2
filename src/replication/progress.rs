//! What a leader knows of one follower, and what each ack makes of it.
#![forbid(unsafe_code)]

use super::ledger::Ledger;
use super::message::{ACK_CRC_FAIL, ACK_DIVERGED, ACK_NOT_STORED, ACK_OK, Ack, Mark};
use crate::types::Lsn;

/// A rejected record is sent again this many times; then the follower is given up.
pub const RESHIPS_MAX: u32 = 3;

/// A follower as its leader sees it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Acks that count.
    pub ledger: Ledger,
    /// The highest LSN it acknowledged.
    pub acked: Lsn,
    /// Whether the peer has shown the mark of logship.
    pub is_logship: bool,
    /// Whether it answers for records with marked acks: it counts as we do.
    pub follows: bool,
    /// Whether it has said so, and with which last LSN. Only where a catch-up has begun with what it lacks does that
    /// mean that the next record here is the next one there.
    pub greeting: Option<Lsn>,
    /// A catch-up has begun on this connection.
    pub was_caught_up: bool,
    /// The node number it gave, 0 if none.
    pub node: u8,
    /// The LSN of the next record frame, once a POSITION message has stated it; then the peer counts with us and
    /// takes nothing behind a rejected record until told where the stream goes on.
    pub next: Option<Lsn>,
    /// Before that: the LSN of the first record sent on this connection, if the leader's log told it.
    pub first: Option<Lsn>,
    /// Whether the peer's log was seen to go on where the leader's does.
    alignment: Alignment,
    /// Record frames sent on this connection, other than by catch-up.
    pub sent: u64,
    /// The highest LSN that was sent on this connection, as the leader's log tells.
    pub shipped: Lsn,
    /// Frames sent whose LSN no log told: the program logs them later, or elsewhere.
    unplaced: u64,
    /// Acks that count for those: no more than there are.
    counted: u64,
    /// A record that must be sent again before anything else.
    pub reship: Option<Reship>,
    /// The record that was sent again last, and how often.
    reships: (Lsn, u32),
}

/// Whether a peer that counts with us, and was told no position, has stored what it was sent as the records that they
/// are. Where the leader's log begins with what was sent, any ack for it will do. Where it has older records the peer
/// must have them too: its first ack must be for the first record sent, or it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Alignment {
    /// It has not answered yet.
    #[default]
    Unknown,
    /// It has, and rightly; or a CHECK has shown it.
    Seen,
    /// It has answered for another one: it has more or less, or has left acks out. A CHECK was sent, and what it
    /// acknowledges meanwhile counts when it is answered.
    Asked(Lsn),
}

/// What an ack counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Records that are known: its own, or all up to it.
    Known,
    /// Its own LSN alone.
    Own,
    /// So many records, the last of which is its own.
    Last(u64),
    /// Nothing was sent, or is in a log, that could have this LSN.
    Nothing,
}

/// A rejected record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reship {
    /// Its LSN, as the follower says.
    pub lsn: Lsn,
    /// Send it now (its bytes were damaged), or only before the next record (the follower's disk failed).
    pub now: bool,
}

/// What an ack means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A record, or everything up to it, is durable there.
    Durable,
    /// The peer lives; nothing else.
    Alive,
    /// A record was rejected and is to be sent again: see [`Progress::reship`].
    Rejected,
    /// Rejected too often.
    GiveUp,
    /// It counts for nothing: an LSN that the log does not have.
    Ignored,
    /// The peer counts with us and has another log: nothing that it acknowledges counts.
    Diverged,
    /// It may: ask it about this record.
    Unsure(Lsn),
}

impl Progress {
    /// Forgets everything: another socket is in the slot.
    pub fn clear(&mut self) {
        self.ledger.clear();
        self.acked = Lsn::ZERO;
        self.is_logship = false;
        self.follows = false;
        (self.greeting, self.was_caught_up) = (None, false);
        self.node = 0;
        self.next = None;
        (self.first, self.alignment, self.sent) = (None, Alignment::Unknown, 0);
        (self.shipped, self.unplaced, self.counted) = (Lsn::ZERO, 0, 0);
        self.reship = None;
        self.reships = (Lsn::ZERO, 0);
    }

    /// Forgets what was acknowledged.
    pub fn forget_acks(&mut self) {
        self.ledger.clear();
        self.acked = Lsn::ZERO;
    }

    /// Notes whom the peer says it is, without taking its ack for anything.
    pub fn on_mark(&mut self, mark: Mark) {
        self.is_logship = true;
        self.node = mark.node;
    }

    /// Takes in what the peer says of itself.
    pub fn on_hello(&mut self, hello: &Ack) {
        if let Some(mark) = hello.mark() {
            self.on_mark(mark);
        }
        if hello.is_greeting() {
            self.greeting = Some(hello.lsn);
        }
    }

    /// Whether positions may be stated to it, the next of which is `next`.
    #[must_use]
    pub fn counts_with_us(&self, next: Lsn) -> bool {
        let both_are_empty = next == Lsn(1) && self.sent == 0 && self.greeting == Some(Lsn::ZERO);
        self.follows || both_are_empty || (self.was_caught_up && self.greeting.is_some())
    }

    /// What an ack of `lsn` with status OK may count for. `end` is the last LSN of the leader's log if it is known.
    ///
    /// What was sent on this connection, and what stands in the log. Records whose LSN no log tells may be anywhere, so
    /// an ack counts for as many as were sent and no more. Before a program that does not ship with these functions it
    /// counts for its own LSN.
    fn scope(&self, ack: &Ack, end: Option<Lsn>) -> Scope {
        let nothing_sent = self.sent == 0 && self.shipped == Lsn::ZERO && self.next.is_none();
        match end.filter(|end| *end > Lsn::ZERO) {
            end if ack.lsn <= end.unwrap_or_default().max(self.shipped) => Scope::Known,
            _ if ack.mark().is_some() && self.unplaced > 0 => Scope::Last(self.unplaced),
            _ if self.counted < self.unplaced || self.is_said_before(ack.lsn) => Scope::Own,
            None if nothing_sent => Scope::Own,
            _ => Scope::Nothing,
        }
    }

    /// Whether `lsn` is among the records that were sent, whose LSNs no log tells, and not above the highest that was
    /// acknowledged: an ack that comes late, or twice, takes no other record's place.
    fn is_said_before(&self, lsn: Lsn) -> bool {
        self.unplaced > 0 && lsn <= self.acked && self.acked.since(lsn) <= self.unplaced
    }

    /// Whether an ack of `lsn` would count for something.
    #[must_use]
    pub fn may_count(&self, lsn: Lsn, end: Option<Lsn>) -> bool {
        self.scope(&Ack::plain(lsn, ACK_OK), end) != Scope::Nothing
    }

    /// Takes an ack in. `end` is the last LSN of the leader's log if it is known.
    pub fn on_ack(&mut self, ack: &Ack, end: Option<Lsn>) -> Verdict {
        let mark = ack.mark();
        if let Some(mark) = mark.filter(|_| ack.shows_logship()) {
            self.on_mark(mark);
        }
        if ack.is_greeting() {
            self.greeting = Some(ack.lsn);
        }
        if ack.is_check_answer() {
            return self.on_check_answer(ack);
        }
        if ack.is_liveness() {
            return Verdict::Alive;
        }
        self.follows |= mark.is_some();
        let scope = self.scope(ack, end);
        if ack.status == ACK_OK {
            let counted = if scope == Scope::Nothing { Lsn::ZERO } else { ack.lsn };
            if mark.is_some()
                && let Some(verdict) = self.align(ack.lsn, counted)
            {
                return verdict;
            }
            if scope == Scope::Nothing {
                return Verdict::Ignored;
            }
        }
        match ack.status {
            ACK_OK => {
                match scope {
                    Scope::Known if mark.is_some() => self.ledger.add_through(ack.lsn),
                    Scope::Last(count) => {
                        let first = ack.lsn.0.saturating_sub(count).saturating_add(1);
                        self.ledger.add_range(Lsn(first), ack.lsn);
                    }
                    Scope::Own | Scope::Known | Scope::Nothing => {
                        self.counted += u64::from(scope == Scope::Own && ack.lsn > self.acked);
                        self.ledger.add(ack.lsn);
                    }
                }
                self.acked = self.acked.max(ack.lsn);
                if self.reship.is_some_and(|reship| reship.lsn <= ack.lsn && mark.is_some()) {
                    self.reship = None;
                }
                Verdict::Durable
            }
            ACK_CRC_FAIL | ACK_NOT_STORED => {
                // A disk that failed is tried again at once, then only before the next record.
                let now = ack.status == ACK_CRC_FAIL || self.reships.0 != ack.lsn;
                self.refused(ack.lsn, now)
            }
            _ => Verdict::Ignored,
        }
    }

    fn refused(&mut self, lsn: Lsn, now: bool) -> Verdict {
        if self.reships == (lsn, RESHIPS_MAX) {
            return Verdict::GiveUp;
        }
        self.reship = Some(Reship { lsn, now });
        Verdict::Rejected
    }

    /// Notes that the rejected record `lsn` was sent again.
    pub fn reshipped(&mut self, lsn: Lsn) {
        self.reships = match self.reships {
            (at, count) if at == lsn => (lsn, count + 1),
            _ => (lsn, 1),
        };
    }

    /// Notes that one more record frame went out; `lsn` is its number if the leader's log tells it.
    pub fn on_shipped(&mut self, lsn: Option<Lsn>) {
        self.sent += 1;
        match lsn.or(self.next) {
            Some(lsn) => self.shipped = self.shipped.max(lsn),
            None => self.unplaced += 1,
        }
        self.next = self.next.map(Lsn::next);
    }

    /// Judges a marked ack by its number; `counted` is what it may count for. `None`: it counts.
    fn align(&mut self, acked: Lsn, counted: Lsn) -> Option<Verdict> {
        let first = self.first.filter(|_| self.next.is_none())?;
        match self.alignment {
            Alignment::Seen => None,
            Alignment::Asked(held) => {
                self.alignment = Alignment::Asked(held.max(counted));
                Some(Verdict::Alive)
            }
            Alignment::Unknown if first == Lsn(1) => None,
            Alignment::Unknown if acked == first => {
                self.alignment = Alignment::Seen;
                None
            }
            Alignment::Unknown if acked.next() < first => Some(Verdict::Diverged),
            Alignment::Unknown => {
                self.alignment = Alignment::Asked(counted);
                Some(Verdict::Unsure(Lsn(first.0 - 1)))
            }
        }
    }

    fn on_check_answer(&mut self, ack: &Ack) -> Verdict {
        match (self.alignment, ack.status) {
            (_, ACK_DIVERGED) => Verdict::Diverged,
            (Alignment::Asked(held), ACK_OK) => {
                self.alignment = Alignment::Seen;
                self.ledger.add_through(held);
                self.acked = self.acked.max(held);
                Verdict::Durable
            }
            (Alignment::Asked(_), _) => Verdict::Diverged,
            // Its log ends before the position that it was told: it discards until it gets what it lacks.
            (_, ACK_NOT_STORED) if self.next.is_some() => self.refused(ack.lsn.next(), true),
            _ => Verdict::Alive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{FLAG_CHECKED, FLAG_LIVENESS};
    use super::*;

    #[test]
    fn a_plain_ack_counts_for_itself_and_a_marked_one_for_all_below() {
        let mut progress = Progress::default();
        (1..4).for_each(|lsn| progress.on_shipped(Some(Lsn(lsn))));
        assert_eq!(progress.on_ack(&Ack::plain(Lsn(3), ACK_OK), None), Verdict::Durable);
        assert!(progress.ledger.has(Lsn(3)) && !progress.ledger.has(Lsn(2)));
        assert!(!progress.is_logship);
        let marked = Ack::marked(Lsn(2), ACK_OK, Mark::default());
        assert_eq!(progress.on_ack(&marked, None), Verdict::Durable);
        assert!(progress.ledger.has(Lsn(1)) && progress.ledger.has(Lsn(2)) && progress.is_logship);
    }

    #[test]
    fn an_ack_that_comes_twice_takes_no_other_records_place() {
        let mut progress = Progress::default();
        for lsn in (1..4).map(Lsn) {
            progress.on_shipped(None);
            for _ in 0..3 {
                assert_eq!(progress.on_ack(&Ack::plain(lsn, ACK_OK), None), Verdict::Durable);
                assert!(progress.ledger.has(lsn));
                progress.ledger.use_up(lsn);
            }
        }
        assert_eq!(progress.on_ack(&Ack::plain(Lsn(4), ACK_OK), None), Verdict::Ignored, "it was not shipped");
    }

    #[test]
    fn an_ack_above_the_log_never_counts() {
        let mut progress = Progress::default();
        let marked = Ack::marked(Lsn(1000), ACK_OK, Mark::default());
        assert_eq!(progress.on_ack(&marked, Some(Lsn(3))), Verdict::Ignored);
        assert!(!progress.ledger.has(Lsn(1)));
    }

    #[test]
    fn what_was_sent_counts_and_nothing_above_it_whatever_is_known_of_the_log() {
        let mut progress = Progress::default();
        progress.on_shipped(Some(Lsn(1)));
        for padding in [Ack::plain(Lsn::ZERO, 0).padding, Ack::marked(Lsn::ZERO, 0, Mark::default()).padding] {
            let ack = Ack { lsn: Lsn(u64::MAX), status: ACK_OK, padding };
            assert_eq!(progress.on_ack(&ack, None), Verdict::Ignored);
            assert!(!progress.ledger.has(Lsn(1)) && !progress.ledger.has(Lsn(u64::MAX)));
        }
        assert_eq!(progress.on_ack(&Ack::plain(Lsn(1), ACK_OK), None), Verdict::Durable);
    }

    #[test]
    fn records_that_no_log_has_are_counted_and_no_more_than_were_sent() {
        let mut progress = Progress::default();
        (0..2).for_each(|_| progress.on_shipped(None));
        for lsn in [7, 7, 8] {
            assert_eq!(progress.on_ack(&Ack::plain(Lsn(lsn), ACK_OK), Some(Lsn(5))), Verdict::Durable);
        }
        assert_eq!(progress.on_ack(&Ack::plain(Lsn(9), ACK_OK), Some(Lsn(5))), Verdict::Ignored);
        let marked = Ack::marked(Lsn(u64::MAX), ACK_OK, Mark::default());
        assert_eq!(progress.on_ack(&marked, Some(Lsn(5))), Verdict::Durable);
        assert!(progress.ledger.has(Lsn(u64::MAX - 1)) && !progress.ledger.has(Lsn(u64::MAX - 2)));
        assert!(!progress.ledger.has(Lsn(10)));
    }

    #[test]
    fn the_fourth_rejection_of_a_record_is_the_end() {
        let mut progress = Progress::default();
        let nack = Ack::plain(Lsn(1), ACK_CRC_FAIL);
        for _ in 0..RESHIPS_MAX {
            assert_eq!(progress.on_ack(&nack, None), Verdict::Rejected);
            assert_eq!(progress.reship, Some(Reship { lsn: Lsn(1), now: true }));
            progress.reshipped(Lsn(1));
        }
        assert_eq!(progress.on_ack(&nack, None), Verdict::GiveUp);
    }

    /// A leader whose log has 10 records connects and ships 11, 12, 13, 14.
    fn connected() -> Progress {
        let mut progress = Progress { first: Some(Lsn(11)), ..Progress::default() };
        (11..15).for_each(|lsn| progress.on_shipped(Some(Lsn(lsn))));
        progress
    }

    fn marked(lsn: u64) -> Ack {
        Ack::marked(Lsn(lsn), ACK_OK, Mark::default())
    }

    fn answer(status: u8) -> Ack {
        Ack::marked(Lsn(14), status, Mark { node: 0, flags: FLAG_LIVENESS | FLAG_CHECKED })
    }

    #[test]
    fn behind_older_records_the_first_marked_ack_must_be_for_the_first_record() {
        let last = Some(Lsn(14));
        let mut aligned = connected();
        assert_eq!(aligned.on_ack(&marked(11), last), Verdict::Durable);
        assert_eq!(aligned.on_ack(&marked(14), last), Verdict::Durable);
        for older in [1, 9] {
            let mut progress = connected();
            assert_eq!(progress.on_ack(&marked(older), last), Verdict::Diverged);
            assert!(!progress.ledger.has(Lsn(1)));
        }
        // Records that the log does not have, or a log that begins with them.
        assert_eq!(Progress::default().on_ack(&marked(7), None), Verdict::Durable);
        let mut from_the_first = Progress { first: Some(Lsn(1)), ..Progress::default() };
        assert_eq!(from_the_first.on_ack(&marked(3), Some(Lsn(4))), Verdict::Durable);
    }

    #[test]
    fn any_other_counts_when_a_check_has_shown_that_it_may() {
        for (status, verdict) in [(ACK_OK, Verdict::Durable), (ACK_DIVERGED, Verdict::Diverged), (2, Verdict::Diverged)]
        {
            for other in [10, 12, 15] {
                let mut progress = connected();
                assert_eq!(progress.on_ack(&marked(other), Some(Lsn(14))), Verdict::Unsure(Lsn(10)));
                assert_eq!(progress.on_ack(&marked(13), Some(Lsn(14))), Verdict::Alive);
                assert!(!progress.ledger.has(Lsn(1)));
                assert_eq!(progress.on_ack(&answer(status), Some(Lsn(14))), verdict);
                assert_eq!(progress.ledger.has(Lsn(13)), status == ACK_OK);
            }
        }
    }

    #[test]
    fn liveness_acknowledges_nothing() {
        let mut progress = Progress::default();
        let alive = Ack::marked(Lsn(9), ACK_OK, Mark { node: 2, flags: FLAG_LIVENESS });
        assert_eq!(progress.on_ack(&alive, None), Verdict::Alive);
        assert!(!progress.ledger.has(Lsn(1)));
        assert_eq!(progress.node, 2);
    }
}
