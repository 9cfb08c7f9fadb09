//! The I/O ports by which the guest tells QVisor something. All are 32 bits wide and write-only.

/// There are submissions in the ring (an ioeventfd: no exit to QVisor's thread). The value does not matter.
pub const RING: u16 = 0x510;
/// The boot CPU is ready: the other virtual CPUs may start. The value does not matter.
pub const START_CPUS: u16 = 0x514;
/// The guest stops. The value is the exit code; the log page of the ring area holds the reason.
pub const STOP: u16 = 0x518;
/// There is a line in the log page of the ring area; it may be overwritten when the write returns. The value does not matter.
pub const LOG: u16 = 0x51c;
