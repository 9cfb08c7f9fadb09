//! The kernel's entry: the signal handler through which every system call, fault and kick of the app comes.

use super::sys::{self, KICK};
use super::threads::{KERNEL, KICKED, USER};
use super::{FAULT_CODE, Process, sites, stack};
use crate::aspace::Access;
use crate::boot::{self, Trap};
use crate::contract::Threads;
use crate::native::hostframe::{AUDIT_ARCH, HostFrame, HostTrap};
use crate::native::{callgate, hosted};
use crate::uapi::general as g;
use core::sync::atomic::Ordering;
use qlib::Errno;
use qlib::boot::features;

/// `si_code` of a signal the processor's exception raised without more to tell.
const SI_KERNEL: i32 = 0x80;
const BUS_ADRALN: i32 = 1;
/// x86 exception numbers.
const DEBUG: u64 = 1;
const GENERAL_PROTECTION: u64 = 13;

/// The host's `struct sigaction`.
#[repr(C)]
struct Action {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// Installs the handler for traps and kicks; every other signal is ignored but SIGCHLD, which the zygote waits for.
pub(super) fn install() -> Result<(), Errno> {
    let traps = [
        g::SIGSYS,
        g::SIGSEGV,
        g::SIGBUS,
        g::SIGILL,
        g::SIGFPE,
        g::SIGTRAP,
        KICK,
    ];
    for signal in 1..=64 {
        if signal == g::SIGKILL || signal == g::SIGSTOP || signal == g::SIGCHLD {
            continue;
        }
        let handled = traps.contains(&signal);
        let action = Action {
            handler: if handled { on_signal as *const () as u64 } else { 1 },
            flags: if handled {
                (g::SA_ONSTACK | g::SA_SIGINFO | g::SA_NODEFER) as u64 | hosted::SA_RESTORER
            } else {
                0
            },
            restorer: if handled { hosted::restorer() } else { 0 },
            mask: 1 << (KICK - 1),
        };
        // SAFETY: the host reads the action; the handler and its stack are ready for any trap.
        unsafe {
            sys::call(
                g::__NR_rt_sigaction,
                [signal as u64, &raw const action as u64, 0, 8],
            )
        }?;
    }
    Ok(())
}

/// The host calls this on the thread's kernel stack.
///
/// # Safety
/// Called by the host only, with the frame it just wrote.
unsafe extern "C" fn on_signal(signal: u32, info: *const u8, frame: *mut HostFrame) {
    // SAFETY: the frame is the host's, and this handler's alone.
    let pc = unsafe { (*frame).pc() };
    if boot::info().text.contains(pc) {
        // SAFETY: as the caller.
        unsafe { kernel_trap(signal, info, frame) };
        return;
    }
    // SAFETY: as above.
    if unsafe { (*frame).has_alignment_check() } {
        hosted::clear_alignment_check();
    }
    // SAFETY: `info` is what the host passed.
    let trap = unsafe { HostTrap::read(info) };
    // SAFETY: as the caller.
    unsafe { user_trap(&trap, frame) };
}

/// A signal that hit kernel code: a kick, which the way back to the app will notice, or a fault on user memory.
///
/// # Safety
/// As [`on_signal`].
unsafe fn kernel_trap(signal: u32, info: *const u8, frame: *mut HostFrame) {
    // SAFETY: the frame is this handler's alone.
    let frame = unsafe { &mut *frame };
    if signal == KICK {
        // On the way back by the gate nothing would notice it any more.
        if let Some(pc) = callgate::again(frame.pc()) {
            frame.set_pc(pc);
        }
        return;
    }
    if (signal == g::SIGSEGV || signal == g::SIGBUS)
        && let Some(next) = hosted::fixup_of(frame.pc())
    {
        frame.set_pc(next);
        return;
    }
    // SAFETY: `info` is what the host passed.
    let trap = unsafe { HostTrap::read(info) };
    log::error!(
        "signal {} (code {}) in the kernel at image+{:#x}, address {:#x}, sp {:#x}, call {}",
        trap.signo,
        trap.code,
        frame.pc().wrapping_sub(boot::info().image.start),
        trap.addr,
        frame.sp(),
        trap.syscall,
    );
    Process::power_off(FAULT_CODE, "the kernel faulted");
}

/// A trap of the app.
///
/// # Safety
/// As [`on_signal`].
unsafe fn user_trap(host: &HostTrap, frame_ptr: *mut HostFrame) {
    let thread = stack::with(|h| h.thread.as_ref().map(|t| &raw const **t));
    let Some(thread) = thread else {
        Process::power_off(FAULT_CODE, "a trap outside any thread")
    };
    // SAFETY: the header keeps the thread alive while it runs.
    let mode = unsafe { &(*thread).mode };
    if mode.load(Ordering::Relaxed) & USER == 0 {
        // SAFETY: as the caller.
        if unsafe { vdso_call(host, frame_ptr) } {
            return;
        }
        Process::power_off(FAULT_CODE, "the kernel ran outside its text");
    }
    mode.store(KERNEL, Ordering::SeqCst);
    stack::with(|h| h.frame = frame_ptr);
    // SAFETY: the frame is this handler's alone; QKernel's way to its FP part goes through the header's pointer only
    // while no reference is alive here.
    let (mut ctx, mut trap) = unsafe { decode(host, &mut *frame_ptr) };
    if sites::enabled() {
        trap = patched(&mut ctx, trap);
    }
    loop {
        if let Some(t) = trap {
            (boot::hooks().trap)(&mut ctx, t);
        }
        if mode.swap(USER, Ordering::SeqCst) & KICKED == 0 {
            break;
        }
        mode.store(KERNEL, Ordering::SeqCst);
        ctx.end_syscall();
        trap = Some(Trap::Interrupt);
    }
    let sound = stack::with(|h| {
        h.frame = core::ptr::null_mut();
        stack::is_sound(h)
    });
    if !sound {
        Process::power_off(FAULT_CODE, "a kernel stack overflowed");
    }
    // SAFETY: as above.
    unsafe { (*frame_ptr).store(&ctx) };
    set_bases((ctx.fs_base, ctx.gs_base));
}

/// What a trap is in an app whose call sites are patched: one that stands in a stub stands at its site.
fn patched(ctx: &mut crate::UserContext, trap: Option<Trap>) -> Option<Trap> {
    if trap == Some(Trap::Breakpoint) && sites::is_transient(ctx.pc()) {
        ctx.set_pc(ctx.pc() - 1);
        return None;
    }
    let stepping = trap == Some(Trap::Step);
    if let Some((pc, rax)) = sites::outside(ctx.pc(), stepping) {
        ctx.set_pc(pc);
        if let Some(rax) = rax {
            ctx.rax = rax;
        }
    } else if stepping || trap == Some(Trap::Interrupt) {
        if let Some(pc) = sites::beside(ctx.pc(), stepping) {
            ctx.set_pc(pc);
        }
    } else if trap == Some(Trap::Syscall) {
        sites::consider(ctx.pc(), ctx.syscall_number());
    }
    trap
}

/// Answers a host call that the vDSO makes when the kernel reads a clock and the host's clock source needs the call.
///
/// # Safety
/// As [`on_signal`].
unsafe fn vdso_call(host: &HostTrap, frame: *mut HostFrame) -> bool {
    // SAFETY: the frame is this handler's alone.
    let frame = unsafe { &mut *frame };
    let of_vdso = boot::info().vdso_range.contains(frame.pc());
    if !of_vdso || host.signo != g::SIGSYS || host.syscall != g::__NR_clock_gettime {
        return false;
    }
    let [clock, time, ..] = frame.syscall_args();
    // SAFETY: the pointer is the one the kernel gave the vDSO.
    let r = unsafe { sys::call(g::__NR_clock_gettime, [clock, time]) };
    frame.set_return(Errno::to_ret(r));
    true
}

/// Registers, and what happened; `None` for what the machine answers itself.
fn decode(host: &HostTrap, frame: &mut HostFrame) -> (crate::UserContext, Option<Trap>) {
    let mut number = u64::MAX;
    let trap = match host.signo {
        g::SIGSYS if host.code == 1 && host.arch == AUDIT_ARCH => {
            number = host.syscall as u64;
            Some(Trap::Syscall)
        }
        g::SIGSYS if host.code == 1 => {
            // The 32-bit system-call ABI is not offered.
            frame.set_return(-(Errno::ENOSYS.0 as i64));
            None
        }
        // Sent, not raised: nothing in the sandbox does that on purpose.
        _ if host.code <= 0 => Some(Trap::Interrupt),
        g::SIGSEGV if host.code == SI_KERNEL || frame.trapno() == GENERAL_PROTECTION => {
            Some(Trap::GeneralProtection)
        }
        g::SIGSEGV => Some(Trap::PageFault {
            addr: host.addr,
            access: access(frame),
        }),
        g::SIGBUS if host.code == BUS_ADRALN => Some(Trap::Alignment { addr: host.addr }),
        g::SIGBUS => Some(Trap::BusError { addr: host.addr }),
        g::SIGILL => Some(Trap::Illegal),
        g::SIGFPE => Some(Trap::Arithmetic(host.code)),
        g::SIGTRAP if frame.trapno() == DEBUG => Some(Trap::Step),
        g::SIGTRAP => Some(Trap::Breakpoint),
        _ => Some(Trap::Interrupt),
    };
    (frame.load(number, bases()), trap)
}

fn access(frame: &HostFrame) -> Access {
    if frame.fault_is_fetch() {
        Access::Execute
    } else if frame.fault_is_write() {
        Access::Write
    } else {
        Access::Read
    }
}

fn has_base_instructions() -> bool {
    boot::info().features & features::FSGSBASE != 0
}

/// FS and GS base of the app.
pub(super) fn bases() -> (u64, u64) {
    if has_base_instructions() {
        let (fs, gs) = hosted::read_bases();
        // What the call gate needs there is none of the app's.
        let ours = sites::enabled() && gs == stack::here();
        (fs, if ours { 0 } else { gs })
    } else {
        stack::with(|h| h.bases)
    }
}

/// Sets FS and GS base of the app.
pub(super) fn set_bases(new: (u64, u64)) {
    if has_base_instructions() {
        let gs = if new.1 == 0 && sites::enabled() {
            stack::here()
        } else {
            new.1
        };
        if hosted::read_bases() != (new.0, gs) {
            hosted::write_bases(new.0, gs);
        }
        return;
    }
    stack::with(|h| {
        if h.bases.0 != new.0 {
            hosted::set_fs_base(new.0);
        }
        if h.bases.1 != new.1 {
            hosted::set_gs_base(new.1);
        }
        h.bases = new;
    });
}
