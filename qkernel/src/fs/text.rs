//! Running programs cannot be written to, and files that somebody may write to cannot be run: ETXTBSY of `open(2)`, `truncate(2)`
//! and `execve(2)`.

use crate::fs::inode::{Inode, InodeId};
use alloc::collections::BTreeMap;
use hal::sync::SpinLock;
use qlib::Errno;

/// Files in use: above 0 the open descriptions that may write, below 0 the images that run. A leaf lock.
static USES: SpinLock<BTreeMap<InodeId, i32>> = SpinLock::new(BTreeMap::new());

/// One use of a file, until it is dropped.
pub struct Use {
    id: InodeId,
    by: i32,
}

impl Use {
    fn begin(inode: &dyn Inode, by: i32) -> Result<Self, Errno> {
        let id = inode.id();
        let mut uses = USES.lock();
        let n = uses.entry(id).or_insert(0);
        if n.signum() == -by {
            return Err(Errno::ETXTBSY);
        }
        *n = n.saturating_add(by);
        Ok(Self { id, by })
    }
    /// A description that may write, or a change of the length.
    ///
    /// # Errors
    /// ETXTBSY while it runs as a program.
    pub fn writing(inode: &dyn Inode) -> Result<Self, Errno> {
        Self::begin(inode, 1)
    }
    /// A program that runs.
    ///
    /// # Errors
    /// ETXTBSY while it is open for writing.
    pub fn running(inode: &dyn Inode) -> Result<Self, Errno> {
        Self::begin(inode, -1)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut uses = USES.lock();
        if let Some(n) = uses.get_mut(&self.id) {
            *n -= self.by;
            if *n == 0 {
                uses.remove(&self.id);
            }
        }
    }
}
