//! How a submission reads what the lessons leave open, as far as its headers show it: one file of small lines is
//! compiled against them, and a line with an error is a question whose answer is no. What only a run shows is asked by
//! the kit's `probe` (grade/checks/probe.c). grade/checks/shape.h says what comes of it.

use crate::kit::{Kit, WalOpen, io, words};
use crate::sandbox::{End, Sandbox};
use crate::student::Submission;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The course's headers, in the order in which they are included.
const HEADERS: [(&str, &str); 12] = [
    ("w09", "kv_store.h"),
    ("w10", "crc32.h"),
    ("w10", "wal_record.h"),
    ("w10", "wal_writer.h"),
    ("w10", "wal_recovery.h"),
    ("w10", "wal_checkpoint.h"),
    ("w11", "repl_config.h"),
    ("w11", "repl_ack.h"),
    ("w11", "repl_ship.h"),
    ("w11", "repl_quorum.h"),
    ("w11", "repl_conflict.h"),
    ("w11", "repl_rejoin.h"),
];

/// A macro, and the line that compiles if it holds. `s`, `r`, `w`, `n`, `config` and `a` point to the lessons' structs.
const QUESTIONS: [(&str, &str); 31] = [
    (
        "GRADE_STORE_WALK 1",
        "struct kv_entry *e = s->buckets[0]; e = e->next; (void)(e->key[0] + e->value[0] + s->num_buckets);",
    ),
    ("GRADE_RECORD_TIMESTAMP 1", "r->timestamp = 1;"),
    ("GRADE_WRITER_FD 1", "w->fd = 1;"),
    ("GRADE_WRITER_OFFSET 1", "w->offset = 1;"),
    ("GRADE_NODE_HOST 1", "(void)(n->host[0] == 'a');"),
    ("GRADE_ACK 1", "a->lsn = 1; a->status = 1;"),
    ("GRADE_INIT_TWO 1", "kv_store_init(s, 1);"),
    ("GRADE_INIT_RETURNS 1", "int i = kv_store_init(s); (void)i;"),
    ("GRADE_INIT_RETURNS 1", "int i = kv_store_init(s, 1); (void)i;"),
    ("GRADE_CLOSE_RETURNS 1", "int i = wal_close(w); (void)i;"),
    ("GRADE_WAL_OPEN_SWAPPED 1", "wal_open(\"x\", w);"),
    ("GRADE_RECOVER_SWAPPED 1", "wal_recover(s, \"x\");"),
    ("GRADE_LISTEN_NODE 1", "int i = repl_listen(n); (void)i;"),
    ("GRADE_LISTEN_PORT 1", "int i = repl_listen((uint16_t)1); (void)i;"),
    ("GRADE_CONFIG_INIT 1", "repl_config_init(config);"),
    ("GRADE_SEND_ACK_STRUCT 1", "repl_send_ack(1, a);"),
    ("GRADE_CATCH_UP_3 1", "repl_catch_up(config, 1, 1);"),
    ("GRADE_CATCH_UP_PATH_LAST 1", "repl_catch_up(config, 1, 1, \"x\");"),
    ("GRADE_CATCH_UP_PATH_SECOND 1", "repl_catch_up(config, \"x\", 1, 1);"),
    ("GRADE_CATCH_UP_WRITER_LAST 1", "repl_catch_up(config, 1, 1, w);"),
    ("GRADE_FOLLOWERS_POINTER 1", "config->followers = n;"),
    ("GRADE_NAMES_CONFLICT 1", "int i = APPLY + SKIP; (void)i;"),
    ("GRADE_NAMES_CRC 1", "int i = CRC_MISMATCH; (void)i;"),
    ("GRADE_NAMES_OP 1", "int i = WAL_OP_SET + WAL_OP_DEL; (void)i;"),
    ("GRADE_DECLARES_wal_record_free 1", "void *p = (void *)wal_record_free; (void)p;"),
    ("GRADE_DECLARES_send_full 1", "void *p = (void *)send_full; (void)p;"),
    ("GRADE_DECLARES_recv_full 1", "void *p = (void *)recv_full; (void)p;"),
    ("GRADE_DECLARES_repl_accept 1", "void *p = (void *)repl_accept; (void)p;"),
    ("GRADE_DECLARES_repl_send_ack 1", "void *p = (void *)repl_send_ack; (void)p;"),
    ("GRADE_DECLARES_repl_recv_ack 1", "void *p = (void *)repl_recv_ack; (void)p;"),
    ("GRADE_DECLARES_crc32_init 1", "void *p = (void *)crc32_init; (void)p;"),
];

