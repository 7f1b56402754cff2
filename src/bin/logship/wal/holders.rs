//! Which processes have a log open for writing. A log of the C functions has no lock that would tell.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The ids of other processes that have the file open for writing, as far as this one may see them.
pub(super) fn writers_of(path: &Path) -> Vec<u32> {
    let Ok(log) = fs::metadata(path) else { return Vec::new() };
    let is_log = |name: &Path| fs::metadata(name).is_ok_and(|one| (one.dev(), one.ino()) == (log.dev(), log.ino()));
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = ids.filter(|id| *id != std::process::id());
    let has_it = |id: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        descriptors.filter(|one| is_log(&one.path())).any(|one| {
            let info = format!("/proc/{id}/fdinfo/{}", one.file_name().to_string_lossy());
            fs::read_to_string(info).is_ok_and(|info| may_write(&info))
        })
    };
    others.filter(has_it).collect()
}

/// Whether a descriptor's /proc/PID/fdinfo says that it may write: the flags of open(2), octal.
fn may_write(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0o3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_in_the_last_octal_digit() {
        assert!(!may_write("pos:\t0\nflags:\t0100000\nmnt_id:\t29\n"));
        assert!(may_write("pos:\t0\nflags:\t02102001\n"));
        assert!(may_write("flags:\t0100002\n"));
        assert!(!may_write("nonsense"));
    }
}
