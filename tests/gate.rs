//! The gate itself: a step that fails fails the whole and is named; what is missing on a machine is installed or said.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use kit::top;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// The lines that a script of steps prints, and whether it ends well.
fn steps(script: &str) -> (Vec<String>, bool) {
    let whole = format!(". tests/steps.sh\n{script}\nsummary\n");
    let output = Command::new("bash").args(["-c", &whole]).current_dir(top()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (said.lines().map(str::to_owned).collect(), output.status.success())
}

const GOOD: &str = "step good echo 'test result: ok. 3 passed; 0 failed; 2 ignored; 0 measured'\n";

#[test]
fn counts_are_those_of_the_steps() {
    let (said, well) =
        steps(&format!("{GOOD}step script printf '1 passed, 0 failed\\n4 passed, 0 failed\\n'\nstep plain true"));
    assert!(well, "{said:#?}");
    // Of cargo's lines all count, of a script's the last; a step without a count is one.
    assert_eq!(said.last().unwrap(), "8 passed, 0 failed, 2 skipped");
}

#[test]
fn a_step_that_fails_fails_the_whole_and_is_named() {
    for (failing, passed, failed) in [
        ("step bad false", 3, 1),
        ("step bad bash -c 'echo 7 passed, 2 failed; exit 1'", 10, 2),
        // It failed, whatever its exit status or its counts say.
        ("step bad echo '7 passed, 2 failed'", 10, 2),
        ("step bad bash -c 'echo 7 passed, 0 failed; exit 1'", 10, 1),
        ("step bad bash -c 'echo \"test result: FAILED. 7 passed; 2 failed; 0 ignored\"; exit 101'", 10, 2),
        ("step bad no-such-command", 3, 1),
        ("(step bad false) & wait", 3, 1),
    ] {
        let (said, well) = steps(&format!("{failing}\n{GOOD}"));
        assert!(!well, "{failing}: {said:#?}");
        assert!(said.contains(&"FAILED: bad".to_owned()), "{failing}: {said:#?}");
        assert_eq!(said.last().unwrap(), &format!("{passed} passed, {failed} failed, 2 skipped"), "{failing}");
    }
}

#[test]
fn the_end_of_a_failing_steps_output_is_shown() {
    let (said, _) = steps("step bad bash -c 'seq 1000; exit 1'");
    assert!(said.contains(&"    | 1000".to_owned()) && !said.contains(&"    | 1".to_owned()), "{said:#?}");
}

#[test]
fn a_gate_without_a_step_is_no_gate() {
    assert!(!steps("").1);
}

#[test]
fn what_is_left_out_is_said() {
    let (said, well) = steps(&format!("left the rest\n{GOOD}"));
    assert!(well && said.contains(&"left out: the rest".to_owned()), "{said:#?}");
    let (said, _) = steps(
        "step cargo printf 'test a::b ... ignored, make test-all: an hour\\ntest result: ok. 1 passed; 0 failed; 1 ignored\\n'",
    );
    assert!(said.contains(&"left out: a::b: make test-all: an hour".to_owned()), "{said:#?}");
    let (said, _) =
        steps("step script printf 'SKIPPED: black holes, which need root\\n1 passed, 0 failed, 1 skipped\\n'");
    assert!(said.contains(&"left out: black holes, which need root".to_owned()), "{said:#?}");
    assert_eq!(said.last().unwrap(), "1 passed, 0 failed, 1 skipped");
}

/// `make test` and `make test-all` on a machine whose cargo does nothing but fail.
#[test]
fn both_gates_fail_when_a_step_of_theirs_does() {
    for which in ["test", "test-all"] {
        let mut command = Command::new("bash");
        command.args(["tests/gate.sh", which]).current_dir(top()).env("CARGO", "false").env("MAKE", "false");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("FAILED: build\n") && said.contains("0 passed, "), "{said}");
    }
}

/// A machine as packaging/setup.sh sees it: one directory of commands.
struct Machine(tempfile::TempDir);

