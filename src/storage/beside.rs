//! Files of this library beside a log or a checkpoint: how they are made, found and removed.
//!
//! Each has the mode and the owner of the file that it stands beside or replaces, from its creation on. A name counts
//! as one of ours by its exact form only, so a user's own copies stay. What stands under such a name may have been
//! planted: it is opened without following a symbolic link, and what is no regular file is not used. A temporary file
//! is locked while it is being written, so what a killed process has left is told from what a living one writes.
#![forbid(unsafe_code)]

use super::Storage;
use super::file::{above_stdio, copy_range, directory_of, open_high, sync_directory_of};
use crate::signal::shielded;
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Uid, fchown};
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a file has whose name nobody else's gives a mode.
const MODE: u32 = 0o644;

/// `path` with `suffix` behind it.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whose mode and owner a new file gets.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// The first of these names that is a file is the model.
pub fn model_of(paths: &[&Path]) -> Option<Model> {
    let found = paths.iter().filter_map(|path| std::fs::metadata(path).ok()).find(|found| found.is_file())?;
    Some(Model { mode: found.mode() & 0o777, uid: found.uid(), gid: found.gid() })
}

/// Creates a file that must not be there, a symbolic link neither.
fn create_new(path: &Path, model: Option<Model>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create_new(true).custom_flags(libc::O_NOFOLLOW);
    let Some(Model { mode, uid, gid }) = model else {
        return open_high(|| options.mode(MODE).open(path));
    };
    // Nobody else reads it before it is theirs.
    let file = open_high(|| options.mode(mode & 0o600).open(path))?;
    let given = (|| -> io::Result<()> {
        let stat = fstat(&file)?;
        let is_theirs = (stat.st_uid, stat.st_gid) == (uid, gid);
        let is_given = is_theirs || fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).is_ok();
        let has_group = is_given || stat.st_gid == gid || fchown(&file, None, Some(Gid::from_raw(gid))).is_ok();
        // The group's rights are no other group's.
        let mode = if has_group { mode } else { mode & 0o707 };
        file.set_permissions(Permissions::from_mode(mode))
    })();
    given.inspect_err(|_| discard(path)).map(|()| file)
}

/// The number behind `prefix` in `name`, if the name is exactly that.
fn number_behind(name: &str, prefix: &str) -> Option<u32> {
    let number = name.strip_prefix(prefix)?.parse::<u32>().ok().filter(|number| *number > 0)?;
    (name.len() == prefix.len() + number.to_string().len()).then_some(number)
}

/// The files in `path`'s directory whose names are `path`'s and behind it something that `is_ours` knows.
pub fn all_beside(path: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let Some(base) = path.file_name() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory_of(path))? {
        let name = entry?.file_name();
        let behind = name.as_encoded_bytes().strip_prefix(base.as_encoded_bytes());
        if behind.and_then(|behind| std::str::from_utf8(behind).ok()).is_some_and(&is_ours) {
            found.push(path.with_file_name(name));
        }
    }
    Ok(found)
}

/// Opens a file of ours for reading; `None`: there is none. What is no regular file is refused with EBADMSG, and never
/// waited for.
pub fn open_own(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    match options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(File::from(above_stdio(OwnedFd::from(file))?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(_) => Err(Errno::EBADMSG.into()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => Err(Errno::EBADMSG.into()),
        Err(error) => Err(error),
    }
}

/// Reads a file of ours that has at most `limit` bytes; a larger one is EBADMSG, and not read.
pub fn read_own(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = open_own(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Errno::EBADMSG.into());
    }
    Ok(Some(bytes))
}

/// Opens a file of ours for appending, and creates it if it is not there. A link or a pipe that has its name gives way.
pub fn open_own_append(path: &Path, model: Option<Model>) -> io::Result<File> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        std::fs::remove_file(path)?;
    }
    let mut options = OpenOptions::new();
    match options.append(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = create_new(path, model)?;
            sync_directory_of(path)?;
            Ok(file)
        }
        other => Ok(File::from(above_stdio(OwnedFd::from(other?))?)),
    }
}

/// Cuts a file of ours, durably.
pub fn cut_own(path: &Path, len: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}

/// Creates `<path>.<what>-N` with the first N that is free.
pub fn create_beside(path: &Path, what: &str) -> io::Result<(PathBuf, File)> {
    create_numbered(path, what, model_of(&[path]))
}

