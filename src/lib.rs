//! logship: a small, trustworthy replicated log.
pub mod capi;
pub mod clock;
pub mod diag;
pub mod error;
pub mod kv;
pub mod net;
pub mod node;
pub mod replication;
mod signal;
pub mod storage;
pub mod types;
pub mod wal;

pub use error::{Error, Result};
pub use kv::table::Store;
pub use node::{Commit, Follower, FollowerStatus, Joined, Leader, Options};
pub use types::{Lsn, Timestamp};
pub use wal::Wal;
pub use wal::reader::{LogReader, LogRecord, Records};
pub use wal::record::{Op, Record};
