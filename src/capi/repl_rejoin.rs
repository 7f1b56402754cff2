//! w11/repl_rejoin.h: coming back, catching up, and who lives.
#![allow(unsafe_code, reason = "the C boundary")]

use super::leader_log::{LeaderLogByPath, LogSource};
use super::repl_config::replication_config;
use super::replaced::{self, File};
use super::{configs, conns, guard, layout, ptr};
use crate::error::{Error, Result};
use crate::net::catch_up::{self, Source, Summary};
use crate::net::group::Group;
use crate::net::io::Deadline;
use crate::net::member::Member;
use crate::net::rejoin::{self, Way};
use crate::net::socket;
use crate::replication::{frame, message};
use crate::types::Lsn;
use crate::wal;
use libc::{c_char, c_int};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// Says to the leader "my log ends at `last_applied_lsn`". A live connection in `leader_fd` is taken as the new one.
/// One that the leader has closed is replaced: a new connection to the leader (`repl_set_leader`, else 127.0.0.1:7000)
/// is put under the same descriptor number, so `leader_fd` stays what to read from and nothing leaks. Returns 0; with
/// `leader_fd` -1 the new descriptor, which is the program's; -1 with `errno` if the leader can't be reached. What the
/// follower missed comes next on the connection: read it with `repl_receive_record`. The message is 8 bytes; behind it
/// goes a marked ack if `logship_set_self` has given this node a number. Blocks at most 10 s.
#[unsafe(no_mangle)]
pub extern "C" fn repl_follower_rejoin(leader_fd: c_int, last_applied_lsn: u64) -> c_int {
    guard::call(|| {
        let (host, port) = leader_address();
        let host = host.as_str().map_err(|_| Error::Invalid("the leader's host"))?;
        let connect = if replaced::has(File::ReplConfig) { replaced::connect } else { socket::connect };
        match rejoin::find_way(leader_fd, || connect(host, port))? {
            Way::Given => {
                conns::of(leader_fd)?;
                send_rejoin(leader_fd, Lsn(last_applied_lsn))?;
                Ok(0)
            }
            Way::New(fd) => {
                conns::of(fd.as_raw_fd())?;
                send_rejoin(fd.as_raw_fd(), Lsn(last_applied_lsn))?;
                if leader_fd < 0 {
                    return Ok(fd.into_raw_fd());
                }
                socket::replace_fd(&fd, leader_fd)?;
                Ok(0)
            }
        }
    })
}

/// Sends the rejoin message: with the mark only if the program has given its node a number, and if what receives here
/// can take what the mark asks for.
fn send_rejoin(fd: RawFd, last: Lsn) -> Result<()> {
    match conns::node() {
        _ if replaced::has(File::ReplShip) => replaced::send(fd, &message::encode_rejoin(last)),
        0 => rejoin::send_plain_rejoin(fd, last),
        _ if replaced::speaks_plainly() => rejoin::send_plain_rejoin(fd, last),
        node => rejoin::send_rejoin(fd, last, node),
    }
}

/// A catch-up whose bytes go out through the program's `send_full`, as the lesson does it: record after record.
fn catch_up_through_program(member: &mut Member<'_>, source: &LogSource<'_>, follower: Lsn) -> Result<Summary> {
    catch_up::begin(member, source, follower)?;
    let state = member.link.catch_up.take().ok_or(Error::Internal("a catch-up that is none"))?;
    let (first, last) = (state.at.lsn, source.tail.last());
    let mut summary = Summary { records: 0, bytes: 0, last, snapshot: None };
    for lsn in (first.0..=last.0).map(Lsn) {
        let record = wal::read_record(source.storage, source.tail.near(source.storage, lsn)?, lsn)?;
        let header = frame::record_header(record.len()).ok_or(Error::Internal("a record of no record's length"))?;
        let frame = [&header, record.as_slice()].concat();
        replaced::send(member.fd, &frame)?;
        summary.records += 1;
        summary.bytes += frame.len() as u64;
    }
    member.online = true;
    Ok(summary)
}

/// Reads a rejoin message from a connection that was accepted, within 5 s: the follower's last LSN goes to
/// `*last_applied_lsn`. Returns 0, or -1 with `errno`: ETIMEDOUT, ENOTCONN, EINVAL for NULL.
///
/// # Safety
/// `last_applied_lsn` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_read_rejoin(fd: c_int, last_applied_lsn: *mut u64) -> c_int {
    guard::call(|| {
        ptr::check(last_applied_lsn)?;
        let message = read_rejoin(fd)?;
        // SAFETY: not NULL, writable by the caller's promise.
        unsafe { last_applied_lsn.write(message.last.0) };
        Ok(0)
    })
}

fn read_rejoin(fd: RawFd) -> Result<rejoin::Rejoin> {
    let mut conn = conns::of(fd)?;
    let message = rejoin::read_rejoin(fd)?;
    conn.value().mark = message.mark;
    Ok(message)
}

