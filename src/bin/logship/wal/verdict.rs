//! What a log is, in one sentence and in JSON.

use crate::text::count;
use logship::Lsn;
use logship::wal::judge::{self, Reason};
use logship::wal::survey::{Survey, Verdict};
use serde::Serialize;

/// The exit status that tells it.
pub(super) fn status(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Whole => 0,
        Verdict::Torn | Verdict::Damaged => 1,
        Verdict::NoLog => 2,
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Whole => "whole",
        Verdict::Torn => "torn",
        Verdict::Damaged => "damaged",
        Verdict::NoLog => "no log",
    }
}

/// "10 records (LSN 1 to 10)".
pub(super) fn records(base: Lsn, last: Lsn) -> String {
    match last.since(base) {
        0 => "no record".to_owned(),
        1 => format!("1 record (LSN {last})"),
        number => format!("{} (LSN {} to {last})", count(number, "record"), base.next()),
    }
}

/// The one sentence.
pub(super) fn sentence(survey: &Survey) -> String {
    let (offset, last, base) = (survey.end.next.offset, survey.end.last(), survey.base);
    let before = records(base, last);
    let (all, rest) = (count(survey.len, "byte"), count(survey.len - offset, "byte"));
    let behind = match survey.behind.records {
        0 => "no whole record".to_owned(),
        number => format!("{} in {}", count(number, "whole record"), count(survey.behind.runs, "run")),
    };
    match survey.verdict() {
        Verdict::Whole if survey.len == 0 => "whole: an empty log.".to_owned(),
        Verdict::Whole if base > Lsn::ZERO => {
            format!("whole: {before} in {all}; compacted, so it needs a checkpoint that covers LSN {base}.")
        }
        Verdict::Whole => format!("whole: {before} in {all}."),
        Verdict::Torn => format!(
            "torn at offset {offset}: {before} before it, and in the {rest} from there {behind}; opening the log keeps \
             a copy of them and cuts them off."
        ),
        Verdict::Damaged => match survey.tail {
            judge::Verdict::Refused(reason @ Reason::Shortened(..)) if !survey.end.damaged => {
                format!("shortened: {before} in {all}; opening the log is refused: {reason}.")
            }
            judge::Verdict::Refused(reason) => format!(
                "damaged at offset {offset}: {before} before it, and in the {rest} from there {behind}; opening the \
                 log is refused: {reason}."
            ),
            _ => format!("damaged at offset {offset}: {before} before it; opening the log is refused."),
        },
        Verdict::NoLog => format!("not a log: it does not begin with a record, and none is in its {all}."),
    }
}

/// The same for a script.
#[derive(Serialize)]
pub(super) struct Said {
    path: String,
    verdict: &'static str,
    bytes: u64,
    base_lsn: u64,
    last_lsn: u64,
    records: u64,
    sets: u64,
    dels: u64,
    newest_timestamp: u64,
    history: String,
    /// The last record that was known to be durable.
    durable_lsn: Option<u64>,
    /// Bytes of the whole records: where damage begins, if there is any.
    whole_bytes: u64,
    /// Whole records behind the damage.
    behind_records: u64,
    behind_bytes: u64,
    behind_runs: u64,
    sentence: String,
}

impl Said {
    pub(super) fn of(path: &std::path::Path, survey: &Survey) -> Said {
        Said {
            path: path.to_string_lossy().into_owned(),
            verdict: word(survey.verdict()),
            bytes: survey.len,
            base_lsn: survey.base.0,
            last_lsn: survey.end.last().0,
            records: survey.records(),
            sets: survey.sets,
            dels: survey.dels,
            newest_timestamp: survey.newest.0,
            history: survey.history.to_string(),
            durable_lsn: survey.durable.map(|lsn| lsn.0),
            whole_bytes: survey.end.next.offset,
            behind_records: survey.behind.records,
            behind_bytes: survey.behind.bytes,
            behind_runs: survey.behind.runs,
            sentence: sentence(survey),
        }
    }
}