/// Functions that no lesson insists on, each with the file that would have it.
const OPTIONAL: [(&str, &str); 7] = [
    ("wal_record_free", "wal_record.c"),
    ("send_full", "repl_ship.c"),
    ("recv_full", "repl_ship.c"),
    ("repl_accept", "repl_config.c"),
    ("repl_send_ack", "repl_ship.c"),
    ("repl_recv_ack", "repl_ship.c"),
    ("crc32_init", "crc32.c"),
];

/// Where trees say where the leader's log is.
const LOG_FIELDS: [&str; 10] = [
    "wal_path",
    "wal",
    "leader_wal",
    "leader_wal_path",
    "wal_file",
    "log_path",
    "wal_filename",
    "path",
    "wal_fd",
    "writer",
];

/// The layouts of the lessons, on which logship's own functions rest: where they do not hold, logship can't take the
/// place of a file.
const LAYOUTS: [(&str, &str); 7] = [
    ("kv_store.h: struct kv_entry", "L(kv_entry, key, 0) L(kv_entry, value, 8) L(kv_entry, next, 16) S(kv_entry, 32)"),
    (
        "kv_store.h: struct kv_store",
        "L(kv_store, buckets, 0) L(kv_store, num_buckets, 8) L(kv_store, lock, 16) \
         S(kv_store, 72)",
    ),
    (
        "wal_record.h: struct wal_record",
        "L(wal_record, op, 0) L(wal_record, key, 8) L(wal_record, key_len, 16) L(wal_record, value, 24) \
         L(wal_record, value_len, 32) L(wal_record, crc, 36) L(wal_record, timestamp, 40) S(wal_record, 48) \
         W(wal_record, op, 1) W(wal_record, key_len, 2)",
    ),
    ("wal_writer.h: struct wal_writer", "L(wal_writer, fd, 0) L(wal_writer, offset, 8) S(wal_writer, 16)"),
    (
        "repl_config.h: struct repl_node",
        "L(repl_node, host, 0) W(repl_node, host, 8) L(repl_node, port, 8) L(repl_node, fd, 12) \
         L(repl_node, online, 16) S(repl_node, 24)",
    ),
    (
        "repl_config.h: struct replication_config",
        "L(replication_config, leader, 0) L(replication_config, followers, 24) \
         L(replication_config, follower_count, 216) S(replication_config, 224)",
    ),
    ("repl_ack.h: struct repl_ack", "L(repl_ack, lsn, 0) L(repl_ack, status, 8) S(repl_ack, 16)"),
];

/// What the headers show.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The submission has headers of its own.
    pub(crate) own_headers: bool,
    /// The macros, without those that take the objects.
    macros: Vec<String>,
    /// Where each of the course's header names leads to the submission's header or to the kit's.
    directory: PathBuf,
    wal_open: WalOpen,
    /// Structs that are laid out otherwise than logship's.
    pub(crate) other_layouts: Vec<&'static str>,
    /// LOGSHIP_SHAPE.
    pub(crate) words: String,
}

impl Shape {
    /// Do logship's own files and this submission's understand each other?
    pub(crate) fn mixes(&self) -> bool {
        self.other_layouts.is_empty() && !self.words.contains("recover=")
    }

    /// Why a file can't be judged alone, for the report.
    pub(crate) fn interface_note(&self) -> Option<String> {
        let what = match (self.other_layouts.as_slice(), self.words.contains("recover=")) {
            ([], false) => return None,
            ([], true) => "wal_recover has a return value of its own".to_owned(),
            (structs, _) => format!("{} is laid out in this tree's own way", structs.join(", ")),
        };
        Some(format!("interface: {what}, so no file is tried alone with logship's others: the whole tree is judged"))
    }

