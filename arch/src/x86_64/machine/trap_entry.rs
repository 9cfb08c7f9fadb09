//! Trap entries, and the way to user mode.
//!
//! A trap from user mode builds a `UserContext` at the top of the thread's kernel stack. GS always holds the app's base: the
//! system-call entry swaps it for two instructions to find its stack, exceptions get theirs from the task state.

use crate::trap::{Cause, Handlers, KernelFault};
use crate::x86_64::context::UserContext;
use crate::x86_64::vector;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, Ordering};

global_asm!(
    ".text",
    // Offsets in UserContext: r8 0, r9 8, r10 16, r11 24, r12 32, r13 40, r14 48, r15 56, rdi 64, rsi 72, rbp 80, rbx 88,
    // rdx 96, rax 104, rcx 112, rsp 120, rip 128, rflags 136, fs_base 144, gs_base 152, orig_rax 160; 168 bytes.
    ".macro SAVE_REGS",
    "mov [rsp + 0], r8",
    "mov [rsp + 8], r9",
    "mov [rsp + 16], r10",
    "mov [rsp + 24], r11",
    "mov [rsp + 32], r12",
    "mov [rsp + 40], r13",
    "mov [rsp + 48], r14",
    "mov [rsp + 56], r15",
    "mov [rsp + 64], rdi",
    "mov [rsp + 72], rsi",
    "mov [rsp + 80], rbp",
    "mov [rsp + 88], rbx",
    "mov [rsp + 96], rdx",
    "mov [rsp + 104], rax",
    "mov [rsp + 112], rcx",
    ".endm",
    ".macro SAVE_BASES",
    "rdfsbase rax",
    "mov [rsp + 144], rax",
    "rdgsbase rax",
    "mov [rsp + 152], rax",
    ".endm",
    // System call: rcx = return address, r11 = flags.
    ".balign 64",
    ".globl quark_syscall_entry",
    "quark_syscall_entry:",
    "swapgs",
    "mov gs:[8], rsp",
    "mov rsp, gs:[0]",
    "sub rsp, 176",
    "SAVE_REGS",
    "mov rdi, gs:[8]",
    "swapgs",
    "mov [rsp + 120], rdi",
    "mov [rsp + 128], rcx",
    "mov [rsp + 136], r11",
    "mov [rsp + 160], rax",
    "SAVE_BASES",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "call {syscall}",
    // rsp = UserContext.
    ".globl quark_return_to_user",
    "quark_return_to_user:",
    "mov rax, [rsp + 144]",
    "wrfsbase rax",
    "mov rax, [rsp + 152]",
    "wrgsbase rax",
    // sysret only when it gives exactly these registers, and never with an address it would fault on in ring 0.
    "mov rcx, [rsp + 128]",
    "mov r11, [rsp + 136]",
    "cmp rcx, [rsp + 112]",
    "jne 2f",
    "cmp r11, [rsp + 24]",
    "jne 2f",
    "test r11d, 0x10100",
    "jnz 2f",
    "mov rax, rcx",
    "shr rax, 47",
    "jnz 2f",
    "mov r8, [rsp + 0]",
    "mov r9, [rsp + 8]",
    "mov r10, [rsp + 16]",
    "mov r12, [rsp + 32]",
    "mov r13, [rsp + 40]",
    "mov r14, [rsp + 48]",
    "mov r15, [rsp + 56]",
    "mov rdi, [rsp + 64]",
    "mov rsi, [rsp + 72]",
    "mov rbp, [rsp + 80]",
    "mov rbx, [rsp + 88]",
    "mov rdx, [rsp + 96]",
    "mov rax, [rsp + 104]",
    "mov rsp, [rsp + 120]",
    "sysretq",
    "2:",
    "mov rsi, rsp",
    "push 0x2b",
    "push [rsi + 120]",
    "push [rsi + 136]",
    "push 0x33",
    "push [rsi + 128]",
    "mov r8, [rsi + 0]",
    "mov r9, [rsi + 8]",
    "mov r10, [rsi + 16]",
    "mov r11, [rsi + 24]",
    "mov r12, [rsi + 32]",
    "mov r13, [rsi + 40]",
    "mov r14, [rsi + 48]",
    "mov r15, [rsi + 56]",
    "mov rdi, [rsi + 64]",
    "mov rbp, [rsi + 80]",
    "mov rbx, [rsi + 88]",
    "mov rdx, [rsi + 96]",
    "mov rax, [rsi + 104]",
    "mov rcx, [rsi + 112]",
    "mov rsi, [rsi + 72]",
    ".globl quark_iret",
    "quark_iret:",
    "iretq",
    // 32-bit system calls (SYSCALL in compatibility mode): no such app is ever started; refuse.
    ".balign 16",
    ".globl quark_syscall32_entry",
    "quark_syscall32_entry:",
    "mov eax, -38",
    "sysret",
    // Exceptions and interrupts. The stubs are 16 bytes apart.
    ".balign 16",
    ".globl quark_trap_stubs",
    "quark_trap_stubs:",
    ".set v, 0",
    ".rept 48",
    ".balign 16",
    // 8 and 10..14, 17, 21, 29, 30 push an error code.
    ".if !(v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30)",
    "push 0",
    ".endif",
    "push v",
    "jmp quark_trap_common",
    ".set v, v + 1",
    ".endr",
    ".balign 64",
    // Stack: vector, error, rip, cs, rflags, rsp, ss.
    ".globl quark_trap_common",
    "quark_trap_common:",
    "cld",
    "test byte ptr [rsp + 24], 3",
    "jz 3f",
    "sub rsp, 168",
    "SAVE_REGS",
    "mov rax, [rsp + 168 + 16]",
    "mov [rsp + 128], rax",
    "mov rax, [rsp + 168 + 32]",
    "mov [rsp + 136], rax",
    "mov rax, [rsp + 168 + 40]",
    "mov [rsp + 120], rax",
    "mov qword ptr [rsp + 160], -1",
    "SAVE_BASES",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "mov rsi, [rsp + 168]",
    "mov rdx, [rsp + 168 + 8]",
    "call {user_trap}",
    "jmp quark_return_to_user",
    // From the kernel: a user copy that faulted, the idle loop's interrupt, or the end.
    "3:",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbp",
    "mov rbp, rsp",
    "lea rdi, [rsp + 80]",
    "and rsp, -16",
    "call {kernel_trap}",
    "mov rsp, rbp",
    "pop rbp",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    syscall = sym syscall,
    user_trap = sym user_trap,
    kernel_trap = sym kernel_trap,
);

