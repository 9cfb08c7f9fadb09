//! The kernel as a whole: identity, host names, memory figures.

use alloc::vec::Vec;
use hal::sync::SpinLock;

/// `uname -r`: the Linux release whose ABI the kernel follows.
pub const RELEASE: &str = "6.6.0-quark";
/// `uname -v`.
pub const VERSION: &str = concat!("#1 SMP QKernel ", env!("CARGO_PKG_VERSION"));

static UTS: SpinLock<(Vec<u8>, Vec<u8>)> = SpinLock::new((Vec::new(), Vec::new()));

/// Host name and domain name.
pub fn uts() -> (Vec<u8>, Vec<u8>) {
    UTS.lock().clone()
}

/// Sets the host name or the domain name.
pub fn set_uts(domain: bool, name: &[u8]) {
    let mut uts = UTS.lock();
    if domain {
        uts.1 = name.to_vec();
    } else {
        uts.0 = name.to_vec();
    }
}

/// Memory figures of the container, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The limit, or what the machine has.
    pub total: u64,
    /// Not used.
    pub free: u64,
}

/// What the container may use and has left.
pub fn memory() -> Memory {
    /// Shown when the container has no limit and the machine tells nothing.
    const UNLIMITED: u64 = 16 << 30;
    let limit = hal::boot::info().memory_limit;
    let total = if limit == u64::MAX { UNLIMITED } else { limit };
    // Areas are an upper bound of what apps use; what is never touched costs nothing.
    let used: u64 = crate::task::table::resident_estimate();
    Memory {
        total,
        free: total.saturating_sub(used),
    }
}
