//! The table that the linker fills: each function as it is linked, this library's or the program's.
#![allow(unsafe_code, reason = "symbols that the linker makes")]

use crate::capi::kv_store::{self as kv, kv_entry, kv_store};
use crate::capi::repl_config::{self, repl_node, replication_config};
use crate::capi::wal_record::{self as codec, wal_record};
use crate::capi::wal_writer::{self as writer, wal_writer};
use crate::capi::{crc32, repl_conflict, repl_ship, wal_checkpoint, wal_recovery};
use libc::{c_char, c_int, c_void};

/// The functions that another file of the course calls, and a few that only tell whose a file is.
pub(super) struct Functions {
    pub(super) kv_store_init: unsafe extern "C" fn(*mut kv_store) -> c_int,
    pub(super) kv_store_init_sized: unsafe extern "C" fn(*mut kv_store, c_int) -> c_int,
    pub(super) kv_store_set: unsafe extern "C" fn(*mut kv_store, *const c_char, *const c_char) -> c_int,
    pub(super) kv_store_set_ts: unsafe extern "C" fn(*mut kv_store, *const c_char, *const c_char, u64) -> c_int,
    pub(super) kv_store_get: unsafe extern "C" fn(*const kv_store, *const c_char) -> *mut c_char,
    pub(super) kv_store_del: unsafe extern "C" fn(*mut kv_store, *const c_char) -> c_int,
    pub(super) kv_store_find: unsafe extern "C" fn(*const kv_store, *const c_char) -> *mut kv_entry,
    pub(super) crc32_init: extern "C" fn(),
    pub(super) logship_crc32: unsafe extern "C" fn(*const u8, usize) -> u32,
    pub(super) wal_record_encode: unsafe extern "C" fn(*const wal_record, *mut u8, usize) -> c_int,
    pub(super) wal_record_decode: unsafe extern "C" fn(*const u8, usize, *mut wal_record) -> c_int,
    pub(super) wal_record_free: unsafe extern "C" fn(*mut wal_record),
    pub(super) wal_open: unsafe extern "C" fn(*mut wal_writer, *const c_char) -> c_int,
    pub(super) wal_append: unsafe extern "C" fn(*mut wal_writer, *const wal_record) -> c_int,
    pub(super) wal_recover: unsafe extern "C" fn(*const c_char, *mut kv_store) -> c_int,
    pub(super) wal_checkpoint_write: unsafe extern "C" fn(*const kv_store, *const c_char, u64) -> c_int,
    pub(super) repl_connect: unsafe extern "C" fn(*mut repl_node) -> c_int,
    pub(super) repl_accept: unsafe extern "C-unwind" fn(c_int) -> c_int,
    pub(super) send_full: unsafe extern "C" fn(c_int, *const c_void, usize) -> c_int,
    pub(super) repl_ship_record: unsafe extern "C" fn(*mut replication_config, *const u8, usize) -> c_int,
    pub(super) repl_receive_record: unsafe extern "C-unwind" fn(c_int, *mut wal_writer, *mut kv_store) -> c_int,
    pub(super) repl_resolve_conflict: unsafe extern "C" fn(u64, u64, *const c_char, *const c_char) -> c_int,
}

// Where the lesson's name of the checksum leads, if the program has it: a weak use, which brings nothing in.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .data.rel.ro.logship_crc32_link, \"aw\", @progbits",
    ".weak crc32",
    ".hidden logship_crc32_link",
    ".globl logship_crc32_link",
    ".balign 8",
    "logship_crc32_link:",
    ".quad crc32",
    ".popsection",
);

/// The program's own `crc32`, as it is called when its header does not give it another name; `None` if there is none,
/// or if it is zlib's. A program with zlib may have a `crc32_init` of its own too, so that is no proof: what counts is
/// whether the function returns the same for the same bytes at two places. Called with three arguments, zlib's has 0
/// bytes to look at and returns the first, which is the lesson's pointer.
#[cfg(target_arch = "x86_64")]
pub(super) fn crc32_by_its_own_name() -> Option<unsafe extern "C" fn(*const u8, usize) -> u32> {
    unsafe extern "C" {
        static logship_crc32_link: Option<unsafe extern "C" fn(*const u8, usize) -> u32>;
    }
    if !is_theirs!(crc32_init) {
        return None;
    }
    // SAFETY: a pointer that the linker has filled in, or left NULL.
    let function = unsafe { std::ptr::read_volatile(&raw const logship_crc32_link) }?;
    if is_ours(function as usize) {
        return None;
    }
    let texts = [*b"123456789\0", *b"123456789\0"];
    // SAFETY: in C's calling conventions one argument more does no harm, and nothing is read behind the text.
    let checksums = texts.each_ref().map(|text| unsafe { with_zlibs_arguments(function)(text.as_ptr(), 9, 0) });
    (checksums[0] == checksums[1]).then_some(function)
}

