//! Which processes descend from one, and how to end them all.
//!
//! The watcher is a subreaper: a process whose parent has ended becomes the watcher's child, whatever session or group
//! it went to, so what /proc says of parents leads to every one. (Looked up in all of /proc: not every kernel lists
//! children.)

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getppid};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;

/// Has the kernel send `signal` to this process when its parent ends. The parent must be `parent`: one that has ended
/// before this call would never be noticed.
pub(crate) fn end_with(parent: i32, signal: Signal) -> Result<(), String> {
    prctl::set_pdeathsig(signal).map_err(|errno| format!("pdeathsig: {errno}"))?;
    if getppid().as_raw() == parent { Ok(()) } else { Err(format!("process {parent}, which began this, is gone")) }
}

/// A line of /proc.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    parent: i32,
    threads: u64,
    /// Bytes that it holds.
    pub(crate) resident: u64,
    user: u32,
}

/// From /proc/PID/stat. The name in parentheses may hold anything, so reading begins behind the last one.
fn parse(pid: i32, user: u32, stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let page = 4096; // x86-64 has no other.
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
        resident: fields.get(21)?.parse::<u64>().ok()?.saturating_mul(page),
        user,
    })
}

fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let read = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let user = entry.metadata().ok()?.uid();
        parse(pid, user, &std::fs::read_to_string(entry.path().join("stat")).ok()?)
    };
    entries.flatten().filter_map(read).collect()
}

/// Those that descend from this process, as far as one look shows: who is born meanwhile is seen by the next look.
pub(crate) fn descendants() -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<Process> = children.remove(&Pid::this().as_raw()).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children.remove(&process.pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// How many processes and threads a user has.
pub(crate) fn tasks_of(user: u32) -> u64 {
    all().iter().filter(|process| process.user == user).map(|process| process.threads).sum()
}

/// Takes what has ended off the kernel's list; how `main` did, if it was among them.
pub(crate) fn reap(main: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        match status.pid() {
            None => break,
            Some(pid) if pid == main => ended = Some(status),
            Some(_) => {}
        }
    }
    ended
}

/// Ends every descendant and waits for it. All are stopped first: a process that is stopped forks no more, so each look
/// has fewer that can, and the limit on their number does the rest.
pub(crate) fn end_all(main: Pid) -> Option<WaitStatus> {
    let mut status = None;
    loop {
        status = reap(main).or(status);
        if waitid(Id::All, WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::ECHILD) {
            return status;
        }
        let mut stopped: Vec<i32> = Vec::new();
        loop {
            let new: Vec<i32> =
                descendants().iter().map(|process| process.pid).filter(|pid| !stopped.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            signal(&new, Signal::SIGSTOP);
            stopped.extend(new);
        }
        signal(&stopped, Signal::SIGKILL);
        // Whoever is left is a child of this process by now or soon: wait for one without taking it.
        let _ = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    }
}

fn signal(pids: &[i32], signal: Signal) {
    for pid in pids {
        // One that has ended meanwhile is what is wanted.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a ) R 1 (b) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 100 2000 11 18446744073709551615";
        let process = parse(7, 0, stat).unwrap();
        assert_eq!((process.parent, process.threads, process.resident), (3, 9, 11 * 4096));
    }

    #[test]
    fn this_process_counts_among_its_users() {
        assert!(tasks_of(nix::unistd::getuid().as_raw()) >= 1);
    }
}
