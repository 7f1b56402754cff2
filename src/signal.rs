//! Writing to a pipe or socket whose reader may be gone, without the SIGPIPE that would end a program which has not
//! asked for it: the signal is blocked in this thread, and taken if the write raised it.
#![allow(unsafe_code, reason = "signal masks; one that was pending before must stay pending")]

use std::ptr::null_mut;

/// Runs `write`, which does one or more write(2) calls, with SIGPIPE kept away from the host.
pub(crate) fn without_sigpipe<T>(write: impl FnOnce() -> T) -> T {
    let pipe = sigpipe();
    let was_pending = is_pending();
    let mut before = pipe;
    // SAFETY: both sets are live; only this thread's mask changes.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, &raw mut before) };
    let result = write();
    if !was_pending && is_pending() {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time are live, and no information about the signal is asked for.
        unsafe { libc::sigtimedwait(&raw const pipe, null_mut(), &raw const at_once) };
    }
    // SAFETY: the set is live; the mask is what it was.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut()) };
    result
}

fn empty() -> libc::sigset_t {
    // SAFETY: a signal set is plain integers; all zero is one.
    let mut set = unsafe { std::mem::zeroed() };
    // SAFETY: a live set.
    unsafe { libc::sigemptyset(&raw mut set) };
    set
}

fn sigpipe() -> libc::sigset_t {
    let mut set = empty();
    // SAFETY: a live set and a signal that there is.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGPIPE) };
    set
}

fn is_pending() -> bool {
    let mut pending = empty();
    // SAFETY: a live set.
    unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: as above.
    unsafe { libc::sigismember(&raw const pending, libc::SIGPIPE) == 1 }
}
