//! Writing without the signals that would end a program which has not asked for them: SIGPIPE, when the reader of a
//! pipe or socket is gone, and SIGXFSZ, when a file would outgrow RLIMIT_FSIZE. The signals are blocked in this thread,
//! and taken if the write raised them; the caller gets EPIPE or EFBIG.
#![allow(unsafe_code, reason = "signal masks; one that was pending before must stay pending")]

use std::ptr::null_mut;

/// The signals that a write(2) can raise.
const RAISED: [libc::c_int; 2] = [libc::SIGPIPE, libc::SIGXFSZ];

/// Runs `write`, which does one or more write(2) calls, with their signals kept away from the host.
pub(crate) fn shielded<T>(write: impl FnOnce() -> T) -> T {
    let both = set_of(&RAISED);
    let before = pending();
    let mut mask = both;
    // SAFETY: both sets are live; only this thread's mask changes.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const both, &raw mut mask) };
    let result = write();
    let after = pending();
    for signal in RAISED {
        if has(&after, signal) && !has(&before, signal) {
            let (one, at_once) = (set_of(&[signal]), libc::timespec { tv_sec: 0, tv_nsec: 0 });
            // SAFETY: the set and the time are live, and no information about the signal is asked for.
            unsafe { libc::sigtimedwait(&raw const one, null_mut(), &raw const at_once) };
        }
    }
    // SAFETY: the set is live; the mask is what it was.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, null_mut()) };
    result
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: a signal set is plain integers; all zero is one.
    let mut set = unsafe { std::mem::zeroed() };
    // SAFETY: a live set.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: a live set and a signal that there is.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

fn pending() -> libc::sigset_t {
    let mut set = set_of(&[]);
    // SAFETY: a live set.
    unsafe { libc::sigpending(&raw mut set) };
    set
}

fn has(set: &libc::sigset_t, signal: libc::c_int) -> bool {
    // SAFETY: a live set and a signal that there is.
    unsafe { libc::sigismember(std::ptr::from_ref(set), signal) == 1 }
}
