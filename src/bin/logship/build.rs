//! A submission's objects and programs: gcc, nm, objcopy, and small files that are compiled only to see whether they
//! do.

use crate::course::File;
use crate::kit::{Compiled, Kit, SYSTEM_LIBRARIES, State, WalOpen, io, words};
use crate::sandbox::{End, Outcome, Room, Sandbox, in_parallel, limits};
use crate::shape::{Headers, Shape};
use crate::student::Submission;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What everything here needs.
#[derive(Clone, Copy)]
pub(crate) struct Workshop<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) kit: &'a Kit,
    pub(crate) submission: &'a Submission,
    /// The submission's part of the scratch directory.
    pub(crate) directory: &'a Path,
}

/// One of the course's files as the submission has it.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) file: &'static File,
    pub(crate) place: Option<PathBuf>,
    pub(crate) state: State,
    pub(crate) object: Option<PathBuf>,
    /// Functions of the lessons that the submission defines nowhere.
    pub(crate) lacks: Vec<&'static str>,
    defines: Vec<String>,
    /// It does not link without others of the submission's files: known after the first time.
    calls_others: AtomicBool,
}

/// All objects.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) units: Vec<Unit>,
    others: Vec<PathBuf>,
    pub(crate) shape: Shape,
    /// The check programs, compiled against the submission's headers, and then the kit's probe.
    objects: Vec<Result<PathBuf, String>>,
    observed: Mutex<BTreeSet<String>>,
    pub(crate) notes: Vec<String>,
}

/// Why a program could not be linked, in one line.
#[derive(Debug)]
pub(crate) enum NotLinked {
    /// The submission's own fault.
    Fails(String),
    /// Nobody's: it can't be judged.
    Open(String),
}

impl From<String> for NotLinked {
    fn from(why: String) -> Self {
        NotLinked::Open(why)
    }
}

impl From<&str> for NotLinked {
    fn from(why: &str) -> Self {
        NotLinked::Open(why.to_owned())
    }
}

impl Built {
    /// Notes of checks, each once.
    pub(crate) fn observe<'a>(&self, notes: impl Iterator<Item = &'a str>) {
        let mut seen = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(notes.map(str::to_owned));
    }

    pub(crate) fn observations(&self) -> Vec<String> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The file that is missing and that logship's can't stand in for, since structs differ.
    fn cannot_stand_in(&self, output: &str) -> Option<String> {
        let other = &self.shape.other_layouts;
        let is_asked_for = |unit: &&Unit| {
            unit.object.is_none()
                && unit.file.structs.iter().any(|tag| other.iter().any(|shown| shown.ends_with(tag)))
                && unit.file.functions.iter().any(|names| {
                    names.split(' ').any(|name| output.contains(&format!("undefined reference to `{name}'")))
                })
        };
        let unit = self.units.iter().find(is_asked_for)?;
        let structs = other.join(", ");
        Some(format!("{} is not there, and logship's can't stand in: {structs} is this tree's own", unit.file.name))
    }
}

/// What a program is linked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One file, by its place in [`Built::units`], and the reference.
    File(usize),
    /// All files, and the reference for what they lack.
    Tree,
}

