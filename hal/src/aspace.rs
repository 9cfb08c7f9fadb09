//! Address spaces of apps.

use crate::host::Handle;
use crate::machine;
use alloc::sync::Arc;
use bitflags::bitflags;
use core::sync::atomic::AtomicU32;
use qlib::boot::Range;
use qlib::{Errno, VirtAddr};

bitflags! {
    /// Page protection; the bits are PROT_* of `mmap(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Prot: u32 {
        /// Readable.
        const READ = 1;
        /// Writable.
        const WRITE = 2;
        /// Executable.
        const EXEC = 4;
    }
}

/// How the app touched a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Instruction fetch.
    Execute,
}

/// What became of a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOutcome {
    /// The page is there now; the app goes on.
    Resolved,
    /// Nothing is mapped: SIGSEGV, SEGV_MAPERR.
    Unmapped,
    /// The protection forbids it: SIGSEGV, SEGV_ACCERR.
    Protection,
    /// The file ends before the page: SIGBUS, BUS_ADRERR.
    BusError,
    /// No memory is left.
    OutOfMemory,
}

/// Advice of `madvise(2)` that a machine can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Contents may go; private memory reads as zero (or as the file) afterwards.
    DontNeed,
    /// As `DontNeed`, lazily.
    Free,
    /// Will be needed soon.
    WillNeed,
    /// Drops pages of a shared mapping's file (MADV_REMOVE).
    Remove,
    /// Not copied by fork.
    DontFork,
    /// Copied by fork again.
    DoFork,
    /// Zero in the child after fork.
    WipeOnFork,
    /// Kept after fork again.
    KeepOnFork,
    /// Huge pages wanted.
    HugePage,
    /// Huge pages not wanted.
    NoHugePage,
}

#[cfg(target_os = "none")]
pub(crate) type MachineSpace = crate::bare::space::BareSpace;
#[cfg(not(target_os = "none"))]
pub(crate) type MachineSpace = crate::fake::FakeSpace;

/// An address space as the machines see it.
pub struct SpaceInner {
    /// Threads that live in it.
    #[cfg_attr(not(target_os = "none"), allow(dead_code))]
    pub(crate) users: AtomicU32,
    /// What the machine keeps.
    pub(crate) machine: MachineSpace,
    /// Patched call sites (`process`).
    #[cfg_attr(not(target_os = "none"), allow(dead_code))]
    pub(crate) sites: crate::site::Areas,
}

impl SpaceInner {
    pub(crate) fn new(machine: MachineSpace) -> Self {
        Self {
            users: AtomicU32::new(0),
            machine,
            sites: crate::site::Areas::new(),
        }
    }
}

/// A counted reference to an address space. All ranges are page-aligned and inside [`user_range`]; QKernel keeps the
/// areas (vmas) and calls these to make them so.
#[derive(Clone)]
pub struct AddressSpace(pub(crate) Arc<SpaceInner>);

