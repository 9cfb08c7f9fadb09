//! Tracing of tasks: the traced side's state and stops. Source: `ptrace(2)`.
//!
//! A stop is a wait of the traced task, with its registers laid open in [`Trace::stop`]. Its memory and vector state are reached by
//! asking it to do the work itself ([`crate::mm::remote`]).

pub mod tracer;

use crate::ns::pid::Pid;
use crate::sched::wait::{Events, Registered, park};
use crate::signal::info::code;
use crate::signal::{SigInfo, signo};
use crate::syscall::Ctx;
use crate::task::process::StopState;
use crate::task::task::{entry, work};
use crate::task::{Process, Task};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;
use hal::UserContext;
use hal::native::ptrace as native;

/// Options of `PTRACE_SETOPTIONS`.
#[allow(missing_docs)]
pub mod option {
    pub const SYSGOOD: u32 = 1;
    pub const FORK: u32 = 2;
    pub const VFORK: u32 = 4;
    pub const CLONE: u32 = 8;
    pub const EXEC: u32 = 0x10;
    pub const VFORK_DONE: u32 = 0x20;
    pub const EXIT: u32 = 0x40;
    pub const SECCOMP: u32 = 0x80;
    pub const EXIT_KILL: u32 = 0x10_0000;
    pub const ALL: u32 = 0xff | EXIT_KILL;
}

/// Events, in the third byte of a wait status.
#[allow(missing_docs)]
pub mod event {
    pub const FORK: u32 = 1;
    pub const VFORK: u32 = 2;
    pub const CLONE: u32 = 3;
    pub const EXEC: u32 = 4;
    pub const VFORK_DONE: u32 = 5;
    pub const EXIT: u32 = 6;
    pub const SECCOMP: u32 = 7;
    pub const STOP: u32 = 128;
}

/// Why a task is stopped for its tracer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A signal is about to be delivered.
    Signal,
    /// Before a system call.
    Entry,
    /// After a system call.
    Exit,
    /// Something happened that the tracer asked to hear of.
    Event,
    /// A filter of the task's own asks the tracer about a call.
    Seccomp,
    /// The process is stopped by a signal, or was interrupted by the tracer.
    Group,
}

/// A stop, laid open for the tracer.
pub struct Stop {
    /// Why.
    pub kind: Kind,
    /// Signal and event: the wait status without its lowest byte.
    pub code: u32,
    /// The tracer has been told by wait.
    pub told: bool,
    /// What `PTRACE_GETSIGINFO` gives.
    pub info: SigInfo,
    /// The registers; what the tracer leaves here is what the task goes on with.
    pub regs: UserContext,
    /// The system call of an entry or exit stop: number, arguments.
    pub call: (u64, [u64; 6]),
    /// Stays stopped until something new happens (`PTRACE_LISTEN`).
    pub listening: bool,
}

/// How the tracer let the task go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// Stop at the next entry or exit of a system call.
    pub syscalls: bool,
    /// Trap after one instruction.
    pub step: bool,
    /// Signal to deliver.
    pub signal: u32,
}

/// Tracing state of a task.
#[derive(Default)]
pub struct Trace {
    /// Who traces it.
    pub tracer: Option<Weak<Process>>,
    /// By PTRACE_SEIZE.
    pub seized: bool,
    /// [`option`] bits.
    pub options: u32,
    /// `PTRACE_GETEVENTMSG`.
    pub message: u64,
    /// The stop the task is in.
    pub stop: Option<Stop>,
    /// How it was let go last.
    pub resume: Resume,
    /// The tracer wants it to stop (`PTRACE_INTERRUPT`, a new task that is traced from its start).
    pub interrupt: bool,
    /// The group's stop was reported and the tracer let the task go on all the same.
    pub past_stop: bool,
    /// The registers the tracer left for the task to go on with.
    pub going_on: Option<UserContext>,
    /// The signal of a delivery stop; the tracer may change what is told of it.
    pub last_info: Option<SigInfo>,
}

impl Task {
    /// Whether somebody traces the task.
    pub fn traced(&self) -> bool {
        self.trace.lock().tracer.is_some()
    }
}

/// The tracer of a task.
pub fn tracer_of(task: &Task) -> Option<Arc<Process>> {
    task.trace.lock().tracer.as_ref().and_then(Weak::upgrade)
}

/// Whether the task's tracer asked to hear of `what` of [`option`].
pub fn wants(task: &Task, what: u32) -> bool {
    let t = task.trace.lock();
    t.tracer.is_some() && t.options & what != 0
}