impl Machine {
    /// With what every system has, and a Rust of some version.
    fn new(rust: &str) -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        for name in
            ["bash", "cat", "chmod", "cut", "dirname", "head", "mktemp", "rm", "sed", "sort", "tail", "touch", "true"]
        {
            let from = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
            symlink(from.iter().find(|path| path.exists()).unwrap(), machine.path(name)).unwrap();
        }
        machine.has("cargo", &format!("echo cargo {rust} '(hash date)'"));
        machine.has("rustc", &format!("echo rustc {rust} '(hash date)'"));
        machine.has("id", "echo 1000");
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn has(&self, name: &str, script: &str) {
        fs::write(self.path(name), format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// An apt-get that notes how it was called, and brings gcc.
    fn has_apt_get(&self) {
        let gcc = self.path("gcc").display().to_string();
        let bring = ["cc", "objcopy"].map(|name| self.path(name).display().to_string()).join(" ");
        self.has("env", "shift; exec \"$@\"");
        self.has(
            "apt-get",
            &format!(
                "echo \"$@\" >>{}\ncase $1 in install) for name in {gcc} {bring}; do touch $name; chmod +x $name; done; esac",
                self.path("calls").display()
            ),
        );
    }

    fn set_up(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(top().join("packaging/setup.sh"));
        command.args(arguments).env_clear().env("PATH", self.0.path()).env("TMPDIR", self.0.path());
        command.output().unwrap()
    }

    fn installed(&self) -> bool {
        self.path("calls").exists()
    }
}

fn wanted_rust() -> String {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    line.trim_end_matches('"').to_owned()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn who_may_not_install_gets_the_line_that_does() {
    let machine = Machine::new("1.99.0");
    machine.has_apt_get();
    machine.has("sudo", "exit 1");
    let said = complaint(&machine.set_up(&["demo"]));
    assert!(
        said.lines().count() == 1 && said.contains("sudo sh -c 'apt-get update && apt-get install -y gcc"),
        "{said}"
    );
    assert!(!machine.installed());
    fs::remove_file(machine.path("sudo")).unwrap();
    assert!(complaint(&machine.set_up(&["demo"])).contains("su -c 'apt-get"));
}

#[test]
fn root_and_a_sudo_without_a_password_install() {
    for who in ["root", "sudo"] {
        let machine = Machine::new("1.99.0");
        machine.has_apt_get();
        if who == "root" {
            machine.has("id", "echo 0");
        } else {
            machine.has("sudo", "shift; exec \"$@\"");
        }
        let output = machine.set_up(&["demo"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("installing gcc"), "{who}: {said}");
        let calls = fs::read_to_string(machine.path("calls")).unwrap();
        assert!(calls.starts_with("update -qq\ninstall -y"), "{calls}");
        // All is there now: nothing to do and nothing to say.
        fs::remove_file(machine.path("calls")).unwrap();
        let again = machine.set_up(&["demo"]);
        assert!(again.status.success() && again.stderr.is_empty() && !machine.installed());
    }
}

#[test]
fn an_old_rust_or_none_is_said_with_the_way_to_a_new_one_before_anything_is_installed() {
    let machine = Machine::new("1.65.0");
    machine.has_apt_get();
    machine.has("id", "echo 0");
    let said = complaint(&machine.set_up(&["demo"]));
    let wanted = format!("Rust {} or newer is needed", wanted_rust());
    assert!(said.contains("cargo is 1.65.0") && said.contains(&wanted) && said.contains("rustup.rs"), "{said}");
    assert!(!said.contains("apt-get install -y cargo") && !machine.installed(), "{said}");
    fs::remove_file(machine.path("cargo")).unwrap();
    let said = complaint(&machine.set_up(&["demo"]));
    assert!(said.contains("no cargo") && said.contains(&wanted) && !machine.installed(), "{said}");
    // rustup without a toolchain.
    machine.has("cargo", "echo 'rustup could not choose a version' >&2; exit 1");
    machine.has("rustup", "");
    assert!(complaint(&machine.set_up(&["demo"])).contains("rustup default stable"));
}

#[test]
fn the_version_that_is_wanted_is_new_enough_and_so_are_nightlies_after_it() {
    for rust in [wanted_rust(), format!("{}.0", wanted_rust()), "1.200.0-nightly".to_owned()] {
        let machine = Machine::new(&rust);
        for name in ["gcc", "cc", "objcopy"] {
            machine.has(name, "");
        }
        let output = machine.set_up(&["--look", "demo"]);
        assert!(output.status.success(), "{rust}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
