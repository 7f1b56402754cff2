//! The committed headers are what `src/capi` says. `LOGSHIP_WRITE_HEADERS=1` (make headers) writes them anew.
//!
//! cbindgen makes the structs, constants and prototypes; what it can't know, the course's macros and forward
//! declarations, stands in the table below. The optional `logship_compat.h` is written by hand, and looked at here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// One header.
struct Header {
    /// Path under `include/`.
    path: &'static str,
    /// Source file under `src/capi/`.
    source: &'static str,
    /// Above everything: includes and forward declarations.
    before: &'static str,
    /// Below everything: macros.
    after: &'static str,
    /// Structs of other headers, which a prototype names with `struct`.
    foreign: &'static [&'static str],
    /// Items that no prototype names.
    include: &'static [&'static str],
    /// Structs whose layout it asserts: its own, below, and those of other headers that it takes, above.
    layouts: &'static [&'static str],
}

/// A struct as the library reads it: the header that has it, its size, and where its fields are.
struct Layout {
    name: &'static str,
    header: &'static str,
    size: usize,
    fields: &'static [(&'static str, usize)],
}

macro_rules! layout {
    ($header:literal, $module:ident :: $name:ident, $($field:ident)*) => {
        Layout {
            name: stringify!($name),
            header: $header,
            size: size_of::<logship::capi::$module::$name>(),
            fields: &[$((stringify!($field), std::mem::offset_of!(logship::capi::$module::$name, $field))),*],
        }
    };
}

const LAYOUTS: &[Layout] = &[
    layout!("kv_store.h", kv_store::kv_entry, key value next last_write_ts),
    layout!("kv_store.h", kv_store::kv_store, buckets num_buckets lock),
    layout!("wal_record.h", wal_record::wal_record, op key key_len value value_len crc timestamp),
    layout!("wal_writer.h", wal_writer::wal_writer, fd offset),
    layout!("repl_config.h", repl_config::repl_node, host port fd online),
    layout!("repl_config.h", repl_config::replication_config, leader followers follower_count),
    layout!("repl_ack.h", repl_ack::repl_ack, lsn status),
    layout!("logship.h", logship::repl_follower_status, state acked_lsn lag_records lag_bytes ms_since_heard
        last_disconnect last_full_resync disconnects partial_resyncs full_resyncs refusals),
    layout!("logship.h", logship::logship_retention, records bytes follower_bytes),
];

/// What an assertion is in the C or C++ that a program is compiled as. C99 has none: a typedef does, of an array with a
/// negative length if it does not hold. A name is there for that, and so that two headers may assert the same.
const LAYOUT_MACRO: &str = "/* The layout that the library was built with. A #pragma pack that is still open, or another header with a struct of
 * the same name, does not compile: docs/linking.md. */
#ifndef LOGSHIP_LAYOUT
#if defined(__cplusplus) && __cplusplus >= 201103L
#define LOGSHIP_LAYOUT(name, holds, otherwise) static_assert(holds, otherwise)
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define LOGSHIP_LAYOUT(name, holds, otherwise) _Static_assert(holds, otherwise)
#else
#define LOGSHIP_LAYOUT(name, holds, otherwise) typedef char logship_layout_##name[(holds) ? 1 : -1]
#endif
#endif
";

/// The assertions of one header, about its own structs or about those of others.
fn layouts(header: &Header, own: bool) -> String {
    let file = header.path.rsplit('/').next().unwrap();
    let mut text = String::new();
    for name in header.layouts {
        let layout = LAYOUTS.iter().find(|layout| layout.name == *name).unwrap();
        if (layout.header == file) != own {
            continue;
        }
        let unique = format!("{}_{name}", file.trim_end_matches(".h"));
        let mut holds = format!("sizeof(struct {name}) == {}", layout.size);
        for (field, at) in layout.fields {
            holds.push_str(&format!(" &&\n    offsetof(struct {name}, {field}) == {at}"));
        }
        text.push_str(&format!(
            "LOGSHIP_LAYOUT({unique}, {holds},\n    \"struct {name} is laid out otherwise in liblogship: \
             delete the {} of your own, or end #pragma pack\");\n",
            layout.header
        ));
    }
    if text.is_empty() { text } else { format!("{LAYOUT_MACRO}{text}") }
}

