//! Address spaces: those of the host processes the app runs in.

use super::{Process, handover, sites, stack, sys};
use crate::aspace::{Access, Advice, FaultOutcome, Layout, Prot, SpaceInner};
use crate::boot;
use crate::contract::Spaces;
use crate::host::Handle;
use crate::sync::Once;
use crate::uapi::general as g;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use qlib::boot::Range;
use qlib::{Errno, PAGE_SIZE, VirtAddr};

/// What apps may use: not the first 64 KiB (the host's mmap_min_addr), and below the 47-bit limit with its guard page.
const USER: Range = Range {
    start: 0x1_0000,
    end: (1 << 47) - PAGE_SIZE,
};

/// Source: `linux/prctl.h`.
const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;
/// Words of a `struct prctl_mm_map`: eleven addresses, the auxiliary vector's address, two `u32`s.
const MM_MAP_WORDS: usize = 13;

/// The region and the vDSO.
static RESERVED: Once<[Range; 2]> = Once::new();

/// Notes what is the machine's own.
pub(super) fn init() {
    let info = boot::info();
    let region = Range {
        start: info.image.start,
        end: info.heap.end,
    };
    RESERVED.call_once(|| {
        if region.start < info.vdso_range.start {
            [region, info.vdso_range]
        } else {
            [info.vdso_range, region]
        }
    });
}

/// Unmaps all but the machine's own in the calling process.
pub(super) fn unmap_everything() -> Result<(), Errno> {
    let mut start = USER.start;
    for r in Process::reserved().iter().filter(|r| !r.is_empty()) {
        munmap(start, r.start)?;
        start = r.end;
    }
    munmap(start, USER.end)
}

fn munmap(start: u64, end: u64) -> Result<(), Errno> {
    if start >= end {
        return Ok(());
    }
    // SAFETY: the callers leave the machine's own ranges alone.
    unsafe { sys::call(g::__NR_munmap, [start, end - start]) }.map(|_| ())
}

