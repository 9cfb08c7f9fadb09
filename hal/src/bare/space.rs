//! Address spaces: the pager.

use super::region::{Region, Regions, Source};
use super::{Bare, frames, phys, thread, tlb, vdso, window};
use crate::aspace::{Access, Advice, FaultOutcome, Prot, RESIDENT, SHARED, SpaceInner, Vdso};
use crate::contract::{HostService, Spaces};
use crate::host::Handle;
use crate::native::paging::{Pte, SHARED_ROOT, USER_END};
use crate::sync::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arch::table::{Attr, ENTRIES, Format, NoMemory, Store, Tables};
use core::sync::atomic::{AtomicU64, Ordering};
use frames::FrameStore;
use qlib::boot::Range;
use qlib::{Errno, PAGE_SIZE, PhysAddr, VirtAddr};

/// Lowest address an app may map.
const USER_START: u64 = 0x1_0000;

/// What the pager keeps of an address space. Lock order: `regions`, then the frames' lock.
#[derive(Default)]
pub(crate) struct BareSpace {
    /// Root table; 0 in the `process` machine.
    root: AtomicU64,
    regions: SpinLock<Regions>,
    /// Pages mapped, and the most there were.
    resident: AtomicU64,
    peak: AtomicU64,
}

/// The root table of the CPUs' first address space, whose kernel half every root shares.
static TEMPLATE: AtomicU64 = AtomicU64::new(0);

/// Learns the first root table.
pub(super) fn init(root: PhysAddr) {
    TEMPLATE.store(root.0, Ordering::Relaxed);
}

/// Pages that are no longer mapped, to be given back after the TLBs forgot them.
#[derive(Default)]
struct Dropped {
    frames: Vec<PhysAddr>,
    /// How many pages there are, of RAM and of files.
    pages: u64,
    /// A translation that permitted something was taken away.
    stale: bool,
}

impl Dropped {
    fn entry(&mut self, entry: u64) {
        let pa = Pte::addr(entry);
        self.pages += 1;
        self.stale |= Pte::attr(entry).contains(Attr::READ);
        if frames::is_ram(pa) {
            self.frames.push(pa);
        }
    }
    fn finish(self, space: &BareSpace) {
        space.resident.fetch_sub(self.pages, Ordering::Relaxed);
        if self.stale {
            tlb::shootdown(space.root());
        }
        for pa in self.frames {
            frames::release(pa);
        }
    }
}

fn attr_of(prot: Prot, write: bool) -> Attr {
    let mut a = Attr::USER;
    a.set(Attr::READ, !prot.is_empty());
    a.set(Attr::WRITE, write && prot.contains(Prot::WRITE));
    a.set(Attr::EXEC, prot.contains(Prot::EXEC));
    a
}

impl BareSpace {
    /// An empty address space.
    pub(super) fn create() -> Result<Self, Errno> {
        let root = frames::alloc_zeroed().ok_or(Errno::ENOMEM)?;
        if SHARED_ROOT {
            let template = PhysAddr(TEMPLATE.load(Ordering::Relaxed));
            let mut store = FrameStore;
            for i in ENTRIES / 2..ENTRIES {
                let e = store.read(template, i);
                store.write(root, i, e);
            }
        }
        let space = Self::default();
        space.root.store(root.0, Ordering::Relaxed);
        vdso::map(root, &mut FrameStore).map_err(|NoMemory| Errno::ENOMEM)?;
        Ok(space)
    }

    /// The root table.
    pub(super) fn root(&self) -> u64 {
        self.root.load(Ordering::Relaxed)
    }

    fn root_pa(&self) -> PhysAddr {
        PhysAddr(self.root())
    }

    /// The largest resident set there was, bytes.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed) * PAGE_SIZE
    }

    fn add_resident(&self, pages: u64) {
        let now = self.resident.fetch_add(pages, Ordering::Relaxed) + pages;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    /// Empties `range`; what was there is returned so that it is dropped without locks held.
    #[must_use]
    fn clear(&self, regions: &mut Regions, range: Range) -> (Vec<(u64, Region)>, Dropped) {
        let old = regions.take(range);
        let mut dropped = Dropped::default();
        if !old.is_empty() {
            let mut store = FrameStore;
            Tables::<Pte, _>::new(self.root_pa(), &mut store).update(range.start, range.end, &mut |_, e| {
                dropped.entry(e);
                0
            });
        }
        (old, dropped)
    }

    fn replace_with(&self, range: Range, new: Option<Region>) {
        let mut regions = self.regions.lock();
        let (old, dropped) = self.clear(&mut regions, range);
        if let Some(r) = new {
            regions.insert(range.start, r);
        }
        dropped.finish(self);
        drop(regions);
        // Files may be closed here.
        drop(old);
    }
}

