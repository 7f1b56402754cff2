//! Checkpoints: the store goes there and back; a damaged file is refused with the store as it was; a lesson's file
//! without our trailer loads; recovery picks checkpoint or whole log by its decision table.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::compacted;
use common::{Log, Random, Write, file_with, kinds_in, names_in, quiet, store_of, temp_dir};
use logship::kv::StateMachine;
use logship::kv::table::Store;
use logship::storage::memory::MemoryStorage;
use logship::types::History;
use logship::wal::checkpoint::{self, Covered};
use logship::wal::{load_checkpoint, recover, recover_with_checkpoint};
use logship::{Error, Lsn, Record, Timestamp};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const COVERED: Covered = Covered { offset: 27, lsn: Lsn(1), history: History(0x0123_4567_89AB_CDEF) };

/// The store's checkpoint in its packed form: the lesson's bytes, and ours behind them.
fn checkpoint_of(store: &Store, covered: Covered) -> Vec<u8> {
    let directory = temp_dir();
    let path = directory.path().join("ckpt");
    checkpoint::write(store, &path, covered).unwrap();
    let stamps = stamps_in(directory.path());
    [std::fs::read(path).unwrap(), std::fs::read(stamps).unwrap()].concat()
}

/// The one file of ours in a directory that belongs to a checkpoint.
fn stamps_in(directory: &Path) -> PathBuf {
    let names = names_in(directory);
    let mut stamps = names.iter().filter(|name| name.contains(".stamps-"));
    let only = stamps.next().unwrap();
    assert_eq!(stamps.next(), None);
    directory.join(only)
}

/// The lesson's format, by hand: what a student's code writes.
fn plain(offset: u64, entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = b"CKPT".to_vec();
    bytes.extend(offset.to_le_bytes());
    bytes.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
    for (key, value) in entries {
        for text in [key, value] {
            bytes.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
            bytes.extend(*text);
        }
    }
    bytes
}

/// Where the entries of a checkpoint with these live keys end, and a lesson's reader stops.
fn end_of_entries(store: &Store) -> usize {
    16 + store.iter().map(|(key, value)| 4 + key.len() + value.len()).sum::<usize>()
}

/// Verifies and loads bytes; on an error the store must be what it was.
fn load(bytes: &[u8], store: &mut Store) -> Result<Covered, Error> {
    let storage = MemoryStorage { bytes: bytes.to_vec(), ..MemoryStorage::default() };
    let before = store.clone();
    let result = checkpoint::open_packed(storage).and_then(|found| match found {
        Some(found) => found.apply(store).map(|()| found.covered),
        None => load_checkpoint(&file_with(&temp_dir(), "ckpt", bytes), store),
    });
    if result.is_err() {
        assert_eq!(*store, before, "a refused checkpoint changed the store");
    }
    result
}

fn mine() -> Store {
    store_of(&[Write::set(b"mine", b"stays", 3)])
}

/// Live keys with and without time stamps, an empty value, tombstones.
fn sample() -> Store {
    store_of(&[
        Write::set(b"a", b"1", 7),
        Write::set(b"legacy", b"no time stamp", 0),
        Write::set(b"empty", b"", u64::MAX),
        Write::set(b"dead", b"once", 8),
        Write::del(b"dead", 9),
        Write::del(b"never there", 1 << 62),
        Write::set(&[0, 0xFF, b'\n'], &[0, 1, 2, 0xFF], 11),
    ])
}

#[test]
fn a_store_comes_back_with_its_time_stamps_and_tombstones() {
    for store in [Store::new(), mine(), sample(), store_of(&[Write::del(b"only a tombstone", 4)])] {
        let mut loaded = Store::new();
        assert_eq!(load(&checkpoint_of(&store, COVERED), &mut loaded).unwrap(), COVERED);
        assert_eq!(loaded, store);
    }
    let mut loaded = Store::new();
    load(&checkpoint_of(&sample(), COVERED), &mut loaded).unwrap();
    assert_eq!(loaded.timestamp(b"never there"), Some(Timestamp(1 << 62)));
    let late = Write::set(b"dead", b"comes too late", 8);
    loaded.apply(&late.record()).unwrap();
    assert_eq!(loaded.get(b"dead"), None, "the tombstone still keeps an older SET out");
}

