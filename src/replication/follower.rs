//! The follower's end of a connection: what to do with each frame.
//!
//! A lesson's leader states no positions; then every whole record is the next one, and a rejected record's re-ship is
//! the next whole record. A logship leader states them; then nothing is taken behind a rejected record, or out of its
//! place, until the leader says where the stream goes on.
//!
//! Before the first position is stated nobody knows which leader it is. A follower that answers for records itself then
//! takes nothing behind a rejected record but that record: others in flight would take its number.
#![forbid(unsafe_code)]

use crate::types::Lsn;

/// What tells a record from others, also when its bytes came damaged: its length, its CRC field, and the CRC of the
/// rest. Damage in the rest leaves the field right, damage in the field leaves the rest right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Encoded length.
    pub len: usize,
    /// The CRC field.
    pub field: u32,
    /// The CRC of what the field covers.
    pub rest: u32,
}

impl Fingerprint {
    /// Whether `other` may be the record that came damaged as `self`. Damage to the rest may have made it the rest of
    /// another record that is on its way; so if only the rest is the same, `strict` wants a field that differs in few
    /// bits.
    #[must_use]
    fn may_be(&self, other: &Fingerprint, strict: bool) -> bool {
        let bits = (self.field ^ other.field).count_ones();
        let same = self.field == other.field || (self.rest == other.rest && (!strict || bits <= FIELD_BITS));
        self.len == other.len && same
    }
}

/// Bits that damage may have changed in a CRC field before it can't be told from another's.
const FIELD_BITS: u32 = 4;

/// State of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    /// The leader has stated a position on this connection.
    positioned: bool,
    /// Records are missing before the next one: all are passed over until the next position.
    discarding: bool,
    /// The leader's log is another one.
    diverged: bool,
    /// So many records are here already and come again.
    known: u64,
    /// The record that was rejected: nothing else is taken.
    awaited: Option<Fingerprint>,
    /// This end answers for records itself: there may be others on their way.
    answers: bool,
    /// The leader has been told so.
    told: bool,
    /// The leader has asked for a record that this log does not have, and was told where it ends.
    told_end: bool,
    /// The program here counts for itself, in another log than the one that it named: positions mean nothing.
    elsewhere: bool,
}

/// What to do with a record frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Check it, store it, apply it.
    Store,
    /// It is behind a rejected record: pass over it, say nothing.
    Discard,
    /// The same, and tell the leader that nothing is stored.
    Refuse,
    /// It is stored already: pass over it; an ack of what is durable does no harm.
    Known,
}

impl Follower {
    /// The leader says that the next record frame is `next`; this log ends at `last`. `false`: records are missing
    /// between the two and the leader must be told where this log ends.
    pub fn on_position(&mut self, next: Lsn, last: Lsn) -> bool {
        if self.elsewhere {
            return true;
        }
        self.positioned = true;
        let told_end = std::mem::take(&mut self.told_end);
        self.awaited = None;
        self.discarding = next > last.next();
        self.known = if next <= last { last.since(next) + 1 } else { 0 };
        !self.discarding || self.diverged || told_end
    }

    /// The leader asked for a record behind the end of this log, and was told where that is.
    pub fn on_end_told(&mut self) {
        self.told_end = true;
    }

    /// The leader asked so, and was told that the program here counts for itself.
    pub fn on_elsewhere(&mut self) {
        (self.elsewhere, self.positioned) = (true, false);
    }

    /// A record is here, whole or damaged.
    pub fn on_record(&mut self, record: &Fingerprint) -> Take {
        if self.discarding || self.diverged {
            return Take::Discard;
        }
        if self.known > 0 {
            self.known -= 1;
            return Take::Known;
        }
        match self.awaited {
            Some(awaited) if !awaited.may_be(record, self.answers) => {
                // Behind a position the leader knows what is discarded; before one it must be told.
                if self.positioned || std::mem::replace(&mut self.told, true) { Take::Discard } else { Take::Refuse }
            }
            // The rejected record itself: a leader that ships one at a time sends it again.
            Some(_) => Take::Store,
            None if self.discarding => Take::Discard,
            None => Take::Store,
        }
    }

