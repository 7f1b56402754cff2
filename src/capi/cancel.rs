//! Waiting where pthread_cancel(3) may end the thread.
//!
//! A program that keeps its followers in threads ends one by cancelling it, and that one waits for its leader.
//! Everything else here runs with cancellation off (see `guard`); this wait runs with it on, in frames without
//! destructors, before any state is held. The forced unwinding then passes through the exported function, which is
//! `extern "C-unwind"` for that.
#![allow(unsafe_code, reason = "poll(2) as a cancellation point")]

use libc::c_int;

unsafe extern "C-unwind" {
    // glibc's poll(2) unwinds when the thread is cancelled; the libc crate declares it as a function that never does.
    fn poll(fds: *mut libc::pollfd, count: libc::nfds_t, timeout_ms: c_int) -> c_int;
}

/// How [`wait_readable`] reaches poll(2). One name has one set of attributes in a program that is optimised as a whole,
/// so the libc crate's declaration, which never unwinds, would win: a frame around it with something to clean up would
/// then end the process. A call through a pointer that is read anew has no declaration.
static POLL: unsafe extern "C-unwind" fn(*mut libc::pollfd, libc::nfds_t, c_int) -> c_int = poll;

/// Waits until `fd` is readable, closed or in error, without a deadline: as long as TCP says that the peer lives. Does
/// nothing for a descriptor that can't be one.
pub(super) extern "C-unwind" fn wait_readable(fd: c_int) {
    if fd < 0 {
        return;
    }
    let mut only = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: a live static.
    let poll = unsafe { std::ptr::read_volatile(&raw const POLL) };
    // SAFETY: one live pollfd. On EINTR and every error the call that follows finds out by itself.
    unsafe { poll(&raw mut only, 1, -1) };
}