#[test]
fn a_store_larger_than_the_readers_window_comes_back() {
    let largest = vec![0x5A; 65_535];
    let mut writes: Vec<Write> = (0..7u8).map(|n| Write::set(&vec![n + 1; 65_535], &largest, u64::from(n))).collect();
    for n in 0..30_000u32 {
        let key = format!("key-{n}");
        writes.push(Write::set(key.as_bytes(), b"value", u64::from(n)));
        if n % 3 == 0 {
            writes.push(Write::del(key.as_bytes(), u64::from(n) + 1));
        }
    }
    let store = store_of(&writes);
    let mut loaded = Store::new();
    load(&checkpoint_of(&store, COVERED), &mut loaded).unwrap();
    assert_eq!(loaded.len(), 7 + 20_000);
    assert_eq!(loaded, store);
}

#[test]
fn the_front_of_the_file_is_the_lessons_layout_byte_for_byte() {
    let store = store_of(&[Write::set(b"name", b"alice", 5), Write::del(b"dead", 6)]);
    let directory = temp_dir();
    let path = directory.path().join("ckpt");
    checkpoint::write(&store, &path, COVERED).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), plain(27, &[(b"name", b"alice")]));
    assert_eq!(kinds_in(directory.path()), ["ckpt", "ckpt.stamps"]);
}

#[test]
fn a_checkpoint_and_what_belongs_to_it_survive_a_crash_between_the_two() {
    quiet();
    let directory = temp_dir();
    let path = directory.path().join("ckpt");
    checkpoint::write(&mine(), &path, COVERED).unwrap();
    let (old, old_stamps) = (std::fs::read(&path).unwrap(), stamps_in(directory.path()));
    let kept = std::fs::read(&old_stamps).unwrap();
    checkpoint::write(&sample(), &path, COVERED).unwrap();
    // The new file of ours is there, the old checkpoint and its own too.
    std::fs::write(&path, &old).unwrap();
    std::fs::write(&old_stamps, &kept).unwrap();
    let mut loaded = Store::new();
    assert_eq!(load_checkpoint(&path, &mut loaded).unwrap(), COVERED);
    assert_eq!(loaded, mine());
    // The next write leaves one of each.
    checkpoint::write(&sample(), &path, COVERED).unwrap();
    assert_eq!(kinds_in(directory.path()), ["ckpt", "ckpt.stamps"]);
}

#[test]
fn a_flipped_bit_in_either_file_is_never_a_lessons_checkpoint() {
    quiet();
    let directory = temp_dir();
    let path = directory.path().join("ckpt");
    checkpoint::write(&sample(), &path, COVERED).unwrap();
    for file in [path.clone(), stamps_in(directory.path())] {
        let whole = std::fs::read(&file).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file, damaged).unwrap();
            let mut store = mine();
            let error = load_checkpoint(&path, &mut store).map(|_| panic!("bit {bit} of {}", file.display()));
            assert_eq!(error.unwrap_err().errno(), libc::EBADMSG, "bit {bit} of {}", file.display());
            assert_eq!(store, mine());
        }
        std::fs::write(&file, whole).unwrap();
    }
    assert!(load_checkpoint(&path, &mut mine()).is_ok(), "the canary: what was changed back");
    // Another one in its place, of a lesson's code, is no damage, though ours is beside it still.
    let foreign = plain(54, &[(b"a", b"1"), (b"b", b"2")]);
    std::fs::write(&path, foreign).unwrap();
    let mut store = Store::new();
    assert_eq!(load_checkpoint(&path, &mut store).unwrap(), Covered { offset: 54, ..Covered::default() });
    assert_eq!(store.len(), 2);
}

