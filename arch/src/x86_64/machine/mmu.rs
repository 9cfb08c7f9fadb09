//! Address-space switches, TLB maintenance, and the guard over the app's memory.

use crate::x86_64::boot::CR4_SMAP;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use qlib::PhysAddr;

/// Whether TLB maintenance reaches the other CPUs by itself.
pub const BROADCAST: bool = false;
/// Whether an app that touches a page the host has no memory for may wait there for ever: KVM resolves such faults behind the guest's back (asynchronous page faults), and does not tell when it cannot.
pub const MAY_WAIT_FOREVER: bool = true;

static SMAP: AtomicBool = AtomicBool::new(false);

/// Learns what QVisor switched on in CR4. Called once per CPU.
pub fn init_cpu() {
    let cr4: u64;
    // SAFETY: reading CR4 in ring 0 has no effect.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags)) };
    SMAP.store(cr4 & CR4_SMAP != 0, Ordering::Relaxed);
}

/// The root table that is current.
pub fn current_root() -> PhysAddr {
    let cr3: u64;
    // SAFETY: reading CR3 in ring 0 has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
    PhysAddr(cr3 & !0xfff)
}

/// Makes `root` the current address space and drops what the TLB knows of the app's half.
///
/// # Safety
/// `root` is a root table that carries the kernel's half and stays one while it is current.
pub unsafe fn activate(root: PhysAddr) {
    // SAFETY: by the caller's promise the code, stack and data in use stay mapped.
    unsafe { asm!("mov cr3, {}", in(reg) root.0, options(nostack, preserves_flags)) };
}

/// Drops one page of the current address space from this CPU's TLB.
pub fn flush_page(va: u64) {
    // SAFETY: INVLPG only forgets a translation.
    unsafe { asm!("invlpg [{}]", in(reg) va, options(nostack, preserves_flags)) };
}

/// Drops the app's half of the current address space from this CPU's TLB.
pub fn flush_user() {
    // SAFETY: writing CR3 with its own value only forgets translations.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}

/// Makes table writes visible to the table walkers of this architecture. x86_64 walkers are coherent.
pub fn publish_tables() {}

/// Makes `len` bytes that the kernel wrote at `start` (its own address) fit to be executed, wherever the app has them.
/// x86_64 instruction caches are coherent.
pub fn sync_instructions(_start: u64, _len: u64) {}

/// Whether the CPU refuses the kernel what it has not opened (SMAP).
pub(super) fn guards_user() -> bool {
    SMAP.load(Ordering::Relaxed)
}

/// Opens the app's memory to the kernel (SMAP). Traps close it on entry and restore it on return.
pub fn open_user() {
    if SMAP.load(Ordering::Relaxed) {
        // SAFETY: the CPU has SMAP, so STAC exists; it only sets RFLAGS.AC.
        unsafe { asm!("stac", options(nostack)) };
    }
}

/// Closes the app's memory to the kernel.
pub fn close_user() {
    if SMAP.load(Ordering::Relaxed) {
        // SAFETY: the CPU has SMAP, so CLAC exists; it only clears RFLAGS.AC.
        unsafe { asm!("clac", options(nostack)) };
    }
}
