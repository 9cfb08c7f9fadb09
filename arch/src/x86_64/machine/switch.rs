//! Changing kernel stacks.

use core::arch::global_asm;

global_asm!(
    ".text",
    ".balign 16",
    ".globl quark_switch_stacks",
    "quark_switch_stacks:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rdi], rsp",
    "mov rsp, rsi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
);

unsafe extern "C" {
    fn quark_switch_stacks(save: *mut u64, load: u64);
}

/// Bytes at the top of every kernel stack that belong to the trap frame.
pub const FRAME_ROOM: u64 = 512;

/// Leaves the current stack, whose position is stored in `save`, for the one at `load`; returns when someone switches back.
///
/// # Safety
/// `load` is a position stored by this function or made by [`prepare`], of a stack that nobody runs on; interrupts are masked.
pub unsafe fn switch(save: *mut u64, load: u64) {
    // SAFETY: by the caller's promise; callee-saved registers are kept on the stack that is left.
    unsafe { quark_switch_stacks(save, load) };
}

/// Prepares a fresh stack so that [`switch`] to the returned position calls `entry`.
///
/// # Safety
/// The stack ending at `top` (16-byte aligned) is writable, at least 4 KiB long, and not in use.
pub unsafe fn prepare(top: u64, entry: extern "C" fn() -> !) -> u64 {
    // `entry` starts as if called: its return slot makes the stack 8 modulo 16.
    let words = [0u64, 0, 0, 0, 0, 0, entry as usize as u64, 0];
    let sp = top - FRAME_ROOM - size_of_val(&words) as u64;
    // SAFETY: the words lie inside the stack, which the caller owns.
    unsafe { core::ptr::write(sp as *mut [u64; 8], words) };
    sp
}
