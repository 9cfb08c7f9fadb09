//! Delivery: what happens between the end of a trap and the return to the app.

use super::info::code;
use super::send::{kill_group, notify_parent};
use super::{DefaultAction, SIG_DFL, SIG_IGN, SigAction, SigInfo, SigSet, default_action, info, sa, signo};
use crate::syscall::Ctx;
use crate::task::process::StopState;
use crate::task::task::{entry, work};
use crate::task::{Process, Task};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::native::sigframe;
use hal::signal::{SignalDelivery, UserMemory};
use hal::user::AppMemory;
use hal::{FpState, VirtAddr};
use qlib::Errno;

/// `ss_flags`: on the stack now, disabled, disarm while a handler runs.
pub const SS_ONSTACK: u32 = 1;
/// No alternate stack.
pub const SS_DISABLE: u32 = 2;
/// Disarm while a handler runs.
pub const SS_AUTODISARM: u32 = 1 << 31;

/// Does all pending work. `false` = the task must end.
pub fn before_return(ctx: &mut Ctx<'_>) -> bool {
    loop {
        let bits = ctx.task.work.swap(0, Ordering::SeqCst);
        if bits & work::KILL != 0 {
            // Stays set: whatever the exit path waits for must not block.
            ctx.task.work.fetch_or(work::KILL, Ordering::SeqCst);
            return false;
        }
        if bits & work::CALL != 0 {
            ctx.task.run_calls();
        }
        if bits & work::FREEZE != 0 {
            ctx.task.process.container.stand_still();
        }
        wait_while_stopped(ctx);
        if bits & work::TRACE != 0 {
            crate::trace::interrupted(ctx);
        }
        if bits & work::SIGNAL != 0 {
            deliver_all(ctx);
        }
        finish_syscall(ctx, None);
        if ctx.task.work.load(Ordering::SeqCst) == 0 {
            restore_mask(ctx.task);
            if ctx.task.work.load(Ordering::SeqCst) == 0 {
                return true;
            }
        }
    }
}

/// Restores the mask that `sigsuspend` and the like saved, when no handler took it along.
fn restore_mask(task: &Arc<Task>) {
    let saved = task.signals.lock().saved.take();
    if let Some(mask) = saved {
        set_mask(task, mask);
    }
}

/// Sets the blocked set; signals that become deliverable are looked at before the return to the app.
pub fn set_mask(task: &Arc<Task>, mask: SigSet) {
    let ready = {
        let shared = task.process.pending.lock().set();
        let mut s = task.signals.lock();
        s.blocked = mask.without(SigSet::UNBLOCKABLE);
        (s.pending.set().union(shared)).without(s.blocked).0 != 0
    };
    if ready {
        task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
    }
}

/// Takes the next deliverable signal.
fn next_signal(task: &Task) -> Option<SigInfo> {
    super::send::take(task, |own| SigSet(!own.blocked.0))
}

fn deliver_all(ctx: &mut Ctx<'_>) {
    while let Some(info) = next_signal(ctx.task) {
        let Some(info) = crate::trace::signal_stop(ctx, info) else {
            if ctx.task.killed() {
                return;
            }
            continue;
        };
        let sig = info.signo;
        let action = take_action(&ctx.task.process, sig);
        match action.handler {
            SIG_IGN => {}
            SIG_DFL => {
                if !run_default(ctx, &info) {
                    return;
                }
            }
            _ => {
                finish_syscall(ctx, Some(&action));
                if run_handler(ctx, &info, &action).is_err() {
                    // The frame could not be written: as Linux, SIGSEGV that the handler cannot take.
                    let handlers = ctx.task.process.handlers.lock().clone();
                    if sig == signo::SIGSEGV {
                        handlers.actions.lock()[sig as usize - 1].handler = SIG_DFL;
                    }
                    super::send::force(ctx.task, SigInfo::kernel(signo::SIGSEGV));
                } else {
                    crate::trace::step_done(ctx);
                }
            }
        }
    }
}

/// The action for a signal; SA_RESETHAND resets it.
fn take_action(p: &Process, sig: u32) -> SigAction {
    let handlers = p.handlers.lock().clone();
    let mut actions = handlers.actions.lock();
    let slot = &mut actions[sig as usize - 1];
    let action = *slot;
    if action.handler > SIG_IGN && action.flags & sa::RESETHAND != 0 {
        slot.handler = SIG_DFL;
    }
    action
}

