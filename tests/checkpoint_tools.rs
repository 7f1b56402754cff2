//! `logship checkpoint show`: black box over the built command.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::compacted::{checkpoint, compacted, covered, log_of};
use common::{Log, Write, file_with, names_in, temp_dir};
use logship::wal::checkpoint::{self as wal_checkpoint, Covered};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use tempfile::TempDir;

fn run(directory: &TempDir, words: &[&str]) -> (String, String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logship"));
    let output = command.args(["checkpoint", "show"]).args(words).current_dir(directory.path()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

fn says(directory: &TempDir, words: &[&str], status: i32, expected: &str) {
    let (out, error, code) = run(directory, words);
    assert_eq!((out.as_str(), error.as_str(), code), (expected, "", status), "{words:?}");
}

fn fails(directory: &TempDir, words: &[&str], expected: &str) {
    let (out, error, code) = run(directory, words);
    assert_eq!((out.as_str(), error.as_str(), code), ("", expected, 2), "{words:?}");
}

fn json(directory: &TempDir, words: &[&str]) -> Vec<Value> {
    run(directory, words).0.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// SET name, city, DEL name, and one more record.
fn log() -> Log {
    Log::new(vec![
        Write::set(b"name", b"alice", 1),
        Write::set(b"city\xff", b"oslo", 2),
        Write::del(b"name", 3),
        Write::set(b"more", b"", 4),
    ])
}

/// The log `a.wal`, and `a.ckpt` of its first three records.
fn directory() -> TempDir {
    let directory = temp_dir();
    let log = log();
    file_with(&directory, "a.wal", &log.bytes);
    checkpoint(&log, 3, &directory.path().join("a.ckpt"));
    directory
}

/// A checkpoint as a lesson's code writes it.
fn lessons(offset: usize) -> Vec<u8> {
    let mut bytes = b"CKPT".to_vec();
    bytes.extend((offset as u64).to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(b"\x03\0foo\x03\0bar");
    bytes
}

#[test]
fn it_says_what_is_in_it_and_whether_it_fits() {
    let directory = directory();
    let before = names_in(directory.path());
    let Covered { offset, history, .. } = covered(&log(), 3);
    let held = format!(
        "a.ckpt: whole: 1 key and 1 tombstone; it covers the log up to LSN 3, byte {offset}, history {history}.\n"
    );
    says(&directory, &["a.ckpt"], 0, &held);
    let fits = "a.wal: the checkpoint fits: recovery replays the 1 record behind LSN 3.\n";
    says(&directory, &["a.ckpt", "--wal", "a.wal"], 0, &format!("{held}{fits}"));
    let keys = "                   2      4  \"city\\xff\"\n                   3    DEL  \"name\"\n";
    says(&directory, &["a.ckpt", "--keys"], 0, &format!("{held}{keys}"));
    let lines = json(&directory, &["a.ckpt", "--keys", "--json", "--wal", "a.wal"]);
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["kind"], &lines[0]["verdict"]), (&"checkpoint".into(), &"whole".into()));
    assert_eq!((&lines[0]["fits"], &lines[0]["held"]["lsn"]), (&true.into(), &3.into()));
    assert_eq!((&lines[0]["held"]["keys"], &lines[0]["held"]["tombstones"]), (&1.into(), &1.into()));
    assert_eq!(
        (&lines[1]["kind"], &lines[1]["key"], &lines[1]["value_length"]),
        (&"key".into(), &"city\\xff".into(), &4.into())
    );
    assert_eq!((&lines[2]["kind"], &lines[2]["timestamp"]), (&"tombstone".into(), &3.into()));
    assert_eq!(names_in(directory.path()), before, "nothing is made");
}

#[test]
fn a_checkpoint_of_another_past_does_not_fit() {
    let directory = directory();
    let fit = |wal: &str| {
        let (out, error, code) = run(&directory, &["a.ckpt", "--wal", wal]);
        assert_eq!((error.as_str(), code), ("", 1), "{out}");
        assert_eq!(json(&directory, &["a.ckpt", "--json", "--wal", wal])[0]["fits"], false);
        out.lines().last().unwrap().to_owned()
    };
    let log = log();
    // The same lengths, another past.
    let mut other = log.clone();
    other.writes[1] = Write::set(b"city\xff", b"rome", 2);
    file_with(&directory, "other.wal", &Log::new(other.writes).bytes);
    assert!(fit("other.wal").contains("does not fit: the log's history at LSN 3 is "));
    file_with(&directory, "short.wal", &log.bytes[..log.end_of(2)]);
    let short = "short.wal: the checkpoint does not fit: the last whole record of the log in front of it is LSN 2.";
    assert_eq!(fit("short.wal"), short);
    file_with(&directory, "empty.wal", b"");
    assert!(fit("empty.wal").ends_with("is LSN 0."));
}

#[test]
fn a_lessons_checkpoint_is_known_by_its_offset() {
    let directory = directory();
    let log = log();
    file_with(&directory, "b.ckpt", &lessons(log.end_of(2)));
    let end = log.end_of(2);
    let held = format!(
        "b.ckpt: whole: 1 key; it covers the log up to byte {end} and says nothing more: written by a lesson's code.\n"
    );
    let fits = "a.wal: the checkpoint fits: recovery replays the 2 records behind LSN 2.\n";
    says(&directory, &["b.ckpt", "--wal", "a.wal"], 0, &format!("{held}{fits}"));
    file_with(&directory, "b.ckpt", &lessons(end + 1));
    let (out, _, code) = run(&directory, &["b.ckpt", "--wal", "a.wal"]);
    assert!(out.ends_with(&format!("does not fit: no record begins at byte {}.\n", end + 1)) && code == 1, "{out}");
}

#[test]
fn with_a_compacted_log() {
    let log = log_of(20);
    let (directory, path) = compacted(&log, 12);
    checkpoint(&log, 10, &directory.path().join("old.ckpt"));
    file_with(&directory, "lessons.ckpt", &lessons(0));
    let name = path.file_name().unwrap().to_str().unwrap();
    let ckpt = format!("{name}.ckpt");
    let last = |words: &[&str]| {
        let (out, error, code) = run(&directory, words);
        (out.lines().last().unwrap_or(&error).to_owned(), code)
    };
    let fits = format!("{name}: the checkpoint fits: recovery replays the 8 records behind LSN 12.");
    assert_eq!(last(&[&ckpt, "--wal", name]), (fits, 0));
    let old = format!("{name}: the checkpoint does not fit: the log begins after LSN 11, and it covers less.");
    assert_eq!(last(&["old.ckpt", "--wal", name]), (old, 1));
    let (line, code) = last(&["lessons.ckpt", "--wal", name]);
    assert!(line.ends_with("it does not say which records it covers.") && code == 1, "{line}");
}

#[test]
fn every_damaged_byte_is_seen() {
    let directory = directory();
    let path = directory.path().join("a.ckpt");
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let (out, error, code) = run(&directory, &["a.ckpt"]);
        if at < 4 {
            assert_eq!((error.as_str(), code), ("logship: a.ckpt: not a checkpoint: it does not begin with CKPT\n", 2));
        } else {
            assert!(code == 1 && out.starts_with("a.ckpt: damaged: ") && out.lines().count() == 1, "byte {at}: {out}");
        }
    }
    fs::write(&path, &whole[..20]).unwrap();
    assert_eq!(run(&directory, &["a.ckpt"]).2, 1);
    assert_eq!(json(&directory, &["a.ckpt", "--json"])[0]["verdict"], "damaged");
}

#[test]
fn what_is_no_checkpoint_is_refused_with_one_line() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    file_with(&directory, "README.md", b"# logship\n");
    file_with(&directory, "empty", b"");
    File::create(path("sparse")).unwrap().set_len(5 << 30).unwrap();
    fs::create_dir(path("directory")).unwrap();
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, line) in [
        ("missing", "No such file or directory"),
        ("directory", "not a file but a directory"),
        ("fifo", "not a file but a FIFO"),
        ("/dev/zero", "not a file but a device"),
        ("README.md", "not a checkpoint: it does not begin with CKPT"),
        ("empty", "not a checkpoint: it does not begin with CKPT"),
        ("sparse", "not a checkpoint: it does not begin with CKPT"),
        ("a.wal", "not a checkpoint: it does not begin with CKPT"),
    ] {
        fails(&directory, &[name], &format!("logship: {name}: {line}\n"));
    }
    fails(&directory, &["a.ckpt", "--wal", "missing"], "logship: missing: No such file or directory\n");
    assert_eq!(run(&directory, &[]).2, 2);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let directory = temp_dir();
    let log = Log::new((0..20_000_u32).map(|number| Write::set(&number.to_be_bytes(), b"v", 1)).collect());
    wal_checkpoint::write(&log.store_of(20_000), &directory.path().join("a.ckpt"), Covered::default()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logship"));
    command.args(["checkpoint", "show", "a.ckpt", "--keys"]).current_dir(directory.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(100, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
    assert!(first.starts_with("a.ckpt: whole: 20,000 keys"), "{first}");
}
