//! w10/wal_record.h: one record as bytes, and back.
#![allow(unsafe_code, reason = "the C boundary")]
#![allow(non_camel_case_types, reason = "C's names")]

use super::{guard, ptr, replaced};
use crate::clock;
use crate::error::{Error, Result};
use crate::types::Timestamp;
use crate::wal::codec;
use crate::wal::record::{self, Op, Record};
use libc::{c_char, c_int};

/// What a record does. Zeroed bytes are never a record.
#[repr(C)]
pub enum wal_op {
    /// Set a key to a value.
    WAL_OP_SET = 1,
    /// Delete a key.
    WAL_OP_DEL = 2,
}

/// One write. After `wal_record_decode` its strings end with a NUL behind their lengths and belong to the caller, who
/// frees them with `free` or `wal_record_free`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wal_record {
    /// A `wal_op`.
    pub op: u8,
    /// The key, `key_len` bytes.
    pub key: *mut c_char,
    /// Bytes in the key, 1 to 65535.
    pub key_len: u16,
    /// The value, `value_len` bytes; NULL for a decoded DEL.
    pub value: *mut c_char,
    /// Bytes in the value; 0 for a DEL.
    pub value_len: u16,
    /// The checksum found by decode; encode does not look at it.
    pub crc: u32,
    /// When it was written, in nanoseconds; 0 for none.
    pub timestamp: u64,
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(wal_record, op) == 0);
    assert!(offset_of!(wal_record, key) == 8);
    assert!(offset_of!(wal_record, key_len) == 16);
    assert!(offset_of!(wal_record, value) == 24);
    assert!(offset_of!(wal_record, value_len) == 32);
    assert!(offset_of!(wal_record, crc) == 36);
    assert!(offset_of!(wal_record, timestamp) == 40);
    assert!(size_of::<wal_record>() == 48);
};

pub(super) const NOTHING: wal_record = wal_record {
    op: 0,
    key: std::ptr::null_mut(),
    key_len: 0,
    value: std::ptr::null_mut(),
    value_len: 0,
    crc: 0,
    timestamp: 0,
};

/// The record behind a pointer, borrowed.
///
/// # Safety
/// `record` is NULL or points to a record whose strings have their lengths and live during `'a`.
pub(super) unsafe fn view<'a>(record: *const wal_record) -> Result<Record<'a>> {
    ptr::check(record)?;
    // SAFETY: not NULL, and the caller promises a record.
    let record = unsafe { record.read() };
    let op = Op::from_byte(record.op).ok_or(Error::Invalid("op is neither SET nor DEL"))?;
    // SAFETY: the caller promises that the strings have their lengths.
    let key = unsafe { ptr::bytes(record.key.cast(), usize::from(record.key_len)) }?;
    let value = match op {
        Op::Set if record.value_len > 0 => {
            // SAFETY: as above.
            unsafe { ptr::bytes(record.value.cast(), usize::from(record.value_len)) }?
        }
        _ => &[],
    };
    Ok(Record { op, key, value, timestamp: Timestamp(record.timestamp) })
}

/// Writes the encoded record to `buffer`: `[crc32:4][length:4][op:1][key_len:2][key][value_len:2][value][timestamp:8]`,
/// little-endian; `length` counts the bytes after itself, the CRC covers everything after its own 4 bytes. A DEL is
/// written without a value. Returns the number of bytes, or -1 with `errno` ENOBUFS if `buf_size` is too small, EINVAL
/// for NULL, an unknown op or an empty key. `WAL_RECORD_MAX` bytes are always enough. Safe in any thread.
///
/// # Safety
/// `record` points to a record whose strings have their lengths; `buffer` to `buf_size` writable bytes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn wal_record_encode(record: *const wal_record, buffer: *mut u8, buf_size: usize) -> c_int {
    let body = || {
        // SAFETY: the caller's promise.
        let record = unsafe { view(record) }?;
        // SAFETY: the caller's promise; encoding only writes to it.
        let buffer = unsafe { ptr::bytes_mut(buffer, buf_size) }?;
        let len = if replaced::has_codec() { codec::encode(&record, buffer) } else { record::encode(&record, buffer) };
        Ok(ptr::count(len? as u64))
    };
    guard::call_knowing(body, Error::code)
}

/// Reads `len` bytes of one encoded record into `*record`. `key` and `value` are allocated with malloc(3) and end with
/// a NUL; a DEL's value is NULL. Returns 0; `CRC_MISMATCH` (-2, `errno` EBADMSG) if the length field is not `len` - 8
/// or the CRC does not match; -1 with `errno` EBADMSG if `len` is below the smallest record or a right CRC stands over
/// fields that make none, EINVAL for NULL, ENOMEM. On failure `*record` is zeroed. A record without the last 8 bytes (a
/// W10 log) has timestamp 0. Safe in any thread.
///
/// # Safety
/// `buffer` points to `len` readable bytes, `record` to a writable record whose old strings nobody needs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn wal_record_decode(buffer: *const u8, len: usize, record: *mut wal_record) -> c_int {
    let body = || {
        ptr::check(record)?;
        // SAFETY: not NULL, writable by the caller's promise.
        unsafe { record.write(NOTHING) };
        // SAFETY: the caller's promise.
        let buffer = unsafe { ptr::bytes(buffer, len) }?;
        let decoded = if replaced::has_codec() { codec::decode(buffer)? } else { record::decode(buffer)? };
        if clock::admits(decoded.timestamp) {
            clock::observe(decoded.timestamp);
        }
        let key = duplicate(decoded.key)?;
        let value = match decoded.op {
            Op::Del => std::ptr::null_mut(),
            Op::Set => duplicate(decoded.value).inspect_err(|_| {
                // SAFETY: it came from malloc just now and nobody else has it.
                unsafe { libc::free(key.cast()) }
            })?,
        };
        let whole = wal_record {
            op: decoded.op.byte(),
            key,
            key_len: u16::try_from(decoded.key.len()).map_err(|_| Error::Internal("key length"))?,
            value,
            value_len: u16::try_from(decoded.value.len()).map_err(|_| Error::Internal("value length"))?,
            crc: record::stored_crc(buffer).unwrap_or(0),
            timestamp: decoded.timestamp.0,
        };
        // SAFETY: as above.
        unsafe { record.write(whole) };
        Ok(0)
    };
    guard::call_knowing(body, Error::code)
}

/// Frees `key` and `value` of a decoded record and zeroes the struct. NULL and a zeroed record are fine.
///
/// # Safety
/// `record` is NULL or points to a record whose strings are NULL or came from malloc(3).
#[unsafe(no_mangle)]
#[unsafe(link_section = "logship_calls")]
pub unsafe extern "C" fn wal_record_free(record: *mut wal_record) {
    if record.is_null() {
        return;
    }
    // SAFETY: not NULL, and the caller promises a record.
    let old = unsafe { record.replace(NOTHING) };
    // SAFETY: NULL or from malloc, by the caller's promise.
    unsafe { libc::free(old.key.cast()) };
    // SAFETY: as above.
    unsafe { libc::free(old.value.cast()) };
}

/// A NUL-terminated copy that C may free.
fn duplicate(bytes: &[u8]) -> Result<*mut c_char> {
    // SAFETY: any size is fine.
    let copy: *mut u8 = unsafe { libc::malloc(bytes.len() + 1) }.cast();
    if copy.is_null() {
        return Err(Error::OutOfMemory);
    }
    // SAFETY: the copy has room for the bytes and one more, and is apart from them.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len()) };
    // SAFETY: the one more.
    unsafe { copy.add(bytes.len()).write(0) };
    Ok(copy.cast())
}
