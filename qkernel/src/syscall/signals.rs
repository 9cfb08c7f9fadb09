//! Signals. Source: the man pages of the same names, `signal(7)`.

use super::Support::{Full, Partial};
use super::process::by_number;
use super::{Args, Ctx, SysResult};
use crate::ns::pid::INIT;
use crate::rows;
use crate::sched::wait::{Events, WaitError, wait_until};
use crate::signal::deliver::{self, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, on_alt_stack, set_mask};
use crate::signal::info::code;
use crate::signal::send::Sent;
use crate::signal::send::{self, may_signal};
use crate::signal::{DefaultAction, SIG_DFL, SIG_IGN, SigAction, SigInfo, SigSet, default_action, signo};
use crate::task::task::work;
use crate::task::{Process, Task, pidfd, table};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::user::{UserPtr, copy_in, copy_out};
use qlib::Errno;

/// Bytes of the kernel's sigset_t.
const SET_BYTES: u64 = 8;
/// Least size of an alternate stack.
const MINSIGSTKSZ: u64 = 2048;

fn set_at(addr: u64, size: u64) -> SysResult<SigSet> {
    if size != SET_BYTES {
        return Err(Errno::EINVAL);
    }
    Ok(SigSet(UserPtr::<u64>::new(addr).read()?))
}

fn sys_rt_sigaction(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (sig, new, old, size) = (a.u32(0), a.u64(1), a.u64(2), a.u64(3));
    if size != SET_BYTES || sig == 0 || sig > signo::MAX {
        return Err(Errno::EINVAL);
    }
    if new != 0 && SigSet::UNBLOCKABLE.has(sig) {
        return Err(Errno::EINVAL);
    }
    let action = if new == 0 {
        None
    } else {
        let w = |i: usize| UserPtr::<u64>::new(new).at(i).read();
        let mask = SigSet(w(3)?).without(SigSet::UNBLOCKABLE);
        Some(SigAction {
            handler: w(0)?,
            flags: w(1)?,
            restorer: w(2)?,
            mask,
        })
    };
    let p = &ctx.task.process;
    let handlers = p.handlers.lock().clone();
    let before = {
        let mut actions = handlers.actions.lock();
        let slot = &mut actions[sig as usize - 1];
        let before = *slot;
        if let Some(n) = action {
            *slot = n;
        }
        before
    };
    if let Some(n) = action {
        let ignored =
            n.handler == SIG_IGN || n.handler == SIG_DFL && default_action(sig) == DefaultAction::Ignore;
        if ignored {
            send::discard(p, SigSet::of(sig));
        }
    }
    if old != 0 {
        let mut b = [0u8; 32];
        for (i, v) in [before.handler, before.flags, before.restorer, before.mask.0]
            .iter()
            .enumerate()
        {
            b[i * 8..i * 8 + 8].copy_from_slice(&v.to_le_bytes());
        }
        copy_out(old, &b)?;
    }
    Ok(0)
}

fn sys_rt_sigprocmask(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (how, new, old, size) = (a.i32(0), a.u64(1), a.u64(2), a.u64(3));
    if size != SET_BYTES {
        return Err(Errno::EINVAL);
    }
    let before = ctx.task.signals.lock().blocked;
    if new != 0 {
        let set = set_at(new, size)?;
        let mask = match how {
            0 => before.union(set),
            1 => before.without(set),
            2 => set,
            _ => return Err(Errno::EINVAL),
        };
        set_mask(ctx.task, mask);
    }
    if old != 0 {
        UserPtr::new(old).write(&before.0)?;
    }
    Ok(0)
}

fn sys_rt_sigpending(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    if a.u64(1) > SET_BYTES {
        return Err(Errno::EINVAL);
    }
    let shared = ctx.task.process.pending.lock().set();
    let s = ctx.task.signals.lock();
    let set = shared.union(s.pending.set()).0 & s.blocked.0;
    drop(s);
    copy_out(a.u64(0), &set.to_le_bytes()[..a.u64(1) as usize])?;
    Ok(0)
}

