//! The command `logship grade` from outside, with small checks of its own (tests/grade_small) on submissions that are made
//! to go wrong. That the lessons' checks are right is for tests/grade_canaries.rs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const GOOD_CRC: &str = "
#include <stdint.h>
#include <stddef.h>
void crc32_init(void);
uint32_t crc32(const uint8_t *data, size_t len);
void crc32_init(void) {}
uint32_t crc32(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}
";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library beside the command, where `cargo build` or `cargo test` has put it.
fn library() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_logship")).parent().unwrap();
    let places = [beside.join("deps/liblogship.a"), beside.join("liblogship.a")];
    places.into_iter().find(|path| path.exists()).unwrap()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A place for submissions, for the checks, and for the scratch directory, which must be empty afterwards.
struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        let open = fs::Permissions::from_mode(0o755);
        let directory = tempfile::Builder::new().permissions(open).tempdir().unwrap();
        for name in ["checks", "scratch", "submissions"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let checks = directory.path().join("checks");
        fs::copy(top().join("grade/checks/check.h"), checks.join("check.h")).unwrap();
        for name in ["w10_small.c", "w11_small.c"] {
            fs::copy(top().join("tests/grade_small").join(name), checks.join(name)).unwrap();
        }
        Desk { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file of a submission.
    fn hand_in(&self, submission: &str, file: &str, text: &str) {
        let path = self.path("submissions").join(submission).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logship"));
        command.arg("grade").args(arguments).env("TMPDIR", self.path("scratch"));
        command.arg("--checks").arg(self.path("checks")).arg("--lib").arg(library());
        command.arg("--include").arg(top().join("include")).current_dir(self.path("submissions"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        let left: Vec<_> = fs::read_dir(self.path("scratch")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        output
    }

    /// Grades every submission, and gives back what came of each.
    fn grade(&self, arguments: &[&str]) -> Graded {
        let all: Vec<&str> =
            ["--json", "-j", "4", "--each", "."].into_iter().chain(arguments.iter().copied()).collect();
        let output = self.run(&all);
        let error = || String::from_utf8_lossy(&output.stderr).into_owned();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|wrong| panic!("{wrong}: {}", error()));
        Graded { json, code: output.status.code().unwrap() }
    }
}

struct Graded {
    json: Value,
    code: i32,
}

impl Graded {
    fn submission(&self, name: &str) -> &Value {
        let all = self.json["submissions"].as_array().unwrap();
        let found = all.iter().find(|one| one["submission"].as_str().unwrap().ends_with(&format!("/{name}")));
        found.unwrap_or_else(|| panic!("no {name}: {}", self.json))
    }

    fn row(&self, name: &str, id: &str) -> &Value {
        let rows = self.submission(name)["requirements"].as_array().unwrap();
        rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("{name} has no {id}: {rows:?}"))
    }

    fn status(&self, name: &str, id: &str) -> &str {
        self.row(name, id)["status"].as_str().unwrap()
    }

    /// What the first failure of a requirement has seen.
    fn seen(&self, name: &str, id: &str) -> String {
        let row = self.row(name, id);
        row["failures"][0]["seen"].as_str().unwrap_or_else(|| panic!("{name} {id} does not fail: {row}")).to_owned()
    }

    fn notes(&self, name: &str) -> String {
        self.submission(name)["notes"].to_string()
    }
}

/// A crc32 that does this and then what it should.
fn crc_that(does: &str) -> String {
    let includes = "#define _GNU_SOURCE\n#include <dirent.h>\n#include <fcntl.h>\n#include <signal.h>\n#include <stdio.h>\n\
                    #include <stdlib.h>\n#include <string.h>\n#include <sys/mman.h>\n#include <sys/prctl.h>\n\
                    #include <unistd.h>\n";
    let body = format!("uint32_t crc = 0xFFFFFFFFu;\n    {{ {does} }}\n");
    format!("{includes}{}", GOOD_CRC.replace("uint32_t crc = 0xFFFFFFFFu;", &body))
}

/// How many processes call themselves so.
fn named(name: &str) -> usize {
    let comm = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
    fs::read_dir("/proc").unwrap().flatten().map(comm).filter(|comm| comm.trim() == name).count()
}

#[test]
fn each_way_to_go_wrong_ends_in_a_clear_line_and_disturbs_nobody() {
    let desk = Desk::new();
    let mark = format!("lg{}", std::process::id());
    // Bounded on its own: 400 processes in all, each of which lives for 20 seconds at most.
    let bomb = format!(
        "prctl(PR_SET_NAME, \"{mark}\");
        volatile int *born = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        for (;;) {{ if (__sync_add_and_fetch(born, 1) > 400) pause(); if (fork() == 0) alarm(20); }}"
    );
    let daemon = format!(
        "if (fork() == 0) {{ setsid(); if (fork() == 0) {{ prctl(PR_SET_NAME, \"{mark}\"); alarm(20); pause(); }} _exit(0); }}
        usleep(20000);"
    );
    let wrong: [(&str, &str, &str); 12] = [
        ("loop", "for (volatile int i = 0;; i++) ;", "still ran after 3 s"),
        ("wait", "for (;;) pause();", "still ran after 3 s"),
        ("crash", "*(volatile int *)8 = 1;", "SIGSEGV"),
        ("abort", "abort();", "SIGABRT"),
        ("flood", "for (;;) puts(\"PASS\");", "printed more than 1 MiB"),
        ("quit", "puts(\"PASS\"); exit(0);", "exit(0) ended the program before"),
        ("bomb", &bomb, "more than 48 processes"),
        (
            "file",
            "int fd = open(\"big\", O_CREAT | O_WRONLY, 0600); static char mib[1 << 20];
                  for (;;) if (write(fd, mib, sizeof mib) < 0) abort();",
            "a file of more than 64 MiB",
        ),
        (
            "files",
            "static char mib[1 << 20]; for (int i = 0;; i++) { char name[32]; sprintf(name, \"f%d\", i);
                  int fd = open(name, O_CREAT | O_WRONLY, 0600); for (int n = 0; n < 60; n++)
                  if (write(fd, mib, sizeof mib) < 0) pause(); close(fd); }",
            "its files held more than 256 MiB",
        ),
        (
            "memory",
            "for (int i = 0; i < 4; i++) { if (fork() == 0) { char *all = malloc(300 << 20);
                  memset(all, 1, 300 << 20); pause(); } } pause();",
            "held more than 512 MiB",
        ),
        ("killer", "kill(0, SIGKILL);", "SIGKILL"),
        ("value", "len = 0;", "0"),
    ];
    for (name, does, _) in &wrong {
        desk.hand_in(name, "w10/crc32.c", &crc_that(does));
    }
    for good in ["good-1", "good-2", "good-3"] {
        desk.hand_in(good, "crc32.c", GOOD_CRC);
    }
    desk.hand_in("daemon", "crc32.c", &crc_that(&daemon));
    let graded = desk.grade(&["--lesson", "w10-l01"]);

    assert_eq!(graded.code, 1);
    for (name, _, line) in &wrong {
        let seen = graded.seen(name, "W10-R1");
        assert!(seen.contains(line), "{name}: {seen}");
    }
    for name in ["good-1", "good-2", "good-3", "daemon"] {
        assert_eq!(graded.status(name, "W10-R1"), "pass", "{name}");
    }
    assert_eq!(named(&mark), 0, "processes were left");
}
