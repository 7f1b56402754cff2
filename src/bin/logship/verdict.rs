//! What one run of a check came to.

use crate::args::Limits;
use crate::sandbox::{End, Outcome};

/// The verdict, and for a failure the words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Fail {
        what: String,
        expected: String,
        seen: String,
    },
    /// Nobody can tell, and why.
    Open(String),
}

impl Verdict {
    pub(crate) fn fail(what: &str, expected: &str, seen: impl Into<String>) -> Verdict {
        Verdict::Fail { what: what.to_owned(), expected: expected.to_owned(), seen: seen.into() }
    }

    /// From the file that the check has written, and how it ended. A failure that it wrote itself says the most; else
    /// the program must have ended as a check does, or something in the student's code ended it.
    /// Only a pass with this run's word counts.
    pub(crate) fn of(written: &str, word: &str, outcome: &Outcome, limits: &Limits) -> Verdict {
        let failure = written.lines().find_map(|line| line.strip_prefix("FAIL\t"));
        if let Some(failure) = failure {
            let mut fields = failure.split('\t');
            let mut next = || fields.next().unwrap_or("").to_owned();
            return Verdict::Fail { what: next(), expected: next(), seen: next() };
        }
        let passed = written.lines().any(|line| line.strip_prefix("PASS\t") == Some(word));
        if !passed && written.lines().any(|line| line.starts_with("PASS")) {
            return Verdict::fail("the verdict", "the check's own", "one that the check has not given");
        }
        match (&outcome.end, passed) {
            (End::Exit(0), true) => Verdict::Pass,
            (End::Exit(code), false) => Verdict::fail(
                "the check's end",
                "it comes to a verdict",
                format!("exit({code}) ended the program before"),
            ),
            (end, _) => Verdict::fail("the program", "it ends by itself", end.words(limits)),
        }
    }

    /// The same for a run under valgrind: a log of it has errors, or nothing but what valgrind says of itself.
    pub(crate) fn under_valgrind(self, logs: &[String]) -> Verdict {
        match logs.iter().find_map(|log| first_complaint(log)) {
            // What the check itself has seen says more than what became of the memory on the way out.
            Some(_) if self != Verdict::Pass => self,
            Some(complaint) => Verdict::fail("memory, as valgrind sees it", "no error, no leak", complaint),
            None => self,
        }
    }
}

/// The last line that a program printed, if it printed any: an assertion, malloc's complaint.
pub(crate) fn last_line(output: &str) -> Option<String> {
    let line = output.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|character| !character.is_control()).take(200).collect())
}

/// Valgrind's first error with the student's line: "Invalid read of size 1 at wal_record_decode (wal_record.c:88)". Its
/// errors stand behind ==PID==, a word about a system call that it does not know behind --PID--.
fn first_complaint(log: &str) -> Option<String> {
    let mut lines =
        log.lines().filter_map(|line| line.strip_prefix("==")?.split_once("== ")).map(|(_, text)| text.trim());
    let complaint = lines.find(|line| !line.is_empty())?;
    // The first place with a line number that is no allocator's.
    let place = lines.find(|line| {
        let is_frame = line.starts_with("at 0x") || line.starts_with("by 0x");
        is_frame && line.contains(".c:") && !line.contains("vg_replace") && !line.contains("check.h")
    });
    match place.and_then(|line| line.split_once(": ")) {
        Some((_, place)) => Some(format!("{complaint} at {place}")),
        None => Some(complaint.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::limits;
    use std::time::Duration;

    fn verdict(written: &str, end: End) -> Verdict {
        let outcome = Outcome { end, output: String::new() };
        Verdict::of(written, "word", &outcome, &limits(Duration::from_secs(5)))
    }

    #[test]
    fn a_pass_takes_the_word_and_the_exit_code() {
        assert!(verdict("PASS\tword\n", End::Exit(0)) == Verdict::Pass);
        for (written, end) in [
            ("PASS\tword\n", End::Exit(1)),
            ("PASS\tword\n", End::Signal("SIGSEGV".to_owned())),
            ("PASS\tword\n", End::Deadline),
            ("", End::Exit(0)),
            ("PASSED\n", End::Exit(0)),
            ("PASS\n", End::Exit(0)),
            ("PASS\tanother\n", End::Exit(0)),
            ("PASS\tword\nFAIL\ta\tb\tc\n", End::Exit(0)),
        ] {
            assert_ne!(verdict(written, end), Verdict::Pass, "{written}");
        }
    }

    #[test]
    fn a_failure_has_the_checks_own_words_however_the_program_ended() {
        let seen = verdict("FAIL\tsize\t27\t26\n", End::Signal("SIGKILL".to_owned()));
        assert_eq!(seen, Verdict::fail("size", "27", "26"));
    }

    #[test]
    fn valgrinds_first_complaint_names_the_line() {
        let log = "==7== Invalid read of size 1\n==7==    at 0x48: memcpy (vg_replace_strmem.c:1)\n\
                   ==7==    by 0x10: wal_record_decode (wal_record.c:88)\n==7== \n";
        let seen = Verdict::Pass.under_valgrind(&[String::new(), log.to_owned()]);
        let line = "Invalid read of size 1 at wal_record_decode (wal_record.c:88)";
        assert_eq!(seen, Verdict::fail("memory, as valgrind sees it", "no error, no leak", line));
        let unknown = "--7-- WARNING: unhandled amd64-linux syscall: 434\n".to_owned();
        assert_eq!(Verdict::Pass.under_valgrind(&[String::new(), unknown]), Verdict::Pass);
    }
}
