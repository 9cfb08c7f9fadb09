//! Memory: mmap and its family. Source: `mmap(2)`, `mprotect(2)`, `mremap(2)`, `brk(2)`, `madvise(2)`, `msync(2)`, `mlock(2)`.

use super::Support::{Full, Partial, Refused};
use super::{Args, Ctx, SysResult};
use crate::fs::fdtable::Fd;
use crate::mm::Mm;
use crate::mm::ops::{Backing, MapRequest, Place, page_range};
use crate::mm::vma::{Label, Vma, VmaSet};
use crate::rows;
use crate::task::creds::cap;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::aspace::{Advice, Prot, RESIDENT};
use hal::host;
use qlib::boot::Range;
use qlib::{Errno, PAGE_SIZE};

/// RLIMIT_DATA, RLIMIT_AS, RLIMIT_MEMLOCK.
const RLIMIT_DATA: usize = 2;
const RLIMIT_MEMLOCK: usize = 8;
const RLIMIT_AS: usize = 9;

const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_SHARED_VALIDATE: u64 = 3;
const MAP_TYPE: u64 = 0xf;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_GROWSDOWN: u64 = 0x100;
const MAP_LOCKED: u64 = 0x2000;
const MAP_SYNC: u64 = 0x8_0000;
const MAP_HUGETLB: u64 = 0x4_0000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;

fn mm(ctx: &Ctx<'_>) -> SysResult<Arc<Mm>> {
    ctx.task.mm().ok_or(Errno::ESRCH)
}

fn limit(ctx: &Ctx<'_>, which: usize) -> u64 {
    ctx.task.process.rlimits.lock()[which].0
}

fn prot(bits: u64) -> SysResult<Prot> {
    // PROT_GROWSDOWN, PROT_GROWSUP and PROT_SEM are accepted and mean nothing here.
    const IGNORED: u64 = 0x0100_0000 | 0x0200_0000 | 8;
    Prot::from_bits((bits & !IGNORED) as u32).ok_or(Errno::EINVAL)
}

fn sys_mmap(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (addr, len, flags, fd, offset) = (a.u64(0), a.u64(1), a.u64(3), a.fd(4), a.u64(5));
    let prot = prot(a.u64(2))?;
    if len == 0 || offset % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    let place = if flags & MAP_FIXED_NOREPLACE != 0 {
        Place::FixedNoReplace(addr)
    } else if flags & MAP_FIXED != 0 {
        Place::Fixed(addr)
    } else {
        Place::Hint(addr)
    };
    let shared = match flags & MAP_TYPE {
        MAP_PRIVATE => false,
        MAP_SHARED => true,
        MAP_SHARED_VALIDATE if flags & MAP_SYNC != 0 => return Err(Errno::EOPNOTSUPP),
        MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL),
    };
    if flags & MAP_HUGETLB != 0 {
        // No huge page pool: as a Linux with vm.nr_hugepages = 0.
        return Err(Errno::ENOMEM);
    }
    let backing = if flags & MAP_ANONYMOUS != 0 {
        if shared {
            Backing::SharedAnonymous
        } else {
            Backing::Anonymous
        }
    } else {
        map_file(ctx, fd, prot, offset, len, shared)?
    };
    let req = MapRequest {
        place,
        len,
        prot,
        label: Label::None,
        grows_down: flags & MAP_GROWSDOWN != 0,
        locked: flags & MAP_LOCKED != 0,
        limit: limit(ctx, RLIMIT_AS),
    };
    let mm = mm(ctx)?;
    let req = MapRequest {
        locked: req.locked || mm.lock_future.load(Ordering::Relaxed),
        ..req
    };
    if req.locked {
        match lock_room(ctx, &mm.vmas.lock())? {
            Some(room) if len > room => return Err(Errno::EAGAIN),
            _ => {}
        }
    }
    let data = limit(ctx, RLIMIT_DATA);
    if data != u64::MAX && !shared && prot.contains(Prot::WRITE) && !req.grows_down {
        let writable = |v: &&Vma| !v.shared && v.prot.contains(Prot::WRITE) && !v.grows_down;
        let used: u64 = mm
            .vmas
            .lock()
            .iter()
            .filter(writable)
            .map(|v| v.range().len())
            .sum();
        if used.saturating_add(len) > data {
            return Err(Errno::ENOMEM);
        }
    }
    mm.map(&req, backing)
}

