//! What is known beside `struct replication_config`: each follower's acks, the last frame, the WAL's path, the policy.
//!
//! Keyed by the struct's address; each slot's part belongs to the socket in the slot, whatever the address. The visible
//! fields stay the program's: they are copied in at the start of a call and published back at its end.
#![allow(unsafe_code, reason = "reads and writes the visible struct through its pointer")]

use super::conns;
use super::guard;
use super::layout;
use super::leader_log::LeaderLogByPath;
use super::ptr::FixedPath;
use super::repl_config::{repl_node, replication_config};
use super::side::{Entry, FromZero, Table};
use crate::error::{Error, Result};
use crate::net::group::{Group, LeaderLog, MEMBERS_MAX};
use crate::net::io::{self, Deadline};
use crate::net::link::{LastFrame, Link, Resyncs, Text};
use crate::net::member::Member;
use crate::net::socket::{self, SocketId};
use crate::replication::quorum::Policy;
use crate::types::Lsn;
use crate::wal;
use std::ffi::CStr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

/// Configurations remembered before those without a live socket go.
const MANY: usize = 64;

#[derive(Default)]
pub(super) struct ConfigKey {
    /// Address of the struct.
    address: usize,
    /// Sockets in the slots after the last call.
    sockets: [SocketId; MEMBERS_MAX],
    /// The program has set something that it would miss.
    has_settings: bool,
    /// `repl_config_init` has filled the struct in, and its rest has not been looked at since ([`layout`]).
    is_fresh: bool,
}

pub(super) struct ConfigState {
    links: [Link; MEMBERS_MAX],
    last_frame: LastFrame,
    pub(super) wal: FixedPath,
    pub(super) checkpoint: FixedPath,
    pub(super) policy: Policy,
    pub(super) degraded: bool,
}

// SAFETY: integers, arrays, options and enums of them; each has a value that is all zero.
unsafe impl FromZero for ConfigState {
    fn begin(&mut self) {
        for link in &mut self.links {
            link.attach(SocketId::default());
            (link.reason, link.disconnects) = Default::default();
            (link.full_resync, link.resyncs, link.complaints) = Default::default();
        }
        self.last_frame.clear();
        self.wal.clear();
        self.checkpoint.clear();
        (self.policy, self.degraded) = (Policy::Strict, false);
    }
}

static CONFIGS: Table<ConfigKey, ConfigState> = Table::new(MANY);

type ConfigEntry = Entry<'static, ConfigKey, ConfigState>;

/// The state beside the struct at this address.
pub(super) fn of(config: *const replication_config) -> Result<ConfigEntry> {
    let address = config.addr();
    let gone = |key: &ConfigKey| {
        !key.has_settings && !key.sockets.iter().any(|id| id.ino != 0 && socket::identify(id.fd) == Some(*id))
    };
    CONFIGS.find_or_add(|key| key.address == address, |key| key.address = address, gone)
}

/// Forgets everything: the struct at this address begins anew.
pub(super) fn forget(config: *const replication_config) -> Result<()> {
    let mut entry = of(config)?;
    entry.key(|key| (key.sockets, key.has_settings, key.is_fresh) = (Default::default(), false, true));
    entry.value().begin();
    Ok(())
}

/// The program connects this node anew: whatever is known of the slot's old socket is not about it.
pub(super) fn forget_slot(node: *const repl_node) {
    let address = node.addr();
    let first = std::mem::offset_of!(replication_config, followers);
    CONFIGS.for_each_key(|key| {
        let slot = address.checked_sub(key.address + first).map(|bytes| bytes / size_of::<repl_node>());
        if let Some(id) = slot.and_then(|slot| key.sockets.get_mut(slot)) {
            *id = SocketId::default();
        }
    });
}

/// How far behind the beginning of its struct a node begins.
pub(super) fn bytes_into(node: *const repl_node) -> Option<usize> {
    let mut found = None;
    CONFIGS.for_each_key(|key| {
        let bytes = node.addr().wrapping_sub(key.address);
        if bytes < size_of::<replication_config>() {
            found = Some(bytes);
        }
    });
    found
}

/// The log that `repl_set_wal` named, if any, and the checkpoint that `repl_set_checkpoint` did.
pub(super) fn paths(config: *const replication_config) -> Result<(Option<PathBuf>, Option<PathBuf>)> {
    let mut entry = of(config)?;
    let ConfigState { wal, checkpoint, .. } = entry.value();
    Ok((wal.get().map(Path::to_path_buf), checkpoint.get().map(Path::to_path_buf)))
}

