//! The kernel as a whole: identity and host names.

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
