//! mallopt(3) and malloc_trim(3): what a process holds of memory beyond what it uses.

/// Limits the heaps that the threads of this process spread over. Fewer hold less that is free; threads that
/// allocate at the same time wait for each other more. To be called before there is a second thread.
pub fn limit_arenas(count: i32) {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: sets a number; with one that is not known it does nothing.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, count) };
    }
}

/// Gives the kernel back what is free; takes about a millisecond.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes the allocator's own locks, and touches nothing that is allocated.
        unsafe { libc::malloc_trim(0) };
    }
}
