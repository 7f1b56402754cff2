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
    /// Whether it has said so, and with which last LSN. Only where a catch-up has begun with what it lacks does that mean
    /// that the next record here is the next one there.
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

    /// Takes an ack in. `ceiling` is the last LSN of the leader's log if it is known: nothing above it can have been
    /// stored.
    pub fn on_ack(&mut self, ack: &Ack, ceiling: Option<Lsn>) -> Verdict {
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
        // A program may ship records that it keeps in no log, beside a log that is empty.
        let bounds = ceiling.filter(|last| *last > Lsn::ZERO || mark.is_some());
        if ack.status == ACK_OK {
            let is_above = bounds.is_some_and(|last| ack.lsn > last);
            let counted = if is_above { Lsn::ZERO } else { ack.lsn };
            if mark.is_some()
                && let Some(verdict) = self.align(ack.lsn, counted)
            {
                return verdict;
            }
            if is_above {
                return Verdict::Ignored;
            }
        }
        match ack.status {
            ACK_OK => {
                if mark.is_some() {
                    self.ledger.add_through(ack.lsn);
                } else {
                    self.ledger.add(ack.lsn);
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

    /// Notes that one more record frame went out.
    pub fn shipped(&mut self) {
        self.sent += 1;
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
        assert_eq!(progress.on_ack(&Ack::plain(Lsn(3), ACK_OK), None), Verdict::Durable);
        assert!(progress.ledger.has(Lsn(3)) && !progress.ledger.has(Lsn(2)));
        assert!(!progress.is_logship);
        let marked = Ack::marked(Lsn(2), ACK_OK, Mark::default());
        assert_eq!(progress.on_ack(&marked, None), Verdict::Durable);
        assert!(progress.ledger.has(Lsn(1)) && progress.ledger.has(Lsn(2)) && progress.is_logship);
    }

    #[test]
    fn an_ack_above_the_log_never_counts() {
        let mut progress = Progress::default();
        let marked = Ack::marked(Lsn(1000), ACK_OK, Mark::default());
        assert_eq!(progress.on_ack(&marked, Some(Lsn(3))), Verdict::Ignored);
        assert!(!progress.ledger.has(Lsn(1)));
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
        (0..4).for_each(|_| progress.shipped());
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
