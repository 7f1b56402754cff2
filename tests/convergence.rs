//! Every replica that saw the same set of stamped records, in any order, any number of times, has the same store:
//! values, time stamps and tombstones. Records without a time stamp keep the order of the log instead.
//!
//! Few keys, few values and few time stamps, so that ties of every kind come up in every case.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Log, Random, Write, quiet, store_of, temp_dir};
use logship::kv::table::Store;
use logship::kv::{Applied, StateMachine};
use logship::storage::memory::MemoryStorage;
use logship::wal::checkpoint::{self, Covered};
use logship::wal::{load_checkpoint, recovery};
use logship::{Op, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// The values are such that one is another's prefix, one is empty, and signed bytes would order them otherwise.
const VALUES: [&[u8]; 6] = [b"", b"a", b"ab", b"b", b"\x7f", b"\x80"];

fn any_value() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![2 => Just(None), 5 => prop::sample::select(VALUES.to_vec()).prop_map(|value| Some(value.to_vec()))]
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    (b'x'..=b'z').prop_map(|key| vec![key])
}

/// A SET or DEL with one of four time stamps.
fn stamped() -> impl Strategy<Value = Write> {
    let timestamp = prop::sample::select(vec![1, 2, 3, u64::MAX]);
    (any_key(), any_value(), timestamp).prop_map(|(key, value, timestamp)| Write {
        key,
        value,
        timestamp,
        legacy: false,
    })
}

/// A SET or DEL of a W10 log.
fn legacy() -> impl Strategy<Value = Write> {
    (any_key(), any_value()).prop_map(|(key, value)| Write { key, value, timestamp: 0, legacy: true })
}

/// The same writes, each at least once, some several times, in another order.
fn shuffled(writes: &[Write], seed: u64) -> Vec<Write> {
    let mut random = Random(seed);
    let mut all = writes.to_vec();
    for _ in 0..random.below(writes.len() + 1) {
        all.push(writes[random.below(writes.len())].clone());
    }
    for last in (1..all.len()).rev() {
        all.swap(last, random.below(last + 1));
    }
    all
}

/// Two sequences as one, each in its own order.
fn interleaved(first: &[Write], second: &[Write], seed: u64) -> Vec<Write> {
    let mut random = Random(seed);
    let (mut first, mut second) = (first.iter().peekable(), second.iter().peekable());
    let mut all = Vec::new();
    while first.peek().is_some() || second.peek().is_some() {
        let from_first = second.peek().is_none() || (first.peek().is_some() && random.one_in(2));
        all.extend(if from_first { first.next() } else { second.next() }.cloned());
    }
    all
}

/// What must be there, told without the conflict rule's code: of each key the write that is greatest by time stamp,
/// then SET above DEL, then the greater value.
fn expected<'a>(writes: &'a [Write], key: &[u8]) -> Option<&'a Write> {
    writes.iter().filter(|write| write.key == key).max_by_key(|write| (write.timestamp, &write.value))
}

/// Goes through a checkpoint file.
fn through_a_checkpoint(store: &Store) -> Store {
    let directory = temp_dir();
    let path = directory.path().join("ckpt");
    checkpoint::write(store, &path, Covered::default()).unwrap();
    let mut loaded = Store::new();
    load_checkpoint(&path, &mut loaded).unwrap();
    loaded
}

/// Loads what `from` holds into `into`, as from a checkpoint.
fn merge(from: &Store, into: &mut Store) {
    let directory = temp_dir();
    let path = directory.path().join("ckpt");
    checkpoint::write(from, &path, Covered::default()).unwrap();
    load_checkpoint(&path, into).unwrap();
}

