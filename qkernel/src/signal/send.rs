//! Sending signals. Source: `signal(7)`, `kill(2)`, `pid_namespaces(7)`.

use super::info::{Fields, code};
use super::{DefaultAction, SIG_DFL, SIG_IGN, SigInfo, SigSet, default_action, signo};
use crate::sched::wait::Events;
use crate::task::creds::{Creds, cap};
use crate::task::process::StopState;
use crate::task::task::{TaskSignals, entry, work};
use crate::task::{Process, Task, table};
use crate::time::posix;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use qlib::Errno;

const STOPS: SigSet = SigSet::of(signo::SIGSTOP)
    .with(signo::SIGTSTP)
    .with(signo::SIGTTIN)
    .with(signo::SIGTTOU);

/// Whether a process with `from` may signal one that runs as `to`.
pub fn may_signal(from: &Creds, to: &Creds) -> bool {
    from.capable_in(&to.user, cap::KILL)
        || from.euid == to.suid
        || from.euid == to.uid
        || from.uid == to.suid
        || from.uid == to.uid
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is pending, or has done its work.
    Taken,
    /// It is ignored, or the same standard signal was pending.
    Dropped,
    /// A real-time signal for which RLIMIT_SIGPENDING has no room.
    Full,
}

/// Sends to a process: any of its tasks may take it.
pub fn to_process(p: &Arc<Process>, info: SigInfo) -> Sent {
    send(p, None, info, false)
}

/// Sends to one task.
pub fn to_task(t: &Arc<Task>, info: SigInfo) -> Sent {
    send(&t.process, Some(t), info, false)
}

/// Whether a process has as many signals pending as RLIMIT_SIGPENDING allows.
fn is_full(p: &Process, tasks: &[Arc<Task>]) -> bool {
    const RLIMIT_SIGPENDING: usize = 11;
    let limit = p.rlimits.lock()[RLIMIT_SIGPENDING].0;
    let shared = p.pending.lock().len();
    let own: usize = tasks.iter().map(|t| t.signals.lock().pending.len()).sum();
    (shared + own) as u64 >= limit
}

/// Sends from outside the container: init cannot refuse SIGKILL and SIGSTOP.
pub fn from_host(p: &Arc<Process>, info: SigInfo) {
    send(p, None, info, true);
}

/// Sends to every process of a group; returns how many there are.
pub fn to_group(pgid: u32, info: SigInfo) -> usize {
    let members = table::group(pgid);
    for p in &members {
        to_process(p, info);
    }
    members.len()
}

/// Raises a fault in the calling task: it cannot be ignored, and blocked it kills.
pub fn force(t: &Arc<Task>, info: SigInfo) {
    let sig = info.signo;
    {
        let handlers = t.process.handlers.lock().clone();
        let mut actions = handlers.actions.lock();
        let mut signals = t.signals.lock();
        let blocked = signals.blocked.has(sig);
        let action = &mut actions[sig as usize - 1];
        if blocked || action.handler == SIG_IGN {
            action.handler = SIG_DFL;
            signals.blocked = signals.blocked.without(SigSet::of(sig));
        }
        signals.pending.push(info);
    }
    t.notify(work::SIGNAL);
}

/// Ends a process with a wait status (`exit_group`, a fatal signal). The first status counts.
pub fn kill_group(p: &Process, status: i32) {
    let _ = p
        .exit_status
        .compare_exchange(-1, status, Ordering::SeqCst, Ordering::SeqCst);
    let tasks = p.tasks.lock().clone();
    for t in tasks {
        t.notify(work::KILL);
    }
}

/// Ends a process by SIGKILL, whoever it is.
pub fn slay(p: &Arc<Process>) {
    // A stopped task must know that it is to die before it wakes, and nobody hears of a continuation.
    kill_group(p, signo::SIGKILL as i32);
    *p.stop.lock() = (StopState::Running, false, false);
}

/// Whether the calling task is in a pid namespace above the process's, so that it has no number for it.
fn from_above(p: &Process) -> bool {
    let ns = p.pid_ns();
    !ns.is_root() && crate::task::current().is_some_and(|t| t.process.numbers.shown(ns) == 0)
}

/// What the process is told: the numbers of others as it knows them.
fn as_seen_by(p: &Process, mut info: SigInfo, above: bool) -> SigInfo {
    match &mut info.fields {
        Fields::Sender { pid, .. } | Fields::Child { pid, .. } => *pid = p.pid_ns().shown(*pid),
        // Where `si_pid` is in what an app made up.
        Fields::Raw(bytes) if above => bytes[4..8].fill(0),
        _ => {}
    }
    info
}

