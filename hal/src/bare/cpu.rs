//! What the kernel keeps of each virtual CPU.

use super::stack;
use crate::aspace::SpaceInner;
use crate::gate::Gate;
use crate::native::cpu::CpuTables;
use crate::sync::Once;
use crate::thread::Thread;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// One CPU. `Cell`s and `UnsafeCell`s are touched by that CPU only, which never interrupts itself in the kernel.
pub(super) struct Cpu {
    /// Index, and the interrupt controller's name of it.
    pub id: u32,
    /// The architecture's tables.
    pub tables: UnsafeCell<CpuTables>,
    /// Runs when nothing else does. A counted reference that is never dropped.
    pub idle_thread: AtomicPtr<Thread>,
    /// The address space that is current; kernel threads keep the last one.
    pub space: UnsafeCell<Option<Arc<SpaceInner>>>,
    /// Root table of `space`, 0 when there is none.
    pub root: AtomicU64,
    /// The thread that was switched away from, and whether it is to be freed.
    pub prev: Cell<(*const Thread, bool)>,
    /// The CPU waits for an interrupt.
    pub idle: AtomicBool,
    /// Passed before the app's memory is touched: another CPU may have changed this one's address space.
    pub gate: Gate,
    /// Counter value at which the running thread's time slice is over.
    pub slice_end: Cell<u64>,
    /// Counter value the timer is set to; `u64::MAX` = not set.
    pub armed: Cell<u64>,
    /// Counter value at the last change between user and kernel or between threads. Others read it.
    pub stamp: AtomicU64,
}

// SAFETY: the cells belong to the CPU they describe; everything else is atomic.
unsafe impl Sync for Cpu {}
// SAFETY: as above; the boot CPU makes them for the others.
unsafe impl Send for Cpu {}

impl core::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Cells of another CPU may be torn; this is for the log of a machine that stops.
        write!(
            f,
            "cpu {} idle {:?} {:?} slice {:#x} armed {:#x} stamp {:#x}",
            self.id,
            self.idle,
            self.gate,
            self.slice_end.get(),
            self.armed.get(),
            self.stamp.load(Ordering::Relaxed)
        )
    }
}

static CPUS: Once<Box<[Cpu]>> = Once::new();

/// Makes the descriptions of `n` CPUs.
pub(super) fn init(n: u32) {
    CPUS.call_once(|| {
        let make = |id| Cpu {
            id,
            tables: UnsafeCell::new(CpuTables::new()),
            idle_thread: AtomicPtr::new(core::ptr::null_mut()),
            space: UnsafeCell::new(None),
            root: AtomicU64::new(0),
            prev: Cell::new((core::ptr::null(), false)),
            idle: AtomicBool::new(false),
            gate: Gate::new(),
            slice_end: Cell::new(u64::MAX),
            armed: Cell::new(u64::MAX),
            stamp: AtomicU64::new(0),
        };
        (0..n).map(make).collect::<Vec<_>>().into_boxed_slice()
    });
}

/// All CPUs; none before [`init`].
pub(super) fn all() -> &'static [Cpu] {
    CPUS.get().map_or(&[], |c| c)
}

/// The CPU this runs on. It changes at a switch of threads only.
pub(super) fn this() -> &'static Cpu {
    // SAFETY: every stack's header names the CPU, set before the stack is run on; CPUs live forever.
    let cpu = unsafe { (*stack::header()).cpu };
    // SAFETY: as above; the CPU's structure is never freed.
    unsafe { &*cpu }
}
