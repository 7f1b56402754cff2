//! The index file of a long log: with it, without it, with a stale or damaged one, a log is known to be the same, and
//! what is torn or damaged is found. Only how much is read differs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Log, Random, Write, kinds_in, names_in, quiet, temp_dir};
use logship::storage::file::{self, FileStorage};
use logship::storage::memory::MemoryStorage;
use logship::storage::{AppendError, Storage};
use logship::types::History;
use logship::wal::checkpoint::{self, Covered};
use logship::wal::compact::Retention;
use logship::wal::index_file::INTERVAL;
use logship::wal::judge::{self, Reason, Verdict};
use logship::wal::scan::End;
use logship::wal::tail::LogTail;
use logship::{Error, Lsn, Wal, wal};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::TempDir;

/// Records after which the index file is written.
const INDEXED: usize = 66_000;
/// All records.
const COUNT: usize = 68_500;

/// What is read to see whether an index file may be believed: no more than this.
const CHECKED: u64 = 20 * 1024;

/// Sizes differ, so that a wrong offset shows; `salt` makes another log of the same sizes.
fn log_of(count: usize, salt: u64) -> Log {
    let write = |lsn: usize| Write::set(b"key", &b"0123456789"[..lsn % 7], salt + lsn as u64);
    Log::new((1..=count).map(write).collect())
}

/// A log file that counts the bytes that are read from it.
struct Counting {
    file: FileStorage<File>,
    read: Cell<u64>,
}

impl Counting {
    fn open(path: &Path) -> Counting {
        Counting { file: file::open_read(path).unwrap(), read: Cell::new(0) }
    }
}

impl Storage for Counting {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.file.read_at(buffer, offset)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
    fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        self.file.append(bytes)
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
    fn read_beside(&self, suffix: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        self.file.read_beside(suffix, limit)
    }
    fn write_beside(&self, suffix: &str, bytes: &[u8]) -> io::Result<()> {
        self.file.write_beside(suffix, bytes)
    }
    fn inode(&self) -> io::Result<u64> {
        self.file.inode()
    }
    fn modified(&self) -> io::Result<u64> {
        self.file.modified()
    }
    fn note(&self) -> io::Result<Option<Vec<u8>>> {
        self.file.note()
    }
}

/// What is known of a log, and how it ends.
fn known(storage: &impl Storage) -> (Box<LogTail>, End) {
    let mut tail = Box::<LogTail>::default();
    let end = tail.refresh(storage).unwrap();
    (tail, end)
}

/// What is known of the log at `path` where no index file is: the same bytes in memory.
fn without(path: &Path) -> (MemoryStorage, Box<LogTail>, End) {
    let memory = MemoryStorage { bytes: std::fs::read(path).unwrap(), ..MemoryStorage::default() };
    if let Ok(meta) = std::fs::read(file::beside(path, ".meta")) {
        memory.write_beside(".meta", &meta).unwrap();
    }
    let (tail, end) = known(&memory);
    (memory, tail, end)
}

/// Says the same of the log at `path` as is known without its index file. Returns how many bytes were read.
fn is_same_as_without(path: &Path, what: &str) -> u64 {
    is_same(path, &without(path), what)
}

fn is_same(path: &Path, without: &(MemoryStorage, Box<LogTail>, End), what: &str) -> u64 {
    let storage = Counting::open(path);
    let (tail, end) = known(&storage);
    let read = storage.read.get();
    let (memory, expected, expected_end) = without;
    assert_eq!(end, *expected_end, "{what}: the end");
    let of = |tail: &LogTail| (tail.last(), tail.len(), tail.history(), tail.base());
    assert_eq!(of(&tail), of(expected), "{what}");
    let (base, last) = (tail.base().0, tail.last().0);
    for lsn in (base.saturating_sub(1)..=last + 2).step_by(1499).chain([base, base + 1, last, last + 1]) {
        let lsn = Lsn(lsn);
        assert_eq!(tail.near(&storage, lsn).unwrap(), expected.near(memory, lsn).unwrap(), "{what}: near {lsn}");
        let histories = (tail.history_at(&storage, lsn).unwrap(), expected.history_at(memory, lsn).unwrap());
        assert_eq!(histories.0, histories.1, "{what}: history at {lsn}");
    }
    let ends = (judge::judge(&storage, &end, None).unwrap(), judge::judge(memory, &end, None).unwrap());
    assert_eq!(ends.0, ends.1, "{what}");
    read
}

