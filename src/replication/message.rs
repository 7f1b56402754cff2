//! The messages: acks, rejoin, control.
//!
//! ```text
//! ack, follower to leader, 16 bytes: struct repl_ack as it lies in memory on x86-64
//!   [lsn:8 little-endian][status:1][padding:7]
//!   padding of a logship peer: "LSHP" [version:1 = 1][node:1, 0 = none][flags:1]
//! rejoin, follower to leader, 8 bytes: [last_applied_lsn:8 big-endian]; a logship follower's marked ack comes behind
//! control, leader to follower: [type:1][body]
//!   1 POSITION [lsn:8 big-endian]: the next record frame is this one
//!   2 CHECK [lsn:8 big-endian][crc:4 big-endian]: your record `lsn` must have this CRC; answered at once by an ack
//!     with flags LIVENESS and CHECKED, the LSN where the log ends, and status OK, DIVERGED, NOT_STORED (the log ends
//!     before: begin there) or ELSEWHERE (the log ends before, and the program counts for itself: the lesson's bytes)
//! ```
#![forbid(unsafe_code)]

use super::frame;
use crate::types::Lsn;

/// Bytes of an ack.
pub const ACK_LEN: usize = 16;
/// Bytes of a rejoin message.
pub const REJOIN_LEN: usize = 8;

/// Stored and durable.
pub const ACK_OK: u8 = 0;
/// Rejected: the CRC did not match.
pub const ACK_CRC_FAIL: u8 = 1;
/// Not stored: the follower's log failed.
pub const ACK_NOT_STORED: u8 = 2;

/// The record that the leader asked about is another one here: the logs have diverged.
pub const ACK_DIVERGED: u8 = 3;

/// This log does not have the record that the leader asked about: the program here counts for itself.
pub const ACK_ELSEWHERE: u8 = 4;

/// An answer to a heartbeat, which acknowledges nothing.
pub const FLAG_LIVENESS: u8 = 1;

/// An answer to CHECK.
pub const FLAG_CHECKED: u8 = 2;

const MARK: [u8; 4] = *b"LSHP";
const MARK_VERSION: u8 = 1;

/// How a logship peer shows itself, in the padding of an ack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The node's number; 0 if it has none.
    pub node: u8,
    /// `FLAG_*`.
    pub flags: u8,
}

/// One ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The record. From a marked peer, with status OK: everything up to it.
    pub lsn: Lsn,
    /// `ACK_*`; an ack with any other value counts for nothing.
    pub status: u8,
    /// The bytes behind the status, as they came.
    pub padding: [u8; 7],
}

impl Ack {
    /// An ack without a mark, as the lessons' programs send it.
    #[must_use]
    pub fn plain(lsn: Lsn, status: u8) -> Ack {
        Ack { lsn, status, padding: [0; 7] }
    }

    /// An ack of a logship peer.
    #[must_use]
    pub fn marked(lsn: Lsn, status: u8, mark: Mark) -> Ack {
        let [a, b, c, d] = MARK;
        Ack { lsn, status, padding: [a, b, c, d, MARK_VERSION, mark.node, mark.flags] }
    }

    /// The peer's mark, if it is logship.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        match self.padding {
            [a, b, c, d, MARK_VERSION, node, flags] if [a, b, c, d] == MARK => Some(Mark { node, flags }),
            _ => None,
        }
    }

    /// Whether it says only that the peer lives.
    #[must_use]
    pub fn is_liveness(&self) -> bool {
        self.mark().is_some_and(|mark| mark.flags & FLAG_LIVENESS != 0)
    }

    /// Whether it answers a CHECK.
    #[must_use]
    pub fn is_check_answer(&self) -> bool {
        self.mark().is_some_and(|mark| mark.flags & FLAG_CHECKED != 0)
    }

    /// Its bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; ACK_LEN] {
        let mut bytes = [0; ACK_LEN];
        bytes[..8].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[8] = self.status;
        bytes[9..].copy_from_slice(&self.padding);
        bytes
    }

    /// Reads the bytes of one ack.
    #[must_use]
    pub fn decode(bytes: [u8; ACK_LEN]) -> Ack {
        let [l0, l1, l2, l3, l4, l5, l6, l7, status, p0, p1, p2, p3, p4, p5, p6] = bytes;
        Ack {
            lsn: Lsn(u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7])),
            status,
            padding: [p0, p1, p2, p3, p4, p5, p6],
        }
    }
}

