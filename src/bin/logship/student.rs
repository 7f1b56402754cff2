//! A submission's files: a copy of them in the scratch directory, and which is which.

use crate::course::{self, File};
use crate::kit::io;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// More than this is no submission: a build tree, a home directory.
const FILES_MAX: usize = 2000;
const BYTES_MAX: u64 = 8 << 20;

/// The copy, and what was found in it; paths begin at its top.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) source: PathBuf,
    /// The course's files, each with its place if it is there.
    pub(crate) files: Vec<(&'static File, Option<PathBuf>)>,
    /// Other .c files: helpers, or programs of the student's own.
    pub(crate) others: Vec<PathBuf>,
    /// Whatever a file may include: everything but the course's .c files.
    pub(crate) included: Vec<PathBuf>,
    pub(crate) notes: Vec<String>,
}

impl Submission {
    /// Copies `from` to `source`, which every run may read.
    pub(crate) fn copy(from: &Path, source: PathBuf) -> Result<Submission, String> {
        let (mut found, mut notes) = (Vec::new(), Vec::new());
        let top = top_of(from)?;
        if let Ok(below) = top.strip_prefix(from)
            && !below.as_os_str().is_empty()
        {
            notes.push(format!("the course's files stand in {}", below.display()));
        }
        copy_below(&top, &source, Path::new(""), &mut found, &mut notes)?;
        found.sort();
        let mut files = Vec::new();
        for file in &course::FILES {
            let places = [Path::new(file.week).join(file.name), PathBuf::from(file.name)];
            let mut there = places.into_iter().filter(|place| found.contains(place));
            let place = there.next();
            if let (Some(taken), Some(left)) = (&place, there.next()) {
                notes.push(format!("{} is there twice: {} is taken", left.display(), taken.display()));
            }
            files.push((file, place));
        }
        let is_c = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "c");
        let is_of_course =
            |path: &PathBuf| path.file_name().is_some_and(|name| course::file(&name.to_string_lossy()).is_some());
        found.retain(|path| !is_of_course(path));
        let others = found.iter().filter(is_c).cloned().collect();
        Ok(Submission { source, files, others, included: found, notes })
    }

    /// Where the submission's own headers may be.
    pub(crate) fn header_directories(&self) -> Vec<PathBuf> {
        ["", "w09", "w10", "w11", "include", "include/w09", "include/w10", "include/w11"]
            .iter()
            .map(|name| self.source.join(name))
            .filter(|path| path.is_dir())
            .collect()
    }

    /// A header of its own.
    pub(crate) fn header(&self, name: &str) -> Option<PathBuf> {
        self.header_directories().into_iter().map(|directory| directory.join(name)).find(|path| path.is_file())
    }

    /// The test_harness.sh of a week: the one beside the week's files, or the one on top that speaks of them.
    pub(crate) fn harness(&self, week: &str) -> Option<PathBuf> {
        let in_week = Path::new(week).join("test_harness.sh");
        if self.source.join(&in_week).is_file() {
            return Some(in_week);
        }
        let text = fs::read_to_string(self.source.join("test_harness.sh")).ok()?;
        let word = if week == "w11" { "repl_" } else { "wal_full" };
        text.contains(word).then(|| PathBuf::from("test_harness.sh"))
    }
}

/// A week's directory by any of its usual names: `W10`, `week 10`, `w9`.
fn week(name: &str) -> Option<&'static str> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let number = plain.strip_prefix("week").or_else(|| plain.strip_prefix('w'))?;
    match number {
        "09" | "9" => Some("w09"),
        "10" => Some("w10"),
        "11" => Some("w11"),
        _ => None,
    }
}

/// The directories in one, by name, without hidden ones.
fn directories(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    let plain = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found: Vec<PathBuf> = plain.map(|entry| entry.path()).collect();
    found.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    found.sort();
    found
}

/// Does it have one of the course's files, there or in a week's directory?
fn has_course_files(directory: &Path) -> bool {
    let has = |place: &Path| course::FILES.iter().any(|file| place.join(file.name).symlink_metadata().is_ok());
    let is_week = |path: &PathBuf| path.file_name().is_some_and(|name| week(&name.to_string_lossy()).is_some());
    has(directory) || directories(directory).iter().any(|path| is_week(path) && has(path))
}

/// Where the course's files stand: here, or in the one place below that has some, as in a zip in a folder in a folder.
fn top_of(from: &Path) -> Result<PathBuf, String> {
    const LEVELS: usize = 4;
    let mut level = vec![from.to_path_buf()];
    for _ in 0..LEVELS {
        let found: Vec<&PathBuf> = level.iter().filter(|directory| has_course_files(directory)).collect();
        match found.as_slice() {
            [] => level = level.iter().flat_map(|directory| directories(directory)).take(FILES_MAX).collect(),
            [one] => return Ok((*one).clone()),
            [one, ..] => {
                return Err(format!(
                    "{}: {} directories below hold files of the course: did you mean --each {}?",
                    from.display(),
                    found.len(),
                    one.parent().unwrap_or(from).display()
                ));
            }
        }
    }
    Err(format!(
        "{}: none of the course's files (kv_store.c, crc32.c, ... repl_rejoin.c) is here or below",
        from.display()
    ))
}

/// Regular files and directories, no links, nothing hidden: a link could lead to another submission.
fn copy_below(
    directory: &Path,
    to: &Path,
    below: &Path,
    found: &mut Vec<PathBuf>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let target = to.join(below);
    fs::create_dir(&target).map_err(io(&target))?;
    fs::set_permissions(&target, Permissions::from_mode(0o755)).map_err(io(&target))?;
    for entry in fs::read_dir(directory).map_err(io(directory))? {
        let entry = entry.map_err(io(directory))?;
        let (path, name) = (entry.path(), entry.file_name());
        let metadata = fs::symlink_metadata(&path).map_err(io(&path))?;
        let shown = name.to_string_lossy().into_owned();
        let is_top = below.as_os_str().is_empty() && metadata.is_dir();
        let place = match week(&shown).filter(|canonical| is_top && !directory.join(canonical).is_dir()) {
            Some(canonical) => PathBuf::from(canonical),
            None => below.join(&name),
        };
        if shown.starts_with('.') {
            continue;
        }
        if metadata.is_symlink() {
            notes.push(format!("{} is a symbolic link and was left out", place.display()));
        } else if metadata.is_dir() {
            if below.components().count() < 4 {
                copy_below(&path, to, &place, found, notes)?;
            }
        } else if metadata.is_file() {
            if metadata.len() > BYTES_MAX {
                notes.push(format!("{} has {} bytes and was left out", place.display(), metadata.len()));
                continue;
            }
            if found.len() == FILES_MAX {
                return Err(format!("{}: over {FILES_MAX} files: that is no submission", directory.display()));
            }
            let copy = to.join(&place);
            fs::copy(&path, &copy).map_err(io(&path))?;
            // Scripts stay executable; nothing is secret from the run's user.
            let mode = if metadata.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            fs::set_permissions(&copy, Permissions::from_mode(mode)).map_err(io(&copy))?;
            found.push(place);
        }
    }
    Ok(())
}

/// Copies a copy, for a run that may write into it; `each` is told of everything that was made.
pub(crate) fn copy_again(from: &Path, to: &Path, each: &dyn Fn(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_again(&entry.path(), &target, each)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
        each(&target)?;
    }
    Ok(())
}
