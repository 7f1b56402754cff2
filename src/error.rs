//! The one error type, and the one table that ties it to the C return codes and `errno`.
//!
//! Every failure of the library is one of these; `capi` turns it into -1 (or `CRC_MISMATCH`) and an errno,
//! Rust callers match on it.
#![forbid(unsafe_code)]

use crate::types::Lsn;
use std::io;

/// What a C function returns for a damaged record (contract, w10/wal_record.h).
pub const CRC_MISMATCH: i32 = -2;

/// Everything that can go wrong in logship.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument that can't be right; nothing was changed. EINVAL.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// The buffer is too small for the encoded record. ENOBUFS.
    #[error("the buffer is too small: {needed} bytes are needed")]
    BufferTooSmall {
        /// Bytes that the record needs.
        needed: usize,
    },
    /// The bytes are not what was written: the CRC or the length does not match. `CRC_MISMATCH`, EBADMSG.
    #[error("the record is damaged: its CRC or length does not match")]
    CrcMismatch,
    /// The CRC is right, or there is nothing to check, but the fields make no record or file. EBADMSG.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Files that are not of one log, or not of one moment; nothing was changed. EBADMSG.
    #[error("files of different logs or moments: {0}")]
    WrongFiles(String),
    /// A log is damaged before its end; nothing was changed. EBADMSG.
    #[error("the log is damaged at offset {offset} (after LSN {after})")]
    Damaged {
        /// Byte offset of the first record that is not whole.
        offset: u64,
        /// The last whole record before the damage.
        after: Lsn,
    },
    /// A log that is only read ends before its last record does: torn, or still being written. EBADMSG.
    #[error("the log ends in the middle of a record at offset {offset} (after LSN {after})")]
    Unfinished {
        /// Byte offset of the record that is not whole.
        offset: u64,
        /// The last whole record before it.
        after: Lsn,
    },
    /// A key or value does not fit the format. EMSGSIZE.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// An earlier write or fsync failed; the log takes nothing until it is reopened. EIO.
    #[error("the log is latched after a failed fsync; reopen it")]
    Latched,
    /// The log's file was removed, or another one has taken its name: what is appended to it would be lost. ESTALE.
    #[error("the log's file was removed or replaced; reopen it")]
    Gone,
    /// Another process has the log open. EBUSY.
    #[error("the log is in use by another process")]
    Locked,
    /// The peer has closed the connection, or there is none. ENOTCONN.
    #[error("not connected")]
    NotConnected,
    /// The followers that are left can't make a quorum any more. ENOTCONN.
    #[error("no quorum: {acked} acked and {possible} can still ack, {needed} are needed")]
    NoQuorum {
        /// Followers that have acknowledged.
        acked: usize,
        /// Followers online that may still acknowledge.
        possible: usize,
        /// The quorum.
        needed: usize,
    },
    /// The deadline has passed. ETIMEDOUT.
    #[error("timed out")]
    TimedOut,
    /// The peer broke the protocol. EPROTO.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The follower has more records than the leader. ERANGE.
    #[error("the follower is ahead: it has LSN {follower}, the leader ends at LSN {leader}")]
    FollowerAhead {
        /// The follower's last LSN.
        follower: Lsn,
        /// The leader's last LSN.
        leader: Lsn,
    },
    /// The follower's log and the leader's are different histories. ESTALE.
    #[error("the follower's record {lsn} is not the leader's: the logs have diverged")]
    Diverged {
        /// The record that both have and that differs.
        lsn: Lsn,
    },
    /// The records that the follower lacks were dropped from the log by a compaction. ENODATA.
    #[error("the log begins after LSN {base}: records after LSN {follower} are gone")]
    Compacted {
        /// The follower's last LSN.
        follower: Lsn,
        /// The LSN before the log's first record.
        base: Lsn,
    },
    /// The log has no such record. ERANGE.
    #[error("LSN {lsn} is not in the log, which has the records after LSN {base} up to LSN {last}")]
    OutOfRange {
        /// The LSN that was asked for.
        lsn: Lsn,
        /// The LSN before the log's first record.
        base: Lsn,
        /// The log's last LSN.
        last: Lsn,
    },
    /// No address is known for this host. EADDRNOTAVAIL.
    #[error("unknown host {0}")]
    UnknownHost(String),
    /// No slot is free for a follower that wants to join. EADDRNOTAVAIL.
    #[error("no follower slot is free for this peer")]
    NoSlot,
    /// Out of memory. ENOMEM.
    #[error("out of memory")]
    OutOfMemory,
    /// The other end could not do it. EIO.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// A bug was caught at the C boundary. EIO.
    #[error("internal error: {0}")]
    Internal(&'static str),
    /// The operating system refused; its errno.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// The errno that tells this error to a C program.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Error::Invalid(_) => libc::EINVAL,
            Error::BufferTooSmall { .. } => libc::ENOBUFS,
            Error::CrcMismatch | Error::Malformed(_) => libc::EBADMSG,
            Error::WrongFiles(_) | Error::Damaged { .. } | Error::Unfinished { .. } => libc::EBADMSG,
            Error::TooLarge(_) => libc::EMSGSIZE,
            Error::Latched | Error::Internal(_) | Error::Refused(_) => libc::EIO,
            Error::Locked => libc::EBUSY,
            Error::NotConnected | Error::NoQuorum { .. } => libc::ENOTCONN,
            Error::TimedOut => libc::ETIMEDOUT,
            Error::Protocol(_) => libc::EPROTO,
            Error::FollowerAhead { .. } | Error::OutOfRange { .. } => libc::ERANGE,
            Error::Compacted { .. } => libc::ENODATA,
            Error::Diverged { .. } | Error::Gone => libc::ESTALE,
            Error::NoSlot | Error::UnknownHost(_) => libc::EADDRNOTAVAIL,
            Error::OutOfMemory => libc::ENOMEM,
            Error::Io(error) => error.raw_os_error().unwrap_or_else(|| errno_of_kind(error.kind())),
        }
    }

    /// The value that a C function returns for this error: `CRC_MISMATCH` for a damaged record, else -1.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Error::CrcMismatch => CRC_MISMATCH,
            _ => -1,
        }
    }

    /// Whether the connection on which it happened can't be used any more.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Error::NotConnected | Error::TimedOut | Error::Protocol(_) | Error::Io(_))
    }
}

/// The errno behind an error that a library has wrapped.
fn errno_of_kind(kind: io::ErrorKind) -> i32 {
    match kind {
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::PermissionDenied => libc::EACCES,
        io::ErrorKind::AlreadyExists => libc::EEXIST,
        io::ErrorKind::NotADirectory => libc::ENOTDIR,
        io::ErrorKind::IsADirectory => libc::EISDIR,
        io::ErrorKind::StorageFull | io::ErrorKind::WriteZero => libc::ENOSPC,
        io::ErrorKind::QuotaExceeded => libc::EDQUOT,
        io::ErrorKind::FileTooLarge => libc::EFBIG,
        io::ErrorKind::ReadOnlyFilesystem => libc::EROFS,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => libc::EINVAL,
        io::ErrorKind::TimedOut => libc::ETIMEDOUT,
        io::ErrorKind::UnexpectedEof => libc::ENOTCONN,
        _ => libc::EIO,
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(errno: nix::errno::Errno) -> Error {
        Error::Io(io::Error::from(errno))
    }
}

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;
