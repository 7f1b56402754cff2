//! What the bytes of a program's structs say about the header that the program was compiled with.
//!
//! Our headers assert their layout, so a program that is compiled with them has it. One that has its own
//! `repl_config.h`, as the lesson's reader writes it, hands over a struct that nothing describes: its layout is mostly
//! ours, and sometimes another, with the host as an array of characters. Then text or a port number stands where we
//! have a pointer, a node begins where none of ours does, or the number of followers is impossible. Each is said in one
//! line, since the error that the call returns would not tell.
#![allow(unsafe_code, reason = "reads the visible structs through their pointers")]

use super::configs;
use super::ptr;
use super::repl_config::{repl_node, replication_config};
use crate::error::{Error, Result};
use crate::net::group::MEMBERS_MAX;
use std::fmt;

/// What all lines end with.
const HINT: &str =
    "was the program compiled with a repl_config.h that is not logship's? docs/linking.md, Headers of your own";

/// Below is the page of NULL and what Linux keeps free behind it, above is the kernel's.
const ADDRESSES: std::ops::Range<usize> = 0x1_0000..0x8000_0000_0000;

/// Whether a host can be the address of a string, or NULL.
fn is_possible(host: *const libc::c_char) -> bool {
    host.is_null() || ADDRESSES.contains(&host.addr())
}

fn refuse(what: fmt::Arguments<'_>) -> Error {
    crate::log_error!("{what}: {HINT}");
    Error::Invalid("the struct is not laid out as logship's")
}

/// Reads a node that a program hands over by itself.
///
/// # Safety
/// `node` is NULL or points to a readable node.
pub(super) unsafe fn read_node(node: *const repl_node) -> Result<repl_node> {
    ptr::check(node)?;
    if !node.is_aligned() {
        return Err(refuse(format_args!("a struct repl_node begins at an address that no struct has")));
    }
    // SAFETY: not NULL and aligned, a node by the caller's promise.
    let seen = unsafe { node.read() };
    if is_possible(seen.host) {
        return Ok(seen);
    }
    let host = seen.host.addr();
    Err(match configs::bytes_into(node) {
        Some(bytes) => refuse(format_args!(
            "a struct repl_node {bytes} bytes into a struct replication_config has a host that is no address, {host:#x}"
        )),
        None => refuse(format_args!("a struct repl_node has a host that is no address, {host:#x}")),
    })
}

/// The number of followers, and whether the nodes that are in use can be nodes.
///
/// # Safety
/// `config` is NULL or points to a live `replication_config`.
pub(super) unsafe fn check(config: *const replication_config) -> Result<usize> {
    ptr::check(config)?;
    if !config.is_aligned() {
        return Err(refuse(format_args!("a struct replication_config begins at an address that no struct has")));
    }
    // SAFETY: not NULL, and the caller promises a live struct.
    let said = unsafe { (*config).follower_count };
    let Some(count) = usize::try_from(said).ok().filter(|count| *count <= MEMBERS_MAX) else {
        return Err(refuse(format_args!("a struct replication_config has a follower_count of {said}")));
    };
    // SAFETY: the caller's promise; within the array.
    let wrong = (0..count).find(|slot| !is_possible(unsafe { configs::node(config, *slot) }.host));
    wrong.map_or(Ok(count), |slot| {
        Err(refuse(format_args!("followers[{slot}] of a struct replication_config has a host that is no address")))
    })
}

/// Looks at the nodes that are not in use, of a struct that `repl_config_init` has filled in: what stands there now was
/// written by somebody who took it for something else, or has forgotten `follower_count`. It is no error, since nobody
/// reads it.
///
/// # Safety
/// `config` points to a live `replication_config` with `count` followers.
pub(super) unsafe fn look_at_the_rest(config: *const replication_config, count: usize) {
    // SAFETY: the caller's promise; within the array.
    let unused = |slot| unsafe { configs::node(config, slot) };
    // SAFETY: as above.
    let leader = unsafe { (*config).leader };
    if let Some(slot) = (count..MEMBERS_MAX).find(|slot| !is_possible(unused(*slot).host) || unused(*slot).online != 0)
    {
        crate::log_warn!(
            "followers[{slot}] of a struct replication_config is in use, with a follower_count of {count}: {HINT}"
        );
    } else if !is_possible(leader.host) {
        crate::log_warn!("the leader of a struct replication_config has a host that is no address: {HINT}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::{null_mut, without_provenance_mut};

    fn config(count: libc::c_int, host: *mut libc::c_char) -> replication_config {
        let node = repl_node { host, port: 0, fd: -1, online: 0 };
        replication_config { leader: node, followers: [node; MEMBERS_MAX], follower_count: count }
    }

    #[test]
    fn text_a_port_and_an_impossible_count_are_told_from_a_struct() {
        let text = without_provenance_mut(usize::from_le_bytes(*b"127.0.0."));
        for (host, count, good) in [
            (null_mut(), 8, true),
            (c"a".as_ptr().cast_mut(), 8, true),
            (text, 0, true),
            (text, 1, false),
            (without_provenance_mut(7001), 1, false),
            (null_mut(), 9, false),
            (null_mut(), -1, false),
        ] {
            let config = config(count, host);
            // SAFETY: a live struct.
            assert_eq!(unsafe { check(&raw const config) }.is_ok(), good, "{host:?} {count}");
        }
    }
}
