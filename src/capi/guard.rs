//! The boundary: no panic crosses it, and errno is set last, when everything else has been dropped.
#![forbid(unsafe_code)]

use super::errno;
use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; a panic becomes `on_panic` with errno EIO. What `body` was changing may be half-changed then: side
/// state is checked against the file and the socket on every call, so the next call finds out.
pub(crate) fn guard<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
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
