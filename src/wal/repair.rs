//! Opening a log to write to it: judging its end, and cutting a torn write off.

use super::judge::{self, Reason, Verdict};
use super::note::Note;
use super::scan::End;
use super::tail::LogTail;
use super::{CHECKPOINT_SUFFIX, index_file, meta, stamps};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::storage::file;
use crate::types::Lsn;
use std::path::Path;

/// Writes of other processes that may come between two looks at the end before it is called busy.
const LOOKS: u32 = 1000;

/// Reads a log's end and makes it fit to append to: a torn tail is copied to `<path>.torn-N` and cut off, with a
/// warning; what can't be one is [`Error::Damaged`], or [`Error::Malformed`] if the file is no log, and nothing is
/// changed. All that is there is durable then, and the log's note says so. What a crash has left of a compaction is
/// removed.
///
/// `reader` and `writer` are the same file; a C log's descriptor is write-only.
pub fn repair(path: &Path, reader: &impl Storage, writer: &mut impl Storage, tail: &mut LogTail) -> Result<()> {
    let path = &file::real(path);
    if reader.is_empty()? {
        // Of a log that was removed: the new one's first records may be like that one's.
        file::discard(&file::beside(path, meta::SUFFIX));
    }
    remove_temporaries(path);
    let (end, note, verdict) = look(reader, tail)?;
    meta::settle(path, reader, tail)?;
    let offset = end.next.offset;
    match verdict {
        Verdict::Whole => {
            let len = tail.len();
            if let (0, Some(note)) = (len, note.filter(|note| note.durable > 0)) {
                crate::log_warn!(
                    "{}: empty; it was durable up to byte {} (LSN {})",
                    path.display(),
                    note.durable,
                    note.last
                );
            }
            // Else a crash of the machine could take back what this process builds on.
            if len > 0 && note.is_none_or(|note| note.durable != len) {
                writer.sync()?;
            }
            tail.open_durable(reader, note);
            Ok(())
        }
        Verdict::Torn => {
            let kept = file::save_tail(path, "torn", reader, offset)?;
            let bytes = reader.len()?.saturating_sub(offset);
            crate::log_warn!(
                "{}: a torn record at offset {offset} (after LSN {}) was cut off; its {bytes} bytes are kept in {}",
                path.display(),
                end.last(),
                kept.display()
            );
            writer.truncate(offset)?;
            writer.sync()?;
            tail.now_durable(reader);
            Ok(())
        }
        Verdict::Refused(Reason::NotALog) => {
            crate::log_error!("{}: {}", path.display(), Reason::NotALog);
            Err(Error::Malformed("not a log: it does not begin with a record"))
        }
        Verdict::Refused(reason) => {
            let (what, last) = (if end.damaged { "damaged" } else { "ends" }, end.last());
            crate::log_error!(
                "{}: {what} at offset {offset} (after LSN {last}): {reason}, so nothing was cut; to go on with what is \
                 before it: logship wal repair, or logship_wal_truncate_to(path, {last})",
                path.display()
            );
            Err(Error::Damaged { offset, after: last })
        }
    }
}

/// Judges a log's end, and again as long as another process is in the middle of a write.
fn look(reader: &impl Storage, tail: &mut LogTail) -> Result<(End, Option<Note>, Verdict)> {
    let mut before = None;
    for _ in 0..LOOKS {
        let end = tail.refresh(reader)?;
        let note = Note::of(reader, &end)?;
        let mut verdict = judge::judge(reader, &end, note.as_ref())?;
        if verdict == Verdict::Torn && tail.is_empty() && tail.base() > Lsn::ZERO {
            // A compacted log has had a whole record from the beginning.
            verdict = Verdict::Refused(Reason::NotALog);
        }
        let len = reader.len()?;
        if verdict == Verdict::Whole || before == Some(len) {
            return Ok((end, note, verdict));
        }
        before = Some(len);
        reader.settle();
    }
    Err(Error::Io(std::io::Error::from_raw_os_error(libc::EBUSY)))
}

/// Removes what killed processes have left of files that were to become the log, or one of those beside it.
fn remove_temporaries(path: &Path) {
    for suffix in ["", meta::SUFFIX, index_file::SUFFIX, CHECKPOINT_SUFFIX] {
        file::remove_left(&file::beside(path, suffix));
    }
    stamps::remove_left(&file::beside(path, CHECKPOINT_SUFFIX));
}
