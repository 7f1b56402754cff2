//! Streaming a range of the log to one follower, in memory that does not depend on the range.
//!
//! What is known of a catch-up between two steps is a [`CatchUp`] in the follower's link: a record and how much of its
//! frame is out. A step reads records in a large piece, checks and frames them, and sends what the socket takes. So it
//! can be run to its end ([`catch_up`]), or go on beside commits, one step each ([`step`]); acks are drained meanwhile,
//! and two full socket buffers never wait for each other.
#![forbid(unsafe_code)]

use super::io::{self, Deadline, Received};
use super::link::{CatchUp, CaughtUp, Link, STEP, Text};
use super::member::Member;
use super::snapshot::{self, Sent};
use super::sys::{self, POLLIN, POLLOUT, PollFd};
use crate::error::{Error, Result};
use crate::net::socket;
use crate::replication::message::{ACK_DIVERGED, ACK_ELSEWHERE, ACK_LEN, ACK_NOT_STORED, ACK_OK, Ack, Control};
use crate::replication::{frame, rejoin};
use crate::storage::Storage;
use crate::types::{History, Lsn};
use crate::wal::codec;
use crate::wal::record::{self, Next};
use crate::wal::scan::{self, End, Position};
use crate::wal::tail::LogTail;
use std::path::Path;
use std::time::{Duration, Instant};

/// How much is read and sent at once, about, when nothing else waits.
const PIECE: usize = 256 * 1024;
/// And at first, so that the follower begins at once, and that one which lacks little costs few fresh pages of memory.
const FIRST_PIECE: usize = 32 * 1024;
/// Which part of a piece is there for the headers of its frames: enough for records of 64 bytes and more.
const GAP: usize = 16;
/// What is read besides, so that a record which a piece ends in is whole, if it is no large one.
const BESIDE: usize = 4 * 1024;

/// What a catch-up did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records shipped.
    pub records: u64,
    /// Bytes shipped, frames included.
    pub bytes: u64,
    /// The last LSN that was sent, or that the follower had.
    pub last: Lsn,
    /// The snapshot that went first, if the missing records were gone.
    pub snapshot: Option<Sent>,
}

/// A leader's log to catch up from: its bytes, and what is known of them.
#[derive(Clone, Copy)]
pub struct Source<'a, S: Storage> {
    /// The log.
    pub storage: &'a S,
    /// Where it ends, and where records lie.
    pub tail: &'a LogTail,
    /// How it ends: damage may be in the range, and more records behind it.
    pub end: End,
    /// The checkpoint for followers whose missing records are gone from the log.
    pub checkpoint: Option<&'a Path>,
    /// Who wants to know how far it has come.
    pub watch: Option<Watch<'a>>,
}

/// Is told how far a catch-up has come: ten times a second, and at its end.
pub type Watch<'a> = &'a dyn Fn(&Report);

/// How far a catch-up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The follower's slot, from 0.
    pub index: usize,
    /// Records sent so far.
    pub records: u64,
    /// Bytes of them, frames included.
    pub bytes: u64,
    /// Records to be sent.
    pub total: u64,
}

/// Fills a buffer with the frames of the records from a position on, as [`read_frames`] does.
pub type Frames<'a> = dyn FnMut(Position, &mut Vec<u8>) -> Result<Piece> + 'a;

/// Frames at the beginning of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes they are; 0 at the log's end.
    pub len: usize,
    /// Where the record behind them begins.
    pub next: Position,
}

/// How often that is.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How long a follower has to answer a CHECK. One that does not (it runs in this very thread) still checks for itself
/// before it takes a record.
const CHECK_MS: i32 = 500;

/// How long another process may take from the first byte of a record that it appends to the last.
const APPEND_MS: i32 = 50;

/// How long a follower may take to show that it is logship, so that its log is compared with the leader's before it
/// gets more. A plain one, which shows nothing, is kept waiting no longer than that.
const MARK_MS: i32 = 20;

/// The same before it is refused for lack of a mark.
const LAST_MARK_MS: i32 = 500;

