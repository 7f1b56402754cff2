//! What a writer knows of its log beside the bytes: where it begins and ends, how many records it has, where they lie.
//!
//! The state is plain and of fixed size, so the C layer can keep it beside a `struct wal_writer`, whose layout has no
//! room for it. All writes of the crate to a log go through [`LogTail::append`] and [`LogTail::write_ahead`].
#![forbid(unsafe_code)]

use super::checkpoint::Covered;
use super::index::SparseIndex;
use super::index_file::{self, Loaded};
use super::meta;
use super::note::Note;
use super::origin::{self, Origin};
use super::scan::{self, End, Position};
use crate::clock;
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::types::{History, Lsn};

/// How much is written ahead before the disk is told to begin with it: with less, what asking costs is more than what
/// the sync gains.
pub const WRITE_BACK: usize = 1024 * 1024;

/// A write of one record up to this long can't be left with a hole in it that reaches beyond its own fields.
const PAGE: usize = 4096;

/// The end of a log.
#[derive(Clone, Debug)]
pub struct LogTail {
    /// Bytes of whole records.
    len: u64,
    /// LSN of the last record.
    last: Lsn,
    /// What the log has been through up to there.
    history: History,
    /// What comes before the first record of the file.
    origin: Origin,
    /// Where the last record begins, and the first 8 bytes (CRC and length) of the first and the last record: they tell
    /// whether a file that looks like this log still is.
    last_at: u64,
    heads: [[u8; 8]; 2],
    /// How many bytes of it an fsync is known to have covered.
    durable: u64,
    /// Up to which record the index file is known to reach.
    saved: Lsn,
    index: SparseIndex,
}

impl Default for LogTail {
    fn default() -> LogTail {
        LogTail {
            len: 0,
            last: Lsn::ZERO,
            history: History::EMPTY,
            origin: Origin::default(),
            last_at: 0,
            heads: [[0; 8]; 2],
            durable: 0,
            saved: Lsn::ZERO,
            index: SparseIndex::new(Lsn::ZERO),
        }
    }
}

/// The parts of a tail that an index file keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) origin: Origin,
    pub(super) len: u64,
    pub(super) last: Lsn,
    pub(super) history: History,
    pub(super) last_at: u64,
    pub(super) heads: [[u8; 8]; 2],
}

impl LogTail {
    /// Makes this the state of an empty log, in place.
    pub fn reset(&mut self) {
        self.begin(Origin::default());
    }

    fn begin(&mut self, origin: Origin) {
        (self.len, self.last_at, self.durable) = (origin.first().offset, 0, 0);
        (self.last, self.history) = (origin.base, origin.history);
        (self.origin, self.saved) = (origin, origin.base);
        self.heads = [[0; 8]; 2];
        self.index.reset(origin.base);
    }

    /// Takes over what another tail knows, in place: it is too large for a thread's stack. Of the places of records
    /// before `from` nothing is taken over: one of those would be looked for from the beginning of the log.
    pub fn copy_from(&mut self, other: &LogTail, from: Lsn) {
        self.set_summary(&other.summary());
        (self.saved, self.durable) = (other.saved, other.durable);
        self.index.copy_from(&other.index, from);
    }

    pub(super) fn summary(&self) -> Summary {
        let LogTail { len, last, history, origin, last_at, heads, .. } = *self;
        Summary { origin, len, last, history, last_at, heads }
    }

    pub(super) fn set_summary(&mut self, summary: &Summary) {
        let Summary { origin, len, last, history, last_at, heads } = *summary;
        (self.origin, self.len, self.last, self.history) = (origin, len, last, history);
        (self.last_at, self.heads, self.saved) = (last_at, heads, last);
    }

    pub(super) fn index(&self) -> &SparseIndex {
        &self.index
    }

    pub(super) fn index_mut(&mut self) -> &mut SparseIndex {
        &mut self.index
    }

