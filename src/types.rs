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

/// The time stamp of a write, in nanoseconds; 0 means "none" (a W10 record): log order decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// No time stamp.
    pub const NONE: Timestamp = Timestamp(0);
}
