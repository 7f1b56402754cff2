//! What the tests of the command share: where its parts are. No test stands here.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};

/// The top of the checkout.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library beside the command: the newest of the one that cargo makes in any case and the one that `make lib` has
/// finished.
pub(crate) fn library() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_logship")).parent().unwrap();
    let places = [beside.join("deps/liblogship.a"), beside.join("liblogship.a")];
    let made = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
    places.into_iter().filter(|path| path.exists()).max_by_key(made).unwrap()
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
