//! The vDSO: a page of clock parameters and a page of code, the same two frames at the same place in every address space.

use super::{clock, frames, phys};
use crate::aspace::Vdso;
use crate::native;
use crate::native::paging::{Pte, USER_END};
use crate::sync::Once;
use arch::table::{Attr, Format, NoMemory, Store, Tables};
use arch::vdso::{Clocks, Image};
use qlib::boot::Range;
use qlib::{PAGE_SIZE, PhysAddr};

/// The range its place is drawn from, below the end of the app's half: a gigabyte shares most of its tables with the stack.
const SPREAD: u64 = 1 << 30;

struct Pages {
    place: Vdso,
    reserved: [Range; 1],
    clocks: PhysAddr,
    code: PhysAddr,
}

static PAGES: Once<Option<Pages>> = Once::new();

/// Makes the pages; a machine without memory for them goes without a vDSO.
pub(super) fn init() {
    PAGES.call_once(make);
}

fn make() -> Option<Pages> {
    let (clocks, code) = (frames::alloc_zeroed()?, frames::alloc_zeroed()?);
    let image = phys::ptr(code).cast::<Image>();
    // SAFETY: the frame was just taken, and an image is any page of bytes.
    let image = unsafe { &mut *image };
    let sigreturn = native::vdso::make(image)?;
    native::mmu::sync_instructions(phys::ptr(code) as u64, PAGE_SIZE);
    let parameters = Clocks {
        ns_per_tick: clock::ns_per_tick(),
        realtime_offset_ns: crate::boot::info().realtime_offset_ns,
        sequence: 0,
        reserved: 0,
    };
    // SAFETY: the frame was just taken; it is larger and better aligned than the parameters.
    unsafe { phys::ptr(clocks).cast::<Clocks>().write(parameters) };
    let mut random = [0; 8];
    super::random::fill(&mut random);
    let start = USER_END - SPREAD + u64::from_le_bytes(random) % (SPREAD / PAGE_SIZE - 2) * PAGE_SIZE;
    let range = Range {
        start,
        end: start + 2 * PAGE_SIZE,
    };
    let ehdr = start + PAGE_SIZE;
    let place = Vdso {
        ehdr,
        sigreturn: if sigreturn == 0 { 0 } else { ehdr + sigreturn },
        range,
    };
    Some(Pages {
        place,
        reserved: [range],
        clocks,
        code,
    })
}

/// Where it is.
pub(super) fn place() -> Option<Vdso> {
    PAGES.get()?.as_ref().map(|p| p.place)
}

/// The range apps cannot have.
pub(super) fn reserved() -> &'static [Range] {
    match PAGES.get() {
        Some(Some(p)) => &p.reserved,
        _ => &[],
    }
}

/// Maps the pages into the empty address space under `root`.
pub(super) fn map(root: PhysAddr, store: &mut impl Store) -> Result<(), NoMemory> {
    let Some(Some(p)) = PAGES.get() else { return Ok(()) };
    let mut tables = Tables::<Pte, _>::new(root, store);
    let pages = [
        (p.clocks, Attr::USER | Attr::READ),
        (p.code, Attr::USER | Attr::READ | Attr::EXEC),
    ];
    for (i, (pa, attr)) in pages.into_iter().enumerate() {
        tables.set(p.place.range.start + i as u64 * PAGE_SIZE, Pte::leaf(pa, attr, 0))?;
        // Every address space holds a reference, which its end gives back.
        frames::share(pa);
    }
    Ok(())
}
