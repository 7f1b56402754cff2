//! The C table against a model, walked as a C program walks it; and both tables against each other.

use super::arena::FAIL_ALLOCATIONS;
use super::*;
use crate::capi::errno;
use crate::capi::kv_store::*;
use crate::capi::wal_record::wal_record;
use crate::kv::table::Store;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString};
use std::ptr::null;

/// A store as a C program holds it: through the exported functions.
struct C(Box<kv_store>);

type State = BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>;

impl C {
    fn new() -> C {
        C::sized(DEFAULT_BUCKETS)
    }

    fn sized(buckets: c_int) -> C {
        let mut memory = Box::<kv_store>::new_uninit();
        // SAFETY: memory of that size.
        unsafe { memory.as_mut_ptr().write_bytes(0xa5, 1) };
        // SAFETY: writable, and no store yet.
        assert_eq!(unsafe { kv_store_init_sized(memory.as_mut_ptr(), buckets) }, 0);
        // SAFETY: initialised now.
        C(unsafe { memory.assume_init() })
    }

    fn set(&mut self, key: &str, value: &str) -> c_int {
        let (key, value) = (CString::new(key).unwrap(), CString::new(value).unwrap());
        // SAFETY: a store and C strings.
        unsafe { kv_store_set(&raw mut *self.0, key.as_ptr(), value.as_ptr()) }
    }

    fn set_ts(&mut self, key: &str, value: &str, ts: u64) -> c_int {
        let (key, value) = (CString::new(key).unwrap(), CString::new(value).unwrap());
        // SAFETY: a store and C strings.
        unsafe { kv_store_set_ts(&raw mut *self.0, key.as_ptr(), value.as_ptr(), ts) }
    }

    fn find(&self, key: &str) -> *mut kv_entry {
        let key = CString::new(key).unwrap();
        // SAFETY: a store and a C string.
        unsafe { kv_store_find(&raw const *self.0, key.as_ptr()) }
    }

    fn get(&self, key: &str) -> Option<String> {
        let key = CString::new(key).unwrap();
        // SAFETY: a store and a C string.
        let value = unsafe { kv_store_get(&raw const *self.0, key.as_ptr()) };
        // SAFETY: NULL or a string of the store, which nobody changes meanwhile.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_str().unwrap().to_owned())
    }

    fn timestamp(&self, key: &str) -> Option<u64> {
        // SAFETY: NULL or an entry of the store, which nobody changes meanwhile.
        unsafe { self.find(key).as_ref() }.map(|entry| entry.last_write_ts)
    }

    fn del(&mut self, key: &str) -> c_int {
        let key = CString::new(key).unwrap();
        // SAFETY: a store and a C string.
        unsafe { kv_store_del(&raw mut *self.0, key.as_ptr()) }
    }

    fn count(&self) -> c_int {
        // SAFETY: a store.
        unsafe { kv_store_count(&raw const *self.0) }
    }

    fn core(&mut self) -> CStore {
        // SAFETY: a store, used by this thread alone.
        unsafe { CStore::from_ptr(&raw mut *self.0) }.unwrap()
    }

    /// Through the exported function, with lengths and no NULs behind.
    fn apply(&mut self, record: &Record<'_>) -> c_int {
        let record = wal_record {
            op: record.op as u8,
            key: record.key.as_ptr().cast_mut().cast(),
            key_len: record.key.len() as u16,
            value: record.value.as_ptr().cast_mut().cast(),
            value_len: record.value.len() as u16,
            crc: 0,
            timestamp: record.timestamp.0,
        };
        // SAFETY: a store, and a record that borrows from one which lives.
        unsafe { kv_store_apply(&raw mut *self.0, &raw const record) }
    }

