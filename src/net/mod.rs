//! Sockets: thin shells round the state machines of `replication`. They carry bytes and deadlines and decide nothing.
//!
//! [`socket`] makes and describes connections, [`io`] moves bytes with deadlines, [`group`] is a leader's side of all
//! its followers at once, [`catch_up`] streams a range of the log to one, [`receive`] is a follower's side, [`rejoin`]
//! the handshake, [`arrivals`] those who have not made it yet. `sys` holds the few system calls that need `unsafe`. No
//! threads; no call here raises SIGPIPE.

pub mod arrivals;
pub mod catch_up;
pub mod group;
pub mod io;
pub mod link;
pub mod member;
pub mod receive;
pub mod rejoin;
pub mod snapshot;
pub mod socket;
mod sys;