impl Workshop<'_> {
    fn headers(&self) -> Headers<'_> {
        let Workshop { sandbox, kit, submission, directory } = *self;
        Headers { sandbox, kit, submission, directory }
    }

    /// Compiles everything.
    pub(crate) fn build(&self) -> Result<Built, String> {
        let mut notes = self.submission.notes.clone();
        let mut wal_open = self.probe_wal_open()?;
        let jobs: Vec<(Option<&'static File>, Option<&PathBuf>)> = (self.submission.files.iter())
            .map(|(file, place)| (Some(*file), place.as_ref()))
            .chain(self.submission.others.iter().map(|place| (None, Some(place))))
            .collect();
        let included = self.read(&self.submission.included)?;
        let compiled = in_parallel(&jobs, self.sandbox.size, |(_, place)| match place {
            None => Ok(Compiled { state: State::Missing, object: None, defines: Vec::new(), had_main: false }),
            Some(place) => self.compile_once(place, wal_open, &included),
        });
        let (mut units, mut others) = (Vec::new(), Vec::new());
        for ((file, place), compiled) in jobs.into_iter().zip(compiled) {
            let compiled = compiled?;
            let shown = place.map(|place| place.display().to_string()).unwrap_or_default();
            match file {
                Some(file) => {
                    if compiled.had_main {
                        notes.push(format!("{shown} defines main(): taken out, so that the checks' own main runs"));
                    }
                    units.push(Unit {
                        file,
                        place: place.cloned(),
                        state: compiled.state,
                        object: compiled.object,
                        lacks: Vec::new(),
                        defines: compiled.defines,
                        calls_others: AtomicBool::new(false),
                    });
                }
                // A program of the student's own has no part in the checks.
                None if compiled.had_main => {}
                None => match (compiled.object, compiled.state) {
                    (Some(object), _) => others.push((object, compiled.defines)),
                    (None, State::Fails(why)) => {
                        notes.push(format!("{shown} does not compile and was left out: {why}"))
                    }
                    (None, _) => {}
                },
            }
        }
        let defined: BTreeSet<String> = (units.iter().flat_map(|unit| &unit.defines))
            .chain(others.iter().flat_map(|(_, defines)| defines))
            .cloned()
            .collect();
        let has = |name: &str| defined.contains(name);
        // Without a header of its own, ours has turned the lesson's form into this name.
        if has("wal_open_path") && !has("wal_open") {
            wal_open = WalOpen::Path;
        }
        let lacks: Vec<Vec<&'static str>> = (units.iter())
            .map(|unit| match unit.object {
                None => Vec::new(),
                Some(_) => (unit.file.functions.iter().copied())
                    .filter(|names| !names.split(' ').any(has))
                    .map(|names| names.split(' ').next().unwrap_or(names).trim_start_matches("logship_"))
                    .collect(),
            })
            .collect();
        for (unit, lacks) in units.iter_mut().zip(lacks) {
            unit.lacks = lacks;
        }
        let shape = self.headers().shape(wal_open)?;
        let stands_in = |name: &str| units.iter().any(|unit| unit.file.name == name && unit.object.is_none());
        let header = shape.header(&has, &stands_in);
        let objects = self.check_objects(&shape, &header, &included)?;
        let others = others.into_iter().map(|(object, _)| object).collect();
        let mut built = Built { units, others, shape, objects, observed: Mutex::default(), notes };
        self.probe_tree(&mut built);
        built.notes.extend(built.shape.interface_note());
        Ok(built)
    }

    /// The checks against the submission's headers. In a class many have the same, or none of their own.
    fn check_objects(
        &self,
        shape: &Shape,
        header: &str,
        included: &[Vec<u8>],
    ) -> Result<Vec<Result<PathBuf, String>>, String> {
        let around = if shape.own_headers { included.to_vec() } else { Vec::new() };
        let name = self.kit.hash(&[vec![header.as_bytes().to_vec()], around].concat());
        let known = || self.kit.check_objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(objects) = known().get(&name) {
            return Ok(objects.clone());
        }
        let path = self.directory.join("shape.h");
        fs::write(&path, header).map_err(io(&path))?;
        let numbers: Vec<usize> = (0..=self.kit.programs.len()).collect();
        let compile = |program: &usize| -> Result<PathBuf, String> {
            let room = self.sandbox.room(self.directory)?;
            let mut command = words([&self.kit.cc, "-std=gnu11", "-O0", "-g", "-w", "-c", "-o", "out.o", "-include"]);
            command.push(path.clone().into());
            command.extend(self.headers().options(shape));
            command.push(self.kit.source(*program).into());
            let outcome = room.tool(&command);
            let Some(bytes) = room.take("work/out.o").filter(|_| outcome.end == End::Exit(0)) else {
                return Err(self.first_line(&outcome, &[" error: "]));
            };
            let object = self.kit.new_object();
            fs::write(&object, bytes).map_err(io(&object))?;
            Ok(object)
        };
        let objects = in_parallel(&numbers, self.sandbox.size, compile);
        known().insert(name, objects.clone());
        Ok(objects)
    }

    /// What only a run of the tree shows. One that does not link or run has shown nothing: the checks will say why.
    fn probe_tree(&self, built: &mut Built) {
        if !built.shape.own_headers && !built.units.iter().any(|unit| unit.file.week == "w11" && unit.object.is_some())
        {
            return;
        }
        let Ok(program) = self.link(built, self.kit.programs.len(), Mode::Tree) else { return };
        let Ok(room) = self.sandbox.room(self.directory) else { return };
        if fs::hard_link(&program, room.path("program")).is_err() {
            return;
        }
        let bounds = limits(Duration::from_secs(30));
        room.run(&words(["../program", "tree"]), &[("LOGSHIP_RESULT", "../result/verdict")], "work", bounds, true);
        let written = room.take("result/verdict").unwrap_or_default();
        for line in String::from_utf8_lossy(&written).lines() {
            match line.split_once('\t') {
                Some(("SHAPE", words)) => built.shape.words = words.to_owned(),
                Some(("NOTE", note)) => built.notes.push(note.to_owned()),
                _ => {}
            }
        }
    }

    /// Text of a tool, without the scratch directory's path.
    fn shown(&self, text: &str) -> String {
        let source = format!("{}/", self.submission.source.display());
        let ours = format!("{}/", self.directory.display());
        text.replace(&source, "").replace(&ours, "").replace("/usr/bin/", "")
    }

    /// The first line that says what is wrong.
    fn first_line(&self, outcome: &Outcome, marks: &[&str]) -> String {
        let text = self.shown(&outcome.output);
        let line = text.lines().find(|line| marks.iter().any(|mark| line.contains(mark)));
        match (line, &outcome.end) {
            (Some(line), _) => line.trim().to_owned(),
            (None, End::Exit(_)) => text.lines().next().unwrap_or("no word of why").trim().to_owned(),
            (None, end) => format!("the compiler: {}", end.words(&limits(Duration::from_secs(60)))),
        }
    }

    fn compiler(&self, wal_open: WalOpen) -> Vec<OsString> {
        let mut command = words([&self.kit.cc, "-std=gnu11", "-O1", "-g", "-fno-common", "-fdiagnostics-color=never"]);
        // Objects of the same file are the same, wherever the copy is.
        command.push(format!("-ffile-prefix-map={}=.", self.submission.source.display()).into());
        if wal_open == WalOpen::Path {
            command.push("-Dwal_open=wal_open_path".into());
        }
        for directory in self.submission.header_directories() {
            command.extend(["-I".into(), directory.into()]);
        }
        command.extend(self.kit.include_options());
        command.extend(words(["-c", "-o", "out.o"]));
        command
    }

    /// Names and contents.
    fn read(&self, places: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
        let mut parts = Vec::new();
        for place in places {
            let path = self.submission.source.join(place);
            parts.push(place.as_os_str().as_encoded_bytes().to_vec());
            parts.push(fs::read(&path).map_err(io(&path))?);
        }
        Ok(parts)
    }

    /// Compiles a file, unless the same was compiled before with the same around it.
    fn compile_once(&self, place: &PathBuf, wal_open: WalOpen, included: &[Vec<u8>]) -> Result<Compiled, String> {
        let own = self.read(std::slice::from_ref(place))?;
        // One that includes another .c file depends on more than was read.
        if own.iter().any(|part| part.windows(3).any(|three| three == b".c\"")) {
            return self.compile(place, wal_open);
        }
        let form = vec![u8::from(wal_open == WalOpen::Path)];
        let name = self.kit.hash(&[vec![form], own, included.to_vec()].concat());
        let known = || self.kit.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = known().get(&name) {
            return Ok(compiled.clone());
        }
        let compiled = self.compile(place, wal_open)?;
        known().insert(name, compiled.clone());
        Ok(compiled)
    }

    fn compile(&self, place: &Path, wal_open: WalOpen) -> Result<Compiled, String> {
        let source = self.submission.source.join(place);
        let room = self.sandbox.room(self.directory)?;
        let attempt = |strict: bool| {
            let mut command = self.compiler(wal_open);
            command.extend(words(["-Wall", "-Wextra"]));
            if strict {
                command.push("-Werror".into());
            }
            command.push(source.clone().into());
            room.tool(&command)
        };
        let strict = attempt(true);
        let state = if strict.end == End::Exit(0) {
            State::Compiles
        } else {
            let loose = attempt(false);
            if loose.end == End::Exit(0) {
                State::Warns(self.first_line(&strict, &[" error: ", " warning: "]))
            } else {
                State::Fails(self.first_line(&loose, &[" error: ", " fatal error: "]))
            }
        };
        if matches!(state, State::Fails(_)) {
            return Ok(Compiled { state, object: None, defines: Vec::new(), had_main: false });
        }
        let listed = room.tool(&words(["nm", "-P", "-g", "out.o"]));
        let mut defines = Vec::new();
        // Nothing of it may run before the check's main: constructors are put where nobody calls them.
        let mut changes = words([
            "--rename-section=.init_array=.disarmed",
            "--rename-section=.preinit_array=.disarmed",
            "--rename-section=.fini_array=.disarmed",
            "--rename-section=.ctors=.disarmed",
            "--rename-section=.dtors=.disarmed",
            "--remove-section=.init",
            "--remove-section=.fini",
        ]);
        let mut had_main = false;
        for line in listed.output.lines() {
            let mut fields = line.split(' ');
            let (Some(name), Some(kind)) = (fields.next(), fields.next()) else { continue };
            let is_defined = !matches!(kind, "U" | "w" | "v");
            if kind == "i" {
                return Ok(Compiled {
                    state: State::Fails(format!("{name} is an ifunc: it would run before the program does")),
                    object: None,
                    defines: Vec::new(),
                    had_main: false,
                });
            }
            // The checks call the C library's.
            if is_defined && self.kit.libc.contains(name) {
                changes.push(format!("--localize-symbol={name}").into());
            }
            if name == "main" && is_defined {
                had_main = true;
                // Two files may have one each.
                changes.push("--localize-symbol=main".into());
            }
            // The course's header gives it this name, because zlib has another crc32; a student's own does not.
            if name == "crc32" {
                changes.extend(["--redefine-sym".into(), "crc32=logship_crc32".into()]);
            }
            if is_defined {
                defines.push(if name == "crc32" { "logship_crc32".to_owned() } else { name.to_owned() });
            }
        }
        let mut command: Vec<OsString> = words(["objcopy"]);
        command.extend(changes);
        command.push("out.o".into());
        let renamed = room.tool(&command);
        if renamed.end != End::Exit(0) {
            return Err(format!("objcopy: {}", renamed.output.trim()));
        }
        let object = self.kit.new_object();
        let bytes = room.take("work/out.o").ok_or("the compiler has left no object")?;
        fs::write(&object, bytes).map_err(io(&object))?;
        Ok(Compiled { state, object: Some(object), defines, had_main })
    }

    /// Compiles a few lines against the submission's headers.
    fn probe(&self, room: &Room<'_>, text: &str) -> Result<Outcome, String> {
        let path = room.path("probe.c");
        fs::write(&path, text).map_err(io(&path))?;
        let mut command = self.compiler(WalOpen::TwoArguments);
        command.extend([OsString::from("-Werror=incompatible-pointer-types"), path.into()]);
        Ok(room.tool(&command))
    }

    /// The lesson writes wal_open(path); most write wal_open(writer, path).
    fn probe_wal_open(&self) -> Result<WalOpen, String> {
        let Some(header) = self.submission.header("wal_writer.h") else { return Ok(WalOpen::TwoArguments) };
        let room = self.sandbox.room(self.directory)?;
        let text =
            format!("#include \"{}\"\nstruct wal_writer *(*probe)(const char *) = wal_open;\n", header.display());
        let outcome = self.probe(&room, &text)?;
        Ok(if outcome.end == End::Exit(0) { WalOpen::Path } else { WalOpen::TwoArguments })
    }

    /// Links one check program.
    pub(crate) fn link(&self, built: &Built, program: usize, mode: Mode) -> Result<PathBuf, NotLinked> {
        let own: Vec<&PathBuf> = match mode {
            Mode::File(unit) => built.units.get(unit).and_then(|unit| unit.object.as_ref()).into_iter().collect(),
            Mode::Tree => built.units.iter().filter_map(|unit| unit.object.as_ref()).collect(),
        };
        let calls_others = match mode {
            Mode::File(unit) => built.units.get(unit).map(|unit| &unit.calls_others),
            Mode::Tree => None,
        };
        let room = self.sandbox.room(self.directory)?;
        let mut command = words([&self.kit.cc, "-Wl,--gc-sections", "-o", "out"]);
        match built.objects.get(program) {
            Some(Ok(object)) => command.push(object.into()),
            Some(Err(line)) => {
                return Err(NotLinked::Open(format!("it does not compile with this tree's headers: {line}")));
            }
            None => return Err(NotLinked::Open("the kit has no such program".to_owned())),
        }
        command.extend(own.iter().map(|object| object.as_os_str().to_owned()));
        // Where structs differ, logship's functions must not be given the submission's: then the library comes only if
        // what is missing takes none of those.
        let is_whole = |command: &[OsString]| self.link_with_rest(built, &own, command, &room, false);
        if !built.shape.other_layouts.is_empty() {
            let whole = is_whole(&command);
            if whole.end != End::Exit(0)
                && let Some(why) = built.cannot_stand_in(&whole.output)
            {
                return Err(NotLinked::Open(why));
            }
        }
        command.push(self.kit.library.clone().into());
        let alone = || {
            let system = SYSTEM_LIBRARIES.map(OsString::from);
            room.tool(&command.iter().cloned().chain(system).collect::<Vec<_>>())
        };
        let known = calls_others.is_some_and(|known| known.load(Ordering::Relaxed));
        let mut linked = if known { self.link_with_rest(built, &own, &command, &room, true) } else { alone() };
        if linked.end != End::Exit(0) && !known {
            let again = self.link_with_rest(built, &own, &command, &room, true);
            if again.end == End::Exit(0) {
                linked = again;
                if let Some(known) = calls_others {
                    known.store(true, Ordering::Relaxed);
                }
            }
        }
        if linked.end != End::Exit(0) {
            let marks = ["multiple definition", "undefined reference", "error"];
            return Err(NotLinked::Fails(self.first_line(&linked, &marks)));
        }
        let bytes = room.take("work/out").ok_or("the linker has left no program")?;
        let name = match mode {
            Mode::File(unit) => format!("{program}-file-{unit}"),
            Mode::Tree => format!("{program}-tree"),
        };
        let path = self.directory.join(name);
        fs::write(&path, bytes).map_err(io(&path))?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, executable).map_err(io(&path))?;
        Ok(path)
    }

    /// A file may call helpers in the student's other files: as an archive, only those come along that are needed.
    fn link_with_rest(
        &self,
        built: &Built,
        own: &[&PathBuf],
        command: &[OsString],
        room: &Room<'_>,
        library: bool,
    ) -> Outcome {
        let objects = built.units.iter().filter_map(|unit| unit.object.as_ref()).chain(&built.others);
        let rest = objects.filter(|object| !own.contains(object)).map(|object| object.as_os_str().to_owned());
        let archived = room.tool(&words(["ar", "rcs", "rest.a"]).into_iter().chain(rest).collect::<Vec<_>>());
        if archived.end != End::Exit(0) {
            return archived;
        }
        let mut command = command.to_vec();
        command.extend(words(["-Wl,--start-group", "rest.a"]));
        if library {
            command.push(self.kit.library.clone().into());
        }
        command.push("-Wl,--end-group".into());
        command.extend(SYSTEM_LIBRARIES.map(OsString::from));
        room.tool(&command)
    }
}