/// What a logship follower says of itself, behind its rejoin message or with its first receive, is no ack for a record:
/// it is taken off the connection before a program reads acks from it. `last`: what the rejoin message said, if it has
/// just been read.
pub fn take_mark(member: &mut Member<'_>, last: Option<Lsn>) -> Result<()> {
    let mut bytes = [0; ACK_LEN];
    while io::peek_now(member.fd, &mut bytes)? == Received::Bytes(ACK_LEN) && Ack::decode(bytes).is_hello(last) {
        io::recv_now(member.fd, &mut bytes)?;
        member.link.progress.on_hello(&Ack::decode(bytes));
        member.link.hear();
    }
    Ok(())
}

/// As [`take_mark`], but waits for it, so long at most.
fn await_mark(member: &mut Member<'_>, last: Lsn, timeout_ms: i32) -> Result<()> {
    let deadline = Deadline::after_ms(timeout_ms);
    while !member.link.progress.is_logship && member.link.inbox.is_empty() {
        match io::wait_readable(member.fd, deadline) {
            Ok(()) => take_mark(member, Some(last))?,
            Err(Error::TimedOut) => return Ok(()),
            Err(error) => return Err(error),
        }
        if io::readable_bytes(member.fd) > 0 {
            return Ok(()); // Something else: an ack for a record.
        }
        if socket::has_hung_up(member.fd) {
            return Err(Error::NotConnected);
        }
    }
    Ok(())
}

/// Ships every record after `follower`, the last LSN that the follower has, to it alone, and marks it online.
///
/// Errors: [`Error::NotConnected`]; [`Error::FollowerAhead`]; [`Error::Diverged`]; [`Error::Compacted`];
/// [`Error::Damaged`] when the range holds damage: what came before it was shipped.
///
/// What a refused follower has acknowledged counts for nothing: under the same numbers it has other records.
pub fn catch_up<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, follower: Lsn) -> Result<Summary> {
    let mut result = begin_then(member, source, follower, Then::Frames).and_then(|sent| run(member, source, sent));
    // A follower that refuses closes, perhaps before it was sent everything: what it said last is why.
    if result.as_ref().is_err_and(Error::is_disconnect)
        && take_answer(member).is_some_and(|ack| ack.status == ACK_DIVERGED)
    {
        result = Err(Error::Diverged { lsn: follower.min(source.tail.last()) });
    }
    if let Err(error) = &result {
        on_failure(member, error);
    }
    result
}

/// What follows the beginning of a catch-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The first frames, in the same call.
    Frames,
    /// Nothing for now.
    Steps,
}

/// Begins a catch-up that goes on with [`step`]. A snapshot, if one is needed, is sent to its end here.
pub fn begin<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, follower: Lsn) -> Result<Option<Sent>> {
    begin_then(member, source, follower, Then::Steps)
}

fn begin_then<S: Storage>(
    member: &mut Member<'_>,
    source: &Source<'_, S>,
    follower: Lsn,
    then: Then,
) -> Result<Option<Sent>> {
    if socket::has_hung_up(member.fd) {
        return Err(Error::NotConnected);
    }
    let (base, last) = (source.tail.base(), source.tail.last());
    let mut after = match rejoin::decide(follower, last) {
        Ok(rejoin::Decision::UpToDate) => last,
        Ok(rejoin::Decision::ShipAfter(after)) => after,
        Err(_) if source.is_damaged() => return Err(source.damage()),
        Err(error) => return Err(error),
    };
    await_mark(member, follower, if after < base && source.checkpoint.is_some() { LAST_MARK_MS } else { MARK_MS })?;
    let mut sent = None;
    if after < base {
        let snapshot = send_snapshot(member, source, after)?;
        after = snapshot.lsn;
        member.link.progress.ledger.add_through(after);
        member.link.progress.acked = after;
        member.link.resyncs.full += 1;
        member.link.full_resync = Text::new(format_args!("LSN {follower} is gone: the log begins after {base}"));
        sent = Some(snapshot);
    }
    begin_behind(member, source, after, then)?;
    if let Some(state) = &mut member.link.catch_up {
        state.has_snapshot = sent.is_some();
    }
    Ok(sent)
}

