//! What a leader keeps beside one follower's socket. Fixed in size, without a heap pointer, so that the C layer can
//! keep it in memory of its own beside a struct that has no room for it.
#![forbid(unsafe_code)]

use super::io::Deadline;
use super::socket::SocketId;
use crate::replication::frame::{self, Header};
use crate::replication::inbox::Inbox;
use crate::replication::progress::Progress;
use crate::types::Lsn;
use crate::wal::record::RECORD_MAX;
use crate::wal::scan::Position;
use std::fmt::{self, Write};
use std::time::{Duration, Instant};

/// One follower's state.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The socket that the rest is about.
    pub socket: SocketId,
    /// The send deadline that the socket's user timeout follows.
    pub send_ms: i32,
    /// Acks read and not yet asked for.
    pub inbox: Inbox,
    /// What the acks amount to.
    pub progress: Progress,
    /// When the peer was last heard.
    pub heard: Option<Instant>,
    /// The catch-up that goes on, if one does.
    pub catch_up: Option<CatchUp>,
    /// The follower was asked about this record when its catch-up began, and has not answered.
    pub asked: Option<Lsn>,
    /// The last catch-up, while the newest record may have been sent by it.
    pub caught_up: Option<CaughtUp>,
    /// Why the follower was marked offline last.
    pub reason: Text,
    /// Times it was marked offline.
    pub disconnects: u64,
    /// Why it needed a snapshot last.
    pub full_resync: Text,
    /// How its catch-ups ended.
    pub resyncs: Resyncs,
    /// Log lines about its acks.
    pub complaints: Complaints,
}

/// Log lines about one peer, no more than one a second: a peer that sends nonsense without end fills no disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Complaints {
    last: Option<Instant>,
    held_back: u64,
}

impl Complaints {
    /// Counts one. `Some`: it is to be said now, with what is to be said of those before.
    pub fn count(&mut self) -> Option<Text> {
        if self.last.is_some_and(|last| last.elapsed() < COMPLAINT_INTERVAL) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(match std::mem::take(&mut self.held_back) {
            0 => Text::default(),
            more => Text::new(format_args!(", and {more} more since the last line")),
        })
    }
}

const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// How a follower's catch-ups ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resyncs {
    /// Records from the log were enough.
    pub partial: u64,
    /// It got a snapshot first.
    pub full: u64,
    /// It was refused: ahead of the leader, of another past, or its records gone and no checkpoint set.
    pub refused: u64,
}

impl Link {
    /// Forgets the old socket and takes this one.
    pub fn attach(&mut self, socket: SocketId) {
        self.socket = socket;
        self.inbox.clear();
        self.progress.clear();
        self.heard = None;
        (self.catch_up, self.asked, self.caught_up) = (None, None, None);
    }

    /// Counts the waiting acks if the inbox is full, so that it has room again: what a peer says behind them must not
    /// wait for somebody who asks for them.
    pub fn make_room(&mut self) {
        if self.inbox.room() > 0 {
            return;
        }
        while let Some(ack) = self.inbox.pop_ack() {
            self.progress.on_ack(&ack, None);
        }
    }

    /// Forgets what the peer has acknowledged: its records are not the leader's.
    pub fn forget_acks(&mut self) {
        self.inbox.clear();
        self.progress.forget_acks();
    }

    /// Notes that bytes came.
    pub fn hear(&mut self) {
        self.heard = Some(Instant::now());
    }
}

/// Bytes sent beside commits and not yet acknowledged, about: what the follower stores at once. Measured with a million
/// records: commits beside it take 2.2 times as long as alone by their 99th percentile, and the catch-up takes 0.75 s;
/// with 128 KiB 1.9 times and 1.2 s, without a window 5 times and 0.37 s.
const WINDOW: u64 = 256 * 1024;
/// And for each microsecond that a byte and its ack are on their way: 400 Mbit/s.
const WINDOW_PER_US: u64 = 50;
/// Up to here a round trip says more of how soon the peer wakes up than of the way.
const NEAR_US: u32 = 2_000;
/// How long a step waits for acks, though the window is full.
const REST_MS: i32 = 20;
/// How much a step beside commits sends, about: each of them may wait for one.
pub const STEP: usize = 64 * 1024;

