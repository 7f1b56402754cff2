//! A follower's process: join, follow, and join again when that ends, whatever the reason.

use crate::role::{self, say};
use logship::{Error, Follower};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// How long it waits before it joins again, and how often it looks for commands while nothing comes.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs until the drill closes stdin or sends `quit`.
pub(crate) fn run(directory: &Path, address: &Path, node: u8, commands: &Receiver<String>) -> Result<(), String> {
    let mut goes_on = true;
    while goes_on {
        match Follower::open(directory, node) {
            Ok(mut follower) => {
                say(&format!("open {}", follower.last_lsn()));
                goes_on = follow(&mut follower, address, commands);
            }
            // A disk that is full at this moment is waited for.
            Err(error) if error.errno() == libc::ENOSPC => {
                say(&format!("waiting {error}"));
                goes_on = pause(None, commands);
            }
            Err(error) => return Err(format!("open: {error}")),
        }
    }
    Ok(())
}

/// `false`: the drill has ended; `true`: open the log anew.
fn follow(follower: &mut Follower, address: &Path, commands: &Receiver<String>) -> bool {
    loop {
        if !pause(Some(follower), commands) {
            return false;
        }
        if let Err(error) = join(follower, address) {
            role::log(&format!("join: {error}"));
            continue;
        }
        loop {
            match commands.try_recv() {
                Ok(command) if command == "quit" => return false,
                Ok(command) => obey(&command, follower),
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => {}
            }
            match follower.follow_for(PAUSE) {
                Ok(_) | Err(Error::TimedOut | Error::CrcMismatch) => {}
                // The leader sends it again, or gives up and closes.
                Err(error) if error.errno() == libc::ENOSPC => say("full"),
                Err(error @ Error::Diverged { .. }) => {
                    say(&format!("refused {error}"));
                    break;
                }
                Err(Error::Latched) => return true,
                Err(error) => {
                    say(&format!("lost {error}"));
                    break;
                }
            }
        }
    }
}

fn join(follower: &mut Follower, address: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(address).map_err(|error| error.to_string())?;
    let (host, port) = text.split_once(' ').ok_or("no address yet")?;
    let port = port.parse().map_err(|_| "no port")?;
    follower.join(host, port).map_err(|error| error.to_string())
}

fn obey(command: &str, follower: &Follower) {
    if command == "report" {
        say(&format!("at {} {:016x}", follower.last_lsn(), role::digest(follower.store())));
    }
}

/// Waits a little, and does meanwhile what it is told. `false`: end.
fn pause(follower: Option<&Follower>, commands: &Receiver<String>) -> bool {
    match commands.recv_timeout(PAUSE) {
        Ok(command) if command == "quit" => false,
        Ok(command) => {
            if let Some(follower) = follower {
                obey(&command, follower);
            }
            true
        }
        Err(RecvTimeoutError::Timeout) => true,
        Err(RecvTimeoutError::Disconnected) => false,
    }
}
