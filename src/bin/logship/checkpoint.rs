//! `logship checkpoint show`: what a checkpoint holds, whether it is whole, and whether it was taken from a log.

use crate::args::tools::{Checkpoint, Show};
use crate::text::{self, Out, Stop, count, escaped};
use logship::kv::Entry;
use logship::storage::{Storage as _, file};
use logship::wal::checkpoint::{self, Covered};
use logship::wal::fit::{Fit, fit};
use logship::{Error, Lsn, Timestamp};
use serde::Serialize;
use std::io::Write as _;
use std::path::Path;

pub(crate) fn run(asked: &Checkpoint) -> Result<u8, String> {
    let Checkpoint::Show(options) = asked;
    text::with_output(|out| show(options, out))
}

/// What a whole checkpoint holds.
#[derive(Default)]
struct Held {
    covered: Covered,
    /// Whether it has what only this library writes.
    is_ours: bool,
    keys: u64,
    tombstones: u64,
    newest: Timestamp,
}

/// The same for a script.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Checkpoint {
        path: String,
        verdict: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        held: Option<HeldLine>,
        #[serde(skip_serializing_if = "Option::is_none")]
        fits: Option<bool>,
        sentences: Vec<String>,
    },
    Key {
        key: String,
        value_length: usize,
        timestamp: u64,
    },
    Tombstone {
        key: String,
        timestamp: u64,
    },
}

#[derive(Serialize)]
struct HeldLine {
    offset: u64,
    /// A lesson's checkpoint does not say them.
    lsn: Option<u64>,
    history: Option<String>,
    keys: u64,
    tombstones: u64,
    newest_timestamp: u64,
}

fn show(options: &Show, out: &mut Out) -> Result<u8, Stop> {
    let path = &options.path;
    check_magic(path)?;
    let held = match read(path) {
        Ok(held) => held,
        Err(Error::Io(error)) => return Err(Stop::Failed(text::about(path, &Error::Io(error)))),
        Err(error) => {
            let sentence = format!("{}.", text::about(path, &error).replacen(": ", ": damaged: ", 1));
            say(options, None, None, vec![sentence], out)?;
            return Ok(1);
        }
    };
    let mut sentences = vec![format!("{}: {}", path.display(), sentence(&held))];
    let mut fits = None;
    if let Some(wal) = &options.wal {
        let log = text::open_log(wal)?;
        let found = fit(&held.covered, log.storage(), log.origin()).map_err(|error| text::about(wal, &error))?;
        fits = Some(matches!(found, Fit::Fits { .. }));
        sentences.push(format!("{}: {}", wal.display(), fit_sentence(&found, &held.covered)));
    }
    say(options, Some(&held), fits, sentences, out)?;
    if options.keys {
        keys(options, out)?;
    }
    Ok(u8::from(fits == Some(false)))
}

/// Refuses what is no checkpoint at all.
fn check_magic(path: &Path) -> Result<(), String> {
    text::check_kind(path)?;
    let mut front = [0; 4];
    let mut read = || file::open_read(path)?.read_at(&mut front, 0);
    read().map_err(|error| text::about(path, &error.into()))?;
    if &front == b"CKPT" {
        return Ok(());
    }
    Err(format!("{}: not a checkpoint: it does not begin with CKPT", path.display()))
}

fn read(path: &Path) -> logship::Result<Held> {
    let found = checkpoint::open(path)?;
    let mut held = Held { covered: found.covered, is_ours: found.crc().is_some(), ..Held::default() };
    found.for_each(|entry| {
        let number = if entry.value.is_some() { &mut held.keys } else { &mut held.tombstones };
        *number += 1;
        held.newest = held.newest.max(entry.timestamp);
        Ok(())
    })?;
    Ok(held)
}

fn sentence(held: &Held) -> String {
    let Covered { offset, lsn, history } = held.covered;
    let keys = count(held.keys, "key");
    match (held.is_ours, lsn) {
        (false, _) => format!(
            "whole: {keys}; it covers the log up to byte {offset} and says nothing more: written by a lesson's code."
        ),
        (true, Lsn::ZERO) => format!(
            "whole: {keys} and {}; it covers the log up to byte {offset} and does not say which record that is.",
            count(held.tombstones, "tombstone")
        ),
        (true, lsn) => format!(
            "whole: {keys} and {}; it covers the log up to LSN {lsn}, byte {offset}, history {history}.",
            count(held.tombstones, "tombstone")
        ),
    }
}

fn fit_sentence(found: &Fit, covered: &Covered) -> String {
    let lsn = covered.lsn;
    match found {
        Fit::Fits { lsn, behind } => {
            format!("the checkpoint fits: recovery replays the {} behind LSN {lsn}.", count(*behind, "record"))
        }
        Fit::PastTheEnd { last } => {
            format!("the checkpoint does not fit: the last whole record of the log in front of it is LSN {last}.")
        }
        Fit::OtherPast { history } => format!(
            "the checkpoint does not fit: the log's history at LSN {lsn} is {history}, so it is another log, or has \
             another past."
        ),
        Fit::TooOld { base } => {
            format!("the checkpoint does not fit: the log begins after LSN {base}, and it covers less.")
        }
        Fit::NoBoundary => format!("the checkpoint does not fit: no record begins at byte {}.", covered.offset),
        Fit::Unknown => {
            "the checkpoint does not fit: the log was compacted, and it does not say which records it covers."
                .to_owned()
        }
    }
}

fn say(
    options: &Show,
    held: Option<&Held>,
    fits: Option<bool>,
    sentences: Vec<String>,
    out: &mut Out,
) -> Result<(), Stop> {
    if !options.json {
        for sentence in sentences {
            writeln!(out, "{sentence}")?;
        }
        return Ok(());
    }
    let held = held.map(|held| HeldLine {
        offset: held.covered.offset,
        lsn: (held.covered.lsn > Lsn::ZERO).then_some(held.covered.lsn.0),
        history: (held.covered.lsn > Lsn::ZERO).then(|| held.covered.history.to_string()),
        keys: held.keys,
        tombstones: held.tombstones,
        newest_timestamp: held.newest.0,
    });
    let verdict = if held.is_some() { "whole" } else { "damaged" };
    let path = options.path.to_string_lossy().into_owned();
    Ok(text::json_line(out, &Line::Checkpoint { path, verdict, held, fits, sentences })?)
}

/// Prints a line for each key, and for each tombstone.
fn keys(options: &Show, out: &mut Out) -> Result<(), Stop> {
    let wrong = |error: Error| text::about(&options.path, &error);
    let found = checkpoint::open(&options.path).map_err(wrong)?;
    let mut stop = None;
    let done = found.for_each(|entry| {
        // Any error ends the walk; which one it was is kept beside.
        key(options, &entry, out).map_err(|error| {
            stop = Some(error);
            Error::Refused("stopped")
        })
    });
    match stop {
        Some(stop) => Err(stop),
        None => Ok(done.map_err(wrong)?),
    }
}

fn key(options: &Show, entry: &Entry<'_>, out: &mut Out) -> Result<(), Stop> {
    let (key, timestamp) = (escaped(entry.key), entry.timestamp.0);
    match entry.value.map(<[u8]>::len) {
        Some(value_length) if options.json => text::json_line(out, &Line::Key { key, value_length, timestamp })?,
        None if options.json => text::json_line(out, &Line::Tombstone { key, timestamp })?,
        Some(len) => writeln!(out, "{timestamp:>20} {len:>6}  \"{key}\"")?,
        None => writeln!(out, "{timestamp:>20}    DEL  \"{key}\"")?,
    }
    Ok(())
}
