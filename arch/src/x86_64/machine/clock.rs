//! The time-stamp counter.

use core::arch::x86_64::{_mm_lfence, _rdtsc};

/// The counter, in ticks of `BootInfo::counter_hz`; not reordered before earlier loads.
pub fn counter() -> u64 {
    // SAFETY: LFENCE has no operands and SSE2 is part of x86_64; it orders RDTSC only.
    unsafe { _mm_lfence() };
    // SAFETY: RDTSC is not disabled (CR4.TSD is clear) in ring 0.
    unsafe { _rdtsc() }
}
