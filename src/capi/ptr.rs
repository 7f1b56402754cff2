//! What C hands over, as Rust values: the only raw casts besides the store's.
#![allow(unsafe_code, reason = "the C boundary")]

use crate::error::{Error, Result};
use libc::{c_char, c_int};
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Refuses NULL.
pub(crate) fn check<T>(pointer: *const T) -> Result<()> {
    if pointer.is_null() { Err(Error::Invalid("NULL pointer")) } else { Ok(()) }
}

/// The bytes at `pointer`.
///
/// # Safety
/// `pointer` is NULL or points to `len` readable bytes that nobody changes during `'a`.
pub(crate) unsafe fn bytes<'a>(pointer: *const u8, len: usize) -> Result<&'a [u8]> {
    check(pointer)?;
    if isize::try_from(len).is_err() {
        return Err(Error::Invalid("impossible length"));
    }
    // SAFETY: not NULL, and the caller promises the rest.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// The writable bytes at `pointer`.
///
/// # Safety
/// `pointer` is NULL or points to `len` writable, initialised or never-read bytes that nobody else uses during `'a`.
pub(crate) unsafe fn bytes_mut<'a>(pointer: *mut u8, len: usize) -> Result<&'a mut [u8]> {
    check(pointer)?;
    if isize::try_from(len).is_err() {
        return Err(Error::Invalid("impossible length"));
    }
    // SAFETY: not NULL, and the caller promises the rest.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

/// A path.
///
/// # Safety
/// `pointer` is NULL or a C string that lives during `'a`.
pub(crate) unsafe fn path<'a>(pointer: *const c_char) -> Result<&'a Path> {
    check(pointer)?;
    // SAFETY: not NULL, and the caller promises a C string.
    let string = unsafe { CStr::from_ptr(pointer) };
    if string.is_empty() {
        return Err(Error::Invalid("empty path"));
    }
    Ok(Path::new(OsStr::from_bytes(string.to_bytes())))
}

/// A host name or address.
///
/// # Safety
/// `pointer` is NULL or a C string that lives during `'a`.
pub(crate) unsafe fn host<'a>(pointer: *const c_char) -> Result<&'a str> {
    check(pointer)?;
    // SAFETY: not NULL, and the caller promises a C string.
    let string = unsafe { CStr::from_ptr(pointer) };
    string.to_str().map_err(|_| Error::Invalid("a host name that is not UTF-8"))
}

/// A count as C's `int`; what does not fit is INT_MAX.
pub(crate) fn count(value: u64) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

const PATH_MAX: usize = 4096;

/// A path without a heap allocation.
#[derive(Clone)]
pub(super) struct FixedPath {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl Default for FixedPath {
    fn default() -> FixedPath {
        FixedPath { bytes: [0; PATH_MAX], len: 0 }
    }
}

impl FixedPath {
    pub(super) fn set(&mut self, path: &Path) -> Result<()> {
        let bytes = path.as_os_str().as_bytes();
        let room = self.bytes.get_mut(..bytes.len());
        let Some(room) = room else {
            return Err(Error::Io(std::io::Error::from_raw_os_error(libc::ENAMETOOLONG)));
        };
        room.copy_from_slice(bytes);
        self.len = bytes.len();
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn get(&self) -> Option<&Path> {
        (self.len > 0).then(|| Path::new(OsStr::from_bytes(&self.bytes[..self.len])))
    }
}
