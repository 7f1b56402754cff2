//! Last writer wins: the rule by which every replica that saw the same stamped writes has the same store.
//!
//! Writes to one key are totally ordered: by time stamp; at equal time stamps any SET above a DEL; between two SETs
//! the greater value as unsigned bytes (a longer value over its own prefix). The store holds the greatest write seen,
//! so order and repetition don't matter. Two writes without a time stamp (0, a W10 log) apply in log order instead.
//! Source: lesson w11-l04; the tie-break makes it a join semilattice (Shapiro et al., "Conflict-free Replicated Data
//! Types", 2011, LWW register).
#![forbid(unsafe_code)]

use crate::types::Timestamp;

/// What a store knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing<'a> {
    /// Nothing.
    Absent,
    /// A live value.
    Live(Timestamp, &'a [u8]),
    /// A tombstone.
    Dead(Timestamp),
}

/// A write that comes in: a value, or `None` for a DEL.
pub type Incoming<'a> = Option<&'a [u8]>;

/// Whether the incoming write wins over what is there.
#[must_use]
pub fn wins(existing: Existing<'_>, timestamp: Timestamp, incoming: Incoming<'_>) -> bool {
    let (at, value) = match existing {
        Existing::Absent => return true,
        Existing::Live(at, value) => (at, Some(value)),
        Existing::Dead(at) => (at, None),
    };
    if timestamp == Timestamp::NONE && at == Timestamp::NONE {
        return true; // Log order: the later record of a log without time stamps is the newer one.
    }
    // `None < Some(_)`, and slices compare as unsigned bytes with a prefix below what it is a prefix of.
    (timestamp, incoming) > (at, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_cases() {
        use Existing::{Absent, Dead, Live};
        let t = Timestamp;
        let rows: &[(Existing<'_>, u64, Incoming<'_>, bool)] = &[
            (Absent, 0, Some(b"a"), true),
            (Absent, 5, None, true),
            (Live(t(5), b"a"), 6, Some(b"a"), true),
            (Live(t(5), b"a"), 4, Some(b"z"), false),
            (Live(t(5), b"aaa"), 5, Some(b"zzz"), true),
            (Live(t(5), b"zzz"), 5, Some(b"aaa"), false),
            (Live(t(5), b"a"), 5, Some(b"a"), false),
            (Live(t(5), b"a"), 5, Some(b"ab"), true),
            (Live(t(5), b"\x7f"), 5, Some(b"\x80"), true),
            (Live(t(5), b"a"), 5, None, false),
            (Live(t(5), b"a"), 4, None, false),
            (Live(t(5), b"a"), 6, None, true),
            (Dead(t(5)), 4, Some(b"a"), false),
            (Dead(t(5)), 5, Some(b""), true),
            (Dead(t(5)), 6, Some(b"a"), true),
            (Dead(t(5)), 5, None, false),
            (Live(t(0), b"z"), 0, Some(b"a"), true),
            (Live(t(0), b"z"), 0, None, true),
            (Live(t(0), b"z"), 1, Some(b"a"), true),
            (Live(t(1), b"z"), 0, Some(b"a"), false),
        ];
        for (existing, at, incoming, expected) in rows {
            assert_eq!(wins(*existing, t(*at), *incoming), *expected, "{existing:?} <- {at} {incoming:?}");
        }
    }
}
