//! Index files whose CRC is right and whose content is not: of a program with a mistake, of a stranger, of a memory
//! that flips bits. Whatever one says, a log is known as it is without: the same LSNs, places and histories, the same end,
//! the same verdict on that end. Seeded; the lies are of kinds that one who looks at less would believe.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Log, Random, Write, names_in, quiet, temp_dir};
use logship::storage::Storage;
use logship::storage::file;
use logship::storage::memory::MemoryStorage;
use logship::types::History;
use logship::wal::checkpoint::{self, Covered};
use logship::wal::compact::Retention;
use logship::wal::crc::crc32;
use logship::wal::judge::{self, Verdict};
use logship::wal::note::Note;
use logship::wal::scan::End;
use logship::wal::tail::LogTail;
use logship::{Lsn, Store, Wal, wal};
use std::path::Path;

/// Records after which the index file is written, and all records.
const INDEXED: usize = 66_000;
const COUNT: usize = 66_300;

/// Which of the file's numbers is what.
const BASE: usize = 2;
const LEN: usize = 4;
const LAST: usize = 5;
const HISTORY: usize = 6;
const LAST_AT: usize = 7;
const LAST_HEAD: usize = 9;
const STRIDE: usize = 10;
const MARK_COUNT: usize = 11;
const MARKS: usize = 12;

/// Sizes differ, so that a wrong offset shows.
fn log() -> Log {
    Log::new((1..=COUNT).map(|lsn| Write::set(b"k", &b"012345"[..lsn % 7 % 6], lsn as u64)).collect())
}

/// What is true of the log: where each record begins, how, and what the log has been through before it.
struct Truth {
    log: Log,
    heads: Vec<[u8; 8]>,
    before: Vec<History>,
    memory: MemoryStorage,
    /// The numbers of a right index file.
    words: Vec<u64>,
}

impl Truth {
    fn new() -> Truth {
        let log = log();
        let heads: Vec<_> = (0..COUNT).map(|record| *log.bytes[log.end_of(record)..].first_chunk().unwrap()).collect();
        let mut before = vec![History::EMPTY];
        for head in &heads {
            before.push(before.last().unwrap().then(*head));
        }
        let mut wal = Wal::with_storage(MemoryStorage::default()).unwrap();
        for range in [0..INDEXED, INDEXED..COUNT] {
            wal.append_batch(&log.writes[range].iter().map(Write::record).collect::<Vec<_>>()).unwrap();
        }
        let memory = wal.storage().clone();
        let words = words_of(&memory.beside.borrow()[".idx"]);
        assert_eq!((words[LAST], words[STRIDE], words[MARK_COUNT]), (INDEXED as u64, 256, words.len() as u64 / 2 - 6));
        Truth { log, heads, before, memory, words }
    }

    fn offset(&self, record: usize) -> u64 {
        self.log.end_of(record) as u64
    }

    /// Makes the file say that it covers the first `count` records, which is true, and that the last has another LSN.
    fn end_at(&self, words: &mut [u64], count: usize, last: u64) {
        let head = u64::from_le_bytes(self.heads[count - 1]);
        (words[LEN], words[LAST], words[HISTORY]) = (self.offset(count), last, self.before[count].0);
        (words[LAST_AT], words[LAST_HEAD]) = (self.offset(count - 1), head);
    }

