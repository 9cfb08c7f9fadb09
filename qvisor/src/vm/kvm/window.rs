//! The window: address space of this process that the guest sees as physical memory, into which host files are mapped.

use super::Error;
use qlib::Errno;
use rustix::fd::BorrowedFd;
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;

/// The reserved range.
pub struct Window {
    start: u64,
    len: u64,
    host: u64,
}

impl Window {
    /// Reserves `len` bytes that the guest sees at `start`.
    ///
    /// # Errors
    /// The host call that failed.
    pub fn new(start: u64, len: u64) -> Result<Self, Error> {
        // Aligned so that the host may use huge pages for files that have them.
        const ALIGN: u64 = 2 << 20;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let room = (len + ALIGN) as usize;
        // SAFETY: a fresh mapping at an address the host chooses.
        let at = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), room, ProtFlags::empty(), flags) }
            .map_err(|e| Error::Host("reserving the file window", e))?;
        Ok(Self {
            start,
            len,
            host: (at as u64).next_multiple_of(ALIGN),
        })
    }

    /// First guest-physical address.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Length, bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Where it is here.
    pub fn host_address(&self) -> u64 {
        self.host
    }

    fn check(&self, at: u64, len: u64) -> Result<*mut c_void, Errno> {
        let end = at.checked_add(len).ok_or(Errno::EINVAL)?;
        if len == 0 || end > self.len || !(at | len).is_multiple_of(qlib::PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        Ok((self.host + at) as *mut c_void)
    }

    /// Maps `len` bytes of `file` from `offset` at `at` of the window.
    ///
    /// # Errors
    /// EINVAL for a bad range; the host's (ENODEV: the file cannot be mapped).
    pub fn map(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        at: u64,
        write: bool,
    ) -> Result<(), Errno> {
        let p = self.check(at, len)?;
        let mut prot = ProtFlags::READ;
        prot.set(ProtFlags::WRITE, write);
        // SAFETY: the range lies in the reservation, which holds nothing of this process.
        unsafe {
            rustix::mm::mmap(
                p,
                len as usize,
                prot,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                offset,
            )
        }
        .map(|_| ())
        .map_err(|e| Errno(e.raw_os_error()))
    }

    /// Empties a range.
    ///
    /// # Errors
    /// EINVAL for a bad range; the host's.
    pub fn unmap(&self, at: u64, len: u64) -> Result<(), Errno> {
        let p = self.check(at, len)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range lies in the reservation, which holds nothing of this process.
        unsafe { rustix::mm::mmap_anonymous(p, len as usize, ProtFlags::empty(), flags) }
            .map(|_| ())
            .map_err(|e| Errno(e.raw_os_error()))
    }
}
