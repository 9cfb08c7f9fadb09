//! Registers a virtual CPU starts with. QVisor writes them, the guest never derives them again.

use crate::boot::BootPlan;

/// MAIR_EL1 index of normal, write-back memory.
pub const MAIR_NORMAL: u64 = 0;
/// MAIR_EL1 index of device memory (nGnRE).
pub const MAIR_DEVICE: u64 = 1;

/// Where the guest's physical memory begins; devices lie below.
pub const RAM_BASE: u64 = 0x4000_0000;
/// Registers at the first instruction. Names are the architecture's; all system registers are those of EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BootCpu {
    pub x: [u64; 2],
    pub pc: u64,
    /// SP_EL1: PSTATE selects it.
    pub sp: u64,
    pub pstate: u64,
    pub sctlr: u64,
    pub tcr: u64,
    pub mair: u64,
    pub ttbr0: u64,
    pub ttbr1: u64,
    pub cpacr: u64,
    pub cntkctl: u64,
}

/// SCTLR_EL1 bits (Arm ARM D24.2.175).
mod sctlr {
    pub const M: u64 = 1 << 0;
    pub const C: u64 = 1 << 2;
    pub const SA: u64 = 1 << 3;
    pub const SA0: u64 = 1 << 4;
    pub const ITD: u64 = 1 << 7;
    pub const SED: u64 = 1 << 8;
    pub const EOS: u64 = 1 << 11;
    pub const I: u64 = 1 << 12;
    pub const DZE: u64 = 1 << 14;
    pub const UCT: u64 = 1 << 15;
    pub const NTWI: u64 = 1 << 16;
    pub const NTWE: u64 = 1 << 18;
    pub const TSCXT: u64 = 1 << 20;
    pub const EIS: u64 = 1 << 22;
    /// Clear: PAN is set by every exception to EL1, where the CPU has it.
    pub const SPAN: u64 = 1 << 23;
    pub const UCI: u64 = 1 << 26;
    pub const RES1_28: u64 = 1 << 28;
    pub const RES1_29: u64 = 1 << 29;
}

/// Translation on with caches; apps may use DC ZVA, DC CVAU, IC IVAU, read CTR_EL0, and wait with WFE/WFI.
const SCTLR: u64 = sctlr::M
    | sctlr::C
    | sctlr::I
    | sctlr::SA
    | sctlr::SA0
    | sctlr::ITD
    | sctlr::SED
    | sctlr::EOS
    | sctlr::EIS
    | sctlr::DZE
    | sctlr::UCT
    | sctlr::UCI
    | sctlr::NTWI
    | sctlr::NTWE
    | sctlr::TSCXT
    | sctlr::RES1_28
    | sctlr::RES1_29;
const _: () = assert!(SCTLR & sctlr::SPAN == 0);

/// 48-bit addresses in both halves, 4 KiB granule, inner shareable write-back walks, 40-bit physical addresses, 16-bit
/// ASIDs from TTBR0, tags ignored in the app's half (as Linux does).
const TCR: u64 = 16          // T0SZ
    | 1 << 8 | 1 << 10 | 3 << 12 // IRGN0, ORGN0, SH0; TG0 = 4 KiB
    | 16 << 16               // T1SZ
    | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30 // IRGN1, ORGN1, SH1, TG1 = 4 KiB
    | 2 << 32                // IPS: 40 bits, as KVM gives a VM
    | 1 << 36                // AS
    | 1 << 37; // TBI0

/// EL1h with D, A, I and F masked.
const PSTATE: u64 = 0x3c5;

/// The register values of `plan`'s CPU.
pub fn boot_cpu(plan: &BootPlan) -> BootCpu {
    BootCpu {
        x: [plan.boot_info.0, plan.cpu as u64],
        pc: plan.entry.0,
        sp: plan.stack_top.0,
        pstate: PSTATE,
        sctlr: SCTLR,
        tcr: TCR,
        mair: 0xff << (8 * MAIR_NORMAL) | 0x04 << (8 * MAIR_DEVICE),
        ttbr0: plan.user_root.0,
        ttbr1: plan.kernel_root.0,
        // FP and SIMD are never trapped.
        cpacr: 3 << 20,
        // Apps read the virtual counter, not the physical one.
        cntkctl: 1 << 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::CpuFeatures;
    use qlib::{PhysAddr, VirtAddr};

    #[test]
    fn golden_values() {
        let cpu = boot_cpu(&BootPlan {
            cpu: 1,
            entry: VirtAddr(0xffff_ffff_8000_0000),
            boot_info: VirtAddr(0xffff_8000_0000_1000),
            stack_top: VirtAddr(0xffff_8000_0010_0000),
            kernel_root: PhysAddr(0x4000_0000),
            user_root: PhysAddr(0x4000_1000),
            features: CpuFeatures::default(),
        });
        assert_eq!(cpu.x, [0xffff_8000_0000_1000, 1]);
        assert_eq!(cpu.sctlr, 0x3455_d99d, "{:#x}", cpu.sctlr);
        assert_eq!(cpu.tcr, 0x32_b510_3510, "{:#x}", cpu.tcr);
        assert_eq!(cpu.mair, 0x04ff);
        assert_eq!((cpu.ttbr0, cpu.ttbr1), (0x4000_1000, 0x4000_0000));
    }
}