    /// Walks every bucket as the course's tests do, checks each entry, and returns what C sees.
    fn walk(&self) -> Vec<(CString, CString, u64)> {
        let mut seen = Vec::new();
        for index in 0..self.0.num_buckets {
            // SAFETY: there are `num_buckets`.
            let mut entry = unsafe { self.0.buckets.offset(index as isize).read() };
            // SAFETY: NULL or an entry of the store, which nobody changes meanwhile.
            while let Some(found) = unsafe { entry.as_ref() } {
                assert!(!found.key.is_null() && !found.value.is_null());
                // SAFETY: an entry's key is a C string.
                let key = unsafe { CStr::from_ptr(found.key) };
                // SAFETY: so is its value.
                let value = unsafe { CStr::from_ptr(found.value) };
                // SAFETY: as above.
                let bucket = unsafe { kv_hash(found.key, self.0.num_buckets) };
                assert_eq!(bucket, index.cast_unsigned(), "{key:?} in its bucket");
                seen.push((key.to_owned(), value.to_owned(), found.last_write_ts));
                entry = found.next;
            }
        }
        assert_eq!(seen.len(), usize::try_from(self.count()).unwrap());
        seen
    }

    /// Everything that a checkpoint would store.
    fn state(&mut self) -> State {
        state_of(&self.core())
    }
}

impl Drop for C {
    fn drop(&mut self) {
        // SAFETY: a store that nobody uses any more.
        unsafe { kv_store_destroy(&raw mut *self.0) };
        assert!(self.0.buckets.is_null() && self.0.num_buckets == 0);
        // SAFETY: twice is allowed.
        unsafe { kv_store_destroy(&raw mut *self.0) };
    }
}

fn state_of(machine: &impl StateMachine) -> State {
    let (mut state, mut live, mut dead_seen) = (State::new(), 0, false);
    machine
        .for_each(&mut |entry| {
            live += usize::from(entry.value.is_some());
            dead_seen |= entry.value.is_none();
            assert!(entry.value.is_none() || !dead_seen, "live keys come first");
            let value = entry.value.map(<[u8]>::to_vec);
            assert!(state.insert(entry.key.to_vec(), (entry.timestamp.0, value)).is_none(), "no key twice");
            Ok(())
        })
        .unwrap();
    assert_eq!(live, machine.live());
    state
}

fn record<'a>(key: &'a [u8], value: Option<&'a [u8]>, timestamp: u64) -> Record<'a> {
    let op = if value.is_some() { Op::Set } else { Op::Del };
    Record { op, key, value: value.unwrap_or_default(), timestamp: Timestamp(timestamp) }
}

/// A small generator, so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// What the exported functions must do, said once more and simply. Tombstones at 0 are left out: they decide nothing.
#[derive(Default)]
struct Model(State);

impl Model {
    fn timestamp(&self, key: &[u8]) -> u64 {
        self.0.get(key).map_or(0, |slot| slot.0)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>, timestamp: u64) {
        self.0.insert(key.to_vec(), (timestamp, value.map(<[u8]>::to_vec)));
        if value.is_none() && timestamp == 0 {
            self.0.remove(key);
        }
    }

    fn apply(&mut self, key: &[u8], value: Option<&[u8]>, timestamp: u64) -> bool {
        let existing = match self.0.get(key) {
            None => Existing::Absent,
            Some((at, Some(value))) => Existing::Live(Timestamp(*at), value),
            Some((at, None)) => Existing::Dead(Timestamp(*at)),
        };
        let wins = lww::wins(existing, Timestamp(timestamp), value);
        if wins {
            self.put(key, value, timestamp);
        }
        wins
    }

    fn live(&self) -> Vec<(CString, CString, u64)> {
        let live = self.0.iter().filter_map(|(key, (at, value))| Some((key, value.as_ref()?, *at)));
        live.map(|(key, value, at)| (CString::new(&**key).unwrap(), CString::new(&**value).unwrap(), at)).collect()
    }
}

