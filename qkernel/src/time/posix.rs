//! `setitimer(2)` and `timer_create(2)`.

use super::cpu::{self, CpuAlarmId, CpuClock};
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
    /// The clock of CPU time it runs on, if it is one.
    pub cpu: Option<CpuClock>,
    /// Signal, 0 = none.
    pub signo: u32,
    /// `sigev_value`.
    pub value: u64,
    /// The task that gets the signal (SIGEV_THREAD_ID), 0 = the process.
    pub tid: u32,
    /// Deadline by the monotonic clock or that of CPU time, 0 = disarmed.
    pub at_ns: u64,
    /// Interval, 0 = once.
    pub interval_ns: u64,
    /// Its signal is pending since `at_ns`; the next expiry is set when that is taken.
    pub waiting: bool,
    /// Expirations between the last signal and when it was taken, beyond the one it told.
    pub overrun: i32,
    /// The pending alarm.
    pub alarm: Option<Pending>,
}

/// What will run when a timer expires.
pub enum Pending {
    /// By the monotonic clock.
    Time(AlarmId),
    /// By a clock of CPU time.
    Cpu(CpuAlarmId),
}

impl Pending {
    /// Cancels it.
    pub fn cancel(self) {
        match self {
            Pending::Time(id) => {
                timers::cancel(id);
            }
            Pending::Cpu(id) => cpu::cancel(&id),
        }
    }
}

/// ITIMER_VIRTUAL or ITIMER_PROF.
#[derive(Default)]
pub struct CpuTimer {
    /// CPU time at which it expires, 0 = off.
    pub at_ns: u64,
    /// Interval, ns.
    pub interval_ns: u64,
    alarm: Option<CpuAlarmId>,
}

fn clock_of(p: &Arc<Process>, which: usize) -> CpuClock {
    CpuClock::of_process(p, which == 0)
}

/// What is left of ITIMER_VIRTUAL (0) or ITIMER_PROF (1), and its interval.
pub fn cpu_left(p: &Arc<Process>, which: usize) -> (u64, u64) {
    let now = clock_of(p, which).glance().unwrap_or(0);
    let t = &p.timers.lock().cpu[which];
    match t.at_ns {
        0 => (0, t.interval_ns),
        at => (at.saturating_sub(now).max(1000), t.interval_ns),
    }
}

/// (Re)arms ITIMER_VIRTUAL (0) or ITIMER_PROF (1) as [`set_real`] does.
pub fn set_cpu(p: &Arc<Process>, which: usize, first_ns: u64, interval_ns: u64) -> (u64, u64) {
    let old = cpu_left(p, which);
    let now = clock_of(p, which).glance().unwrap_or(0);
    let alarm = {
        let t = &mut p.timers.lock().cpu[which];
        t.at_ns = if first_ns == 0 {
            0
        } else {
            now.saturating_add(first_ns)
        };
        t.interval_ns = interval_ns;
        t.alarm.take()
    };
    if let Some(a) = alarm {
        cpu::cancel(&a);
    }
    arm_cpu(p, which);
    old
}

fn arm_cpu(p: &Arc<Process>, which: usize) {
    let at = p.timers.lock().cpu[which].at_ns;
    if at == 0 {
        return;
    }
    let weak = Arc::downgrade(p);
    let id = cpu::at(&clock_of(p, which), at, move || cpu_expired(&weak, which));
    p.timers.lock().cpu[which].alarm = id;
}

fn cpu_expired(p: &Weak<Process>, which: usize) {
    let Some(p) = p.upgrade() else { return };
    let now = clock_of(&p, which).glance().unwrap_or(0);
    {
        let t = &mut p.timers.lock().cpu[which];
        if t.at_ns == 0 || t.at_ns > now {
            return;
        }
        t.alarm = None;
        t.at_ns = next(t.at_ns, t.interval_ns, now).0;
    }
    let sig = [signo::SIGVTALRM, signo::SIGPROF][which];
    to_process(&p, SigInfo::kernel(sig));
    arm_cpu(&p, which);
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
        t.real.0 = next(at, interval, monotonic_ns()).0;
        t.real.0 != 0
    };
    to_process(&p, SigInfo::kernel(signo::SIGALRM));
    if again {
        arm_real(&p);
    }
}

/// The next expiry after `now` and how many were missed.
fn next(at: u64, interval: u64, now: u64) -> (u64, u64) {
    if interval == 0 {
        return (0, 0);
    }
    let late = now.saturating_sub(at) / interval;
    (
        at.saturating_add(late.saturating_add(1).saturating_mul(interval)),
        late,
    )
}

/// Arms a POSIX timer that is set in the table. One that tells nobody is only looked at.
pub fn arm(p: &Arc<Process>, id: i32) {
    let (at, clock) = match p.timers.lock().posix.get(&id) {
        Some(t) if t.at_ns != 0 && t.signo != 0 => (t.at_ns, t.cpu.clone()),
        _ => return,
    };
    let weak = Arc::downgrade(p);
    let job = move || expired(&weak, id);
    let alarm = match clock {
        None => Some(Pending::Time(timers::at(at, job))),
        Some(c) => cpu::at(&c, at, job).map(Pending::Cpu),
    };
    if let Some(t) = p.timers.lock().posix.get_mut(&id) {
        t.alarm = alarm;
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
    let clock = p.timers.lock().posix.get(&id).and_then(|t| t.cpu.clone());
    let now = now_of(clock.as_ref());
    let overrun = {
        let mut timers = p.timers.lock();
        let Some(t) = timers.posix.get_mut(&id) else {
            return 0;
        };
        if !t.waiting {
            return t.overrun;
        }
        t.waiting = false;
        let (at, missed) = next(t.at_ns, t.interval_ns, now);
        t.at_ns = at.max(now.saturating_add(at_least_ns));
        t.overrun = missed.min(i32::MAX as u64) as i32;
        t.overrun
    };
    arm(p, id);
    overrun
}

/// Time of a timer's clock, as far as can be seen at once.
fn now_of(clock: Option<&CpuClock>) -> u64 {
    clock.map_or_else(monotonic_ns, |c| c.glance().unwrap_or(0))
}

impl PosixTimer {
    /// What is left until it expires next when its clock shows `now`, ns; 0 = it does not.
    pub fn left_ns(&self, now: u64) -> u64 {
        let at = match self.at_ns {
            at if at > now || at == 0 => at,
            at => next(at, self.interval_ns, now).0,
        };
        if at == 0 { 0 } else { at.saturating_sub(now).max(1) }
    }
}