/// What is planted under the name of a file of ours is not followed, not waited for, and not read whole.
#[test]
fn what_has_the_name_of_our_file_and_is_none_is_refused() {
    quiet();
    let directory = temp_dir();
    let path = directory.path().join("ckpt");
    checkpoint::write(&sample(), &path, COVERED).unwrap();
    let stamps = stamps_in(directory.path());
    let elsewhere = directory.path().join("elsewhere");
    std::fs::rename(&stamps, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &stamps).unwrap();
    assert_eq!(load_checkpoint(&path, &mut mine()).unwrap_err().errno(), libc::EBADMSG, "a link");
    std::fs::remove_file(&stamps).unwrap();
    nix::unistd::mkfifo(&stamps, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(load_checkpoint(&path, &mut mine()).unwrap_err().errno(), libc::EBADMSG, "a pipe");
    std::fs::remove_file(&stamps).unwrap();
    std::fs::create_dir(&stamps).unwrap();
    assert_eq!(load_checkpoint(&path, &mut mine()).unwrap_err().errno(), libc::EBADMSG, "a directory");
}

#[test]
fn files_of_ours_have_the_mode_of_what_they_stand_beside_or_replace() {
    use std::os::unix::fs::PermissionsExt;
    let directory = temp_dir();
    let wal = file_with(&directory, "wal", b"");
    std::fs::set_permissions(&wal, std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = directory.path().join("wal.ckpt");
    checkpoint::write(&sample(), &path, COVERED).unwrap();
    let modes = || -> Vec<u32> {
        let mode = |name: String| std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        names_in(directory.path()).into_iter().map(mode).collect()
    };
    assert_eq!(modes(), [0o600, 0o600, 0o600]);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    checkpoint::write(&mine(), &path, COVERED).unwrap();
    assert_eq!(modes(), [0o600, 0o640, 0o640]);
}

#[test]
fn a_file_that_a_lessons_code_wrote_loads_without_time_stamps() {
    let bytes = plain(27, &[(b"a", b"1"), (b"empty", b""), (b"b", b"22")]);
    let mut store = Store::new();
    let covered = load(&bytes, &mut store).unwrap();
    assert_eq!(covered, Covered { offset: 27, ..Covered::default() });
    let expected = [Write::set(b"a", b"1", 0), Write::set(b"empty", b"", 0), Write::set(b"b", b"22", 0)];
    assert_eq!(store, store_of(&expected));
    // By the conflict rule, as everything that comes in: what is there with a time stamp stays.
    let mut store = store_of(&[Write::set(b"a", b"newer", 1)]);
    load(&bytes, &mut store).unwrap();
    assert_eq!(store.get(b"a"), Some(&b"newer"[..]));
    assert_eq!(store.get(b"b"), Some(&b"22"[..]));
    // An empty one.
    assert_eq!(load(&plain(0, &[]), &mut Store::new()).unwrap(), Covered::default());
}

#[test]
fn a_lessons_file_that_is_cut_or_goes_on_is_refused() {
    let bytes = plain(27, &[(b"a", b"1"), (b"bb", b"22")]);
    for cut in 0..bytes.len() {
        assert!(matches!(load(&bytes[..cut], &mut mine()), Err(Error::Malformed(_))), "cut at {cut}");
    }
    for more in
        [&b"\0"[..], b"LSC", b"LSCK", b"no trailer at all, but longer than one would be, so it can be read as one"]
    {
        let longer = [&bytes[..], more].concat();
        assert!(matches!(load(&longer, &mut mine()), Err(Error::Malformed(_))), "{more:?}");
    }
    // A store may hold the empty key, although no record can.
    let mut store = mine();
    load(&plain(27, &[(b"", b"1")]), &mut store).unwrap();
    assert_eq!(store.get(b""), Some(&b"1"[..]));
}

#[test]
fn a_checkpoint_with_any_byte_changed_is_refused_and_the_store_stays() {
    let bytes = checkpoint_of(&sample(), COVERED);
    let mut refused = 0;
    for at in 0..bytes.len() {
        for mask in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF] {
            let mut changed = bytes.clone();
            changed[at] ^= mask;
            assert!(matches!(load(&changed, &mut mine()), Err(Error::Malformed(_))), "byte {at} ^ {mask:#x}");
            refused += 1;
        }
    }
    assert_eq!(refused, bytes.len() * 9);
    // The canary: what was changed back is accepted.
    assert!(load(&bytes, &mut mine()).is_ok());
}

#[test]
fn in_a_checkpoint_of_several_windows_a_byte_changed_anywhere_is_refused() {
    let large = [b'x'; 30_000];
    let writes: Vec<Write> = (0..40u8).map(|n| Write::set(&[n + 1], &large, u64::from(n))).collect();
    let bytes = checkpoint_of(&store_of(&writes), COVERED);
    assert!(bytes.len() > 4 * 256 * 1024);
    // In the values: nothing but the CRC can notice it.
    for at in (100..40 * 30_000).step_by(4_999) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(matches!(load(&changed, &mut mine()), Err(Error::Malformed(_))), "byte {at}");
    }
    assert!(load(&bytes, &mut mine()).is_ok());
}

