//! crc32: bytes per second, by size. 44 bytes is what the CRC of a small record covers.
#![allow(missing_docs, reason = "a benchmark has no readers but its own")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use logship::wal::crc;

fn main() {
    divan::main();
}

/// Bytes without a pattern.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[divan::bench(args = [49, 1024, 64 << 10, 1 << 20])]
fn crc32(bencher: Bencher<'_, '_>, len: usize) {
    let data = noise(len);
    bencher.counter(BytesCount::new(len)).bench_local(|| crc::crc32(black_box(&data)));
}