/// The log of `COUNT` records under the name `wal`, whose index file covers the first `INDEXED`.
fn indexed() -> (TempDir, PathBuf, Log) {
    let log = log_of(COUNT, 1);
    let directory = temp_dir();
    let path = directory.path().join("wal");
    append(&path, &log, 0, INDEXED);
    append(&path, &log, INDEXED, COUNT);
    assert_eq!(names_in(directory.path()), ["wal", "wal.idx"]);
    (directory, path, log)
}

/// Appends records `from + 1` to `to` with one fsync.
fn append(path: &Path, log: &Log, from: usize, to: usize) {
    let records: Vec<_> = log.writes[from..to].iter().map(Write::record).collect();
    assert_eq!(Wal::open(path).unwrap().append_batch(&records).unwrap(), Lsn(to as u64));
}

fn idx(path: &Path) -> PathBuf {
    file::beside(path, ".idx")
}

/// Changes bytes of a file in place, and waits until that shows in its time of change, whose steps may be some
/// milliseconds long.
fn change(path: &Path, at: usize, bytes: &[u8]) {
    let modified = || std::fs::metadata(path).unwrap().modified().unwrap();
    let before: SystemTime = modified();
    let file = File::options().write(true).open(path).unwrap();
    while modified() == before {
        file.write_all_at(bytes, at as u64).unwrap();
    }
}

#[test]
fn the_histories_of_a_long_log_are_those_of_its_records() {
    quiet();
    let (_directory, path, log) = indexed();
    let (storage, mut history) = (Counting::open(&path), History::EMPTY);
    let (tail, _) = known(&storage);
    for (record, start) in [0].into_iter().chain(log.ends.iter().copied()).take(COUNT).enumerate() {
        if record % 1013 == 0 {
            let lsn = Lsn(record as u64);
            assert_eq!(tail.history_at(&storage, lsn).unwrap(), Some(history));
            let near = tail.near(&storage, lsn.next()).unwrap();
            assert!(near.lsn <= lsn.next() && lsn.0 - near.lsn.0.min(lsn.0) < 256, "{near:?} for {lsn}");
            assert_eq!(near.offset, log.end_of(usize::try_from(near.lsn.0).unwrap() - 1) as u64);
        }
        history = history.then(*log.bytes[start..].first_chunk().unwrap());
    }
    assert_eq!((tail.last(), tail.history()), (Lsn(COUNT as u64), history));
}

#[test]
fn a_long_log_is_opened_by_reading_its_end_only() {
    quiet();
    let (directory, path, log) = indexed();
    let behind = (log.bytes.len() - log.end_of(INDEXED)) as u64;
    let read = is_same_as_without(&path, "with its index file");
    assert!(read >= behind && read < behind + CHECKED, "{read} bytes were read, {behind} are behind what is indexed");
    std::fs::remove_file(idx(&path)).unwrap();
    let read = is_same_as_without(&path, "without one");
    assert!(read >= log.bytes.len() as u64, "{read} bytes");
    let read = is_same_as_without(&path, "with the one that was just written");
    assert!(read < CHECKED, "{read} bytes");
    // A time stamp that the log holds is never given out again, though the record is not read.
    assert!(logship::clock::next_timestamp().0 > COUNT as u64);
    // A shorter log has none.
    let short = directory.path().join("short");
    append(&short, &log, 0, usize::try_from(INTERVAL).unwrap() - 1);
    assert!(!idx(&short).exists());
    is_same_as_without(&short, "short");
    append(&short, &log, usize::try_from(INTERVAL).unwrap() - 1, usize::try_from(INTERVAL).unwrap());
    assert!(idx(&short).exists());
    assert!(is_same_as_without(&short, "just long enough") < CHECKED);
}

