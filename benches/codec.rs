//! The codec of a small record (16-byte key and value) through the Rust API: nothing is copied on the way back.
//!
//! To reach: 18 million pairs of encode and decode a second. `c_tests/run_bench.sh` reads `encode_decode`'s median.
#![allow(missing_docs, reason = "a benchmark has no readers but its own")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has to stop")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use logship::wal::record;
use logship::{Record, Timestamp};

/// How many records one iteration goes through, all with keys of their own.
const RECORDS: usize = 256;

fn main() {
    divan::main();
}

fn keys() -> Vec<String> {
    (0..RECORDS).map(|number| format!("key-{number:012}")).collect()
}

fn records(keys: &[String]) -> Vec<Record<'_>> {
    (1_u64..).zip(keys).map(|(at, key)| Record::set(key.as_bytes(), b"a-16-byte-value.", Timestamp(at))).collect()
}

fn per_second(bencher: Bencher<'_, '_>, mut each: impl FnMut(&Record<'_>)) {
    let keys = keys();
    let records = records(&keys);
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| black_box(&records).iter().for_each(&mut each));
}

#[divan::bench]
fn encode_decode(bencher: Bencher<'_, '_>) {
    let mut buffer = vec![0; record::RECORD_MAX];
    per_second(bencher, |record| {
        let len = record::encode(record, &mut buffer).unwrap();
        black_box(record::decode(black_box(&buffer[..len])).unwrap());
    });
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let mut buffer = vec![0; record::RECORD_MAX];
    per_second(bencher, |record| {
        black_box(record::encode(record, black_box(&mut buffer)).unwrap());
    });
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let mut buffer = vec![0; record::RECORD_MAX];
    let len =
        record::encode(&Record::set(b"key-000000000042", b"a-16-byte-value.", Timestamp(1)), &mut buffer).unwrap();
    per_second(bencher, |_| {
        black_box(record::decode(black_box(&buffer[..len])).unwrap());
    });
}
