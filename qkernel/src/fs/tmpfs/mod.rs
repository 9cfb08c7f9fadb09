//! tmpfs: files in memory. Source: `tmpfs(5)`.

mod data;
mod file;
mod inode;
mod options;

pub use file::TmpFile as MemoryFile;
pub use inode::{TmpInode, seal};
pub use options::Options;

use crate::fs::inode::InodeRef;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::host::Owner;
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// Page size, the unit of space.
const PAGE: u64 = 4096;
/// `TMPFS_MAGIC` of `statfs(2)`.
const MAGIC: u64 = 0x0102_1994;

/// One tmpfs: its limits and what is used of them.
pub struct Tmpfs {
    dev: u64,
    max_pages: AtomicU64,
    max_inodes: AtomicU64,
    pages: AtomicU64,
    inodes: AtomicU64,
    next_ino: AtomicU64,
    owner: Owner,
    mode: u32,
}

impl Tmpfs {
    /// An empty file system; its root directory is made on first use and lives as long as someone holds it.
    pub fn create(o: &Options) -> Arc<Self> {
        Arc::new(Self {
            dev: crate::fs::next_dev(),
            max_pages: o.max_pages.into(),
            max_inodes: o.max_inodes.into(),
            pages: AtomicU64::new(0),
            inodes: AtomicU64::new(0),
            next_ino: AtomicU64::new(1),
            owner: Owner {
                uid: o.uid,
                gid: o.gid,
            },
            mode: o.mode,
        })
    }
    /// A root directory. Called once: each call makes another, empty one.
    pub fn root(self: &Arc<Self>) -> InodeRef {
        TmpInode::directory(self, self.mode, self.owner, 0)
    }
    /// A node without a name (a single-file mount, a memory file).
    pub fn loose_node(self: &Arc<Self>, mode: u32, rdev: u64) -> InodeRef {
        TmpInode::loose(self, mode, rdev)
    }
    fn limit(of: &AtomicU64) -> u64 {
        of.load(Ordering::Acquire)
    }
    /// Changes the limits that `options` names (a remount).
    ///
    /// # Errors
    /// EINVAL for a bad option, or less than is in use.
    pub fn reconfigure(&self, options: &[u8]) -> Result<(), Errno> {
        let now = Options {
            max_pages: Self::limit(&self.max_pages),
            max_inodes: Self::limit(&self.max_inodes),
            ..Options::default()
        };
        let o = now.over(options)?;
        if o.max_pages < self.pages.load(Ordering::Acquire)
            || o.max_inodes < self.inodes.load(Ordering::Acquire)
        {
            return Err(Errno::EINVAL);
        }
        self.max_pages.store(o.max_pages, Ordering::Release);
        self.max_inodes.store(o.max_inodes, Ordering::Release);
        Ok(())
    }
    fn take_pages(&self, n: u64) -> Result<(), Errno> {
        let fits = |used: u64| used.checked_add(n).filter(|t| *t <= Self::limit(&self.max_pages));
        self.pages
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .map(|_| ())
            .map_err(|_| Errno::ENOSPC)
    }
    fn give_pages(&self, n: u64) {
        self.pages.fetch_sub(n, Ordering::AcqRel);
    }
    fn free_pages(&self) -> u64 {
        Self::limit(&self.max_pages).saturating_sub(self.pages.load(Ordering::Acquire))
    }
    fn take_inode(&self) -> Result<u64, Errno> {
        let fits = |used: u64| (used < Self::limit(&self.max_inodes)).then_some(used + 1);
        self.inodes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .map_err(|_| Errno::ENOSPC)?;
        Ok(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }
    fn give_inode(&self) {
        self.inodes.fetch_sub(1, Ordering::AcqRel);
    }
    fn statfs(&self) -> HostStatFs {
        // As Linux, an unlimited file system shows zero blocks.
        let (pages, inodes) = (Self::limit(&self.max_pages), Self::limit(&self.max_inodes));
        let limited = pages != u64::MAX;
        let blocks = if limited { pages } else { 0 };
        let free = if limited { self.free_pages() } else { 0 };
        let files = if inodes == u64::MAX { 0 } else { inodes };
        HostStatFs {
            kind: MAGIC,
            bsize: PAGE,
            blocks,
            bfree: free,
            bavail: free,
            files,
            ffree: files.saturating_sub(self.inodes.load(Ordering::Acquire)),
            namelen: 255,
            flags: 0,
        }
    }
}
