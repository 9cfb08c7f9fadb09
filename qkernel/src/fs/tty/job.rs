//! Job control: who may use a terminal, and sessions taking and leaving one. Source: `credentials(7)`, `termios(3)`,
//! Linux `drivers/tty/tty_jobctrl.c`.

use super::Tty;
use crate::ns::pid;
use crate::signal::{SIG_IGN, SigInfo, signo};
use crate::task::creds::cap;
use crate::task::{Process, Session, Task, table};
use alloc::sync::Arc;
use qlib::Errno;

/// Sends `sig` to every process of a group; 0 is no group.
pub fn signal_group(pgid: u32, sig: u32) {
    if pgid != 0 {
        for p in table::group(pgid) {
            signal_process(&p, sig);
        }
    }
}

fn signal_process(p: &Arc<Process>, sig: u32) {
    p.pending.lock().push(SigInfo::kernel(sig));
    let tasks = p.tasks.lock().clone();
    for t in tasks {
        t.notify(crate::task::task::work::SIGNAL);
    }
}

/// The session of a process.
pub fn session_of(p: &Process) -> Option<Arc<Session>> {
    p.family.lock().session.clone()
}

/// The controlling terminal of a process.
pub fn terminal_of(p: &Process) -> Option<Arc<Tty>> {
    let session = session_of(p)?;
    let tty = session.tty.lock();
    tty.clone()
}

/// Whether no process of the group has a parent in another group of the same session: nobody would continue it.
pub fn is_orphaned(pgid: u32) -> bool {
    table::group(pgid).iter().all(|p| {
        let (parent, session) = {
            let f = p.family.lock();
            (
                f.parent.as_ref().and_then(|w| w.upgrade()),
                f.session.as_ref().map(|s| s.sid),
            )
        };
        let Some(parent) = parent else { return true };
        let f = parent.family.lock();
        f.pgid == pgid || f.session.as_ref().map(|s| s.sid) != session
    })
}

/// Checks that the caller may read (`sig` SIGTTIN) or change (SIGTTOU) its controlling terminal now. A caller in a
/// background group is stopped: its group gets the signal.
///
/// # Errors
/// ERESTARTSYS after the signal was sent; EIO when it cannot stop (orphaned, or SIGTTIN is ignored or blocked).
pub fn check(tty: &Tty, sig: u32) -> Result<(), Errno> {
    let Some(task) = crate::task::current() else {
        return Ok(());
    };
    let owns = terminal_of(&task.process).is_some_and(|t| core::ptr::eq(&*t, tty));
    if !owns {
        return Ok(());
    }
    let foreground = tty.foreground();
    let pgid = task.process.family.lock().pgid;
    if foreground == 0 || foreground == pgid {
        return Ok(());
    }
    if ignores(&task, sig) {
        return if sig == signo::SIGTTIN {
            Err(Errno::EIO)
        } else {
            Ok(())
        };
    }
    if is_orphaned(pgid) {
        return Err(Errno::EIO);
    }
    signal_group(pgid, sig);
    Err(Errno::ERESTARTSYS)
}

fn ignores(task: &Task, sig: u32) -> bool {
    if task.signals.lock().blocked.has(sig) {
        return true;
    }
    let handlers = task.process.handlers.lock().clone();
    let actions = handlers.actions.lock();
    actions[sig as usize - 1].handler == SIG_IGN
}

/// Makes `tty` the controlling terminal of a session leader that has none, with its group in the foreground.
pub fn take(tty: &Arc<Tty>, process: &Process, session: &Arc<Session>) {
    let pgid = process.family.lock().pgid;
    {
        let mut i = tty.inner.lock();
        i.session = Arc::downgrade(session);
        i.pgrp = pgid;
    }
    *session.tty.lock() = Some(tty.clone());
}

/// A terminal was opened without O_NOCTTY: a session leader without a terminal takes it when no session has it.
pub fn opened(tty: &Arc<Tty>) {
    let Some(task) = crate::task::current() else {
        return;
    };
    let Some(session) = session_of(&task.process) else {
        return;
    };
    let free = tty.inner.lock().session.upgrade().is_none();
    if session.sid == task.process.pid && session.tty.lock().is_none() && free {
        take(tty, &task.process, &session);
    }
}

