//! Names for host calls: NUL-terminated, and never led out of their directory by a symlink on the way.

use super::super::sys;
use crate::host::Handle;
use crate::uapi::general as g;
use core::mem::MaybeUninit;
use qlib::Errno;

/// Bytes of a path component with its NUL.
const NAME: usize = 256;
/// Bytes of a path with its NUL (PATH_MAX).
const PATH: usize = 4096;

/// Runs `f` with `name` and a NUL behind it.
///
/// # Errors
/// ENAMETOOLONG; ENOENT when a NUL is inside.
pub(super) fn with_nul<R>(name: &[u8], f: impl FnOnce(u64) -> Result<R, Errno>) -> Result<R, Errno> {
    if name.contains(&0) {
        return Err(Errno::ENOENT);
    }
    if name.len() < NAME {
        terminated::<NAME, R>(name, f)
    } else {
        terminated::<PATH, R>(name, f)
    }
}

fn terminated<const N: usize, R>(name: &[u8], f: impl FnOnce(u64) -> Result<R, Errno>) -> Result<R, Errno> {
    if name.len() >= N {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut buf = [MaybeUninit::<u8>::uninit(); N];
    for (to, from) in buf.iter_mut().zip(name.iter().chain(&[0])) {
        to.write(*from);
    }
    f(buf.as_ptr() as u64)
}

/// A directory and the address of a NUL-terminated name in it that has no '/'.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// Host descriptor.
    pub dir: u64,
    /// Address of the name.
    pub name: u64,
}

/// Runs `f` on the directory that holds the last component of `name`. Components before it are followed beneath `dir`,
/// symlinks refused.
pub(super) fn at<R>(dir: Handle, name: &[u8], f: impl FnOnce(At) -> Result<R, Errno>) -> Result<R, Errno> {
    let Some(slash) = name.iter().rposition(|b| *b == b'/') else {
        return with_nul(name, |p| f(At { dir: dir.0, name: p }));
    };
    let parent = open_beneath(dir, &name[..slash], (g::O_PATH | g::O_DIRECTORY) as u64, 0)?;
    let result = with_nul(&name[slash + 1..], |p| f(At { dir: parent, name: p }));
    let _ = sys::plain(g::__NR_close, [parent]);
    result
}

/// Opens a path of several components, none a symlink.
pub(super) fn open_beneath(dir: Handle, name: &[u8], flags: u64, mode: u64) -> Result<u64, Errno> {
    let how = g::open_how {
        flags: flags | g::O_CLOEXEC as u64,
        mode,
        resolve: (g::RESOLVE_BENEATH | g::RESOLVE_NO_SYMLINKS | g::RESOLVE_NO_MAGICLINKS) as u64,
    };
    with_nul(name, |p| {
        let args = [dir.0, p, &raw const how as u64, size_of_val(&how) as u64];
        // SAFETY: the host reads the name and `how`.
        unsafe { sys::call(g::__NR_openat2, args) }
    })
}
