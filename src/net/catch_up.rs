//! Streaming a range of the log to one follower, in memory that does not depend on the range.
//!
//! Records are read in large pieces, checked, framed and sent in large pieces; acks are drained meanwhile, so two full
//! socket buffers never wait for each other.
#![forbid(unsafe_code)]

use super::group::Member;
use super::io::{self, Deadline, Received};
use super::link::{CaughtUp, Text};
use super::snapshot::{self, Sent};
use crate::error::{Error, Result};
use crate::net::socket;
use crate::replication::message::{ACK_ELSEWHERE, ACK_LEN, ACK_NOT_STORED, ACK_OK, Ack, Control};
use crate::replication::{frame, rejoin};
use crate::storage::Storage;
use crate::types::Lsn;
use crate::wal;
use crate::wal::record;
use crate::wal::scan::{self, End, Position};
use crate::wal::tail::LogTail;
use std::path::Path;

/// How much is sent at once.
const SEND_BYTES: usize = 256 * 1024;

/// What a catch-up did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records shipped.
    pub records: u64,
    /// Bytes shipped, frames included.
    pub bytes: u64,
    /// The leader's last LSN, which the follower has now.
    pub last: Lsn,
    /// The snapshot that went first, if the missing records were gone.
    pub snapshot: Option<Sent>,
}

impl Summary {
    /// What [`Group::ship`](super::group::Group::ship) must know, if anything was sent.
    #[must_use]
    pub fn caught_up(&self) -> Option<CaughtUp> {
        let next = Lsn(self.last.0.saturating_sub(self.records)).next();
        (self.records > 0).then_some(CaughtUp { next, last: self.last })
    }
}

/// A leader's log to catch up from: its bytes, and what is known of them.
#[derive(Debug)]
pub struct Source<'a, S: Storage> {
    /// The log.
    pub storage: &'a S,
    /// Where it ends, and where records lie.
    pub tail: &'a LogTail,
    /// How it ends: damage may be in the range, and more records behind it.
    pub end: End,
    /// The checkpoint for followers whose missing records are gone from the log.
    pub checkpoint: Option<&'a Path>,
}

/// How long a follower has to answer a CHECK. One that does not (it runs in this very thread) still checks for itself
/// before it takes a record.
const CHECK_MS: i32 = 500;

/// The ack that a logship follower sends behind its rejoin message shows that it is one. It is no ack for a record, so
/// it is taken off the connection before a program reads acks from it.
pub fn take_rejoin_mark(member: &mut Member<'_>, follower: Lsn) -> Result<()> {
    let mut bytes = [0; ACK_LEN];
    if io::peek_now(member.fd, &mut bytes)? != Received::Bytes(ACK_LEN) {
        return Ok(());
    }
    let ack = Ack::decode(bytes);
    // A follower that sent its LSN in host byte order sent the ack right.
    let is_its = ack.lsn == follower || ack.lsn.0.swap_bytes() == follower.0;
    if let Some(mark) = ack.mark().filter(|_| is_its && !ack.is_liveness()) {
        io::recv_now(member.fd, &mut bytes)?;
        member.link.progress.on_mark(mark);
        member.link.hear();
    }
    Ok(())
}

/// Ships every record after `follower`, the last LSN that the follower has, to it alone.
///
/// Errors: [`Error::NotConnected`]; [`Error::FollowerAhead`]; [`Error::Diverged`]; [`Error::Damaged`] when the range
/// holds damage: what came before it was shipped.
///
/// What a refused follower has acknowledged counts for nothing: under the same numbers it has other records.
pub fn catch_up<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, follower: Lsn) -> Result<Summary> {
    let result = try_catch_up(member, source, follower);
    let link = &mut *member.link;
    match &result {
        Ok(Summary { snapshot: Some(_), .. }) => {
            link.full_resync =
                Text::new(format_args!("LSN {follower} is gone: the log begins after {}", source.tail.base()));
            link.resyncs.full += 1;
        }
        Ok(_) => link.resyncs.partial += 1,
        Err(Error::FollowerAhead { .. } | Error::Diverged { .. } | Error::Compacted { .. }) => {
            link.resyncs.refused += 1
        }
        Err(_) => {}
    }
    if let Err(Error::Diverged { lsn }) = result
        && member.fd >= 0
    {
        member.go_offline(format_args!("its record {lsn} is not ours"));
    }
    if matches!(result, Err(Error::FollowerAhead { .. } | Error::Diverged { .. })) {
        if member.fd >= 0 {
            member.drain();
        }
        member.link.forget_acks();
    }
    result
}

