//! Logs whose first records are dropped: LSNs, history and store stay what they were, whatever is damaged, missing or
//! left half done by a crash; what stays by the retention rule; which checkpoints are refused; cutting a log's end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Log, Write, file_with, names_in, quiet, store_of, temp_dir};
use logship::kv::table::Store;
use logship::storage::Storage;
use logship::storage::file::{self, FileStorage};
use logship::types::History;
use logship::wal::checkpoint::{self, Covered};
use logship::wal::compact::Retention;
use logship::wal::meta::{self, Origin};
use logship::wal::scan::Position;
use logship::wal::snapshot::{Incoming, Snapshot};
use logship::wal::tail::LogTail;
use logship::{Error, Lsn, Wal, wal};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const ALL: Retention = Retention { records: 0, bytes: 0, follower_bytes: 0 };

/// Record `lsn` of every log here: keys come again, some are deleted, sizes differ so that a wrong offset shows.
fn write(lsn: usize) -> Write {
    let key = format!("key-{}", lsn % 5).into_bytes();
    if lsn.is_multiple_of(7) {
        return Write::del(&key, lsn as u64);
    }
    Write::set(&key, format!("{lsn}").repeat(1 + lsn % 4).as_bytes(), lsn as u64)
}

fn log_of(count: usize) -> Log {
    Log::new((1..=count).map(write).collect())
}

/// Records that are all the same, as a program makes them that knows no time stamps.
fn monotonous(count: usize) -> Log {
    Log::new(vec![Write::set(b"tick", b"tock", 0); count])
}

/// What a log has been through after its first `count` records.
fn history_of(log: &Log, count: usize) -> History {
    let starts = (0..count).map(|record| log.end_of(record));
    starts.fold(History::EMPTY, |history, at| history.then(*log.bytes[at..].first_chunk().unwrap()))
}

fn covered(log: &Log, count: usize) -> Covered {
    Covered { offset: log.end_of(count) as u64, lsn: Lsn(count as u64), history: history_of(log, count) }
}

/// Writes the checkpoint of the first `count` records.
fn checkpoint(log: &Log, count: usize, path: &Path) {
    checkpoint::write(&log.store_of(count), path, covered(log, count)).unwrap();
}

/// A directory with the log `wal` in it, and in `wal.ckpt` a checkpoint of its first `count` records.
fn directory_with(log: &Log, count: usize) -> (TempDir, PathBuf) {
    let directory = temp_dir();
    let path = file_with(&directory, "wal", &log.bytes);
    checkpoint(log, count, &beside(&path, ".ckpt"));
    (directory, path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    file::beside(path, suffix)
}

/// The same, compacted: the log begins after LSN `count - 1`.
fn compacted(log: &Log, count: usize) -> (TempDir, PathBuf) {
    let (directory, path) = directory_with(log, count);
    Wal::open(&path).unwrap().compact(beside(&path, ".ckpt"), &ALL, None).unwrap();
    (directory, path)
}

/// The log at `path` is `log` without its first `base` records, and says so whoever asks.
fn is_whole(path: &Path, log: &Log, base: usize, what: &str) {
    let last = log.writes.len();
    let wal = Wal::open(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (storage, tail) = (file::open_read(path).unwrap(), wal.tail());
    assert_eq!((wal.base_lsn(), wal.last_lsn()), (Lsn(base as u64), Lsn(last as u64)), "{what}");
    assert_eq!(std::fs::read(path).unwrap(), log.bytes[log.end_of(base)..], "{what}: the records");
    assert_eq!(tail.history(), history_of(log, last), "{what}: the history");
    for lsn in 0..=last + 1 {
        let expected = (base..=last).contains(&lsn).then(|| history_of(log, lsn));
        assert_eq!(tail.history_at(&storage, Lsn(lsn as u64)).unwrap(), expected, "{what}: history at {lsn}");
    }
    for lsn in base + 1..=last {
        let record = wal::read_record(&storage, wal.near(Lsn(lsn as u64)), Lsn(lsn as u64)).unwrap();
        assert_eq!(record, log.bytes[log.end_of(lsn - 1)..log.end_of(lsn)], "{what}: record {lsn}");
    }
    drop(wal);
    recovers(path, log, what);
}

/// Recovery, with the checkpoint beside the log named and found, gives the store that all of `log` builds.
fn recovers(path: &Path, log: &Log, what: &str) {
    let (mut found, mut named) = (Store::new(), Store::new());
    wal::recover(path, &mut found).unwrap_or_else(|error| panic!("{what}: {error}"));
    wal::recover_with_checkpoint(path, &beside(path, ".ckpt"), &mut named).unwrap();
    let expected = log.store_of(log.writes.len());
    assert_eq!(found, expected, "{what}: recover");
    assert_eq!(named, expected, "{what}: recover_with_checkpoint");
}

/// Appends the next record and checks everything again: LSNs go on.
fn goes_on(path: &Path, log: &Log, base: usize, what: &str) {
    let next = log.writes.len() + 1;
    let more = Log::new(log.writes.iter().cloned().chain([write(next)]).collect());
    let mut wal = Wal::open(path).unwrap();
    assert_eq!(wal.append(&write(next).record()).unwrap(), Lsn(next as u64), "{what}");
    drop(wal);
    is_whole(path, &more, base, &format!("{what}, with one record more"));
}

/// Everything in a directory: names and bytes.
fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(directory.join(name)).unwrap());
    names_in(directory).into_iter().map(read).collect()
}

