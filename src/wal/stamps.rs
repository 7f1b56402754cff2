//! `<checkpoint>.stamps-<len>-<crc>`: what this library knows beside a checkpoint, whose bytes are the lesson's.
//!
//! ```text
//! "LSSTAMP\1" [len:8] [crc:4]                       of the checkpoint's bytes, as in the name
//! [wal_offset:8] [num_keys:4]                       as in the checkpoint
//! [lsn:8] [history:8] [0:8] [num_tombstones:8]
//! num_keys x [timestamp:8]                          in the order of the checkpoint's keys
//! num_tombstones x [key_len:2][key][timestamp:8]
//! [crc32:4]                                         over every byte before it
//! ```
//! All integers are little-endian. Two files can't be renamed in one step, so the content of a checkpoint is a part of
//! the name of what belongs to it: after a crash at any moment the old checkpoint finds its file, or the new one.
#![forbid(unsafe_code)]

use super::checkpoint::{Covered, Summed};
use super::window::Window;
use crate::error::{Error, Result};
use crate::kv::StateMachine;
use crate::storage::Storage;
use crate::storage::file::{self, FileStorage};
use crate::types::{History, Lsn};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"LSSTAMP\x01";
/// Where the time stamps begin.
pub(super) const HEADER_LEN: u64 = 8 + 12 + 12 + 32;

/// What tells a checkpoint's bytes from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) len: u64,
    pub(super) crc: u32,
    pub(super) offset: u64,
    pub(super) keys: u32,
}

/// What a stamps file says in front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) content: Content,
    pub(super) covered: Covered,
    pub(super) tombstones: u64,
}

/// A stamps file that was read and found whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    pub(super) header: Header,
    pub(super) crc: u32,
    pub(super) len: u64,
}

/// The name of the file that belongs to the checkpoint at `path` with this content.
fn name(path: &Path, content: &Content) -> PathBuf {
    file::beside(path, &format!(".stamps-{}-{:08x}", content.len, content.crc))
}

/// Whether `behind` is how such a name goes on behind the checkpoint's; and the length that it says.
fn len_in_name(behind: &str) -> Option<u64> {
    let (len, crc) = behind.strip_prefix(".stamps-")?.split_once('-')?;
    let (number, crc_number) = (len.parse::<u64>().ok()?, u32::from_str_radix(crc, 16).ok()?);
    (len == number.to_string() && crc == format!("{crc_number:08x}")).then_some(number)
}

/// Writes the file that belongs to a checkpoint which is about to get the name `path`, durably, with the mode and the
/// owner of `like`. Returns its name if no
/// such file was there before.
pub(super) fn write(
    store: &impl StateMachine,
    (path, like): (&Path, &Path),
    content: &Content,
    covered: Covered,
) -> Result<Option<PathBuf>> {
    let name = name(path, content);
    let is_new = file::open_own(&name).is_ok_and(|there| there.is_none());
    file::replace(&name, like, |out| {
        let mut tombstones = 0u64;
        store.for_each(&mut |entry| {
            tombstones += u64::from(entry.value.is_none());
            Ok(())
        })?;
        let mut out = Summed::new(out);
        out.put(MAGIC)?;
        out.put(&content.len.to_le_bytes())?;
        out.put(&content.crc.to_le_bytes())?;
        out.put(&content.offset.to_le_bytes())?;
        out.put(&content.keys.to_le_bytes())?;
        for number in [covered.lsn.0, covered.history.0, 0, tombstones] {
            out.put(&number.to_le_bytes())?;
        }
        store.for_each(&mut |entry| {
            if entry.value.is_none() {
                out.put_string(entry.key, "a key over 65,535 bytes")?;
            }
            out.put(&entry.timestamp.0.to_le_bytes())
        })?;
        out.finish()
    })?;
    Ok(is_new.then_some(name))
}

/// Copies a stamps file that stands in `storage` from byte `at` on, to belong to the checkpoint `path`.
pub(super) fn copy(storage: &impl Storage, at: u64, whole: &Whole, path: &Path) -> Result<()> {
    file::replace(&name(path, &whole.header.content), path, |out| -> Result<()> {
        std::io::Write::flush(out)?;
        Ok(file::copy_range(storage, at..at + whole.len, out.get_mut())?)
    })
}

