//! Time stamps that never run backwards: the only place that makes one.
//!
//! CLOCK_MONOTONIC restarts at boot, so a rebooted leader's writes would lose to its own old ones. Every log, record
//! and checkpoint that is read therefore raises a floor: a new time stamp is always above all that this process has
//! seen or given out. Values of 2^62 and more are not taken over, or one bad record would use the clock up.
#![forbid(unsafe_code)]

use crate::types::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

/// Time stamps from here on are believed by the conflict rule, but do not move the clock.
const FLOOR_LIMIT: u64 = 1 << 62;

static FLOOR: AtomicU64 = AtomicU64::new(0);

/// Tells the clock that `timestamp` was seen.
pub fn observe(timestamp: Timestamp) {
    if timestamp.0 < FLOOR_LIMIT && timestamp.0 > FLOOR.load(Ordering::Relaxed) {
        FLOOR.fetch_max(timestamp.0, Ordering::Relaxed);
    }
}

/// The greatest time stamp that was seen or given out.
#[must_use]
pub fn newest() -> Timestamp {
    Timestamp(FLOOR.load(Ordering::Relaxed))
}

/// A new time stamp: CLOCK_MONOTONIC in nanoseconds, or one above the greatest seen, whichever is greater.
#[must_use]
pub fn next_timestamp() -> Timestamp {
    let now = monotonic_ns();
    let mut floor = FLOOR.load(Ordering::Relaxed);
    loop {
        let next = now.max(floor + 1);
        match FLOOR.compare_exchange_weak(floor, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Timestamp(next),
            Err(seen) => floor = seen,
        }
    }
}

fn monotonic_ns() -> u64 {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        Ok(now) => {
            let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
            let nanos = u64::try_from(now.tv_nsec()).unwrap_or(0);
            seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
        }
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_stamp_is_above_all_that_was_seen_and_given_out() {
        let first = next_timestamp();
        let second = next_timestamp();
        assert!(second > first);
        let ahead = Timestamp(second.0 + 1_000_000_000_000);
        observe(ahead);
        assert!(next_timestamp() > ahead);
        observe(Timestamp(1 << 62));
        assert!(next_timestamp().0 < 1 << 62);
    }
}