#[test]
fn a_compacted_log_has_the_same_lsns_history_and_store_and_goes_on() {
    quiet();
    for (log, kind) in [(log_of(12), "stamped"), (monotonous(12), "all the same")] {
        for count in 1..=12 {
            let what = format!("{kind}, {count} covered");
            let (directory, path) = directory_with(&log, count);
            let mut wal = Wal::open(&path).unwrap();
            let done = wal.compact(beside(&path, ".ckpt"), &ALL, None).unwrap();
            let dropped = count - 1;
            assert_eq!((done.records, done.bytes), (dropped as u64, log.end_of(dropped) as u64), "{what}");
            assert_eq!((done.base, wal.base_lsn()), (Lsn(dropped as u64), Lsn(dropped as u64)), "{what}");
            assert_eq!((wal.last_lsn(), wal.len()), (Lsn(12), (log.bytes.len() - log.end_of(dropped)) as u64));
            // The writer that was open goes on in the new file.
            let more = Log::new(log.writes.iter().cloned().chain([write(13)]).collect());
            assert_eq!(wal.append(&write(13).record()).unwrap(), Lsn(13), "{what}");
            assert!(matches!(Wal::open(&path), Err(Error::Locked)), "{what}: the new file is locked too");
            drop(wal);
            is_whole(&path, &more, dropped, &what);
            goes_on(&path, &more, dropped, &what);
            let expected: &[&str] = if dropped == 0 { &["wal", "wal.ckpt"] } else { &["wal", "wal.ckpt", "wal.meta"] };
            assert_eq!(names_in(directory.path()), expected, "{what}");
        }
    }
}

#[test]
fn a_log_is_compacted_again_and_again_and_a_checkpoint_of_what_is_gone_drops_nothing() {
    quiet();
    let (_directory, path) = directory_with(&log_of(3), 3);
    let mut wal = Wal::open(&path).unwrap();
    for last in 4..40 {
        wal.append(&write(last).record()).unwrap();
        let log = log_of(last);
        if last % 3 == 0 {
            checkpoint(&log, last - 1, &beside(&path, ".ckpt"));
            assert_eq!(wal.compact(beside(&path, ".ckpt"), &ALL, None).unwrap().base, Lsn(last as u64 - 2));
            let old = beside(&path, ".old");
            for gone in [1, last - 3, last - 2] {
                checkpoint(&log, gone, &old);
                let before = std::fs::read(&path).unwrap();
                let done = wal.compact(&old, &ALL, None).unwrap();
                assert_eq!((done.records, done.base), (0, Lsn(last as u64 - 2)));
                assert_eq!(std::fs::read(&path).unwrap(), before);
            }
            std::fs::remove_file(old).unwrap();
            drop(wal);
            is_whole(&path, &log, last - 2, &format!("up to {last}"));
            wal = Wal::open(&path).unwrap();
        }
    }
}

