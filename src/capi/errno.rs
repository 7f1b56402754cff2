//! The calling thread's `errno`: what a C function sets last, when it fails.
//!
//! Touches nothing but that one thread-local `int`.
#![allow(unsafe_code, reason = "errno is the C library's; it is reached through a pointer")]

/// Sets the calling thread's `errno`.
#[inline]
pub(crate) fn set(errno: i32) {
    // SAFETY: the C library has an errno for every thread; the pointer to it is never NULL.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: it points to this thread's own `int`, which lives as long as the thread.
    unsafe { location.write(errno) };
}

/// The calling thread's `errno`.
#[inline]
pub(crate) fn get() -> i32 {
    // SAFETY: the C library has an errno for every thread; the pointer to it is never NULL.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: it points to this thread's own `int`, which lives as long as the thread.
    unsafe { location.read() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_set_is_read_back_and_each_thread_has_its_own() {
        super::set(libc::ENOENT);
        let other = std::thread::spawn(|| {
            super::set(libc::EBADMSG);
            super::get()
        });
        assert_eq!(other.join().unwrap(), libc::EBADMSG);
        assert_eq!(super::get(), libc::ENOENT);
    }
}
