//! The committed headers are what `src/capi` says. `LOGSHIP_WRITE_HEADERS=1` (make headers) writes them anew.
//!
//! cbindgen makes the structs, constants and prototypes; what it can't know, the course's macros and forward
//! declarations, stands in the table below.

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
}

const HEADERS: &[Header] = &[
    Header {
        path: "w09/kv_store.h",
        source: "kv_store.rs",
        before: "#include <pthread.h>
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
 * kv_store_init(&store) and kv_store_init(&store, 1024) compile. */
#ifndef __cplusplus
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
    },
    Header {
        path: "w10/crc32.h",
        source: "crc32.rs",
        before: "#include <stddef.h>
#include <stdint.h>

/* zlib exports another crc32: a program may link both. */
#define crc32 logship_crc32",
        after: "",
        foreign: &[],
        include: &[],
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
    },
    Header {
        path: "w10/wal_writer.h",
        source: "wal_writer.rs",
        before: "#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include \"wal_record.h\"",
        after: "/* The lesson writes wal_open(path): one argument gives a `struct wal_writer *`, two an int. */
#ifndef __cplusplus
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
    },
    Header {
        path: "w10/wal_recovery.h",
        source: "wal_recovery.rs",
        before: "#include \"kv_store.h\"",
        after: "",
        foreign: &["kv_store"],
        include: &[],
    },
    Header {
        path: "w10/wal_checkpoint.h",
        source: "wal_checkpoint.rs",
        before: "#include <stdint.h>

#include \"kv_store.h\"",
        after: "",
        foreign: &["kv_store"],
        include: &[],
    },
    Header {
        path: "w11/repl_config.h",
        source: "repl_config.rs",
        before: "#include <stdint.h>",
        after: "",
        foreign: &["repl_node", "replication_config"],
        include: &[],
    },
    Header {
        path: "w11/repl_ack.h",
        source: "repl_ack.rs",
        before: "#include <stdint.h>",
        after: "",
        foreign: &["repl_ack"],
        include: &[],
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
    },
    Header {
        path: "w11/repl_quorum.h",
        source: "repl_quorum.rs",
        before: "#include <stdint.h>

#include \"repl_ack.h\"
#include \"repl_config.h\"",
        after: "",
        foreign: &["replication_config"],
        include: &[],
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
    },
    Header {
        path: "w11/repl_rejoin.h",
        source: "repl_rejoin.rs",
        before: "#include <stdint.h>

#include \"repl_config.h\"",
        after: "",
        foreign: &["replication_config"],
        include: &[],
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
    config.trailer = Some(format!("{}\n\n#endif /* {guard} */", header.after).trim_start().to_owned());
    config.after_includes = Some(format!("{before}\n"));
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
