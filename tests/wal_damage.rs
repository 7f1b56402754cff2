//! A log under damage: cut at every byte, every byte flipped, zeros and noise at its end.
//!
//! What must hold (contract, w10): recovery keeps exactly the whole records before the damage and never skips one;
//! `Wal::open` cuts a torn tail off, keeps its bytes in `<path>.torn-N` and goes on, and refuses damage in the middle
//! without changing a byte.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Log, Random, Write, file_with, names_in, quiet, store_of, temp_dir};
use logship::kv::table::Store;
use logship::storage::memory::MemoryStorage;
use logship::wal::checkpoint::Covered;
use logship::wal::record::{RECORD_MAX, RECORD_MIN};
use logship::wal::{self, recovery};
use logship::{Error, Lsn, Wal};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a flip does to a byte: its lowest bit, its highest, all of them.
const FLIPS: [u8; 3] = [0x01, 0x80, 0xFF];

/// Records of every kind, one with a value that is itself an encoded record.
fn small_log() -> Log {
    let embedded = Write::set(b"inner", b"must never be seen", 1_000_000).encoded();
    Log::new(vec![
        Write::set(b"a", b"1", 5),
        Write::set(b"b", b"2", 0).legacy(),
        Write::set(b"box", &embedded, 6),
        Write::del(b"a", 9),
        Write::del(b"b", 0).legacy(),
        Write::set(b"z", b"", 12),
        Write::set(b"last", b"value", 13),
    ])
}

fn largest() -> Write {
    Write::set(&vec![b'k'; 65_535], &Random(7).bytes(65_535), 50)
}

/// A record of the largest size among small ones.
fn big_log() -> Log {
    let log = Log::new(vec![
        Write::set(b"before", b"1", 1),
        largest(),
        Write::set(b"after", b"2", 60),
        Write::del(b"before", 61),
    ]);
    assert_eq!(log.ends[1] - log.ends[0], RECORD_MAX);
    log
}

/// Some bytes of a log: all that are near where a record begins or ends, and a sample of the others.
fn sampled(log: &Log, step: usize) -> Vec<usize> {
    let near_a_border = |at: usize| [&0].into_iter().chain(&log.ends).any(|end| at.abs_diff(*end) <= 16);
    (0..log.bytes.len()).filter(|at| near_a_border(*at) || at.is_multiple_of(step)).collect()
}

fn flipped(log: &Log, at: usize, mask: u8) -> Vec<u8> {
    let mut bytes = log.bytes.clone();
    bytes[at] ^= mask;
    bytes
}

/// Recovery of these bytes gives the first `whole` records of `log` and nothing else.
fn recovers(log: &Log, bytes: &[u8], whole: usize, what: &str) {
    let storage = MemoryStorage { bytes: bytes.to_vec(), ..MemoryStorage::default() };
    let mut store = Store::new();
    let replay = recovery::replay(&storage, Covered::default(), &mut store).unwrap();
    assert_eq!(replay.records, whole as u64, "{what}: records");
    assert_eq!(replay.end.offset, log.end_of(whole) as u64, "{what}: where it stopped");
    assert_eq!(replay.damaged, log.end_of(whole) != bytes.len(), "{what}: damaged");
    assert_eq!(store, log.store_of(whole), "{what}: store");
}

/// Opening cuts everything behind the first `whole` records off, keeps it beside, and appends go on there.
fn is_torn(log: &Log, bytes: &[u8], whole: usize, what: &str) {
    let directory = temp_dir();
    let path = file_with(&directory, "wal", bytes);
    let end = log.end_of(whole);
    let mut wal = Wal::open(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes[..end], "{what}: the log is cut");
    assert_eq!(names_in(directory.path()), ["wal", "wal.torn-1"], "{what}");
    assert_eq!(std::fs::read(directory.path().join("wal.torn-1")).unwrap(), bytes[end..], "{what}: the tail is kept");
    assert_eq!((wal.last_lsn(), wal.len()), (Lsn(whole as u64), end as u64), "{what}");

    let next = Write::set(b"next", b"goes on", 2_000_000);
    assert_eq!(wal.append(&next.record()).unwrap(), Lsn(whole as u64 + 1), "{what}: LSNs go on");
    drop(wal);
    let mut store = Store::new();
    assert_eq!(wal::recover(&path, &mut store).unwrap(), whole as u64 + 1, "{what}: after the append");
    assert_eq!(store, store_of(log.writes[..whole].iter().chain([&next])), "{what}: after the append");
}

/// Opening is refused at the end of the first `whole` records, and nothing is changed or added.
fn is_refused(log: &Log, bytes: &[u8], whole: usize, what: &str) {
    let directory = temp_dir();
    let path = file_with(&directory, "wal", bytes);
    match Wal::open(&path) {
        Err(Error::Damaged { offset, after }) => {
            assert_eq!((offset, after), (log.end_of(whole) as u64, Lsn(whole as u64)), "{what}");
        }
        other => panic!("{what}: {other:?}"),
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what}: the log is unchanged");
    assert_eq!(names_in(directory.path()), ["wal"], "{what}: nothing is added");
}

