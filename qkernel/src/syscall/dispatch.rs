//! From a trap to a handler.

use super::{Args, Ctx, FAMILIES, Row};
use crate::signal::deliver::before_return;
use crate::signal::info::code;
use crate::signal::send::force;
use crate::signal::{SigInfo, signo};
use crate::task::Task;
use crate::task::task::entry;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::UserContext;
use hal::aspace::{Access, FaultOutcome};
use hal::boot::Trap;
use hal::{Sysno, VirtAddr};
use qlib::Errno;

const CALLS: usize = Sysno::ALL.len();

const fn table() -> [Row; CALLS] {
    let mut t = [FAMILIES[0][0]; CALLS];
    let mut known = [false; CALLS];
    let mut f = 0;
    while f < FAMILIES.len() {
        let rows = FAMILIES[f];
        let mut r = 0;
        while r < rows.len() {
            let i = rows[r].sysno as usize;
            assert!(!known[i], "a system call is in two families");
            t[i] = rows[r];
            known[i] = true;
            r += 1;
        }
        f += 1;
    }
    let mut i = 0;
    while i < CALLS {
        assert!(known[i], "a system call is in no family");
        i += 1;
    }
    t
}

/// Handlers by [`Sysno`].
static TABLE: [Row; CALLS] = table();

/// The row of a call.
pub fn row(s: Sysno) -> &'static Row {
    &TABLE[s as usize]
}

/// Handles a trap of the calling thread's app.
pub fn trap(regs: &mut UserContext, trap: Trap) {
    // Everything that is held lives in this block: an exit drops nothing on the stack.
    let dead = {
        match crate::task::current() {
            Some(task) => !serve(&task, regs, trap),
            None => hal::thread::power_off(70, "a trap came from a thread without a task"),
        }
    };
    if dead {
        hal::thread::exit();
    }
}

/// `false` = the task has ended.
fn serve(task: &Arc<Task>, regs: &mut UserContext, trap: Trap) -> bool {
    let mut ctx = Ctx { task, regs };
    match trap {
        Trap::Syscall => call(&mut ctx),
        Trap::Interrupt => {}
        other => fault(&mut ctx, other),
    }
    if task.work.load(Ordering::SeqCst) == 0 && !ctx.task_needs_care() {
        return true;
    }
    if before_return(&mut ctx) {
        return true;
    }
    crate::trace::exit_stop(&mut ctx);
    crate::task::exit::finish(task);
    false
}

fn call(ctx: &mut Ctx<'_>) {
    let before = ctx.task.entry.load(Ordering::Relaxed);
    if before == 0 || admit(ctx, before) {
        run(ctx);
    }
    // The call itself may have made the task a traced one.
    let after = ctx.task.entry.load(Ordering::Relaxed);
    if after & (entry::TRACE | entry::TRACED) != 0 {
        if after & entry::TRACE != 0 {
            crate::trace::syscall_exit(ctx);
        }
        crate::trace::step_done(ctx);
    }
}

/// Asks the tracer and the filters about the call.
#[cold]
fn admit(ctx: &mut Ctx<'_>, watched: u32) -> bool {
    if watched & entry::TRACE != 0 && !crate::trace::syscall_entry(ctx) {
        return false;
    }
    // The call may be another one by now.
    watched & entry::SECCOMP == 0 || crate::seccomp::check(ctx)
}

fn run(ctx: &mut Ctx<'_>) {
    let args = Args(ctx.regs.syscall_args());
    let number = ctx.regs.syscall_number();
    let result = match hal::native::sysno(number).map(row) {
        Some(row) => row.call(ctx, args),
        None => Err(Errno::ENOSYS),
    };
    if log::log_enabled!(log::Level::Trace) {
        let name = hal::native::sysno(number).map_or("?", Sysno::name);
        log::trace!("{} {name}({:x?}) = {result:?}", ctx.task.tid(), args.0);
    }
    // execve and rt_sigreturn replaced the registers: they are no system call any more.
    if ctx.regs.in_syscall() {
        ctx.regs.set_return(Errno::to_ret(result));
    }
}

impl Ctx<'_> {
    /// Whether the way back needs more than restoring registers: a restart code, a saved mask, a stop.
    fn task_needs_care(&self) -> bool {
        let internal = self.regs.in_syscall() && (-516..=-512).contains(&self.regs.return_value());
        internal || self.task.signals.lock().saved.is_some()
    }
}

fn fault(ctx: &mut Ctx<'_>, trap: Trap) {
    let pc = ctx.regs.pc();
    let info = match trap {
        Trap::PageFault { addr, access } => match page_fault(ctx, addr, access) {
            Some(info) => info,
            None => return,
        },
        Trap::BusError { addr } => SigInfo::fault(signo::SIGBUS, code::BUS_ADRERR, addr),
        Trap::Alignment { addr } => SigInfo::fault(signo::SIGBUS, code::BUS_ADRALN, addr),
        Trap::Illegal => SigInfo::fault(signo::SIGILL, code::ILL_ILLOPN, pc),
        Trap::GeneralProtection => SigInfo::kernel(signo::SIGSEGV),
        // An int3 reports as the kernel's own, a watchpoint or step with its address.
        Trap::Breakpoint => SigInfo::kernel(signo::SIGTRAP),
        Trap::Step => SigInfo::fault(signo::SIGTRAP, code::TRAP_TRACE, pc),
        Trap::Arithmetic(how) => SigInfo::fault(signo::SIGFPE, how, pc),
        Trap::Syscall | Trap::Interrupt => return,
    };
    log::debug!(
        "{} {:?} at pc {pc:#x}, sp {:#x}",
        ctx.task.tid(),
        trap,
        ctx.regs.sp()
    );
    force(ctx.task, info);
}

/// Resolves a fault, or says which signal it is.
fn page_fault(ctx: &Ctx<'_>, addr: u64, access: Access) -> Option<SigInfo> {
    let Some(mm) = ctx.task.mm() else {
        return Some(SigInfo::kernel(signo::SIGSEGV));
    };
    match mm.space.fault(VirtAddr(addr), access) {
        FaultOutcome::Resolved => None,
        FaultOutcome::BusError => Some(SigInfo::fault(signo::SIGBUS, code::BUS_ADRERR, addr)),
        FaultOutcome::OutOfMemory => {
            // What is used up is the sandbox's.
            crate::container::kill_largest(crate::task::table::processes());
            None
        }
        FaultOutcome::Unmapped | FaultOutcome::Protection => {
            let mapped = mm.vmas.lock().find(addr).is_some();
            let how = if mapped {
                code::SEGV_ACCERR
            } else {
                code::SEGV_MAPERR
            };
            Some(SigInfo::fault(signo::SIGSEGV, how, addr))
        }
    }
}
