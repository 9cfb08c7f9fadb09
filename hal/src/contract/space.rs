//! Address spaces.

use crate::aspace::{Access, Advice, FaultOutcome, Layout, Prot, SpaceInner, Vdso};
use crate::host::Handle;
use alloc::sync::Arc;
use qlib::boot::Range;
use qlib::{Errno, VirtAddr};

/// Address spaces of apps, in page-aligned ranges chosen by QKernel. Functions without `space` work on the calling
/// thread's. Only the current address space is ever changed.
pub trait Spaces {
    /// Addresses apps may use.
    fn user_range() -> Range;
    /// Ranges inside [`Spaces::user_range`] that are the machine's own (kernel image, vDSO).
    fn reserved() -> &'static [Range];
    /// The vDSO every address space has; on a machine without its own, the host's that BootInfo names.
    fn vdso() -> Option<Vdso> {
        let info = crate::boot::info();
        (info.vdso != 0).then_some(Vdso {
            ehdr: info.vdso,
            sigreturn: 0,
            range: info.vdso_range,
        })
    }
    /// Gives the calling thread an empty address space of its own; the old one lives on while others use it.
    fn replace(old: &Arc<SpaceInner>) -> Result<Arc<SpaceInner>, Errno>;
    /// Maps private zero-filled memory, replacing what was there.
    fn map_anon(space: &SpaceInner, range: Range, prot: Prot) -> Result<(), Errno>;
    /// Maps a host file from `offset`, shared or copy-on-write, replacing what was there.
    fn map_file(
        space: &SpaceInner,
        range: Range,
        prot: Prot,
        handle: Handle,
        offset: u64,
        shared: bool,
    ) -> Result<(), Errno>;
    /// Unmaps.
    fn unmap(space: &SpaceInner, range: Range) -> Result<(), Errno>;
    /// Changes the protection.
    fn protect(space: &SpaceInner, range: Range, prot: Prot) -> Result<(), Errno>;
    /// Moves (and resizes) a mapping to `new`, replacing what was there; contents move along.
    fn remap(space: &SpaceInner, old: Range, new: Range) -> Result<(), Errno>;
    /// Applies advice.
    fn advise(space: &SpaceInner, range: Range, advice: Advice) -> Result<(), Errno>;
    /// Has every thread that runs an app (of one address space, or any) pass a full memory barrier before it returns.
    fn barrier(space: Option<&SpaceInner>) -> Result<(), Errno>;
    /// One byte per page, bit 0 = resident (`mincore(2)`).
    fn resident(space: &SpaceInner, range: Range, out: &mut [u8]) -> Result<(), Errno>;
    /// Patches a call site; see [`crate::aspace::AddressSpace::patch_call`]. Only `process` traps calls at a price.
    fn patch_call(_space: &SpaceInner, _pc: u64, _number: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    /// Makes patched call sites what they were; see [`crate::aspace::AddressSpace::unpatch_calls`].
    fn unpatch_calls(_space: &SpaceInner, _range: Range, _fate: crate::site::Fate) -> Result<(), Errno> {
        Ok(())
    }
    /// See [`crate::aspace::AddressSpace::show_original`].
    fn show_original(_space: &SpaceInner, _start: u64, _copy: &mut [u8]) {}
    /// See [`crate::aspace::AddressSpace::show_layout`]. Only on `process` has the host a process to look at.
    fn show_layout(_space: &SpaceInner, _layout: &Layout) {}
    /// Tries to resolve a page fault of the app.
    fn fault(space: &SpaceInner, addr: VirtAddr, access: Access) -> FaultOutcome;
}
