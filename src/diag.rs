//! Diagnostics: one replaceable log function, stderr by default.
//!
//! The library prints nothing else and never to stdout. No allocation stays behind, no lock is held while the
//! function runs, and it may be replaced from any thread at any time.
#![forbid(unsafe_code)]

use crate::signal::shielded;
use std::fmt;
use std::sync::RwLock;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed and the caller got an error.
    Error,
    /// Something was repaired, skipped or marked offline.
    Warn,
    /// A milestone: a follower rejoined, a catch-up ended.
    Info,
}

/// A log function: level and one line without a line feed.
pub type Sink = fn(Level, &str);

static SINK: RwLock<Option<Sink>> = RwLock::new(None);

/// Replaces the log function; `None` brings stderr back (warnings and errors only).
pub fn set_sink(sink: Option<Sink>) {
    let mut slot = SINK.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    *slot = sink;
}

/// Writes one line through the log function.
pub fn log(level: Level, message: fmt::Arguments<'_>) {
    // try_read: a child forked while another thread replaced the function must not hang.
    let sink = SINK.try_read().ok().and_then(|slot| *slot);
    match sink {
        Some(sink) => sink(level, &message.to_string()),
        None if level <= Level::Warn => {
            let line = format!("logship: {message}\n");
            // One write(2) a line, so that lines of several processes don't mix, and without the lock of the standard
            // library, which a forked child may have inherited locked. Nothing can be done on failure.
            let _ = shielded(|| nix::unistd::write(std::io::stderr(), line.as_bytes()));
        }
        None => {}
    }
}

/// Logs an error.
#[macro_export]
#[doc(hidden)]
macro_rules! log_error {
    ($($arg:tt)*) => { $crate::diag::log($crate::diag::Level::Error, format_args!($($arg)*)) };
}
/// Logs a warning.
#[macro_export]
#[doc(hidden)]
macro_rules! log_warn {
    ($($arg:tt)*) => { $crate::diag::log($crate::diag::Level::Warn, format_args!($($arg)*)) };
}
/// Logs a milestone.
#[macro_export]
#[doc(hidden)]
macro_rules! log_info {
    ($($arg:tt)*) => { $crate::diag::log($crate::diag::Level::Info, format_args!($($arg)*)) };
}
