//! The follower's side: read one frame, store the record, answer.
#![forbid(unsafe_code)]

use super::io::{self, Deadline, Received};
use super::socket;
use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::replication::follower::{Fingerprint, Follower, Take};
use crate::replication::frame::{self, Header};
use crate::replication::message::{
    ACK_CRC_FAIL, ACK_DIVERGED, ACK_ELSEWHERE, ACK_NOT_STORED, ACK_OK, Ack, Control, FLAG_CHECKED, FLAG_LIVENESS, Mark,
};
use crate::types::{History, Lsn};
use crate::wal::crc::crc32;
use crate::wal::meta::Origin;
use crate::wal::record;
use crate::wal::snapshot::{Incoming, Snapshot};
use nix::errno::Errno;
use std::os::fd::RawFd;

/// Where a follower stores records.
pub trait FollowerLog {
    /// The last LSN.
    fn last(&mut self) -> Result<Lsn>;
    /// The CRC of the record `lsn` and the log's history up to it; `None` if the log does not have it.
    fn past(&mut self, lsn: Lsn) -> Result<Option<(u32, History)>>;
    /// Appends encoded records with one fsync; `ends` are their ends within `encoded`. All are durable when this
    /// returns the last one's LSN, or none is there.
    fn append(&mut self, encoded: &[u8], ends: &[usize]) -> Result<Lsn>;
    /// The encoded record `lsn`.
    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>>;
    /// The first record that is in the log and not yet in the store, if there is one.
    fn unapplied(&mut self) -> &mut Option<Lsn>;
    /// How many records at the log's end no call has returned yet: they were stored together with one that has been.
    fn ready(&self) -> u64;
    /// Changes that number. `applied`: they are in the store already.
    fn set_ready(&mut self, count: u64, applied: bool);
    /// What was said of them.
    fn ready_are_applied(&self) -> bool;
    /// Whether that number can be kept.
    fn can_group(&self) -> bool {
        true
    }
    /// Makes ready to take a snapshot in.
    fn receive_snapshot(&mut self, _snapshot: &Snapshot) -> Result<Incoming> {
        Err(Error::Invalid("this log takes no snapshot"))
    }
    /// Makes the store what the snapshot says, and the log one that begins at `origin` with `record`.
    fn install(
        &mut self,
        _incoming: Incoming,
        _origin: Origin,
        _record: &[u8],
        _store: &mut impl StateMachine,
    ) -> Result<()> {
        Err(Error::Invalid("this log takes no snapshot"))
    }
}

/// Who answers for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// The caller, as lesson w11-l03 says.
    ByCaller,
    /// This module, cumulative and marked.
    ByUs,
}

/// One end of a connection, for the time of one call.
pub struct Receiver<'a, L: FollowerLog, S: StateMachine> {
    /// The socket.
    pub fd: RawFd,
    /// What was said on this connection before.
    pub follower: &'a mut Follower,
    /// The log.
    pub log: &'a mut L,
    /// The store.
    pub store: &'a mut S,
    /// This node's number, 0 if none.
    pub node: u8,
    /// Who answers for records.
    pub acks: Acks,
    /// How long to wait for a frame's first byte.
    pub idle: Deadline,
}

/// How much is stored with one fsync.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Records that are stored together.
struct Gathered {
    /// All of them, one behind another.
    encoded: Vec<u8>,
    /// Their ends.
    ends: Vec<usize>,
    /// Bytes that they take on the connection behind the first one.
    behind: usize,
}

