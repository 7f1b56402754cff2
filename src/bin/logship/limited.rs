//! The last step before a student's program: limits on oneself, then exec(2). They hold for every child, and as another
//! user none of it can be undone.
//!
//! Apart means, where the system lets us: a network that holds nothing but a loopback of its own, so that no port is
//! ever taken, and a /tmp of its own, in which no other submission's files are.

use crate::args::Order;
use crate::processes;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid, setsid};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Comes back only with what went wrong.
pub(crate) fn run(order: &Order) -> String {
    match prepare(order) {
        Err(error) => error,
        Ok(()) => match order.command.split_first() {
            None => "no command".to_owned(),
            // exec also gives SIGPIPE its default action back, which the Rust runtime has taken away.
            Some((program, arguments)) => {
                let error = Command::new(program).args(arguments).exec();
                format!("{}: {error}", program.to_string_lossy())
            }
        },
    }
}

fn prepare(order: &Order) -> Result<(), String> {
    let limits = &order.limits;
    // It may lead a session already, if somebody called it by hand.
    let _ = setsid();
    if order.apart && order.user.is_some() {
        apart();
    }
    std::env::set_current_dir(&order.inside).map_err(|error| format!("{}: {error}", order.inside.display()))?;
    let set = |resource, soft: u64, hard: u64| {
        setrlimit(resource, soft, hard).map_err(|errno| format!("setrlimit {resource:?} {soft}: {errno}"))
    };
    // At the soft limit comes SIGXCPU, which a program may catch, at the hard one SIGKILL.
    set(Resource::RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds.saturating_add(1))?;
    if limits.addresses > 0 {
        set(Resource::RLIMIT_AS, limits.addresses, limits.addresses)?;
    }
    set(Resource::RLIMIT_FSIZE, limits.file, limits.file)?;
    set(Resource::RLIMIT_CORE, 0, 0)?;
    set(Resource::RLIMIT_NOFILE, 4096, 4096)?;
    // The kernel counts a user's processes. A user of its own has none yet; else those that are there come on top. The
    // watcher ends a program that has more than its number, this only keeps it from having thousands until then.
    let there = if order.user.is_some() { 0 } else { processes::tasks_of(geteuid().as_raw()) };
    let most = there.saturating_add(limits.processes.saturating_mul(2));
    set(Resource::RLIMIT_NPROC, most, most)?;
    if let Some(user) = order.user {
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
        let wrong = |errno: nix::Error| format!("becoming user {user}: {errno}");
        setgroups(&[gid]).map_err(wrong)?;
        setresgid(gid, gid, gid).map_err(wrong)?;
        setresuid(uid, uid, uid).map_err(wrong)?;
    }
    prctl::set_no_new_privs().map_err(|errno| format!("no_new_privs: {errno}"))?;
    // After the change of user, which would clear it.
    processes::end_with(order.parent, Signal::SIGKILL)?;
    // The watcher's mask is not for the program.
    SigSet::empty().thread_set_mask().map_err(|errno| format!("signal mask: {errno}"))
}

/// As far as it goes: in a container all of it may be forbidden, and limits and another user are left.
fn apart() {
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        let _ = loopback::up();
    }
    let _ = private_tmp();
}

/// A new /tmp with nothing in it but the run's directory, which is the current one and is found at /tmp/run.
fn private_tmp() -> Result<(), Box<dyn std::error::Error>> {
    use nix::mount::{MsFlags, mount};
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // After unshare: a descriptor from before would be of a mount that the new namespace does not have.
    let run = std::fs::File::open(".")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("size=64m,mode=1777"))?;
    std::fs::create_dir("/tmp/run")?;
    // By its descriptor: its path is behind the new /tmp.
    let by_descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&run));
    mount(Some(by_descriptor.as_str()), "/tmp/run", NONE, MsFlags::MS_BIND, NONE)?;
    std::env::set_current_dir("/tmp/run")?;
    Ok(())
}

/// A new network has a loopback that is down.
mod loopback {
    use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
    use nix::sys::socket::{recv, sendto, socket};
    use std::os::fd::AsRawFd as _;

    /// `ip link set lo up`, as a netlink message: struct nlmsghdr, struct ifinfomsg. (The ioctl would be unsafe code.)
    pub(super) fn up() -> nix::Result<()> {
        const RTM_NEWLINK: u16 = 16;
        const REQUEST_AND_ACK: u16 = 1 | 4;
        const LOOPBACK: i32 = 1;
        const UP: u32 = 1;
        let mut message = Vec::new();
        message.extend(32_u32.to_le_bytes());
        message.extend(RTM_NEWLINK.to_le_bytes());
        message.extend(REQUEST_AND_ACK.to_le_bytes());
        message.extend([0; 8]); // Sequence, port.
        message.extend([0; 4]); // Family, padding, type.
        message.extend(LOOPBACK.to_le_bytes());
        message.extend(UP.to_le_bytes());
        message.extend(UP.to_le_bytes()); // Which flags change.
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        // The answer comes when it is up. What it says is not looked at: a program that connects will.
        recv(socket.as_raw_fd(), &mut [0; 256], MsgFlags::empty()).map(|_| ())
    }
}
