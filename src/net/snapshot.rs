//! A follower whose missing records are gone from the leader's log gets a checkpoint: both ends.
//!
//! The leader offers it, the follower says how much of it is there from a connection that broke, the rest goes in parts
//! that each have a CRC, and then the last record that it covers. Memory on both sides is a few parts.
#![forbid(unsafe_code)]

use super::catch_up::Source;
use super::io::{self, Deadline};
use super::member::Member;
use super::receive::{FollowerLog, Receiver};
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::replication::message::{ACK_NOT_STORED, ACK_OK, Ack, CHUNK_LEN, Control, FLAG_LIVENESS, FLAG_SNAPSHOT};
use crate::storage::Storage;
use crate::types::{History, Lsn};
use crate::wal;
use crate::wal::checkpoint::{self, Checkpoint};
use crate::wal::crc::crc32;
use crate::wal::origin::Origin;
use crate::wal::snapshot::{Incoming, Snapshot};
use std::path::Path;

/// How long a follower has to answer the offer.
const OFFER_MS: i32 = 5_000;
/// And to install the snapshot: so long, and one millisecond more for so many bytes.
const INSTALL_MS: i32 = 10_000;
const INSTALL_BYTES_PER_MS: u64 = 10_000;

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// LSN of the last record that the checkpoint covers.
    pub lsn: Lsn,
    /// Bytes of it that the follower did not have.
    pub bytes: u64,
}

/// Sends the checkpoint at `path` to a logship follower and waits until it is installed there.
///
/// Errors: [`Error::Malformed`] the checkpoint is damaged or not this log's; [`Error::Refused`] the follower could not
/// take it; [`Error::TimedOut`]; those of the connection.
pub fn send<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, path: &Path) -> Result<Sent> {
    let found = checkpoint::open(path)?;
    let snapshot = Snapshot::of(&found)?;
    let (lsn, tail) = (snapshot.lsn, source.tail);
    let before = Lsn(lsn.0 - 1);
    let is_ours = tail.history_at(source.storage, lsn)? == Some(snapshot.history);
    let history = tail.history_at(source.storage, before)?.filter(|_| is_ours && lsn > tail.base());
    let history = history.ok_or(Error::Malformed("the checkpoint does not fit the log"))?;
    let record = wal::read_record(source.storage, tail.near(source.storage, lsn)?, lsn)?;
    member.tell(&Control::Snapshot(snapshot))?;
    let from = answer(member, Deadline::after_ms(OFFER_MS))?.0.min(snapshot.size);
    stream(member, &found, from)?;
    member.tell(&Control::Install(history, &record))?;
    let more = i32::try_from(snapshot.size / INSTALL_BYTES_PER_MS).unwrap_or(i32::MAX);
    answer(member, Deadline::after_ms(INSTALL_MS.saturating_add(more)))?;
    Ok(Sent { lsn, bytes: snapshot.size - from })
}

fn stream(member: &mut Member<'_>, found: &Checkpoint, from: u64) -> Result<()> {
    let (mut offset, mut part, mut out) = (from, vec![0; CHUNK_LEN], Vec::with_capacity(CHUNK_LEN + 64));
    loop {
        let count = found.read_packed_at(&mut part, offset)?;
        if count == 0 {
            return Ok(());
        }
        let bytes = &part[..count];
        out.clear();
        Control::Chunk(offset, crc32(bytes), bytes).encode_into(&mut out)?;
        member.send(&out, Deadline::send())?;
        offset += count as u64;
        // A follower whose disk is full says so before the end.
        if let Some(ack) = take_answer(member)
            && ack.status != ACK_OK
        {
            return Err(refused(member, &ack));
        }
    }
}

fn refused(member: &Member<'_>, ack: &Ack) -> Error {
    crate::log_error!("{member}: the snapshot was refused (status {})", ack.status);
    Error::Refused("the follower could not take the snapshot")
}

fn take_answer(member: &mut Member<'_>) -> Option<Ack> {
    member.link.inbox.take_last(Ack::is_snapshot_answer)
}

/// Waits for the follower's answer; returns its LSN.
fn answer(member: &mut Member<'_>, deadline: Deadline) -> Result<Lsn> {
    loop {
        match take_answer(member) {
            Some(ack) if ack.status == ACK_OK => return Ok(ack.lsn),
            Some(ack) => return Err(refused(member, &ack)),
            None => {}
        }
        member.link.make_room();
        io::wait_readable(member.fd, deadline)?;
        if deadline.has_passed() {
            return Err(Error::TimedOut); // It sends something else all the time.
        }
        if member.drain().is_err() {
            return Err(Error::NotConnected);
        }
    }
}

impl<L: FollowerLog, S: StateMachine> Receiver<'_, L, S> {
    /// Takes a snapshot in, from its offer to its installation, and tells the leader how it went.
    pub(super) fn take_snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        crate::log_info!("a snapshot up to LSN {} comes, {} bytes", snapshot.lsn, snapshot.size);
        let result = self.log.receive_snapshot(snapshot).and_then(|incoming| {
            self.answer(Lsn(incoming.have()), ACK_OK, FLAG_LIVENESS | FLAG_SNAPSHOT)?;
            self.take_parts(incoming)
        });
        if let Err(error) = &result {
            crate::log_error!("the snapshot up to LSN {} was not installed: {error}", snapshot.lsn);
            // The connection may be what failed; then nobody hears it.
            let _ = self.answer(snapshot.lsn, ACK_NOT_STORED, FLAG_LIVENESS | FLAG_SNAPSHOT);
        } else {
            crate::log_info!("the snapshot up to LSN {} is installed", snapshot.lsn);
            self.answer(snapshot.lsn, ACK_OK, FLAG_LIVENESS | FLAG_SNAPSHOT)?;
        }
        result
    }

    fn take_parts(&mut self, mut incoming: Incoming) -> Result<()> {
        loop {
            let body = self.control_frame()?;
            match Control::decode(&body) {
                Some(Control::Chunk(offset, crc, bytes)) if crc32(bytes) == crc => incoming.write(offset, bytes)?,
                Some(Control::Chunk(..)) => return Err(Error::Protocol("a damaged part of a snapshot")),
                Some(Control::Install(history, record)) => return self.install(incoming, history, record),
                _ => return Err(Error::Protocol("a snapshot that breaks off")),
            }
        }
    }

    fn install(&mut self, incoming: Incoming, history: History, record: &[u8]) -> Result<()> {
        let base = Lsn(incoming.snapshot().lsn.0.saturating_sub(1));
        self.log.install(incoming, Origin { base, history }, record, self.store)
    }
}
