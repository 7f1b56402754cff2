//! A leader's side of its followers: ship to all at once, wait for a quorum, ask who lives.
//!
//! All sockets are driven together from one poll set, so no follower holds another up. A follower that hangs up, breaks
//! the protocol or takes nothing until the deadline is marked offline: its acks are drained (they count), its socket is
//! closed, one line is logged, and the others go on.
#![forbid(unsafe_code)]

use super::catch_up::{self, Piece, Then};
use super::io::{self, Deadline};
use super::link::{CatchUp, CaughtUp, LastFrame, Link};
use super::member::Member;
use super::socket;
use super::sys::{self, POLLIN, POLLOUT, POLLRDHUP, PollFd};
use crate::error::{Error, Result};
use crate::replication::frame;
use crate::replication::message::{Ack, Control};
use crate::replication::progress::Verdict;
use crate::replication::quorum::{self, Decision, Policy};
use crate::types::{History, Lsn};
use crate::wal::scan::Position;
use crate::wal::{codec, record};

/// Followers that a leader can have.
pub const MEMBERS_MAX: usize = 8;

/// A leader's log, for re-shipping and for judging acks. Not every program has one.
pub trait LeaderLog {
    /// The last LSN; `None` if there is no log to ask.
    fn last(&mut self) -> Option<Lsn>;
    /// Where record `lsn` begins, or would as the next.
    fn locate(&mut self, lsn: Lsn) -> Result<Position>;
    /// Fills `into` with the frames of the records from `lsn` on; see [`catch_up::read_frames`]. By number: between two
    /// steps the log may have been compacted, and then nothing is where it was.
    fn frames(&mut self, lsn: Lsn, into: &mut Vec<u8>) -> Result<Piece>;
    /// The encoded record `lsn`.
    fn read(&mut self, lsn: Lsn) -> Result<Vec<u8>>;
    /// The CRC of record `lsn` and the log's history up to it; `None` if the log does not have it, or there is no log
    /// that is surely ours.
    fn past(&mut self, lsn: Lsn) -> Option<(u32, History)>;
    /// The LSN of the record with this encoded length and CRC: the newest record, else `expected`, else a recent one.
    /// `None` if it is none of them, or there is no log that is surely ours.
    fn find(&mut self, len: usize, crc: u32, expected: Option<Lsn>) -> Option<Lsn>;
    /// As [`find`](LeaderLog::find), but looks at the newest record alone.
    fn newest(&mut self, len: usize, crc: u32) -> Option<Lsn> {
        self.find(len, crc, None)
    }
}

/// How fast catch-ups go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As fast as the followers take it: nobody waits for anything else.
    Unhindered,
    /// So that the commits which are made meanwhile hardly notice.
    BesideCommits,
}

impl Pace {
    fn lets_go_on(self, member: &Member<'_>) -> bool {
        let Link { progress, inbox, catch_up, .. } = &*member.link;
        // An ack counts here also while nobody has asked for it.
        let has_room = |state: &CatchUp| state.may_go_on(progress.acked) || state.may_go_on(inbox.highest_ok());
        catch_up.is_some_and(|state| self == Pace::Unhindered || has_room(&state))
    }
}

/// A leader's followers, for the time of one call.
pub struct Group<'a> {
    /// The configured ones, in order.
    pub members: Vec<Member<'a>>,
    /// What was shipped last.
    pub last_frame: &'a mut LastFrame,
    /// The leader's log.
    pub log: &'a mut dyn LeaderLog,
}