    /// Changes what the file says, and returns what was done and at about which record.
    fn lie(&self, words: &mut Vec<u64>, random: &mut Random) -> (&'static str, usize) {
        let marks = (words.len() - MARKS) / 2;
        let at = random.below(marks.max(1));
        let mark = MARKS + 2 * at;
        let step = 1 + random.below(3);
        let delta = step as u64;
        let nearby = |number: u64, random: &mut Random| match random.below(4) {
            0 => number.wrapping_add(delta),
            1 => number.wrapping_sub(delta),
            2 => number ^ (1 << random.below(64)),
            _ => random.next(),
        };
        let what = match random.below(10) {
            0 => {
                let which = LEN + random.below(MARKS - LEN);
                words[which] = nearby(words[which], random);
                "a number"
            }
            1 => {
                let count = INDEXED - 1 - random.below(2000);
                let last = [count as u64 + delta, count as u64 - delta][random.below(2)];
                self.end_at(words, count, last);
                "where it ends"
            }
            2 => {
                words[LAST] = [words[LAST] + delta, words[LAST] - delta][random.below(2)];
                "the last LSN"
            }
            3 if marks > 1 => {
                // Some marks from here on are those of later records, with their histories.
                let some = 1 + random.below(marks);
                for (slot, pair) in words[MARKS..].chunks_exact_mut(2).enumerate().skip(at.max(1)).take(some) {
                    let record = (slot * 256 + step).min(COUNT - 1);
                    (pair[0], pair[1]) = (self.offset(record), self.before[record].0);
                }
                "the marks behind one"
            }
            4 if marks > 0 => {
                words[mark] = nearby(words[mark], random);
                "where a mark is"
            }
            5 if marks > 0 => {
                words[mark + 1] = nearby(words[mark + 1], random);
                "a mark's history"
            }
            6 => {
                words[STRIDE] = [512, 1024, 256, 128, 257, 1 << 40][random.below(6)];
                "how far apart marks are"
            }
            7 if marks > 1 => {
                let other = MARKS + 2 * random.below(marks);
                (words[mark], words[other]) = (words[other], words[mark]);
                (words[mark + 1], words[other + 1]) = (words[other + 1], words[mark + 1]);
                "two marks' places"
            }
            8 => {
                words.truncate(MARKS + 2 * at);
                words[MARK_COUNT] = at as u64;
                "no marks from one on"
            }
            _ => {
                // Another past up to a mark, and from there on what follows from that.
                let first = random.below(marks.max(1)).max(1) * 256;
                let mut history = History(random.next());
                for record in first..INDEXED {
                    if record % 256 == 0
                        && let Some(word) = words.get_mut(MARKS + record / 128 + 1)
                    {
                        *word = history.0;
                    }
                    history = history.then(self.heads[record]);
                }
                words[HISTORY] = history.0;
                "another past"
            }
        };
        (what, at * 256)
    }

    /// The first `count` records must be known as they are; look-ups are made about where there was a lie.
    fn is_known(&self, storage: &impl Storage, tail: &LogTail, count: usize, lies: &[usize], random: &mut Random) {
        let what = format!("lies about records {lies:?}");
        let ends = (tail.len(), tail.last(), tail.history());
        assert_eq!(ends, (self.offset(count), Lsn(count as u64), self.before[count]), "{what}");
        assert!(tail.last_is(self.log.end_of(count) - self.log.end_of(count - 1), tail.last_crc()), "{what}");
        assert_eq!(&tail.last_crc().to_le_bytes(), &self.heads[count - 1][..4], "{what}");
        for number in 0..8 {
            let record = match lies.get(number / 2) {
                Some(about) => (about + random.below(600)).saturating_sub(200).min(count - 1),
                None => random.below(count),
            };
            let lsn = Lsn(record as u64);
            let (at, _, history) = tail.place_behind(storage, lsn).unwrap().unwrap();
            assert_eq!((at.offset, at.lsn, history), (self.offset(record), lsn.next(), self.before[record]), "{what}");
            let found = tail.covered_before(storage, self.offset(record)).unwrap().unwrap();
            assert_eq!((found.lsn, found.history), (lsn, self.before[record]), "{what}");
            let near = tail.near(storage, lsn.next()).unwrap();
            let bytes = wal::read_record(storage, near, lsn.next()).unwrap();
            assert_eq!(bytes, self.log.writes[record].encoded(), "{what}: record {}", lsn.next());
        }
    }

    /// One index file, one log that ends in one of several ways.
    fn try_one(&self, seed: u64) {
        let random = &mut Random(seed);
        let mut words = self.words.clone();
        let (whats, lies): (Vec<_>, Vec<_>) = (0..=random.below(3)).map(|_| self.lie(&mut words, random)).unzip();
        let mut memory = self.memory.clone();
        memory.beside.borrow_mut().insert(".idx".to_owned(), bytes_of(&words));
        let count = match random.below(3) {
            // The end was being written; or a record behind what the file covers is damaged, or one before that.
            0 => {
                memory.bytes.truncate(self.log.bytes.len() - 1 - random.below(10));
                COUNT - 1
            }
            1 => {
                let record = INDEXED + random.below(COUNT - INDEXED - 1);
                memory.bytes[self.log.end_of(record) + 9] ^= 1;
                record
            }
            _ => COUNT,
        };
        // A log that is torn behind what was durable, as a crash leaves it.
        if count == COUNT - 1 {
            memory.note.replace(Some(self.note_of(COUNT - 1).encode()));
        }
        let what = format!("seed {seed}: {}", whats.join(", "));
        let mut tail = Box::<LogTail>::default();
        let end = tail.refresh(&memory).unwrap();
        assert_eq!((end.next.offset, end.damaged), (self.offset(count), count < COUNT), "{what}");
        println!("{what}");
        self.is_known(&memory, &tail, count, &lies, random);
        self.is_judged(&memory, &end, count, &what);
        if count == COUNT {
            let mut wal = Wal::with_storage(memory).unwrap();
            let write = Write::set(b"more", b"of it", COUNT as u64 + 1);
            assert_eq!(wal.append(&write.record()).unwrap(), Lsn(COUNT as u64 + 1), "{what}");
            assert_eq!(wal.storage().bytes, [self.log.bytes.as_slice(), &write.encoded()].concat(), "{what}");
        }
    }

