//! What the kernel does with files on behalf of a task: open programs, change directory, write sysctls.

use crate::fs::fdtable::Fd;
use crate::fs::file::File;
use crate::fs::open;
use crate::fs::path::Path;
use crate::fs::walk::{Flags, lookup, may_search};
use crate::task::Task;
use crate::task::creds::{Creds, cap};
use alloc::sync::Arc;
use hal::uapi::general::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW};
use qlib::Errno;

/// Opens a program by its path.
///
/// # Errors
/// As `execve(2)`.
pub fn open_exec(task: &Task, path: &[u8]) -> Result<Arc<File>, Errno> {
    open::open_exec(&task.fs(), &task.creds(), None, path, Flags::FOLLOW)
}

/// Opens a program as `execveat(2)` names it.
///
/// # Errors
/// As `execveat(2)`.
pub fn open_exec_at(task: &Task, fd: Fd, path: &[u8], flags: u32) -> Result<Arc<File>, Errno> {
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut walk = Flags::empty();
    if flags & AT_EMPTY_PATH != 0 {
        walk |= Flags::EMPTY;
    }
    if flags & AT_SYMLINK_NOFOLLOW == 0 {
        walk |= Flags::FOLLOW;
    }
    let (fs, creds) = (task.fs(), task.creds());
    if fd.0 == AT_FDCWD || path.starts_with(b"/") {
        return open::open_exec(&fs, &creds, None, path, walk);
    }
    let dir = task.files().get(fd)?;
    match dir.path() {
        Some(at) => open::open_exec(&fs, &creds, Some(at), path, walk),
        // A file without a name (memfd) is run through its descriptor.
        None if path.is_empty() && flags & AT_EMPTY_PATH != 0 => Ok(dir),
        None => Err(Errno::ENOTDIR),
    }
}

/// Takes the working directory of a program that the runtime starts.
///
/// # Errors
/// As `chdir(2)`.
pub fn start_dir(task: &Task, path: &[u8]) -> Result<(), Errno> {
    let fs = task.fs();
    let of = |creds: &Creds| {
        let to = lookup(&fs, creds, None, path, Flags::FOLLOW | Flags::DIRECTORY)?;
        may_search(creds, &to)?;
        Ok(to)
    };
    let to = match of(&task.creds()) {
        // A runtime goes there before it becomes the user.
        Err(Errno::EACCES) => {
            let mut creds = Creds::clone(&task.creds());
            creds.caps.effective |= 1 << cap::DAC_READ_SEARCH;
            of(&creds)?
        }
        other => other?,
    };
    fs.set_cwd(to);
    Ok(())
}

/// Applies `name=value` of the container's specification. The settings are the kernel's: `/proc` need not be mounted, or may
/// be read-only already.
///
/// # Errors
/// ENOENT when there is no such setting; EPERM when it cannot be changed; EINVAL.
pub fn set_sysctl(_root: &Path, setting: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(setting).map_err(|_| Errno::EINVAL)?;
    let (name, value) = text.split_once('=').ok_or(Errno::EINVAL)?;
    crate::fs::proc::sysctl::set(name, value)
}