fn trap(code: u32) -> SigInfo {
    let (pid, uid) = crate::task::current().map_or((0, 0), |t| (t.own_tid(), t.creds().uid));
    SigInfo::user(signo::SIGTRAP, code as i32, pid, uid)
}

/// Stops the calling task until the tracer lets it go on or it is killed; gives the signal to deliver.
fn stop(ctx: &mut Ctx<'_>, kind: Kind, code: u32, info: SigInfo, exiting: bool) -> u32 {
    let task = ctx.task.clone();
    let Some(tracer) = tracer_of(&task) else { return 0 };
    {
        let mut t = task.trace.lock();
        if t.resume.step {
            native::set_single_step(ctx.regs, false);
        }
        t.resume = Resume::default();
        t.stop = Some(Stop {
            kind,
            code,
            told: false,
            info,
            regs: *ctx.regs,
            call: (ctx.regs.syscall_number(), ctx.regs.syscall_args()),
            listening: false,
        });
    }
    tracer::tell(&tracer, &task, code);
    drop(tracer);
    // A task that is ending anyway ends this wait only by SIGKILL.
    let killed = || {
        let by_signal = task.process.exit_status.load(Ordering::SeqCst) == signo::SIGKILL as i32;
        if exiting { by_signal } else { task.killed() }
    };
    let registered = Registered::new(&task.trace_wait, Events::all());
    while task.trace.lock().stop.is_some() && !killed() {
        park(None);
    }
    drop(registered);
    let mut t = task.trace.lock();
    if let Some(left) = t.stop.take() {
        // Killed while stopped.
        *ctx.regs = left.regs;
        return 0;
    }
    if let Some(regs) = t.going_on.take() {
        *ctx.regs = regs;
    }
    if t.resume.step {
        native::set_single_step(ctx.regs, true);
    }
    let mut bits = 0;
    if t.resume.syscalls {
        bits |= entry::TRACE;
    }
    task.entry.fetch_and(!entry::TRACE, Ordering::SeqCst);
    task.entry.fetch_or(bits, Ordering::SeqCst);
    t.resume.signal
}

/// The stop before a signal is delivered; gives the signal to deliver, if any.
pub fn signal_stop(ctx: &mut Ctx<'_>, info: SigInfo) -> Option<SigInfo> {
    if !ctx.task.traced() {
        return Some(info);
    }
    ctx.task.trace.lock().last_info = Some(info);
    let sig = stop(ctx, Kind::Signal, info.signo, info, false);
    let kept = ctx.task.trace.lock().last_info.take();
    if sig == 0 || ctx.task.killed() {
        return None;
    }
    match kept {
        Some(i) if i.signo == sig => Some(i),
        _ => {
            let tracer = tracer_of(ctx.task);
            let (pid, uid) = tracer.map_or((0, 0), |p| {
                let uid = p.tasks.lock().first().map_or(0, |t| t.creds().uid);
                (p.numbers.shown(ctx.task.pid_ns()), uid)
            });
            Some(SigInfo::user(sig, code::SI_USER, pid, uid))
        }
    }
}

/// The stop after an event, in the middle of a call or at its end.
pub fn event_stop(ctx: &mut Ctx<'_>, event: u32, message: u64) {
    ctx.task.trace.lock().message = message;
    let code = signo::SIGTRAP | event << 8;
    stop(ctx, Kind::Event, code, trap(code), false);
}

/// The stop of a task that ends.
pub fn exit_stop(ctx: &mut Ctx<'_>) {
    let p = &ctx.task.process;
    let group = p.exit_status.load(Ordering::SeqCst);
    if !wants(ctx.task, option::EXIT) || group == signo::SIGKILL as i32 {
        return;
    }
    let status = if group == -1 {
        ctx.task.exit_status.load(Ordering::Relaxed)
    } else {
        group
    };
    ctx.task.trace.lock().message = status as u32 as u64;
    let code = signo::SIGTRAP | event::EXIT << 8;
    stop(ctx, Kind::Event, code, trap(code), true);
}

fn syscall_stop(ctx: &mut Ctx<'_>, kind: Kind) {
    let good = {
        let mut t = ctx.task.trace.lock();
        // PTRACE_EVENTMSG_SYSCALL_ENTRY and _EXIT.
        t.message = if matches!(kind, Kind::Entry) { 1 } else { 2 };
        t.options & option::SYSGOOD != 0
    };
    let code = signo::SIGTRAP | if good { 0x80 } else { 0 };
    let sig = stop(ctx, kind, code, trap(code), false);
    if sig != 0 {
        // As if the tracer had sent it.
        crate::signal::send::to_task(ctx.task, SigInfo::user(sig, code::SI_USER, 0, 0));
    }
}

