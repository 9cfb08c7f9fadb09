//! Telling QVisor something by an exit.

use crate::x86_64::doorbell;
use core::arch::asm;

fn out(port: u16, value: u32) {
    // SAFETY: the machine has no devices; these ports are QVisor's, which treats the value as untrusted data.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
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
