//! Style as a test (after TigerBeetle's `tidy`): which module may use which, who may touch files, sizes, words.
//!
//! Every rule is a function from a source text to complaints. One test holds the rule against `src/`; its canary holds
//! it against a text made up to offend, so that a rule that sees nothing any more is noticed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// Lines of a file, without its tests.
const LINES_MAX: usize = 700;
/// Columns of a line.
const COLUMNS_MAX: usize = 120;

/// Which top-level modules each top-level module may use. A new one needs a row; nothing but itself may use `capi`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("error", &["types"]),
    ("signal", &[]),
    ("diag", &["signal"]),
    ("clock", &["types"]),
    ("storage", &["diag", "error", "signal", "types"]),
    ("kv", &["clock", "diag", "error", "storage", "types", "wal"]),
    ("wal", &["clock", "diag", "error", "kv", "storage", "types"]),
    ("replication", &["error", "types", "wal"]),
    ("net", &["clock", "diag", "error", "kv", "replication", "storage", "types", "wal"]),
    ("node", &["clock", "diag", "error", "kv", "net", "replication", "storage", "types", "wal"]),
    ("capi", &["clock", "diag", "error", "kv", "net", "replication", "signal", "storage", "types", "wal"]),
];

/// The same for the rooms of the command, whose top is `main`.
const COMMAND_MAY_USE: &[(&str, &[&str])] = &[
    ("args", &[]),
    ("course", &[]),
    ("processes", &[]),
    ("demo", &["args"]),
    ("extras", &["args"]),
    ("text", &[]),
    ("wal", &["args", "text"]),
    ("checkpoint", &["args", "text"]),
    ("limited", &["args", "processes"]),
    ("watch", &["args", "processes"]),
    ("sandbox", &["args"]),
    ("checks", &["course"]),
    ("verdict", &["args", "sandbox"]),
    ("kit", &["args", "checks", "sandbox"]),
    ("student", &["course", "kit"]),
    ("shape", &["kit", "sandbox", "student"]),
    ("build", &["course", "kit", "sandbox", "shape", "student"]),
    ("judge", &["build", "checks", "course", "kit", "sandbox", "student", "verdict"]),
    ("report", &["build", "checks", "judge", "kit"]),
    ("formats", &["judge", "report"]),
    ("grade", &["args", "build", "checks", "formats", "judge", "kit", "report", "sandbox", "student"]),
];

/// What a module may not name, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[(
    "replication",
    &["std::net", "std::fs", "std::thread", "std::io", "std::os", "Instant", "SystemTime", "libc", "nix"],
    "the protocol does no I/O and has no clock: time comes in as an argument",
)];

/// Words that open, change or remove files.
const FILE_WORDS: &[&str] = &[
    "std::fs",
    "std::{",
    "File::open",
    "File::create",
    "File::options",
    "OpenOptions",
    "nix::fcntl",
    "nix::unistd::ftruncate",
    "nix::unistd::fsync",
    "nix::unistd::unlink",
    "libc::open",
    "libc::rename",
    "libc::unlink",
    "libc::ftruncate",
    "libc::fsync",
];

/// Where such a word may stand outside `storage`: the beginning of a path, and the item. What is not used any more must
/// go.
const FILE_EXCEPTIONS: &[(&str, &str)] = &[
    // The type that an owned log is made of, and the lock that keeps a second one out: nothing is opened.
    ("src/wal/mod.rs", "std::fs::File"),
    ("src/wal/compact.rs", "std::fs::File"),
    ("src/wal/reader.rs", "std::fs::File"),
    ("src/wal/snapshot.rs", "std::fs::File"),
    ("src/wal/mod.rs", "std::fs::TryLockError::WouldBlock"),
    ("src/wal/mod.rs", "std::fs::TryLockError::Error"),
    ("src/capi/logs.rs", "std::fs::File"),
    ("src/capi/leader_log.rs", "std::fs::File"),
    ("src/node/", "std::fs::File"),
    // Looking at names.
    ("src/capi/logs.rs", "std::fs::read_link"),
    ("src/capi/leader_log.rs", "std::fs::metadata"),
    // A node makes its directory.
    ("src/node/", "std::fs::create_dir_all"),
    // Whether a socket blocks.
    ("src/net/socket.rs", "nix::fcntl"),
];

/// Where unsafe code may stand outside `capi`.
const UNSAFE_FILES: &[&str] = &["src/net/sys.rs", "src/signal.rs", "src/storage/sys.rs"];

