//! The handshake of a follower that comes back: one message, and how a leader reads it.
#![forbid(unsafe_code)]

use super::io::{self, Deadline, Received};
use super::socket;
use crate::error::{Error, Result};
use crate::replication::message::{self, ACK_LEN, ACK_OK, Ack, Mark, REJOIN_LEN};
use crate::types::Lsn;
use std::os::fd::{OwnedFd, RawFd};

/// How long the marked ack may be behind the rejoin message. A plain follower sends none.
const MARK_MS: i32 = 200;

/// Sends "my log ends at `last`" on a connection: 8 bytes, and behind them one marked ack that a plain leader takes
/// for an old one.
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

/// Reads a rejoin message, and the marked ack behind it if one comes within 200 ms. The whole message has 5 s.
pub fn read_rejoin(fd: RawFd) -> Result<Rejoin> {
    let mut bytes = [0; REJOIN_LEN];
    io::recv_rest(fd, &mut bytes, Deadline::after_ms(io::DEFAULT_TIMEOUT_MS))?;
    let last = message::decode_rejoin(bytes);
    Ok(Rejoin { last, mark: read_mark(fd, last)? })
}

fn read_mark(fd: RawFd, last: Lsn) -> Result<Option<Mark>> {
    let deadline = Deadline::after_ms(MARK_MS);
    let mut bytes = [0; ACK_LEN];
    loop {
        match io::peek_now(fd, &mut bytes)? {
            Received::Bytes(ACK_LEN) => break,
            // Part of it: poll(2) would return at once, so this looks again until the deadline; the rest was sent in
            // the same call and is on its way.
            Received::Bytes(_) if !deadline.has_passed() => std::thread::yield_now(),
            Received::Nothing => match io::wait_readable(fd, deadline) {
                Err(Error::TimedOut) => return Ok(None),
                other => other?,
            },
            Received::Bytes(_) | Received::Closed => return Ok(None),
        }
    }
    let ack = Ack::decode(bytes);
    match ack.mark() {
        Some(mark) if ack.lsn == last && !ack.is_liveness() => {
            io::recv_now(fd, &mut bytes)?;
            Ok(Some(mark))
        }
        _ => Ok(None),
    }
}