/// Runs a default action; `false` when the process ends.
fn run_default(ctx: &mut Ctx<'_>, info: &SigInfo) -> bool {
    let sig = info.signo;
    let task = ctx.task;
    match default_action(sig) {
        DefaultAction::Ignore | DefaultAction::Continue => true,
        DefaultAction::Stop => {
            if sig != signo::SIGSTOP && (task.process.is_init() || is_orphaned(&task.process)) {
                return true;
            }
            stop(ctx, sig);
            true
        }
        DefaultAction::Terminate | DefaultAction::Core => {
            if task.process.is_init() && info.code != code::SI_KERNEL && info.code <= 0 {
                return true;
            }
            kill_group(&task.process, sig as i32);
            false
        }
    }
}

/// Whether no process of the group has a parent in the same session but another group: nobody could continue it.
pub fn is_orphaned(p: &Process) -> bool {
    let (pgid, session) = {
        let f = p.family.lock();
        (f.pgid, f.session.clone())
    };
    let Some(session) = session else { return true };
    crate::task::table::group(pgid).iter().all(|m| {
        let parent = m.family.lock().parent.as_ref().and_then(|w| w.upgrade());
        parent.is_none_or(|q| {
            let f = q.family.lock();
            f.pgid == pgid || f.session.as_ref().is_none_or(|s| s.sid != session.sid)
        })
    })
}

fn stop(ctx: &mut Ctx<'_>, sig: u32) {
    let task = ctx.task;
    let p = &task.process;
    {
        let mut s = p.stop.lock();
        if s.0 != StopState::Running {
            return;
        }
        *s = (StopState::Stopped(sig), true, false);
    }
    let others = p.tasks.lock().clone();
    for t in others.iter().filter(|t| !Arc::ptr_eq(t, task)) {
        t.notify(work::SIGNAL);
    }
    // The stops of a traced process are its tracer's.
    if !task.traced() {
        notify_parent(p, code::CLD_STOPPED, sig as i32);
    }
    wait_while_stopped(ctx);
}

/// Sleeps while the process is stopped; a kill ends it.
fn wait_while_stopped(ctx: &mut Ctx<'_>) {
    let task = ctx.task;
    let p = &task.process;
    let traced = || task.entry.load(Ordering::SeqCst) & entry::TRACED != 0;
    loop {
        let StopState::Stopped(sig) = p.stop.lock().0 else {
            break;
        };
        if task.killed() || traced() && crate::trace::process_stopped(ctx, sig) {
            break;
        }
        let old = task.state.swap(u32::from(b'T'), Ordering::Relaxed);
        let _ = crate::sched::wait::wait_killable(&p.signal_wait, || {
            (p.stop.lock().0 == StopState::Running || traced()).then_some(())
        });
        task.state.store(old, Ordering::Relaxed);
    }
    // A tracer that listened through the stop hears of its end before any signal that came with it.
    if traced() {
        crate::trace::interrupted(ctx);
    }
}

/// Turns the kernel's restart codes into what the app sees. `handler` is the action about to run.
fn finish_syscall(ctx: &mut Ctx<'_>, handler: Option<&SigAction>) {
    if !ctx.regs.in_syscall() {
        return;
    }
    let ret = ctx.regs.return_value();
    let error = Errno((-ret).clamp(0, 4096) as i32);
    let restarts = match (error, handler) {
        (Errno::ERESTARTNOINTR, _) => true,
        (Errno::ERESTARTSYS, Some(a)) => a.flags & sa::RESTART != 0,
        (Errno::ERESTARTSYS | Errno::ERESTARTNOHAND, None) => true,
        (Errno::ERESTART_RESTARTBLOCK, None) => {
            let nr = hal::Sysno::restart_syscall;
            ctx.regs.restart_with(u64::from(native_number(nr)));
            ctx.regs.end_syscall();
            return;
        }
        (Errno::ERESTARTNOHAND | Errno::ERESTART_RESTARTBLOCK, Some(_)) => false,
        _ => {
            ctx.regs.end_syscall();
            return;
        }
    };
    if restarts {
        ctx.regs.restart_syscall();
    } else {
        ctx.regs.set_return(-i64::from(Errno::EINTR.0));
    }
    ctx.regs.end_syscall();
}

