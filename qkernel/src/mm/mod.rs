//! Memory of apps: areas (vmas) and the calls that change them.

pub mod calls;
pub mod ops;
pub mod remote;
pub mod vdso;
pub mod vma;

use crate::fs::file::File;
use crate::sched::wait::SleepLock;
use crate::task::creds::Creds;
use crate::task::table;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;
use hal::aspace::AddressSpace;
use hal::sync::SpinLock;
use qlib::boot::Range;

pub use vma::{Vma, VmaSet};

/// An address space and what the kernel knows of it.
pub struct Mm {
    /// The machine's address space.
    pub space: AddressSpace,
    /// Areas. Held while the address space changes.
    pub vmas: SleepLock<VmaSet>,
    /// Layout and texts for `/proc`.
    pub layout: SpinLock<Layout>,
    /// Who the program runs as, for `/proc` and ptrace checks.
    pub owner: SpinLock<Arc<Creds>>,
    /// mlockall(MCL_FUTURE): new areas are locked.
    pub lock_future: AtomicBool,
    /// membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) was called.
    pub barriers: AtomicBool,
    /// Contexts of asynchronous IO.
    pub aio: SpinLock<crate::syscall::aio::Contexts>,
    /// Resident pages when last counted, and when, monotonic ns.
    pub resident: SpinLock<(u64, u64)>,
}

/// Where things lie in the address space.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Layout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    /// The auxiliary vector's bytes.
    pub auxv: Vec<u8>,
    /// Arguments and environment as exec got them, NUL-terminated: what `/proc` shows when the memory cannot be asked.
    pub args: Vec<u8>,
    pub env: Vec<u8>,
    /// Top-down mmap starts below this.
    pub mmap_base: u64,
}

impl Layout {
    /// What the host is told of it.
    pub fn shown(&self) -> hal::aspace::Layout {
        let range = |start, end| Range { start, end };
        let code = range(self.start_code, self.end_code);
        // The host takes no address that could not be mapped: no data lie behind the code.
        let data = match self.end_data {
            0 => range(code.end, code.end),
            end => range(self.start_data, end),
        };
        hal::aspace::Layout {
            code,
            data,
            brk: range(self.start_brk, self.brk),
            stack: self.start_stack,
            args: range(self.arg_start, self.arg_end),
            env: range(self.env_start, self.env_end),
        }
    }
}

/// F_SEAL_WRITE or F_SEAL_FUTURE_WRITE: no new shared mapping may be written to.
const SEALED: u32 = 8 | 16;

/// Whether a file's seals forbid shared mappings that can be written to.
pub fn is_sealed(file: &File) -> bool {
    file.ops().seals().is_some_and(|s| s & SEALED != 0)
}

/// Whether a shared mapping through which a memory file can be written exists anywhere.
pub fn is_written_through(file: &File) -> bool {
    let Some(inode) = file.ops().inode() else {
        return false;
    };
    let through = |v: &Vma| {
        let mapped = v.file.as_ref().filter(|(f, _)| v.shared && f.writable());
        mapped.is_some_and(|(f, _)| f.ops().inode().is_some_and(|i| i.id() == inode.id()))
    };
    let spaces = table::processes().into_iter().filter_map(|p| {
        let task = p.tasks.lock().first().cloned();
        task?.mm()
    });
    spaces.into_iter().any(|mm| mm.vmas.lock().iter().any(through))
}
