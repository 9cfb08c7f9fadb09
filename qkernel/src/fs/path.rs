//! Places in the tree: a dentry in a mount.

use crate::fs::inode::InodeRef;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hal::sync::SpinLock;

/// A name in a directory and the inode it leads to.
pub struct Dentry {
    /// Name in the parent, and the parent; both change by rename. `None` parent: a file system's root.
    link: SpinLock<(Vec<u8>, Option<Arc<Dentry>>)>,
    inode: InodeRef,
    /// Children that are in use or cached.
    pub(super) children: SpinLock<hashbrown::HashMap<Vec<u8>, Weak<Dentry>>>,
}

/// A mounted file system.
pub struct Mount {
    /// Root dentry of this mount.
    pub root: Arc<Dentry>,
    /// Where it is mounted; `None` for the root mount.
    pub at: SpinLock<Option<Path>>,
    /// As `/proc/mounts` shows it.
    pub source: Vec<u8>,
    /// File-system type as `/proc/mounts` shows it.
    pub fstype: Vec<u8>,
    /// Options as `/proc/mounts` shows them, besides the flags.
    pub options: Vec<u8>,
    /// MS_* flags.
    pub flags: core::sync::atomic::AtomicU64,
    /// Identity, for `/proc/self/mountinfo`.
    pub id: u32,
}

/// A dentry in a mount.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The dentry.
    pub dentry: Arc<Dentry>,
}

impl Dentry {
    /// A root dentry.
    pub fn root(inode: InodeRef) -> Arc<Self> {
        Arc::new(Self {
            link: SpinLock::new((Vec::new(), None)),
            inode,
            children: SpinLock::default(),
        })
    }
    /// A child dentry, not yet in its parent's cache.
    pub fn child(parent: &Arc<Dentry>, name: &[u8], inode: InodeRef) -> Arc<Self> {
        let link = SpinLock::new((name.to_vec(), Some(parent.clone())));
        Arc::new(Self {
            link,
            inode,
            children: SpinLock::default(),
        })
    }
    /// The inode.
    pub fn inode(&self) -> &InodeRef {
        &self.inode
    }
    /// The name in the parent; empty for a root.
    pub fn name(&self) -> Vec<u8> {
        self.link.lock().0.clone()
    }
    /// The parent within the file system.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.link.lock().1.clone()
    }
    /// Renames the dentry in the tree.
    pub(super) fn relink(&self, parent: &Arc<Dentry>, name: &[u8]) {
        *self.link.lock() = (name.to_vec(), Some(parent.clone()));
    }
}

impl Path {
    /// The inode.
    pub fn inode(&self) -> &InodeRef {
        self.dentry.inode()
    }
    /// Whether both are the same place.
    pub fn same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }
    /// The parent, crossing to where the mount is mounted; the root's parent is itself.
    pub fn parent(&self) -> Path {
        let mut here = self.clone();
        loop {
            if let Some(p) = here.dentry.parent() {
                return Path {
                    mount: here.mount,
                    dentry: p,
                };
            }
            let at = here.mount.at.lock().clone();
            match at {
                Some(p) => here = p,
                None => return here,
            }
        }
    }
    /// The path from the sandbox's root.
    pub fn absolute(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut here = self.clone();
        loop {
            match here.dentry.parent() {
                Some(parent) => {
                    parts.push(here.dentry.name());
                    here.dentry = parent;
                }
                None => {
                    let at = here.mount.at.lock().clone();
                    match at {
                        Some(p) => here = p,
                        None => break,
                    }
                }
            }
        }
        let mut out = Vec::new();
        for p in parts.iter().rev() {
            out.push(b'/');
            out.extend_from_slice(p);
        }
        if out.is_empty() {
            out.push(b'/');
        }
        out
    }
}

/// Root, working directory and umask of a task; shared with CLONE_FS.
pub struct FsContext {
    /// Root directory (`chroot`).
    pub root: SpinLock<Path>,
    /// Working directory.
    pub cwd: SpinLock<Path>,
    /// umask.
    pub umask: core::sync::atomic::AtomicU32,
}

impl FsContext {
    /// A context.
    pub fn new(root: Path, cwd: Path, umask: u32) -> Arc<Self> {
        Arc::new(Self {
            root: SpinLock::new(root),
            cwd: SpinLock::new(cwd),
            umask: umask.into(),
        })
    }
    /// A copy for fork.
    pub fn copy(&self) -> Arc<Self> {
        let root = self.root.lock().clone();
        let cwd = self.cwd.lock().clone();
        Self::new(root, cwd, self.umask.load(core::sync::atomic::Ordering::Relaxed))
    }
}

impl Path {
    /// MS_* flags of the mount.
    pub fn mount_flags(&self) -> u64 {
        self.mount.flags.load(core::sync::atomic::Ordering::Relaxed)
    }
}
