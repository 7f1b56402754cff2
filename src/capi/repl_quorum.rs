//! w11/repl_quorum.h: waiting for a quorum.
#![allow(unsafe_code, reason = "the C boundary")]

use super::configs;
use super::guard;
use super::repl_config::replication_config;
use crate::error::Error;
use crate::net::io::Deadline;
use crate::types::Lsn;
use libc::c_int;

/// Waits until a quorum (`follower_count` / 2 + 1 different followers; the leader does not count) has acknowledged
/// `lsn` with status 0. Returns 0, or -1 with `errno`: ETIMEDOUT when `timeout_ms`, one deadline for the whole call,
/// has passed (negative: none; the record is in the leader's log and maybe on some followers, and one may wait again);
/// ENOTCONN as soon as each follower that was online has acknowledged it or has gone, and they are too few; EINVAL for
/// bad arguments. Only online followers are polled, too few or not. A record rejected with status 1 is sent again, at
/// most 3 times. 0 followers: 0.
///
/// # Safety
/// `config` points to a configuration that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_wait_quorum(config: *mut replication_config, lsn: u64, timeout_ms: c_int) -> c_int {
    guard::call(|| {
        if lsn == 0 {
            return Err(Error::Invalid("LSNs begin at 1"));
        }
        let deadline = Deadline::after_ms(timeout_ms);
        // SAFETY: the caller's promise.
        unsafe {
            configs::with_group(config, |group, extra| {
                *extra.degraded = group.wait_quorum(Lsn(lsn), extra.policy, deadline)?;
                Ok(0)
            })
        }
    })
}
