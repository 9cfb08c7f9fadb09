//! Exception vectors at EL1 and the way to and from EL0.
//!
//! In EL0 the stack pointer of EL1 stays at the top of the thread's kernel stack, so an exception needs no look-up: it
//! pushes a [`UserContext`] there. Interrupts are masked by the exception and stay masked in the kernel, but for the
//! idle loop.

use crate::aarch64::context::UserContext;
use crate::aarch64::esr::{self, Exception, Touch};
use crate::trap::{Cause, Handlers, KernelFault};
use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Bytes the saved context takes on the kernel stack: the stack pointer stays 16-byte aligned.
const CONTEXT_BYTES: usize = size_of::<UserContext>().next_multiple_of(16);
/// Bytes of [`KernelFrame`] on the stack.
const FRAME_BYTES: usize = size_of::<KernelFrame>();

/// What an exception taken in the kernel saves: all that a Rust function may change, and where to go on.
#[repr(C)]
struct KernelFrame {
    /// x0–x18.
    x: [u64; 19],
    /// Frame pointer and link register.
    fp_lr: [u64; 2],
    /// Where the kernel goes on.
    elr: u64,
    /// PSTATE there.
    spsr: u64,
    /// Keeps the stack aligned.
    pad: u64,
}

const _: () = assert!(FRAME_BYTES.is_multiple_of(16) && offset_of!(UserContext, x) == 0);
const _: () = assert!(offset_of!(UserContext, sp_el0) == 248 && offset_of!(UserContext, tpidr) == 272);

