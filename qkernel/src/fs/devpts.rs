//! devpts: the app's sides of all terminals of the sandbox, by number. Source: `pts(4)`, `mount(8)`.

use crate::fs::dev::makedev;
use crate::fs::file::FileOps;
use crate::fs::inode::{FileType, Inode, InodeRef, SetAttr, Stat};
use crate::fs::pseudo::{Dir, Entries, Entry, Meta, new_dev_of, parse_name};
use crate::fs::tty::{self, Tty};
use crate::task::creds::Creds;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};
use hal::sync::{Once, SpinLock};
use qlib::Errno;

/// Most terminals at once, as `/proc/sys/kernel/pty/max`.
pub const MAX: u32 = 4096;

/// DEVPTS_SUPER_MAGIC.
const MAGIC: u64 = 0x1cd1;

const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;

struct Pts {
    tty: Arc<Tty>,
    perm: u32,
    uid: u32,
    gid: u32,
    born_ns: u64,
}

static PTS: SpinLock<BTreeMap<u32, Pts>> = SpinLock::new(BTreeMap::new());
/// Mode of new terminals and of `ptmx`, and group of new terminals (`u32::MAX` = the opener's), from the mount options.
static MODE: AtomicU32 = AtomicU32::new(0o620);
static PTMX_MODE: AtomicU32 = AtomicU32::new(0o666);
static GID: AtomicU32 = AtomicU32::new(u32::MAX);

fn dev() -> u64 {
    static DEV: Once<u64> = Once::new();
    *DEV.call_once(|| new_dev_of(MAGIC))
}

/// Gives a new terminal the lowest free number.
///
/// # Errors
/// ENOSPC.
pub fn allocate(creds: &Creds, make: impl FnOnce(u32) -> Arc<Tty>) -> Result<Arc<Tty>, Errno> {
    let mut all = PTS.lock();
    let index = (0..MAX).find(|i| !all.contains_key(i)).ok_or(Errno::ENOSPC)?;
    let tty = make(index);
    let gid = match GID.load(Ordering::Relaxed) {
        u32::MAX => creds.fsgid,
        g => g,
    };
    all.insert(
        index,
        Pts {
            tty: tty.clone(),
            perm: MODE.load(Ordering::Relaxed),
            uid: creds.fsuid,
            gid,
            born_ns: hal::clock::realtime_ns(),
        },
    );
    Ok(tty)
}

/// Frees a number.
pub fn release(index: u32) {
    let gone = PTS.lock().remove(&index);
    drop(gone);
}

/// Number of terminals.
pub fn count() -> usize {
    PTS.lock().len()
}

/// The terminal `/dev/pts/<index>`.
pub fn get(index: u32) -> Option<Arc<Tty>> {
    PTS.lock().get(&index).map(|p| p.tty.clone())
}

/// Status of `/dev/pts/<index>`.
///
/// # Errors
/// EIO when the terminal is gone.
pub fn stat(index: u32) -> Result<Stat, Errno> {
    let all = PTS.lock();
    let p = all.get(&index).ok_or(Errno::EIO)?;
    let meta = Meta {
        dev: dev(),
        ino: u64::from(index) + 3,
        perm: p.perm,
        uid: p.uid,
        gid: p.gid,
    };
    let mut s = meta.stat(FileType::CharDevice);
    s.rdev = p.tty.rdev();
    s.blksize = 1024;
    s.ctime_s = (p.born_ns / 1_000_000_000) as i64;
    s.ctime_ns = p.born_ns % 1_000_000_000;
    Ok(s)
}

/// Status of `ptmx`.
///
/// # Errors
/// None.
pub fn ptmx_stat() -> Result<Stat, Errno> {
    let meta = Meta {
        dev: dev(),
        ino: PTMX_INO,
        perm: PTMX_MODE.load(Ordering::Relaxed),
        uid: 0,
        gid: 0,
    };
    let mut s = meta.stat(FileType::CharDevice);
    s.rdev = makedev(5, 2);
    Ok(s)
}

/// Makes a devpts for a mount. `options` as `mount(8)`: `gid=`, `mode=`, `ptmxmode=`; others mean nothing here.
pub fn new_root(options: &[u8]) -> InodeRef {
    for option in options.split(|b| *b == b',') {
        let Ok(option) = core::str::from_utf8(option) else {
            continue;
        };
        let Some((name, value)) = option.split_once('=') else {
            continue;
        };
        match name {
            "gid" => {
                if let Ok(g) = value.parse() {
                    GID.store(g, Ordering::Relaxed);
                }
            }
            "mode" => {
                if let Ok(m) = u32::from_str_radix(value, 8) {
                    MODE.store(m & 0o777, Ordering::Relaxed);
                }
            }
            "ptmxmode" => {
                if let Ok(m) = u32::from_str_radix(value, 8) {
                    PTMX_MODE.store(m & 0o777, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
    let meta = Meta {
        dev: dev(),
        ino: ROOT_INO,
        perm: 0o755,
        uid: 0,
        gid: 0,
    };
    Dir::new(
        meta,
        Root {
            ptmx: Arc::new(PtmxInode),
        },
    )
}

struct Root {
    ptmx: InodeRef,
}

impl Entries for Root {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        if name == b"ptmx" {
            return Ok(self.ptmx.clone());
        }
        let index = parse_name(name).ok_or(Errno::ENOENT)?;
        let tty = get(index).ok_or(Errno::ENOENT)?;
        Ok(Arc::new(PtsInode { tty }))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let mut out = alloc::vec![Entry::new(*b"ptmx", PTMX_INO, FileType::CharDevice)];
        out.extend(PTS.lock().keys().map(|i| {
            Entry::new(
                alloc::format!("{i}").into_bytes(),
                u64::from(*i) + 3,
                FileType::CharDevice,
            )
        }));
        Ok(out)
    }
}

struct PtmxInode;

impl Inode for PtmxInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        FileType::CharDevice
    }
    fn stat(&self) -> Result<Stat, Errno> {
        ptmx_stat()
    }
    fn open(&self, _flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        tty::open_ptmx(creds)
    }
    fn set_attr(&self, attr: &SetAttr) -> Result<(), Errno> {
        if let Some(m) = attr.mode {
            PTMX_MODE.store(m & 0o777, Ordering::Relaxed);
        }
        Ok(())
    }
    fn truncate(&self, _len: u64) -> Result<(), Errno> {
        Ok(())
    }
}

struct PtsInode {
    tty: Arc<Tty>,
}

impl Inode for PtsInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        FileType::CharDevice
    }
    fn stat(&self) -> Result<Stat, Errno> {
        stat(self.tty.index)
    }
    fn open(&self, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        tty::open_slave(&self.tty, flags, creds)
    }
    fn set_attr(&self, attr: &SetAttr) -> Result<(), Errno> {
        let mut all = PTS.lock();
        let p = all.get_mut(&self.tty.index).ok_or(Errno::EIO)?;
        if let Some(m) = attr.mode {
            p.perm = m & 0o7777;
        }
        if let Some(u) = attr.uid {
            p.uid = u;
        }
        if let Some(g) = attr.gid {
            p.gid = g;
        }
        Ok(())
    }
    fn truncate(&self, _len: u64) -> Result<(), Errno> {
        Ok(())
    }
}
