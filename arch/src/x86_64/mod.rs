//! x86_64.
//!
//! Data half: [`boot`] (first register values), [`context`], [`cpuinfo`] (text), [`doorbell`] (port numbers), [`padding`] (room behind code),
//! [`paging`] (entry format),
//! [`ptrace`] (registers as debuggers see them), [`sigframe`], [`site`] (patched call sites), [`vector`] (interrupt numbers).
//!
//! Machine half, the same names on both architectures (what each promises stands at its items):
//!
//! | module | promises |
//! |---|---|
//! | `clock` | the free-running counter |
//! | `cpu` | per-CPU tables (GDT, TSS), the stack a trap from user mode starts on, waiting for interrupts |
//! | `fp` | saving and restoring the app's vector state |
//! | `irq` | this CPU's interrupt controller, timer, interrupts to other CPUs |
//! | `mmu` | switching address spaces, TLB maintenance, opening the app's memory (SMAP) |
//! | `ports` | telling QVisor something by an exit |
//! | `switch` | changing kernel stacks |
//! | `trap_entry` | trap entries and the way to user mode |
//! | `usercopy` | copies from and to app memory that survive faults |
//! | `vdso` | the app's own code for clocks and signal return |

pub mod boot;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod callgate;
pub mod context;
pub mod cpuinfo;
pub mod doorbell;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod entry;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod hosted;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod hostframe;
pub mod padding;
pub mod paging;
pub mod ptrace;
pub mod sigframe;
pub mod site;
pub mod vector;

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
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
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use machine::{clock, cpu, fp, irq, mmu, ports, switch, trap_entry, usercopy, vdso};

pub use context::{FpState, UserContext};

/// `AT_PLATFORM` and `uname -m`.
pub const MACHINE_NAME: &str = "x86_64";
/// `AUDIT_ARCH_X86_64`.
pub const AUDIT_ARCH: u32 = 0xc000_003e;
/// ELF `e_machine` of this architecture.
pub const ELF_MACHINE: u16 = 62;
/// `clone(flags, stack, ptid, ctid, tls)`: tls is the last argument.
pub const CLONE_TLS_LAST: bool = true;

/// Decodes a system-call number of this architecture.
pub fn sysno(n: u64) -> Option<crate::sysno::Sysno> {
    crate::sysno::Sysno::from_x86_64(n)
}

/// The number of a system call on this architecture, `None` where it does not exist.
pub fn number(s: crate::sysno::Sysno) -> Option<u16> {
    s.numbers().x86_64
}

/// Whether `struct semid64_ds` has a spare word behind each of its times.
pub const SEMID_TIME_PADDING: bool = true;

/// The ELF relocation type that adds the load address (`R_*_RELATIVE`).
pub const ELF_RELATIVE: u32 = 8;

/// The AT_HWCAP2 bit that tells of RDFSBASE and WRFSBASE; 0 where there is nothing of the kind.
pub const HWCAP2_FSGSBASE: u64 = 2;
