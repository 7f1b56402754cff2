//! `logship demo`: a follower is killed, misses records and catches up. Black box, over the built command.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn a_killed_follower_comes_back_and_has_everything() {
    let output = Command::new(env!("CARGO_BIN_EXE_logship")).args(["demo", "--missed", "2500"]).output().unwrap();
    let (said, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    let expected = "\
leader: LSN 1 is on the follower's disk too
follower: killed
leader: 2500 more records, without it; its log ends with LSN 2501
follower: back, its log ended with LSN 1, and it was sent 2500 records
leader: LSN 2502 is on the follower's disk, and all before it
";
    assert_eq!(said, expected, "{errors}");
    assert!(errors.contains("all acknowledged after"), "{errors}");
}

#[test]
fn nothing_missed_is_no_demo() {
    let output = Command::new(env!("CARGO_BIN_EXE_logship")).args(["demo", "--missed", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