#[test]
fn a_damaged_index_file_is_not_believed() {
    quiet();
    let (_directory, path, log) = indexed();
    let (whole, truth) = (std::fs::read(idx(&path)).unwrap(), without(&path));
    let wrong = |bytes: &[u8], what: &str| {
        std::fs::write(idx(&path), bytes).unwrap();
        let read = is_same(&path, &truth, what);
        assert!(read >= log.bytes.len() as u64, "{what}: it was believed");
    };
    for at in (0..112).step_by(7).chain((112..whole.len()).step_by(401)).chain([whole.len() - 1]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        wrong(&damaged, &format!("byte {at}"));
    }
    for len in (0..whole.len()).step_by(997).chain([3, 8, 111, whole.len() - 1]) {
        wrong(&whole[..len], &format!("cut at byte {len}"));
    }
    wrong(&[&whole[..], b"12345678"].concat(), "more bytes");
    wrong(&Random(5).bytes(whole.len()), "noise");
    std::fs::remove_file(idx(&path)).unwrap();
    std::fs::create_dir(idx(&path)).unwrap();
    is_same_as_without(&path, "a directory");
    drop(Wal::open(&path).unwrap());
    std::fs::remove_dir(idx(&path)).unwrap();
    std::fs::write(idx(&path), &whole).unwrap();
    assert!(is_same_as_without(&path, "whole again") < log.bytes.len() as u64 / 2);
}

#[test]
fn the_index_file_of_another_log_is_not_believed() {
    quiet();
    let (directory, path, log) = indexed();
    let whole = std::fs::read(idx(&path)).unwrap();
    let other = log_of(COUNT + 100, 1_000_000);
    let alike = [&log.bytes[..log.end_of(60_000)], &other.bytes[other.end_of(60_000)..]].concat();
    let shorter = &log.bytes[..log.end_of(INDEXED - 1)];
    let cases: [(&str, &[u8]); 5] = [
        ("another log", &other.bytes),
        ("one that begins alike", &alike),
        ("a shorter one", shorter),
        ("a much shorter one", &log.bytes[..100]),
        ("an empty one", b""),
    ];
    for (what, bytes) in cases {
        // Another file under the name, and another content of the same file.
        std::fs::write(directory.path().join("new"), bytes).unwrap();
        std::fs::rename(directory.path().join("new"), &path).unwrap();
        std::fs::write(idx(&path), &whole).unwrap();
        is_same_as_without(&path, &format!("{what}, another inode"));
    }
    let (_second, path, _) = indexed();
    let whole = std::fs::read(idx(&path)).unwrap();
    for (what, bytes) in cases {
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(idx(&path), &whole).unwrap();
        is_same_as_without(&path, &format!("{what}, the same inode"));
    }
    // A copy of both: the inode is another one.
    std::fs::write(&path, &log.bytes).unwrap();
    drop(std::fs::remove_file(idx(&path)));
    is_same_as_without(&path, "written anew");
    let copy = directory.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(idx(&path), idx(&copy)).unwrap();
    assert!(is_same_as_without(&copy, "a copy") >= log.bytes.len() as u64);
}

#[test]
fn bytes_changed_in_place_are_found_if_the_log_has_not_grown_since() {
    quiet();
    let log = log_of(INDEXED, 1);
    let directory = temp_dir();
    let path = directory.path().join("wal");
    append(&path, &log, 0, INDEXED);
    let whole = std::fs::read(idx(&path)).unwrap();
    for at in [0, 9, log.end_of(100) + 20, log.bytes.len() / 2, log.bytes.len() - 1] {
        change(&path, at, &[log.bytes[at] ^ 4]);
        std::fs::write(idx(&path), &whole).unwrap();
        is_same_as_without(&path, &format!("byte {at}"));
        let opened = Wal::open(&path).map(|wal| wal.last_lsn());
        let is_last = at == log.bytes.len() - 1;
        assert!(matches!(opened, Ok(Lsn(lsn)) if is_last && lsn + 1 == INDEXED as u64) || opened.is_err(), "byte {at}");
        std::fs::write(&path, &log.bytes).unwrap();
    }
}