#[test]
fn a_checkpoint_cut_at_any_byte_is_refused_but_where_the_lessons_entries_end() {
    for store in [sample(), store_of(&[Write::del(b"only a tombstone", 4)])] {
        let bytes = checkpoint_of(&store, COVERED);
        let end = end_of_entries(&store);
        for cut in 0..bytes.len() {
            let mut loaded = mine();
            let result = load(&bytes[..cut], &mut loaded);
            if cut == end {
                assert_eq!(result.unwrap().offset, COVERED.offset);
                assert_eq!(loaded.len(), store.len() + 1);
            } else {
                assert!(matches!(result, Err(Error::Malformed(_))), "cut at {cut}");
            }
        }
    }
}

#[test]
fn a_checkpoint_with_bytes_behind_its_end_is_refused() {
    let bytes = checkpoint_of(&sample(), COVERED);
    for more in [1, 4, 100] {
        assert!(matches!(load(&[&bytes[..], &vec![0; more]].concat(), &mut mine()), Err(Error::Malformed(_))));
    }
    assert!(matches!(load(&[&bytes[..], &bytes[..]].concat(), &mut mine()), Err(Error::Malformed(_))));
}

#[test]
fn loading_a_file_names_what_it_covers_and_a_missing_one_is_enoent() {
    quiet();
    let directory = temp_dir();
    let path = directory.path().join("ckpt");
    let mut store = mine();
    let missing = load_checkpoint(&path, &mut store).unwrap_err();
    assert_eq!(missing.errno(), libc::ENOENT);
    checkpoint::write(&sample(), &path, COVERED).unwrap();
    assert_eq!(load_checkpoint(&path, &mut store).unwrap(), COVERED);
    let mut expected = sample();
    expected.apply(&Write::set(b"mine", b"stays", 3).record()).unwrap();
    assert_eq!(store, expected);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut store = mine();
    assert_eq!(load_checkpoint(&path, &mut store).unwrap_err().errno(), libc::EBADMSG);
    assert_eq!(store, mine());
}

#[test]
fn writing_replaces_the_old_file_and_leaves_nothing_else() {
    let directory = temp_dir();
    let path = directory.path().join("ckpt");
    for store in [sample(), mine()] {
        checkpoint::write(&store, &path, COVERED).unwrap();
        assert_eq!(kinds_in(directory.path()), ["ckpt", "ckpt.stamps"]);
        let mut loaded = Store::new();
        load_checkpoint(&path, &mut loaded).unwrap();
        assert_eq!(loaded, store);
    }
}

