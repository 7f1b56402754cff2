//! `logship wal dump`: a line for each record, and behind damage for each whole record that is found there.

use super::verdict;
use crate::args::tools::Dump;
use crate::text::{self, Out, Stop, count, escaped};
use logship::storage::{Storage, file};
use logship::wal::origin::MARKER_LEN;
use logship::wal::survey::{self, Broken, Verdict};
use logship::{Error, LogReader, Lsn, Op, Record};
use serde::Serialize;
use std::io::Write as _;

/// What a walk through the log comes to.
enum Walked {
    /// The range, or the number of records, that was asked for.
    Enough,
    End {
        last: Lsn,
    },
    Broken {
        offset: u64,
        after: Lsn,
    },
}

/// What is printed.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Record {
        /// Not known behind damage.
        lsn: Option<u64>,
        offset: u64,
        length: usize,
        crc: String,
        crc_ok: bool,
        op: &'static str,
        timestamp: u64,
        key: String,
        value_length: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
    },
    /// The first place that holds no whole record.
    Damage {
        offset: u64,
        after_lsn: u64,
        bytes_left: u64,
        length: Option<usize>,
        crc: Option<String>,
        actual_crc: Option<String>,
        crc_ok: bool,
        what: String,
    },
    /// What stands before the first record does not tell any more where the log begins, so no record has an LSN.
    Unplaced { what: String },
    /// Behind damage, bytes that are no record.
    Gap { offset: u64, length: u64 },
    /// The log ends here, and ends well.
    End { offset: u64, last_lsn: u64 },
}

pub(super) fn run(options: &Dump, out: &mut Out) -> Result<u8, Stop> {
    text::check_kind(&options.path)?;
    let mut printer = Printer { options, out, printed: 0, has_head: options.json };
    let reader = match LogReader::open(&options.path) {
        Ok(reader) => reader,
        Err(Error::Io(error)) => return Err(printer.wrong(&Error::Io(error))),
        Err(error) => {
            let storage = file::open_read(&options.path).map_err(|error| printer.wrong(&error.into()))?;
            printer.print(&Line::Unplaced { what: error.to_string() })?;
            printer.search(&storage, MARKER_LEN as u64)?;
            return Ok(1);
        }
    };
    let len = reader.len().map_err(|error| printer.wrong(&error))?;
    match printer.walk(&reader)? {
        Walked::Enough => Ok(0),
        Walked::End { last } => {
            printer.print(&Line::End { offset: len, last_lsn: last.0 })?;
            Ok(0)
        }
        Walked::Broken { offset, after } => {
            printer.is_log(&reader, offset)?;
            printer.damage(&reader, offset, after)?;
            printer.search(reader.storage(), offset + 1)?;
            Ok(1)
        }
    }
}

struct Printer<'a> {
    options: &'a Dump,
    out: &'a mut Out,
    printed: u64,
    has_head: bool,
}

