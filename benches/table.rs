//! The safe table of the Rust API at 1,000,000 keys of 16 bytes with values of 16 bytes.
#![allow(missing_docs, reason = "a benchmark has no readers but its own")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has to stop")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use logship::kv::StateMachine;
use logship::kv::table::Store;
use logship::{Record, Timestamp};

const KEYS: usize = 1_000_000;
const VALUE: &[u8] = b"a-16-byte-value.";

fn main() {
    divan::main();
}

type Key = [u8; 16];

fn keys() -> Vec<Key> {
    (0..KEYS).map(|number| format!("key-{number:012}").into_bytes().try_into().unwrap()).collect()
}

/// Fisher and Yates, with a generator of its own so that every run has the same order.
fn shuffled(mut keys: Vec<Key>) -> Vec<Key> {
    let mut state = 88_172_645_463_325_252_u64;
    for last in (1..keys.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        keys.swap(last, usize::try_from(state % (last as u64 + 1)).unwrap());
    }
    keys
}

fn filled(keys: &[Key]) -> Store {
    let mut store = Store::new();
    set_all(&mut store, keys, Timestamp(1));
    store
}

fn set_all(store: &mut Store, keys: &[Key], at: Timestamp) {
    for key in keys {
        store.apply(&Record::set(key, VALUE, at)).unwrap();
    }
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn set_new(bencher: Bencher<'_, '_>) {
    let keys = keys();
    bencher.counter(ItemsCount::new(KEYS)).bench_local(|| filled(&keys));
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn set_existing_random(bencher: Bencher<'_, '_>) {
    let keys = shuffled(keys());
    let mut store = filled(&keys);
    let mut at = 1;
    bencher.counter(ItemsCount::new(KEYS)).bench_local(|| {
        at += 1;
        set_all(&mut store, &keys, Timestamp(at));
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn get_random(bencher: Bencher<'_, '_>) {
    let keys = keys();
    let store = filled(&keys);
    let keys = shuffled(keys);
    bencher.counter(ItemsCount::new(KEYS)).bench_local(|| {
        for key in &keys {
            black_box(store.get(key)).unwrap();
        }
    });
}
