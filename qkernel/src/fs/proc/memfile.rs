//! `/proc/PID/mem`: the memory of a process, at its own addresses. Source: `proc_pid_mem(5)`, Linux `fs/proc/base.c`.

use super::who::Who;
use crate::fs::file::{File, FileOps};
use crate::fs::inode::{FileType, Inode, Stat};
use crate::fs::pseudo::{Meta, Shown, statfs};
use crate::mm::{Mm, remote};
use crate::task::Task;
use crate::task::creds::Creds;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use core::any::Any;
use hal::host::{Dest, Src};
use qlib::qcall::HostStatFs;
use qlib::{Errno, PAGE_SIZE};

/// Bytes moved at once.
const CHUNK: usize = 64 << 10;

/// The file.
pub struct MemFile {
    meta: Shown,
    who: Who,
}

impl MemFile {
    /// The file of a process or thread.
    pub fn inode(meta: Meta, who: Who) -> Arc<dyn Inode> {
        Arc::new(Self {
            meta: meta.into(),
            who,
        })
    }
}

impl Inode for MemFile {
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
        // Who gets in here keeps the right, but to this program's memory only.
        self.who.inspect()?;
        Ok(Arc::new(MemOps {
            who: self.who.clone(),
            mm: self.who.mm().map_or_else(Weak::new, |m| Arc::downgrade(&m)),
        }))
    }
    fn truncate(&self, _len: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn statfs(&self) -> Result<HostStatFs, Errno> {
        Ok(statfs(self.meta.now().dev))
    }
}

struct MemOps {
    who: Who,
    mm: Weak<Mm>,
}

impl MemOps {
    /// A thread that lives in the memory; `None` once the program has ended, or another took its place.
    fn task(&self) -> Option<Arc<Task>> {
        let mm = self.mm.upgrade()?;
        let task = self.who.live().ok()?;
        let same = task.mm().is_some_and(|m| Arc::ptr_eq(&m, &mm));
        same.then_some(task)
    }
}

/// What a fault is to a reader or writer: the end, or where nothing was moved an error.
fn ended(done: usize, e: Errno) -> Result<usize, Errno> {
    match e {
        _ if done > 0 => Ok(done),
        Errno::EFAULT => Err(Errno::EIO),
        Errno::ESRCH => Ok(0),
        e => Err(e),
    }
}

impl FileOps for MemOps {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &File, dst: &mut Dest<'_>, offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        while dst.remaining() > 0 {
            let Some(task) = self.task() else { break };
            let want = dst.remaining().min(CHUNK);
            let got = match remote::read(&task, offset.wrapping_add(done as u64), want as u64) {
                Ok(g) if g.is_empty() => return ended(done, Errno::EFAULT),
                Ok(g) => g,
                Err(e) => return ended(done, e),
            };
            match dst.put(&got) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
            if got.len() < want {
                break;
            }
        }
        Ok(done)
    }
    fn write(&self, _file: &File, src: &mut Src<'_>, offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        while src.remaining() > 0 {
            let Some(task) = self.task() else { break };
            let at = offset.wrapping_add(done as u64);
            // Page by page: what comes before the first page that cannot be written is written.
            let mut part = vec![0; src.remaining().min((PAGE_SIZE - at % PAGE_SIZE) as usize)];
            let n = match src.take(&mut part) {
                Ok(n) => n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            };
            if let Err(e) = remote::write(&task, at, &part[..n], true) {
                return ended(done, e);
            }
            done += n;
        }
        Ok(done)
    }
    fn seek(&self, _file: &File, offset: i64, whence: u32, current: u64) -> Result<u64, Errno> {
        match whence {
            0 => Ok(offset as u64),
            1 => Ok(current.wrapping_add(offset as u64)),
            _ => Err(Errno::EINVAL),
        }
    }
    fn truncate(&self, _file: &File, _len: u64) -> Result<(), Errno> {
        Ok(())
    }
}
