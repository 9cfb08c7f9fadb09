//! The load averages. Nothing runs to keep them: whoever asks makes them up to date from the CPU time used since the last time.
//! The arithmetic is that of Linux `kernel/sched/loadavg.c`: fixed point, one step every five seconds.

use super::ident::total_cpu_ns;
use super::stat::running;
use hal::sync::SpinLock;

/// One, in the fixed point of the averages.
pub const ONE: u64 = 1 << SHIFT;
/// Bits behind the point.
pub const SHIFT: u32 = 11;
/// What is left of a load after five seconds, for averages over 1, 5 and 15 minutes.
const LEFT: [u64; 3] = [1884, 2014, 2037];
const STEP_NS: u64 = 5_000_000_000;

struct State {
    looked_ns: u64,
    cpu_ns: u64,
    averages: [u64; 3],
}

static STATE: SpinLock<State> = SpinLock::new(State {
    looked_ns: 0,
    cpu_ns: 0,
    averages: [0; 3],
});

fn power(mut x: u64, mut n: u64) -> u64 {
    let mut result = ONE;
    while n > 0 {
        if n & 1 == 1 {
            result = (result * x + ONE / 2) >> SHIFT;
        }
        x = (x * x + ONE / 2) >> SHIFT;
        n >>= 1;
    }
    result
}

fn later(average: u64, active: u64, left: u64, steps: u64) -> u64 {
    let left = power(left, steps);
    (average * left + active * (ONE - left)) >> SHIFT
}

/// Averages over 1, 5 and 15 minutes, in units of [`ONE`].
pub fn averages() -> [u64; 3] {
    let now = hal::clock::monotonic_ns();
    let (user, system) = total_cpu_ns();
    // Whoever asks runs too, and is no load.
    let others = running().saturating_sub(1) as u64 * ONE;
    let mut s = STATE.lock();
    let steps = now.saturating_sub(s.looked_ns) / STEP_NS;
    if steps > 0 {
        let passed = steps * STEP_NS;
        let used = (user + system).saturating_sub(s.cpu_ns);
        let active = (used / 1000 * ONE / (passed / 1000)).max(others);
        for (a, left) in s.averages.iter_mut().zip(LEFT) {
            *a = later(*a, active, left, steps);
        }
        s.looked_ns += passed;
        s.cpu_ns = user + system;
    }
    s.averages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_is_its_own_average() {
        let mut a = 0;
        for _ in 0..200 {
            a = later(a, 3 * ONE, LEFT[0], 1);
        }
        assert!(a.abs_diff(3 * ONE) < ONE / 50, "{a}");
        // Many steps at once are as many single ones.
        assert!(later(3 * ONE, 0, LEFT[1], 60).abs_diff(3 * ONE * 37 / 100) < ONE / 20);
    }
}
