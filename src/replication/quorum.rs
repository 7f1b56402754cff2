//! Counting: how many followers make a quorum, and what the answers so far amount to.
//!
//! One quorum size, whatever is online: half of the configured followers and one more (lesson w11-l03). With
//! [`Policy::Degrade`] it is counted over the followers online now, at least one: the lesson's step 9 trade-off, and
//! every such commit is told apart.
#![forbid(unsafe_code)]

/// Over which followers the quorum is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// All configured ones.
    #[default]
    Strict,
    /// Those online now, at least one.
    Degrade,
}

/// How many different followers must acknowledge.
#[must_use]
pub fn size(policy: Policy, configured: usize, online: usize) -> usize {
    match policy {
        _ if configured == 0 => 0,
        Policy::Strict => configured / 2 + 1,
        Policy::Degrade => (online.max(1) / 2 + 1).min(configured / 2 + 1),
    }
}

/// What the answers so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Enough have acknowledged.
    Reached,
    /// Not yet, and somebody may still acknowledge.
    Pending,
    /// Nobody is left who may still acknowledge, and they are too few.
    Unreachable,
}

/// Judges: `acked` followers have acknowledged, `possible` more are online and have not yet.
#[must_use]
pub fn decide(needed: usize, acked: usize, possible: usize) -> Decision {
    if acked >= needed {
        Decision::Reached
    } else if possible > 0 {
        Decision::Pending
    } else {
        Decision::Unreachable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        // configured: strict size; then degraded size with 0, 1, 2... online
        let table: [(usize, usize, &[usize]); 6] = [
            (0, 0, &[0]),
            (1, 1, &[1, 1]),
            (2, 2, &[1, 1, 2]),
            (3, 2, &[1, 1, 2, 2]),
            (5, 3, &[1, 1, 2, 2, 3, 3]),
            (8, 5, &[1, 1, 2, 2, 3, 3, 4, 4, 5]),
        ];
        for (configured, strict, degraded) in table {
            for (online, expected) in degraded.iter().enumerate() {
                assert_eq!(size(Policy::Strict, configured, online), strict);
                assert_eq!(size(Policy::Degrade, configured, online), *expected, "{configured} {online}");
            }
        }
    }

    #[test]
    fn decisions_over_all_small_cases() {
        for needed in 0..6 {
            for acked in 0..8 {
                for possible in 0..8 {
                    let expected = match (acked >= needed, possible > 0) {
                        (true, _) => Decision::Reached,
                        (false, true) => Decision::Pending,
                        (false, false) => Decision::Unreachable,
                    };
                    assert_eq!(decide(needed, acked, possible), expected);
                }
            }
        }
    }
}
