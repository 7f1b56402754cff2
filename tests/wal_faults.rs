//! Appends on a disk that is full, broken or lies: what `append` returned `Ok` for is in the log, and nothing else.
//!
//! The faults are those of `MemoryStorage`; [`Disk`] shares one with the test, and adds another writer and a truncate
//! that fails. Contract, w10: a failed append is rolled back and the next one may succeed; after a failed fsync every
//! later append fails until the log is reopened.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Log, Write, quiet, store_of};
use logship::kv::table::Store;
use logship::storage::memory::MemoryStorage;
use logship::storage::{AppendError, Storage};
use logship::wal::checkpoint::Covered;
use logship::wal::recovery;
use logship::wal::tail::WRITE_BACK;
use logship::{Error, Lsn, Record, Wal};
use proptest::prelude::*;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// A disk that the test holds on to while a log uses it.
#[derive(Clone, Default)]
struct Disk(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    memory: MemoryStorage,
    /// What another writer adds behind the next append, successful or not.
    intruder: Vec<u8>,
    /// Truncating fails with EIO.
    cannot_truncate: bool,
}

impl Disk {
    fn with(log: &Log) -> Disk {
        let disk = Disk::default();
        disk.change(|state| state.memory.bytes.clone_from(&log.bytes));
        disk
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.borrow_mut())
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.borrow().memory.bytes.clone()
    }

    fn syncs(&self) -> u32 {
        self.0.borrow().memory.syncs
    }

    /// So many bytes more fit on the disk.
    fn leave_room(&self, room: usize) {
        self.change(|state| state.memory.capacity = Some(state.memory.bytes.len() + room));
    }

    fn make_room(&self) {
        self.change(|state| state.memory.capacity = None);
    }

    /// What recovery finds: how many records, their store, and whether something else stands behind them.
    fn recovered(&self) -> (u64, Store, bool) {
        let mut store = Store::new();
        let replay = recovery::replay(self, Covered::default(), &mut store).unwrap();
        (replay.records, store, replay.damaged)
    }

    /// Exactly these writes are in the log.
    fn holds(&self, writes: &[Write]) {
        assert_eq!(self.bytes(), Log::new(writes.to_vec()).bytes);
        assert_eq!(self.recovered(), (writes.len() as u64, store_of(writes), false));
    }
}

impl Storage for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.borrow().memory.len()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.borrow().memory.read_at(buffer, offset)
    }
    fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        self.change(|state| {
            let result = state.memory.append(bytes);
            let intruder = std::mem::take(&mut state.intruder);
            state.memory.bytes.extend(intruder);
            result
        })
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.change(|state| match state.cannot_truncate {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => state.memory.truncate(len),
        })
    }
    fn sync(&mut self) -> io::Result<()> {
        self.change(|state| state.memory.sync())
    }
}

/// The errno of an append that must have failed.
fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> i32 {
    result.unwrap_err().errno()
}

fn two() -> Vec<Write> {
    vec![Write::set(b"a", b"1", 1), Write::set(b"b", b"2", 2)]
}

fn third() -> Write {
    Write::set(b"third", b"a value of some length", 3)
}

#[test]
fn an_append_is_synced_before_it_returns() {
    let disk = Disk::default();
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    for (count, write) in (1u32..).zip(two()) {
        assert_eq!(wal.append(&write.record()).unwrap(), Lsn(u64::from(count)));
        assert_eq!(disk.syncs(), count);
    }
    disk.holds(&two());
}

