//! The safe table of the Rust API: keys to values, with tombstones.
//!
//! Touches nothing but memory. What wins is decided by [`lww`].
#![forbid(unsafe_code)]

use super::lww::{self, Existing};
use super::{Applied, Entry, StateMachine};
use crate::error::Result;
use crate::types::Timestamp;
use crate::wal::record::{Op, Record};
use std::collections::HashMap;

/// A key's last write: its value, or `None` for a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    timestamp: Timestamp,
    value: Option<Box<[u8]>>,
}

/// A key-value table that records apply to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    slots: HashMap<Box<[u8]>, Slot, rapidhash::quality::RandomState>,
    live: usize,
}

impl Store {
    /// An empty table.
    #[must_use]
    pub fn new() -> Store {
        Store::default()
    }

    /// The value of a key, if it is live.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.slots.get(key)?.value.as_deref()
    }

    /// The time stamp of a key's last write, a SET or a DEL.
    #[must_use]
    pub fn timestamp(&self, key: &[u8]) -> Option<Timestamp> {
        self.slots.get(key).map(|slot| slot.timestamp)
    }

    /// How many live keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no key is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The live keys and their values, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.slots.iter().filter_map(|(key, slot)| Some((&**key, slot.value.as_deref()?)))
    }

    fn entries(&self, live: bool) -> impl Iterator<Item = Entry<'_>> {
        self.slots.iter().filter(move |(_, slot)| slot.value.is_some() == live).map(|(key, slot)| Entry {
            key,
            value: slot.value.as_deref(),
            timestamp: slot.timestamp,
        })
    }
}

impl StateMachine for Store {
    fn apply(&mut self, record: &Record<'_>) -> Result<Applied> {
        let incoming = (record.op == Op::Set).then_some(record.value);
        let write = || Slot { timestamp: record.timestamp, value: incoming.map(Box::from) };
        let Some(slot) = self.slots.get_mut(record.key) else {
            // A DEL without a time stamp loses to nothing that could come: there is nothing to remember.
            if incoming.is_some() || record.timestamp != Timestamp::NONE {
                self.slots.insert(record.key.into(), write());
                self.live += usize::from(incoming.is_some());
            }
            return Ok(Applied::Applied);
        };
        let existing = match &slot.value {
            Some(value) => Existing::Live(slot.timestamp, value),
            None => Existing::Dead(slot.timestamp),
        };
        if !lww::wins(existing, record.timestamp, incoming) {
            return Ok(Applied::Skipped);
        }
        self.live -= usize::from(slot.value.is_some());
        self.live += usize::from(incoming.is_some());
        *slot = write();
        if incoming.is_none() && record.timestamp == Timestamp::NONE {
            self.slots.remove(record.key);
        }
        Ok(Applied::Applied)
    }

    fn forget(&mut self, key: &[u8]) -> Result<()> {
        let was_live = self.slots.remove(key).is_some_and(|slot| slot.value.is_some());
        self.live -= usize::from(was_live);
        Ok(())
    }

    fn live(&self) -> usize {
        self.live
    }

    fn for_each(&self, visit: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        self.entries(true).chain(self.entries(false)).try_for_each(visit)
    }
}
