//! Traps: from the app, from user copies, and interrupts of the idle loop.

use super::{Bare, cpu, ports_stop, qcall, sched, space, thread, tlb};
use crate::aspace::{Access, FaultOutcome};
use crate::boot::{Trap, hooks};
use crate::contract::HostService;
use crate::native::mmu;
use crate::{UserContext, VirtAddr};
use arch::trap::{Cause, Handlers, Irq, KernelFault};
use core::sync::atomic::{AtomicUsize, Ordering};

/// What the entry code calls.
pub(super) static HANDLERS: Handlers<UserContext> = Handlers {
    user,
    idle_interrupt: interrupt,
    copy_fault,
    fatal,
};

fn user(ctx: &mut UserContext, cause: Cause) {
    tlb::leave_user();
    sched::account(cpu::this(), thread::current(), true);
    if let Some(trap) = handle(cause) {
        (hooks().trap)(ctx, trap);
    } else if mmu::MAY_WAIT_FOREVER && cause == Cause::Interrupt(Irq::Timer) {
        look_for_progress(ctx.pc());
    }
    prepare_return(ctx);
}

/// Does what the machine itself can do about a trap; the rest is QKernel's.
fn handle(cause: Cause) -> Option<Trap> {
    Some(match cause {
        Cause::Syscall => Trap::Syscall,
        Cause::PageFault { addr, write, exec } => {
            let access = match (exec, write) {
                (true, _) => Access::Execute,
                (_, true) => Access::Write,
                _ => Access::Read,
            };
            match resolve(addr, access) {
                FaultOutcome::Resolved => return None,
                FaultOutcome::BusError => Trap::BusError { addr },
                _ => Trap::PageFault { addr, access },
            }
        }
        Cause::BusError { addr } => Trap::BusError { addr },
        Cause::MemoryGone => match thread::current_space() {
            Some(s) if space::forget_lost(&s.machine) => return None,
            // The file has grown again meanwhile, or cannot be read: where, nobody knows.
            _ => Trap::BusError { addr: 0 },
        },
        Cause::Alignment { addr } => Trap::Alignment { addr },
        Cause::Illegal => Trap::Illegal,
        Cause::GeneralProtection => Trap::GeneralProtection,
        Cause::Breakpoint => Trap::Breakpoint,
        Cause::Step => Trap::Step,
        Cause::Arithmetic(code) => Trap::Arithmetic(code),
        Cause::Interrupt(irq) => {
            interrupt(irq);
            return None;
        }
    })
}

/// An app that so many ticks of the timer in a row find at the same instruction may be waiting for memory that is gone.
const STILL_TICKS: u32 = 4;

/// The timer found the app at `pc`. KVM on x86_64 has an app wait for a page of the host as it would wait for a disk, and again
/// when the page did not come: an app that touches a file's page behind its end neither goes on nor faults. Its own page tables
/// can say so, once they know how long the file is now.
fn look_for_progress(pc: u64) {
    let me = &thread::current().machine;
    if me.tick_pc.swap(pc, Ordering::Relaxed) != pc {
        me.still_ticks.store(1, Ordering::Relaxed);
        return;
    }
    let ticks = me.still_ticks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    // Ever rarer: most apps that stand still wait in a loop of one instruction.
    if ticks >= STILL_TICKS
        && ticks.is_power_of_two()
        && let Some(s) = thread::current_space()
    {
        space::forget_lost(&s.machine);
    }
}

fn resolve(addr: u64, access: Access) -> FaultOutcome {
    let Some(s) = thread::current_space() else {
        return FaultOutcome::Unmapped;
    };
    let outcome = space::fault(&s.machine, VirtAddr(addr), access);
    if outcome == FaultOutcome::Resolved {
        thread::current().machine.faults.fetch_add(1, Ordering::Relaxed);
    }
    outcome
}

/// The last things before the app runs: others get their turn, kicks are delivered, the timer is set.
pub(super) fn prepare_return(ctx: &mut UserContext) {
    loop {
        qcall::reap();
        sched::preempt();
        if !thread::current().machine.kicked.swap(false, Ordering::SeqCst) {
            break;
        }
        (hooks().trap)(ctx, Trap::Interrupt);
    }
    let c = cpu::this();
    sched::arm(c, false);
    sched::account(c, thread::current(), false);
    tlb::enter_user();
}

fn interrupt(irq: Irq) {
    match irq {
        Irq::Timer => sched::timer_fired(),
        Irq::Host => qcall::reap(),
        // The request word is looked at on the way back (TLB), or by the idle loop (work).
        Irq::Ipi | Irq::Spurious => {}
    }
}

/// A user copy touched a page that is not there (yet).
fn copy_fault(addr: u64, write: bool) -> bool {
    tlb::leave_user();
    let access = if write { Access::Write } else { Access::Read };
    let resolved = resolve(addr, access) == FaultOutcome::Resolved;
    tlb::enter_user();
    resolved
}

/// Exit code of a kernel that broke (EX_SOFTWARE).
const BROKEN: u32 = 70;

struct Line {
    bytes: [u8; 200],
    len: usize,
}

impl core::fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let n = s.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Faults of the kernel so far.
static FAULTS: AtomicUsize = AtomicUsize::new(0);

fn fatal(f: &KernelFault) -> ! {
    use core::fmt::Write;
    // A fault while one is told would come again and again, until the stack is used up: a triple fault, which says nothing.
    if FAULTS.fetch_add(1, Ordering::SeqCst) >= cpu::all().len() {
        crate::native::ports::stop(BROKEN);
    }
    let mut line = Line {
        bytes: [0; 200],
        len: 0,
    };
    let image = crate::boot::info().image.start;
    let _ = write!(
        line,
        "{}: code {} error {:#x} at image+{:#x} sp {:#x} address {:#x}",
        f.what,
        f.code,
        f.error,
        f.pc.wrapping_sub(image),
        f.sp,
        f.addr
    );
    let bytes = &line.bytes[..line.len];
    Bare::log(1, bytes);
    ports_stop(
        BROKEN as i32,
        core::str::from_utf8(bytes).unwrap_or("a fault in the kernel"),
    )
}
