//! Changes of an address space: the areas and the machine's mappings, in step.

use super::vma::{Label, Vma};
use super::{Layout, Mm};
use crate::fs::file::{File, MapBacking};
use crate::sched::wait::SleepLock;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::aspace::{AddressSpace, Advice, Prot, reserved, user_range};
use hal::host::{self, HostFile};
use hal::site::Fate;
use hal::sync::SpinLock;
use qlib::boot::Range;
use qlib::{Errno, PAGE_SIZE};

/// Lowest address `mmap` hands out by itself, and the least apps may map (`vm.mmap_min_addr`).
pub const MMAP_MIN: u64 = 0x1_0000;
/// Most areas an address space may have (`vm.max_map_count`).
pub const MAX_AREAS: usize = 65530;

/// What a new area is made of.
pub enum Backing {
    /// Private zero-filled memory.
    Anonymous,
    /// Shared zero-filled memory.
    SharedAnonymous,
    /// A file from the offset on.
    File {
        /// The open file; kept open by the area.
        file: Arc<File>,
        /// Offset of the first page, bytes.
        offset: u64,
        /// MAP_SHARED.
        shared: bool,
    },
    /// A memory file from the offset on, shared (SysV segments).
    Memory {
        /// The file.
        memory: Arc<HostFile>,
        /// Offset, bytes.
        offset: u64,
    },
}

/// Where a new area goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere; near the hint (0 = none) if that is free.
    Hint(u64),
    /// Exactly there, replacing what is there.
    Fixed(u64),
    /// Exactly there, EEXIST when something is.
    FixedNoReplace(u64),
}

/// What `map` needs to know besides the backing.
#[derive(Clone, Copy, Debug)]
pub struct MapRequest {
    /// Where.
    pub place: Place,
    /// Length in bytes, not 0; rounded up to pages.
    pub len: u64,
    /// Protection.
    pub prot: Prot,
    /// Text for `/proc`.
    pub label: Label,
    /// MAP_GROWSDOWN.
    pub grows_down: bool,
    /// MAP_LOCKED.
    pub locked: bool,
    /// RLIMIT_AS, bytes.
    pub limit: u64,
}

fn round_up(len: u64) -> Result<u64, Errno> {
    len.checked_add(PAGE_SIZE - 1)
        .map(|l| l & !(PAGE_SIZE - 1))
        .ok_or(Errno::ENOMEM)
}

/// The page-aligned range from `addr` on, inside the app's part of the address space.
///
/// # Errors
/// EINVAL when `addr` is not aligned, ENOMEM when the range leaves the app's part.
pub fn page_range(addr: u64, len: u64) -> Result<Range, Errno> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let end = addr.checked_add(round_up(len)?).ok_or(Errno::ENOMEM)?;
    if end > user_range().end {
        return Err(Errno::ENOMEM);
    }
    Ok(Range { start: addr, end })
}

fn is_reserved(range: Range) -> bool {
    range.start < MMAP_MIN
        || range.end > user_range().end
        || reserved()
            .iter()
            .any(|r| range.start < r.end && r.start < range.end)
}

impl Mm {
    /// An empty one over a machine's address space.
    pub fn new(space: AddressSpace, owner: Arc<Creds>) -> Arc<Self> {
        Arc::new(Self {
            space,
            vmas: SleepLock::default(),
            layout: SpinLock::new(Layout::default()),
            owner: SpinLock::new(owner),
            resident: SpinLock::default(),
            lock_future: AtomicBool::new(false),
            barriers: AtomicBool::new(false),
            aio: SpinLock::default(),
        })
    }

    /// A copy for fork; the machine has copied `space` already while the caller held `vmas`.
    pub fn forked(&self, space: AddressSpace, mut vmas: super::VmaSet) -> Arc<Self> {
        let gone: alloc::vec::Vec<Range> = vmas.iter().filter(|v| v.dont_fork).map(|v| v.range()).collect();
        for r in gone {
            vmas.remove(r);
        }
        // Locks are not inherited.
        vmas.update(user_range(), |v| v.locked = false);
        Arc::new(Self {
            space,
            vmas: SleepLock::new(vmas),
            layout: SpinLock::new(self.layout.lock().clone()),
            owner: SpinLock::new(self.owner.lock().clone()),
            resident: SpinLock::new(*self.resident.lock()),
            lock_future: AtomicBool::new(false),
            barriers: AtomicBool::new(self.barriers.load(Ordering::Relaxed)),
            aio: SpinLock::default(),
        })
    }

