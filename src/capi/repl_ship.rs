//! w11/repl_ship.h: shipping records and receiving them.
#![allow(unsafe_code, reason = "the C boundary")]

use super::kv_store::kv_store;
use super::locked::LockedStore;
use super::repl_ack;
use super::repl_config::replication_config;
use super::replaced::log::ThroughProgram;
use super::replaced::{self, File};
use super::wal_writer::wal_writer;
use super::{cancel, configs, conns, guard, logs, ptr};
use crate::error::{Error, Result};
use crate::net::io::Deadline;
use crate::net::receive::{Acks, FollowerLog, Receiver};
use crate::net::socket::SocketId;
use crate::wal::record::RECORD_MAX;
use libc::{c_int, c_void};

/// Sends all `len` bytes. Returns 0, or -1 with `errno`: EPIPE or ECONNRESET if the peer is gone, ETIMEDOUT after the
/// send deadline (5 s unless `repl_set_timeouts`), EINVAL for NULL. Some bytes may be out then. Never raises SIGPIPE.
///
/// # Safety
/// `buf` points to `len` readable bytes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn send_full(fd: c_int, buf: *const c_void, len: usize) -> c_int {
    guard::call(|| {
        if len == 0 {
            return Ok(0);
        }
        // SAFETY: the caller's promise.
        configs::send(fd, unsafe { ptr::bytes(buf.cast(), len) }?, Deadline::send())?;
        Ok(0)
    })
}

/// Receives exactly `len` bytes. Returns 0, or -1 with `errno`: ENOTCONN if the peer closed before all came, ETIMEDOUT
/// if the rest did not come within the receive deadline of the first byte, EINVAL for NULL. Acks that were read early
/// come first. Waits for the first byte as long as TCP says that the peer lives.
///
/// # Safety
/// `buf` points to `len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn recv_full(fd: c_int, buf: *mut c_void, len: usize) -> c_int {
    if len > 0 && !buf.is_null() && !configs::has_early_bytes(fd) {
        cancel::wait_readable(fd);
    }
    guard::call(|| {
        if len == 0 {
            return Ok(0);
        }
        // SAFETY: the caller's promise.
        let into = unsafe { ptr::bytes_mut(buf.cast(), len) }?;
        if repl_ack::receive(fd, into)? { Ok(0) } else { Err(Error::NotConnected) }
    })
}

/// Ships one encoded record to every follower with `online` 1, to all of them at the same time. Its content is not
/// looked at. Returns how many got it (0 is no error); -1 with `errno` EINVAL for bad arguments only. A follower that
/// has hung up, fails, or has not taken the whole frame within the send deadline (5 s unless `repl_set_timeouts`) is
/// marked offline: its acks are kept, its socket closed, `fd` -1, one log line. A logship follower that takes no more
/// now is not waited for: it gets the rest from the log in later calls. Blocks at most for that deadline.
///
/// # Safety
/// `config` points to a configuration that no other thread uses; `encoded_buf` to `encoded_len` readable bytes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn repl_ship_record(
    config: *mut replication_config,
    encoded_buf: *const u8,
    encoded_len: usize,
) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        let encoded = unsafe { ptr::bytes(encoded_buf, encoded_len) }?;
        if encoded.is_empty() || encoded.len() > RECORD_MAX {
            return Err(Error::Invalid("no record has this length"));
        }
        // SAFETY: the caller's promise.
        let shipped = unsafe { configs::with_group(config, |group, _| group.ship(encoded, None)) }?;
        Ok(ptr::count(shipped as u64))
    })
}

/// Receives one record: stores it in the log (fsync) and applies it by the conflict rule. Returns 0 then, also if the
/// rule skipped it; `CRC_MISMATCH` (-2) if it came damaged: nothing is stored and the stream is still in step; -1 with
/// `errno` if not: ENOTCONN the leader closed in order, ETIMEDOUT, EPROTO a frame that can't be, ESTALE this log is not
/// a part of the leader's, or the log's own (nothing stored). Sends no ack: the caller does, with `repl_send_ack(fd,
/// logship_last_lsn(writer), 0)`, or status 1 and the next LSN after CRC_MISMATCH. Heartbeats and control messages are
/// answered inside. Waits for a frame's first byte as long as TCP says that the leader lives, then 5 s for the whole
/// frame.
///
/// # Safety
/// `writer` and `store` are live and used by no other thread.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C-unwind" fn repl_receive_record(fd: c_int, writer: *mut wal_writer, store: *mut kv_store) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { receive(fd, writer, store, if conns::node() == 0 { Acks::ByCaller } else { Acks::ByLogshipCaller }) }
}

