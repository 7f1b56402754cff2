//! `logship wal`: looking at a log, and cutting it back when a person says so. docs/tools.md says how to use it.
//!
//! The library finds out and cuts (`logship::wal::{reader, survey, salvage}`); these files print and ask.

mod cut;
mod dump;
mod holders;
mod verdict;
mod verify;

use crate::args::tools::Wal;
use crate::text;

pub(crate) fn run(asked: &Wal) -> Result<u8, String> {
    text::with_output(|out| match asked {
        Wal::Dump(options) => dump::run(options, out),
        Wal::Verify(options) => verify::run(options, out),
        Wal::Truncate(options) => cut::truncate(options, out),
        Wal::Repair(options) => cut::repair(options, out),
    })
}
