//! The registers by which the guest tells QVisor something: 32 bits wide, write-only, in a page of device memory of their
//! own at [`PHYS`], of which the kernel sees [`VIRT`].

use super::paging::device;

/// Guest-physical address of the page.
pub const PHYS: u64 = 0x0700_0000;
/// Its address in the kernel.
pub const VIRT: u64 = device(PHYS);

/// There are submissions in the ring (an ioeventfd: no exit to QVisor's thread). The value does not matter.
pub const RING: u64 = PHYS;
/// The boot CPU is ready: the other virtual CPUs may start. The value does not matter.
pub const START_CPUS: u64 = PHYS + 4;
/// The guest stops. The value is the exit code; the log page of the ring area holds the reason.
pub const STOP: u64 = PHYS + 8;
/// There is a line in the log page of the ring area; it may be overwritten when the store returns. The value does not matter.
pub const LOG: u64 = PHYS + 12;
