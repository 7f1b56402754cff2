//! The nodes as the drill sees them: child processes that are told things and say things.

use crate::schedule::Node;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;

/// What the drill hears.
#[derive(Debug)]
pub(crate) enum Event {
    /// A line from a node's process; `life` tells it from its predecessors.
    Line { node: Node, life: u64, text: String },
    /// Its stdout is closed: it ends.
    Gone { node: Node, life: u64 },
    /// Ctrl-C, or SIGTERM.
    Interrupted,
}

/// A running node; dropping it ends it.
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) life: u64,
    child: Child,
    stdin: ChildStdin,
}

/// How to start one.
pub(crate) struct Start<'a> {
    pub(crate) node: Node,
    pub(crate) life: u64,
    /// Words before the program: how its namespace is entered.
    pub(crate) enter: Vec<String>,
    /// Its role and what that needs.
    pub(crate) arguments: Vec<String>,
    /// Where its stderr goes, behind what is there.
    pub(crate) log: &'a Path,
}

impl Process {
    /// Starts a node's process, which is this program in another role.
    pub(crate) fn start(start: Start<'_>, events: &Sender<Event>) -> Result<Process, String> {
        let Start { node, life, enter, arguments, log } = start;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let program = program.to_str().ok_or("this program's path is no text")?.to_owned();
        let words: Vec<String> = enter.into_iter().chain([program]).chain(arguments).collect();
        let stderr = OpenOptions::new().create(true).append(true).open(log).map_err(|error| error.to_string())?;
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Ctrl-C is for the drill, which ends the nodes in order.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{}: {error}", words[0]))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a child without pipes".to_owned());
        };
        let events = events.clone();
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                if events.send(Event::Line { node, life, text }).is_err() {
                    return;
                }
            }
            let _ = events.send(Event::Gone { node, life });
        });
        Ok(Process { node, life, child, stdin })
    }

    pub(crate) fn tell(&mut self, command: &str) {
        // One that is gone is noticed by its silence.
        let _ = self.stdin.write_all(format!("{command}\n").as_bytes());
    }

    pub(crate) fn stop(&self) -> Result<(), String> {
        self.signal(Signal::SIGSTOP)
    }

    pub(crate) fn go_on(&self) -> Result<(), String> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).map_err(|_| "pid")?;
        kill(Pid::from_raw(pid), signal).map_err(|errno| format!("{signal} to {}: {errno}", self.node))
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for one that ends by itself and says how it did.
    pub(crate) fn how_it_ended(mut self) -> String {
        match self.child.wait() {
            Ok(status) => match status.signal() {
                Some(signal) => format!("signal {signal}"),
                None => format!("exit code {}", status.code().unwrap_or(-1)),
            },
            Err(error) => error.to_string(),
        }
    }

    /// Open descriptors, and resident kilobytes.
    pub(crate) fn usage(&self) -> Result<Usage, String> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let read = |error: std::io::Error| format!("{}: {error}", proc.display());
        let descriptors = std::fs::read_dir(proc.join("fd")).map_err(read)?.count();
        let status = std::fs::read_to_string(proc.join("status")).map_err(read)?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kilobytes = resident.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Ok(Usage { descriptors, kilobytes })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) descriptors: usize,
    pub(crate) kilobytes: u64,
}
