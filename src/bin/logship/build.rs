//! A submission's objects and programs: gcc, nm, objcopy, and small files that are compiled only to see whether they
//! do.

use crate::course::File;
use crate::kit::{Compiled, Kit, SYSTEM_LIBRARIES, State, WalOpen, io, words};
use crate::sandbox::{End, Outcome, Room, Sandbox, in_parallel, limits};
use crate::student::Submission;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
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
    pub(crate) wal_open: WalOpen,
    pub(crate) notes: Vec<String>,
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
    /// Compiles everything.
    pub(crate) fn build(&self) -> Result<Built, String> {
        let mut notes = self.layout_notes()?;
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
        let defined: Vec<&String> = (units.iter().flat_map(|unit| &unit.defines))
            .chain(others.iter().flat_map(|(_, defines)| defines))
            .collect();
        let has = |name: &str| defined.iter().any(|defined| *defined == name);
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
        self.kit.need(wal_open, self.sandbox)?;
        Ok(Built { units, others: others.into_iter().map(|(object, _)| object).collect(), wal_open, notes })
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
        let (mut had_main, mut renames) = (false, Vec::new());
        for line in listed.output.lines() {
            let mut fields = line.split(' ');
            let (Some(name), Some(kind)) = (fields.next(), fields.next()) else { continue };
            let is_defined = !matches!(kind, "U" | "w" | "v");
            if name == "main" && is_defined {
                had_main = true;
                renames.push("main=students_main".into());
            }
            // The course's header gives it this name, because zlib has another crc32; a student's own does not.
            if name == "crc32" {
                renames.push("crc32=logship_crc32".into());
            }
            if is_defined {
                defines.push(if name == "crc32" { "logship_crc32".to_owned() } else { name.to_owned() });
            }
        }
        if !renames.is_empty() {
            let mut command: Vec<OsString> = words(["objcopy"]);
            for rename in renames {
                command.extend(["--redefine-sym".into(), rename]);
            }
            command.push("out.o".into());
            let renamed = room.tool(&command);
            if renamed.end != End::Exit(0) {
                return Err(format!("objcopy: {}", renamed.output.trim()));
            }
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

    /// The checks make these structs themselves, as large as the lessons say. One that is larger in the submission's
    /// own header is the most likely reason for whatever fails, so it is said.
    fn layout_notes(&self) -> Result<Vec<String>, String> {
        const STRUCTS: [(&str, &str, &str); 5] = [
            ("kv_store.h", "w09", "kv_store"),
            ("wal_record.h", "w10", "wal_record"),
            ("wal_writer.h", "w10", "wal_writer"),
            ("repl_config.h", "w11", "replication_config"),
            ("repl_ack.h", "w11", "repl_ack"),
        ];
        let mut notes = Vec::new();
        for (name, week, tag) in STRUCTS {
            let Some(theirs) = self.submission.header(name) else { continue };
            let ours = self.kit.include.join(week).join(name);
            let room = self.sandbox.room(self.directory)?;
            let size = |header: &Path| -> Result<Option<u64>, String> {
                let text = format!("#include \"{}\"\nchar probe[sizeof(struct {tag})];\n", header.display());
                if self.probe(&room, &text)?.end != End::Exit(0) {
                    return Ok(None);
                }
                let listed = room.tool(&words(["nm", "-P", "out.o"])).output;
                let line = listed.lines().find_map(|line| line.strip_prefix("probe "));
                Ok(line.and_then(|line| u64::from_str_radix(line.split(' ').nth(2)?, 16).ok()))
            };
            if let (Some(theirs), Some(ours)) = (size(&theirs)?, size(&ours)?)
                && theirs != ours
            {
                notes.push(format!(
                    "{name}: struct {tag} has {theirs} bytes, in the lesson it has {ours}: checks make one themselves"
                ));
            }
        }
        Ok(notes)
    }

    /// Links one check program; the error is one line.
    pub(crate) fn link(&self, built: &Built, program: usize, mode: Mode) -> Result<PathBuf, String> {
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
        command.push(self.kit.object(program, built.wal_open).into());
        command.extend(own.iter().map(|object| object.as_os_str().to_owned()));
        command.push(self.kit.library.clone().into());
        let alone = || {
            let system = SYSTEM_LIBRARIES.map(OsString::from);
            room.tool(&command.iter().cloned().chain(system).collect::<Vec<_>>())
        };
        let known = calls_others.is_some_and(|known| known.load(Ordering::Relaxed));
        let mut linked = if known { self.link_with_rest(built, &own, &command, &room) } else { alone() };
        if linked.end != End::Exit(0) && !known {
            let again = self.link_with_rest(built, &own, &command, &room);
            if again.end == End::Exit(0) {
                linked = again;
                if let Some(known) = calls_others {
                    known.store(true, Ordering::Relaxed);
                }
            }
        }
        if linked.end != End::Exit(0) {
            let marks = ["undefined reference", "multiple definition", "error"];
            return Err(self.first_line(&linked, &marks));
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
    fn link_with_rest(&self, built: &Built, own: &[&PathBuf], command: &[OsString], room: &Room<'_>) -> Outcome {
        let objects = built.units.iter().filter_map(|unit| unit.object.as_ref()).chain(&built.others);
        let rest = objects.filter(|object| !own.contains(object)).map(|object| object.as_os_str().to_owned());
        let archived = room.tool(&words(["ar", "rcs", "rest.a"]).into_iter().chain(rest).collect::<Vec<_>>());
        if archived.end != End::Exit(0) {
            return archived;
        }
        let mut command = command.to_vec();
        command.extend(words(["-Wl,--start-group", "rest.a"]));
        command.extend([self.kit.library.clone().into(), "-Wl,--end-group".into()]);
        command.extend(SYSTEM_LIBRARIES.map(OsString::from));
        room.tool(&command)
    }
}
