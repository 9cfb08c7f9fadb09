//! x86_64.

pub mod context;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod entry;
pub mod sigframe;

pub use context::{FpState, UserContext};

/// `AT_PLATFORM` and `uname -m`.
pub const MACHINE_NAME: &str = "x86_64";
/// ELF `e_machine` of this architecture.
pub const ELF_MACHINE: u16 = 62;

/// Decodes a system-call number of this architecture.
pub fn sysno(n: u64) -> Option<crate::sysno::Sysno> {
    crate::sysno::Sysno::from_x86_64(n)
}
