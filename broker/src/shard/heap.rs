//! Giving memory back to the system.

/// Pieces given up at once from which on looking for whole pages among them is worth it.
pub(super) const MANY: usize = 10_000;

/// Gives free pages of the heap back to the system. The C library keeps them otherwise, wherever something behind them is in
/// use still. It took 13 ms where 122,000 queues had given up the room of two million entries.
pub(super) fn give_back_free_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches free memory of the allocator only, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
