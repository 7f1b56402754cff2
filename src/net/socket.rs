//! Making connections and telling one from another.
#![forbid(unsafe_code)]

use super::io;
use super::sys::{self, POLLERR, POLLHUP, POLLNVAL, POLLRDHUP, PollFd};
use crate::error::{Error, Result};
use crate::storage::file;
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, SockFlag, accept4, getpeername, getsockopt, setsockopt, shutdown, sockopt};
use nix::sys::stat::{SFlag, fstat};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Seconds of silence before TCP asks whether the peer lives.
pub const KEEPALIVE_IDLE_S: u32 = 5;
/// Seconds between two questions.
pub const KEEPALIVE_INTERVAL_S: u32 = 1;
/// Questions without an answer before the connection is dead.
pub const KEEPALIVE_COUNT: u32 = 3;
/// Milliseconds that sent data may stay unacknowledged by TCP: keepalive sees nothing while data is in flight. A send
/// deadline that is longer counts instead, or TCP would give up before it.
pub const USER_TIMEOUT_MS: u32 = 8_000;
/// Deadline of a connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A socket's identity: a descriptor number alone is reused as soon as somebody closes it. 0 is "none", so that
/// zeroed memory identifies nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketId {
    /// The descriptor.
    pub fd: RawFd,
    /// The socket's inode number; 0 if there is none.
    pub ino: u64,
}

/// The identity of the socket behind `fd`; `None` if it is closed or no socket.
#[must_use]
pub fn identify(fd: RawFd) -> Option<SocketId> {
    let stat = sys::with_fd(fd, |fd| fstat(fd))?.ok()?;
    let is_socket = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK;
    is_socket.then_some(SocketId { fd, ino: stat.st_ino })
}

/// Why [`identify`] finds nothing: EBADF or ENOTSOCK.
#[must_use]
pub fn why_no_socket(fd: RawFd) -> Error {
    let open = sys::with_fd(fd, |fd| fstat(fd)).is_some_and(|stat| stat.is_ok());
    Error::from(if open { Errno::ENOTSOCK } else { Errno::EBADF })
}

/// What [`USER_TIMEOUT_MS`] is now.
fn user_timeout_ms() -> u32 {
    u32::try_from(io::send_timeout_ms()).unwrap_or(0).max(USER_TIMEOUT_MS)
}