impl Drop for BareSpace {
    fn drop(&mut self) {
        let root = self.root_pa();
        if root.0 == 0 {
            return;
        }
        let mut store = FrameStore;
        let mut t = Tables::<Pte, _>::new(root, &mut store);
        t.update(0, USER_TOP, &mut |_, e| {
            let pa = Pte::addr(e);
            if frames::is_ram(pa) {
                frames::release(pa);
            }
            0
        });
        t.free_tables(0, USER_TOP);
        frames::free_block(root, 0);
    }
}

/// End of the app's half, a multiple of what a root entry covers.
const USER_TOP: u64 = USER_END.next_multiple_of(1 << 39);

/// One look at a fault under the lock.
enum Step {
    Done(FaultOutcome),
    /// A page of the file must be read in first.
    Load(Arc<window::FileMap>, u64),
}

/// Resolves a fault of the app (or of a user copy). May sleep, for a page of a file.
pub(super) fn fault(space: &BareSpace, addr: VirtAddr, access: Access) -> FaultOutcome {
    loop {
        match step(space, addr, access) {
            Step::Done(o) => return o,
            Step::Load(map, offset) => match map.load(offset) {
                Ok(()) => {}
                Err(Errno::ENOMEM) => return FaultOutcome::OutOfMemory,
                Err(_) => return FaultOutcome::BusError,
            },
        }
    }
}

fn step(space: &BareSpace, addr: VirtAddr, access: Access) -> Step {
    use FaultOutcome::{BusError, OutOfMemory, Protection, Resolved, Unmapped};
    let page = addr.page_down().0;
    let regions = space.regions.lock();
    let Some((start, r)) = regions.find(page) else {
        return Step::Done(Unmapped);
    };
    let allowed = match access {
        Access::Read => !r.prot.is_empty(),
        Access::Write => r.prot.contains(Prot::WRITE),
        Access::Execute => r.prot.contains(Prot::EXEC),
    };
    if !allowed {
        return Step::Done(Protection);
    }
    let write = access == Access::Write;
    let mut store = FrameStore;
    let mut tables = Tables::<Pte, _>::new(space.root_pa(), &mut store);
    let present = tables.lookup(page).map(|(e, _)| e);
    let (pa, attr) = match (present, &r.source) {
        (Some(e), _) if !write || r.is_shared() => {
            // Another thread was faster, or the TLB remembers less than the tables permit.
            let attr = attr_of(r.prot, Pte::attr(e).contains(Attr::WRITE) || r.is_shared());
            (Pte::addr(e), attr)
        }
        (Some(e), _) => {
            // A store to a private page: it is ours alone, or becomes so.
            let old = Pte::addr(e);
            if frames::is_ram(old) && frames::is_sole(old) {
                (old, attr_of(r.prot, true))
            } else {
                let Some(fresh) = frames::alloc() else {
                    return Step::Done(OutOfMemory);
                };
                // SAFETY: the frame was just taken; the old page is mapped here and stays while the lock is held.
                if !unsafe { phys::copy(fresh, old) } {
                    frames::release(fresh);
                    return Step::Done(BusError);
                }
                (fresh, attr_of(r.prot, true))
            }
        }
        (None, Source::Anon) => {
            let Some(fresh) = frames::alloc_zeroed() else {
                return Step::Done(OutOfMemory);
            };
            (fresh, attr_of(r.prot, true))
        }
        (None, Source::File { map, offset, shared }) => {
            let at = offset + (page - start);
            let Some(pa) = map.page(at) else {
                return Step::Load(map.clone(), at);
            };
            if write && !shared {
                let Some(fresh) = frames::alloc() else {
                    return Step::Done(OutOfMemory);
                };
                // SAFETY: the frame was just taken; the file's page is mapped in the window while the region holds it.
                if !unsafe { phys::copy(fresh, pa) } {
                    frames::release(fresh);
                    return Step::Done(BusError);
                }
                (fresh, attr_of(r.prot, true))
            } else {
                (pa, attr_of(r.prot, *shared && map.writable))
            }
        }
    };
    let entry = Pte::leaf(pa, attr, 0);
    if present == Some(entry) {
        crate::native::mmu::flush_page(page);
        return Step::Done(Resolved);
    }
    if access == Access::Execute || r.prot.contains(Prot::EXEC) {
        crate::native::mmu::sync_instructions(phys::ptr(pa) as u64, PAGE_SIZE);
    }
    let gone = present.map(Pte::addr).filter(|old| *old != pa);
    if gone.is_some() && tables.set(page, 0).is_ok() {
        // Other CPUs may still read the old page; and no TLB may see two pages at one address (aarch64).
        tlb::shootdown(space.root());
    }
    if tables.set(page, entry).is_err() {
        if present.is_none() && frames::is_ram(pa) {
            frames::release(pa);
        }
        return Step::Done(OutOfMemory);
    }
    crate::native::mmu::publish_tables();
    if present.is_some() {
        crate::native::mmu::flush_page(page);
    } else {
        space.add_resident(1);
    }
    if let Some(old) = gone.filter(|old| frames::is_ram(*old)) {
        frames::release(old);
    }
    Step::Done(Resolved)
}

