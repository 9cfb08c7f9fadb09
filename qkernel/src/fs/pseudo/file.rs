//! Files whose text is made when they are read.

use super::{Meta, Shown};
use crate::fs::file::{File, FileOps};
use crate::fs::inode::{FileType, Inode, SetAttr, Stat};
use crate::sched::wait::SleepLock;
use crate::task::creds::Creds;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{Dest, Src};
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// Makes the text.
pub type Show = dyn Fn() -> Result<Vec<u8>, Errno> + Send + Sync;
/// Takes what was written by one call.
pub type Store = dyn Fn(&[u8]) -> Result<(), Errno> + Send + Sync;

/// Longest write one call may bring, bytes.
const WRITE_MAX: usize = 64 * 1024;

/// A generated file: its text is made at the first read and again whenever it is read from offset 0.
pub struct TextFile {
    meta: Shown,
    show: Arc<Show>,
    store: Option<Arc<Store>>,
}

impl TextFile {
    /// A read-only file.
    pub fn new(
        meta: Meta,
        show: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Inode> {
        Arc::new(Self {
            meta: meta.into(),
            show: Arc::new(show),
            store: None,
        })
    }
    /// A file that takes writes too.
    pub fn writable(
        meta: Meta,
        show: impl Fn() -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
        store: impl Fn(&[u8]) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Arc<dyn Inode> {
        Arc::new(Self {
            meta: meta.into(),
            show: Arc::new(show),
            store: Some(Arc::new(store)),
        })
    }
}

impl Inode for TextFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        FileType::Regular
    }
    fn refresh(&self, stat: &Stat) {
        self.meta.refresh(stat);
    }
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.meta.now().stat(FileType::Regular))
    }
    fn open(&self, _flags: u32, _creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(TextOps {
            show: self.show.clone(),
            store: self.store.clone(),
            text: SleepLock::new(None),
        }))
    }
    fn statfs(&self) -> Result<HostStatFs, Errno> {
        Ok(super::statfs(self.meta.now().dev))
    }
    fn truncate(&self, _len: u64) -> Result<(), Errno> {
        // `echo 1 > file` opens with O_TRUNC.
        Ok(())
    }
    fn set_attr(&self, attr: &SetAttr) -> Result<(), Errno> {
        // Times may be set, and are forgotten, as Linux forgets those of an inode that nobody uses.
        match (attr.mode, attr.uid, attr.gid) {
            (None, None, None) => Ok(()),
            _ => Err(Errno::EPERM),
        }
    }
}

/// An open generated file.
struct TextOps {
    show: Arc<Show>,
    store: Option<Arc<Store>>,
    /// The snapshot that reads see.
    text: SleepLock<Option<Box<[u8]>>>,
}

impl FileOps for TextOps {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &File, dst: &mut Dest<'_>, offset: u64) -> Result<usize, Errno> {
        let mut text = self.text.lock();
        if offset == 0 || text.is_none() {
            *text = Some((self.show)()?.into_boxed_slice());
        }
        let all = text.as_deref().unwrap_or_default();
        let from = usize::try_from(offset).map_or(all.len(), |o| o.min(all.len()));
        if from == all.len() {
            return Ok(0);
        }
        dst.put(&all[from..])
    }
    fn write(&self, _file: &File, src: &mut Src<'_>, _offset: u64) -> Result<usize, Errno> {
        let Some(store) = &self.store else {
            return Err(Errno::EIO);
        };
        let mut buf = vec![0; src.remaining().min(WRITE_MAX)];
        let n = src.take(&mut buf)?;
        store(&buf[..n])?;
        Ok(n)
    }
    fn seek(&self, _file: &File, offset: i64, whence: u32, current: u64) -> Result<u64, Errno> {
        // The length is not known before the text is made: SEEK_END fails, as for Linux's seq_file.
        let base = match whence {
            0 => 0,
            1 => current as i64,
            _ => return Err(Errno::EINVAL),
        };
        let to = base.checked_add(offset).filter(|p| *p >= 0);
        to.map(|p| p as u64).ok_or(Errno::EINVAL)
    }
    fn truncate(&self, _file: &File, _len: u64) -> Result<(), Errno> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn the_text_is_one_snapshot_until_read_from_the_start_again() {
        static N: AtomicU32 = AtomicU32::new(0);
        let inode = TextFile::new(Meta::default(), || {
            let n = N.fetch_add(1, Ordering::Relaxed);
            Ok(alloc::format!("take {n}\n").into_bytes())
        });
        let file = File::new(inode.open(0, &Creds::default()).unwrap(), None, 0);
        let mut buf = [0; 4];
        assert_eq!(file.read_kernel(&mut buf, 0).unwrap(), 4);
        assert_eq!(&buf, b"take");
        assert_eq!(file.read_kernel(&mut buf, 4).unwrap(), 3);
        assert_eq!(&buf[..3], b" 0\n");
        assert_eq!(file.read_kernel(&mut buf, 7).unwrap(), 0);
        let mut all = [0; 32];
        let n = file.ops().read(&file, &mut Dest::kernel(&mut all), 0).unwrap();
        assert_eq!(&all[..n], b"take 1\n");
    }

    #[test]
    fn only_writable_files_take_writes() {
        let ro = TextFile::new(Meta::default(), || Ok(Vec::new()));
        let file = File::new(ro.open(2, &Creds::default()).unwrap(), None, 2);
        assert_eq!(
            file.ops().write(&file, &mut Src::kernel(b"1"), 0),
            Err(Errno::EIO)
        );
        let rw = TextFile::writable(
            Meta::default(),
            || Ok(Vec::new()),
            |b| {
                super::super::parse_written(b)?;
                Ok(())
            },
        );
        let file = File::new(rw.open(2, &Creds::default()).unwrap(), None, 2);
        assert_eq!(file.ops().write(&file, &mut Src::kernel(b" 17\n"), 0), Ok(4));
        assert_eq!(
            file.ops().write(&file, &mut Src::kernel(b"x"), 0),
            Err(Errno::EINVAL)
        );
    }
}
