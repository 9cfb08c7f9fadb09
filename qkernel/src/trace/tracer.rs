//! The tracer's side: whom it traces, what it has still to hear, how tracing begins and ends.

use super::{Resume, Trace, option};
use crate::ns::pid::Pid;
use crate::signal::info::{Fields, code};
use crate::signal::send::{kill_group, to_process};
use crate::signal::{SigInfo, sa, signo};
use crate::task::task::{entry, work};
use crate::task::{Process, Task};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// A traced task that ended before its tracer heard of it.
pub struct Ended {
    /// Its numbers.
    pub pid: Pid,
    /// Its user.
    pub uid: u32,
    /// Wait status.
    pub status: i32,
    /// The process that ended with it, whose parent hears of it only after the tracer.
    pub process: Option<Arc<Process>>,
}

/// What a process traces.
#[derive(Default)]
pub struct Traced {
    /// Live tasks.
    pub live: Vec<Arc<Task>>,
    /// Ended ones.
    pub ended: Vec<Ended>,
    /// The tracer has ended: nobody hears of anything any more.
    pub over: bool,
}

/// Begins tracing.
pub fn link(tracer: &Arc<Process>, task: &Arc<Task>, seized: bool, options: u32) {
    *task.trace.lock() = Trace {
        tracer: Some(Arc::downgrade(tracer)),
        seized,
        options,
        ..Trace::default()
    };
    task.entry.fetch_or(entry::TRACED, Ordering::SeqCst);
    tracer.traced.lock().live.push(task.clone());
}

/// Ends tracing; the task goes on, with `signal` if it is not 0.
pub fn unlink(task: &Arc<Task>, signal: u32) {
    let tracer = {
        let mut t = task.trace.lock();
        let tracer = t.tracer.take().and_then(|w| w.upgrade());
        t.options = 0;
        t.interrupt = false;
        tracer
    };
    task.entry
        .fetch_and(!(entry::TRACED | entry::TRACE), Ordering::SeqCst);
    if let Some(p) = tracer {
        p.traced.lock().live.retain(|t| !Arc::ptr_eq(t, task));
    }
    resume(
        task,
        Resume {
            signal,
            ..Resume::default()
        },
    );
    // A stop of the whole process goes on as it is without a tracer.
    task.notify(work::SIGNAL);
}

/// Lets a stopped task go on.
pub fn resume(task: &Task, how: Resume) {
    {
        let mut t = task.trace.lock();
        let Some(stop) = t.stop.take() else { return };
        t.going_on = Some(stop.regs);
        t.resume = how;
    }
    task.trace_wait.wake_all();
}

/// Tells the tracer that a task of its stopped.
pub fn tell(tracer: &Arc<Process>, task: &Task, stop_code: u32) {
    let action = {
        let handlers = tracer.handlers.lock().clone();
        let actions = handlers.actions.lock();
        actions[signo::SIGCHLD as usize - 1]
    };
    if action.flags & sa::NOCLDSTOP == 0 {
        let info = SigInfo {
            signo: signo::SIGCHLD,
            errno: 0,
            code: code::CLD_TRAPPED,
            fields: Fields::Child {
                pid: task.tid(),
                uid: task.creds().uid,
                status: (stop_code & 0x7f) as i32,
                utime: 0,
                stime: 0,
            },
        };
        to_process(tracer, info);
    }
    tracer.child_wait.wake_all();
}

/// The calling task ends: its tracer hears of it. A process's own parent that traces it hears of the process as any parent does.
pub fn task_ended(task: &Arc<Task>, last: bool) {
    let Some(tracer) = super::tracer_of(task) else {
        return;
    };
    let p = &task.process;
    let parent = p.family.lock().parent.as_ref().and_then(Weak::upgrade);
    let by_parent = parent.is_some_and(|q| Arc::ptr_eq(&q, &tracer));
    let leader = task.tid() == p.pid;
    let group = p.exit_status.load(Ordering::SeqCst);
    let status = if group == -1 {
        task.exit_status.load(Ordering::Relaxed)
    } else {
        group
    };
    {
        let mut traced = tracer.traced.lock();
        traced.live.retain(|t| !Arc::ptr_eq(t, task));
        if !leader {
            traced.ended.push(Ended {
                pid: task.numbers.lock().clone(),
                uid: task.creds().uid,
                status,
                process: None,
            });
        } else if !by_parent {
            p.owed.store(true, Ordering::SeqCst);
            *p.owed_to.lock() = Some((Arc::downgrade(&tracer), task.creds().uid));
        }
    }
    task.trace.lock().tracer = None;
    if !last && !leader {
        tracer.child_wait.wake_all();
    }
}

/// The process has ended; a tracer that is not its parent hears of it first. `true`: the parent has to wait.
pub fn process_ended(p: &Arc<Process>) -> bool {
    let Some((tracer, uid)) = p.owed_to.lock().take() else {
        return false;
    };
    let Some(tracer) = tracer.upgrade().filter(|t| !t.zombie.load(Ordering::SeqCst)) else {
        return false;
    };
    {
        let mut traced = tracer.traced.lock();
        if traced.over {
            return false;
        }
        traced.ended.push(Ended {
            pid: p.numbers.clone(),
            uid,
            status: p.exit_status.load(Ordering::SeqCst),
            process: Some(p.clone()),
        });
    }
    to_process(&tracer, SigInfo::kernel(signo::SIGCHLD));
    tracer.child_wait.wake_all();
    true
}

/// The tracer has heard of the process's end, or will never: now its parent may.
pub fn release(p: &Arc<Process>) {
    let status = p.exit_status.load(Ordering::SeqCst);
    let (how, value) = match status & 0x7f {
        0 => (code::CLD_EXITED, status >> 8 & 0xff),
        sig if status & 0x80 != 0 => (code::CLD_DUMPED, sig),
        sig => (code::CLD_KILLED, sig),
    };
    crate::task::exit::tell_parent(p, how, value);
}

/// The process ends: what it traces goes on alone, or ends with it.
pub fn tracer_ended(p: &Arc<Process>) {
    let traced = {
        let over = Traced {
            over: true,
            ..Traced::default()
        };
        core::mem::replace(&mut *p.traced.lock(), over)
    };
    for t in &traced.live {
        let kill = t.trace.lock().options & option::EXIT_KILL != 0;
        unlink(t, 0);
        if kill {
            kill_group(&t.process, signo::SIGKILL as i32);
        }
    }
    for e in traced.ended {
        if let Some(q) = e.process {
            release(&q);
        }
    }
}

/// The process goes on after a stop: tracers that only listen to its tasks hear of it.
pub fn continued(p: &Process) {
    let tasks = p.tasks.lock().clone();
    for t in tasks
        .iter()
        .filter(|t| t.entry.load(Ordering::SeqCst) & entry::TRACED != 0)
    {
        let listening = {
            let mut trace = t.trace.lock();
            trace.past_stop = false;
            let listening = trace.stop.as_ref().is_some_and(|s| s.listening);
            trace.interrupt |= listening;
            listening
        };
        if listening {
            resume(t, Resume::default());
            t.notify(work::TRACE);
        }
    }
}