fn create_numbered(path: &Path, what: &str, model: Option<Model>) -> io::Result<(PathBuf, File)> {
    for number in 1u32.. {
        let name = beside(path, &format!(".{what}-{number}"));
        match create_new(&name, model) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return Ok((name, other?)),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// A file that is being written under the name `<path>.tmp-N`, locked. It is removed if it gets no other name.
#[derive(Debug)]
pub struct Temporary {
    name: PathBuf,
    file: File,
}

impl Temporary {
    /// Begins a file that is to become `path`. What killed processes have left of earlier ones is removed.
    pub fn create(path: &Path, model: Option<Model>) -> io::Result<Temporary> {
        remove_left(path);
        loop {
            let (name, file) = create_numbered(path, "tmp", model)?;
            let temporary = Temporary { name, file };
            temporary.file.lock()?;
            // Another process may have taken it for one that was left, before it was locked.
            if fstat(&temporary.file)?.st_nlink > 0 {
                return Ok(temporary);
            }
        }
    }

    /// Its name until it has another.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Writes its content and makes that durable.
    pub fn fill<T, E: From<io::Error>>(
        &mut self,
        content: impl FnOnce(&mut BufWriter<&mut File>) -> Result<T, E>,
    ) -> Result<T, E> {
        shielded(|| {
            let mut writer = BufWriter::with_capacity(256 * 1024, &mut self.file);
            let made = content(&mut writer)?;
            writer.flush()?;
            writer.get_ref().sync_all()?;
            Ok(made)
        })
    }

    /// Gives it its name. Neither the bytes nor the name are made durable here.
    pub fn rename(mut self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.name, to)?;
        self.name = PathBuf::new();
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.name.as_os_str().is_empty() {
            discard(&self.name);
        }
    }
}

/// Removes `<path>.tmp-N` that no living process is writing. They do no harm but take room, so that they can't be found
/// or removed is no failure.
pub fn remove_left(path: &Path) {
    remove_left_of(path, str::is_empty);
}

/// The same for all files whose names are `path`'s and behind it something that `is_ours` knows.
pub fn remove_left_of(path: &Path, is_ours: impl Fn(&str) -> bool) {
    let is_left = |behind: &str| {
        let at = behind.rfind(".tmp-").unwrap_or(behind.len());
        is_ours(&behind[..at]) && number_behind(&behind[at..], ".tmp-").is_some()
    };
    for name in all_beside(path, is_left).unwrap_or_default() {
        let Ok(Some(file)) = open_own(&name) else { continue };
        if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            discard(&name);
        }
    }
}

/// Writes a file under a temporary name in the same directory, fsyncs it, renames it to `path` and fsyncs the
/// directory: a reader, and a machine that crashes, sees the old file or the new one and never a part. Its mode and
/// owner are those of the old one, else of `like`.
pub fn replace<E: From<io::Error>>(
    path: &Path,
    like: &Path,
    content: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), E>,
) -> Result<(), E> {
    let mut temporary = Temporary::create(path, model_of(&[path, like]))?;
    temporary.fill(content)?;
    temporary.rename(path)?;
    Ok(sync_directory_of(path)?)
}

/// Copies everything from `offset` to the end of `storage` into a new file `<path>.<what>-N`, durably, and returns its
/// name: bytes are cut from a log only after they are safe elsewhere.
pub fn save_tail(path: &Path, what: &str, storage: &impl Storage, offset: u64) -> io::Result<PathBuf> {
    let (name, mut file) = create_beside(path, what)?;
    if let Err(error) = copy_range(storage, offset..u64::MAX, &mut file).and_then(|()| file.sync_all()) {
        discard(&name);
        return Err(error);
    }
    sync_directory_of(&name)?;
    Ok(name)
}

/// Removes a file that nobody needs; that it can't be removed is no failure.
pub fn discard(path: &Path) {
    drop(std::fs::remove_file(path));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_name_of_ours() {
        assert_eq!(number_behind(".tmp-12", ".tmp-"), Some(12));
        for other in [".tmp-", ".tmp-0", ".tmp-01", ".tmp-+1", ".tmp-1x", ".tmp-mine", "tmp-1", ".tmp-99999999999"] {
            assert_eq!(number_behind(other, ".tmp-"), None, "{other}");
        }
    }
}
