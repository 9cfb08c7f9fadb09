//! Names a guest gives: one component or several, below a directory it has, never through a symbolic link.

use super::errno;
use qlib::Errno;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::ffi::CString;

/// How every path of a guest is resolved.
pub const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// A name as host calls take it: not empty, no NUL, not absolute, not too long.
pub fn name(bytes: &[u8]) -> Result<CString, Errno> {
    if bytes.is_empty() || bytes.len() >= libc::PATH_MAX as usize {
        return Err(if bytes.is_empty() {
            Errno::ENOENT
        } else {
            Errno::ENAMETOOLONG
        });
    }
    if bytes[0] == b'/' {
        return Err(Errno::EINVAL);
    }
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// The directory of a path and the last component in it, which is a name and not `.` or `..`.
pub struct Place<'a> {
    dir: Dir<'a>,
    /// The last component.
    pub name: CString,
}

enum Dir<'a> {
    Given(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl<'a> Place<'a> {
    /// Finds the directory of `path` below `base`.
    pub fn find(base: BorrowedFd<'a>, path: &[u8]) -> Result<Self, Errno> {
        name(path)?;
        let (parent, last) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        if matches!(last, b"" | b"." | b"..") {
            return Err(Errno::EINVAL);
        }
        let last = name(last)?;
        if parent.is_empty() {
            return Ok(Self {
                dir: Dir::Given(base),
                name: last,
            });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat2(base, &name(parent)?, flags, Mode::empty(), RESOLVE).map_err(errno)?;
        Ok(Self {
            dir: Dir::Opened(dir),
            name: last,
        })
    }

    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        match &self.dir {
            Dir::Given(fd) => *fd,
            Dir::Opened(fd) => fd.as_fd(),
        }
    }
}