    /// shape.h for the checks of this submission. `defines` are the names that its objects give.
    pub(crate) fn header(&self, defines: &dyn Fn(&str) -> bool, stands_in: &dyn Fn(&str) -> bool) -> String {
        let path_form = if self.wal_open == WalOpen::Path { "#define GRADE_WAL_OPEN_PATH 1\n" } else { "" };
        if !self.own_headers {
            return path_form.to_owned();
        }
        let mut text = format!("#define GRADE_SHAPED 1\n{path_form}");
        for line in &self.macros {
            let _ = writeln!(text, "#define {line}");
        }
        for (name, file) in OPTIONAL {
            if defines(name) || stands_in(file) {
                let _ = writeln!(text, "#define GRADE_HAS_{name} 1");
            }
        }
        text
    }
}

/// Whoever asks a submission's headers.
#[derive(Clone, Copy)]
pub(crate) struct Headers<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) kit: &'a Kit,
    pub(crate) submission: &'a Submission,
    /// The submission's part of the scratch directory.
    pub(crate) directory: &'a Path,
}

impl Headers<'_> {
    /// Asks the headers. Without any of its own a submission has logship's, and there is nothing to ask.
    pub(crate) fn shape(&self, wal_open: WalOpen) -> Result<Shape, String> {
        let directory = self.directory.join("shape");
        let (macros, other_layouts, words) = (Vec::new(), Vec::new(), String::new());
        let mut shape = Shape { own_headers: false, macros, directory, wal_open, other_layouts, words };
        shape.own_headers = HEADERS.iter().any(|(_, name)| self.submission.header(name).is_some());
        if !shape.own_headers {
            return Ok(shape);
        }
        for week in ["", "w09", "w10", "w11"] {
            let path = shape.directory.join(week);
            fs::create_dir(&path).map_err(io(&path))?;
        }
        let missing: Vec<&str> =
            (HEADERS.iter().map(|(_, name)| *name)).filter(|name| self.submission.header(name).is_none()).collect();
        // The kit's header for each that is missing, unless it does not go with the submission's own.
        let mut from_kit: Vec<&str> = missing.clone();
        let mut wrong = self.ask(&mut shape, &from_kit)?;
        if wrong.is_some() && !missing.is_empty() {
            from_kit.clear();
            wrong = self.ask(&mut shape, &from_kit)?;
            for name in missing.iter().filter(|_| wrong.is_none()) {
                from_kit.push(name);
                if self.ask(&mut shape, &from_kit)?.is_some() {
                    from_kit.pop();
                }
            }
            wrong = self.ask(&mut shape, &from_kit)?;
        }
        match wrong {
            Some(line) => Err(format!("the headers do not compile together: {line}")),
            None => Ok(shape),
        }
    }

    /// Writes the directory of headers, compiles all questions, and takes the answers into `shape`. Comes back with an
    /// error that stands in a header.
    fn ask(&self, shape: &mut Shape, from_kit: &[&str]) -> Result<Option<String>, String> {
        for (week, name) in HEADERS {
            let text = match self.submission.header(name) {
                Some(own) => format!("#include \"{}\"\n", own.display()),
                None if from_kit.contains(&name) => {
                    format!("#include \"{}\"\n", self.kit.include.join(week).join(name).display())
                }
                None => String::new(),
            };
            for place in [shape.directory.join(week).join(name), shape.directory.join(name)] {
                fs::write(&place, &text).map_err(io(&place))?;
            }
        }
        let mut text = "#define _GNU_SOURCE\n#include <stddef.h>\n#include <stdint.h>\n".to_owned();
        for (week, name) in HEADERS {
            let _ = writeln!(text, "#include \"{week}/{name}\"");
        }
        text.push_str(
            "#define L(tag, field, at) _Static_assert(offsetof(struct tag, field) == at, \"\");\n\
             #define S(tag, size) _Static_assert(sizeof(struct tag) == size, \"\");\n\
             #define W(tag, field, size) _Static_assert(sizeof(((struct tag *)0)->field) == size, \"\");\n",
        );
        let first = text.lines().count() + 1;
        let mut answers: Vec<String> = QUESTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut questions: Vec<String> = QUESTIONS.iter().map(|(_, line)| (*line).to_owned()).collect();
        for field in LOG_FIELDS {
            for owner in ["config->", "config->leader."] {
                let place = format!("{owner}{field}");
                for (name, line) in [
                    ("TEXT", format!("(void)({place}[0] == 'a'); char c = {place}[0]; (void)c;")),
                    ("WRITER_POINTER", format!("{place} = w;")),
                    ("WRITER", format!("*w = {place};")),
                    ("FD", format!("{place} |= 1;")),
                ] {
                    answers.push(format!("GRADE_WAL_{name} {place}"));
                    questions.push(line);
                }
            }
        }
        for (at, question) in questions.iter().enumerate() {
            let _ = writeln!(
                text,
                "void ask_{at}(struct kv_store *s, struct wal_record *r, struct wal_writer *w, struct repl_node *n, \
                 struct replication_config *config, struct repl_ack *a) \
                 {{ {question} (void)s; (void)r; (void)w; (void)n; (void)config; (void)a; }}"
            );
        }
        for (_, asserts) in LAYOUTS {
            let _ = writeln!(text, "{asserts}");
        }
        let (wrong, lines) = self.lines_with_errors(shape, &text, first)?;
        if wrong.is_some() {
            return Ok(wrong);
        }
        let holds = |at: usize| !lines.contains(&(first + at));
        shape.macros.clear();
        for (_, answer) in answers.iter().enumerate().filter(|(at, _)| holds(*at)) {
            let name = answer.split(' ').next().unwrap_or(answer);
            // Two questions may have one answer; of two fields the first is taken.
            if !shape.macros.iter().any(|known| known.starts_with(&format!("{name} "))) {
                shape.macros.push(answer.clone());
            }
        }
        let has_struct =
            |what: &str| !what.starts_with("repl_ack") || shape.macros.iter().any(|known| known == "GRADE_ACK 1");
        shape.other_layouts = (LAYOUTS.iter().enumerate())
            .filter(|(at, (what, _))| !holds(questions.len() + at) && has_struct(what))
            .map(|(_, (what, _))| what.split(": ").nth(1).unwrap_or(what))
            .collect();
        Ok(None)
    }

    /// Which lines of the questions have errors, and the first error that stands before them or in a header.
    fn lines_with_errors(
        &self,
        shape: &Shape,
        text: &str,
        first: usize,
    ) -> Result<(Option<String>, BTreeSet<usize>), String> {
        let room = self.sandbox.room(self.directory)?;
        let path = room.path("questions.c");
        fs::write(&path, text).map_err(io(&path))?;
        let mut command =
            words([&self.kit.cc, "-std=gnu11", "-fsyntax-only", "-fmax-errors=0", "-fdiagnostics-color=never"]);
        command.extend(words(["-fno-diagnostics-show-caret", "-Werror=implicit-function-declaration"]));
        command.extend(words(["-Werror=incompatible-pointer-types", "-Werror=int-conversion"]));
        // An error is where the line is, not where a macro of it was defined.
        if !self.kit.cc.contains("clang") {
            command.push("-ftrack-macro-expansion=0".into());
        }
        command.extend(self.options(shape));
        command.push(path.into());
        let outcome = room.tool(&command);
        if !matches!(outcome.end, End::Exit(_)) {
            return Err("the compiler did not come to an end with the submission's headers".to_owned());
        }
        let (mut wrong, mut lines) = (None, BTreeSet::new());
        for line in outcome.output.lines().filter(|line| line.contains(": error: ") || line.contains("fatal error: ")) {
            let number = (line.split_once("questions.c:"))
                .and_then(|(_, rest)| rest.split(':').next())
                .and_then(|number| number.parse::<usize>().ok());
            match number {
                Some(number) if number >= first => {
                    lines.insert(number);
                }
                _ => {
                    wrong = wrong.or_else(|| Some(line.replace(&format!("{}/", self.submission.source.display()), "")))
                }
            }
        }
        Ok((wrong, lines))
    }

    /// What compiles a file against the submission's headers as the checks see them.
    pub(crate) fn options(&self, shape: &Shape) -> Vec<OsString> {
        let mut options = Vec::new();
        if !shape.own_headers {
            return self.kit.include_options();
        }
        options.push("-Dcrc32=logship_crc32".into());
        if shape.wal_open == WalOpen::Path {
            options.push("-Dwal_open=wal_open_path".into());
        }
        for week in ["", "w09", "w10", "w11"] {
            options.extend(["-I".into(), shape.directory.join(week).into()]);
        }
        for directory in self.submission.header_directories() {
            options.extend(["-I".into(), directory.into()]);
        }
        options.extend(self.kit.include_options());
        options
    }
}
