//! The follower's side: read one frame, store the record, answer.
#![forbid(unsafe_code)]

use super::io::{self, Deadline};
use super::socket;
use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::replication::follower::{Fingerprint, Follower, Take};
use crate::replication::frame::{self, Header};
use crate::replication::message::{
    ACK_CRC_FAIL, ACK_DIVERGED, ACK_ELSEWHERE, ACK_NOT_STORED, ACK_OK, Ack, Control, FLAG_CHECKED, FLAG_FOLLOWS,
    FLAG_LIVENESS, FLAG_PLAIN, Mark,
};
use crate::types::{History, Lsn};
use crate::wal::checkpoint::Covered;
use crate::wal::crc::crc32;
use crate::wal::origin::Origin;
use crate::wal::snapshot::{Incoming, Snapshot};
use crate::wal::{codec, record};
use nix::errno::Errno;
use std::os::fd::RawFd;

/// Where a follower stores records.
pub trait FollowerLog {
    /// The last LSN.
    fn last(&mut self) -> Result<Lsn>;
    /// Everything that the log has.
    fn covered(&mut self) -> Result<Covered>;
    /// The CRC of the record `lsn` and the log's history up to it; `None` if the log does not have it.
    fn past(&mut self, lsn: Lsn) -> Result<Option<(u32, History)>>;
    /// Writes encoded records behind `ahead` bytes that were written so. They are no part of the log until `append`,
    /// which must be the next call but for more of these. On failure only these are not there.
    fn write_ahead(&mut self, ahead: usize, encoded: &[u8]) -> Result<()>;
    /// Appends encoded records with one fsync; `ends` are their ends within `encoded`, whose first `ahead` bytes were
    /// written ahead. All are durable when this returns the last one's LSN, or none is there.
    fn append(&mut self, ahead: usize, encoded: &[u8], ends: &[usize]) -> Result<Lsn>;
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
    /// The caller, as lesson w11-l03 says. A heartbeat's answer says that this is a plain peer.
    ByCaller,
    /// The caller of a program that has given its node a number: a logship peer.
    ByLogshipCaller,
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

/// How much is stored with one fsync, about.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// How much of it is taken off the connection at once: so little that it is still in a cache when it goes to the file.
const PIECE: usize = 256 * 1024;

/// Records that are stored together.
struct Gathered {
    /// All of them, one behind another.
    encoded: Vec<u8>,
    /// Their ends.
    ends: Vec<usize>,
    /// How much of them is written ahead: all or nothing.
    ahead: usize,
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
                let plain = if self.acks == Acks::ByCaller { FLAG_PLAIN } else { 0 };
                self.answer(last, ACK_OK, FLAG_LIVENESS | plain)?;
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