/// A source file.
struct Source {
    /// Its path from the top of the checkout.
    path: String,
    text: String,
}

/// One line that a rule dislikes, or one file.
type Complaints = Vec<String>;

impl Source {
    fn made_up(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// The module path: `src/wal/mod.rs` is `[wal]`, `src/wal/scan.rs` is `[wal, scan]`, `src/lib.rs` is `[]`.
    fn module(&self) -> Vec<&str> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        inner.split('/').filter(|part| !["lib", "mod", "main"].contains(part)).collect()
    }

    /// Of a room of the command: its name. `crate::` is the command's own top there.
    fn room(&self) -> Option<&str> {
        self.path.strip_prefix("src/bin/logship/")?.split(['/', '.']).next().filter(|name| *name != "main")
    }

    /// A program, which is above all layers.
    fn is_program(&self) -> bool {
        self.module().first() == Some(&"bin") || self.path == "src/main.rs"
    }

    /// The top-level module that the file belongs to; `None` for `lib.rs` and for programs, which stand above all.
    fn layer(&self) -> Option<&str> {
        self.module().first().copied().filter(|name| *name != "bin")
    }

    /// Numbered lines without what is compiled for tests only: an item, and the rest of a file of tests.
    fn lines(&self) -> Vec<(usize, &str)> {
        if self.path.ends_with("/tests.rs") {
            return Vec::new();
        }
        let mut kept = Vec::new();
        let mut lines = self.text.lines().zip(1..).peekable();
        while let Some((line, number)) = lines.next() {
            if line.trim() != "#[cfg(test)]" {
                kept.push((number, line));
                continue;
            }
            // The item goes to its semicolon, or to the bracket that stands as far left as it began.
            let indent = line.len() - line.trim_start().len();
            let begins = |line: &str| line.len() - line.trim_start().len() == indent && !line.trim().is_empty();
            for (line, _) in lines.by_ref() {
                let ends_here = line.ends_with(';') || line.trim_start().starts_with('}');
                if begins(line) && ends_here {
                    break;
                }
            }
        }
        kept
    }

    /// The same without comments, and with the content of string literals blanked.
    fn code(&self) -> Vec<(usize, String)> {
        self.lines().into_iter().map(|(number, line)| (number, without_comment(line))).collect()
    }

    fn complaint(&self, number: usize, what: &str) -> String {
        format!("{}:{number}: {what}", self.path)
    }
}

/// A line up to its `//`, string literals emptied. (No block comment and no literal over several lines holds code.)
fn without_comment(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '"' if code.ends_with('\'') && !in_string => code.push('"'), // The character '"'.
            '"' => {
                in_string = !in_string;
                code.push('"');
            }
            _ if in_string => {}
            '/' if characters.peek() == Some(&'/') => break,
            _ => code.push(character),
        }
    }
    code
}

/// Words and punctuation of some code; `::` is one.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = match first {
            _ if is_word(first) => rest.find(|character| !is_word(character)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    tokens
}

