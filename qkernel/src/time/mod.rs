//! Timers and clocks of apps.

pub mod cpu;
pub mod posix;
pub mod timers;

use alloc::collections::BTreeMap;
use hal::clock::{monotonic_ns, realtime_ns};
use hal::user::UserPtr;
use qlib::Errno;

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

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
    /// `clock_nanosleep` until a clock of CPU time shows the deadline.
    CpuSleep {
        /// The clock's id.
        clock: i32,
        /// CPU time, ns.
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
    /// The pending alarm of it.
    pub real_alarm: Option<timers::AlarmId>,
    /// `setitimer` of ITIMER_VIRTUAL and ITIMER_PROF.
    pub cpu: [posix::CpuTimer; 2],
    /// The next thing RLIMIT_CPU does.
    pub limit_alarm: Option<cpu::CpuAlarmId>,
    /// POSIX timers by id.
    pub posix: BTreeMap<i32, posix::PosixTimer>,
    /// The next id.
    pub next_id: i32,
}

/// Reads a `timespec` as nanoseconds.
///
/// # Errors
/// EFAULT; EINVAL when negative or not normalised.
pub fn read_timespec(addr: u64) -> Result<u64, Errno> {
    let [s, ns] = UserPtr::<[i64; 2]>::new(addr).read()?;
    if s < 0 || !(0..SECOND_NS as i64).contains(&ns) {
        return Err(Errno::EINVAL);
    }
    Ok((s as u64).saturating_mul(SECOND_NS).saturating_add(ns as u64))
}

/// Writes nanoseconds as a `timespec`.
///
/// # Errors
/// EFAULT.
pub fn write_timespec(addr: u64, ns: u64) -> Result<(), Errno> {
    UserPtr::new(addr).write(&[(ns / SECOND_NS) as i64, (ns % SECOND_NS) as i64])
}

/// Monotonic deadline a relative `timespec` away; a null pointer = never.
///
/// # Errors
/// As [`read_timespec`].
pub fn deadline_after(addr: u64) -> Result<Option<u64>, Errno> {
    if addr == 0 {
        return Ok(None);
    }
    Ok(Some(monotonic_ns().saturating_add(read_timespec(addr)?)))
}

/// Monotonic time of an absolute time of CLOCK_REALTIME (`realtime`) or CLOCK_MONOTONIC.
pub fn absolute_deadline(at_ns: u64, realtime: bool) -> u64 {
    if realtime {
        monotonic_ns().saturating_add(at_ns.saturating_sub(realtime_ns()))
    } else {
        at_ns
    }
}
