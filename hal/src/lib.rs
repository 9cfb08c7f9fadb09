//! Quark's hardware abstraction: the contract QKernel programs against, the safe machinery on top, and the
//! machines behind it.
//!
//! QKernel calls the functions of this crate's modules; each hands the call to the machine that BootInfo names
//! through the traits in [`contract`]. On a hosted target (`cargo test`) the machine is [`fake`].
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod aspace;
pub mod boot;
pub mod clock;
pub mod contract;
pub mod cpu;
pub mod host;
#[cfg(any(target_os = "none", test))]
mod readcache;
pub mod site;
pub mod sync;
pub mod thread;
pub mod uapi;
pub mod user;

#[cfg(target_os = "none")]
pub mod bare;
#[cfg(target_os = "none")]
mod entry;
#[cfg(any(target_os = "none", all(test, loom)))]
mod gate;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod logger;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod process;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
#[path = "process/absent/mod.rs"]
pub mod process;

#[cfg(not(target_os = "none"))]
pub mod fake;

cfg_if::cfg_if! {
    if #[cfg(target_arch = "x86_64")] {
        /// The architecture this build runs on.
        pub use arch::x86_64 as native;
    } else if #[cfg(target_arch = "aarch64")] {
        /// The architecture this build runs on.
        pub use arch::aarch64 as native;
    }
}

pub use arch::signal;
pub use arch::sysno::Sysno;
pub use native::{FpState, UserContext};
pub use qlib::{Errno, VirtAddr};

/// Calls the machine's implementation of a contract function.
macro_rules! machine {
    ($trait:ident :: $f:ident ( $($arg:expr),* $(,)? )) => {{
        #[cfg(target_os = "none")]
        {
            match $crate::boot::kind() {
                qlib::boot::MachineKind::Kvm => <$crate::bare::Bare as $crate::contract::$trait>::$f($($arg),*),
                qlib::boot::MachineKind::Process => <$crate::process::Process as $crate::contract::$trait>::$f($($arg),*),
            }
        }
        #[cfg(not(target_os = "none"))]
        {
            <$crate::fake::Fake as $crate::contract::$trait>::$f($($arg),*)
        }
    }};
}
pub(crate) use machine;

/// How much of the kernel's heap is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapUsage {
    /// Bytes handed out.
    pub allocated: usize,
    /// Bytes taken from the machine.
    pub claimed: usize,
}

/// Asks the kernel's heap. The fake machine has none.
pub fn heap_usage() -> HeapUsage {
    #[cfg(target_os = "none")]
    return heap::usage();
    #[cfg(not(target_os = "none"))]
    HeapUsage::default()
}

/// What the host was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostUsage {
    /// Requests put into the ring.
    pub requests: u64,
    /// Bytes that reads of files copied out of mapped pieces, for which the host was not asked.
    pub window_read_bytes: u64,
}

/// Asks the machine what it asked of the host by requests. Where there is no ring there are none.
pub fn host_usage() -> HostUsage {
    #[cfg(target_os = "none")]
    if boot::kind() == qlib::boot::MachineKind::Kvm {
        return bare::host_usage();
    }
    HostUsage::default()
}
