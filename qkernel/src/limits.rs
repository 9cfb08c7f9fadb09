//! The container's limits of memory and processes: those of BootInfo until QVisor changes them.

use core::sync::atomic::{AtomicU64, Ordering};
use hal::boot;

/// Nothing was told since boot.
const UNTOLD: u64 = 0;

static MEMORY: AtomicU64 = AtomicU64::new(UNTOLD);
static PIDS: AtomicU64 = AtomicU64::new(UNTOLD);

fn value(told: &AtomicU64, at_boot: u64) -> u64 {
    match told.load(Ordering::Relaxed) {
        UNTOLD => at_boot,
        told => told,
    }
}

/// Bytes of memory; `u64::MAX`: no limit.
pub fn memory() -> u64 {
    value(&MEMORY, boot::try_info().map_or(u64::MAX, |b| b.memory_limit))
}

/// Tasks; `u64::MAX`: no limit.
pub fn pids() -> u64 {
    value(&PIDS, boot::try_info().map_or(u64::MAX, |b| b.pids_limit))
}

/// Takes new limits; 0 leaves one as it is.
pub fn change(memory: u64, pids: u64) {
    for (slot, new) in [(&MEMORY, memory), (&PIDS, pids)] {
        if new != UNTOLD {
            slot.store(new, Ordering::Relaxed);
        }
    }
}