/// Blocks `mask` until the call ends and remembers the mask to come back to (`sigsuspend`, `ppoll`, `pselect`, `epoll_pwait`).
pub fn mask_during_call(task: &Arc<Task>, mask: SigSet) {
    let before = task.signals.lock().blocked;
    task.signals.lock().saved = Some(before);
    set_mask(task, mask);
}

fn sys_rt_sigsuspend(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let set = set_at(a.u64(0), a.u64(1))?;
    mask_during_call(ctx.task, set);
    let _ = wait_until(&ctx.task.process.signal_wait, Events::all(), None, || None::<()>);
    Err(Errno::ERESTARTNOHAND)
}

fn sys_pause(ctx: &mut Ctx<'_>) -> SysResult {
    let _ = wait_until(&ctx.task.process.signal_wait, Events::all(), None, || None::<()>);
    Err(Errno::ERESTARTNOHAND)
}

fn sys_rt_sigtimedwait(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let wanted = set_at(a.u64(0), a.u64(3))?.without(SigSet::UNBLOCKABLE);
    let deadline = crate::time::deadline_after(a.u64(2))?;
    let take = || send::take(ctx.task, |_| wanted);
    let got = match take() {
        Some(i) => Ok(i),
        None => {
            ctx.task.signals.lock().awaited = wanted;
            let r = loop {
                match wait_until(&ctx.task.process.signal_wait, Events::all(), deadline, take) {
                    // The wake may be for a signal that is awaited: then it is taken, not delivered.
                    Err(WaitError::Interrupted) => {
                        if let Some(i) = take() {
                            break Ok(i);
                        }
                        ctx.task.work.fetch_and(!work::SIGNAL, Ordering::SeqCst);
                        if ctx.task.interrupted() || has_deliverable(ctx.task) {
                            break Err(WaitError::Interrupted);
                        }
                    }
                    r => break r,
                }
            };
            ctx.task.signals.lock().awaited = SigSet::default();
            ctx.task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
            r
        }
    };
    match got {
        Ok(info) => {
            if a.u64(1) != 0 {
                copy_out(a.u64(1), &info.to_bytes())?;
            }
            Ok(u64::from(info.signo))
        }
        Err(WaitError::TimedOut) => Err(Errno::EAGAIN),
        Err(WaitError::Interrupted) => Err(Errno::EINTR),
    }
}

fn has_deliverable(task: &Task) -> bool {
    let shared = task.process.pending.lock().set();
    let s = task.signals.lock();
    s.pending.set().union(shared).without(s.blocked).0 != 0
}

fn sys_rt_sigreturn(ctx: &mut Ctx<'_>) -> SysResult {
    if deliver::sigreturn(ctx).is_err() {
        ctx.regs.end_syscall();
        send::force(ctx.task, SigInfo::kernel(signo::SIGSEGV));
    }
    Ok(0)
}

fn sys_sigaltstack(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (new, old) = (a.u64(0), a.u64(1));
    let before = ctx.task.signals.lock().alt_stack;
    let active = on_alt_stack(before, ctx.regs.sp());
    if new != 0 {
        let mut b = [0u8; 24];
        copy_in(&mut b, new)?;
        let word = |at: usize| {
            let mut w = [0u8; 8];
            w.copy_from_slice(&b[at..at + 8]);
            u64::from_le_bytes(w)
        };
        let (base, flags, size) = (word(0), word(8) as u32, word(16));
        if active {
            return Err(Errno::EPERM);
        }
        let mode = flags & !SS_AUTODISARM;
        if mode != 0 && mode != SS_ONSTACK && mode != SS_DISABLE {
            return Err(Errno::EINVAL);
        }
        let stack = if mode == SS_DISABLE {
            (0, 0, 0)
        } else if size < MINSIGSTKSZ {
            return Err(Errno::ENOMEM);
        } else {
            (base, flags & SS_AUTODISARM, size)
        };
        ctx.task.signals.lock().alt_stack = stack;
    }
    if old != 0 {
        let flags = match before {
            (_, _, 0) => SS_DISABLE,
            (_, f, _) if active => f & SS_AUTODISARM | SS_ONSTACK,
            (_, f, _) => f & SS_AUTODISARM,
        };
        let mut b = [0u8; 24];
        b[0..8].copy_from_slice(&before.0.to_le_bytes());
        b[8..12].copy_from_slice(&flags.to_le_bytes());
        b[16..24].copy_from_slice(&before.2.to_le_bytes());
        copy_out(old, &b)?;
    }
    Ok(0)
}

