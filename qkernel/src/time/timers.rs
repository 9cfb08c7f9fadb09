//! The timer thread: runs what is due. Interval and POSIX timers, and alarms of other objects (timerfd).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::clock::monotonic_ns;
use hal::sync::{Once, SpinLock};
use hal::thread::ThreadRef;

use crate::task::Process;

/// Names an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlarmId {
    at_ns: u64,
    serial: u64,
}

type Job = Box<dyn FnOnce() + Send>;

/// Jobs by time.
static ALARMS: SpinLock<BTreeMap<AlarmId, Job>> = SpinLock::new(BTreeMap::new());
static SERIAL: AtomicU64 = AtomicU64::new(0);
static THREAD: Once<ThreadRef> = Once::new();

/// Starts the timer thread.
///
/// # Errors
/// As [`hal::thread::spawn`].
pub fn start() -> Result<(), qlib::Errno> {
    let t = hal::thread::spawn("timers", None, hal::thread::NewSpace::Kernel, run)?;
    THREAD.call_once(|| t);
    Ok(())
}

fn run() {
    loop {
        let now = monotonic_ns();
        loop {
            let due = {
                let mut alarms = ALARMS.lock();
                match alarms.first_key_value() {
                    Some((id, _)) if id.at_ns <= now => alarms.pop_first(),
                    _ => None,
                }
            };
            match due {
                Some((_, job)) => job(),
                None => break,
            }
        }
        let next = ALARMS.lock().first_key_value().map(|(id, _)| id.at_ns);
        hal::thread::park(next);
    }
}

/// Runs `job` on the timer thread at `at_ns` (monotonic). The job must not wait.
pub fn at(at_ns: u64, job: impl FnOnce() + Send + 'static) -> AlarmId {
    let id = AlarmId {
        at_ns,
        serial: SERIAL.fetch_add(1, Ordering::Relaxed),
    };
    let first = {
        let mut alarms = ALARMS.lock();
        alarms.insert(id, Box::new(job));
        alarms.first_key_value().is_some_and(|(k, _)| *k == id)
    };
    if first && let Some(t) = THREAD.get() {
        t.unpark();
    }
    id
}

/// Cancels; `false` when it ran or runs already.
pub fn cancel(id: AlarmId) -> bool {
    let job = ALARMS.lock().remove(&id);
    job.is_some()
}

/// Drops POSIX timers (exec, exit); at exit interval timers go with the process.
pub fn forget(p: &Process) {
    let old = {
        let mut t = p.timers.lock();
        core::mem::take(&mut t.posix)
    };
    for timer in old.into_values() {
        if let Some(a) = timer.alarm {
            a.cancel();
        }
    }
    if p.tasks.lock().is_empty() {
        let alarm = p.timers.lock().real_alarm.take();
        if let Some(a) = alarm {
            cancel(a);
        }
        super::cpu::forget(p);
    }
}
