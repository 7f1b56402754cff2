//! What the writer attempted and what became of it, in a file that outlives the leader's process.
//!
//! Each attempt is one line before the write and one after it, each a write(2) of its own: a SIGKILL loses neither.
//! ```text
//! L <incarnation>            a leader's process begins
//! S <number> <key>           a SET is attempted; its value follows from its number
//! D <number> <key>           a DEL
//! A <number> <lsn>           a quorum has it
//! U <number> <why>           it is in the leader's log and maybe on followers, not committed
//! N <number> <why>           it is in no log
//! ```
//! An attempt without an outcome was cut off by a kill: nothing is known of it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

/// Numbers of one leader process are below those of the next.
pub(crate) const NUMBERS_PER_LIFE: u64 = 1_000_000_000;

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A quorum has it, under this LSN.
    Acked(u64),
    /// It may come to be, or not.
    Unknown,
    /// The leader said that it is in no log.
    Absent,
}

/// One write, by its number: they are attempted in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) number: u64,
    pub(crate) key: String,
    pub(crate) is_set: bool,
    pub(crate) outcome: Outcome,
}

/// The value that the SET of this number writes: no two are equal, lengths differ, and some are long.
pub(crate) fn value_of(number: u64) -> Vec<u8> {
    let mixed = number.wrapping_mul(2_654_435_761);
    let longest = if mixed.is_multiple_of(64) { 60_000 } else { 160 };
    let padding = usize::try_from((mixed >> 8) % longest).unwrap_or(0);
    format!("{number}-{}", "x".repeat(padding)).into_bytes()
}

/// The number of the SET that wrote this value.
pub(crate) fn number_of(value: &[u8]) -> Option<u64> {
    let digits = value.split(|byte| *byte == b'-').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The file, as its writer sees it.
pub(crate) struct Ledger {
    file: File,
}

impl Ledger {
    /// Opens it for a leader's process.
    pub(crate) fn open(path: &Path, incarnation: u64) -> Result<Ledger, String> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let mut ledger = Ledger { file: file.map_err(|error| format!("{}: {error}", path.display()))? };
        // The line feed ends what the last one may have left half-written.
        ledger.line(&format!("\nL {incarnation}"))?;
        Ok(ledger)
    }

    fn line(&mut self, text: &str) -> Result<(), String> {
        let line = format!("{text}\n");
        self.file.write_all(line.as_bytes()).map_err(|error| format!("ledger: {error}"))
    }

    pub(crate) fn attempt(&mut self, number: u64, key: &str, is_set: bool) -> Result<(), String> {
        self.line(&format!("{} {number} {key}", if is_set { 'S' } else { 'D' }))
    }

    pub(crate) fn acked(&mut self, number: u64, lsn: u64) -> Result<(), String> {
        self.line(&format!("A {number} {lsn}"))
    }

    pub(crate) fn unknown(&mut self, number: u64, why: &str) -> Result<(), String> {
        self.line(&format!("U {number} {why}"))
    }

    pub(crate) fn absent(&mut self, number: u64, why: &str) -> Result<(), String> {
        self.line(&format!("N {number} {why}"))
    }
}

/// Reads the whole ledger, in the order of the attempts.
pub(crate) fn read(text: &str) -> Result<Vec<Attempt>, String> {
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut lines = text.lines().zip(1..).peekable();
    while let Some((line, number)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let understood = take(line, &mut attempts, &mut places);
        // Only a kill cuts a line, and then nothing but the next leader's process follows.
        let was_cut = lines.peek().is_none_or(|(next, _)| next.starts_with("L "));
        if understood.is_none() && !was_cut {
            return Err(format!("the ledger's line {number} makes no sense: {line:?}"));
        }
    }
    Ok(attempts)
}

fn take(line: &str, attempts: &mut Vec<Attempt>, places: &mut HashMap<u64, usize>) -> Option<()> {
    let (what, rest) = line.split_once(' ')?;
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = number.parse().ok()?;
    let outcome = match what {
        "L" => return Some(()),
        "S" | "D" => {
            places.insert(number, attempts.len());
            let (key, is_set) = (rest.to_owned(), what == "S");
            attempts.push(Attempt { number, key, is_set, outcome: Outcome::Unknown });
            return Some(());
        }
        "A" => Outcome::Acked(rest.parse().ok()?),
        "U" => Outcome::Unknown,
        "N" => Outcome::Absent,
        _ => return None,
    };
    attempts.get_mut(*places.get(&number)?)?.outcome = outcome;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_line_that_a_kill_cut_is_unknown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut first = Ledger::open(&path, 1).unwrap();
        first.attempt(1, "a", true).unwrap();
        first.acked(1, 7).unwrap();
        first.attempt(2, "b", false).unwrap();
        first.file.write_all(b"A 2").unwrap();
        let mut second = Ledger::open(&path, 2).unwrap();
        second.attempt(3, "a", true).unwrap();
        second.absent(3, "no space").unwrap();
        let attempts = read(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome.clone()).collect();
        assert_eq!(outcomes, [Outcome::Acked(7), Outcome::Unknown, Outcome::Absent]);
        assert!(attempts[0].is_set && !attempts[1].is_set && attempts[1].key == "b");
        assert!(read("S 1 a\nnonsense\nA 1 1\n").is_err());
    }

    #[test]
    fn a_value_says_its_number() {
        for number in [1, 7, NUMBERS_PER_LIFE + 3] {
            assert_eq!(number_of(&value_of(number)), Some(number));
        }
    }
}
