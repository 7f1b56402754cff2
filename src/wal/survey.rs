//! One pass over a log, whole or not: what it holds, how it ends, and what stands behind damage. Nothing is changed.
//!
//! A log is never read past the first place that holds no whole record, since a value may hold bytes that look like
//! one. For a person who has to decide what to do, [`search`] looks there all the same.
#![forbid(unsafe_code)]

use super::codec;
use super::crc::crc32;
use super::judge;
use super::note::Note;
use super::origin::Origin;
use super::record::{self, Next, Op, RECORD_MAX, Record};
use super::scan::{self, End, Position};
use crate::error::Result;
use crate::storage::Storage;
use crate::types::{History, Lsn, Timestamp};

/// How much [`search`] reads at once.
const WINDOW: usize = 1024 * 1024;

/// A record's CRC and length may begin with so many zeros.
const PREFIX_ZEROS: u64 = 7;

/// What a pass over a log has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// LSN before the first record.
    pub base: Lsn,
    /// Bytes of the file.
    pub len: u64,
    /// How the whole records end.
    pub end: End,
    /// SET records among them.
    pub sets: u64,
    /// DEL records among them.
    pub dels: u64,
    /// The greatest time stamp among them.
    pub newest: Timestamp,
    /// What the log has been through up to the last of them.
    pub history: History,
    /// What stands behind them.
    pub tail: judge::Verdict,
    /// The last record that was known to be durable, if the log's note tells.
    pub durable: Option<Lsn>,
    /// The whole records behind the first place that holds none.
    pub behind: Behind,
}

impl Survey {
    /// How many whole records the log has before the first place that holds none.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.end.last().since(self.base)
    }

    /// What the log is, and so what opening it would do.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let has_no_record = self.records() == 0;
        match self.tail {
            judge::Verdict::Whole => Verdict::Whole,
            judge::Verdict::Refused(judge::Reason::NotALog) => Verdict::NoLog,
            // A compacted log has had a whole record from the beginning.
            judge::Verdict::Torn if has_no_record && self.base > Lsn::ZERO => Verdict::Damaged,
            judge::Verdict::Torn => Verdict::Torn,
            judge::Verdict::Refused(_) => Verdict::Damaged,
        }
    }
}

/// What a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Whole records from its first byte to its last. It opens.
    Whole,
    /// It ends with a write that never ended. Opening it keeps a copy of that and cuts it off.
    Torn,
    /// Something that was stored is not whole any more. Opening it is refused.
    Damaged,
    /// Nothing in it is a record. Opening it is refused.
    NoLog,
}

/// Whole records behind damage. They have no LSN: how many were lost in the damage is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// How many.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many stretches without a gap they make.
    pub runs: u64,
    /// Where the first begins.
    pub first: u64,
}

impl Behind {
    pub(super) fn note(&mut self, found: &Found<'_>) {
        if self.records == 0 {
            self.first = found.offset;
        }
        self.records += 1;
        self.bytes += found.len as u64;
        self.runs += u64::from(found.begins_run);
    }
}

/// Reads the log in `storage`, which begins at `origin`, from its first byte to its last. `progress` is told how many
/// bytes have been read.
pub fn survey(storage: &impl Storage, origin: Origin, mut progress: impl FnMut(u64)) -> Result<Survey> {
    let (mut sets, mut newest, mut history) = (0, Timestamp::NONE, origin.history);
    let first = origin.first();
    let end = scan_all(storage, first, |batch| {
        let base = batch.offsets.first().copied().unwrap_or_default();
        for (one, offset) in batch.records.iter().zip(batch.offsets) {
            sets += u64::from(one.op == Op::Set);
            newest = newest.max(one.timestamp);
            history = history.then(head_at(batch.encoded, offset - base));
        }
        progress(base + batch.encoded.len() as u64);
        Ok(())
    })?;
    let mut behind = Behind::default();
    if end.damaged {
        search(storage, end.next.offset + 1, |found| {
            behind.note(found);
            progress(found.offset);
            Ok(())
        })?;
    }
    let note = Note::of(storage, &end)?;
    let tail = judge::judge(storage, &end, note.as_ref())?;
    let durable = note.map(|note| note.last);
    let dels = end.last().since(origin.base) - sets;
    Ok(Survey { base: origin.base, len: storage.len()?, end, sets, dels, newest, history, tail, durable, behind })
}

