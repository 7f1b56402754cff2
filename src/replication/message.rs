//! The messages: acks, rejoin, control.
//!
//! ```text
//! ack, follower to leader, 16 bytes: struct repl_ack as it lies in memory on x86-64
//!   [lsn:8 little-endian][status:1][padding:7]
//!   padding of a logship peer: "LSHP" [version:1 = 1][node:1, 0 = none][flags:1]
//! rejoin, follower to leader, 8 bytes: [last_applied_lsn:8 big-endian]; behind it a marked ack of the same LSN without
//!   flags, if the program has given its node a number
//! hello, follower to leader: the first call that receives and answers by itself sends a marked ack of its last LSN
//!   with flags LIVENESS and FOLLOWS
//! control, leader to follower: [type:1][body][crc:4], integers big-endian, the CRC over type and body
//!   1 POSITION [lsn:8]: the next record frame is this one
//!   2 CHECK [lsn:8][crc:4][history:8]: your record `lsn` must have this CRC, and your log this history up to it;
//!     answered at once by an ack with flags LIVENESS and CHECKED, the LSN where the log ends, and status OK, DIVERGED,
//!     NOT_STORED (the log ends before: begin there) or ELSEWHERE (the log ends before, and the program counts for
//!     itself: the lesson's bytes)
//!   3 SNAPSHOT [lsn:8][history:8][size:8][crc:4]: a checkpoint that covers the log up to `lsn` comes; answered by an
//!     ack with flags LIVENESS and SNAPSHOT whose LSN is how many of its bytes are there already
//!   4 CHUNK [offset:8][crc:4][bytes]: a part of it, in order, the CRC over these bytes
//!   5 INSTALL [history:8][record]: it is whole; record `lsn`, and the history before it; answered by an ack with flags
//!     LIVENESS and SNAPSHOT, status OK or NOT_STORED
//! ```
#![forbid(unsafe_code)]

use super::frame;
use crate::error::{Error, Result};
use crate::types::{History, Lsn};
use crate::wal::crc::crc32;
use crate::wal::snapshot::Snapshot;

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

/// An answer to SNAPSHOT or INSTALL.
pub const FLAG_SNAPSHOT: u8 = 4;

/// The sender receives with a plain program: whoever sees the mark takes it for no logship peer.
pub const FLAG_PLAIN: u8 = 8;