/// The LSN before the first record that must stay, from the words of the rule alone.
fn expected_base(log: &Log, base: usize, count: usize, keep: &Retention, slowest: Option<u64>) -> usize {
    let (last, len) = (log.writes.len(), log.bytes.len() - log.end_of(base));
    let behind = |lsn: usize| (log.bytes.len() - log.end_of(lsn.max(base))) as u64;
    let of_bytes = (base..=last).rev().find(|lsn| behind(*lsn) >= keep.bytes).unwrap_or(base);
    let of_records = last.saturating_sub(usize::try_from(keep.records).unwrap());
    let slowest = slowest.map(|lsn| usize::try_from(lsn).unwrap());
    let of_slowest = slowest.filter(|lsn| behind(*lsn) <= keep.follower_bytes).unwrap_or(last);
    assert_eq!(len as u64, behind(base));
    (count - 1).min(of_bytes).min(of_records).min(of_slowest).max(base)
}

#[test]
fn what_the_retention_rule_keeps() {
    quiet();
    let log = log_of(9);
    let len = log.bytes.len() as u64;
    let ends: Vec<u64> = (0..=9).map(|count| len - log.end_of(count) as u64).collect();
    let sizes = || ends.iter().flat_map(|end| [end.saturating_sub(1), *end, end + 1]);
    let by_records = (0..12).map(|records| (Retention { records, ..ALL }, None));
    let by_bytes = sizes().map(|bytes| (Retention { bytes, ..ALL }, None));
    let followers = (0..=9).flat_map(|slowest| sizes().map(move |bytes| (bytes, slowest)));
    let by_followers = followers.map(|(follower_bytes, lsn)| (Retention { follower_bytes, ..ALL }, Some(lsn)));
    let mixed = [(Retention { records: 3, bytes: ends[5], follower_bytes: ends[4] }, Some(4))];
    let cases: Vec<_> = by_records.chain(by_bytes).chain(by_followers).chain(mixed).collect();
    for (first, count) in [(1, 9), (1, 6), (4, 9)] {
        let base = first - 1;
        let (_directory, path) = compacted(&log, first);
        checkpoint(&log, count, &beside(&path, ".ckpt"));
        let whole = content(path.parent().unwrap());
        for (keep, slowest) in &cases {
            let what = format!("{keep:?}, slowest {slowest:?}, {count} covered, base {base}");
            let expected = expected_base(&log, base, count, keep, *slowest);
            let mut wal = Wal::open(&path).unwrap();
            let done = wal.compact(beside(&path, ".ckpt"), keep, slowest.map(Lsn)).unwrap();
            assert_eq!(done.base, Lsn(expected as u64), "{what}");
            assert_eq!(done.records, (expected - base) as u64, "{what}");
            assert_eq!(std::fs::read(&path).unwrap(), log.bytes[log.end_of(expected)..], "{what}");
            drop(wal);
            restore(path.parent().unwrap(), &whole);
        }
    }
}

/// Makes a directory what it was.
fn restore(directory: &Path, content: &[(String, Vec<u8>)]) {
    for name in names_in(directory) {
        std::fs::remove_file(directory.join(name)).unwrap();
    }
    for (name, bytes) in content {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
}

#[test]
fn a_checkpoint_that_does_not_stand_for_this_log_drops_nothing() {
    quiet();
    let log = log_of(8);
    for base in [0, 3] {
        let (directory, path) = compacted(&log, base + 1);
        let given = beside(&path, ".given");
        let mut wal = Wal::open(&path).unwrap();
        let mut refused = |what: &str, bytes: Option<&[u8]>| {
            if let Some(bytes) = bytes {
                std::fs::write(&given, bytes).unwrap();
            }
            let before = content(directory.path());
            let error = wal.compact(&given, &ALL, None).map(|done| panic!("{what}: {done:?}")).unwrap_err();
            assert_eq!(error.errno(), libc::EBADMSG, "{what}: {error}");
            assert_eq!(content(directory.path()), before, "{what}");
            assert_eq!((wal.base_lsn(), wal.last_lsn()), (Lsn(base as u64), Lsn(8)), "{what}");
        };
        let other = Log::new((1..=8).map(|lsn| Write { timestamp: lsn as u64 + 1, ..write(lsn) }).collect());
        checkpoint(&other, 6, &given);
        refused("of another log", None);
        checkpoint(&log_of(9), 9, &given);
        refused("covers more than the log", None);
        checkpoint::write(&log.store_of(6), &given, Covered { lsn: Lsn::ZERO, ..covered(&log, 6) }).unwrap();
        refused("does not know its LSN", None);
        checkpoint(&log, 6, &given);
        let whole = std::fs::read(&given).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            refused(&format!("byte {at} damaged"), Some(&damaged));
            if at != lessons_part(&whole) {
                refused(&format!("cut at byte {at}"), Some(&whole[..at]));
            }
        }
        refused("a lesson's, without a trailer", Some(&whole[..lessons_part(&whole)]));
        std::fs::remove_file(&given).unwrap();
        let missing = wal.compact(&given, &ALL, None).unwrap_err();
        assert_eq!(missing.errno(), libc::ENOENT);
        drop(wal);
        is_whole(&path, &log, base, "after all that");
    }
}