/// Reads to the end of the log, also to that which it has when the end is reached: somebody may be appending.
fn scan_all(
    storage: &impl Storage,
    from: Position,
    mut visit: impl FnMut(&scan::Batch<'_>) -> Result<()>,
) -> Result<End> {
    let mut len = storage.len()?;
    let mut end = scan::scan(storage, from, len, &mut visit)?;
    loop {
        let now = storage.len()?;
        if now <= len {
            return Ok(end);
        }
        len = now;
        end = scan::scan(storage, end.next, len, &mut visit)?;
    }
}

/// The first 8 bytes of the record at byte `at` of `encoded`.
fn head_at(encoded: &[u8], at: u64) -> [u8; 8] {
    let start = usize::try_from(at).unwrap_or(usize::MAX);
    encoded.get(start..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
}

/// A whole record that was looked for, not read in order.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The byte where it begins.
    pub offset: u64,
    /// Bytes that it takes.
    pub len: usize,
    /// Its CRC, which is that of its bytes.
    pub crc: u32,
    /// What it says.
    pub record: Record<'a>,
    /// Whether what stands before it is no record.
    pub begins_run: bool,
}

/// Looks at every byte from `from` on for a whole record, and behind each that it finds for the next. One pass in
/// bounded memory. A record may have been a part of another one's value.
pub fn search(storage: &impl Storage, from: u64, mut visit: impl FnMut(&Found<'_>) -> Result<()>) -> Result<()> {
    let mut window = vec![0; WINDOW];
    let mut start = from;
    let mut run_end = None;
    loop {
        // Over a hole, but for zeros that may be the front of a record behind it.
        start = start.max(storage.next_data(start)?.saturating_sub(PREFIX_ZEROS));
        let filled = storage.read_at(&mut window, start)?;
        let at_end = filled < window.len();
        let bytes = &window[..filled];
        // A record that begins behind this may go on behind the window.
        let limit = if at_end { filled } else { filled - RECORD_MAX };
        let mut at = 0;
        while at < limit {
            at += zeros(&bytes[at..]);
            let rest = &bytes[at.min(filled)..];
            let Next::Record { record, len } = next_in(rest) else {
                at += 1;
                continue;
            };
            let offset = start + at as u64;
            let crc = record::stored_crc(rest).unwrap_or_default();
            visit(&Found { offset, len, crc, record, begins_run: run_end != Some(offset) })?;
            at += len;
            run_end = Some(offset + len as u64);
        }
        if at_end {
            return Ok(());
        }
        start += at as u64;
    }
}

/// As [`codec::next_in`], quick where no record has the length that stands there.
fn next_in(bytes: &[u8]) -> Next<'_> {
    if codec::frame_len(bytes).is_some() { codec::next_in(bytes) } else { Next::Damaged }
}

/// How many places at the front of `bytes` can hold no record because they and the bytes behind are zero. Large holes
/// are passed quickly.
fn zeros(bytes: &[u8]) -> usize {
    const BLOCK: usize = 64;
    // A record whose length lies in the block begins at least 8 bytes before the block's end.
    const PASSED: usize = BLOCK - 7;
    let mut passed = 0;
    while let Some(block) = bytes.get(passed..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        if block[0] != 0 || block.iter().fold(0, |all, byte| all | byte) != 0 {
            break;
        }
        passed += PASSED;
    }
    passed
}

/// What stands at a place that holds no whole record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// The length that it states, if a record can have it.
    pub declared: Option<usize>,
    /// The CRC that it states.
    pub stored_crc: Option<u32>,
    /// The CRC of the bytes, if as many are there as it states.
    pub actual_crc: Option<u32>,
    /// Whether the fields make a record.
    pub is_cut: bool,
}

/// Looks at the place `offset`.
pub fn broken_at(storage: &impl Storage, offset: u64) -> Result<Broken> {
    let mut bytes = vec![0; RECORD_MAX];
    let count = storage.read_at(&mut bytes, offset)?;
    let bytes = &bytes[..count];
    let declared = codec::frame_len(bytes);
    let frame = declared.and_then(|len| bytes.get(4..len));
    let is_cut = codec::next_in(bytes) == Next::Incomplete;
    Ok(Broken { declared, stored_crc: record::stored_crc(bytes), actual_crc: frame.map(crc32), is_cut })
}
