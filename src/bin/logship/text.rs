//! What the tools that look at files share: opening with one clear line, text that a terminal and a script can read, a
//! bar, a question.

use indicatif::{ProgressBar, ProgressStyle};
use logship::{Error, LogReader};
use serde::Serialize;
use std::fmt::Display;
use std::fs::FileType;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// A file shorter than this is read before anybody has looked at a bar.
const BAR_FROM: u64 = 256 * 1024 * 1024;

/// How a tool ends that does not reach its end.
pub(crate) enum Stop {
    /// Nobody reads the output any more, as behind `| head`. That is no failure.
    Unread,
    /// With this line.
    Failed(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Unread,
            _ => Stop::Failed(format!("standard output: {}", words(&error))),
        }
    }
}

impl From<String> for Stop {
    fn from(line: String) -> Stop {
        Stop::Failed(line)
    }
}

/// Standard output, a large piece at a time.
pub(crate) type Out = BufWriter<StdoutLock<'static>>;

/// Runs a tool: `Ok` is its exit status. What it has to print is printed then.
pub(crate) fn with_output(tool: impl FnOnce(&mut Out) -> Result<u8, Stop>) -> Result<u8, String> {
    // The tools say themselves what is wrong with a log.
    logship::diag::set_sink(Some(|_, _| ()));
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let mut status = 0;
    let done = tool(&mut out).and_then(|code| {
        status = code;
        Ok(out.flush()?)
    });
    match done {
        Ok(()) | Err(Stop::Unread) => {
            // What is left in the buffer nobody reads.
            drop(out.into_parts());
            Ok(status)
        }
        Err(Stop::Failed(line)) => {
            out.flush().unwrap_or_default();
            drop(out.into_parts());
            Err(line)
        }
    }
}

/// An error of the system in its own words.
fn words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| nix::Error::from_raw(number).desc().to_owned())
}

/// A line about a file.
pub(crate) fn about(path: &Path, error: &Error) -> String {
    let what = match error {
        Error::Io(error) => words(error),
        Error::Malformed(what) => (*what).to_owned(),
        Error::Locked => "another process has the log open; nothing was changed".to_owned(),
        Error::Refused(what) => format!("{what}; nothing was changed"),
        other => other.to_string(),
    };
    format!("{}: {what}", path.display())
}

/// Refuses what is no file, and says what it is.
pub(crate) fn check_kind(path: &Path) -> Result<(), String> {
    let line = |what: &str| format!("{}: {what}", path.display());
    let kind = std::fs::metadata(path).map_err(|error| line(&words(&error)))?.file_type();
    if kind.is_file() { Ok(()) } else { Err(line(&format!("not a file but {}", kind_name(kind)))) }
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Opens a log for reading only.
pub(crate) fn open_log(path: &Path) -> Result<LogReader, String> {
    check_kind(path)?;
    LogReader::open(path).map_err(|error| about(path, &error))
}

/// One JSON value as one line.
pub(crate) fn json_line(out: &mut Out, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// Bytes as in a Rust byte string, without the quotation marks.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A number with its noun: "1 record", "12,345 records".
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// A number as people read it: 12,345.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A bar on standard error over the bytes of a long file; none if that is no terminal.
pub(crate) fn bar(len: u64) -> ProgressBar {
    if len < BAR_FROM || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left");
    ProgressBar::new(len).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Whether the person at the terminal says yes; `false` if there is none.
pub(crate) fn says_yes(out: &mut Out, question: impl Display) -> Result<bool, Stop> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    write!(out, "{question} [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!((count(1, "record"), count(2, "byte")), ("1 record".to_owned(), "2 bytes".to_owned()));
    }
}
