//! The follower's side: read one frame, store the record, answer.
#![forbid(unsafe_code)]

use super::io::{self, Deadline};
use crate::clock;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::replication::follower::{Follower, Take};
use crate::replication::frame::{self, Header};
use crate::replication::message::{
    self, ACK_CRC_FAIL, ACK_DIVERGED, ACK_NOT_STORED, ACK_OK, Ack, Control, FLAG_CHECKED, FLAG_LIVENESS, Mark,
};
use crate::types::Lsn;
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
        loop {
            let mut word = [0; frame::HEADER_LEN];
            if !io::recv_all(self.fd, &mut word, self.idle)? {
                return Err(Error::NotConnected);
            }
            match frame::header(word)? {
                Header::Heartbeat => {
                    let last = self.log.last()?;
                    self.answer(last, ACK_OK, FLAG_LIVENESS)?;
                }
                Header::Control(len) => {
                    let body = self.body(len)?;
                    self.control(&body)?;
                }
                Header::Record(len) => {
                    let encoded = self.body(len)?;
                    if let Some(lsn) = self.record(&encoded)? {
                        return Ok(lsn);
                    }
                }
            }
        }
    }

    fn body(&self, len: usize) -> Result<Vec<u8>> {
        let mut body = vec![0; len];
        match io::recv_all(self.fd, &mut body, Deadline::recv()) {
            Ok(true) => Ok(body),
            Ok(false) => Err(Error::NotConnected),
            // The header is in: see `recv_all`.
            Err(Error::TimedOut) => Err(Error::Io(std::io::Error::from_raw_os_error(libc::ETIMEDOUT))),
            Err(error) => Err(error),
        }
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
        let same = here == Some(crc);
        let status = if same { ACK_OK } else { ACK_DIVERGED };
        self.answer(last, status, FLAG_LIVENESS | FLAG_CHECKED)?;
        if same {
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
        match self.follower.on_record() {
            Take::Discard => return Ok(None),
            Take::Known => {
                if self.acks == Acks::ByUs {
                    let last = self.log.last()?;
                    self.answer(last, ACK_OK, 0)?;
                }
                return Ok(None);
            }
            Take::Store => {}
        }
        let stored = match record::decode(encoded) {
            Ok(decoded) => self.log.append(encoded).map(|lsn| (lsn, decoded)),
            // A right CRC over fields that make no record is damage too.
            Err(_) => Err(Error::CrcMismatch),
        };
        match stored {
            Ok((lsn, decoded)) => {
                clock::observe(decoded.timestamp);
                self.store.apply(&decoded)?;
                if self.acks == Acks::ByUs {
                    self.answer(lsn, ACK_OK, 0)?;
                }
                Ok(Some(lsn))
            }
            Err(error) => {
                self.follower.on_not_stored();
                if self.acks == Acks::ByUs {
                    let status = if matches!(error, Error::CrcMismatch) { ACK_CRC_FAIL } else { ACK_NOT_STORED };
                    let last = self.log.last()?;
                    self.answer(last.next(), status, 0)?;
                }
                Err(error)
            }
        }
    }
}
