//! Directories whose entries are found by code.

use super::{Meta, Shown};
use crate::fs::file::{DirSink, File, FileOps};
use crate::fs::inode::{FileType, Inode, InodeRef, Stat};
use crate::sched::wait::SleepLock;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// One entry of a listing.
pub struct Entry {
    /// Name.
    pub name: Vec<u8>,
    /// Inode number.
    pub ino: u64,
    /// Type.
    pub kind: FileType,
}

impl Entry {
    /// An entry.
    pub fn new(name: impl Into<Vec<u8>>, ino: u64, kind: FileType) -> Self {
        Self {
            name: name.into(),
            ino,
            kind,
        }
    }
}

/// What a directory holds.
pub trait Entries: Any + Send + Sync {
    /// Finds one entry.
    ///
    /// # Errors
    /// ENOENT.
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno>;
    /// All entries, without `.` and `..`, in a stable order.
    ///
    /// # Errors
    /// ENOENT when what the directory is about is gone.
    fn list(&self) -> Result<Vec<Entry>, Errno>;
    /// Makes a regular file.
    ///
    /// # Errors
    /// EACCES where files cannot be made; EEXIST.
    fn create(&self, _name: &[u8], _mode: u32, _creds: &Creds) -> Result<InodeRef, Errno> {
        Err(Errno::EACCES)
    }
    /// Removes a file.
    ///
    /// # Errors
    /// EPERM where files cannot be removed; ENOENT.
    fn unlink(&self, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// Whether a lookup gives the same answer for ever.
    fn stable(&self) -> bool {
        false
    }
    /// Number of links, `None` = not counted.
    fn nlink(&self) -> Option<u32> {
        None
    }
}

/// A made-up directory.
pub struct Dir {
    meta: Shown,
    entries: Arc<dyn Entries>,
}

impl Dir {
    /// A directory.
    pub fn new(meta: Meta, entries: impl Entries) -> Arc<dyn Inode> {
        Arc::new(Self {
            meta: meta.into(),
            entries: Arc::new(entries),
        })
    }
    /// What it holds, where that is a `T`.
    pub fn entries<T: Entries>(&self) -> Option<&T> {
        (&*self.entries as &dyn Any).downcast_ref()
    }
}

impl Inode for Dir {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        FileType::Directory
    }
    fn refresh(&self, stat: &Stat) {
        self.meta.refresh(stat);
    }
    fn stat(&self) -> Result<Stat, Errno> {
        let mut s = self.meta.now().stat(FileType::Directory);
        if let Some(n) = self.entries.nlink() {
            s.nlink = n;
        }
        Ok(s)
    }
    fn open(&self, _flags: u32, _creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(DirOps {
            ino: self.meta.now().ino,
            entries: self.entries.clone(),
            listing: SleepLock::new(None),
        }))
    }
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        self.entries.lookup(name)
    }
    fn lookup_stat(&self, name: &[u8]) -> Result<(InodeRef, Option<Stat>), Errno> {
        let found = self.entries.lookup(name)?;
        let stat = found.stat().ok();
        Ok((found, stat))
    }
    fn create(
        &self,
        name: &[u8],
        mode: u32,
        flags: u32,
        creds: &Creds,
    ) -> Result<(InodeRef, Arc<dyn FileOps>), Errno> {
        let inode = self.entries.create(name, mode, creds)?;
        let ops = inode.open(flags, creds)?;
        Ok((inode, ops))
    }
    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        self.entries.unlink(name)
    }
    fn statfs(&self) -> Result<HostStatFs, Errno> {
        Ok(super::statfs(self.meta.now().dev))
    }
    fn cacheable(&self) -> bool {
        self.entries.stable()
    }
}

/// An open directory; positions are indices into the listing taken when it is read from the start.
struct DirOps {
    ino: u64,
    entries: Arc<dyn Entries>,
    listing: SleepLock<Option<Vec<Entry>>>,
}

impl FileOps for DirOps {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &File, _dst: &mut hal::host::Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }
    fn read_dir(&self, _file: &File, pos: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let mut listing = self.listing.lock();
        if pos == 0 || listing.is_none() {
            let mut all = Vec::new();
            all.push(Entry::new(*b".", self.ino, FileType::Directory));
            all.push(Entry::new(*b"..", self.ino, FileType::Directory));
            all.extend(self.entries.list()?);
            *listing = Some(all);
        }
        let all = listing.as_deref().unwrap_or_default();
        let mut at = pos;
        for e in all.iter().skip(pos as usize) {
            if !sink.entry(&e.name, e.ino, e.kind.dirent_type(), at + 1) {
                break;
            }
            at += 1;
        }
        Ok(at)
    }
}
