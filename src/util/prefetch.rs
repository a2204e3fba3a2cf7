//! Asks the processor for cache lines that will be needed soon, so that it waits for all of them at a time.
//!
//! On x86-64; elsewhere, and where a program is interpreted, nothing happens. A prefetch is a hint: of whatever address, it
//! neither faults nor reads or writes anything that the program could tell.

#![allow(unsafe_code)]

/// Whether to ask has any effect: where it has none, nothing need be worked out for it.
pub(crate) const WORKS: bool = cfg!(all(target_arch = "x86_64", not(any(loom, miri))));

/// Asks for a line that will be read.
#[inline]
pub(crate) fn to_read<T>(_place: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: a hint, and SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(_place.cast());
    }
}

/// Asks for the line `OFFSET` bytes after `place`, which will be written: away from other cores, so that the write need not.
///
/// By inline assembly: the compiler's intrinsic becomes `prefetchw` only where it compiles for processors alone that act upon
/// it, and else asks for a line to be read. (Older processors take the instruction for no operation.)
#[inline]
pub(crate) fn to_write<const OFFSET: usize, T>(_place: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: a hint: no address faults, and neither flags nor the stack change.
    unsafe {
        std::arch::asm!("prefetchw [{} + {}]", in(reg) _place.addr(), const OFFSET, options(nostack, preserves_flags, nomem));
    }
}