#[test]
fn random_calls_do_what_the_model_does_and_every_walk_is_sound() {
    for (seed, buckets, keys, steps) in [(1, 1, 6, 3000), (2, 3, 40, 3000), (3, 16, 200, 3000), (4, 100, 900, 2000)] {
        let (mut random, mut store, mut model) = (Random(seed), C::sized(buckets), Model::default());
        for _ in 0..steps {
            let key = format!("{}{}", "k".repeat(random.below(3) * 20), random.below(keys));
            // Mostly one cache line or a few, now and then more than a block of the arena.
            let len = if random.below(8) == 0 { random.below(5000) } else { random.below(200) };
            let value = char::from(b'a' + random.below(26) as u8).to_string().repeat(len);
            let (key_bytes, value_bytes, ts) = (key.as_bytes(), value.as_bytes(), random.below(30) as u64);
            let was_live = model.0.get(key_bytes).is_some_and(|slot| slot.1.is_some());
            match random.below(7) {
                0 | 1 => {
                    assert_eq!(store.set(&key, &value), 0);
                    model.put(key_bytes, Some(value_bytes), model.timestamp(key_bytes));
                }
                2 => {
                    assert_eq!(store.set_ts(&key, &value, ts), 0);
                    model.put(key_bytes, Some(value_bytes), ts);
                }
                3 => {
                    assert_eq!(store.del(&key), c_int::from(was_live));
                    if was_live {
                        model.put(key_bytes, None, model.timestamp(key_bytes));
                    }
                }
                4 | 5 => {
                    let applied = store.apply(&record(key_bytes, Some(value_bytes), ts));
                    assert_eq!(applied, c_int::from(model.apply(key_bytes, Some(value_bytes), ts)));
                }
                _ => {
                    let applied = store.apply(&record(key_bytes, None, ts));
                    assert_eq!(applied, c_int::from(model.apply(key_bytes, None, ts)));
                }
            }
            let expected = model.0.get(key_bytes).and_then(|slot| slot.1.as_deref());
            assert_eq!(store.get(&key).as_deref().map(str::as_bytes), expected);
            let mut seen = store.walk();
            seen.sort();
            assert_eq!(seen, model.live());
        }
        assert_eq!(store.state(), model.0);
    }
}

#[test]
fn a_million_buckets_of_growth_move_no_entry_and_lose_none() {
    let mut store = C::new();
    store.set("first", "value");
    let (entry, value) = (store.find("first"), store.get("first"));
    let mut sizes = HashSet::new();
    for number in 0..300_000 {
        assert_eq!(store.set(&format!("key-{number:010}"), &number.to_string()), 0);
        sizes.insert(store.0.num_buckets);
    }
    assert!(sizes.len() > 5, "it grew: {sizes:?}");
    assert!(i64::from(store.0.num_buckets) >= 2 * 300_001);
    assert_eq!((store.find("first"), store.get("first")), (entry, value));
    assert_eq!(store.walk().into_iter().map(|(key, ..)| key).collect::<HashSet<_>>().len(), 300_001);
    for number in (0..300_000).step_by(7) {
        assert_eq!(store.get(&format!("key-{number:010}")).unwrap(), number.to_string());
    }
    assert_eq!(store.get("key-0000300000"), None);
}

#[test]
fn a_store_begins_with_the_buckets_asked_for_and_keeps_them_while_it_is_small() {
    for buckets in [1, 2, 7, 16, 64, 100, 1000] {
        let mut store = C::sized(buckets);
        for number in 0..=64 {
            assert_eq!(store.0.num_buckets, buckets);
            store.set(&number.to_string(), "value");
        }
    }
    assert_eq!(C::new().0.num_buckets, 64);
    for buckets in [0, -1, c_int::MIN] {
        let mut memory = Box::<kv_store>::new_uninit();
        // SAFETY: writable memory.
        assert_eq!(unsafe { kv_store_init_sized(memory.as_mut_ptr(), buckets) }, -1);
        assert_eq!(errno::get(), libc::EINVAL);
    }
}

#[test]
fn keys_spread_over_the_buckets_whatever_they_have_in_common() {
    let count = 1 << 16;
    let shapes: [(&str, &dyn Fn(u32) -> String); 5] = [
        ("sequential", &|n| format!("key-{n:010}")),
        ("the same end", &|n| format!("{n}-key")),
        ("hexadecimal", &|n| format!("{n:x}")),
        ("steps of 16", &|n| format!("{:x}", n * 16)),
        ("long", &|n| format!("{}{n}{}", "a".repeat(40), "b".repeat(40))),
    ];
    for buckets in [1_u32 << 16, 65_521] {
        for (name, shape) in &shapes {
            let mut chains = vec![0; buckets as usize];
            for number in 0..count {
                chains[key::bucket_of(Key::new(shape(number).as_bytes()).hash, buckets)] += 1;
            }
            let empty = chains.iter().filter(|chain| **chain == 0).count() as f64 / f64::from(buckets);
            // Thrown at random, 1/e of the buckets stay empty and the longest chain is about 8.
            assert!(empty < 0.45, "{name}: {empty} of the buckets are empty");
            assert!(chains.iter().all(|chain| *chain <= 20), "{name}: the longest chain is {:?}", chains.iter().max());
        }
    }
}

