//! User memory and the way back to the app.

use crate::{FpState, UserContext};
use qlib::Errno;

/// Access to the memory and registers of the calling thread's app.
pub trait UserAccess {
    /// Copies from the app; `Err(n)` = a fault after `n` bytes. The range was checked to be user addresses.
    fn copy_in(dst: &mut [u8], src: u64) -> Result<(), usize>;
    /// Copies to the app; `Err(n)` = a fault after `n` bytes.
    fn copy_out(dst: u64, src: &[u8]) -> Result<(), usize>;
    /// Zeroes app memory; `Err(n)` = a fault after `n` bytes.
    fn zero(dst: u64, len: usize) -> Result<(), usize>;
    /// Loads an aligned `u32` atomically (futex).
    fn load_u32(addr: u64) -> Result<u32, Errno>;
    /// Compares and exchanges an aligned `u32` atomically; returns the value found.
    fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Result<u32, Errno>;
    /// Leaves the kernel for the app and never comes back; the kernel stack is emptied. `fp` `None` = the
    /// initial state.
    fn enter(ctx: &UserContext, fp: Option<&FpState>) -> !;
    /// Copies the calling thread's FP state as it was at the trap.
    fn save_fp(fp: &mut FpState);
    /// Replaces the calling thread's FP state for its return to the app.
    fn restore_fp(fp: &FpState);
}
