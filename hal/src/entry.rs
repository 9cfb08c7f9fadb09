//! From the image's entry point to the machine that BootInfo names.

use crate::boot::{self, Hooks};
use qlib::boot::{ABI_VERSION, BOOT_MAGIC, BootInfo, MachineKind};

unsafe extern "Rust" {
    /// Made by [`crate::kernel_entry!`] in the binary.
    safe fn quark_kernel_hooks() -> &'static Hooks;
}

/// Called by the architecture's `_start` on the boot stack, on every CPU of a bare machine. `cpu` is the index there; the
/// `process` machine leaves it undefined.
///
/// # Safety
/// `info` is the boot page QVisor filled; this is the only thread of the first CPU, and nothing ran before on this CPU.
#[unsafe(no_mangle)]
unsafe extern "C" fn quark_kernel_main(info: *const BootInfo, cpu: u64) -> ! {
    // SAFETY: the caller promises a valid boot page.
    let info = unsafe { *info };
    if info.machine == MachineKind::Kvm as u32 && cpu != 0 {
        // The boot CPU has set everything up before it let the others start.
        crate::bare::start_secondary(cpu as u32);
    }
    let sound = info.magic == BOOT_MAGIC && info.abi_version == ABI_VERSION;
    let kind = MachineKind::try_from(info.machine);
    boot::init(info, quark_kernel_hooks());
    match kind {
        Ok(MachineKind::Kvm) => crate::bare::start(sound),
        // An unknown machine cannot be addressed in its own way; a process at least can end itself.
        _ => crate::process::start(sound && kind.is_ok()),
    }
}
