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
    /// The leader has been shown that this end stores and answers by itself.
    pub(super) has_greeted: bool,
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

/// Meets a connection: one that is seen for the first time gets the options of a replication socket, so that a wait for
/// a silent peer ends when TCP knows that it is gone, also when the program made the socket itself. `None`: no socket.
pub(super) fn meet(fd: RawFd) -> Option<SocketId> {
    let id = socket::identify(fd)?;
    if !CONNS.has(|key| *key == id) {
        socket::prepare(fd);
        // Without memory for it the options are set again next time.
        let _ = add(id);
    }
    Some(id)
}

/// The state of a connection; see [`meet`].
pub(super) fn of(fd: RawFd) -> Result<Entry<'static, SocketId, Conn>> {
    known(fd, meet(fd))
}

/// The state of a connection that was met.
pub(super) fn known(fd: RawFd, id: Option<SocketId>) -> Result<Entry<'static, SocketId, Conn>> {
    let id = id.ok_or_else(|| socket::why_no_socket(fd))?;
    match CONNS.find(|key| *key == id)? {
        Some(entry) => Ok(entry),
        None => add(id),
    }
}

fn add(id: SocketId) -> Result<Entry<'static, SocketId, Conn>> {
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
