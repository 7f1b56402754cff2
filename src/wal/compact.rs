//! A log whose first records are dropped, or that begins anew behind a snapshot: another file under the same name.
//!
//! Which records may go is decided from numbers ([`keep_from`]). The new file, which says in front where it begins, is
//! written and fsynced under a temporary name, then `<wal>.meta` is made to fit both, then the new file takes the old
//! one's place. A crash before the rename(2) leaves the old log, one after it the new log.
#![forbid(unsafe_code)]

use super::checkpoint::{self, Covered};
use super::index_file;
use super::meta::{self, Entry};
use super::note::Note;
use super::origin::Origin;
use super::scan;
use super::tail::LogTail;
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage, Temporary};
use crate::types::Lsn;
use std::cell::Cell;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// What a log keeps although a checkpoint covers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// At least so many of its last records.
    pub records: u64,
    /// At least so many bytes of its last records.
    pub bytes: u64,
    /// What the slowest follower online has not acknowledged, if that is no more than so many bytes.
    pub follower_bytes: u64,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Records dropped.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The LSN before the first record that is left.
    pub base: Lsn,
}

/// The LSN before the first record that stays.
///
/// The last record that the checkpoint covers stays too: its log is never empty, and a follower that gets the
/// checkpoint gets this record with it. `at_bytes` is the last LSN behind which the retained bytes lie; `slowest` the
/// LSN that the slowest follower online has acknowledged, if it is to be waited for.
#[must_use]
pub fn keep_from(covered: Lsn, last: Lsn, keep: &Retention, at_bytes: Lsn, slowest: Option<Lsn>) -> Lsn {
    let before_covered = covered.0.min(last.0).saturating_sub(1);
    let by_records = last.0.saturating_sub(keep.records);
    let by_follower = slowest.map_or(u64::MAX, |lsn| lsn.0);
    Lsn(before_covered.min(by_records).min(by_follower).min(at_bytes.0))
}

/// Finds what a compaction would drop; 0 records: nothing.
pub fn plan(
    checkpoint_path: &Path,
    storage: &impl Storage,
    tail: &LogTail,
    keep: &Retention,
    slowest: Option<Lsn>,
) -> Result<Compacted> {
    let covered = covered_by(checkpoint_path, storage, tail)?;
    let offset_behind =
        |lsn: Lsn| -> Result<u64> { Ok(tail.place_behind(storage, lsn)?.map_or(0, |(at, ..)| at.offset)) };
    let at_bytes = lsn_before_bytes(storage, tail, keep.bytes)?;
    let slowest = match slowest {
        // One that is behind the log's beginning lacks all that the log has, and more.
        Some(lsn) if tail.len().saturating_sub(offset_behind(lsn.max(tail.base()))?) > keep.follower_bytes => None,
        other => other,
    };
    let base = keep_from(covered, tail.last(), keep, at_bytes, slowest);
    if base <= tail.base() {
        return Ok(Compacted { base: tail.base(), ..Compacted::default() });
    }
    let bytes = offset_behind(base)? - tail.origin().first().offset;
    Ok(Compacted { records: base.since(tail.base()), bytes, base })
}

/// Reads a checkpoint and finds which of this log's records it covers. One that is damaged, says no LSN (a lesson's),
/// or was taken from another log is refused. An offset alone won't do, though it means something in a whole log: in the
/// compacted one it means nothing, and no recovery could use the checkpoint.
pub fn covered_by(checkpoint_path: &Path, storage: &impl Storage, tail: &LogTail) -> Result<Lsn> {
    let Covered { lsn, history, .. } = checkpoint::open(checkpoint_path)?.covered;
    if lsn == Lsn::ZERO {
        return Err(Error::Malformed("the checkpoint does not say which records it covers"));
    }
    if lsn > tail.last() {
        let last = tail.last();
        return Err(Error::WrongFiles(format!("the checkpoint covers LSN {lsn}, and the log ends with LSN {last}")));
    }
    if lsn >= tail.base() && tail.history_at(storage, lsn)? != Some(history) {
        return Err(Error::Malformed("the checkpoint was taken from another log"));
    }
    Ok(lsn)
}

/// The last LSN behind which at least `bytes` bytes of records lie; [`Lsn::ZERO`] if the log has not so many.
pub fn lsn_before_bytes(storage: &impl Storage, tail: &LogTail, bytes: u64) -> Result<Lsn> {
    let first = tail.origin().first();
    let limit = tail.len().checked_sub(bytes).filter(|limit| *limit >= first.offset);
    let Some(limit) = limit else { return Ok(Lsn::ZERO) };
    let near = tail.near_offset(storage, limit)?;
    // The record before which the walk goes past the limit.
    let before = Cell::new(near.lsn);
    scan::walk(storage, near, |at| {
        if at.offset <= limit {
            before.set(at.lsn);
        }
        at.offset > limit || at.lsn > tail.last()
    })?;
    Ok(Lsn(before.get().0.saturating_sub(1)))
}

/// Drops the records up to `base` of the log at `path`, which `tail` knows and `storage` reads. `tail` is about the new
/// file then, which is returned open for appending.
pub fn drop_front<F: AsFd>(path: &Path, storage: &FileStorage<F>, tail: &mut LogTail, base: Lsn) -> Result<File> {
    let damage = Error::Damaged { offset: tail.near(storage, base)?.offset, after: base };
    let (from, _, history) = tail.place_behind(storage, base)?.ok_or(damage)?;
    let (end, last, through) = (tail.len(), tail.last(), tail.history());
    let file = replace(path, storage, tail, Origin { base, history }, |new| {
        file::copy_range(storage, from.offset..end, new)?;
        Ok(())
    })?;
    debug_assert!((tail.last(), tail.history()) == (last, through), "the records are the same");
    Ok(file)
}

