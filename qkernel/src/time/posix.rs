//! `setitimer(2)` and `timer_create(2)`.

use super::timers::{self, AlarmId};
use crate::signal::info::{Fields, code};
use crate::signal::send::{Sent, to_process, to_task};
use crate::signal::{SigInfo, signo};
use crate::task::{Process, table};
use alloc::sync::{Arc, Weak};
use hal::clock::monotonic_ns;

/// A POSIX timer.
pub struct PosixTimer {
    /// CLOCK_* it runs on; only the real-time ones need conversions.
    pub clock: i32,
    /// Signal, 0 = none.
    pub signo: u32,
    /// `sigev_value`.
    pub value: u64,
    /// The task that gets the signal (SIGEV_THREAD_ID), 0 = the process.
    pub tid: u32,
    /// Monotonic deadline, 0 = disarmed.
    pub at_ns: u64,
    /// Interval, 0 = once.
    pub interval_ns: u64,
    /// Its signal is pending since `at_ns`; the next expiry is set when that is taken.
    pub waiting: bool,
    /// Expirations between the last signal and when it was taken, beyond the one it told.
    pub overrun: i32,
    /// The pending alarm.
    pub alarm: Option<AlarmId>,
}

/// (Re)arms ITIMER_REAL: relative first expiry and interval; 0 disarms. Returns what was left and the old interval.
pub fn set_real(p: &Arc<Process>, first_ns: u64, interval_ns: u64) -> (u64, u64) {
    let (old, alarm) = {
        let mut t = p.timers.lock();
        let old = t.real;
        t.real = (
            if first_ns == 0 {
                0
            } else {
                monotonic_ns().saturating_add(first_ns)
            },
            interval_ns,
        );
        (old, t.real_alarm.take())
    };
    if let Some(a) = alarm {
        timers::cancel(a);
    }
    arm_real(p);
    (
        if old.0 == 0 {
            0
        } else {
            old.0.saturating_sub(monotonic_ns()).max(1)
        },
        old.1,
    )
}

fn arm_real(p: &Arc<Process>) {
    let at = p.timers.lock().real.0;
    if at == 0 {
        return;
    }
    let weak = Arc::downgrade(p);
    let id = timers::at(at, move || real_expired(&weak));
    p.timers.lock().real_alarm = Some(id);
}

fn real_expired(p: &Weak<Process>) {
    let Some(p) = p.upgrade() else { return };
    let again = {
        let mut t = p.timers.lock();
        let (at, interval) = t.real;
        if at == 0 {
            return;
        }
        t.real_alarm = None;
        t.real.0 = next(at, interval).0;
        t.real.0 != 0
    };
    to_process(&p, SigInfo::kernel(signo::SIGALRM));
    if again {
        arm_real(&p);
    }
}

/// The next expiry after now and how many were missed.
fn next(at: u64, interval: u64) -> (u64, u64) {
    if interval == 0 {
        return (0, 0);
    }
    let late = monotonic_ns().saturating_sub(at) / interval;
    (
        at.saturating_add(late.saturating_add(1).saturating_mul(interval)),
        late,
    )
}

/// Arms a POSIX timer that is set in the table. One that tells nobody is only looked at.
pub fn arm(p: &Arc<Process>, id: i32) {
    let at = match p.timers.lock().posix.get(&id) {
        Some(t) if t.at_ns != 0 && t.signo != 0 => t.at_ns,
        _ => return,
    };
    let weak = Arc::downgrade(p);
    let alarm = timers::at(at, move || expired(&weak, id));
    if let Some(t) = p.timers.lock().posix.get_mut(&id) {
        t.alarm = Some(alarm);
    }
}

/// A timer whose signal is ignored goes on at this distance at least, ns.
const IGNORED_NS: u64 = 1_000_000;

fn expired(p: &Weak<Process>, id: i32) {
    let Some(p) = p.upgrade() else { return };
    let (info, tid) = {
        let mut timers = p.timers.lock();
        let Some(t) = timers.posix.get_mut(&id) else {
            return;
        };
        if t.at_ns == 0 || t.waiting {
            return;
        }
        t.alarm = None;
        t.overrun = 0;
        t.waiting = t.interval_ns != 0;
        if !t.waiting {
            t.at_ns = 0;
        }
        let fields = Fields::Timer {
            id,
            overrun: 0,
            value: t.value,
        };
        (
            SigInfo {
                signo: t.signo,
                errno: 0,
                code: code::SI_TIMER,
                fields,
            },
            t.tid,
        )
    };
    let sent = match (tid != 0).then(|| table::task(tid)).flatten() {
        Some(task) => to_task(&task, info),
        None => to_process(&p, info),
    };
    if sent != Sent::Taken {
        go_on(&p, id, IGNORED_NS);
    }
}

/// The signal of a timer was taken: the timer runs again. Returns the overrun count.
pub fn taken(p: &Arc<Process>, id: i32) -> i32 {
    go_on(p, id, 0)
}

fn go_on(p: &Arc<Process>, id: i32, at_least_ns: u64) -> i32 {
    let overrun = {
        let mut timers = p.timers.lock();
        let Some(t) = timers.posix.get_mut(&id) else {
            return 0;
        };
        if !t.waiting {
            return t.overrun;
        }
        t.waiting = false;
        let (at, missed) = next(t.at_ns, t.interval_ns);
        t.at_ns = at.max(monotonic_ns().saturating_add(at_least_ns));
        t.overrun = missed.min(i32::MAX as u64) as i32;
        t.overrun
    };
    arm(p, id);
    overrun
}

impl PosixTimer {
    /// When it expires next, monotonic ns; 0 = never.
    pub fn next_ns(&self) -> u64 {
        match self.at_ns {
            at if at > monotonic_ns() || at == 0 => at,
            at => next(at, self.interval_ns).0,
        }
    }
}
