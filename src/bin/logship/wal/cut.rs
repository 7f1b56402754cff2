//! `logship wal truncate` and `logship wal repair`: what a cut would keep and lose, then a question, then the cut.

use super::holders;
use super::verdict::{self, records};
use crate::args::tools::{Change, Repair, Truncate};
use crate::text::{self, Out, Stop, count, escaped, grouped};
use logship::wal::salvage::{self, KEYS_MAX, Plan};
use logship::wal::survey::{Survey, Verdict, survey};
use logship::{LogReader, Lsn};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;

/// Status of a command that has only shown what it would do.
const NOT_DONE: u8 = 1;

pub(super) fn truncate(options: &Truncate, out: &mut Out) -> Result<u8, Stop> {
    let path = &options.path;
    let reader = text::open_log(path)?;
    let plan = plan_of(path, &reader, Lsn(options.to))?;
    if plan.lost_bytes == 0 {
        return nothing_to_do(path, &options.change, out, &format!("it ends with LSN {} already.", plan.to));
    }
    decide(path, &plan, &options.change, out)
}

pub(super) fn repair(options: &Repair, out: &mut Out) -> Result<u8, Stop> {
    let path = &options.path;
    let reader = text::open_log(path)?;
    let bar = text::bar(reader.len().map_err(|error| text::about(path, &error))?);
    let found = survey(reader.storage(), reader.origin(), |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    let found = found.map_err(|error| text::about(path, &error))?;
    let sentence = verdict::sentence(&found);
    match found.verdict() {
        Verdict::Whole => return nothing_to_do(path, &options.change, out, &sentence),
        Verdict::NoLog => return Err(Stop::Failed(format!("{}: {sentence}", path.display()))),
        Verdict::Torn | Verdict::Damaged => {}
    }
    let to = kept_last(path, options.durable, &found)?;
    if !options.change.json {
        writeln!(out, "{}: {sentence}", path.display())?;
    }
    let plan = plan_of(path, &reader, to)?;
    decide(path, &plan, &options.change, out)
}

/// The last record that a repair keeps.
fn kept_last(path: &Path, only_durable: bool, found: &Survey) -> Result<Lsn, String> {
    let durable = match found.durable {
        _ if !only_durable => found.end.last(),
        Some(durable) => durable,
        None => return Err(format!("{}: which records were durable is not known", path.display())),
    };
    let last = durable.min(found.end.last());
    if last > found.base || found.base == Lsn::ZERO {
        return Ok(last);
    }
    Err(format!(
        "{}: the log was compacted and its first record is damaged: without a record it can't tell that it begins \
         behind LSN {}; bring the log and what stands beside it back from one backup, or, on a follower, move them \
         aside and rejoin",
        path.display(),
        found.base
    ))
}

fn plan_of(path: &Path, reader: &LogReader, to: Lsn) -> Result<Plan, String> {
    let wrong = |error| text::about(path, &error);
    let bar = text::bar(reader.len().map_err(wrong)?);
    let plan = salvage::plan(reader.storage(), reader.origin(), to, |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    plan.map_err(wrong)
}

fn nothing_to_do(path: &Path, change: &Change, out: &mut Out, why: &str) -> Result<u8, Stop> {
    if change.json {
        let object = json!({ "path": path.to_string_lossy(), "changed": false, "needed": false });
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "{}: nothing to do: {why}", path.display())?;
    }
    Ok(0)
}

/// Shows the plan, and does it if somebody says yes.
fn decide(path: &Path, plan: &Plan, change: &Change, out: &mut Out) -> Result<u8, Stop> {
    if !change.json {
        show(path, plan, out)?;
    }
    let question = format!("Cut {} behind LSN {}?", path.display(), plan.to);
    if !(change.yes || !change.json && text::says_yes(out, question)?) {
        if change.json {
            writeln!(out, "{}", json_of(path, plan, false, None))?;
        } else {
            writeln!(out, "Nothing was changed. With --yes it is done.")?;
        }
        return Ok(NOT_DONE);
    }
    if let Some(writer) = holders::writers_of(path).first() {
        let line = format!("{}: process {writer} has the log open for writing; nothing was changed", path.display());
        return Err(Stop::Failed(line));
    }
    let kept = salvage::cut(path, plan).map_err(|error| text::about(path, &error))?;
    let name = kept.map(|kept| beside(path, &kept));
    if change.json {
        writeln!(out, "{}", json_of(path, plan, true, name.as_deref()))?;
    } else {
        let kept = name.map(|name| format!(", and {name} has what was cut off")).unwrap_or_default();
        writeln!(out, "Done: the log ends with LSN {}{kept}.", plan.to)?;
    }
    Ok(0)
}

/// The name of a file beside the log, as the log was named.
fn beside(path: &Path, kept: &Path) -> String {
    let same = std::fs::canonicalize(path).is_ok_and(|real| real.file_name() == path.file_name());
    let name = kept.file_name().filter(|_| same).map(|name| path.with_file_name(name));
    name.unwrap_or_else(|| kept.to_path_buf()).display().to_string()
}

fn show(path: &Path, plan: &Plan, out: &mut Out) -> Result<(), Stop> {
    let (to, copy) = (plan.to, format!("{}.cut-N", path.display()));
    writeln!(out, "kept: {}, {}", records(plan.base, to), count(plan.kept_bytes, "byte"))?;
    if plan.lost_bytes == 0 {
        // Somebody has shortened it.
        writeln!(out, "lost: nothing more; from now on the log is what is left")?;
    } else {
        writeln!(out, "lost: {}", lost(plan))?;
    }
    if plan.keys.count > 0 {
        writeln!(out, "      {}", keys(plan))?;
    }
    if plan.lost_bytes > 0 {
        writeln!(out, "What is cut off is kept in {copy}.")?;
    }
    writeln!(
        out,
        "On a follower of a living leader nothing is lost: it rejoins and is sent what comes behind LSN {to}."
    )?;
    Ok(writeln!(out, "On a leader look at the followers' logs first: one that has more should lead.")?)
}

fn lost(plan: &Plan) -> String {
    let known = (plan.lost_to > plan.to).then(|| records(plan.to, plan.lost_to));
    let behind =
        (plan.behind.records > 0).then(|| format!("{} behind the damage", count(plan.behind.records, "whole record")));
    let all: Vec<String> = known.into_iter().chain(behind).collect();
    let bytes = count(plan.lost_bytes, "byte");
    match plan.broken_bytes {
        _ if all.is_empty() => format!("no whole record, {bytes}"),
        0 => format!("{}, {bytes}", all.join(" and ")),
        broken => format!("{}, {bytes} ({} of no whole record)", all.join(" and "), grouped(broken)),
    }
}

fn keys(plan: &Plan) -> String {
    let named: Vec<String> = plan.keys.named.iter().map(|key| format!("\"{}\"", escaped(key))).collect();
    let more = if plan.keys.count > named.len() { ", ..." } else { "" };
    let least = if plan.keys.count >= KEYS_MAX { "at least " } else { "" };
    let number = count(u64::try_from(plan.keys.count).unwrap_or(u64::MAX), "key");
    format!("of {least}{number}: {}{more}", named.join(", "))
}

fn json_of(path: &Path, plan: &Plan, is_done: bool, copy: Option<&str>) -> Value {
    let named: Vec<String> = plan.keys.named.iter().map(|key| escaped(key)).collect();
    json!({
        "path": path.to_string_lossy(),
        "needed": true,
        "changed": is_done,
        "copy": copy,
        "kept": {
            "records": plan.kept_records(),
            "base_lsn": plan.base.0,
            "last_lsn": plan.to.0,
            "bytes": plan.kept_bytes,
        },
        "lost": {
            "records": plan.lost_records(),
            "last_lsn": plan.lost_to.0,
            "behind_damage": plan.behind.records,
            "bytes": plan.lost_bytes,
            "bytes_of_no_record": plan.broken_bytes,
            "keys": plan.keys.count,
            "some_keys": named,
        },
    })
}
