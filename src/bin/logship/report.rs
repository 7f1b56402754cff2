//! What a grader reads: a table for people, JSON for machines.

use crate::build::Built;
use crate::checks::Check;
use crate::judge::{Failure, Graded, Judged, Seen, Status};
use crate::kit::State;
use serde::Serialize;
use std::fmt::Write as _;

/// A file's row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FileRow {
    pub(crate) file: &'static str,
    /// missing, fails, warns, compiles
    state: &'static str,
    /// Where it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
    /// The compiler's first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<String>,
}

/// One submission.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) submission: String,
    /// Why it could not be graded at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) files: Vec<FileRow>,
    pub(crate) notes: Vec<String>,
    pub(crate) requirements: Vec<Judged>,
    pub(crate) grades: Vec<Graded>,
    /// Everything that was judged passes, -Wall -Wextra -Werror included.
    pub(crate) passed: bool,
    pub(crate) seconds: f64,
}

pub(crate) fn file_rows(built: &Built, week: Option<&str>) -> Vec<FileRow> {
    let rows =
        built.units.iter().filter(|unit| week.is_none_or(|week| unit.file.week == week || unit.file.week == "w09"));
    rows.map(|unit| {
        let (state, line) = match &unit.state {
            State::Missing => ("missing", None),
            State::Fails(line) => ("fails", Some(line.clone())),
            State::Warns(line) => ("warns", Some(line.clone())),
            State::Compiles => ("compiles", None),
        };
        let place = unit.place.as_ref().map(|place| place.display().to_string());
        FileRow { file: unit.file.name, state, place, line }
    })
    .collect()
}

impl FileRow {
    pub(crate) fn warns(&self) -> bool {
        self.state == "warns"
    }
}

/// All reports as one JSON value.
pub(crate) fn json(reports: &[Report]) -> Result<String, String> {
    #[derive(Serialize)]
    struct All<'a> {
        submissions: &'a [Report],
    }
    serde_json::to_string_pretty(&All { submissions: reports }).map_err(|error| error.to_string())
}

/// The same when nothing could be graded.
pub(crate) fn json_error(error: &str) -> String {
    serde_json::json!({ "error": error, "submissions": [] }).to_string()
}

/// A check for --list.
pub(crate) fn check_line(check: &Check) -> String {
    format!("{:<32} {:<7} {}  {}\n", check.id, check.requirement, check.lesson, check.title)
}

/// One of many submissions.
pub(crate) fn one_line(report: &Report) -> String {
    if let Some(error) = &report.error {
        return format!("{}: not graded: {error}\n", report.submission);
    }
    let grades: Vec<String> = report.grades.iter().map(|grade| format!("{} {}", grade.quest, grade.grade)).collect();
    let failing: Vec<&str> =
        report.requirements.iter().filter(|row| row.status == Status::Fail).map(|row| row.id).collect();
    let fails = if failing.is_empty() { String::new() } else { format!("  fails {}", failing.join(" ")) };
    format!("{}: {}{fails}  ({:.1} s)\n", report.submission, grades.join(", "), report.seconds)
}

/// The table of one submission.
pub(crate) fn table(report: &Report, verbose: bool) -> String {
    let mut text = format!("== {}\n", report.submission);
    write(&mut text, report, verbose);
    text
}

fn write(text: &mut String, report: &Report, verbose: bool) {
    let mut line = |words: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{words}");
    };
    if let Some(error) = &report.error {
        line(format!("not graded: {error}"));
        return;
    }
    let in_state = |state: &str| -> Vec<&str> {
        report.files.iter().filter(|row| row.state == state).map(|row| row.file).collect()
    };
    let missing = in_state("missing");
    if missing.len() == report.files.len() {
        line("none of the course's files is here, in w09/, w10/, w11/ or at the top".to_owned());
    } else {
        line(format!("files: {} of {} compile", in_state("compiles").len(), report.files.len()));
        if !missing.is_empty() {
            line(format!("  missing: {}", missing.join(" ")));
        }
    }
    for row in &report.files {
        if let Some(first) = &row.line {
            let how = if row.warns() { "FAIL  does not compile with -Werror" } else { "FAIL  does not compile" };
            line(format!("  {how}: {first}"));
        }
    }
    for note in &report.notes {
        line(format!("  note: {note}"));
    }
    // Was each file tried alone?
    let mixes = !report.notes.iter().any(|note| note.starts_with("interface: "));
    for row in &report.requirements {
        let (word, end) = match row.status {
            Status::Pass => ("PASS", format!("{} checks", row.checks)),
            Status::Fail => ("FAIL", String::new()),
            Status::NotJudged => ("----", format!("not judged: {}", row.why.as_deref().unwrap_or(""))),
        };
        line(format!("{word}  {:<7} {:<58} {end}", row.id, row.title).trim_end().to_owned());
        if verbose {
            let mut rest = row.failures.clone();
            while let Some(first) = rest.first().cloned() {
                let (same, others): (Vec<Failure>, Vec<Failure>) =
                    rest.into_iter().partition(|failure| is_same(failure, &first));
                failures(&same, mixes, &mut line);
                rest = others;
            }
        } else {
            failures(&row.failures, mixes, &mut line);
        }
    }
    for graded in &report.grades {
        let lacks = graded.lacks.as_ref().map_or(String::new(), |lacks| format!("  ({lacks})"));
        line(format!("{}: {}{lacks}", graded.quest, graded.grade));
    }
}

fn is_same(one: &Failure, other: &Failure) -> bool {
    one.check == other.check && one.title == other.title
}

/// The first failure in full, the checks of the others by name.
fn failures(failures: &[Failure], mixes: bool, line: &mut dyn FnMut(String)) {
    let Some(first) = failures.first() else { return };
    let same = |failure: &&Failure| is_same(failure, first);
    let together: Vec<&Failure> = failures.iter().filter(same).collect();
    let named = if first.check.is_empty() { first.title.clone() } else { format!("{}: {}", first.check, first.title) };
    line(format!("      {named}"));
    for place in places(&together, mixes) {
        line(format!("        {place}"));
    }
    line(format!("        {}: expected {}, seen: {}", first.what, first.expected, first.seen));
    line(format!("        {}: {}", first.lesson, first.line));
    let mut others: Vec<String> = Vec::new();
    for failure in failures.iter().filter(|failure| !same(failure)) {
        let name = if failure.check.is_empty() {
            format!("{} ({})", failure.title, failure.seen)
        } else {
            failure.check.clone()
        };
        if !others.contains(&name) {
            others.push(name);
        }
    }
    if !others.is_empty() {
        line(format!("      fails too: {}", others.join(", ")));
    }
}

/// Where a check failed, in words.
fn places(failures: &[&Failure], mixes: bool) -> Vec<String> {
    let files: Vec<&str> = (failures.iter())
        .filter_map(|failure| match &failure.seen_in {
            Seen::File(file) => Some(file.as_str()),
            _ => None,
        })
        .collect();
    let tree = failures.iter().any(|failure| failure.seen_in == Seen::Tree);
    let mut lines = Vec::new();
    match (files.is_empty(), tree) {
        (false, _) => lines.push(format!("in {}, with logship for all other files", files.join(" and in "))),
        (true, true) if !mixes => lines.push("in the whole tree".to_owned()),
        (true, true) => {
            lines.push("in the whole tree; each file alone, with logship for the others, passes".to_owned())
        }
        (true, false) => {}
    }
    if failures.iter().any(|failure| failure.seen_in == Seen::Valgrind) {
        lines.push("in the whole tree, under valgrind".to_owned());
    }
    lines
}