/// The top-level modules that a file's paths lead to: `crate::x`, `crate::{x, y}`, `super::super::x`.
fn top_level_uses(source: &Source) -> Vec<(usize, String)> {
    // A path may go on over several lines, so all tokens are looked at together.
    let code = source.code();
    let all: Vec<(usize, &str)> =
        code.iter().flat_map(|(number, line)| tokens(line).into_iter().map(|token| (*number, token))).collect();
    let word = |at: usize| all.get(at).map_or("", |(_, token)| *token);
    let mut uses = Vec::new();
    for at in 0..all.len() {
        if at > 0 && word(at - 1) == "::" {
            continue;
        }
        let mut module = match word(at) {
            "crate" => Vec::new(),
            "super" | "self" => source.module(),
            _ => continue,
        };
        let mut next = at;
        if word(at) == "super" {
            module.pop();
        }
        while word(next + 1) == "::" && word(next + 2) == "super" {
            module.pop();
            next += 2;
        }
        if word(next + 1) != "::" || !module.is_empty() {
            continue;
        }
        if word(next + 2) != "{" {
            uses.push((all[at].0, word(next + 2).to_owned()));
            continue;
        }
        let (mut inside, mut depth) = (next + 2, 0);
        while inside < all.len() {
            match word(inside) {
                "{" => depth += 1,
                "}" => depth -= 1,
                name if depth == 1 && ["{", ","].contains(&word(inside - 1)) => {
                    uses.push((all[inside].0, name.to_owned()));
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
            inside += 1;
        }
    }
    uses
}

fn wrong_dependencies(source: &Source) -> Complaints {
    let Some(layer) = source.layer() else {
        // Above everything: but for programs the C layer does not exist.
        let names_capi = |line: &str| source.is_program() && tokens(line).contains(&"capi");
        let lines = source.code();
        let wrong = lines.iter().filter(|(_, line)| names_capi(line));
        let wrong = wrong.map(|(number, _)| source.complaint(*number, "a program may not use capi"));
        return wrong.chain(wrong_rooms(source)).collect();
    };
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == layer) else {
        return vec![source.complaint(1, &format!("module {layer} has no row in MAY_USE"))];
    };
    let is_module = |name: &str| MAY_USE.iter().any(|(module, _)| *module == name);
    let mut complaints = Vec::new();
    for (number, used) in top_level_uses(source) {
        if is_module(&used) && used != layer && !allowed.contains(&used.as_str()) {
            complaints.push(source.complaint(number, &format!("{layer} may not use {used}")));
        }
    }
    complaints
}

/// The command's rooms among themselves.
fn wrong_rooms(source: &Source) -> Complaints {
    let Some(room) = source.room() else { return Vec::new() };
    let Some((_, allowed)) = COMMAND_MAY_USE.iter().find(|(name, _)| *name == room) else {
        return vec![source.complaint(1, &format!("room {room} has no row in COMMAND_MAY_USE"))];
    };
    let lines = source.code();
    let all: Vec<(usize, &str)> =
        lines.iter().flat_map(|(number, line)| tokens(line).into_iter().map(|token| (*number, token))).collect();
    let uses = all.windows(3).filter(|three| three[0].1 == "crate" && three[1].1 == "::").map(|three| three[2]);
    uses.filter(|(_, used)| *used != room && !allowed.contains(used))
        .map(|(number, used)| source.complaint(number, &format!("{room} may not use {used}")))
        .collect()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Where `needle`, a word or a path, stands in `code` without being a part of longer words.
fn find(code: &str, needle: &str) -> Option<usize> {
    let (starts, ends) = (needle.starts_with(is_word), needle.ends_with(is_word));
    let is_whole = |at: usize| {
        let (before, after) = (&code[..at], &code[at + needle.len()..]);
        !(starts && before.ends_with(is_word) || ends && after.starts_with(is_word))
    };
    code.match_indices(needle).map(|(at, _)| at).find(|at| is_whole(*at))
}

fn names(code: &str, needle: &str) -> bool {
    find(code, needle).is_some()
}

/// The path that begins at the front of `code`: words with `::` between them.
fn path_at(code: &str) -> &str {
    let mut len = 0;
    loop {
        let word = code[len..].find(|character| !is_word(character)).unwrap_or(code.len() - len);
        len += word;
        let goes_on = code[len..].strip_prefix("::").is_some_and(|rest| rest.starts_with(is_word));
        if !goes_on {
            return &code[..len];
        }
        len += 2;
    }
}

fn forbidden_words(source: &Source) -> Complaints {
    let mut complaints = Vec::new();
    for (layer, words, why) in FORBIDDEN {
        if source.layer() != Some(layer) {
            continue;
        }
        for (number, line) in source.code() {
            for word in words.iter().filter(|word| names(&line, word)) {
                complaints.push(source.complaint(number, &format!("{layer} may not name {word}: {why}")));
            }
            // `use std::{fs, net}` would hide them.
            if names(&line, "std::{") {
                complaints.push(source.complaint(number, "std::{...} hides what is used"));
            }
        }
    }
    complaints
}

/// Complaints, and the exceptions that were used.
fn file_access(source: &Source) -> (Complaints, Vec<usize>) {
    let (mut complaints, mut used) = (Vec::new(), Vec::new());
    // What a program does with files of its own is no log's.
    if source.layer() == Some("storage") || source.is_program() {
        return (complaints, used);
    }
    for (number, code) in source.code() {
        let Some(at) = FILE_WORDS.iter().find_map(|word| find(&code, word)) else { continue };
        let item = path_at(&code[at..]);
        let is_it = |(path, excepted): &(&str, &str)| source.path.starts_with(path) && *excepted == item;
        match FILE_EXCEPTIONS.iter().position(is_it) {
            Some(row) => used.push(row),
            None => complaints.push(source.complaint(number, &format!("{item} outside src/storage/"))),
        }
    }
    (complaints, used)
}

fn unsafe_outside_its_places(source: &Source) -> Complaints {
    if source.layer() == Some("capi") || UNSAFE_FILES.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let lines = source.code();
    let wrong = lines.iter().filter(|(_, line)| names(line, "unsafe"));
    wrong.map(|(number, _)| source.complaint(*number, "unsafe outside capi and its three other files")).collect()
}

fn too_long_a_file(source: &Source) -> Complaints {
    let count = source.lines().len();
    if count <= LINES_MAX {
        Vec::new()
    } else {
        vec![source.complaint(count, "over 700 lines: it wants a second room")]
    }
}

fn long_lines(source: &Source, wanted: impl Fn(&str) -> bool) -> Complaints {
    let lines = source.text.lines().zip(1..);
    let long = lines.filter(|(line, _)| line.chars().count() > COLUMNS_MAX && wanted(line));
    long.map(|(line, number)| source.complaint(number, &format!("{} columns", line.chars().count()))).collect()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn notes_to_self(source: &Source) -> Complaints {
    // Put together, so that this file could be checked too.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let lines = source.text.lines().zip(1..);
    let wrong = lines.filter(|(line, _)| words.iter().any(|word| names(line, word)));
    wrong.map(|(line, number)| source.complaint(number, line.trim())).collect()
}

fn other_than_ascii(source: &Source) -> Complaints {
    let lines = source.text.lines().zip(1..);
    let wrong = lines.filter(|(line, _)| !line.is_ascii());
    wrong.map(|(line, number)| source.complaint(number, &format!("not ASCII: {line}"))).collect()
}

/// Every Rust file under `src/`.
fn sources() -> Vec<Source> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&top.join("src"), &mut paths);
    paths.sort();
    let read = |path: &PathBuf| Source {
        path: path.strip_prefix(top).unwrap().to_str().unwrap().to_owned(),
        text: std::fs::read_to_string(path).unwrap(),
    };
    paths.iter().map(read).collect()
}

/// Holds a rule against all of `src/`.
fn holds(rule: impl Fn(&Source) -> Complaints) {
    let sources = sources();
    assert!(sources.len() > 40, "only {} files were found", sources.len());
    let complaints: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

/// Holds a rule against a made-up text: so many complaints.
fn complains(count: usize, rule: impl Fn(&Source) -> Complaints, path: &str, text: &str) {
    let complaints = rule(&Source::made_up(path, text));
    assert_eq!(complaints.len(), count, "{path}: {text:?}: {complaints:?}");
}

#[test]
fn dependencies_point_one_way() {
    holds(wrong_dependencies);
}

#[test]
fn a_dependency_that_points_the_other_way_is_seen() {
    let rule = wrong_dependencies;
    complains(1, rule, "src/wal/scan.rs", "use crate::net::socket;");
    complains(1, rule, "src/wal/scan.rs", "fn f() { crate::replication::frame::header([0; 4]); }");
    complains(1, rule, "src/kv/table.rs", "use crate::{error::Error, net::socket, wal};");
    complains(1, rule, "src/kv/table.rs", "use crate::{\n    error::{Error, Result},\n    replication::frame,\n};");
    complains(1, rule, "src/kv/table.rs", "use super::super::net;");
    complains(1, rule, "src/kv/mod.rs", "use super::net;");
    complains(1, rule, "src/replication/frame.rs", "use crate::net::io;");
    complains(1, rule, "src/replication/frame.rs", "use crate::storage::Storage;");
    complains(1, rule, "src/storage/file.rs", "use crate::wal::record;");
    complains(1, rule, "src/types.rs", "use crate::error::Error;");
    complains(1, rule, "src/error.rs", "use super::wal::record;");
    complains(1, rule, "src/net/group.rs", "use crate::node::leader;");
    for path in ["src/wal/mod.rs", "src/net/io.rs", "src/node/leader.rs", "src/diag.rs"] {
        complains(1, rule, path, "use crate::capi::logs;");
    }
    complains(1, rule, "src/bin/logship.rs", "use logship::capi::kv_store;");
    complains(1, rule, "src/extra/mod.rs", "");
    complains(1, rule, "src/bin/logship/sandbox.rs", "use crate::args::Order;\nuse crate::kit::Kit;");
    complains(1, rule, "src/bin/logship/sandbox.rs", "use crate::{args, kit};");
    complains(1, rule, "src/bin/logship/extra.rs", "");
    complains(0, rule, "src/bin/logship/main.rs", "use crate::kit::Kit;");

    complains(0, rule, "src/net/group.rs", "use crate::wal::record;\nuse super::io;\nuse crate::net::socket;");
    complains(0, rule, "src/wal/record.rs", "// crate::net is above this\n/// [`crate::net`]\nfn f() {}");
    complains(0, rule, "src/wal/record.rs", "const A: &str = \"crate::net\";");
    complains(0, rule, "src/wal/record.rs", "#[cfg(test)]\nmod tests {\n    use crate::net::io;\n}");
    complains(1, rule, "src/wal/record.rs", "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nuse crate::net::io;");
    complains(0, rule, "src/lib.rs", "pub mod capi;\npub use crate::net::socket;");
}

#[test]
fn the_protocol_touches_nothing_outside_itself() {
    holds(forbidden_words);
}

#[test]
fn a_protocol_that_touches_the_world_is_seen() {
    let rule = forbidden_words;
    for text in [
        "use std::net::TcpStream;",
        "use std::fs;",
        "let handle = std::thread::spawn(f);",
        "use std::time::Instant;",
        "use std::time::{Duration, Instant};",
        "let now = std::time::SystemTime::now();",
        "return libc::EIO;",
        "use nix::unistd;",
        "use std::{fs, net};",
    ] {
        complains(1, rule, "src/replication/leader.rs", text);
        complains(0, rule, "src/net/io.rs", text);
    }
    complains(0, rule, "src/replication/leader.rs", "use std::time::Duration; // no Instant\nlet nixed = unixtime;");
}

#[test]
fn only_storage_opens_changes_and_removes_files() {
    holds(|source| file_access(source).0);
}

#[test]
fn every_exception_for_files_is_still_needed() {
    let used: Vec<usize> = sources().iter().flat_map(|source| file_access(source).1).collect();
    let unused: Vec<_> =
        FILE_EXCEPTIONS.iter().enumerate().filter(|(at, _)| !used.contains(at)).map(|(_, row)| row).collect();
    assert!(unused.is_empty(), "no such line any more: {unused:?}");
}

#[test]
fn a_file_that_is_touched_elsewhere_is_seen() {
    let rule = |source: &Source| file_access(source).0;
    for text in [
        "let file = File::create(path)?;",
        "let file = std::fs::File::open(path)?;",
        "std::fs::remove_file(path)?;",
        "use std::fs::{self, OpenOptions};",
        "use std::{fs, io};",
        "nix::unistd::ftruncate(fd, 0)?;",
        "libc::rename(from, to);",
    ] {
        complains(1, rule, "src/wal/tail.rs", text);
        complains(1, rule, "src/capi/logs.rs", text);
        complains(0, rule, "src/storage/file.rs", text);
    }
    // An exception is for its file only.
    complains(0, rule, "src/wal/mod.rs", "use std::fs::File;");
    complains(1, rule, "src/wal/scan.rs", "use std::fs::File;");
    complains(1, rule, "src/wal/mod.rs", "use std::fs::{File, remove_file};");
    complains(1, rule, "src/wal/mod.rs", "std::fs::rename(from, to)?;");
    complains(0, rule, "src/wal/scan.rs", "// std::fs is not for this module\nlet profile = MyFile::create();");
}

#[test]
fn unsafe_code_stands_in_capi_and_in_three_other_files() {
    holds(unsafe_outside_its_places);
}

#[test]
fn unsafe_code_elsewhere_is_seen() {
    let text = "fn f() { unsafe { g() } }";
    complains(1, unsafe_outside_its_places, "src/net/io.rs", text);
    complains(1, unsafe_outside_its_places, "src/wal/mod.rs", text);
    complains(0, unsafe_outside_its_places, "src/net/sys.rs", text);
    complains(0, unsafe_outside_its_places, "src/wal/mod.rs", "#![forbid(unsafe_code)] // no unsafe here");
}

#[test]
fn no_file_is_over_700_lines_without_its_tests() {
    holds(too_long_a_file);
}

#[test]
fn a_file_that_is_too_long_is_seen() {
    let long = "fn f() {}\n".repeat(LINES_MAX);
    complains(0, too_long_a_file, "src/wal/scan.rs", &long);
    complains(1, too_long_a_file, "src/wal/scan.rs", &format!("{long}fn g() {{}}\n"));
    let with_tests = format!("{long}#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn t() {}\n".repeat(500));
    complains(0, too_long_a_file, "src/wal/scan.rs", &with_tests);
    complains(1, too_long_a_file, "src/wal/scan.rs", &format!("{with_tests}fn g() {{}}\n"));
}

#[test]
fn no_line_of_code_is_over_120_columns() {
    holds(|source| long_lines(source, |line| !is_comment(line)));
}

#[test]
fn no_comment_is_over_120_columns() {
    holds(|source| long_lines(source, is_comment));
}

#[test]
fn a_line_that_is_too_long_is_seen() {
    for (start, wanted) in [("", (1, 0)), ("    /// ", (0, 1))] {
        let line = format!("{start}{}", "x".repeat(COLUMNS_MAX + 1 - start.len()));
        complains(wanted.0, |source| long_lines(source, |line| !is_comment(line)), "src/a.rs", &line);
        complains(wanted.1, |source| long_lines(source, is_comment), "src/a.rs", &line);
        complains(0, |source| long_lines(source, |_| true), "src/a.rs", &line[..COLUMNS_MAX]);
    }
}

#[test]
fn no_note_to_self_was_left() {
    holds(notes_to_self);
}

#[test]
fn a_note_to_self_is_seen() {
    for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
        complains(1, notes_to_self, "src/a.rs", &format!("fn f() {{}} // {word}: later"));
        complains(1, notes_to_self, "src/a.rs", &format!("#[cfg(test)]\nmod tests {{\n    // {word}\n}}"));
    }
    complains(0, notes_to_self, "src/a.rs", "const XXXL: u32 = 1; // todo macros are denied by clippy");
}

#[test]
fn sources_are_ascii() {
    holds(other_than_ascii);
}

#[test]
fn a_character_beyond_ascii_is_seen() {
    complains(1, other_than_ascii, "src/a.rs", "fn f() {}\n// caf\u{e9}\n");
    complains(1, other_than_ascii, "src/a.rs", "let s = \"\u{201c}\";");
    complains(0, other_than_ascii, "src/a.rs", "let s = \"\\u{201c}\";");
}

/// Files of the tree that people read, whatever their language.
fn texts() -> Vec<Source> {
    const KINDS: [&str; 15] =
        ["rs", "c", "h", "cpp", "sh", "md", "toml", "mk", "patch", "in", "S", "txt", "re", "map", "yml"];
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let kind = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if path.is_dir() && name != ".git" && !path.join("CACHEDIR.TAG").exists() {
                collect(&path, found);
            } else if path.is_file() && (KINDS.contains(&kind) || ["Makefile", "run"].contains(&name)) {
                found.push(path);
            }
        }
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(top, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| Source {
        path: path.strip_prefix(top).unwrap().to_str().unwrap().to_owned(),
        text: String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned(),
    };
    paths.iter().map(read).collect()
}

/// Who asked for something, and in which conversation, is no reason that a reader can follow: the reason itself is.
/// (Sessions of processes, which setsid(2) makes, have no number and do nothing.)
fn names_an_errand(source: &Source) -> Complaints {
    let is_one = |line: &str| {
        let line = line.to_lowercase();
        ["issue", "session", "worker"].iter().any(|word| {
            line.match_indices(word).any(|(at, _)| {
                let starts = line[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric());
                let rest = &line[at + word.len()..];
                let number = rest.trim_start_matches([' ', '#', '-']);
                let numbered = rest != number && number.starts_with(|digit: char| digit.is_ascii_digit());
                starts && (numbered || rest.starts_with("'s "))
            })
        })
    };
    let lines = source.text.lines().zip(1..).filter(|(line, _)| is_one(line));
    lines.map(|(line, number)| source.complaint(number, line.trim())).collect()
}

#[test]
fn the_files_speak_of_the_project_alone() {
    let texts = texts();
    assert!(texts.len() > 300, "only {} files were found", texts.len());
    let here = |source: &&Source| source.path != "tests/tidy.rs";
    let complaints: Vec<String> = texts.iter().filter(here).flat_map(names_an_errand).collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn an_errand_that_is_named_is_seen() {
    for text in
        ["as issue 3 allows", "Issue #12 wants it", "the issue's word", "(session 4)", "a session's work", "worker-2"]
    {
        complains(1, names_an_errand, "docs/a.md", text);
    }
    for text in ["a session of its own", "other sessions and groups", "a tissue 3", "the issue", "workers", "issued 3"]
    {
        complains(0, names_an_errand, "docs/a.md", text);
    }
}
