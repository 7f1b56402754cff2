//! `logship grade`: the way of each submission from a directory to a report.

use crate::args::{self, Format};
use crate::build::Workshop;
use crate::checks::Check;
use crate::formats;
use crate::judge::{self, Status, Valgrind, Wanted};
use crate::kit::{self, Kit};
use crate::report::{self, Report};
use crate::sandbox::{Sandbox, in_parallel, seconds_since};
use crate::student::Submission;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};
use std::fs::Permissions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The exit code: 0 all pass, 1 some fail, 2 something could not be graded. Who asked for JSON gets JSON then too.
pub(crate) fn run(options: &args::Grade) -> Result<u8, String> {
    let done = grade_all(options);
    if let (Err(error), Format::Json) = (&done, format(options)) {
        println!("{}", report::json_error(error));
    }
    done
}

fn format(options: &args::Grade) -> Format {
    if options.json { Format::Json } else { options.format }
}

fn grade_all(options: &args::Grade) -> Result<u8, String> {
    let wanted = wanted(options)?;
    let submissions = if options.list { Vec::new() } else { submissions(options, &wanted)? };
    // Every run must be able to read what is made here; what it may not read is made so.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    // Many checks wait for a clock or a peer, so there are more than cores.
    let sandbox = Arc::new(Sandbox::new(2 * cores, options.keep)?);
    end_in_order(&sandbox)?;
    let mut scratch = tempfile::Builder::new()
        .prefix("logship-grade-")
        .permissions(Permissions::from_mode(0o711))
        .tempdir()
        .map_err(|error| format!("{}: {error}", std::env::temp_dir().display()))?;
    if options.keep {
        scratch.disable_cleanup(true);
        eprintln!("logship: the scratch directory is {}", scratch.path().display());
    }
    reachable(scratch.path())?;
    let kit = Kit::prepare(options, scratch.path(), &sandbox)?;
    if options.list {
        let text: String = kit.checks.iter().map(report::check_line).collect();
        return std::io::stdout().write_all(text.as_bytes()).map(|()| 0).map_err(|error| format!("stdout: {error}"));
    }
    known(&kit, submissions.iter().map(|(_, wanted)| wanted))?;
    let progress = Progress::new(submissions.len());
    let one_harness_at_a_time = Mutex::new(());
    let reports = in_parallel(&submissions, usize::from(options.jobs), |(directory, wanted)| {
        let begin = Instant::now();
        let told = |more: Option<usize>| match more {
            Some(count) => progress.checks_to_come(count),
            None => progress.check_done(),
        };
        let done = one(directory, scratch.path(), &sandbox, &kit, wanted, &one_harness_at_a_time, &told);
        progress.submission_done();
        let mut report = done.unwrap_or_else(|error| failed(directory, error));
        report.seconds = seconds_since(begin);
        report
    });
    progress.bar.finish_and_clear();
    if sandbox.is_cancelled() {
        return Err("interrupted".to_owned());
    }
    let text = match format(options) {
        Format::Json => report::json(&reports)? + "\n",
        Format::Text if reports.len() > 1 && !options.verbose => reports.iter().map(report::one_line).collect(),
        Format::Text => {
            reports.iter().map(|report| report::table(report, options.verbose)).collect::<Vec<_>>().join("\n")
        }
        Format::Gradescope => formats::gradescope(&reports)? + "\n",
        Format::Github => formats::github(&reports),
        Format::Tap => formats::tap(&reports),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("stdout: {error}"))?;
    Ok(if reports.iter().any(|report| report.error.is_some()) {
        2
    } else {
        u8::from(!reports.iter().all(|report| report.passed))
    })
}

/// The directories, in the order in which they were named, those of a parent by name, and what is wanted of each.
fn submissions(options: &args::Grade, wanted: &Wanted) -> Result<Vec<(PathBuf, Wanted)>, String> {
    let mut directories = options.dirs.clone();
    for parent in &options.each {
        let entries = std::fs::read_dir(parent).map_err(kit::io(parent))?;
        let mut below: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        below.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
        below.sort();
        directories.extend(below);
    }
    let mut submissions: Vec<(PathBuf, Wanted)> =
        directories.into_iter().map(|directory| (directory, wanted.clone())).collect();
    if let Some(plan) = &options.plan {
        for line in std::fs::read_to_string(plan).map_err(kit::io(plan))?.lines() {
            let (directory, checks) = line.split_once('\t').ok_or("a line of the plan has no tab")?;
            let checks = checks.split(',').map(str::to_owned).collect();
            submissions.push((directory.into(), Wanted { checks, ..wanted.clone() }));
        }
    }
    if submissions.is_empty() {
        return Err("no submission was named: logship grade DIR".to_owned());
    }
    // One that is not there does not stop the others.
    match submissions.iter().all(|(directory, _)| !directory.is_dir()).then(|| &submissions[0].0) {
        Some(wrong) => Err(no_directory(wrong)),
        None => Ok(submissions),
    }
}

fn no_directory(wrong: &Path) -> String {
    format!("{}: no such directory", wrong.display())
}