impl Group<'_> {
    /// Ships one encoded record to every online follower; returns how many have it. Its content is not looked at.
    /// `lsn`: its number in the leader's log, if the caller knows.
    pub fn ship(&mut self, encoded: &[u8], lsn: Option<Lsn>) -> Result<usize> {
        self.notice_hang_ups();
        self.reship_pending();
        if !self.last_frame.set(encoded) {
            return Err(Error::Invalid("no record has this length"));
        }
        let mut place = Place { len: encoded.len(), crc: record::stored_crc(encoded).unwrap_or(0), lsn: lsn.map(Some) };
        let mut sending = [false; MEMBERS_MAX];
        let mut shipped = 0;
        for (member, sending) in self.members.iter_mut().zip(&mut sending) {
            // One that has fallen behind gets it from the log, when it takes more.
            if member.online && member.link.catch_up.is_none() {
                match place.prepare(member, self.last_frame, self.log) {
                    Ok(wants) => *sending = wants,
                    Err(_) => continue, // It is offline.
                }
                shipped += usize::from(!*sending);
            }
        }
        let (log, lsn) = (&mut *self.log, place.lsn.flatten());
        let may_lag = &mut |member: &mut Member<'_>, sent: usize| fall_behind(member, sent, lsn, log);
        broadcast(&mut self.members, sending, self.last_frame.frame(), Deadline::send(), may_lag);
        for (member, sending) in self.members.iter_mut().zip(sending) {
            if sending && member.online && member.link.catch_up.is_none() {
                let lsn = place.newest(self.log);
                member.link.progress.on_shipped(lsn);
                shipped += 1;
            }
        }
        for state in self.members.iter_mut().filter_map(|member| member.link.catch_up.as_mut()) {
            state.owe(encoded.len());
        }
        self.feed_followers_behind(Pace::BesideCommits);
        Ok(shipped)
    }

    /// Sends a piece more to those that are behind and take something now; gives those up that have taken nothing for
    /// too long.
    fn feed_followers_behind(&mut self, pace: Pace) {
        let mut fds = [PollFd::NONE; MEMBERS_MAX];
        let mut any = false;
        for (member, slot) in self.members.iter().zip(&mut fds) {
            if member.fd >= 0 && pace.lets_go_on(member) {
                *slot = PollFd::new(member.fd, POLLOUT);
                any = true;
            }
        }
        if !any || sys::poll(&mut fds, 0).is_err() {
            return;
        }
        for (member, slot) in self.members.iter_mut().zip(fds) {
            if slot.is_some()
                && !slot.has(!0)
                && let Err(error) = catch_up::check_deadline(member)
            {
                member.go_offline(format_args!("it took nothing until the deadline: {error}"));
            }
        }
        self.go_on_catching_up(|member| fds[member.index].has(!0));
    }

    /// One step of every catch-up that goes on, of those for which `may` holds.
    fn go_on_catching_up(&mut self, may: impl Fn(&Member<'_>) -> bool) {
        for member in &mut self.members {
            if member.link.catch_up.is_some() && may(member) {
                let log = &mut *self.log;
                if let Err(error) = catch_up::step(member, &mut |from, into| log.frames(from.lsn, into))
                    && member.fd >= 0
                {
                    member.go_offline(format_args!("catch-up: {error}"));
                }
            }
        }
    }

    /// Goes on with all catch-ups until they have ended or the deadline has passed; returns how many go on.
    pub fn catch_up_until(&mut self, deadline: Deadline) -> Result<usize> {
        loop {
            self.feed_followers_behind(Pace::Unhindered);
            self.take_acks();
            let left = self.members.iter().filter(|member| member.link.catch_up.is_some()).count();
            if left == 0 || deadline.has_passed() {
                return Ok(left);
            }
            self.receive_acks(|_| false, deadline, Pace::Unhindered)?;
        }
    }

    fn notice_hang_ups(&mut self) {
        let mut fds = [PollFd::NONE; MEMBERS_MAX];
        for (member, slot) in self.members.iter().zip(&mut fds) {
            if member.online {
                // Who has not shown what it is may have by now.
                let Link { progress, inbox, .. } = &*member.link;
                let unknown = !progress.follows && progress.greeting.is_none() && inbox.is_empty();
                *slot = PollFd::new(member.fd, POLLRDHUP | if unknown { POLLIN } else { 0 });
            }
        }
        if sys::poll(&mut fds, 0).is_ok_and(|ready| ready == 0) {
            return;
        }
        for (member, slot) in self.members.iter_mut().zip(fds) {
            if slot.has(POLLRDHUP | sys::POLLHUP | sys::POLLERR | sys::POLLNVAL) {
                let cause = socket::take_error(member.fd).unwrap_or(Error::NotConnected);
                member.lose(&cause);
            } else if slot.has(POLLIN) {
                // A greeting is the first thing that is said. Nothing else is taken off the connection.
                let _ = catch_up::take_mark(member, None);
            }
        }
    }

    /// Sends rejected records again, each to the follower that rejected it.
    fn reship_pending(&mut self) {
        for member in &mut self.members {
            if member.online && member.link.progress.reship.is_some() {
                reship(member, self.last_frame, self.log);
            }
        }
    }

    /// Waits until a quorum has acknowledged `lsn`. `Ok(true)`: the commit is degraded, fewer than the strict quorum.
    ///
    /// Errors: [`Error::TimedOut`]; [`Error::NoQuorum`] as soon as everyone online has acknowledged it or has gone, and
    /// they are too few.
    pub fn wait_quorum(&mut self, lsn: Lsn, policy: Policy, deadline: Deadline) -> Result<bool> {
        let configured = self.members.len();
        let mut last_look = false;
        loop {
            self.take_acks();
            let acked = self.members.iter().filter(|member| member.link.progress.ledger.has(lsn)).count();
            // Those online are read also while they are too few: what is unread when the leader closes is a reset
            // there.
            let waiting = |member: &Member<'_>| member.online && !member.link.progress.ledger.has(lsn);
            let possible = self.members.iter().filter(|member| waiting(member)).count();
            let online = self.members.iter().filter(|member| member.online).count();
            let needed = quorum::size(policy, configured, online);
            match quorum::decide(needed, acked, possible) {
                Decision::Reached => {
                    for member in &mut self.members {
                        member.link.progress.ledger.use_up(lsn);
                    }
                    return Ok(acked < quorum::size(Policy::Strict, configured, online));
                }
                Decision::Unreachable => {
                    crate::log_warn!(
                        "no quorum for LSN {lsn}: {acked} acked, {possible} online and not yet acked, {needed} needed"
                    );
                    return Err(Error::NoQuorum { acked, possible, needed });
                }
                Decision::Pending if last_look => return Err(Error::TimedOut),
                Decision::Pending => {
                    // Even a deadline of zero looks once at what has arrived.
                    last_look = deadline.has_passed();
                    self.receive_acks(waiting, deadline, Pace::BesideCommits)?;
                }
            }
        }
    }

    /// Waits for bytes from those followers for which `from` holds, and from those that catch up, and reads them; sends
    /// the latter more when they take more.
    fn receive_acks(&mut self, from: impl Fn(&Member<'_>) -> bool, deadline: Deadline, pace: Pace) -> Result<()> {
        let mut fds = [PollFd::NONE; MEMBERS_MAX];
        let mut until = deadline;
        for (member, slot) in self.members.iter().zip(&mut fds) {
            if member.link.catch_up.is_none() && !from(member) {
                continue;
            }
            let room = if member.link.inbox.room() > 0 { POLLIN } else { 0 };
            let more = if pace.lets_go_on(member) { POLLOUT } else { 0 };
            if let Some(state) = member.link.catch_up.filter(|_| more == 0) {
                until = until.or_sooner(state.rest);
            }
            *slot = PollFd::new(member.fd, room | more | POLLRDHUP);
        }
        sys::poll(&mut fds, until.poll_ms())?;
        for (member, slot) in self.members.iter_mut().zip(fds) {
            if slot.has(!POLLOUT)
                && let Err(cause) = member.drain()
            {
                member.lose(&cause);
            }
        }
        self.go_on_catching_up(|member| fds[member.index].has(POLLOUT));
        Ok(())
    }

    /// Takes every ack out of the inboxes, also of followers that have gone since; re-ships what was rejected.
    fn take_acks(&mut self) {
        for member in &mut self.members {
            while let Some(ack) = member.link.inbox.pop_ack() {
                if ack.is_check_answer() && member.link.asked.is_some() {
                    match catch_up::on_answer(member, &ack) {
                        Ok(None) => {}
                        Ok(Some(after)) => begin_anew(member, after.next(), self.log),
                        Err(_) => refuse(member, ack.lsn),
                    }
                    continue;
                }
                let ceiling = self.log.last();
                match member.link.progress.on_ack(&ack, ceiling) {
                    Verdict::Durable | Verdict::Alive => {}
                    Verdict::Ignored => {
                        if let Some(more) = member.link.complaints.count() {
                            let Ack { lsn, status, .. } = ack;
                            crate::log_warn!(
                                "{member}: ack of LSN {lsn} with status {status} counts for nothing{more}"
                            );
                        }
                    }
                    Verdict::Rejected => {
                        crate::log_warn!("{member} rejected LSN {} (status {})", ack.lsn, ack.status);
                        if member.link.catch_up.is_some() {
                            member.link.progress.reship = None;
                            member.link.progress.reshipped(ack.lsn);
                            begin_anew(member, ack.lsn, self.log);
                        }
                        if member.online && member.link.progress.reship.is_some_and(|reship| reship.now) {
                            reship(member, self.last_frame, self.log);
                        }
                    }
                    Verdict::GiveUp => {
                        if member.online {
                            member.go_offline(format_args!("it rejected LSN {} again and again", ack.lsn));
                        }
                    }
                    Verdict::Diverged => refuse(member, ack.lsn),
                    Verdict::Unsure(lsn) => match self.log.past(lsn) {
                        // Going offline on failure is all that it takes.
                        Some((crc, history)) => drop(member.tell(&Control::Check(lsn, crc, history))),
                        None => refuse(member, lsn),
                    },
                }
            }
            if catch_up::has_shown_itself(member) {
                go_on_with_positions(member, self.log);
            }
        }
    }

    /// The LSN that every follower online has acknowledged, and that every one that catches up has been sent; `None` if
    /// there is none of them.
    #[must_use]
    pub fn slowest(&self) -> Option<Lsn> {
        let needed = |member: &Member<'_>| match member.link.catch_up {
            Some(state) => Some(Lsn(state.at.lsn.0 - 1)),
            None if member.online => Some(member.link.progress.acked.max(member.link.inbox.highest_ok())),
            None => None,
        };
        self.members.iter().filter_map(needed).min()
    }

    /// Sends a heartbeat to every online follower and waits for the answers; those that stay silent are marked offline.
    /// Returns how many answered.
    pub fn heartbeat(&mut self, deadline: Deadline) -> Result<usize> {
        self.notice_hang_ups();
        for member in &mut self.members {
            if member.online
                && let Err(cause) = member.drain()
            {
                member.lose(&cause);
            }
        }
        for member in &mut self.members {
            // What came before is no answer to this one.
            take_answer(member, member.link.heard);
        }
        let mut sending = [false; MEMBERS_MAX];
        for (member, sending) in self.members.iter_mut().zip(&mut sending) {
            if member.online {
                let log = &mut *self.log;
                let frames = &mut |at: Position, into: &mut Vec<u8>| log.frames(at.lsn, into);
                // A failure marks it offline.
                let _ = catch_up::complete_frame(member, frames, deadline);
            }
            *sending = member.online;
        }
        let mut answered = [false; MEMBERS_MAX];
        let mut before = [None; MEMBERS_MAX];
        for (member, before) in self.members.iter().zip(&mut before) {
            *before = member.link.heard;
        }
        broadcast(&mut self.members, sending, &frame::HEARTBEAT, deadline, &mut |_, _| false);
        let mut last_look = false;
        loop {
            for (index, member) in self.members.iter_mut().enumerate() {
                answered[index] |= take_answer(member, before[index]);
                member.link.make_room();
            }
            let silent = |member: &Member<'_>| member.online && !answered[member.index];
            if !self.members.iter().any(silent) || last_look {
                break;
            }
            // One look more after the deadline: somebody's full buffer may have taken all the time.
            last_look = deadline.has_passed();
            self.receive_acks(silent, deadline, Pace::BesideCommits)?;
        }
        for member in &mut self.members {
            // The answer stands behind the records that are on their way. Who acknowledges those lives.
            if member.online && !answered[member.index] && member.link.heard == before[member.index] {
                member.go_offline(format_args!("no answer to a heartbeat"));
            }
        }
        Ok(self.members.iter().filter(|member| member.online).count())
    }
}