/// Whether the caller may send `sig` to the process.
fn allowed(ctx: &Ctx<'_>, p: &Process, sig: u32) -> bool {
    if core::ptr::eq(&*ctx.task.process, p) {
        return true;
    }
    let session = |p: &Process| p.family.lock().session.as_ref().map(|s| s.sid);
    if sig == signo::SIGCONT && session(p) == session(&ctx.task.process) {
        return true;
    }
    let target = p.tasks.lock().first().map(|t| t.creds());
    // A zombie takes any signal and does nothing.
    target.is_none_or(|t| may_signal(&ctx.task.creds(), &t))
}

fn sys_kill(ctx: &mut Ctx<'_>, pid: i32, sig: u32) -> SysResult {
    send::check(sig)?;
    let me = &ctx.task.process;
    let info = SigInfo::user(sig, code::SI_USER, me.pid, ctx.task.creds().uid);
    if pid > 0 {
        let p = by_number(ctx, pid as u32).ok_or(Errno::ESRCH)?;
        if !allowed(ctx, &p, sig) {
            return Err(Errno::EPERM);
        }
        if sig != 0 {
            send::to_process(&p, info);
        }
        return Ok(0);
    }
    // The lock must be free when the group is looked up.
    let own_group = me.family.lock().pgid;
    let targets = match pid {
        -1 => table::processes_in(me.pid_ns())
            .into_iter()
            .filter(|(n, p)| *n != INIT && !Arc::ptr_eq(p, me))
            .map(|(_, p)| p)
            .collect(),
        0 => table::group(own_group),
        i32::MIN => return Err(Errno::ESRCH),
        g => match me.pid_ns().kernel(g.unsigned_abs()) {
            Some(g) => table::group(g),
            None => Vec::new(),
        },
    };
    if targets.is_empty() {
        return Err(Errno::ESRCH);
    }
    let mut sent = 0;
    for p in &targets {
        if allowed(ctx, p, sig) {
            sent += 1;
            if sig != 0 {
                send::to_process(p, info);
            }
        }
    }
    if sent == 0 { Err(Errno::EPERM) } else { Ok(0) }
}

fn find_task(ctx: &Ctx<'_>, tgid: Option<i32>, tid: i32) -> SysResult<Arc<Task>> {
    if tid <= 0 || tgid.is_some_and(|g| g <= 0) {
        return Err(Errno::EINVAL);
    }
    let ns = ctx.task.pid_ns();
    let t = table::task_in(ns, tid as u32).ok_or(Errno::ESRCH)?;
    if tgid.is_some_and(|g| g as u32 != t.process.numbers.shown(ns)) {
        return Err(Errno::ESRCH);
    }
    Ok(t)
}

fn sys_tkill(ctx: &mut Ctx<'_>, tgid: Option<i32>, tid: i32, sig: u32) -> SysResult {
    send::check(sig)?;
    let t = find_task(ctx, tgid, tid)?;
    if !allowed(ctx, &t.process, sig) {
        return Err(Errno::EPERM);
    }
    if sig != 0 {
        let uid = ctx.task.creds().uid;
        send::to_task(&t, SigInfo::user(sig, code::SI_TKILL, ctx.task.process.pid, uid));
    }
    Ok(0)
}