fn begin_behind<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, after: Lsn, then: Then) -> Result<()> {
    let damage = Error::Damaged { offset: source.tail.near(source.storage, after)?.offset, after };
    let (at, crc, history) = source.tail.place_behind(source.storage, after)?.ok_or(damage)?;
    let then = if at.lsn > source.tail.last() { Then::Steps } else { then };
    begin_at(member, at, (after > Lsn::ZERO).then_some((crc, history)), then)
}

/// Begins with the record at `at`. A peer that counts with us is asked whether the one before is ours (`past` is what
/// is known of that), and told what comes next, in one go: nothing waits for its answer, since it refuses for itself
/// what is not its future.
pub fn begin_at(member: &mut Member<'_>, at: Position, past: Option<(u32, History)>, then: Then) -> Result<()> {
    (member.link.asked, member.link.progress.was_caught_up) = (None, true);
    if member.link.progress.is_logship {
        state_position(member, at.lsn, past, then)?;
    } else {
        member.link.progress.first.get_or_insert(at.lsn);
    }
    member.link.catch_up = Some(CatchUp::from(at, 0, sys::round_trip_us(member.fd)));
    Ok(())
}

fn state_position(member: &mut Member<'_>, next: Lsn, past: Option<(u32, History)>, then: Then) -> Result<()> {
    let before = Lsn(next.0 - 1);
    let mut messages = Vec::new();
    if let Some((crc, history)) = past {
        Control::Check(before, crc, history).encode_into(&mut messages)?;
        member.link.asked = Some(before);
    }
    Control::Position(next).encode_into(&mut messages)?;
    member.link.progress.next = Some(next);
    // With the first frames in one segment, if they follow. A failure is the next send's too.
    let gone = if then == Then::Frames { io::send_held(member.fd, &messages).unwrap_or(0) } else { 0 };
    member.send(&messages[gone..], Deadline::send())
}

/// Whether the follower has shown, since its catch-up began without positions, that it counts with us.
#[must_use]
pub fn has_shown_itself(member: &Member<'_>) -> bool {
    let Link { progress, inbox, catch_up, .. } = &*member.link;
    let is_shown = || progress.counts_with_us(Lsn::ZERO) || inbox.find(Ack::shows_follower).is_some();
    catch_up.is_some() && progress.next.is_none() && is_shown()
}

/// From here on the catch-up of a follower that has shown itself goes on with positions. `past` is what is known of the
/// record before one.
pub fn go_on_with_positions(
    member: &mut Member<'_>,
    frames: &mut Frames<'_>,
    past: &mut dyn FnMut(Lsn) -> Option<(u32, History)>,
) -> Result<()> {
    // A part of a frame may be out; the messages must not end up inside it.
    complete_frame(member, frames, Deadline::send())?;
    let Some(state) = member.link.catch_up else { return Ok(()) };
    member.link.progress.is_logship = true;
    let before = Lsn(state.at.lsn.0 - 1);
    state_position(member, state.at.lsn, past(before).filter(|_| before > Lsn::ZERO), Then::Steps)
}

