//! What the signal-frame builders of both architectures share.

use qlib::{Errno, VirtAddr};

/// The 128 bytes of a Linux `siginfo_t`.
pub type SigInfoBytes = [u8; 128];

/// A signal to deliver to a handler of the app.
#[derive(Clone, Copy)]
pub struct SignalDelivery<'a> {
    /// Signal number, 1..=64.
    pub signo: u32,
    /// `siginfo_t` for the handler.
    pub info: &'a SigInfoBytes,
    /// Handler address.
    pub handler: VirtAddr,
    /// `sa_restorer`; 0 = the vDSO's (aarch64).
    pub restorer: VirtAddr,
    /// The signal mask to restore on return.
    pub old_mask: u64,
    /// Top of the stack the frame goes on: the app's stack pointer, or the top of its alternate stack.
    pub stack_top: u64,
    /// Alternate stack as `uc_stack` reports it: base, flags, size.
    pub alt_stack: (u64, u32, u64),
    /// Fault address for `sigcontext.cr2` / `fault_address`.
    pub fault_addr: u64,
    /// `sigcontext.trapno` and `err` (x86_64).
    pub trap: (u64, u64),
}

/// What `rt_sigreturn` brings back besides the registers.
#[derive(Clone, Copy, Debug)]
pub struct SignalReturn {
    /// The signal mask to set.
    pub mask: u64,
    /// `uc_stack`: base, flags, size.
    pub alt_stack: (u64, u32, u64),
}

/// Writes and reads the app's memory for the frame builders.
pub trait UserMemory {
    /// Copies `bytes` to `addr`; EFAULT when the app cannot write there.
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), Errno>;
    /// Copies from `addr`; EFAULT when the app cannot read there.
    fn read(&mut self, addr: u64, bytes: &mut [u8]) -> Result<(), Errno>;
}
