//! Mount namespaces: each owns a tree of mounts. Source: `mount_namespaces(7)`.

use super::user::UserRef;
use super::{Any, Id};
use crate::fs::mount::{self, Mount};
use crate::fs::path::Path;
use alloc::sync::Arc;
use hal::sync::SpinLock;
use qlib::Errno;

/// A tree of mounts.
pub struct MntNs {
    /// Its number.
    pub id: Id,
    /// Whose capabilities count.
    pub owner: UserRef,
    /// The mount at the bottom of its root; `None` before the container's tree is built.
    top: SpinLock<Option<Arc<Mount>>>,
}

impl MntNs {
    /// One whose tree is yet to be built, the first user namespace's.
    pub fn unbuilt(id: Id) -> Self {
        Self {
            id,
            owner: None,
            top: SpinLock::new(None),
        }
    }
    /// One that owns the tree `top`.
    pub fn new(owner: UserRef, top: Arc<Mount>) -> Arc<Self> {
        Arc::new(Self {
            id: Id::new(),
            owner,
            top: SpinLock::new(Some(top)),
        })
    }
    /// The bottom of the tree.
    pub fn top(&self) -> Option<Arc<Mount>> {
        self.top.lock().clone()
    }
    /// Another mount is the bottom now.
    pub fn set_top(&self, to: Arc<Mount>) {
        let old = self.top.lock().replace(to);
        drop(old);
    }
    /// Whether a namespace may be mounted in this one: one of mounts only when it is newer, or two could hold each other.
    ///
    /// # Errors
    /// EINVAL.
    pub fn may_hold(&self, ns: &Any) -> Result<(), Errno> {
        match ns {
            Any::Mnt(n) if n.id.0 <= self.id.0 => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }
    /// The root directory: what is mounted on top of all.
    pub fn root(&self) -> Option<Path> {
        self.top().map(|t| mount::descend(t.root_path()))
    }
}

impl Drop for MntNs {
    fn drop(&mut self) {
        let top = self.top.lock().take();
        if let Some(t) = top {
            mount::doom(t);
        }
    }
}
