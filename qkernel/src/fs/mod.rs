//! The virtual file system.

pub mod anon;
pub mod attr;
pub mod dcache;
pub mod dev;
pub mod devpts;
pub mod epoll;
pub mod epoll_host;
pub mod eventfd;
pub mod fdtable;
pub mod file;
pub mod hooks;
pub mod hostfs;
pub mod hostio;
pub mod inode;
pub mod inotify;
pub mod locks;
pub mod memfd;
pub mod mount;
pub mod names;
pub mod notify;
pub mod open;
pub mod path;
pub mod pipe;
pub mod pipe_buffer;
pub mod pipe_fifo;
pub mod poll;
pub mod pseudo;
pub mod tmpfs;
pub mod tty;
pub mod walk;

pub use fdtable::{Fd, FdTable};
pub use file::{File, FileOps, PollSource};
pub use inode::{FileType, Inode, InodeRef, SetAttr, Stat};
pub use open::{open, open_exec, open_kernel};
pub use walk::{lookup, lookup_parent};

/// MS_* flags of `mount(2)`.
#[allow(missing_docs)]
pub mod mount_flags {
    pub const RDONLY: u64 = 1;
    pub const NOSUID: u64 = 2;
    pub const NODEV: u64 = 4;
    pub const NOEXEC: u64 = 8;
}

use core::sync::atomic::{AtomicU32, Ordering};

/// A device number as `stat.st_dev` and `st_rdev` hold it. Source: Linux `new_encode_dev`, glibc `makedev`.
pub const fn make_dev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xfff) << 8 | (major & !0xfff) << 32 | minor & 0xff | (minor & !0xff) << 12
}

/// Major part of a device number.
pub const fn major(dev: u64) -> u32 {
    ((dev >> 8 & 0xfff) | (dev >> 32 & !0xfff)) as u32
}

/// Minor part of a device number.
pub const fn minor(dev: u64) -> u32 {
    ((dev & 0xff) | (dev >> 12 & !0xff)) as u32
}

static NEXT_DEV: AtomicU32 = AtomicU32::new(0);

/// A device number for a file system of the kernel's own; the host's anonymous devices have small minors.
pub fn next_dev() -> u64 {
    make_dev(0, 0x8_0000 + NEXT_DEV.fetch_add(1, Ordering::Relaxed))
}
