//! Prefetches cache lines that will be needed soon, so that the processor waits for all of them at the same
//! time.
//!
//! Prefetching works on x86-64. On other targets, under Miri and under loom, it does nothing. A prefetch is
//! only a hint: whatever the address, it does not fault, and has no effect that the program could observe.

#![allow(unsafe_code)]

/// Whether prefetching has any effect. If it has none, callers need not compute any addresses.
pub(crate) const WORKS: bool = cfg!(all(target_arch = "x86_64", not(any(loom, miri))));

/// Prefetches a cache line that will be read.
#[inline]
pub(crate) fn to_read<T>(_place: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: a prefetch never faults, and SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(_place.cast());
    }
}

/// Prefetches the cache line `OFFSET` bytes after `_place`, which will be written. This takes the line away
/// from other cores, so that the write does not have to.
///
/// It uses inline assembly: the compiler's intrinsic becomes `prefetchw` only if the compiler targets only
/// processors that act on it. Otherwise the intrinsic prefetches the line to be read. (Older processors treat
/// the instruction as a no-op.)
#[inline]
pub(crate) fn to_write<const OFFSET: usize, T>(_place: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: a prefetch never faults, whatever the address, and changes neither the flags nor the stack.
    unsafe {
        std::arch::asm!("prefetchw [{} + {}]", in(reg) _place.addr(), const OFFSET, options(nostack, preserves_flags, nomem));
    }
}
