//! The follower's side: read one frame, store the record, answer.
#![forbid(unsafe_code)]

use super::io::{self, Deadline};
use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::replication::follower::{Fingerprint, Follower, Take};
use crate::replication::frame::{self, Header};
use crate::replication::message::{
    self, ACK_CRC_FAIL, ACK_DIVERGED, ACK_NOT_STORED, ACK_OK, Ack, Control, FLAG_CHECKED, FLAG_LIVENESS, Mark,
};
use crate::types::Lsn;
use crate::wal::crc::crc32;
use crate::wal::record;
use std::os::fd::RawFd;

/// Where a follower stores records.
pub trait FollowerLog {
    /// The last LSN.
    fn last(&mut self) -> Result<Lsn>;
    /// The CRC of the record `lsn`; `None` if the log does not have it.
    fn crc(&mut self, lsn: Lsn) -> Result<Option<u32>>;
    /// Appends one encoded record; it is durable when this returns its LSN.
    fn append(&mut self, encoded: &[u8]) -> Result<Lsn>;
    /// The encoded record `lsn`.
    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>>;
    /// The first record that is in the log and not yet in the store, if there is one.
    fn unapplied(&mut self) -> &mut Option<Lsn>;
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

impl<L: FollowerLog, S: StateMachine> Receiver<'_, L, S> {
    /// Receives frames until one record is stored, and applied or skipped by the conflict rule; returns its LSN.
    ///
    /// Waits for a frame's first byte until `idle`, then the receive deadline for the whole frame. Errors:
    /// [`Error::CrcMismatch`]: nothing stored, the stream is still in step; [`Error::NotConnected`]: the leader closed
    /// in order; the log's own error: nothing stored. Any other: the connection is of no use any more.
    pub fn receive(&mut self) -> Result<Lsn> {
        self.apply_pending()?;
        loop {
            let mut word = [0; frame::HEADER_LEN];
            let Some(deadline) = io::recv_first(self.fd, &mut word, self.idle)? else {
                return Err(Error::NotConnected);
            };
            match frame::header(word)? {
                Header::Heartbeat => {
                    let last = self.log.last()?;
                    self.answer(last, ACK_OK, FLAG_LIVENESS)?;
                }
                Header::Control(len) => {
                    let body = self.body(len, deadline)?;
                    self.control(&body)?;
                }
                Header::Record(len) => {
                    let encoded = self.body(len, deadline)?;
                    if let Some(lsn) = self.record(&encoded)? {
                        return Ok(lsn);
                    }
                }
            }
        }
    }

    fn body(&self, len: usize, deadline: Deadline) -> Result<Vec<u8>> {
        let mut body = vec![0; len];
        io::recv_rest(self.fd, &mut body, deadline)?;
        Ok(body)
    }

    fn answer(&self, lsn: Lsn, status: u8, flags: u8) -> Result<()> {
        let ack = Ack::marked(lsn, status, Mark { node: self.node, flags });
        io::send_all(self.fd, &ack.encode(), Deadline::send())
    }

    fn control(&mut self, body: &[u8]) -> Result<()> {
        match message::decode_control(body) {
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
            Some(Control::Check(lsn, crc)) => self.check(lsn, crc),
            Some(Control::Unknown(kind)) => {
                crate::log_info!("a control message of unknown type {kind} is passed over");
                Ok(())
            }
            None => Err(Error::Protocol("a control message too short for its type")),
        }
    }

    /// Compares the record that the leader builds on with the one here.
    fn check(&mut self, lsn: Lsn, crc: u32) -> Result<()> {
        let (last, here) = (self.log.last()?, self.log.crc(lsn)?);
        // A program that counts for itself may have said another LSN than its log's; then only it knows what follows.
        let unknown = here.is_none() && self.acks == Acks::ByCaller;
        let status = match here {
            _ if unknown => ACK_NOT_STORED,
            Some(here) if here == crc => ACK_OK,
            _ => ACK_DIVERGED,
        };
        self.answer(last, status, FLAG_LIVENESS | FLAG_CHECKED)?;
        if status != ACK_DIVERGED {
            return Ok(());
        }
        self.follower.on_diverged();
        crate::log_error!(
            "the leader's record {lsn} has CRC {crc:08x}, this log's has {}: the logs have diverged (last LSN {last})",
            here.map_or("none".to_owned(), |here| format!("{here:08x}"))
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
        let stored = match decoded {
            Some(decoded) => self.log.append(encoded).map(|lsn| (lsn, decoded)),
            // A right CRC over fields that make no record is damage too.
            None => Err(Error::CrcMismatch),
        };
        match stored {
            Ok((lsn, decoded)) => {
                self.follower.on_stored();
                clock::observe(decoded.timestamp);
                if let Err(error) = self.store.apply(&decoded) {
                    // It is in the log and will count as received; so it is applied before anything else.
                    self.log.unapplied().get_or_insert(lsn);
                    return Err(error);
                }
                if answers {
                    self.answer(lsn, ACK_OK, 0)?;
                }
                Ok(Some(lsn))
            }
            Err(error) => {
                self.follower.on_not_stored(fingerprint, answers);
                if answers {
                    let status = if matches!(error, Error::CrcMismatch) { ACK_CRC_FAIL } else { ACK_NOT_STORED };
                    self.answer(last.next(), status, 0)?;
                }
                Err(error)
            }
        }
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
