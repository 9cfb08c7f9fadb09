//! Inodes: what a name leads to.

use crate::fs::file::FileOps;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// File status; the same structure the host reports.
pub use qlib::qcall::HostStat as Stat;

/// A counted reference to an inode.
pub type InodeRef = Arc<dyn Inode>;

/// The type bits of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FileType {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl FileType {
    /// From `st_mode`.
    pub fn from_mode(mode: u32) -> Self {
        match mode & 0o170000 {
            0o040000 => Self::Directory,
            0o120000 => Self::Symlink,
            0o020000 => Self::CharDevice,
            0o060000 => Self::BlockDevice,
            0o010000 => Self::Fifo,
            0o140000 => Self::Socket,
            _ => Self::Regular,
        }
    }
    /// The S_IF* bits.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => 0o100000,
            Self::Directory => 0o040000,
            Self::Symlink => 0o120000,
            Self::CharDevice => 0o020000,
            Self::BlockDevice => 0o060000,
            Self::Fifo => 0o010000,
            Self::Socket => 0o140000,
        }
    }
    /// DT_* of `getdents64(2)`.
    pub fn dirent_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }
}

/// Attributes to change; `None` keeps. Permission was checked by the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time: seconds, nanoseconds (UTIME_NOW allowed).
    pub atime: Option<(i64, i64)>,
    /// Modification time: seconds, nanoseconds (UTIME_NOW allowed).
    pub mtime: Option<(i64, i64)>,
}

/// Identity of an inode: device and number. Names it for file locks, inotify, FIFOs, sockets and shared mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId {
    /// Device of the file system.
    pub dev: u64,
    /// Number in it.
    pub ino: u64,
}

/// What permission checks look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Attr {
    /// From a full status.
    pub fn of(s: &Stat) -> Self {
        Self {
            mode: s.mode,
            uid: s.uid,
            gid: s.gid,
        }
    }
}

/// An object of a file system. Names are single components; the VFS checks permissions, mounts and types before it calls.
/// The defaults refuse as Linux does for a file system without the operation.
#[allow(unused_variables)]
pub trait Inode: Any + Send + Sync {
    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
    /// The type, which never changes.
    fn file_type(&self) -> FileType;
    /// Status.
    fn stat(&self) -> Result<Stat, Errno>;
    /// Identity, for as long as the object exists.
    fn id(&self) -> InodeId {
        self.stat().map_or(InodeId::default(), |s| InodeId {
            dev: s.dev,
            ino: s.ino,
        })
    }
    /// Mode and owner, which may be cached.
    fn attr(&self) -> Result<Attr, Errno> {
        self.stat().map(|s| Attr::of(&s))
    }
    /// Opens for IO. `flags` are O_*; the VFS made the file description.
    fn open(&self, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }
    /// Finds an entry of a directory.
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        Err(Errno::ENOTDIR)
    }
    /// As [`Inode::lookup`]; gives the entry's status too where the lookup learned it anyway.
    fn lookup_stat(&self, name: &[u8]) -> Result<(InodeRef, Option<Stat>), Errno> {
        self.lookup(name).map(|i| (i, None))
    }
    /// Whether a fresh [`Inode::lookup`] result, `found`, is the same object as this one, found earlier under that name.
    fn same_object(&self, found: &dyn Inode) -> bool {
        self.file_type() == found.file_type() && self.id() == found.id()
    }
    /// Takes over attributes that a fresh lookup of the same object found.
    fn refresh(&self, stat: &Stat) {}
    /// Whether [`Inode::lookup`] results may be cached until changed through this kernel.
    fn cacheable(&self) -> bool {
        true
    }
    /// Whether found entries are worth keeping while nobody uses them.
    fn keep_entries(&self) -> bool {
        false
    }
    /// The object got a new name.
    fn moved(&self, new_dir: &InodeRef, new_name: &[u8]) {}
    /// The name is about to go while somebody still uses the object: it must stay reachable.
    fn pin(&self) {}
    /// The name the object was found by is gone.
    fn unlinked(&self) {}
    /// Makes a regular file and opens it; EEXIST when the name is there.
    fn create(
        &self,
        name: &[u8],
        mode: u32,
        flags: u32,
        creds: &Creds,
    ) -> Result<(InodeRef, Arc<dyn FileOps>), Errno> {
        Err(Errno::EACCES)
    }
    /// Makes an unnamed file and opens it (O_TMPFILE).
    fn tmpfile(&self, mode: u32, flags: u32, creds: &Creds) -> Result<(InodeRef, Arc<dyn FileOps>), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Makes a directory.
    fn mkdir(&self, name: &[u8], mode: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        Err(Errno::EPERM)
    }
    /// Makes a node (fifo, socket, device, regular).
    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, creds: &Creds) -> Result<InodeRef, Errno> {
        Err(Errno::EPERM)
    }
    /// Makes a symlink.
    fn symlink(&self, name: &[u8], target: &[u8], creds: &Creds) -> Result<InodeRef, Errno> {
        Err(Errno::EPERM)
    }
    /// Makes a hard link to `target`, an inode of the same file system.
    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// Removes a name that is not a directory.
    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// Removes an empty directory.
    fn rmdir(&self, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// Renames within the file system; `flags` are RENAME_*.
    fn rename(&self, name: &[u8], new_dir: &InodeRef, new_name: &[u8], flags: u32) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// Target of a symlink.
    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        Err(Errno::EINVAL)
    }
    /// A link that leads straight to an object (`/proc/PID/fd/N`, `exe`, `cwd`, `root`), not by name.
    fn magic_link(&self) -> Option<Result<crate::fs::file::MagicTarget, Errno>> {
        None
    }
    /// Changes attributes.
    fn set_attr(&self, attr: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// Sets the length.
    fn truncate(&self, len: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    /// Gets an extended attribute.
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Sets an extended attribute.
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Lists attribute names, NUL-separated.
    fn list_xattr(&self) -> Result<Vec<u8>, Errno> {
        Ok(Vec::new())
    }
    /// Removes an extended attribute.
    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Status of the file system the inode is on.
    fn statfs(&self) -> Result<HostStatFs, Errno> {
        Ok(HostStatFs {
            bsize: 4096,
            namelen: 255,
            ..HostStatFs::default()
        })
    }
}
