//! What several test files share: records as bytes, stores, seeded randomness. No test stands here.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod compacted;
pub(crate) mod snapshot;

use logship::kv::StateMachine;
use logship::kv::table::Store;
use logship::wal::crc::crc32;
use logship::wal::record;
use logship::{Op, Record, Timestamp};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory that is gone after the test: in memory where there is one, because the tests that open hundreds of logs
/// fsync each of them several times.
pub(crate) fn temp_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Sends the library's diagnostics nowhere: a damage test makes thousands of them.
pub(crate) fn quiet() {
    logship::diag::set_sink(Some(|_, _| {}));
}

/// A record that owns its bytes. `legacy`: it is encoded as W10 did, without a time stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) timestamp: u64,
    pub(crate) legacy: bool,
}

impl Write {
    pub(crate) fn set(key: &[u8], value: &[u8], timestamp: u64) -> Write {
        Write { key: key.to_vec(), value: Some(value.to_vec()), timestamp, legacy: false }
    }

    pub(crate) fn del(key: &[u8], timestamp: u64) -> Write {
        Write { key: key.to_vec(), value: None, timestamp, legacy: false }
    }

    /// The same without a time stamp.
    pub(crate) fn legacy(self) -> Write {
        Write { timestamp: 0, legacy: true, ..self }
    }

    pub(crate) fn record(&self) -> Record<'_> {
        let op = if self.value.is_some() { Op::Set } else { Op::Del };
        let value = self.value.as_deref().unwrap_or_default();
        Record { op, key: &self.key, value, timestamp: Timestamp(self.timestamp) }
    }

    pub(crate) fn encoded(&self) -> Vec<u8> {
        let record = self.record();
        let mut bytes = vec![0; record.encoded_len()];
        record::encode(&record, &mut bytes).unwrap();
        if self.legacy {
            // Without its last 8 bytes, under a length and a CRC that say so.
            let fields = &bytes[8..bytes.len() - 8];
            let covered = [&u32::try_from(fields.len()).unwrap().to_le_bytes()[..], fields].concat();
            bytes = [&crc32(&covered).to_le_bytes()[..], &covered].concat();
        }
        bytes
    }
}

/// A log of some writes: its bytes, and where each record ends.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) writes: Vec<Write>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<usize>,
}

impl Log {
    pub(crate) fn new(writes: Vec<Write>) -> Log {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for write in &writes {
            bytes.extend(write.encoded());
            ends.push(bytes.len());
        }
        Log { writes, bytes, ends }
    }

    /// How many records end at or before byte `at`.
    pub(crate) fn whole_before(&self, at: usize) -> usize {
        self.ends.iter().filter(|end| **end <= at).count()
    }

    /// The byte after the first `count` records.
    pub(crate) fn end_of(&self, count: usize) -> usize {
        if count == 0 { 0 } else { self.ends[count - 1] }
    }

    /// The store that the first `count` records build.
    pub(crate) fn store_of(&self, count: usize) -> Store {
        store_of(&self.writes[..count])
    }
}

/// The store that some writes build, in this order.
pub(crate) fn store_of<'a>(writes: impl IntoIterator<Item = &'a Write>) -> Store {
    let mut store = Store::new();
    for write in writes {
        store.apply(&write.record()).unwrap();
    }
    store
}

/// The names in a directory, sorted.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The same without what a checkpoint's content makes of the name of what belongs to it.
pub(crate) fn kinds_in(directory: &Path) -> Vec<String> {
    let kind = |name: String| name.find(".stamps-").map_or(name.clone(), |at| name[..at + 7].to_owned());
    names_in(directory).into_iter().map(kind).collect()
}

/// Writes a file and returns its path.
pub(crate) fn file_with(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// SplitMix64 (Steele et al., 2014): the same numbers from the same seed, everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit as u64)).unwrap()
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}