impl<S: Storage> Source<'_, S> {
    /// Whether the log ends in what is no record: damage, or a record that is cut and stays so. Another process may be
    /// appending it just now; a writer of this one has a lock on what is known of the log.
    fn is_damaged(&self) -> bool {
        self.end.damaged || (self.end.cut && !self.becomes_whole())
    }

    fn becomes_whole(&self) -> bool {
        let deadline = Deadline::after_ms(APPEND_MS);
        let mut bytes = vec![0; record::RECORD_MAX];
        loop {
            let last_look = deadline.has_passed();
            let count = self.storage.read_at(&mut bytes, self.end.next.offset).unwrap_or(0);
            if count == 0 || matches!(codec::next_in(&bytes[..count]), Next::Record { .. }) {
                return true;
            }
            if last_look {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn damage(&self) -> Error {
        Error::Damaged { offset: self.end.next.offset, after: self.tail.last() }
    }
}

/// Runs a catch-up to its end.
fn run<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, snapshot: Option<Sent>) -> Result<Summary> {
    let (mut outbox, mut piece) = (Outbox::default(), FIRST_PIECE);
    let (mut asked_until, mut told) = (None, Instant::now());
    loop {
        let deadline = Deadline::send();
        while !outbox.pump(member, &mut |from, into| read_frames(source, from, piece, into))? {
            wait(member, deadline)?;
        }
        let state = member.link.catch_up.ok_or(Error::Internal("a catch-up that is none"))?;
        piece = if state.bytes < PIECE as u64 { FIRST_PIECE } else { PIECE };
        let is_end = member.link.asked.is_none() && outbox.is_done();
        if let Some(watch) = source.watch.filter(|_| is_end || told.elapsed() >= WATCH_INTERVAL) {
            told = Instant::now();
            let (records, total) = (state.records(), source.tail.last().next().since(state.first));
            watch(&Report { index: member.index, records, bytes: state.bytes, total });
        }
        if is_end {
            if source.is_damaged() {
                return Err(source.damage());
            }
            finish(member);
            let last = Lsn(state.at.lsn.0 - 1);
            return Ok(Summary { records: state.records(), bytes: state.bytes, last, snapshot });
        }
        if outbox.is_done() {
            // Everything is out; what the follower says of its log is still to come.
            let until = *asked_until.get_or_insert_with(|| Deadline::after_ms(CHECK_MS));
            member.link.make_room();
            match io::wait_readable(member.fd, until) {
                // A peer that sends something else all the time.
                Ok(()) if until.has_passed() => forget_question(member),
                Ok(()) if member.drain().is_ok() => {}
                Ok(()) => return Err(Error::NotConnected),
                Err(Error::TimedOut) => forget_question(member),
                Err(error) => return Err(error),
            }
        }
        if member.link.progress.next.is_none() && !outbox.is_done() {
            // Nobody waits for it: who has hung up shows in the next send.
            let _ = member.drain();
            if has_shown_itself(member) {
                let past = &mut |lsn| {
                    Some(source.tail.place_behind(source.storage, lsn).ok()??).map(|(_, crc, history)| (crc, history))
                };
                go_on_with_positions(member, &mut |from, into| read_frames(source, from, FIRST_PIECE, into), past)?;
                outbox = Outbox::default();
            }
        }
        if let Some(ack) = take_answer(member)
            && let Some(after) = on_answer(member, &ack)?
        {
            if after < source.tail.base() {
                return Err(Error::Compacted { follower: after, base: source.tail.base() });
            }
            // A part of a frame may be out; the messages must not end up inside it.
            complete_frame(member, &mut |from, into| read_frames(source, from, FIRST_PIECE, into), Deadline::send())?;
            outbox = Outbox::default();
            begin_behind(member, source, after, Then::Frames)?;
        }
    }
}

fn forget_question(member: &mut Member<'_>) {
    if let Some(lsn) = member.link.asked.take() {
        crate::log_info!("{member}: no answer about record {lsn}; it checks for itself");
    }
}

/// Waits until the socket takes bytes, and reads acks meanwhile.
fn wait(member: &mut Member<'_>, deadline: Deadline) -> Result<()> {
    let events = POLLOUT | if member.link.inbox.room() > 0 { POLLIN } else { 0 };
    let mut fds = [PollFd::new(member.fd, events)];
    let ready = sys::poll(&mut fds, deadline.poll_ms())?;
    let failure = match ready {
        _ if fds[0].has(POLLIN) && member.drain().is_err() => Error::NotConnected,
        0 if deadline.has_passed() => Error::TimedOut,
        _ => return Ok(()),
    };
    member.go_offline(format_args!("send: {failure}"));
    Err(failure)
}

/// Takes the follower's answer to CHECK, if it is there.
fn take_answer(member: &mut Member<'_>) -> Option<Ack> {
    member.link.inbox.take_last(Ack::is_check_answer)
}

/// Notes what the follower of a catch-up answers to its CHECK. `Some`: its log ends there, earlier than it said, and
/// the catch-up must begin anew behind that.
pub fn on_answer(member: &mut Member<'_>, ack: &Ack) -> Result<Option<Lsn>> {
    let Some(lsn) = member.link.asked.take() else { return Ok(None) };
    match ack.status {
        ACK_OK => {
            // A rejoin says that everything up to there is durable, and it is ours.
            member.link.progress.ledger.add_through(lsn);
            member.link.progress.acked = member.link.progress.acked.max(lsn);
            Ok(None)
        }
        ACK_NOT_STORED if ack.lsn < lsn => Ok(Some(ack.lsn)),
        // The program there counts for itself: it has passed the position over, and gets the lesson's bytes.
        ACK_ELSEWHERE => {
            member.link.progress.is_logship = false;
            member.link.progress.next = None;
            Ok(None)
        }
        _ => {
            crate::log_error!("{member}: its log is not ours: not up to LSN {lsn}; it ends at LSN {}", ack.lsn);
            Err(Error::Diverged { lsn })
        }
    }
}

/// The follower has everything: it is shipped to and counted on from now on.
fn finish(member: &mut Member<'_>) {
    if let Some(state) = member.link.catch_up.take() {
        let last = Lsn(state.at.lsn.0 - 1);
        member.link.caught_up = (state.first <= last).then_some(CaughtUp { next: state.first, last });
        member.link.resyncs.partial += u64::from(!member.online && !state.has_snapshot);
        member.online = true;
    }
}

/// What a failed catch-up leaves.
fn on_failure(member: &mut Member<'_>, error: &Error) {
    (member.link.catch_up, member.link.asked) = (None, None);
    if matches!(error, Error::FollowerAhead { .. } | Error::Diverged { .. } | Error::Compacted { .. }) {
        member.link.resyncs.refused += 1;
    }
    if let Error::Diverged { lsn } = error
        && member.fd >= 0
    {
        member.go_offline(format_args!("its record {lsn} is not ours"));
    }
    if matches!(error, Error::FollowerAhead { .. } | Error::Diverged { .. }) {
        if member.fd >= 0 {
            let _ = member.drain();
        }
        member.link.forget_acks();
    }
}

/// Sends as much of a catch-up as the socket takes now, one piece at most, and marks the follower online when it has
/// everything. `frames` fills in the frames of the records from a position on. The follower's answers are the caller's
/// to take.
pub fn step(member: &mut Member<'_>, frames: &mut Frames<'_>) -> Result<()> {
    let was_online = member.online;
    let bytes = |member: &Member<'_>| member.link.catch_up.map_or(0, |state| state.bytes);
    let (mut outbox, before) = (Outbox::default(), bytes(member));
    // Behind less than a piece comes the log's end. It must be seen in this step: a writer may move it on before the
    // next one, every time.
    loop {
        if !outbox.pump(member, frames)? {
            return check_deadline(member);
        }
        if outbox.is_done() || bytes(member) - before >= STEP as u64 {
            break;
        }
    }
    if outbox.is_done() {
        finish(member);
        if !was_online {
            let last = member.link.progress.acked;
            crate::log_info!("{member}: has been sent everything; it has acknowledged LSN {last}");
        }
    }
    Ok(())
}

/// A follower that takes nothing for as long as a frame may take is given up.
pub fn check_deadline(member: &Member<'_>) -> Result<()> {
    match member.link.catch_up {
        Some(state) if state.until.has_passed() => Err(Error::TimedOut),
        _ => Ok(()),
    }
}

/// Sends the rest of a frame of which a part is out, so that something else may follow. A follower that does not take
/// it is marked offline.
pub fn complete_frame(member: &mut Member<'_>, frames: &mut Frames<'_>, deadline: Deadline) -> Result<()> {
    while let Some(state) = member.link.catch_up.filter(|state| state.sent > 0) {
        let mut outbox = Outbox { gone: state.sent, ..Outbox::default() };
        frames(state.at, &mut outbox.buffer).inspect_err(|error| {
            member.go_offline(format_args!("catch-up: {error}"));
        })?;
        let len = outbox.buffer.first_chunk().map(|word| frame::header(*word)).transpose()?;
        let Some(frame::Header::Record(len)) = len else { return Err(Error::Internal("a frame that is none")) };
        outbox.ready = frame::HEADER_LEN + len;
        if !outbox.pump(member, frames)? {
            wait(member, deadline)?;
        }
    }
    Ok(())
}

/// Frames that are ready to go.
#[derive(Default)]
struct Outbox {
    /// They are its beginning.
    buffer: Vec<u8>,
    /// So many bytes of it, and where the log goes on behind them.
    ready: usize,
    next: Option<Position>,
    /// Bytes of them that are out.
    gone: usize,
    /// Nothing more is to come.
    done: bool,
}

impl Outbox {
    fn is_done(&self) -> bool {
        self.done
    }

    /// Sends a piece, or a part of one. `false`: the socket takes nothing now.
    fn pump(&mut self, member: &mut Member<'_>, frames: &mut Frames<'_>) -> Result<bool> {
        let Some(mut state) = member.link.catch_up else { return Ok(true) };
        if self.gone == self.ready && !self.done {
            let piece = frames(state.at, &mut self.buffer)?;
            (self.ready, self.next) = (piece.len, Some(piece.next));
            self.gone = state.sent;
            self.done = self.ready == 0;
        }
        if self.done {
            return Ok(true);
        }
        let before = self.gone - state.sent;
        let count = io::send_now(member.fd, &self.buffer[self.gone..self.ready]).inspect_err(|error| {
            member.go_offline(format_args!("send: {error}"));
        })?;
        self.gone += count;
        match self.next.filter(|_| self.gone == self.ready) {
            Some(next) => state.advance_to(next, count),
            None => state.advance(&self.buffer[before..self.ready], count),
        }
        let progress = &mut member.link.progress;
        progress.shipped = progress.shipped.max(Lsn(state.at.lsn.0.saturating_sub(1)));
        if let Some(next) = &mut progress.next {
            *next = state.at.lsn;
        }
        if member.link.catch_up.is_some() {
            member.link.catch_up = Some(state);
        }
        Ok(count > 0)
    }
}

/// Makes the beginning of `buffer` the frames of the records from `from` on: about a `piece`, or what is left of the
/// log.
///
/// The log's bytes are read into the same buffer, behind a gap for the headers, and each record moves forward to its
/// header: half the memory to go through, and to fault in, of a second buffer.
pub fn read_frames<S: Storage>(
    source: &Source<'_, S>,
    from: Position,
    piece: usize,
    buffer: &mut Vec<u8>,
) -> Result<Piece> {
    let gap = piece / GAP;
    let left = usize::try_from(source.tail.len().saturating_sub(from.offset)).unwrap_or(usize::MAX);
    let mut filled = read_window(source, from, buffer, gap, left.min(piece + BESIDE))?;
    if matches!(codec::next_in(&buffer[gap..filled]), Next::Incomplete) {
        filled = read_window(source, from, buffer, gap, left.min(record::RECORD_MAX))?;
    }
    let (mut end, mut used, mut next) = (0, gap, from);
    // When so many small records have had headers put between them that the gap is used up, the piece ends there.
    while end < piece && used < filled && end + frame::HEADER_LEN <= used {
        let Next::Record { len, .. } = codec::next_in(&buffer[used..filled]) else {
            if end == 0 {
                return Err(Error::Damaged { offset: from.offset, after: Lsn(from.lsn.0 - 1) });
            }
            break; // A record that is not in here whole, or damage: what comes before it is shipped.
        };
        let header = frame::record_header(len).ok_or(Error::Malformed("record length"))?;
        let start = end + frame::HEADER_LEN;
        buffer[end..start].copy_from_slice(&header);
        buffer.copy_within(used..used + len, start);
        (end, used) = (start + len, used + len);
        next = Position { offset: next.offset + len as u64, lsn: next.lsn.next() };
    }
    Ok(Piece { len: end, next })
}

/// Reads `len` bytes of the log to the place `gap` of the buffer; returns where those that were there end.
fn read_window<S: Storage>(
    source: &Source<'_, S>,
    from: Position,
    buffer: &mut Vec<u8>,
    gap: usize,
    len: usize,
) -> Result<usize> {
    if buffer.len() < gap + len {
        buffer.resize(gap + len, 0);
    }
    Ok(gap + source.storage.read_at(&mut buffer[gap..gap + len], from.offset)?)
}

/// The records that the follower lacks are gone: it gets the checkpoint that stands for them, if there is one and the
/// peer can take it.
fn send_snapshot<S: Storage>(member: &mut Member<'_>, source: &Source<'_, S>, follower: Lsn) -> Result<Sent> {
    let gone = Error::Compacted { follower, base: source.tail.base() };
    let Some(path) = source.checkpoint else { return Err(gone) };
    if !member.link.progress.is_logship {
        crate::log_error!("{member}: it takes no snapshot: it is no logship peer");
        return Err(gone);
    }
    let sent = snapshot::send(member, source, path).inspect_err(|error| {
        crate::log_error!("{member}: snapshot {}: {error}", path.display());
    })?;
    let Sent { lsn, bytes } = sent;
    crate::log_info!("{member}: snapshot up to LSN {lsn} installed, {bytes} bytes sent: LSN {follower} is gone");
    Ok(sent)
}

/// Where record `lsn` begins, or would as the next.
pub fn locate<S: Storage>(source: &Source<'_, S>, lsn: Lsn) -> Result<Position> {
    let base = source.tail.base();
    if lsn <= base {
        return Err(Error::Compacted { follower: Lsn(lsn.0.saturating_sub(1)), base });
    }
    let near = source.tail.near(source.storage, lsn)?;
    let found = scan::walk(source.storage, near, |at| at.lsn >= lsn)?;
    found.ok_or(Error::Damaged { offset: near.offset, after: Lsn(near.lsn.0.saturating_sub(1)) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::types::Timestamp;
    use crate::wal::Wal;
    use crate::wal::record::{Op, Record};
    use proptest::prelude::*;

    /// Records with values of these lengths: a log of them, and their frames one behind another.
    fn log_and_frames(lens: &[usize]) -> (Wal<MemoryStorage>, Vec<u8>) {
        let values: Vec<Vec<u8>> =
            (lens.iter().zip((0..=255_u8).cycle())).map(|(len, fill)| vec![fill; *len]).collect();
        let record = |value| Record { op: Op::Set, key: b"k", value, timestamp: Timestamp(1) };
        let records: Vec<Record<'_>> = values.iter().map(|value| record(value.as_slice())).collect();
        let mut wal = Wal::with_storage(MemoryStorage::default()).unwrap();
        wal.append_batch(&records).unwrap();
        let (mut encoded, mut frames, mut start) = (Vec::new(), Vec::new(), 0);
        for end in crate::wal::encode_all(&records, &mut encoded).unwrap() {
            frames.extend(frame::record_header(end - start).unwrap());
            frames.extend_from_slice(&encoded[start..end]);
            start = end;
        }
        (wal, frames)
    }

    /// What a catch-up sends of it, piece by piece; and how many pieces that takes.
    fn sent(wal: &Wal<MemoryStorage>, piece: usize) -> (Vec<u8>, usize) {
        let (storage, tail) = (wal.storage(), wal.tail());
        let end = End { next: tail.next(), damaged: false, cut: false };
        let source = Source { storage, tail, end, checkpoint: None, watch: None };
        let (mut all, mut buffer, mut pieces) = (Vec::new(), Vec::new(), 0);
        let mut state = CatchUp::from(Position { offset: 0, lsn: Lsn(1) }, 0, 0);
        loop {
            let Piece { len: count, next } = read_frames(&source, state.at, piece, &mut buffer).unwrap();
            if count == 0 {
                assert_eq!(state.at, tail.next());
                return (all, pieces);
            }
            all.extend_from_slice(&buffer[..count]);
            state.advance(&buffer[..count], count);
            assert_eq!(state.at, next);
            pieces += 1;
        }
    }

    #[test]
    fn many_small_records_use_the_gap_up_and_a_large_one_is_a_piece() {
        let (wal, frames) = log_and_frames(&[0; 20_000]);
        let (all, pieces) = sent(&wal, PIECE);
        assert!(all == frames && pieces > frames.len().div_ceil(PIECE), "{pieces}");
        let (wal, frames) = log_and_frames(&[1, 65_535, 0, 65_535, 65_535]);
        let (all, pieces) = sent(&wal, 4096);
        assert!(all == frames && pieces == 5, "{pieces}");
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_log_are_its_frames(
            lens in prop::collection::vec(prop_oneof![0_usize..20, 0_usize..2000, 60_000_usize..65_536], 0..200),
            piece in prop_oneof![Just(PIECE), Just(STEP), 64_usize..9000],
        ) {
            let (wal, frames) = log_and_frames(&lens);
            prop_assert!(sent(&wal, piece).0 == frames);
        }
    }
}
