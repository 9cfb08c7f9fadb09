//! The vDSO as an area of apps.

use super::Mm;
use super::vma::{Label, Vma};
use hal::aspace::Prot;
use qlib::Errno;

/// Makes the machine's vDSO visible in a fresh address space; returns its address, 0 when there is none.
///
/// # Errors
/// ENOMEM.
pub fn map(mm: &Mm) -> Result<u64, Errno> {
    let info = hal::boot::info();
    if info.vdso == 0 {
        return Ok(0);
    }
    // On the process machine the host has mapped it already: only the bookkeeping is missing. It is not in `vmas`, so
    // that no app can unmap it; `/proc` shows it from here.
    Ok(info.vdso)
}

/// The vDSO as `/proc/PID/maps` shows it.
pub fn area() -> Option<Vma> {
    let info = hal::boot::info();
    (info.vdso != 0).then(|| Vma {
        start: info.vdso,
        end: info.vdso_range.end,
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
