//! Host passthrough: files and directories of the host below a handle that QVisor gave.

mod dir;
mod file;
mod inode;

pub use file::HostRegular;
pub use inode::HostInode;

use crate::fs::inode::InodeRef;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};
use hal::host::{self, HostFile};
use qlib::Errno;

/// One host directory tree as a file system.
pub struct HostFs {
    /// The tree's own directory.
    handle: Arc<HostFile>,
    /// Nobody but this kernel changes the tree, so that what was looked up stays true.
    exclusive: bool,
    /// Counts changes of owners and modes of files that may have several names; cached attributes of an older count
    /// are asked for again.
    generation: AtomicU64,
    root: hal::sync::Once<Arc<HostInode>>,
}

impl HostFs {
    /// A file system on a directory. `exclusive`: only this kernel changes it.
    ///
    /// # Errors
    /// The host's, when the handle is not a directory.
    pub fn new(handle: HostFile, exclusive: bool) -> Result<Arc<Self>, Errno> {
        let handle = Arc::new(handle);
        let stat = host::stat(handle.handle(), b"")?;
        let fs = Arc::new(Self {
            handle: handle.clone(),
            exclusive,
            generation: AtomicU64::new(0),
            root: hal::sync::Once::new(),
        });
        let root = HostInode::root(&fs, handle, &stat);
        fs.root.call_once(|| root);
        Ok(fs)
    }
    /// The root inode.
    pub fn root(&self) -> InodeRef {
        match self.root.get() {
            Some(r) => r.clone(),
            None => unreachable!("a HostFs gets its root when it is made"),
        }
    }
    /// The inode of one entry of the directory (a mount of a single file).
    ///
    /// # Errors
    /// The host's.
    pub fn single(self: &Arc<Self>, name: &[u8]) -> Result<InodeRef, Errno> {
        self.root().lookup(name)
    }
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
    fn attributes_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// An open handle of an inode, for status of files whose name is gone.
struct Opened {
    access: u32,
    handle: Weak<HostFile>,
}