/// Recovers the store from a log of these writes.
fn recovered(writes: &[Write]) -> Store {
    let storage = MemoryStorage { bytes: Log::new(writes.to_vec()).bytes, ..MemoryStorage::default() };
    let mut store = Store::new();
    assert_eq!(recovery::replay(&storage, Covered::default(), &mut store).unwrap().records, writes.len() as u64);
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_repetition_of_stamped_writes_gives_the_same_store(
        writes in prop::collection::vec(stamped(), 1..24),
        seeds in prop::array::uniform3(any::<u64>()),
    ) {
        let store = store_of(&writes);
        for seed in seeds {
            prop_assert_eq!(&store_of(&shuffled(&writes, seed)), &store);
        }
    }

    #[test]
    fn the_store_holds_the_greatest_write_of_each_key(writes in prop::collection::vec(stamped(), 0..24)) {
        let store = store_of(&writes);
        let mut live = 0;
        for key in [b"x", b"y", b"z"] {
            let winner = expected(&writes, key);
            prop_assert_eq!(store.get(key), winner.and_then(|write| write.value.as_deref()));
            prop_assert_eq!(store.timestamp(key), winner.map(|write| Timestamp(write.timestamp)));
            live += usize::from(store.get(key).is_some());
        }
        prop_assert_eq!((store.len(), store.is_empty(), store.iter().count()), (live, live == 0, live));
    }

    #[test]
    fn a_write_that_came_before_is_skipped(writes in prop::collection::vec(stamped(), 1..24)) {
        let mut store = store_of(&writes);
        let before = store.clone();
        for write in &writes {
            prop_assert_eq!(store.apply(&write.record()).unwrap(), Applied::Skipped);
        }
        prop_assert_eq!(store, before);
    }

    #[test]
    fn replicas_whose_logs_differ_in_order_recover_the_same_store(
        writes in prop::collection::vec(stamped(), 1..24),
        seed in any::<u64>(),
    ) {
        prop_assert_eq!(recovered(&shuffled(&writes, seed)), recovered(&writes));
    }

    #[test]
    fn writes_without_a_time_stamp_apply_in_the_order_of_the_log(writes in prop::collection::vec(legacy(), 0..24)) {
        let store = recovered(&writes);
        for key in [b"x", b"y", b"z"] {
            let last = writes.iter().rev().find(|write| write.key == key);
            prop_assert_eq!(store.get(key), last.and_then(|write| write.value.as_deref()));
        }
        prop_assert_eq!(store, store_of(&writes));
    }

    #[test]
    fn stamped_writes_win_over_those_without_wherever_they_stand_among_them(
        old in prop::collection::vec(legacy(), 0..12),
        new in prop::collection::vec(stamped(), 0..12),
        seeds in prop::array::uniform3(any::<u64>()),
    ) {
        let store = store_of(old.iter().chain(&new));
        for seed in seeds {
            let new = if new.is_empty() { Vec::new() } else { shuffled(&new, seed) };
            prop_assert_eq!(&store_of(&interleaved(&old, &new, seed)), &store);
        }
        for key in [b"x", b"y", b"z"] {
            let last = || old.iter().rev().find(|write| write.key == key);
            let winner = expected(&new, key).or_else(last);
            prop_assert_eq!(store.get(key), winner.and_then(|write| write.value.as_deref()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_checkpoint_in_the_middle_changes_nothing(
        writes in prop::collection::vec(prop_oneof![3 => stamped(), 1 => legacy()], 1..24),
        at in any::<prop::sample::Index>(),
    ) {
        quiet();
        let (before, after) = writes.split_at(at.index(writes.len() + 1));
        let mut store = through_a_checkpoint(&store_of(before));
        for write in after {
            store.apply(&write.record()).unwrap();
        }
        prop_assert_eq!(store, store_of(&writes));
    }

    #[test]
    fn checkpoints_of_parts_in_any_order_and_repetition_make_the_whole(
        parts in prop::collection::vec(prop::collection::vec(stamped(), 1..8), 1..5),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        quiet();
        let whole = store_of(parts.iter().flatten());
        let mut store = Store::new();
        // Some of them first, in some order, and again; then each.
        for index in order {
            merge(&store_of(&parts[index.index(parts.len())]), &mut store);
        }
        for part in parts.iter().rev() {
            merge(&store_of(part), &mut store);
        }
        prop_assert_eq!(store, whole);
    }
}

#[test]
fn ties_are_really_tried() {
    // The canary of the properties above: a rule that lets the later of two equal time stamps win does not converge.
    let by_order = |writes: &[Write]| {
        let mut last: Option<Write> = None;
        for write in writes {
            if last.as_ref().is_none_or(|last| write.timestamp >= last.timestamp) {
                last = Some(write.clone());
            }
        }
        last
    };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let writes = prop::collection::vec(stamped(), 1..24);
    let mut diverged = 0;
    for seed in 0..100 {
        let writes = writes.new_tree(&mut runner).unwrap().current();
        let of_x = |writes: &[Write]| by_order(&writes.iter().filter(|w| w.key == b"x").cloned().collect::<Vec<_>>());
        diverged += u32::from(of_x(&writes) != of_x(&shuffled(&writes, seed)));
    }
    assert!(diverged > 10, "of 100 shuffles only {diverged} made a difference to a rule that is wrong");
}

#[test]
fn a_late_set_does_not_bring_a_deleted_key_back() {
    let (set, del) = (Write::set(b"k", b"v", 5), Write::del(b"k", 6));
    for order in [[&set, &del], [&del, &set]] {
        let store = store_of(order);
        assert_eq!((store.get(b"k"), store.timestamp(b"k")), (None, Some(Timestamp(6))));
    }
    // A SET of the same time stamp wins over the DEL, in both orders.
    let same = Write::set(b"k", b"v", 6);
    for order in [[&same, &del], [&del, &same]] {
        assert_eq!(store_of(order).get(b"k"), Some(&b"v"[..]));
    }
}

#[test]
fn a_delete_without_a_time_stamp_leaves_nothing_behind() {
    let writes = [Write::set(b"k", b"v", 0), Write::del(b"k", 0)];
    assert_eq!(store_of(&writes), Store::new());
    assert_eq!(writes[1].record().op, Op::Del);
    assert_eq!(store_of(&[Write::del(b"k", 0), Write::set(b"k", b"v", 0)]).get(b"k"), Some(&b"v"[..]));
}