/// Removes what killed processes have left of those that were to belong to the checkpoint `path`.
pub(super) fn remove_left(path: &Path) {
    file::remove_left_of(path, |behind| len_in_name(behind).is_some());
}

/// Removes those that belong to checkpoints which had the name `path` before, and what is left of such.
pub(super) fn discard_others(path: &Path, content: &Content) {
    remove_left(path);
    let kept = name(path, content);
    // They take room and are passed over.
    let all = file::all_beside(path, |behind| len_in_name(behind).is_some()).unwrap_or_default();
    all.iter().filter(|other| **other != kept).for_each(|other| file::discard(other));
}

/// Checks a stamps file, which begins at byte `at`, from its first to its last byte.
pub(super) fn verify(storage: &impl Storage, at: u64) -> Result<Whole> {
    let mut reader = Window::new(storage, at);
    if &reader.array::<8>()? != MAGIC {
        return Err(Error::Malformed("what stands beside the checkpoint is no stamps file"));
    }
    let (len, crc) = (reader.u64()?, reader.u32()?);
    let (offset, keys) = (reader.u64()?, reader.u32()?);
    let (lsn, history) = (Lsn(reader.u64()?), History(reader.u64()?));
    reader.u64()?;
    let tombstones = reader.u64()?;
    for _ in 0..keys {
        reader.u64()?;
    }
    for _ in 0..tombstones {
        reader.string()?;
        reader.u64()?;
    }
    let computed = reader.crc();
    if reader.u32()? != computed {
        return Err(Error::Malformed("the CRC of the checkpoint's stamps file does not match"));
    }
    if reader.offset() != storage.len()? {
        return Err(Error::Malformed("the checkpoint's stamps file has bytes after its CRC"));
    }
    let content = Content { len, crc, offset, keys };
    let header = Header { content, covered: Covered { offset, lsn, history }, tombstones };
    Ok(Whole { header, crc: computed, len: reader.offset() - at })
}

/// The file that belongs to the checkpoint at `path` with this content, whole; `None`: it has none, and was written by
/// a lesson's code.
///
/// Refused is one that is damaged; and a checkpoint that has none, but beside which stands one for a checkpoint of the
/// same length and the same numbers in front, or all but a bit of them: then it is that one, and damaged.
pub(super) fn find(path: &Path, content: &Content) -> Result<Option<(FileStorage, Whole)>> {
    if let Some(file) = file::open_own(&name(path, content))? {
        let storage = FileStorage(file);
        let whole = verify(&storage, 0)?;
        if whole.header.content != *content {
            return Err(Error::Malformed("the stamps file is not the checkpoint's"));
        }
        return Ok(Some((storage, whole)));
    }
    for other in file::all_beside(path, |behind| len_in_name(behind) == Some(content.len))? {
        let Ok(Some(file)) = file::open_own(&other) else { continue };
        let Ok(Whole { header, .. }) = verify(&FileStorage(file), 0) else { continue };
        let (offset, keys) = (header.content.offset ^ content.offset, header.content.keys ^ content.keys);
        if offset.count_ones() + keys.count_ones() <= 1 {
            return Err(Error::Malformed("the checkpoint's bytes are not those that its stamps file was made for"));
        }
    }
    Ok(None)
}

/// The last record that any checkpoint of the name `path` has covered, as far as the files that belonged to them are
/// there: one that a crash has left, or whose checkpoint is missing or damaged.
pub(super) fn highest(path: &Path) -> Result<Lsn> {
    let mut highest = Lsn::ZERO;
    for name in file::all_beside(path, |behind| len_in_name(behind).is_some())? {
        let Ok(Some(file)) = file::open_own(&name) else { continue };
        if let Ok(Whole { header, .. }) = verify(&FileStorage(file), 0) {
            highest = highest.max(header.covered.lsn);
        }
    }
    Ok(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_name_of_ours() {
        assert_eq!(len_in_name(".stamps-43-00ab12cd"), Some(43));
        for other in [".stamps-43-ab12cd", ".stamps-043-00ab12cd", ".stamps-43-00AB12CD", ".stamps-43", ".stamps-mine"]
        {
            assert_eq!(len_in_name(other), None, "{other}");
        }
    }
}