    /// Where the last whole record ends: the file's length, if it ends well.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len <= self.origin.first().offset
    }

    /// LSN of the last record; [`Lsn::ZERO`] for an empty log.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// LSN before the first record that the file has.
    #[must_use]
    pub fn base(&self) -> Lsn {
        self.origin.base
    }

    /// Where the log begins.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What the log has been through up to its last record.
    #[must_use]
    pub fn history(&self) -> History {
        self.history
    }

    /// Everything that the log has, as a checkpoint of it says it.
    #[must_use]
    pub fn covered(&self) -> Covered {
        Covered { offset: self.len, lsn: self.last, history: self.history }
    }

    /// What the log has before byte `offset`; `None` if no record begins or ends there.
    pub fn covered_before(&self, storage: &impl Storage, offset: u64) -> Result<Option<Covered>> {
        if offset == self.len {
            return Ok(Some(self.covered()));
        }
        let first = self.origin.first();
        if offset < first.offset || offset > self.len {
            return Ok(None);
        }
        let at = scan::walk(storage, self.near_offset(storage, offset)?, |at| at.offset >= offset)?;
        let Some(at) = at.filter(|at| at.offset == offset) else { return Ok(None) };
        let lsn = Lsn(at.lsn.0.saturating_sub(1));
        Ok(self.history_at(storage, lsn)?.map(|history| Covered { offset, lsn, history }))
    }

    /// Where the next record will stand.
    #[must_use]
    pub fn next(&self) -> Position {
        Position { offset: self.len, lsn: self.last.next() }
    }

    /// A place at or shortly before record `lsn`, to walk from.
    pub fn near(&self, storage: &impl Storage, lsn: Lsn) -> Result<Position> {
        if lsn > self.last {
            return Ok(self.next());
        }
        Ok(self.index.floor(storage, lsn)?.map_or(self.origin.first(), |(at, _)| at))
    }

    /// A place at or shortly before byte `offset`, at or behind which the log's first record begins.
    pub fn near_offset(&self, storage: &impl Storage, offset: u64) -> Result<Position> {
        let mut best = self.origin.first();
        // Record numbers and offsets grow together, so the last noted record at or before the offset can be searched.
        let (mut low, mut high) = (best.lsn.0, self.last.0);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let near = self.near(storage, Lsn(middle))?;
            if near.offset <= offset { (low, best) = (middle, near) } else { high = middle - 1 }
        }
        Ok(best)
    }

    /// Where the record behind `lsn` begins or would, the CRC of `lsn` (0 if that record is gone) and the history up to
    /// it; `None` if the log does not have `lsn` and does not begin behind it.
    pub fn place_behind(&self, storage: &impl Storage, lsn: Lsn) -> Result<Option<(Position, u32, History)>> {
        if lsn == self.last && !self.is_empty() {
            return Ok(Some((self.next(), self.last_crc(), self.history)));
        }
        let first = self.origin.first();
        if lsn == self.base() {
            return Ok(Some((first, 0, self.origin.history)));
        }
        if lsn > self.last || lsn < self.base() {
            return Ok(None);
        }
        let (from, mut history) = self.index.floor(storage, lsn)?.unwrap_or((first, self.origin.history));
        let mut crc = [0; 4];
        let walked = scan::walk_heads(
            storage,
            from,
            |at| at.lsn > lsn,
            |head| {
                history = history.then(head);
                crc = *head.first_chunk().unwrap_or(&crc);
            },
        )?;
        Ok(walked.map(|at| (at, u32::from_le_bytes(crc), history)))
    }

    /// What the log has been through up to record `lsn`; `None` if it does not have it and does not end there.
    pub fn history_at(&self, storage: &impl Storage, lsn: Lsn) -> Result<Option<History>> {
        Ok(self.place_behind(storage, lsn)?.map(|(_, _, history)| history))
    }

    /// The CRC of the last record; 0 for an empty log.
    #[must_use]
    pub fn last_crc(&self) -> u32 {
        let [a, b, c, d, ..] = self.heads[1];
        u32::from_le_bytes([a, b, c, d])
    }

    /// Whether the last record has this encoded length and CRC.
    #[must_use]
    pub fn last_is(&self, len: usize, crc: u32) -> bool {
        !self.is_empty() && self.len - self.last_at == len as u64 && self.last_crc() == crc
    }

    /// Brings the state up to date with a log that someone else (a forked child, a second writer) appended to, cut or
    /// replaced. Reads only what is new when the log has grown, and what the index file does not cover when nothing is
    /// known. Returns how the log ends.
    pub fn refresh(&mut self, storage: &impl Storage) -> Result<End> {
        let len = storage.len()?;
        if len == 0 {
            self.reset();
        } else if len < self.len || !self.is_of(storage)? {
            return self.read_anew(storage, len);
        }
        let end = self.read_from_here(storage, len)?;
        self.save_index(storage);
        Ok(end)
    }

    fn read_anew(&mut self, storage: &impl Storage, len: u64) -> Result<End> {
        self.begin(origin::of(storage)?);
        let end = match self.read_behind_index(storage, len)? {
            Some(end) => end,
            None => self.read_from_here(storage, len)?,
        };
        if let Err(error) = meta::check(storage, self) {
            self.reset();
            return Err(error);
        }
        self.save_index(storage);
        Ok(end)
    }

    /// Reads what the index file does not cover. `None`, and nothing is known: there is no index file, it is not about
    /// this log, does not lead to what the note knows, or something behind the last whole record has to be judged.
    fn read_behind_index(&mut self, storage: &impl Storage, len: u64) -> Result<Option<End>> {
        let loaded = index_file::load(self, storage, len)?;
        let note = storage.note()?.and_then(|bytes| Note::decode(&bytes));
        if let (Loaded::Claims, Some(note)) = (loaded, note)
            && (self.len..=len).contains(&note.durable)
        {
            let end = self.read_from_here(storage, note.durable)?;
            if !end.damaged && note.is_same_log(&self.as_noted()) {
                clock::observe(note.newest);
                let end = self.read_from_here(storage, len)?;
                if !end.damaged {
                    return Ok(Some(end));
                }
            }
        }
        if loaded != Loaded::Nothing {
            crate::log_info!("the log's index file does not fit the log: the whole log is read");
        }
        self.begin(self.origin);
        Ok(None)
    }

    /// Makes this the state of a log that begins at `origin`. It may not have its name yet, so no meta file is heeded
    /// and no index file written.
    pub(super) fn rescan(&mut self, storage: &impl Storage, origin: Origin) -> Result<End> {
        self.begin(origin);
        self.read_from_here(storage, storage.len()?)
    }

    fn read_from_here(&mut self, storage: &impl Storage, len: u64) -> Result<End> {
        let from = self.next();
        if from.offset == len {
            return Ok(End { next: from, damaged: false, cut: false });
        }
        let end = scan::scan(storage, from, len, |batch| {
            let mut lsn = batch.first;
            let base = batch.offsets.first().copied().unwrap_or_default();
            for (record, offset) in batch.records.iter().zip(batch.offsets) {
                clock::observe(record.timestamp);
                self.index.note(lsn, *offset, self.history);
                self.history = self.history.then(head_at(batch.encoded, offset - base));
                lsn = lsn.next();
            }
            if let Some(last) = batch.offsets.last() {
                self.note_heads(batch.encoded, base, *last);
            }
            Ok(())
        })?;
        self.len = end.next.offset;
        self.last = end.last();
        Ok(end)
    }

    /// Notes in the log's file that all of it is durable: an fsync has covered it.
    pub fn now_durable(&mut self, storage: &impl Storage) {
        self.durable = self.len;
        self.note(storage, 0);
    }

    /// As [`now_durable`](LogTail::now_durable), of a log that has this note: looking at it changes nothing.
    pub(super) fn open_durable(&mut self, storage: &impl Storage, note: Option<Note>) {
        self.durable = self.len;
        if note.is_none_or(|note| note.writing_to > 0 || !note.is_same_log(&self.as_noted())) {
            self.note(storage, 0);
        }
    }

    /// How many bytes of the log an fsync is known to have covered.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Notes what is durable, and that a write from there to byte `writing_to` begins, or with 0 that none is going on.
    /// If others have written to the log meanwhile what they have noted stands.
    fn note(&self, storage: &impl Storage, writing_to: u64) {
        if self.durable == self.len {
            storage.set_note(&Note { writing_to, ..self.as_noted() }.encode());
        }
    }

    /// The note of this log, all of which is durable.
    #[must_use]
    pub fn as_noted(&self) -> Note {
        let LogTail { len, last, last_at, heads: [first_head, last_head], .. } = *self;
        let newest = clock::newest();
        Note { durable: len, last, writing_to: 0, first_head, last_at, last_head, history: self.history, newest }
    }

    /// Puts `encoded`, whole records, behind the log's end and `ahead` bytes that earlier calls put there, and has the
    /// disk begin with them. They are no part of the log until [`append`](LogTail::append) has made them durable, which
    /// must follow. On failure only these are cut off again.
    pub fn write_ahead(&self, storage: &mut impl Storage, ahead: usize, encoded: &[u8]) -> Result<()> {
        // Where the write ends is not known yet.
        self.write(storage, ahead, encoded, Some(u64::MAX))?;
        if ahead / WRITE_BACK < (ahead + encoded.len()) / WRITE_BACK {
            storage.start_sync(self.len + (ahead / WRITE_BACK * WRITE_BACK) as u64);
        }
        Ok(())
    }

    /// The log must end where this state says, with `ahead` bytes behind it. A write that begins with these bytes is
    /// noted first if it has `noted_to`, where it ends: a crash may leave it with a hole, and whole records behind.
    fn write(&self, storage: &mut impl Storage, ahead: usize, encoded: &[u8], noted_to: Option<u64>) -> Result<()> {
        let before = self.len + ahead as u64;
        // More than our records: a torn one that could not be cut, or somebody else's. Behind it nothing would be
        // found.
        let len = storage.len_to_append().map_err(|error| match error.raw_os_error() {
            Some(libc::ESTALE) => Error::Gone,
            _ => Error::Io(error),
        })?;
        if len != before {
            return Err(Error::Damaged { offset: self.len, after: self.last });
        }
        let noted_to = noted_to.filter(|_| ahead == 0);
        if let Some(end) = noted_to {
            self.note(storage, end);
        }
        if let Err(failed) = storage.append(encoded) {
            roll_back(storage, before, failed.written);
            if noted_to.is_some() {
                self.note(storage, 0);
            }
            return Err(failed.error.into());
        }
        Ok(())
    }

    /// Appends `encoded`, which holds `ends.len()` whole records (`ends` are their ends, counted from its beginning),
    /// and returns when all of it is durable. The first `ahead` bytes are there: [`write_ahead`](LogTail::write_ahead)
    /// has put them there.
    ///
    /// The log must end where this state says, or nothing is written ([`Error::Damaged`]). A failed write is rolled
    /// back to the size that the file had before (only if nothing else grew it) and the next append may succeed. A
    /// failed sync rolls back all and is [`Failure::Sync`]: the caller must latch.
    pub fn append(
        &mut self,
        storage: &mut impl Storage,
        ahead: usize,
        encoded: &[u8],
        ends: &[usize],
    ) -> std::result::Result<Lsn, Failure> {
        if ends.is_empty() {
            return Ok(self.last);
        }
        let end = self.len + encoded.len() as u64;
        let noted_to = (ends.len() > 1 || encoded.len() > PAGE).then_some(end);
        let rest = encoded.get(ahead..).unwrap_or_default();
        if let Err(error) = self.write(storage, ahead, rest, noted_to) {
            // What was written ahead would be taken for somebody else's records.
            roll_back(storage, self.len, ahead as u64);
            if ahead > 0 {
                self.note(storage, 0);
            }
            return Err(Failure::Write(error));
        }
        if let Err(error) = storage.sync() {
            roll_back(storage, self.len, encoded.len() as u64);
            self.note(storage, 0);
            return Err(Failure::Sync(error.into()));
        }
        if storage.len().is_ok_and(|len| len != end) {
            return Err(Failure::Mixed);
        }
        let (mut start, mut last_at) = (0, self.len);
        for end in ends {
            self.last = self.last.next();
            last_at = self.len + start as u64;
            self.index.note(self.last, last_at, self.history);
            self.history = self.history.then(head_at(encoded, start as u64));
            start = *end;
        }
        self.note_heads(encoded, self.len, last_at);
        self.len = end;
        self.now_durable(storage);
        self.save_index(storage);
        Ok(self.last)
    }

    /// Writes the index file anew when the log has grown far beyond it. It can be lost, so a failure is none.
    pub(super) fn save_index(&mut self, storage: &impl Storage) {
        if self.last.since(self.saved) >= index_file::INTERVAL {
            self.saved = self.last;
            if let Err(error) = index_file::save(self, storage) {
                crate::log_info!("the log's index file was not written: {error}");
            }
        }
    }

    /// Notes how the first and the last record begin. `encoded` begins at byte `first` of the log.
    fn note_heads(&mut self, encoded: &[u8], first: u64, last: u64) {
        if first == self.origin.first().offset {
            self.heads[0] = head_at(encoded, 0);
        }
        self.heads[1] = head_at(encoded, last - first);
        self.last_at = last;
    }

    /// Whether `storage` begins, and goes on at the last record, as this state says.
    fn is_of(&self, storage: &impl Storage) -> Result<bool> {
        Ok(!self.is_empty() && origin::of(storage)? == self.origin && self.summary().is_of(storage)?)
    }
}