/// The bytes of a rejoin message.
#[must_use]
pub fn encode_rejoin(last: Lsn) -> [u8; REJOIN_LEN] {
    last.0.to_be_bytes()
}

/// Reads a rejoin message.
#[must_use]
pub fn decode_rejoin(bytes: [u8; REJOIN_LEN]) -> Lsn {
    Lsn(u64::from_be_bytes(bytes))
}

/// A control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The next record frame is this record.
    Position(Lsn),
    /// The receiver's record of this LSN must have this CRC.
    Check(Lsn, u32),
    /// A type that this version does not know: passed over.
    Unknown(u8),
}

/// Bytes of a POSITION message with its frame header.
pub const POSITION_LEN: usize = frame::HEADER_LEN + 9;
/// Bytes of a CHECK message with its frame header.
pub const CHECK_LEN: usize = frame::HEADER_LEN + 13;
const TYPE_POSITION: u8 = 1;
const TYPE_CHECK: u8 = 2;

/// A POSITION message, framed.
#[must_use]
pub fn encode_position(next: Lsn) -> [u8; POSITION_LEN] {
    let mut bytes = [0; POSITION_LEN];
    bytes[..4].copy_from_slice(&[0x80, 0, 0, 9]);
    bytes[4] = TYPE_POSITION;
    bytes[5..].copy_from_slice(&next.0.to_be_bytes());
    bytes
}

/// A CHECK message, framed.
#[must_use]
pub fn encode_check(lsn: Lsn, crc: u32) -> [u8; CHECK_LEN] {
    let mut bytes = [0; CHECK_LEN];
    bytes[..4].copy_from_slice(&[0x80, 0, 0, 13]);
    bytes[4] = TYPE_CHECK;
    bytes[5..13].copy_from_slice(&lsn.0.to_be_bytes());
    bytes[13..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Reads a control message's body. `None`: it is empty, or too short for its type.
#[must_use]
pub fn decode_control(body: &[u8]) -> Option<Control> {
    let (kind, rest) = body.split_first()?;
    match *kind {
        TYPE_POSITION => Some(Control::Position(Lsn(u64::from_be_bytes(*rest.first_chunk::<8>()?)))),
        TYPE_CHECK => {
            let (lsn, rest) = rest.split_first_chunk::<8>()?;
            let crc = u32::from_be_bytes(*rest.first_chunk::<4>()?);
            Some(Control::Check(Lsn(u64::from_be_bytes(*lsn)), crc))
        }
        other => Some(Control::Unknown(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_is_the_struct_of_the_lesson_byte_for_byte() {
        let bytes = Ack::plain(Lsn(0x0102), 1).encode();
        assert_eq!(bytes, [2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        let marked = Ack::marked(Lsn(7), ACK_OK, Mark { node: 3, flags: FLAG_LIVENESS });
        assert_eq!(&marked.encode()[8..], b"\0LSHP\x01\x03\x01");
        assert_eq!(Ack::decode(marked.encode()), marked);
        assert!(marked.is_liveness());
        assert_eq!(Ack::decode(bytes).mark(), None);
    }

    #[test]
    fn a_position_is_a_control_frame_of_nine_bytes() {
        let bytes = encode_position(Lsn(5));
        assert_eq!(frame::control_header(9).unwrap(), bytes[..4]);
        assert_eq!(decode_control(&bytes[4..]), Some(Control::Position(Lsn(5))));
        assert_eq!(decode_control(&bytes[4..8]), None);
        let check = encode_check(Lsn(5), 0x0102_0304);
        assert_eq!(frame::control_header(13).unwrap(), check[..4]);
        assert_eq!(decode_control(&check[4..]), Some(Control::Check(Lsn(5), 0x0102_0304)));
        assert_eq!(decode_control(&[]), None);
        assert_eq!(decode_control(&[200, 1]), Some(Control::Unknown(200)));
    }

    #[test]
    fn a_rejoin_message_is_big_endian() {
        assert_eq!(encode_rejoin(Lsn(5)), [0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(decode_rejoin([0, 0, 0, 0, 0, 0, 1, 5]), Lsn(0x105));
    }
}
