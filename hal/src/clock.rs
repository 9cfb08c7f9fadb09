//! Clocks and randomness.

use crate::machine;

/// CLOCK_MONOTONIC, ns.
pub fn monotonic_ns() -> u64 {
    machine!(Clock::monotonic_ns())
}

/// CLOCK_REALTIME, ns since 1970.
pub fn realtime_ns() -> u64 {
    machine!(Clock::realtime_ns())
}

/// Fills `buf` with random bytes fit for keys.
pub fn random(buf: &mut [u8]) {
    machine!(Clock::random(buf));
}
