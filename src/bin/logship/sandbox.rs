//! Runs programs that are not trusted, each in a directory, a session and (if we are root) as a user of its own.
//!
//! A run has three things under one directory: `work`, empty, in which it runs; `result`, into which it may write too;
//! and what the grader puts beside them, which it may only read. When [`Room::run`] comes back none of its processes is
//! left.

use crate::args::{Limits, Order};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The first of the users that nobody else is: people's numbers end below 60,000, systemd's own begin above 65,000, and
/// what Debian gives out in between it gives out on request. Below 65,536, so that a container has them.
const FIRST_USER: u32 = 64_200;
const USERS: u32 = 600;

pub(crate) const MIB: u64 = 1 << 20;

/// What a check may use; the time is its own.
pub(crate) fn limits(wall: Duration) -> Limits {
    Limits {
        wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        // A check that waits needs none of it, one that spins is ended by either.
        cpu_seconds: wall.as_secs() + 1,
        memory: 512 * MIB,
        addresses: 1024 * MIB,
        processes: 48,
        file: 64 * MIB,
        output: MIB,
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    Signal(String),
    Deadline,
    Processes,
    Memory,
    Files,
    Output,
    Cancelled,
    /// The kit's own failure.
    Lost(String),
}

impl End {
    /// In words, for one line; empty for exit code 0.
    pub(crate) fn words(&self, limits: &Limits) -> String {
        let mib = |bytes: u64| format!("{} MiB", bytes / MIB);
        match self {
            End::Exit(0) => String::new(),
            End::Exit(code) => format!("it ended with exit code {code}"),
            End::Signal(signal) => match signal.as_str() {
                "SIGSEGV" => "it crashed: SIGSEGV, memory that is not its own".to_owned(),
                "SIGABRT" => "it crashed: SIGABRT, an assertion or a damaged heap".to_owned(),
                "SIGPIPE" => "SIGPIPE ended it: it wrote to a socket whose other end was gone".to_owned(),
                "SIGXCPU" => format!("it computed for {} s: a loop without end", limits.cpu_seconds),
                "SIGXFSZ" => format!("it wrote a file of more than {}", mib(limits.file)),
                other => format!("it crashed: {other}"),
            },
            End::Deadline => {
                format!("it still ran after {} s: a loop or a wait without end", limits.wall_ms.div_ceil(1000))
            }
            End::Processes => format!("it had more than {} processes: a fork without end", limits.processes),
            End::Memory => format!("it held more than {} of memory", mib(limits.memory)),
            End::Files => format!("its files held more than {}", mib(limits.file * 4)),
            End::Output => format!("it printed more than {}", mib(limits.output)),
            End::Cancelled => "it was interrupted".to_owned(),
            End::Lost(why) => format!("the kit could not run it: {why}"),
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// The beginning of what it printed, stdout and stderr together.
    pub(crate) output: String,
}

/// Places to run in, so many at a time for all submissions together.
pub(crate) struct Sandbox {
    free: Mutex<Vec<Place>>,
    returned: Condvar,
    cancelled: AtomicBool,
    watchers: Mutex<Vec<u32>>,
    /// How many places there are.
    pub(crate) size: usize,
    /// Leave every directory where it is.
    pub(crate) keep: bool,
}

/// A user, held by a socket name in the abstract namespace, which the kernel frees whatever becomes of us: two graders
/// at a time on one machine don't share one.
struct Place {
    user: Option<u32>,
    _held: Option<UnixDatagram>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    pub(crate) fn new(size: usize, keep: bool) -> Result<Sandbox, String> {
        let mut free = Vec::new();
        let root = nix::unistd::geteuid().is_root();
        let mut users = FIRST_USER..FIRST_USER + USERS;
        while free.len() < size {
            if !root {
                free.push(Place { user: None, _held: None });
                continue;
            }
            let user = users.next().ok_or("all users for checks are taken")?;
            let name = SocketAddr::from_abstract_name(format!("logship-grade-user-{user}"));
            if let Ok(socket) = name.and_then(|name| UnixDatagram::bind_addr(&name)) {
                free.push(Place { user: Some(user), _held: Some(socket) });
            }
        }
        Ok(Sandbox {
            free: Mutex::new(free),
            returned: Condvar::new(),
            cancelled: AtomicBool::new(false),
            watchers: Mutex::new(Vec::new()),
            size,
            keep,
        })
    }

    /// Ends what runs, and lets nothing begin any more.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        for pid in lock(&self.watchers).iter() {
            if let Ok(pid) = i32::try_from(*pid) {
                // One that is ending by itself is fine.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
            }
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Waits for a place, and makes its directory under `parent`.
    pub(crate) fn room(&self, parent: &Path) -> Result<Room<'_>, String> {
        let mut free = lock(&self.free);
        let place = loop {
            match free.pop() {
                Some(place) => break place,
                None => free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(free);
        let made = tempfile::Builder::new()
            .prefix("run-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .map_err(|error| format!("{}: {error}", parent.display()));
        // The place is in the room, which gives it back, also if the rest fails.
        let mut room = Room { sandbox: self, place: Some(place), directory: made? };
        room.directory.disable_cleanup(self.keep);
        for name in ["work", "result"] {
            let path = room.path(name);
            let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
            fs::create_dir(&path).map_err(wrong)?;
            fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(wrong)?;
            if let Some(user) = room.user() {
                std::os::unix::fs::chown(&path, Some(user), Some(user)).map_err(wrong)?;
            }
        }
        Ok(room)
    }
}

/// A place in use, with its directory.
pub(crate) struct Room<'a> {
    sandbox: &'a Sandbox,
    place: Option<Place>,
    directory: tempfile::TempDir,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.user().is_none() && !self.sandbox.keep {
            // Root can remove whatever a run has left; somebody else only from directories that may be entered.
            open_directories(&self.path("work"));
        }
        if let Some(place) = self.place.take() {
            lock(&self.sandbox.free).push(place);
            self.sandbox.returned.notify_one();
        }
    }
}

fn open_directories(path: &Path) {
    // What stays closed stays behind, in the scratch directory: nothing depends on it.
    let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_directories(&entry.path());
        }
    }
}

impl Room<'_> {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn user(&self) -> Option<u32> {
        self.place.as_ref().and_then(|place| place.user)
    }

    /// Gives a file or directory that was put under `work` to the run's user.
    pub(crate) fn give(&self, path: &Path) -> std::io::Result<()> {
        match self.user() {
            Some(user) => std::os::unix::fs::chown(path, Some(user), Some(user)),
            None => Ok(()),
        }
    }

    /// Reads a file that the run has left; `None` for one that is missing, too long, or no file at all.
    pub(crate) fn take(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        if !fs::symlink_metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        fs::File::open(&path).ok()?.take(64 * MIB).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// A trusted tool (gcc, nm): it sees the grader's files.
    pub(crate) fn tool(&self, command: &[OsString]) -> Outcome {
        let mut limits = limits(Duration::from_secs(60));
        limits.memory = 2048 * MIB;
        limits.addresses = 4096 * MIB;
        self.run(command, &[], "work", limits, false)
    }

    /// A student's program: it has a network and a /tmp of its own, where we may make them. `inside` is where it runs;
    /// it says `..` for the run's directory, whose path is another there.
    pub(crate) fn run(
        &self,
        command: &[OsString],
        environment: &[(&str, &str)],
        inside: &str,
        limits: Limits,
        apart: bool,
    ) -> Outcome {
        let (parent, user) = (nix::unistd::Pid::this().as_raw(), self.user());
        let order = Order { limits, parent, user, apart, inside: inside.into(), command: command.to_vec() };
        self.watched(&order, environment).unwrap_or_else(|why| Outcome { end: End::Lost(why), output: String::new() })
    }

    fn watched(&self, order: &Order, environment: &[(&str, &str)]) -> Result<Outcome, String> {
        let wrong = |error: std::io::Error| error.to_string();
        if self.sandbox.is_cancelled() {
            return Ok(Outcome { end: End::Cancelled, output: String::new() });
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg0("logship").arg("__watch").args(order.arguments());
        // What the program sees of the scratch directory is its own run, under another path if /tmp is its own.
        let temporary = if order.apart && order.user.is_some() { "/tmp".into() } else { self.path("work") };
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command.env("LC_ALL", "C").env("HOME", &temporary).env("TMPDIR", &temporary).envs(environment.iter().copied());
        // A group of its own: Ctrl-C is for the grader, which ends the watchers.
        command.current_dir(self.directory.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(wrong)?;
        let pid = child.id();
        lock(&self.sandbox.watchers).push(pid);
        if self.sandbox.is_cancelled() {
            self.sandbox.cancel();
        }
        let output = child.wait_with_output();
        lock(&self.sandbox.watchers).retain(|known| *known != pid);
        let output = output.map_err(wrong)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (how, printed) = text.split_once('\n').unwrap_or((&text, ""));
        let end = match how.split_once(' ').unwrap_or((how, "")) {
            ("exit", code) => End::Exit(code.parse().unwrap_or(-1)),
            ("signal", signal) => End::Signal(signal.to_owned()),
            ("deadline", _) => End::Deadline,
            ("processes", _) => End::Processes,
            ("memory", _) => End::Memory,
            ("files", _) => End::Files,
            ("output", _) => End::Output,
            ("cancelled", _) => End::Cancelled,
            (_, _) => End::Lost(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        };
        Ok(Outcome { end, output: printed.to_owned() })
    }
}

/// Calls `work` for each item, on so many threads; the results are in the items' order.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    lock(&results).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// How long since the beginning, for the report.
pub(crate) fn seconds_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64()
}