/// The host had no memory behind a page of a file that was touched, and did not say which. Takes away the pages that lie
/// behind the ends of their files, so that another touch is a page fault like any other. May sleep. `false`: there are none.
pub(super) fn forget_lost(space: &BareSpace) -> bool {
    let mut maps: Vec<Arc<window::FileMap>> = Vec::new();
    for (_, r) in space.regions.lock().iter() {
        if let Source::File { map, .. } = &r.source
            && !maps.iter().any(|m| Arc::ptr_eq(m, map))
        {
            maps.push(map.clone());
        }
    }
    for m in &maps {
        m.look_again();
    }
    let regions = space.regions.lock();
    let mut dropped = Dropped::default();
    let mut store = FrameStore;
    let mut tables = Tables::<Pte, _>::new(space.root_pa(), &mut store);
    for (start, r) in regions.iter() {
        let Source::File { map, offset, .. } = &r.source else {
            continue;
        };
        let lost = start.saturating_add(map.end().saturating_sub(*offset));
        if lost >= r.end {
            continue;
        }
        tables.update(lost, r.end, &mut |_, e| {
            // Private copies stay.
            if frames::is_ram(Pte::addr(e)) {
                return e;
            }
            dropped.entry(e);
            0
        });
    }
    let found = dropped.stale;
    dropped.finish(space);
    drop(regions);
    found
}

/// A copy of the calling thread's address space: private pages are shared until one side stores.
pub(super) fn fork(parent: &BareSpace) -> Result<BareSpace, Errno> {
    let child = BareSpace::create()?;
    let regions = parent.regions.lock();
    let mut copies = child.regions.lock();
    let mut protected = false;
    let mut full = false;
    let mut pages = 0;
    for (start, r) in regions.iter() {
        if r.dont_fork {
            continue;
        }
        copies.insert(start, r.clone());
        if r.wipe_on_fork {
            continue;
        }
        let (mut from, mut to) = (FrameStore, FrameStore);
        let mut theirs = Tables::<Pte, _>::new(child.root_pa(), &mut to);
        let mut ours = Tables::<Pte, _>::new(parent.root_pa(), &mut from);
        ours.update(start, r.end, &mut |va, e| {
            if full {
                return e;
            }
            let (pa, attr) = (Pte::addr(e), Pte::attr(e));
            let shown = if r.is_shared() {
                e
            } else {
                Pte::leaf(pa, attr - Attr::WRITE, 0)
            };
            if theirs.set(va, shown).is_err() {
                full = true;
                return e;
            }
            pages += 1;
            if frames::is_ram(pa) {
                frames::share(pa);
            }
            protected |= shown != e;
            shown
        });
        if full {
            break;
        }
    }
    if protected {
        tlb::shootdown(parent.root());
    }
    child.add_resident(pages);
    drop(copies);
    drop(regions);
    if full { Err(Errno::ENOMEM) } else { Ok(child) }
}