/// How many more bytes may be locked; `None` without a limit.
///
/// # Errors
/// EPERM when locking is not allowed at all.
fn lock_room(ctx: &Ctx<'_>, vmas: &VmaSet) -> SysResult<Option<u64>> {
    if ctx.task.creds().capable(cap::IPC_LOCK) {
        return Ok(None);
    }
    match limit(ctx, RLIMIT_MEMLOCK) {
        0 => Err(Errno::EPERM),
        limit => Ok(Some(limit.saturating_sub(locked_bytes(vmas.iter())))),
    }
}

fn locked_bytes<'a>(areas: impl Iterator<Item = &'a Vma>) -> u64 {
    areas.filter(|v| v.locked).map(|v| v.range().len()).sum()
}

fn map_file(ctx: &Ctx<'_>, fd: Fd, prot: Prot, offset: u64, len: u64, shared: bool) -> SysResult<Backing> {
    let file = ctx.task.files().get(fd)?;
    if !file.readable() || shared && prot.contains(Prot::WRITE) && !file.writable() {
        return Err(Errno::EACCES);
    }
    if shared && prot.contains(Prot::WRITE) && crate::mm::is_sealed(&file) {
        return Err(Errno::EPERM);
    }
    if offset.checked_add(len).is_none() {
        return Err(Errno::EOVERFLOW);
    }
    if prot.contains(Prot::EXEC)
        && file
            .path()
            .is_some_and(|p| p.mount_flags() & crate::fs::mount_flags::NOEXEC != 0)
    {
        return Err(Errno::EPERM);
    }
    Ok(Backing::File { file, offset, shared })
}

fn sys_munmap(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    mm(ctx)?.unmap(a.u64(0), a.u64(1))?;
    Ok(0)
}

fn sys_mprotect(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    mm(ctx)?.protect(a.u64(0), a.u64(1), prot(a.u64(2))?)?;
    Ok(0)
}

fn sys_pkey_mprotect(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    if a.i32(3) != -1 {
        return Err(Errno::EINVAL);
    }
    sys_mprotect(ctx, a)
}

/// Maps other pages of a shared mapping's file in the place of some of it. Source: `remap_file_pages(2)`, which Linux emulates
/// with mappings too.
fn sys_remap_file_pages(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (start, size) = (a.u64(0) & !(PAGE_SIZE - 1), a.u64(1) & !(PAGE_SIZE - 1));
    let end = start.checked_add(size).filter(|e| *e > start);
    let offset = a.u64(3).checked_mul(PAGE_SIZE);
    let offset = offset.filter(|o| o.checked_add(size).is_some());
    let (Some(end), Some(offset), 0) = (end, offset, a.u64(2)) else {
        return Err(Errno::EINVAL);
    };
    let mm = mm(ctx)?;
    let old = shared_area(&mm.vmas.lock(), Range { start, end })?;
    let backing = match (old.file, old.memory) {
        (Some((file, _)), _) => Backing::File {
            file,
            offset,
            shared: true,
        },
        (None, Some((memory, _))) => Backing::Memory { memory, offset },
        (None, None) => return Err(Errno::EINVAL),
    };
    let req = MapRequest {
        place: Place::Fixed(start),
        len: size,
        prot: old.prot,
        label: old.label,
        grows_down: false,
        locked: old.locked,
        // It takes the place of as much.
        limit: u64::MAX,
    };
    mm.map(&req, backing).map(|_| 0)
}

/// The first of the shared areas that fill `range` and map the same file with the same protection.
fn shared_area(vmas: &VmaSet, range: Range) -> SysResult<Vma> {
    let file = |v: &Vma| {
        let file = v.file.as_ref().map(|(f, _)| Arc::as_ptr(f) as usize);
        file.or(v.memory.as_ref().map(|(m, _)| Arc::as_ptr(m) as usize))
    };
    let mut first: Option<Vma> = None;
    let mut at = range.start;
    for v in vmas.overlapping(range) {
        let known = first.get_or_insert_with(|| v.clone());
        // A mapping of a file that may not be written to is not shared in the sense of this call.
        let shared = v.shared && v.file.as_ref().is_none_or(|(f, _)| f.writable());
        if v.start > at || !shared || v.prot != known.prot || file(v) != file(known) {
            return Err(Errno::EINVAL);
        }
        at = v.end;
    }
    first.filter(|_| at >= range.end).ok_or(Errno::EINVAL)
}

fn sys_mremap(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    mm(ctx)?.remap(
        a.u64(0),
        a.u64(1),
        a.u64(2),
        a.u64(3),
        a.u64(4),
        limit(ctx, RLIMIT_AS),
    )
}

fn sys_brk(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    Ok(mm(ctx)?.brk(a.u64(0), limit(ctx, RLIMIT_DATA), limit(ctx, RLIMIT_AS)))
}

