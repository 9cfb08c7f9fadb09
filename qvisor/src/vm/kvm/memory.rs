//! Guest RAM: one memfd, mapped here and given to KVM. It is never a reference on this side: the guest changes it at will.

use super::Error;
use qlib::PhysAddr;
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;

/// A range of guest-physical memory backed by a mapping of this process.
pub struct Memory {
    start: u64,
    len: u64,
    host: *mut u8,
    fd: OwnedFd,
}

// SAFETY: the mapping lives as long as the value, and is only accessed by copies through raw pointers.
unsafe impl Send for Memory {}
// SAFETY: as above; concurrent copies may see torn data, which is the guest's own doing.
unsafe impl Sync for Memory {}

impl Memory {
    /// Makes `len` bytes of RAM at guest-physical `start`; the host commits a page when it is first touched.
    ///
    /// # Errors
    /// The host call that failed.
    pub fn new(start: u64, len: u64) -> Result<Self, Error> {
        let fd = rustix::fs::memfd_create("quark-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(|e| Error::Host("memfd_create", e))?;
        rustix::fs::ftruncate(&fd, len).map_err(|e| Error::Host("sizing guest memory", e))?;
        let _ = rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address the host chooses.
        let host = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len as usize, prot, flags, &fd, 0) }
            .map_err(|e| Error::Host("mapping guest memory", e))?;
        Ok(Self {
            start,
            len,
            host: host.cast(),
            fd,
        })
    }

    /// First guest-physical address.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// One past the last guest-physical address.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Where the memory is mapped here.
    pub fn host_address(&self) -> u64 {
        self.host as u64
    }

    /// The address here of `len` bytes at `pa`; `None` when they are not all RAM.
    pub fn pointer(&self, pa: PhysAddr, len: usize) -> Option<*mut u8> {
        let offset = pa.0.checked_sub(self.start)?;
        let end = offset.checked_add(len as u64)?;
        (end <= self.len).then(|| self.host.wrapping_add(offset as usize))
    }

    /// Copies out; `false` when the range is not all RAM.
    pub fn read(&self, pa: PhysAddr, bytes: &mut [u8]) -> bool {
        let Some(p) = self.pointer(pa, bytes.len()) else {
            return false;
        };
        // SAFETY: the range is mapped; the guest may change it meanwhile, so what is copied is checked after.
        unsafe { std::ptr::copy_nonoverlapping(p, bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// Copies in; `false` when the range is not all RAM.
    pub fn write(&self, pa: PhysAddr, bytes: &[u8]) -> bool {
        let Some(p) = self.pointer(pa, bytes.len()) else {
            return false;
        };
        // SAFETY: the range is mapped, and nothing of this process lives in it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, bytes.len()) };
        true
    }

    /// Gives pages back to the host; they read as zero afterwards.
    ///
    /// # Errors
    /// EINVAL when the range is not all RAM or not page-aligned; the host's.
    pub fn discard(&self, pa: PhysAddr, len: u64) -> rustix::io::Result<()> {
        if self.pointer(pa, len as usize).is_none()
            || !pa.is_page_aligned()
            || !len.is_multiple_of(qlib::PAGE_SIZE)
        {
            return Err(rustix::io::Errno::INVAL);
        }
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, flags, pa.0 - self.start, len)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`; whoever uses it holds a reference to the value.
        let _ = unsafe { rustix::mm::munmap(self.host.cast::<c_void>(), self.len as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_costs_nothing_and_reads_as_zero() {
        const MIB: usize = 1 << 20;
        let m = Memory::new(1 << 30, 64 * MIB as u64).unwrap();
        let used = || rustix::fs::fstat(&m.fd).unwrap().st_blocks as u64 * 512;
        assert_eq!(used(), 0);
        let at = |n: usize| PhysAddr((1 << 30) + (n * MIB) as u64);
        for n in 0..32 {
            assert!(m.write(at(n), &vec![7; MIB]));
        }
        assert!(used() >= 32 * MIB as u64);
        m.discard(at(1), 30 * MIB as u64).unwrap();
        assert!(used() <= 3 * MIB as u64, "{}", used());
        let mut byte = [1];
        for (n, expected) in [(0, 7), (1, 0), (30, 0), (31, 7)] {
            assert!(m.read(at(n), &mut byte));
            assert_eq!(byte[0], expected, "MiB {n}");
        }
        for (pa, len) in [
            (at(64), 4096),
            (at(63), 2 * MIB as u64),
            (PhysAddr(0), 4096),
            (PhysAddr(at(1).0 + 1), 4096),
            (at(1), 100),
            (at(1), u64::MAX & !4095),
        ] {
            assert_eq!(
                m.discard(pa, len),
                Err(rustix::io::Errno::INVAL),
                "{pa:?} {len:#x}"
            );
        }
    }
}
