//! The C ABI: one file per course header, 5 to 15 lines a function. Check the pointers, call the core with plain
//! values, publish what changed, set errno last. Nothing in the crate imports this module.
//!
//! C's structs have no room for private state and may be copied, so it lives beside them: `side` is the memory,
//! `logs` what is known of each log, `configs` of each `replication_config`, `conns` of each connection. `layout`
//! judges whether a struct is laid out as ours.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a place behind a raw pointer and its read or write count as two; a block still does one thing"
)]

pub(crate) mod errno;
pub(crate) mod guard;
pub(crate) mod ptr;
pub(crate) mod side;

mod cancel;
mod claims;
mod configs;
mod conns;
mod kv_table;
mod layout;
mod leader_log;
mod locked;
mod logs;
mod replaced;

pub mod crc32;
pub mod kv_store;
pub mod logship;
pub mod repl_ack;
pub mod repl_config;
pub mod repl_conflict;
pub mod repl_quorum;
pub mod repl_rejoin;
pub mod repl_ship;
pub mod wal_checkpoint;
pub mod wal_record;
pub mod wal_recovery;
pub mod wal_writer;