    /// The note of a log of which the first `count` records are durable.
    fn note_of(&self, count: usize) -> Note {
        let last = Note::decode(self.memory.note.borrow().as_ref().unwrap()).unwrap();
        Note {
            durable: self.offset(count),
            last: Lsn(count as u64),
            last_at: self.offset(count - 1),
            last_head: self.heads[count - 1],
            history: self.before[count],
            ..last
        }
    }

    fn is_judged(&self, memory: &MemoryStorage, end: &End, count: usize, what: &str) {
        let note = Note::of(memory, end).unwrap();
        let verdict = judge::judge(memory, end, note.as_ref()).unwrap();
        match count {
            COUNT => assert_eq!(verdict, Verdict::Whole, "{what}"),
            _ if count == COUNT - 1 && memory.bytes.len() < self.log.bytes.len() => {
                assert_eq!(verdict, Verdict::Torn, "{what}");
            }
            _ => assert!(matches!(verdict, Verdict::Refused(_)), "{what}: {verdict:?}"),
        }
    }
}

fn words_of(bytes: &[u8]) -> Vec<u64> {
    bytes[8..bytes.len() - 4].as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    let mut bytes = b"LSINDEX\x02".to_vec();
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(crc32(&bytes).to_le_bytes());
    bytes
}

fn try_many(count: u64) {
    quiet();
    let truth = Truth::new();
    for seed in 0..count {
        truth.try_one(seed);
    }
}

#[test]
fn whatever_an_index_file_says_a_log_is_known_as_it_is() {
    try_many(300);
}

#[test]
#[ignore = "long run: 20,000 lies, two minutes"]
fn whatever_an_index_file_says_a_log_is_known_as_it_is_in_many_tries() {
    try_many(20_000);
}

/// The same on files: open, look up, cut, compact, recover. What a node does with a log that it knows wrongly would
/// show in them.
#[test]
fn whatever_an_index_file_says_nothing_is_cut_or_lost() {
    quiet();
    let truth = Truth::new();
    for seed in 1_000_000..1_000_020 {
        let random = &mut Random(seed);
        let mut words = truth.words.clone();
        let (what, about) = truth.lie(&mut words, random);
        println!("seed {seed}: {what}");
        let directory = temp_dir();
        let path = directory.path().join("wal");
        std::fs::write(&path, &truth.log.bytes).unwrap();
        drop(Wal::open(&path).unwrap());
        lie_about(&path, &mut words);
        let mut wal = Wal::open(&path).unwrap();
        let reader = file::open_read(&path).unwrap();
        truth.is_known(&reader, wal.tail(), COUNT, &[about], random);
        assert_eq!(names_in(directory.path()), ["wal", "wal.idx"], "{what}");
        let kept = 20_000 + random.below(COUNT - 20_000);
        let covered = Covered { offset: truth.offset(kept), lsn: Lsn(kept as u64), history: truth.before[kept] };
        let ckpt = file::beside(&path, ".ckpt");
        if random.one_in(2) {
            wal.truncate_to(covered.lsn).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), truth.log.bytes[..truth.log.end_of(kept)], "{what}");
            drop(wal);
            let mut store = Store::new();
            assert_eq!(wal::recover(&path, &mut store).unwrap(), kept as u64, "{what}");
        } else {
            checkpoint::write(&truth.log.store_of(kept), &ckpt, covered).unwrap();
            let done = wal.compact(&ckpt, &Retention::default(), None).unwrap();
            assert_eq!((done.base.next(), done.records), (covered.lsn, kept as u64 - 1), "{what}");
            drop(wal);
            let mut store = Store::new();
            assert_eq!(wal::recover(&path, &mut store).unwrap(), (COUNT - kept) as u64, "{what}");
            assert_eq!(store, truth.log.store_of(COUNT), "{what}");
        }
    }
}

/// Puts the lie beside the log as if it had been written when the log was changed last.
fn lie_about(path: &Path, words: &mut [u64]) {
    let own = words_of(&std::fs::read(file::beside(path, ".idx")).unwrap());
    words[..BASE].copy_from_slice(&own[..BASE]);
    std::fs::write(file::beside(path, ".idx"), bytes_of(words)).unwrap();
}
