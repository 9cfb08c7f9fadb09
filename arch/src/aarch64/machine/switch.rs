//! Changing kernel stacks.

use core::arch::naked_asm;

/// Bytes at the top of every kernel stack that belong to the trap frame.
pub const FRAME_ROOM: u64 = 512;

/// Words [`switch`] keeps on the stack it leaves: x29, x30, x19–x28.
const WORDS: usize = 12;

/// Leaves the current stack, whose position is stored in `save`, for the one at `load`; returns when someone switches back.
///
/// # Safety
/// `load` is a position stored by this function or made by [`prepare`], of a stack that nobody runs on; interrupts are masked.
#[unsafe(naked)]
pub unsafe extern "C" fn switch(save: *mut u64, load: u64) {
    naked_asm!(
        "stp x29, x30, [sp, #-96]!",
        "stp x19, x20, [sp, #16]",
        "stp x21, x22, [sp, #32]",
        "stp x23, x24, [sp, #48]",
        "stp x25, x26, [sp, #64]",
        "stp x27, x28, [sp, #80]",
        "mov x9, sp",
        "str x9, [x0]",
        "mov sp, x1",
        "ldp x19, x20, [sp, #16]",
        "ldp x21, x22, [sp, #32]",
        "ldp x23, x24, [sp, #48]",
        "ldp x25, x26, [sp, #64]",
        "ldp x27, x28, [sp, #80]",
        "ldp x29, x30, [sp], #96",
        "ret",
    )
}

/// Prepares a fresh stack so that [`switch`] to the returned position calls `entry`.
///
/// # Safety
/// The stack ending at `top` (16-byte aligned) is writable, at least 4 KiB long, and not in use.
pub unsafe fn prepare(top: u64, entry: extern "C" fn() -> !) -> u64 {
    let mut words = [0u64; WORDS];
    words[1] = entry as usize as u64;
    let sp = top - FRAME_ROOM - size_of_val(&words) as u64;
    // SAFETY: the words lie inside the stack, which the caller owns.
    unsafe { core::ptr::write(sp as *mut [u64; WORDS], words) };
    sp
}
