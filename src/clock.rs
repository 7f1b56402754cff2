//! Time stamps that never run backwards: the only place that makes one.
//!
//! CLOCK_MONOTONIC restarts at boot, so a rebooted leader's writes would lose to its own old ones. Every log, record
//! and checkpoint that is read therefore raises a floor: a new time stamp is always above all that this process has
//! seen or given out. One record with an absurd stamp must not use the clock up: [`admits`] says which stamps a log
//! takes, and whatever it has taken the clock can pass.
#![forbid(unsafe_code)]

use crate::types::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

/// Below this a log takes every time stamp: 146 years in nanoseconds.
const FREE: u64 = 1 << 62;
/// From there on a stamp may be so far above the newest one, 18 minutes: the clock itself goes on there once a log has
/// such stamps, one at a time.
const STEP: u64 = 1 << 40;
/// The clock is never set above this, so that it can always go on.
const CEILING: u64 = u64::MAX - STEP;

static FLOOR: AtomicU64 = AtomicU64::new(0);

/// Whether a log takes a record with this stamp. After one that the clock can't pass every later write would lose to
/// it: stored, acknowledged and skipped.
#[must_use]
pub fn admits(timestamp: Timestamp) -> bool {
    let newest = FLOOR.load(Ordering::Relaxed);
    timestamp.0 < FREE || timestamp.0 <= newest.saturating_add(STEP).min(CEILING)
}

/// Tells the clock which time stamp a log or checkpoint has. All are taken over, or the writes that follow would lose;
/// but for those at the very end, which no log takes and none can pass.
pub fn observe(timestamp: Timestamp) {
    if timestamp.0 <= CEILING && timestamp.0 > FLOOR.load(Ordering::Relaxed) {
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
        let next = now.max(floor.saturating_add(1));
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

    /// One test, since all of them share the clock.
    #[test]
    fn a_new_stamp_is_above_all_that_was_seen_and_a_log_takes_what_the_clock_can_pass() {
        let first = next_timestamp();
        let second = next_timestamp();
        assert!(second > first);
        let ahead = Timestamp(second.0 + 1_000_000_000_000);
        observe(ahead);
        assert!(next_timestamp() > ahead);

        assert!(admits(Timestamp::NONE) && admits(Timestamp(FREE - 1)));
        for far in [FREE + STEP, 1 << 63, CEILING, u64::MAX] {
            assert!(!admits(Timestamp(far)), "{far}");
        }
        observe(Timestamp(FREE - 1));
        for _ in 0..3 {
            let next = next_timestamp();
            assert!(next.0 >= FREE && admits(next), "the clock goes on, and its stamps are taken");
        }
        // Of a log that an earlier version has written.
        observe(Timestamp(u64::MAX));
        assert!(next_timestamp().0 < FREE + STEP, "that can't be passed");
        observe(Timestamp(1 << 63));
        let next = next_timestamp();
        assert!(next.0 > 1 << 63 && admits(next) && !admits(Timestamp(u64::MAX)));
    }
}
