//! Every program in README.md and docs/*.md, taken out of the page, compiled and run twice in the same directory.
//!
//! The README's C programs are built by what `make demo` builds them with (packaging/demo.sh). Those of docs/linking.md
//! are run by `make install-test`, which types the whole page.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use kit::{library, top};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long a line may take to come. A test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// The blocks of a page with their kind, in order.
fn blocks(page: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(page).unwrap();
    let mut lines = text.lines();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((kind.to_owned(), text.join("\n") + "\n"));
        }
    }
    blocks
}

/// A program that runs, with what it prints line by line. It is killed with its value.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    fn start(program: &Path, directory: &Path, arguments: &[&str]) -> Running {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let stdin = child.stdin.take();
        Running { child, stdin, lines, said: Vec::new() }
    }

    /// Waits for a line with `words` in it and returns that line.
    fn says(&mut self, words: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(error) => panic!("{words:?} was not said ({error}): {:#?}", self.said),
            }
        }
    }

    fn typed(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The end of what is typed, and how it ends then.
    fn ends(mut self) -> i32 {
        drop(self.stdin.take());
        self.child.wait().unwrap().code().unwrap()
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The README's leader and follower, built into a directory.
fn readme_programs() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let libraries = format!("{} -lpthread -ldl -lm", library().display());
    let mut command = Command::new(top().join("packaging/demo.sh"));
    let output = command.arg("--programs").arg(place.path()).env("LOGSHIP_LIBS", libraries).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    place
}

fn leader(place: &Path, port: &str) -> (Running, String) {
    let mut leader = Running::start(&place.join("leader"), place, &[port]);
    let line = leader.says("port ");
    let port = line.strip_prefix("port ").unwrap().split(',').next().unwrap().to_owned();
    (leader, port)
}

fn follower(place: &Path, node: &str, port: &str) -> Running {
    Running::start(&place.join("follower"), place, &[node, port])
}

#[test]
fn the_readmes_followers_come_and_go_and_so_does_its_leader_twice_in_one_directory() {
    let place = readme_programs();
    let place = place.path();
    let mut port = "0".to_owned();
    let mut lsn = 0;
    for _ in 0..2 {
        let (mut lead, at) = leader(place, &port);
        // The second time at the same port, as a person would start it.
        port = at;
        let mut first = follower(place, "1", &port);
        lead.says("follower-1 had LSN");
        lead.typed("city=oslo");
        lsn += 1;
        lead.says(&format!("LSN {lsn} is in this log, not confirmed"));
        first.says(&format!("LSN {lsn}, "));

        let mut second = follower(place, "2", &port);
        lead.says("follower-2 had LSN");
        second.says(&format!("LSN {lsn}, "));
        lead.typed("name alice in wonderland");
        lsn += 1;
        lead.says(&format!("LSN {lsn} is on a quorum"));

        // A follower is killed, misses a record and comes back.
        drop(second);
        lead.typed("missed=yes");
        lsn += 1;
        lead.says(&format!("LSN {lsn} is in this log, not confirmed"));
        let mut second = follower(place, "2", &port);
        lead.says("was sent 1 records");
        second.says(&format!("LSN {lsn}, "));

        // The leader goes and comes back; the followers find it by themselves.
        assert_eq!(lead.ends(), 0);
        first.says("no leader: ");
        second.says("no leader: ");
        let (mut again, _) = leader(place, &port);
        again.says("had LSN");
        again.says("had LSN");
        again.typed("back=yes");
        lsn += 1;
        again.says(&format!("LSN {lsn} is on a quorum"));
        first.says(&format!("LSN {lsn}, "));
        second.says(&format!("LSN {lsn}, "));
        assert_eq!(again.ends(), 0);
    }
    let log = fs::read(place.join("leader.wal")).unwrap();
    for name in ["follower-1.wal", "follower-2.wal"] {
        assert!(fs::read(place.join(name)).unwrap() == log, "{name} is not the leader's");
    }
}

#[test]
fn the_readmes_leader_outlives_strays_and_lets_followers_in_beside_them() {
    let place = readme_programs();
    let place = place.path();
    let (mut lead, port) = leader(place, "0");
    let connect = || TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();

    drop(connect()); // a port scan
    lead.says("was not let in");
    let mut browser = connect();
    browser.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    lead.says("was not let in");
    let silent = connect(); // says nothing, and stays
    lead.says("was not let in");
    let half = connect();
    (&half).write_all(b"abc").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    lead.says("was not let in");
    let mut ninth = follower(place, "9", &port);
    lead.says("was not let in");
    ninth.says("no leader: ");

    let mut one = follower(place, "1", &port);
    lead.says("follower-1 had LSN 0");
    let mut two = follower(place, "2", &port);
    lead.says("follower-2 had LSN 0");
    lead.typed("a=1");
    lead.says("LSN 1 is on a quorum");
    one.says("LSN 1, 1 keys");
    two.says("LSN 1, 1 keys");
    assert!(ninth.is_running());
    drop((silent, browser));
    lead.typed("=no key");
    lead.says("not written");
    lead.typed("b=2");
    lead.says("LSN 2 is on a quorum");
    assert_eq!(lead.ends(), 0);
}

/// The README's Rust program and its `[dependencies]`, as cargo would have them.
fn rust_program() -> (String, String) {
    let mut found = (String::new(), String::new());
    for (kind, text) in blocks(&top().join("README.md")) {
        match kind.as_str() {
            "toml" => found.0 = text,
            "rust" => found.1 = text,
            _ => {}
        }
    }
    (found.0, found.1)
}

fn runs_twice(program: &Path, directory: &Path) {
    for lsn in ["LSN 2 ", "LSN 4 "] {
        let output = Command::new(program).current_dir(directory).output().unwrap();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}{errors}");
        assert_eq!(said, format!("{lsn}is on a quorum; the follower has 2 keys\n"), "{errors}");
    }
}

