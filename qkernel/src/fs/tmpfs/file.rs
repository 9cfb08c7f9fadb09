//! Open tmpfs files and directories; memory files are the same without a name.

use super::inode::{TmpInode, seal};
use crate::fs::file::{DirSink, File, FileOps, MapBacking};
use crate::fs::inode::{FileType, Inode, InodeRef, Stat};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{self, Dest, Handle, Src};
use hal::uapi::general::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, SEEK_DATA, SEEK_HOLE};
use qlib::Errno;

/// An open tmpfs file.
pub struct TmpFile {
    inode: Arc<TmpInode>,
    /// A memory file's name, for `/proc/PID/fd`.
    name: Option<Vec<u8>>,
}

impl TmpFile {
    pub(super) fn new(inode: Arc<TmpInode>) -> Arc<Self> {
        Arc::new(Self { inode, name: None })
    }
    /// A memory file (`memfd_create(2)`): no path, a name to show, seals.
    pub fn memory(inode: Arc<TmpInode>, name: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            inode,
            name: Some(name.to_vec()),
        })
    }
}

impl FileOps for TmpFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &File, dst: &mut Dest<'_>, offset: u64) -> Result<usize, Errno> {
        let n = self.inode.file()?.lock().read(dst, offset)?;
        self.inode.accessed();
        Ok(n)
    }
    fn write(&self, file: &File, src: &mut Src<'_>, offset: u64) -> Result<usize, Errno> {
        let seals = self.inode.seals();
        if seals & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        let n = {
            let mut data = self.inode.file()?.lock();
            let offset = if file.append() { data.size() } else { offset };
            if seals & seal::GROW != 0 && offset.saturating_add(src.remaining() as u64) > data.size() {
                return Err(Errno::EPERM);
            }
            data.write(self.inode.fs(), src, offset)?
        };
        if n > 0 {
            self.inode.modified(true);
        }
        Ok(n)
    }
    fn seek(&self, _file: &File, offset: i64, whence: u32, current: u64) -> Result<u64, Errno> {
        let data = self.inode.file()?.lock();
        let size = data.size();
        let base = match whence {
            0 => 0,
            1 => current as i64,
            2 => size as i64,
            SEEK_DATA | SEEK_HOLE => {
                if offset < 0 || offset as u64 >= size {
                    return Err(Errno::ENXIO);
                }
                return match data.host() {
                    Some(h) => host::seek(h.handle(), offset, whence),
                    None if whence == SEEK_DATA => Ok(offset as u64),
                    None => Ok(size),
                };
            }
            _ => return Err(Errno::EINVAL),
        };
        let at = base.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
        u64::try_from(at).map_err(|_| Errno::EINVAL)
    }
    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        self.inode.stat()
    }
    fn map(&self, _file: &File) -> Result<MapBacking, Errno> {
        let h = self.inode.mapped()?;
        self.inode.accessed();
        // The inode keeps the memory file, and the mapping keeps this file.
        Ok(MapBacking::Host(h.handle()))
    }
    fn truncate(&self, _file: &File, len: u64) -> Result<(), Errno> {
        self.inode.truncate(len)
    }
    fn allocate(&self, _file: &File, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let seals = self.inode.seals();
        match mode {
            0 | FALLOC_FL_KEEP_SIZE => {
                let mut data = self.inode.file()?.lock();
                let grows = mode == 0 && offset.saturating_add(len) > data.size();
                if grows && seals & seal::GROW != 0 {
                    return Err(Errno::EPERM);
                }
                data.allocate(self.inode.fs(), offset, len, mode == FALLOC_FL_KEEP_SIZE)?;
            }
            m if m == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE => {
                if seals & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
                    return Err(Errno::EPERM);
                }
                self.inode.file()?.lock().punch(self.inode.fs(), offset, len)?;
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.inode.modified(false);
        Ok(())
    }
    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn inode(&self) -> Option<InodeRef> {
        Some(self.inode.clone())
    }
    fn is_regular(&self) -> bool {
        true
    }
    fn seals(&self) -> Option<u32> {
        Some(self.inode.seals())
    }
    fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        self.inode.add_seals(seals)
    }
    fn host_handle(&self) -> Option<Handle> {
        let data = self.inode.file().ok()?.lock();
        data.host().map(|h| h.handle())
    }
    fn describe(&self) -> Vec<u8> {
        let mut out = b"/memfd:".to_vec();
        out.extend_from_slice(self.name.as_deref().unwrap_or(b""));
        out.extend_from_slice(b" (deleted)");
        out
    }
}

/// An open tmpfs directory. Positions: 0 and 1 are `.` and `..`, the others are given once to each entry and never
/// move.
pub struct TmpDir {
    inode: Arc<TmpInode>,
}

impl TmpDir {
    pub(super) fn new(inode: Arc<TmpInode>) -> Arc<Self> {
        Arc::new(Self { inode })
    }
}

impl FileOps for TmpDir {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &File, _dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }
    fn seek(&self, _file: &File, offset: i64, whence: u32, current: u64) -> Result<u64, Errno> {
        let base = match whence {
            0 => 0,
            1 => current as i64,
            _ => return Err(Errno::EINVAL),
        };
        let at = base.checked_add(offset).ok_or(Errno::EINVAL)?;
        u64::try_from(at).map_err(|_| Errno::EINVAL)
    }
    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        self.inode.stat()
    }
    fn read_dir(&self, file: &File, pos: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let mut pos = pos;
        let up = file
            .path()
            .map_or(self.inode.ino(), |p| p.parent().inode().id().ino);
        let dots: [(&[u8], u64); 2] = [(b".", self.inode.ino()), (b"..", up)];
        let kind = FileType::Directory.dirent_type();
        while let Some((name, ino)) = dots.get(pos as usize) {
            if !sink.entry(name, *ino, kind, pos + 1) {
                return Ok(pos);
            }
            pos += 1;
        }
        // One entry at a time: the sink writes to the app's memory, which no lock may be held for.
        while let Some((cookie, name, ino, kind)) = self.inode.entry_from(pos) {
            if !sink.entry(&name, ino, kind, cookie + 1) {
                return Ok(pos);
            }
            pos = cookie + 1;
        }
        Ok(pos)
    }
    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn inode(&self) -> Option<InodeRef> {
        Some(self.inode.clone())
    }
}