    /// Maps; returns the address.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn map(&self, req: &MapRequest, backing: Backing) -> Result<u64, Errno> {
        let len = round_up(req.len)?;
        if req.len == 0 {
            return Err(Errno::EINVAL);
        }
        let mut vmas = self.vmas.lock();
        if vmas.len() >= MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        let start = match req.place {
            Place::Fixed(a) | Place::FixedNoReplace(a) => {
                let r = page_range(a, len)?;
                if is_reserved(r) {
                    return Err(if a < MMAP_MIN { Errno::EPERM } else { Errno::ENOMEM });
                }
                if matches!(req.place, Place::FixedNoReplace(_)) && vmas.overlapping(r).next().is_some() {
                    return Err(Errno::EEXIST);
                }
                a
            }
            Place::Hint(hint) => {
                let hint = hint & !(PAGE_SIZE - 1);
                let wanted = hint.checked_add(len).map(|end| Range { start: hint, end });
                match wanted {
                    Some(r) if hint != 0 && !is_reserved(r) && vmas.overlapping(r).next().is_none() => hint,
                    _ => {
                        let base = self.layout.lock().mmap_base;
                        let free = vmas.find_free(len, MMAP_MIN, base, reserved());
                        // Above the base only when everything below is taken.
                        free.or_else(|| vmas.find_free(len, base, user_range().end, reserved()))
                            .ok_or(Errno::ENOMEM)?
                    }
                }
            }
        };
        let range = Range {
            start,
            end: start + len,
        };
        if vmas.total().saturating_add(len) > req.limit {
            return Err(Errno::ENOMEM);
        }
        self.leave_calls(&vmas, range)?;
        let mut vma = Vma {
            start,
            end: range.end,
            prot: req.prot,
            shared: false,
            file: None,
            memory: None,
            label: req.label,
            locked: req.locked,
            grows_down: req.grows_down,
            dont_fork: false,
        };
        match backing {
            Backing::Anonymous => self.space.map_anon(range, req.prot)?,
            Backing::SharedAnonymous => {
                let memory = Arc::new(host::mem_file(b"shared")?);
                host::truncate(memory.handle(), len)?;
                self.space.map_file(range, req.prot, memory.handle(), 0, true)?;
                vma.shared = true;
                vma.memory = Some((memory, 0));
            }
            Backing::Memory { memory, offset } => {
                self.space
                    .map_file(range, req.prot, memory.handle(), offset, true)?;
                vma.shared = true;
                vma.memory = Some((memory, offset));
            }
            Backing::File { file, offset, shared } => {
                match file.ops().map(&file)? {
                    MapBacking::Host(h) => self.space.map_file(range, req.prot, h, offset, shared)?,
                    MapBacking::Anonymous => self.space.map_anon(range, req.prot)?,
                }
                vma.shared = shared;
                vma.file = Some((file, offset));
            }
        }
        let old = vmas.remove(range);
        vmas.insert(vma);
        drop(vmas);
        // Files of what was there close after the lock is free.
        drop(old);
        Ok(start)
    }

    /// Unmaps.
    ///
    /// # Errors
    /// As `munmap(2)`.
    pub fn unmap(&self, addr: u64, len: u64) -> Result<(), Errno> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let range = page_range(addr, len).map_err(|_| Errno::EINVAL)?;
        let mut vmas = self.vmas.lock();
        self.leave_calls(&vmas, range)?;
        // Only what is mapped: the rest of the range may be the machine's own.
        let mapped: alloc::vec::Vec<Range> = vmas
            .overlapping(range)
            .map(|v| Range {
                start: v.start.max(range.start),
                end: v.end.min(range.end),
            })
            .collect();
        for r in mapped {
            self.space.unmap(r)?;
        }
        let old = vmas.remove(range);
        drop(vmas);
        drop(old);
        Ok(())
    }

    /// Changes the protection.
    ///
    /// # Errors
    /// As `mprotect(2)`.
    pub fn protect(&self, addr: u64, len: u64, prot: Prot) -> Result<(), Errno> {
        let range = page_range(addr, len)?;
        if len == 0 {
            return Ok(());
        }
        let mut vmas = self.vmas.lock();
        if !vmas.covered(range) {
            return Err(Errno::ENOMEM);
        }
        let writes = prot.contains(Prot::WRITE);
        let read_only = |v: &Vma| {
            v.shared
                && v.file
                    .as_ref()
                    .is_some_and(|(f, _)| !f.writable() || super::is_sealed(f))
        };
        if writes && vmas.overlapping(range).any(read_only) {
            return Err(Errno::EACCES);
        }
        if prot != Prot::READ | Prot::EXEC {
            self.leave_calls(&vmas, range)?;
            self.unpatch(&vmas, range, Fate::Changes)?;
        }
        self.space.protect(range, prot)?;
        vmas.update(range, |v| v.prot = prot);
        Ok(())
    }

    /// Moves or resizes a mapping; returns its address. `flags` are MREMAP_*.
    ///
    /// # Errors
    /// As `mremap(2)`.
    pub fn remap(
        &self,
        old: u64,
        old_len: u64,
        new_len: u64,
        flags: u64,
        new: u64,
        limit: u64,
    ) -> Result<u64, Errno> {
        const MAYMOVE: u64 = 1;
        const FIXED: u64 = 2;
        const DONTUNMAP: u64 = 4;
        if flags & !(MAYMOVE | FIXED | DONTUNMAP) != 0
            || new_len == 0
            || flags & (FIXED | DONTUNMAP) != 0 && flags & MAYMOVE == 0
        {
            return Err(Errno::EINVAL);
        }
        if flags & DONTUNMAP != 0 {
            return Err(Errno::EINVAL);
        }
        let new_len = round_up(new_len)?;
        let old_range = page_range(old, old_len).map_err(|_| Errno::EINVAL)?;
        let old_len = old_range.len();
        if old_len == 0 {
            return Err(Errno::EINVAL);
        }
        if flags & FIXED == 0 && new_len <= old_len {
            if new_len < old_len {
                self.unmap(old + new_len, old_len - new_len)?;
            }
            return Ok(old);
        }
        let mut vmas = self.vmas.lock();
        let area = vmas.find(old).cloned().ok_or(Errno::EFAULT)?;
        if area.end < old_range.end {
            return Err(Errno::EFAULT);
        }
        let grown = new_len.saturating_sub(old_len);
        if vmas.total().saturating_add(grown) > limit {
            return Err(Errno::ENOMEM);
        }
        let target = if flags & FIXED != 0 {
            let r = page_range(new, new_len).map_err(|_| Errno::EINVAL)?;
            if r.start < old_range.end && old_range.start < r.end {
                return Err(Errno::EINVAL);
            }
            if is_reserved(r) {
                return Err(Errno::ENOMEM);
            }
            new
        } else {
            let tail = Range {
                start: old_range.end,
                end: old.checked_add(new_len).ok_or(Errno::ENOMEM)?,
            };
            let fits =
                area.end == old_range.end && !is_reserved(tail) && vmas.overlapping(tail).next().is_none();
            if fits {
                old
            } else if flags & MAYMOVE == 0 {
                return Err(Errno::ENOMEM);
            } else {
                let base = self.layout.lock().mmap_base;
                vmas.find_free(new_len, MMAP_MIN, base, reserved())
                    .ok_or(Errno::ENOMEM)?
            }
        };
        let new_range = Range {
            start: target,
            end: target + new_len,
        };
        self.leave_calls(&vmas, old_range)?;
        self.leave_calls(&vmas, new_range)?;
        if target != old {
            self.unpatch(&vmas, old_range, Fate::Moves)?;
        }
        if let Some((memory, offset)) = &area.memory {
            // A shared anonymous mapping that grows needs its memory file to grow along.
            let end = offset + (old - area.start) + new_len;
            if host::stat(memory.handle(), b"")?.size < end {
                host::truncate(memory.handle(), end)?;
            }
        }
        if target == old {
            self.space.remap(old_range, new_range)?;
        } else {
            self.space.remap(
                Range {
                    start: old,
                    end: old + old_len.min(new_len),
                },
                new_range,
            )?;
            if new_len < old_len {
                self.space.unmap(Range {
                    start: old + new_len,
                    end: old_range.end,
                })?;
            }
        }
        let mut moved = area.slice(old, old_range.end);
        moved.start = target;
        moved.end = new_range.end;
        let gone = vmas.remove(old_range);
        let replaced = vmas.remove(new_range);
        vmas.insert(moved);
        drop(vmas);
        drop((gone, replaced));
        Ok(target)
    }

    /// Moves the program break; returns where it is then.
    pub fn brk(&self, addr: u64, data_limit: u64, limit: u64) -> u64 {
        let (start, old) = {
            let l = self.layout.lock();
            (l.start_brk, l.brk)
        };
        if addr < start || addr - start > data_limit {
            return old;
        }
        let (Ok(from), Ok(to)) = (round_up(old), round_up(addr)) else {
            return old;
        };
        if to < from {
            if self.unmap(to, from - to).is_err() {
                return old;
            }
        } else if to > from {
            let req = MapRequest {
                place: Place::FixedNoReplace(from),
                len: to - from,
                prot: Prot::READ | Prot::WRITE,
                label: Label::Heap,
                grows_down: false,
                locked: self.lock_future.load(Ordering::Relaxed),
                limit,
            };
            if self.map(&req, Backing::Anonymous).is_err() {
                return old;
            }
        }
        self.layout.lock().brk = addr;
        addr
    }

    /// Applies advice to mapped parts of a range.
    ///
    /// # Errors
    /// ENOMEM when part of the range is unmapped; the machine's errors.
    pub fn advise(&self, addr: u64, len: u64, advice: Advice) -> Result<(), Errno> {
        let range = page_range(addr, len).map_err(|_| Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut vmas = self.vmas.lock();
        let parts: alloc::vec::Vec<Range> = vmas
            .overlapping(range)
            .map(|v| Range {
                start: v.start.max(range.start),
                end: v.end.min(range.end),
            })
            .collect();
        let hints = [Advice::WillNeed, Advice::HugePage, Advice::NoHugePage];
        if !hints.contains(&advice) {
            self.leave_calls(&vmas, range)?;
        }
        for r in parts {
            self.space.advise(r, advice)?;
        }
        match advice {
            Advice::DontFork => vmas.update(range, |v| v.dont_fork = true),
            Advice::DoFork => vmas.update(range, |v| v.dont_fork = false),
            _ => {}
        }
        if vmas.covered(range) {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }
}