#[test]
fn keys_that_count_up_are_neighbours() {
    let bucket = |key: &str| key::bucket_of(Key::new(key.as_bytes()).hash, 1 << 20);
    let group = bucket("user:10") / 16;
    let ten: HashSet<_> = (10..20).map(|n| bucket(&format!("user:{n}"))).collect();
    assert_eq!(ten.len(), 10);
    assert!(ten.iter().all(|bucket| bucket / 16 == group));
    assert_ne!(bucket("user:20") / 16, group);
}

#[test]
fn churn_needs_no_more_memory_than_its_first_rounds() {
    let (mut random, mut store) = (Random(5), C::new());
    let mut total = 0;
    for round in 0..60 {
        for number in 0..2000 {
            let key = format!("key-{number}");
            match random.below(3) {
                0 => assert!(store.del(&key) >= 0),
                1 => assert_eq!(store.set(&key, &"v".repeat(random.below(900))), 0),
                _ => assert_eq!(store.set_ts(&key, &"v".repeat(random.below(900)), round + 1), 0),
            }
        }
        let now = store.core().table().arena.total();
        if round < 20 {
            total = now;
        }
        // 2000 keys of up to a kilobyte.
        assert!(now <= total + total / 4 && now <= 4 << 20, "round {round}: {total} bytes became {now}");
    }
}

#[test]
fn a_larger_free_block_is_split_before_memory_is_asked_for() {
    let mut store = C::new();
    for number in 0..1000 {
        store.set(&format!("{number}"), &"v".repeat(900));
    }
    let total = store.core().table().arena.total();
    for number in 0..1000 {
        store.del(&format!("{number}"));
    }
    for number in 0..8000 {
        store.set(&format!("{number}"), "small");
    }
    assert_eq!(store.core().table().arena.total(), total);
}

#[test]
fn large_values_go_back_to_malloc_and_a_small_store_stays_small() {
    let mut store = C::new();
    store.set("a", &"v".repeat(1 << 20));
    assert_eq!(store.core().table().arena.large(), 1);
    store.set("a", "small again");
    assert_eq!(store.core().table().arena.large(), 0);
    assert!(store.core().table().arena.total() <= 64 << 10);
    for number in 0..10 {
        store.set_ts(&number.to_string(), &"v".repeat(70_000), 1);
    }
    for number in 0..5 {
        store.del(&number.to_string());
    }
    assert_eq!(store.core().table().arena.large(), 5, "a tombstone keeps no value");
    assert_eq!(store.state().values().filter(|slot| slot.1.is_none()).count(), 5);
}

#[test]
fn a_del_leaves_a_tombstone_at_the_keys_time_stamp() {
    let mut store = C::new();
    store.set_ts("x", "new", 200);
    assert_eq!(store.del("x"), 1);
    assert_eq!(store.del("x"), 0);
    assert_eq!((store.get("x"), store.count(), store.walk().len()), (None, 0, 0));
    assert_eq!(store.apply(&record(b"x", Some(b"late"), 199)), 0, "an older SET stays dead");
    assert_eq!(store.apply(&record(b"x", None, 200)), 0);
    assert_eq!(store.apply(&record(b"x", Some(b"same"), 200)), 1, "a SET wins over a DEL of the same time");
    assert_eq!((store.get("x").as_deref(), store.timestamp("x")), (Some("same"), Some(200)));
    store.del("x");
    assert_eq!(store.set("x", "again"), 0);
    assert_eq!(store.timestamp("x"), Some(200), "the tombstone's time stamp is kept");
    assert_eq!(store.state().len(), 1, "and the tombstone is gone");
    store.del("x");
    store.set_ts("x", "lower", 7);
    assert_eq!(store.timestamp("x"), Some(7));
    assert_eq!(store.apply(&record(b"never", None, 5)), 1);
    assert_eq!(store.apply(&record(b"never", Some(b"v"), 4)), 0);
    store.set("plain", "value");
    store.del("plain");
    assert_eq!(store.state().len(), 2, "no tombstone for a key without time stamp");
}

