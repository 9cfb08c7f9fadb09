//! Patched call sites: the calls that come by the gate, and changing an app's instructions while it runs.

use super::threads::KERNEL;
use super::{FAULT_CODE, Process, stack, sys, traps};
use crate::aspace::{Prot, SpaceInner};
use crate::boot::{self, Trap};
use crate::contract::Threads;
use crate::native::callgate::{self, CallFrame};
use crate::native::site::{self, AFTER, BEFORE, JUMP, STUB_BYTES, Site};
use crate::uapi::general as g;
use crate::user;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use qlib::boot::{Range, features};
use qlib::{Errno, PAGE_SIZE};

/// `int3`.
const BREAKPOINT: u8 = 0xcc;
/// From here on no program counter is an app's; the way back would fault.
const CODE_END: u64 = 1 << 47;

/// Whether call sites are patched.
#[inline]
pub(super) fn enabled() -> bool {
    boot::info().features & features::PATCH_CALLS != 0
}

/// A call of the app, on the kernel stack's top.
///
/// # Safety
/// Called by the gate only, with its frame.
#[unsafe(no_mangle)]
unsafe extern "C" fn quark_call(frame: *mut CallFrame) {
    // SAFETY: the frame is this call's alone.
    let frame = unsafe { &mut *frame };
    let Some(mode) = stack::with(|h| h.thread.as_ref().map(|t| &raw const t.mode)) else {
        Process::power_off(FAULT_CODE, "a call outside any thread")
    };
    frame.mode = mode;
    handle(frame, Trap::Syscall);
}

/// The way back was interrupted by a kick: looks at it, then leaves again.
///
/// # Safety
/// As [`quark_call`].
#[unsafe(no_mangle)]
unsafe extern "C" fn quark_call_again_rust(frame: *mut CallFrame) {
    // SAFETY: the frame is this call's alone.
    let frame = unsafe { &mut *frame };
    frame.ctx.end_syscall();
    handle(frame, Trap::Interrupt);
}

fn handle(frame: &mut CallFrame, trap: Trap) {
    // SAFETY: the header keeps the thread, and with it the mode, while it runs.
    let mode = unsafe { &*frame.mode };
    mode.store(KERNEL, Ordering::SeqCst);
    stack::with(|h| h.by_gate = true);
    (frame.ctx.fs_base, frame.ctx.gs_base) = traps::bases();
    (boot::hooks().trap)(&mut frame.ctx, trap);
    while frame.ctx.pc() >= CODE_END {
        // A handler at such an address: what the processor would raise there.
        frame.ctx.end_syscall();
        (boot::hooks().trap)(&mut frame.ctx, Trap::GeneralProtection);
    }
    let sound = stack::with(|h| {
        h.by_gate = false;
        stack::is_sound(h)
    });
    if !sound {
        Process::power_off(FAULT_CODE, "a kernel stack overflowed");
    }
    frame.ctx.sanitize();
    traps::set_bases((frame.ctx.fs_base, frame.ctx.gs_base));
}

/// The calling thread's address space.
fn current() -> Option<Arc<SpaceInner>> {
    stack::with(|h| h.space.clone())
}

/// Offers a call site that trapped often to QKernel for patching.
pub(super) fn consider(pc: u64, number: u64) {
    let often = stack::with(|h| h.space.as_ref().is_some_and(|s| s.sites.often(pc)));
    if often && look(pc, number).is_some() {
        (boot::hooks().call_site)(pc, number);
    }
}

fn look(pc: u64, number: u64) -> Option<Site> {
    let mut bytes = [0; BEFORE + AFTER];
    user::copy_in(&mut bytes, pc.checked_sub(BEFORE as u64)?).ok()?;
    Site::recognise(pc, &bytes, u32::try_from(number).ok()?)
}

/// Where the app stands when it was interrupted in a stub: program counter, and `rax` if it is to be set.
pub(super) fn outside(pc: u64, stepping: bool) -> Option<(u64, Option<u64>)> {
    let area = stack::with(|h| h.space.as_ref().and_then(|s| s.sites.holding(pc)))?;
    let at = (pc - area.start) % STUB_BYTES as u64;
    let stub = read_stub(pc - at)?;
    site::outside(&stub, pc - at, at as usize, stepping)
}

fn read_stub(at: u64) -> Option<[u8; STUB_BYTES]> {
    let mut stub = [0; STUB_BYTES];
    user::copy_in(&mut stub, at).ok()?;
    Some(stub)
}

/// Whether a breakpoint trap that ended at `pc` is one of a change under way, or just over: the thread tries again.
pub(super) fn is_transient(pc: u64) -> bool {
    let Some(at) = pc.checked_sub(1) else { return false };
    let Some(space) = current() else { return false };
    let mut byte = [0];
    if user::copy_in(&mut byte, at).is_err() {
        return false;
    }
    if space.sites.changing.load(Ordering::SeqCst) == at {
        Process::yield_now();
        return true;
    }
    byte[0] != BREAKPOINT
}

