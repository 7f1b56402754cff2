//! Where a log begins. One whose first records were dropped says so itself, in a marker in front of its records:
//!
//! ```text
//! "LSWB" [0:4]              to a lesson's reader a record of length 0, which none is: it stops
//! [version:4] [crc32:4]     of everything behind it
//! [base:8] [history:8]      the LSN before the first record, and the history up to it
//! [0:8]                     room for an epoch
//! ```
//! All integers are little-endian. A log that was never compacted has no marker: its bytes are the lesson's.
#![forbid(unsafe_code)]

use super::crc::crc32;
use super::scan::Position;
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::types::{History, Lsn};

const MAGIC: &[u8; 4] = b"LSWB";
const VERSION: u32 = 1;
/// Bytes of the marker.
pub const MARKER_LEN: usize = 40;

/// Where a log begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The LSN before its first record.
    pub base: Lsn,
    /// The history of the records up to there.
    pub history: History,
}

impl Origin {
    /// Where the first record stands, or would.
    #[must_use]
    pub fn first(&self) -> Position {
        let offset = if self.base == Lsn::ZERO { 0 } else { MARKER_LEN as u64 };
        Position { offset, lsn: self.base.next() }
    }

    /// What stands before the first record: nothing, or a marker.
    #[must_use]
    pub fn marker(&self) -> Vec<u8> {
        if self.base == Lsn::ZERO {
            return Vec::new();
        }
        let mut content = Vec::with_capacity(MARKER_LEN);
        for number in [self.base.0, self.history.0, 0] {
            content.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32(&content).to_le_bytes();
        [MAGIC, &[0; 4], &VERSION.to_le_bytes(), &crc, content.as_slice()].concat()
    }
}

/// Where the log in `storage` begins. [`Error::Malformed`]: its marker is damaged.
pub fn of(storage: &impl Storage) -> Result<Origin> {
    let mut bytes = [0; MARKER_LEN];
    let count = storage.read_at(&mut bytes, 0)?;
    if !bytes[..count].starts_with(MAGIC) {
        return Ok(Origin::default());
    }
    let number = |at: usize| u64::from_le_bytes(bytes[at..].first_chunk().copied().unwrap_or_default());
    let origin = Origin { base: Lsn(number(16)), history: History(number(24)) };
    if count < MARKER_LEN || origin.base == Lsn::ZERO || origin.marker() != bytes {
        return Err(Error::Malformed("the marker in front of a compacted log's records is damaged"));
    }
    Ok(origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn read(bytes: &[u8]) -> Result<Origin> {
        of(&MemoryStorage { bytes: bytes.to_vec(), ..MemoryStorage::default() })
    }

    #[test]
    fn a_marker_is_read_as_it_was_written_and_a_flipped_bit_or_a_cut_is_noticed() {
        let origin = Origin { base: Lsn(7), history: History(0x1234_5678_9ABC) };
        let marker = origin.marker();
        assert_eq!(marker.len(), MARKER_LEN);
        assert_eq!(read(&marker).unwrap(), origin);
        for bit in 0..MARKER_LEN * 8 {
            let mut damaged = marker.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let found = read(&damaged);
            // Without its first four bytes it is no marker; and no record either, which opening the log finds.
            if bit < 32 {
                assert_eq!(found.unwrap(), Origin::default(), "bit {bit}");
            } else {
                assert!(found.is_err(), "bit {bit}");
            }
        }
        for len in 4..MARKER_LEN {
            assert!(read(&marker[..len]).is_err(), "cut to {len}");
        }
        assert_eq!(read(b"").unwrap(), Origin::default());
    }
}