/// Refuses ranges that are not the app's.
fn check(r: Range) -> Result<(), Errno> {
    let mine = |own: &Range| r.start < own.end && own.start < r.end;
    let inside = USER_START <= r.start && r.start < r.end && r.end <= USER_END;
    if inside && !vdso::reserved().iter().any(mine) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

impl Spaces for Bare {
    fn user_range() -> Range {
        Range {
            start: USER_START,
            end: USER_END,
        }
    }

    fn reserved() -> &'static [Range] {
        vdso::reserved()
    }

    fn vdso() -> Option<Vdso> {
        vdso::place()
    }

    fn replace(_old: &Arc<SpaceInner>) -> Result<Arc<SpaceInner>, Errno> {
        let fresh = Arc::new(SpaceInner::new(BareSpace::create()?));
        thread::adopt(fresh.clone());
        Ok(fresh)
    }

    fn map_anon(space: &SpaceInner, range: Range, prot: Prot) -> Result<(), Errno> {
        check(range)?;
        space
            .machine
            .replace_with(range, Some(Region::new(range.end, prot, Source::Anon)));
        Ok(())
    }

    fn map_file(
        space: &SpaceInner,
        range: Range,
        prot: Prot,
        h: Handle,
        offset: u64,
        shared: bool,
    ) -> Result<(), Errno> {
        check(range)?;
        let map = window::open(h, shared && prot.contains(Prot::WRITE))?;
        // Files that cannot be mapped are refused now, not by a fault. An empty file is fine.
        match map.load(offset) {
            Ok(()) | Err(Errno::ENXIO) => {}
            Err(e) => return Err(e),
        }
        let source = Source::File { map, offset, shared };
        space
            .machine
            .replace_with(range, Some(Region::new(range.end, prot, source)));
        Ok(())
    }

    fn unmap(space: &SpaceInner, range: Range) -> Result<(), Errno> {
        check(range)?;
        space.machine.replace_with(range, None);
        Ok(())
    }

    fn protect(space: &SpaceInner, range: Range, prot: Prot) -> Result<(), Errno> {
        check(range)?;
        upgrade_files(&space.machine, range, prot)?;
        let s = &space.machine;
        let mut regions = s.regions.lock();
        let mut spans = Vec::new();
        regions.change(range, |r| r.prot = prot);
        for (start, r) in regions.within(range) {
            spans.push((start, r.end, r.is_shared()));
        }
        let mut less = false;
        let mut store = FrameStore;
        let mut t = Tables::<Pte, _>::new(s.root_pa(), &mut store);
        for (start, end, shared) in spans {
            t.update(start, end, &mut |_, e| {
                let (pa, old) = (Pte::addr(e), Pte::attr(e));
                // Private pages become writable by a fault, which looks at who shares them.
                let new = attr_of(prot, shared || old.contains(Attr::WRITE));
                less |= !new.contains(old);
                Pte::leaf(pa, new, 0)
            });
        }
        if less {
            tlb::shootdown(s.root());
        } else {
            crate::native::mmu::publish_tables();
        }
        Ok(())
    }

    fn remap(space: &SpaceInner, old: Range, new: Range) -> Result<(), Errno> {
        check(old)?;
        check(new)?;
        remap(&space.machine, old, new)
    }

    fn barrier(space: Option<&SpaceInner>) -> Result<(), Errno> {
        tlb::interrupt(space.map(|s| s.machine.root()));
        Ok(())
    }
    fn advise(space: &SpaceInner, range: Range, advice: Advice) -> Result<(), Errno> {
        check(range)?;
        let s = &space.machine;
        match advice {
            Advice::DontNeed | Advice::Free => {
                let regions = s.regions.lock();
                let mut dropped = Dropped::default();
                let mut store = FrameStore;
                Tables::<Pte, _>::new(s.root_pa(), &mut store).update(range.start, range.end, &mut |_, e| {
                    dropped.entry(e);
                    0
                });
                dropped.finish(s);
                drop(regions);
            }
            Advice::DontFork => s.regions.lock().change(range, |r| r.dont_fork = true),
            Advice::DoFork => s.regions.lock().change(range, |r| r.dont_fork = false),
            Advice::WipeOnFork => s.regions.lock().change(range, |r| r.wipe_on_fork = true),
            Advice::KeepOnFork => s.regions.lock().change(range, |r| r.wipe_on_fork = false),
            Advice::Remove => return remove(s, range),
            Advice::WillNeed | Advice::HugePage | Advice::NoHugePage => {}
        }
        Ok(())
    }

    fn resident(space: &SpaceInner, range: Range, out: &mut [u8]) -> Result<(), Errno> {
        let s = &space.machine;
        let regions = s.regions.lock();
        let mut store = FrameStore;
        let t = Tables::<Pte, _>::new(s.root_pa(), &mut store);
        for (i, o) in out.iter_mut().enumerate() {
            let va = range.start + i as u64 * PAGE_SIZE;
            if regions.find(va).is_none() {
                return Err(Errno::ENOMEM);
            }
            *o = t.lookup(va).map_or(0, |(e, _)| {
                let pa = Pte::addr(e);
                let shared = frames::is_ram(pa) && !frames::is_sole(pa);
                RESIDENT | if shared { SHARED } else { 0 }
            });
        }
        Ok(())
    }

    fn fault(space: &SpaceInner, addr: VirtAddr, access: Access) -> FaultOutcome {
        fault(&space.machine, addr, access)
    }
}

