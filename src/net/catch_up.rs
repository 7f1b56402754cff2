//! Streaming a range of the log to one follower, in memory that does not depend on the range.
//!
//! Records are read in large pieces, checked, framed and sent in large pieces; acks are drained meanwhile, so two full
//! socket buffers never wait for each other.
#![forbid(unsafe_code)]

use super::group::Member;
use super::io::{self, Deadline, Received};
use crate::error::{Error, Result};
use crate::replication::message::{self, ACK_LEN, Ack};
use crate::replication::{frame, rejoin};
use crate::storage::Storage;
use crate::types::Lsn;
use crate::wal::record;
use crate::wal::scan::{self, Position};

/// What a catch-up did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records shipped.
    pub records: u64,
    /// Bytes shipped, frames included.
    pub bytes: u64,
    /// The leader's last LSN, which the follower has now.
    pub last: Lsn,
    /// Bytes in the leader's log at the end.
    pub log_len: u64,
    /// Length and CRC field of the last record shipped.
    pub last_record: Option<(usize, u32)>,
}

/// A leader's log to catch up from: its bytes, how far they go, and a place near any record.
pub struct Source<'a, S: Storage> {
    /// The log.
    pub storage: &'a S,
    /// Last LSN.
    pub last: Lsn,
    /// Bytes of whole records.
    pub len: u64,
    /// A place at or shortly before a record.
    pub near: &'a dyn Fn(Lsn) -> Position,
}

/// The ack that a logship follower sends behind its rejoin message shows that it is one. It is no ack for a record, so
/// it is taken off the connection before a program reads acks from it.
pub fn take_rejoin_mark(member: &mut Member<'_>, follower: Lsn) -> Result<()> {
    let mut bytes = [0; ACK_LEN];
    if io::peek_now(member.fd, &mut bytes)? != Received::Bytes(ACK_LEN) {
        return Ok(());
    }
    let ack = Ack::decode(bytes);
    if ack.mark().is_some() && ack.lsn == follower && !ack.is_liveness() {
        io::recv_now(member.fd, &mut bytes)?;
        member.link.progress.on_ack(&ack, None);
        member.link.hear();
    }
    Ok(())
}

/// Ships every record after `follower`, the last LSN that the follower has, to it alone.
///
/// On an error the follower is offline. [`Error::FollowerAhead`]; [`Error::Damaged`] when the range holds damage: what
/// came before it was shipped.
pub fn catch_up<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, follower: Lsn) -> Result<Summary> {
    let mut summary = Summary { last: source.last, log_len: source.len, ..Summary::default() };
    let after = match rejoin::decide(follower, source.last)? {
        rejoin::Decision::UpToDate => source.last,
        rejoin::Decision::ShipAfter(after) => after,
    };
    if member.link.progress.is_logship {
        member.link.progress.next = Some(after.next());
        member.send(&message::encode_position(after.next()), Deadline::send())?;
    }
    if after == source.last {
        return Ok(summary);
    }
    let near = (source.near)(after.next());
    let Some(from) = scan::walk(source.storage, near, |at| at.lsn >= after.next())? else {
        return Err(Error::Damaged { offset: near.offset, after });
    };
    let mut out = Vec::with_capacity(512 * 1024);
    let end = scan::scan(source.storage, from, source.len, |batch| {
        let mut rest = batch.encoded;
        for _ in batch.records {
            let len = record::frame_len(rest).unwrap_or(rest.len());
            let (one, others) = rest.split_at(len);
            rest = others;
            let header = frame::record_header(len).ok_or(Error::Malformed("record length"))?;
            out.extend_from_slice(&header);
            out.extend_from_slice(one);
            summary.records += 1;
            summary.bytes += (header.len() + len) as u64;
            summary.last_record = Some((len, record::stored_crc(one).unwrap_or(0)));
            if out.len() >= 256 * 1024 {
                member.send(&out, Deadline::send())?;
                out.clear();
            }
        }
        Ok(())
    })?;
    member.send(&out, Deadline::send())?;
    if let Some(next) = &mut member.link.progress.next {
        *next = end.next.lsn;
    }
    if end.damaged || end.last() < source.last {
        return Err(Error::Damaged { offset: end.next.offset, after: end.last() });
    }
    Ok(summary)
}
