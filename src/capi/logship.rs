//! logship.h: what the lessons don't have.
#![allow(unsafe_code, reason = "the C boundary")]
#![allow(non_camel_case_types, reason = "C's names")]

use super::leader_log::LogSource;
use super::repl_config::{self, replication_config};
use super::repl_rejoin;
use super::repl_ship;
use super::wal_record::wal_record;
use super::wal_writer::wal_writer;
use super::{configs, guard, layout, leader_log, logs, ptr};
use crate::capi::kv_store::kv_store;
use crate::diag::{self, Level};
use crate::error::{Error, Result};
use crate::net::catch_up::{self, Report};
use crate::net::io::{self, Deadline};
use crate::net::member::Member;
use crate::net::receive::{Acks, FollowerLog};
use crate::replication::quorum::Policy;
use crate::types::Lsn;
use crate::wal::compact::{Compacted, Retention};
use libc::{c_char, c_int, c_void};
use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::RwLock;

/// The header's version: major.
pub const LOGSHIP_VERSION_MAJOR: c_int = 0;
/// The header's version: minor.
pub const LOGSHIP_VERSION_MINOR: c_int = 1;
/// The header's version: patch.
pub const LOGSHIP_VERSION_PATCH: c_int = 0;

/// Something failed and the caller got an error.
pub const LOGSHIP_LOG_ERROR: c_int = 0;
/// Something was repaired, skipped or marked offline.
pub const LOGSHIP_LOG_WARN: c_int = 1;
/// A milestone.
pub const LOGSHIP_LOG_INFO: c_int = 2;

/// The quorum is counted over the configured followers.
pub const REPL_QUORUM_STRICT: c_int = 0;
/// The quorum is counted over the followers online now, at least one.
pub const REPL_QUORUM_DEGRADE: c_int = 1;

/// Not connected, not shipped to.
pub const REPL_FOLLOWER_OFFLINE: c_int = 0;
/// Connected, and not caught up yet.
pub const REPL_FOLLOWER_CATCHING_UP: c_int = 1;
/// Shipped to and counted on.
pub const REPL_FOLLOWER_ONLINE: c_int = 2;

/// The version of the library, "major.minor.patch": a constant. Compare it with LOGSHIP_VERSION, the header's.
#[unsafe(no_mangle)]
pub extern "C" fn logship_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    VERSION.as_ptr()
}

/// A log function: level (`LOGSHIP_LOG_*`), one line without a line feed, and the context given with it. It may be
/// called from any thread that is in a call of this library; the message is gone when it returns. A call on the same
/// object from inside it fails with EBUSY.
pub type logship_log_fn = Option<unsafe extern "C" fn(level: c_int, message: *const c_char, context: *mut c_void)>;

struct CSink {
    function: logship_log_fn,
    context: *mut c_void,
}

// SAFETY: the context is the program's and only handed back; the contract says that any thread may get it.
unsafe impl Send for CSink {}
// SAFETY: as above.
unsafe impl Sync for CSink {}

static C_SINK: RwLock<CSink> = RwLock::new(CSink { function: None, context: std::ptr::null_mut() });

/// Sends every diagnostic to `function` from now on; NULL brings stderr back (errors and warnings only). The library
/// prints nothing else, and never to stdout.
///
/// # Safety
/// `function` may be called with `context` until it is replaced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn logship_set_log(function: logship_log_fn, context: *mut c_void) {
    *C_SINK.write().unwrap_or_else(std::sync::PoisonError::into_inner) = CSink { function, context };
    diag::set_sink(function.is_some().then_some(log_to_c as diag::Sink));
}

fn log_to_c(level: Level, message: &str) {
    let Ok((function, context)) = C_SINK.try_read().map(|sink| (sink.function, sink.context)) else { return };
    let level = match level {
        Level::Error => LOGSHIP_LOG_ERROR,
        Level::Warn => LOGSHIP_LOG_WARN,
        Level::Info => LOGSHIP_LOG_INFO,
    };
    if let (Some(function), Ok(message)) = (function, CString::new(message)) {
        // SAFETY: the program gave the function for this; the message lives during the call.
        unsafe { function(level, message.as_ptr(), context) };
    }
}