unsafe extern "C" {
    fn quark_syscall_entry();
    fn quark_syscall32_entry();
    fn quark_trap_stubs();
}

/// What the entry pushed for a trap in the kernel.
#[repr(C)]
struct KernelFrame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

static HANDLERS: AtomicPtr<Handlers<UserContext>> = AtomicPtr::new(core::ptr::null_mut());

fn handlers() -> &'static Handlers<UserContext> {
    // SAFETY: `init` stored a reference that lives forever before traps were possible.
    unsafe { &*HANDLERS.load(Ordering::Acquire) }
}

const GATES: usize = 256;

#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; GATES]>);
// SAFETY: written once by the boot CPU in `init`, before any CPU loads it.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; GATES]));

/// Traps that run on the fault stack: NMI, double fault. The machine check is the host's word for [`Cause::MemoryGone`],
/// which comes where a page fault might.
const ON_FAULT_STACK: [usize; 2] = [2, 8];

/// Fills the gates and registers the handlers. Called once, by the boot CPU, before `cpu::init_cpu`.
pub fn init(h: &'static Handlers<UserContext>) {
    HANDLERS.store(core::ptr::from_ref(h).cast_mut(), Ordering::Release);
    let base = quark_trap_stubs as *const () as u64;
    let mut gates = [[0u64; 2]; GATES];
    for (v, gate) in gates.iter_mut().enumerate().take(vector::END as usize) {
        let at = base + 16 * v as u64;
        // Breakpoint and overflow may be raised by the app's instructions.
        let dpl: u64 = if v == 3 || v == 4 { 3 } else { 0 };
        let ist = ON_FAULT_STACK.contains(&v) as u64;
        // A 64-bit interrupt gate (SDM volume 3A, section 6.14.1).
        gate[0] = at & 0xffff
            | (crate::x86_64::boot::KERNEL_CS as u64) << 16
            | ist << 32
            | (0x8e | dpl << 5) << 40
            | (at >> 16 & 0xffff) << 48;
        gate[1] = at >> 32;
    }
    // SAFETY: one CPU runs, and none has loaded the table.
    unsafe { *IDT.0.get() = gates };
}

