//! The app's memory and registers.

use super::threads::{self, KICKED, USER};
use super::{Process, sites, stack, traps};
use crate::contract::UserAccess;
use crate::native::hostframe::{FpImage, HostFrame};
use crate::native::{callgate, hosted};
use crate::{FpState, UserContext};
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;
use qlib::Errno;

impl UserAccess for Process {
    fn copy_in(dst: &mut [u8], src: u64) -> Result<(), usize> {
        // SAFETY: `dst` is the kernel's; `src` was checked to be user addresses.
        let left = unsafe { hosted::copy_bytes(dst.as_mut_ptr() as u64, src, dst.len()) };
        if left == 0 { Ok(()) } else { Err(dst.len() - left) }
    }

    fn copy_out(dst: u64, src: &[u8]) -> Result<(), usize> {
        // SAFETY: `src` is the kernel's; `dst` was checked to be user addresses.
        let left = unsafe { hosted::copy_bytes(dst, src.as_ptr() as u64, src.len()) };
        if left == 0 { Ok(()) } else { Err(src.len() - left) }
    }

    fn zero(dst: u64, len: usize) -> Result<(), usize> {
        // SAFETY: `dst` was checked to be user addresses.
        let left = unsafe { hosted::zero_bytes(dst, len) };
        if left == 0 { Ok(()) } else { Err(len - left) }
    }

    fn load_u32(addr: u64) -> Result<u32, Errno> {
        // SAFETY: the address was checked to be the app's.
        unsafe { hosted::load_u32(addr) }.ok_or(Errno::EFAULT)
    }

    fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Result<u32, Errno> {
        // SAFETY: the address was checked to be the app's.
        unsafe { hosted::cmpxchg_u32(addr, old, new) }.ok_or(Errno::EFAULT)
    }

    fn enter(ctx: &UserContext, fp: Option<&FpState>) -> ! {
        let mut ctx = *ctx;
        loop {
            let mode = match stack::with(|h| h.thread.as_ref().map(|t| t.mode.swap(USER, Ordering::SeqCst))) {
                Some(m) => m,
                None => USER,
            };
            if mode & KICKED == 0 {
                break;
            }
            // Kicked before it ever left: QKernel looks first.
            stack::with(|h| {
                if let Some(t) = &h.thread {
                    t.mode.store(threads::KERNEL, Ordering::SeqCst);
                }
            });
            ctx.end_syscall();
            (crate::boot::hooks().trap)(&mut ctx, crate::boot::Trap::Interrupt);
        }
        let mut image = FpImage::new();
        let mut frame = MaybeUninit::<HostFrame>::zeroed();
        // SAFETY: a frame is integers only: zero is a value.
        let frame = unsafe { frame.assume_init_mut() };
        frame.build(&ctx, stack::alt_stack(stack::here()), fp, &mut image);
        traps::set_bases((ctx.fs_base, ctx.gs_base));
        // SAFETY: the frame is complete and this thread's own.
        unsafe { hosted::sigreturn(&raw const *frame as u64) }
    }

    fn save_fp(fp: &mut FpState) {
        if sites::in_registers() {
            return callgate::save_fp(fp);
        }
        let frame = stack::with(|h| h.frame);
        if frame.is_null() {
            *fp = FpState::initial();
            return;
        }
        // SAFETY: the header's frame is that of the trap being handled.
        let frame = unsafe { &*frame };
        // SAFETY: the host wrote it, and the handler did not return.
        unsafe { frame.save_fp(fp) }
    }

    fn restore_fp(fp: &FpState) {
        if sites::in_registers() {
            return callgate::restore_fp(fp);
        }
        let frame = stack::with(|h| h.frame);
        if frame.is_null() {
            return;
        }
        // SAFETY: the header's frame is that of the trap being handled, and no reference to it is alive.
        let frame = unsafe { &mut *frame };
        // SAFETY: the host wrote it, and the handler did not return.
        unsafe { frame.restore_fp(fp) }
    }
}
