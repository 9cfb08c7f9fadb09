//! Objects without a name in any file system: their inode numbers and status.

use crate::fs::fdtable::Fd;
use crate::fs::file::File;
use crate::fs::inode::{FileType, Stat};
use crate::task::Task;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use qlib::Errno;

/// Device number of pipes, as Linux's first anonymous devices have it.
pub const PIPE_DEV: u64 = 14;
/// Device number of sockets.
pub const SOCKET_DEV: u64 = 8;
/// Device number of eventfd, epoll and the like.
pub const ANON_DEV: u64 = 15;

static NEXT_INO: AtomicU64 = AtomicU64::new(4096);

/// A fresh inode number; pipes, sockets and anonymous inodes share one sequence.
pub fn next_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// A fresh inode number for a socket of the kernel's own: far from those that the host gives its sockets.
pub fn next_socket_ino() -> u64 {
    const FIRST: u64 = 1 << 30;
    static NEXT: AtomicU64 = AtomicU64::new(FIRST);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Status of an object without a path. `None` type: an anonymous inode, which has none.
pub fn stat(kind: Option<FileType>, dev: u64, ino: u64) -> Stat {
    let (uid, gid) = match crate::task::current() {
        Some(t) => {
            let c = t.creds();
            (c.fsuid, c.fsgid)
        }
        None => (0, 0),
    };
    let mode = match kind {
        Some(FileType::Socket) => FileType::Socket.mode_bits() | 0o777,
        Some(k) => k.mode_bits() | 0o600,
        None => 0o600,
    };
    Stat {
        dev,
        ino,
        mode,
        nlink: 1,
        uid,
        gid,
        blksize: 4096,
        ..Stat::default()
    }
}

/// Soft RLIMIT_NOFILE of a task.
pub fn descriptor_limit(task: &Task) -> u64 {
    const RLIMIT_NOFILE: usize = 7;
    task.process.rlimits.lock()[RLIMIT_NOFILE].0
}

/// Gives a file the lowest free descriptor.
///
/// # Errors
/// EMFILE.
pub fn install(task: &Task, file: Arc<File>, close_on_exec: bool) -> Result<Fd, Errno> {
    task.files()
        .insert(file, close_on_exec, 0, descriptor_limit(task))
}

/// Gives two files descriptors, or neither.
///
/// # Errors
/// EMFILE.
pub fn install_pair(task: &Task, a: Arc<File>, b: Arc<File>, close_on_exec: bool) -> Result<(Fd, Fd), Errno> {
    let first = install(task, a, close_on_exec)?;
    match install(task, b, close_on_exec) {
        Ok(second) => Ok((first, second)),
        Err(e) => {
            drop(task.files().remove(first));
            Err(e)
        }
    }
}
