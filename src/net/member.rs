//! One follower as its leader drives it: its socket, and what is kept beside it.
#![forbid(unsafe_code)]

use super::io::{self, Deadline, Received};
use super::link::{Link, Text};
use super::socket::{self, SocketId};
use super::sys::{self, POLLIN, POLLOUT, PollFd};
use crate::error::{Error, Result};
use crate::replication::message::Control;
use std::fmt;
use std::os::fd::RawFd;

/// Bytes of acks that are read at once.
const DRAIN_BYTES: usize = 256 * 1024;
/// Bytes of acks that are read of a follower that goes offline: more than a socket holds.
const LAST_LOOK_BYTES: usize = 16 * 1024 * 1024;

/// One follower, for the time of one call.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its slot, from 0.
    pub index: usize,
    /// Its host, for log lines.
    pub host: &'a str,
    /// Its port, for log lines.
    pub port: u16,
    /// Its socket; -1 if there is none.
    pub fd: RawFd,
    /// Whether it is shipped to and counted on.
    pub online: bool,
    /// What is kept beside the socket.
    pub link: &'a mut Link,
}

impl fmt::Display for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "follower-{} ({}:{})", self.index + 1, self.host, self.port)
    }
}

impl Member<'_> {
    /// Makes the link be about the socket that is in the slot now. An online follower whose descriptor is closed or has
    /// become something that is no connection is marked offline, and that something is left alone.
    pub fn attach(&mut self) {
        if !self.online && self.fd < 0 {
            self.link.socket = SocketId::default();
            return;
        }
        match socket::identify(self.fd) {
            Some(id) if id == self.link.socket => {
                if self.link.send_ms != io::send_timeout_ms() {
                    // The program has changed the send deadline: TCP must not give up before it.
                    let _ = socket::set_keepalive(self.fd);
                    self.link.send_ms = io::send_timeout_ms();
                }
            }
            // Another connection: the program has put it there.
            Some(id) if socket::peer_address(self.fd).is_some() => {
                // The program may have made the socket itself.
                socket::prepare(self.fd);
                self.link.attach(id);
                self.link.send_ms = io::send_timeout_ms();
            }
            _ if !self.online => {}
            _ => {
                self.fd = -1; // Not ours to close.
                self.go_offline(format_args!("its descriptor was closed by the program"));
            }
        }
    }

    /// Marks the follower offline. What it has acknowledged counts.
    pub fn go_offline(&mut self, reason: fmt::Arguments<'_>) {
        if self.fd >= 0 && socket::identify(self.fd) == Some(self.link.socket) {
            let mut left = LAST_LOOK_BYTES;
            while left > 0 && self.drain().is_ok() && io::readable_bytes(self.fd) > 0 {
                // They count, and nobody will read them from this socket any more.
                self.link.make_room();
                left = left.saturating_sub(DRAIN_BYTES);
            }
            socket::close(self.fd);
        }
        self.fd = -1;
        self.online = false;
        self.link.socket = SocketId::default();
        self.link.reason = Text::new(reason);
        self.link.disconnects += 1;
        self.link.progress.next = None;
        self.link.progress.reship = None;
        (self.link.catch_up, self.link.asked, self.link.caught_up) = (None, None, None);
        crate::log_warn!("{self} is offline: {reason}");
    }

    /// Marks it offline because its connection has ended, and says what ended the connection: the peer's close, or the
    /// socket's error (a reset, or a time-out of TCP).
    pub fn lose(&mut self, cause: &Error) {
        match cause {
            Error::NotConnected => self.go_offline(format_args!("connection lost: closed by the peer")),
            error => self.go_offline(format_args!("connection lost: {error}")),
        }
    }

    /// Reads what acks have arrived into the inbox, so many at most that a peer which sends without end keeps nobody
    /// here. [`Error::NotConnected`]: the peer has closed; any other error is the socket's.
    pub fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        for _ in 0..DRAIN_BYTES / buffer.len() {
            let room = self.link.inbox.room().min(buffer.len());
            if room == 0 {
                return Ok(()); // Somebody must take some first; TCP holds the rest.
            }
            match io::recv_now(self.fd, &mut buffer[..room]) {
                Ok(Received::Bytes(count)) => {
                    self.link.inbox.push(&buffer[..count]);
                    self.link.hear();
                    if count < room {
                        return Ok(());
                    }
                }
                Ok(Received::Nothing) => return Ok(()),
                Ok(Received::Closed) => return Err(Error::NotConnected),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a control message to this follower; marks it offline on failure.
    pub fn tell(&mut self, message: &Control<'_>) -> Result<()> {
        self.send(&message.encode()?, Deadline::send())
    }

    /// Sends bytes to this follower alone, draining acks meanwhile; marks it offline on failure.
    pub fn send(&mut self, bytes: &[u8], deadline: Deadline) -> Result<()> {
        match self.try_send(bytes, deadline) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.go_offline(format_args!("send: {error}"));
                Err(error)
            }
        }
    }

    /// Sends bytes, draining acks meanwhile; the slot stays as it is on failure.
    pub fn try_send(&mut self, mut bytes: &[u8], deadline: Deadline) -> Result<()> {
        while !bytes.is_empty() {
            let count = io::send_now(self.fd, bytes)?;
            bytes = &bytes[count..];
            if count > 0 {
                continue;
            }
            let events = POLLOUT | if self.link.inbox.room() > 0 { POLLIN } else { 0 };
            let mut fds = [PollFd::new(self.fd, events)];
            let ready = sys::poll(&mut fds, deadline.poll_ms())?;
            if fds[0].has(POLLIN) && self.drain().is_err() {
                return Err(Error::NotConnected);
            }
            if ready == 0 && deadline.has_passed() {
                return Err(Error::TimedOut);
            }
        }
        Ok(())
    }
}