const HEADERS: &[Header] = &[
    Header {
        path: "w09/kv_store.h",
        source: "kv_store.rs",
        before: "#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Under -std=c99 and the like glibc declares the lock only when a feature macro asks for it, and by now it is too late to
 * ask. The stand-in has the same size and alignment, and zeroes mean the same. */
#if defined(__STRICT_ANSI__) && !defined(__USE_UNIX98) && !defined(__USE_XOPEN2K) && !defined(LOGSHIP_RWLOCK)
#define LOGSHIP_RWLOCK
typedef union {
    char __size[56];
    long int __align;
} pthread_rwlock_t;
#endif

struct wal_record; /* w10/wal_record.h */",
        after: "/* Half of those who write the lesson's header give kv_store_init a second argument, the number of buckets: both
 * kv_store_init(&store) and kv_store_init(&store, 1024) compile. Where a struct of function pointers has a kv_store_init
 * with two arguments, #define LOGSHIP_NO_MACROS before the first include: docs/linking.md. */
#if defined(LOGSHIP_NO_MACROS)
#elif !defined(__cplusplus)
#define LOGSHIP_KV_INIT_PICK(_1, _2, name, ...) name
#define kv_store_init(...) LOGSHIP_KV_INIT_PICK(__VA_ARGS__, kv_store_init_sized, kv_store_init, 0)(__VA_ARGS__)
#else
extern \"C++\" inline int kv_store_init(struct kv_store *store, int num_buckets)
{
    return kv_store_init_sized(store, num_buckets);
}
#endif",
        foreign: &["wal_record", "kv_entry", "kv_store"],
        include: &[],
        layouts: &["kv_entry", "kv_store"],
    },
    Header {
        path: "w10/crc32.h",
        source: "crc32.rs",
        before: "#include <stddef.h>
#include <stdint.h>

/* zlib exports another crc32: a program may link both. */
#ifndef LOGSHIP_NO_MACROS
#define crc32 logship_crc32
#endif",
        after: "/* The same without a macro, unless the name is zlib's in this file. */
#if defined(LOGSHIP_NO_MACROS) && !defined(ZLIB_H) && !defined(ZLIB_H_)
#ifdef __cplusplus
extern \"C\"
#endif
uint32_t crc32(const uint8_t *data, size_t len) __asm__(\"logship_crc32\");
#endif",
        foreign: &[],
        include: &[],
        layouts: &[],
    },
    Header {
        path: "w10/wal_record.h",
        source: "wal_record.rs",
        before: "#include <stddef.h>
#include <stdint.h>

/* What decode and receive return for a damaged record. */
enum { CRC_MISMATCH = -2 };

/* Bytes of the largest encoded record. */
#define WAL_RECORD_MAX 131091",
        after: "",
        foreign: &["wal_record"],
        include: &["wal_op"],
        layouts: &["wal_record"],
    },
    Header {
        path: "w10/wal_writer.h",
        source: "wal_writer.rs",
        before: "#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include \"wal_record.h\"",
        after: "/* The lesson writes wal_open(path): one argument gives a `struct wal_writer *`, two an int. Where a struct of function
 * pointers has a wal_open with one argument, #define LOGSHIP_NO_MACROS before the first include: docs/linking.md. */
#if defined(LOGSHIP_NO_MACROS)
#elif !defined(__cplusplus)
#define LOGSHIP_WAL_OPEN_PICK(_1, _2, name, ...) name
#define wal_open(...) LOGSHIP_WAL_OPEN_PICK(__VA_ARGS__, wal_open, wal_open_path, 0)(__VA_ARGS__)
#else
extern \"C++\" inline struct wal_writer *wal_open(const char *path)
{
    return wal_open_path(path);
}
#endif",
        foreign: &["wal_record", "wal_writer"],
        include: &[],
        layouts: &["wal_record", "wal_writer"],
    },
    Header {
        path: "w10/wal_recovery.h",
        source: "wal_recovery.rs",
        before: "#include <stddef.h>

#include \"kv_store.h\"",
        after: "",
        foreign: &["kv_store"],
        include: &[],
        layouts: &["kv_store"],
    },
    Header {
        path: "w10/wal_checkpoint.h",
        source: "wal_checkpoint.rs",
        before: "#include <stddef.h>
#include <stdint.h>

#include \"kv_store.h\"",
        after: "",
        foreign: &["kv_store"],
        include: &[],
        layouts: &["kv_store"],
    },
    Header {
        path: "w11/repl_config.h",
        source: "repl_config.rs",
        before: "#include <stddef.h>
#include <stdint.h>",
        after: "",
        foreign: &["repl_node", "replication_config"],
        include: &[],
        layouts: &["repl_node", "replication_config"],
    },
    Header {
        path: "w11/repl_ack.h",
        source: "repl_ack.rs",
        before: "#include <stddef.h>
#include <stdint.h>",
        after: "",
        foreign: &["repl_ack"],
        include: &[],
        layouts: &["repl_ack"],
    },
    Header {
        path: "w11/repl_ship.h",
        source: "repl_ship.rs",
        before: "#include <stddef.h>
#include <stdint.h>

#include \"../w09/kv_store.h\"
#include \"../w10/wal_record.h\"
#include \"../w10/wal_writer.h\"
#include \"repl_ack.h\"
#include \"repl_config.h\"",
        after: "",
        foreign: &["kv_store", "wal_writer", "replication_config"],
        include: &[],
        layouts: &["kv_store", "wal_writer", "repl_node", "replication_config"],
    },
    Header {
        path: "w11/repl_quorum.h",
        source: "repl_quorum.rs",
        before: "#include <stddef.h>
#include <stdint.h>

#include \"repl_ack.h\"
#include \"repl_config.h\"",
        after: "",
        foreign: &["replication_config"],
        include: &[],
        layouts: &["repl_node", "replication_config"],
    },
    Header {
        path: "w11/repl_conflict.h",
        source: "repl_conflict.rs",
        before: "#include <stdint.h>

/* What repl_resolve_conflict returns. */
enum { SKIP = 0, APPLY = 1 };",
        after: "",
        foreign: &[],
        include: &[],
        layouts: &[],
    },
    Header {
        path: "w11/repl_rejoin.h",
        source: "repl_rejoin.rs",
        before: "#include <stddef.h>
#include <stdint.h>

#include \"repl_config.h\"",
        after: "",
        foreign: &["replication_config"],
        include: &[],
        layouts: &["repl_node", "replication_config"],
    },
    Header {
        path: "logship.h",
        source: "logship.rs",
        before: "#include <stddef.h>
#include <stdint.h>

#include \"w09/kv_store.h\"
#include \"w10/crc32.h\"
#include \"w10/wal_checkpoint.h\"
#include \"w10/wal_record.h\"
#include \"w10/wal_recovery.h\"
#include \"w10/wal_writer.h\"
#include \"w11/repl_ack.h\"
#include \"w11/repl_config.h\"
#include \"w11/repl_conflict.h\"
#include \"w11/repl_quorum.h\"
#include \"w11/repl_rejoin.h\"
#include \"w11/repl_ship.h\"

/* The header's version; logship_version() is the library's. */
#define LOGSHIP_VERSION \"@VERSION@\"",
        after: "",
        foreign: &["kv_store", "wal_record", "wal_writer", "replication_config", "repl_follower_status"],
        include: &[],
        layouts: &["kv_store", "wal_record", "wal_writer", "repl_node", "replication_config", "repl_ack", "repl_follower_status", "logship_retention"],
    },
];

const FORWARD: &str =
    "/* The course's w10 files include the store from their own folder (COMPAT: the file is in w09). */
#include \"../w09/kv_store.h\"
";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Takes the Rust-only "# Safety" part out of the C comments.
fn without_safety(header: &str) -> String {
    let mut out = Vec::new();
    let mut skipping = false;
    for line in header.lines() {
        let body = line.trim();
        if body == "* # Safety" {
            skipping = true;
            // The empty comment line in front of it goes too.
            while out.last().is_some_and(|last: &&str| last.trim() == "*") {
                out.pop();
            }
            continue;
        }
        if skipping && body != "*/" {
            continue;
        }
        skipping = false;
        out.push(line);
    }
    out.join("\n") + "\n"
}

fn generate(header: &Header) -> String {
    let root = root();
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let before = header.before.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    let guard = format!("LOGSHIP_{}", header.path.to_uppercase().replace(['/', '.'], "_"));
    config.header = Some(format!("#ifndef {guard}\n#define {guard}\n"));
    let below = [layouts(header, true), header.after.to_owned()].join("\n");
    config.trailer = Some(format!("{}\n\n#endif /* {guard} */", below.trim()).trim_start().to_owned());
    config.after_includes = Some([before, layouts(header, false)].join("\n\n").trim_end().to_owned() + "\n");
    for name in header.foreign {
        config.export.rename.insert((*name).to_owned(), (*name).to_owned());
    }
    config.export.include = header.include.iter().map(|name| (*name).to_owned()).collect();
    let source = root.join("src/capi").join(header.source);
    let mut bytes = Vec::new();
    cbindgen::Builder::new().with_config(config).with_src(&source).generate().unwrap().write(&mut bytes);
    let mut text = without_safety(&String::from_utf8(bytes).unwrap());
    for name in header.foreign {
        text = with_struct(&text, name);
    }
    text
}

/// Puts `struct` in front of a type's name where cbindgen left it bare.
fn with_struct(text: &str, name: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let before = &rest[..at];
        let after = &rest[at + name.len()..];
        let is_word = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let is_type = after.starts_with(" *") || after.starts_with(" followers") || after.starts_with(" leader");
        out.push_str(before);
        if is_word && is_type && !before.ends_with("struct ") {
            out.push_str("struct ");
        }
        out.push_str(name);
        rest = after;
    }
    out.push_str(rest);
    out
}

