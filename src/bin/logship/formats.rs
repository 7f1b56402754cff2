//! The result in the forms that courses' machines read.

use crate::judge::{Failure, Judged, Seen, Status};
use crate::report::Report;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A failure in a few lines.
fn words(row: &Judged) -> String {
    let mut text = String::new();
    if let Some(why) = &row.why {
        let _ = writeln!(text, "not judged: {why}");
    }
    for failure in &row.failures {
        let name = if failure.check.is_empty() { &failure.title } else { &failure.check };
        let place = match &failure.seen_in {
            Seen::File(file) | Seen::Build(file) => format!(" in {file}"),
            Seen::Tree => String::new(),
            Seen::Valgrind => " under valgrind".to_owned(),
            Seen::Harness => " in the submission's own harness".to_owned(),
        };
        let _ =
            writeln!(text, "{name}{place}: {}: expected {}, seen: {}", failure.what, failure.expected, failure.seen);
        let _ = writeln!(text, "  {}: {}", failure.lesson, failure.line);
    }
    text
}

/// Gradescope's results.json: a point for each requirement that was judged. It is for one submission; of several, the
/// first.
pub(crate) fn gradescope(reports: &[Report]) -> Result<String, String> {
    let Some(report) = reports.first() else { return Err("there is no submission".to_owned()) };
    let judged = report.requirements.iter().filter(|row| row.status != Status::NotJudged);
    let tests: Vec<Value> = judged
        .enumerate()
        .map(|(at, row)| {
            let passes = row.status == Status::Pass;
            json!({
                "name": format!("{} {}", row.id, row.title),
                "number": (at + 1).to_string(),
                "score": if passes { 1.0 } else { 0.0 },
                "max_score": 1.0,
                "status": if passes { "passed" } else { "failed" },
                "output": words(row),
                "output_format": "text",
                "visibility": "visible",
            })
        })
        .collect();
    let grades: Vec<String> = report.grades.iter().map(|grade| format!("{}: {}", grade.quest, grade.grade)).collect();
    let mut lines = grades;
    lines.extend(report.error.iter().map(|error| format!("not graded: {error}")));
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    let mut results = json!({
        "output": lines.join("\n"),
        "output_format": "text",
        "visibility": "visible",
        "execution_time": report.seconds.round(),
        "tests": tests,
    });
    // Without any test Gradescope wants a score.
    if report.error.is_some() {
        results["score"] = json!(0.0);
    }
    serde_json::to_string_pretty(&results).map_err(|error| error.to_string())
}

/// `::error file=...,line=...::` of GitHub Actions, a line a requirement that fails.
pub(crate) fn github(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        if let Some(error) = &report.error {
            let _ = writeln!(text, "::error title=not graded::{}", data(error));
        }
        for row in report.requirements.iter().filter(|row| row.status == Status::Fail) {
            let title = format!("{} {}", row.id, row.title);
            let place = row.failures.iter().find_map(|failure| place(report, failure));
            let place = place.map_or(String::new(), |place| format!("{place},"));
            let _ = writeln!(text, "::error {place}title={}::{}", property(&title), data(words(row).trim()));
        }
        for graded in &report.grades {
            let _ = writeln!(text, "::notice title={}::{}", property(graded.quest), data(graded.grade));
        }
    }
    text
}

/// Where the file of a failure stands, and the line, if the compiler has named one.
fn place(report: &Report, failure: &Failure) -> Option<String> {
    let (Seen::File(name) | Seen::Build(name)) = &failure.seen_in else { return None };
    let row = report.files.iter().find(|row| row.file == name)?;
    let file = property(row.place.as_ref()?);
    let line = row.line.as_ref().and_then(|line| line.split(':').nth(1)?.parse::<u32>().ok());
    Some(match line {
        Some(line) => format!("file={file},line={line}"),
        None => format!("file={file}"),
    })
}

/// What GitHub asks to be escaped in a message.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// And in a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// TAP 14: a test a requirement, with what is wrong as a YAML block.
pub(crate) fn tap(reports: &[Report]) -> String {
    let count: usize = reports.iter().map(|report| report.requirements.len().max(1)).sum();
    let mut text = format!("TAP version 14\n1..{count}\n");
    let mut number = 0;
    for report in reports {
        let name = |what: &str| {
            let whole = if reports.len() > 1 { format!("{}: {what}", report.submission) } else { what.to_owned() };
            whole.replace('\\', "\\\\").replace('#', "\\#").replace('\n', " ")
        };
        if report.requirements.is_empty() {
            number += 1;
            let why = report.error.as_deref().unwrap_or("nothing was judged");
            let _ = writeln!(text, "not ok {number} - {}", name(why));
        }
        for row in &report.requirements {
            number += 1;
            let title = name(&format!("{} {}", row.id, row.title));
            let _ = match (row.status, &row.why) {
                (Status::Pass, _) => writeln!(text, "ok {number} - {title}"),
                (Status::NotJudged, why) => {
                    writeln!(text, "ok {number} - {title} # SKIP {}", why.as_deref().unwrap_or("not judged"))
                }
                (Status::Fail, _) => {
                    let lines = words(row);
                    let _ = writeln!(text, "not ok {number} - {title}\n  ---\n  message: |");
                    for line in lines.lines() {
                        let _ = writeln!(text, "    {line}");
                    }
                    writeln!(text, "  ...")
                }
            };
        }
    }
    text
}