/// A catch-up goes on from another record.
fn begin_anew(member: &mut Member<'_>, lsn: Lsn, log: &mut dyn LeaderLog) {
    let before = Lsn(lsn.0.saturating_sub(1));
    let whole = catch_up::complete_frame(member, &mut |at, into| log.frames(at.lsn, into), Deadline::send());
    let begun = whole.and_then(|()| log.locate(lsn)).and_then(|at| {
        let past = log.past(before);
        catch_up::begin_at(member, at, past, Then::Steps)
    });
    if let Err(error) = begun
        && member.fd >= 0
    {
        member.go_offline(format_args!("catch-up from LSN {lsn}: {error}"));
    }
}

/// A follower that catches up without positions has shown that it counts with us.
fn go_on_with_positions(member: &mut Member<'_>, log: &mut dyn LeaderLog) {
    // Both ask the log, one after the other.
    let log = std::cell::RefCell::new(log);
    let frames = &mut |at: Position, into: &mut Vec<u8>| log.borrow_mut().frames(at.lsn, into);
    let past = &mut |lsn: Lsn| log.borrow_mut().past(lsn);
    if let Err(error) = catch_up::go_on_with_positions(member, frames, past)
        && member.fd >= 0
    {
        member.go_offline(format_args!("catch-up: {error}"));
    }
}

