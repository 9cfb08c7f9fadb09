//! Interrupt numbers, and where the interrupt controller (GICv3) lies.

/// A CPU calls another (a software-generated interrupt).
pub const IPI: u32 = 1;
/// The virtual timer (a private peripheral interrupt).
pub const TIMER: u32 = 27;
/// The host completed something (the first shared peripheral interrupt, by irqfd; edge-triggered).
pub const HOST: u32 = 32;
/// Numbers the distributor has: the 32 private ones and 32 shared ones.
pub const COUNT: u32 = 64;

/// Guest-physical address of the distributor.
pub const DISTRIBUTOR: u64 = 0x0800_0000;
/// Bytes of the distributor's registers.
pub const DISTRIBUTOR_BYTES: u64 = 0x1_0000;
/// Guest-physical address of the redistributors, one after the other in the order of CPU indices.
pub const REDISTRIBUTORS: u64 = 0x080a_0000;
/// Bytes of one CPU's redistributor: its own frame, and that of its software-generated and private interrupts.
pub const REDISTRIBUTOR_BYTES: u64 = 0x2_0000;

/// The affinity KVM gives the virtual CPU `cpu`: 16 to a cluster (`kvm_reset_mpidr`). Aff3 in bits 39–32, Aff2–Aff0 in
/// bits 23–0.
pub const fn affinity(cpu: u32) -> u64 {
    let cpu = cpu as u64;
    cpu & 15 | (cpu >> 4 & 0xff) << 8 | (cpu >> 12 & 0xff) << 16
}
