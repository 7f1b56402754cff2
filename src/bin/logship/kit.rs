//! The kit: where its parts are, and a copy of them, compiled, in the scratch directory, where every run may read it.

use crate::args;
use crate::checks::{self, Check};
use crate::sandbox::{End, Sandbox, in_parallel, limits};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What links a program, besides its objects and the library.
pub(crate) const SYSTEM_LIBRARIES: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

/// How a submission's wal_open is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WalOpen {
    /// int wal_open(struct wal_writer *, const char *)
    TwoArguments,
    /// struct wal_writer *wal_open(const char *)
    Path,
}

/// An object a check program, or why it does not compile.
pub(crate) type CheckObjects = Vec<Result<PathBuf, String>>;

/// The program that is no check: it learns what only a run shows.
const PROBE: &str = "probe";

/// The kit in the scratch directory.
pub(crate) struct Kit {
    pub(crate) cc: String,
    pub(crate) library: PathBuf,
    pub(crate) include: PathBuf,
    directory: PathBuf,
    /// The names of the check programs, without .c.
    pub(crate) programs: Vec<String>,
    pub(crate) checks: Vec<Check>,
    /// The checks' objects, by the headers that they were compiled against.
    pub(crate) check_objects: Mutex<HashMap<[u64; 2], CheckObjects>>,
    /// What was compiled before, by all that goes into it: in a class many files are the same, those that were given
    /// out.
    pub(crate) compiled: Mutex<HashMap<[u64; 2], Compiled>>,
    /// Of two hashes whose keys nobody knows, so that no submission can be made to take another's object.
    hashers: [RandomState; 2],
    objects: AtomicUsize,
    /// What the C library defines: a submission's function of that name is for its own file alone.
    pub(crate) libc: BTreeSet<String>,
}

/// How a file took the compiler.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Missing,
    /// With the compiler's first error.
    Fails(String),
    /// It compiles, but not with -Werror: the first warning.
    Warns(String),
    Compiles,
}

/// What came of compiling a file.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub(crate) state: State,
    pub(crate) object: Option<PathBuf>,
    /// The names that the object gives to others.
    pub(crate) defines: Vec<String>,
    pub(crate) had_main: bool,
}

/// A command as words.
pub(crate) fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

/// Is it on the PATH?
pub(crate) fn is_there(tool: &str) -> bool {
    let is_program =
        |path: &Path| path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 1 != 0);
    if tool.contains('/') {
        return is_program(Path::new(tool));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| is_program(&directory.join(tool)))
}

/// Copies a directory's .c and .h files and what is below it.
fn copy_sources(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir(to).map_err(io(to))?;
    for entry in fs::read_dir(from).map_err(io(from))? {
        let path = entry.map_err(io(from))?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy_sources(&path, &to.join(name))?;
        } else if path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
            fs::copy(&path, to.join(name)).map_err(io(&path))?;
            fs::set_permissions(to.join(name), Permissions::from_mode(0o644)).map_err(io(&path))?;
        }
    }
    Ok(())
}

impl Kit {
    /// Finds the parts, copies and compiles them.
    pub(crate) fn prepare(options: &args::Grade, scratch: &Path, sandbox: &Sandbox) -> Result<Kit, String> {
        for (tool, package) in [(options.cc.as_str(), "gcc"), ("objcopy", "binutils"), ("nm", "binutils")] {
            if !is_there(tool) {
                return Err(format!("{tool} is missing: apt-get install {package}"));
            }
        }
        let prefix = match &options.kit {
            Some(prefix) => prefix.clone(),
            None => {
                let program = std::env::current_exe().map_err(|error| error.to_string())?;
                program.parent().and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default()
            }
        };
        let part = |given: &Option<PathBuf>, default: &str, option: &str| {
            let path = given.clone().unwrap_or_else(|| prefix.join(default));
            if path.exists() {
                Ok(path)
            } else {
                Err(format!("{} is not there: --{option} says where", path.display()))
            }
        };
        let checks = part(&options.checks, "share/logship/grade/checks", "checks")?;
        let library = part(&options.lib, "lib/liblogship.a", "lib")?;
        let include = part(&options.include, "include/logship", "include")?;

        let directory = scratch.join("kit");
        fs::create_dir(&directory).map_err(io(&directory))?;
        copy_sources(&checks, &directory.join("checks"))?;
        copy_sources(&include, &directory.join("include"))?;
        let mut kit = Kit {
            cc: options.cc.clone(),
            library: directory.join("liblogship.a"),
            include: directory.join("include"),
            programs: Vec::new(),
            checks: Vec::new(),
            check_objects: Mutex::new(HashMap::new()),
            compiled: Mutex::new(HashMap::new()),
            hashers: [RandomState::new(), RandomState::new()],
            objects: AtomicUsize::new(0),
            libc: BTreeSet::new(),
            directory,
        };
        kit.libc = kit.libc_names(sandbox)?;
        kit.copy_library(&library, sandbox)?;
        for entry in fs::read_dir(kit.directory.join("checks")).map_err(io(&checks))? {
            let path = entry.map_err(io(&checks))?.path();
            if let (Some(name), Some("c")) = (path.file_stem(), path.extension().and_then(|text| text.to_str())) {
                kit.programs.push(name.to_string_lossy().into_owned());
            }
        }
        if kit.programs.is_empty() {
            return Err(format!("{}: no check program is there", checks.display()));
        }
        kit.programs.retain(|name| name != PROBE);
        kit.programs.sort();
        let numbers: Vec<usize> = (0..kit.programs.len()).collect();
        for table in in_parallel(&numbers, sandbox.size, |program| kit.table(*program, sandbox)) {
            kit.checks.extend(table?);
        }
        Ok(kit)
    }

