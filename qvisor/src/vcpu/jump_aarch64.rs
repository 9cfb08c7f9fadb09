//! The way into QKernel on the process machine.

/// Enters the kernel.
///
/// # Safety
/// `entry` is the kernel's entry point, `page` its boot page, `stack` the top of its boot stack.
pub unsafe fn jump(entry: u64, page: u64, stack: u64) -> ! {
    // SAFETY: the caller vouches for the addresses.
    unsafe {
        std::arch::asm!("mov sp, {s}", "br {e}", s = in(reg) stack, e = in(reg) entry, in("x0") page,
            options(noreturn))
    }
}
