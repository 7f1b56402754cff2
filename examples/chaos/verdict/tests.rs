//! Each rule of the verdict sees what it is for.

use super::*;
use crate::ledger::value_of;
use logship::{Record, Timestamp};

/// A SET of this number, of the key `key-<number % 3>`.
fn set(number: u64) -> (u64, bool) {
    (number, true)
}

fn del(number: u64) -> (u64, bool) {
    (number, false)
}

fn key(number: u64) -> String {
    format!("key-{}", number % 3)
}

/// A node whose log has these writes.
fn copy(writes: &[(u64, bool)]) -> Copy {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logship.wal");
    let mut wal = Wal::open(&path).unwrap();
    for (number, is_set) in writes {
        let (key, value) = (key(*number), value_of(*number));
        // Later in the log is later in time.
        let at = Timestamp(wal.last_lsn().0 + 1);
        let record = if *is_set { Record::set(key.as_bytes(), &value, at) } else { Record::del(key.as_bytes(), at) };
        wal.append(&record).unwrap();
    }
    drop(wal);
    Copy::load("node", &path).unwrap()
}

fn attempt((number, is_set): (u64, bool), outcome: Outcome) -> Attempt {
    Attempt { number, key: key(number), is_set, outcome }
}

/// Judges a leader and one follower; the writes of the leader's log were acknowledged.
fn judged(leader: &[(u64, bool)], follower: &[(u64, bool)], more: &[Attempt]) -> String {
    let acked = leader.iter().zip(1..).map(|(write, lsn)| attempt(*write, Outcome::Acked(lsn)));
    let mut attempts: Vec<_> = acked.chain(more.iter().cloned()).collect();
    attempts.sort_by_key(|attempt| attempt.number);
    judge(&[copy(leader), copy(follower)], &attempts).join("\n")
}

#[test]
fn equal_nodes_with_all_that_was_acknowledged_are_well() {
    let writes = [set(1), set(2), del(3), set(4), del(5)];
    assert_eq!(judged(&writes, &writes, &[]), "");
    let more = [attempt(set(9), Outcome::Unknown), attempt(set(8), Outcome::Absent)];
    assert_eq!(judged(&writes, &writes, &more), "");
}

#[test]
fn a_write_that_is_lost_swapped_or_replaced_is_seen() {
    let writes = [set(1), set(2), set(3), del(4)];
    let lost = judged(&writes, &writes[..3], &[]);
    assert!(lost.contains("ends at LSN 3") && lost.contains("write 4 of key-1 was acknowledged"), "{lost}");
    let swapped = judged(&writes, &[set(2), set(1), set(3), del(4)], &[]);
    assert!(swapped.contains("its record 1 is not the leader's") && swapped.contains("behind write 2"), "{swapped}");
    let replaced = judged(&writes, &[set(1), set(2), set(3), set(6)], &[]);
    assert!(replaced.contains("its record 4 is not") && replaced.contains("its store is not"), "{replaced}");
}

#[test]
fn a_write_that_was_refused_and_is_there_is_seen() {
    let writes = [set(1), set(2)];
    let absent: Vec<_> = writes.iter().map(|write| attempt(*write, Outcome::Absent)).collect();
    let found = absent_records(&copy(&writes), &absent).unwrap();
    assert!(found.contains("write 1 was refused"), "{found}");
}

#[test]
fn a_store_has_the_last_acknowledged_write_or_a_later_unknown_one() {
    let acked = |write| attempt(write, Outcome::Acked(1));
    let unknown = |write| attempt(write, Outcome::Unknown);
    let here = copy(&[set(3), del(1)]);
    assert_eq!(last_values(&here, &[acked(del(1)), acked(set(3))]), None);
    assert_eq!(last_values(&here, &[unknown(del(1)), unknown(set(3)), unknown(set(6))]), None);
    assert_eq!(last_values(&here, &[acked(del(1)), acked(set(3)), unknown(del(6)), unknown(set(9))]), None);
    let newer = last_values(&here, &[acked(del(1)), acked(set(3)), acked(set(6))]).unwrap();
    assert!(newer.contains("last acknowledged write is Some(6)"), "{newer}");
    assert!(last_values(&here, &[acked(set(1)), acked(set(3))]).is_some(), "key-1 has gone");
    assert!(last_values(&here, &[acked(del(1))]).unwrap().contains("nobody wrote key-0"));
}

#[test]
fn a_value_that_the_writer_never_wrote_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logship.wal");
    Wal::open(&path).unwrap().append(&Record::set(b"key-1", b"foreign", Timestamp(1))).unwrap();
    let copy = Copy::load("node", &path).unwrap();
    assert!(in_order(&copy).unwrap().contains("never written by the writer"));
}
