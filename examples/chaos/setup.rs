//! What stands before a run: signals as events, leftovers of killed runs, namespaces, small file systems. What this
//! machine can't do is said.

use crate::disk::{self, RunDirectory};
use crate::network::{self, Network};
use crate::nodes::Event;
use crate::schedule::{self, Node};
use crate::tool;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::path::Path;
use std::sync::mpsc::Sender;

/// Begins the names of everything that a run makes outside its processes; its pid follows.
pub(crate) const NAME: &str = "logship-chaos";

/// Turns Ctrl-C into an event: everything that was made is taken down in order. Before any other thread begins.
pub(crate) fn watch_signals(events: Sender<Event>) -> Result<(), String> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().map_err(|errno| format!("signals: {errno}"))?;
    let signals = SignalFd::new(&set).map_err(|errno| format!("signals: {errno}"))?;
    std::thread::spawn(move || {
        while let Ok(Some(_)) = signals.read_signal() {
            if events.send(Event::Interrupted).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Removes what a killed run has left: its pid is in the names, and no process has that pid, or it is ours now.
pub(crate) fn remove_leftovers(parent: &Path) {
    let is_gone = |name: &str| {
        let rest = name.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('-'));
        let pid = rest.and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
    };
    network::remove_leftovers(is_gone);
    disk::remove_leftovers(parent, is_gone);
}

pub(crate) fn make_network(run: &str) -> Option<Network> {
    let missing: Vec<_> = [("ip", "iproute2"), ("tc", "iproute2"), ("nsenter", "util-linux")]
        .into_iter()
        .filter(|(program, _)| !tool::exists(program))
        .collect();
    if let Some((program, package)) = missing.first() {
        tool::print(&format!("no partitions and slow links: {program} is missing: apt-get install {package}"));
        return None;
    }
    match Network::new(run) {
        Ok(network) => Some(network),
        Err(error) => {
            tool::print(&format!("no partitions and slow links: no network namespaces (they take root): {error}"));
            None
        }
    }
}

pub(crate) fn make_disks(directory: &RunDirectory, megabytes: u64) -> bool {
    for node in Node::all().filter(|node| schedule::has_small_disk(*node)) {
        let path = directory.path.join(node.to_string());
        let made = std::fs::create_dir_all(&path).map_err(|error| error.to_string());
        if let Err(error) = made.and_then(|()| disk::make_small(&path, megabytes)) {
            tool::print(&format!("no full disks: no small file systems (they take root): {error}"));
            return false;
        }
    }
    true
}