#[test]
fn what_does_not_fit_is_too_large_and_the_old_file_stays() {
    let long = vec![b'x'; 65_536];
    let at = Timestamp(5);
    for record in [Record::set(b"k", &long, at), Record::set(&long, b"v", at), Record::del(&long, at)] {
        let directory = temp_dir();
        let path = directory.path().join("ckpt");
        checkpoint::write(&mine(), &path, COVERED).unwrap();
        let before = std::fs::read(&path).unwrap();
        let mut store = sample();
        store.apply(&record).unwrap();
        let error = checkpoint::write(&store, &path, COVERED).unwrap_err();
        assert!(matches!(error, Error::TooLarge(_)), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(kinds_in(directory.path()), ["ckpt", "ckpt.stamps"]);
    }
    // One byte less does.
    let longest = vec![b'x'; 65_535];
    let store = store_of(&[Write::set(&longest, &longest, 5), Write::del(&vec![b'y'; 65_535], 6)]);
    let mut loaded = Store::new();
    load(&checkpoint_of(&store, COVERED), &mut loaded).unwrap();
    assert_eq!(loaded, store);
}

#[test]
fn a_write_that_fails_leaves_no_temporary_file() {
    let directory = temp_dir();
    // A directory stands in the way of the rename.
    let path = directory.path().join("ckpt");
    std::fs::create_dir(&path).unwrap();
    let error = checkpoint::write(&sample(), &path, COVERED).unwrap_err();
    assert!(matches!(error, Error::Io(_)), "{error}");
    assert_eq!(names_in(directory.path()), ["ckpt"]);
    // There is no such directory.
    let error = checkpoint::write(&sample(), &directory.path().join("none/ckpt"), COVERED).unwrap_err();
    assert_eq!(error.errno(), libc::ENOENT);
    assert_eq!(names_in(directory.path()), ["ckpt"]);
}

#[test]
fn a_temporary_file_that_a_crash_left_is_removed_but_none_that_is_being_written_and_no_other() {
    let directory = temp_dir();
    file_with(&directory, "ckpt.tmp-1", b"half a checkpoint");
    file_with(&directory, "ckpt.tmp-mine", b"somebody's");
    let busy = std::fs::File::open(file_with(&directory, "ckpt.tmp-3", b"another process writes it")).unwrap();
    busy.lock().unwrap();
    let path = directory.path().join("ckpt");
    checkpoint::write(&sample(), &path, COVERED).unwrap();
    let mut loaded = Store::new();
    load_checkpoint(&path, &mut loaded).unwrap();
    assert_eq!(loaded, sample());
    assert_eq!(kinds_in(directory.path()), ["ckpt", "ckpt.stamps", "ckpt.tmp-3", "ckpt.tmp-mine"]);
}

/// A log of ten records; a checkpoint of the first six is taken at its sixth border.
struct Recovery {
    directory: tempfile::TempDir,
    log: Log,
}

const COVERED_RECORDS: usize = 6;

impl Recovery {
    fn new() -> Recovery {
        let mut writes: Vec<Write> =
            (0..9u8).map(|n| Write::set(&[b'k', b'0' + n], &[b'v', b'0' + n], 100 + u64::from(n))).collect();
        // The value of the third is a record, which would be one if anybody looked for it there.
        writes[2].value = Some(Write::set(b"inner", b"must never be seen", 1_000_000).encoded());
        writes.push(Write::del(b"k0", 500));
        let log = Log::new(writes);
        let this = Recovery { directory: temp_dir(), log };
        std::fs::write(this.wal(), &this.log.bytes).unwrap();
        this
    }

    fn wal(&self) -> std::path::PathBuf {
        self.directory.path().join("wal")
    }

    fn checkpoint(&self) -> std::path::PathBuf {
        self.directory.path().join("ckpt")
    }

    /// Takes a checkpoint of the first records that says it covers the log up to `offset`.
    fn take_checkpoint(&self, records: usize, offset: usize) {
        let covered = Covered { offset: offset as u64, ..compacted::covered(&self.log, records) };
        checkpoint::write(&self.log.store_of(records), &self.checkpoint(), covered).unwrap();
    }

    fn covered_offset(&self) -> usize {
        self.log.end_of(COVERED_RECORDS)
    }

    /// Recovers; returns how many records of the log were replayed, and the store.
    fn recover(&self) -> (u64, Store) {
        quiet();
        let mut store = Store::new();
        let replayed = recover_with_checkpoint(&self.wal(), &self.checkpoint(), &mut store).unwrap();
        (replayed, store)
    }

    /// Everything is there, and so many records of the log were replayed.
    fn is_whole(&self, replayed: u64, what: &str) {
        let (found, store) = self.recover();
        assert_eq!(found, replayed, "{what}: records replayed");
        assert_eq!(store, self.log.store_of(self.log.writes.len()), "{what}");
    }
}

#[test]
fn with_a_checkpoint_only_the_tail_is_replayed() {
    let recovery = Recovery::new();
    for records in 0..=recovery.log.writes.len() {
        recovery.take_checkpoint(records, recovery.log.end_of(records));
        recovery.is_whole((recovery.log.writes.len() - records) as u64, &format!("checkpoint of {records}"));
    }
}

#[test]
fn without_a_checkpoint_the_whole_log_is_replayed() {
    Recovery::new().is_whole(10, "no checkpoint");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_whole_log() {
    let recovery = Recovery::new();
    recovery.take_checkpoint(COVERED_RECORDS, recovery.covered_offset());
    let bytes = std::fs::read(recovery.checkpoint()).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        std::fs::write(recovery.checkpoint(), changed).unwrap();
        recovery.is_whole(10, &format!("byte {at} of the checkpoint changed"));
        std::fs::write(recovery.checkpoint(), &bytes[..at]).unwrap();
        recovery.is_whole(10, &format!("checkpoint cut at {at}"));
    }
}

/// Which records are covered is told by LSN and history; where they end in some file is not asked.
#[test]
fn a_checkpoint_of_ours_is_placed_by_its_history_and_not_by_its_offset() {
    let recovery = Recovery::new();
    for offset in [0, 1, 30, recovery.log.bytes.len(), usize::MAX] {
        recovery.take_checkpoint(COVERED_RECORDS, offset);
        recovery.is_whole(4, &format!("offset {offset}"));
    }
}

#[test]
fn a_lessons_checkpoint_whose_offset_is_no_border_of_the_log_is_unusable() {
    let recovery = Recovery::new();
    let store = recovery.log.store_of(COVERED_RECORDS);
    let entries: Vec<(&[u8], &[u8])> = store.iter().collect();
    let len = recovery.log.bytes.len();
    let borders = [&[0], recovery.log.ends.as_slice()].concat();
    // Inside records, the one inside a value included, and past the end.
    for offset in (0..len + 40).filter(|offset| !borders.contains(offset)) {
        std::fs::write(recovery.checkpoint(), plain(offset as u64, &entries)).unwrap();
        recovery.is_whole(10, &format!("offset {offset}"));
    }
    std::fs::write(recovery.checkpoint(), plain(u64::MAX, &entries)).unwrap();
    recovery.is_whole(10, "offset u64::MAX");
}

/// A node checkpoints, its log is cut back, and it gets other records of the same lengths.
#[test]
fn a_checkpoint_of_another_past_is_passed_over_for_the_whole_log() {
    let recovery = Recovery::new();
    for records in [COVERED_RECORDS, 9] {
        recovery.take_checkpoint(records, recovery.log.end_of(records));
        let mut writes = recovery.log.writes.clone();
        for write in &mut writes[3..] {
            write.timestamp += 1000;
        }
        let other = Log::new(writes);
        assert_eq!(other.ends, recovery.log.ends);
        std::fs::write(recovery.wal(), &other.bytes).unwrap();
        let (replayed, store) = recovery.recover();
        assert_eq!((replayed, store), (10, other.store_of(10)), "{records} covered");
    }
}

#[test]
fn a_log_that_ends_before_its_checkpoint_does_is_refused() {
    quiet();
    let recovery = Recovery::new();
    recovery.take_checkpoint(COVERED_RECORDS, recovery.covered_offset());
    for len in 0..recovery.covered_offset() {
        std::fs::write(recovery.wal(), &recovery.log.bytes[..len]).unwrap();
        let mut store = mine();
        let refused = recover_with_checkpoint(&recovery.wal(), &recovery.checkpoint(), &mut store);
        let error = refused.map(|records| panic!("{len} bytes: {records} records")).unwrap_err();
        assert_eq!((error.errno(), &store), (libc::EBADMSG, &mine()), "{len} bytes");
        let sides = ["up to LSN 6".to_owned(), format!("ends with LSN {}", recovery.log.whole_before(len))];
        assert!(sides.iter().all(|side| error.to_string().contains(side)), "{error}");
    }
}

#[test]
fn a_lessons_checkpoint_is_as_good_as_ours() {
    let recovery = Recovery::new();
    let store = recovery.log.store_of(COVERED_RECORDS);
    let entries: Vec<(&[u8], &[u8])> = store.iter().collect();
    std::fs::write(recovery.checkpoint(), plain(recovery.covered_offset() as u64, &entries)).unwrap();
    let (replayed, loaded) = recovery.recover();
    assert_eq!(replayed, 4);
    let whole = recovery.log.store_of(10);
    assert_eq!(loaded.iter().collect::<std::collections::BTreeMap<_, _>>(), whole.iter().collect());
}

#[test]
fn an_empty_log_and_a_missing_log_are_not_the_same() {
    quiet();
    let recovery = Recovery::new();
    std::fs::write(recovery.wal(), b"").unwrap();
    assert_eq!(recovery.recover(), (0, Store::new()));
    recovery.take_checkpoint(0, 0);
    assert_eq!(recovery.recover(), (0, Store::new()));
    std::fs::remove_file(recovery.wal()).unwrap();
    for checkpoint in [recovery.checkpoint().as_path(), Path::new("none")] {
        let error = recover_with_checkpoint(&recovery.wal(), checkpoint, &mut mine()).unwrap_err();
        assert_eq!(error.errno(), libc::ENOENT);
    }
}

#[test]
fn damage_behind_the_checkpoint_stops_the_replay_there() {
    let recovery = Recovery::new();
    recovery.take_checkpoint(COVERED_RECORDS, recovery.covered_offset());
    for at in recovery.covered_offset()..recovery.log.bytes.len() {
        let mut bytes = recovery.log.bytes.clone();
        bytes[at] ^= 0x01;
        std::fs::write(recovery.wal(), bytes).unwrap();
        let whole = recovery.log.whole_before(at);
        let expected = ((whole - COVERED_RECORDS) as u64, recovery.log.store_of(whole));
        assert_eq!(recovery.recover(), expected, "byte {at}");
    }
}

/// Changes one byte of the log before the checkpoint's offset; everything must still be recovered, as the checkpoint
/// holds what that part of the log no longer tells.
fn damage_before_the_checkpoint_is_covered(wanted: impl Fn(usize) -> bool) {
    let recovery = Recovery::new();
    recovery.take_checkpoint(COVERED_RECORDS, recovery.covered_offset());
    let mut tried = 0;
    for record in 0..COVERED_RECORDS {
        let start = recovery.log.end_of(record);
        for at in (start..recovery.log.ends[record]).filter(|at| wanted(at - start)) {
            for mask in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80] {
                let mut bytes = recovery.log.bytes.clone();
                bytes[at] ^= mask;
                std::fs::write(recovery.wal(), bytes).unwrap();
                recovery.is_whole(4, &format!("byte {at} ^ {mask:#x}"));
                tried += 1;
            }
        }
    }
    assert!(tried >= COVERED_RECORDS * 8);
}

