//! The I/O ports by which the guest tells QVisor something. All are 32 bits wide and write-only.

/// There are submissions in the ring (an ioeventfd: no exit to QVisor's thread). The value does not matter.
pub const RING: u16 = 0x510;
/// The boot CPU is ready: the other virtual CPUs may start. The value does not matter.
pub const START_CPUS: u16 = 0x514;
/// The guest stops without the ring (panic, early boot). The value is the exit code.
pub const STOP: u16 = 0x518;
/// One byte of an emergency log line; a line feed ends it.
pub const LOG: u16 = 0x51c;
