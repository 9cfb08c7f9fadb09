//! The app's memory and registers.

use super::{Bare, cpu, sched, stack, thread, tlb, traps};
use crate::contract::UserAccess;
use crate::native::{fp, mmu, trap_entry, usercopy};
use crate::{FpState, UserContext};
use qlib::Errno;

/// Most bytes copied in one go: another CPU may wait for a copy to end.
const PIECE: usize = 64 << 10;

/// Runs `f` with the app's memory open. Faults inside may put the thread to sleep and move it to another CPU.
fn open<R>(f: impl FnOnce() -> R) -> R {
    tlb::enter_user();
    mmu::open_user();
    let r = f();
    mmu::close_user();
    tlb::leave_user();
    r
}

fn pieces(len: usize, mut copy: impl FnMut(usize, usize) -> usize) -> Result<(), usize> {
    let mut done = 0;
    while done < len {
        let n = (len - done).min(PIECE);
        let left = open(|| copy(done, n));
        done += n - left;
        if left != 0 {
            return Err(done);
        }
    }
    Ok(())
}

/// Copies `len` bytes of the window to the app; `false` when the app's memory is not there, or the file's is not any more.
///
/// # Safety
/// `src` lies in pieces that stay in the window; `dst..dst + len` are app addresses.
#[must_use]
pub(super) unsafe fn copy_out_of_window(dst: u64, src: *const u8, len: usize) -> bool {
    // SAFETY: the piece lies in what the caller promises.
    pieces(len, |at, n| unsafe {
        usercopy::copy_window_out(dst + at as u64, src.wrapping_add(at), n)
    })
    .is_ok()
}

impl UserAccess for Bare {
    fn copy_in(dst: &mut [u8], src: u64) -> Result<(), usize> {
        let to = dst.as_mut_ptr();
        // SAFETY: the piece lies inside `dst`; the caller checked that the source are app addresses.
        pieces(dst.len(), |at, n| unsafe {
            usercopy::copy_in(to.wrapping_add(at), src + at as u64, n)
        })
    }

    fn copy_out(dst: u64, src: &[u8]) -> Result<(), usize> {
        let from = src.as_ptr();
        // SAFETY: the piece lies inside `src`; the caller checked that the destination are app addresses.
        pieces(src.len(), |at, n| unsafe {
            usercopy::copy_out(dst + at as u64, from.wrapping_add(at), n)
        })
    }

    fn zero(dst: u64, len: usize) -> Result<(), usize> {
        // SAFETY: the caller checked that the range are app addresses.
        pieces(len, |at, n| unsafe { usercopy::zero(dst + at as u64, n) })
    }

    fn load_u32(addr: u64) -> Result<u32, Errno> {
        // SAFETY: the caller checked the address and its alignment.
        open(|| unsafe { usercopy::load_u32(addr) }).ok_or(Errno::EFAULT)
    }

    fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Result<u32, Errno> {
        // SAFETY: the caller checked the address and its alignment.
        open(|| unsafe { usercopy::cmpxchg_u32(addr, old, new) }).ok_or(Errno::EFAULT)
    }

    fn enter(ctx: &UserContext, state: Option<&FpState>) -> ! {
        if let Some(s) = state {
            fp::restore(s);
        }
        let mut ctx = *ctx;
        sched::account(cpu::this(), thread::current(), false);
        traps::prepare_return(&mut ctx);
        let top = stack::header() as u64 + stack::BYTES;
        // SAFETY: this is the thread's own stack, set as the one traps start on when the CPU switched to it; threads that
        // enter user mode have an address space, which is current.
        unsafe { trap_entry::enter_user(&ctx, top) }
    }

    fn save_fp(state: &mut FpState) {
        fp::save(state);
    }

    fn restore_fp(state: &FpState) {
        fp::restore(state);
    }
}