/// A peer that counts with us has another log.
fn refuse(member: &mut Member<'_>, acked: Lsn) {
    crate::log_error!("{member}: its log is no part of ours, as its ack of LSN {acked} shows: it must rejoin");
    if member.online || member.link.catch_up.is_some() {
        member.go_offline(format_args!("its log is no part of ours"));
    }
    member.link.forget_acks();
}

/// A record that is shipped, and where in the leader's log it stands.
struct Place {
    len: usize,
    crc: u32,
    /// Looked up when the first follower needs it.
    lsn: Option<Option<Lsn>>,
}

impl Place {
    /// Its LSN, if that was looked up or can be told at little cost.
    fn newest(&mut self, log: &mut dyn LeaderLog) -> Option<Lsn> {
        *self.lsn.get_or_insert_with(|| log.newest(self.len, self.crc))
    }

    fn lsn(&mut self, log: &mut dyn LeaderLog, expected: Option<Lsn>) -> Option<Lsn> {
        *self.lsn.get_or_insert_with(|| log.find(self.len, self.crc, expected))
    }

    /// Makes the stream to one follower ready for the record. `Ok(false)`: it is there already. An error marks the
    /// follower offline.
    ///
    /// To a peer that counts with us the record goes in its own place only: behind records that were never shipped, or
    /// as the one that it is once more. What the last catch-up has sent is not sent again: records are appended, a
    /// follower catches up, then they are shipped.
    fn prepare(&mut self, member: &mut Member<'_>, frame: &LastFrame, log: &mut dyn LeaderLog) -> Result<bool> {
        let (next, sent) = (member.link.progress.next, member.link.progress.sent);
        let (is_first, may_follow) = (sent == 0, member.link.progress.counts_with_us(Lsn::ZERO));
        if next.is_none() && !may_follow && !is_first && member.link.caught_up.is_none() {
            return Ok(true);
        }
        let Some(lsn) = self.lsn(log, next) else { return Ok(true) };
        let follows = member.link.progress.counts_with_us(lsn);
        match next {
            Some(next) if lsn < next => {
                if !was_sent_by_catch_up(member.link, lsn) {
                    member.tell(&Control::Position(lsn))?;
                    member.send(frame.frame(), Deadline::send())?;
                    member.tell(&Control::Position(next))?;
                }
                return Ok(false);
            }
            Some(next) if lsn > next => send_range(member, next, lsn, None, log)?,
            Some(_) => {}
            None if was_sent_by_catch_up(member.link, lsn) => return Ok(false),
            // The peer has shown that it counts with us: from here on the stream has positions.
            None if follows => state_position(member, lsn, log)?,
            None if is_first => drop(member.link.progress.first.get_or_insert(lsn)),
            None => {}
        }
        Ok(true)
    }
}