/// The number of a call on this architecture.
fn native_number(s: hal::Sysno) -> u16 {
    hal::native::number(s).unwrap_or(0)
}

/// Where a handler's frame goes: what does not fit on the alternate stack is not written below it.
struct FrameMemory {
    lowest: u64,
}

impl UserMemory for FrameMemory {
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), Errno> {
        if addr < self.lowest {
            return Err(Errno::EFAULT);
        }
        AppMemory.write(addr, bytes)
    }
    fn read(&mut self, addr: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        AppMemory.read(addr, bytes)
    }
}

fn run_handler(ctx: &mut Ctx<'_>, info: &SigInfo, action: &SigAction) -> Result<(), Errno> {
    let mut fp = FpState::initial();
    hal::user::save_fp(&mut fp);
    let (old_mask, alt) = {
        let s = ctx.task.signals.lock();
        (s.saved.unwrap_or(s.blocked), s.alt_stack)
    };
    let sp = ctx.regs.sp();
    let on_alt = on_alt_stack(alt, sp);
    let use_alt = action.flags & sa::ONSTACK != 0 && alt.2 != 0 && alt.1 & SS_DISABLE == 0 && !on_alt;
    let stack_top = if use_alt { alt.0.wrapping_add(alt.2) } else { sp };
    let reported = if alt.2 == 0 {
        (0, SS_DISABLE, 0)
    } else {
        (
            alt.0,
            if on_alt { SS_ONSTACK } else { alt.1 & SS_AUTODISARM },
            alt.2,
        )
    };
    let fault_addr = match info.fields {
        info::Fields::Fault { addr } => addr,
        _ => 0,
    };
    let bytes = info.to_bytes();
    let delivery = SignalDelivery {
        signo: info.signo,
        info: &bytes,
        handler: VirtAddr(action.handler),
        restorer: VirtAddr(restorer_of(action)),
        old_mask: old_mask.0,
        stack_top,
        alt_stack: reported,
        fault_addr,
        trap: (if info.signo == signo::SIGSEGV { 14 } else { 0 }, 0),
    };
    let mut memory = FrameMemory {
        lowest: if sigframe::GUARDS_ALT_STACK && (use_alt || on_alt) {
            alt.0
        } else {
            0
        },
    };
    sigframe::push(ctx.regs, &fp, &delivery, use_alt, &mut memory)?;
    let mut s = ctx.task.signals.lock();
    s.saved = None;
    let mut blocked = s.blocked.union(action.mask);
    if action.flags & sa::NODEFER == 0 {
        blocked = blocked.with(info.signo);
    }
    s.blocked = blocked.without(SigSet::UNBLOCKABLE);
    if alt.1 & SS_AUTODISARM != 0 && use_alt {
        s.alt_stack = (0, 0, 0);
    }
    Ok(())
}

/// Where the handler returns to: what the app named, else the vDSO's code (aarch64; x86_64 programs always name it).
fn restorer_of(action: &SigAction) -> u64 {
    if action.flags & sa::RESTORER != 0 {
        return action.restorer;
    }
    hal::aspace::vdso().map_or(0, |v| v.sigreturn)
}

/// Whether `sp` lies on the alternate stack.
pub fn on_alt_stack(alt: (u64, u32, u64), sp: u64) -> bool {
    alt.2 != 0 && alt.1 & SS_AUTODISARM == 0 && sp > alt.0 && sp - alt.0 <= alt.2
}

/// `rt_sigreturn`: restores what the handler's frame holds.
///
/// # Errors
/// EFAULT when the frame cannot be read; the task gets SIGSEGV.
pub fn sigreturn(ctx: &mut Ctx<'_>) -> Result<(), Errno> {
    let mut fp = FpState::initial();
    hal::user::save_fp(&mut fp);
    let back = sigframe::pop(ctx.regs, &mut fp, &mut AppMemory)?;
    hal::user::restore_fp(&fp);
    set_mask(ctx.task, SigSet(back.mask));
    let (base, flags, size) = back.alt_stack;
    if flags & SS_AUTODISARM != 0 {
        ctx.task.signals.lock().alt_stack = (base, flags & SS_AUTODISARM, size);
    }
    Ok(())
}