fn check(path: &Path, text: &str) {
    if std::env::var_os("LOGSHIP_WRITE_HEADERS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == text, "{} is stale: run `make headers` and commit it", path.display());
}

#[test]
fn the_committed_headers_are_fresh() {
    for header in HEADERS {
        check(&root().join("include").join(header.path), &generate(header));
    }
    check(&root().join("include/w10/kv_store.h"), FORWARD);
}

/// Every struct that a header has or takes is asserted in it, with all its fields.
#[test]
fn no_struct_is_without_its_layout() {
    for header in HEADERS {
        let text = generate(header);
        let whole: String = text.lines().filter(|line| !line.trim_start().starts_with(['*', '/', '#'])).collect();
        for taken in whole.split("struct ").skip(1) {
            let name: String = taken.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let forward = taken[name.len()..].trim_start().starts_with(';');
            let beside_kv_store = header.path == "w09/kv_store.h" && name == "wal_record";
            let asserted = header.layouts.contains(&name.as_str()) || name == "kv_entry";
            assert!(asserted || forward || beside_kv_store, "{}: struct {name} is not asserted", header.path);
            if let Some((body, _)) = taken[name.len()..].strip_prefix(" {").and_then(|body| body.split_once('}')) {
                let layout = LAYOUTS.iter().find(|layout| layout.name == name).unwrap();
                assert_eq!(
                    layout.fields.len(),
                    body.matches(';').count(),
                    "struct {name}: not all fields are asserted"
                );
            }
        }
    }
}

/// The table of docs/contract.md has every name of the optional header, and each may be a program's own.
#[test]
fn names_of_the_optional_header_are_guarded_and_documented() {
    let text = std::fs::read_to_string(root().join("include/logship_compat.h")).unwrap();
    let doc = std::fs::read_to_string(root().join("docs/contract.md")).unwrap();
    let (_, table) = doc.split_once("## logship_compat.h").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let names: Vec<&str> = text.lines().skip(1).filter_map(|line| line.strip_prefix("#ifndef ")).collect();
    assert!(names.len() > 15);
    for name in &names {
        let mut words = table.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        assert!(words.any(|word| word == *name), "docs/contract.md does not have {name}");
    }
    let defines =
        text.lines().skip(2).filter_map(|line| line.strip_prefix("#define ")).map(|rest| rest.split(' ').next());
    let functions = text
        .lines()
        .filter(|line| line.starts_with("static inline"))
        .map(|line| line.split('(').next().and_then(|before| before.rsplit([' ', '*']).next()));
    for name in defines.chain(functions) {
        assert!(names.contains(&name.unwrap()), "{name:?} is in the way of a program that has it");
    }
}

#[test]
fn a_stale_header_would_be_noticed() {
    let caught = std::panic::catch_unwind(|| {
        let missing = root().join("include/no_such_header.h");
        if std::env::var_os("LOGSHIP_WRITE_HEADERS").is_some() {
            panic!("writing mode checks nothing");
        }
        check(&missing, "int x;\n");
    });
    assert!(caught.is_err());
}