/// Sets this process's deadlines in milliseconds: of a whole send, and of a whole frame once its first byte has come
/// (both 5000 at first). 0 leaves one as it is; negative is EINVAL. Returns 0 or -1.
#[unsafe(no_mangle)]
pub extern "C" fn repl_set_timeouts(send_ms: c_int, recv_ms: c_int) -> c_int {
    guard::call(|| {
        if send_ms < 0 || recv_ms < 0 {
            return Err(Error::Invalid("a negative timeout"));
        }
        io::set_timeouts(send_ms, recv_ms);
        Ok(0)
    })
}

/// Sets where `repl_follower_rejoin` finds the leader (at first 127.0.0.1:7000). The host is copied. Returns 0, or -1
/// with `errno` EINVAL.
///
/// # Safety
/// `host` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_set_leader(host: *const c_char, port: u16) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        repl_rejoin::set_leader(unsafe { ptr::host(host) }?, port)?;
        Ok(0)
    })
}

/// Sets this process's node number, 1 to 255, which its acks carry so that a leader finds its slot (node n is
/// `followers[n - 1]`); 0 for none. With a number this process is a logship peer also where it receives with
/// `repl_receive_record`. Returns 0, or -1 with `errno` EINVAL.
#[unsafe(no_mangle)]
pub extern "C" fn logship_set_self(node: c_int) -> c_int {
    guard::call(|| repl_config::set_self(node).map(|()| 0))
}

/// Sets over whom the quorum is counted: REPL_QUORUM_STRICT or REPL_QUORUM_DEGRADE. Returns 0, or -1 with `errno`
/// EINVAL.
///
/// # Safety
/// `config` is NULL or points to a configuration that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_set_quorum_policy(config: *mut replication_config, policy: c_int) -> c_int {
    guard::call(|| {
        ptr::check(config)?;
        let policy = match policy {
            REPL_QUORUM_STRICT => Policy::Strict,
            REPL_QUORUM_DEGRADE => Policy::Degrade,
            _ => return Err(Error::Invalid("no such quorum policy")),
        };
        configs::set_policy(config, policy)?;
        Ok(0)
    })
}

/// Whether the last successful `repl_wait_quorum` had fewer acks than the strict quorum: 1 or 0; -1 with `errno`
/// EINVAL.
///
/// # Safety
/// `config` is NULL or points to a configuration that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_last_commit_degraded(config: *const replication_config) -> c_int {
    guard::call(|| {
        ptr::check(config)?;
        Ok(c_int::from(configs::of(config)?.value().degraded))
    })
}

/// What is known of one follower.
#[repr(C)]
pub struct repl_follower_status {
    /// One of `REPL_FOLLOWER_*`.
    pub state: c_int,
    /// The highest LSN it has acknowledged on this connection.
    pub acked_lsn: u64,
    /// Records in the leader's log after that.
    pub lag_records: u64,
    /// Bytes of them.
    pub lag_bytes: u64,
    /// Milliseconds since it was last heard; -1 for never on this connection.
    pub ms_since_heard: i64,
    /// Why it was marked offline last; "" for never.
    pub last_disconnect: [c_char; 96],
    /// Why it needed a full resync (a snapshot) last; "" for never.
    pub last_full_resync: [c_char; 96],
    /// Times it was marked offline.
    pub disconnects: u64,
    /// Catch-ups for which the log was enough.
    pub partial_resyncs: u64,
    /// Catch-ups that began with a snapshot.
    pub full_resyncs: u64,
    /// Catch-ups that were refused: ERANGE, ESTALE, ENODATA.
    pub refusals: u64,
}

