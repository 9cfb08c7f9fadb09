//! Interrupt vectors of the machine.

/// First vector that is not an exception.
pub const FIRST: u8 = 32;
/// The LAPIC timer.
pub const TIMER: u8 = 0x22;
/// The host completed something (MSI by irqfd).
pub const HOST: u8 = 0x21;
/// Another CPU asks for attention.
pub const IPI: u8 = 0x23;
/// The LAPIC's spurious vector.
pub const SPURIOUS: u8 = 0x2f;
/// One past the last vector with a gate.
pub const END: u8 = 0x30;

/// The machine check. A guest never sees a real one: the host raises it when it has no memory behind a page that was touched,
/// because the file in it became shorter. (KVM does not say at which address.)
pub const MEMORY_GONE: u8 = 18;
