//! From runs of checks to requirements, and from requirements to a grade.

use crate::build::{Built, Mode, NotLinked, Unit, Workshop};
use crate::checks::Check;
use crate::course::{self, Quest};
use crate::kit::{State, words};
use crate::sandbox::{End, MIB, Outcome, in_parallel, limits};
use crate::student::copy_again;
use crate::verdict::{Verdict, last_line};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// A lesson or a week; all if there is none.
    pub(crate) lesson: Option<String>,
    /// Some checks by name; all if there is none.
    pub(crate) checks: Vec<String>,
    pub(crate) valgrind: Valgrind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Valgrind {
    Use,
    /// --no-valgrind
    LeaveOut,
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Pass,
    Fail,
    NotJudged,
}

/// How the submission was put together when it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Seen {
    /// This file and logship for the rest.
    File(String),
    /// All of its files.
    Tree,
    /// All of its files, under valgrind.
    Valgrind,
    /// Its own test_harness.sh.
    Harness,
    /// Before anything ran.
    Build(String),
}

/// One failure; a check may have several.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    /// Empty if no check was reached.
    pub(crate) check: String,
    pub(crate) title: String,
    pub(crate) lesson: String,
    /// What the lesson says.
    pub(crate) line: String,
    pub(crate) seen_in: Seen,
    pub(crate) what: String,
    pub(crate) expected: String,
    pub(crate) seen: String,
}

/// A requirement's row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Judged {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) status: Status,
    /// How many checks decided it.
    pub(crate) checks: usize,
    pub(crate) failures: Vec<Failure>,
    /// Why it was not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// A quest's grade.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Graded {
    pub(crate) quest: &'static str,
    pub(crate) grade: &'static str,
    /// What the next grade lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lacks: Option<String>,
}

impl Wanted {
    pub(crate) fn has(&self, lesson: &str) -> bool {
        self.lesson.as_ref().is_none_or(|wanted| lesson == wanted || lesson.split('-').next() == Some(wanted))
    }

    fn has_check(&self, check: &Check) -> bool {
        self.has(&check.lesson) && (self.checks.is_empty() || self.checks.contains(&check.id))
    }

    /// Is all of the week asked for?
    fn has_week(&self, week: &str) -> bool {
        self.lesson.as_ref().is_none_or(|wanted| wanted == week) && self.checks.is_empty()
    }
}

