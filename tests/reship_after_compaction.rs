//! A record that a follower has rejected is sent again as itself or not at all, also when a compaction has dropped it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use logship::replication::message::{ACK_NOT_STORED, ACK_OK, Ack, Mark, encode_rejoin};
use logship::wal::compact::Retention;
use logship::wal::record;
use logship::{Leader, Lsn, Options, Record, Timestamp, Wal};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn a_record_that_compaction_has_dropped_is_not_replaced_by_another() {
    let home = tempfile::tempdir().unwrap();
    {
        let mut wal = Wal::open(home.path().join("logship.wal")).unwrap();
        for number in 1..=50u64 {
            wal.append(&Record::set(format!("key-{number}").as_bytes(), b"v", Timestamp(number))).unwrap();
        }
    }
    let options = Options { followers: 1, commit_timeout: Duration::from_millis(300), ..Options::default() };
    let mut leader = Leader::open(home.path(), options).unwrap();
    // A logship follower with an empty log whose disk is full from record 10 on.
    let mut follower = TcpStream::connect(("127.0.0.1", leader.port())).unwrap();
    let mark = Mark { node: 1, flags: 0 };
    let ack = |lsn, status| Ack::marked(Lsn(lsn), status, mark).encode();
    follower.write_all(&[&encode_rejoin(Lsn::ZERO)[..], &ack(0, ACK_OK)[..]].concat()).unwrap();
    leader.accept(Duration::from_secs(5)).unwrap();
    follower.write_all(&[ack(9, ACK_OK), ack(10, ACK_NOT_STORED)].concat()).unwrap();
    leader.compact(&Retention { records: 5, ..Retention::default() }).unwrap();
    let _ = leader.set(b"key-51", b"v"); // Reads the rejection and sends from record 10 on again.
    drop(leader);

    let (mut next, mut wrong) = (0u64, Vec::new());
    let mut word = [0; 4];
    while follower.read_exact(&mut word).is_ok() {
        let word = u32::from_be_bytes(word);
        let mut body = vec![0; (word & 0x7fff_ffff) as usize];
        if follower.read_exact(&mut body).is_err() {
            break;
        }
        if word & 0x8000_0000 == 0 && word > 0 {
            let key = String::from_utf8(record::decode(&body).unwrap().key.to_vec()).unwrap();
            if key != format!("key-{next}") {
                wrong.push((next, key));
            }
            next += 1;
        } else if body.first() == Some(&1) {
            next = u64::from_be_bytes(body[1..9].try_into().unwrap());
        }
    }
    assert!(wrong.is_empty(), "sent under another record's number: {wrong:?}");
}