impl Printer<'_> {
    fn is_full(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.printed >= limit)
    }

    fn wrong(&self, error: &Error) -> Stop {
        Stop::Failed(text::about(&self.options.path, error))
    }

    /// Prints the records of the range, up to the first place that holds no whole one.
    fn walk(&mut self, reader: &LogReader) -> Result<Walked, Stop> {
        let mut last = reader.base_lsn();
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(Error::Damaged { offset, after } | Error::Unfinished { offset, after }) => {
                    return Ok(Walked::Broken { offset, after });
                }
                Err(error) => return Err(self.wrong(&error)),
            };
            if self.options.to.is_some_and(|to| record.lsn.0 > to) || self.is_full() {
                return Ok(Walked::Enough);
            }
            last = record.lsn;
            if self.options.from.is_none_or(|from| last.0 >= from) {
                self.record(Some(last), record.offset, record.len, record.crc, &record.record())?;
            }
        }
        Ok(Walked::End { last })
    }

    /// Refuses a file that begins with no record and has none.
    fn is_log(&self, reader: &LogReader, offset: u64) -> Result<(), Stop> {
        if offset > 0 {
            return Ok(());
        }
        let found = survey::survey(reader.storage(), reader.origin(), |_| ()).map_err(|error| self.wrong(&error))?;
        match found.verdict() {
            Verdict::NoLog => {
                Err(Stop::Failed(format!("{}: {}", self.options.path.display(), verdict::sentence(&found))))
            }
            _ => Ok(()),
        }
    }

    /// Prints what whole records are found from byte `from` on.
    fn search(&mut self, storage: &impl Storage, from: u64) -> Result<(), Stop> {
        let mut stop = None;
        let mut expected = None;
        let searched = survey::search(storage, from, |found| {
            if self.is_full() {
                return Err(Error::Refused("enough"));
            }
            let printed = self
                .gap(expected, found.offset)
                .and_then(|()| self.record(None, found.offset, found.len, found.crc, &found.record));
            expected = Some(found.offset + found.len as u64);
            // Any error ends the search; which one it was is kept beside.
            printed.map_err(|error| {
                stop = Some(error);
                Error::Refused("stopped")
            })
        });
        match (searched, stop) {
            (Err(_), Some(stop)) => Err(stop),
            (Err(Error::Refused(_)), None) => Ok(()),
            (Err(error), None) => Err(self.wrong(&error)),
            (Ok(()), _) => {
                let len = storage.len().map_err(|error| self.wrong(&error.into()))?;
                self.gap(expected, len)
            }
        }
    }

    /// Bytes between two records behind damage.
    fn gap(&mut self, from: Option<u64>, to: u64) -> Result<(), Stop> {
        match from {
            Some(offset) if offset < to => self.print(&Line::Gap { offset, length: to - offset }),
            _ => Ok(()),
        }
    }

    fn record(
        &mut self,
        lsn: Option<Lsn>,
        offset: u64,
        length: usize,
        crc: u32,
        record: &Record<'_>,
    ) -> Result<(), Stop> {
        self.printed += 1;
        let is_set = record.op == Op::Set;
        self.print(&Line::Record {
            lsn: lsn.map(|lsn| lsn.0),
            offset,
            length,
            crc: hex(crc),
            crc_ok: true,
            op: if is_set { "SET" } else { "DEL" },
            timestamp: record.timestamp.0,
            key: escaped(record.key),
            value_length: record.value.len(),
            value: (self.options.values && is_set).then(|| escaped(record.value)),
        })
    }

    fn damage(&mut self, reader: &LogReader, offset: u64, after: Lsn) -> Result<(), Stop> {
        let look = || Ok((survey::broken_at(reader.storage(), offset)?, reader.len()?.saturating_sub(offset)));
        let (broken, left) = look().map_err(|error| self.wrong(&error))?;
        self.print(&Line::Damage {
            offset,
            after_lsn: after.0,
            bytes_left: left,
            length: broken.declared,
            crc: broken.stored_crc.map(hex),
            actual_crc: broken.actual_crc.map(hex),
            crc_ok: false,
            what: what_is_wrong(&broken, left),
        })
    }

    fn print(&mut self, line: &Line) -> Result<(), Stop> {
        if self.options.json {
            return Ok(text::json_line(self.out, line)?);
        }
        if !self.has_head {
            self.has_head = true;
            let (lsn, offset, length, stamp) = ("LSN", "OFFSET", "LENGTH", "TIME STAMP");
            writeln!(self.out, "{lsn:>9} {offset:>12} {length:>6}  CRC          OP  {stamp:>20} {:>6}  KEY", "VALUE")?;
        }
        self.row(line)
    }

    fn row(&mut self, line: &Line) -> Result<(), Stop> {
        match line {
            Line::Record { lsn, offset, length, crc, op, timestamp, key, value_length, value, .. } => {
                let lsn = lsn.map_or("?".to_owned(), |lsn| lsn.to_string());
                write!(
                    self.out,
                    "{lsn:>9} {offset:>12} {length:>6}  {crc} ok  {op} {timestamp:>21} {value_length:>6}"
                )?;
                write!(self.out, "  \"{key}\"")?;
                match value {
                    Some(value) => writeln!(self.out, " = \"{value}\"")?,
                    None => writeln!(self.out)?,
                }
            }
            Line::Damage { offset, after_lsn, what, .. } => {
                writeln!(self.out, "-- offset {offset}, after LSN {after_lsn}: no whole record: {what}")?;
            }
            Line::Unplaced { what } => writeln!(self.out, "-- where the log begins is not known: {what}")?,
            Line::Gap { offset, length } => {
                writeln!(self.out, "-- offset {offset}: no record in {}", count(*length, "byte"))?;
            }
            Line::End { offset, last_lsn } => writeln!(self.out, "-- offset {offset}, after LSN {last_lsn}: the end")?,
        }
        Ok(())
    }
}

fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}

/// Why there is no whole record, of whose bytes `left` are there.
fn what_is_wrong(broken: &Broken, left: u64) -> String {
    match (broken.declared, broken.actual_crc) {
        (None, _) if left < 8 => format!("the log ends after {} of it", count(left, "byte")),
        (None, _) => "no record has the length that stands there".to_owned(),
        (Some(len), None) => format!("the log ends after {left} of its {len} bytes"),
        (Some(len), Some(actual)) if broken.stored_crc == Some(actual) => {
            format!("its {len} bytes have no such fields")
        }
        (Some(len), Some(actual)) => {
            format!(
                "its CRC is {}, that of its {len} bytes {}",
                hex(broken.stored_crc.unwrap_or_default()),
                hex(actual)
            )
        }
    }
}