/// TIOCSCTTY.
///
/// # Errors
/// EPERM as `ioctl_tty(2)` lists.
pub fn set_controlling(tty: &Arc<Tty>, task: &Task, steal: bool) -> Result<(), Errno> {
    let session = session_of(&task.process).ok_or(Errno::EPERM)?;
    let leader = session.sid == task.process.pid;
    let other = tty.inner.lock().session.upgrade();
    if leader && other.as_ref().is_some_and(|o| Arc::ptr_eq(o, &session)) {
        return Ok(());
    }
    if !leader || session.tty.lock().is_some() {
        return Err(Errno::EPERM);
    }
    if let Some(other) = other {
        if !(steal && task.creds().capable(cap::SYS_ADMIN)) {
            return Err(Errno::EPERM);
        }
        *other.tty.lock() = None;
    }
    take(tty, &task.process, &session);
    Ok(())
}

/// TIOCNOTTY. A process that is not the leader keeps the session's terminal: the session owns it.
///
/// # Errors
/// ENOTTY when `tty` is not the caller's terminal.
pub fn give_up(tty: &Arc<Tty>, task: &Task) -> Result<(), Errno> {
    let session = session_of(&task.process).ok_or(Errno::ENOTTY)?;
    let owns = session.tty.lock().as_ref().is_some_and(|t| Arc::ptr_eq(t, tty));
    if !owns {
        return Err(Errno::ENOTTY);
    }
    if session.sid == task.process.pid {
        *session.tty.lock() = None;
        let pgrp = {
            let mut i = tty.inner.lock();
            i.session = Default::default();
            core::mem::take(&mut i.pgrp)
        };
        signal_group(pgrp, signo::SIGHUP);
        signal_group(pgrp, signo::SIGCONT);
    }
    Ok(())
}

/// TIOCGPGRP at the app's side.
///
/// # Errors
/// ENOTTY when `tty` is not the caller's terminal.
pub fn foreground(tty: &Arc<Tty>, task: &Task) -> Result<u32, Errno> {
    let mine = terminal_of(&task.process).is_some_and(|t| Arc::ptr_eq(&t, tty));
    if mine {
        Ok(tty.foreground())
    } else {
        Err(Errno::ENOTTY)
    }
}

/// TIOCSPGRP.
///
/// # Errors
/// ENOTTY (not the caller's terminal), EINVAL, ESRCH (no such group), EPERM (a group of another session), ERESTARTSYS (the
/// caller is in the background and stops).
pub fn set_foreground(tty: &Arc<Tty>, task: &Task, pgid: i32) -> Result<(), Errno> {
    check(tty, signo::SIGTTOU).map_err(|e| if e == Errno::EIO { Errno::ENOTTY } else { e })?;
    let session = session_of(&task.process).ok_or(Errno::ENOTTY)?;
    let mine = terminal_of(&task.process).is_some_and(|t| Arc::ptr_eq(&t, tty));
    if !mine {
        return Err(Errno::ENOTTY);
    }
    let pgid = u32::try_from(pgid).map_err(|_| Errno::EINVAL)?;
    let pgid = task.pid_ns().kernel(pgid).ok_or(Errno::ESRCH)?;
    let members = table::group(pgid);
    let first = members.first().ok_or(Errno::ESRCH)?;
    if !session_of(first).is_some_and(|s| Arc::ptr_eq(&s, &session)) {
        return Err(Errno::EPERM);
    }
    tty.inner.lock().pgrp = pgid;
    Ok(())
}

/// TIOCGSID.
///
/// # Errors
/// ENOTTY when no session has the terminal.
pub fn session_id(tty: &Tty) -> Result<u32, Errno> {
    let session = tty.inner.lock().session.upgrade();
    let session = session.ok_or(Errno::ENOTTY)?;
    Ok(session.numbers.shown(&pid::current()))
}

/// Tells a session that its terminal is gone: the leader gets SIGHUP and SIGCONT, and when it is the leader's exit that hung
/// up, the foreground group gets SIGHUP.
pub(super) fn hang_up_session(session: &Session, foreground: u32, exiting: bool) {
    if exiting {
        signal_group(foreground, signo::SIGHUP);
        return;
    }
    if let Some(leader) = table::process(session.sid) {
        signal_process(&leader, signo::SIGHUP);
        signal_process(&leader, signo::SIGCONT);
    }
}