#[test]
fn keys_and_values_by_length_may_hold_nul_bytes() {
    let mut store = C::new();
    assert_eq!(store.apply(&record(b"a\0b", Some(b"1\x002"), 5)), 1);
    assert_eq!(store.apply(&record(b"a\0c", Some(b"3"), 5)), 1);
    assert_eq!(store.apply(&record(b"a", Some(b"4"), 5)), 1);
    assert_eq!(store.apply(&record(b"\0", Some(b""), 5)), 1);
    assert_eq!(store.count(), 4);
    // Each lies in the bucket of what C sees of its key; `walk` checks that.
    assert_eq!(store.walk().len(), 4);
    assert_eq!(store.get("a").as_deref(), Some("4"));
    assert_eq!(store.apply(&record(b"a\0b", Some(b"1\x001"), 5)), 0, "the whole value decides");
    assert_eq!(store.apply(&record(b"a\0b", Some(b"1\x003"), 5)), 1);
    assert_eq!(store.apply(&record(b"a\0c", None, 6)), 1);
    let state = store.state();
    assert_eq!(state[&b"a\0b"[..]], (5, Some(b"1\x003".to_vec())));
    assert_eq!(state[&b"a\0c"[..]], (6, None));
    assert_eq!(state[&b"\0"[..]], (5, Some(Vec::new())));
}

#[test]
fn arguments_may_be_parts_of_the_store() {
    let mut store = C::new();
    store.set("key", "a value of some length");
    let entry = store.find("key");
    let at = &raw mut *store.0;
    for _ in 0..3 {
        // SAFETY: an entry of the store.
        let (key, value) = unsafe { ((*entry).key, (*entry).value) };
        // SAFETY: a store; both strings are its own.
        assert_eq!(unsafe { kv_store_set(at, key, value) }, 0);
        // SAFETY: two bytes further it still is a string.
        assert_eq!(unsafe { kv_store_set(at, key, value.add(2)) }, 0);
    }
    assert_eq!(store.get("key").as_deref(), Some("e of some length"));
    store.set("long", &"v".repeat(3000));
    // SAFETY: entries of the store.
    let (key, long) = unsafe { ((*store.find("key")).key, (*store.find("long")).value) };
    // SAFETY: a store; both strings are its own, and the key's entry moves.
    assert_eq!(unsafe { kv_store_set(at, key, long) }, 0);
    assert_eq!(store.get("key"), store.get("long"));
    // SAFETY: an entry of the store.
    let key = unsafe { (*store.find("key")).key };
    // SAFETY: a store, whose own string it is.
    assert_eq!(unsafe { kv_store_del(at, key) }, 1);
    assert_eq!(store.walk().len(), 1);
}

