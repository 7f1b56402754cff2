//! The system calls of `net` that the safe crates don't offer for a descriptor that somebody else owns.
#![allow(unsafe_code, reason = "poll(2) over borrowed descriptors, and borrowing a descriptor that C owns")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

pub(crate) use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP};

/// One descriptor to poll.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct PollFd(libc::pollfd);

impl PollFd {
    pub(crate) const NONE: PollFd = PollFd(libc::pollfd { fd: -1, events: 0, revents: 0 });

    pub(crate) fn new(fd: RawFd, events: i16) -> PollFd {
        PollFd(libc::pollfd { fd, events, revents: 0 })
    }

    /// Whether a descriptor was asked about.
    pub(crate) fn is_some(&self) -> bool {
        self.0.fd >= 0
    }

    pub(crate) fn has(&self, events: i16) -> bool {
        self.0.revents & events != 0
    }
}

/// poll(2). EINTR counts as "nothing yet": callers loop on a deadline.
pub(crate) fn poll(fds: &mut [PollFd], timeout_ms: i32) -> io::Result<usize> {
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(0);
    // SAFETY: the pointer and the count are those of one live slice of `pollfd` (PollFd is transparent).
    let ready = unsafe { libc::poll(fds.as_mut_ptr().cast(), count, timeout_ms) };
    match usize::try_from(ready) {
        Ok(ready) => Ok(ready),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        },
    }
}

/// Runs `call` with a descriptor that is open as far as its owner says; a closed one gives EBADF from the kernel.
/// `None` for a negative number.
pub(crate) fn with_fd<T>(fd: RawFd, call: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    if fd < 0 {
        return None;
    }
    // SAFETY: not -1, and the borrow ends with `call`. If the owner has closed it, system calls on it fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Some(call(borrowed))
}

/// ioctl(FIONREAD); 0 if it fails.
pub(crate) fn readable_bytes(fd: RawFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, and there is room for it.
    let result = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut count) };
    if result == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// The round-trip time that TCP has measured, in microseconds; 0 for a socket that is none.
pub(crate) fn round_trip_us(fd: RawFd) -> u32 {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let Ok(mut len) = libc::socklen_t::try_from(size_of::<libc::tcp_info>()) else { return 0 };
    // SAFETY: TCP_INFO writes `len` bytes at most, and there is room for them.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len) };
    // SAFETY: it is made of integers, all zeroed at first.
    if result == 0 { unsafe { info.assume_init() }.tcpi_rtt } else { 0 }
}

/// Copies up to `len` bytes that are on a socket, and stay there, to the end of a vector, without zeroing it first.
pub(crate) fn peek_behind(fd: RawFd, into: &mut Vec<u8>, len: usize) -> io::Result<()> {
    into.reserve(len);
    let room = into.spare_capacity_mut();
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: `room` has at least `len` writable bytes.
    let count = unsafe { libc::recv(fd, room.as_mut_ptr().cast(), len, flags) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: recv(2) has written that many bytes, within the capacity.
    unsafe { into.set_len(into.len() + count) };
    Ok(())
}

/// Takes up to `count` bytes off a socket and throws them away: with MSG_TRUNC a TCP socket copies nothing.
pub(crate) fn discard(fd: RawFd, count: usize) -> io::Result<usize> {
    // Another kind of socket does copy; there is room for it.
    let mut room = Vec::<u8>::with_capacity(count);
    // SAFETY: `room` has `count` writable bytes, and is only freed afterwards.
    let taken = unsafe { libc::recv(fd, room.as_mut_ptr().cast(), count, libc::MSG_TRUNC | libc::MSG_DONTWAIT) };
    usize::try_from(taken).map_err(|_| io::Error::last_os_error())
}

/// dup3(2) with O_CLOEXEC: `old` becomes another number for the socket `new`; what it stood for is closed.
pub(crate) fn dup3(new: BorrowedFd<'_>, old: RawFd) -> crate::error::Result<()> {
    loop {
        // SAFETY: two integers; the caller owns the descriptor `old` and wants it replaced.
        if unsafe { libc::dup3(new.as_raw_fd(), old, libc::O_CLOEXEC) } >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR | libc::EBUSY) => {}
            _ => return Err(io::Error::last_os_error().into()),
        }
    }
}