#[test]
fn a_full_disk_rolls_the_append_back_wherever_it_stopped_and_the_next_one_works_after_room_is_made() {
    quiet();
    for room in 0..third().encoded().len() {
        let disk = Disk::with(&Log::new(two()));
        let mut wal = Wal::with_storage(disk.clone()).unwrap();
        disk.leave_room(room);
        assert_eq!(errno(wal.append(&third().record())), libc::ENOSPC, "{room} bytes of room");
        assert_eq!((wal.last_lsn(), wal.len()), (Lsn(2), disk.bytes().len() as u64));
        disk.holds(&two());
        // Again, and then with room.
        assert_eq!(errno(wal.append(&third().record())), libc::ENOSPC, "{room} bytes of room");
        disk.holds(&two());
        disk.make_room();
        assert_eq!(wal.append(&third().record()).unwrap(), Lsn(3));
        disk.holds(&[two(), vec![third()]].concat());
    }
}

#[test]
fn on_a_full_disk_a_record_that_fits_is_still_taken() {
    quiet();
    let disk = Disk::with(&Log::new(two()));
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    let small = Write::del(b"a", 9);
    disk.leave_room(small.encoded().len());
    assert_eq!(errno(wal.append(&third().record())), libc::ENOSPC);
    assert_eq!(wal.append(&small.record()).unwrap(), Lsn(3));
    disk.holds(&[two(), vec![small]].concat());
}

#[test]
fn what_is_written_ahead_is_no_part_of_the_log_until_it_is_synced() {
    let disk = Disk::with(&Log::new(two()));
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    let (one, before) = (third().encoded(), disk.bytes().len());
    wal.write_ahead(0, &one).unwrap();
    wal.write_ahead(one.len(), &one).unwrap();
    assert_eq!((disk.syncs(), wal.last_lsn(), wal.len()), (0, Lsn(2), before as u64));
    // One that does not fit is cut off, and the others stay.
    disk.leave_room(one.len() - 1);
    assert_eq!(errno(wal.write_ahead(2 * one.len(), &one)), libc::ENOSPC);
    assert_eq!(disk.bytes().len(), before + 2 * one.len());
    let ends = [one.len(), 2 * one.len()];
    assert_eq!(wal.append_behind(2 * one.len(), &[one.clone(), one.clone()].concat(), &ends).unwrap(), Lsn(4));
    assert_eq!(disk.syncs(), 1);
    disk.holds(&[two(), vec![third(), third()]].concat());
}

#[test]
fn a_sync_that_fails_takes_back_what_was_written_ahead() {
    quiet();
    let disk = Disk::with(&Log::new(two()));
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    let one = third().encoded();
    wal.write_ahead(0, &one).unwrap();
    disk.change(|state| state.memory.syncs_left = Some(0));
    assert_eq!(errno(wal.append_behind(one.len(), &one, &[one.len()])), libc::EIO);
    disk.holds(&two());
    assert!(matches!(wal.write_ahead(0, &one), Err(Error::Latched)));
    disk.holds(&two());
}

#[test]
fn behind_bytes_that_nobody_wrote_ahead_nothing_is_written() {
    let disk = Disk::with(&Log::new(two()));
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    let one = third().encoded();
    assert!(matches!(wal.write_ahead(one.len(), &one), Err(Error::Damaged { .. })));
    wal.write_ahead(0, &one).unwrap();
    assert!(matches!(wal.append_encoded(&one, &[one.len()]), Err(Error::Damaged { .. })), "it would stand there twice");
    assert_eq!(disk.syncs(), 0);
}

#[test]
fn the_disk_begins_with_every_mebibyte_that_is_written_ahead() {
    let mut wal = Wal::with_storage(MemoryStorage::default()).unwrap();
    let large = Write::set(b"large", &vec![b'x'; 60_000], 1).encoded();
    let (mut all, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        wal.write_ahead(all.len(), &large).unwrap();
        all.extend(&large);
        ends.push(all.len());
    }
    let hints = wal.storage().hints.clone();
    assert_eq!(hints.len(), all.len() / WRITE_BACK);
    assert!(hints.iter().all(|len| (WRITE_BACK..WRITE_BACK + large.len()).contains(len)), "{hints:?}");
    assert_eq!(wal.append_behind(all.len(), &all, &ends).unwrap(), Lsn(40));
    wal.append(&third().record()).unwrap();
    assert_eq!((wal.storage().hints.len(), wal.storage().syncs), (hints.len(), 2), "an append just syncs");
}