/// Opening is refused because the file is no log, and nothing is changed or added.
fn is_no_log(bytes: &[u8], what: &str) {
    let directory = temp_dir();
    let path = file_with(&directory, "wal", bytes);
    match Wal::open(&path) {
        Err(error @ Error::Malformed(_)) => assert!(error.to_string().contains("not a log"), "{what}: {error}"),
        other => panic!("{what}: {other:?}"),
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what}: the file is unchanged");
    assert_eq!(names_in(directory.path()), ["wal"], "{what}: nothing is added");
}

#[test]
fn a_whole_log_is_recovered_and_opened_as_it_is() {
    quiet();
    for log in [small_log(), big_log(), Log::new(Vec::new())] {
        let count = log.writes.len();
        recovers(&log, &log.bytes, count, "whole");
        let directory = temp_dir();
        let path = file_with(&directory, "wal", &log.bytes);
        let wal = Wal::open(&path).unwrap();
        assert_eq!((wal.last_lsn(), wal.len()), (Lsn(count as u64), log.bytes.len() as u64));
        assert_eq!(names_in(directory.path()), ["wal"]);
        assert_eq!(std::fs::read(&path).unwrap(), log.bytes);
    }
}

#[test]
fn a_log_that_is_cut_at_any_byte_recovers_the_whole_records_before_the_cut() {
    let log = small_log();
    for cut in 0..=log.bytes.len() {
        recovers(&log, &log.bytes[..cut], log.whole_before(cut), &format!("cut at {cut}"));
    }
}

#[test]
fn a_log_with_any_byte_flipped_recovers_the_whole_records_before_that_byte() {
    let log = small_log();
    for at in 0..log.bytes.len() {
        for mask in FLIPS {
            recovers(&log, &flipped(&log, at, mask), log.whole_before(at), &format!("byte {at} ^ {mask:#x}"));
        }
    }
}

#[test]
fn a_largest_record_that_is_cut_or_flipped_is_dropped_with_all_behind_it() {
    let log = big_log();
    for at in sampled(&log, 1_499) {
        recovers(&log, &log.bytes[..at], log.whole_before(at), &format!("cut at {at}"));
        recovers(&log, &flipped(&log, at, 0x10), log.whole_before(at), &format!("byte {at}"));
    }
}

#[test]
fn damage_in_a_log_that_is_read_in_several_pieces_is_found_where_it_is() {
    // 9 records of 131,091 bytes are more than two of the reader's 512 KiB pieces.
    let writes = (0..9u8).map(|n| Write::set(&vec![b'a' + n; 65_535], &Random(u64::from(n)).bytes(65_535), 1));
    let log = Log::new(writes.collect());
    let pieces = [512 * 1024, 1024 * 1024];
    let near_a_piece = (0..log.bytes.len()).filter(|at| pieces.iter().any(|piece| at.abs_diff(*piece) < 4));
    for at in near_a_piece.chain(log.ends.iter().flat_map(|end| [end - 1, end.saturating_sub(RECORD_MAX)])) {
        recovers(&log, &log.bytes[..at], log.whole_before(at), &format!("cut at {at}"));
        recovers(&log, &flipped(&log, at, 0x04), log.whole_before(at), &format!("byte {at}"));
    }
    recovers(&log, &log.bytes, 9, "whole");
}

#[test]
fn recovery_of_a_file_counts_as_recovery_of_its_bytes_and_changes_nothing() {
    quiet();
    let log = small_log();
    let directory = temp_dir();
    for cut in 0..log.bytes.len() {
        let path = file_with(&directory, "wal", &log.bytes[..cut]);
        let mut store = Store::new();
        assert_eq!(wal::recover(&path, &mut store).unwrap(), log.whole_before(cut) as u64);
        assert_eq!(std::fs::read(&path).unwrap(), log.bytes[..cut]);
    }
    assert_eq!(names_in(directory.path()), ["wal"]);
    let missing = wal::recover(&directory.path().join("none"), &mut Store::new()).unwrap_err();
    assert_eq!(missing.errno(), libc::ENOENT);
}

#[test]
fn a_cut_at_any_byte_is_a_torn_tail_that_open_cuts_and_keeps() {
    quiet();
    let log = small_log();
    for cut in (1..log.bytes.len()).filter(|cut| !log.ends.contains(cut)) {
        is_torn(&log, &log.bytes[..cut], log.whole_before(cut), &format!("cut at {cut}"));
    }
}