/// How many bytes of a checkpoint a lesson's code writes: all before the trailer.
fn lessons_part(checkpoint: &[u8]) -> usize {
    checkpoint.windows(8).position(|window| window == b"LSCK\x01\0\0\0").unwrap()
}

#[test]
fn a_compacted_log_without_the_checkpoint_for_what_is_gone_is_not_recovered() {
    quiet();
    let log = log_of(9);
    let (directory, path) = compacted(&log, 5);
    let (given, kept) = (beside(&path, ".given"), std::fs::read(beside(&path, ".ckpt")).unwrap());
    let mut other = kept.clone();
    other[20] ^= 1;
    let refuses = |what: &str| {
        let before = content(directory.path());
        let mut store = store_of(&[Write::set(b"mine", b"1", 1)]);
        let untouched = store.clone();
        for error in [wal::recover(&path, &mut store), wal::recover_with_checkpoint(&path, &given, &mut store)] {
            let error = error.map(|records| panic!("{what}: {records} records replayed")).unwrap_err();
            assert_eq!(error.errno(), libc::EBADMSG, "{what}: {error}");
        }
        assert_eq!(store, untouched, "{what}: nothing is applied");
        assert_eq!(content(directory.path()), before, "{what}");
    };
    std::fs::remove_file(beside(&path, ".ckpt")).unwrap();
    refuses("none");
    for bytes in [&kept[..lessons_part(&kept)], &kept[..kept.len() - 1], &other, b""] {
        std::fs::write(beside(&path, ".ckpt"), bytes).unwrap();
        std::fs::write(&given, bytes).unwrap();
        refuses("damaged");
    }
    checkpoint(&log, 3, &given);
    checkpoint(&log, 3, &beside(&path, ".ckpt"));
    refuses("covers less than is gone");
    let diverged = Log::new(log.writes[..5].iter().cloned().chain([Write::set(b"x", b"y", 99)]).collect());
    checkpoint(&diverged, 6, &given);
    refuses("of another log");
    let longer =
        Log::new(diverged.writes.iter().cloned().chain((0..20).map(|at| Write::set(b"z", b"z", at))).collect());
    checkpoint(&longer, 26, &given);
    refuses("of another log, which is longer");
    // Any of the two may be the one that fits.
    for good in [&given, &beside(&path, ".ckpt")] {
        for count in 4..=9 {
            checkpoint(&log, count, good);
            let mut store = Store::new();
            let replayed = wal::recover_with_checkpoint(&path, &given, &mut store).unwrap();
            assert_eq!((replayed, store), (9 - count as u64, log.store_of(9)), "{count} covered");
        }
        std::fs::remove_file(good).unwrap();
    }
}

/// Puts back the log that a compaction, or a snapshot, has replaced, as it was when everything but the rename(2) was
/// done. `old` is a hard link to it that was made before.
fn undo_rename(path: &Path, old: &Path) {
    std::fs::rename(path, beside(path, ".tmp-1")).unwrap();
    std::fs::rename(old, path).unwrap();
}

/// Tries each prefix that a crash may leave of a file, and the whole.
fn for_each_prefix(bytes: &[u8], mut visit: impl FnMut(&[u8])) {
    let step = 1 + bytes.len() / 12;
    for len in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
        visit(&bytes[..len]);
    }
}