#[test]
fn impossible_arguments_change_nothing() {
    let mut store = C::new();
    store.set("key", "value");
    let (at, key, null) = (&raw mut *store.0, c"key".as_ptr(), null::<c_char>());
    let fails = |what: &str, call: &dyn Fn() -> bool| {
        errno::set(0);
        assert!(call(), "{what}");
        assert_eq!(errno::get(), libc::EINVAL, "{what}");
    };
    // SAFETY: NULL, a store, a zeroed or a destroyed one: all are allowed.
    unsafe {
        fails("init", &|| kv_store_init(null_mut()) == -1);
        fails("set: store", &|| kv_store_set(null_mut(), key, key) == -1);
        fails("set: key", &|| kv_store_set(at, null, key) == -1);
        fails("set: value", &|| kv_store_set(at, key, null) == -1);
        fails("set_ts", &|| kv_store_set_ts(at, key, null, 1) == -1);
        fails("get: store", &|| kv_store_get(null_mut(), key).is_null());
        fails("get: key", &|| kv_store_get(at, null).is_null());
        fails("find", &|| kv_store_find(at, null).is_null());
        fails("del: store", &|| kv_store_del(null_mut(), key) == -1);
        fails("del: key", &|| kv_store_del(at, null) == -1);
        fails("count", &|| kv_store_count(null_mut()) == -1);
        fails("hash: key", &|| kv_hash(null, 16) == 0);
        fails("hash: buckets", &|| kv_hash(key, 0) == 0);
        fails("hash: buckets below 0", &|| kv_hash(key, -1) == 0);
        fails("apply", &|| kv_store_apply(at, std::ptr::null()) == -1);
        kv_store_destroy(null_mut());
    }
    let good = wal_record {
        op: 1,
        key: c"key".as_ptr().cast_mut(),
        key_len: 3,
        value: c"other".as_ptr().cast_mut(),
        value_len: 5,
        crc: 0,
        timestamp: 9,
    };
    let bad = [
        wal_record { op: 0, ..good },
        wal_record { op: 3, ..good },
        wal_record { key: null_mut(), ..good },
        wal_record { key_len: 0, ..good },
        wal_record { value: null_mut(), ..good },
    ];
    for record in &bad {
        // SAFETY: a store and a record.
        fails("apply", &|| unsafe { kv_store_apply(at, record) } == -1);
    }
    assert_eq!((store.get("key").as_deref(), store.timestamp("key")), (Some("value"), Some(0)));
    let empty = wal_record { value: null_mut(), value_len: 0, ..good };
    // SAFETY: as above.
    assert_eq!(unsafe { kv_store_apply(at, &raw const empty) }, 1);
    assert_eq!(store.get("key").as_deref(), Some(""));
}

#[test]
fn a_zeroed_destroyed_or_foreign_struct_is_no_store() {
    // SAFETY: zeros are a value of each field.
    let zeroed = || Box::new(unsafe { std::mem::zeroed::<kv_store>() });
    let mut destroyed = C::new();
    // SAFETY: a store.
    unsafe { kv_store_destroy(&raw mut *destroyed.0) };
    let mut buckets = [null_mut::<kv_entry>(); 18];
    let mut foreign = zeroed();
    // Inside, so that what stands in front is this vector's.
    (foreign.buckets, foreign.num_buckets) = (buckets[2..].as_mut_ptr(), 16);
    let mut zeroed = zeroed();
    for at in [&raw mut *zeroed, &raw mut *destroyed.0, &raw mut *foreign] {
        let key = c"key".as_ptr();
        // SAFETY: all of these are allowed.
        unsafe {
            assert_eq!((kv_store_set(at, key, key), errno::get()), (-1, libc::EINVAL));
            assert_eq!((kv_store_set_ts(at, key, key, 1), errno::get()), (-1, libc::EINVAL));
            assert!(kv_store_get(at, key).is_null() && kv_store_find(at, key).is_null());
            assert_eq!((kv_store_del(at, key), kv_store_count(at)), (0, 0));
            kv_store_destroy(at);
            kv_store_destroy(at);
        }
    }
}

#[test]
fn without_memory_a_call_fails_and_changes_nothing() {
    let mut store = C::new();
    for number in 0..63 {
        store.set_ts(&format!("key-{number}"), "value", 5);
    }
    store.set("large", &"v".repeat(5000));
    store.del("large");
    let (before, walked) = (store.state(), store.walk());
    let long = "v".repeat(5000);
    FAIL_ALLOCATIONS.set(true);
    let results = [
        store.set("new", &long),
        store.set("key-1", &long),
        store.set_ts("key-1", &long, 9),
        store.apply(&record(b"key-1", Some(long.as_bytes()), 9)),
        store.del("key-1"),
        store.apply(&record(b"key-1", None, 9)),
        store.apply(&record(b"other", None, 9)),
    ];
    assert_eq!(errno::get(), libc::ENOMEM);
    let mut memory = Box::<kv_store>::new_uninit();
    // SAFETY: writable memory.
    assert_eq!((unsafe { kv_store_init(memory.as_mut_ptr()) }, errno::get()), (-1, libc::ENOMEM));
    FAIL_ALLOCATIONS.set(false);
    assert_eq!(results, [-1; 7]);
    assert_eq!((store.state(), store.walk()), (before, walked));
    // With room in the arena but none for more buckets, the chains just get longer.
    FAIL_ALLOCATIONS.set(true);
    let added = (0..40).take_while(|number| store.set(&format!("more-{number}"), "v") == 0).count();
    FAIL_ALLOCATIONS.set(false);
    assert!(added > 10);
    assert_eq!(store.0.num_buckets, 64);
    assert_eq!(store.walk().len(), 63 + added);
}

