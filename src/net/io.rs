//! Moving bytes with deadlines. Every socket call is non-blocking and waits in poll(2), whatever flags the descriptor
//! has, so a program's own O_NONBLOCK or blocking sockets both work.
#![forbid(unsafe_code)]

use super::sys::{self, POLLIN, POLLOUT, PollFd};
use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// Deadline of a whole send, and of a whole frame once its first byte is there, unless changed.
pub const DEFAULT_TIMEOUT_MS: i32 = 5_000;

static SEND_MS: AtomicI32 = AtomicI32::new(DEFAULT_TIMEOUT_MS);
static RECV_MS: AtomicI32 = AtomicI32::new(DEFAULT_TIMEOUT_MS);

/// Changes the deadlines of this process; values below 1 leave one as it is.
pub fn set_timeouts(send_ms: i32, recv_ms: i32) {
    if send_ms > 0 {
        SEND_MS.store(send_ms, Ordering::Relaxed);
    }
    if recv_ms > 0 {
        RECV_MS.store(recv_ms, Ordering::Relaxed);
    }
}

/// The send deadline's length.
#[must_use]
pub fn send_timeout_ms() -> i32 {
    SEND_MS.load(Ordering::Relaxed)
}

/// A moment after which nobody waits any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No deadline: as long as TCP says that the peer lives.
    pub const NEVER: Deadline = Deadline(None);

    /// So many milliseconds from now; negative: never.
    #[must_use]
    pub fn after_ms(timeout_ms: i32) -> Deadline {
        match u64::try_from(timeout_ms) {
            Ok(ms) => Deadline(Instant::now().checked_add(Duration::from_millis(ms))),
            Err(_) => Deadline::NEVER,
        }
    }

    /// The deadline of a send that begins now.
    #[must_use]
    pub fn send() -> Deadline {
        Deadline::after_ms(send_timeout_ms())
    }

    /// The deadline of a receive that begins now.
    #[must_use]
    pub fn recv() -> Deadline {
        Deadline::after_ms(RECV_MS.load(Ordering::Relaxed))
    }

    /// The earlier one of two.
    #[must_use]
    pub fn or_sooner(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (Some(one), Some(another)) => Deadline(Some(one.min(another))),
            (one, another) => Deadline(one.or(another)),
        }
    }

    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }

    /// The rest as poll(2) wants it, rounded up so that a wait never ends early and spins.
    #[must_use]
    pub fn poll_ms(&self) -> i32 {
        match self.0 {
            None => -1,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
            }
        }
    }
}

/// Sends what the socket takes now; 0 if it takes nothing. Never SIGPIPE.
pub fn send_now(fd: RawFd, bytes: &[u8]) -> Result<usize> {
    send_flags(fd, bytes, MsgFlags::empty())
}

/// As [`send_now`], but TCP holds the bytes back until the next send, which must follow at once.
pub fn send_held(fd: RawFd, bytes: &[u8]) -> Result<usize> {
    send_flags(fd, bytes, MsgFlags::from_bits_retain(libc::MSG_MORE))
}

