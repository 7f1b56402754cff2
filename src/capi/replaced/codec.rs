//! A program's record codec, or its CRC alone, in the place of `wal::record`'s.
#![allow(unsafe_code, reason = "calls functions that the program has brought")]

use super::functions::{crc32_by_its_own_name, is_theirs, linked};
use super::{Own, enter};
use crate::capi::errno;
use crate::capi::wal_record::{NOTHING, wal_record};
use crate::error::{Error, Result};
use crate::types::Timestamp;
use crate::wal::codec::{self, Codec};
use crate::wal::crc;
use crate::wal::record::{self, Op, Record};
use std::ops::Range;

/// From now on every record is encoded and decoded by the program's functions.
pub(super) fn install() {
    codec::replace(Codec { encode, decode });
}

/// The program's CRC-32 under whichever name it has, or this library's.
pub(in crate::capi) fn crc32(bytes: &[u8]) -> u32 {
    let own_name = crc32_by_its_own_name();
    let theirs = if is_theirs!(logship_crc32) { Some(linked!(logship_crc32)) } else { own_name };
    let Some(function) = theirs else { return crc::crc32(bytes) };
    let call = || {
        // The lesson's table is filled by this call; a second time does no harm.
        linked!(crc32_init)();
        // SAFETY: a readable slice.
        unsafe { function(bytes.as_ptr(), bytes.len()) }
    };
    enter(Own::Crc32, call).unwrap_or_else(|| crc::crc32(bytes))
}

fn encode(record: &Record<'_>, out: &mut [u8]) -> Result<usize> {
    if !is_theirs!(wal_record_encode) {
        return record::encode_with(record, out, crc32);
    }
    let lent = lend(record)?;
    // SAFETY: a live record, which the function only reads, and a buffer of the length that is said.
    let call = || unsafe { linked!(wal_record_encode)(&raw const lent, out.as_mut_ptr(), out.len()) };
    let Some(len) = enter(Own::Encode, call) else { return record::encode_with(record, out, crc32) };
    match usize::try_from(len) {
        Ok(len @ 1..) if len <= out.len() => Ok(len),
        _ if errno::get() == libc::ENOBUFS => Err(Error::BufferTooSmall { needed: record::RECORD_MAX }),
        _ => Err(Error::Invalid("the program's wal_record_encode refuses the record")),
    }
}

fn decode(bytes: &[u8]) -> Result<Record<'_>> {
    if !is_theirs!(wal_record_decode) {
        return record::decode_with(bytes, crc32);
    }
    if bytes.len() < record::RECORD_MIN {
        return Err(Error::Malformed("fewer bytes than any record has"));
    }
    let mut decoded = NOTHING;
    // SAFETY: a readable slice, and a record that may be written.
    let call = || unsafe { linked!(wal_record_decode)(bytes.as_ptr(), bytes.len(), &raw mut decoded) };
    match enter(Own::Decode, call) {
        Some(0) => {}
        Some(_) => return Err(Error::CrcMismatch),
        None => return record::decode_with(bytes, crc32),
    }
    // SAFETY: what a decode that succeeds has made is a record.
    let borrowed = unsafe { borrow_from(bytes, &decoded) };
    // SAFETY: it is, and its strings came from malloc(3); nothing borrows them.
    unsafe { linked!(wal_record_free)(&raw mut decoded) };
    borrowed
}

/// The record as C sees it, with borrowed strings.
pub(super) fn lend(record: &Record<'_>) -> Result<wal_record> {
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).map_err(|_| Error::TooLarge("at most 65,535 bytes"));
    Ok(wal_record {
        op: record.op.byte(),
        key: record.key.as_ptr().cast_mut().cast(),
        key_len: len(record.key)?,
        value: record.value.as_ptr().cast_mut().cast(),
        value_len: len(record.value)?,
        crc: 0,
        timestamp: record.timestamp.0,
    })
}

/// A decoded record whose strings are taken from the bytes that it was decoded from, wherever its codec has put them.
///
/// # Safety
/// `decoded` is a record whose strings have their lengths.
unsafe fn borrow_from<'a>(bytes: &'a [u8], decoded: &wal_record) -> Result<Record<'a>> {
    // SAFETY: the caller's promise.
    let made = unsafe { crate::capi::wal_record::view(decoded) }?;
    let key = find(bytes, made.key);
    let behind_key = key.as_ref().map_or(0, |key| key.end);
    let value = find(&bytes[behind_key..], made.value).map(|value| behind_key + value.start..behind_key + value.end);
    let value = value.or_else(|| find(bytes, made.value));
    match (key, value) {
        (Some(key), Some(value)) if !key.is_empty() => {
            let value = if made.op == Op::Del { &[] } else { &bytes[value] };
            Ok(Record { op: made.op, key: &bytes[key], value, timestamp: Timestamp(decoded.timestamp) })
        }
        _ => Err(Error::Malformed("the program's codec keeps keys or values in a form of its own")),
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = if part.is_empty() { 0 } else { bytes.windows(part.len()).position(|window| window == part)? };
    Some(start..start + part.len())
}