/// Accepts a follower that comes back on `listen_fd`, reads its message and finds its slot: by node number if it gave
/// one (`logship_set_self`), else the first offline slot whose host is its address; an online slot is taken over only
/// if its old connection does not answer a heartbeat. The old socket is closed, `fd` set, `online` left 0 until
/// `repl_catch_up`. Returns 0 and both results, or -1 with `errno`: EADDRNOTAVAIL no slot (the connection is closed),
/// ETIMEDOUT, ENOTCONN, EINVAL. Waits for a connection as accept(2) does, then at most 5 s for its message, and 1 s
/// more if every slot that may be its own seems online.
///
/// # Safety
/// `config` points to a configuration that no other thread uses; the others are writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_accept_rejoin(
    config: *mut replication_config,
    listen_fd: c_int,
    follower_index: *mut c_int,
    follower_lsn: *mut u64,
) -> c_int {
    guard::call(|| {
        ptr::check(follower_index)?;
        ptr::check(follower_lsn)?;
        // SAFETY: the caller's promise.
        unsafe { layout::check(config) }?;
        let accept = if replaced::has(File::ReplAccept) { replaced::accept } else { socket::accept };
        let connection = accept(listen_fd)?;
        let message = read_rejoin(connection.as_raw_fd())?;
        let node = message.mark.map_or(0, |mark| mark.node);
        // SAFETY: the caller's promise.
        let slot = unsafe { configs::with_group(config, |group, _| take_slot(group, connection.as_raw_fd(), node)) }?;
        let _ = connection.into_raw_fd(); // The slot owns it now.
        // SAFETY: not NULL, writable by the caller's promise.
        unsafe { follower_index.write(ptr::count(slot as u64)) };
        // SAFETY: as above.
        unsafe { follower_lsn.write(message.last.0) };
        Ok(0)
    })
}

/// Finds the slot of a follower that comes back, and puts its new socket there.
fn take_slot(group: &mut Group<'_>, fd: RawFd, node: u8) -> Result<usize> {
    let address = socket::peer_address(fd).map(|(address, _)| address);
    let is_its = |member: &Member<'_>| match node {
        0 => address.is_some_and(|address| socket::is_address_of(member.host, address)),
        number => member.index + 1 == usize::from(number),
    };
    let offline = |group: &Group<'_>| group.members.iter().position(|member| !member.online && is_its(member));
    let slot = match offline(group) {
        Some(slot) => slot,
        None => {
            // Somebody who seems online may be the one that just crashed: silence frees its slot.
            group.heartbeat(Deadline::after_ms(1_000))?;
            offline(group).ok_or(Error::NoSlot)?
        }
    };
    let member = &mut group.members[slot];
    if member.fd >= 0 && socket::identify(member.fd) == Some(member.link.socket) {
        socket::close(member.fd);
    }
    member.fd = fd;
    member.online = false;
    member.link.attach(socket::identify(fd).ok_or(Errno::EBADF)?);
    member.link.progress.is_logship = conns::mark_of(member.link.socket).is_some();
    Ok(slot)
}

/// Ships every record after `follower_lsn` to follower `follower_index` alone, on its `fd`, and sets `online` = 1.
/// Returns how many were shipped (0: nothing missed). Shipped is not acknowledged: acks that arrive meanwhile are kept
/// for `repl_wait_quorum`, `repl_recv_ack` and `recv_full`. -1 leaves it offline, with `errno`: EINVAL bad index, or
/// several logs might be the leader's; ENOTCONN no socket; ENOENT no log; ERANGE the follower is ahead of the leader;
/// ESTALE its last record is not the leader's; ENODATA its missing records were compacted away and no checkpoint is set
/// or the peer is not logship (with one, the snapshot is sent and then the rest of the log); EBADMSG the log is damaged
/// in the range (what came before was shipped); else the send's. The log is `repl_set_wal`'s, else the one that this
/// process opened with `wal_open` and did not receive into, else `leader.wal` in the current directory. Memory stays
/// under 8 MiB whatever was missed.
///
/// # Safety
/// `config` points to a configuration that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_catch_up(
    config: *mut replication_config,
    follower_index: c_int,
    follower_lsn: u64,
) -> c_int {
    guard::call(|| {
        let watch = super::logship::tell_progress;
        let all = |member: &mut Member<'_>, source: &LogSource<'_>| {
            if replaced::has(File::ReplShip) {
                return catch_up_through_program(member, source, Lsn(follower_lsn));
            }
            catch_up::catch_up(member, &Source { watch: Some(&watch), ..*source }, Lsn(follower_lsn))
        };
        // SAFETY: the caller's promise.
        let summary = unsafe { with_source(config, follower_index, follower_lsn, all) }?;
        Ok(ptr::count(summary.records))
    })
}

