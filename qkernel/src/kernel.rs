//! The kernel as a whole: its identity.

/// `uname -r`: the Linux release whose ABI the kernel follows.
pub const RELEASE: &str = "6.6.0-quark";
/// `uname -v`.
pub const VERSION: &str = concat!("#1 SMP QKernel ", env!("CARGO_PKG_VERSION"));
