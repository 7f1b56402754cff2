//! Keys, and where they belong: the hash, and the bucket that follows from it.
//!
//! Touches nothing; pure but for the bytes that C hands over.
#![allow(unsafe_code, reason = "C hands over pointers")]

use libc::c_char;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_nano_inline};
use std::ptr::NonNull;

/// Bytes that C owns, as pointer and length. What the table holds may itself be the argument of a call that
/// overwrites it, so these are no slices.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    pub(super) start: *const u8,
    pub(super) len: usize,
}

impl Bytes {
    pub(super) const EMPTY: Bytes = Bytes { start: NonNull::dangling().as_ptr(), len: 0 };

    /// The bytes of a C string up to its NUL.
    ///
    /// # Safety
    /// A C string, which stays as it is while the bytes are used.
    #[inline]
    pub(crate) unsafe fn of_c_string(string: *const c_char) -> Bytes {
        // SAFETY: it ends with a NUL, says the caller.
        Bytes { start: string.cast(), len: unsafe { libc::strlen(string) } }
    }

    /// # Safety
    /// The bytes are readable, and nobody writes them while the slice is used.
    #[inline]
    pub(super) unsafe fn as_slice<'a>(self) -> &'a [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl From<&[u8]> for Bytes {
    #[inline]
    fn from(bytes: &[u8]) -> Bytes {
        Bytes { start: bytes.as_ptr(), len: bytes.len() }
    }
}

/// Fixed, so that a key's bucket is the same in every run; not rapidhash's own, for which collisions are published.
const SECRETS: RapidSecrets = RapidSecrets::seed(0x6c6f_6773_6869_7021);

/// A key and the hash of its bytes up to the first NUL, which is what C sees of it.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub(super) bytes: Bytes,
    pub(super) hash: u32,
}

impl Key {
    /// A key without NUL bytes inside.
    ///
    /// # Safety
    /// A C string, which stays as it is while the key is used.
    #[inline]
    pub(super) unsafe fn of_c_string(key: *const c_char) -> Key {
        // SAFETY: as above.
        let bytes = unsafe { Bytes::of_c_string(key) };
        // SAFETY: as above; the slice is gone before anything is written.
        let hash = hash(unsafe { bytes.as_slice() });
        Key { bytes, hash }
    }

    /// Any key.
    #[inline]
    pub(super) fn new(key: &[u8]) -> Key {
        // SAFETY: reads within the slice only.
        let nul = unsafe { libc::memchr(key.as_ptr().cast(), 0, key.len()) };
        let visible = if nul.is_null() { key.len() } else { nul.addr() - key.as_ptr().addr() };
        Key { bytes: key.into(), hash: hash(&key[..visible]) }
    }
}

/// So many buckets, two cache lines of them, are neighbours.
pub(super) const GROUP: u32 = 16;
/// Spreads the low bits of a number over the high ones: 2^64 divided by the golden ratio, made odd.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The high 28 bits are a hash of everything but the low 4 bits of the last byte, the low 4 bits are those mixed with
/// more hash.
///
/// So keys that differ only there, as `user:17` and `user:18` do, are neighbours, which never collide. Programs often
/// write keys in such an order, and then wait for each cache line of buckets once, not for each key. Other keys notice
/// nothing: their bucket is as random as ever.
#[inline]
pub(super) fn hash(visible: &[u8]) -> u32 {
    let (&last, rest) = visible.split_last().unwrap_or((&0, visible));
    let group = rapidhash_v3_nano_inline::<true, false>(rest, &SECRETS) ^ u64::from(last >> 4);
    let mixed = (group.wrapping_mul(SPREAD) >> 32) as u32;
    mixed ^ u32::from(last & 0xf)
}

/// The bucket, below `buckets`, of a key with this hash.
///
/// It is the hash, as a fraction of 2^32, of the number of groups, which works for any number and keeps order: when the
/// array grows, each group becomes some that follow each other. A number that is no multiple of a group has no
/// neighbours.
#[inline]
pub(super) fn bucket_of(hash: u32, buckets: u32) -> usize {
    let part = |hash: u32, of: u32| (u64::from(hash) * u64::from(of)) >> 32;
    let bucket = if buckets.is_multiple_of(GROUP) {
        part(hash & !(GROUP - 1), buckets / GROUP) * u64::from(GROUP) + u64::from(hash % GROUP)
    } else {
        part(hash.wrapping_mul(SPREAD as u32), buckets)
    };
    bucket as usize
}
