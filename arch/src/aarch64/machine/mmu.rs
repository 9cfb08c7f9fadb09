//! Address-space switches, TLB and cache maintenance, and the guard over the app's memory.
//!
//! All address spaces share ASID 0; a switch forgets the app's half on its CPU. The kernel's half is global, in TTBR1.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use qlib::PhysAddr;

/// Whether TLB maintenance reaches the other CPUs by itself.
pub const BROADCAST: bool = true;
/// Whether an app that touches a page the host has no memory for may wait there for ever: KVM tells at once.
pub const MAY_WAIT_FOREVER: bool = false;

static PAN: AtomicBool = AtomicBool::new(false);

/// Turns Privileged Access Never on where the CPU has it. Called once per CPU.
pub fn init_cpu() {
    use aarch64_cpu::registers::{ID_AA64MMFR1_EL1, Readable};
    let pan = ID_AA64MMFR1_EL1.get() >> 20 & 15 != 0;
    PAN.store(pan, Ordering::Relaxed);
    close_user();
}

/// Whether PAN is on.
pub fn has_pan() -> bool {
    PAN.load(Ordering::Relaxed)
}

/// The app half's root table that is current.
pub fn current_root() -> PhysAddr {
    let ttbr: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, ttbr0_el1", out(reg) ttbr, options(nomem, nostack, preserves_flags)) };
    PhysAddr(ttbr & 0x0000_ffff_ffff_f000)
}

/// Makes `root` the current address space and drops what the TLB knows of the app's half.
///
/// # Safety
/// `root` is a root table of the app's half and stays one while it is current.
pub unsafe fn activate(root: PhysAddr) {
    // SAFETY: the kernel lives in TTBR1; the table is the caller's promise; to forget translations only costs time.
    unsafe {
        asm!(
            "dsb ishst",
            "msr ttbr0_el1, {}",
            "isb",
            "tlbi aside1, xzr",
            "dsb nsh",
            "isb",
            in(reg) root.0,
            options(nostack, preserves_flags)
        )
    };
}

/// Drops one page of the app's half from the TLB of every CPU.
pub fn flush_page(va: u64) {
    let arg = va >> 12 & ((1 << 44) - 1);
    // SAFETY: TLBI only forgets translations.
    unsafe {
        asm!("dsb ishst", "tlbi vae1is, {}", "dsb ish", "isb", in(reg) arg, options(nostack, preserves_flags))
    };
}

/// Drops the app's half from the TLB of every CPU.
pub fn flush_user() {
    // SAFETY: TLBI only forgets translations.
    unsafe {
        asm!(
            "dsb ishst",
            "tlbi aside1is, xzr",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        )
    };
}

/// Makes table writes visible to the table walkers of this architecture.
pub fn publish_tables() {
    // SAFETY: barriers have no operands.
    unsafe { asm!("dsb ishst", "isb", options(nostack, preserves_flags)) };
}

/// Opens the app's memory to the kernel (PAN). Traps close it on entry and restore it on return. Copies need it not: they
/// use the unprivileged loads and stores.
pub fn open_user() {
    if PAN.load(Ordering::Relaxed) {
        // SAFETY: the CPU has PAN.
        unsafe {
            asm!(
                ".arch_extension pan",
                "msr pan, #0",
                options(nostack, preserves_flags)
            )
        };
    }
}

/// Closes the app's memory to the kernel.
pub fn close_user() {
    if PAN.load(Ordering::Relaxed) {
        // SAFETY: the CPU has PAN.
        unsafe {
            asm!(
                ".arch_extension pan",
                "msr pan, #1",
                options(nostack, preserves_flags)
            )
        };
    }
}

/// Makes `len` bytes at `start` (an address of the kernel's or in the window) fit to be executed, wherever the app has them.
pub fn sync_instructions(start: u64, len: u64) {
    let ctr: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    // IDC: no cleaning needed. DIC: no invalidation needed.
    if ctr & 1 << 28 == 0 {
        let line = 4u64 << (ctr >> 16 & 15);
        let mut at = start & !(line - 1);
        while at < start + len {
            super::usercopy::clean_line(at);
            at += line;
        }
    }
    // SAFETY: barriers have no operands.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    if ctr & 1 << 29 == 0 {
        // The app has the page elsewhere, and an instruction cache may be indexed by that address: all of it goes.
        // SAFETY: invalidation only costs time.
        unsafe { asm!("ic ialluis", "dsb ish", options(nostack, preserves_flags)) };
    }
    // SAFETY: barriers have no operands.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}