fn try_catch_up<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, follower: Lsn) -> Result<Summary> {
    if socket::has_hung_up(member.fd) {
        return Err(Error::NotConnected);
    }
    let last = source.tail.last();
    // A log that is being appended to may end in the middle of a record; anything else there is damage.
    let damaged = source.end.damaged && !source.end.cut;
    let damage = Error::Damaged { offset: source.end.next.offset, after: last };
    let after = match rejoin::decide(follower, last) {
        Ok(rejoin::Decision::UpToDate) => last,
        Ok(rejoin::Decision::ShipAfter(after)) => after,
        Err(_) if damaged => return Err(damage),
        Err(error) => return Err(error),
    };
    let mut after = after;
    let mut summary = Summary { last, ..Summary::default() };
    let base = source.tail.base();
    while after >= base && member.link.progress.is_logship {
        match check_history(member, source, after)? {
            Answer::Same => {
                // A rejoin says that everything up to there is durable, and it is ours.
                member.link.progress.ledger.add_through(after);
                member.link.progress.acked = after;
                break;
            }
            Answer::EndsAt(earlier) if earlier < after => after = earlier,
            Answer::EndsAt(_) | Answer::None => break,
            Answer::Elsewhere => {
                member.link.progress.is_logship = false;
                break;
            }
        }
    }
    if after < base {
        let sent = send_snapshot(member, source, after)?;
        (summary.snapshot, after) = (Some(sent), sent.lsn);
        member.link.progress.ledger.add_through(after);
        member.link.progress.acked = after;
    }
    let from = locate(source, after.next())?;
    if member.link.progress.is_logship {
        member.link.progress.next = Some(after.next());
        member.tell(&Control::Position(after.next()))?;
    }
    if after < last {
        stream(member, source, from, &mut summary)?;
    }
    if damaged { Err(damage) } else { Ok(summary) }
}

/// The records that the follower lacks are gone: it gets the checkpoint that stands for them, if there is one and the
/// peer can take it.
fn send_snapshot<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, follower: Lsn) -> Result<Sent> {
    let gone = Error::Compacted { follower, base: source.tail.base() };
    let Some(path) = source.checkpoint else { return Err(gone) };
    if !member.link.progress.is_logship {
        crate::log_error!("{member}: it takes no snapshot: it is no logship peer");
        return Err(gone);
    }
    let sent = snapshot::send(member, source, path).inspect_err(|error| {
        crate::log_error!("{member}: snapshot {}: {error}", path.display());
    })?;
    let Sent { lsn, bytes } = sent;
    crate::log_info!("{member}: snapshot up to LSN {lsn} installed, {bytes} bytes sent: LSN {follower} is gone");
    Ok(sent)
}

/// Where record `lsn` begins, or would.
fn locate<S: Storage>(source: &Source<'_, S>, lsn: Lsn) -> Result<Position> {
    let near = source.tail.near(lsn);
    let found = scan::walk(source.storage, near, |at| at.lsn >= lsn)?;
    found.ok_or(Error::Damaged { offset: near.offset, after: Lsn(near.lsn.0.saturating_sub(1)) })
}

/// What a follower says about the record that it is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It is ours.
    Same,
    /// Its log has no such record: it ends here.
    EndsAt(Lsn),
    /// The same, and the program there counts for itself: it gets the lesson's bytes.
    Elsewhere,
    /// Nothing, in time.
    None,
}

/// Asks the follower whether its record `lsn` is ours. It refuses by itself if not; its answer tells us.
fn check_history<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, lsn: Lsn) -> Result<Answer> {
    if lsn == Lsn::ZERO {
        return Ok(Answer::Same);
    }
    let damage = Error::Damaged { offset: source.tail.near(lsn).offset, after: lsn };
    let (crc, history) = wal::read_past(source.storage, source.tail, lsn)?.ok_or(damage)?;
    member.tell(&Control::Check(lsn, crc, history))?;
    let deadline = Deadline::after_ms(CHECK_MS);
    loop {
        let mut answer = None;
        member.link.inbox.extract(|ack| {
            let is_answer = ack.is_check_answer();
            if is_answer {
                answer = Some(*ack);
            }
            is_answer
        });
        match answer {
            Some(ack) if ack.status == ACK_OK => return Ok(Answer::Same),
            Some(ack) if ack.status == ACK_NOT_STORED => return Ok(Answer::EndsAt(ack.lsn)),
            Some(ack) if ack.status == ACK_ELSEWHERE => return Ok(Answer::Elsewhere),
            Some(ack) => {
                crate::log_error!(
                    "{member}: its log up to LSN {lsn} is not ours (CRC {crc:08x}, history {history}); \
                     it ends at LSN {}, ours at LSN {}",
                    ack.lsn,
                    source.tail.last()
                );
                return Err(Error::Diverged { lsn });
            }
            None => {}
        }
        match io::wait_readable(member.fd, deadline) {
            Ok(()) if member.drain() => {}
            Ok(()) => return Err(Error::NotConnected),
            Err(Error::TimedOut) => {
                crate::log_info!("{member}: no answer about record {lsn}; it checks for itself");
                return Ok(Answer::None);
            }
            Err(error) => return Err(error),
        }
    }
}

fn stream<S: Storage>(
    member: &mut Member<'_>,
    source: &Source<'_, S>,
    from: Position,
    summary: &mut Summary,
) -> Result<()> {
    let mut out = Vec::with_capacity(SEND_BYTES + 2 * record::RECORD_MAX);
    let end = scan::scan(source.storage, from, source.tail.len(), |batch| {
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
            if out.len() >= SEND_BYTES {
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
    if end.last() < summary.last {
        return Err(Error::Damaged { offset: end.next.offset, after: end.last() });
    }
    Ok(())
}
