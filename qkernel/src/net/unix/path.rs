//! Unix sockets in the file tree.

use super::name::Address;
use crate::fs::inode::FileType;
use crate::fs::{names, walk};
use crate::task::Task;
use core::sync::atomic::Ordering;
use qlib::Errno;

/// The socket inode a path leads to.
///
/// # Errors
/// ECONNREFUSED when it is not a socket, EACCES without write permission, and those of path resolution.
pub(super) fn lookup(task: &Task, path: &[u8]) -> Result<Address, Errno> {
    let (fs, creds) = (task.fs(), task.creds());
    let found = walk::lookup(&fs, &creds, None, path, walk::Flags::FOLLOW)?;
    let inode = found.inode();
    walk::check(&creds, &inode.attr()?, 2)?;
    if inode.file_type() != FileType::Socket {
        return Err(Errno::ECONNREFUSED);
    }
    let id = inode.id();
    Ok(Address::Inode(id.dev, id.ino))
}

/// Makes a socket inode.
///
/// # Errors
/// EADDRINUSE when the name is there, and those of path resolution and `mknod(2)`.
pub(super) fn make(task: &Task, path: &[u8]) -> Result<Address, Errno> {
    let (fs, creds) = (task.fs(), task.creds());
    let used = |e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e };
    let (dir, name, slash) = walk::lookup_parent(&fs, &creds, None, path).map_err(used)?;
    if slash {
        return Err(Errno::ENOENT);
    }
    let mode = 0o777 & !fs.umask.load(Ordering::Relaxed) | FileType::Socket.mode_bits();
    let made = names::mknod_at(&dir, &name, mode, 0, &creds).map_err(used)?;
    let id = made.inode().id();
    Ok(Address::Inode(id.dev, id.ino))
}
