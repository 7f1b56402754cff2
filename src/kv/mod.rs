//! The state that the log builds: a key-value table and the rule that decides which write wins.
//!
//! [`StateMachine`] is what recovery, checkpoints and followers apply records to. Two tables stand behind it: the
//! safe [`Store`](table::Store) of the Rust API, and the C table in `capi` that the course's tests walk.
#![forbid(unsafe_code)]

pub mod lww;
pub mod table;

use crate::error::Result;
use crate::types::Timestamp;
use crate::wal::checkpoint::Covered;
use crate::wal::record::Record;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It won and is in the table now.
    Applied,
    /// An equal or newer write was there already.
    Skipped,
}

/// One key's state, as a checkpoint stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value, or `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The time stamp of the write that made it.
    pub timestamp: Timestamp,
}

/// A table that records apply to, by the conflict rule of [`lww`].
pub trait StateMachine {
    /// Applies one record. An error (out of memory) leaves the table as it was.
    fn apply(&mut self, record: &Record<'_>) -> Result<Applied>;

    /// Applies records in order; the default does one after another. A table may look ahead (prefetch).
    fn apply_all(&mut self, records: &[Record<'_>]) -> Result<()> {
        for record in records {
            self.apply(record)?;
        }
        Ok(())
    }

    /// Takes a key out, live or a tombstone, as if it had never been written. For a store that becomes another one.
    fn forget(&mut self, key: &[u8]) -> Result<()>;

    /// Notes that the table has been given everything that `given` stands for, for the checkpoints of a program that
    /// says only up to which byte of a log. A table whose owner knows needs no note.
    fn note_given(&mut self, _given: Covered) {}

    /// What was noted last, if the table keeps it.
    fn given(&self) -> Option<Covered> {
        None
    }

    /// How many live keys there are.
    fn live(&self) -> usize;

    /// Calls `visit` for every live key, then for every tombstone, in no particular order.
    fn for_each(&self, visit: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()>;
}
