//! The follower's end of a connection: what to do with each frame.
//!
//! A lesson's leader states no positions; then every whole record is the next one, and a rejected record's re-ship is
//! the next whole record. A logship leader states them; then nothing is taken behind a rejected record, or out of its
//! place, until the leader says where the stream goes on.
#![forbid(unsafe_code)]

use crate::types::Lsn;

/// State of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    /// The leader has stated a position on this connection.
    positioned: bool,
    /// Records are passed over until the next position.
    discarding: bool,
    /// The leader's log is another one.
    diverged: bool,
    /// So many records are here already and come again.
    known: u64,
}

/// What to do with a record frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Check it, store it, apply it.
    Store,
    /// It is behind a rejected record: pass over it, say nothing.
    Discard,
    /// It is stored already: pass over it; an ack of what is durable does no harm.
    Known,
}

impl Follower {
    /// The leader says that the next record frame is `next`; this log ends at `last`. `false`: records are missing
    /// between the two and the leader must be told where this log ends.
    pub fn on_position(&mut self, next: Lsn, last: Lsn) -> bool {
        self.positioned = true;
        self.discarding = next > last.next();
        self.known = if next <= last { last.since(next) + 1 } else { 0 };
        !self.discarding || self.diverged
    }

    /// A record frame is here.
    pub fn on_record(&mut self) -> Take {
        if self.discarding || self.diverged {
            Take::Discard
        } else if self.known > 0 {
            self.known -= 1;
            Take::Known
        } else {
            Take::Store
        }
    }

    /// The leader's log is another one: nothing more is taken on this connection.
    pub fn on_diverged(&mut self) {
        self.diverged = true;
    }

    /// The record was not stored: damaged, or the log failed.
    pub fn on_not_stored(&mut self) {
        self.discarding = self.positioned;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_a_plain_leader_every_record_is_the_next() {
        let mut follower = Follower::default();
        assert_eq!(follower.on_record(), Take::Store);
        follower.on_not_stored();
        assert_eq!(follower.on_record(), Take::Store);
    }

    #[test]
    fn behind_a_rejected_record_nothing_is_taken_until_the_position_is_stated() {
        let mut follower = Follower::default();
        assert!(follower.on_position(Lsn(6), Lsn(5)));
        assert_eq!(follower.on_record(), Take::Store);
        follower.on_not_stored();
        assert_eq!(follower.on_record(), Take::Discard);
        assert!(follower.on_position(Lsn(6), Lsn(5)));
        assert_eq!(follower.on_record(), Take::Store);
    }

    #[test]
    fn records_that_come_again_are_passed_over_and_a_gap_is_refused() {
        let mut follower = Follower::default();
        assert!(follower.on_position(Lsn(4), Lsn(5)));
        assert_eq!(follower.on_record(), Take::Known);
        assert_eq!(follower.on_record(), Take::Known);
        assert_eq!(follower.on_record(), Take::Store);
        assert!(!follower.on_position(Lsn(9), Lsn(6)));
        assert_eq!(follower.on_record(), Take::Discard);
    }
}
