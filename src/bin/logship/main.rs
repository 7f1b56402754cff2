//! The command `logship`. Its one subcommand for people is `grade`: the checks of the lessons on a student's files, one
//! by one against the reference and all together. docs/grading.md says how to use it. `demo` shows a catch-up.
//!
//! From top to bottom: `args` says what may be asked; `grade` leads a submission through `student` (its files),
//! `shape` (how it reads what the lessons leave open), `build` (objects and programs) and `judge` (checks,
//! requirements, grades) to `report`. Everything that runs, gcc included, goes through `sandbox`, which starts this
//! same program again as `watch` and `limited`.
#![forbid(unsafe_code)]

mod args;
mod build;
mod checkpoint;
mod checks;
mod course;
mod demo;
mod extras;
mod formats;
mod grade;
mod judge;
mod kit;
mod limited;
mod processes;
mod report;
mod sandbox;
mod shape;
mod student;
mod text;
mod verdict;
mod wal;
mod watch;

use args::{Asked, Cli};
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Cli::parse().asked {
        Asked::Grade(options) => grade::run(&options),
        Asked::Demo(options) => demo::run(&options),
        Asked::Follow(options) => demo::follow(&options),
        Asked::Wal { asked } => wal::run(&asked),
        Asked::Checkpoint { asked } => checkpoint::run(&asked),
        Asked::Completions { shell } => extras::completions(shell).map(|()| 0),
        Asked::Man { subcommand } => extras::man(subcommand.as_deref()).map(|()| 0),
        Asked::Watch(order) => watch::run(&order).map(|()| 0),
        Asked::Limited(order) => Err(limited::run(&order)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("logship: {error}");
            ExitCode::from(2)
        }
    }
}