#[test]
fn a_cut_between_two_records_is_no_damage() {
    quiet();
    let log = small_log();
    for count in 0..log.writes.len() {
        let directory = temp_dir();
        let path = file_with(&directory, "wal", &log.bytes[..log.end_of(count)]);
        let mut wal = Wal::open(&path).unwrap();
        assert_eq!(names_in(directory.path()), ["wal"]);
        assert_eq!(wal.append(&Write::set(b"k", b"v", 99).record()).unwrap(), Lsn(count as u64 + 1));
    }
}

#[test]
fn a_flipped_byte_before_the_last_record_is_refused_and_in_the_last_one_it_is_a_torn_tail() {
    quiet();
    let log = small_log();
    let last = log.writes.len() - 1;
    for at in 0..log.bytes.len() {
        for mask in FLIPS {
            let (bytes, whole, what) =
                (flipped(&log, at, mask), log.whole_before(at), format!("byte {at} ^ {mask:#x}"));
            if whole == last { is_torn(&log, &bytes, whole, &what) } else { is_refused(&log, &bytes, whole, &what) }
        }
    }
}

#[test]
fn damage_before_a_largest_record_is_seen_behind_it() {
    // The whole record that shows the damage begins as far from the end as a record can.
    quiet();
    let log = Log::new(vec![Write::set(b"first", b"1", 1), Write::set(b"second", b"2", 2), largest()]);
    for at in [0, 5, log.ends[0] - 1, log.ends[0], log.ends[1] - 1] {
        is_refused(&log, &flipped(&log, at, 0x40), log.whole_before(at), &format!("byte {at}"));
    }
    for at in [log.ends[1], log.ends[1] + 4, log.ends[1] + 6, log.bytes.len() / 2, log.bytes.len() - 1] {
        is_torn(&log, &flipped(&log, at, 0x40), 2, &format!("byte {at}"));
        is_torn(&log, &log.bytes[..at + 1 - usize::from(at + 1 == log.bytes.len())], 2, &format!("cut at {at}"));
    }
}

#[test]
fn damage_in_a_largest_record_in_the_middle_is_refused() {
    quiet();
    let log = big_log();
    for at in sampled(&log, 9_973).into_iter().filter(|at| *at < log.ends[2]) {
        is_refused(&log, &flipped(&log, at, 0x20), log.whole_before(at), &format!("byte {at}"));
    }
}

/// The bytes of a record by which it says what lies within it: length, op, key_len, value_len.
fn is_field(log: &Log, record: usize, at: usize) -> bool {
    let (start, key_len) = (log.end_of(record), log.writes[record].key.len());
    (start + 4..start + 11).contains(&at) || (start + 11 + key_len..start + 13 + key_len).contains(&at)
}

#[test]
fn a_record_inside_the_value_of_a_torn_record_does_not_make_it_damage() {
    quiet();
    let embedded = Write::set(b"inner", b"must never be seen", 1_000_000).encoded();
    for outer in [Write::set(b"box", &embedded, 2), Write::set(b"box", &embedded, 0).legacy()] {
        let log = Log::new(vec![Write::set(b"a", b"1", 1), outer]);
        for at in log.ends[0]..log.bytes.len() {
            let (bytes, what) = (flipped(&log, at, 0x04), format!("byte {at}"));
            // When its own fields contradict each other, the record inside may be the one behind it.
            match is_field(&log, 1, at) {
                true => is_refused(&log, &bytes, 1, &what),
                false => is_torn(&log, &bytes, 1, &what),
            }
        }
        for cut in log.ends[0] + 1..log.bytes.len() {
            is_torn(&log, &log.bytes[..cut], 1, &format!("cut at {cut}"));
        }
    }
}

#[test]
fn zeros_behind_the_last_record_are_a_torn_tail() {
    // A crash on a file system that extends a file before it writes the data leaves zeros.
    quiet();
    let lengths = (1..=64).chain([4_096, RECORD_MAX - 1, RECORD_MAX, RECORD_MAX + 1, 600_000]);
    for zeros in lengths {
        for log in [Log::new(Vec::new()), small_log()] {
            let bytes = [&log.bytes[..], &vec![0; zeros]].concat();
            let what = format!("{zeros} zeros");
            recovers(&log, &bytes, log.writes.len(), &what);
            // Zeros alone are a file of any kind, unless they are so few that they can be a record's place.
            match log.writes.is_empty() && zeros > RECORD_MAX {
                true => is_no_log(&bytes, &what),
                false => is_torn(&log, &bytes, log.writes.len(), &what),
            }
        }
    }
}

#[test]
fn a_record_whose_end_became_zeros_is_a_torn_tail() {
    quiet();
    let log = small_log();
    let start = log.ends[log.writes.len() - 2];
    // The 7 high bytes of its time stamp are zero anyway.
    for from in start..=log.bytes.len() - 8 {
        let mut bytes = log.bytes.clone();
        bytes[from..].fill(0);
        is_torn(&log, &bytes, log.writes.len() - 1, &format!("zeros from {from}"));
    }
}

