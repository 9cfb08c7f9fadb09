//! Patched call sites: the calls that come by the gate, and changing an app's instructions while it runs.

use super::threads::KERNEL;
use super::{FAULT_CODE, Process, stack, sys, traps};
use crate::aspace::{Prot, SpaceInner};
use crate::boot::{self, Trap};
use crate::contract::Threads;
use crate::native::callgate::{self, CallFrame};
use crate::native::site::{self, AFTER, BEFORE, JUMP, Origin, STUB_BYTES, Site};
use crate::site::Fate;
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
    if site::must_trap(frame.ctx.rax) {
        // By the stub's own instruction.
        frame.ctx.rip = frame.slow;
        return;
    }
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
    if frame.ctx.rip == frame.slow
        && let Some((pc, _)) = outside(frame.slow, false)
    {
        frame.ctx.rip = pc;
    }
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
    let Some(space) = current() else { return };
    if space.sites.often(pc) && look(&space, pc, number).is_some() {
        (boot::hooks().call_site)(pc, number);
    }
}

fn look(space: &SpaceInner, pc: u64, number: u64) -> Option<Site> {
    let from = pc.checked_sub(BEFORE as u64)?;
    let mut bytes = [0; BEFORE + AFTER];
    user::copy_in(&mut bytes, from).ok()?;
    let patched = find(space, |at, o| {
        if o.end == pc {
            // The padding still leads to the stub when only the site was made what it was.
            cover_padding(&o, at, from, &mut bytes);
        }
        o.end == pc && is_patched(&o, at)
    });
    // There is no other shape in a jump.
    if patched.is_some() {
        return None;
    }
    Site::recognise(pc, &bytes, number)
}

/// Where the app stands when it was interrupted in a stub: program counter, and `rax` if it is to be set.
pub(super) fn outside(pc: u64, stepping: bool) -> Option<(u64, Option<u64>)> {
    let area = stack::with(|h| h.space.as_ref().and_then(|s| s.sites.holding(pc)))?;
    let at = (pc - area.start) % STUB_BYTES as u64;
    let stub = read_stub(pc - at)?;
    site::outside(&stub, pc - at, at as usize, stepping)
}

/// The same where it stands on the padding that leads to a stub.
pub(super) fn beside(pc: u64, stepping: bool) -> Option<u64> {
    let stub = jump_target(pc)?;
    stack::with(|h| h.space.as_ref().and_then(|s| s.sites.holding(stub)))?;
    let o = site::origin(&read_stub(stub)?)?;
    let on_it = o.padding.is_some_and(|(p, _)| p == pc);
    let to = if stepping { site::slow(stub) } else { o.start };
    on_it.then_some(to)
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
    if find(&space, |_, o| o.start == at).is_none() {
        return false;
    }
    if space.sites.changing.load(Ordering::SeqCst) == at {
        Process::yield_now();
        return true;
    }
    let mut byte = [0];
    user::copy_in(&mut byte, at).is_ok() && byte[0] != BREAKPOINT
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
    let mut first = [0];
    user::copy_in(&mut first, at)?;
    serialise(space)?;
    space.sites.changing.store(at, Ordering::SeqCst);
    let r = (|| {
        user::copy_out(at, &[BREAKPOINT])?;
        if let Err(e) = serialise(space) {
            user::copy_out(at, &first)?;
            return Err(e);
        }
        user::copy_out(at + 1, &bytes[1..])?;
        // It worked twice; and there is no way back any more.
        while serialise(space).is_err() {
            Process::yield_now();
        }
        user::copy_out(at, &bytes[..1])
    })();
    space.sites.changing.store(0, Ordering::SeqCst);
    r
}

fn protect(range: Range, prot: u64) -> Result<(), Errno> {
    // SAFETY: the callers give ranges of the app's.
    unsafe { sys::call(g::__NR_mprotect, [range.start, range.len(), prot]) }.map(|_| ())
}

/// Runs `f` while the pages of `[start, end)`, which are text, are writable as well.
fn writable(start: u64, end: u64, f: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let pages = Range {
        start: start & !(PAGE_SIZE - 1),
        end: end.next_multiple_of(PAGE_SIZE),
    };
    if !user::is_user_range(pages.start, pages.len()) {
        return Err(Errno::EFAULT);
    }
    let text = u64::from((Prot::READ | Prot::EXEC).bits());
    protect(pages, text | u64::from(Prot::WRITE.bits()))?;
    let r = f();
    protect(pages, text)?;
    r
}

