//! Waiting for children. Source: `wait(2)`, `waitid(2)`.

use crate::sched::wait::{Events, WaitError, wait_until};
use crate::signal::info::code;
use crate::signal::signo;
use crate::task::exit::{claim, reap};
use crate::task::process::{StopState, Usage};
use crate::task::{Process, Task, table};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use qlib::Errno;

/// Options of wait4 and waitid.
#[allow(missing_docs)]
pub mod option {
    pub const NOHANG: u32 = 1;
    pub const STOPPED: u32 = 2;
    pub const EXITED: u32 = 4;
    pub const CONTINUED: u32 = 8;
    pub const NOWAIT: u32 = 0x0100_0000;
    pub const NOTHREAD: u32 = 0x2000_0000;
    pub const ALL: u32 = 0x4000_0000;
    pub const CLONE: u32 = 0x8000_0000;
}

/// Which children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Any.
    Any,
    /// The one with this pid.
    Pid(u32),
    /// Those of this group.
    Group(u32),
}

/// A change of a child.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The child, as the waiter knows it.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Status as wait4 gives it.
    pub status: u32,
    /// CLD_* code.
    pub code: i32,
    /// `si_status`.
    pub value: i32,
    /// Its resource usage.
    pub usage: Usage,
}

/// Waits for a change; `None` = nothing yet and NOHANG.
///
/// # Errors
/// ECHILD, ERESTARTSYS.
pub fn wait(task: &Arc<Task>, who: Who, options: u32) -> Result<Option<Change>, Errno> {
    let p = &task.process;
    let check = || match look(p, who, options) {
        Ok(Some(c)) => Some(Ok(Some(c))),
        Ok(None) if options & option::NOHANG != 0 => Some(Ok(None)),
        Ok(None) => None,
        Err(e) => Some(Err(e)),
    };
    match wait_until(&p.child_wait, Events::all(), None, check) {
        Ok(r) => r,
        Err(WaitError::Interrupted | WaitError::TimedOut) => Err(Errno::ERESTARTSYS),
    }
}

fn matches(c: &Process, who: Who, options: u32) -> bool {
    let chosen = match who {
        Who::Any => true,
        Who::Pid(pid) => c.pid == pid,
        Who::Group(pgid) => c.family.lock().pgid == pgid,
    };
    let clone_child = c.exit_signal.load(Ordering::Relaxed) != signo::SIGCHLD;
    let kind = options & option::ALL != 0 || clone_child == (options & option::CLONE != 0);
    chosen && kind
}

fn look(p: &Arc<Process>, who: Who, options: u32) -> Result<Option<Change>, Errno> {
    let children: alloc::vec::Vec<_> = {
        let _tree = table::TREE.lock();
        let children = p.family.lock().children.clone();
        children
            .into_iter()
            .filter(|c| matches(c, who, options))
            .collect()
    };
    let keep = options & option::NOWAIT != 0;
    let (traces, change) = traced(p, who, options, keep);
    if change.is_some() {
        return Ok(change);
    }
    if children.is_empty() && !traces {
        return Err(Errno::ECHILD);
    }
    for c in &children {
        let pid = c.numbers.shown(p.pid_ns());
        if let Some(change) = ended(c, pid, options, keep).or_else(|| stopped(c, pid, options, keep)) {
            return Ok(Some(change));
        }
    }
    Ok(None)
}

/// Whether the process traces any task that is meant, and a stop or end of one.
fn traced(p: &Process, who: Who, options: u32, keep: bool) -> (bool, Option<Change>) {
    let meant = |tid: u32, of: Option<&Process>| match who {
        Who::Any => true,
        Who::Pid(pid) => pid == tid,
        Who::Group(pgid) => of.is_some_and(|q| q.family.lock().pgid == pgid),
    };
    let mut any = false;
    let mut list = p.traced.lock();
    for at in 0..list.ended.len() {
        let e = &list.ended[at];
        if !meant(e.pid.number(), e.process.as_deref()) {
            continue;
        }
        any = true;
        if options & option::EXITED != 0 {
            let (code, value) = how_ended(e.status);
            let change = Change {
                pid: e.pid.shown(p.pid_ns()),
                uid: e.uid,
                status: e.status as u32,
                code,
                value,
                usage: Usage::default(),
            };
            if !keep {
                let e = list.ended.remove(at);
                drop(list);
                if let Some(q) = e.process {
                    crate::trace::tracer::release(&q);
                }
            }
            return (true, Some(change));
        }
    }
    for t in list.live.iter().filter(|t| meant(t.tid(), Some(&t.process))) {
        any = true;
        let mut trace = t.trace.lock();
        let Some(stop) = trace.stop.as_mut().filter(|s| !s.told && !s.listening) else {
            continue;
        };
        stop.told = !keep;
        let change = Change {
            pid: t.tid_in(p.pid_ns()),
            uid: t.creds().uid,
            status: stop.code << 8 | 0x7f,
            code: code::CLD_TRAPPED,
            value: stop.code as i32,
            usage: Usage::default(),
        };
        return (true, Some(change));
    }
    (any, None)
}

/// The CLD_* code and `si_status` of a wait status.
fn how_ended(status: i32) -> (i32, i32) {
    match status & 0x7f {
        0 => (code::CLD_EXITED, status >> 8 & 0xff),
        sig if status & 0x80 != 0 => (code::CLD_DUMPED, sig),
        sig => (code::CLD_KILLED, sig),
    }
}

fn ended(c: &Arc<Process>, pid: u32, options: u32, keep: bool) -> Option<Change> {
    if options & option::EXITED == 0 || !c.zombie.load(Ordering::SeqCst) || c.owed.load(Ordering::SeqCst) {
        return None;
    }
    if c.claimed.load(Ordering::SeqCst) {
        return None;
    }
    let status = c.exit_status.load(Ordering::SeqCst);
    let mut usage = *c.usage.lock();
    usage.add(&c.child_usage.lock());
    let (how, value) = how_ended(status);
    if !keep {
        if !claim(c) {
            return None;
        }
        reap(c);
    }
    Some(Change {
        pid,
        uid: c.uid(),
        status: status as u32,
        code: how,
        value,
        usage,
    })
}

fn stopped(c: &Arc<Process>, pid: u32, options: u32, keep: bool) -> Option<Change> {
    // The stops of a traced process are its tracer's.
    if c.tasks.lock().first().is_some_and(|t| t.traced()) {
        return None;
    }
    let mut stop = c.stop.lock();
    let change = |status: u32, how: i32, value: i32| Change {
        pid,
        uid: 0,
        status,
        code: how,
        value,
        usage: Usage::default(),
    };
    match stop.0 {
        StopState::Stopped(sig) if stop.1 && options & option::STOPPED != 0 => {
            stop.1 = keep;
            Some(change(sig << 8 | 0x7f, code::CLD_STOPPED, sig as i32))
        }
        StopState::Running if stop.2 && options & option::CONTINUED != 0 => {
            stop.2 = keep;
            Some(change(0xffff, code::CLD_CONTINUED, signo::SIGCONT as i32))
        }
        _ => None,
    }
}
