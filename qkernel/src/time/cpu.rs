//! CPU time: what tasks and processes used, the clocks of it, and alarms on those clocks.
//!
//! Nothing is counted at traps. Who wants to know looks at the machine's counters; where only a task's own address space can
//! (`process`), a task there is asked. An alarm is a look when the clock can have come there at the earliest.

use super::timers;
use crate::mm::remote;
use crate::task::task::work;
use crate::task::{Process, Task};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::clock::monotonic_ns;
use qlib::Errno;

/// CPU time of a task when last looked at. Never goes back.
#[derive(Debug, Default)]
pub struct CpuTime {
    total_ns: AtomicU64,
    user_ns: AtomicU64,
}

impl CpuTime {
    /// Notes what a look found, ns.
    pub fn note(&self, (user, system): (u64, u64)) {
        self.total_ns.fetch_max(user + system, Ordering::Relaxed);
        self.user_ns.fetch_max(user, Ordering::Relaxed);
    }
    /// All of it, ns.
    pub fn total_ns(&self) -> u64 {
        self.total_ns.load(Ordering::Relaxed)
    }
    /// In the app, ns.
    pub fn user_ns(&self) -> u64 {
        self.user_ns.load(Ordering::Relaxed).min(self.total_ns())
    }
    /// In the kernel, ns.
    pub fn system_ns(&self) -> u64 {
        self.total_ns() - self.user_ns()
    }
}

/// Looks at every task of a process; `false`: not all can be seen from here.
pub fn look(p: &Process) -> bool {
    let tasks = p.tasks.lock().clone();
    let mut all = true;
    for t in &tasks {
        all &= t.see_cpu();
    }
    all
}

/// (total, user) of a process as last seen, ns.
fn seen(p: &Process) -> (u64, u64) {
    let ended = *p.usage.lock();
    let mut sum = (ended.user_ns + ended.system_ns, ended.user_ns);
    for t in p.tasks.lock().iter() {
        sum.0 += t.cpu.total_ns();
        sum.1 += t.cpu.user_ns();
    }
    sum
}

/// A clock of CPU time.
#[derive(Clone)]
pub struct CpuClock {
    process: Weak<Process>,
    /// One task alone; `None` = the process.
    task: Option<Weak<Task>>,
    /// Time in the app only.
    user: bool,
}

impl CpuClock {
    /// The clock of a process.
    pub fn of_process(p: &Arc<Process>, user: bool) -> Self {
        Self {
            process: Arc::downgrade(p),
            task: None,
            user,
        }
    }
    /// The clock of a task.
    pub fn of_task(t: &Arc<Task>, user: bool) -> Self {
        Self {
            process: Arc::downgrade(&t.process),
            task: Some(Arc::downgrade(t)),
            user,
        }
    }
    /// What was seen last, ns; `None`: what it measures is gone.
    fn last(&self) -> Option<u64> {
        let (total, user) = match &self.task {
            None => seen(&*self.process.upgrade()?),
            Some(t) => {
                let t = t.upgrade().filter(|t| !t.exited.load(Ordering::SeqCst))?;
                (t.cpu.total_ns(), t.cpu.user_ns())
            }
        };
        Some(if self.user { user } else { total })
    }
    /// Time now as far as can be seen without asking anybody, ns.
    ///
    /// # Errors
    /// EINVAL when what it measures is gone.
    pub fn glance(&self) -> Result<u64, Errno> {
        let p = self.process.upgrade().ok_or(Errno::EINVAL)?;
        look(&p);
        self.last().ok_or(Errno::EINVAL)
    }
    /// Time now, ns; may wait for a task of the other process.
    ///
    /// # Errors
    /// EINVAL when what it measures is gone; EINTR when the caller is killed.
    pub fn read(&self) -> Result<u64, Errno> {
        let p = self.process.upgrade().ok_or(Errno::EINVAL)?;
        if !look(&p)
            && let Some(t) = one_that_answers(&p)
        {
            let theirs = p.clone();
            match remote::ask(&t, move || look(&theirs)) {
                // What is known is told.
                Ok(_) | Err(Errno::EIO) => {}
                Err(e) => return Err(e),
            }
        }
        self.last().ok_or(Errno::EINVAL)
    }
    /// How fast it can run: tasks that can run at once.
    fn speed(&self, p: &Process) -> u64 {
        match self.task {
            Some(_) => 1,
            None => (p.tasks.lock().len() as u64).clamp(1, u64::from(hal::boot::cpus().max(1))),
        }
    }
}

/// A task that can look at all of its process: one that runs, if any does.
fn one_that_answers(p: &Process) -> Option<Arc<Task>> {
    let tasks = p.tasks.lock();
    let running = tasks.iter().find(|t| t.state_letter() == b'R');
    running.or_else(|| tasks.first()).cloned()
}

type Job = Box<dyn FnOnce() + Send>;

struct Alarm {
    id: u64,
    clock: CpuClock,
    at_ns: u64,
    job: Job,
}

/// Alarms on the clocks of a process and its tasks.
#[derive(Default)]
pub struct CpuAlarms {
    alarms: Vec<Alarm>,
    serial: u64,
    /// The next look.
    look: Option<timers::AlarmId>,
    /// CPU time at the last look, and how long to wait while there is nothing new, ns.
    last: (u64, u64),
}

/// Names an alarm.
#[derive(Clone)]
pub struct CpuAlarmId {
    process: Weak<Process>,
    id: u64,
}