/// Takes a record that an earlier `logship_follow` has stored, applied and acknowledged already.
///
/// # Safety
/// As for [`receive`].
pub(super) unsafe fn take_ready(fd: c_int, writer: *const wal_writer, store: *const kv_store) -> bool {
    if fd < 0 || writer.is_null() || store.is_null() {
        return false;
    }
    // SAFETY: not NULL, and the caller promises a writer.
    logs::take_ready(unsafe { (*writer).fd })
}

/// Whether a receive would only wait: its arguments can be right, and no record waits to be applied.
///
/// # Safety
/// As for [`receive`].
unsafe fn has_nothing_to_do_yet(writer: *mut wal_writer, store: *mut kv_store) -> bool {
    guard::guard(false, || {
        // SAFETY: the caller's promise.
        let log = unsafe { super::wal_writer::log_of(writer) };
        !store.is_null() && log.is_ok_and(|mut log| log.unapplied().is_none() && log.ready() == 0)
    })
}

/// Receives one record, and answers for it if `acks` says so. Waits where the thread can be cancelled, before every
/// frame.
///
/// # Safety
/// `writer` and `store` are NULL or live, and used by no other thread.
pub(super) unsafe fn receive(fd: c_int, writer: *mut wal_writer, store: *mut kv_store, acks: Acks) -> c_int {
    loop {
        let id = guard::guard(None, || conns::meet(fd));
        if acks == Acks::ByUs {
            // SAFETY: the caller's promise.
            guard::guard((), || drop(unsafe { greet(fd, id, writer, store) }));
        }
        // SAFETY: the caller's promise.
        if unsafe { has_nothing_to_do_yet(writer, store) } {
            cancel::wait_readable(fd);
        }
        // SAFETY: the caller's promise.
        let result = guard::call(|| unsafe { receive_frame(fd, id, writer, store, acks) });
        if result != NO_RECORD {
            return result;
        }
    }
}

/// Shows the leader on the first call on a connection that this end stores records and answers for them as logship
/// does, if nothing of the program's takes part in that. What can't be sent shows in the receive that follows.
///
/// # Safety
/// As for [`receive`].
unsafe fn greet(fd: c_int, id: Option<SocketId>, writer: *mut wal_writer, store: *mut kv_store) -> Result<()> {
    if replaced::speaks_plainly() {
        return Ok(());
    }
    let mut conn = conns::known(fd, id)?;
    if std::mem::replace(&mut conn.value().has_greeted, true) {
        return Ok(());
    }
    ptr::check(writer)?;
    // SAFETY: the caller's promise.
    let mut store = unsafe { LockedStore::from_ptr(store) }?;
    // SAFETY: the caller's promise.
    let mut log = unsafe { super::wal_writer::log_of(writer) }?;
    let (node, idle) = (conns::node(), Deadline::NEVER);
    let follower = &mut conn.value().follower;
    Receiver { fd, follower, log: &mut log, store: &mut store, node, acks: Acks::ByUs, idle }.greet()
}

/// What [`receive_frame`] returns after a frame that gave no record.
const NO_RECORD: c_int = 1;

/// # Safety
/// As for [`receive`].
unsafe fn receive_frame(
    fd: c_int,
    id: Option<SocketId>,
    writer: *mut wal_writer,
    store: *mut kv_store,
    acks: Acks,
) -> Result<c_int> {
    ptr::check(writer)?;
    // SAFETY: the caller's promise.
    let mut store = unsafe { LockedStore::from_ptr(store) }?;
    // SAFETY: the caller's promise.
    let mut log = unsafe { super::wal_writer::log_of(writer) }?;
    log.mark_received();
    let mut conn = conns::known(fd, id)?;
    let node = conns::node();
    let follower = &mut conn.value().follower;
    let idle = Deadline::NEVER;
    let (result, log) = if replaced::has(File::WalWriter) {
        // SAFETY: the caller's promise, and this is its log.
        let mut log = unsafe { ThroughProgram::new(log, writer) };
        let mut receiver = Receiver { fd, follower, log: &mut log, store: &mut store, node, acks, idle };
        (receiver.receive_frame(), log.into_log())
    } else {
        let mut receiver = Receiver { fd, follower, log: &mut log, store: &mut store, node, acks, idle };
        (receiver.receive_frame(), Some(log))
    };
    if let Some(Ok((_, len))) = log.map(|mut log| log.end()) {
        // SAFETY: not NULL, checked above.
        unsafe { super::wal_writer::publish(writer, len) };
    }
    Ok(if result?.is_some() { 0 } else { NO_RECORD })
}
