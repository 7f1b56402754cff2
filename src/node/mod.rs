//! A leader and a follower in one value each: the log, the store and the connections together, for Rust programs.
//!
//! A follower always connects to its leader and says where its log ends; so a first join and a rejoin after a crash are
//! the same call. No threads: each call does its work and returns, with a deadline where it waits.
#![forbid(unsafe_code)]

mod follower;
mod leader;

pub use follower::Follower;
pub use leader::{Commit, FollowerStatus, Joined, Leader, Options};

/// The log's name in a node's directory.
const WAL_NAME: &str = "logship.wal";
