//! The handshake of a follower that comes back: one message, and how a leader reads it.
#![forbid(unsafe_code)]

use super::io::{self, Deadline, Received};
use super::socket;
use super::sys::{self, POLLIN, PollFd};
use crate::error::{Error, Result};
use crate::replication::message::{self, ACK_LEN, ACK_OK, Ack, Mark, REJOIN_LEN};
use crate::types::Lsn;
use nix::errno::Errno;
use std::os::fd::{OwnedFd, RawFd};

/// How long the rest of a marked ack behind the rejoin message may take, once a part of it is there.
const MARK_MS: i32 = 200;

/// Sends "my log ends at `last`" on a connection, as a lesson's program does: 8 bytes.
pub fn send_plain_rejoin(fd: RawFd, last: Lsn) -> Result<()> {
    io::send_all(fd, &message::encode_rejoin(last), Deadline::send())
}

/// As [`send_plain_rejoin`], and behind the 8 bytes one marked ack that a plain leader takes for an old one.
pub fn send_rejoin(fd: RawFd, last: Lsn, node: u8) -> Result<()> {
    let ack = Ack::marked(last, ACK_OK, Mark { node, flags: 0 });
    let mut bytes = [0; REJOIN_LEN + ACK_LEN];
    bytes[..REJOIN_LEN].copy_from_slice(&message::encode_rejoin(last));
    bytes[REJOIN_LEN..].copy_from_slice(&ack.encode());
    // One send, so that a leader that has the message has the mark too.
    io::send_all(fd, &bytes, Deadline::send())
}

/// A follower's way back to its leader.
#[derive(Debug)]
pub enum Way {
    /// The connection that was given is alive.
    Given,
    /// A new connection was made.
    New(OwnedFd),
}

/// Finds the way: a live connection is taken as it is, else a new one is made to the leader.
pub fn find_way(leader_fd: RawFd, connect: impl FnOnce() -> Result<OwnedFd>) -> Result<Way> {
    if leader_fd >= 0 {
        // What is no socket is not ours to replace.
        socket::identify(leader_fd).ok_or_else(|| socket::why_no_socket(leader_fd))?;
        if socket::is_listening(leader_fd) {
            return Err(Error::Invalid("a listening socket leads to no leader"));
        }
        if socket::is_live(leader_fd) {
            return Ok(Way::Given);
        }
    }
    Ok(Way::New(connect()?))
}

/// A rejoin message as a leader reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejoin {
    /// The follower's last LSN.
    pub last: Lsn,
    /// The follower's mark, if it is logship.
    pub mark: Option<Mark>,
}

/// A rejoin message that is being read as it comes: 8 bytes, for which the peer has 5 s, and the marked ack behind
/// them, if any of it is there with them: nobody waits for a mark that may not come. Whoever reads it waits elsewhere.
#[derive(Debug)]
pub struct Hello {
    bytes: [u8; REJOIN_LEN],
    have: usize,
    until: Deadline,
}

impl Hello {
    /// One of which nothing has come.
    #[must_use]
    pub fn new() -> Hello {
        Hello { bytes: [0; REJOIN_LEN], have: 0, until: Deadline::after_ms(io::DEFAULT_TIMEOUT_MS) }
    }

    /// Reads what has come. `None`: not all of it.
    ///
    /// Errors: ETIMEDOUT it has not come in time; [`Error::NotConnected`] the peer has closed.
    pub fn read(&mut self, fd: RawFd) -> Result<Option<Rejoin>> {
        while self.have < REJOIN_LEN {
            match io::recv_now(fd, &mut self.bytes[self.have..])? {
                Received::Bytes(count) => self.have += count,
                Received::Closed => return Err(Error::NotConnected),
                Received::Nothing if self.until.has_passed() => return Err(Errno::ETIMEDOUT.into()),
                Received::Nothing => return Ok(None),
            }
            if self.have == REJOIN_LEN {
                self.until = Deadline::after_ms(MARK_MS);
            }
        }
        let last = message::decode_rejoin(self.bytes);
        let mut bytes = [0; ACK_LEN];
        let mark = match io::peek_now(fd, &mut bytes)? {
            Received::Bytes(ACK_LEN) => {
                let ack = Ack::decode(bytes);
                ack.mark().filter(|_| ack.is_hello(Some(last)))
            }
            Received::Bytes(_) if !self.until.has_passed() => return Ok(None),
            Received::Bytes(_) | Received::Nothing | Received::Closed => None,
        };
        if mark.is_some() {
            io::recv_now(fd, &mut bytes)?;
        }
        Ok(Some(Rejoin { last, mark }))
    }

    /// When to look again, and whether poll(2) tells before that that more has come. It does not while a part of the
    /// ack is there: that stays on the connection, and the rest of it is on its way.
    #[must_use]
    pub fn patience(&self, fd: RawFd) -> (Deadline, bool) {
        let is_cut = self.have == REJOIN_LEN && matches!(io::peek_now(fd, &mut [0]), Ok(Received::Bytes(_)));
        if is_cut { (Deadline::after_ms(1), false) } else { (self.until, true) }
    }
}

impl Default for Hello {
    fn default() -> Hello {
        Hello::new()
    }
}

/// Reads a rejoin message, and waits for it.
pub fn read_rejoin(fd: RawFd) -> Result<Rejoin> {
    let mut hello = Hello::new();
    loop {
        if let Some(rejoin) = hello.read(fd)? {
            return Ok(rejoin);
        }
        let (until, by_poll) = hello.patience(fd);
        sys::poll(&mut [PollFd::new(if by_poll { fd } else { -1 }, POLLIN)], until.poll_ms())?;
    }
}