/// Puts a log that begins at `origin` in the place of the one at `path`; `fill` writes its records.
pub fn replace<F: AsFd>(
    path: &Path,
    storage: &FileStorage<F>,
    tail: &mut LogTail,
    origin: Origin,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<File> {
    let expected = (!tail.is_empty()).then(|| (tail.last(), tail.history()));
    let mut temporary = Temporary::create(path, file::model_of(&[path]))?;
    let replaced = (|| {
        // Which the old log has too, unless the new one is of another past.
        let begin = Entry { lsn: origin.base, history: origin.history };
        let end = Entry { lsn: tail.last(), history: tail.history() };
        let is_shared = tail.is_empty() || tail.history_at(storage, origin.base)? == Some(origin.history);
        file::write_all(temporary.file(), &origin.marker())?;
        fill(temporary.file())?;
        temporary.file().sync_all()?;
        let reader = file::open_read(temporary.name())?;
        let scanned = tail.rescan(&reader, origin)?;
        let is_same = expected.is_none_or(|(last, history)| tail.last() != last || tail.history() == history);
        if scanned.damaged || !is_same {
            return Err(Error::Damaged { offset: scanned.next.offset, after: scanned.last() });
        }
        tail.now_durable(&reader);
        let entries = if is_shared { vec![begin] } else { vec![end, begin] };
        meta::save(path, &entries)?;
        let appender = file::open_append(temporary.name())?;
        temporary.rename(path)?;
        file::sync_directory_of(path)?;
        file::discard(&file::beside(path, index_file::SUFFIX)); // The old log's.
        tail.save_index(&reader);
        // The log is the new one already, and fits the meta file as it is.
        if let Err(error) = meta::settle(path, &reader, tail) {
            crate::log_warn!("{}: its meta file keeps an entry that is not needed: {error}", path.display());
        }
        Ok(appender)
    })();
    if replaced.is_err() {
        // What is known of the log that is there is read again.
        tail.reset();
        tail.refresh(storage)?;
    }
    replaced
}

/// Drops every record after `lsn` from the log at `path`, which `tail` knows. The bytes are kept in `<path>.cut-N`,
/// whose name is returned; `None`: there are none. A record must be left of a log that was compacted, since an empty
/// one begins with record 1.
pub fn truncate_to<F: AsFd>(
    path: &Path,
    reader: &impl Storage,
    writer: &mut FileStorage<F>,
    tail: &mut LogTail,
    lsn: Lsn,
) -> Result<Option<std::path::PathBuf>> {
    let is_gone = lsn <= tail.base() && tail.base() > Lsn::ZERO;
    if is_gone || lsn > tail.last() {
        return Err(Error::OutOfRange { lsn, base: tail.base(), last: tail.last() });
    }
    if lsn == tail.last() && reader.len()? == tail.len() {
        // Of one that somebody else has cut: that is the log from now on.
        writer.sync()?;
        tail.now_durable(reader);
        return Ok(None);
    }
    let damage = Error::Damaged { offset: tail.near(reader, lsn)?.offset, after: lsn };
    let (at, ..) = tail.place_behind(reader, lsn)?.ok_or(damage)?;
    // A compaction that a crash has cut short may have left a record there that is about to be cut.
    meta::settle(path, reader, tail)?;
    let kept = file::save_tail(path, "cut", reader, at.offset)?;
    forget_durable(reader).inspect_err(|_| file::discard(&kept))?;
    writer.truncate(at.offset)?;
    writer.sync()?;
    tail.reset();
    tail.refresh(reader)?;
    tail.now_durable(reader);
    Ok(Some(kept))
}

/// From here on nothing is known durable: a log that is cut on purpose must not be refused for being shorter.
fn forget_durable(storage: &impl Storage) -> Result<()> {
    let nothing = Note::default().encode();
    storage.set_note(&nothing);
    if storage.note()?.is_some_and(|there| there != nothing) {
        return Err(Error::Io(std::io::Error::from_raw_os_error(libc::EIO)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays() {
        let keep = Retention { records: 10, bytes: 0, follower_bytes: 0 };
        let all = Lsn(u64::MAX);
        assert_eq!(
            keep_from(Lsn(100), Lsn(200), &Retention::default(), all, None),
            Lsn(99),
            "the last covered one too"
        );
        assert_eq!(keep_from(Lsn(200), Lsn(200), &keep, all, None), Lsn(190));
        assert_eq!(keep_from(Lsn(200), Lsn(200), &keep, Lsn(150), None), Lsn(150));
        assert_eq!(keep_from(Lsn(200), Lsn(200), &keep, all, Some(Lsn(77))), Lsn(77));
        assert_eq!(keep_from(Lsn(0), Lsn(200), &keep, all, None), Lsn(0));
        assert_eq!(keep_from(Lsn(500), Lsn(200), &Retention::default(), all, None), Lsn(199));
        assert_eq!(keep_from(Lsn(5), Lsn(5), &keep, all, None), Lsn(0));
    }
}
