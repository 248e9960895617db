//! Memory that was freed, and is still the process's own.

/// Gives pages that nothing uses any more back to the kernel.
///
/// A census of many sockets, or a round in which many calls were refused, takes a lot of memory for a moment. glibc keeps
/// what was freed of its heap, but for its end (malloc_trim(3)).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions, and locks the heap while it looks at it.
    unsafe {
        libc::malloc_trim(0);
    }
}
