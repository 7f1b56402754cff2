//! The record codec that the log and the protocol go through: [`record`]'s, or another in its place.
//!
//! A program may bring its own (`capi/replaced`): its records have bytes of their own, but begin with a CRC and a
//! length as ours do, since that is how a log is read. Everything that reads or writes logs and frames calls these
//! functions; who needs our codec and no other calls [`record`]'s.
#![forbid(unsafe_code)]

use super::record::{self, Next, PREFIX, RECORD_MAX, RECORD_MIN, Record};
use crate::error::Result;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Another codec.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    /// As [`record::encode`]; any buffer of [`RECORD_MAX`] bytes must do.
    pub encode: fn(&Record<'_>, &mut [u8]) -> Result<usize>,
    /// As [`record::decode`].
    pub decode: for<'a> fn(&'a [u8]) -> Result<Record<'a>>,
}

static CODEC: OnceLock<Codec> = OnceLock::new();
/// Whether there is one: a byte, which is looked at for every record.
static IS_REPLACED: AtomicBool = AtomicBool::new(false);

/// Puts `codec` in the place of ours, for good. The first one stays.
pub fn replace(codec: Codec) {
    CODEC.get_or_init(|| codec);
    IS_REPLACED.store(true, Ordering::Release);
}

#[inline]
fn is_replaced() -> bool {
    IS_REPLACED.load(Ordering::Relaxed)
}

#[cold]
#[inline(never)]
fn other() -> &'static Codec {
    CODEC.wait() // It was there before the byte said so.
}

/// As [`record::encode`].
#[inline]
pub fn encode(record: &Record<'_>, out: &mut [u8]) -> Result<usize> {
    if is_replaced() { (other().encode)(record, out) } else { record::encode(record, out) }
}

/// How large a buffer [`encode`] may need for this record.
#[inline]
#[must_use]
pub fn encoded_len_max(record: &Record<'_>) -> usize {
    if is_replaced() { RECORD_MAX } else { record.encoded_len() }
}

/// As [`record::decode`].
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Record<'_>> {
    if is_replaced() { (other().decode)(bytes) } else { record::decode(bytes) }
}

/// As [`record::decode_again`].
#[inline]
pub fn decode_again(bytes: &[u8]) -> Result<Record<'_>> {
    if is_replaced() { (other().decode)(bytes) } else { record::decode_again(bytes) }
}

/// As [`record::next_in`].
#[inline]
#[must_use]
pub fn next_in(bytes: &[u8]) -> Next<'_> {
    if is_replaced() { next_in_other(bytes) } else { record::next_in(bytes) }
}

#[cold]
fn next_in_other(bytes: &[u8]) -> Next<'_> {
    if bytes.len() < PREFIX {
        return Next::Incomplete;
    }
    let Some(len) = frame_len(bytes) else { return Next::Damaged };
    let Some(frame) = bytes.get(..len) else { return Next::Incomplete };
    (other().decode)(frame).map_or(Next::Damaged, |record| Next::Record { record, len })
}

/// As [`record::frame_len`]; another codec may write its numbers the other way round.
#[inline]
#[must_use]
pub fn frame_len(prefix: &[u8]) -> Option<usize> {
    match record::frame_len(prefix) {
        None if is_replaced() => big_endian_len(prefix),
        len => len,
    }
}

/// As [`record::extent`]; what the fields of another codec say is not known.
#[must_use]
pub fn extent(bytes: &[u8]) -> Option<usize> {
    if is_replaced() { frame_len(bytes) } else { record::extent(bytes) }
}

#[cold]
fn big_endian_len(prefix: &[u8]) -> Option<usize> {
    let [_, _, _, _, length @ ..] = prefix.first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    length.checked_add(PREFIX).filter(|len| (RECORD_MIN..=RECORD_MAX).contains(len))
}