/// Refuses ranges that are not the app's.
fn check(r: Range) -> Result<(), Errno> {
    let inside = USER.start <= r.start && r.start < r.end && r.end <= USER.end;
    let clear = Process::reserved()
        .iter()
        .all(|k| r.end <= k.start || k.end <= r.start);
    if inside && clear {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

fn mmap(r: Range, prot: Prot, flags: u32, fd: u64, offset: u64) -> Result<(), Errno> {
    check(r)?;
    let flags = (flags | g::MAP_FIXED) as u64;
    // SAFETY: the range was checked to be the app's.
    unsafe {
        sys::call(
            g::__NR_mmap,
            [r.start, r.len(), prot.bits() as u64, flags, fd, offset],
        )
    }
    .map(|_| ())
}

impl Spaces for Process {
    fn user_range() -> Range {
        USER
    }

    fn reserved() -> &'static [Range] {
        RESERVED.get().map_or(&[], |r| r)
    }

    fn replace(old: &Arc<SpaceInner>) -> Result<Arc<SpaceInner>, Errno> {
        let fresh = Arc::new(SpaceInner::new(Default::default()));
        if old.users.load(Ordering::SeqCst) == 1 {
            unmap_everything()?;
        } else {
            handover::to_fresh_process()?;
        }
        fresh.users.store(1, Ordering::SeqCst);
        old.users.fetch_sub(1, Ordering::SeqCst);
        let previous = stack::with(|h| h.space.replace(fresh.clone()));
        drop(previous);
        Ok(fresh)
    }

    fn map_anon(_space: &SpaceInner, range: Range, prot: Prot) -> Result<(), Errno> {
        mmap(
            range,
            prot,
            g::MAP_PRIVATE | g::MAP_ANONYMOUS | g::MAP_NORESERVE,
            u64::MAX,
            0,
        )
    }

    fn map_file(
        _space: &SpaceInner,
        range: Range,
        prot: Prot,
        handle: Handle,
        offset: u64,
        shared: bool,
    ) -> Result<(), Errno> {
        let flags = if shared {
            g::MAP_SHARED
        } else {
            g::MAP_PRIVATE | g::MAP_NORESERVE
        };
        mmap(range, prot, flags, handle.0, offset)
    }

    fn unmap(_space: &SpaceInner, range: Range) -> Result<(), Errno> {
        check(range)?;
        munmap(range.start, range.end)
    }

    fn protect(_space: &SpaceInner, range: Range, prot: Prot) -> Result<(), Errno> {
        check(range)?;
        // SAFETY: the range was checked to be the app's.
        unsafe { sys::call(g::__NR_mprotect, [range.start, range.len(), prot.bits() as u64]) }.map(|_| ())
    }

    fn remap(_space: &SpaceInner, old: Range, new: Range) -> Result<(), Errno> {
        check(old)?;
        check(new)?;
        let args = if old.start == new.start {
            // The host grows in place only into a hole.
            munmap(old.end, new.end)?;
            [old.start, old.len(), new.len(), 0, 0]
        } else {
            [
                old.start,
                old.len(),
                new.len(),
                (g::MREMAP_MAYMOVE | g::MREMAP_FIXED) as u64,
                new.start,
            ]
        };
        // SAFETY: both ranges were checked to be the app's.
        unsafe { sys::call(g::__NR_mremap, args) }.map(|_| ())
    }

    fn barrier(space: Option<&SpaceInner>) -> Result<(), Errno> {
        const GLOBAL: u64 = 1;
        const PRIVATE_EXPEDITED: u64 = 8;
        const REGISTER_PRIVATE_EXPEDITED: u64 = 16;
        // SAFETY: orders memory accesses; touches none.
        let call = |command| unsafe { sys::call(g::__NR_membarrier, [command, 0, 0]) }.map(|_| ());
        if space.is_none() {
            return call(GLOBAL);
        }
        // The calling thread's address space is the host process's.
        match call(PRIVATE_EXPEDITED) {
            Err(Errno::EPERM) => {
                call(REGISTER_PRIVATE_EXPEDITED)?;
                call(PRIVATE_EXPEDITED)
            }
            r => r,
        }
    }
    fn advise(_space: &SpaceInner, range: Range, advice: Advice) -> Result<(), Errno> {
        check(range)?;
        let advice = match advice {
            Advice::DontNeed => g::MADV_DONTNEED,
            Advice::Free => g::MADV_FREE,
            Advice::WillNeed => g::MADV_WILLNEED,
            Advice::Remove => g::MADV_REMOVE,
            Advice::DontFork => g::MADV_DONTFORK,
            Advice::DoFork => g::MADV_DOFORK,
            Advice::WipeOnFork => g::MADV_WIPEONFORK,
            Advice::KeepOnFork => g::MADV_KEEPONFORK,
            Advice::HugePage => g::MADV_HUGEPAGE,
            Advice::NoHugePage => g::MADV_NOHUGEPAGE,
        };
        // SAFETY: the range was checked to be the app's.
        unsafe { sys::call(g::__NR_madvise, [range.start, range.len(), advice as u64]) }.map(|_| ())
    }

    fn resident(_space: &SpaceInner, range: Range, out: &mut [u8]) -> Result<(), Errno> {
        check(range)?;
        let pages = (range.len() / PAGE_SIZE).min(out.len() as u64);
        // SAFETY: the host writes one byte per page, and `out` has that many.
        unsafe {
            sys::call(
                g::__NR_mincore,
                [range.start, pages * PAGE_SIZE, out.as_mut_ptr() as u64],
            )
        }
        .map(|_| ())
    }

    fn patch_call(space: &SpaceInner, pc: u64, number: u64) -> Result<(), Errno> {
        sites::patch(space, pc, number)
    }

    fn unpatch_calls(space: &SpaceInner, range: Range, fate: crate::site::Fate) -> Result<(), Errno> {
        sites::unpatch(space, range, fate)
    }

    fn show_original(space: &SpaceInner, start: u64, copy: &mut [u8]) {
        sites::show_original(space, start, copy);
    }

    fn show_layout(_space: &SpaceInner, l: &Layout) {
        let mut map = [0u64; MM_MAP_WORDS];
        let places = [
            l.code.start,
            l.code.end,
            l.data.start,
            l.data.end,
            l.brk.start,
            l.brk.end,
            l.stack,
            l.args.start,
            l.args.end,
            l.env.start,
            l.env.end,
        ];
        map[..places.len()].copy_from_slice(&places);
        // No auxiliary vector, and of the last two words, which are its size and a program file, no file.
        map[MM_MAP_WORDS - 1] = (u32::MAX as u64) << 32;
        let args = [
            PR_SET_MM,
            PR_SET_MM_MAP,
            map.as_ptr() as u64,
            size_of_val(&map) as u64,
            0,
        ];
        // SAFETY: the host reads a `struct prctl_mm_map`.
        let _ = unsafe { sys::call(g::__NR_prctl, args) };
    }

    fn fault(_space: &SpaceInner, addr: VirtAddr, _access: Access) -> FaultOutcome {
        // The host resolved what can be resolved before it raised the signal.
        let mut byte = 0u8;
        let args = [addr.page_down().0, PAGE_SIZE, &raw mut byte as u64];
        // SAFETY: the host writes one byte.
        match unsafe { sys::call(g::__NR_mincore, args) } {
            Ok(_) => FaultOutcome::Protection,
            Err(_) => FaultOutcome::Unmapped,
        }
    }
}