global_asm!(
    r#"
    .macro save_user
    sub     sp, sp, #{context}
    stp     x0, x1, [sp, #16 * 0]
    stp     x2, x3, [sp, #16 * 1]
    stp     x4, x5, [sp, #16 * 2]
    stp     x6, x7, [sp, #16 * 3]
    stp     x8, x9, [sp, #16 * 4]
    stp     x10, x11, [sp, #16 * 5]
    stp     x12, x13, [sp, #16 * 6]
    stp     x14, x15, [sp, #16 * 7]
    stp     x16, x17, [sp, #16 * 8]
    stp     x18, x19, [sp, #16 * 9]
    stp     x20, x21, [sp, #16 * 10]
    stp     x22, x23, [sp, #16 * 11]
    stp     x24, x25, [sp, #16 * 12]
    stp     x26, x27, [sp, #16 * 13]
    stp     x28, x29, [sp, #16 * 14]
    mrs     x21, sp_el0
    mrs     x22, elr_el1
    mrs     x23, spsr_el1
    mrs     x24, tpidr_el0
    mov     x25, #-1
    stp     x30, x21, [sp, #{sp_el0} - 8]
    stp     x22, x23, [sp, #{elr}]
    stp     x24, x0, [sp, #{tpidr}]
    str     x25, [sp, #{syscallno}]
    mov     x29, xzr
    mov     x30, xzr
    .endm

    .macro save_kernel
    sub     sp, sp, #{frame}
    stp     x0, x1, [sp, #16 * 0]
    stp     x2, x3, [sp, #16 * 1]
    stp     x4, x5, [sp, #16 * 2]
    stp     x6, x7, [sp, #16 * 3]
    stp     x8, x9, [sp, #16 * 4]
    stp     x10, x11, [sp, #16 * 5]
    stp     x12, x13, [sp, #16 * 6]
    stp     x14, x15, [sp, #16 * 7]
    stp     x16, x17, [sp, #16 * 8]
    stp     x18, x29, [sp, #16 * 9]
    mrs     x0, elr_el1
    mrs     x1, spsr_el1
    stp     x30, x0, [sp, #16 * 10]
    stp     x1, xzr, [sp, #16 * 11]
    mov     x0, sp
    .endm

    // One vector; the table's entries lie 128 bytes apart.
    .macro vector target
    .balign 128
    b       \target
    .endm

    .pushsection .text.vectors, "ax", %progbits
    .balign 2048
    .global quark_vectors
quark_vectors:
    vector  3f
    vector  3f
    vector  3f
    vector  3f
    vector  quark_kernel_sync
    vector  quark_kernel_irq
    vector  3f
    vector  3f
    vector  quark_user_sync
    vector  quark_user_irq
    vector  quark_user_irq
    vector  quark_user_serror
    vector  3f
    vector  3f
    vector  3f
    vector  3f
    .balign 128
3:  // SError in the kernel, FIQ, AArch32, or a stack pointer mode the kernel never uses.
    save_kernel
    mrs     x1, esr_el1
    mrs     x2, far_el1
    bl      {kernel_fatal}
    b       .

quark_user_sync:
    save_user
    mrs     x1, esr_el1
    mrs     x2, far_el1
    lsr     x3, x1, #26
    cmp     x3, #{svc64}
    b.ne    4f
    str     x8, [sp, #{syscallno}]
4:  mov     x0, sp
    bl      {trap_sync}
    b       quark_return_to_user

quark_user_irq:
    save_user
    mov     x0, sp
    bl      {trap_irq}
    b       quark_return_to_user

quark_user_serror:
    save_user
    mrs     x1, esr_el1
    mov     x0, sp
    bl      {trap_serror}
    b       quark_return_to_user

quark_kernel_sync:
    save_kernel
    mrs     x1, esr_el1
    mrs     x2, far_el1
    bl      {kernel_fault}
    b       4f

quark_kernel_irq:
    save_kernel
    bl      {kernel_interrupt}
4:  ldp     x30, x0, [sp, #16 * 10]
    ldr     x1, [sp, #16 * 11]
    msr     elr_el1, x0
    msr     spsr_el1, x1
    ldp     x0, x1, [sp, #16 * 0]
    ldp     x2, x3, [sp, #16 * 1]
    ldp     x4, x5, [sp, #16 * 2]
    ldp     x6, x7, [sp, #16 * 3]
    ldp     x8, x9, [sp, #16 * 4]
    ldp     x10, x11, [sp, #16 * 5]
    ldp     x12, x13, [sp, #16 * 6]
    ldp     x14, x15, [sp, #16 * 7]
    ldp     x16, x17, [sp, #16 * 8]
    ldp     x18, x29, [sp, #16 * 9]
    add     sp, sp, #{frame}
    eret
    // Nothing may be speculated past an exception return.
    dsb     nsh
    isb

    // Leaves for EL0 with the context the stack pointer points at.
    .global quark_return_to_user
quark_return_to_user:
    ldp     x30, x21, [sp, #{sp_el0} - 8]
    ldp     x22, x23, [sp, #{elr}]
    ldr     x24, [sp, #{tpidr}]
    msr     sp_el0, x21
    msr     elr_el1, x22
    msr     spsr_el1, x23
    msr     tpidr_el0, x24
    ldp     x0, x1, [sp, #16 * 0]
    ldp     x2, x3, [sp, #16 * 1]
    ldp     x4, x5, [sp, #16 * 2]
    ldp     x6, x7, [sp, #16 * 3]
    ldp     x8, x9, [sp, #16 * 4]
    ldp     x10, x11, [sp, #16 * 5]
    ldp     x12, x13, [sp, #16 * 6]
    ldp     x14, x15, [sp, #16 * 7]
    ldp     x16, x17, [sp, #16 * 8]
    ldp     x18, x19, [sp, #16 * 9]
    ldp     x20, x21, [sp, #16 * 10]
    ldp     x22, x23, [sp, #16 * 11]
    ldp     x24, x25, [sp, #16 * 12]
    ldp     x26, x27, [sp, #16 * 13]
    ldp     x28, x29, [sp, #16 * 14]
    add     sp, sp, #{context}
    eret
    dsb     nsh
    isb
    .popsection
    "#,
    context = const CONTEXT_BYTES,
    frame = const FRAME_BYTES,
    sp_el0 = const offset_of!(UserContext, sp_el0),
    elr = const offset_of!(UserContext, elr),
    tpidr = const offset_of!(UserContext, tpidr),
    syscallno = const offset_of!(UserContext, syscallno),
    svc64 = const esr::CLASS_SVC64,
    kernel_fatal = sym kernel_fatal,
    kernel_fault = sym kernel_fault,
    kernel_interrupt = sym kernel_interrupt,
    trap_sync = sym trap_sync,
    trap_irq = sym trap_irq,
    trap_serror = sym trap_serror,
);

unsafe extern "C" {
    static quark_vectors: u8;
}

static HANDLERS: AtomicPtr<Handlers<UserContext>> = AtomicPtr::new(core::ptr::null_mut());

fn handlers() -> &'static Handlers<UserContext> {
    // SAFETY: `init` stored a reference that lives forever before traps were possible.
    unsafe { &*HANDLERS.load(Ordering::Acquire) }
}

/// Registers the handlers. Called once, by the boot CPU, before `cpu::init_cpu`.
pub fn init(h: &'static Handlers<UserContext>) {
    HANDLERS.store(core::ptr::from_ref(h).cast_mut(), Ordering::Release);
}

/// Points this CPU at the vectors.
pub(super) fn load_vectors() {
    let at = &raw const quark_vectors as u64;
    // SAFETY: the table is aligned to 2 KiB and lives in the kernel's text.
    unsafe { asm!("msr vbar_el1, {}", "isb", in(reg) at, options(nostack, preserves_flags)) };
}

/// A synchronous exception of the app.
extern "C" fn trap_sync(ctx: &mut UserContext, syndrome: u64, far: u64) {
    // FAR says nothing about a misaligned stack pointer.
    let far = if syndrome >> 26 & 0x3f == esr::CLASS_SP_ALIGNMENT {
        ctx.sp_el0
    } else {
        far
    };
    let cause = match esr::decode(syndrome, far) {
        Exception::Syscall => Cause::Syscall,
        Exception::PageFault { addr, touch } => Cause::PageFault {
            addr,
            write: touch == Touch::Write,
            exec: touch == Touch::Execute,
        },
        Exception::BusError { addr } => Cause::BusError { addr },
        Exception::Alignment { addr } => Cause::Alignment { addr },
        Exception::Illegal => Cause::Illegal,
        Exception::Breakpoint => Cause::Breakpoint,
        Exception::Step => Cause::Step,
        Exception::Arithmetic(code) => Cause::Arithmetic(code),
        Exception::Other => fatal(
            "an exception of the app that it cannot raise",
            syndrome,
            ctx.elr,
            ctx.sp_el0,
            far,
        ),
    };
    (handlers().user)(ctx, cause);
    ctx.sanitize();
}

/// An interrupt while the app ran.
extern "C" fn trap_irq(ctx: &mut UserContext) {
    (handlers().user)(ctx, Cause::Interrupt(super::irq::acknowledge()));
    ctx.sanitize();
}

/// An asynchronous error while the app ran: the memory it uses is broken.
extern "C" fn trap_serror(ctx: &mut UserContext, _syndrome: u64) {
    (handlers().user)(ctx, Cause::BusError { addr: 0 });
    ctx.sanitize();
}

/// A synchronous exception in the kernel: a user copy that faulted, or the end.
extern "C" fn kernel_fault(frame: &mut KernelFrame, syndrome: u64, far: u64) {
    if let Some(to) = super::usercopy::fixup(frame.elr) {
        let again = match esr::decode(syndrome, far) {
            Exception::PageFault { addr, touch } => {
                addr >> 48 == 0 && (handlers().copy_fault)(addr, touch == Touch::Write)
            }
            _ => false,
        };
        if !again {
            frame.elr = to;
        }
        return;
    }
    kernel_fatal(frame, syndrome, far)
}

/// An interrupt while the idle loop waited.
extern "C" fn kernel_interrupt(_frame: &mut KernelFrame) {
    (handlers().idle_interrupt)(super::irq::acknowledge());
}

/// An exception the kernel never causes when it is sound.
extern "C" fn kernel_fatal(frame: &mut KernelFrame, syndrome: u64, far: u64) -> ! {
    let sp = core::ptr::from_ref(frame) as u64 + FRAME_BYTES as u64;
    fatal("a fault in the kernel", syndrome, frame.elr, sp, far)
}

fn fatal(what: &'static str, syndrome: u64, pc: u64, sp: u64, addr: u64) -> ! {
    (handlers().fatal)(&KernelFault {
        what,
        code: syndrome >> 26 & 0x3f,
        error: syndrome,
        pc,
        sp,
        addr,
    })
}

/// Leaves the kernel for the app with `ctx`; the stack that ends at `stack_top` (the current one) is emptied.
///
/// # Safety
/// `stack_top` is the top of the current kernel stack and the one traps start on; interrupts are masked; the current address
/// space is the app's.
pub unsafe fn enter_user(ctx: &UserContext, stack_top: u64) -> ! {
    let frame = (stack_top - CONTEXT_BYTES as u64) as *mut UserContext;
    // SAFETY: the frame's room at the top of a kernel stack holds no live Rust frame (see `switch::FRAME_ROOM`); the source
    // may lie in it, so the copy allows overlap.
    unsafe { core::ptr::copy(ctx, frame, 1) };
    // SAFETY: the frame was just written and nobody else knows it.
    unsafe { (*frame).sanitize() };
    // SAFETY: the assembly above takes the context at the stack pointer; nothing of this stack is needed any more.
    unsafe { asm!("mov sp, {}", "b quark_return_to_user", in(reg) frame, options(noreturn)) }
}
