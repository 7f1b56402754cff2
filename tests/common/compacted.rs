//! Compacted logs, and what must hold of each of them.

use super::{Log, Write, file_with, names_in, temp_dir};
use logship::kv::table::Store;
use logship::storage::file;
use logship::types::History;
use logship::wal::checkpoint::{self, Covered};
use logship::wal::compact::Retention;
use logship::wal::origin::{self, Origin};
use logship::{Lsn, Wal, wal};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(crate) const ALL: Retention = Retention { records: 0, bytes: 0, follower_bytes: 0 };

/// Record `lsn` of every log here: keys come again, some are deleted, sizes differ so that a wrong offset shows.
pub(crate) fn write(lsn: usize) -> Write {
    let key = format!("key-{}", lsn % 5).into_bytes();
    if lsn.is_multiple_of(7) {
        return Write::del(&key, lsn as u64);
    }
    Write::set(&key, format!("{lsn}").repeat(1 + lsn % 4).as_bytes(), lsn as u64)
}

pub(crate) fn log_of(count: usize) -> Log {
    Log::new((1..=count).map(write).collect())
}

/// Records that are all the same, as a program makes them that knows no time stamps.
pub(crate) fn monotonous(count: usize) -> Log {
    Log::new(vec![Write::set(b"tick", b"tock", 0); count])
}

/// What a log has been through after its first `count` records.
pub(crate) fn history_of(log: &Log, count: usize) -> History {
    let starts = (0..count).map(|record| log.end_of(record));
    starts.fold(History::EMPTY, |history, at| history.then(*log.bytes[at..].first_chunk().unwrap()))
}

pub(crate) fn covered(log: &Log, count: usize) -> Covered {
    Covered { offset: log.end_of(count) as u64, lsn: Lsn(count as u64), history: history_of(log, count) }
}

/// Writes the checkpoint of the first `count` records.
pub(crate) fn checkpoint(log: &Log, count: usize, path: &Path) {
    checkpoint::write(&log.store_of(count), path, covered(log, count)).unwrap();
}

/// A directory with the log `wal` in it, and in `wal.ckpt` a checkpoint of its first `count` records.
pub(crate) fn directory_with(log: &Log, count: usize) -> (TempDir, PathBuf) {
    let directory = temp_dir();
    let path = file_with(&directory, "wal", &log.bytes);
    checkpoint(log, count, &beside(&path, ".ckpt"));
    (directory, path)
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    file::beside(path, suffix)
}

/// The same, compacted: the log begins after LSN `count - 1`.
pub(crate) fn compacted(log: &Log, count: usize) -> (TempDir, PathBuf) {
    let (directory, path) = directory_with(log, count);
    Wal::open(&path).unwrap().compact(beside(&path, ".ckpt"), &ALL, None).unwrap();
    (directory, path)
}

/// What stands in front of the records of a log that begins later.
pub(crate) fn marker_of(log: &Log, base: usize) -> Vec<u8> {
    Origin { base: Lsn(base as u64), history: history_of(log, base) }.marker()
}

/// The bytes of a log without what stands in front of the first record.
pub(crate) fn records_of(path: &Path) -> Vec<u8> {
    let first = origin::of(&file::open_read(path).unwrap()).unwrap().first();
    std::fs::read(path).unwrap().split_off(usize::try_from(first.offset).unwrap())
}

/// The log at `path` is `log` without its first `base` records, and says so whoever asks.
pub(crate) fn is_whole(path: &Path, log: &Log, base: usize, what: &str) {
    let last = log.writes.len();
    let wal = Wal::open(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (storage, tail) = (file::open_read(path).unwrap(), wal.tail());
    assert_eq!((wal.base_lsn(), wal.last_lsn()), (Lsn(base as u64), Lsn(last as u64)), "{what}");
    assert_eq!(records_of(path), log.bytes[log.end_of(base)..], "{what}: the records");
    assert_eq!(tail.history(), history_of(log, last), "{what}: the history");
    for lsn in 0..=last + 1 {
        let expected = (base..=last).contains(&lsn).then(|| history_of(log, lsn));
        assert_eq!(tail.history_at(&storage, Lsn(lsn as u64)).unwrap(), expected, "{what}: history at {lsn}");
    }
    for lsn in base + 1..=last {
        let record =
            wal::read_record(&storage, wal.tail().near(&storage, Lsn(lsn as u64)).unwrap(), Lsn(lsn as u64)).unwrap();
        assert_eq!(record, log.bytes[log.end_of(lsn - 1)..log.end_of(lsn)], "{what}: record {lsn}");
    }
    drop(wal);
    recovers(path, log, what);
}

/// Recovery, with the checkpoint beside the log named and found, gives the store that all of `log` builds.
pub(crate) fn recovers(path: &Path, log: &Log, what: &str) {
    let (mut found, mut named) = (Store::new(), Store::new());
    wal::recover(path, &mut found).unwrap_or_else(|error| panic!("{what}: {error}"));
    wal::recover_with_checkpoint(path, &beside(path, ".ckpt"), &mut named).unwrap();
    let expected = log.store_of(log.writes.len());
    assert_eq!(found, expected, "{what}: recover");
    assert_eq!(named, expected, "{what}: recover_with_checkpoint");
}

/// Appends the next record and checks everything again: LSNs go on.
pub(crate) fn goes_on(path: &Path, log: &Log, base: usize, what: &str) {
    let next = log.writes.len() + 1;
    let more = Log::new(log.writes.iter().cloned().chain([write(next)]).collect());
    let mut wal = Wal::open(path).unwrap();
    assert_eq!(wal.append(&write(next).record()).unwrap(), Lsn(next as u64), "{what}");
    drop(wal);
    is_whole(path, &more, base, &format!("{what}, with one record more"));
}

/// Everything in a directory: names and bytes.
pub(crate) fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(directory.join(name)).unwrap());
    names_in(directory).into_iter().map(read).collect()
}

/// Makes a directory what it was.
pub(crate) fn restore(directory: &Path, content: &[(String, Vec<u8>)]) {
    for name in names_in(directory) {
        std::fs::remove_file(directory.join(name)).unwrap();
    }
    for (name, bytes) in content {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
}
