//! The words that cross module borders: no bare `u64` does.
//!
//! Touches nothing: plain values only.
#![forbid(unsafe_code)]

use std::fmt;

/// Log sequence number: the number of a record in its log, counted from 1.
///
/// `Lsn::ZERO` stands for "before the first record"; the last LSN of an empty log is `Lsn::ZERO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first record.
    pub const ZERO: Lsn = Lsn(0);

    /// The LSN that follows this one.
    #[must_use]
    pub const fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }

    /// The LSN `count` records later.
    #[must_use]
    pub const fn plus(self, count: u64) -> Lsn {
        Lsn(self.0.saturating_add(count))
    }

    /// How many records lie between `earlier` and this LSN; 0 if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a log has been through up to some record: one number that every record up to there, and their order, goes into.
///
/// Two logs whose histories at an LSN are equal have the same records up to it; nothing that only one of them wrote,
/// lost or replaced stays hidden behind a last record that happens to be equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History(pub u64);

impl History {
    /// Of no record.
    pub const EMPTY: History = History(0);

    /// After one more record, whose encoding begins with these 8 bytes: its CRC and its length.
    #[must_use]
    pub const fn then(self, head: [u8; 8]) -> History {
        // A step must depend on the order and keep all 64 bits alive; it need not resist an attacker.
        let mixed = (self.0.rotate_left(29) ^ u64::from_le_bytes(head)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        History(mixed ^ (mixed >> 32))
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The time stamp of a write, in nanoseconds; 0 means "none" (a W10 record): log order decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// No time stamp.
    pub const NONE: Timestamp = Timestamp(0);
}
