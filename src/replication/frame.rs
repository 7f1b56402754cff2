//! Framing, leader to follower: a 4-byte big-endian word, then that many bytes.
//!
//! ```text
//! 0                       a heartbeat; nothing follows
//! 1 ..= 131,091           an encoded record of that length
//! 0x8000_0000 | n         a control message of n bytes (1 ..= 131,155), sent only to a peer known to be logship
//! anything else           a protocol error, seen before a byte is allocated
//! ```
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::wal::record::RECORD_MAX;

/// Bytes of the word in front of every frame.
pub const HEADER_LEN: usize = 4;
/// The largest control message: it may carry a record.
pub const CONTROL_MAX: usize = RECORD_MAX + 64;
/// A heartbeat on the wire.
pub const HEARTBEAT: [u8; HEADER_LEN] = [0; HEADER_LEN];
const CONTROL_BIT: u32 = 1 << 31;

/// What a frame's header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// "Are you there?"
    Heartbeat,
    /// A record of this many bytes.
    Record(usize),
    /// A control message of this many bytes.
    Control(usize),
}

/// Reads a header. No length is believed beyond what a record or control message can have.
pub fn header(word: [u8; HEADER_LEN]) -> Result<Header> {
    let word = u32::from_be_bytes(word);
    let len = usize::try_from(word & !CONTROL_BIT).map_err(|_| Error::Protocol("frame too long"))?;
    match (word & CONTROL_BIT != 0, len) {
        (false, 0) => Ok(Header::Heartbeat),
        (false, len) if len <= RECORD_MAX => Ok(Header::Record(len)),
        (true, len) if (1..=CONTROL_MAX).contains(&len) => Ok(Header::Control(len)),
        (false, _) => Err(Error::Protocol("a frame longer than the largest record")),
        (true, _) => Err(Error::Protocol("a control message of impossible length")),
    }
}

/// The header of a record frame. `None`: no record is that long.
#[must_use]
pub fn record_header(len: usize) -> Option<[u8; HEADER_LEN]> {
    match u32::try_from(len) {
        Ok(word) if (1..=RECORD_MAX).contains(&len) => Some(word.to_be_bytes()),
        _ => None,
    }
}

/// The header of a control message. `None`: none is that long.
#[must_use]
pub fn control_header(len: usize) -> Option<[u8; HEADER_LEN]> {
    match u32::try_from(len) {
        Ok(word) if (1..=CONTROL_MAX).contains(&len) => Some((word | CONTROL_BIT).to_be_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_what_the_table_says() {
        assert_eq!(header([0; 4]).unwrap(), Header::Heartbeat);
        assert_eq!(header([0, 0, 0, 27]).unwrap(), Header::Record(27));
        assert_eq!(header([0, 2, 0, 0x13]).unwrap(), Header::Record(131_091));
        assert!(matches!(header([0, 2, 0, 0x14]), Err(Error::Protocol(_))));
        assert_eq!(header([0x80, 0, 0, 9]).unwrap(), Header::Control(9));
        assert!(matches!(header([0x80, 0, 0, 0]), Err(Error::Protocol(_))));
        assert!(matches!(header([0xff; 4]), Err(Error::Protocol(_))));
        assert_eq!(record_header(27), Some([0, 0, 0, 27]));
        assert_eq!(record_header(0), None);
        assert_eq!(record_header(RECORD_MAX + 1), None);
        assert_eq!(control_header(9), Some([0x80, 0, 0, 9]));
        assert_eq!(control_header(CONTROL_MAX + 1), None);
    }
}
