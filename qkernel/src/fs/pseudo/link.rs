//! Symlinks whose target is made when they are read.

use super::{Meta, Shown};
use crate::fs::file::MagicTarget;
use crate::fs::inode::{FileType, Inode, Stat};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use qlib::Errno;

type Target = dyn Fn() -> Result<Vec<u8>, Errno> + Send + Sync;
type Jump = dyn Fn() -> Result<MagicTarget, Errno> + Send + Sync;

/// A symlink that is followed by its text.
pub struct Link {
    meta: Meta,
    target: Arc<Target>,
}

impl Link {
    /// A link.
    pub fn new(
        meta: Meta,
        target: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Inode> {
        Arc::new(Self {
            meta,
            target: Arc::new(target),
        })
    }
}

impl Inode for Link {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        FileType::Symlink
    }
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.meta.stat(FileType::Symlink))
    }
    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        (self.target)()
    }
}

/// A link that leads straight to an object; its text is only for people.
pub struct Magic {
    meta: Shown,
    size: u64,
    target: Arc<Target>,
    jump: Arc<Jump>,
}

impl Magic {
    /// A link.
    pub fn new(
        meta: Meta,
        target: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
        jump: impl Fn() -> Result<MagicTarget, Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Inode> {
        Arc::new(Self {
            meta: meta.into(),
            // Linux shows 64 for the links of `fd`.
            size: 64,
            target: Arc::new(target),
            jump: Arc::new(jump),
        })
    }
}

impl Inode for Magic {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        FileType::Symlink
    }
    fn refresh(&self, stat: &Stat) {
        self.meta.refresh(stat);
    }
    fn stat(&self) -> Result<Stat, Errno> {
        let mut s = self.meta.now().stat(FileType::Symlink);
        s.size = self.size;
        Ok(s)
    }
    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        (self.target)()
    }
    fn magic_link(&self) -> Option<Result<MagicTarget, Errno>> {
        Some((self.jump)())
    }
}