/// Whether record `lsn` is one that the last catch-up has sent already.
fn was_sent_by_catch_up(link: &mut Link, lsn: Lsn) -> bool {
    let Some(caught_up) = link.caught_up else { return false };
    let was_sent = (caught_up.next..=caught_up.last).contains(&lsn);
    let rest = CaughtUp { next: lsn.next(), ..caught_up };
    link.caught_up = Some(rest).filter(|rest| was_sent && rest.next <= rest.last);
    was_sent
}

/// Tells a peer that counts with us which record comes next. Its log is checked first: as far as it reaches it must be
/// ours, or it refuses what follows and says so.
fn state_position(member: &mut Member<'_>, next: Lsn, log: &mut dyn LeaderLog) -> Result<()> {
    let before = Lsn(next.0.saturating_sub(1));
    if let Some((crc, history)) = log.past(before) {
        member.tell(&Control::Check(before, crc, history))?;
    }
    member.link.progress.next = Some(next);
    member.tell(&Control::Position(next))
}

/// Whether the follower has answered since `before`. A logship peer's answer is told from its acks and taken out; any
/// bytes of another peer show that it lives.
fn take_answer(member: &mut Member<'_>, before: Option<std::time::Instant>) -> bool {
    let mut answers = 0;
    let progress = &mut member.link.progress;
    member.link.inbox.extract(|ack| {
        // An unmarked ack of LSN 0 acknowledges nothing: what else would a plain follower answer with?
        let liveness = ack.is_liveness() || (ack.lsn == Lsn::ZERO && ack.mark().is_none());
        // What it says about its log is for whoever counts acks. It stays, so it would answer every heartbeat to come.
        let taken = liveness && !ack.is_check_answer();
        if taken {
            progress.on_ack(ack, None);
            answers += 1;
        }
        taken
    });
    if answers > 0 {
        return true;
    }
    let heard = member.link.heard != before;
    if heard && !member.link.progress.is_logship {
        // Lesson w11-l01's follower echoes the four bytes; they are no part of an ack.
        if member.link.inbox.unfinished() == frame::HEADER_LEN {
            member.link.inbox.drop_unfinished();
        }
        return true;
    }
    false
}

