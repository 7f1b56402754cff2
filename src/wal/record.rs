//! The record codec: one write as bytes, and back. Pure: no I/O, no allocation, no copy on the way back.
//!
//! The bytes of a record, all numbers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32 over everything that follows these 4 bytes |
//! | 4 | 4 | length: how many bytes follow this field |
//! | 8 | 1 | op: 1 SET, 2 DEL |
//! | 9 | 2 | key_len: 1 to 65,535 |
//! | 11 | key_len | key |
//! | 11 + key_len | 2 | value_len: 0 to 65,535, 0 for a DEL |
//! | 13 + key_len | value_len | value |
//! | 13 + key_len + value_len | 8 | timestamp, or nothing in a log of W10 |
//!
//! The timestamp stands last so that the offsets of W10 hold, and because it may be missing: `length` tells which
//! it is, as key_len and value_len say where the value ends. Every record that this file writes has it.
//!
//! SET foo=bar is 27 bytes, 19 of them in a log of W10.
//!
//! The CRC covers `length` too: a flipped bit there is damage like any other. But `length` has to be believed before
//! the CRC can be checked, so a reader bounds it first ([`frame_len`]) and never allocates by it.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::types::Timestamp;
use crate::wal::crc::crc32;

/// The largest encoded record: a key and a value of 65,535 bytes each.
pub const RECORD_MAX: usize = 131_091;
/// The smallest: a one-byte key, no value, no time stamp (a W10 DEL).
pub const RECORD_MIN: usize = 14;

/// Bytes of the CRC and of the length, which `length` does not count.
pub(super) const PREFIX: usize = 8;
/// Bytes of a record beside its key and value, with the time stamp.
const OVERHEAD: usize = 21;

/// What a record does. Zeroed bytes are never a record: the values start at 1.
///
/// COMPAT: the lesson's bare enum would start at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Set a key to a value.
    Set = 1,
    /// Delete a key.
    Del = 2,
}

impl Op {
    /// The operation that this byte stands for in an encoded record, if any.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Op> {
        match byte {
            1 => Some(Op::Set),
            2 => Some(Op::Del),
            _ => None,
        }
    }

    /// The byte that stands for this operation in an encoded record.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// One write, borrowed from wherever its bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it does.
    pub op: Op,
    /// The key, 1 to 65,535 bytes.
    pub key: &'a [u8],
    /// The value, 0 to 65,535 bytes; empty for a DEL.
    pub value: &'a [u8],
    /// When it was written.
    pub timestamp: Timestamp,
}

impl<'a> Record<'a> {
    /// A record that sets `key` to `value`. The sizes are checked by [`encode`].
    #[must_use]
    pub const fn set(key: &'a [u8], value: &'a [u8], timestamp: Timestamp) -> Record<'a> {
        Record { op: Op::Set, key, value, timestamp }
    }

    /// A record that deletes `key`. The size is checked by [`encode`].
    #[must_use]
    pub const fn del(key: &'a [u8], timestamp: Timestamp) -> Record<'a> {
        Record { op: Op::Del, key, value: &[], timestamp }
    }

    /// How many bytes [`encode`] writes for this record.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        OVERHEAD.saturating_add(self.key.len()).saturating_add(self.value.len())
    }
}

/// Writes `record` to the front of `out`, always with its time stamp, and returns how many bytes that took.
///
/// # Errors
///
/// [`Error::Invalid`] for an empty key or a DEL with a value, [`Error::TooLarge`] for a key or value of more than
/// 65,535 bytes, [`Error::BufferTooSmall`] with the bytes needed. `out` is unchanged then.
#[inline]
pub fn encode(record: &Record<'_>, out: &mut [u8]) -> Result<usize> {
    encode_with(record, out, crc32)
}

