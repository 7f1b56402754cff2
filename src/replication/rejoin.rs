//! What a follower that comes back gets, decided from numbers alone.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::types::Lsn;

/// What to ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was missed.
    UpToDate,
    /// The records after this LSN, which is the follower's last.
    ShipAfter(Lsn),
}

/// Decides for a follower whose last LSN is `follower`, before a leader whose log ends at `last`.
///
/// A follower ahead of the leader is [`Error::FollowerAhead`]: feeding it would put records on top of a different past.
/// A number that fits only when its bytes are swapped was sent in host byte order, a known mistake, and is taken
/// swapped.
pub fn decide(follower: Lsn, last: Lsn) -> Result<Decision> {
    let swapped = Lsn(follower.0.swap_bytes());
    let follower = if follower > last && swapped <= last { swapped } else { follower };
    match follower.cmp(&last) {
        std::cmp::Ordering::Less => Ok(Decision::ShipAfter(follower)),
        std::cmp::Ordering::Equal => Ok(Decision::UpToDate),
        std::cmp::Ordering::Greater => Err(Error::FollowerAhead { follower, leader: last }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cases() {
        assert_eq!(decide(Lsn(5), Lsn(10)).unwrap(), Decision::ShipAfter(Lsn(5)));
        assert_eq!(decide(Lsn(0), Lsn(10)).unwrap(), Decision::ShipAfter(Lsn(0)));
        assert_eq!(decide(Lsn(10), Lsn(10)).unwrap(), Decision::UpToDate);
        assert_eq!(decide(Lsn(0), Lsn(0)).unwrap(), Decision::UpToDate);
        assert!(matches!(decide(Lsn(11), Lsn(10)), Err(Error::FollowerAhead { .. })));
        assert_eq!(decide(Lsn(5u64.swap_bytes()), Lsn(10)).unwrap(), Decision::ShipAfter(Lsn(5)));
        assert_eq!(decide(Lsn(10u64.swap_bytes()), Lsn(10)).unwrap(), Decision::UpToDate);
        assert!(matches!(decide(Lsn(11u64.swap_bytes()), Lsn(10)), Err(Error::FollowerAhead { .. })));
    }
}