#[test]
fn noise_behind_the_last_record_is_a_torn_tail() {
    quiet();
    let log = small_log();
    let mut random = Random(20_260_727);
    for len in (1..60).chain([5_000, 200_000]) {
        let bytes = [&log.bytes[..], &random.bytes(len)].concat();
        recovers(&log, &bytes, log.writes.len(), &format!("{len} bytes of noise"));
        is_torn(&log, &bytes, log.writes.len(), &format!("{len} bytes of noise"));
    }
}

#[test]
fn every_torn_tail_is_kept_under_a_name_of_its_own() {
    quiet();
    let directory = temp_dir();
    let log = small_log();
    let path = file_with(&directory, "wal", &log.bytes);
    for number in 1..=3usize {
        let torn = format!("torn, time {number}");
        let bytes = [&log.bytes[..], torn.as_bytes()].concat();
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Wal::open(&path).unwrap().last_lsn(), Lsn(log.writes.len() as u64));
        for earlier in 1..=number {
            let kept = std::fs::read(directory.path().join(format!("wal.torn-{earlier}"))).unwrap();
            assert_eq!(kept, format!("torn, time {earlier}").as_bytes());
        }
    }
    assert_eq!(names_in(directory.path()), ["wal", "wal.torn-1", "wal.torn-2", "wal.torn-3"]);
}

#[test]
fn damage_in_the_middle_is_refused_when_the_end_is_torn_too() {
    quiet();
    let log = small_log();
    for at in 0..log.end_of(5) {
        for torn in [1, 3, log.bytes.len() - log.end_of(6) - 1] {
            let mut bytes = flipped(&log, at, 0x02);
            bytes.truncate(log.bytes.len() - torn);
            is_refused(&log, &bytes, log.whole_before(at), &format!("byte {at}, and {torn} cut"));
        }
    }
    // Far from the end, where a record of the largest size would not reach.
    let many = Log::new((0..10_000).map(|n: u32| Write::set(format!("key {n}").as_bytes(), b"value", 7)).collect());
    for at in many.end_of(49)..many.end_of(50) {
        let mut bytes = flipped(&many, at, 0x10);
        bytes.truncate(many.bytes.len() - 3);
        is_refused(&many, &bytes, 49, &format!("byte {at} of 10,000 records"));
    }
}

#[test]
fn a_file_that_does_not_begin_with_a_record_is_no_log_and_is_left_alone() {
    quiet();
    let readme = std::fs::read("README.md").unwrap();
    is_no_log(&readme, "README.md");
    is_no_log(b"hello world, this is no log\n", "a line");
    for seed in 0..20 {
        is_no_log(&Random(seed).bytes(5_000), "noise");
    }
    is_no_log(&Random(99).bytes(5_000_000), "much noise");
    // Shorter than any record it may be the beginning of one.
    let log = Log::new(Vec::new());
    for len in 1..RECORD_MIN {
        is_torn(&log, &readme[..len], 0, &format!("{len} bytes"));
    }
}

#[test]
fn what_was_never_written_is_kept_without_filling_the_disk() {
    quiet();
    const GIGABYTE: u64 = 1 << 30;
    let blocks = |path: &Path| std::fs::metadata(path).unwrap().blocks();
    for (bytes, opens) in [(small_log().bytes, true), (Vec::new(), false)] {
        let directory = temp_dir();
        let path = file_with(&directory, "wal", &bytes);
        File::options().write(true).open(&path).unwrap().set_len(GIGABYTE).unwrap();
        assert_eq!(Wal::open(&path).is_ok(), opens);
        let torn = directory.path().join("wal.torn-1");
        assert_eq!(torn.exists(), opens);
        if opens {
            assert_eq!(std::fs::metadata(&torn).unwrap().len(), GIGABYTE - bytes.len() as u64);
            assert!(blocks(&torn) * 512 < 1 << 20, "{} blocks", blocks(&torn));
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }
}

#[test]
fn a_log_over_any_other_storage_is_refused_with_the_slightest_damage() {
    let log = small_log();
    let open = |bytes: &[u8]| Wal::with_storage(MemoryStorage { bytes: bytes.to_vec(), ..MemoryStorage::default() });
    assert_eq!(open(&log.bytes).unwrap().last_lsn(), Lsn(log.writes.len() as u64));
    for cut in (0..log.bytes.len()).filter(|cut| *cut > 0 && !log.ends.contains(cut)) {
        match open(&log.bytes[..cut]) {
            Err(Error::Damaged { offset, after }) => {
                let whole = log.whole_before(cut);
                assert_eq!((offset, after), (log.end_of(whole) as u64, Lsn(whole as u64)));
            }
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
}