/// As [`encode`], with another checksum.
#[inline]
pub fn encode_with(record: &Record<'_>, out: &mut [u8], crc: impl Fn(&[u8]) -> u32) -> Result<usize> {
    let Ok(key_len) = u16::try_from(record.key.len()) else {
        return Err(Error::TooLarge("a key has at most 65,535 bytes"));
    };
    let Ok(value_len) = u16::try_from(record.value.len()) else {
        return Err(Error::TooLarge("a value has at most 65,535 bytes"));
    };
    if key_len == 0 {
        return Err(Error::Invalid("a record needs a key"));
    }
    if record.op == Op::Del && value_len != 0 {
        return Err(Error::Invalid("a DEL has no value"));
    }
    let needed = record.encoded_len();
    match out.get_mut(..needed).and_then(|out| write_fields(record, key_len, value_len, out, crc)) {
        Some(()) => Ok(needed),
        None => Err(Error::BufferTooSmall { needed }),
    }
}

/// Fills `out`, which has exactly the record's encoded length. `None`, which can't happen then, is "too small":
/// the checks are what lets the compiler see that nothing here indexes out of bounds.
#[inline]
fn write_fields(
    record: &Record<'_>,
    key_len: u16,
    value_len: u16,
    out: &mut [u8],
    crc_of: impl Fn(&[u8]) -> u32,
) -> Option<()> {
    let (crc, covered) = out.split_first_chunk_mut::<4>()?;
    let (length, fields) = covered.split_first_chunk_mut::<4>()?;
    // op, key_len, value_len and timestamp are 13 bytes.
    *length = (13 + u32::from(key_len) + u32::from(value_len)).to_le_bytes();
    let (op, fields) = fields.split_first_chunk_mut::<1>()?;
    *op = [record.op.byte()];
    let (key_len_field, fields) = fields.split_first_chunk_mut::<2>()?;
    *key_len_field = key_len.to_le_bytes();
    let (key, fields) = fields.split_at_mut_checked(record.key.len())?;
    key.copy_from_slice(record.key);
    let (value_len_field, fields) = fields.split_first_chunk_mut::<2>()?;
    *value_len_field = value_len.to_le_bytes();
    let (value, fields) = fields.split_at_mut_checked(record.value.len())?;
    value.copy_from_slice(record.value);
    *fields.first_chunk_mut::<8>()? = record.timestamp.0.to_le_bytes();
    *crc = crc_of(covered).to_le_bytes();
    Some(())
}

/// Reads the record that `bytes` are, all of them, without copying.
///
/// A record without the last 8 bytes (a log of W10) has [`Timestamp::NONE`].
///
/// # Errors
///
/// [`Error::CrcMismatch`] when the length or the CRC does not match, as after any flipped bit or cut;
/// [`Error::Malformed`] when there are fewer bytes than any record has, or the CRC is right over fields that make no
/// record, which is how something that was never a record looks.
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Record<'_>> {
    decode_with(bytes, crc32)
}

/// As [`decode`], with another checksum.
#[inline]
pub fn decode_with(bytes: &[u8], crc: impl Fn(&[u8]) -> u32) -> Result<Record<'_>> {
    if bytes.len() < RECORD_MIN {
        return Err(Error::Malformed("fewer bytes than any record has"));
    }
    if declared_len(bytes) != Some(bytes.len()) || !crc_matches(bytes, crc) {
        return Err(Error::CrcMismatch);
    }
    read_fields(bytes).ok_or(Error::Malformed("the CRC is right, but the fields make no record"))
}

/// As [`decode`], for bytes that were decoded before and have not left memory since: the CRC is not computed again.
#[inline]
pub fn decode_again(bytes: &[u8]) -> Result<Record<'_>> {
    read_fields(bytes).ok_or(Error::Malformed("the fields make no record"))
}

/// The fields of `bytes`, which are one whole record by their length; `None` if they do not fit together.
#[inline]
fn read_fields(bytes: &[u8]) -> Option<Record<'_>> {
    let (_, fields) = bytes.split_first_chunk::<PREFIX>()?;
    let ([op, key_len @ ..], fields) = fields.split_first_chunk::<3>()?;
    let op = Op::from_byte(*op)?;
    let (key, fields) = fields.split_at_checked(usize::from(u16::from_le_bytes(*key_len)))?;
    let (value_len, fields) = fields.split_first_chunk::<2>()?;
    let (value, fields) = fields.split_at_checked(usize::from(u16::from_le_bytes(*value_len)))?;
    let timestamp = match fields.first_chunk::<8>() {
        Some(timestamp) if fields.len() == 8 => Timestamp(u64::from_le_bytes(*timestamp)),
        None if fields.is_empty() => Timestamp::NONE,
        _ => return None,
    };
    if key.is_empty() || (op == Op::Del && !value.is_empty()) {
        return None;
    }
    Some(Record { op, key, value, timestamp })
}

