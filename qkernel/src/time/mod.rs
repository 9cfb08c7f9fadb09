//! Timers and clocks of apps.

use alloc::collections::BTreeMap;

/// What `restart_syscall` continues after a stop or an unhandled signal.
#[derive(Clone, Copy, Debug)]
pub enum Restart {
    /// `nanosleep`/`clock_nanosleep` until the deadline (monotonic ns), remaining time to this address.
    Sleep {
        /// Monotonic ns.
        deadline_ns: u64,
        /// Where the remaining time goes, or 0.
        remaining: u64,
    },
    /// `poll` until the deadline.
    Poll {
        /// Address of the array.
        fds: u64,
        /// Number of entries.
        count: u32,
        /// Monotonic ns, `None` = for ever.
        deadline_ns: Option<u64>,
    },
    /// `futex(FUTEX_WAIT)` until the deadline.
    Futex {
        /// Address of the word.
        addr: u64,
        /// Expected value.
        value: u32,
        /// Bit set.
        bitset: u32,
        /// Private to the process.
        private: bool,
        /// Monotonic ns.
        deadline_ns: u64,
    },
}

/// Interval and POSIX timers of a process.
#[derive(Default)]
pub struct ProcessTimers {
    /// `setitimer(ITIMER_REAL)`: deadline (monotonic ns, 0 = off) and interval (ns).
    pub real: (u64, u64),
    /// POSIX timers by id.
    pub posix: BTreeMap<i32, ()>,
}
