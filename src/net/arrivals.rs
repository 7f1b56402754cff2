//! Peers that have connected and not said yet who they are. One that says nothing keeps nobody else waiting: whoever
//! has sent its rejoin message is next, in whatever order they came.
#![forbid(unsafe_code)]

use super::io::Deadline;
use super::rejoin::{Hello, Rejoin};
use super::socket;
use super::sys::{self, POLLIN, PollFd};
use crate::error::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Peers that wait at most; for one more the one that has been silent longest goes.
const WAITING_MAX: usize = 16;

/// The peers that wait.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// In the order in which they came.
    waiting: Vec<(OwnedFd, Hello)>,
}

impl Arrivals {
    /// The next peer that has said who it is, of those that wait and those that connect to `listener` until the
    /// deadline. Those that take too long, or hang up, are closed. [`Error::TimedOut`]: nobody has.
    pub fn next(&mut self, listener: RawFd, deadline: Deadline) -> Result<(OwnedFd, Rejoin)> {
        loop {
            // Even a deadline of zero looks once.
            let last_look = deadline.has_passed();
            self.take_in(listener)?;
            if let Some(ready) = self.find_ready() {
                return Ok(ready);
            }
            if last_look {
                return Err(Error::TimedOut);
            }
            self.wait(listener, deadline)?;
        }
    }

    /// Accepts whoever has connected.
    fn take_in(&mut self, listener: RawFd) -> Result<()> {
        // No more at a time than there may be: somebody who connects again and again must not keep us here.
        for _ in 0..WAITING_MAX {
            let mut fds = [PollFd::new(listener, POLLIN)];
            if sys::poll(&mut fds, 0)? == 0 {
                return Ok(());
            }
            let fd = socket::accept(listener)?;
            if self.waiting.len() == WAITING_MAX {
                let (oldest, _) = self.waiting.remove(0);
                let peer = socket::peer_address(oldest.as_raw_fd());
                crate::log_warn!("{peer:?} has connected and says nothing, and others wait: it is closed");
            }
            self.waiting.push((fd, Hello::new()));
        }
        Ok(())
    }

    fn find_ready(&mut self) -> Option<(OwnedFd, Rejoin)> {
        let mut at = 0;
        while let Some((fd, hello)) = self.waiting.get_mut(at) {
            match hello.read(fd.as_raw_fd()) {
                Ok(None) => at += 1,
                Ok(Some(rejoin)) => return Some((self.waiting.remove(at).0, rejoin)),
                Err(error) => {
                    let (gone, _) = self.waiting.remove(at);
                    let peer = socket::peer_address(gone.as_raw_fd());
                    crate::log_info!("{peer:?} has connected and sent no rejoin message: {error}");
                }
            }
        }
        None
    }

    fn wait(&self, listener: RawFd, mut until: Deadline) -> Result<()> {
        let mut fds = [PollFd::NONE; WAITING_MAX + 1];
        fds[0] = PollFd::new(listener, POLLIN);
        for ((fd, hello), slot) in self.waiting.iter().zip(&mut fds[1..]) {
            let (patience, by_poll) = hello.patience(fd.as_raw_fd());
            until = until.or_sooner(patience);
            if by_poll {
                *slot = PollFd::new(fd.as_raw_fd(), POLLIN);
            }
        }
        sys::poll(&mut fds, until.poll_ms())?;
        Ok(())
    }
}