#[test]
fn a_broken_disk_takes_nothing_and_is_no_reason_to_latch() {
    quiet();
    let disk = Disk::with(&Log::new(two()));
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    disk.change(|state| state.memory.broken = true);
    assert_eq!(errno(wal.append(&third().record())), libc::EIO);
    disk.holds(&two());
    disk.change(|state| state.memory.broken = false);
    assert_eq!(wal.append(&third().record()).unwrap(), Lsn(3));
    disk.holds(&[two(), vec![third()]].concat());
}

#[test]
fn a_batch_is_in_the_log_as_a_whole_or_not_at_all() {
    quiet();
    let batch = [third(), Write::del(b"a", 4), Write::set(b"c", b"", 5)];
    let records: Vec<Record<'_>> = batch.iter().map(Write::record).collect();
    let len = Log::new(batch.to_vec()).bytes.len();
    for room in 0..=len {
        let disk = Disk::with(&Log::new(two()));
        let mut wal = Wal::with_storage(disk.clone()).unwrap();
        disk.leave_room(room);
        if room < len {
            assert_eq!(errno(wal.append_batch(&records)), libc::ENOSPC, "{room} bytes of room");
            assert_eq!(wal.last_lsn(), Lsn(2));
            disk.holds(&two());
        } else {
            assert_eq!(wal.append_batch(&records).unwrap(), Lsn(5));
            assert_eq!(disk.syncs(), 1, "one fsync for the batch");
            disk.holds(&[&two()[..], &batch].concat());
        }
    }
}

#[test]
fn a_batch_with_one_record_that_is_none_is_refused_as_a_whole() {
    let disk = Disk::with(&Log::new(two()));
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    let long = vec![0; 65_536];
    let (good, no_key, too_long) = (third(), Write::set(b"", b"v", 1), Write::set(b"k", &long, 1));
    for (bad, expected) in [(no_key, libc::EINVAL), (too_long, libc::EMSGSIZE)] {
        assert_eq!(errno(wal.append_batch(&[good.record(), bad.record(), good.record()])), expected);
        assert_eq!(errno(wal.append(&bad.record())), expected);
        assert_eq!(wal.last_lsn(), Lsn(2));
        disk.holds(&two());
    }
    assert_eq!(wal.append_batch(&[]).unwrap(), Lsn(2));
    assert_eq!(wal.append(&good.record()).unwrap(), Lsn(3));
    disk.holds(&[two(), vec![third()]].concat());
}

#[test]
fn a_failed_sync_rolls_back_and_latches_until_the_log_is_reopened() {
    quiet();
    let disk = Disk::with(&Log::new(two()));
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    disk.change(|state| state.memory.syncs_left = Some(0));
    assert_eq!(errno(wal.append(&third().record())), libc::EIO);
    disk.holds(&two());
    // The disk works again; this log does not trust it any more.
    disk.change(|state| state.memory.syncs_left = None);
    for _ in 0..3 {
        assert!(matches!(wal.append(&third().record()), Err(Error::Latched)));
        assert!(matches!(wal.append_batch(&[third().record(), third().record()]), Err(Error::Latched)));
        assert!(matches!(wal.append_batch(&[]), Err(Error::Latched)));
    }
    assert_eq!((wal.last_lsn(), disk.syncs()), (Lsn(2), 0));
    disk.holds(&two());
    drop(wal);
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    assert_eq!(wal.append(&third().record()).unwrap(), Lsn(3));
    disk.holds(&[two(), vec![third()]].concat());
}

#[test]
fn a_sync_that_fails_after_several_that_worked_takes_back_only_the_last_append() {
    quiet();
    let disk = Disk::default();
    disk.change(|state| state.memory.syncs_left = Some(2));
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    for write in two() {
        wal.append(&write.record()).unwrap();
    }
    assert_eq!(errno(wal.append_batch(&[third().record(), third().record()])), libc::EIO);
    disk.holds(&two());
}