fn info_at(sig: u32, addr: u64, own: bool) -> SysResult<SigInfo> {
    let mut b = [0u8; 128];
    copy_in(&mut b, addr)?;
    let info = SigInfo::from_bytes(sig, &b);
    // Only the kernel may claim si_code >= 0 or SI_TKILL to another process.
    if !own && (info.code >= 0 || info.code == code::SI_TKILL) {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

fn sys_rt_sigqueueinfo(ctx: &mut Ctx<'_>, pid: i32, sig: u32, addr: u64) -> SysResult {
    send::check(sig)?;
    let p = u32::try_from(pid)
        .ok()
        .and_then(|n| table::process_in(ctx.task.pid_ns(), n))
        .ok_or(Errno::ESRCH)?;
    let info = info_at(sig, addr, Arc::ptr_eq(&p, &ctx.task.process))?;
    if !allowed(ctx, &p, sig) {
        return Err(Errno::EPERM);
    }
    queued(sig != 0 && send::to_process(&p, info) == Sent::Full)
}

/// The answer to a signal with a value, which must not be lost unsaid.
fn queued(full: bool) -> SysResult {
    if full { Err(Errno::EAGAIN) } else { Ok(0) }
}

fn sys_rt_tgsigqueueinfo(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let sig = a.u32(2);
    send::check(sig)?;
    let t = find_task(ctx, Some(a.i32(0)), a.i32(1))?;
    let info = info_at(sig, a.u64(3), Arc::ptr_eq(&t.process, &ctx.task.process))?;
    if !allowed(ctx, &t.process, sig) {
        return Err(Errno::EPERM);
    }
    queued(sig != 0 && send::to_task(&t, info) == Sent::Full)
}

fn sys_pidfd_send_signal(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let sig = a.u32(1);
    send::check(sig)?;
    if a.u32(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.task.files().get(a.fd(0))?;
    let p = match file.downcast::<pidfd::PidFd>() {
        Some(f) => f.process.clone(),
        None => crate::fs::proc::process_of(&file)?,
    };
    if p.zombie.load(Ordering::SeqCst) && p.tasks.lock().is_empty() && table::process(p.pid).is_none() {
        return Err(Errno::ESRCH);
    }
    // Who is in a namespace beside or above is out of reach, though there is a descriptor.
    if !p.pid_ns().is_within(ctx.task.pid_ns()) {
        return Err(Errno::EINVAL);
    }
    if !allowed(ctx, &p, sig) {
        return Err(Errno::EPERM);
    }
    let info = if a.u64(2) == 0 {
        SigInfo::user(sig, code::SI_USER, ctx.task.process.pid, ctx.task.creds().uid)
    } else {
        info_at(sig, a.u64(2), Arc::ptr_eq(&p, &ctx.task.process))?
    };
    if sig != 0 {
        send::to_process(&p, info);
    }
    Ok(0)
}

rows! {
    rt_sigaction: Full, sys_rt_sigaction;
    rt_sigprocmask: Full, sys_rt_sigprocmask;
    rt_sigpending: Full, sys_rt_sigpending;
    rt_sigsuspend: Full, sys_rt_sigsuspend;
    rt_sigtimedwait: Full, sys_rt_sigtimedwait;
    rt_sigqueueinfo: Full, |c, a| sys_rt_sigqueueinfo(c, a.i32(0), a.u32(1), a.u64(2));
    rt_tgsigqueueinfo: Full, sys_rt_tgsigqueueinfo;
    rt_sigreturn: Full, |c, _| sys_rt_sigreturn(c);
    sigaltstack: Full, sys_sigaltstack;
    pause: Full, |c, _| sys_pause(c);
    kill: Full, |c, a| sys_kill(c, a.i32(0), a.u32(1));
    tkill: Full, |c, a| sys_tkill(c, None, a.i32(0), a.u32(1));
    tgkill: Full, |c, a| sys_tkill(c, Some(a.i32(0)), a.i32(1), a.u32(2));
    pidfd_send_signal: Partial("no PIDFD_SIGNAL_* flags"), sys_pidfd_send_signal;
}