#[test]
fn a_batch_does_what_its_records_do_one_by_one() {
    let (mut random, mut records) = (Random(11), Vec::new());
    let keys: Vec<Vec<u8>> = (0..2000).map(|number| format!("key-{number}").into_bytes()).collect();
    for step in 0..20_000 {
        // The same key comes again within the look-ahead, and the table grows within it.
        let key = &keys[random.below(1 + step / 10)];
        let value = (random.below(4) > 0).then_some(&b"some value of some length"[..random.below(26)]);
        records.push(record(key, value, random.below(50) as u64));
    }
    let (mut one, mut all) = (C::new(), C::new());
    for record in &records {
        one.core().apply(record).unwrap();
    }
    for part in records.chunks(777) {
        all.core().apply_all(part).unwrap();
    }
    all.core().apply_all(&[]).unwrap();
    assert_eq!(one.state(), all.state());
    assert_eq!(all.walk().len(), one.walk().len());
}

#[test]
fn several_threads_may_read_at_once() {
    let mut store = C::new();
    for number in 0..5000 {
        store.set(&format!("key-{number}"), &number.to_string());
    }
    let at = (&raw const *store.0).addr();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in (thread..5000).step_by(3) {
                    let key = CString::new(format!("key-{number}")).unwrap();
                    // SAFETY: a store, which nobody writes while the threads run.
                    let value = unsafe { kv_store_get(std::ptr::with_exposed_provenance(at), key.as_ptr()) };
                    // SAFETY: a value of the store.
                    assert_eq!(unsafe { CStr::from_ptr(value) }.to_str().unwrap(), number.to_string());
                }
            });
        }
    });
}

prop_compose! {
    fn any_record()(
        key in prop::sample::select(vec![&b"a"[..], b"b", b"c\0d", b"user:1", b"user:2"]),
        value in prop::option::of(prop::sample::select(vec![&b""[..], b"1", b"10", b"2", b"\xff", b"a longer value"])),
        timestamp in 1_u64..6,
    ) -> (&'static [u8], Option<&'static [u8]>, u64) {
        (key, value, timestamp)
    }
}

proptest! {
    #[test]
    fn stamped_records_in_any_order_any_number_of_times_make_the_same_store(
        (records, again) in prop::collection::vec(any_record(), 0..40).prop_flat_map(|records| {
            let twice: Vec<_> = records.iter().chain(&records).copied().collect();
            (Just(records), Just(twice).prop_shuffle())
        }),
    ) {
        let (mut c, mut c_again, mut rust, mut rust_again) = (C::sized(2), C::new(), Store::new(), Store::new());
        for (key, value, timestamp) in records {
            let record = record(key, value, timestamp);
            prop_assert_eq!(c.core().apply(&record).unwrap(), rust.apply(&record).unwrap());
        }
        for (key, value, timestamp) in again {
            let record = record(key, value, timestamp);
            prop_assert_eq!(c_again.core().apply(&record).unwrap(), rust_again.apply(&record).unwrap());
        }
        let state = state_of(&rust);
        prop_assert_eq!(&state, &state_of(&rust_again));
        prop_assert_eq!(&state, &c.state());
        prop_assert_eq!(&state, &c_again.state());
        c.walk();
    }

    #[test]
    fn any_records_do_the_same_to_both_tables(
        records in prop::collection::vec((any_record(), any::<bool>()), 0..60),
    ) {
        let (mut c, mut rust) = (C::new(), Store::new());
        for ((key, value, timestamp), stamped) in records {
            let record = record(key, value, if stamped { timestamp } else { 0 });
            prop_assert_eq!(c.core().apply(&record).unwrap(), rust.apply(&record).unwrap());
        }
        prop_assert_eq!(c.state(), state_of(&rust));
    }
}
