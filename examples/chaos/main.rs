//! The chaos drill: one leader and three followers as processes, a writer, and a seeded schedule of faults. At the end
//! all heals, and every acknowledged write must be everywhere. `make chaos SECONDS=60 SEED=1`; see docs/chaos.md.
//!
//! This program is the drill, and in another role each of its nodes.
#![forbid(unsafe_code)]

mod audit;
mod disk;
mod drill;
mod follower;
mod foreign;
mod leader;
mod ledger;
mod network;
mod nodes;
mod role;
mod schedule;
mod setup;
mod tally;
mod tool;
mod verdict;

use drill::{Ending, Plan};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: chaos [--seconds N] [--seed N] [--local] [--keep]
  --local  no network namespaces and no small disks, as if not root
  --keep   keep the nodes' files and logs also if all is well";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["leader", rest @ ..] => lead(rest).map(|()| Ending::Well),
        ["follower", rest @ ..] => follow(rest).map(|()| Ending::Well),
        options => plan(options).and_then(|plan| drill::run(&plan)),
    };
    match done {
        Ok(Ending::Well) => ExitCode::SUCCESS,
        Ok(Ending::Wrong) => ExitCode::from(1),
        Ok(Ending::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::from(2)
        }
    }
}

fn plan(options: &[&str]) -> Result<Plan, String> {
    let mut plan = Plan { seconds: 60, seed: 1, local: false, keep: false };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut number = || options.next().and_then(|text| text.parse().ok()).ok_or_else(|| USAGE.to_owned());
        match *option {
            "--seconds" => plan.seconds = number()?,
            "--seed" => plan.seed = number()?,
            "--local" => plan.local = true,
            "--keep" => plan.keep = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(plan)
}

fn lead(arguments: &[&str]) -> Result<(), String> {
    let [parent, begun, directory, address, ledger, host, seed, life] = arguments else { return Err(USAGE.to_owned()) };
    let (Ok(seed), Ok(life)) = (seed.parse(), life.parse()) else { return Err(USAGE.to_owned()) };
    let place = leader::Place {
        directory: PathBuf::from(directory),
        address: PathBuf::from(address),
        ledger: PathBuf::from(ledger),
        host: (*host).to_owned(),
    };
    let commands = role::begin(parent, begun)?;
    leader::run(&place, seed, life, &commands)
}

fn follow(arguments: &[&str]) -> Result<(), String> {
    let [parent, begun, directory, address, node] = arguments else { return Err(USAGE.to_owned()) };
    let node = node.parse().map_err(|_| USAGE.to_owned())?;
    let commands = role::begin(parent, begun)?;
    follower::run(Path::new(directory), Path::new(address), node, &commands)
}
