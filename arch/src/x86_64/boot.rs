//! First register values of a virtual CPU.

use crate::boot::BootPlan;

/// Kernel code selector; the layout is Linux's, because apps see theirs.
pub const KERNEL_CS: u16 = 0x10;
/// Kernel data selector.
pub const KERNEL_DS: u16 = 0x18;
/// 32-bit user code selector: the base `sysret` counts from.
pub const USER32_CS: u16 = 0x23;
/// User data selector.
pub const USER_DS: u16 = 0x2b;
/// User code selector.
pub const USER_CS: u16 = 0x33;
/// Task-state segment selector (two slots).
pub const TSS_SELECTOR: u16 = 0x40;

/// CR0: PE MP ET NE WP AM PG.
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18 | 1 << 31;
/// CR4: PAE PGE OSFXSR OSXMMEXCPT.
const CR4: u64 = 1 << 5 | 1 << 7 | 1 << 9 | 1 << 10;
/// CR4.UMIP.
pub const CR4_UMIP: u64 = 1 << 11;
/// CR4.FSGSBASE.
pub const CR4_FSGSBASE: u64 = 1 << 16;
/// CR4.OSXSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4.SMEP.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub const CR4_SMAP: u64 = 1 << 21;
/// EFER: SCE LME LMA NXE.
const EFER: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11;

/// Register values of a virtual CPU before its first instruction. Segments are flat: code [`KERNEL_CS`] (64-bit, DPL 0)
/// and data [`KERNEL_DS`]; the kernel loads tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BootCpu {
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    /// First argument: the boot page.
    pub rdi: u64,
    /// Second argument: the CPU's index.
    pub rsi: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub xcr0: u64,
}

/// Turns a plan into registers.
pub fn boot_cpu(plan: &BootPlan) -> BootCpu {
    let f = &plan.features;
    let mut cr4 = CR4;
    for (on, bit) in [
        (f.umip, CR4_UMIP),
        (f.fsgsbase, CR4_FSGSBASE),
        (f.xsave, CR4_OSXSAVE),
        (f.smep, CR4_SMEP),
        (f.smap, CR4_SMAP),
    ] {
        if on {
            cr4 |= bit;
        }
    }
    BootCpu {
        rip: plan.entry.0,
        // As after a call: the function's frame is 16-byte aligned.
        rsp: plan.stack_top.0 - 8,
        rflags: 2,
        rdi: plan.boot_info.0,
        rsi: plan.cpu as u64,
        cr0: CR0,
        cr3: plan.kernel_root.0,
        cr4,
        efer: EFER,
        xcr0: if f.xsave { f.xcr0 | 1 } else { 1 },
    }
}
