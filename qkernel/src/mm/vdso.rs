//! The vDSO as an area of apps.

use super::Mm;
use super::vma::{Label, Vma};
use hal::aspace::Prot;
use qlib::Errno;

/// The address of the machine's vDSO in a fresh address space; 0 when there is none.
///
/// # Errors
/// None: the machine has mapped it already. It is not in the areas, so that no app can unmap it; `/proc` shows it from
/// here.
pub fn map(_mm: &Mm) -> Result<u64, Errno> {
    Ok(hal::aspace::vdso().map_or(0, |v| v.ehdr))
}

/// The vDSO as `/proc/PID/maps` shows it.
pub fn area() -> Option<Vma> {
    hal::aspace::vdso().map(|v| Vma {
        start: v.ehdr,
        end: v.range.end,
        prot: Prot::READ | Prot::EXEC,
        shared: false,
        file: None,
        memory: None,
        label: Label::Vdso,
        locked: false,
        grows_down: false,
        dont_fork: false,
    })
}
