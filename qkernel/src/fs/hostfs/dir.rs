//! Open directories of the host.

use crate::fs::file::{DirSink, File, FileOps};
use crate::sched::wait::SleepLock;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{self, Dest, HostFile};
use qlib::Errno;

/// Bytes asked of the host at once.
const CHUNK: usize = 16 * 1024;

/// Records read ahead of what the app took.
struct Ahead {
    records: Vec<u8>,
    /// Start of the next record in `records`.
    at: usize,
    /// Position the next record follows.
    pos: u64,
    /// The handle's position, after all of `records`.
    host_pos: u64,
}

/// An open directory. Positions are the host file system's own cookies, so entries that go do not move the others.
pub struct HostDir {
    handle: Arc<HostFile>,
    /// The inode number `..` shows in the root of the file system, where the host's would be a foreign one.
    root_ino: Option<u64>,
    ahead: SleepLock<Ahead>,
}

impl HostDir {
    pub(super) fn new(handle: Arc<HostFile>, root_ino: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            handle,
            root_ino,
            ahead: SleepLock::new(Ahead {
                records: Vec::new(),
                at: 0,
                pos: 0,
                host_pos: 0,
            }),
        })
    }
}

/// A `linux_dirent64` record: inode, position after it, length, type, name.
fn parse(r: &[u8]) -> Option<(u64, u64, usize, u8, &[u8])> {
    let ino = u64::from_le_bytes(r.get(..8)?.try_into().ok()?);
    let next = u64::from_le_bytes(r.get(8..16)?.try_into().ok()?);
    let len = usize::from(u16::from_le_bytes(r.get(16..18)?.try_into().ok()?));
    let name = r.get(19..len)?;
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    Some((ino, next, len, r[18], &name[..end]))
}

impl FileOps for HostDir {
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
    fn stat(&self, _file: &File) -> Result<crate::fs::Stat, Errno> {
        host::stat(self.handle.handle(), b"")
    }
    fn read_dir(&self, _file: &File, pos: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let mut a = self.ahead.lock();
        if pos != a.pos || pos == 0 {
            if a.host_pos != pos || pos == 0 {
                host::seek(self.handle.handle(), pos as i64, 0)?;
            }
            a.records = Vec::new();
            a.at = 0;
            a.pos = pos;
            a.host_pos = pos;
        }
        loop {
            if a.at >= a.records.len() {
                let mut buf = vec![0; CHUNK];
                let n = host::read_dir(self.handle.handle(), &mut buf)?;
                buf.truncate(n);
                a.records = buf;
                a.at = 0;
                if n == 0 {
                    return Ok(a.pos);
                }
            }
            let Some((ino, next, len, kind, name)) = parse(&a.records[a.at..]) else {
                return Err(Errno::EIO);
            };
            let ino = match self.root_ino {
                Some(own) if name == b".." => own,
                _ => ino,
            };
            if !sink.entry(name, ino, kind, next) {
                return Ok(a.pos);
            }
            a.at += len;
            a.pos = next;
            if a.at >= a.records.len() {
                a.host_pos = next;
            }
        }
    }
    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        host::sync(self.handle.handle(), data_only)
    }
}