/// Whether the CRC at the front of `bytes` is that of the rest.
#[inline]
fn crc_matches(bytes: &[u8], crc: impl Fn(&[u8]) -> u32) -> bool {
    bytes.split_first_chunk::<4>().is_some_and(|(stored, covered)| crc(covered) == u32::from_le_bytes(*stored))
}

/// The whole encoded length that the first 8 bytes state, however absurd.
#[inline]
fn declared_len(prefix: &[u8]) -> Option<usize> {
    let [_, _, _, _, length @ ..] = prefix.first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    Some(length.saturating_add(PREFIX))
}

/// The whole encoded length of the record that starts with `prefix`, from its first 8 bytes.
///
/// `None` when there are fewer, or when no record has the length that they state. What it returns is safe to
/// allocate, and no more than a claim until the CRC has been checked.
#[inline]
#[must_use]
pub fn frame_len(prefix: &[u8]) -> Option<usize> {
    declared_len(prefix).filter(|len| (RECORD_MIN..=RECORD_MAX).contains(len))
}

/// The CRC that a record's first 4 bytes state, unchecked; `None` when there are fewer.
///
/// For a record that [`decode`] has accepted it identifies the record, as cheaply as can be.
#[inline]
#[must_use]
pub fn stored_crc(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|crc| u32::from_le_bytes(*crc))
}

/// What stands at the front of a buffer that is scanned for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A whole record. The next one starts `len` bytes further on.
    Record {
        /// The record.
        record: Record<'a>,
        /// The bytes it takes, all of them checked by its CRC.
        len: usize,
    },
    /// The buffer ends before the record does, and as far as length, op and key_len are there, they could be those of
    /// a record. An empty buffer is this too.
    Incomplete,
    /// No bytes that could follow make this a record.
    Damaged,
}

/// Looks for a record at the very front of `bytes`, which may go on beyond it.
///
/// The fields are tried before the CRC: a search for records behind damage calls this at every offset, and a claimed
/// length of 100 KB that is nonsense is then seen as such without reading 100 KB.
#[inline]
#[must_use]
pub fn next_in(bytes: &[u8]) -> Next<'_> {
    let Some(declared) = declared_len(bytes) else {
        return Next::Incomplete;
    };
    if !(RECORD_MIN..=RECORD_MAX).contains(&declared) {
        return Next::Damaged;
    }
    let Some(frame) = bytes.get(..declared) else {
        return if may_become_a_record(bytes, declared) { Next::Incomplete } else { Next::Damaged };
    };
    match read_fields(frame) {
        Some(record) if crc_matches(frame, crc32) => Next::Record { record, len: declared },
        _ => Next::Damaged,
    }
}

/// How long the record at the front of `bytes` is by its length field, if its other fields, as far as they are there,
/// say the same: what lies within it is its key and value then, be it a record. `None`: they contradict each other, so
/// that any of them may be damaged.
#[must_use]
pub fn extent(bytes: &[u8]) -> Option<usize> {
    let declared = frame_len(bytes)?;
    if !may_become_a_record(bytes, declared) {
        return None;
    }
    let field = |at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
    let value_len = field(9).and_then(|key_len| Some((key_len, field(11 + key_len)?)));
    let Some((key_len, value_len)) = value_len else { return Some(declared) };
    let is_del = bytes.get(8) == Some(&Op::Del.byte());
    let needed = OVERHEAD + key_len + value_len;
    ((declared == needed || declared + 8 == needed) && !(is_del && value_len > 0)).then_some(declared)
}