/// How far a catch-up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// The record that is sent next, or of which a part has gone out.
    pub at: Position,
    /// Bytes of its frame that have.
    pub sent: usize,
    /// The first record that was sent.
    pub first: Lsn,
    /// Bytes sent so far, frames included.
    pub bytes: u64,
    /// Until then the socket must have taken something.
    pub until: Deadline,
    /// How many bytes may be unacknowledged beside commits.
    pub window: u64,
    /// From then on a step beside commits may send more, whatever is unacknowledged.
    pub rest: Deadline,
    /// And so many bytes may be sent, whatever is unacknowledged.
    pub owed: u64,
    /// A snapshot went first.
    pub has_snapshot: bool,
}

impl CatchUp {
    /// One that begins with the record at `at`, of whose frame `sent` bytes are out already.
    #[must_use]
    pub fn from(at: Position, sent: usize, round_trip_us: u32) -> CatchUp {
        let (until, rest) = (Deadline::send(), Deadline::after_ms(REST_MS));
        let window = WINDOW + WINDOW_PER_US * u64::from(round_trip_us.saturating_sub(NEAR_US));
        CatchUp { at, sent, first: at.lsn, bytes: 0, until, window, rest, owed: 0, has_snapshot: false }
    }

    /// Records sent so far, whole.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.at.lsn.since(self.first)
    }

    /// Whether a step beside commits may send more to a follower that has acknowledged everything up to `acked`: not
    /// while a window's worth is on its way or being stored there. So it stores no more than that at once, and keeps a
    /// disk and a processor, which the commits' followers may share, no longer. One that does not acknowledge what it
    /// stores (it need not, before it has caught up) gets a step now and then, and one whose acks take long gets what
    /// is owed to it.
    #[must_use]
    pub fn may_go_on(&self, acked: Lsn) -> bool {
        let records = self.records();
        let unacked = self.at.lsn.since(acked.next().max(self.first)).min(records);
        // About as many bytes: where each acknowledged record ended is not kept.
        let bytes = self.bytes / records.max(1) * unacked;
        bytes < self.window || self.owed >= STEP as u64 || self.rest.has_passed()
    }

    /// Notes that a record of so many bytes was shipped beside it. Twice that goes to it in any case, or a log that
    /// grows faster than the window lets through would never be caught up with.
    pub fn owe(&mut self, len: usize) {
        self.owed = self.owed.saturating_add(2 * len as u64);
    }

    /// Notes that `count` more bytes went out, which end with the frame of the record before `next`.
    pub fn advance_to(&mut self, next: Position, count: usize) {
        self.note_sent(count);
        (self.at, self.sent) = (next, 0);
    }

    fn note_sent(&mut self, count: usize) {
        self.bytes += count as u64;
        self.owed = self.owed.saturating_sub(count as u64);
        if count > 0 {
            (self.until, self.rest) = (Deadline::send(), Deadline::after_ms(REST_MS));
        }
    }

    /// Notes that so many more bytes of `frames`, which begin with the frame of the record that is sent next, went out.
    pub fn advance(&mut self, frames: &[u8], count: usize) {
        self.note_sent(count);
        let gone = self.sent + count;
        let mut start = 0;
        while let Some(word) = frames.get(start..).and_then(|rest| rest.first_chunk()) {
            let Ok(Header::Record(len)) = frame::header(*word) else { break };
            let end = start + frame::HEADER_LEN + len;
            if end > gone {
                break;
            }
            self.at = Position { offset: self.at.offset + len as u64, lsn: self.at.lsn.next() };
            start = end;
        }
        self.sent = gone - start;
    }
}

/// How a catch-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaughtUp {
    /// The first record it sent, or the one after the last that was shipped since and left out.
    pub next: Lsn,
    /// The last record it sent.
    pub last: Lsn,
}

/// A short text without a heap allocation; what does not fit is cut.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; Text::CAPACITY],
    len: usize,
}

impl Text {
    /// Bytes that fit.
    pub const CAPACITY: usize = 95;