#[test]
fn the_readmes_rust_program_compiles_and_runs_twice() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("main.rs");
    let program = place.path().join("program");
    fs::write(&source, rust_program().1).unwrap();
    // What this test is linked with.
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut command = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()));
    command.args(["--edition", "2024", "-o"]).arg(&program).arg(&source);
    command.arg("-L").arg(format!("dependency={}", deps.display()));
    let output =
        command.arg("--extern").arg(format!("logship={}", deps.join("liblogship.rlib").display())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    runs_twice(&program, place.path());
}

#[test]
#[ignore = "make test-all: builds the library once more, as a dependency"]
fn the_readmes_dependencies_are_enough_and_bring_no_command_line() {
    let place = tempfile::tempdir().unwrap();
    let (dependencies, main) = rust_program();
    assert!(dependencies.contains("default-features = false") && dependencies.contains("\"../logship\""));
    let manifest = "[package]\nname = \"program\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n".to_owned();
    let manifest = manifest + &dependencies.replace("../logship", top().to_str().unwrap());
    fs::create_dir(place.path().join("src")).unwrap();
    fs::write(place.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(place.path().join("src/main.rs"), main).unwrap();
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        command.args(arguments).current_dir(place.path()).env("CARGO_TARGET_DIR", place.path().join("target"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    cargo(&["build", "--quiet"]);
    let tree = cargo(&["tree", "--quiet", "--edges", "normal"]);
    assert!(tree.contains("logship") && !tree.contains("clap") && !tree.contains("serde"), "{tree}");
    runs_twice(&place.path().join("target/debug/program"), place.path());
}

/// A program on a page that no test runs would be noticed here.
#[test]
fn every_program_on_a_page_has_a_test() {
    let mut pages: Vec<_> = fs::read_dir(top().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.push(top().join("README.md"));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        for (kind, text) in blocks(page) {
            let is_program = text.contains("int main(") || text.contains("fn main(");
            let name = format!("{}: {}", page.file_name().unwrap().to_str().unwrap(), text.lines().next().unwrap());
            let known = name.starts_with("linking.md: ")
                || ["README.md: /* leader.c */", "README.md: /* follower.c */"].contains(&name.as_str())
                || (name.starts_with("README.md: ") && kind == "rust" && rust_program().1 == text);
            assert!(!is_program || known, "no test runs {name}");
        }
    }
    assert!(!rust_program().0.is_empty() && rust_program().1.contains("fn main("));
}

/// The promises of the README, by the words in bold with which each begins.
fn promises(readme: &str) -> Vec<String> {
    let (_, section) = readme.split_once("## What it promises\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let begins = |line: &str| Some(line.strip_prefix("- **")?.split_once("**")?.0.to_owned());
    section.lines().filter_map(begins).collect()
}

/// What is wrong with the table of docs/promises.md.
fn table_complaints(readme: &str, table: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for promise in promises(readme) {
        if !table.lines().any(|line| line.starts_with(&format!("| **{promise}** |"))) {
            complaints.push(format!("no test for: {promise}"));
        }
    }
    let rows = table.lines().filter_map(|line| line.strip_prefix("| **"));
    for row in rows {
        let tests = row.rsplit('|').nth(1).unwrap();
        for test in tests.split("; ") {
            let mut parts = test.split('`');
            let (file, name) = (parts.nth(1).unwrap(), parts.nth(1).unwrap());
            let text = fs::read_to_string(top().join(file)).unwrap_or_default();
            if !text.contains(&format!("fn {name}(")) && !text.contains(&format!("\"{name}\"")) {
                complaints.push(format!("{file} has no test {name}"));
            }
        }
    }
    complaints
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let read = |name: &str| fs::read_to_string(top().join(name)).unwrap();
    let (readme, table) = (read("README.md"), read("docs/promises.md"));
    assert!(promises(&readme).len() >= 7);
    let complaints = table_complaints(&readme, &table);
    assert!(complaints.is_empty(), "{complaints:#?}");

    // A promise without a test and a test that is gone are seen.
    let readme = readme.replace("## What it promises\n", "## What it promises\n\n- **The moon** is ours.\n");
    let table = table.replace("no_ack_precedes_the_sync", "no_such_test");
    assert_eq!(table_complaints(&readme, &table).len(), 3);
}
