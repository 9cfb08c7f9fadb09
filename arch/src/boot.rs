//! What QVisor decides before the first instruction of a virtual CPU; each architecture's `boot_cpu` turns it into
//! register values.

use qlib::{PhysAddr, VirtAddr};

/// How one virtual CPU starts: at `entry` in the kernel, with paging on.
///
/// Registers at entry: first argument = `boot_info`, second = `cpu`, stack pointer = `stack_top`; interrupts masked.
#[derive(Clone, Copy, Debug)]
pub struct BootPlan {
    /// Index of the CPU, 0 boots the kernel.
    pub cpu: u32,
    /// The kernel image's `_start`.
    pub entry: VirtAddr,
    /// The boot page in the direct map.
    pub boot_info: VirtAddr,
    /// Top of this CPU's first stack, [`BOOT_STACK_BYTES`] long and aligned to it; it becomes the idle thread's.
    pub stack_top: VirtAddr,
    /// Root table of the kernel's half (aarch64: TTBR1; x86_64: the whole address space).
    pub kernel_root: PhysAddr,
    /// An empty root table for the app's half (aarch64: TTBR0; x86_64: equal to `kernel_root`).
    pub user_root: PhysAddr,
    /// What the CPU model offers.
    pub features: CpuFeatures,
}

/// Bytes of a kernel stack, and its alignment.
pub const BOOT_STACK_BYTES: u64 = 64 * 1024;

/// What the virtual CPU offers, as QVisor's filter left it. x86_64 names; aarch64 reads PAN and such from its own ID registers.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct CpuFeatures {
    pub smep: bool,
    pub smap: bool,
    pub umip: bool,
    pub fsgsbase: bool,
    pub xsave: bool,
    pub pcid: bool,
    /// State components XCR0 may enable (x87, SSE, AVX, AVX-512, PKRU); never AMX.
    pub xcr0: u64,
}