fn sys_madvise(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (addr, len) = (a.u64(0), a.u64(1));
    if addr % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    let advice = match a.u64(2) {
        3 => Advice::WillNeed,
        4 => Advice::DontNeed,
        8 => Advice::Free,
        9 => Advice::Remove,
        10 => Advice::DontFork,
        11 => Advice::DoFork,
        14 => Advice::HugePage,
        15 => Advice::NoHugePage,
        18 => Advice::WipeOnFork,
        19 => Advice::KeepOnFork,
        // Hints without effect: NORMAL RANDOM SEQUENTIAL MERGEABLE UNMERGEABLE DONTDUMP DODUMP COLD PAGEOUT
        // POPULATE_READ POPULATE_WRITE COLLAPSE.
        0 | 1 | 2 | 12 | 13 | 16 | 17 | 20 | 21 | 22 | 23 | 25 => {
            let range = page_range(addr, len).map_err(|_| Errno::EINVAL)?;
            let covered = mm(ctx)?.vmas.lock().covered(range);
            return if covered { Ok(0) } else { Err(Errno::ENOMEM) };
        }
        _ => return Err(Errno::EINVAL),
    };
    mm(ctx)?.advise(addr, len, advice)?;
    Ok(0)
}

fn sys_mincore(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let range = page_range(a.u64(0), a.u64(1))?;
    let pages = range.len() / PAGE_SIZE;
    let mm = mm(ctx)?;
    let mut done = 0;
    let mut buf = [0u8; 1024];
    while done < pages {
        let n = (pages - done).min(buf.len() as u64);
        let start = range.start + done * PAGE_SIZE;
        let part = qlib::boot::Range {
            start,
            end: start + n * PAGE_SIZE,
        };
        if !mm.vmas.lock().covered(part) {
            return Err(Errno::ENOMEM);
        }
        mm.space.resident(part, &mut buf[..n as usize])?;
        buf.iter_mut().for_each(|b| *b &= RESIDENT);
        hal::user::copy_out(a.u64(2).wrapping_add(done), &buf[..n as usize])?;
        done += n;
    }
    Ok(0)
}

fn sys_msync(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    const ASYNC: u64 = 1;
    const INVALIDATE: u64 = 2;
    const SYNC: u64 = 4;
    let flags = a.u64(2);
    if flags & !(ASYNC | INVALIDATE | SYNC) != 0 || flags & (ASYNC | SYNC) == ASYNC | SYNC {
        return Err(Errno::EINVAL);
    }
    let range = page_range(a.u64(0), a.u64(1))?;
    let mm = mm(ctx)?;
    let (covered, files) = {
        let vmas = mm.vmas.lock();
        if flags & INVALIDATE != 0 && vmas.overlapping(range).any(|v| v.locked) {
            return Err(Errno::EBUSY);
        }
        let shared = vmas.overlapping(range).filter(|v| v.shared);
        let files: alloc::vec::Vec<_> = shared
            .filter_map(|v| v.file.as_ref().map(|(f, _)| f.clone()))
            .collect();
        (vmas.covered(range), files)
    };
    if flags & SYNC != 0 {
        for f in files {
            if let Some(h) = f.ops().host_handle() {
                host::sync(h, true)?;
            }
        }
    }
    if covered { Ok(0) } else { Err(Errno::ENOMEM) }
}

/// Pages are never swapped by the guest: a lock is bookkeeping.
fn set_locked(ctx: &Ctx<'_>, addr: u64, len: u64, locked: bool) -> SysResult {
    let start = addr & !(PAGE_SIZE - 1);
    let range = page_range(start, len.checked_add(addr - start).ok_or(Errno::EINVAL)?)?;
    let mm = mm(ctx)?;
    let mut vmas = mm.vmas.lock();
    if !vmas.covered(range) {
        return Err(Errno::ENOMEM);
    }
    if locked && let Some(room) = lock_room(ctx, &vmas)? {
        let already = locked_bytes(vmas.overlapping(range));
        if range.len() > room + already {
            return Err(Errno::ENOMEM);
        }
    }
    vmas.update(range, |v| v.locked = locked);
    Ok(0)
}

fn sys_mlock2(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    if a.u64(2) & !1 != 0 {
        return Err(Errno::EINVAL);
    }
    set_locked(ctx, a.u64(0), a.u64(1), true)
}