/// Makes every thread of this process serialise its instruction stream.
fn serialise(space: &SpaceInner) -> Result<(), Errno> {
    const PRIVATE_EXPEDITED_SYNC_CORE: u64 = 1 << 5;
    const REGISTER: u64 = 1 << 6;
    if !space.sites.registered.load(Ordering::Relaxed) {
        sys::plain(g::__NR_membarrier, [REGISTER, 0, 0])?;
        space.sites.registered.store(true, Ordering::Relaxed);
    }
    sys::plain(g::__NR_membarrier, [PRIVATE_EXPEDITED_SYNC_CORE, 0, 0]).map(|_| ())
}

/// Changes instructions of the app at `at`, from one instruction to another that is no longer, so that a thread that runs
/// there executes the one or the other: the first byte is a breakpoint while the rest changes. The pages are writable.
fn change(space: &SpaceInner, at: u64, bytes: &[u8]) -> Result<(), Errno> {
    let alone = space.users.load(Ordering::SeqCst) == 1;
    if alone {
        // The way back to the app serialises.
        return user::copy_out(at, bytes);
    }
    space.sites.changing.store(at, Ordering::SeqCst);
    let r = (|| {
        serialise(space)?;
        user::copy_out(at, &[BREAKPOINT])?;
        serialise(space)?;
        user::copy_out(at + 1, &bytes[1..])?;
        serialise(space)?;
        user::copy_out(at, &bytes[..1])
    })();
    space.sites.changing.store(0, Ordering::SeqCst);
    r
}

fn protect(range: Range, prot: u64) -> Result<(), Errno> {
    // SAFETY: the callers give ranges of the app's.
    unsafe { sys::call(g::__NR_mprotect, [range.start, range.len(), prot]) }.map(|_| ())
}

/// Runs `f` while the pages of `[start, end)` are writable as well.
fn writable(start: u64, end: u64, prot: Prot, f: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let pages = Range {
        start: start & !(PAGE_SIZE - 1),
        end: end.next_multiple_of(PAGE_SIZE),
    };
    if !user::is_user_range(pages.start, pages.len()) {
        return Err(Errno::EFAULT);
    }
    let before = u64::from(prot.bits());
    protect(pages, before | u64::from(Prot::WRITE.bits()))?;
    let r = f();
    protect(pages, before)?;
    r
}

pub(super) fn patch(space: &SpaceInner, pc: u64, number: u64, prot: Prot) -> Result<(), Errno> {
    let site = look(pc, number).ok_or(Errno::EINVAL)?;
    let area = space.sites.near(pc).ok_or(Errno::ENOSPC)?;
    let known = find(space, |_, s| site::origin(s).is_some_and(|o| o.0 == site.end));
    let stub = match known {
        // Its text was dropped and read anew.
        Some(at) => at,
        None => space.sites.take(area).ok_or(Errno::ENOSPC)?,
    };
    let (via, at_site) = site.changes(stub).ok_or(Errno::ERANGE)?;
    let mut original = [0; JUMP];
    user::copy_in(&mut original, site.start())?;
    let code = site.stub(stub, callgate::entry(), original);
    writable(stub, stub + STUB_BYTES as u64, Prot::READ | Prot::EXEC, || {
        user::copy_out(stub, &code)
    })?;
    let end = pc + site.padding.map_or(0, |p| u64::from(p) + JUMP as u64);
    writable(site.start(), end, prot, || {
        if let Some(p) = site.padding {
            // Nobody runs there yet.
            user::copy_out(pc + u64::from(p), &via)?;
        }
        change(space, site.start(), &at_site[..usize::from(site.len)])
    })
}

/// The first stub of the address space that `f` wants.
fn find(space: &SpaceInner, mut f: impl FnMut(u64, &[u8; STUB_BYTES]) -> bool) -> Option<u64> {
    for area in space.sites.all() {
        for n in 0..space.sites.count(area) {
            let at = area.start + n * STUB_BYTES as u64;
            if read_stub(at).is_some_and(|s| f(at, &s)) {
                return Some(at);
            }
        }
    }
    None
}

/// Whether the site at `start` still jumps to the stub: its text may be gone, and something else be there.
fn leads_to(start: u64, stub: u64) -> bool {
    let read = |at| {
        let mut bytes = [0; JUMP];
        user::copy_in(&mut bytes, at).ok().map(|()| bytes)
    };
    let Some(bytes) = read(start) else { return false };
    let (at, bytes) = match bytes {
        [site::SHORT_JUMP, by, ..] => {
            let at = start + 2 + u64::from(by);
            (at, read(at).unwrap_or(bytes))
        }
        _ => (start, bytes),
    };
    site::target(at, bytes) == Some(stub)
}

pub(super) fn unpatch(space: &SpaceInner, range: Range, prot: Prot) -> Result<(), Errno> {
    let mut result = Ok(());
    let _ = find(space, |at, stub| {
        if let Some((_, start, len, original)) = site::origin(stub)
            && range.contains(start)
            && leads_to(start, at)
        {
            let r = writable(start, start + len as u64, prot, || {
                change(space, start, &original[..len])
            });
            result = result.and(r);
        }
        false
    });
    result
}

/// The app's FP state, while it is in the registers.
pub(super) fn in_registers() -> bool {
    stack::with(|h| h.by_gate)
}
