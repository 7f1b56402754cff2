//! w11/repl_ack.h: acks.
#![allow(unsafe_code, reason = "the C boundary")]
#![allow(non_camel_case_types, reason = "C's names")]

use super::{cancel, configs, conns, guard, ptr};
use crate::error::{Error, Result};
use crate::net::io::{self, Deadline};
use crate::replication::message::{self, ACK_LEN, Ack};
use crate::types::Lsn;
use libc::c_int;

/// Stored, durable.
pub const REPL_ACK_OK: u8 = 0;
/// Rejected: the CRC did not match.
pub const REPL_ACK_CRC_FAIL: u8 = 1;
/// Not stored: the follower's log failed.
pub const REPL_ACK_NOT_STORED: u8 = 2;

const _: () = {
    assert!(REPL_ACK_OK == message::ACK_OK);
    assert!(REPL_ACK_CRC_FAIL == message::ACK_CRC_FAIL);
    assert!(REPL_ACK_NOT_STORED == message::ACK_NOT_STORED);
};

/// An ack, and its 16 bytes on the wire (x86-64: `lsn` little-endian, `status`, 7 bytes of padding).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct repl_ack {
    /// The record's number in the follower's log.
    pub lsn: u64,
    /// One of `REPL_ACK_*`.
    pub status: u8,
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(repl_ack, lsn) == 0);
    assert!(offset_of!(repl_ack, status) == 8);
    assert!(size_of::<repl_ack>() == ACK_LEN);
};

/// Sends one ack, without a mark: it counts for its own LSN. Returns 0, or -1 with `errno` (EPIPE, ECONNRESET,
/// ETIMEDOUT after the send deadline...). Never raises SIGPIPE.
#[unsafe(no_mangle)]
pub extern "C" fn repl_send_ack(fd: c_int, lsn: u64, status: u8) -> c_int {
    guard::call(|| {
        conns::meet(fd);
        configs::send(fd, &Ack::plain(Lsn(lsn), status).encode(), Deadline::send())?;
        Ok(0)
    })
}

/// Receives one ack. Returns 1; 0 if the peer has closed in order, -1 with `errno` if not (ENOTCONN: closed in the
/// middle of an ack; EINVAL for NULL). Acks that were read early come first. Waits for the first byte as long as TCP
/// says that the peer lives, then the receive deadline for the rest.
///
/// # Safety
/// `ack` points to a writable struct.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn repl_recv_ack(fd: c_int, ack: *mut repl_ack) -> c_int {
    if !ack.is_null() && !configs::has_early_bytes(fd) {
        guard::guard(None, || conns::meet(fd));
        cancel::wait_readable(fd);
    }
    guard::call(|| {
        ptr::check(ack)?;
        let mut bytes = [0; ACK_LEN];
        if !receive(fd, &mut bytes)? {
            return Ok(0);
        }
        let received = Ack::decode(bytes);
        // SAFETY: not NULL, writable by the caller's promise.
        unsafe { ack.write(repl_ack { lsn: received.lsn.0, status: received.status }) };
        Ok(1)
    })
}

/// Fills `into` with bytes read early and then from the socket. `Ok(false)`: the peer closed before the first byte. An
/// ack that answers a heartbeat or a CHECK too late acknowledges no record and is passed over.
pub(super) fn receive(fd: c_int, into: &mut [u8]) -> Result<bool> {
    loop {
        let received = receive_bytes(fd, into)?;
        match <[u8; ACK_LEN]>::try_from(&*into) {
            Ok(bytes) if received && Ack::decode(bytes).is_liveness() => {}
            _ => return Ok(received),
        }
    }
}

fn receive_bytes(fd: c_int, into: &mut [u8]) -> Result<bool> {
    let early = configs::take_early_bytes(fd, into);
    if early == into.len() {
        return Ok(true);
    }
    let first = if early > 0 { Deadline::recv() } else { Deadline::NEVER };
    match io::recv_all(fd, &mut into[early..], first)? {
        false if early > 0 => Err(Error::NotConnected),
        whole => Ok(whole),
    }
}
