//! Acks that were read early, kept until somebody asks for them, in fixed memory.
//!
//! A leader that is busy sending must read acks meanwhile, or two full socket buffers wait for each other. What it
//! reads belongs to whoever asks next: a quorum wait, or a program that reads acks itself with `recv_full`. So the
//! bytes come out exactly as they came in. Acks that follow each other in step (the next LSN, everything else equal)
//! are one run, so a million of them take the room of one.
#![forbid(unsafe_code)]

use super::message::{ACK_LEN, ACK_OK, Ack};
use crate::types::Lsn;

const RUNS: usize = 1024;

/// `count` acks: `first`, then the same with one LSN more each.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: Ack,
    count: u64,
}

/// A queue of bytes, compressed.
#[derive(Clone, Debug)]
pub struct Inbox {
    runs: [Run; RUNS],
    head: usize,
    used: usize,
    /// The rest of an ack of which somebody took the first bytes.
    front: Partial,
    /// The beginning of an ack whose other bytes have not come yet.
    back: Partial,
}

#[derive(Clone, Copy, Debug)]
struct Partial {
    bytes: [u8; ACK_LEN],
    len: usize,
}

impl Partial {
    const EMPTY: Partial = Partial { bytes: [0; ACK_LEN], len: 0 };

    fn take(&mut self, into: &mut [u8]) -> usize {
        let count = self.len.min(into.len());
        into[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes.copy_within(count..self.len, 0);
        self.len -= count;
        count
    }
}

impl Default for Inbox {
    fn default() -> Inbox {
        let run = Run { first: Ack::plain(Lsn::ZERO, 0), count: 0 };
        Inbox { runs: [run; RUNS], head: 0, used: 0, front: Partial::EMPTY, back: Partial::EMPTY }
    }
}

impl Inbox {
    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.head, self.used) = (0, 0);
        (self.front, self.back) = (Partial::EMPTY, Partial::EMPTY);
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0 && self.front.len == 0 && self.back.len == 0
    }

    /// How many bytes may be pushed now. 0: read nothing more from the socket until somebody takes some.
    #[must_use]
    pub fn room(&self) -> usize {
        ((RUNS - self.used) * ACK_LEN).saturating_sub(self.back.len)
    }

    /// How many bytes of an unfinished ack have come.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        if self.used == 0 && self.front.len == 0 { self.back.len } else { 0 }
    }

    /// Drops the bytes of an unfinished ack.
    pub fn drop_unfinished(&mut self) {
        self.back = Partial::EMPTY;
    }

    /// Adds bytes, no more than [`room`](Inbox::room).
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = (ACK_LEN - self.back.len).min(bytes.len());
            let (now, later) = bytes.split_at(count);
            self.back.bytes[self.back.len..self.back.len + count].copy_from_slice(now);
            self.back.len += count;
            bytes = later;
            if self.back.len == ACK_LEN {
                self.back.len = 0;
                self.push_ack(Ack::decode(self.back.bytes));
            }
        }
    }

    fn push_ack(&mut self, ack: Ack) {
        if self.used > 0 {
            let last = &mut self.runs[(self.head + self.used - 1) % RUNS];
            let in_step = last.first.lsn.plus(last.count) == ack.lsn
                && last.first.status == ack.status
                && last.first.padding == ack.padding;
            if in_step {
                last.count += 1;
                return;
            }
        }
        debug_assert!(self.used < RUNS, "the caller asks for room first");
        if self.used < RUNS {
            self.runs[(self.head + self.used) % RUNS] = Run { first: ack, count: 1 };
            self.used += 1;
        }
    }

    /// Takes the next whole ack.
    pub fn pop_ack(&mut self) -> Option<Ack> {
        if self.front.len == 0 {
            return self.pop_whole();
        }
        // Somebody took some bytes of an ack: the stream goes on at the next byte, and so do we.
        let missing = ACK_LEN - self.front.len;
        if self.used == 0 && self.back.len < missing {
            return None;
        }
        let mut bytes = [0; ACK_LEN];
        self.pop_bytes(&mut bytes);
        Some(Ack::decode(bytes))
    }

    fn pop_whole(&mut self) -> Option<Ack> {
        if self.used == 0 {
            return None;
        }
        let run = &mut self.runs[self.head];
        let ack = run.first;
        run.count -= 1;
        run.first.lsn = ack.lsn.next();
        if run.count == 0 {
            self.head = (self.head + 1) % RUNS;
            self.used -= 1;
        }
        Some(ack)
    }

    /// Takes bytes as they came; returns how many.
    pub fn pop_bytes(&mut self, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() {
            if self.front.len == 0 {
                match self.pop_whole() {
                    Some(ack) => self.front = Partial { bytes: ack.encode(), len: ACK_LEN },
                    None => return done + self.back.take(&mut into[done..]),
                }
            }
            done += self.front.take(&mut into[done..]);
        }
        done
    }

    /// The highest LSN that waiting acks say is durable; nothing is taken.
    #[must_use]
    pub fn highest_ok(&self) -> Lsn {
        let runs = (0..self.used).map(|at| &self.runs[(self.head + at) % RUNS]);
        let ok = runs.filter(|run| run.first.status == ACK_OK && !run.first.is_liveness());
        ok.map(|run| run.first.lsn.plus(run.count - 1)).max().unwrap_or_default()
    }

    /// A whole ack for which `wanted` holds, if one is there; nothing is taken.
    #[must_use]
    pub fn find(&self, wanted: impl Fn(&Ack) -> bool) -> Option<Ack> {
        (0..self.used).map(|at| self.runs[(self.head + at) % RUNS].first).find(wanted)
    }

    /// Takes out every whole ack for which `wanted` holds; returns the last of them.
    pub fn take_last(&mut self, wanted: impl Fn(&Ack) -> bool) -> Option<Ack> {
        let mut last = None;
        self.extract(|ack| {
            let is_wanted = wanted(ack);
            if is_wanted {
                last = Some(*ack);
            }
            is_wanted
        });
        last
    }

    /// Takes out every whole ack for which `wanted` holds and keeps the others in order.
    pub fn extract(&mut self, mut wanted: impl FnMut(&Ack) -> bool) {
        for _ in 0..self.used {
            let run = self.runs[self.head];
            self.head = (self.head + 1) % RUNS;
            self.used -= 1;
            if !wanted(&run.first) {
                self.runs[(self.head + self.used) % RUNS] = run;
                self.used += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::message::{FLAG_LIVENESS, Mark};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            pushes in proptest::collection::vec(proptest::collection::vec(0u8..3, 1..40), 0..60),
            takes in proptest::collection::vec(1usize..40, 0..60),
        ) {
            let mut inbox = Box::<Inbox>::default();
            let (mut model, mut at) = (Vec::new(), 0);
            let mut takes = takes.into_iter();
            for push in pushes {
                inbox.push(&push);
                model.extend_from_slice(&push);
                let mut into = vec![0; takes.next().unwrap_or(0)];
                let count = inbox.pop_bytes(&mut into);
                prop_assert_eq!(count, into.len().min(model.len() - at));
                prop_assert_eq!(&into[..count], &model[at..at + count]);
                at += count;
            }
        }
    }

    #[test]
    fn a_million_acks_in_step_take_one_run() {
        let mut inbox = Box::<Inbox>::default();
        for lsn in 1..=1_000_000u64 {
            inbox.push(&Ack::plain(Lsn(lsn), 0).encode());
        }
        assert_eq!(inbox.used, 1);
        for lsn in 1..=1_000_000u64 {
            assert_eq!(inbox.pop_ack().unwrap().lsn, Lsn(lsn));
        }
        assert!(inbox.is_empty());
    }

    #[test]
    fn liveness_answers_are_taken_out_of_the_middle() {
        let mut inbox = Box::<Inbox>::default();
        inbox.push(&Ack::plain(Lsn(1), 0).encode());
        inbox.push(&Ack::marked(Lsn(1), 0, Mark { node: 0, flags: FLAG_LIVENESS }).encode());
        inbox.push(&Ack::plain(Lsn(2), 0).encode());
        let mut answers = 0;
        inbox.extract(|ack| {
            answers += u32::from(ack.is_liveness());
            ack.is_liveness()
        });
        assert_eq!(answers, 1);
        assert_eq!(inbox.pop_ack().unwrap().lsn, Lsn(1));
        assert_eq!(inbox.pop_ack().unwrap().lsn, Lsn(2));
        assert!(inbox.pop_ack().is_none());
    }
}
