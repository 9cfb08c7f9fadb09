//! Which call sites may be patched, and where their stubs go.
//!
//! Only text that nobody is meant to change: private mappings of a file that are readable and executable and not writable.
//! The patched pages are the process's own copies; fork copies them, exec and unmapping drop them, a move makes them what
//! they were first.

use super::vma::{Label, Vma};
use super::{Mm, VmaSet};
use hal::aspace::{Prot, reserved, user_range};
use hal::site::{AREA_BYTES, REACH};
use qlib::Errno;
use qlib::boot::Range;

/// Text around a site that must lie in the same area: as much as a patch may change.
const AROUND: u64 = 64;

/// Whether patched call sites may lie in the area, whatever its protection is now.
pub fn may_be_patched(v: &Vma) -> bool {
    v.file.is_some() && !v.shared
}

/// A call site trapped often.
pub fn call_site(pc: u64, number: u64) {
    let Some(mm) = crate::task::current().and_then(|t| t.mm()) else {
        return;
    };
    if let Err(e) = mm.patch_call(pc, number) {
        log::debug!("call site at {pc:#x} (call {number}): {e}");
    }
}

impl Mm {
    fn patch_call(&self, pc: u64, number: u64) -> Result<(), Errno> {
        let mut vmas = self.vmas.lock();
        let text = vmas.find(pc).ok_or(Errno::EFAULT)?;
        let inside = text.start + AROUND <= pc && pc + AROUND <= text.end;
        let prot = text.prot;
        if !inside || !may_be_patched(text) || prot != Prot::READ | Prot::EXEC {
            return Err(Errno::EACCES);
        }
        if self.space.stubs_near(pc).is_none() {
            self.add_stubs(&mut vmas, pc)?;
        }
        self.space.patch_call(pc, number, prot)
    }

    /// Before what is in the range is unmapped or replaced: where it is memory for stubs, no site may use them any more.
    pub(super) fn leave_stubs(&self, vmas: &VmaSet, range: Range) -> Result<(), Errno> {
        if vmas.overlapping(range).any(|v| v.label == Label::Calls) {
            self.space.drop_stubs()?;
        }
        Ok(())
    }

    /// Maps memory for stubs: below the text that needs them, or above.
    fn add_stubs(&self, vmas: &mut VmaSet, near: u64) -> Result<(), Errno> {
        if vmas.len() >= super::ops::MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        let reach = REACH - AREA_BYTES;
        let low = near.saturating_sub(reach).max(super::ops::MMAP_MIN);
        let high = (near + reach).min(user_range().end);
        let start = vmas
            .find_free(AREA_BYTES, low, near, reserved())
            .or_else(|| vmas.find_free(AREA_BYTES, near, high, reserved()))
            .ok_or(Errno::ENOMEM)?;
        let range = Range {
            start,
            end: start + AREA_BYTES,
        };
        let prot = Prot::READ | Prot::EXEC;
        self.space.map_anon(range, prot)?;
        if let Err(e) = self.space.add_stubs(range) {
            self.space.unmap(range)?;
            return Err(e);
        }
        vmas.insert(Vma {
            start,
            end: range.end,
            prot,
            shared: false,
            file: None,
            memory: None,
            label: Label::Calls,
            locked: false,
            grows_down: false,
            dont_fork: false,
        });
        Ok(())
    }
}
