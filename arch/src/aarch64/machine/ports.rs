//! Telling QVisor something by an exit.

use crate::aarch64::doorbell;
use core::arch::asm;

/// Stores to a register of the doorbell page with one plain store, which the hypervisor can decode.
fn out(register: u64, value: u32) {
    let at = doorbell::VIRT + (register - doorbell::PHYS);
    // SAFETY: the boot tables map the page, and QVisor treats the value as untrusted data; earlier stores must be visible
    // before the host is told.
    unsafe {
        asm!("dsb ishst", "str {0:w}, [{1}]", in(reg) value, in(reg) at, options(nostack, preserves_flags))
    };
}

/// Rings the host's side of the rings.
pub fn ring() {
    out(doorbell::RING, 0);
}

/// Lets the other virtual CPUs start.
pub fn start_cpus() {
    out(doorbell::START_CPUS, 0);
}

/// Stops the guest at once.
pub fn stop(code: u32) -> ! {
    loop {
        out(doorbell::STOP, code);
    }
}

/// Has QVisor take the line in the log page of the ring area.
pub fn log() {
    out(doorbell::LOG, 0);
}