/// Names the log.
pub(super) fn set_wal(config: *const replication_config, path: &Path) -> Result<()> {
    let mut entry = of(config)?;
    entry.key(|key| key.has_settings = true);
    entry.value().wal.set(&wal::absolute(path))
}

/// Names the checkpoint.
pub(super) fn set_checkpoint(config: *const replication_config, path: &Path) -> Result<()> {
    let mut entry = of(config)?;
    entry.key(|key| key.has_settings = true);
    entry.value().checkpoint.set(&wal::absolute(path))
}

/// Sets over whom the quorum is counted.
pub(super) fn set_policy(config: *const replication_config, policy: Policy) -> Result<()> {
    let mut entry = of(config)?;
    entry.key(|key| key.has_settings = true);
    entry.value().policy = policy;
    Ok(())
}

/// Takes bytes that were read early from the socket `fd`, in the order in which they came.
pub(super) fn take_early_bytes(fd: RawFd, into: &mut [u8]) -> usize {
    let Some(id) = socket::identify(fd) else { return 0 };
    // Busy: the call that holds it runs above us or in another thread, and nothing of it is ours.
    let Ok(Some(mut entry)) = CONFIGS.find(|key| key.sockets.contains(&id)) else { return 0 };
    let slot = entry.key(|key| key.sockets.iter().position(|known| *known == id));
    match slot {
        Some(slot) => entry.value().links[slot].inbox.pop_bytes(into),
        None => 0,
    }
}

/// Whether [`take_early_bytes`] would find some.
pub(super) fn has_early_bytes(fd: RawFd) -> bool {
    guard::guard(false, || {
        let Some(id) = socket::identify(fd) else { return false };
        let Ok(Some(mut entry)) = CONFIGS.find(|key| key.sockets.contains(&id)) else { return false };
        let slot = entry.key(|key| key.sockets.iter().position(|known| *known == id));
        slot.is_some_and(|slot| !entry.value().links[slot].inbox.is_empty())
    })
}

/// Sends bytes on `fd`. If it is a follower's socket in some configuration, acks are drained meanwhile and kept, so
/// that a send that would block does not wait for a peer that waits for us.
pub(super) fn send(fd: RawFd, bytes: &[u8], deadline: Deadline) -> Result<()> {
    let id = socket::identify(fd);
    let known = id.and_then(|id| CONFIGS.find(|key| key.sockets.contains(&id)).ok().flatten());
    if let Some(mut entry) = known
        && let Some(slot) = entry.key(|key| key.sockets.iter().position(|known| Some(*known) == id))
    {
        let link = &mut entry.value().links[slot];
        return Member { index: slot, host: "", port: 0, fd, online: true, link }.try_send(bytes, deadline);
    }
    io::send_all(fd, bytes, deadline)
}

/// One slot's visible fields.
///
/// # Safety
/// `config` points to a live `replication_config` and `slot` is below MEMBERS_MAX.
pub(super) unsafe fn node(config: *const replication_config, slot: usize) -> repl_node {
    // SAFETY: the caller's promise.
    let first = unsafe { &raw const (*config).followers }.cast::<repl_node>();
    // SAFETY: within the array.
    unsafe { first.add(slot).read() }
}

unsafe fn publish(config: *mut replication_config, slot: usize, fd: RawFd, online: bool) {
    // SAFETY: the caller's promise, see `with_group`.
    let first = unsafe { &raw mut (*config).followers }.cast::<repl_node>();
    // SAFETY: within the array.
    let node = unsafe { first.add(slot) };
    // SAFETY: a live struct.
    unsafe { (*node).fd = fd };
    // SAFETY: a live struct.
    unsafe { (*node).online = u8::from(online) };
}

/// A node's host for log lines.
fn host_of(node: &repl_node) -> String {
    if node.host.is_null() {
        return "?".to_owned();
    }
    // SAFETY: a host that is not NULL is a C string by the contract of the struct.
    unsafe { CStr::from_ptr(node.host) }.to_string_lossy().into_owned()
}

