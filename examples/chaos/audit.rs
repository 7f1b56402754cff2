//! A look at the followers' files in the middle of a run: what was acknowledged must be on a quorum's disks at once,
//! not only when all is healed.

use crate::schedule::{FOLLOWERS, Node};
use logship::storage::Storage as _;
use logship::storage::file;
use logship::wal::origin;
use logship::wal::scan;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// What an auditor remembers.
#[derive(Debug, Default)]
pub(crate) struct Auditor {
    /// How far the ledger was read, and the highest acknowledged LSN up to there.
    read: u64,
    acked: u64,
    /// Followers whose records the drill has taken away, until they have them again: they may have been a part of the
    /// quorum. Whether they have joined since.
    distrusted: BTreeMap<Node, bool>,
}

impl Auditor {
    /// The drill changes this follower's log.
    pub(crate) fn distrust(&mut self, node: Node) {
        self.distrusted.insert(node, false);
    }

    /// The leader has taken this follower: its log is the leader's, as far as it goes.
    pub(crate) fn joined(&mut self, node: Node) {
        if let Some(joined) = self.distrusted.get_mut(&node) {
            *joined = true;
        }
    }

    /// The highest LSN that the ledger says was acknowledged.
    pub(crate) fn last_acked(&mut self, ledger: &Path) -> Result<u64, String> {
        let mut text = String::new();
        let read = File::open(ledger).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_string(&mut text)
        });
        read.map_err(|error| format!("{}: {error}", ledger.display()))?;
        // What is behind the last line feed comes with the next look.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        self.read += whole.len() as u64;
        for line in whole.lines().filter(|line| line.starts_with("A ")) {
            let lsn = line.split(' ').nth(2).and_then(|word| word.parse().ok()).unwrap_or(0);
            self.acked = self.acked.max(lsn);
        }
        Ok(self.acked)
    }

    /// Says what is wrong, if anything: too few followers have the record `acked` in their logs.
    pub(crate) fn audit(&mut self, acked: u64, wals: &[(Node, PathBuf)]) -> Option<String> {
        let lasts: Vec<_> = wals.iter().map(|(node, path)| (*node, last_lsn(path))).collect();
        self.judge(acked, &lasts)
    }

    fn judge(&mut self, acked: u64, lasts: &[(Node, u64)]) -> Option<String> {
        let has = |node: &Node| lasts.iter().any(|(other, last)| other == node && *last >= acked);
        self.distrusted.retain(|node, joined| !(*joined && has(node)));
        let trusted = lasts.iter().filter(|(node, _)| has(node) && !self.distrusted.contains_key(node)).count();
        let quorum = usize::from(FOLLOWERS) / 2 + 1;
        (trusted + self.distrusted.len() < quorum).then(|| {
            let lasts: Vec<_> = lasts.iter().map(|(node, last)| format!("{node} has {last}")).collect();
            format!("LSN {acked} was acknowledged and is not on {quorum} followers' disks: {}", lasts.join(", "))
        })
    }
}

/// The last whole record of a log that its owner may be writing to; 0 for none.
fn last_lsn(path: &Path) -> u64 {
    let read = || -> logship::Result<u64> {
        let log = file::open_read(path)?;
        let first = origin::of(&log)?.first();
        let end = scan::scan(&log, first, log.len()?, |_| Ok(()))?;
        Ok(end.last().0)
    };
    read().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lasts(numbers: [u64; 3]) -> Vec<(Node, u64)> {
        (1..).map(Node::Follower).zip(numbers).collect()
    }

    #[test]
    fn a_record_on_too_few_disks_is_seen_unless_the_drill_took_it_away() {
        let mut auditor = Auditor::default();
        assert_eq!(auditor.judge(7, &lasts([7, 3, 9])), None);
        assert!(auditor.judge(7, &lasts([7, 3, 6])).unwrap().contains("follower-3 has 6"));
        auditor.distrust(Node::Follower(2));
        assert_eq!(auditor.judge(7, &lasts([7, 3, 6])), None);
        assert!(auditor.judge(7, &lasts([1, 9, 6])).is_some(), "what a distrusted one has is not the leader's");
        auditor.joined(Node::Follower(2));
        assert_eq!(auditor.judge(7, &lasts([1, 9, 7])), None);
        assert!(auditor.judge(10, &lasts([1, 9, 10])).is_some(), "it is trusted again");
    }

    #[test]
    fn the_ledger_is_read_as_far_as_its_lines_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut auditor = Auditor::default();
        std::fs::write(&path, "\nL 1\nS 1 a\nA 1 5\nS 2 b\nA 2 1").unwrap();
        assert_eq!(auditor.last_acked(&path), Ok(5));
        std::fs::write(&path, "\nL 1\nS 1 a\nA 1 5\nS 2 b\nA 2 17\n").unwrap();
        assert_eq!(auditor.last_acked(&path), Ok(17));
    }
}
