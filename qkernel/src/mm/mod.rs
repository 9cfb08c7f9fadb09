//! Memory of apps: areas (vmas) and the calls that change them.

pub mod ops;
pub mod remote;
pub mod vdso;
pub mod vma;

use crate::sched::wait::SleepLock;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::aspace::AddressSpace;
use hal::sync::SpinLock;

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