    /// Shows the leader what this end is, if it has not hung up: an answer then would cost what it has sent.
    pub fn greet(&mut self) -> Result<()> {
        let last = self.log.last()?;
        if socket::has_hung_up(self.fd) {
            return Ok(());
        }
        self.answer(last, ACK_OK, FLAG_LIVENESS | FLAG_FOLLOWS)
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
        let decoded = codec::decode(encoded).ok();
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
        if decoded.is_some_and(|record| !clock::admits(record.timestamp)) {
            return Err(self.reject(fingerprint, last, crate::wal::BEYOND_THE_CLOCK));
        }
        let before = self.log.covered()?;
        let group = self.gather(encoded);
        let first = last.next();
        if answers && cfg!(logship_canary_ack_first) {
            // A canary build's mistake, as in `check`.
            self.answer(first.plus(group.ends.len() as u64 - 1), ACK_OK, 0)?;
        }
        match self.log.append(group.ahead, &group.encoded, &group.ends) {
            Ok(_) => self.stored(&group.encoded, &group.ends, before),
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
    fn stored(&mut self, encoded: &[u8], ends: &[usize], before: Covered) -> Result<Option<Lsn>> {
        self.follower.on_stored();
        let first = before.lsn.next();
        let answers = self.acks == Acks::ByUs;
        let applied = if answers { ends } else { &ends[..1] };
        self.log.set_ready(ends.len() as u64 - 1, answers);
        if let Err(error) = self.apply(encoded, applied) {
            // They are in the log and will count as received; so they are applied before anything else.
            self.log.unapplied().get_or_insert(first);
            return Err(error);
        }
        // A store that lacks what the log had before stays one that does.
        if self.store.given().is_some_and(|given| given.is_same_past(&before)) {
            let one = before.then(&encoded[..ends[0]]);
            let given = if applied.len() == ends.len() { self.log.covered()? } else { one };
            self.store.note_given(given);
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
                let decoded = codec::decode_again(&encoded[start..*end])?;
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
            self.apply_from_log(lsn)?;
        }
        self.log.set_ready(ready - 1, applied);
        Ok(lsn)
    }

    /// Applies a record that is in the log and not yet in the store.
    fn apply_from_log(&mut self, lsn: Lsn) -> Result<()> {
        let encoded = self.log.read(lsn)?;
        self.store.apply(&codec::decode(&encoded)?)?;
        if let Some(given) = self.store.given().filter(|given| given.lsn.next() == lsn) {
            self.store.note_given(given.then(&encoded));
        }
        Ok(())
    }

    /// Takes what has arrived behind a record that is about to be stored: whole, undamaged records that come next. They
    /// are written ahead piece by piece, so that the disk is at work while the next piece comes; nothing is waited for.
    /// Records that can't be written stay on the connection, and the first may fit alone. Before a leader that states
    /// no positions records are taken one by one: it counts acks, one a record, and a program that answers for itself
    /// may stop after any and count what is in its log.
    fn gather(&mut self, first: &[u8]) -> Gathered {
        let mut group = Gathered { encoded: first.to_vec(), ends: vec![first.len()], ahead: 0 };
        let mut is_more = self.log.can_group() && self.follower.is_positioned();
        while is_more && group.encoded.len() < GROUP_BYTES {
            let arrived = io::readable_bytes(self.fd);
            is_more = arrived > PIECE;
            let (end, count) = (group.encoded.len(), group.ends.len());
            let taken = self.peek(&mut group, arrived.min(PIECE));
            if taken == 0 {
                break;
            }
            if self.log.write_ahead(group.ahead, &group.encoded[group.ahead..]).is_err() {
                group.encoded.truncate(end);
                group.ends.truncate(count);
                break;
            }
            group.ahead = group.encoded.len();
            if io::discard(self.fd, taken).is_err() {
                // They were seen there, so this can't be. But they would come again, under other numbers.
                self.follower.on_diverged();
                socket::shut_down(self.fd);
                break;
            }
        }
        group
    }

    /// Looks at up to `len` bytes on the connection, and adds the records in them to those gathered. Returns how many
    /// bytes they take on the connection, where they stay.
    fn peek(&self, group: &mut Gathered, len: usize) -> usize {
        let Gathered { encoded, ends, .. } = group;
        let (begin, mut end, mut taken) = (encoded.len(), encoded.len(), 0);
        if len <= frame::HEADER_LEN || io::peek_behind(self.fd, encoded, len).is_err() {
            return 0;
        }
        // Each record moves to the end of those before it: the frame headers between them go.
        while let Some(len) = self.next_in(&encoded[begin + taken..]) {
            let start = begin + taken + frame::HEADER_LEN;
            encoded.copy_within(start..start + len, end);
            end += len;
            ends.push(end);
            taken += frame::HEADER_LEN + len;
        }
        encoded.truncate(end);
        taken
    }

    /// The length of the record whose frame `bytes` begin with, if it is whole and would be stored.
    fn next_in(&self, bytes: &[u8]) -> Option<usize> {
        let (word, rest) = bytes.split_first_chunk()?;
        let Ok(Header::Record(len)) = frame::header(*word) else { return None };
        let encoded = rest.get(..len)?;
        let is_taken = clock::admits(codec::decode(encoded).ok()?.timestamp);
        (is_taken && self.follower.takes_more()).then_some(len)
    }

    /// Applies records that an earlier call stored and could not apply (the store's lock was held, memory was out).
    fn apply_pending(&mut self) -> Result<()> {
        let last = self.log.last()?;
        while let Some(lsn) = *self.log.unapplied() {
            self.apply_from_log(lsn)?;
            *self.log.unapplied() = Some(lsn.next()).filter(|next| *next <= last);
            if self.log.unapplied().is_none() && self.acks == Acks::ByUs {
                self.answer(last, ACK_OK, 0)?;
            }
        }
        Ok(())
    }
}
