//! Open regular files of the host.

use super::HostInode;
use crate::fs::file::{File, FileOps, MapBacking};
use crate::fs::inode::{InodeRef, Stat};
use alloc::sync::Arc;
use core::any::Any;
use hal::host::{self, Dest, Handle, HostFile, Src};
use hal::uapi::general::{SEEK_DATA, SEEK_HOLE};
use qlib::Errno;

/// An open regular file.
pub struct HostRegular {
    inode: Arc<HostInode>,
    handle: Arc<HostFile>,
}

impl HostRegular {
    pub(super) fn new(inode: Arc<HostInode>, handle: Arc<HostFile>) -> Arc<Self> {
        Arc::new(Self { inode, handle })
    }
    fn h(&self) -> Handle {
        self.handle.handle()
    }
}

impl FileOps for HostRegular {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &File, dst: &mut Dest<'_>, offset: u64) -> Result<usize, Errno> {
        host::read(self.h(), dst, Some(offset))
    }
    fn write(&self, file: &File, src: &mut Src<'_>, offset: u64) -> Result<usize, Errno> {
        let n = host::write(self.h(), src, Some(offset), file.append())?;
        self.inode.drop_privileges();
        Ok(n)
    }
    fn seek(&self, _file: &File, offset: i64, whence: u32, current: u64) -> Result<u64, Errno> {
        let base = match whence {
            0 => 0,
            1 => current as i64,
            2 => host::stat(self.h(), b"")?.size as i64,
            SEEK_DATA | SEEK_HOLE => return host::seek(self.h(), offset, whence),
            _ => return Err(Errno::EINVAL),
        };
        let at = base.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
        u64::try_from(at).map_err(|_| Errno::EINVAL)
    }
    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        host::stat(self.h(), b"")
    }
    fn map(&self, _file: &File) -> Result<MapBacking, Errno> {
        Ok(MapBacking::Host(self.h()))
    }
    fn truncate(&self, _file: &File, len: u64) -> Result<(), Errno> {
        host::truncate(self.h(), len)?;
        self.inode.drop_privileges();
        Ok(())
    }
    fn allocate(&self, _file: &File, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        host::allocate(self.h(), mode, offset, len)
    }
    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        host::sync(self.h(), data_only)
    }
    fn inode(&self) -> Option<InodeRef> {
        Some(self.inode.clone())
    }
    fn is_regular(&self) -> bool {
        true
    }
    fn host_handle(&self) -> Option<Handle> {
        Some(self.h())
    }
    fn describe(&self) -> alloc::vec::Vec<u8> {
        b"/ (deleted)".to_vec()
    }
}
