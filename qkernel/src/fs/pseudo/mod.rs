//! What the made-up file systems (proc, sysfs, devpts, cgroup) share: directories, generated files, symlinks.

mod dir;
mod file;
mod link;
mod text;
mod tree;

pub use dir::{Dir, Entries, Entry};
pub use file::TextFile;
pub use link::{Link, Magic};
pub use text::Text;
pub use tree::{Table, Tree};

use crate::fs::inode::{FileType, Stat};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// What `stat` tells of a made-up inode.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Permission bits.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Meta {
    /// As `stat` shows it for an inode of type `kind`: sizes are zero and times are now, as in Linux's procfs.
    pub fn stat(&self, kind: FileType) -> Stat {
        let now = hal::clock::realtime_ns();
        let (s, ns) = ((now / 1_000_000_000) as i64, now % 1_000_000_000);
        Stat {
            dev: self.dev,
            ino: self.ino,
            mode: kind.mode_bits() | self.perm,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: self.uid,
            gid: self.gid,
            blksize: 4096,
            atime_s: s,
            atime_ns: ns,
            mtime_s: s,
            mtime_ns: ns,
            ctime_s: s,
            ctime_ns: ns,
            ..Stat::default()
        }
    }
    /// The same with another inode number and permission bits.
    #[must_use]
    pub fn with(&self, ino: u64, perm: u32) -> Self {
        Self { ino, perm, ..*self }
    }
}

/// A [`Meta`] whose owner changes with the process it tells of.
pub struct Shown {
    meta: Meta,
    owner: SpinLock<(u32, u32)>,
}

impl From<Meta> for Shown {
    fn from(meta: Meta) -> Self {
        Self {
            meta,
            owner: SpinLock::new((meta.uid, meta.gid)),
        }
    }
}

impl Shown {
    /// What it is now.
    pub fn now(&self) -> Meta {
        let (uid, gid) = *self.owner.lock();
        Meta {
            uid,
            gid,
            ..self.meta
        }
    }
    /// Takes over the owner that a fresh lookup found.
    pub fn refresh(&self, stat: &Stat) {
        *self.owner.lock() = (stat.uid, stat.gid);
    }
}

/// A device number for a file system without a device. Minors start high: the host's own file systems without a device
/// have the first ones.
pub fn new_dev() -> u64 {
    static NEXT: AtomicU32 = AtomicU32::new(200);
    crate::fs::dev::makedev(0, NEXT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff)
}

/// Types of file systems by device number. Source: `uapi/linux/magic.h`.
static MAGICS: SpinLock<Vec<(u64, u64)>> = SpinLock::new(Vec::new());

/// A device number as [`new_dev`] for a file system whose `statfs` tells type `magic`.
pub fn new_dev_of(magic: u64) -> u64 {
    let dev = new_dev();
    MAGICS.lock().push((dev, magic));
    dev
}

/// Status of the made-up file system `dev`.
pub fn statfs(dev: u64) -> HostStatFs {
    let magic = MAGICS
        .lock()
        .iter()
        .find(|(d, _)| *d == dev)
        .map_or(0, |(_, m)| *m);
    HostStatFs {
        kind: magic,
        bsize: 4096,
        namelen: 255,
        ..HostStatFs::default()
    }
}

/// A fresh inode number for a static entry.
pub fn new_ino() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(4_026_531_900);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Parses a decimal number without sign or leading zeros, as `/proc` takes names.
pub fn parse_name(name: &[u8]) -> Option<u32> {
    // Digits only: a sign, which a parser would take, is part of no name.
    if name.len() > 1 && name[0] == b'0' || !name.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(name).ok()?.parse().ok()
}

/// Parses what an app wrote to a file that holds one integer: blanks around it are fine.
///
/// # Errors
/// EINVAL.
pub fn parse_written(bytes: &[u8]) -> Result<i64, Errno> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
    text.parse().map_err(|_| Errno::EINVAL)
}
