//! Compacted logs after crashes, and with a meta file that is damaged, missing, or of another log: the log opens as the
//! old one or the new one, with its own LSNs, history and store, or not at all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::compacted::{
    ALL, beside, checkpoint, compacted, content, goes_on, history_of, is_whole, log_of, monotonous, restore, write,
};
use common::{Log, Write, kinds_in, names_in, quiet, temp_dir};
use logship::kv::table::Store;
use logship::storage::file;
use logship::wal::checkpoint;
use logship::wal::meta::{self, Entry};
use logship::wal::origin::{MARKER_LEN, Origin};
use logship::wal::snapshot::{Incoming, Snapshot};
use logship::wal::tail::LogTail;
use logship::{Lsn, Wal, wal};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

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
    let found = checkpoint::open(&source).unwrap();
    let snapshot = Snapshot::of(&found).unwrap();
    let mut bytes = vec![0; usize::try_from(found.packed_len()).unwrap()];
    let (front, back) = bytes.split_at_mut(found.read_packed_at(&mut vec![0; 1 << 20], 0).unwrap());
    assert_eq!(found.read_packed_at(front, 0).unwrap(), front.len());
    assert_eq!(found.read_packed_at(back, front.len() as u64).unwrap(), back.len());
    for name in names_in(directory.path()).iter().filter(|name| name.starts_with("leader")) {
        std::fs::remove_file(directory.path().join(name)).unwrap();
    }
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
    // Its values differ too: a checkpoint with the snapshot's content would become the snapshot by its new stamps.
    let unlike = |lsn: usize| {
        let Write { key, value, .. } = write(lsn);
        Write { key, value: value.map(|value| vec![b'x'; value.len()]), timestamp: lsn as u64 + 1, legacy: false }
    };
    let other = Log::new((1..=12).map(unlike).collect());
    // Behind the leader, or diverged and longer than the snapshot; compacted before, or not.
    for (old, base) in [(log_of(4), 0), (log_of(4), 2), (other.clone(), 0), (other, 7)] {
        let what = format!("a follower at {} with base {base}", old.writes.len());
        let (directory, path, snapshot, record) = before_installation(&log, &old, base, 8);
        let before = content(directory.path());
        is_whole(&path, &old, base, &format!("{what}, the snapshot is there"));
        let mut store = old.store_of(old.writes.len());
        install(&path, &log, 8, &snapshot, &record, &mut store).unwrap();
        let new = Log::new(log.writes[..8].to_vec());
        assert_eq!(store, new.store_of(8), "{what}: exactly the leader's store");
        is_whole(&path, &new, 7, &format!("{what}, installed"));
        let after = content(directory.path());
        let entries = [
            Entry { lsn: Lsn(old.writes.len() as u64), history: history_of(&old, old.writes.len()) },
            Entry { lsn: Lsn(7), history: history_of(&log, 7) },
        ];
        // Everything but the renames is done: the old log, with its old checkpoint, is what counts.
        restore(directory.path(), &before);
        meta::save(&path, &entries).unwrap();
        is_whole(&path, &old, base, &format!("{what}, before the renames"));
        // It is installed in the second attempt, without a byte of it being sent again.
        let mut store = old.store_of(old.writes.len());
        install(&path, &log, 8, &snapshot, &record, &mut store).unwrap();
        is_whole(&path, &new, 7, &format!("{what}, installed in the second attempt"));
        // The log is renamed, the snapshot not yet: recovery does it. Perhaps its stamps were written already, and cut
        // off behind it.
        let of_after = |wanted: &str| after.iter().find(|(name, _)| name.contains(wanted)).unwrap();
        let (stamps, entries_only) = (of_after(".stamps-"), after.iter().find(|(name, _)| name == "wal.ckpt").unwrap());
        for done in 0..3 {
            restore(directory.path(), &before);
            std::fs::write(&path, &after[0].1).unwrap();
            meta::save(&path, &entries).unwrap();
            if done > 0 {
                std::fs::write(directory.path().join(&stamps.0), &stamps.1).unwrap();
            }
            if done > 1 {
                let snapshot_name =
                    before.iter().map(|(name, _)| name).find(|name| name.contains(".snapshot-")).unwrap();
                std::fs::write(directory.path().join(snapshot_name), &entries_only.1).unwrap();
            }
            let what = format!("{what}, between the renames, {done} steps further");
            is_whole(&path, &new, 7, &what);
            assert_eq!(kinds_in(directory.path()), ["wal", "wal.ckpt", "wal.ckpt.stamps", "wal.meta"], "{what}");
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
    assert_eq!(meta::decode(&whole).unwrap(), [Entry { lsn: Lsn(6), history: history_of(&log, 6) }]);
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
        for at in 0..MARKER_LEN + first {
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

/// Opening it, and recovering from it in every way, is EBADMSG, says both sides and changes nothing.
fn is_refused(path: &Path, sides: [&str; 2], what: &str) {
    let before = content(path.parent().unwrap());
    let mut store = Store::new();
    let opened = Wal::open(path).map(|wal| panic!("{what}: opened, LSN {}", wal.last_lsn())).unwrap_err();
    let recovered = wal::recover(path, &mut store).map(|records| panic!("{what}: {records} records")).unwrap_err();
    let named = wal::recover_with_checkpoint(path, &beside(path, ".ckpt"), &mut store)
        .map(|records| panic!("{what}: {records} records"))
        .unwrap_err();
    for error in [opened, recovered, named] {
        assert_eq!(error.errno(), libc::EBADMSG, "{what}: {error}");
        let said = error.to_string();
        assert!(sides.iter().all(|side| said.contains(side)), "{what}: {said}");
    }
    assert!(store.is_empty(), "{what}");
    assert_eq!(content(path.parent().unwrap()), before, "{what}");
}

#[test]
fn a_log_that_is_not_the_one_of_its_meta_file_is_refused() {
    quiet();
    let log = log_of(8);
    let (directory, path) = compacted(&log, 5);
    let whole = content(directory.path());
    for other in [log_of(3), monotonous(6), Log::new(vec![write(3); 4])] {
        for how in ["replaced", "copied over"] {
            if how == "replaced" {
                std::fs::write(beside(&path, ".new"), &other.bytes).unwrap();
                std::fs::rename(beside(&path, ".new"), &path).unwrap();
            } else {
                std::fs::write(&path, &other.bytes).unwrap();
            }
            is_refused(&path, [&format!("LSN 1 to {}", other.writes.len()), "LSN 4"], how);
        }
        // Removed, and begun anew: a new log is nobody's.
        std::fs::remove_file(&path).unwrap();
        let mut wal = Wal::open(&path).unwrap();
        assert_eq!((wal.base_lsn(), wal.last_lsn()), (Lsn(0), Lsn(0)));
        wal.append(&other.writes[0].record()).unwrap();
        drop(wal);
        assert_eq!(Wal::open(&path).unwrap().last_lsn(), Lsn(1));
        restore(directory.path(), &whole);
    }
    // Alone it says that records are gone, and nobody counts on from there.
    std::fs::remove_file(beside(&path, ".meta")).unwrap();
    is_refused(&path, ["after LSN 4", ".meta file is missing"], "without its meta file");
    restore(directory.path(), &whole);
    goes_on(&path, &log, 4, "the meta file is back");
}

#[test]
fn files_of_different_moments_are_refused() {
    quiet();
    let moments = [(12, 4), (24, 16), (36, 28)].map(|(count, covered)| (log_of(count), covered));
    let files: Vec<_> = moments
        .iter()
        .map(|(log, covered)| {
            let (directory, _path) = compacted(log, *covered);
            content(directory.path())
        })
        .collect();
    let directory = temp_dir();
    let path = directory.path().join("wal");
    let is_log = |name: &str| name == "wal";
    let is_meta = |name: &str| name == "wal.meta";
    for (log_of, meta_of, checkpoint_of) in (0..27).map(|n| (n / 9, n / 3 % 3, n % 3)) {
        let what = format!("log of moment {log_of}, meta file of {meta_of}, checkpoint of {checkpoint_of}");
        let pick = |moment: usize, wanted: &dyn Fn(&str) -> bool| {
            files[moment].iter().filter(|(name, _)| wanted(name)).cloned().collect::<Vec<_>>()
        };
        let mixed = [
            pick(log_of, &is_log),
            pick(meta_of, &is_meta),
            pick(checkpoint_of, &|name: &str| !is_log(name) && !is_meta(name)),
        ];
        restore(directory.path(), &mixed.concat());
        if (log_of, meta_of) == (checkpoint_of, checkpoint_of) {
            is_whole(&path, &moments[log_of].0, moments[log_of].1 - 1, &what);
        } else if log_of == meta_of {
            // The log opens; it is of one piece, and no store can be made of it.
            let error = wal::recover(&path, &mut Store::new()).map(|records| panic!("{what}: {records}")).unwrap_err();
            let covered = format!("covers LSN {}", moments[checkpoint_of].1);
            assert!(error.to_string().contains(&covered) && error.errno() == libc::EBADMSG, "{what}: {error}");
        } else {
            is_refused(&path, ["the log has LSN", ".meta file"], &what);
        }
    }
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
        let (directory, _path) = compacted(&log, 4);
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