    /// Whether the leader has stated a position on this connection.
    #[must_use]
    pub fn is_positioned(&self) -> bool {
        self.positioned
    }

    /// Whether a whole record behind one that is about to be stored would be stored too.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        !self.discarding && !self.diverged && self.known == 0
    }

    /// The record was stored.
    pub fn on_stored(&mut self) {
        self.awaited = None;
    }

    /// The leader's log is another one: nothing more is taken on this connection.
    pub fn on_diverged(&mut self) {
        self.diverged = true;
    }

    /// The record was not stored: damaged, or the log failed. `answers`: this end answers for records itself.
    pub fn on_not_stored(&mut self, record: Fingerprint, answers: bool) {
        if self.positioned || answers {
            self.awaited.get_or_insert(record);
            (self.answers, self.told) = (answers, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(crc: u32) -> Fingerprint {
        Fingerprint { len: 27, field: crc, rest: crc }
    }

    #[test]
    fn before_a_plain_leader_every_record_is_the_next() {
        let mut follower = Follower::default();
        assert_eq!(follower.on_record(&whole(1)), Take::Store);
        follower.on_not_stored(whole(1), false);
        assert_eq!(follower.on_record(&whole(2)), Take::Store);
    }

    #[test]
    fn a_follower_that_answers_takes_only_the_rejected_record_until_a_position_is_stated() {
        let damages = [Fingerprint { field: 5, ..whole(1) }, Fingerprint { rest: 9, ..whole(1) }];
        for damaged in damages {
            let mut follower = Follower::default();
            follower.on_not_stored(damaged, true);
            assert_eq!(follower.on_record(&whole(2)), Take::Refuse);
            assert_eq!(follower.on_record(&whole(3)), Take::Discard);
            assert_eq!(follower.on_record(&whole(1)), Take::Store);
            follower.on_stored();
            assert_eq!(follower.on_record(&whole(2)), Take::Store);
        }
        let mut follower = Follower::default();
        follower.on_not_stored(whole(1), true);
        assert!(follower.on_position(Lsn(6), Lsn(5)));
        assert_eq!(follower.on_record(&whole(2)), Take::Store);
    }

    #[test]
    fn a_record_whose_rest_was_damaged_into_another_record_is_not_taken_for_it() {
        let mut follower = Follower::default();
        follower.on_not_stored(Fingerprint { len: 27, field: 0x0f0f_0f0f, rest: 7 }, true);
        assert_eq!(follower.on_record(&whole(7)), Take::Refuse);
        assert_eq!(follower.on_record(&whole(0x0f0f_0f0f)), Take::Store);
    }

    #[test]
    fn behind_a_rejected_record_nothing_is_taken_until_the_position_is_stated() {
        let mut follower = Follower::default();
        assert!(follower.on_position(Lsn(6), Lsn(5)));
        assert_eq!(follower.on_record(&whole(1)), Take::Store);
        follower.on_not_stored(whole(1), true);
        assert_eq!(follower.on_record(&whole(2)), Take::Discard);
        assert!(follower.on_position(Lsn(6), Lsn(5)));
        assert_eq!(follower.on_record(&whole(1)), Take::Store);
    }

    #[test]
    fn records_that_come_again_are_passed_over_and_a_gap_is_refused() {
        let mut follower = Follower::default();
        assert!(follower.on_position(Lsn(4), Lsn(5)));
        assert_eq!(follower.on_record(&whole(1)), Take::Known);
        assert_eq!(follower.on_record(&whole(2)), Take::Known);
        assert_eq!(follower.on_record(&whole(3)), Take::Store);
        assert!(!follower.on_position(Lsn(9), Lsn(6)));
        assert_eq!(follower.on_record(&whole(4)), Take::Discard);
    }
}