fn send(p: &Arc<Process>, only: Option<&Arc<Task>>, info: SigInfo, outside: bool) -> Sent {
    let sig = info.signo;
    let action = {
        let handlers = p.handlers.lock().clone();
        let actions = handlers.actions.lock();
        actions[sig as usize - 1]
    };
    let above = from_above(p);
    let info = as_seen_by(p, info, above);
    let forced = (outside || above) && (sig == signo::SIGKILL || sig == signo::SIGSTOP);
    let unkillable = p.is_init() && !forced;
    if STOPS.has(sig) {
        discard(p, SigSet::of(signo::SIGCONT));
    } else if sig == signo::SIGCONT {
        discard(p, STOPS);
        resume(p);
    }
    if sig == signo::SIGKILL {
        if !unkillable {
            slay(p);
        }
        return Sent::Taken;
    }
    let default = action.handler == SIG_DFL;
    let dropped = action.handler == SIG_IGN && sig != signo::SIGSTOP
        || default && matches!(default_action(sig), DefaultAction::Ignore)
        || default && unkillable && !matches!(default_action(sig), DefaultAction::Continue);
    let tasks = p.tasks.lock().clone();
    let wanted = |t: &Task| {
        let s = t.signals.lock();
        s.blocked.has(sig) || s.awaited.has(sig)
    };
    let kept = match only {
        Some(t) => wanted(t),
        None => tasks.iter().any(|t| wanted(t)),
    };
    // A tracer sees what would be ignored.
    let traced = |t: &Arc<Task>| t.entry.load(Ordering::Relaxed) & entry::TRACED != 0;
    if dropped && !kept && !only.map_or_else(|| tasks.iter().any(traced), traced) {
        return Sent::Dropped;
    }
    if sig >= signo::SIGRTMIN && is_full(p, &tasks) {
        return Sent::Full;
    }
    let queued = match only {
        Some(t) => {
            let queued = t.signals.lock().pending.push(info);
            if deliverable(t, sig) {
                t.notify(work::SIGNAL);
            }
            queued
        }
        None => {
            let queued = p.pending.lock().push(info);
            // Any task that does not block it will do; the leader first.
            let taker = tasks.iter().find(|t| t.tid() == p.pid && deliverable(t, sig));
            if let Some(t) = taker.or_else(|| tasks.iter().find(|t| deliverable(t, sig))) {
                t.notify(work::SIGNAL);
            }
            queued
        }
    };
    p.signal_wait.wake(Events::IN);
    if queued { Sent::Taken } else { Sent::Dropped }
}

/// Whether the task would take the signal now.
fn deliverable(t: &Task, sig: u32) -> bool {
    let s = t.signals.lock();
    (!s.blocked.has(sig) || s.awaited.has(sig)) && !t.exited.load(Ordering::Relaxed)
}

/// Drops the pending signals of a set.
pub fn discard(p: &Arc<Process>, set: SigSet) {
    let mut timers = p.pending.lock().discard(set);
    let tasks = p.tasks.lock().clone();
    for t in tasks {
        timers.extend(t.signals.lock().pending.discard(set));
    }
    for id in timers {
        posix::taken(p, id);
    }
}

/// Takes the next pending signal of a task that `wanted` chooses.
pub fn take(task: &Task, wanted: impl FnOnce(&TaskSignals) -> SigSet) -> Option<SigInfo> {
    let mut info = {
        let mut shared = task.process.pending.lock();
        let mut own = task.signals.lock();
        let wanted = wanted(&own);
        own.pending.take(wanted).or_else(|| shared.take(wanted))?
    };
    if let Fields::Timer { id, overrun, .. } = &mut info.fields {
        *overrun = posix::taken(&task.process, *id);
    }
    Some(info)
}

/// Continues a stopped process and tells its parent.
fn resume(p: &Arc<Process>) {
    {
        let mut stop = p.stop.lock();
        if stop.0 == StopState::Running {
            return;
        }
        // The stop needs no report any more, the continuation does.
        *stop = (StopState::Running, false, true);
    }
    crate::trace::tracer::continued(p);
    p.signal_wait.wake_all();
    notify_parent(p, code::CLD_CONTINUED, signo::SIGCONT as i32);
}

/// Tells the parent of a child's stop or continuation.
pub fn notify_parent(p: &Arc<Process>, how: i32, status: i32) {
    let parent = p.family.lock().parent.as_ref().and_then(|w| w.upgrade());
    if let Some(parent) = parent {
        tell(&parent, p, how, status);
    }
}

/// Tells `parent` of a change of its child `p` by SIGCHLD and wakes its waiters.
pub fn tell(parent: &Arc<Process>, p: &Arc<Process>, how: i32, status: i32) {
    let stop = matches!(how, code::CLD_STOPPED | code::CLD_CONTINUED | code::CLD_TRAPPED);
    let action = {
        let handlers = parent.handlers.lock().clone();
        let actions = handlers.actions.lock();
        actions[signo::SIGCHLD as usize - 1]
    };
    let sig = if stop { signo::SIGCHLD } else { p.end_signal() };
    if sig != 0 && !(stop && action.flags & super::sa::NOCLDSTOP != 0) {
        let usage = *p.usage.lock();
        let ticks = |ns: u64| (ns / 10_000_000) as i64;
        let uid = p.uid();
        let fields = Fields::Child {
            pid: p.pid,
            uid,
            status,
            utime: ticks(usage.user_ns),
            stime: ticks(usage.system_ns),
        };
        to_process(
            parent,
            SigInfo {
                signo: sig,
                errno: 0,
                code: how,
                fields,
            },
        );
    }
    parent.child_wait.wake_all();
}

/// Checks a signal number from an app.
///
/// # Errors
/// EINVAL.
pub fn check(sig: u32) -> Result<(), Errno> {
    if sig <= signo::MAX {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}
