//! The kit on plain C in each of its shapes (grade/shapes), all of which must get Distinction, and with a mistake at a
//! time (grade/canaries), for each of which it must name the requirement.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use kit::{copy, library, top};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
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

/// A complete and correct tree: plain C with these options of its plain_shape.h.
struct Shape {
    name: String,
    options: Vec<(String, String)>,
}

fn shapes() -> Vec<Shape> {
    let list = fs::read_to_string(top().join("grade/shapes/list")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap().to_owned();
            let option = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            Shape { name, options: words.map(|word| option(word).unwrap()).collect() }
        })
        .collect()
}

fn shape(name: &str) -> Shape {
    shapes().into_iter().find(|shape| shape.name == name).unwrap()
}

impl Shape {
    fn make(&self, place: &Path) {
        copy(&top().join("c_tests/plain_c"), place);
        let header = place.join("include/plain_shape.h");
        let text = fs::read_to_string(&header).unwrap();
        let defines = self.options.iter().map(|(name, value)| {
            assert!(text.contains(&format!("#ifndef PLAIN_{name}\n")), "{}: no option {name}", self.name);
            format!("#define PLAIN_{name} {value}\n")
        });
        let defines: String = defines.collect();
        fs::write(&header, defines + &text).unwrap();
    }

    fn value(&self, name: &str) -> &str {
        self.options.iter().find(|(known, _)| known == name).map_or("0", |(_, value)| value)
    }
}

fn desk() -> tempfile::TempDir {
    let open = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(open).tempdir().unwrap()
}

/// Trees that owe nothing to plain C.
const BY_HAND: [&str; 1] = ["flat"];

fn gets_distinction(shapes: &[Shape], by_hand: &[&str]) {
    let desk = desk();
    for name in by_hand {
        copy(&top().join("grade/shapes").join(name), &desk.path().join(name));
    }
    for shape in shapes {
        shape.make(&desk.path().join(&shape.name));
    }
    let (json, code) = grade(&["--each", desk.path().to_str().unwrap()]);
    let mut count = 0;
    for report in json["submissions"].as_array().unwrap() {
        let rows = report["requirements"].as_array().unwrap_or_else(|| panic!("{report}"));
        let failures: Vec<&Value> = rows.iter().filter(|row| row["status"] != "pass").collect();
        assert!(failures.is_empty(), "{}: {failures:#?}", report["submission"]);
        let grades = report["grades"].as_array().unwrap_or_else(|| panic!("{report}"));
        assert!(grades.len() == 2 && grades.iter().all(|grade| grade["grade"] == "Distinction"), "{grades:?}");
        count += 1;
    }
    assert_eq!((count, code), (shapes.len() + by_hand.len(), 0));
}

#[test]
#[ignore = "make test-all: half a minute"]
fn plain_c_gets_distinction() {
    gets_distinction(&[shape("lesson")], &[]);
}

#[test]
#[ignore = "make test-all: minutes, under valgrind"]
fn every_shape_gets_distinction_twice() {
    assert!(shapes().len() >= 12);
    gets_distinction(&shapes(), &BY_HAND);
    gets_distinction(&shapes(), &BY_HAND);
}

/// Each option of plain_shape.h, and of any two options each value of one with each of the other.
#[test]
fn any_two_options_stand_together_in_some_shape() {
    let header = fs::read_to_string(top().join("c_tests/plain_c/include/plain_shape.h")).unwrap();
    let options = header.lines().filter_map(|line| line.strip_prefix("#ifndef PLAIN_"));
    let names: Vec<&str> = options.filter(|name| *name != "SHAPE_H").collect();
    let shapes = shapes();
    let values = |name: &str| -> BTreeSet<&str> { shapes.iter().map(|shape| shape.value(name)).collect() };
    let together = |one: &str, of_one: &str, other: &str, of_other: &str| {
        shapes.iter().any(|shape| shape.value(one) == of_one && shape.value(other) == of_other)
    };
    for (at, one) in names.iter().enumerate() {
        assert!(values(one).len() > 1, "no shape has {one}");
        for other in &names[..at] {
            for of_one in values(one) {
                for of_other in values(other) {
                    assert!(together(one, of_one, other, of_other), "never: {one}={of_one} {other}={of_other}");
                }
            }
        }
    }
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
#[ignore = "make test-all: minutes"]
fn every_seeded_mistake_is_named_in_three_shapes() {
    let canaries = canaries();
    assert!(canaries.len() >= 110, "{} canaries", canaries.len());
    for name in ["lesson", "nine", "raw-path"] {
        each_is_named(&canaries, &shape(name));
    }
}

#[test]
fn a_seeded_mistake_of_each_week_is_named() {
    let few = ["w10-01-crc-over-itself", "w11-06-length-in-host-order"];
    let canaries: Vec<Canary> = canaries().into_iter().filter(|canary| few.contains(&canary.name.as_str())).collect();
    assert_eq!(canaries.len(), few.len());
    each_is_named(&canaries, &shape("lesson"));
}

fn each_is_named(canaries: &[Canary], shape: &Shape) {
    let desk = desk();
    let mut plan = String::new();
    for canary in canaries {
        let place = desk.path().join(&canary.name);
        shape.make(&place);
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
    let count = canaries.len();
    assert!(missed.is_empty(), "{}: {} of {count} were missed:\n{}", shape.name, missed.len(), missed.join("\n"));
}
