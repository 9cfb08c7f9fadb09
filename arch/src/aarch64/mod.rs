//! aarch64.

pub mod context;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod entry;
pub mod sigframe;

pub use context::{FpState, UserContext};

/// `AT_PLATFORM` and `uname -m`.
pub const MACHINE_NAME: &str = "aarch64";
/// ELF `e_machine` of this architecture.
pub const ELF_MACHINE: u16 = 183;

/// Decodes a system-call number of this architecture.
pub fn sysno(n: u64) -> Option<crate::sysno::Sysno> {
    crate::sysno::Sysno::from_aarch64(n)
}

/// The number of a system call on this architecture, `None` where it does not exist.
pub fn number(s: crate::sysno::Sysno) -> Option<u16> {
    s.numbers().aarch64
}
