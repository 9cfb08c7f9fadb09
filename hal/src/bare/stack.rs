//! Kernel stacks: 64 KiB, aligned, with a header at the base that names the thread and the CPU.

use super::cpu::Cpu;
use super::{frames, phys};
use crate::thread::Thread;
use arch::boot::BOOT_STACK_BYTES;
use qlib::{PAGE_SIZE, PhysAddr};

/// Bytes of a stack.
pub(super) const BYTES: u64 = BOOT_STACK_BYTES;
const ORDER: usize = (BYTES / PAGE_SIZE).trailing_zeros() as usize;
/// What the header's last word holds while the stack has not overflown into it.
const CANARY: u64 = 0x6b72_6175_715f_6b73;

/// The base of a kernel stack.
#[repr(C)]
pub(super) struct Header {
    /// A counted reference, owned by the stack; null on a CPU that has not come up.
    pub thread: *const Thread,
    /// The CPU the thread runs on; changes while it is switched away.
    pub cpu: *const Cpu,
    canary: u64,
}

/// Takes a stack; its base.
pub(super) fn alloc() -> Option<u64> {
    Some(phys::ptr(frames::alloc_block(ORDER)?) as u64)
}

/// Gives a stack back.
pub(super) fn free(base: u64) {
    let pa: PhysAddr = phys::of(base as *const u8);
    frames::free_block(pa, ORDER);
}

/// Writes a stack's header.
///
/// # Safety
/// `base` is a stack that the caller owns, or runs on as the first thread of a CPU.
pub(super) unsafe fn set_header(base: u64, thread: *const Thread, cpu: *const Cpu) {
    // SAFETY: the header lies inside the stack.
    unsafe {
        core::ptr::write(
            base as *mut Header,
            Header {
                thread,
                cpu,
                canary: CANARY,
            },
        )
    };
}

/// The header of the stack in use.
pub(super) fn header() -> *mut Header {
    let here = 0u8;
    ((&raw const here) as u64 & !(BYTES - 1)) as *mut Header
}

/// Panics when the stack in use has overflown.
pub(super) fn check() {
    // SAFETY: the header of the stack in use is always there.
    if unsafe { (*header()).canary } != CANARY {
        panic!("a kernel stack has overflown");
    }
}
