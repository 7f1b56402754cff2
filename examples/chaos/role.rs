//! What a node's process shares with the others: how it hears from the drill and talks to it.
//!
//! Commands come on stdin, a line each; events go to stdout, a line each; the library's log goes to stderr, a file.

use logship::Store;
use logship::kv::StateMachine as _;
use nix::sys::signal::Signal;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, Write as _};
use std::sync::mpsc::{Receiver, channel};

/// Makes this process end with the drill, however that ends, and sends the library's log lines to stderr.
pub(crate) fn begin(parent: &str) -> Result<Receiver<String>, String> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| format!("prctl: {errno}"))?;
    if nix::unistd::getppid().to_string() != parent {
        return Err("the drill is gone".to_owned());
    }
    logship::diag::set_sink(Some(|level, line| eprintln!("{level:?}: {line}")));
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

/// Tells the drill something.
pub(crate) fn say(line: &str) {
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