/// Fills `*out` with what is known of follower `follower_index`. The lag is 0 when this process has no leader's log.
/// Returns 0, or -1 with `errno` EINVAL.
///
/// # Safety
/// `config` is NULL or points to a configuration that no other thread uses; `out` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_get_follower_status(
    config: *const replication_config,
    follower_index: c_int,
    out: *mut repl_follower_status,
) -> c_int {
    guard::call(|| {
        ptr::check(out)?;
        // SAFETY: the caller's promise.
        let status = unsafe { status_of(config, follower_index) }?;
        // SAFETY: not NULL, writable by the caller's promise.
        unsafe { out.write(status) };
        Ok(0)
    })
}

unsafe fn status_of(config: *const replication_config, index: c_int) -> Result<repl_follower_status> {
    // SAFETY: the caller's promise.
    let count = unsafe { layout::check(config) }?;
    let slot = usize::try_from(index).ok().filter(|slot| *slot < count).ok_or(Error::Invalid("follower_index"))?;
    // SAFETY: as above, and the slot is one of the array's.
    let node = unsafe { configs::node(config, slot) };
    let state = match (node.fd >= 0, node.online) {
        (true, 1) => REPL_FOLLOWER_ONLINE,
        (true, _) => REPL_FOLLOWER_CATCHING_UP,
        _ => REPL_FOLLOWER_OFFLINE,
    };
    let known = configs::status(config, slot)?;
    Ok(repl_follower_status {
        state,
        acked_lsn: known.acked.0,
        lag_records: known.lag_records,
        lag_bytes: known.lag_bytes,
        ms_since_heard: known.ms_since_heard,
        last_disconnect: c_text(known.reason.as_bytes()),
        last_full_resync: c_text(known.full_resync.as_bytes()),
        disconnects: known.disconnects,
        partial_resyncs: known.resyncs.partial,
        full_resyncs: known.resyncs.full,
        refusals: known.resyncs.refused,
    })
}

fn c_text(bytes: &[u8]) -> [c_char; 96] {
    let mut text = [0; 96];
    for (to, from) in text.iter_mut().take(95).zip(bytes) {
        *to = from.cast_signed();
    }
    text
}

/// As `repl_receive_record`, and answers for the record itself: with status 0 once it is durable, cumulative and
/// marked, 1 if it came damaged, 2 if the log failed. The first call on a connection says so to the leader, with one
/// marked ack that counts for no record. Returns the same.
///
/// # Safety
/// As for `repl_receive_record`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn logship_follow(fd: c_int, writer: *mut wal_writer, store: *mut kv_store) -> c_int {
    // SAFETY: the caller's promise.
    if unsafe { repl_ship::take_ready(fd, writer, store) } {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { repl_ship::receive(fd, writer, store, Acks::ByUs) }
}

/// The LSN of the log's last record, which is the number of its records; 0 for an empty log. Of records that were
/// received and stored together, the last one that a receive has returned. -1 with `errno` EINVAL for NULL, EBADF for a
/// closed one.
///
/// # Safety
/// `writer` is NULL or points to a writer that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn logship_last_lsn(writer: *const wal_writer) -> i64 {
    let body = || -> Result<i64> {
        // SAFETY: the caller's promise.
        let mut log = unsafe { super::wal_writer::log_of(writer) }?;
        let (last, _) = log.end()?;
        Ok(i64::try_from(last.0.saturating_sub(log.ready())).unwrap_or(i64::MAX))
    };
    guard::call_or(body, |_| -1)
}

/// Appends `count` records with one write and one fsync: all are durable when this returns 0, none is in the log when
/// it returns -1, with `errno` as `wal_append`. Memory grows with the encoded batch.
///
/// # Safety
/// `writer` is NULL or points to a writer that no other thread uses; `records` to `count` records as for `wal_append`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn logship_append_batch(
    writer: *mut wal_writer,
    records: *const wal_record,
    count: usize,
) -> c_int {
    guard::call(|| {
        ptr::check(writer)?;
        ptr::check(records)?;
        // SAFETY: the caller's promise; `view` refuses what it can.
        let views: Result<Vec<_>> = (0..count).map(|at| unsafe { super::wal_record::view(records.add(at)) }).collect();
        // SAFETY: as above.
        unsafe { super::wal_writer::append_all(writer, &views?) }
    })
}