fn send_flags(fd: RawFd, bytes: &[u8], flags: MsgFlags) -> Result<usize> {
    loop {
        match send(fd, bytes, flags | MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            Ok(count) => return Ok(count),
            Err(Errno::EAGAIN) => return Ok(0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a non-blocking read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The peer has closed its side.
    Closed,
}

/// Receives what is there.
pub fn recv_now(fd: RawFd, into: &mut [u8]) -> Result<Received> {
    recv_flags(fd, into, MsgFlags::empty())
}

/// Looks at what is there and leaves it there.
pub fn peek_now(fd: RawFd, into: &mut [u8]) -> Result<Received> {
    recv_flags(fd, into, MsgFlags::MSG_PEEK)
}

/// As [`peek_now`], but adds what is there to a vector, `len` bytes at most.
pub fn peek_behind(fd: RawFd, into: &mut Vec<u8>, len: usize) -> Result<()> {
    loop {
        match sys::peek_behind(fd, into, len) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return Ok(result?),
        }
    }
}

/// Takes bytes that were seen with [`peek_now`] off the connection, without looking at them again.
pub fn discard(fd: RawFd, count: usize) -> Result<()> {
    let mut left = count;
    while left > 0 {
        match sys::discard(fd, left) {
            Ok(0) => return Err(Error::NotConnected),
            Ok(count) => left -= count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// How many bytes can be read without waiting.
#[must_use]
pub fn readable_bytes(fd: RawFd) -> usize {
    sys::readable_bytes(fd)
}

fn recv_flags(fd: RawFd, into: &mut [u8], flags: MsgFlags) -> Result<Received> {
    loop {
        match recv(fd, into, flags | MsgFlags::MSG_DONTWAIT) {
            Ok(0) if !into.is_empty() => return Ok(Received::Closed),
            Ok(count) => return Ok(Received::Bytes(count)),
            Err(Errno::EAGAIN) => return Ok(Received::Nothing),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits until the socket is readable (or in error, or closed).
pub fn wait_readable(fd: RawFd, deadline: Deadline) -> Result<()> {
    wait(fd, POLLIN, deadline)
}

/// Waits until the socket takes bytes (or is in error, or closed).
pub fn wait_writable(fd: RawFd, deadline: Deadline) -> Result<()> {
    wait(fd, POLLOUT, deadline)
}

fn wait(fd: RawFd, events: i16, deadline: Deadline) -> Result<()> {
    loop {
        let mut fds = [PollFd::new(fd, events)];
        if sys::poll(&mut fds, deadline.poll_ms())? > 0 {
            if fds[0].has(sys::POLLNVAL) {
                return Err(Errno::EBADF.into());
            }
            return Ok(());
        }
        if deadline.has_passed() {
            return Err(Error::TimedOut);
        }
    }
}

/// Sends all of `bytes` before the deadline. On failure any part may have gone out: the stream is useless then.
pub fn send_all(fd: RawFd, mut bytes: &[u8], deadline: Deadline) -> Result<()> {
    while !bytes.is_empty() {
        let count = send_now(fd, bytes)?;
        bytes = &bytes[count..];
        if count == 0 {
            wait_writable(fd, deadline)?;
        }
    }
    Ok(())
}

/// Fills `into`. The first byte is waited for until `first`, and once it is there everything must come within the
/// receive deadline. `Ok(false)`: the peer closed before the first byte.
pub fn recv_all(fd: RawFd, into: &mut [u8], first: Deadline) -> Result<bool> {
    Ok(recv_first(fd, into, first)?.is_some())
}

/// As [`recv_all`]; returns the deadline that began with the first byte, for what belongs to the same message.
/// [`Error::TimedOut`] means that not a byte came: the stream is as good as before.
pub fn recv_first(fd: RawFd, into: &mut [u8], first: Deadline) -> Result<Option<Deadline>> {
    loop {
        match recv_now(fd, into)? {
            Received::Bytes(count) => {
                let deadline = Deadline::recv();
                recv_rest(fd, &mut into[count..], deadline)?;
                return Ok(Some(deadline));
            }
            Received::Closed => return Ok(None),
            Received::Nothing => wait_readable(fd, first)?,
        }
    }
}

/// Fills `into` before the deadline. A deadline that passes is the errno ETIMEDOUT rather than [`Error::TimedOut`]:
/// half of something is in, and the stream is of no use any more.
pub fn recv_rest(fd: RawFd, into: &mut [u8], deadline: Deadline) -> Result<()> {
    let mut done = 0;
    while done < into.len() {
        match recv_now(fd, &mut into[done..])? {
            Received::Bytes(count) => done += count,
            Received::Closed => return Err(Error::NotConnected),
            Received::Nothing => match wait_readable(fd, deadline) {
                Err(Error::TimedOut) => return Err(Errno::ETIMEDOUT.into()),
                other => other?,
            },
        }
    }
    Ok(())
}
