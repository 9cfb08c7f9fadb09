//! Virtual CPUs: the first registers, the interrupt controller, the doorbell page and what an exit means, by architecture.
//! KVM's own register ids stay in the architecture's file.

use vmm_sys_util::eventfd::EventFd;

cfg_if::cfg_if! {
    if #[cfg(target_arch = "x86_64")] {
        mod x86_64;
        use x86_64 as native;
        mod jump_x86_64;
        pub use jump_x86_64::jump;
        pub use arch::x86_64 as isa;
    } else if #[cfg(target_arch = "aarch64")] {
        mod aarch64;
        use aarch64 as native;
        mod jump_aarch64;
        pub use jump_aarch64::jump;
        pub use arch::aarch64 as isa;
    }
}

pub use native::*;

/// A KVM request that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    /// What was asked for.
    pub what: &'static str,
    /// The error number.
    #[source]
    pub source: kvm_ioctls::Error,
}

/// Names a request for [`Error`].
pub(crate) fn ask<T>(what: &'static str, r: Result<T, kvm_ioctls::Error>) -> Result<T, Error> {
    r.map_err(|source| Error { what, source })
}

/// A guest of two pieces of position-independent code that shows that user mode works: the kernel's (first argument: the
/// address of the app's) enters user mode and counts [`SelfTest::CALLS`] system calls that come from it, then stops with
/// code 0; with another code when a call does not come as it must.
pub struct SelfTest {
    /// Code for the kernel's page.
    pub kernel: &'static [u8],
    /// Code for the app's page.
    pub user: &'static [u8],
}

impl SelfTest {
    /// System calls of one test.
    pub const CALLS: u32 = 2000;
}

/// The two event descriptors between guest and host.
pub struct Bells {
    /// The guest rings it when there are submissions.
    pub submissions: EventFd,
    /// The host rings it when there are completions.
    pub completions: EventFd,
}

impl Bells {
    /// Fresh ones.
    ///
    /// # Errors
    /// The host's.
    pub fn new() -> std::io::Result<Self> {
        let event = || EventFd::new(libc::EFD_CLOEXEC);
        Ok(Self {
            submissions: event()?,
            completions: event()?,
        })
    }
}

/// Why a virtual CPU came back to its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest rang for the rings, and no ioeventfd caught it.
    Ring,
    /// The boot CPU is ready: the others may start.
    StartCpus,
    /// The guest stops with an exit code.
    Stop(u32),
    /// There is a line in the log page.
    Log,
    /// A signal interrupted the wait, or there was nothing to do.
    Interrupted,
    /// The guest did what it may not: it has to end.
    Broken(&'static str),
}