#[test]
fn what_is_torn_or_damaged_behind_the_index_is_found() {
    quiet();
    let (directory, path, log) = indexed();
    let whole = std::fs::read(idx(&path)).unwrap();
    // A copy of the log in which the last record was being written.
    let torn = log.bytes.len() - 3;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &log.bytes[..torn]).unwrap();
    is_same_as_without(&path, "torn");
    let (_, end) = known(&Counting::open(&path));
    assert!(end.damaged && end.cut && end.last() == Lsn(COUNT as u64 - 1));
    let wal = Wal::open(&path).unwrap();
    assert_eq!((wal.last_lsn(), wal.len()), (Lsn(COUNT as u64 - 1), log.end_of(COUNT - 1) as u64));
    drop(wal);
    assert_eq!(std::fs::read(directory.path().join("wal.torn-1")).unwrap(), log.bytes[log.end_of(COUNT - 1)..torn]);
    append(&path, &log, COUNT - 1, COUNT);
    // Everywhere behind what is covered: its first byte, and in the middle.
    for at in [log.end_of(INDEXED), log.end_of(INDEXED) + 8, log.end_of(COUNT - 700) + 5] {
        std::fs::write(idx(&path), &whole).unwrap();
        change(&path, at, &[log.bytes[at] ^ 0x20]);
        is_same_as_without(&path, &format!("byte {at}"));
        let storage = Counting::open(&path);
        let (_, end) = known(&storage);
        assert!(end.damaged, "byte {at}");
        let verdict = judge::judge(&storage, &end, None).unwrap();
        assert!(matches!(verdict, Verdict::Refused(Reason::RecordsFollow(_))), "byte {at}: {verdict:?}");
        assert!(matches!(Wal::open(&path), Err(Error::Damaged { .. })), "byte {at}");
        change(&path, at, &log.bytes[at..=at]);
    }
    is_same_as_without(&path, "whole again");
}

/// The records behind the cut are others, but the one where the old index file ends is the same, at the same place.
#[test]
fn a_log_that_was_cut_and_has_grown_again_is_not_taken_for_what_it_was() {
    quiet();
    let (_directory, path, log) = indexed();
    let mut wal = Wal::open(&path).unwrap();
    wal.truncate_to(Lsn(INDEXED as u64 - 2)).unwrap().unwrap();
    let other = Write { timestamp: 5, ..log.writes[INDEXED - 2].clone() };
    wal.append(&other.record()).unwrap();
    for write in &log.writes[INDEXED - 1..INDEXED + 5] {
        wal.append(&write.record()).unwrap();
    }
    let expected = wal.tail().history();
    drop(wal);
    assert_eq!(known(&Counting::open(&path)).0.history(), expected, "as it is known to whoever has written it");
    is_same_as_without(&path, "cut and grown");
}

#[test]
fn a_long_log_that_is_compacted_keeps_an_index_file_of_its_own() {
    quiet();
    let (directory, path, log) = indexed();
    let ckpt = file::beside(&path, ".ckpt");
    let mut wal = Wal::open(&path).unwrap();
    let covered = Covered { offset: wal.len(), lsn: wal.last_lsn(), history: wal.tail().history() };
    checkpoint::write(&log.store_of(COUNT), &ckpt, covered).unwrap();
    let keep = Retention { records: INTERVAL + 1000, ..Retention::default() };
    let done = wal.compact(&ckpt, &keep, None).unwrap();
    assert_eq!(done.records, COUNT as u64 - INTERVAL - 1000);
    drop(wal);
    assert_eq!(kinds_in(directory.path()), ["wal", "wal.ckpt", "wal.ckpt.stamps", "wal.idx", "wal.meta"]);
    let left = std::fs::metadata(&path).unwrap().len();
    let read = is_same_as_without(&path, "compacted");
    assert!(read < left / 10, "{read} of {left} bytes were read");
    let mut store = logship::Store::new();
    assert_eq!(wal::recover(&path, &mut store).unwrap(), 0);
    assert_eq!(store, log.store_of(COUNT));
    // A little more is dropped than the index file can stand for.
    let mut wal = Wal::open(&path).unwrap();
    wal.compact(&ckpt, &Retention { records: 1000, ..keep }, None).unwrap();
    wal.append_batch(&log.writes[..10].iter().map(Write::record).collect::<Vec<_>>()).unwrap();
    drop(wal);
    is_same_as_without(&path, "compacted to a short log");
}
