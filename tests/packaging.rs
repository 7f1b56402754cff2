//! `packaging/logship.map` exports what the committed headers declare. `LOGSHIP_WRITE_MAP=1` (make map) writes it anew.
//!
//! Names of ours begin with `kv_store_`, `wal_`, `repl_` or `logship_`. The lessons also have names that any library
//! may have. Those are exported with `logship_` before them, and `liblogship_nonshared.a` leads to them from a
//! program's own file (docs/linking.md).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const OURS: [&str; 4] = ["kv_store_", "wal_", "repl_", "logship_"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The header without comments, preprocessor lines and what only C++ sees.
fn declarations(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").unwrap().1;
    }
    code.push_str(rest);
    let is_code = |line: &&str| !line.starts_with('#') && !line.contains("extern \"C") && !line.ends_with('\\');
    code.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

/// The functions that a header declares: a name in front of a bracket, in a statement that ends after the bracket.
fn functions(header: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut depth = 0_u32;
    let mut statement = String::new();
    for character in declarations(header).chars() {
        match character {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                // The body of a function, which ends without a semicolon.
                if depth == 0 && statement.contains('(') {
                    statement.clear();
                }
            }
            ';' if depth == 0 => {
                let before = statement.split_once('(').map(|(before, _)| before.trim_end().to_owned());
                let is_other =
                    |word: &str| ["typedef", "__asm__", "LOGSHIP_LAYOUT"].iter().any(|other| word.contains(other));
                let declares = statement.trim_end().ends_with(')') && !is_other(&statement);
                if let Some(before) = before.filter(|_| declares) {
                    let starts = before.rfind(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap();
                    found.insert(before[starts + 1..].to_owned());
                }
                statement.clear();
            }
            _ if depth == 0 => statement.push(character),
            _ => {}
        }
    }
    found
}

fn declared() -> BTreeSet<String> {
    fn collect(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else {
                found.extend(functions(&std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(&root().join("include"), &mut found);
    found
}

/// The name under which the shared library exports a function.
fn exported(name: &str) -> String {
    if OURS.iter().any(|ours| name.starts_with(ours)) { name.to_owned() } else { format!("logship_{name}") }
}

fn map() -> String {
    let names: BTreeSet<String> = declared().iter().map(|name| exported(name)).collect();
    let lines: String = names.iter().map(|name| format!("        {name};\n")).collect();
    format!(
        "# What the shared library exports: the functions of include/. Written by `make map`, compared by\n\
         # tests/packaging.rs.\n\
         LOGSHIP_0 {{\n    global:\n{lines}    local:\n        *;\n}};\n"
    )
}

#[test]
fn the_version_script_exports_what_the_headers_declare() {
    let path = root().join("packaging/logship.map");
    if std::env::var_os("LOGSHIP_WRITE_MAP").is_some() {
        std::fs::write(&path, map()).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == map(), "packaging/logship.map is old: make map");
}

#[test]
fn the_generic_names_are_those_of_which_install_mk_makes_objects() {
    let generic: Vec<String> = declared().into_iter().filter(|name| exported(name) != *name).collect();
    let makefile = std::fs::read_to_string(root().join("packaging/install.mk")).unwrap();
    let line = makefile.lines().find_map(|line| line.strip_prefix("GENERIC_NAMES := ")).unwrap();
    assert_eq!(line, generic.join(" "));
}

#[test]
fn prototypes_are_told_from_all_else() {
    let header = "#define wal_open(...) pick(__VA_ARGS__)(__VA_ARGS__)\n\
                  /* int in_a_comment(void); */\n\
                  typedef void (*a_type)(int level);\nstruct s { int (*field)(int); };\n\
                  enum { A = (1), B };\nLOGSHIP_LAYOUT(s_s, sizeof(struct s) == 8, \"text\");\n\
                  int other(int n) __asm__(\"kv_hash\");\n\
                  static inline int body(int n)\n{\n    return n;\n}\n\
                  #ifdef __cplusplus\nextern \"C\" {\n#endif // __cplusplus\n\
                  char *kv_get(const struct s *store,\n            const char *key);\nunsigned int kv_hash(int n);\n\
                  #ifdef __cplusplus\n}  // extern \"C\"\n#endif\n\
                  #ifdef __cplusplus\nextern \"C++\" inline int cpp(int n)\n{\n    return cpp(n);\n}\n#endif\n";
    let found: Vec<String> = functions(header).into_iter().collect();
    assert_eq!(found, ["kv_get", "kv_hash"]);
}

#[test]
fn the_manual_page_names_every_function() {
    let page = std::fs::read_to_string(root().join("packaging/logship.3.in")).unwrap();
    let (_, synopsis) = page.split_once(".Sh SYNOPSIS").unwrap();
    let (synopsis, _) = synopsis.split_once(".Sh DESCRIPTION").unwrap();
    let named = |line: &str| line.strip_prefix(".Fn ").map(|rest| rest.split(' ').next().unwrap().to_owned());
    let mut named: BTreeSet<String> = synopsis.lines().filter_map(named).collect();
    // By its name in a program.
    assert!(named.remove("crc32") && named.insert("logship_crc32".to_owned()));
    assert_eq!(named, declared());
}
