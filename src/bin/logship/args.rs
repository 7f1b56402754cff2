//! What may be asked of the command. No work is done here.

pub(crate) mod tools;

use clap::{Args, Parser, Subcommand, value_parser};
use std::ffi::OsString;
use std::path::PathBuf;

/// The reference for the course's C files (W09 to W11), and the grader that uses it.
#[derive(Parser)]
#[command(name = "logship", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) asked: Asked,
}

#[derive(Subcommand)]
pub(crate) enum Asked {
    /// Grade students' files: each one alone with logship for the rest, then all together, then under valgrind
    Grade(Grade),
    /// Kill a follower, let it miss records, and watch it catch up
    Demo(Demo),
    /// Look at a log, find damage, and cut it back
    Wal {
        #[command(subcommand)]
        asked: tools::Wal,
    },
    /// Look at a checkpoint
    Checkpoint {
        #[command(subcommand)]
        asked: tools::Checkpoint,
    },
    /// The demo's follower
    #[command(name = "__follow", hide = true)]
    Follow(Follow),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page, or that of a subcommand
    #[command(hide = true)]
    Man { subcommand: Option<String> },
    /// Watch over one program: the other end of `sandbox`
    #[command(name = "__watch", hide = true)]
    Watch(Order),
    /// Become one program, within limits
    #[command(name = "__limited", hide = true)]
    Limited(Order),
}

/// What a result looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    Text,
    /// Everything, for programs
    Json,
    /// results.json of a Gradescope autograder
    Gradescope,
    /// Annotations of GitHub Actions
    Github,
    /// The Test Anything Protocol, version 14
    Tap,
}

const AFTER_HELP: &str = "\
A submission is a directory with the course's .c files, in w09/, w10/ and w11/ or side by side, headers of its own if it
has any, and test_harness.sh if it has one.

The exit code is 0 if every requirement that was judged passes, 1 if one fails, 2 if nothing could be graded.";

/// What `logship grade` is told.
#[derive(Args)]
#[command(arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Grade {
    /// A submission
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// Every directory in PARENT is a submission
    #[arg(long, value_name = "PARENT")]
    pub(crate) each: Vec<PathBuf>,
    /// Print JSON: the same as --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// How the result is printed
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Every failure in full, and a whole table for each of many submissions
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Print the checks: name, requirement, lesson, what it looks at
    #[arg(long)]
    pub(crate) list: bool,
    /// Only the checks of a lesson (w11-l03) or a week (w11)
    #[arg(long, value_name = "LESSON")]
    pub(crate) lesson: Option<String>,
    /// Only this check (several: name each); a requirement without checks is not judged
    #[arg(long, value_name = "CHECK")]
    pub(crate) check: Vec<String>,
    /// Submissions in a file, a line each: the directory, a tab, the checks that it is for, parted by commas
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) plan: Option<PathBuf>,
    /// So many submissions at once
    #[arg(short, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
    /// Do not judge W10-R8 and W11-R9
    #[arg(long)]
    pub(crate) no_valgrind: bool,
    /// Leave the scratch directory, and say where it is
    #[arg(long)]
    pub(crate) keep: bool,
    /// The C compiler
    #[arg(long, value_name = "CC", default_value = "gcc")]
    pub(crate) cc: String,
    /// Where logship is installed [default: where this program is]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) kit: Option<PathBuf>,
    /// The check programs [default: PREFIX/share/logship/grade/checks]
    #[arg(long, value_name = "DIR")]
    pub(crate) checks: Option<PathBuf>,
    /// The reference [default: PREFIX/lib/liblogship.a]
    #[arg(long, value_name = "FILE")]
    pub(crate) lib: Option<PathBuf>,
    /// The course's headers [default: PREFIX/include/logship]
    #[arg(long, value_name = "DIR")]
    pub(crate) include: Option<PathBuf>,
}

/// More would fill a disk to no purpose.
const MISSED: std::ops::RangeInclusive<u64> = 1..=20_000_000;

/// What `logship demo` is told.
#[derive(Args)]
pub(crate) struct Demo {
    /// So many records while the follower is away
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = value_parser!(u64).range(MISSED))]
    pub(crate) missed: u64,
}

/// Where the demo's follower keeps its log, and its leader's port.
#[derive(Args)]
pub(crate) struct Follow {
    pub(crate) home: PathBuf,
    pub(crate) port: u16,
}

/// One program and how far it may go. `sandbox` writes it, `watch` and `limited` read it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Order {
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// The process that starts this one, and with which it ends
    #[arg(long)]
    pub(crate) parent: i32,
    /// Run as this user, who is nobody else
    #[arg(long)]
    pub(crate) user: Option<u32>,
    /// With a /tmp and a network of its own
    #[arg(long)]
    pub(crate) apart: bool,
    /// Below the current directory, which is the run's
    #[arg(long)]
    pub(crate) inside: PathBuf,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Milliseconds from its start to its end
    #[arg(long)]
    pub(crate) wall_ms: u64,
    /// Seconds of processor time, of each process
    #[arg(long)]
    pub(crate) cpu_seconds: u64,
    /// Bytes that all its processes hold together
    #[arg(long)]
    pub(crate) memory: u64,
    /// Bytes of addresses, of each process; 0 is no limit, which valgrind needs
    #[arg(long)]
    pub(crate) addresses: u64,
    /// Processes at a time
    #[arg(long)]
    pub(crate) processes: u64,
    /// Bytes of a file, and four times that of all its files
    #[arg(long)]
    pub(crate) file: u64,
    /// Bytes that it may print
    #[arg(long)]
    pub(crate) output: u64,
}

impl Order {
    /// The arguments that say the same.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = self.limits.options().into_iter().map(OsString::from).collect();
        arguments.push(format!("--parent={}", self.parent).into());
        arguments.extend(self.user.map(|user| format!("--user={user}").into()));
        arguments.extend(self.apart.then(|| "--apart".into()));
        arguments.extend(["--inside".into(), self.inside.clone().into_os_string(), "--".into()]);
        arguments.extend_from_slice(&self.command);
        arguments
    }
}

impl Limits {
    /// The options that say the same.
    fn options(&self) -> Vec<String> {
        [
            ("wall-ms", self.wall_ms),
            ("cpu-seconds", self.cpu_seconds),
            ("memory", self.memory),
            ("addresses", self.addresses),
            ("processes", self.processes),
            ("file", self.file),
            ("output", self.output),
        ]
        .iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
    }
}