#[test]
fn what_another_writer_added_behind_a_failed_append_is_not_cut() {
    quiet();
    let others = Write::set(b"other", b"from another writer", 8).encoded();
    let len = third().encoded().len();
    for room in 0..=len {
        let disk = Disk::with(&Log::new(two()));
        let mut wal = Wal::with_storage(disk.clone()).unwrap();
        disk.leave_room(room);
        disk.change(|state| {
            state.intruder.clone_from(&others);
            state.memory.syncs_left = Some(0);
        });
        wal.append(&third().record()).unwrap_err();
        let bytes = disk.bytes();
        assert!(bytes.ends_with(&others), "{room} bytes of room: the other writer's bytes are gone");
        assert!(bytes.starts_with(&Log::new(two()).bytes));
    }
}

#[test]
fn what_another_writer_added_before_a_failed_append_is_not_cut() {
    quiet();
    let others = Write::set(b"other", b"from another writer", 8).encoded();
    for room in 0..third().encoded().len() {
        let disk = Disk::with(&Log::new(two()));
        let mut wal = Wal::with_storage(disk.clone()).unwrap();
        disk.change(|state| state.memory.bytes.extend(&others));
        let before = disk.bytes();
        disk.leave_room(room);
        wal.append(&third().record()).unwrap_err();
        assert!(disk.bytes().starts_with(&before), "{room} bytes of room: the other writer's bytes are gone");
    }
}

/// A failed append that cannot be cut off stays in the log as a torn record, and an append behind it would be lost:
/// recovery stops there.
fn nothing_is_acknowledged_behind_a_torn_record(prepare: impl Fn(&mut State)) {
    quiet();
    let disk = Disk::with(&Log::new(two()));
    let mut wal = Wal::with_storage(disk.clone()).unwrap();
    disk.leave_room(10);
    disk.change(prepare);
    assert_eq!(errno(wal.append(&third().record())), libc::ENOSPC);
    disk.make_room();
    disk.change(|state| state.cannot_truncate = false);
    let before = wal.last_lsn();
    if let Ok(lsn) = wal.append(&Write::set(b"acknowledged", b"yes", 9).record()) {
        let (records, store, _) = disk.recovered();
        assert_eq!(store.get(b"acknowledged"), Some(&b"yes"[..]), "LSN {lsn} was acknowledged and is lost");
        assert_eq!(records, lsn.0);
    } else {
        assert_eq!(wal.last_lsn(), before);
        assert_eq!(disk.recovered().1, store_of(&two()));
    }
}

#[test]
fn nothing_is_acknowledged_behind_a_failed_append_that_could_not_be_cut() {
    nothing_is_acknowledged_behind_a_torn_record(|state| state.cannot_truncate = true);
}

#[test]
fn nothing_is_acknowledged_behind_a_failed_append_that_another_writer_has_built_on() {
    nothing_is_acknowledged_behind_a_torn_record(|state| {
        state.intruder = Write::set(b"other", b"from another writer", 8).encoded();
    });
}

/// One step of the property test.
#[derive(Clone, Debug)]
enum Step {
    Append(Write),
    Batch(Vec<Write>),
    /// A key that is none: refused before anything is written.
    AppendInvalid,
    /// The disk is full but for so many bytes.
    LeaveRoom(usize),
    MakeRoom,
    Broken(bool),
    /// So many syncs work, the next fails.
    SyncsLeft(Option<u32>),
    Reopen,
}

