//! `logship wal verify`: every byte is read, and a sentence says what came of it.

use super::verdict::{self, Said};
use crate::args::tools::Verify;
use crate::text::{self, Out, Stop};
use logship::wal::survey::{Verdict, survey};
use std::io::Write as _;

pub(super) fn run(options: &Verify, out: &mut Out) -> Result<u8, Stop> {
    let path = &options.path;
    let reader = text::open_log(path)?;
    let wrong = |error| text::about(path, &error);
    let bar = text::bar(reader.len().map_err(wrong)?);
    let found = survey(reader.storage(), reader.origin(), |bytes| bar.set_position(bytes)).map_err(wrong)?;
    bar.finish_and_clear();
    let verdict = found.verdict();
    if options.json {
        text::json_line(out, &Said::of(path, &found))?;
    } else if verdict == Verdict::NoLog {
        return Err(Stop::Failed(format!("{}: {}", path.display(), verdict::sentence(&found))));
    } else {
        writeln!(out, "{}: {}", path.display(), verdict::sentence(&found))?;
    }
    Ok(verdict::status(verdict))
}
