//! Logs whose first records are dropped: LSNs, history and store stay what they were; what stays by the retention rule;
//! which checkpoints are refused; cutting a log's end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::compacted::{
    ALL, beside, checkpoint, compacted, content, covered, directory_with, goes_on, is_whole, log_of, marker_of,
    monotonous, records_of, restore, write,
};
use common::{Log, Write, kinds_in, names_in, quiet, store_of};
use logship::kv::table::Store;
use logship::wal::checkpoint::{self, Covered};
use logship::wal::compact::Retention;
use logship::{Error, Lsn, Wal, wal};
use std::path::Path;

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
            let len = marker_of(&log, dropped).len() + log.bytes.len() - log.end_of(dropped);
            assert_eq!((wal.last_lsn(), wal.len()), (Lsn(12), len as u64));
            // The writer that was open goes on in the new file.
            let more = Log::new(log.writes.iter().cloned().chain([write(13)]).collect());
            assert_eq!(wal.append(&write(13).record()).unwrap(), Lsn(13), "{what}");
            assert!(matches!(Wal::open(&path), Err(Error::Locked)), "{what}: the new file is locked too");
            drop(wal);
            is_whole(&path, &more, dropped, &what);
            goes_on(&path, &more, dropped, &what);
            let expected = ["wal", "wal.ckpt", "wal.ckpt.stamps", "wal.meta"];
            assert_eq!(kinds_in(directory.path()), expected[..if dropped == 0 { 3 } else { 4 }], "{what}");
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
            assert_eq!(records_of(&path), log.bytes[log.end_of(expected)..], "{what}");
            drop(wal);
            restore(path.parent().unwrap(), &whole);
        }
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
            refused(&format!("cut at byte {at}"), Some(&whole[..at]));
        }
        remove_stamps(&given);
        refused("a lesson's, with nothing beside it", Some(&whole));
        std::fs::remove_file(&given).unwrap();
        let missing = wal.compact(&given, &ALL, None).unwrap_err();
        assert_eq!(missing.errno(), libc::ENOENT);
        drop(wal);
        is_whole(&path, &log, base, "after all that");
    }
}

/// Makes a checkpoint what a lesson's code would have written.
fn remove_stamps(checkpoint: &Path) {
    let name = checkpoint.file_name().unwrap().to_str().unwrap();
    let directory = checkpoint.parent().unwrap();
    for stamps in names_in(directory).iter().filter(|other| other.starts_with(&format!("{name}.stamps-"))) {
        std::fs::remove_file(directory.join(stamps)).unwrap();
    }
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
    for bytes in [&kept[..kept.len() - 1], &other, b""] {
        std::fs::write(beside(&path, ".ckpt"), bytes).unwrap();
        std::fs::write(&given, bytes).unwrap();
        refuses("damaged");
    }
    remove_stamps(&beside(&path, ".ckpt"));
    std::fs::write(beside(&path, ".ckpt"), &kept).unwrap();
    std::fs::write(&given, &kept).unwrap();
    refuses("a lesson's");
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