/// Begins what `repl_catch_up` does and returns at once: it goes on inside `repl_ship_record`, `repl_wait_quorum` and
/// `repl_catch_up_go_on`, beside the commits, and marks the follower online at its end. `repl_get_follower_status`
/// tells how far it is. Several followers may catch up at the same time. Returns 0, or -1 with `errno` as
/// `repl_catch_up`; that the follower's log is another one shows later: it is marked offline then. A snapshot, if one
/// is needed, is sent to its end first.
///
/// # Safety
/// `config` is NULL or points to a configuration that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_catch_up_begin(
    config: *mut replication_config,
    follower_index: c_int,
    follower_lsn: u64,
) -> c_int {
    guard::call(|| {
        let begin = |member: &mut Member<'_>, source: &LogSource<'_>| {
            catch_up::begin(member, source, Lsn(follower_lsn)).map(|_| 0)
        };
        // SAFETY: the caller's promise.
        unsafe { repl_rejoin::with_source(config, follower_index, follower_lsn, begin) }
    })
}

/// Goes on with the catch-ups that `repl_catch_up_begin` has begun, for at most `timeout_ms` (negative: to their end).
/// Returns how many go on still, or -1 with `errno` EINVAL.
///
/// # Safety
/// `config` is NULL or points to a configuration that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_catch_up_go_on(config: *mut replication_config, timeout_ms: c_int) -> c_int {
    guard::call(|| {
        let deadline = Deadline::after_ms(timeout_ms);
        // SAFETY: the caller's promise.
        let left = unsafe { configs::with_group(config, |group, _| group.catch_up_until(deadline)) }?;
        Ok(ptr::count(left as u64))
    })
}

/// Is told how far `repl_catch_up` has come: the follower's index, records and bytes sent so far, records to be sent,
/// and the context given with it. Called inside `repl_catch_up`, ten times a second and at its end.
pub type repl_progress_fn =
    Option<unsafe extern "C" fn(follower: c_int, records: u64, bytes: u64, total: u64, context: *mut c_void)>;

struct CWatch {
    function: repl_progress_fn,
    context: *mut c_void,
}

// SAFETY: the context is the program's and only handed back; the contract says that any thread may get it.
unsafe impl Send for CWatch {}
// SAFETY: as above.
unsafe impl Sync for CWatch {}

static C_WATCH: RwLock<CWatch> = RwLock::new(CWatch { function: None, context: std::ptr::null_mut() });

/// Sets who is told how far catch-ups have come; NULL for nobody.
///
/// # Safety
/// `function` may be called with `context` until it is replaced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_set_progress(function: repl_progress_fn, context: *mut c_void) {
    *C_WATCH.write().unwrap_or_else(std::sync::PoisonError::into_inner) = CWatch { function, context };
}

/// Tells the program's function.
pub(super) fn tell_progress(report: &Report) {
    let Ok((function, context)) = C_WATCH.try_read().map(|watch| (watch.function, watch.context)) else { return };
    if let Some(function) = function {
        let index = ptr::count(report.index as u64);
        // SAFETY: the program gave the function for this.
        unsafe { function(index, report.records, report.bytes, report.total, context) };
    }
}

/// What a compaction leaves in the log although the checkpoint covers it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct logship_retention {
    /// At least so many of the last records.
    pub records: u64,
    /// At least so many bytes of the last records.
    pub bytes: u64,
    /// What the slowest follower online has not acknowledged, if that is no more than so many bytes.
    pub follower_bytes: u64,
}

