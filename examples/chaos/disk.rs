//! Directories: where a run keeps its files, small file systems, and how they are filled.

use crate::tool;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A run's directory; dropping it unmounts what is mounted in it and removes it.
pub(crate) struct RunDirectory {
    pub(crate) path: PathBuf,
}

impl RunDirectory {
    pub(crate) fn new(path: PathBuf) -> Result<RunDirectory, String> {
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(RunDirectory { path })
    }

    /// Copies everything in it, for whoever wants to know what went wrong.
    pub(crate) fn keep_as(&self, other: &Path) -> Result<(), String> {
        tool::run(&format!("cp -r {} {}", self.path.display(), other.display()))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Unmounts what is mounted below a directory and removes it.
fn remove(path: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| Path::new(point).starts_with(path));
    for point in points {
        if let Err(error) = tool::run(&format!("umount {point}")) {
            eprintln!("{error}");
            // Whatever still uses it, the name must go.
            let _ = tool::run(&format!("umount --lazy {point}"));
        }
    }
    if let Err(error) = std::fs::remove_dir_all(path) {
        eprintln!("{}: {error}", path.display());
    }
}

/// Removes the directories of runs that are gone. `is_gone` judges a name.
pub(crate) fn remove_leftovers(parent: &Path, is_gone: impl Fn(&str) -> bool) {
    let Ok(names) = std::fs::read_dir(parent) else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if is_gone(&name) {
            remove(&parent.join(&name));
            eprintln!("removed {}, left by an earlier run", parent.join(&name).display());
        }
    }
}

/// Makes a directory a file system of its own, so small that it can be filled.
pub(crate) fn make_small(directory: &Path, megabytes: u64) -> Result<(), String> {
    tool::run(&format!("mount -t tmpfs -o size={megabytes}m,mode=0700 logship-chaos {}", directory.display()))
}

/// How many files of a directory have `word` in their names.
pub(crate) fn count(directory: &Path, word: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries.flatten().filter(|entry| entry.file_name().to_string_lossy().contains(word)).count()
}

/// Removes every file in a directory.
pub(crate) fn empty(directory: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        std::fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
    }
    Ok(())
}

/// Takes all the room that is left in a directory's file system.
pub(crate) fn fill(directory: &Path) -> Result<(), String> {
    let path = filler(directory);
    let mut file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    for size in [1 << 20, 4096, 1] {
        let zeros = vec![0; size];
        loop {
            match file.write_all(&zeros) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => break,
                Err(error) => return Err(format!("{}: {error}", path.display())),
            }
        }
    }
    Ok(())
}

/// Gives it back.
pub(crate) fn free(directory: &Path) -> Result<(), String> {
    let path = filler(directory);
    std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn filler(directory: &Path) -> PathBuf {
    directory.join("filler")
}
