//! Which call sites may be patched, and where their stubs go.
//!
//! Only text that nobody is meant to change: private mappings of a file that are readable and executable and not writable.
//! The patched pages are the process's own copies. Fork copies them; exec drops them; before their protection changes,
//! part of them goes, or a debugger writes to them, they are made what they were. A debugger sees what they were; the
//! app itself, when it reads its own instructions, sees the jumps.

use super::vma::{Label, Vma};
use super::{Mm, VmaSet};
use hal::aspace::{Prot, reserved, user_range};
use hal::site::{AREA_BYTES, Fate, REACH};
use qlib::Errno;
use qlib::boot::Range;

/// Text around a site that must lie in the same area: as much as is looked at.
const AROUND: u64 = 160;
/// The protection of text.
const TEXT: Prot = Prot::READ.union(Prot::EXEC);

/// Whether patched call sites may lie in the area.
pub(super) fn may_be_patched(v: &Vma) -> bool {
    v.file.is_some() && !v.shared && v.prot == TEXT
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
        if !inside || !may_be_patched(text) {
            return Err(Errno::EACCES);
        }
        if self.space.stubs_near(pc).is_none() {
            self.add_stubs(&mut vmas, pc)?;
        }
        self.space.patch_call(pc, number)
    }

    /// Before what is in the range goes or is replaced: where it is memory for stubs, no site may use them any more; and no
    /// site may lose a part of itself.
    pub(super) fn leave_calls(&self, vmas: &VmaSet, range: Range) -> Result<(), Errno> {
        if !self.space.has_stubs() {
            return Ok(());
        }
        if !vmas.overlapping(range).any(|v| v.label == Label::Calls) {
            return self.unpatch(vmas, range, Fate::Goes);
        }
        self.unpatch(vmas, user_range(), Fate::Changes)?;
        self.space.drop_stubs();
        Ok(())
    }

    /// Before what is in the range changes: makes the call sites there what they were. Where it goes, only those of which
    /// a part lies outside.
    pub(super) fn unpatch(&self, vmas: &VmaSet, range: Range, fate: Fate) -> Result<(), Errno> {
        if !self.space.has_stubs() {
            return Ok(());
        }
        for v in vmas.overlapping(range).filter(|v| may_be_patched(v)) {
            // What is outside of the range need not be outside of the area.
            let r = Range {
                start: v.start.max(range.start),
                end: v.end.min(range.end),
            };
            self.space.unpatch_calls(r, fate)?;
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
        self.space.map_anon(range, TEXT)?;
        if let Err(e) = self.space.add_stubs(range) {
            self.space.unmap(range)?;
            return Err(e);
        }
        vmas.insert(Vma {
            start,
            end: range.end,
            prot: TEXT,
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
