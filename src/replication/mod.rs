//! The protocol, without I/O: no socket, file, thread, clock or randomness. Time comes in as an argument.
//!
//! [`frame`] and [`message`] are the bytes; [`inbox`] and [`ledger`] keep what followers acknowledged, in fixed
//! memory; [`progress`] is what a leader knows of one follower; [`quorum`] counts; [`rejoin`] decides what a follower
//! that comes back gets; [`follower`] is the other end.
#![forbid(unsafe_code)]

pub mod follower;
pub mod frame;
pub mod inbox;
pub mod ledger;
pub mod message;
pub mod progress;
pub mod quorum;
pub mod rejoin;
