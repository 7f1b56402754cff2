//! w11/repl_conflict.h: last writer wins.
#![allow(unsafe_code, reason = "the C boundary")]

use super::{errno, guard};
use crate::clock;
use crate::kv::lww::{self, Existing};
use crate::types::Timestamp;
use libc::{c_char, c_int};
use std::ffi::CStr;

/// Judges an incoming write: returns APPLY (1) or SKIP (0). The higher time stamp wins; equal: the greater value as
/// unsigned bytes, a longer value over its own prefix; equal values SKIP. `existing_val` NULL (absent) is APPLY;
/// `incoming_val` NULL is a DEL, which loses to any SET of the same time stamp. Two writes without time stamp are told
/// apart by log order, which only their caller knows: here they are judged by value. Pure; safe in any thread.
///
/// # Safety
/// The values are NULL or C strings.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn repl_resolve_conflict(
    existing_ts: u64,
    incoming_ts: u64,
    existing_val: *const c_char,
    incoming_val: *const c_char,
) -> c_int {
    guard::guard(0, || {
        // SAFETY: the caller's promise.
        let existing = (!existing_val.is_null()).then(|| unsafe { CStr::from_ptr(existing_val) }.to_bytes());
        // SAFETY: the caller's promise.
        let incoming = (!incoming_val.is_null()).then(|| unsafe { CStr::from_ptr(incoming_val) }.to_bytes());
        let applies = match existing {
            None => true,
            Some(value) if existing_ts == 0 && incoming_ts == 0 => incoming > Some(value),
            Some(value) => lww::wins(Existing::Live(Timestamp(existing_ts), value), Timestamp(incoming_ts), incoming),
        };
        c_int::from(applies)
    })
}

/// A new time stamp for a write: CLOCK_MONOTONIC in nanoseconds, but always above every time stamp that this process
/// has given out, or seen in a log, record or checkpoint. Safe in any thread.
#[unsafe(no_mangle)]
pub extern "C" fn repl_next_timestamp() -> u64 {
    let before = errno::get();
    let timestamp = clock::next_timestamp().0;
    errno::set(before);
    timestamp
}