type Crc32 = unsafe extern "C" fn(*const u8, usize) -> u32;

#[cfg(target_arch = "x86_64")]
fn with_zlibs_arguments(function: Crc32) -> unsafe extern "C" fn(*const u8, usize, libc::c_uint) -> u32 {
    // SAFETY: a function pointer of the same size; its caller says why it may be called so.
    unsafe { std::mem::transmute(function) }
}

/// zlib's `crc32`, for the lesson's name of ours in a program that has zlib (packaging/crc32.S).
///
/// # Safety
/// `data` is NULL or points to `len` readable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn logship_crc32_from(crc: libc::c_ulong, data: *const u8, len: libc::c_uint) -> libc::c_ulong {
    if data.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(data, usize::try_from(len).unwrap_or(0)) };
    let before = u32::try_from(crc & libc::c_ulong::from(u32::MAX)).unwrap_or(0);
    libc::c_ulong::from(crate::wal::crc::crc32_from(before, bytes))
}

/// Elsewhere nobody has written it down for the assembler.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn crc32_by_its_own_name() -> Option<unsafe extern "C" fn(*const u8, usize) -> u32> {
    None
}

pub(super) static FUNCTIONS: Functions = Functions {
    kv_store_init: kv::kv_store_init,
    kv_store_init_sized: kv::kv_store_init_sized,
    kv_store_set: kv::kv_store_set,
    kv_store_set_ts: kv::kv_store_set_ts,
    kv_store_get: kv::kv_store_get,
    kv_store_del: kv::kv_store_del,
    kv_store_find: kv::kv_store_find,
    crc32_init: crc32::crc32_init,
    logship_crc32: crc32::logship_crc32,
    wal_record_encode: codec::wal_record_encode,
    wal_record_decode: codec::wal_record_decode,
    wal_record_free: codec::wal_record_free,
    wal_open: writer::wal_open,
    wal_append: writer::wal_append,
    wal_recover: wal_recovery::wal_recover,
    wal_checkpoint_write: wal_checkpoint::wal_checkpoint_write,
    repl_connect: repl_config::repl_connect,
    repl_accept: repl_config::repl_accept,
    send_full: repl_ship::send_full,
    repl_ship_record: repl_ship::repl_ship_record,
    repl_receive_record: repl_ship::repl_receive_record,
    repl_resolve_conflict: repl_conflict::repl_resolve_conflict,
};

/// Reads a function of the table.
pub(super) fn read<F: Copy>(place: &'static F) -> F {
    // SAFETY: a field of a static. Volatile, since the compiler would put its own function there.
    unsafe { std::ptr::read_volatile(place) }
}

/// A function of the table, as it is linked.
macro_rules! linked {
    ($name:ident) => {{
        use $crate::capi::replaced::functions::{FUNCTIONS, read};
        read(&FUNCTIONS.$name)
    }};
}
pub(super) use linked;

// Of the section that every function of the table stands in, unless it is the program's. The linker makes them.
unsafe extern "C" {
    #[link_name = "__start_logship_calls"]
    static FIRST: u8;
    #[link_name = "__stop_logship_calls"]
    static PAST_LAST: u8;
}

/// Whether a function at this address is this library's.
pub(super) fn is_ours(address: usize) -> bool {
    ((&raw const FIRST).addr()..(&raw const PAST_LAST).addr()).contains(&address)
}

/// Whether the function of this name is the program's.
macro_rules! is_theirs {
    ($name:ident) => {{
        use $crate::capi::replaced::functions::{is_ours, linked};
        !is_ours(linked!($name) as usize)
    }};
}
pub(super) use is_theirs;