#[test]
fn a_crash_at_any_step_of_a_compaction_leaves_the_old_log_or_the_new_one() {
    quiet();
    for (log, kind) in [(log_of(10), "stamped"), (monotonous(10), "all the same")] {
        for (base, next) in [(0, 4), (3, 9), (3, 4)] {
            let what = format!("{kind}, base {base} to {next}");
            let (directory, path) = compacted(&log, base + 1);
            checkpoint(&log, next + 1, &beside(&path, ".ckpt"));
            let before = content(directory.path());
            let old = directory.path().join("old");
            std::fs::hard_link(&path, &old).unwrap();
            Wal::open(&path).unwrap().compact(beside(&path, ".ckpt"), &ALL, None).unwrap();
            let (log_bytes, meta_bytes) =
                (std::fs::read(&path).unwrap(), std::fs::read(beside(&path, ".meta")).unwrap());
            // The last step is missing: the new log has its temporary name, the meta file knows both.
            undo_rename(&path, &old);
            is_whole(&path, &log, base, &format!("{what}, before the rename"));
            // The same, and then the compaction is done anew.
            let mut wal = Wal::open(&path).unwrap();
            assert_eq!(wal.compact(beside(&path, ".ckpt"), &ALL, None).unwrap().base, Lsn(next as u64), "{what}");
            drop(wal);
            is_whole(&path, &log, next, &format!("{what}, done again"));
            goes_on(&path, &log, next, &what);
            // A new log that is not whole, or a new meta file that is not, under their temporary names.
            for (name, bytes) in [("wal.tmp-1", &log_bytes), ("wal.meta.tmp-1", &meta_bytes)] {
                for_each_prefix(bytes, |prefix| {
                    restore(directory.path(), &before);
                    std::fs::write(directory.path().join(name), prefix).unwrap();
                    is_whole(&path, &log, base, &format!("{what}, {} bytes of {name}", prefix.len()));
                    goes_on(&path, &log, base, &what);
                });
            }
        }
    }
}

/// A follower that has the first `old` records of another leader's log, and a snapshot of the first `count` of `log`
/// that is ready to be installed. Returns its log's name, the snapshot and the encoded record that goes with it.
fn before_installation(log: &Log, old: &Log, base: usize, count: usize) -> (TempDir, PathBuf, Snapshot, Vec<u8>) {
    let (directory, path) = compacted(old, base + 1);
    let source = directory.path().join("leader");
    checkpoint(log, count, &source);
    let storage = file::open_read(&source).unwrap();
    let snapshot = Snapshot::of(&storage, &checkpoint::verify(&storage).unwrap()).unwrap();
    let bytes = std::fs::read(&source).unwrap();
    std::fs::remove_file(source).unwrap();
    let mut incoming = Incoming::begin(&path, &snapshot).unwrap();
    assert_eq!(incoming.have(), 0);
    incoming.write(0, &bytes).unwrap();
    (directory, path, snapshot, log.bytes[log.end_of(count - 1)..log.end_of(count)].to_vec())
}

fn install(
    path: &Path,
    log: &Log,
    count: usize,
    snapshot: &Snapshot,
    record: &[u8],
    store: &mut Store,
) -> logship::Result<()> {
    let storage = file::open_read(path)?;
    let mut tail = Box::<LogTail>::default();
    tail.refresh(&storage)?;
    let origin = Origin { base: Lsn(count as u64 - 1), history: history_of(log, count - 1) };
    let incoming = Incoming::begin(path, snapshot)?;
    assert_eq!(incoming.have(), snapshot.size, "it is there already");
    incoming.install(path, &storage, &mut tail, origin, record, store)?;
    assert_eq!((tail.last(), tail.history()), (snapshot.lsn, snapshot.history));
    Ok(())
}