#[test]
fn damage_before_the_checkpoint_costs_nothing() {
    damage_before_the_checkpoint_is_covered(|at| !(4..8).contains(&at));
}

#[test]
fn damage_to_a_length_before_the_checkpoint_costs_nothing() {
    damage_before_the_checkpoint_is_covered(|at| (4..8).contains(&at));
}

fn any_write() -> impl Strategy<Value = Write> {
    let key = prop::collection::vec(any::<u8>(), 1..5);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..60));
    let timestamp = prop_oneof![Just(0), 1..6u64, any::<u64>()];
    (key, value, timestamp).prop_map(|(key, value, timestamp)| Write { key, value, timestamp, legacy: false })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_store_comes_back(writes in prop::collection::vec(any_write(), 0..40), offset in any::<u64>()) {
        let covered = Covered { offset, lsn: Lsn(offset / 3), history: History(offset << 40) };
        let store = store_of(&writes);
        let mut loaded = Store::new();
        prop_assert_eq!(load(&checkpoint_of(&store, covered), &mut loaded).unwrap(), covered);
        prop_assert_eq!(loaded, store);
    }

    #[test]
    fn checkpoint_and_tail_are_the_whole_log(
        writes in prop::collection::vec(any_write(), 0..30),
        at in any::<prop::sample::Index>(),
    ) {
        quiet();
        let log = Log::new(writes);
        let records = at.index(log.writes.len() + 1);
        let directory = temp_dir();
        let (wal, ckpt) = (file_with(&directory, "wal", &log.bytes), directory.path().join("ckpt"));
        checkpoint::write(&log.store_of(records), &ckpt, compacted::covered(&log, records)).unwrap();
        let (mut whole, mut recovered) = (Store::new(), Store::new());
        let replayed = recover_with_checkpoint(&wal, &ckpt, &mut recovered).unwrap();
        prop_assert_eq!(recover(&wal, &mut whole).unwrap(), log.writes.len() as u64);
        prop_assert_eq!(replayed, (log.writes.len() - records) as u64);
        prop_assert_eq!(recovered, whole);
    }

    #[test]
    fn any_bytes_at_all_are_refused_or_loaded_without_a_panic(seed in any::<u64>(), len in 0..400usize) {
        let mut bytes = checkpoint_of(&sample(), COVERED);
        let noise = Random(seed).bytes(len);
        let at = Random(!seed).below(bytes.len());
        for (byte, noise) in bytes[at..].iter_mut().zip(noise) {
            *byte = noise;
        }
        let _ = load(&bytes, &mut mine());
    }
}