impl<L: FollowerLog, S: StateMachine> Receiver<'_, L, S> {
    /// Receives frames until one record is stored, and applied or skipped by the conflict rule; returns its LSN.
    ///
    /// Waits for a frame's first byte until `idle`, then the receive deadline for the whole frame. Errors:
    /// [`Error::CrcMismatch`]: nothing stored, the stream is still in step; [`Error::NotConnected`]: the leader closed
    /// in order; the log's own error: nothing stored. Any other: the connection is of no use any more.
    pub fn receive(&mut self) -> Result<Lsn> {
        loop {
            if let Some(lsn) = self.receive_frame()? {
                return Ok(lsn);
            }
        }
    }

    /// As [`receive`](Receiver::receive), but returns `None` after a frame that gave no record.
    ///
    /// A stream that is out of step is shut down: the leader hears of it at once, and nobody rejoins on what looks like
    /// a live connection and would read on in the middle of something.
    pub fn receive_frame(&mut self) -> Result<Option<Lsn>> {
        let result = self.next_frame();
        let timed_out = |error: &Error| error.errno() == Errno::ETIMEDOUT as i32 && !matches!(error, Error::TimedOut);
        if result.as_ref().is_err_and(|error| matches!(error, Error::Protocol(_)) || timed_out(error)) {
            socket::shut_down(self.fd);
        }
        result
    }

    fn next_frame(&mut self) -> Result<Option<Lsn>> {
        self.apply_pending()?;
        if self.log.ready() > 0 {
            return self.hand_out().map(Some);
        }
        let mut word = [0; frame::HEADER_LEN];
        let Some(deadline) = io::recv_first(self.fd, &mut word, self.idle)? else {
            return Err(Error::NotConnected);
        };
        match frame::header(word)? {
            Header::Heartbeat => {
                let last = self.log.last()?;
                self.answer(last, ACK_OK, FLAG_LIVENESS)?;
                Ok(None)
            }
            Header::Control(len) => {
                let body = self.body(len, deadline)?;
                self.control(&body)?;
                Ok(None)
            }
            Header::Record(len) => {
                let encoded = self.body(len, deadline)?;
                self.record(&encoded)
            }
        }
    }

    fn body(&self, len: usize, deadline: Deadline) -> Result<Vec<u8>> {
        let mut body = vec![0; len];
        io::recv_rest(self.fd, &mut body, deadline)?;
        Ok(body)
    }

    /// The next control message's body, as a part of what is being received; heartbeats are answered meanwhile.
    pub(super) fn control_frame(&mut self) -> Result<Vec<u8>> {
        loop {
            let mut word = [0; frame::HEADER_LEN];
            let deadline = io::recv_first(self.fd, &mut word, Deadline::recv())?.ok_or(Error::NotConnected)?;
            match frame::header(word)? {
                Header::Control(len) => return self.body(len, deadline),
                Header::Heartbeat => self.answer(Lsn::ZERO, ACK_OK, FLAG_LIVENESS)?,
                Header::Record(_) => return Err(Error::Protocol("a record inside a snapshot")),
            }
        }
    }

    pub(super) fn answer(&self, lsn: Lsn, status: u8, flags: u8) -> Result<()> {
        let ack = Ack::marked(lsn, status, Mark { node: self.node, flags });
        // A part of an ack may be out.
        io::send_all(self.fd, &ack.encode(), Deadline::send()).inspect_err(|_| socket::shut_down(self.fd))
    }

    fn control(&mut self, body: &[u8]) -> Result<()> {
        match Control::decode(body) {
            Some(Control::Position(next)) => {
                let last = self.log.last()?;
                if !self.follower.on_position(next, last) {
                    crate::log_warn!(
                        "the leader goes on at LSN {next}, this log ends at LSN {last}: records are missing"
                    );
                    self.answer(last.next(), ACK_NOT_STORED, 0)?;
                }
                Ok(())
            }
            Some(Control::Check(lsn, crc, history)) => self.check(lsn, crc, history),
            Some(Control::Snapshot(snapshot)) => self.take_snapshot(&snapshot),
            // What was on its way when a snapshot failed.
            Some(Control::Chunk(..) | Control::Install(..)) => Ok(()),
            Some(Control::Unknown(kind)) => {
                crate::log_info!("a control message of unknown type {kind} is passed over");
                Ok(())
            }
            None => Err(Error::Protocol("a control message that came damaged or is too short for its type")),
        }
    }

    /// Compares the record that the leader builds on with the one here.
    fn check(&mut self, lsn: Lsn, crc: u32, history: History) -> Result<()> {
        let (last, here) = (self.log.last()?, self.log.past(lsn)?);
        let status = match here {
            // The cfg is a canary build's mistake, which a test must notice (make canaries).
            Some((_, here)) if here == history || cfg!(logship_canary_no_check) => ACK_OK,
            Some(_) => ACK_DIVERGED,
            None if self.acks == Acks::ByUs => ACK_NOT_STORED,
            // A program that counts for itself may have said another LSN than its log's; only it knows what follows.
            None => ACK_ELSEWHERE,
        };
        self.answer(last, status, FLAG_LIVENESS | FLAG_CHECKED)?;
        match status {
            ACK_NOT_STORED => self.follower.on_end_told(),
            ACK_ELSEWHERE => self.follower.on_elsewhere(),
            _ => {}
        }
        if status != ACK_DIVERGED {
            return Ok(());
        }
        self.follower.on_diverged();
        let (own_crc, own_history) = here.unwrap_or_default();
        crate::log_error!(
            "the logs have diverged: the leader's record {lsn} has CRC {crc:08x} and history {history}, \
             this log's {own_crc:08x} and {own_history} (last LSN {last})"
        );
        Err(Error::Diverged { lsn })
    }

    /// `Ok(None)`: passed over, go on with the next frame.
    fn record(&mut self, encoded: &[u8]) -> Result<Option<Lsn>> {
        let decoded = record::decode(encoded).ok();
        let field = record::stored_crc(encoded).unwrap_or(0);
        let rest = if decoded.is_some() { field } else { crc32(encoded.get(4..).unwrap_or_default()) };
        let fingerprint = Fingerprint { len: encoded.len(), field, rest };
        let answers = self.acks == Acks::ByUs;
        let last = self.log.last()?;
        match self.follower.on_record(&fingerprint) {
            Take::Discard => return Ok(None),
            Take::Refuse => {
                self.answer(last.next(), ACK_NOT_STORED, 0)?;
                return Ok(None);
            }
            Take::Known if answers => {
                self.answer(last, ACK_OK, 0)?;
                return Ok(None);
            }
            // A program that counts what it received counts this one too.
            Take::Known => return Ok(Some(last)),
            Take::Store => {}
        }
        if decoded.is_none() {
            // A right CRC over fields that make no record is damage too.
            return Err(self.reject(fingerprint, last, Error::CrcMismatch));
        }
        let group = self.gather(encoded)?;
        let first = last.next();
        if answers && cfg!(logship_canary_ack_first) {
            // A canary build's mistake, as in `check`.
            self.answer(first.plus(group.ends.len() as u64 - 1), ACK_OK, 0)?;
        }
        let stored = match self.log.append(&group.encoded, &group.ends) {
            // What does not fit together may fit alone; the others are still on the connection.
            Err(_) if group.ends.len() > 1 => self.log.append(encoded, &[encoded.len()]).map(|_| 1),
            Err(error) => Err(error),
            Ok(_) => {
                io::discard(self.fd, group.behind)?;
                Ok(group.ends.len())
            }
        };
        match stored {
            Ok(count) => self.stored(&group.encoded, &group.ends[..count], first),
            Err(error) => Err(self.reject(fingerprint, last, error)),
        }
    }

    /// Notes that a record was not stored and says so to the leader; returns why.
    fn reject(&mut self, record: Fingerprint, last: Lsn, error: Error) -> Error {
        let answers = self.acks == Acks::ByUs;
        self.follower.on_not_stored(record, answers);
        if answers {
            let status = if matches!(error, Error::CrcMismatch) { ACK_CRC_FAIL } else { ACK_NOT_STORED };
            if let Err(lost) = self.answer(last.next(), status, 0) {
                return lost;
            }
        }
        error
    }

    /// Records have been stored: applies them, acknowledges, and hands the first out.
    ///
    /// A program that answers for itself gets each applied when it is handed out, so that its store is never ahead of
    /// what it has received.
    fn stored(&mut self, encoded: &[u8], ends: &[usize], first: Lsn) -> Result<Option<Lsn>> {
        self.follower.on_stored();
        let answers = self.acks == Acks::ByUs;
        let applied = if answers { ends } else { &ends[..1] };
        self.log.set_ready(ends.len() as u64 - 1, answers);
        if let Err(error) = self.apply(encoded, applied) {
            // They are in the log and will count as received; so they are applied before anything else.
            self.log.unapplied().get_or_insert(first);
            return Err(error);
        }
        if answers && !cfg!(logship_canary_ack_first) {
            self.answer(first.plus(ends.len() as u64 - 1), ACK_OK, 0)?;
        }
        Ok(Some(first))
    }

    fn apply(&mut self, encoded: &[u8], ends: &[usize]) -> Result<()> {
        let mut start = 0;
        for chunk in ends.chunks(64) {
            let mut records = Vec::with_capacity(chunk.len());
            for end in chunk {
                let decoded = record::decode_again(&encoded[start..*end])?;
                clock::observe(decoded.timestamp);
                records.push(decoded);
                start = *end;
            }
            self.store.apply_all(&records)?;
        }
        Ok(())
    }

    /// Hands out the next record that an earlier call stored.
    fn hand_out(&mut self) -> Result<Lsn> {
        let last = self.log.last()?;
        let ready = self.log.ready();
        let lsn = Lsn(last.0 - ready).next();
        let applied = self.log.ready_are_applied();
        if !applied {
            let encoded = self.log.read(lsn)?;
            self.store.apply(&record::decode(&encoded)?)?;
        }
        self.log.set_ready(ready - 1, applied);
        Ok(lsn)
    }

    /// Looks at what has arrived behind a record that is about to be stored: whole, undamaged records that come next.
    /// Nothing is taken off the connection. Before a leader that states no positions records are taken one by one: it
    /// counts acks, one a record, and a program that answers for itself may stop after any and count what is in its
    /// log.
    fn gather(&mut self, first: &[u8]) -> Result<Gathered> {
        let mut gathered = Gathered { encoded: first.to_vec(), ends: vec![first.len()], behind: 0 };
        if !self.log.can_group() || !self.follower.is_positioned() {
            return Ok(gathered);
        }
        let available = io::readable_bytes(self.fd).min(GROUP_BYTES);
        if available <= frame::HEADER_LEN {
            return Ok(gathered);
        }
        let Gathered { encoded, ends, behind } = &mut gathered;
        encoded.resize(first.len() + available, 0);
        let count = match io::peek_now(self.fd, &mut encoded[first.len()..])? {
            Received::Bytes(count) => count,
            Received::Nothing | Received::Closed => 0,
        };
        encoded.truncate(first.len() + count);
        // Each record moves to the end of those before it: the frame headers between them go.
        let mut end = first.len();
        while let Some(len) = self.next_in(&encoded[first.len() + *behind..]) {
            let start = first.len() + *behind + frame::HEADER_LEN;
            encoded.copy_within(start..start + len, end);
            end += len;
            ends.push(end);
            *behind += frame::HEADER_LEN + len;
        }
        encoded.truncate(end);
        Ok(gathered)
    }

    /// The length of the record whose frame `bytes` begin with, if it is whole and would be stored.
    fn next_in(&self, bytes: &[u8]) -> Option<usize> {
        let (word, rest) = bytes.split_first_chunk()?;
        let Ok(Header::Record(len)) = frame::header(*word) else { return None };
        let encoded = rest.get(..len)?;
        record::decode(encoded).ok()?;
        self.follower.takes_more().then_some(len)
    }

    /// Applies records that an earlier call stored and could not apply (the store's lock was held, memory was out).
    fn apply_pending(&mut self) -> Result<()> {
        let last = self.log.last()?;
        while let Some(lsn) = *self.log.unapplied() {
            let encoded = self.log.read(lsn)?;
            self.store.apply(&record::decode(&encoded)?)?;
            *self.log.unapplied() = Some(lsn.next()).filter(|next| *next <= last);
            if self.log.unapplied().is_none() && self.acks == Acks::ByUs {
                self.answer(last, ACK_OK, 0)?;
            }
        }
        Ok(())
    }
}