/// Files mapped shared and read-only that become writable need pieces the host mapped writable.
fn upgrade_files(s: &BareSpace, range: Range, prot: Prot) -> Result<(), Errno> {
    if !prot.contains(Prot::WRITE) {
        return Ok(());
    }
    loop {
        let mut found = None;
        for (start, r) in s.regions.lock().within(range) {
            if let Source::File {
                map,
                offset,
                shared: true,
            } = &r.source
                && !map.writable
            {
                found = Some((start, r.end, map.clone(), *offset));
                break;
            }
        }
        let Some((start, end, map, offset)) = found else {
            return Ok(());
        };
        let writable = window::open(map.handle(), true)?;
        // The host refuses a handle that was opened for reading.
        match writable.load(offset) {
            Ok(()) | Err(Errno::ENXIO) => {}
            Err(_) => return Err(Errno::EACCES),
        }
        let mut regions = s.regions.lock();
        let span = Range { start, end };
        regions.change(span, |r| {
            if let Source::File { map: m, .. } = &mut r.source
                && Arc::ptr_eq(m, &map)
            {
                *m = writable.clone();
            }
        });
        // The next touch maps the writable piece.
        let mut dropped = Dropped::default();
        let mut store = FrameStore;
        Tables::<Pte, _>::new(s.root_pa(), &mut store).update(start, end, &mut |_, e| {
            dropped.entry(e);
            0
        });
        dropped.finish(s);
    }
}

/// MADV_REMOVE: punches the pages out of the files mapped shared.
fn remove(s: &BareSpace, range: Range) -> Result<(), Errno> {
    /// `FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE`.
    const PUNCH: u32 = 3;
    let mut holes = Vec::new();
    for (start, r) in s.regions.lock().within(range) {
        match &r.source {
            Source::File {
                map,
                offset,
                shared: true,
            } => holes.push((map.clone(), *offset, r.end - start)),
            _ => return Err(Errno::EINVAL),
        }
    }
    for (map, offset, len) in holes {
        Bare::allocate(map.handle(), PUNCH, offset, len)?;
    }
    Ok(())
}

fn remap(s: &BareSpace, old: Range, new: Range) -> Result<(), Errno> {
    let mut regions = s.regions.lock();
    let mut moved = regions.take(old);
    let (gone, mut dropped) = if old.start == new.start {
        // Grown or shrunk in place; the pages stay.
        let tail = Range {
            start: new.end.min(old.end),
            end: new.end.max(old.end),
        };
        self_clear(s, &mut regions, tail)
    } else {
        s.clear(&mut regions, new)
    };
    let mut store = FrameStore;
    let mut t = Tables::<Pte, _>::new(s.root_pa(), &mut store);
    let mut full = false;
    if old.start != new.start {
        let mut pages = Vec::new();
        t.update(old.start, old.end, &mut |va, e| {
            pages.push((va, e));
            0
        });
        for (va, e) in pages {
            let to = va - old.start + new.start;
            dropped.stale = true;
            if to >= new.end || t.set(to, e).is_err() {
                full |= to < new.end;
                dropped.entry(e);
            }
        }
    }
    // The last region covers what the new range has more than the old.
    if let Some((_, last)) = moved.last_mut() {
        last.end = last.end.max(old.start + (new.end - new.start));
    }
    let mut rest = Vec::new();
    for (start, mut r) in moved {
        let at = start - old.start + new.start;
        r.end = (r.end - old.start + new.start).min(new.end);
        if at < r.end {
            regions.insert(at, r);
        } else {
            rest.push(r);
        }
    }
    dropped.finish(s);
    drop(regions);
    drop(gone);
    drop(rest);
    if full { Err(Errno::ENOMEM) } else { Ok(()) }
}

/// Empties a range whose regions were taken out already as far as they belong to the mapping that is resized.
fn self_clear(s: &BareSpace, regions: &mut Regions, tail: Range) -> (Vec<(u64, Region)>, Dropped) {
    let old = regions.take(tail);
    let mut dropped = Dropped::default();
    let mut store = FrameStore;
    Tables::<Pte, _>::new(s.root_pa(), &mut store).update(tail.start, tail.end, &mut |_, e| {
        dropped.entry(e);
        0
    });
    (old, dropped)
}