/// Runs `body` with a follower that is to be caught up and with the log to do it from. An error leaves it offline.
///
/// # Safety
/// `config` is NULL or points to a configuration that no other thread uses.
pub(super) unsafe fn with_source<T>(
    config: *mut replication_config,
    index: c_int,
    follower_lsn: u64,
    body: impl FnOnce(&mut Member<'_>, &LogSource<'_>) -> Result<T>,
) -> Result<T> {
    // SAFETY: the caller's promise.
    let count = unsafe { layout::check(config) }?;
    let slot = usize::try_from(index).ok().filter(|slot| *slot < count);
    let slot = slot.ok_or(Error::Invalid("follower_index"))?;
    let (set, checkpoint) = configs::paths(config)?;
    let log = LeaderLogByPath::new(set.as_deref());
    let one = |group: &mut Group<'_>| {
        let member = &mut group.members[slot];
        make_ready(member)?;
        // One of these two the follower has: some send it in host byte order.
        let log = log.open(Lsn(follower_lsn.min(follower_lsn.swap_bytes())))?;
        catch_up::take_mark(member, Some(Lsn(follower_lsn)))?;
        body(member, &log.source(checkpoint.as_deref())).inspect_err(|error| {
            let (path, last) = (log.path.display(), log.last());
            crate::log_error!("{member}: catch-up from LSN {follower_lsn} of {path} (last LSN {last}): {error}");
            // Refused before anything was sent: the connection is still the program's to use.
            if !matches!(error, Error::FollowerAhead { .. } | Error::Compacted { .. }) && member.fd >= 0 {
                member.go_offline(format_args!("catch-up: {error}"));
            }
        })
    };
    // SAFETY: the caller's promise.
    unsafe { configs::with_group(config, |group, _| one(group)) }
}

fn make_ready(member: &mut Member<'_>) -> Result<()> {
    member.online = false;
    let socket = socket::identify(member.fd).ok_or(Error::NotConnected)?;
    if socket::peer_address(member.fd).is_none() {
        return Err(Error::NotConnected);
    }
    if member.link.socket != socket {
        member.link.attach(socket);
        member.link.progress.is_logship = conns::mark_of(socket).is_some();
    }
    Ok(())
}

/// Names the log that followers of `config` are caught up and re-shipped from. The path is kept absolute. Returns 0, or
/// -1 with `errno` EINVAL for NULL or an empty path, ENAMETOOLONG.
///
/// # Safety
/// `config` points to a configuration, `wal_path` to a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_set_wal(config: *mut replication_config, wal_path: *const c_char) -> c_int {
    guard::call(|| {
        ptr::check(config)?;
        // SAFETY: the caller's promise.
        configs::set_wal(config, unsafe { ptr::path(wal_path) }?)?;
        Ok(0)
    })
}

/// Names the checkpoint for followers whose missing records were compacted away. It must cover at least what is gone.
/// Returns as `repl_set_wal`.
///
/// # Safety
/// `config` points to a configuration, `checkpoint_path` to a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_set_checkpoint(config: *mut replication_config, checkpoint_path: *const c_char) -> c_int {
    guard::call(|| {
        ptr::check(config)?;
        // SAFETY: the caller's promise.
        configs::set_checkpoint(config, unsafe { ptr::path(checkpoint_path) }?)?;
        Ok(0)
    })
}

/// Sends a heartbeat to every online follower and waits at most `timeout_ms` for all answers; those that stay silent
/// are marked offline. Returns how many answered; -1 with `errno` EINVAL for bad arguments. A stopped process is silent
/// although TCP keepalive is satisfied.
///
/// # Safety
/// `config` points to a configuration that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_heartbeat(config: *mut replication_config, timeout_ms: c_int) -> c_int {
    guard::call(|| {
        let deadline = Deadline::after_ms(timeout_ms);
        // SAFETY: the caller's promise.
        let answered = unsafe { configs::with_group(config, |group, _| group.heartbeat(deadline)) }?;
        Ok(ptr::count(answered as u64))
    })
}

static LEADER_PORT: AtomicU16 = AtomicU16::new(7000);
static LEADER_HOST: Mutex<HostName> = Mutex::new(HostName::LOCALHOST);

/// A host name without a heap allocation: RFC 1035 allows 253 characters.
#[derive(Clone, Copy)]
struct HostName {
    bytes: [u8; 256],
    len: usize,
}

impl HostName {
    const LOCALHOST: HostName = {
        let mut bytes = [0; 256];
        let name = b"127.0.0.1";
        let mut at = 0;
        while at < name.len() {
            bytes[at] = name[at];
            at += 1;
        }
        HostName { bytes, len: name.len() }
    };

    fn as_str(&self) -> std::result::Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.bytes[..self.len])
    }
}

fn leader_address() -> (HostName, u16) {
    let host = *LEADER_HOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    (host, LEADER_PORT.load(Ordering::Relaxed))
}

/// Sets where `repl_follower_rejoin` finds the leader.
pub(super) fn set_leader(host: &str, port: u16) -> Result<()> {
    let mut name = HostName { bytes: [0; 256], len: host.len() };
    name.bytes.get_mut(..host.len()).ok_or(Error::Invalid("host name too long"))?.copy_from_slice(host.as_bytes());
    *LEADER_HOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = name;
    LEADER_PORT.store(port, Ordering::Relaxed);
    Ok(())
}
