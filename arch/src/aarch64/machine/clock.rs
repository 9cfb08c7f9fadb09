//! The virtual counter.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTVCT_EL0, Readable};

/// The counter, in ticks of `BootInfo::counter_hz`; not reordered before earlier loads.
pub fn counter() -> u64 {
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}