/// What the follower had before: its log, and its store by either way of recovery.
#[test]
fn a_crash_at_any_step_of_a_snapshots_installation_leaves_the_old_state_or_the_new_one() {
    quiet();
    let log = log_of(9);
    let other = Log::new((1..=12).map(|lsn| Write { timestamp: lsn as u64 + 1, ..write(lsn) }).collect());
    // Behind the leader, or diverged and longer than the snapshot; compacted before, or not.
    for (old, base) in [(log_of(4), 0), (log_of(4), 2), (other.clone(), 0), (other, 7)] {
        let what = format!("a follower at {} with base {base}", old.writes.len());
        let (directory, path, snapshot, record) = before_installation(&log, &old, base, 8);
        let before = content(directory.path());
        is_whole(&path, &old, base, &format!("{what}, the snapshot is there"));
        let mut store = old.store_of(old.writes.len());
        let link = directory.path().join("old");
        std::fs::hard_link(&path, &link).unwrap();
        install(&path, &log, 8, &snapshot, &record, &mut store).unwrap();
        let new = Log::new(log.writes[..8].to_vec());
        assert_eq!(store, new.store_of(8), "{what}: exactly the leader's store");
        is_whole(&path, &new, 7, &format!("{what}, installed"));
        let after: Vec<_> = content(directory.path()).into_iter().filter(|(name, _)| name != "old").collect();
        // Everything but the renames is done: the old log, with its old checkpoint, is what counts.
        undo_rename(&path, &link);
        let (given, kept) = ("wal.ckpt".to_owned(), beside(&path, ".ckpt"));
        let snapshot_name = before.iter().map(|(name, _)| name).find(|name| name.contains(".snapshot-")).unwrap();
        std::fs::rename(&kept, directory.path().join(snapshot_name)).unwrap();
        std::fs::write(&kept, &before.iter().find(|(name, _)| *name == given).unwrap().1).unwrap();
        is_whole(&path, &old, base, &format!("{what}, before the renames"));
        // It is installed in the second attempt, without a byte of it being sent again.
        let mut store = old.store_of(old.writes.len());
        install(&path, &log, 8, &snapshot, &record, &mut store).unwrap();
        is_whole(&path, &new, 7, &format!("{what}, installed in the second attempt"));
        // The log is renamed, the snapshot not yet: recovery does it.
        for has_old in [true, false] {
            restore(directory.path(), &after);
            std::fs::rename(&kept, directory.path().join(snapshot_name)).unwrap();
            if has_old {
                std::fs::write(&kept, &before.iter().find(|(name, _)| *name == given).unwrap().1).unwrap();
            }
            let what = format!("{what}, between the renames, old checkpoint: {has_old}");
            is_whole(&path, &new, 7, &what);
            assert_eq!(names_in(directory.path()), ["wal", "wal.ckpt", "wal.meta"], "{what}");
            goes_on(&path, &new, 7, &what);
        }
    }
}

#[test]
fn a_meta_file_that_is_damaged_anywhere_is_refused_and_nothing_is_changed() {
    quiet();
    let log = log_of(9);
    let (directory, path) = compacted(&log, 4);
    checkpoint(&log, 7, &beside(&path, ".ckpt"));
    Wal::open(&path).unwrap().compact(beside(&path, ".ckpt"), &ALL, None).unwrap();
    let meta = beside(&path, ".meta");
    let whole = std::fs::read(&meta).unwrap();
    assert_eq!(meta::decode(&whole).unwrap().len(), 2);
    let refuses = |bytes: &[u8], what: &str| {
        std::fs::write(&meta, bytes).unwrap();
        let before = content(directory.path());
        let mut store = Store::new();
        let opened = Wal::open(&path).map(|wal| panic!("{what}: opened, LSN {}", wal.last_lsn())).unwrap_err();
        let recovered = wal::recover(&path, &mut store).map(|records| panic!("{what}: {records}")).unwrap_err();
        let named = wal::recover_with_checkpoint(&path, &beside(&path, ".ckpt"), &mut store).unwrap_err();
        for error in [opened, recovered, named] {
            assert_eq!(error.errno(), libc::EBADMSG, "{what}: {error}");
        }
        assert!(store.is_empty(), "{what}");
        assert_eq!(content(directory.path()), before, "{what}");
    };
    for at in 0..whole.len() {
        for mask in [0x01, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= mask;
            refuses(&damaged, &format!("byte {at}"));
        }
        refuses(&whole[..at], &format!("cut at byte {at}"));
    }
    refuses(&[&whole[..], b"x"].concat(), "a byte more");
    std::fs::write(&meta, &whole).unwrap();
    goes_on(&path, &log, 6, "the meta file is whole again");
}