impl AddressSpace {
    /// Whether both are the same address space.
    pub fn same(&self, other: &AddressSpace) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
    /// Gives the calling thread an empty address space of its own (exec).
    ///
    /// # Errors
    /// ENOMEM or EAGAIN.
    pub fn replace(&self) -> Result<AddressSpace, Errno> {
        machine!(Spaces::replace(&self.0)).map(AddressSpace)
    }
    /// Maps private zero-filled memory, replacing what was there.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn map_anon(&self, range: Range, prot: Prot) -> Result<(), Errno> {
        machine!(Spaces::map_anon(&self.0, range, prot))
    }
    /// Maps a host file from `offset` (page-aligned), replacing what was there.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn map_file(
        &self,
        range: Range,
        prot: Prot,
        h: Handle,
        offset: u64,
        shared: bool,
    ) -> Result<(), Errno> {
        machine!(Spaces::map_file(&self.0, range, prot, h, offset, shared))
    }
    /// Unmaps; holes are fine.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn unmap(&self, range: Range) -> Result<(), Errno> {
        machine!(Spaces::unmap(&self.0, range))
    }
    /// Changes the protection of mapped pages.
    ///
    /// # Errors
    /// EACCES (a read-only file mapped shared), ENOMEM.
    pub fn protect(&self, range: Range, prot: Prot) -> Result<(), Errno> {
        machine!(Spaces::protect(&self.0, range, prot))
    }
    /// Moves and resizes one mapping.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn remap(&self, old: Range, new: Range) -> Result<(), Errno> {
        machine!(Spaces::remap(&self.0, old, new))
    }
    /// Applies advice.
    ///
    /// # Errors
    /// As `madvise(2)`.
    pub fn advise(&self, range: Range, advice: Advice) -> Result<(), Errno> {
        machine!(Spaces::advise(&self.0, range, advice))
    }
    /// Has every thread that runs the app in this address space, which is the caller's, pass a full memory barrier before
    /// it returns.
    ///
    /// # Errors
    /// ENOSYS where the host has none.
    pub fn barrier(&self) -> Result<(), Errno> {
        machine!(Spaces::barrier(Some(&self.0)))
    }
    /// Tells residency, one byte per page: [`RESIDENT`], and [`SHARED`] where the machine knows.
    ///
    /// # Errors
    /// ENOMEM when part of the range is unmapped.
    pub fn resident(&self, range: Range, out: &mut [u8]) -> Result<(), Errno> {
        machine!(Spaces::resident(&self.0, range, out))
    }
    /// The memory that holds jumps for call sites near `addr`, when [`AddressSpace::add_stubs`] gave some.
    pub fn stubs_near(&self, addr: u64) -> Option<Range> {
        self.0.sites.near(addr)
    }
    /// Gives private zero-filled memory of [`crate::site::AREA_BYTES`], mapped read and execute, for jumps of call sites.
    ///
    /// # Errors
    /// ENOSPC when there are too many already.
    pub fn add_stubs(&self, range: Range) -> Result<(), Errno> {
        self.0.sites.add(range)
    }
    /// Patches the call site that ends at `pc`, where system call `number` was made; its pages are readable and executable,
    /// and stubs are near. The caller holds the app's areas still.
    ///
    /// # Errors
    /// The host's; EINVAL when the site is of no known shape.
    pub fn patch_call(&self, pc: u64, number: u64) -> Result<(), Errno> {
        machine!(Spaces::patch_call(&self.0, pc, number))
    }
    /// Whether there are stubs, and with them perhaps patched call sites.
    pub fn has_stubs(&self) -> bool {
        self.0.sites.all().next().is_some()
    }
    /// No call site is patched any more, because the memory of the stubs goes; all are what they were.
    pub fn drop_stubs(&self) {
        self.0.sites.drop_all();
    }
    /// Makes the call sites in a range of readable and executable pages what they were, because the pages move or change;
    /// where they go, only those of which a part lies outside.
    ///
    /// # Errors
    /// The host's.
    pub fn unpatch_calls(&self, range: Range, fate: crate::site::Fate) -> Result<(), Errno> {
        machine!(Spaces::unpatch_calls(&self.0, range, fate))
    }
    /// Makes a copy of the bytes at `start` what it were without patched call sites.
    pub fn show_original(&self, start: u64, copy: &mut [u8]) {
        if self.has_stubs() {
            machine!(Spaces::show_original(&self.0, start, copy));
        }
    }
    /// Tells the host where a program's parts lie in this address space, which is the caller's: its tools then show the
    /// program's command line as their own. A host that will not hear of it shows none.
    pub fn show_layout(&self, layout: &Layout) {
        machine!(Spaces::show_layout(&self.0, layout));
    }
    /// Tries to resolve a page fault of the app.
    pub fn fault(&self, addr: VirtAddr, access: Access) -> FaultOutcome {
        machine!(Spaces::fault(&self.0, addr, access))
    }
}

/// Has every thread that runs an app pass a full memory barrier before it returns.
///
/// # Errors
/// ENOSYS where the host has none.
pub fn barrier() -> Result<(), Errno> {
    machine!(Spaces::barrier(None))
}

/// Addresses apps may use.
pub fn user_range() -> Range {
    machine!(Spaces::user_range())
}

/// In [`AddressSpace::resident`]: the page is there.
pub const RESIDENT: u8 = 1;
/// In [`AddressSpace::resident`]: a private page that others hold too, since a fork. `process` does not know: its host does.
pub const SHARED: u8 = 2;

/// Where the parts of a program lie in its address space.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Code.
    pub code: Range,
    /// Initialised data.
    pub data: Range,
    /// What `brk(2)` gave.
    pub brk: Range,
    /// The first stack pointer.
    pub stack: u64,
    /// The arguments' strings.
    pub args: Range,
    /// The environment's strings.
    pub env: Range,
}

/// The vDSO in every address space.
#[derive(Clone, Copy, Debug)]
pub struct Vdso {
    /// Address of its ELF header: AT_SYSINFO_EHDR.
    pub ehdr: u64,
    /// Address of the code that returns from a signal handler when the app names none; 0 where apps must (x86_64).
    pub sigreturn: u64,
    /// Its pages, and those of its data.
    pub range: Range,
}

/// The vDSO, when the machine has one.
pub fn vdso() -> Option<Vdso> {
    machine!(Spaces::vdso())
}

/// Ranges inside [`user_range`] that are the machine's own.
pub fn reserved() -> &'static [Range] {
    machine!(Spaces::reserved())
}