pub(super) fn patch(space: &SpaceInner, pc: u64, number: u64) -> Result<(), Errno> {
    let site = look(space, pc, number).ok_or(Errno::EINVAL)?;
    let area = space.sites.near(pc).ok_or(Errno::ENOSPC)?;
    let mut original = [0; JUMP];
    user::copy_in(&mut original, site.start())?;
    // The stub of a site whose text was read anew serves again; somebody may be in it.
    let mut stub = find(space, |at, o| {
        o.end == pc && read_stub(at) == Some(site.stub(at, callgate::entry(), original))
    });
    if stub.is_none() {
        let at = space.sites.take(area).ok_or(Errno::ENOSPC)?;
        let code = site.stub(at, callgate::entry(), original);
        writable(at, at + STUB_BYTES as u64, || user::copy_out(at, &code))?;
        stub = Some(at);
    }
    let stub = stub.ok_or(Errno::ENOSPC)?;
    let (via, at_site) = site.changes(stub).ok_or(Errno::ERANGE)?;
    let padding = site.padding.map(|(p, _)| pc + u64::from(p));
    let end = padding.map_or(pc, |p| p + JUMP as u64);
    writable(site.start(), end, || {
        if let Some(p) = padding {
            // Nobody runs there yet, or it is the same.
            user::copy_out(p, &via)?;
        }
        change(space, site.start(), &at_site[..usize::from(site.len)])
    })
}

/// The first stub of the address space that `f` wants.
fn find(space: &SpaceInner, mut f: impl FnMut(u64, Origin) -> bool) -> Option<u64> {
    for area in space.sites.all() {
        for n in 0..space.sites.count(area) {
            let at = area.start + n * STUB_BYTES as u64;
            if read_stub(at)
                .and_then(|s| site::origin(&s))
                .is_some_and(|o| f(at, o))
            {
                return Some(at);
            }
        }
    }
    None
}

/// Whether the bytes at `from` are a jump to the stub.
fn jumps_to(from: u64, stub: u64) -> bool {
    jump_target(from) == Some(stub)
}

fn jump_target(from: u64) -> Option<u64> {
    let mut bytes = [0; JUMP];
    user::copy_in(&mut bytes, from).ok()?;
    site::target(from, bytes)
}

/// Whether the site still jumps to its stub: its text may be gone, and something else be there.
fn is_patched(o: &Origin, stub: u64) -> bool {
    let Some((padding, _)) = o.padding else {
        return jumps_to(o.start, stub);
    };
    let mut bytes = [0; 2];
    let short = [site::SHORT_JUMP, (padding - o.end) as u8];
    user::copy_in(&mut bytes, o.start).is_ok() && bytes == short && jumps_to(padding, stub)
}

/// First byte of what a patch relies on, and one past the last.
fn extent(o: &Origin) -> Range {
    Range {
        start: o.start,
        end: o.padding.map_or(o.end, |(p, _)| p + JUMP as u64),
    }
}

/// Makes sites what they were: those with bytes in the range; where that goes, only those that have bytes outside as well.
/// Their padding stays while somebody may be on the way to the stub.
pub(super) fn unpatch(space: &SpaceInner, range: Range, fate: Fate) -> Result<(), Errno> {
    let nobody = fate == Fate::Moves || space.users.load(Ordering::SeqCst) == 1;
    let mut result = Ok(());
    let _ = find(space, |at, o| {
        let all = extent(&o);
        let meets = all.start < range.end && range.start < all.end;
        let inside = range.start <= all.start && all.end <= range.end;
        if meets && !(fate == Fate::Goes && inside) && is_patched(&o, at) {
            let r = writable(all.start, all.end, || {
                change(space, o.start, &o.original[..o.len])?;
                match o.padding {
                    Some((p, was)) if nobody => user::copy_out(p, &was),
                    _ => Ok(()),
                }
            });
            result = result.and(r);
        }
        false
    });
    result
}

/// Puts `what`, the bytes at `from`, into a copy of the app's bytes at `start`.
fn cover(what: &[u8], from: u64, start: u64, copy: &mut [u8]) {
    for (i, byte) in what.iter().enumerate() {
        let at = (from + i as u64).checked_sub(start);
        if let Some(c) = at.and_then(|at| copy.get_mut(usize::try_from(at).ok()?)) {
            *c = *byte;
        }
    }
}

fn cover_padding(o: &Origin, stub: u64, start: u64, copy: &mut [u8]) {
    if let Some((p, was)) = o.padding
        && jumps_to(p, stub)
    {
        cover(&was, p, start, copy);
    }
}

/// Makes a copy of the app's bytes at `start` what it were without patches.
pub(super) fn show_original(space: &SpaceInner, start: u64, copy: &mut [u8]) {
    let end = start.saturating_add(copy.len() as u64);
    let _ = find(space, |at, o| {
        let all = extent(&o);
        if all.start < end && start < all.end {
            if is_patched(&o, at) {
                cover(&o.original[..o.len], o.start, start, copy);
            }
            cover_padding(&o, at, start, copy);
        }
        false
    });
}

/// The app's FP state, while it is in the registers.
pub(super) fn in_registers() -> bool {
    stack::with(|h| h.by_gate)
}