    /// The formatted text.
    #[must_use]
    pub fn new(arguments: fmt::Arguments<'_>) -> Text {
        let mut text = Text::default();
        // Writing to it can't fail.
        let _ = text.write_fmt(arguments);
        text
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Default for Text {
    fn default() -> Text {
        Text { bytes: [0; Text::CAPACITY], len: 0 }
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let mut buffer = [0; 4];
            let encoded = character.encode_utf8(&mut buffer).as_bytes();
            if self.len + encoded.len() > Text::CAPACITY {
                break;
            }
            self.bytes[self.len..self.len + encoded.len()].copy_from_slice(encoded);
            self.len += encoded.len();
        }
        Ok(())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.as_bytes()).unwrap_or(""))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", std::str::from_utf8(self.as_bytes()).unwrap_or(""))
    }
}

/// The record frame that was shipped last, header included: a follower may ask for it again.
#[derive(Clone, Debug)]
pub struct LastFrame {
    bytes: [u8; frame::HEADER_LEN + RECORD_MAX],
    len: usize,
}

impl Default for LastFrame {
    fn default() -> LastFrame {
        LastFrame { bytes: [0; frame::HEADER_LEN + RECORD_MAX], len: 0 }
    }
}

impl LastFrame {
    /// Forgets it.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes a frame of an encoded record; `false` if no record is that long.
    pub fn set(&mut self, encoded: &[u8]) -> bool {
        let Some(header) = frame::record_header(encoded.len()) else { return false };
        self.len = frame::HEADER_LEN + encoded.len();
        self.bytes[..frame::HEADER_LEN].copy_from_slice(&header);
        self.bytes[frame::HEADER_LEN..self.len].copy_from_slice(encoded);
        true
    }

    /// The frame; empty if there is none.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The encoded record in it.
    #[must_use]
    pub fn record(&self) -> &[u8] {
        self.frame().get(frame::HEADER_LEN..).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A catch-up that has sent `count` records of 996 bytes, from LSN 11 on.
    fn after(count: u64, round_trip_us: u32) -> CatchUp {
        let frame = [&frame::record_header(996).unwrap()[..], &[0; 996]].concat();
        let mut state = CatchUp::from(Position { offset: 0, lsn: Lsn(11) }, 0, round_trip_us);
        for _ in 0..count {
            state.advance(&frame, frame.len());
        }
        assert_eq!((state.at.lsn, state.records(), state.bytes), (Lsn(11 + count), count, count * 1000));
        state.rest = Deadline::NEVER;
        state
    }

    #[test]
    fn beside_commits_a_window_of_bytes_is_unacknowledged() {
        let full = WINDOW / 1000 + 1;
        assert!(after(0, 0).may_go_on(Lsn::ZERO));
        assert!(after(full - 1, 0).may_go_on(Lsn(10)));
        assert!(!after(full, 0).may_go_on(Lsn(10)));
        // Whoever has not said where it begins has acknowledged nothing of this.
        assert!(!after(full, 0).may_go_on(Lsn::ZERO));
        assert!(after(full, 0).may_go_on(Lsn(11)));
        assert!(!after(10 * full, 0).may_go_on(Lsn(10 + 9 * full)));
        assert!(after(10 * full, 0).may_go_on(Lsn(11 + 9 * full)));
        assert!(after(10 * full, 0).may_go_on(Lsn(10 + 10 * full)));
    }

    #[test]
    fn twice_what_is_shipped_beside_it_goes_in_any_case() {
        let full = WINDOW / 1000 + 1;
        let mut state = after(full, 0);
        state.owe(30_000);
        assert!(!state.may_go_on(Lsn(10)), "not a step's worth");
        state.owe(3_000);
        assert!(state.may_go_on(Lsn(10)));
        state.advance_to(Position { offset: 1, lsn: state.at.lsn.next() }, 1000);
        state.rest = Deadline::NEVER;
        assert!(!state.may_go_on(Lsn(10)), "a part of it is gone");
    }

    #[test]
    fn a_long_way_has_a_wide_window_and_silence_does_not_stop_a_catch_up() {
        let full = WINDOW / 1000 + 1;
        assert!(after(full, 100_000).may_go_on(Lsn(10)));
        assert!(!after(full + 100 * WINDOW_PER_US, 100_000).may_go_on(Lsn(10)));
        let rested = CatchUp { rest: Deadline::after_ms(0), ..after(full, 0) };
        assert!(rested.may_go_on(Lsn(10)));
    }
}