#[test]
fn a_damaged_record_never_makes_a_compacted_log_one_that_begins_with_record_1() {
    quiet();
    let log = log_of(4);
    for count in [4, 3] {
        let (directory, path) = compacted(&log, count);
        let whole = std::fs::read(&path).unwrap();
        let first = log.end_of(count) - log.end_of(count - 1);
        for at in 0..first {
            let what = format!("{count} covered, byte {at}");
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, damaged).unwrap(); // In place: the inode is the same.
            let before = content(directory.path());
            let opened = Wal::open(&path).map(|wal| panic!("{what}: opened, LSN {}", wal.last_lsn())).unwrap_err();
            assert_eq!(opened.errno(), libc::EBADMSG, "{what}: {opened}");
            let recovered = wal::recover(&path, &mut Store::new()).map(|records| panic!("{what}: {records}"));
            assert_eq!(recovered.unwrap_err().errno(), libc::EBADMSG, "{what}");
            assert_eq!(content(directory.path()), before, "{what}");
        }
        std::fs::write(&path, whole).unwrap();
        is_whole(&path, &log, count - 1, "as it was");
    }
}

#[test]
fn a_meta_file_of_another_log_is_passed_over() {
    quiet();
    let log = log_of(8);
    let (directory, path) = compacted(&log, 5);
    let (log_bytes, meta) = (std::fs::read(&path).unwrap(), beside(&path, ".meta"));
    let others = [log_of(6), monotonous(6), Log::new(vec![write(3); 4])];
    for (other, how) in others.iter().flat_map(|other| ["removed", "replaced", "copied over"].map(|how| (other, how))) {
        match how {
            // The inode number may be given out again; a log that our `open` creates is empty at first.
            "removed" => {
                std::fs::remove_file(&path).unwrap();
                let mut wal = Wal::open(&path).unwrap();
                assert_eq!((wal.base_lsn(), wal.last_lsn()), (Lsn(0), Lsn(0)));
                for write in &other.writes {
                    wal.append(&write.record()).unwrap();
                }
            }
            "replaced" => {
                std::fs::write(beside(&path, ".new"), &other.bytes).unwrap();
                std::fs::rename(beside(&path, ".new"), &path).unwrap();
            }
            _ => std::fs::write(&path, &other.bytes).unwrap(),
        }
        let wal = Wal::open(&path).unwrap();
        assert_eq!((wal.base_lsn(), wal.last_lsn()), (Lsn(0), Lsn(other.writes.len() as u64)), "{how}");
        drop(wal);
        let mut store = Store::new();
        assert_eq!(wal::recover(&path, &mut store).unwrap(), other.writes.len() as u64, "{how}");
        assert_eq!(store, other.store_of(other.writes.len()), "{how}");
    }
    // The log comes back, without its meta file and with it.
    std::fs::write(&path, &log_bytes).unwrap();
    let kept = directory.path().join("kept");
    let (_other_directory, other_path) = compacted(&log, 5);
    std::fs::copy(beside(&other_path, ".meta"), &kept).unwrap();
    drop(std::fs::remove_file(&meta));
    let wal = Wal::open(&path).unwrap();
    assert_eq!((wal.base_lsn(), wal.last_lsn()), (Lsn(0), Lsn(4)), "nothing says that records are gone");
    drop(wal);
    std::fs::rename(kept, &meta).unwrap();
    goes_on(&path, &log, 4, "the meta file is back");
}

/// Also a log of records that are all alike, made under a name that another such log had, and its inode.
#[test]
fn a_log_that_begins_anew_under_an_old_name_begins_with_record_1() {
    quiet();
    let log = monotonous(8);
    let (_directory, path) = compacted(&log, 5);
    for _ in 0..4 {
        std::fs::remove_file(&path).unwrap();
        let mut wal = Wal::open(&path).unwrap();
        for lsn in 1..=8 {
            assert_eq!(wal.append(&log.writes[0].record()).unwrap(), Lsn(lsn));
        }
        drop(wal);
        is_whole(&path, &log, 0, "anew");
    }
}

/// Copies a log and what stands beside it to another directory, as cp does.
fn copied(directory: &Path) -> (TempDir, PathBuf) {
    let copy = temp_dir();
    for name in names_in(directory) {
        std::fs::copy(directory.join(&name), copy.path().join(&name)).unwrap();
    }
    let path = copy.path().join("wal");
    (copy, path)
}

