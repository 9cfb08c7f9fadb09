//! Boot: the entry from QVisor, BootInfo, and the hooks by which machines call QKernel.

use crate::UserContext;
use qlib::boot::{BootInfo, MachineKind};
use spin::Once;

/// Why the app came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A system call; number and arguments are in the context.
    Syscall,
    /// A page the app may not touch, or (bare) that is not there yet.
    PageFault {
        /// Address touched.
        addr: u64,
        /// How.
        access: crate::aspace::Access,
    },
    /// The file behind a mapping ends before the page, or a hardware memory error.
    BusError {
        /// Address touched.
        addr: u64,
    },
    /// Unaligned access where it is forbidden.
    Alignment {
        /// Address touched.
        addr: u64,
    },
    /// Undefined instruction.
    Illegal,
    /// A privileged instruction or a non-canonical address (x86 #GP): SIGSEGV with SI_KERNEL.
    GeneralProtection,
    /// Breakpoint instruction.
    Breakpoint,
    /// Single step finished.
    Step,
    /// Arithmetic error; the value is `si_code` (FPE_*).
    Arithmetic(i32),
    /// An interrupt or a kick: nothing the app did.
    Interrupt,
}

/// QKernel's entry points.
pub struct Hooks {
    /// Runs once on the boot thread after the machine is up; when it returns the boot thread becomes idle or ends.
    pub start: fn(),
    /// Handles a trap of the calling thread's app; on return the thread goes back to the app with `ctx`.
    pub trap: fn(ctx: &mut UserContext, trap: Trap),
    /// A call site of a known shape, which ends at `pc`, trapped often for system call `number`: the kernel may have it
    /// patched ([`crate::aspace::AddressSpace::patch_call`]). Called before the trap is handled.
    pub call_site: fn(pc: u64, number: u64),
}

static BOOT: Once<BootInfo> = Once::new();
static HOOKS: Once<&'static Hooks> = Once::new();

/// What QVisor told. Panics before boot, which is a bug of the machine.
pub fn info() -> &'static BootInfo {
    match BOOT.get() {
        Some(b) => b,
        None => panic!("BootInfo is read before boot"),
    }
}

/// As [`info`]; `None` before the boot, as in tests.
pub fn try_info() -> Option<&'static BootInfo> {
    BOOT.get()
}

/// The machine the kernel runs on.
pub fn kind() -> MachineKind {
    match MachineKind::try_from(info().machine) {
        Ok(k) => k,
        Err(_) => MachineKind::Process,
    }
}

/// Number of CPUs the guest shows.
pub fn cpus() -> u32 {
    info().cpus.max(1)
}

#[allow(dead_code)]
pub(crate) fn init(boot: BootInfo, hooks: &'static Hooks) {
    BOOT.call_once(|| boot);
    HOOKS.call_once(|| hooks);
}

#[allow(dead_code)]
pub(crate) fn hooks() -> &'static Hooks {
    match HOOKS.get() {
        Some(h) => h,
        None => panic!("a trap came before boot"),
    }
}

/// Makes the kernel image's entry: `hal::kernel_entry!(HOOKS)` in the binary's root, where `HOOKS: Hooks`.
#[macro_export]
macro_rules! kernel_entry {
    ($hooks:expr) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "Rust" fn quark_kernel_hooks() -> &'static $crate::boot::Hooks {
            &$hooks
        }
    };
}