/// Distance of two looks, ns: as fine as a tick of Linux's, and while the process sleeps.
const TICK_NS: u64 = 1_000_000;
const ASLEEP_NS: u64 = 20_000_000;
/// A process that used less than this between two looks sleeps, ns.
const NOTHING_NS: u64 = 100_000;

/// Runs `job` once `clock` shows `at_ns`. The job must not wait. `None`: what the clock measures is gone. No lock may be held.
pub fn at(clock: &CpuClock, at_ns: u64, job: impl FnOnce() + Send + 'static) -> Option<CpuAlarmId> {
    let p = clock.process.upgrade()?;
    let id = {
        let mut a = p.cpu_alarms.lock();
        a.serial += 1;
        let id = a.serial;
        a.alarms.push(Alarm {
            id,
            clock: clock.clone(),
            at_ns,
            job: Box::new(job),
        });
        a.last.1 = a.last.1.min(TICK_NS);
        id
    };
    plan(&p);
    Some(CpuAlarmId {
        process: Arc::downgrade(&p),
        id,
    })
}

/// Cancels; an alarm that ran or runs is none any more.
pub fn cancel(id: &CpuAlarmId) {
    let Some(p) = id.process.upgrade() else { return };
    let alarm = {
        let mut a = p.cpu_alarms.lock();
        a.alarms
            .iter()
            .position(|x| x.id == id.id)
            .map(|i| a.alarms.swap_remove(i))
    };
    drop(alarm);
}

/// Drops all alarms: the process has ended.
pub fn forget(p: &Process) {
    let old = core::mem::take(&mut *p.cpu_alarms.lock());
    if let Some(look) = old.look {
        timers::cancel(look);
    }
}

/// Sets the next look, if any is needed.
pub fn plan(p: &Arc<Process>) {
    if p.cpu_alarms.lock().alarms.is_empty() {
        return;
    }
    let known = look(p);
    let mut a = p.cpu_alarms.lock();
    let left = |x: &Alarm| match x.clock.last() {
        Some(now) if known => x.at_ns.saturating_sub(now) / x.clock.speed(p),
        // Somebody who knows must look.
        _ => 0,
    };
    let Some(left) = a.alarms.iter().map(left).min() else {
        return;
    };
    let wait = if known { left.max(a.last.1) } else { a.last.1 };
    let weak = Arc::downgrade(p);
    let next = timers::at(monotonic_ns().saturating_add(wait), move || {
        if let Some(p) = weak.upgrade() {
            time_to_look(&p);
        }
    });
    let old = a.look.replace(next);
    drop(a);
    if let Some(old) = old {
        timers::cancel(old);
    }
}

fn time_to_look(p: &Arc<Process>) {
    p.cpu_alarms.lock().look = None;
    if look(p) {
        run_due(p);
    } else if let Some(t) = one_that_answers(p) {
        let theirs = p.clone();
        t.calls.lock().push(Box::new(move || {
            look(&theirs);
            run_due(&theirs);
        }));
        t.notify(work::CALL);
    }
}

/// Runs the jobs whose time has come, and sets the next look. Called where all tasks were just looked at.
fn run_due(p: &Arc<Process>) {
    let due: Vec<Alarm> = {
        let mut a = p.cpu_alarms.lock();
        let total = seen(p).0;
        let used = total.saturating_sub(a.last.0);
        let pause = match a.last.1 {
            n if used < NOTHING_NS => (n * 2).min(ASLEEP_NS),
            _ => 0,
        };
        a.last = (total, pause.max(TICK_NS));
        let mut due = Vec::new();
        let mut i = 0;
        while i < a.alarms.len() {
            let x = &a.alarms[i];
            match x.clock.last() {
                Some(now) if now < x.at_ns => i += 1,
                // One whose task is gone is dropped below, unlocked.
                _ => due.push(a.alarms.swap_remove(i)),
            }
        }
        due
    };
    for x in due {
        if x.clock.last().is_some() {
            (x.job)();
        }
    }
    plan(p);
}

/// Lets RLIMIT_CPU hold from now on: SIGXCPU at the soft limit and each second after it, the end at the hard one.
pub fn limit_changed(p: &Arc<Process>) {
    let old = p.timers.lock().limit_alarm.take();
    if let Some(old) = old {
        cancel(&old);
    }
    let soft = p.rlimits.lock()[RLIMIT_CPU].0;
    if soft == u64::MAX {
        return;
    }
    let weak = Arc::downgrade(p);
    let clock = CpuClock::of_process(p, false);
    let alarm = at(&clock, soft.saturating_mul(super::SECOND_NS), move || {
        if let Some(p) = weak.upgrade() {
            limit_reached(&p);
        }
    });
    p.timers.lock().limit_alarm = alarm;
}

const RLIMIT_CPU: usize = 0;

fn limit_reached(p: &Arc<Process>) {
    use crate::signal::{SigInfo, send, signo};
    let used = seen(p).0;
    let over = {
        let mut limits = p.rlimits.lock();
        let (soft, hard) = &mut limits[RLIMIT_CPU];
        let over = *hard != u64::MAX && used >= hard.saturating_mul(super::SECOND_NS);
        if !over {
            // As Linux: the limit that is told moves on.
            *soft += 1;
        }
        over
    };
    if over {
        send::kill_group(p, signo::SIGKILL as i32);
        return;
    }
    send::to_process(p, SigInfo::kernel(signo::SIGXCPU));
    limit_changed(p);
}
