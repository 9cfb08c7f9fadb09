//! Places in the tree: a dentry in a mount.

use crate::fs::inode::InodeRef;
use crate::fs::mount::Mount;
use crate::sched::wait::SleepLock;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;

/// A name in a directory and the inode it leads to.
pub struct Dentry {
    /// Name in the parent, and the parent; both change by rename. `None` parent: a file system's root.
    link: SpinLock<(Vec<u8>, Option<Arc<Dentry>>)>,
    inode: InodeRef,
    /// Children that are in use or cached. Never drop a dentry while holding it: the drop takes the parent's.
    pub(super) children: SpinLock<hashbrown::HashMap<Vec<u8>, Weak<Dentry>>>,
    /// Held while entries are looked up in the file system or changed, so that `children` never learns of a name that
    /// is just being removed. Lock order: the rename lock first, then parents before children.
    pub(super) dir_lock: SleepLock<()>,
    /// The name was removed.
    pub(super) deleted: AtomicBool,
    /// Mounts on this dentry.
    pub(super) mounted: AtomicU32,
    /// Used since the cache last looked.
    pub(super) used: AtomicBool,
    /// Place in the cache, 0 = not kept.
    pub(super) kept: AtomicU64,
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
    fn new(name: &[u8], parent: Option<Arc<Dentry>>, inode: InodeRef) -> Arc<Self> {
        Arc::new(Self {
            link: SpinLock::new((name.to_vec(), parent)),
            inode,
            children: SpinLock::default(),
            dir_lock: SleepLock::new(()),
            deleted: AtomicBool::new(false),
            mounted: AtomicU32::new(0),
            used: AtomicBool::new(false),
            kept: AtomicU64::new(0),
        })
    }
    /// A root dentry.
    pub fn root(inode: InodeRef) -> Arc<Self> {
        Self::new(b"", None, inode)
    }
    /// A child dentry, not yet in its parent's cache.
    pub fn child(parent: &Arc<Dentry>, name: &[u8], inode: InodeRef) -> Arc<Self> {
        Self::new(name, Some(parent.clone()), inode)
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
    /// Whether the name was removed.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }
    /// Whether `self` is `other` or an ancestor of it.
    pub fn is_ancestor_of(self: &Arc<Self>, other: &Arc<Dentry>) -> bool {
        let mut here = Some(other.clone());
        while let Some(d) = here {
            if Arc::ptr_eq(self, &d) {
                return true;
            }
            here = d.parent();
        }
        false
    }
    /// Renames the dentry in the tree.
    pub(super) fn relink(&self, parent: &Arc<Dentry>, name: &[u8]) {
        let mut new = (name.to_vec(), Some(parent.clone()));
        core::mem::swap(&mut *self.link.lock(), &mut new);
        // The old parent may be dropped here, with no lock held.
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        // Deep trees must not recurse: the chain of parents that only this dentry kept alive is taken apart in a loop.
        let mut next = unhash_dropped(self);
        while let Some(parent) = next {
            next = match Arc::into_inner(parent) {
                Some(mut p) => {
                    let up = unhash_dropped(&mut p);
                    drop(p);
                    up
                }
                None => None,
            };
        }
    }
}

/// Takes a dying dentry out of its parent's children; returns the parent.
fn unhash_dropped(d: &mut Dentry) -> Option<Arc<Dentry>> {
    let (name, parent) = core::mem::take(d.link.get_mut());
    let parent = parent?;
    {
        // Under that name there may be a newer dentry by now; whatever has no user any more can go.
        let mut children = parent.children.lock();
        if children.get(&name).is_some_and(|w| w.strong_count() == 0) {
            children.remove(&name);
        }
    }
    Some(parent)
}

impl Path {
    /// The inode.
    pub fn inode(&self) -> &InodeRef {
        self.dentry.inode()
    }
    /// MS_* flags of the mount.
    pub fn mount_flags(&self) -> u64 {
        self.mount.flags.load(Ordering::Relaxed)
    }
    /// Whether both are the same place.
    pub fn same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }
    /// The parent, crossing to where the mount is mounted; the root's parent is itself.
    pub fn parent(&self) -> Path {
        let mut here = self.clone();
        loop {
            if !Arc::ptr_eq(&here.dentry, &here.mount.root)
                && let Some(p) = here.dentry.parent()
            {
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
    /// The path from the sandbox's root; ` (deleted)` follows a removed name.
    pub fn absolute(&self) -> Vec<u8> {
        self.to_bytes(None).0
    }
    /// The path from `root`, and whether it lies below it.
    pub fn relative_to(&self, root: &Path) -> (Vec<u8>, bool) {
        self.to_bytes(Some(root))
    }
    fn to_bytes(&self, root: Option<&Path>) -> (Vec<u8>, bool) {
        let mut parts = Vec::new();
        let mut here = self.clone();
        let mut below = root.is_none();
        loop {
            if root.is_some_and(|r| here.same(r)) {
                below = true;
                break;
            }
            let parent = if Arc::ptr_eq(&here.dentry, &here.mount.root) {
                None
            } else {
                here.dentry.parent()
            };
            match parent {
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
        if self.dentry.is_deleted() {
            out.extend_from_slice(b" (deleted)");
        }
        (out, below)
    }
}

/// Root, working directory and umask of a task; shared with CLONE_FS.
pub struct FsContext {
    /// Root directory (`chroot`).
    pub root: SpinLock<Path>,
    /// Working directory.
    pub cwd: SpinLock<Path>,
    /// umask.
    pub umask: AtomicU32,
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
        let root = self.root();
        let cwd = self.cwd();
        Self::new(root, cwd, self.umask.load(Ordering::Relaxed))
    }
    /// The root directory.
    pub fn root(&self) -> Path {
        self.root.lock().clone()
    }
    /// The working directory.
    pub fn cwd(&self) -> Path {
        self.cwd.lock().clone()
    }
    /// Changes the root directory.
    pub fn set_root(&self, to: Path) {
        let old = core::mem::replace(&mut *self.root.lock(), to);
        drop(old);
    }
    /// Changes the working directory.
    pub fn set_cwd(&self, to: Path) {
        let old = core::mem::replace(&mut *self.cwd.lock(), to);
        drop(old);
    }
    /// The mode bits for a new file.
    pub fn masked(&self, mode: u32) -> u32 {
        mode & 0o7777 & !self.umask.load(Ordering::Relaxed)
    }
}
