//! The file system of POSIX message queues: the queues of an ipc namespace by name. Source: `mq_overview(7)`.

use crate::fs::file::FileOps;
use crate::fs::inode::{Attr, FileType, Inode, InodeRef, SetAttr, Stat};
use crate::fs::pseudo::{self, Dir, Entries, Entry, Meta, new_dev_of};
use crate::ipc::mqueue::{PosixQueue, QueueFile};
use crate::ns::ipc::IpcNs;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hal::sync::Once;
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// MQUEUE_MAGIC.
const MAGIC: u64 = 0x1980_0202;

/// Device number of the file system.
pub fn dev() -> u64 {
    static DEV: Once<u64> = Once::new();
    *DEV.call_once(|| new_dev_of(MAGIC))
}

/// The root of the file system of a namespace's queues.
pub fn new_root(ipc: Arc<IpcNs>) -> InodeRef {
    let meta = Meta {
        dev: dev(),
        ino: 1,
        perm: 0o1777,
        uid: 0,
        gid: 0,
    };
    Dir::new(meta, Names(ipc))
}

struct Names(Arc<IpcNs>);

impl Entries for Names {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        Ok(Arc::new(QueueInode(self.0.posix.find(name)?)))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let all = self.0.posix.list();
        Ok(all
            .into_iter()
            .map(|(name, ino)| Entry::new(name, ino, FileType::Regular))
            .collect())
    }
    fn create(&self, name: &[u8], mode: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        Ok(Arc::new(QueueInode(self.0.posix.make(name, mode, None, creds)?)))
    }
    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        self.0.posix.remove(name)
    }
}

struct QueueInode(Arc<PosixQueue>);

impl Inode for QueueInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        FileType::Regular
    }
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.0.stat())
    }
    fn attr(&self) -> Result<Attr, Errno> {
        Ok(self.0.attr())
    }
    fn open(&self, _flags: u32, _creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(QueueFile(self.0.clone())))
    }
    fn set_attr(&self, attr: &SetAttr) -> Result<(), Errno> {
        self.0.set_attr(attr);
        Ok(())
    }
    /// As Linux, where a queue has no length that could be set: nothing happens.
    fn truncate(&self, _len: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn statfs(&self) -> Result<HostStatFs, Errno> {
        Ok(pseudo::statfs(dev()))
    }
}