/// Runs `body` with the followers of `config` as members of a group, and publishes what changed.
///
/// # Safety
/// `config` is NULL or points to a live `replication_config` that no other thread uses.
pub(super) unsafe fn with_group<T>(
    config: *mut replication_config,
    body: impl FnOnce(&mut Group<'_>, &mut Extra<'_>) -> Result<T>,
) -> Result<T> {
    // SAFETY: the caller's promise.
    let count = unsafe { layout::check(config) }?;
    let mut entry = of(config)?;
    if entry.key(|key| std::mem::take(&mut key.is_fresh)) {
        // SAFETY: not NULL, since it was checked.
        unsafe { layout::look_at_the_rest(config, count) };
    }
    // SAFETY: as above.
    let nodes: Vec<repl_node> = (0..count).map(|slot| unsafe { node(config, slot) }).collect();
    let hosts: Vec<String> = nodes.iter().map(host_of).collect();
    let known = entry.key(|key| key.sockets);
    let ConfigState { links, last_frame, wal, checkpoint: _, policy, degraded } = entry.value();
    let mut log = LeaderLogByPath::new(wal.get());
    let mut members = Vec::with_capacity(count);
    for (index, ((node, host), link)) in nodes.iter().zip(&hosts).zip(links.iter_mut()).enumerate() {
        let online = node.online == 1 && node.fd >= 0;
        let mut member = Member { index, host, port: node.port, fd: node.fd, online, link };
        // A socket that stands in two slots is in one of them by mistake: the program closed the old one and the number
        // was given out again.
        let is_twice = node.fd >= 0 && nodes[..index].iter().any(|other| other.fd == node.fd && other.online == 1);
        if is_twice && known[index] != SocketId::default() && socket::identify(node.fd) != Some(known[index]) {
            member.fd = -1;
        }
        if known[index] == SocketId::default() {
            member.link.socket = SocketId::default(); // `repl_connect` has filled the slot, or nobody has.
        }
        let before = member.link.socket;
        member.attach();
        if member.link.socket != before
            && let Some(mark) = conns::mark_of(member.link.socket)
        {
            (member.link.progress.is_logship, member.link.progress.node) = (true, mark.node);
        }
        members.push(member);
    }
    let mut group = Group { members, last_frame, log: &mut log };
    let result = body(&mut group, &mut Extra { policy: *policy, degraded });
    let mut sockets = [SocketId::default(); MEMBERS_MAX];
    for member in &group.members {
        let node = &nodes[member.index];
        sockets[member.index] = member.link.socket;
        if (member.fd, member.online) != (node.fd, node.online == 1) {
            // SAFETY: as above.
            unsafe { publish(config, member.index, member.fd, member.online) };
        }
    }
    drop(group);
    entry.key(|key| key.sockets = sockets);
    result
}

/// A configuration's settings, beside its followers.
pub(super) struct Extra<'a> {
    /// Over whom the quorum is counted.
    pub(super) policy: Policy,
    /// Whether the last commit had less than the strict quorum.
    pub(super) degraded: &'a mut bool,
}

/// What is known of one follower.
pub(super) struct Status {
    pub(super) acked: Lsn,
    pub(super) lag_records: u64,
    pub(super) lag_bytes: u64,
    pub(super) ms_since_heard: i64,
    pub(super) reason: Text,
    pub(super) full_resync: Text,
    pub(super) disconnects: u64,
    pub(super) resyncs: Resyncs,
}

/// Looks one follower up.
pub(super) fn status(config: *const replication_config, slot: usize) -> Result<Status> {
    let mut entry = of(config)?;
    let state = entry.value();
    let link = state.links.get_mut(slot).ok_or(Error::Invalid("follower_index"))?;
    if link.socket.ino != 0 && socket::identify(link.socket.fd) == Some(link.socket) {
        // What has arrived counts. Who has hung up is noticed by the next call that ships or waits.
        let fd = link.socket.fd;
        let _ = Member { index: slot, host: "", port: 0, fd, online: true, link: &mut *link }.drain();
    }
    let mut log = LeaderLogByPath::new(state.wal.get());
    // An ack that nobody has asked for yet counts, unless it is for a record that the log does not have.
    let waiting = link.inbox.highest_ok();
    let counts = link.progress.may_count(waiting, LeaderLog::last(&mut log));
    let acked = if counts { link.progress.acked.max(waiting) } else { link.progress.acked };
    let (lag_records, lag_bytes) = log.lag(acked).unwrap_or((0, 0));
    let heard = link.heard.map(|at| i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX));
    Ok(Status {
        acked,
        lag_records,
        lag_bytes,
        ms_since_heard: heard.unwrap_or(-1),
        reason: link.reason,
        full_resync: link.full_resync,
        disconnects: link.disconnects,
        resyncs: link.resyncs,
    })
}
