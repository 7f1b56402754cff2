//! The process that stands between the grader and one program: reads what it prints, counts its processes, looks at the
//! clock, and ends all of them, whatever happens. It is a process so that orphans become its children and no others'.
//!
//! Its stdout is for `sandbox`: a line that says how it ended, then what the program printed.

use crate::args::Order;
use crate::processes::{self, Process};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::io::{PipeReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// So much of what is printed is kept.
const KEPT: usize = 64 << 10;
/// How often processes are counted.
const TICK: Duration = Duration::from_millis(50);

/// Why the program ends before its time.
enum Stopped {
    Deadline,
    Processes,
    Memory,
    Files,
    Output,
    Cancelled,
}

impl Stopped {
    fn word(&self) -> &'static str {
        match self {
            Stopped::Deadline => "deadline",
            Stopped::Processes => "processes",
            Stopped::Memory => "memory",
            Stopped::Files => "files",
            Stopped::Output => "output",
            Stopped::Cancelled => "cancelled",
        }
    }
}

/// What the program has printed so far.
struct Printed {
    pipe: PipeReader,
    kept: Vec<u8>,
    count: u64,
    open: bool,
}

impl Printed {
    /// Reads what is there; poll(2) has said that something is.
    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        match self.pipe.read(&mut buffer) {
            Ok(0) | Err(_) => self.open = false,
            Ok(count) => {
                self.count = self.count.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                let room = KEPT - self.kept.len();
                self.kept.extend_from_slice(&buffer[..count.min(room)]);
            }
        }
    }
}

pub(crate) fn run(order: &Order) -> Result<(), String> {
    let wrong = |errno: nix::Error| errno.to_string();
    prctl::set_child_subreaper(true).map_err(wrong)?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_set_mask().map_err(wrong)?;
    // If the grader goes, SIGTERM comes, and this process ends the program and then itself.
    processes::end_with(order.parent, Signal::SIGTERM)?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(wrong)?;

    let (pipe, child) = start(order)?;
    let main = Pid::from_raw(i32::try_from(child).map_err(|error| error.to_string())?);
    let mut printed = Printed { pipe, kept: Vec::new(), count: 0, open: true };
    let deadline = Instant::now() + Duration::from_millis(order.limits.wall_ms);
    let (mut status, mut stopped) = (None, None);
    let mut next_count = Instant::now() + TICK;
    while status.is_none() && stopped.is_none() {
        let until = next_count.min(deadline).saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(until.as_millis() + 1).unwrap_or(PollTimeout::ZERO);
        let mut waited = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if printed.open {
            waited.push(PollFd::new(printed.pipe.as_fd(), PollFlags::POLLIN));
        }
        // An error comes back at the next turn; EINTR is none.
        let _ = poll(&mut waited, timeout);
        let readable = waited.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
        if readable {
            printed.read();
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                stopped = Some(Stopped::Cancelled);
            }
        }
        status = processes::reap(main);
        if printed.count > order.limits.output {
            stopped = Some(Stopped::Output);
        } else if Instant::now() >= deadline {
            // A fork without end says more than the clock, also where the clock is faster than it.
            stopped = stopped.or_else(|| over_a_limit(order, &processes::descendants())).or(Some(Stopped::Deadline));
        } else if Instant::now() >= next_count {
            stopped = stopped.or_else(|| over_a_limit(order, &processes::descendants()));
            next_count = Instant::now() + TICK;
        }
    }
    let last = processes::end_all(main);
    // Nobody writes any more: what is left is what the pipe holds.
    while printed.open {
        printed.read();
    }
    let how = match (status.or(last), stopped) {
        (_, Some(stopped)) if status.is_none() => stopped.word().to_owned(),
        (Some(WaitStatus::Exited(_, code)), _) => format!("exit {code}"),
        (Some(WaitStatus::Signaled(_, signal, _)), _) => format!("signal {signal}"),
        (_, _) => "lost".to_owned(),
    };
    let mut out = std::io::stdout();
    let sent = writeln!(out, "{how}").and_then(|()| out.write_all(&printed.kept)).and_then(|()| out.flush());
    sent.map_err(|error| error.to_string())
}

/// Starts `limited`, which becomes the program.
fn start(order: &Order) -> Result<(PipeReader, u32), String> {
    let wrong = |error: std::io::Error| error.to_string();
    let (reader, writer) = std::io::pipe().map_err(wrong)?;
    let mut command = Command::new("/proc/self/exe");
    let order = Order { parent: Pid::this().as_raw(), ..order.clone() };
    command.arg0("logship").arg("__limited").args(order.arguments());
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(wrong)?).stderr(writer);
    let child = command.spawn().map_err(wrong)?;
    // The command holds the pipe's other end until here. The child is waited for by its number, with all others.
    Ok((reader, child.id()))
}

fn over_a_limit(order: &Order, now: &[Process]) -> Option<Stopped> {
    let count = u64::try_from(now.len()).unwrap_or(u64::MAX);
    let resident: u64 = now.iter().map(|process| process.resident).sum();
    if count > order.limits.processes {
        Some(Stopped::Processes)
    } else if resident > order.limits.memory {
        Some(Stopped::Memory)
    } else if bytes_in(Path::new("work"), 4) > order.limits.file.saturating_mul(4) {
        Some(Stopped::Files)
    } else {
        None
    }
}

/// What the files of a directory hold on disk, looked for so many levels deep.
fn bytes_in(directory: &Path, levels: u32) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() && levels > 0 => bytes_in(&entry.path(), levels - 1),
        Ok(metadata) => metadata.blocks().saturating_mul(512),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
