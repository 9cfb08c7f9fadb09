//! Physical memory as the kernel reaches it: through the direct map.

use crate::native::usercopy;
use core::sync::atomic::{AtomicU64, Ordering};
use qlib::{PAGE_SIZE_USIZE, PhysAddr};

static DIRECT_MAP: AtomicU64 = AtomicU64::new(0);

/// Learns where the direct map is.
pub(super) fn init(direct_map: u64) {
    DIRECT_MAP.store(direct_map, Ordering::Relaxed);
}

/// The address of physical memory in the direct map.
pub(super) fn ptr(pa: PhysAddr) -> *mut u8 {
    (DIRECT_MAP.load(Ordering::Relaxed) + pa.0) as *mut u8
}

/// The physical address of something that lies in the direct map (heap, kernel stacks).
pub(super) fn of(p: *const u8) -> PhysAddr {
    PhysAddr(p as u64 - DIRECT_MAP.load(Ordering::Relaxed))
}

/// Zeroes a frame.
///
/// # Safety
/// The frame belongs to the caller alone.
pub(super) unsafe fn zero(pa: PhysAddr) {
    // SAFETY: all of RAM is mapped writable in the direct map; the caller owns the frame.
    unsafe { core::ptr::write_bytes(ptr(pa), 0, PAGE_SIZE_USIZE) };
}

/// Copies `len` bytes of the window to the kernel's own memory; `false` when the host has no memory behind some of them,
/// because the file became shorter.
///
/// # Safety
/// `to` is valid for `len` bytes; `from` lies in pieces that stay in the window.
#[must_use]
pub(super) unsafe fn copy_out(to: *mut u8, from: PhysAddr, len: usize) -> bool {
    // SAFETY: by the caller's promise.
    unsafe { usercopy::copy_window(to, ptr(from), len) == 0 }
}

/// Copies a frame; `false` when the host has no memory behind `from`, because a file in the window became shorter.
///
/// # Safety
/// `to` belongs to the caller alone; `from` is a mapped frame, of RAM or of the window.
#[must_use]
pub(super) unsafe fn copy(to: PhysAddr, from: PhysAddr) -> bool {
    // SAFETY: by the caller's promise; the frames differ.
    unsafe { usercopy::copy_window(ptr(to), ptr(from), PAGE_SIZE_USIZE) == 0 }
}
