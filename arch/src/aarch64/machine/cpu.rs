//! One CPU: its vectors, waiting.

use core::arch::asm;

/// What one CPU needs in fixed places: nothing on this architecture.
#[derive(Default)]
pub struct CpuTables(());

impl CpuTables {
    /// Empty tables.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Points this CPU at the kernel's vectors.
///
/// # Safety
/// `trap_entry::init` was called on some CPU.
pub unsafe fn init_cpu(_tables: *mut CpuTables) {
    super::trap_entry::load_vectors();
}

/// Sets the stack on which the next trap from user mode starts: nothing to do, since the stack pointer of EL1 stays where
/// the return to EL0 left it, at the top of the thread's stack.
///
/// # Safety
/// None beyond its twin's of the other architecture.
pub unsafe fn set_kernel_stack(_tables: *mut CpuTables, _top: u64) {}

/// Waits for an interrupt and takes it: returns after its handler ran, with interrupts masked again. One that was pending
/// when the caller last looked ends the wait at once.
pub fn wait_for_interrupt() {
    // SAFETY: a masked interrupt that is pending ends WFI too; it is taken between the two writes of DAIF.
    unsafe {
        asm!(
            "dsb sy",
            "wfi",
            "msr daifclr, #2",
            "isb",
            "msr daifset, #2",
            options(nostack)
        )
    };
}

/// Stops this CPU forever.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts masked nothing is taken; the kernel expects nothing more of this CPU.
        unsafe { asm!("msr daifset, #15", "wfi", options(nomem, nostack)) };
    }
}