/// One thing to run.
#[derive(Clone, Debug)]
enum Task {
    Check { check: usize, mode: Mode },
    Valgrind { check: usize, requirement: &'static str },
    Harness { requirement: &'static str, lesson: &'static str, script: PathBuf },
}

type Programs = BTreeMap<(usize, Option<usize>), Result<PathBuf, NotLinked>>;

/// Which key a program has in [`Programs`].
fn key(program: usize, mode: Mode) -> (usize, Option<usize>) {
    match mode {
        Mode::File(unit) => (program, Some(unit)),
        Mode::Tree => (program, None),
    }
}

/// Runs everything that is wanted and says what it came to, a row a requirement. `progress` is told of the number of
/// runs to come, and then of each that is done. Besides: notes.
pub(crate) fn judge(
    shop: &Workshop<'_>,
    built: &Built,
    wanted: &Wanted,
    one_harness_at_a_time: &Mutex<()>,
    progress: &(dyn Fn(Option<usize>) + Sync),
) -> (Vec<Judged>, Vec<String>) {
    let mut done = run_all(shop, built, tasks(shop, built, wanted), one_harness_at_a_time, progress);
    let mut notes = again(shop, built, &mut done, one_harness_at_a_time, progress);
    // The whole tree is judged: what its files agree on among themselves is their own affair. Where it fails, each file
    // alone may show which one it is, if logship's others understand it.
    if built.shape.mixes() {
        let blamed: Vec<Task> = done
            .iter()
            .filter_map(|(task, verdict)| match task {
                Task::Check { check, mode: Mode::Tree } if matches!(verdict, Verdict::Fail { .. }) => Some(*check),
                _ => None,
            })
            .flat_map(|check| alone(built, check, &shop.kit.checks[check]))
            .collect();
        done.extend(run_all(shop, built, blamed, one_harness_at_a_time, progress));
    }
    notes.extend(built.observations());
    let rows = course::REQUIREMENTS.iter().filter_map(|requirement| row(requirement, shop, built, wanted, &done));
    (rows.collect(), notes)
}

/// A few failures among many passes may be the machine's, which has too much to do for a check that looks at the clock.
/// They are run again, and a note says which passed the second time.
fn again(
    shop: &Workshop<'_>,
    built: &Built,
    done: &mut [(Task, Verdict)],
    one_harness_at_a_time: &Mutex<()>,
    progress: &(dyn Fn(Option<usize>) + Sync),
) -> Vec<String> {
    const A_FEW: usize = 4;
    let failed = |(_, (task, verdict)): &(usize, &(Task, Verdict))| {
        *verdict != Verdict::Pass && !matches!(task, Task::Harness { .. })
    };
    let failures: Vec<usize> = done.iter().enumerate().filter(failed).map(|(at, _)| at).collect();
    if failures.len() > A_FEW || failures.len() * 8 > done.len() {
        return Vec::new();
    }
    let tasks: Vec<Task> = failures.iter().map(|at| done[*at].0.clone()).collect();
    let mut notes = Vec::new();
    for (at, (task, verdict)) in failures.into_iter().zip(run_all(shop, built, tasks, one_harness_at_a_time, progress))
    {
        if let (Task::Check { check, .. } | Task::Valgrind { check, .. }, Verdict::Pass) = (task, &verdict) {
            notes.push(format!("{} failed once and passed when it was run again", shop.kit.checks[check].id));
            done[at].1 = verdict;
        }
    }
    notes
}

/// A check on each of its files, with logship for the rest.
fn alone(built: &Built, at: usize, check: &Check) -> Vec<Task> {
    let judges = |unit: &Unit| unit.object.is_some() && check.files.iter().any(|name| name == unit.file.name);
    let units = built.units.iter().enumerate().filter(|(_, unit)| judges(unit));
    units.map(|(unit, _)| Task::Check { check: at, mode: Mode::File(unit) }).collect()
}

/// Links what is needed and runs it.
fn run_all(
    shop: &Workshop<'_>,
    built: &Built,
    tasks: Vec<Task>,
    one_harness_at_a_time: &Mutex<()>,
    progress: &(dyn Fn(Option<usize>) + Sync),
) -> Vec<(Task, Verdict)> {
    let checks = &shop.kit.checks;
    progress(Some(tasks.len()));
    let mut needed: Vec<(usize, Mode)> = Vec::new();
    for task in &tasks {
        let (check, mode) = match task {
            Task::Check { check, mode } => (*check, *mode),
            Task::Valgrind { check, .. } => (*check, Mode::Tree),
            Task::Harness { .. } => continue,
        };
        let Some(check) = checks.get(check) else { continue };
        if !needed.contains(&(check.program, mode)) {
            needed.push((check.program, mode));
        }
    }
    let linked = in_parallel(&needed, shop.sandbox.size, |(program, mode)| shop.link(built, *program, *mode));
    let programs: Programs = needed.iter().map(|(program, mode)| key(*program, *mode)).zip(linked).collect();
    let verdicts = in_parallel(&tasks, shop.sandbox.size, |task| {
        let verdict = match task {
            Task::Check { check, mode } => run_check(shop, built, &checks[*check], *mode, &programs, false),
            Task::Valgrind { check, .. } => run_check(shop, built, &checks[*check], Mode::Tree, &programs, true),
            Task::Harness { script, .. } => {
                // Its ports and its names in /tmp are its author's choice.
                let _alone = one_harness_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
                run_harness(shop, script)
            }
        };
        progress(None);
        verdict
    });
    tasks.into_iter().zip(verdicts).collect()
}

/// The longest first, so that none of them is left alone at the end.
fn tasks(shop: &Workshop<'_>, built: &Built, wanted: &Wanted) -> Vec<Task> {
    let has_object = |name: &str| built.units.iter().any(|unit| unit.file.name == name && unit.object.is_some());
    let (mut tasks, mut after) = (Vec::new(), Vec::new());
    for (at, check) in shop.kit.checks.iter().enumerate().filter(|(_, check)| wanted.has_check(check)) {
        if !check.files.iter().any(|name| has_object(name)) {
            continue;
        }
        after.push(Task::Check { check: at, mode: Mode::Tree });
        let under = (course::UNDER_VALGRIND.iter())
            .find(|(requirement, harness)| check.requirement == *harness || check.requirement == *requirement);
        if let (Some((requirement, _)), Valgrind::Use) = (under, wanted.valgrind) {
            tasks.push(Task::Valgrind { check: at, requirement });
        }
    }
    for (requirement, lesson) in course::OWN_HARNESS {
        let week = lesson.split('-').next().unwrap_or(lesson);
        if let Some(script) = shop.submission.harness(week).filter(|_| wanted.has(lesson) && wanted.checks.is_empty()) {
            tasks.push(Task::Harness { requirement, lesson, script });
        }
    }
    tasks.extend(after);
    tasks
}

fn run_check(
    shop: &Workshop<'_>,
    built: &Built,
    check: &Check,
    mode: Mode,
    programs: &Programs,
    valgrind: bool,
) -> Verdict {
    let program = match programs.get(&key(check.program, mode)) {
        Some(Ok(program)) => program,
        Some(Err(NotLinked::Fails(line))) => return Verdict::fail("linking", "it links", line.as_str()),
        Some(Err(NotLinked::Open(why))) => return Verdict::Open(why.clone()),
        None => return Verdict::fail("linking", "it links", "no program was made"),
    };
    let lost = |why: String| Verdict::fail("the kit", "it runs the check", why);
    let room = match shop.sandbox.room(shop.directory) {
        Ok(room) => room,
        Err(why) => return lost(why),
    };
    // A second name in the run's directory: its own path may be behind the run's own /tmp.
    if let Err(error) = fs::hard_link(program, room.path("program")) {
        return lost(format!("{}: {error}", program.display()));
    }
    let mut bounds = limits(check.time);
    let mut command: Vec<OsString> = Vec::new();
    if valgrind {
        bounds = limits(check.time * 10);
        bounds.addresses = 0;
        bounds.memory = 2048 * MIB;
        command.extend(words([
            "valgrind",
            "-q",
            "--vgdb=no",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite,indirect,possible",
            "--error-exitcode=99",
            "--trace-children=yes",
            "--log-file=../result/valgrind.%p",
        ]));
    }
    command.extend(["../program".into(), check.id.clone().into()]);
    let word = shop.kit.new_word();
    let result = format!("../result/verdict {word}");
    let environment = [("LOGSHIP_RESULT", result.as_str()), ("LOGSHIP_SHAPE", built.shape.words.as_str())];
    let environment = if mode == Mode::Tree { &environment[..] } else { &environment[..1] };
    let outcome = room.run(&command, environment, "work", bounds, true);
    let written = room.take("result/verdict").unwrap_or_default();
    let written = String::from_utf8_lossy(&written);
    if mode == Mode::Tree {
        built.observe(written.lines().filter_map(|line| line.strip_prefix("NOTE\t")));
    }
    let verdict = Verdict::of(&written, &word, &outcome, &bounds);
    if !valgrind {
        return verdict;
    }
    let mut logs: Vec<String> = Vec::new();
    for entry in fs::read_dir(room.path("result")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("valgrind.") {
            let bytes = room.take(&format!("result/{name}")).unwrap_or_default();
            logs.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    verdict.under_valgrind(&logs)
}

/// The submission's own script, in a copy of the submission.
fn run_harness(shop: &Workshop<'_>, script: &Path) -> Verdict {
    const EXPECTED: &str = "exit code 0 and the line 6/6 tests passed";
    let what = format!("the submission's own {}", script.display());
    let room = match shop.sandbox.room(shop.directory) {
        Ok(room) => room,
        Err(why) => return Verdict::fail("the kit", "it runs the harness", why),
    };
    let copied = copy_again(&shop.submission.source, &room.path("work"), &|path| room.give(path));
    if let Err(error) = copied {
        return Verdict::fail("the kit", "it copies the submission", error.to_string());
    }
    let mut bounds = limits(Duration::from_secs(120));
    (bounds.memory, bounds.addresses) = (2048 * MIB, 4096 * MIB);
    let place = Path::new("work").join(script.parent().unwrap_or(Path::new("")));
    let command = words(["bash", "./test_harness.sh"]);
    let outcome = room.run(&command, &[], &place.to_string_lossy(), bounds, true);
    harness_verdict(&what, EXPECTED, &outcome, &outcome.end.words(&bounds))
}

fn harness_verdict(what: &str, expected: &str, outcome: &Outcome, how: &str) -> Verdict {
    let says_so = outcome.output.contains("6/6 tests passed");
    match (&outcome.end, says_so) {
        (End::Exit(0), true) => Verdict::Pass,
        (end, _) => {
            let last = last_line(&outcome.output).unwrap_or_else(|| "there is none".to_owned());
            let how = if *end == End::Exit(0) { "exit code 0" } else { how };
            Verdict::fail(what, expected, format!("{how}; its last line: {last}"))
        }
    }
}

/// A requirement's row; none if nothing of it is wanted.
fn row(
    requirement: &'static course::Requirement,
    shop: &Workshop<'_>,
    built: &Built,
    wanted: &Wanted,
    done: &[(Task, Verdict)],
) -> Option<Judged> {
    let all = &shop.kit.checks;
    let of_it = |check: &&Check| check.requirement == requirement.id && wanted.has_check(check);
    let checks: Vec<&Check> = all.iter().filter(of_it).collect();
    let mut judged = Judged {
        id: requirement.id,
        title: requirement.title,
        status: Status::Pass,
        checks: 0,
        failures: vec![],
        why: None,
    };
    judged.checks = checks.len();
    let (mut ran, mut under_valgrind, mut open) = (0, 0, None);
    for (task, verdict) in done {
        let (check, seen_in) = match task {
            Task::Check { check, mode } if all[*check].requirement == requirement.id => {
                (all.get(*check), place(built, *mode))
            }
            Task::Valgrind { check, requirement: decided } if *decided == requirement.id => {
                under_valgrind += 1;
                (all.get(*check), Seen::Valgrind)
            }
            Task::Harness { requirement: decided, .. } if *decided == requirement.id => (None, Seen::Harness),
            _ => continue,
        };
        ran += 1;
        if let Verdict::Open(why) = verdict {
            open = open.or(Some(why.clone()));
        }
        if let Verdict::Fail { what, expected, seen } = verdict {
            let lesson = match task {
                Task::Harness { lesson, .. } => *lesson,
                _ => check.map_or("", |check| &check.lesson),
            };
            judged.failures.push(Failure {
                check: check.map_or(String::new(), |check| check.id.clone()),
                title: check.map_or("the submission's own harness", |check| &check.title).to_owned(),
                lesson: lesson.to_owned(),
                line: check.map_or("the harness runs all six tests and ends with 6/6", |check| &check.line).to_owned(),
                seen_in,
                what: what.clone(),
                expected: expected.clone(),
                seen: seen.clone(),
            });
        }
    }
    judged.checks += under_valgrind;
    // What fails in a file of its own comes before what fails with it.
    let alone: Vec<String> = (judged.failures.iter())
        .filter(|failure| matches!(failure.seen_in, Seen::File(_)))
        .map(|failure| failure.check.clone())
        .collect();
    judged.failures.sort_by_key(|failure| !alone.contains(&failure.check));
    let mut before = build_failures(requirement.id, &checks, built);
    before.append(&mut judged.failures);
    judged.failures = before;

    // The two requirements that take valgrind are not judged by other checks alone.
    let by_valgrind = course::UNDER_VALGRIND.iter().find(|(id, _)| *id == requirement.id);
    let why = match (by_valgrind, checks.first()) {
        (Some((_, harness)), _) if under_valgrind == 0 => match wanted.valgrind {
            Valgrind::LeaveOut => "valgrind was left out".to_owned(),
            Valgrind::Missing => "valgrind is missing: apt-get install valgrind".to_owned(),
            Valgrind::Use => format!("no check of {harness} could run"),
        },
        (_, Some(check)) if ran == 0 => format!("{} is not there: logship's stands in", check.files.join(", ")),
        (_, None) if ran == 0 => "the kit has no check of it".to_owned(),
        _ => open.unwrap_or_default(),
    };
    if !judged.failures.is_empty() {
        judged.status = Status::Fail;
    } else if !why.is_empty() {
        (judged.status, judged.why) = (Status::NotJudged, Some(why));
    }
    let is_wanted = |id: &str| all.iter().any(|check| check.requirement == id && wanted.has_check(check));
    let shown = judged.status != Status::NotJudged
        || wanted.has_week(&requirement.id[..3].to_lowercase())
        || is_wanted(requirement.id)
        || by_valgrind.is_some_and(|(_, harness)| is_wanted(harness));
    shown.then_some(judged)
}

fn place(built: &Built, mode: Mode) -> Seen {
    match mode {
        Mode::Tree => Seen::Tree,
        Mode::File(unit) => Seen::File(built.units.get(unit).map_or("", |unit| unit.file.name).to_owned()),
    }
}

/// Files that a requirement's checks judge and that are missing, do not compile, or lack a function. The store belongs
/// to no quest: whoever hands in W10 alone has logship's.
fn build_failures(requirement: &str, checks: &[&Check], built: &Built) -> Vec<Failure> {
    let mut failures = Vec::new();
    let judges = |unit: &&Unit| checks.iter().any(|check| check.files.iter().any(|name| name == unit.file.name));
    for unit in built.units.iter().filter(judges) {
        if unit.file.week == "w09" && (requirement != "W09" || matches!(unit.state, State::Missing)) {
            continue;
        }
        let name = unit.file.name;
        let mut push = |expected: String, seen: String| {
            failures.push(Failure {
                check: String::new(),
                title: format!("the file {name}"),
                lesson: unit.file.week.to_owned(),
                line: format!("{}/{name} is one of the course's files", unit.file.week),
                seen_in: Seen::Build(name.to_owned()),
                what: name.to_owned(),
                expected,
                seen,
            });
        };
        match &unit.state {
            State::Missing => push("it is there".to_owned(), "it is missing".to_owned()),
            State::Fails(line) => push("it compiles".to_owned(), line.clone()),
            State::Warns(_) | State::Compiles => {}
        }
        for function in &unit.lacks {
            push(format!("it defines {function}"), "no file of the submission does".to_owned());
        }
    }
    failures
}

/// The grade of each quest that is wanted as a whole.
pub(crate) fn grades(rows: &[Judged], wanted: &Wanted) -> Vec<Graded> {
    let whole = |quest: &&Quest| wanted.has_week(&quest.name.to_lowercase());
    course::QUESTS.iter().filter(whole).map(|quest| grade(quest, rows)).collect()
}

fn grade(quest: &Quest, rows: &[Judged]) -> Graded {
    let mut reached = "not yet";
    for (grade, needs) in &quest.grades {
        let open: Vec<String> = needs
            .iter()
            .filter_map(|id| match rows.iter().find(|row| row.id == *id).map(|row| row.status) {
                Some(Status::Pass) => None,
                Some(Status::Fail) => Some((*id).to_owned()),
                Some(Status::NotJudged) | None => Some(format!("{id} (not judged)")),
            })
            .collect();
        if !open.is_empty() {
            let lacks = format!("{grade} takes {}", open.join(", "));
            return Graded { quest: quest.name, grade: reached, lacks: Some(lacks) };
        }
        reached = grade;
    }
    Graded { quest: quest.name, grade: reached, lacks: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: impl Fn(&str) -> Status) -> Vec<Judged> {
        let row = |requirement: &course::Requirement| Judged {
            id: requirement.id,
            title: requirement.title,
            status: of(requirement.id),
            checks: 1,
            failures: Vec::new(),
            why: None,
        };
        course::REQUIREMENTS.iter().map(row).collect()
    }

    fn w10(of: impl Fn(&str) -> Status) -> &'static str {
        let wanted = Wanted { lesson: Some("w10".to_owned()), checks: vec![], valgrind: Valgrind::Use };
        let grades = grades(&rows(of), &wanted);
        assert_eq!(grades.len(), 1);
        grades[0].grade
    }

    #[test]
    fn a_grade_takes_its_requirements_and_those_of_the_grade_before() {
        let fails =
            |failing: &'static [&str]| move |id: &str| if failing.contains(&id) { Status::Fail } else { Status::Pass };
        assert_eq!(w10(fails(&[])), "Distinction");
        assert_eq!(w10(fails(&["W10-R7"])), "Merit");
        assert_eq!(w10(fails(&["W10-R5"])), "Pass");
        assert_eq!(w10(fails(&["W10-R2"])), "not yet");
        assert_eq!(w10(fails(&["W10-R3", "W10-R8"])), "not yet");
        assert_eq!(w10(fails(&["W11-R1", "W09"])), "Distinction");
        assert_eq!(w10(|id| if id == "W10-R8" { Status::NotJudged } else { Status::Pass }), "Merit");
    }

    #[test]
    fn a_lesson_is_in_its_week() {
        let wanted = |lesson: &str| Wanted { lesson: Some(lesson.to_owned()), checks: vec![], valgrind: Valgrind::Use };
        assert!(wanted("w11").has("w11-l03") && wanted("w11-l03").has("w11-l03"));
        assert!(!wanted("w11-l03").has("w11-l02") && !wanted("w10").has("w11-l03") && !wanted("w1").has("w11-l03"));
    }
}
