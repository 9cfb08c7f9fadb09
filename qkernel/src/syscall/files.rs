//! What the file families share: paths, descriptors and credentials of the caller.

use super::{Ctx, SysResult};
use crate::fs::attr::Object;
use crate::fs::fdtable::Fd;
use crate::fs::file::File;
use crate::fs::inode::{FileType, Stat};
use crate::fs::path::{FsContext, Path};
use crate::fs::walk::{self, Flags, Found, PATH_MAX};
use crate::signal::{SigInfo, info::code, send, signo};
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::uapi::general::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW};
use hal::user::{UserCStr, UserSlice};
use qlib::Errno;

/// Bytes one read or write moves at most. Source: Linux `MAX_RW_COUNT`.
pub const MAX_RW: u64 = 0x7fff_f000;

/// The caller's view of the tree and its rights.
pub struct Who {
    /// Root, working directory, umask.
    pub fs: Arc<FsContext>,
    /// Credentials.
    pub creds: Arc<Creds>,
}

impl Who {
    /// The calling task's.
    pub fn of(c: &Ctx<'_>) -> Self {
        Self {
            fs: c.task.fs(),
            creds: c.task.creds(),
        }
    }
}

/// Reads a path.
///
/// # Errors
/// EFAULT, ENAMETOOLONG.
pub fn path_arg(p: UserCStr) -> SysResult<Vec<u8>> {
    p.read(PATH_MAX)
}

/// Finds an open file.
///
/// # Errors
/// EBADF.
pub fn file(c: &Ctx<'_>, fd: Fd) -> SysResult<Arc<File>> {
    c.task.files().get(fd)
}

/// Finds an open file that can do IO.
///
/// # Errors
/// EBADF, also for O_PATH descriptors.
pub fn io_file(c: &Ctx<'_>, fd: Fd) -> SysResult<Arc<File>> {
    let f = file(c, fd)?;
    if f.is_path_only() {
        return Err(Errno::EBADF);
    }
    Ok(f)
}

/// Where a path starts: the directory `dirfd`, or `None` = the working directory. Absolute paths need no directory.
///
/// # Errors
/// EBADF; ENOTDIR.
pub fn start(c: &Ctx<'_>, dirfd: i32, path: &[u8]) -> SysResult<Option<Path>> {
    if dirfd == AT_FDCWD || path.first() == Some(&b'/') {
        return Ok(None);
    }
    let f = file(c, Fd(dirfd))?;
    let p = f.path().cloned().ok_or(Errno::ENOTDIR)?;
    if !path.is_empty() && p.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    Ok(Some(p))
}

/// What an `*at` call names.
pub enum Target {
    /// A place, and its status when the walk learned it.
    Place(Found),
    /// An open file (an empty path with AT_EMPTY_PATH).
    File(Arc<File>),
}

impl Target {
    /// Status.
    ///
    /// # Errors
    /// The file system's.
    pub fn stat(&self) -> SysResult<Stat> {
        match self {
            Target::Place(f) => match (&f.file, f.stat) {
                (Some(file), _) if file.path().is_none() => file.ops().stat(file),
                (_, Some(s)) => Ok(s),
                _ => f.path.inode().stat(),
            },
            Target::File(f) if f.is_path_only() => match f.path() {
                Some(p) => p.inode().stat(),
                None => f.ops().stat(f),
            },
            Target::File(f) => f.ops().stat(f),
        }
    }
    /// The place, unless it is a file without one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Target::Place(f) => match &f.file {
                Some(file) if file.path().is_none() => None,
                _ => Some(&f.path),
            },
            Target::File(f) => f.path(),
        }
    }
    /// The object, for changes.
    ///
    /// # Errors
    /// EBADF for files without an inode.
    pub fn object(&self) -> SysResult<Object> {
        match self {
            Target::Place(f) => match &f.file {
                Some(file) => Object::of(file),
                None => Ok(Object::at(f.path.clone())),
            },
            Target::File(f) => Object::of(f),
        }
    }
}

/// Finds what `dirfd` and `path` name. `flags`: AT_SYMLINK_NOFOLLOW or AT_SYMLINK_FOLLOW, AT_EMPTY_PATH; `follow` is
/// what happens to a final symlink without either.
///
/// # Errors
/// As `path_resolution(7)`.
pub fn target(c: &Ctx<'_>, dirfd: i32, path: &[u8], flags: u32, follow: bool) -> SysResult<Target> {
    if path.is_empty() && flags & AT_EMPTY_PATH != 0 && dirfd != AT_FDCWD {
        return Ok(Target::File(file(c, Fd(dirfd))?));
    }
    let who = Who::of(c);
    let follow = (follow || flags & AT_SYMLINK_FOLLOW != 0) && flags & AT_SYMLINK_NOFOLLOW == 0;
    let mut walk = Flags::empty();
    walk.set(Flags::FOLLOW, follow);
    walk.set(Flags::EMPTY, flags & AT_EMPTY_PATH != 0);
    let at = start(c, dirfd, path)?;
    walk::find(&who.fs, &who.creds, at.as_ref(), path, walk).map(Target::Place)
}

/// Finds the directory of the last component: place, name, and whether slashes follow it.
///
/// # Errors
/// As `path_resolution(7)`; EEXIST for `.`, `..` and the root.
pub fn parent(c: &Ctx<'_>, dirfd: i32, path: &[u8]) -> SysResult<(Path, Vec<u8>, bool)> {
    let who = Who::of(c);
    let at = start(c, dirfd, path)?;
    walk::lookup_parent(&who.fs, &who.creds, at.as_ref(), path)
}

/// The app's buffers of a vector call, no longer than a call may move.
///
/// # Errors
/// EINVAL for more than 1024 or a length overflow; EFAULT.
pub fn iovecs(addr: u64, count: u64) -> SysResult<Vec<UserSlice>> {
    if count > 1024 {
        return Err(Errno::EINVAL);
    }
    let raw = hal::user::UserPtr::<[u64; 2]>::new(addr).read_vec(count as usize)?;
    let mut out = Vec::with_capacity(raw.len());
    let mut total = 0u64;
    for [base, len] in raw {
        if len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        let slice = UserSlice::new(base, len)?;
        let room = MAX_RW - total;
        let slice = slice.first(room.min(len) as usize);
        total += slice.len() as u64;
        if !slice.is_empty() {
            out.push(slice);
        }
    }
    Ok(out)
}

/// One buffer of the app, no longer than a call may move.
///
/// # Errors
/// EFAULT.
pub fn buffer(addr: u64, len: u64) -> SysResult<UserSlice> {
    if len > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    Ok(UserSlice::new(addr, len)?.first(MAX_RW as usize))
}

/// Checks the end of a write to a regular file against RLIMIT_FSIZE; returns how many bytes may be written at `pos`.
///
/// # Errors
/// EFBIG, with SIGXFSZ.
pub fn file_size_room(c: &Ctx<'_>, pos: u64, len: u64) -> SysResult<u64> {
    const RLIMIT_FSIZE: usize = 1;
    let limit = c.task.process.rlimits.lock()[RLIMIT_FSIZE].0;
    if limit == u64::MAX || pos.saturating_add(len) <= limit {
        return Ok(len);
    }
    if pos >= limit {
        let p = &c.task.process;
        let uid = c.task.creds().uid;
        send::to_task(c.task, SigInfo::user(signo::SIGXFSZ, code::SI_USER, p.pid, uid));
        return Err(Errno::EFBIG);
    }
    Ok(limit - pos)
}