impl Summary {
    /// Whether the first and the last record that it covers begin in `storage` as it says.
    pub(super) fn is_of(&self, storage: &impl Storage) -> Result<bool> {
        for (at, head) in [(self.origin.first().offset, self.heads[0]), (self.last_at, self.heads[1])] {
            let mut there = [0; 8];
            if storage.read_at(&mut there, at)? < there.len() || there != head {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The first 8 bytes of the record at byte `at` of `encoded`.
fn head_at(encoded: &[u8], at: u64) -> [u8; 8] {
    let start = usize::try_from(at).unwrap_or(usize::MAX);
    encoded.get(start..).and_then(|rest| rest.first_chunk::<8>()).copied().unwrap_or_default()
}

/// An append that failed; the log is what it was, or is not known.
#[derive(Debug)]
pub enum Failure {
    /// Before anything was made durable: the next append may succeed.
    Write(Error),
    /// In fsync: what the disk holds is unknown until the log is opened again.
    Sync(Error),
    /// All is durable, but somebody else has written to the log at the same time: where the records stand has to be
    /// looked for.
    Mixed,
}

fn roll_back(storage: &mut impl Storage, before: u64, written: u64) {
    // Somebody else's bytes behind ours must stay; then our torn record stays too and the next open judges it.
    match storage.len() {
        Ok(len) if written > 0 && len == before + written => {
            if let Err(error) = storage.truncate(before) {
                crate::log_error!("wal: cannot cut a failed append back to offset {before}: {error}");
            }
        }
        Ok(_) => {}
        Err(error) => crate::log_error!("wal: cannot read the log's size after a failed append: {error}"),
    }
}
