//! Time from the counter, and random numbers from the host's seed.

use super::Bare;
use super::random;
use crate::contract::Clock;
use crate::native::clock::counter;
use core::sync::atomic::{AtomicU64, Ordering};

const NS_PER_S: u128 = 1_000_000_000;

/// Nanoseconds per tick, as a 32.32 fixed-point number.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(1 << 32);
/// Ticks per nanosecond, as a 32.32 fixed-point number.
static TICKS_PER_NS: AtomicU64 = AtomicU64::new(1 << 32);

pub(super) fn init(hz: u64) {
    let hz = u128::from(hz.max(1));
    NS_PER_TICK.store(((NS_PER_S << 32) / hz) as u64, Ordering::Relaxed);
    TICKS_PER_NS.store(((hz << 32) / NS_PER_S) as u64, Ordering::Relaxed);
}

/// Nanoseconds per tick, as a 32.32 fixed-point number.
pub(super) fn ns_per_tick() -> u64 {
    NS_PER_TICK.load(Ordering::Relaxed)
}

/// Ticks to nanoseconds.
pub(super) fn to_ns(ticks: u64) -> u64 {
    (u128::from(ticks) * u128::from(NS_PER_TICK.load(Ordering::Relaxed)) >> 32) as u64
}

/// Nanoseconds to ticks, rounded up so that a timer never fires early.
pub(super) fn to_ticks(ns: u64) -> u64 {
    let ticks = (u128::from(ns) * u128::from(TICKS_PER_NS.load(Ordering::Relaxed)) >> 32) + 1;
    ticks.min(u128::from(u64::MAX)) as u64
}

impl Clock for Bare {
    fn monotonic_ns() -> u64 {
        to_ns(counter())
    }

    fn realtime_ns() -> u64 {
        Self::monotonic_ns().wrapping_add(crate::boot::info().realtime_offset_ns)
    }

    fn random(buf: &mut [u8]) {
        random::fill(buf);
    }
}
