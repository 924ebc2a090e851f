//! mallopt(3): a small process keeps one heap.

/// Has a second thread, if it ever allocates, use the heap of the first.
pub(crate) fn one_arena() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: sets a number; with one that is not known it does nothing.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}
