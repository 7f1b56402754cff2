//! w11/repl_config.h: who there is, and the sockets between them.
#![allow(unsafe_code, reason = "the C boundary")]
#![allow(non_camel_case_types, reason = "C's names")]

use super::{cancel, configs, conns, guard, layout, ptr};
use crate::error::{Error, Result};
use crate::net::group::MEMBERS_MAX;
use crate::net::socket;
use libc::{c_char, c_int};
use std::ffi::CStr;
use std::os::fd::IntoRawFd;

/// Followers that a configuration has room for.
pub const MAX_FOLLOWERS: usize = 8;

/// One node.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct repl_node {
    /// Its address: a C string that the program keeps alive.
    pub host: *mut c_char,
    /// Its port.
    pub port: u16,
    /// The socket to it, or -1. The program's, but closed and set to -1 when the node is marked offline.
    pub fd: c_int,
    /// 1: shipped to and counted on. 0: not.
    pub online: u8,
}

/// A leader and its followers.
#[repr(C)]
pub struct replication_config {
    /// The leader.
    pub leader: repl_node,
    /// The followers; the first `follower_count` are used.
    pub followers: [repl_node; MAX_FOLLOWERS],
    /// 0 to MAX_FOLLOWERS.
    pub follower_count: c_int,
}

const _: () = {
    use std::mem::offset_of;
    assert!(MAX_FOLLOWERS == MEMBERS_MAX);
    assert!(offset_of!(repl_node, host) == 0);
    assert!(offset_of!(repl_node, port) == 8);
    assert!(offset_of!(repl_node, fd) == 12);
    assert!(offset_of!(repl_node, online) == 16);
    assert!(size_of::<repl_node>() == 24);
    assert!(offset_of!(replication_config, leader) == 0);
    assert!(offset_of!(replication_config, followers) == 24);
    assert!(offset_of!(replication_config, follower_count) == 216);
    assert!(size_of::<replication_config>() == 224);
};

const LOCALHOST: &CStr = c"127.0.0.1";

fn offline_node(port: u16) -> repl_node {
    repl_node { host: LOCALHOST.as_ptr().cast_mut(), port, fd: -1, online: 0 }
}

/// Fills in the lesson's nodes: leader 127.0.0.1:7000, followers :7001 and :7002, every `fd` -1, every `online` 0. The
/// hosts are constants: replace the pointers, don't write through them. Forgets all that was known of a configuration
/// at this address. Returns 0, or -1 with `errno` EINVAL for NULL.
///
/// # Safety
/// `config` is NULL or points to writable memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_config_init(config: *mut replication_config) -> c_int {
    guard::call(|| {
        ptr::check(config)?;
        configs::forget(config)?;
        let mut followers = [offline_node(0); MAX_FOLLOWERS];
        followers[0].port = 7001;
        followers[1].port = 7002;
        let fresh = replication_config { leader: offline_node(7000), followers, follower_count: 2 };
        // SAFETY: not NULL, writable by the caller's promise.
        unsafe { config.write(fresh) };
        Ok(0)
    })
}

/// Connects to `node->host`, `node->port` within 5 s; sets `fd` and `online` = 1. The socket has TCP_NODELAY and
/// keepalive as `repl_set_keepalive` sets it, and SO_REUSEADDR. Returns 0, or -1 with `errno` (ECONNREFUSED, ETIMEDOUT,
/// EINVAL for NULL...) and the node unchanged. Try again if the peer does not listen yet. An old socket in `fd` is the
/// program's to close.
///
/// # Safety
/// `node` points to a node whose host is a C string.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn repl_connect(node: *mut repl_node) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        let seen = unsafe { layout::read_node(node) }?;
        // SAFETY: the caller's promise.
        let host = unsafe { ptr::host(seen.host) }?;
        let fd = socket::connect(host, seen.port)?.into_raw_fd();
        configs::forget_slot(node);
        // SAFETY: as above.
        unsafe { node.write(repl_node { fd, online: 1, ..seen }) };
        Ok(0)
    })
}

/// Listens on `node->host`, `node->port`; port 0 is any free one, written back. SO_REUSEADDR, and the keepalive
/// options, which Linux hands down to accepted sockets. Returns the listening descriptor, which is the program's to
/// close (the node's `fd` is not touched), or -1 with `errno` (EADDRINUSE, EADDRNOTAVAIL, EINVAL for NULL...).
///
/// # Safety
/// `node` points to a node whose host is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_listen(node: *mut repl_node) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        let seen = unsafe { layout::read_node(node) }?;
        // SAFETY: the caller's promise.
        let host = unsafe { ptr::host(seen.host) }?;
        let (fd, port) = socket::listen(host, seen.port)?;
        // SAFETY: as above.
        unsafe { (*node).port = port };
        Ok(fd.into_raw_fd())
    })
}

/// Accepts one connection, with keepalive and TCP_NODELAY. Returns its descriptor, which is the program's, or -1 with
/// accept(2)'s `errno`. Waits as accept(2) does: without a deadline, and not at all on a non-blocking listening socket;
/// poll(2) the listening descriptor to bound it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub extern "C-unwind" fn repl_accept(listen_fd: c_int) -> c_int {
    if socket::is_blocking(listen_fd) {
        cancel::wait_readable(listen_fd);
    }
    guard::call(|| Ok(socket::accept(listen_fd)?.into_raw_fd()))
}

/// Sets SO_KEEPALIVE, TCP_KEEPIDLE 5, TCP_KEEPINTVL 1, TCP_KEEPCNT 3 and TCP_USER_TIMEOUT, 8 s or the send deadline of
/// `repl_set_timeouts` if that is longer: by default a peer that is gone
/// without a word is noticed in at most 8 s, idle or not. Returns 0, or -1 with setsockopt(2)'s `errno`. See tcp(7).
#[unsafe(no_mangle)]
pub extern "C" fn repl_set_keepalive(fd: c_int) -> c_int {
    guard::call(|| socket::set_keepalive(fd).map(|()| 0))
}

/// This process's node number, which its acks carry.
pub(super) fn set_self(node: c_int) -> Result<()> {
    conns::set_node(u8::try_from(node).map_err(|_| Error::Invalid("a node number is 0 to 255"))?);
    Ok(())
}