/// Drops the records of the log at `wal_path` that the checkpoint at `checkpoint_path` covers, except the last of them.
/// Returns how many were dropped (0: nothing to drop; at most INT_MAX), or -1 with `errno`: EBADMSG if the checkpoint
/// or the log is damaged, the checkpoint does not say which records it covers (a lesson's), or is not of this log;
/// ENOENT; what the file system says. The log is what it was then. The new file takes the old one's place with
/// rename(2), and a crash at any moment leaves one of the two; LSNs stay what they are (`<wal_path>.meta` keeps the
/// base). Writers of this process that have the log open go on in the new file; no other process may have it open.
/// Recover with `wal_recover_with_checkpoint` from now on. Takes the time of one pass over what stays.
///
/// # Safety
/// The paths are NULL or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn logship_wal_compact(wal_path: *const c_char, checkpoint_path: *const c_char) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        let wal_path = unsafe { ptr::path(wal_path) }?;
        // SAFETY: the caller's promise.
        let checkpoint_path = unsafe { ptr::path(checkpoint_path) }?;
        compact(wal_path, checkpoint_path, &Retention::default(), None)
    })
}

/// As `logship_wal_compact`, for the log of the leader `config`: it keeps what `keep` says (NULL: nothing), and counts
/// a follower's records by what it has acknowledged. A follower that falls behind the log's beginning needs the
/// checkpoint: see `repl_set_checkpoint`.
///
/// # Safety
/// `config` points to a configuration that no other thread uses, `checkpoint_path` to a C string; `keep` is NULL or
/// points to a struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn repl_compact(
    config: *mut replication_config,
    checkpoint_path: *const c_char,
    keep: *const logship_retention,
) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        let checkpoint_path = unsafe { ptr::path(checkpoint_path) }?;
        // SAFETY: NULL or a struct, by the caller's promise.
        let keep = unsafe { keep.as_ref() }.map_or(Retention::default(), |keep| Retention {
            records: keep.records,
            bytes: keep.bytes,
            follower_bytes: keep.follower_bytes,
        });
        // SAFETY: the caller's promise.
        let slowest = unsafe { configs::with_group(config, |group, _| Ok(group.slowest())) }?;
        let (set, _) = configs::paths(config)?;
        compact(&leader_log::leader_path(set.as_deref())?, checkpoint_path, &keep, slowest)
    })
}

fn compact(wal: &Path, checkpoint: &Path, keep: &Retention, slowest: Option<Lsn>) -> Result<c_int> {
    let done = logs::compact(wal, checkpoint, keep, slowest).inspect_err(|error| {
        crate::log_error!("{}: not compacted by {}: {error}", wal.display(), checkpoint.display());
    })?;
    let Compacted { records, bytes, base } = done;
    crate::log_info!("{}: {records} records dropped, {bytes} bytes; it begins after LSN {base}", wal.display());
    Ok(ptr::count(records))
}

/// Drops every record after `lsn` from the log at `wal_path`; their bytes are kept in `<wal_path>.cut-N`. It is the way
/// out for a follower that is refused with ESTALE or ERANGE: cut its log back to a record that both have, and rejoin.
/// No store is changed: build it anew, and not from a checkpoint that covers what is cut. Returns 0, or -1 with
/// `errno`: ERANGE if the log does not have `lsn` (one record must stay of a log that was compacted), EBADMSG if it is
/// damaged, ENOENT, EINVAL. Writers of this process that have the log open go on at its new end.
///
/// # Safety
/// `wal_path` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn logship_wal_truncate_to(wal_path: *const c_char, lsn: u64) -> c_int {
    guard::call(|| {
        // SAFETY: the caller's promise.
        let path = unsafe { ptr::path(wal_path) }?;
        let kept = logs::truncate_to(path, Lsn(lsn)).inspect_err(|error| {
            crate::log_error!("{}: not cut after LSN {lsn}: {error}", path.display());
        })?;
        if let Some(kept) = kept {
            crate::log_warn!("{}: cut after LSN {lsn}; the rest is kept in {}", path.display(), kept.display());
        }
        Ok(0)
    })
}
