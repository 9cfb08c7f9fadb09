//! aarch64.
//!
//! Data half: [`boot`] (first register values), [`context`], [`cpuinfo`] (text), [`doorbell`] (registers the host answers), [`esr`] (what an
//! exception says), [`hwcap`] (what apps are told of the CPU), [`paging`] (entry format),
//! [`ptrace`] (registers as debuggers see them), [`sigframe`], [`vector`] (interrupt numbers).
//!
//! Machine half, the same names on both architectures (what each promises stands at its items):
//!
//! | module | promises |
//! |---|---|
//! | `clock` | the free-running counter |
//! | `cpu` | vectors, waiting for interrupts |
//! | `fp` | saving and restoring the app's vector state |
//! | `irq` | this CPU's interrupt controller, timer, interrupts to other CPUs |
//! | `mmu` | switching address spaces, TLB maintenance, opening the app's memory (PAN) |
//! | `ports` | telling QVisor something by an exit |
//! | `switch` | changing kernel stacks |
//! | `trap_entry` | trap entries and the way to user mode |
//! | `usercopy` | copies from and to app memory that survive faults |
//! | `vdso` | the app's own code for clocks and signal return |

pub mod boot;
pub mod context;
pub mod cpuinfo;
pub mod doorbell;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod entry;
pub mod esr;
pub mod hwcap;
pub mod paging;
pub mod ptrace;
pub mod sigframe;
pub mod vector;

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod machine {
    pub mod clock;
    pub mod cpu;
    pub mod fp;
    pub mod irq;
    pub mod mmu;
    pub mod ports;
    pub mod switch;
    pub mod trap_entry;
    pub mod usercopy;
    pub mod vdso;
}
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub use machine::{clock, cpu, fp, irq, mmu, ports, switch, trap_entry, usercopy, vdso};

pub use context::{FpState, UserContext};

/// `AT_PLATFORM` and `uname -m`.
pub const MACHINE_NAME: &str = "aarch64";
/// `AUDIT_ARCH_AARCH64`.
pub const AUDIT_ARCH: u32 = 0xc000_00b7;
/// ELF `e_machine` of this architecture.
pub const ELF_MACHINE: u16 = 183;
/// `clone(flags, stack, ptid, tls, ctid)`: tls comes before ctid.
pub const CLONE_TLS_LAST: bool = false;

/// Decodes a system-call number of this architecture.
pub fn sysno(n: u64) -> Option<crate::sysno::Sysno> {
    crate::sysno::Sysno::from_aarch64(n)
}

/// The number of a system call on this architecture, `None` where it does not exist.
pub fn number(s: crate::sysno::Sysno) -> Option<u16> {
    s.numbers().aarch64
}

/// Whether `struct semid64_ds` has a spare word behind each of its times.
pub const SEMID_TIME_PADDING: bool = false;

/// The ELF relocation type that adds the load address (`R_*_RELATIVE`).
pub const ELF_RELATIVE: u32 = 1027;

/// The AT_HWCAP2 bit that tells of RDFSBASE and WRFSBASE; 0 where there is nothing of the kind.
pub const HWCAP2_FSGSBASE: u64 = 0;
