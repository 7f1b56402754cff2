//! The boundary: no panic crosses it, and errno is set last, when everything else has been dropped.
//! No thread is cancelled inside either (pthread_cancel(3) unwinds, and a foreign unwinding through Rust ends the
//! process): a request is kept until the call has returned.
#![allow(unsafe_code, reason = "the cancellation state of the calling thread")]

use super::{errno, replaced};
use crate::error::{Error, Result};
use libc::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

unsafe extern "C" {
    // POSIX; the libc crate does not declare it for Linux.
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// PTHREAD_CANCEL_DISABLE.
const CANCEL_DISABLE: c_int = 1;

/// Keeps pthread_cancel(3) waiting while it lives.
struct Uncancelled(c_int);

impl Uncancelled {
    fn new() -> Uncancelled {
        let mut before = 0;
        // SAFETY: a constant, and room for the old state.
        unsafe { pthread_setcancelstate(CANCEL_DISABLE, &raw mut before) };
        Uncancelled(before)
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        // SAFETY: the state that there was before; nobody asks for the one there is now.
        unsafe { pthread_setcancelstate(self.0, std::ptr::null_mut()) };
    }
}

/// Runs `body`; a panic becomes `on_panic` with errno EIO. What `body` was changing may be half-changed then: side
/// state is checked against the file and the socket on every call, so the next call finds out.
pub(crate) fn guard<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    replaced::know();
    let _uncancelled = Uncancelled::new();
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        errno::set(Error::Internal("panic").errno());
        on_panic
    })
}

/// Runs the body of a C function that returns an `int`: an error becomes its code, with errno set.
pub(crate) fn call(body: impl FnOnce() -> Result<i32>) -> i32 {
    call_or(body, |error| error.code())
}

/// Runs the body of any C function; `on_error` gives the value for an error.
pub(crate) fn call_or<T>(body: impl FnOnce() -> Result<T>, on_error: impl FnOnce(&Error) -> T) -> T {
    replaced::know();
    call_knowing(body, on_error)
}

/// As [`call_or`], for a body that asks by itself what is replaced.
#[inline]
pub(crate) fn call_knowing<T>(body: impl FnOnce() -> Result<T>, on_error: impl FnOnce(&Error) -> T) -> T {
    let _uncancelled = Uncancelled::new();
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Error::Internal("panic")));
    result.unwrap_or_else(|error| {
        let value = on_error(&error);
        let errno = error.errno();
        drop(error);
        errno::set(errno);
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_errno() {
        let panics = || -> Result<i32> { panic!("on purpose") };
        assert_eq!(call(panics), -1);
        assert_eq!(errno::get(), libc::EIO);
        assert_eq!(guard(7, || panic!("on purpose")), 7);
    }

    #[test]
    fn an_error_becomes_its_code_with_errno() {
        assert_eq!(call(|| Err(Error::CrcMismatch)), -2);
        assert_eq!(errno::get(), libc::EBADMSG);
        assert_eq!(call(|| Ok(5)), 5);
    }
}