/// Whether what is there of a cut record, at least its first 8 bytes, can be the front of a record of this length.
fn may_become_a_record(bytes: &[u8], declared: usize) -> bool {
    let op = bytes.get(8);
    let key_len = bytes.get(9..11).and_then(|field| field.first_chunk::<2>());
    op.is_none_or(|op| Op::from_byte(*op).is_some())
        && key_len.is_none_or(|key_len| {
            let key_len = usize::from(u16::from_le_bytes(*key_len));
            key_len != 0 && RECORD_MIN - 1 + key_len <= declared
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// SET foo=bar at time 0. These four are as Python's struct and zlib make them.
    const FOO_BAR: [u8; 27] = *b"\xE7\x58\x7E\xCB\x13\0\0\0\x01\x03\0foo\x03\0bar\0\0\0\0\0\0\0\0";
    /// The same in a log of W10: no time stamp.
    const FOO_BAR_W10: [u8; 19] = *b"\x0D\xC6\x58\x7F\x0B\0\0\0\x01\x03\0foo\x03\0bar";
    /// DEL foo at time 0x0102030405060708.
    const DEL_FOO: [u8; 24] = *b"\xFA\xD9\xDC\x8E\x10\0\0\0\x02\x03\0foo\0\0\x08\x07\x06\x05\x04\x03\x02\x01";
    /// DEL k in a log of W10, the smallest record of all.
    const DEL_K_W10: [u8; RECORD_MIN] = *b"\x4B\xB4\xBE\xDA\x06\0\0\0\x02\x01\0k\0\0";

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = vec![0xAA; record.encoded_len()];
        assert_eq!(encode(record, &mut bytes).unwrap(), bytes.len());
        bytes
    }

    /// Puts a right length and CRC in front of any fields, however wrong.
    fn framed(fields: &[u8]) -> Vec<u8> {
        let mut covered = u32::try_from(fields.len()).unwrap().to_le_bytes().to_vec();
        covered.extend_from_slice(fields);
        [&crc32(&covered).to_le_bytes()[..], &covered].concat()
    }

    /// Records of every kind, small enough to flip each of their bits.
    fn samples() -> Vec<Vec<u8>> {
        let long = [0x5A; 700];
        vec![
            FOO_BAR.to_vec(),
            FOO_BAR_W10.to_vec(),
            DEL_FOO.to_vec(),
            DEL_K_W10.to_vec(),
            encoded(&Record::set(b"k", b"", Timestamp(1))),
            encoded(&Record::set(b"key-000042", &long[..100], Timestamp(u64::MAX))),
            encoded(&Record::set(&long, &long, Timestamp(7))),
        ]
    }

    #[test]
    fn set_foo_bar_has_the_bytes_of_the_contract() {
        let record = Record::set(b"foo", b"bar", Timestamp::NONE);
        assert_eq!(encoded(&record), FOO_BAR);
        assert_eq!(decode(&FOO_BAR).unwrap(), record);
        assert_eq!(stored_crc(&FOO_BAR), Some(0xCB7E_58E7));
        let record = Record::del(b"foo", Timestamp(0x0102_0304_0506_0708));
        assert_eq!(encoded(&record), DEL_FOO);
        assert_eq!(decode(&DEL_FOO).unwrap(), record);
    }

    #[test]
    fn a_record_of_w10_has_no_timestamp() {
        assert_eq!(decode(&FOO_BAR_W10).unwrap(), Record::set(b"foo", b"bar", Timestamp::NONE));
        assert_eq!(decode(&DEL_K_W10).unwrap(), Record::del(b"k", Timestamp::NONE));
    }

    #[test]
    fn the_largest_record_goes_there_and_back() {
        let (key, value) = (vec![b'k'; 65_535], vec![b'v'; 65_535]);
        let record = Record::set(&key, &value, Timestamp(u64::MAX));
        let bytes = encoded(&record);
        assert_eq!(bytes.len(), RECORD_MAX);
        // From Python.
        assert_eq!(stored_crc(&bytes), Some(0x96A4_1860));
        assert_eq!(decode(&bytes).unwrap(), record);
        assert_eq!(frame_len(&bytes), Some(RECORD_MAX));
        assert_eq!(next_in(&bytes), Next::Record { record, len: RECORD_MAX });
    }

    #[test]
    fn what_makes_no_record_is_refused_and_nothing_is_written() {
        let long = vec![b'x'; 65_536];
        let mut out = vec![0xAA; 2 * RECORD_MAX];
        let at = Timestamp(1);
        let op = Op::Del;
        let invalid = [Record::set(b"", b"v", at), Record::del(b"", at), Record { op, ..Record::set(b"k", b"v", at) }];
        for record in invalid {
            assert!(matches!(encode(&record, &mut out), Err(Error::Invalid(_))), "{record:?}");
        }
        for record in [Record::set(&long, b"", at), Record::set(b"k", &long, at)] {
            assert!(matches!(encode(&record, &mut out), Err(Error::TooLarge(_))));
        }
        for len in 0..27 {
            let result = encode(&Record::set(b"foo", b"bar", at), &mut out[..len]);
            assert!(matches!(result, Err(Error::BufferTooSmall { needed: 27 })));
        }
        assert!(out.iter().all(|byte| *byte == 0xAA));
    }

    #[test]
    fn a_buffer_that_is_larger_is_left_alone_behind_the_record() {
        let mut out = [0xAA; 40];
        assert_eq!(encode(&Record::set(b"foo", b"bar", Timestamp::NONE), &mut out).unwrap(), 27);
        assert_eq!(out[..27], FOO_BAR);
        assert_eq!(out[27..], [0xAA; 13]);
    }

    #[test]
    fn every_single_flipped_bit_is_a_crc_mismatch() {
        for sample in samples() {
            let mut bytes = sample.clone();
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(matches!(decode(&bytes), Err(Error::CrcMismatch)), "bit {bit}");
                assert!(!matches!(next_in(&bytes), Next::Record { .. }), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            // What was undone is a record again: it was the bit that made the difference.
            assert!(decode(&bytes).is_ok());
        }
    }

    #[test]
    fn it_is_the_crc_that_catches_a_flipped_bit() {
        // The canary of the test above: with the CRC made right again, a flipped bit of key or value goes unseen.
        let mut fields = FOO_BAR[8..].to_vec();
        fields[3] ^= 1;
        assert_eq!(decode(&framed(&fields)).unwrap(), Record::set(b"goo", b"bar", Timestamp::NONE));
    }

    #[test]
    fn a_wrong_length_is_a_crc_mismatch_even_under_a_right_crc() {
        for length in [0, 18, 20, u32::MAX] {
            let covered = [&length.to_le_bytes()[..], &FOO_BAR[8..]].concat();
            let bytes = [&crc32(&covered).to_le_bytes()[..], &covered].concat();
            assert!(matches!(decode(&bytes), Err(Error::CrcMismatch)));
        }
    }

    #[test]
    fn a_record_that_is_cut_anywhere_is_refused_and_may_still_become_one() {
        for sample in samples() {
            for len in 0..sample.len() {
                let cut = &sample[..len];
                match decode(cut) {
                    Err(Error::Malformed(_)) => assert!(len < RECORD_MIN, "{len}"),
                    Err(Error::CrcMismatch) => assert!(len >= RECORD_MIN, "{len}"),
                    other => panic!("{len} bytes: {other:?}"),
                }
                assert_eq!(next_in(cut), Next::Incomplete, "{len}");
                assert_eq!(frame_len(cut), (len >= 8).then_some(sample.len()), "{len}");
                assert_eq!(stored_crc(cut).is_some(), len >= 4);
            }
            let longer = [&sample[..], b"!"].concat();
            assert!(matches!(decode(&longer), Err(Error::CrcMismatch)));
        }
    }

    #[test]
    fn fields_that_do_not_fit_under_a_right_crc_are_malformed() {
        let wrong: [(&str, &[u8]); 12] = [
            ("op 0", b"\0\x01\0k\0\0"),
            ("op 3", b"\x03\x01\0k\0\0"),
            ("empty key", b"\x01\0\0\x01\0v"),
            ("empty key, with a time stamp", b"\x01\0\0\0\0abcdefgh"),
            ("key past the end", b"\x01\x09\0k\0\0"),
            ("key up to the end", b"\x01\x03\0k\0\0"),
            ("half a value_len", b"\x01\x02\0k\0\0"),
            ("value past the end", b"\x01\x01\0k\x01\0"),
            ("7 bytes of time stamp", b"\x01\x01\0k\0\0abcdefg"),
            ("9 bytes of time stamp", b"\x01\x01\0k\0\0abcdefgh9"),
            ("DEL with a value", b"\x02\x01\0k\x01\0v"),
            ("DEL with a value and a time stamp", b"\x02\x01\0k\x01\0vabcdefgh"),
        ];
        for (why, fields) in wrong {
            let bytes = framed(fields);
            assert!(matches!(decode(&bytes), Err(Error::Malformed(_))), "{why}");
            assert_eq!(next_in(&bytes), Next::Damaged, "{why}");
        }
        // The canary: the same frame around right fields is a record.
        assert!(decode(&framed(b"\x01\x01\0k\0\0abcdefgh")).is_ok());
        // Longer than any record, though length and CRC agree.
        assert!(matches!(decode(&framed(&vec![1; 200_000])), Err(Error::Malformed(_))));
    }

    #[test]
    fn zeroed_bytes_are_never_a_record() {
        let zeros = vec![0; 2 * RECORD_MAX];
        for len in (0..400).chain([4096, RECORD_MAX, zeros.len()]) {
            assert!(decode(&zeros[..len]).is_err(), "{len}");
            let expected = if len < 8 { Next::Incomplete } else { Next::Damaged };
            assert_eq!(next_in(&zeros[..len]), expected, "{len}");
        }
        // Not even behind a length and CRC that are right.
        for len in 0..400 {
            assert!(decode(&framed(&zeros[..len])).is_err(), "{len}");
        }
    }

    #[test]
    fn a_length_is_believed_only_between_the_smallest_record_and_the_largest() {
        let prefix = |length: u32| [&[0; 4], &length.to_le_bytes()[..]].concat();
        for length in [0, 5, 131_084, 200_000, 0x7FFF_FFFF, u32::MAX - 7, u32::MAX] {
            assert_eq!(frame_len(&prefix(length)), None, "{length}");
            assert_eq!(next_in(&prefix(length)), Next::Damaged, "{length}");
        }
        for (length, len) in [(6, RECORD_MIN), (19, 27), (131_083, RECORD_MAX)] {
            assert_eq!(frame_len(&prefix(length)), Some(len));
            assert_eq!(next_in(&prefix(length)), Next::Incomplete);
        }
    }

    #[test]
    fn a_cut_record_whose_first_fields_are_wrong_can_not_become_one() {
        let cut = |op: u8, key_len: u16| [&FOO_BAR[..8], &[op], &key_len.to_le_bytes()[..]].concat();
        // Of 27 bytes, 13 are no key even without value and time stamp.
        for (op, key_len) in [(0, 3), (3, 3), (1, 0), (1, 15), (2, 65_535)] {
            assert_eq!(next_in(&cut(op, key_len)), Next::Damaged, "op {op}, key_len {key_len}");
        }
        for (op, key_len) in [(1, 3), (2, 6), (1, 14)] {
            assert_eq!(next_in(&cut(op, key_len)), Next::Incomplete, "op {op}, key_len {key_len}");
        }
    }

    #[test]
    fn fields_that_agree_say_how_far_a_record_goes_and_others_do_not() {
        for sample in samples() {
            for len in 8..=sample.len() {
                assert_eq!(extent(&sample[..len]), Some(sample.len()), "{len} bytes");
            }
            assert_eq!(extent(&sample[..7]), None);
            // A flipped bit of a field that says how long something is, or of the op.
            let key_len = usize::from(u16::from_le_bytes([sample[9], sample[10]]));
            for bit in (4 * 8..11 * 8).chain((11 + key_len) * 8..(13 + key_len) * 8) {
                let mut bytes = sample.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let is_near = extent(&bytes).is_none_or(|len| len.abs_diff(sample.len()) <= 8);
                assert!(is_near, "bit {bit}: no more than a time stamp that is there or is not");
            }
            let mut bytes = sample.clone();
            bytes[0] ^= 1;
            assert_eq!(extent(&bytes), Some(sample.len()), "the CRC says nothing of it");
        }
    }

    #[test]
    fn the_largest_sizes_are_what_the_layout_makes_them() {
        assert_eq!(RECORD_MAX, OVERHEAD + 2 * usize::from(u16::MAX));
        assert_eq!(RECORD_MIN, OVERHEAD - 8 + 1);
        for op in [Op::Set, Op::Del] {
            assert_eq!(Op::from_byte(op.byte()), Some(op));
        }
        assert_eq!((0..=u8::MAX).filter_map(Op::from_byte).count(), 2);
    }

    /// Any record, as its parts.
    fn parts() -> impl Strategy<Value = (bool, Vec<u8>, Vec<u8>, u64)> {
        let bytes = |least: usize| prop::collection::vec(any::<u8>(), least..300);
        (any::<bool>(), bytes(1), bytes(0), any::<u64>())
    }

    fn small() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..10)
    }

    fn record_of((is_set, key, value, ts): &(bool, Vec<u8>, Vec<u8>, u64)) -> Record<'_> {
        if *is_set { Record::set(key, value, Timestamp(*ts)) } else { Record::del(key, Timestamp(*ts)) }
    }

    proptest! {
        #[test]
        fn every_record_goes_there_and_back(parts in parts()) {
            let record = record_of(&parts);
            let bytes = encoded(&record);
            prop_assert_eq!(decode(&bytes).unwrap(), record);
            prop_assert_eq!(frame_len(&bytes), Some(bytes.len()));
            // Without its time stamp, as W10 would have written it.
            let legacy = framed(&bytes[8..bytes.len() - 8]);
            let expected = Record { timestamp: Timestamp::NONE, ..record };
            prop_assert_eq!(decode(&legacy).unwrap(), expected);
        }

        #[test]
        fn a_log_that_is_cut_anywhere_gives_the_whole_records_before_the_cut(
            log in prop::collection::vec(parts(), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = log.iter().flat_map(|parts| encoded(&record_of(parts))).collect::<Vec<u8>>();
            let cut = &bytes[..cut.index(bytes.len() + 1)];
            let mut at = 0;
            for parts in &log {
                let record = record_of(parts);
                match next_in(&cut[at..]) {
                    Next::Record { record: found, len } => {
                        prop_assert_eq!(found, record);
                        prop_assert_eq!(len, record.encoded_len());
                        at += len;
                    }
                    other => {
                        prop_assert_eq!(other, Next::Incomplete);
                        prop_assert!(at + record.encoded_len() > cut.len());
                        return Ok(());
                    }
                }
            }
            prop_assert_eq!(at, bytes.len());
        }

        #[test]
        fn whatever_is_accepted_encodes_to_what_was_read(
            (op, key, value) in (0..4_u8, small(), small()),
            (more_key, more_value, tail) in (0..3_u8, 0..3_u8, small()),
        ) {
            let key_len = u8::try_from(key.len()).unwrap() + more_key;
            let value_len = u8::try_from(value.len()).unwrap() + more_value;
            let fields = [&[op, key_len, 0], &key[..], &[value_len, 0], &value, &tail].concat();
            let bytes = framed(&fields);
            if let Ok(record) = decode(&bytes) {
                let again = encoded(&record);
                let legacy = bytes.len() + 8 == again.len();
                prop_assert!(legacy || again == bytes);
                prop_assert!(!legacy || again[8..bytes.len()] == fields);
            }
        }

        #[test]
        fn any_bytes_at_all_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
            let is_record = matches!(next_in(&bytes), Next::Record { .. });
            prop_assert!(!is_record);
            let _ = decode(&framed(&bytes));
        }
    }
}
