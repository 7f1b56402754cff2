//! The command `logship grade` from outside, with small checks of its own (tests/grade_small) on submissions that are
//! made to go wrong. That the lessons' checks are right is for tests/grade_canaries.rs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use kit::{copy, library, top};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
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
        for name in ["check.h", "shape.h"] {
            fs::copy(top().join("grade/checks").join(name), checks.join(name)).unwrap();
        }
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
                    #include <stdlib.h>\n#include <string.h>\n#include <sys/mman.h>\n#include <sys/prctl.h>\n#include <sys/stat.h>\n\
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
#[ignore = "make test-all: fourteen seconds"]
fn each_way_to_go_wrong_ends_in_a_clear_line_and_disturbs_nobody() {
    let desk = Desk::new();
    let mark = format!("lg{}", std::process::id());
    // Bounded on its own: 400 processes in all, each of which lives for 90 seconds at most.
    let bomb = format!(
        "prctl(PR_SET_NAME, \"{mark}\");
        volatile int *born = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        for (;;) {{ if (__sync_add_and_fetch(born, 1) > 400) pause(); if (fork() == 0) alarm(90); }}"
    );
    let daemon = format!(
        "if (fork() == 0) {{ setsid(); if (fork() == 0) {{ prctl(PR_SET_NAME, \"{mark}\"); alarm(90); pause(); }} _exit(0); }}
        usleep(20000);"
    );
    let wrong: [(&str, &str, &str); 12] = [
        ("loop", "for (volatile int i = 0;; i++) ;", "still ran after 5 s"),
        ("wait", "for (;;) pause();", "still ran after 5 s"),
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

#[test]
#[ignore = "make test-all: eight seconds"]
fn what_is_wrong_before_anything_runs_is_said() {
    let desk = Desk::new();
    let with = |text: &str| format!("{GOOD_CRC}{text}");
    desk.hand_in("broken", "crc32.c", &with("int oops( {\n"));
    desk.hand_in("warns", "crc32.c", &with("int logship_unused(int a);\nint logship_unused(int a) { return 0; }\n"));
    desk.hand_in("main", "crc32.c", &with("#include <stdlib.h>\nint main(void) { exit(7); }\n"));
    desk.hand_in("lacks", "crc32.c", "int something_else;\n");
    desk.hand_in(
        "lost",
        "crc32.c",
        &with("int nowhere(void);\nint calls(void);\nint calls(void) { return nowhere(); }\n"),
    );
    desk.hand_in(
        "helped",
        "crc32.c",
        &GOOD_CRC.replace("return ~crc", "int flip(int);\nreturn (uint32_t)flip((int)crc)"),
    );
    desk.hand_in("helped", "helpers.c", "int flip(int a);\nint flip(int a) { return ~a; }\n");
    desk.hand_in("helped", "my_test.c", "int main(void) { return 3; }\n");
    desk.hand_in("mains", "w10/crc32.c", &with("int main(void) { return 3; }\n"));
    desk.hand_in("mains", "w11/repl_conflict.c", "int main(void) { return 4; }\n");
    desk.hand_in("twice", "w10/crc32.c", GOOD_CRC);
    desk.hand_in("twice", "crc32.c", "syntax error");
    desk.hand_in("reads", "crc32.c", "#include \"/dev/zero\"\n");
    desk.hand_in("links", "w10/notes.txt", "");
    std::os::unix::fs::symlink("/etc/passwd", desk.path("submissions/links/crc32.c")).unwrap();
    let graded = desk.grade(&["--lesson", "w10-l01"]);

    assert_eq!(graded.code, 1);
    let line = graded.seen("broken", "W10-R1");
    assert!(line.starts_with("crc32.c:") && line.contains("error: "), "{line}");
    assert_eq!(graded.status("warns", "W10-R1"), "pass");
    let files = &graded.submission("warns")["files"];
    let row = files.as_array().unwrap().iter().find(|row| row["file"] == "crc32.c").unwrap();
    assert_eq!(row["state"], "warns");
    assert!(row["line"].as_str().unwrap().contains("unused parameter"), "{row}");
    assert_eq!(graded.submission("warns")["passed"], false);
    assert_eq!(graded.status("main", "W10-R1"), "pass");
    assert!(graded.notes("main").contains("crc32.c defines main()"));
    assert_eq!(graded.status("mains", "W10-R1"), "pass");
    assert_eq!(graded.row("lacks", "W10-R1")["failures"][0]["expected"], "it defines crc32");
    assert!(graded.seen("lost", "W10-R1").contains("undefined reference to `nowhere'"));
    assert_eq!(graded.status("helped", "W10-R1"), "pass");
    assert_eq!(graded.status("twice", "W10-R1"), "pass");
    assert!(graded.notes("twice").contains("crc32.c is there twice"));
    assert_eq!(graded.status("reads", "W10-R1"), "fail");
    assert_eq!(graded.seen("links", "W10-R1"), "it is missing");
    assert!(graded.notes("links").contains("crc32.c is a symbolic link"));
}

#[test]
fn both_forms_of_wal_open_are_found_out() {
    let two = "int wal_open(struct wal_writer *writer, const char *path)";
    let one = "struct wal_writer *wal_open(const char *path)";
    let structs = "#include <stdint.h>\nstruct wal_writer { int fd; uint64_t offset; };\n";
    let rest =
        "int wal_append(struct wal_writer *writer, const void *record);\nint wal_close(struct wal_writer *writer);\n";
    let open = "open(path, O_WRONLY | O_CREAT | O_APPEND, 0644)";
    let body = |form: &str, frees: &str| {
        let opens = if form == two {
            format!("{form}\n{{ writer->fd = {open}; writer->offset = 0; return writer->fd < 0 ? -1 : 0; }}\n")
        } else {
            format!(
                "{form}\n{{ struct wal_writer *writer = calloc(1, sizeof *writer); writer->fd = {open}; return writer; }}\n"
            )
        };
        let append =
            "int wal_append(struct wal_writer *writer, const void *record) { return writer && record ? -1 : 0; }\n";
        format!(
            "{opens}{append}int wal_close(struct wal_writer *writer) {{ int closed = close(writer->fd); {frees} return closed; }}\n"
        )
    };
    let includes = "#include <fcntl.h>\n#include <stdlib.h>\n#include <unistd.h>\n";
    let desk = Desk::new();
    for (name, form, frees) in [("two", two, ""), ("one", one, "free(writer);")] {
        desk.hand_in(name, "w10/wal_writer.h", &format!("{structs}{form};\n{rest}"));
        let source = format!("{includes}#include \"wal_writer.h\"\n{}", body(form, frees));
        desk.hand_in(name, "w10/wal_writer.c", &source);
        // Without a header of its own: the course's, in which wal_append takes a record.
        let source = source.replace("const void *record", "const struct wal_record *record");
        desk.hand_in(&format!("{name}-course-header"), "wal_writer.c", &source);
    }
    desk.hand_in(
        "large",
        "wal_writer.h",
        &format!("{}{two};\n{rest}", structs.replace("int fd;", "int fd; char path[100];")),
    );
    desk.hand_in("large", "wal_writer.c", &format!("{includes}#include \"wal_writer.h\"\n{}", body(two, "")));
    let graded = desk.grade(&["--lesson", "w10-l02"]);

    for name in ["two", "one", "two-course-header", "one-course-header"] {
        assert_eq!(graded.status(name, "W10-R2"), "pass", "{name}: {}", graded.submission(name));
    }
    assert_eq!(graded.status("large", "W10-R2"), "pass", "{}", graded.submission("large"));
    assert!(graded.notes("large").contains("struct wal_writer is laid out in this tree's own way"));
}

/// A program that sees nothing of any other's files, and has the course's ports for itself, only if each has a /tmp and
/// a network of its own, which takes root.
#[test]
fn a_check_reaches_no_other_submission() {
    let desk = Desk::new();
    let prefix = desk.path("scratch");
    let spy = format!(
        "DIR *all = opendir(\"{}\"); if (all != NULL) crc = 1;
        all = opendir(\"/tmp\"); struct dirent *entry; while (all != NULL && (entry = readdir(all)) != NULL)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, \"run\") != 0) crc = 2;
        char here[64]; if (getcwd(here, sizeof here) == NULL || strcmp(here, \"/tmp/run/work\") != 0) crc = 3;",
        prefix.display()
    );
    let port = "#include <arpa/inet.h>\n#include <sys/socket.h>\n";
    let binds = "struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(7001) };
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 1) != 0) crc = 1;
        int peer = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(peer, (struct sockaddr *)&at, sizeof at) != 0) crc = 2;
        usleep(300000);";
    desk.hand_in("spy", "crc32.c", &crc_that(&spy));
    for name in ["port-1", "port-2", "port-3"] {
        desk.hand_in(name, "crc32.c", &format!("{port}{}", crc_that(binds)));
    }
    let graded = desk.grade(&["--lesson", "w10-l01"]);
    if !is_root() {
        eprintln!("not root: that submissions are kept apart was not tested");
        return;
    }
    for name in ["spy", "port-1", "port-2", "port-3"] {
        assert_eq!(graded.status(name, "W10-R1"), "pass", "{name}: {}", graded.submission(name));
    }
}

#[test]
#[ignore = "make test-all: six seconds"]
fn valgrind_and_the_submissions_own_harness_have_a_say() {
    let desk = Desk::new();
    let harness = |last: &str, code: i32| format!("#!/bin/sh\necho running\necho '{last}'\nexit {code}\n");
    desk.hand_in("good", "w10/crc32.c", GOOD_CRC);
    desk.hand_in("good", "w10/test_harness.sh", &harness("6/6 tests passed", 0));
    desk.hand_in("leaks", "crc32.c", &crc_that("if (malloc(10) == NULL) abort();"));
    desk.hand_in("reads", "crc32.c", &crc_that("char *a = malloc(8); if (a[8] == 1) crc = 0; free(a);"));
    desk.hand_in("five", "crc32.c", GOOD_CRC);
    desk.hand_in("five", "w10/test_harness.sh", &harness("5/6 tests passed", 1));
    desk.hand_in("lies", "crc32.c", GOOD_CRC);
    desk.hand_in("lies", "test_harness.sh", &format!("# wal_full_test\n{}", harness("6/6 tests passed", 1)));
    let graded = desk.grade(&["--lesson", "w10-l06"]);

    assert_eq!((graded.status("good", "W10-R7"), graded.status("good", "W10-R8")), ("pass", "pass"));
    assert_eq!(graded.submission("good")["passed"], true);
    assert_eq!((graded.status("leaks", "W10-R7"), graded.status("leaks", "W10-R8")), ("pass", "fail"));
    let seen = graded.seen("leaks", "W10-R8");
    assert!(seen.contains("definitely lost") && seen.contains("(crc32.c:"), "{seen}");
    let seen = graded.seen("reads", "W10-R8");
    assert!(seen.contains("Invalid read") && seen.contains("(crc32.c:"), "{seen}");
    let seen = graded.seen("five", "W10-R7");
    assert!(seen.contains("exit code 1") && seen.contains("5/6 tests passed"), "{seen}");
    assert_eq!(graded.status("lies", "W10-R7"), "fail");

    let graded = desk.grade(&["--lesson", "w10-l06", "--no-valgrind"]);
    assert_eq!(graded.status("good", "W10-R8"), "not_judged");
    assert_eq!(graded.submission("good")["passed"], true);
}

/// A directory with what grading takes, but for one tool.
fn path_without(desk: &Desk, tool: &str) -> PathBuf {
    let directory = desk.path("bin");
    fs::create_dir(&directory).unwrap();
    for name in ["gcc", "as", "ld", "nm", "objcopy", "ar", "bash", "sh", "valgrind"] {
        let path = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&path).map(|place| place.join(name)).find(|path| path.exists());
        if let Some(found) = found.filter(|_| name != tool) {
            std::os::unix::fs::symlink(found, directory.join(name)).unwrap();
        }
    }
    directory
}

#[test]
fn a_missing_valgrind_is_said_and_not_passed_over() {
    let desk = Desk::new();
    desk.hand_in("good", "crc32.c", GOOD_CRC);
    let path = path_without(&desk, "valgrind");
    let output = desk.command(&["good", "--lesson", "w10-l06"]).env("PATH", path).output().unwrap();
    let (table, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{table}{error}");
    assert!(table.contains("PASS  W10-R7"), "{table}{error}");
    assert!(table.contains("----  W10-R8") && table.contains("apt-get install valgrind"), "{table}{error}");
    assert!(error.contains("apt-get install valgrind"), "{error}");
}

#[test]
fn the_exit_code_is_2_when_nothing_could_be_graded() {
    let desk = Desk::new();
    desk.hand_in("good", "crc32.c", GOOD_CRC);
    let without_gcc = path_without(&desk, "gcc");
    let exits_with_2 = |command: &mut Command, words: &str| {
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(words), "{error}");
        assert!(output.stdout.is_empty());
    };
    exits_with_2(&mut desk.command(&["nowhere"]), "nowhere: no such directory");
    exits_with_2(&mut desk.command(&["good", "--lesson", "w12-l01"]), "the kit has no check of it");
    exits_with_2(&mut desk.command(&["good", "--cc", "no-such-compiler"]), "no-such-compiler is missing");
    exits_with_2(desk.command(&["good"]).env("PATH", without_gcc), "gcc is missing: apt-get install gcc");
    exits_with_2(&mut desk.command(&["good", "--kit", "/nowhere", "--no-such-option"]), "no-such-option");
    exits_with_2(Command::new(env!("CARGO_BIN_EXE_logship")).args(["grade", "."]), "--checks says where");
    if is_root() {
        fs::set_permissions(desk.path("scratch"), fs::Permissions::from_mode(0o700)).unwrap();
        exits_with_2(&mut desk.command(&["good"]), "TMPDIR says where else");
        fs::set_permissions(desk.path("scratch"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(desk.path("checks/bad.c"), "int main(void) { return 1; }").unwrap();
    exits_with_2(&mut desk.command(&["good"]), "the kit's bad.c has no table");
}

#[test]
fn the_table_names_requirement_check_file_and_lesson() {
    let desk = Desk::new();
    desk.hand_in("alice", "w10/crc32.c", &GOOD_CRC.replace("~crc", "crc"));
    desk.hand_in("alice", "w11/repl_conflict.c", "
        int repl_resolve_conflict(unsigned long a, unsigned long b, const char *c, const char *d);
        int repl_resolve_conflict(unsigned long a, unsigned long b, const char *c, const char *d) { return c && d && b > a; }
        ");
    let output = desk.run(&["alice", "--no-valgrind"]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    let failed = "\
FAIL  W10-R1  codec round trip; a flipped bit is CRC_MISMATCH
      known_crc: the CRC that everybody knows
        in crc32.c, with logship for all other files
        crc32 of 123456789: expected 3421780262, seen: 873187033
        w10-l01: crc32 is zlib's.
";
    assert!(table.contains(failed), "{table}");
    assert!(table.contains("files: 2 of 11 compile\n"), "{table}");
    assert!(table.contains("PASS  W11-R5  last writer wins, with tie-break"), "{table}");
    assert!(table.contains("W10: not yet  (Pass takes W10-R1, W10-R2, W10-R3)"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours and no bar in a file");
}

#[test]
fn an_interrupted_grader_leaves_nothing_behind() {
    let desk = Desk::new();
    let mark = format!("li{}", std::process::id());
    desk.hand_in(
        "waits",
        "crc32.c",
        &crc_that(&format!("prctl(PR_SET_NAME, \"{mark}\"); fork(); alarm(90); pause();")),
    );
    // The check is long enough not to end by itself.
    let path = desk.path("checks/w10_small.c");
    let text = fs::read_to_string(&path).unwrap().replace("\"crc32.c\", 5,", "\"crc32.c\", 60,");
    fs::write(path, text).unwrap();
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGKILL] {
        let mut grader = desk.command(&["waits"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let until = |wanted: &dyn Fn(usize) -> bool| {
            let begin = std::time::Instant::now();
            while !wanted(named(&mark)) {
                assert!(begin.elapsed().as_secs() < 60, "{} processes", named(&mark));
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        };
        until(&|count| count >= 2);
        let pid = nix::unistd::Pid::from_raw(i32::try_from(grader.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        let status = grader.wait().unwrap();
        until(&|count| count == 0);
        if signal == nix::sys::signal::Signal::SIGTERM {
            assert_eq!(status.code(), Some(2));
            assert_eq!(fs::read_dir(desk.path("scratch")).unwrap().count(), 0);
        }
    }
}

/// A grader that is killed between starting a watcher and the watcher's asking to be told of that.
#[test]
fn a_watcher_whose_grader_is_gone_already_starts_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let watch = |parent: u32, file: &str| {
        let mut watcher = Command::new(env!("CARGO_BIN_EXE_logship"));
        watcher.args(["__watch", "--wall-ms=60000", "--cpu-seconds=9", "--memory=999999999", "--addresses=0"]);
        watcher.args(["--processes=9", "--file=999999", "--output=999", "--inside=."]);
        watcher.arg(format!("--parent={parent}")).args(["--", "touch", file]).current_dir(scratch.path());
        let status = watcher.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        (status.success(), scratch.path().join(file).exists())
    };
    assert_eq!(watch(std::process::id(), "here"), (true, true));
    assert_eq!(watch(1, "gone"), (false, false));
}

/// Somebody else's user, a copy of the command and of the library where that user may read them.
#[test]
#[ignore = "make test-all: eight seconds"]
fn without_root_the_limits_hold_too() {
    if !is_root() {
        // Then every other test here has shown it.
        return;
    }
    let desk = Desk::new();
    let mark = format!("ln{}", std::process::id());
    let bomb = format!(
        "prctl(PR_SET_NAME, \"{mark}\");
        volatile int *born = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        for (;;) {{ if (__sync_add_and_fetch(born, 1) > 400) pause(); if (fork() == 0) alarm(90); }}"
    );
    desk.hand_in("bomb", "crc32.c", &crc_that(&bomb));
    desk.hand_in("loop", "crc32.c", &crc_that("for (volatile int i = 0;; i++) ;"));
    desk.hand_in("closes", "crc32.c", &crc_that("mkdir(\"a\", 0700); mkdir(\"a/b\", 0700); chmod(\"a\", 0);"));
    desk.hand_in("good", "crc32.c", GOOD_CRC);
    fs::copy(env!("CARGO_BIN_EXE_logship"), desk.path("logship")).unwrap();
    fs::copy(library(), desk.path("liblogship.a")).unwrap();
    copy(&top().join("include"), &desk.path("include"));
    std::os::unix::fs::chown(desk.path("scratch"), Some(4321), Some(4321)).unwrap();
    let output = Command::new(desk.path("logship"))
        .args(["grade", "--json", "-j", "3", "--lesson", "w10-l01", "--each", ".", "--checks", "../checks"])
        .args(["--lib", "../liblogship.a", "--include", "../include"])
        .env("TMPDIR", desk.path("scratch"))
        .current_dir(desk.path("submissions"))
        .uid(4321)
        .gid(4321)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|wrong| panic!("{wrong}: {error}"));
    let graded = Graded { json, code: output.status.code().unwrap() };
    let seen = graded.seen("bomb", "W10-R1");
    assert!(seen.contains("more than 48 processes"), "{seen}");
    assert!(graded.seen("loop", "W10-R1").contains("still ran after 5 s"));
    assert_eq!((graded.status("closes", "W10-R1"), graded.status("good", "W10-R1")), ("pass", "pass"));
    assert_eq!((graded.code, named(&mark)), (1, 0));
    assert_eq!(fs::read_dir(desk.path("scratch")).unwrap().count(), 0);
}

#[test]
fn completions_and_manual_pages_know_the_options_and_nothing_hidden() {
    for words in [["completions", "bash"], ["completions", "zsh"], ["completions", "fish"], ["man", "grade"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_logship")).args(words).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).replace('\\', "");
        assert!(output.status.success());
        assert!(text.contains("no-valgrind") && !text.contains("__watch"), "{words:?}: {text}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_logship")).arg("man").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(".TH logship 1"));
}

#[test]
fn folders_are_found_where_it_is_plain() {
    let desk = Desk::new();
    for place in ["zipped/x/x/w10", "week/week 10", "upper/W10", "flat", "many/ann", "many/bob"] {
        desk.hand_in(place, "crc32.c", GOOD_CRC);
    }
    fs::create_dir(desk.path("submissions/empty")).unwrap();
    let names = ["zipped", "week", "upper", "flat", "many", "empty", "nowhere"];
    let arguments: Vec<&str> = ["--json", "--lesson", "W10-L01"].into_iter().chain(names).collect();
    let output = desk.run(&arguments);
    assert_eq!(output.status.code(), Some(2));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |name: &str| {
        let all = json["submissions"].as_array().unwrap();
        all.iter().find(|one| one["submission"] == name).unwrap_or_else(|| panic!("no {name}: {json}")).clone()
    };
    for name in ["zipped", "week", "upper", "flat"] {
        assert_eq!(of(name)["passed"], true, "{}", of(name));
    }
    let error = |name: &str| of(name)["error"].as_str().unwrap().to_owned();
    assert!(error("many").contains("did you mean --each many?"), "{}", error("many"));
    assert!(error("empty").contains("none of the course's files"), "{}", error("empty"));
    assert!(error("nowhere").contains("no such directory"), "{}", error("nowhere"));

    let output = desk.run(&["--json", "nowhere"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), json["error"].as_str()), (Some(2), Some("nowhere: no such directory")));
}

/// What a submission may try so as to pass without being right. Each has a wrong crc32.
#[test]
fn no_submission_gives_itself_a_verdict() {
    let desk = Desk::new();
    let wrong = GOOD_CRC.replace("~crc", "crc");
    let writes = "#include <fcntl.h>\n#include <stdlib.h>\n#include <unistd.h>\n
        static void forge(void)
        {
            const char *name = getenv(\"LOGSHIP_RESULT\");
            int fd = open(name != NULL ? name : \"../result/verdict\", O_WRONLY | O_CREAT | O_APPEND, 0600);
            for (int all = 3; all < 1024; all++)
                if (write(all, \"PASS\\n\", 5) < 0) continue;
            if (write(fd, \"PASS\\n\", 5) == 5) _exit(0);
        }\n";
    let before_main = "__attribute__((constructor)) static void early(void) { forge(); }\n";
    let with_section =
        "static void (*const early[])(void) __attribute__((used, section(\".preinit_array\"))) = { forge };\n";
    let in_the_call = wrong.replace("void crc32_init(void) {}", "void crc32_init(void) { forge(); }");
    desk.hand_in("constructor", "crc32.c", &format!("{writes}{before_main}{wrong}"));
    desk.hand_in("preinit", "crc32.c", &format!("{writes}{with_section}{wrong}"));
    desk.hand_in("in-the-call", "crc32.c", &format!("{writes}{in_the_call}"));
    let own_libc = "#include <stdio.h>\nint snprintf(char *s, size_t n, const char *f, ...) { (void)f; if (n) *s = 0; return 0; }\n
        int strcmp(const char *a, const char *b) { (void)a; (void)b; return 0; }\n";
    desk.hand_in("own-libc", "crc32.c", &format!("{own_libc}{wrong}"));
    desk.hand_in("good", "crc32.c", GOOD_CRC);
    let graded = desk.grade(&["--lesson", "w10-l01"]);
    for name in ["constructor", "preinit", "in-the-call", "own-libc"] {
        assert_eq!(graded.status(name, "W10-R1"), "fail", "{name}: {}", graded.submission(name));
    }
    assert_eq!(graded.status("good", "W10-R1"), "pass");
}

#[test]
fn the_forms_for_machines_have_the_fields_that_are_published() {
    let desk = Desk::new();
    desk.hand_in("good", "w10/crc32.c", GOOD_CRC);
    desk.hand_in("wrong", "w10/crc32.c", &GOOD_CRC.replace("~crc", "crc"));
    let print = |name: &str, format: &str| {
        let output = desk.run(&[name, "--lesson", "w10-l01", "--format", format]);
        (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
    };
    let (text, code) = print("wrong", "gradescope");
    let results: Value = serde_json::from_str(&text).unwrap();
    let test = &results["tests"][0];
    assert_eq!((code, test["score"].as_f64(), test["max_score"].as_f64()), (1, Some(0.0), Some(1.0)));
    assert_eq!(
        (&test["status"], &test["number"], &test["output_format"]),
        (&"failed".into(), &"1".into(), &"text".into())
    );
    assert!(test["output"].as_str().unwrap().contains("crc32 of 123456789"), "{test}");
    assert!(test["name"].as_str().unwrap().starts_with("W10-R1") && test["visibility"] == "visible");
    assert!(results["execution_time"].is_number() && results["output"].is_string());

    let (text, _) = print("wrong", "github");
    assert!(text.lines().any(|line| line.starts_with("::error file=w10/crc32.c,title=W10-R1 ")), "{text}");
    let (text, _) = print("wrong", "tap");
    assert!(text.starts_with("TAP version 14\n1..1\nnot ok 1 - W10-R1 ") && text.ends_with("  ...\n"), "{text}");
    assert_eq!(print("good", "tap").0.lines().nth(2).unwrap().split(" - ").next(), Some("ok 1"));
    let listed = desk.run(&["--list"]);
    assert!(String::from_utf8(listed.stdout).unwrap().contains("known_crc"));
    let both = desk.run(&["good", "wrong", "--lesson", "w10-l01"]);
    assert_eq!(String::from_utf8(both.stdout).unwrap().lines().count(), 2);
}
