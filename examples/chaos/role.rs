//! What a node's process shares with the others: how it hears from the drill and talks to it.
//!
//! Commands come on stdin, a line each; events go to stdout, a line each; the library's log goes to stderr, a file.

use logship::Store;
use logship::kv::StateMachine as _;
use nix::sys::signal::Signal;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{SystemTime, UNIX_EPOCH};

/// When the drill began, as milliseconds of UNIX time: log lines have the timeline's clock.
static BEGUN_MS: AtomicU64 = AtomicU64::new(0);

/// Milliseconds of UNIX time.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Makes this process end with the drill, however that ends, and sends the library's log lines to stderr.
pub(crate) fn begin(parent: &str, begun_ms: &str) -> Result<Receiver<String>, String> {
    BEGUN_MS.store(begun_ms.parse().map_err(|_| "not a time")?, Ordering::Relaxed);
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| format!("prctl: {errno}"))?;
    if nix::unistd::getppid().to_string() != parent {
        return Err("the drill is gone".to_owned());
    }
    logship::diag::set_sink(Some(|level, line| log(&format!("{level:?}: {line}"))));
    let (sender, commands) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(commands)
}

/// Writes a line to this node's log.
pub(crate) fn log(line: &str) {
    let ms = now_ms().saturating_sub(BEGUN_MS.load(Ordering::Relaxed));
    eprintln!("t+{:>3}.{:03} {line}", ms / 1_000, ms % 1_000);
}

/// Tells the drill something.
pub(crate) fn say(line: &str) {
    if !line.starts_with("quiet") {
        log(line);
    }
    // A drill that does not listen any more is about to end this process.
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

/// One number for a store's whole content: keys, values, tombstones, time stamps.
pub(crate) fn digest(store: &Store) -> u64 {
    let mut entries = Vec::new();
    let visited = store.for_each(&mut |entry| {
        entries.push((entry.key.to_vec(), entry.value.map(<[u8]>::to_vec), entry.timestamp.0));
        Ok(())
    });
    if visited.is_err() {
        return 0;
    }
    entries.sort();
    let mut hasher = DefaultHasher::new();
    entries.hash(&mut hasher);
    hasher.finish()
}