    fn libc_names(&self, sandbox: &Sandbox) -> Result<BTreeSet<String>, String> {
        let room = sandbox.room(&self.directory)?;
        let place = room.tool(&words([&self.cc, "-print-file-name=libc.so.6"]));
        let listed = room.tool(&words(["nm", "-D", "-P", "--defined-only", place.output.trim()]));
        let name = |line: &str| line.split(['@', ' ']).next().map(str::to_owned);
        Ok(listed.output.lines().filter_map(name).chain(["_start".to_owned()]).collect())
    }

    /// Every function of the course weak, so that a submission's own wins, however the library was built; and without
    /// the debug information, which every link of every program would read again.
    fn copy_library(&self, from: &Path, sandbox: &Sandbox) -> Result<(), String> {
        let copy = self.directory.join("whole.a");
        fs::copy(from, &copy).map_err(io(from))?;
        fs::set_permissions(&copy, Permissions::from_mode(0o644)).map_err(io(&copy))?;
        let room = sandbox.room(&self.directory)?;
        let mut command = words(["objcopy", "--strip-debug", "--wildcard"]);
        for names in ["kv_*", "wal_*", "repl_*", "crc32*", "logship_crc32", "*_full"] {
            command.push(format!("--weaken-symbol={names}").into());
        }
        command.extend([copy.clone().into(), "stripped.a".into()]);
        let outcome = room.tool(&command);
        let bytes = room.take("work/stripped.a").filter(|_| outcome.end == End::Exit(0));
        let bytes = bytes.ok_or_else(|| format!("{}: objcopy: {}", from.display(), outcome.output.trim()))?;
        fs::write(&self.library, bytes).map_err(io(&self.library))?;
        fs::remove_file(&copy).map_err(io(&copy))
    }

    /// The source of a check program; behind the last one, of the probe.
    pub(crate) fn source(&self, program: usize) -> PathBuf {
        let name = self.programs.get(program).map_or(PROBE, String::as_str);
        self.directory.join("checks").join(format!("{name}.c"))
    }

    /// A name for all that goes into an object.
    pub(crate) fn hash(&self, parts: &[Vec<u8>]) -> [u64; 2] {
        [self.hashers[0].hash_one(parts), self.hashers[1].hash_one(parts)]
    }

    /// A word that nobody can guess.
    pub(crate) fn new_word(&self) -> String {
        let count = self.objects.fetch_add(1, Ordering::Relaxed);
        let [one, other] = self.hash(&[count.to_le_bytes().to_vec()]);
        format!("{one:016x}{other:016x}")
    }

    /// Where a new object of a submission goes.
    pub(crate) fn new_object(&self) -> PathBuf {
        self.directory.join(format!("object-{}.o", self.objects.fetch_add(1, Ordering::Relaxed)))
    }

    /// -I for the course's headers.
    pub(crate) fn include_options(&self) -> Vec<OsString> {
        let mut options = Vec::new();
        for directory in ["", "w09", "w10", "w11"] {
            options.extend(["-I".into(), self.include.join(directory).into()]);
        }
        options
    }

    /// Makes a program with nothing but the reference and asks it for its table.
    fn table(&self, program: usize, sandbox: &Sandbox) -> Result<Vec<Check>, String> {
        let room = sandbox.room(&self.directory)?;
        let mut command = words([&self.cc, "-std=gnu11", "-O0", "-w", "-o", "program"]);
        command.extend(self.include_options());
        command.extend([self.source(program).into(), self.library.clone().into()]);
        command.extend(SYSTEM_LIBRARIES.map(OsString::from));
        let made = room.tool(&command);
        let name = self.programs.get(program).map_or("", String::as_str);
        if made.end != End::Exit(0) {
            return Err(format!("the kit's {name}.c does not compile:\n{}", made.output));
        }
        let ten_seconds = limits(Duration::from_secs(10));
        let listed = room.run(&words(["./program", "--list"]), &[], "work", ten_seconds, true);
        if listed.end != End::Exit(0) {
            return Err(format!("the kit's {name}.c has no table: {}", listed.end.words(&ten_seconds)));
        }
        checks::parse(&listed.output, program).map_err(|wrong| format!("the kit's {name}.c: {wrong}"))
    }
}