/// As root every run is another user, who must get at the scratch directory.
fn reachable(scratch: &Path) -> Result<(), String> {
    let is_closed = |path: &&Path| path.metadata().is_ok_and(|data| data.permissions().mode() & 1 == 0);
    match scratch.ancestors().find(is_closed).filter(|_| nix::unistd::geteuid().is_root()) {
        Some(closed) => Err(format!("{}: other users may not enter it; TMPDIR says where else", closed.display())),
        None => Ok(()),
    }
}

/// Does the kit have what is wanted?
fn known<'a>(kit: &Kit, wanted: impl Iterator<Item = &'a Wanted>) -> Result<(), String> {
    for wanted in wanted {
        let of_lesson = |check: &&Check| wanted.has(&check.lesson);
        if let (None, Some(lesson)) = (kit.checks.iter().find(of_lesson), &wanted.lesson) {
            return Err(format!("--lesson {lesson}: the kit has no check of it"));
        }
        if let Some(unknown) = wanted.checks.iter().find(|id| !kit.checks.iter().any(|check| check.id == **id)) {
            return Err(format!("the kit has no check {unknown}"));
        }
    }
    Ok(())
}

fn wanted(options: &args::Grade) -> Result<Wanted, String> {
    let valgrind = if options.no_valgrind {
        Valgrind::LeaveOut
    } else if kit::is_there("valgrind") {
        Valgrind::Use
    } else {
        Valgrind::Missing
    };
    if valgrind == Valgrind::Missing {
        eprintln!("logship: valgrind is missing, so W10-R8 and W11-R9 are not judged: apt-get install valgrind");
    }
    Ok(Wanted {
        lesson: options.lesson.as_ref().map(|lesson| lesson.to_lowercase()),
        checks: options.check.clone(),
        valgrind,
    })
}

/// One submission.
fn one(
    from: &Path,
    scratch: &Path,
    sandbox: &Sandbox,
    kit: &Kit,
    wanted: &Wanted,
    one_harness_at_a_time: &Mutex<()>,
    progress: &(dyn Fn(Option<usize>) + Sync),
) -> Result<Report, String> {
    let mut directory = tempfile::Builder::new()
        .prefix("submission-")
        .permissions(Permissions::from_mode(0o711))
        .tempdir_in(scratch)
        .map_err(|error| error.to_string())?;
    directory.disable_cleanup(sandbox.keep);
    if !from.is_dir() {
        return Err(no_directory(from));
    }
    let submission = Submission::copy(from, directory.path().join("source"))?;
    let shop = Workshop { sandbox, kit, submission: &submission, directory: directory.path() };
    let built = shop.build()?;
    let (requirements, repeated) = judge::judge(&shop, &built, wanted, one_harness_at_a_time, progress);
    let grades = judge::grades(&requirements, wanted);
    let files = report::file_rows(&built, wanted.lesson.as_deref().and_then(|lesson| lesson.split('-').next()));
    let missing_valgrind = wanted.valgrind == Valgrind::Missing;
    let passes = |status: Status| status == Status::Pass || (status == Status::NotJudged && !missing_valgrind);
    let passed = requirements.iter().all(|row| passes(row.status)) && !files.iter().any(report::FileRow::warns);
    let notes = built.notes.iter().chain(&repeated).cloned().collect();
    let submission = from.display().to_string();
    Ok(Report { submission, error: None, files, notes, requirements, grades, passed, seconds: 0.0 })
}

fn failed(directory: &Path, error: String) -> Report {
    Report {
        submission: directory.display().to_string(),
        error: Some(error),
        files: Vec::new(),
        notes: Vec::new(),
        requirements: Vec::new(),
        grades: Vec::new(),
        passed: false,
        seconds: 0.0,
    }
}

/// A bar, on a terminal only: of one submission's checks, or of many submissions. How many checks all of those have is
/// known late, and a bar must not go back.
struct Progress {
    bar: ProgressBar,
    many: bool,
    checks: AtomicU64,
}

impl Progress {
    fn new(submissions: usize) -> Self {
        let many = submissions > 1;
        let (len, of) = if many { (submissions, "submissions, {msg} checks") } else { (0, "checks") };
        let checks = AtomicU64::new(0);
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), many, checks };
        }
        let len = u64::try_from(len).unwrap_or(0);
        let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr()).with_message("0");
        if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {of}, {{elapsed}}")) {
            bar.set_style(style);
        }
        bar.tick();
        Self { bar, many, checks }
    }

    fn checks_to_come(&self, count: usize) {
        if !self.many {
            self.bar.inc_length(u64::try_from(count).unwrap_or(0));
        }
    }

    fn check_done(&self) {
        let count = self.checks.fetch_add(1, Ordering::Relaxed) + 1;
        if self.many {
            self.bar.set_message(count.to_string());
        } else {
            self.bar.inc(1);
        }
    }

    fn submission_done(&self) {
        if self.many {
            self.bar.inc(1);
        }
    }
}

/// Ctrl-C ends what runs and lets nothing begin; then the ordinary way out removes the scratch directory.
fn end_in_order(sandbox: &Arc<Sandbox>) -> Result<(), String> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Before any other thread is there, so that all have it.
    signals.thread_block().map_err(|errno| errno.to_string())?;
    let sandbox = Arc::clone(sandbox);
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            sandbox.cancel();
        }
    });
    Ok(())
}
