//! The kit on plain C, which must get Distinction, and on plain C with a mistake at a time (grade/canaries), for each
//! of which it must name the requirement.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use kit::{copy, library, top};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

fn grade(arguments: &[&str]) -> (Value, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logship"));
    command.args(["grade", "--json"]).args(arguments).arg("--lib").arg(library());
    command.arg("--checks").arg(top().join("grade/checks")).arg("--include").arg(top().join("include"));
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|wrong| panic!("{wrong}: {error}"));
    (json, output.status.code().unwrap())
}

#[test]
#[ignore = "make test-all: half a minute"]
fn plain_c_gets_distinction() {
    let plain_c = top().join("c_tests/plain_c");
    let (json, code) = grade(&[plain_c.to_str().unwrap()]);
    let report = &json["submissions"][0];
    let failures: Vec<&Value> =
        report["requirements"].as_array().unwrap().iter().filter(|row| row["status"] != "pass").collect();
    assert!(failures.is_empty(), "{failures:#?}");
    for grade in report["grades"].as_array().unwrap() {
        assert_eq!(grade["grade"], "Distinction", "{grade}");
    }
    assert_eq!((report["grades"].as_array().unwrap().len(), code), (2, 0));
}

/// A seeded mistake, as the head of its patch describes it.
struct Canary {
    name: String,
    patch: PathBuf,
    head: HashMap<String, String>,
}

fn canaries() -> Vec<Canary> {
    let mut canaries = Vec::new();
    for entry in fs::read_dir(top().join("grade/canaries")).unwrap() {
        let patch = entry.unwrap().path();
        if patch.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        let text = fs::read_to_string(&patch).unwrap();
        let head = text.lines().take_while(|line| !line.starts_with("---"));
        let fields = head.filter_map(|line| line.split_once(": "));
        let head: HashMap<String, String> =
            fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        for name in ["Mistake", "File", "Requirement", "Check"] {
            assert!(head.contains_key(name), "{}: no line {name}:", patch.display());
        }
        canaries.push(Canary { name: patch.file_stem().unwrap().to_str().unwrap().to_owned(), patch, head });
    }
    canaries.sort_by(|one, other| one.name.cmp(&other.name));
    canaries
}

/// Each with the one check that its patch names, or it would take minutes; that this check passes on plain C is what
/// the other test shows.
#[test]
#[ignore = "make test-all: two minutes"]
fn every_seeded_mistake_is_named() {
    let canaries = canaries();
    assert!(canaries.len() >= 30, "{} canaries", canaries.len());
    each_is_named(canaries);
}

#[test]
fn a_seeded_mistake_of_each_week_is_named() {
    let few = ["w10-01-crc-over-itself", "w11-06-length-in-host-order"];
    let canaries: Vec<Canary> = canaries().into_iter().filter(|canary| few.contains(&canary.name.as_str())).collect();
    assert_eq!(canaries.len(), few.len());
    each_is_named(canaries);
}

fn each_is_named(canaries: Vec<Canary>) {
    let open = fs::Permissions::from_mode(0o755);
    let desk = tempfile::Builder::new().permissions(open).tempdir().unwrap();
    let mut plan = String::new();
    for canary in &canaries {
        let place = desk.path().join(&canary.name);
        copy(&top().join("c_tests/plain_c"), &place);
        let patched =
            Command::new("patch").args(["-s", "-p1", "-i"]).arg(&canary.patch).current_dir(&place).output().unwrap();
        assert!(patched.status.success(), "{}: {}", canary.name, String::from_utf8_lossy(&patched.stdout));
        plan.push_str(&format!("{}\t{}\n", place.display(), canary.head["Check"]));
    }
    let path = desk.path().join("plan");
    fs::write(&path, plan).unwrap();
    let (json, code) = grade(&["--plan", path.to_str().unwrap(), "-j", "4"]);

    assert_eq!(code, 1);
    let mut missed = Vec::new();
    for (canary, report) in canaries.iter().zip(json["submissions"].as_array().unwrap()) {
        assert!(report["submission"].as_str().unwrap().ends_with(&canary.name));
        let rows = report["requirements"].as_array().unwrap();
        let row = rows.iter().find(|row| row["id"] == canary.head["Requirement"].as_str());
        let names_it = |failure: &Value| canary.head["Check"].split(',').any(|check| failure["check"] == check);
        let is_named =
            row.is_some_and(|row| row["status"] == "fail" && row["failures"].as_array().unwrap().iter().any(names_it));
        if !is_named {
            missed.push(format!("{}: {} {}: {row:?}", canary.name, canary.head["Requirement"], canary.head["Mistake"]));
        }
    }
    assert!(missed.is_empty(), "{} of {} were missed:\n{}", missed.len(), canaries.len(), missed.join("\n"));
}