/// A follower takes no more of the record `lsn` now, `sent` bytes of whose frame are out. `true`: it gets the rest, and
/// what comes after, from the log when it takes more, and nobody waits for it.
fn fall_behind(member: &mut Member<'_>, sent: usize, lsn: Option<Lsn>, log: &mut dyn LeaderLog) -> bool {
    let Some(lsn) = lsn.filter(|lsn| member.link.progress.next == Some(*lsn)) else { return false };
    let Ok(at) = log.locate(lsn) else { return false };
    member.link.catch_up = Some(CatchUp::from(at, sent, sys::round_trip_us(member.fd)));
    true
}

/// Sends one frame to several followers at the same time. Those that fail or take too long are marked offline, except
/// those that `may_lag`: nobody waits for them.
fn broadcast(
    members: &mut [Member<'_>],
    mut sending: [bool; MEMBERS_MAX],
    frame: &[u8],
    deadline: Deadline,
    may_lag: &mut dyn FnMut(&mut Member<'_>, usize) -> bool,
) {
    let mut sent = [0usize; MEMBERS_MAX];
    loop {
        let mut fds = [PollFd::NONE; MEMBERS_MAX];
        let mut blocked = false;
        for (index, member) in members.iter_mut().enumerate() {
            if !sending[index] || !member.online {
                continue;
            }
            while sent[index] < frame.len() {
                match io::send_now(member.fd, &frame[sent[index]..]) {
                    Ok(0) if may_lag(member, sent[index]) => {
                        sending[index] = false;
                        break;
                    }
                    Ok(0) => {
                        let read = if member.link.inbox.room() > 0 { POLLIN } else { 0 };
                        fds[index] = PollFd::new(member.fd, POLLOUT | read);
                        blocked = true;
                        break;
                    }
                    Ok(count) => sent[index] += count,
                    Err(error) => {
                        member.go_offline(format_args!("send: {error}"));
                        break;
                    }
                }
            }
        }
        if !blocked {
            return;
        }
        let polled = sys::poll(&mut fds, deadline.poll_ms());
        for (index, member) in members.iter_mut().enumerate() {
            let waiting = sending[index] && member.online && sent[index] < frame.len();
            let drained = if waiting && fds[index].has(POLLIN) { member.drain() } else { Ok(()) };
            if let Err(cause) = drained {
                member.lose(&cause);
            } else if waiting && (polled.is_err() || (deadline.has_passed() && !fds[index].has(POLLOUT))) {
                // Room that is there is used first: this process itself may have been stopped past the deadline.
                member.go_offline(format_args!("it took nothing until the deadline"));
            }
        }
    }
}

/// How many records a leader sends again inside one call.
const RESHIP_AT_ONCE: u64 = 64;

/// Sends a rejected record again.
///
/// To a peer that counts with us everything from the rejected record on, since it took nothing behind it; to any other
/// the frame shipped last if it decodes, else the record of that LSN from the log. Without either the ack just does not
/// count.
fn reship(member: &mut Member<'_>, last: &LastFrame, log: &mut dyn LeaderLog) {
    let Some(rejected) = member.link.progress.reship.take() else { return };
    if member.link.catch_up.is_some() {
        member.link.progress.reshipped(rejected.lsn);
        begin_anew(member, rejected.lsn, log);
        return;
    }
    let whole = codec::decode(last.record()).is_ok();
    let mut next = member.link.progress.next;
    if member.link.progress.follows && next.is_none() && whole {
        // Rejected before the stream had a position: it gets one now, if the log tells where it was.
        let crc = record::stored_crc(last.record()).unwrap_or(0);
        next = log.find(last.record().len(), crc, None).filter(|newest| *newest >= rejected.lsn).map(Lsn::next);
    }
    let outcome = match next {
        // Many records behind it: from the log in pieces, and nobody waits.
        Some(next) if next.since(rejected.lsn) > RESHIP_AT_ONCE => {
            begin_anew(member, rejected.lsn, log);
            Ok(())
        }
        Some(next) if rejected.lsn < next => state_position(member, rejected.lsn, log)
            .and_then(|()| send_range(member, rejected.lsn, next, whole.then_some(last), log)),
        _ if whole => member.send(last.frame(), Deadline::send()),
        _ => match log.read(rejected.lsn) {
            Ok(encoded) => send_record(member, &encoded),
            Err(error) => {
                crate::log_warn!("{member}: cannot send LSN {} again: {error}", rejected.lsn);
                return;
            }
        },
    };
    if outcome.is_ok() {
        member.link.progress.reshipped(rejected.lsn);
        crate::log_info!("{member}: sent LSN {} again", rejected.lsn);
    }
}

/// Sends the records from `from` up to but not `next`, where the stream then goes on. The last of them may be the
/// frame shipped last.
fn send_range(
    member: &mut Member<'_>,
    from: Lsn,
    next: Lsn,
    last: Option<&LastFrame>,
    log: &mut dyn LeaderLog,
) -> Result<()> {
    let mut lsn = from;
    while lsn < next {
        match last {
            Some(last) if lsn.next() == next => member.send(last.frame(), Deadline::send())?,
            _ => match log.read(lsn) {
                Ok(encoded) => send_record(member, &encoded)?,
                Err(error) => {
                    member.go_offline(format_args!("LSN {lsn} can't be sent: {error}"));
                    return Err(error);
                }
            },
        }
        lsn = lsn.next();
    }
    member.link.progress.next = Some(next);
    Ok(())
}

fn send_record(member: &mut Member<'_>, encoded: &[u8]) -> Result<()> {
    let header = frame::record_header(encoded.len()).ok_or(Error::Invalid("no record has this length"))?;
    let mut bytes = Vec::with_capacity(header.len() + encoded.len());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(encoded);
    member.send(&bytes, Deadline::send())
}