fn sys_mlockall(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    const CURRENT: u64 = 1;
    const FUTURE: u64 = 2;
    const ON_FAULT: u64 = 4;
    let flags = a.u64(0);
    if flags & !(CURRENT | FUTURE | ON_FAULT) != 0 || flags & (CURRENT | FUTURE) == 0 {
        return Err(Errno::EINVAL);
    }
    let mm = mm(ctx)?;
    let mut vmas = mm.vmas.lock();
    let room = lock_room(ctx, &vmas)?;
    if flags & CURRENT != 0 {
        // A stack is mapped as far as it may grow; Linux counts what is in use.
        let rest = vmas.iter().filter(|v| !v.locked && v.label != Label::Stack);
        let unlocked: u64 = rest.map(|v| v.range().len()).sum();
        if room.is_some_and(|room| unlocked > room) {
            return Err(Errno::ENOMEM);
        }
        set_all_locked(&mut vmas, true);
    }
    mm.lock_future.store(flags & FUTURE != 0, Ordering::Relaxed);
    Ok(0)
}

fn set_all_locked(vmas: &mut VmaSet, locked: bool) {
    vmas.update(hal::aspace::user_range(), |v| v.locked = locked);
}

fn sys_munlockall(ctx: &mut Ctx<'_>, _a: Args) -> SysResult {
    let mm = mm(ctx)?;
    mm.lock_future.store(false, Ordering::Relaxed);
    set_all_locked(&mut mm.vmas.lock(), false);
    Ok(0)
}

/// Source: `membarrier(2)`.
fn sys_membarrier(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    const GLOBAL: u64 = 1;
    const GLOBAL_EXPEDITED: u64 = 2;
    const REGISTER_GLOBAL_EXPEDITED: u64 = 4;
    const PRIVATE_EXPEDITED: u64 = 8;
    const REGISTER_PRIVATE_EXPEDITED: u64 = 16;
    if a.u64(1) & 0xffff_ffff != 0 {
        return Err(Errno::EINVAL);
    }
    let registered = &mm(ctx)?.barriers;
    match a.u64(0) & 0xffff_ffff {
        0 => {
            return Ok(GLOBAL
                | GLOBAL_EXPEDITED
                | REGISTER_GLOBAL_EXPEDITED
                | PRIVATE_EXPEDITED
                | REGISTER_PRIVATE_EXPEDITED);
        }
        GLOBAL | GLOBAL_EXPEDITED => hal::aspace::barrier()?,
        REGISTER_GLOBAL_EXPEDITED => {}
        REGISTER_PRIVATE_EXPEDITED => registered.store(true, Ordering::Relaxed),
        PRIVATE_EXPEDITED if !registered.load(Ordering::Relaxed) => return Err(Errno::EPERM),
        PRIVATE_EXPEDITED => mm(ctx)?.space.barrier()?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

rows! {
    mmap: Partial("MAP_HUGETLB and MAP_SYNC are refused"), sys_mmap;
    munmap: Full, sys_munmap;
    mprotect: Full, sys_mprotect;
    pkey_mprotect: Partial("only the default key"), sys_pkey_mprotect;
    mremap: Partial("no MREMAP_DONTUNMAP"), sys_mremap;
    brk: Full, sys_brk;
    madvise: Partial("hints without effect are accepted"), sys_madvise;
    mincore: Full, sys_mincore;
    msync: Full, sys_msync;
    mlock: Partial("bookkeeping only: the guest never swaps"), |c, a| set_locked(c, a.u64(0), a.u64(1), true);
    mlock2: Partial("bookkeeping only: the guest never swaps"), sys_mlock2;
    munlock: Full, |c, a| set_locked(c, a.u64(0), a.u64(1), false);
    mlockall: Partial("bookkeeping only: the guest never swaps"), sys_mlockall;
    munlockall: Full, sys_munlockall;
    membarrier: Partial("no SYNC_CORE, RSEQ and GET_REGISTRATIONS commands"), sys_membarrier;
    remap_file_pages: Full, sys_remap_file_pages;
    process_madvise: Refused(Errno::ENOSYS, "no access to another process's memory");
    userfaultfd: Refused(Errno::ENOSYS, "page faults are the kernel's");
    mbind: Refused(Errno::ENOSYS, "one memory node");
    set_mempolicy: Refused(Errno::ENOSYS, "one memory node");
    get_mempolicy: Refused(Errno::ENOSYS, "one memory node");
    migrate_pages: Refused(Errno::ENOSYS, "one memory node");
    move_pages: Refused(Errno::ENOSYS, "one memory node");
    set_mempolicy_home_node: Refused(Errno::ENOSYS, "one memory node");
    pkey_alloc: Refused(Errno::ENOSPC, "no keys for apps");
    pkey_free: Refused(Errno::EINVAL, "no keys for apps");
    memfd_secret: Refused(Errno::ENOSYS, "not offered");
    map_shadow_stack: Refused(Errno::ENOSYS, "not offered");
    mseal: Refused(Errno::ENOSYS, "not offered");
}
