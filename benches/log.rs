//! The log: appends with one fsync each and in batches, to a file and to memory; a scan and a recovery of 1,000,000
//! records.
#![allow(missing_docs, reason = "a benchmark has no readers but its own")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has to stop")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use logship::kv::table::Store;
use logship::storage::memory::MemoryStorage;
use logship::wal::scan::{self, Position};
use logship::wal::{self, record};
use logship::{Lsn, Record, Timestamp, Wal};

/// Records in the logs that are read.
const RECORDS: usize = 1_000_000;
const VALUE: &[u8] = b"a-16-byte-value.";

fn main() {
    divan::main();
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key-{number:012}")).collect()
}

fn records(keys: &[String]) -> Vec<Record<'_>> {
    (1_u64..).zip(keys).map(|(at, key)| Record::set(key.as_bytes(), VALUE, Timestamp(at))).collect()
}

fn encoded_log() -> Vec<u8> {
    let keys = keys(RECORDS);
    let mut bytes = Vec::new();
    wal::encode_all(&records(&keys), &mut bytes).unwrap();
    bytes
}

/// One write and one fsync for each batch.
#[divan::bench(args = [1, 10, 100, 1000], sample_count = 100, sample_size = 1)]
fn append_batch_file(bencher: Bencher<'_, '_>, size: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = Wal::open(dir.path().join("bench.wal")).unwrap();
    let keys = keys(size);
    let records = records(&keys);
    bencher.counter(ItemsCount::new(size)).bench_local(|| wal.append_batch(&records).unwrap());
}

/// What the log costs besides the disk.
#[divan::bench(args = [1, 100], sample_count = 200, sample_size = 100)]
fn append_batch_memory(bencher: Bencher<'_, '_>, size: usize) {
    let mut wal = Wal::with_storage(MemoryStorage::default()).unwrap();
    let keys = keys(size);
    let records = records(&keys);
    bencher.counter(ItemsCount::new(size)).bench_local(|| wal.append_batch(&records).unwrap());
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn scan_memory(bencher: Bencher<'_, '_>) {
    let storage = MemoryStorage { bytes: encoded_log(), ..MemoryStorage::default() };
    let limit = u64::try_from(storage.bytes.len()).unwrap();
    let from = Position { offset: 0, lsn: Lsn(1) };
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        let mut count = 0;
        scan::scan(&storage, from, limit, |batch| {
            count += black_box(batch).records.len();
            Ok(())
        })
        .unwrap();
        assert_eq!(count, RECORDS);
    });
}

/// From a file that the page cache holds, into the safe table.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn recover_file(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bench.wal");
    std::fs::write(&path, encoded_log()).unwrap();
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        let mut store = Store::new();
        wal::recover(&path, &mut store).unwrap();
        assert_eq!(store.len(), RECORDS);
        store
    });
}

/// Behind damage every offset is looked at: nonsense has to be seen as such without reading what it claims.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn next_in_at_every_offset_of_64_kib(bencher: Bencher<'_, '_>) {
    let bytes: Vec<u8> = (0..64_u32 << 10).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    bencher.counter(ItemsCount::new(bytes.len())).bench_local(|| {
        for at in 0..bytes.len() {
            black_box(record::next_in(black_box(&bytes[at..])));
        }
    });
}