/// Loads the gates on this CPU.
pub(super) fn load_idt() {
    let pointer: [u16; 5] = {
        let base = IDT.0.get() as u64;
        [
            (GATES * 16 - 1) as u16,
            base as u16,
            (base >> 16) as u16,
            (base >> 32) as u16,
            (base >> 48) as u16,
        ]
    };
    // SAFETY: the table is static and was filled by `init`.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack, preserves_flags)) };
}

pub(super) fn syscall_entry() -> u64 {
    quark_syscall_entry as *const () as u64
}

pub(super) fn syscall32_entry() -> u64 {
    quark_syscall32_entry as *const () as u64
}

fn fault_address() -> u64 {
    let cr2: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack, preserves_flags)) };
    cr2
}

/// Addresses the return instruction can take; others raise a general-protection fault in the app.
fn leave(ctx: &mut UserContext) {
    while ctx.rip >> 47 != 0 {
        (handlers().user)(ctx, Cause::GeneralProtection);
    }
    ctx.sanitize();
    // WRFSBASE and WRGSBASE fault on addresses that are not canonical.
    for base in [&mut ctx.fs_base, &mut ctx.gs_base] {
        *base = ((*base << 16) as i64 >> 16) as u64;
    }
}

extern "C" fn syscall(ctx: &mut UserContext) {
    (handlers().user)(ctx, Cause::Syscall);
    leave(ctx);
}

extern "C" fn user_trap(ctx: &mut UserContext, v: u64, error: u64) {
    let addr = fault_address();
    super::mmu::close_user();
    let cause = match v {
        0 => Cause::Arithmetic(FPE_INTDIV),
        1 => Cause::Step,
        3 => Cause::Breakpoint,
        4 | 5 | 10..=13 => Cause::GeneralProtection,
        6 => Cause::Illegal,
        14 => Cause::PageFault {
            addr,
            write: error & 2 != 0,
            exec: error & 16 != 0,
        },
        16 | 19 => Cause::Arithmetic(FPE_FLTINV),
        17 => Cause::Alignment { addr: 0 },
        v if v == vector::MEMORY_GONE as u64 => Cause::MemoryGone,
        _ if v >= vector::FIRST as u64 => Cause::Interrupt(super::irq::acknowledge(v)),
        _ => fatal(
            "an exception of the app that it cannot raise",
            v,
            error,
            ctx.rip,
            ctx.rsp,
            addr,
        ),
    };
    (handlers().user)(ctx, cause);
    leave(ctx);
}

/// `si_code` of an integer division by zero.
const FPE_INTDIV: i32 = 1;
/// `si_code` of an invalid floating-point operation.
const FPE_FLTINV: i32 = 7;

/// Page-fault error code: the page is there.
const PRESENT: u64 = 1;
/// RFLAGS.AC: the app's memory is open (SMAP).
const AC: u64 = 1 << 18;

extern "C" fn kernel_trap(frame: &mut KernelFrame) {
    let addr = fault_address();
    super::mmu::close_user();
    let v = frame.vector;
    if v >= vector::FIRST as u64 {
        (handlers().idle_interrupt)(super::irq::acknowledge(v));
        return;
    }
    if let Some(to) = super::usercopy::fixup(frame.rip) {
        // With SMAP a page that is there is refused while the app's memory is closed: no handler can help that.
        let closed = frame.error & PRESENT != 0 && frame.rflags & AC == 0 && super::mmu::guards_user();
        let again =
            v == 14 && addr >> 47 == 0 && !closed && (handlers().copy_fault)(addr, frame.error & 2 != 0);
        if !again {
            frame.rip = to;
        }
        return;
    }
    fatal(
        "a fault in the kernel",
        v,
        frame.error,
        frame.rip,
        frame.rsp,
        addr,
    )
}

fn fatal(what: &'static str, code: u64, error: u64, pc: u64, sp: u64, addr: u64) -> ! {
    (handlers().fatal)(&KernelFault {
        what,
        code,
        error,
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
    let frame = (stack_top - 176) as *mut UserContext;
    // SAFETY: the frame's room at the top of a kernel stack holds no live Rust frame (see `switch::FRAME_ROOM`); the source
    // may lie in it, so the copy allows overlap.
    unsafe { core::ptr::copy(ctx, frame, 1) };
    // SAFETY: the frame was just written and nobody else knows it.
    leave(unsafe { &mut *frame });
    // SAFETY: the assembly above takes the context at the stack pointer; nothing of this stack is needed any more.
    unsafe { asm!("mov rsp, {}", "jmp quark_return_to_user", in(reg) frame, options(noreturn)) }
}
