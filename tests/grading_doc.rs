//! docs/grading.md, command by command: what it says is typed is run, what it says is printed must be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use kit::{copy, library, top};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// The blocks of a page with their kind, in order.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((kind.to_owned(), text.join("\n")));
        }
    }
    blocks
}

#[test]
#[ignore = "make test-all: a minute"]
fn the_page_does_what_it_says() {
    let top = top();
    let command = Path::new(env!("CARGO_BIN_EXE_logship"));
    let open = fs::Permissions::from_mode(0o755);
    let desk = tempfile::Builder::new().permissions(open).tempdir().unwrap();
    copy(&top.join("c_tests/plain_c"), &desk.path().join("c_tests/plain_c"));
    // That `make install` puts these there is for `make install-test`, which runs it; here it is a function that looks.
    let prefix = desk.path().join(".local");
    copy(&top.join("include"), &prefix.join("include/logship"));
    copy(&top.join("grade/checks"), &prefix.join("share/logship/grade/checks"));
    fs::create_dir_all(prefix.join("bin")).unwrap();
    fs::create_dir_all(prefix.join("lib")).unwrap();
    fs::copy(command, prefix.join("bin/logship")).unwrap();
    fs::copy(library(), prefix.join("lib/liblogship.a")).unwrap();
    let make = "make() { [ \"$*\" = \"install PREFIX=$HOME/.local\" ] && [ -x \"$HOME/.local/bin/logship\" ]; }";

    let page = fs::read_to_string(top.join("docs/grading.md")).unwrap();
    let (mut so_far, mut printed, mut count) = (format!("set -eu\n{make}\n"), String::new(), 0);
    // One shell for all of it, since an export is for what follows; a line between the blocks parts what they print.
    for (kind, text) in blocks(&page) {
        if kind == "sh" {
            so_far.push_str(&format!("{text}\necho '--- end of a block'\n"));
            count += 1;
        }
    }
    let output =
        Command::new("bash").args(["-c", &so_far]).current_dir(&desk).env("HOME", desk.path()).output().unwrap();
    printed.push_str(&String::from_utf8_lossy(&output.stdout));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{error}");
    assert_eq!(printed.matches("--- end of a block\n").count(), count);

    let mut of_blocks = printed.split("--- end of a block\n");
    let mut last = "";
    for (kind, text) in blocks(&page) {
        match kind.as_str() {
            "sh" => last = of_blocks.next().unwrap(),
            "text" => {
                for line in text.lines() {
                    assert!(last.lines().any(|seen| seen.starts_with(line)), "{line:?} was not printed:\n{last}");
                }
            }
            other => panic!("a block of kind {other:?}"),
        }
    }
    let grades = fs::read_to_string(desk.path().join("grades.json")).unwrap();
    let grades: serde_json::Value = serde_json::from_str(&grades).unwrap();
    assert_eq!(grades["submissions"].as_array().unwrap().len(), 2);
    // The table of fields names each.
    for name in grades["submissions"][1].as_object().unwrap().keys() {
        assert!(page.contains(&format!("| `{name}` |")) || name == "seconds", "{name} is not described");
    }
}