/// The stop before a call; `false`: the tracer has it skipped.
pub fn syscall_entry(ctx: &mut Ctx<'_>) -> bool {
    native::begin_syscall(ctx.regs);
    syscall_stop(ctx, Kind::Entry);
    ctx.regs.in_syscall() && !ctx.task.killed()
}

/// The stop after a call.
pub fn syscall_exit(ctx: &mut Ctx<'_>) {
    if !ctx.task.killed() {
        syscall_stop(ctx, Kind::Exit);
    }
}

/// A filter's SECCOMP_RET_TRACE. `None`: nobody wants to hear of it; else whether the call goes on.
pub fn seccomp_stop(ctx: &mut Ctx<'_>, data: u32) -> Option<bool> {
    if !wants(ctx.task, option::SECCOMP) {
        return None;
    }
    native::begin_syscall(ctx.regs);
    ctx.task.trace.lock().message = u64::from(data);
    let code = signo::SIGTRAP | event::SECCOMP << 8;
    stop(ctx, Kind::Seccomp, code, trap(code), false);
    Some(ctx.regs.in_syscall() && !ctx.task.killed())
}

/// After a call, or once a handler's frame stands: a task that is stepped traps here.
pub fn step_done(ctx: &mut Ctx<'_>) {
    let step = {
        let mut t = ctx.task.trace.lock();
        t.tracer.is_some() && core::mem::take(&mut t.resume.step)
    };
    if step {
        native::set_single_step(ctx.regs, false);
        let info = SigInfo::fault(signo::SIGTRAP, code::TRAP_TRACE, ctx.regs.pc());
        crate::signal::send::force(ctx.task, info);
    }
}

/// The stop the tracer asked for ([`work::TRACE`]).
pub fn interrupted(ctx: &mut Ctx<'_>) {
    let due = core::mem::take(&mut ctx.task.trace.lock().interrupt);
    if due {
        group_stop(ctx, signo::SIGTRAP);
    }
}

fn group_stop(ctx: &mut Ctx<'_>, sig: u32) {
    let seized = ctx.task.trace.lock().seized;
    let code = sig | if seized { event::STOP << 8 } else { 0 };
    stop(ctx, Kind::Group, code, trap(code), false);
}

/// The calling task's process is stopped: a traced task tells its tracer. `true`: the tracer let it go on.
pub fn process_stopped(ctx: &mut Ctx<'_>, sig: u32) -> bool {
    {
        let t = ctx.task.trace.lock();
        if t.tracer.is_none() {
            return false;
        }
        if t.past_stop {
            return true;
        }
    }
    group_stop(ctx, sig);
    let traced = ctx.task.traced();
    ctx.task.trace.lock().past_stop = traced && ctx.task.process.stop.lock().0 != StopState::Running;
    traced
}

/// A task whose tracer sees its start stops before its first instruction.
pub fn begin_traced(parent: &Task, child: &Arc<Task>, what: u32) -> bool {
    let (tracer, seized, options) = {
        let t = parent.trace.lock();
        match &t.tracer {
            Some(tracer) if t.options & what != 0 => (tracer.clone(), t.seized, t.options),
            _ => return false,
        }
    };
    let Some(process) = tracer.upgrade() else {
        return false;
    };
    tracer::link(&process, child, seized, options);
    if seized {
        child.trace.lock().interrupt = true;
        child.work.fetch_or(work::TRACE, Ordering::SeqCst);
    } else {
        child.signals.lock().pending.push(SigInfo::kernel(signo::SIGSTOP));
        child.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
    }
    true
}

/// The calling task runs a new program; `before` are the numbers it had.
pub fn after_exec(ctx: &mut Ctx<'_>, before: &Pid) {
    let (traced, seized) = {
        let t = ctx.task.trace.lock();
        (t.tracer.is_some(), t.seized)
    };
    if wants(ctx.task, option::EXEC) {
        let tracer = tracer_of(ctx.task);
        let known = tracer.map_or(0, |t| before.shown(t.pid_ns()));
        event_stop(ctx, event::EXEC, u64::from(known));
    } else if traced && !seized {
        crate::signal::send::to_task(ctx.task, SigInfo::user(signo::SIGTRAP, code::SI_USER, 0, 0));
    }
}
