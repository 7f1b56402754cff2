//! `logship wal dump|verify|truncate|repair` and the reader behind them: black box over the built command, and what it
//! says of damaged logs held against what opening them does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::compacted::compacted;
use common::{Log, Random, Write, file_with, names_in, quiet, temp_dir};
use logship::storage::Storage as _;
use logship::storage::memory::MemoryStorage;
use logship::wal::survey::{Verdict, survey};
use logship::{Error, LogReader, Lsn, Record, Timestamp, Wal};
use proptest::prelude::*;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

fn command(directory: &TempDir, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logship"));
    command.args(words).current_dir(directory.path()).stdin(Stdio::null());
    command
}

/// What the command has printed, to standard output and to standard error, and its exit status.
fn run(directory: &TempDir, words: &[&str]) -> (String, String, i32) {
    let output = command(directory, words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// One line of an exact text: the first is what is asked.
fn says(directory: &TempDir, words: &[&str], status: i32, expected: &str) {
    let (out, error, code) = run(directory, words);
    assert_eq!((out.as_str(), error.as_str(), code), (expected, "", status), "{words:?}");
}

fn fails(directory: &TempDir, words: &[&str], expected: &str) {
    let (out, error, code) = run(directory, words);
    assert_eq!((out.as_str(), error.as_str(), code), ("", expected, 2), "{words:?}");
}

fn json_lines(directory: &TempDir, words: &[&str]) -> Vec<Value> {
    run(directory, words).0.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn small() -> Log {
    Log::new(vec![
        Write::set(b"name", b"alice", 1),
        Write::set(b"bin\x00\xff\"\\\n", b"\x01 two", 2),
        Write::set(b"old", b"w10", 0).legacy(),
        Write::del(b"name", 1 << 61),
        Write::set(b"empty", b"", 5),
    ])
}

/// The same with record 3 damaged.
fn damaged() -> Vec<u8> {
    let log = small();
    let mut bytes = log.bytes.clone();
    bytes[log.end_of(2) + 12] ^= 0x20;
    bytes
}

/// What `printed` stands for: the other way of `escape_ascii`.
fn unescaped(printed: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = printed.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().unwrap() {
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            b't' => bytes.push(b'\t'),
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            itself => bytes.push(itself),
        }
    }
    bytes
}

const HEAD: &str = "      LSN       OFFSET LENGTH  CRC          OP            TIME STAMP  VALUE  KEY\n";

#[test]
fn dump_prints_a_line_for_each_record() {
    let directory = temp_dir();
    file_with(&directory, "a.wal", &small().bytes);
    let rows = [
        "        1            0     30  ec374174 ok  SET                     1      5  \"name\"",
        "        2           30     34  f273e61b ok  SET                     2      5  \"bin\\x00\\xff\\\"\\\\\\n\"",
        "        3           64     19  03bc2b0b ok  SET                     0      3  \"old\"",
        "        4           83     25  ad04269f ok  DEL   2305843009213693952      0  \"name\"",
        "        5          108     26  2edbc84b ok  SET                     5      0  \"empty\"",
        "-- offset 134, after LSN 5: the end",
    ];
    let text = |rows: &[&str]| HEAD.to_owned() + &rows.join("\n") + "\n";
    says(&directory, &["wal", "dump", "a.wal"], 0, &text(&rows));
    says(&directory, &["wal", "dump", "a.wal", "--from", "2", "--to", "3"], 0, &text(&rows[1..3]));
    says(&directory, &["wal", "dump", "a.wal", "--limit", "1"], 0, &text(&rows[..1]));
    says(&directory, &["wal", "dump", "a.wal", "--from", "5"], 0, &text(&rows[4..]));
    says(&directory, &["wal", "dump", "a.wal", "--to", "9", "--from", "6"], 0, &text(&rows[5..]));
    let (out, ..) = run(&directory, &["wal", "dump", "a.wal", "--values"]);
    assert!(out.contains("\"bin\\x00\\xff\\\"\\\\\\n\" = \"\\x01 two\"\n"), "{out}");
    assert!(out.contains("\"empty\" = \"\"\n") && out.contains("  \"name\"\n"), "{out}");
}

#[test]
fn dump_of_a_damaged_log_says_where_it_stops_and_shows_what_is_whole_behind() {
    let directory = temp_dir();
    file_with(&directory, "a.wal", &damaged());
    let expected = HEAD.to_owned()
        + "        1            0     30  ec374174 ok  SET                     1      5  \"name\"
        2           30     34  f273e61b ok  SET                     2      5  \"bin\\x00\\xff\\\"\\\\\\n\"
-- offset 64, after LSN 2: no whole record: its CRC is 03bc2b0b, that of its 19 bytes cc011297
        ?           83     25  ad04269f ok  DEL   2305843009213693952      0  \"name\"
        ?          108     26  2edbc84b ok  SET                     5      0  \"empty\"
";
    says(&directory, &["wal", "dump", "a.wal"], 1, &expected);
    let lines = json_lines(&directory, &["wal", "dump", "a.wal", "--json"]);
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["record", "record", "damage", "record", "record"]);
    assert_eq!((&lines[2]["offset"], &lines[2]["after_lsn"]), (&64.into(), &2.into()));
    assert_eq!((&lines[2]["crc_ok"], &lines[2]["length"]), (&false.into(), &19.into()));
    assert_eq!((&lines[3]["lsn"], &lines[3]["offset"]), (&Value::Null, &83.into()));
}

#[test]
fn dump_tells_bytes_between_the_records_behind_damage() {
    let directory = temp_dir();
    let log = small();
    let mut bytes = log.bytes[..30].to_vec();
    bytes.extend([b"xx", &log.bytes[30..64], b"yyyyy", &log.bytes[108..], b"z"].concat());
    file_with(&directory, "a.wal", &bytes);
    let lines = json_lines(&directory, &["wal", "dump", "a.wal", "--json"]);
    let places: Vec<_> =
        (lines.iter().map(|line| (line["kind"].as_str().unwrap(), line["offset"].as_u64().unwrap()))).collect();
    assert_eq!(places, [("record", 0), ("damage", 30), ("record", 32), ("gap", 66), ("record", 71), ("gap", 97)]);
    assert_eq!((&lines[3]["length"], &lines[5]["length"]), (&5.into(), &1.into()));
}

#[test]
fn dump_of_a_compacted_log_counts_on_from_its_base() {
    let (directory, path) = compacted(&common::compacted::log_of(20), 12);
    let name = path.file_name().unwrap().to_str().unwrap();
    let lines = json_lines(&directory, &["wal", "dump", name, "--json"]);
    let lsns: Vec<u64> = lines.iter().filter_map(|line| line["lsn"].as_u64()).collect();
    assert_eq!(lsns, (12..=20).collect::<Vec<u64>>());
    let (out, _, code) = run(&directory, &["wal", "verify", name]);
    assert_eq!(code, 0);
    assert!(out.contains("9 records (LSN 12 to 20)") && out.contains("a checkpoint that covers LSN 11."), "{out}");
}

/// Whatever stands before it, what is whole can be read.
#[test]
fn dump_of_a_log_that_does_not_say_where_it_begins_has_no_lsns() {
    let (directory, path) = compacted(&common::compacted::log_of(20), 12);
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1; // Of what stands before the first record.
    fs::write(&path, bytes).unwrap();
    let (out, error, code) = run(&directory, &["wal", "dump", name, "--json"]);
    assert_eq!((error.as_str(), code), ("", 1));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["kind"], lines.len()), (&"unplaced".into(), 10));
    assert!(lines[1..].iter().all(|line| line["kind"] == "record" && line["lsn"].is_null()), "{out}");
    let (out, ..) = run(&directory, &["wal", "dump", name, "--limit", "2"]);
    assert!(out.lines().nth(1).unwrap().starts_with("-- where the log begins is not known: "), "{out}");
    assert_eq!(out.lines().count(), 4, "{out}");
    for words in [&["wal", "verify", name][..], &["wal", "repair", name, "--yes"]] {
        let (out, error, code) = run(&directory, words);
        assert_eq!((out.as_str(), error.lines().count(), code), ("", 1, 2), "{words:?}: {error}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_dump_quietly() {
    let directory = temp_dir();
    file_with(&directory, "a.wal", &Write::set(b"key", &[b'v'; 100], 1).encoded().repeat(20_000));
    for words in [&["wal", "dump", "a.wal"][..], &["wal", "dump", "a.wal", "--json", "--values"]] {
        let mut child = command(&directory, words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(100, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.as_str()), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn a_full_disk_is_said() {
    let directory = temp_dir();
    file_with(&directory, "a.wal", &small().bytes);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command(&directory, &["wal", "dump", "a.wal"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stderr, b"logship: standard output: No space left on device\n");
}

fn any_write() -> impl Strategy<Value = Write> {
    let key = prop::collection::vec(any::<u8>(), 1..40);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..60));
    (key, value, any::<u64>(), any::<bool>()).prop_map(|(key, value, timestamp, legacy)| {
        let write = Write { key, value, timestamp, legacy: false };
        if legacy { write.legacy() } else { write }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_appended_is_what_is_dumped(writes in prop::collection::vec(any_write(), 0..20)) {
        let directory = temp_dir();
        let log = Log::new(writes);
        file_with(&directory, "a.wal", &log.bytes);
        let mut lines = json_lines(&directory, &["wal", "dump", "a.wal", "--json", "--values"]);
        let end = lines.pop().unwrap();
        prop_assert_eq!(&end["kind"], "end");
        prop_assert_eq!(lines.len(), log.writes.len());
        for (at, (line, write)) in lines.iter().zip(&log.writes).enumerate() {
            prop_assert_eq!(unescaped(line["key"].as_str().unwrap()), write.key.clone());
            prop_assert_eq!(line.get("value").map(|value| unescaped(value.as_str().unwrap())), write.value.clone());
            prop_assert_eq!(line["timestamp"].as_u64(), Some(write.timestamp));
            prop_assert_eq!(line["lsn"].as_u64(), Some(at as u64 + 1));
            prop_assert_eq!(line["offset"].as_u64(), Some(log.end_of(at) as u64));
            prop_assert_eq!(line["length"].as_u64(), Some((log.ends[at] - log.end_of(at)) as u64));
        }
    }
}

#[test]
fn verify_says_one_sentence() {
    let directory = temp_dir();
    let log = small();
    let cases: [(&[u8], i32, &str); 6] = [
        (&log.bytes, 0, "whole: 5 records (LSN 1 to 5) in 134 bytes."),
        (b"", 0, "whole: an empty log."),
        (
            &log.bytes[..130],
            1,
            "torn at offset 108: 4 records (LSN 1 to 4) before it, and in the 22 bytes from there no whole record; \
             opening the log keeps a copy of them and cuts them off.",
        ),
        (
            &log.bytes[..10],
            1,
            "torn at offset 0: no record before it, and in the 10 bytes from there no whole record; opening the log \
             keeps a copy of them and cuts them off.",
        ),
        (
            &damaged(),
            1,
            "damaged at offset 64: 2 records (LSN 1 to 2) before it, and in the 70 bytes from there 2 whole records in \
             1 run; opening the log is refused: whole records follow, from byte 83 on.",
        ),
        (&log.bytes[..30], 0, "whole: 1 record (LSN 1) in 30 bytes."),
    ];
    for (bytes, status, sentence) in cases {
        file_with(&directory, "a.wal", bytes);
        says(&directory, &["wal", "verify", "a.wal"], status, &format!("a.wal: {sentence}\n"));
        let lines = json_lines(&directory, &["wal", "verify", "a.wal", "--json"]);
        assert_eq!((lines.len(), lines[0]["sentence"].as_str()), (1, Some(sentence)));
        assert_eq!(names_in(directory.path()), ["a.wal"], "nothing beside it");
        assert_eq!(fs::read(directory.path().join("a.wal")).unwrap(), bytes);
    }
}

#[test]
fn verify_counts_for_a_script() {
    let directory = temp_dir();
    file_with(&directory, "a.wal", &damaged());
    let said = &json_lines(&directory, &["wal", "verify", "--json", "a.wal"])[0];
    for (name, value) in [("bytes", 134), ("last_lsn", 2), ("records", 2), ("sets", 2), ("dels", 0)] {
        assert_eq!(said[name], value, "{name}");
    }
    for (name, value) in [("whole_bytes", 64), ("behind_records", 2), ("behind_bytes", 51), ("behind_runs", 1)] {
        assert_eq!(said[name], value, "{name}");
    }
    assert_eq!((&said["verdict"], &said["newest_timestamp"]), (&"damaged".into(), &2.into()));
}

#[test]
fn what_is_no_log_is_refused_with_one_line() {
    let directory = temp_dir();
    let path = |name: &str| directory.path().join(name);
    file_with(&directory, "README.md", b"# logship\n\nlogship is a small replicated write-ahead log.\n");
    file_with(&directory, "random", &Random(3).bytes(300_000));
    File::create(path("sparse")).unwrap().set_len(5 << 30).unwrap();
    fs::create_dir(path("directory")).unwrap();
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let no_log = |bytes| format!("not a log: it does not begin with a record, and none is in its {bytes} bytes.");
    let cases = [
        ("missing", "No such file or directory".to_owned()),
        ("directory", "not a file but a directory".to_owned()),
        ("fifo", "not a file but a FIFO".to_owned()),
        ("/dev/zero", "not a file but a device".to_owned()),
        ("README.md/below", "Not a directory".to_owned()),
        ("README.md", no_log("58")),
        ("random", no_log("300,000")),
        ("sparse", no_log("5,368,709,120")),
    ];
    let before = names_in(directory.path());
    for (name, line) in &cases {
        let expected = format!("logship: {name}: {line}\n");
        fails(&directory, &["wal", "dump", name], &expected);
        fails(&directory, &["wal", "verify", name], &expected);
        fails(&directory, &["wal", "repair", name, "--yes"], &expected);
    }
    for (name, line) in &cases[..5] {
        fails(&directory, &["wal", "truncate", name, "--to", "0", "--yes"], &format!("logship: {name}: {line}\n"));
    }
    assert_eq!(names_in(directory.path()), before, "nothing was made or copied");
}

#[test]
fn the_memory_that_it_takes_does_not_grow_with_the_file() {
    let directory = temp_dir();
    let big = Write::set(&[b'k'; 60_000], &[b'v'; 65_535], 1).encoded();
    let mut bytes = big.repeat(1500);
    bytes[big.len() + 70_000] ^= 1;
    file_with(&directory, "a.wal", &bytes);
    let limited = |what: &str| {
        let program = format!("ulimit -v 100000; exec {} wal {what}", env!("CARGO_BIN_EXE_logship"));
        let mut shell = Command::new("sh");
        shell.args(["-c", &program]).current_dir(directory.path()).stdout(Stdio::null());
        shell.status().unwrap().code()
    };
    assert!(bytes.len() > 180_000_000);
    assert_eq!(limited("verify a.wal"), Some(1));
    assert_eq!(limited("dump a.wal"), Some(1));
    assert_eq!(limited("truncate a.wal --to 1"), Some(1));
}

#[test]
fn wrong_arguments_are_status_2() {
    let directory = temp_dir();
    file_with(&directory, "a.wal", &small().bytes);
    for words in [
        &["wal"][..],
        &["wal", "dump"],
        &["wal", "verify", "a.wal", "b.wal"],
        &["wal", "truncate", "a.wal"],
        &["wal", "truncate", "a.wal", "--to", "-1"],
        &["wal", "dump", "a.wal", "--limit", "many"],
        &["wal", "repair", "a.wal", "--to", "1"],
    ] {
        assert_eq!(run(&directory, words).2, 2, "{words:?}");
    }
}

/// What docs/tools.md says is typed is run, and what it says is printed must be.
#[test]
fn the_page_tells_the_truth() {
    let directory = temp_dir();
    let path = file_with(&directory, "my.wal", &damaged());
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tools.md")).unwrap();
    let mut commands = 0;
    for block in page.split("```text\n").skip(1) {
        let transcript = block.split("```").next().unwrap();
        for typed in transcript.split("$ logship ").skip(1) {
            let (words, printed) = typed.split_once('\n').unwrap();
            let words: Vec<&str> = words.split(' ').collect();
            says(&directory, &words, 1, printed);
            commands += 1;
        }
    }
    assert!(commands >= 3, "{commands}");
    // How a cut is undone.
    assert!(page.contains("`cat my.wal.cut-1 >>my.wal`"));
    assert_eq!(run(&directory, &["wal", "repair", "my.wal", "--yes"]).2, 0);
    let shell = Command::new("sh").args(["-c", "cat my.wal.cut-1 >>my.wal"]).current_dir(directory.path()).status();
    assert!(shell.unwrap().success());
    assert_eq!(fs::read(&path).unwrap(), damaged());
}

/// Every page that `make install` puts somewhere, and no subcommand without one.
#[test]
fn each_subcommand_has_a_manual_page_and_completions() {
    let directory = temp_dir();
    let rules = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/install.mk")).unwrap();
    let pages: Vec<&str> =
        rules.lines().find_map(|line| line.strip_prefix("MAN_PAGES := ")).unwrap().split(' ').collect();
    for page in &pages {
        let (text, error, code) = run(&directory, &["man", page]);
        assert_eq!((code, error.as_str()), (0, ""), "{page}");
        assert!(text.contains(&format!(".TH logship-{page} 1")), "{page}: {text}");
    }
    for (words, options) in
        [("wal-dump", "values"), ("wal-truncate", "yes"), ("wal-repair", "durable"), ("checkpoint-show", "keys")]
    {
        assert!(pages.contains(&words));
        assert!(run(&directory, &["man", words]).0.contains(options), "{words}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (text, ..) = run(&directory, &["completions", shell]);
        for word in ["truncate", "repair", "verify", "dump", "checkpoint", "show"] {
            assert!(text.contains(word), "{shell} does not complete {word}");
        }
    }
    let (help, ..) = run(&directory, &["wal", "--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for name in commands.map(|line| line.split_whitespace().next().unwrap()).filter(|name| *name != "help") {
        assert!(pages.contains(&format!("wal-{name}").as_str()), "wal {name} has no page");
    }
}

#[test]
fn truncate_shows_what_it_would_do_and_does_it_when_told() {
    let directory = temp_dir();
    let log = small();
    let path = file_with(&directory, "a.wal", &log.bytes);
    let plan = "\
kept: 3 records (LSN 1 to 3), 83 bytes
lost: 2 records (LSN 4 to 5), 51 bytes
      of 2 keys: \"name\", \"empty\"
What is cut off is kept in a.wal.cut-N.
On a follower of a living leader nothing is lost: it rejoins and is sent what comes behind LSN 3.
On a leader look at the followers' logs first: one that has more should lead.
";
    let undone = format!("{plan}Nothing was changed. With --yes it is done.\n");
    says(&directory, &["wal", "truncate", "a.wal", "--to", "3"], 1, &undone);
    assert_eq!((names_in(directory.path()), fs::read(&path).unwrap()), (vec!["a.wal".to_owned()], log.bytes.clone()));

    let done = format!("{plan}Done: the log ends with LSN 3, and a.wal.cut-1 has what was cut off.\n");
    says(&directory, &["wal", "truncate", "a.wal", "--to", "3", "--yes"], 0, &done);
    assert_eq!(fs::read(&path).unwrap(), log.bytes[..83]);
    assert_eq!(fs::read(directory.path().join("a.wal.cut-1")).unwrap(), log.bytes[83..]);
    assert_eq!(Wal::open(&path).unwrap().last_lsn(), Lsn(3));

    let again = "a.wal: nothing to do: it ends with LSN 3 already.\n";
    says(&directory, &["wal", "truncate", "a.wal", "--to", "3", "--yes"], 0, again);
    let none = "logship: a.wal: LSN 4 is not in the log, which has the records after LSN 0 up to LSN 3\n";
    fails(&directory, &["wal", "truncate", "a.wal", "--to", "4", "--yes"], none);
    assert_eq!(run(&directory, &["wal", "truncate", "a.wal", "--to", "0", "--yes"]).2, 0);
    assert_eq!(Wal::open(&path).unwrap().last_lsn(), Lsn::ZERO);
}

#[test]
fn repair_cuts_at_the_damage_and_the_log_opens() {
    quiet();
    let directory = temp_dir();
    let path = file_with(&directory, "a.wal", &damaged());
    assert!(matches!(Wal::open(&path), Err(Error::Damaged { .. })));
    let plan = "\
a.wal: damaged at offset 64: 2 records (LSN 1 to 2) before it, and in the 70 bytes from there 2 whole records in 1 run; \
                opening the log is refused: whole records follow, from byte 83 on.
kept: 2 records (LSN 1 to 2), 64 bytes
lost: 2 whole records behind the damage, 70 bytes (19 of no whole record)
      of 2 keys: \"name\", \"empty\"
What is cut off is kept in a.wal.cut-N.
On a follower of a living leader nothing is lost: it rejoins and is sent what comes behind LSN 2.
On a leader look at the followers' logs first: one that has more should lead.
";
    let undone = format!("{plan}Nothing was changed. With --yes it is done.\n");
    says(&directory, &["wal", "repair", "a.wal"], 1, &undone);
    assert_eq!((names_in(directory.path()), fs::read(&path).unwrap()), (vec!["a.wal".to_owned()], damaged()));

    let done = format!("{plan}Done: the log ends with LSN 2, and a.wal.cut-1 has what was cut off.\n");
    says(&directory, &["wal", "repair", "a.wal", "--yes"], 0, &done);
    assert_eq!(fs::read(directory.path().join("a.wal.cut-1")).unwrap(), damaged()[64..]);
    assert_eq!(Wal::open(&path).unwrap().last_lsn(), Lsn(2));
    let whole = "a.wal: nothing to do: whole: 2 records (LSN 1 to 2) in 64 bytes.\n";
    says(&directory, &["wal", "repair", "a.wal"], 0, whole);
}

/// On a disk, since a file system in memory may have no place for the note.
fn noted() -> (TempDir, std::path::PathBuf, bool) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("a.wal");
    let mut wal = Wal::open(&path).unwrap();
    for number in 1..=5 {
        wal.append(&Record::set(b"key", b"value", Timestamp(number))).unwrap();
    }
    let has_note = wal.storage().note().unwrap().is_some();
    (directory, path, has_note)
}

#[test]
fn a_log_that_somebody_has_shortened_is_refused_until_a_person_says_yes() {
    quiet();
    let (directory, path, has_note) = noted();
    assert!(has_note, "the file system of the target directory has no extended attributes");
    let len = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(len / 5 * 3).unwrap();
    assert!(Wal::open(&path).is_err());
    let sentence = format!(
        "shortened: 3 records (LSN 1 to 3) in {} bytes; opening the log is refused: it was durable up to byte {len} \
         (LSN 5) and has been cut.",
        len / 5 * 3
    );
    says(&directory, &["wal", "verify", "a.wal"], 1, &format!("a.wal: {sentence}\n"));
    let (out, _, code) = run(&directory, &["wal", "repair", "a.wal"]);
    assert!(out.contains("lost: nothing more") && code == 1, "{out}");
    assert!(Wal::open(&path).is_err());
    let (out, _, code) = run(&directory, &["wal", "repair", "a.wal", "--yes"]);
    assert!(out.ends_with("Done: the log ends with LSN 3.\n") && code == 0, "{out}");
    assert_eq!(Wal::open(&path).unwrap().last_lsn(), Lsn(3));
}

#[test]
fn a_repair_can_keep_only_what_was_durable() {
    quiet();
    let (directory, path, has_note) = noted();
    assert!(has_note, "the file system of the target directory has no extended attributes");
    // One more whole record and a torn one that no fsync has covered.
    let mut bytes = fs::read(&path).unwrap();
    let durable = bytes.len();
    bytes.extend(Write::set(b"key", b"never synced", 6).encoded());
    let whole = bytes.len();
    bytes.extend(&Write::set(b"key", b"cut", 7).encoded()[..20]);
    let append = |bytes: &[u8]| {
        std::io::Write::write_all(&mut File::options().append(true).open(&path).unwrap(), bytes).unwrap();
    };
    append(&bytes[durable..]);
    assert_eq!(json_lines(&directory, &["wal", "verify", "a.wal", "--json"])[0]["durable_lsn"], 5);
    let said = &json_lines(&directory, &["wal", "repair", "a.wal", "--json"])[0];
    assert_eq!((&said["kept"]["last_lsn"], &said["kept"]["bytes"]), (&6.into(), &whole.into()));
    let said = &json_lines(&directory, &["wal", "repair", "a.wal", "--durable", "--json", "--yes"])[0];
    assert_eq!((&said["kept"]["last_lsn"], &said["lost"]["records"]), (&5.into(), &1.into()));
    assert_eq!(fs::read(directory.path().join("a.wal.cut-1")).unwrap(), bytes[durable..]);
    assert_eq!(Wal::open(&path).unwrap().last_lsn(), Lsn(5));

    let plain = temp_dir();
    file_with(&plain, "a.wal", &damaged());
    fails(
        &plain,
        &["wal", "repair", "a.wal", "--durable"],
        "logship: a.wal: which records were durable is not known\n",
    );
}

#[test]
fn a_change_is_told_to_a_script() {
    let directory = temp_dir();
    file_with(&directory, "a.wal", &damaged());
    let one = |words: &[&str]| {
        let (out, error, code) = run(&directory, words);
        assert_eq!(error, "");
        (serde_json::from_str::<Value>(&out).unwrap(), code)
    };
    let (said, code) = one(&["wal", "repair", "a.wal", "--json"]);
    assert_eq!(
        (&said["needed"], &said["changed"], &said["copy"], code),
        (&true.into(), &false.into(), &Value::Null, 1)
    );
    assert_eq!((&said["kept"]["last_lsn"], &said["lost"]["behind_damage"]), (&2.into(), &2.into()));
    assert_eq!((&said["lost"]["records"], &said["lost"]["keys"]), (&2.into(), &2.into()));
    let (said, code) = one(&["wal", "repair", "a.wal", "--json", "--yes"]);
    assert_eq!((&said["changed"], &said["copy"], code), (&true.into(), &"a.wal.cut-1".into(), 0));
    let (said, code) = one(&["wal", "repair", "a.wal", "--json"]);
    assert_eq!((&said["needed"], &said["changed"], code), (&false.into(), &false.into(), 0));
}

/// script(1) gives the command a terminal, on which it asks.
#[test]
fn at_a_terminal_it_asks() {
    for (answer, status, left) in [("y\n", 0, 64), ("n\n", 1, 134), ("\n", 1, 134)] {
        let directory = temp_dir();
        let path = file_with(&directory, "a.wal", &damaged());
        let repair = format!("{} wal repair a.wal", env!("CARGO_BIN_EXE_logship"));
        let mut script = Command::new("script");
        script.args(["-qec", &repair, "/dev/null"]).current_dir(directory.path());
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("Cut a.wal behind LSN 2? [y/N] "), "{said}");
        assert_eq!((output.status.code(), fs::read(&path).unwrap().len()), (Some(status), left), "{said}");
    }
}

#[test]
fn a_log_that_is_in_use_is_not_cut() {
    let directory = temp_dir();
    let path = file_with(&directory, "a.wal", &small().bytes);
    let cut = ["wal", "truncate", "a.wal", "--to", "1", "--yes", "--json"];
    let is_untouched = || assert_eq!(fs::read(&path).unwrap(), small().bytes);

    let owner = Wal::open(&path).unwrap();
    let line = |what: &str| format!("logship: a.wal: {what}; nothing was changed\n");
    let writes = format!("process {} has the log open for writing", std::process::id());
    fails(&directory, &cut, &line(&writes));
    drop(owner);
    is_untouched();

    // The lock alone, as of a process that this one may not look into.
    let holder = File::open(&path).unwrap();
    holder.lock().unwrap();
    fails(&directory, &cut, &line("another process has the log open"));
    is_untouched();
    // To look needs no lock.
    assert_eq!(run(&directory, &["wal", "verify", "a.wal"]).2, 0);
    assert_eq!(run(&directory, &["wal", "dump", "a.wal"]).2, 0);
    drop(holder);
    assert_eq!(run(&directory, &cut).2, 0);
}

#[test]
fn a_compacted_log_keeps_a_record_or_is_refused() {
    quiet();
    let (directory, path) = compacted(&common::compacted::log_of(20), 12);
    let name = path.file_name().unwrap().to_str().unwrap();
    let (_, error, code) = run(&directory, &["wal", "truncate", name, "--to", "11", "--yes"]);
    assert_eq!(code, 2, "{error}");
    let mut bytes = fs::read(&path).unwrap();
    let whole = bytes.clone();
    bytes[12] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (out, error, code) = run(&directory, &["wal", "repair", name, "--yes"]);
    assert_eq!((out.as_str(), code), ("", 2));
    assert!(error.starts_with(&format!("logship: {name}: ")) && error.lines().count() == 1, "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was changed");

    bytes = whole;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(run(&directory, &["wal", "repair", name, "--yes"]).2, 0);
    let wal = Wal::open(&path).unwrap();
    assert_eq!((wal.base_lsn(), wal.last_lsn()), (Lsn(11), Lsn(19)));
}

/// What a survey says is what opening does, for every cut and every flipped bit of a log.
#[test]
fn the_verdict_is_what_opening_does() {
    quiet();
    let log = small();
    let cuts = (0..log.bytes.len()).map(|len| log.bytes[..len].to_vec());
    let flips = (0..log.bytes.len() * 8).map(|bit| {
        let mut bytes = log.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let mut seen = [0; 3];
    for bytes in cuts.chain(flips).chain([log.bytes.clone()]) {
        let directory = temp_dir();
        let path = file_with(&directory, "a.wal", &bytes);
        let reader = LogReader::open(&path).unwrap();
        let verdict = survey(reader.storage(), reader.origin(), |_| ()).unwrap().verdict();
        let opened = Wal::open(&path).map(|_| names_in(directory.path()).len());
        let (at, agrees) = match verdict {
            Verdict::Whole => (0, matches!(opened, Ok(1))),
            Verdict::Torn => (1, matches!(opened, Ok(2))),
            Verdict::Damaged => (2, opened.is_err()),
            Verdict::NoLog => panic!("there is always a record: {bytes:?}"),
        };
        seen[at] += 1;
        assert!(agrees, "{verdict:?} but {opened:?}: {bytes:?}");
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// Logs of which several places are damaged: a repair leaves what was whole before the first, and it opens.
#[test]
fn whatever_is_damaged_a_repaired_log_opens() {
    quiet();
    let mut random = Random(11);
    for round in 0..30 {
        let directory = temp_dir();
        let log = common::compacted::log_of(30);
        let mut bytes = log.bytes.clone();
        let mut first = bytes.len();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() - log.ends[0]) + log.ends[0];
            bytes[at] ^= 1 << random.below(8);
            first = if bytes[at] == log.bytes[at] { first } else { first.min(at) };
        }
        let path = file_with(&directory, "a.wal", &bytes);
        assert_eq!(run(&directory, &["wal", "repair", "a.wal", "--yes"]).2, 0, "round {round}");
        let kept = log.whole_before(first);
        assert_eq!(fs::read(&path).unwrap(), log.bytes[..log.end_of(kept)], "round {round}");
        assert_eq!(Wal::open(&path).unwrap().last_lsn(), Lsn(kept as u64));
        let copy = fs::read(directory.path().join("a.wal.cut-1")).unwrap();
        assert_eq!(copy, bytes[log.end_of(kept)..], "round {round}: the copy");
    }
}

#[test]
fn records_are_found_wherever_they_lie_behind_damage() {
    let one = Write::set(b"needle", b"v", 3).encoded();
    // Around the window that the search reads, and behind zeros of every length that its steps have.
    for before in (1..200).chain((1 << 20) - 131_091 - 40..(1 << 20) - 131_091 + 40).chain((1 << 20) - 5..(1 << 20) + 5)
    {
        let bytes = [vec![0; before], one.clone(), vec![7; 5]].concat();
        let storage = MemoryStorage { bytes, ..MemoryStorage::default() };
        let mut found = Vec::new();
        logship::wal::survey::search(&storage, 0, |record| {
            found.push((record.offset, record.len, record.begins_run));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [(before as u64, one.len(), true)]);
    }
}

#[test]
fn a_hole_in_a_file_hides_no_record() {
    let directory = temp_dir();
    let path = directory.path().join("a.wal");
    let one = Write::set(b"needle", b"v", 3).encoded();
    let file = File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &one, 3 << 30).unwrap();
    let lines = json_lines(&directory, &["wal", "dump", "a.wal", "--json"]);
    let places: Vec<_> = lines.iter().map(|line| (line["kind"].as_str().unwrap(), line["offset"].as_u64())).collect();
    assert_eq!(places, [("damage", Some(0)), ("record", Some(3 << 30))]);
}

#[test]
fn a_reader_locks_nothing_and_changes_nothing() {
    quiet();
    let directory = temp_dir();
    let log = small();
    let torn = &log.bytes[..130];
    let path = file_with(&directory, "a.wal", torn);
    let reader = LogReader::open(&path).unwrap();
    let found: Vec<_> = reader.records().collect();
    assert_eq!(found.len(), 5);
    match &found[4] {
        Err(Error::Unfinished { offset, after }) => assert_eq!((*offset, *after), (108, Lsn(4))),
        other => panic!("{other:?}"),
    }
    for (record, write) in found.iter().filter_map(|record| record.as_ref().ok()).zip(&log.writes) {
        assert_eq!(record.record(), write.record());
    }
    assert_eq!((names_in(directory.path()), fs::read(&path).unwrap()), (vec!["a.wal".to_owned()], torn.to_vec()));
    let owner = Wal::open(&path).unwrap();
    assert!(LogReader::open(&path).is_ok(), "beside its owner");
    drop(owner);
}

/// The other process is this program again, at `the_other_process_of_the_live_log`.
#[test]
fn a_log_can_be_read_while_another_process_appends() {
    const COUNT: u64 = 3_000;
    let directory = temp_dir();
    let path = directory.path().join("a.wal");
    drop(Wal::open(&path).unwrap());
    let mut appender = Command::new(std::env::current_exe().unwrap());
    appender.args(["--exact", "the_other_process_of_the_live_log", "--include-ignored"]);
    appender.env("LIVE_LOG", &path).env("LIVE_COUNT", COUNT.to_string()).stdout(Stdio::null());
    let mut child = appender.spawn().unwrap();
    let reader = LogReader::open(&path).unwrap();
    let mut records = reader.records();
    let mut seen = 0;
    let mut has_ended = false;
    loop {
        match records.next() {
            Some(Ok(record)) => {
                seen += 1;
                assert_eq!((record.lsn, record.record().timestamp), (Lsn(seen), Timestamp(seen)));
            }
            Some(Err(Error::Unfinished { .. })) => {}
            Some(Err(error)) => panic!("after {seen}: {error}"),
            None if has_ended => break,
            None => has_ended = child.try_wait().unwrap().is_some_and(|status| status.success()),
        }
    }
    assert_eq!(seen, COUNT);
}

/// Appends if the environment names a log; alone it does nothing.
#[test]
fn the_other_process_of_the_live_log() {
    let Ok(path) = std::env::var("LIVE_LOG") else { return };
    let count: u64 = std::env::var("LIVE_COUNT").unwrap().parse().unwrap();
    let mut wal = Wal::open(Path::new(&path)).unwrap();
    let value = vec![b'v'; 9_000];
    for number in 1..=count {
        let len = usize::try_from(number % 9_000).unwrap();
        wal.append(&Record::set(b"key", &value[..len], Timestamp(number))).unwrap();
    }
}