#[test]
fn a_copy_of_a_compacted_log_is_known_also_after_its_end_was_cut() {
    quiet();
    for (log, kind) in [(log_of(9), "stamped"), (monotonous(9), "all the same")] {
        let (directory, path) = compacted(&log, 4);
        let (copy, copied_path) = copied(directory.path());
        is_whole(&copied_path, &log, 3, &format!("{kind}, a copy"));
        goes_on(&copied_path, &log, 3, &format!("{kind}, a copy"));
        // The copy of a copy, of one that has grown, and of one that has been compacted further.
        let (_second, second_path) = copied(copy.path());
        let more = Log::new(log.writes.iter().cloned().chain([write(10)]).collect());
        is_whole(&second_path, &more, 3, &format!("{kind}, a copy of a copy"));
        // Cut, by hand and by a torn record, shorter than it was when it was compacted; then copied again.
        for last in 4..9 {
            let what = format!("{kind}, a copy cut to {last}");
            let (third, third_path) = copied(directory.path());
            let cut = Log::new(log.writes[..last].to_vec());
            Wal::open(&third_path).unwrap().truncate_to(Lsn(last as u64)).unwrap().unwrap();
            is_whole(&third_path, &cut, 3, &what);
            let (_fourth, fourth_path) = copied(third.path());
            is_whole(&fourth_path, &cut, 3, &format!("{what}, copied"));
            goes_on(&third_path, &cut, 3, &what);
        }
        let (_fifth, fifth_path) = copied(directory.path());
        let mut bytes = std::fs::read(&fifth_path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&fifth_path, bytes).unwrap();
        drop(Wal::open(&fifth_path).unwrap());
        is_whole(&fifth_path, &Log::new(log.writes[..8].to_vec()), 3, &format!("{kind}, a copy with a torn tail"));
    }
}

#[test]
fn a_log_is_cut_to_any_lsn_that_it_has_and_the_cut_bytes_are_kept() {
    quiet();
    let log = log_of(8);
    for base in [0, 3] {
        for lsn in 0..=10 {
            let what = format!("base {base}, to {lsn}");
            let (directory, path) = compacted(&log, base + 1);
            checkpoint(&log, base + 1, &beside(&path, ".ckpt"));
            let before = content(directory.path());
            let mut wal = Wal::open(&path).unwrap();
            let cut = wal.truncate_to(Lsn(lsn as u64));
            // Nothing would be left to say where a compacted log begins.
            if lsn > 8 || (base > 0 && lsn <= base) {
                assert!(matches!(cut, Err(Error::OutOfRange { .. })), "{what}: {cut:?}");
                assert_eq!(cut.unwrap_err().errno(), libc::ERANGE);
                assert_eq!(content(directory.path()), before, "{what}");
                continue;
            }
            let left = Log::new(log.writes[..lsn].to_vec());
            let kept = cut.unwrap();
            assert_eq!(kept.is_some(), lsn < 8, "{what}");
            if let Some(kept) = kept {
                assert_eq!(kept, beside(&path, ".cut-1"), "{what}");
                assert_eq!(std::fs::read(kept).unwrap(), log.bytes[log.end_of(lsn)..], "{what}");
            }
            assert_eq!((wal.base_lsn(), wal.last_lsn()), (Lsn(base as u64), Lsn(lsn as u64)), "{what}");
            // The same writer goes on, and what it cuts next is kept too.
            let next = Write::set(b"another past", b"1", 77);
            assert_eq!(wal.append(&next.record()).unwrap(), Lsn(lsn as u64 + 1), "{what}");
            assert_eq!(
                wal.truncate_to(Lsn(lsn as u64)).unwrap().map(|kept| std::fs::read(kept).unwrap()),
                Some(next.encoded())
            );
            drop(wal);
            if lsn > base {
                is_whole(&path, &left, base, &what);
            }
        }
    }
}

#[test]
fn a_checkpoint_that_covers_what_was_cut_is_not_recovered_from() {
    quiet();
    let log = log_of(9);
    let (_directory, path) = compacted(&log, 4);
    checkpoint(&log, 8, &beside(&path, ".ckpt"));
    Wal::open(&path).unwrap().truncate_to(Lsn(7)).unwrap();
    let mut store = Store::new();
    let refused = wal::recover_with_checkpoint(&path, &beside(&path, ".ckpt"), &mut store);
    assert_eq!(refused.unwrap_err().errno(), libc::EBADMSG);
    assert!(store.is_empty());
    checkpoint(&log, 7, &beside(&path, ".ckpt"));
    is_whole(&path, &Log::new(log.writes[..7].to_vec()), 3, "with one that does not");
}