/// The sender stores records and answers for them by itself: positions may be stated to it.
pub const FLAG_FOLLOWS: u8 = 16;

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

    /// Whether it shows that the peer is logship.
    #[must_use]
    pub fn shows_logship(&self) -> bool {
        self.mark().is_some_and(|mark| mark.flags & FLAG_PLAIN == 0)
    }

    /// Whether the peer says that it stores records and answers for them as logship does.
    #[must_use]
    pub fn is_greeting(&self) -> bool {
        self.mark().is_some_and(|mark| mark.flags & FLAG_FOLLOWS != 0)
    }

    /// Whether the peer says that, or shows it with a marked ack for a record.
    #[must_use]
    pub fn shows_follower(&self) -> bool {
        self.is_greeting() || self.mark().is_some_and(|mark| mark.flags & FLAG_LIVENESS == 0)
    }

    /// Whether it is what a peer says of itself alone, about no record and no question: its first words, or what stands
    /// behind its rejoin message, if that said `last`.
    #[must_use]
    pub fn is_hello(&self, last: Option<Lsn>) -> bool {
        let answers = FLAG_CHECKED | FLAG_SNAPSHOT | FLAG_PLAIN;
        // A follower that sent its LSN in host byte order sent the ack right.
        let is_its = last.is_some_and(|last| self.lsn == last || self.lsn.0.swap_bytes() == last.0);
        let is_hello = |mark: Mark| mark.flags & answers == 0 && (is_its || mark.flags & FLAG_LIVENESS != 0);
        self.status == ACK_OK && self.mark().is_some_and(is_hello)
    }

    /// Whether it answers a SNAPSHOT or INSTALL.
    #[must_use]
    pub fn is_snapshot_answer(&self) -> bool {
        self.mark().is_some_and(|mark| mark.flags & FLAG_SNAPSHOT != 0)
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
pub enum Control<'b> {
    /// The next record frame is this record.
    Position(Lsn),
    /// The receiver's record of this LSN must have this CRC, and its log this history.
    Check(Lsn, u32, History),
    /// A checkpoint comes.
    Snapshot(Snapshot),
    /// Bytes of it from this offset on, and their CRC.
    Chunk(u64, u32, &'b [u8]),
    /// It is whole: the last record that it covers, and the history before that.
    Install(History, &'b [u8]),
    /// A type from a later version: passed over.
    Unknown(u8),
}

/// Bytes of a snapshot that one message carries.
pub const CHUNK_LEN: usize = 128 * 1024;

impl Control<'_> {
    /// Its type.
    fn kind(&self) -> u8 {
        match self {
            Control::Position(_) => 1,
            Control::Check(..) => 2,
            Control::Snapshot(_) => 3,
            Control::Chunk(..) => 4,
            Control::Install(..) => 5,
            Control::Unknown(kind) => *kind,
        }
    }

    /// The message with its frame header, behind what `into` holds.
    pub fn encode_into(&self, into: &mut Vec<u8>) -> Result<()> {
        let start = into.len();
        into.extend_from_slice(&[0; frame::HEADER_LEN]);
        into.push(self.kind());
        match self {
            Control::Position(next) => into.extend_from_slice(&next.0.to_be_bytes()),
            Control::Check(lsn, crc, history) => {
                into.extend_from_slice(&lsn.0.to_be_bytes());
                into.extend_from_slice(&crc.to_be_bytes());
                into.extend_from_slice(&history.0.to_be_bytes());
            }
            Control::Snapshot(Snapshot { lsn, history, size, crc }) => {
                for number in [lsn.0, history.0, *size] {
                    into.extend_from_slice(&number.to_be_bytes());
                }
                into.extend_from_slice(&crc.to_be_bytes());
            }
            Control::Chunk(offset, crc, bytes) => {
                into.extend_from_slice(&offset.to_be_bytes());
                into.extend_from_slice(&crc.to_be_bytes());
                into.extend_from_slice(bytes);
            }
            Control::Install(history, record) => {
                into.extend_from_slice(&history.0.to_be_bytes());
                into.extend_from_slice(record);
            }
            Control::Unknown(_) => {}
        }
        // A damaged position would give records wrong numbers, and so would a record frame whose header has become a
        // control message's: it would be passed over.
        let crc = crc32(&into[start + frame::HEADER_LEN..]);
        into.extend_from_slice(&crc.to_be_bytes());
        let len = into.len() - start - frame::HEADER_LEN;
        let header = frame::control_header(len).ok_or(Error::Invalid("no control message is that long"))?;
        into[start..start + frame::HEADER_LEN].copy_from_slice(&header);
        Ok(())
    }

    /// The message with its frame header.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a control message's body. `None`: it came damaged, or is too short for its type.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Control<'_>> {
        let (body, crc) = body.split_last_chunk()?;
        if crc32(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let (kind, mut rest) = body.split_first()?;
        let rest = &mut rest;
        Some(match *kind {
            1 => Control::Position(Lsn(take_u64(rest)?)),
            2 => Control::Check(Lsn(take_u64(rest)?), take_u32(rest)?, History(take_u64(rest)?)),
            3 => {
                let (lsn, history) = (Lsn(take_u64(rest)?), History(take_u64(rest)?));
                Control::Snapshot(Snapshot { lsn, history, size: take_u64(rest)?, crc: take_u32(rest)? })
            }
            4 => Control::Chunk(take_u64(rest)?, take_u32(rest)?, rest),
            5 => Control::Install(History(take_u64(rest)?), rest),
            other => Control::Unknown(other),
        })
    }
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, others) = rest.split_first_chunk::<8>()?;
    *rest = others;
    Some(u64::from_be_bytes(*bytes))
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, others) = rest.split_first_chunk::<4>()?;
    *rest = others;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;
    use crate::wal::record::{self, Record};

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

    fn sealed(body: &[u8]) -> Vec<u8> {
        [body, &crc32(body).to_be_bytes()].concat()
    }

    #[test]
    fn a_control_message_is_read_as_it_was_written_and_never_from_too_few_bytes() {
        let offer = Snapshot { lsn: Lsn(7), history: History(8), size: 9, crc: 10 };
        let chunk = [7; 100];
        let messages = [
            (Control::Position(Lsn(5)), 9),
            (Control::Check(Lsn(5), 0x0102_0304, History(6)), 21),
            (Control::Snapshot(offer), 29),
            (Control::Chunk(3, 4, &chunk), 13),
            (Control::Install(History(3), &chunk), 9),
        ];
        for (message, shortest) in messages {
            let bytes = message.encode().unwrap();
            let (header, body) = bytes.split_at(4);
            assert_eq!(frame::control_header(body.len()).unwrap(), header);
            assert_eq!(Control::decode(body), Some(message));
            for len in 0..shortest {
                assert_eq!(Control::decode(&body[..len]), None);
                assert_eq!(Control::decode(&sealed(&body[..len])), None);
            }
            for bit in 0..8 * body.len() {
                let mut damaged = body.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Control::decode(&damaged), None);
            }
        }
        let position = [b"\x80\0\0\x0d".as_slice(), &sealed(b"\x01\0\0\0\0\0\0\0\x05")].concat();
        assert_eq!(Control::Position(Lsn(5)).encode().unwrap(), position);
        assert_eq!(Control::decode(&sealed(&[200, 1])), Some(Control::Unknown(200)));
        // A record whose header has become a control message's.
        let mut bytes = [0; 64];
        let len = record::encode(&Record::set(b"foo", b"bar", Timestamp(7)), &mut bytes).unwrap();
        assert_eq!(Control::decode(&bytes[..len]), None);
        assert!(Control::Chunk(0, 0, &[0; 2 * CHUNK_LEN]).encode().is_err());
    }

    #[test]
    fn a_rejoin_message_is_big_endian() {
        assert_eq!(encode_rejoin(Lsn(5)), [0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(decode_rejoin([0, 0, 0, 0, 0, 0, 1, 5]), Lsn(0x105));
    }
}