fn any_write() -> impl Strategy<Value = Write> {
    let key = prop::collection::vec(b'a'..=b'e', 1..4);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    (key, value, 0..5u64).prop_map(|(key, value, timestamp)| Write { key, value, timestamp, legacy: false })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_write().prop_map(Step::Append),
        3 => prop::collection::vec(any_write(), 0..5).prop_map(Step::Batch),
        1 => Just(Step::AppendInvalid),
        3 => (0..120usize).prop_map(Step::LeaveRoom),
        2 => Just(Step::MakeRoom),
        1 => any::<bool>().prop_map(Step::Broken),
        1 => prop::option::of(0..4u32).prop_map(Step::SyncsLeft),
        2 => Just(Step::Reopen),
    ]
}

/// A log on a failing disk, and what must be in it.
struct Run {
    disk: Disk,
    wal: Wal<Disk>,
    /// Everything that append returned `Ok` for.
    acknowledged: Vec<Write>,
    /// A sync failed since the log was opened.
    latched: bool,
}

impl Run {
    fn new() -> Run {
        let disk = Disk::default();
        let wal = Wal::with_storage(disk.clone()).unwrap();
        Run { disk, wal, acknowledged: Vec::new(), latched: false }
    }

    /// What an append of that many bytes must do: the errno, or `None` if it must work.
    fn foreseen(&self, len: usize) -> Option<i32> {
        let state = self.disk.0.borrow();
        let memory = &state.memory;
        let room = memory.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(memory.bytes.len()));
        match () {
            () if self.latched => Some(libc::EIO),
            () if len == 0 => None,
            () if memory.broken => Some(libc::EIO),
            () if room < len => Some(libc::ENOSPC),
            () if memory.syncs_left == Some(0) => Some(libc::EIO),
            () => None,
        }
    }

    fn append(&mut self, writes: &[Write]) {
        let len = writes.iter().map(|write| write.encoded().len()).sum();
        let foreseen = self.foreseen(len);
        let sync_fails = foreseen == Some(libc::EIO) && !self.disk.0.borrow().memory.broken;
        let was_latched = self.latched;
        let records: Vec<Record<'_>> = writes.iter().map(Write::record).collect();
        let result = match records.as_slice() {
            [one] => self.wal.append(one),
            several => self.wal.append_batch(several),
        };
        match result {
            Ok(lsn) => {
                assert_eq!(foreseen, None);
                self.acknowledged.extend_from_slice(writes);
                assert_eq!(lsn, Lsn(self.acknowledged.len() as u64));
            }
            Err(error) => {
                assert_eq!(foreseen, Some(error.errno()));
                assert_eq!(matches!(error, Error::Latched), was_latched);
                self.latched |= sync_fails;
            }
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(write) => self.append(std::slice::from_ref(write)),
            Step::Batch(writes) => self.append(writes),
            Step::AppendInvalid => {
                // Whether the record or the latch is looked at first is nobody's concern.
                let found = errno(self.wal.append(&Write::set(b"", b"v", 1).record()));
                assert!(found == libc::EINVAL || self.latched && found == libc::EIO);
            }
            Step::LeaveRoom(room) => self.disk.leave_room(*room),
            Step::MakeRoom => self.disk.make_room(),
            Step::Broken(broken) => self.disk.change(|state| state.memory.broken = *broken),
            Step::SyncsLeft(left) => self.disk.change(|state| state.memory.syncs_left = *left),
            Step::Reopen => {
                self.wal = Wal::with_storage(self.disk.clone()).unwrap();
                self.latched = false;
            }
        }
        assert_eq!(self.wal.last_lsn(), Lsn(self.acknowledged.len() as u64));
        assert_eq!(self.wal.len(), self.disk.bytes().len() as u64);
        self.disk.holds(&self.acknowledged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_disk_does_the_log_holds_what_was_acknowledged_and_nothing_else(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        quiet();
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
        }
    }
}

#[test]
fn the_model_sees_a_record_that_was_never_acknowledged() {
    // The canary of the property test: one record more in the log than the model has.
    let mut run = Run::new();
    run.take(&Step::Append(third()));
    run.disk.change(|state| state.memory.bytes.extend(third().encoded()));
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.disk.holds(&run.acknowledged)));
    assert!(seen.is_err());
}