/// Keepalive on a connection or listening socket: idle 5 s, interval 1 s, 3 probes, and 8 s for data in flight.
/// Sources: tcp(7); lesson w11-l05.
pub fn set_keepalive(fd: RawFd) -> Result<()> {
    sys::with_fd(fd, |fd| -> nix::Result<()> {
        setsockopt(&fd, sockopt::KeepAlive, &true)?;
        setsockopt(&fd, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
        setsockopt(&fd, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S)?;
        setsockopt(&fd, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
        setsockopt(&fd, sockopt::TcpUserTimeout, &user_timeout_ms())
    })
    .ok_or(Errno::EBADF)??;
    Ok(())
}

/// Makes a connection that somebody else made one for replication: [`set_keepalive`], and no waiting for a full segment
/// (with Nagle's algorithm the end of a burst waits for a delayed ack). What is no TCP socket, a socket pair, needs
/// neither: its peer's end is seen without.
pub fn prepare(fd: RawFd) {
    let _ = set_keepalive(fd);
    let _ = set_nodelay(fd);
}

fn set_nodelay(fd: RawFd) -> Result<()> {
    sys::with_fd(fd, |fd| setsockopt(&fd, sockopt::TcpNoDelay, &true)).ok_or(Errno::EBADF)??;
    Ok(())
}

/// What every socket that is made here has: a port of ours that lingers in TIME_WAIT keeps nobody from listening there.
fn set_reuse_address(fd: RawFd) -> Result<()> {
    sys::with_fd(fd, |fd| setsockopt(&fd, sockopt::ReuseAddr, &true)).ok_or(Errno::EBADF)??;
    Ok(())
}

/// A host's addresses. getaddrinfo(3) has errors of its own, not errno's: a host that it does not know is unknown here.
fn addresses_of(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let found = (host, port).to_socket_addrs().map_err(|error| match error.raw_os_error() {
        None => Error::UnknownHost(host.to_owned()),
        Some(_) => error.into(),
    });
    let found = found.inspect_err(|error| crate::log_error!("{error}"))?;
    Ok(found.collect())
}

/// Connects within 5 s, with keepalive and without Nagle's delay.
pub fn connect(host: &str, port: u16) -> Result<OwnedFd> {
    let mut failure = Error::from(Errno::EADDRNOTAVAIL);
    for address in addresses_of(host, port)? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            // With nobody listening, TCP may connect a socket to itself when its own port is the one asked for.
            Ok(stream) if stream.local_addr().ok() == stream.peer_addr().ok() => {
                failure = Errno::ECONNREFUSED.into();
            }
            Ok(stream) => {
                let fd = file::above_stdio(OwnedFd::from(stream))?;
                set_reuse_address(fd.as_raw_fd())?;
                set_nodelay(fd.as_raw_fd())?;
                set_keepalive(fd.as_raw_fd())?;
                return Ok(fd);
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => failure = Error::TimedOut,
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}

/// Listens on `host` and `port` (0: any) with SO_REUSEADDR and the keepalive options, which Linux hands down to what
/// accept(2) returns. Returns the socket and the port it got.
pub fn listen(host: &str, port: u16) -> Result<(OwnedFd, u16)> {
    // The standard library sets SO_REUSEADDR on every listener it binds.
    let listener = TcpListener::bind(&addresses_of(host, port)?[..])?;
    let port = listener.local_addr()?.port();
    let fd = file::above_stdio(OwnedFd::from(listener))?;
    set_nodelay(fd.as_raw_fd())?;
    set_keepalive(fd.as_raw_fd())?;
    Ok((fd, port))
}

/// Accepts one connection, with keepalive and without Nagle's delay. Waits as accept(2) does.
pub fn accept(listen_fd: RawFd) -> Result<OwnedFd> {
    let fd = loop {
        match sys::with_fd(listen_fd, |fd| accept4(fd, SockFlag::SOCK_CLOEXEC)).ok_or(Errno::EBADF)? {
            // ECONNABORTED: the peer gave up while it was queued; the next one is waited for.
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            other => break other?,
        }
    };
    let fd = file::above_stdio(fd)?;
    set_reuse_address(fd.as_raw_fd())?;
    set_nodelay(fd.as_raw_fd())?;
    set_keepalive(fd.as_raw_fd())?;
    Ok(fd)
}

/// Takes the error that has ended a connection off its socket; `None`: none has.
#[must_use]
pub fn take_error(fd: RawFd) -> Option<Error> {
    let pending = sys::with_fd(fd, |fd| getsockopt(&fd, sockopt::SocketError))?.ok()?;
    (pending != 0).then(|| Errno::from_raw(pending).into())
}

/// Closes a descriptor. Its error, if any, tells nothing that could be acted on.
pub fn close(fd: RawFd) {
    let _ = nix::unistd::close(fd);
}

/// Ends a connection in both directions; the descriptor stays open. One that has ended already is left as it is.
pub fn shut_down(fd: RawFd) {
    let _ = shutdown(fd, Shutdown::Both);
}

/// Whether the peer has hung up or reset the connection. Unread data doesn't hide it, and nothing is consumed.
#[must_use]
pub fn has_hung_up(fd: RawFd) -> bool {
    let mut fds = [PollFd::new(fd, POLLRDHUP)];
    match sys::poll(&mut fds, 0) {
        Ok(0) => false,
        Ok(_) => fds[0].has(POLLRDHUP | POLLHUP | POLLERR | POLLNVAL),
        Err(_) => true,
    }
}

/// Whether calls on `fd` wait: it is open and has no O_NONBLOCK.
#[must_use]
pub fn is_blocking(fd: RawFd) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = sys::with_fd(fd, |fd| fcntl(fd, FcntlArg::F_GETFL));
    flags.is_some_and(|flags| flags.is_ok_and(|flags| !OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK)))
}

/// Whether `fd` is a listening socket.
#[must_use]
pub fn is_listening(fd: RawFd) -> bool {
    sys::with_fd(fd, |fd| getsockopt(&fd, sockopt::AcceptConn)).is_some_and(|answer| answer == Ok(true))
}

/// Whether `fd` is a connected socket whose peer has not hung up.
#[must_use]
pub fn is_live(fd: RawFd) -> bool {
    peer_address(fd).is_some() && !has_hung_up(fd)
}

/// The address and port of the peer, `None` if not connected. A peer that isn't an IP one (a socket pair) has the
/// unspecified address.
#[must_use]
pub fn peer_address(fd: RawFd) -> Option<(IpAddr, u16)> {
    let address = getpeername::<nix::sys::socket::SockaddrStorage>(fd).ok()?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Some((IpAddr::V4(v4.ip()), v4.port()));
    }
    if let Some(v6) = address.as_sockaddr_in6() {
        return Some((IpAddr::V6(v6.ip()).to_canonical(), v6.port()));
    }
    Some((IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0))
}

/// Whether `host` names this address.
#[must_use]
pub fn is_address_of(host: &str, address: IpAddr) -> bool {
    let matches = |candidate: SocketAddr| candidate.ip().to_canonical() == address;
    (host, 0).to_socket_addrs().is_ok_and(|mut all| all.any(matches))
}

/// Puts the socket `new` under the number `old`, whose socket is closed by that; `old` stays the caller's descriptor.
pub fn replace_fd(new: &OwnedFd, old: RawFd) -> Result<()> {
    sys::dup3(new.as_fd(), old)
}
