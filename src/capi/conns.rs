//! What is known of each connection by its socket alone: what a leader said on it, what a rejoining follower showed.
#![allow(unsafe_code, reason = "state that begins as zeroed memory")]

use super::side::{Entry, FromZero, Table};
use crate::error::Result;
use crate::net::socket::{self, SocketId};
use crate::replication::follower::Follower;
use crate::replication::message::Mark;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};

/// Connections remembered before those that are gone go.
const MANY: usize = 256;

/// One connection.
#[derive(Default)]
pub(super) struct Conn {
    /// A follower's end.
    pub(super) follower: Follower,
    /// The mark behind a rejoin message that was read before the socket had a slot.
    pub(super) mark: Option<Mark>,
}

// SAFETY: integers, and options and enums of them; each has a value that is all zero.
unsafe impl FromZero for Conn {
    fn begin(&mut self) {
        *self = Conn::default();
    }
}

static CONNS: Table<SocketId, Conn> = Table::new(MANY);

/// The state of a connection; a socket seen for the first time gets keepalive, so that a receive which waits for a
/// silent leader ends when TCP knows that it is gone, also when the program made the socket itself.
pub(super) fn of(fd: RawFd) -> Result<Entry<'static, SocketId, Conn>> {
    let id = socket::identify(fd).ok_or_else(|| socket::why_no_socket(fd))?;
    if let Some(entry) = CONNS.find(|key| *key == id)? {
        return Ok(entry);
    }
    // Not a TCP socket (a socket pair): nothing to set, and its peer's end is seen without.
    let _ = socket::set_keepalive(fd);
    let gone = |key: &SocketId| socket::identify(key.fd) != Some(*key);
    CONNS.find_or_add(|key| *key == id, |key| *key = id, gone)
}

/// The mark that was read from this connection before, if any.
pub(super) fn mark_of(id: SocketId) -> Option<Mark> {
    CONNS.find(|key| *key == id).ok().flatten().and_then(|mut entry| entry.value().mark)
}

static NODE: AtomicU8 = AtomicU8::new(0);

/// This process's node number; 0 if none.
pub(super) fn node() -> u8 {
    NODE.load(Ordering::Relaxed)
}

/// Sets this process's node number.
pub(super) fn set_node(node: u8) {
    NODE.store(node, Ordering::Relaxed);
}
