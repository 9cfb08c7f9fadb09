//! Status, modes, owners, times and extended attributes.

use super::super::sys;
use super::broker::{self, Request};
use super::names::{self, At};
use super::{done, files, io};
use crate::host::{Handle, Owner};
use crate::uapi::general as g;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use qlib::Errno;
use qlib::qcall::{HostStat, HostStatFs, Op};
use zerocopy::{FromZeros, IntoBytes};

/// Longest value of an extended attribute, and longest list of names (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const XATTR_BYTES: usize = 64 << 10;

/// Flags for a host call on `name`, or on the handle itself when it is empty; never through a symlink.
fn at_flags(name: &[u8]) -> u64 {
    (if name.is_empty() {
        g::AT_EMPTY_PATH
    } else {
        g::AT_SYMLINK_NOFOLLOW
    }) as u64
}

/// Device number as `st_dev` encodes it.
fn device(major: u32, minor: u32) -> u64 {
    (minor & 0xff) as u64 | (major as u64 & 0xfff) << 8 | (minor as u64 & !0xff) << 12
}

pub(super) fn stat(dir: Handle, name: &[u8]) -> Result<HostStat, Errno> {
    let mut s = MaybeUninit::<g::statx>::zeroed();
    let flags = at_flags(name) | g::AT_NO_AUTOMOUNT as u64;
    let mask = (g::STATX_BASIC_STATS | g::STATX_BTIME) as u64;
    let direct = names::at(dir, name, |At { dir, name }| {
        // SAFETY: the host reads the name and writes the structure.
        done(unsafe { sys::call(g::__NR_statx, [dir, name, flags, mask, s.as_mut_ptr() as u64]) })
    });
    if direct == Err(Errno::EACCES) || direct == Err(Errno::EPERM) {
        let mut out = HostStat::new_zeroed();
        let request = Request {
            op: Op::Stat,
            handle: dir,
            payload: [name, b""],
            ..Request::NONE
        };
        return match broker::call(&request, out.as_mut_bytes()) {
            Ok(_) => Ok(out),
            Err(Errno::ENOSYS) => Err(Errno::EACCES),
            Err(e) => Err(e),
        };
    }
    direct?;
    // SAFETY: integers only: zero is a value, and the host wrote the rest.
    let s = unsafe { s.assume_init() };
    Ok(HostStat {
        dev: device(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        mode: s.stx_mode as u32,
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: device(s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blksize: s.stx_blksize as u64,
        blocks: s.stx_blocks,
        atime_s: s.stx_atime.tv_sec,
        atime_ns: s.stx_atime.tv_nsec as u64,
        mtime_s: s.stx_mtime.tv_sec,
        mtime_ns: s.stx_mtime.tv_nsec as u64,
        ctime_s: s.stx_ctime.tv_sec,
        ctime_ns: s.stx_ctime.tv_nsec as u64,
        btime_s: s.stx_btime.tv_sec,
        btime_ns: s.stx_btime.tv_nsec as u64,
    })
}

pub(super) fn statfs(h: Handle) -> Result<HostStatFs, Errno> {
    let mut s = [0u64; 15];
    // SAFETY: the host writes a struct statfs of 120 bytes.
    unsafe { sys::call(g::__NR_fstatfs, [h.0, s.as_mut_ptr() as u64]) }?;
    // type bsize blocks bfree bavail files ffree fsid namelen frsize flags
    Ok(HostStatFs {
        kind: s[0],
        bsize: s[1],
        blocks: s[2],
        bfree: s[3],
        bavail: s[4],
        files: s[5],
        ffree: s[6],
        namelen: s[8],
        flags: s[10],
    })
}

pub(super) fn chmod(dir: Handle, name: &[u8], mode: u32) -> Result<(), Errno> {
    let flags = at_flags(name);
    // The host drops set-group-ID without a word when the group is not one of the sandbox's own: the broker decides.
    let direct = names::at(dir, name, |at| {
        if mode & 0o2000 != 0 && broker::count() > 0 {
            return Err(Errno::EPERM);
        }
        // SAFETY: the host reads the name.
        let r = unsafe { sys::call(g::__NR_fchmodat2, [at.dir, at.name, mode as u64, flags]) };
        match r {
            Err(Errno::ENOSYS) => old_chmod(at, name.is_empty(), mode),
            r => done(r),
        }
    });
    broker::or(direct, || {
        let args = [mode as u64, 0, 0, 0, 0, 0];
        let request = Request {
            op: Op::ChMod,
            handle: dir,
            args,
            payload: [name, b""],
            ..Request::NONE
        };
        broker::call(&request, &mut []).map(|_| ())
    })
}

/// `chmod` on hosts before Linux 6.6.
fn old_chmod(at: At, whole: bool, mode: u32) -> Result<(), Errno> {
    if whole {
        return match sys::plain(g::__NR_fchmod, [at.dir, mode as u64]) {
            // A handle that is only a path: the broker has other ways.
            Err(Errno::EBADF) => Err(Errno::EPERM),
            r => done(r),
        };
    }
    let mut s = MaybeUninit::<g::statx>::zeroed();
    let args = [
        at.dir,
        at.name,
        g::AT_SYMLINK_NOFOLLOW as u64,
        g::STATX_BASIC_STATS as u64,
        s.as_mut_ptr() as u64,
    ];
    // SAFETY: the host reads the name and writes the structure.
    unsafe { sys::call(g::__NR_statx, args) }?;
    // SAFETY: integers only, written by the host.
    let kind = unsafe { s.assume_init() }.stx_mode as u32 & g::S_IFMT;
    if kind == g::S_IFLNK {
        return Err(Errno::EOPNOTSUPP);
    }
    // SAFETY: the host reads the name.
    done(unsafe { sys::call(g::__NR_fchmodat, [at.dir, at.name, mode as u64]) })
}

pub(super) fn chown(dir: Handle, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
    let flags = at_flags(name);
    let direct = names::at(dir, name, |At { dir, name }| {
        // SAFETY: the host reads the name.
        done(unsafe { sys::call(g::__NR_fchownat, [dir, name, uid as u64, gid as u64, flags]) })
    });
    broker::or(direct, || {
        let args = [uid as u64, gid as u64, 0, 0, 0, 0];
        let request = Request {
            op: Op::ChOwn,
            handle: dir,
            args,
            payload: [name, b""],
            ..Request::NONE
        };
        broker::call(&request, &mut []).map(|_| ())
    })
}

pub(super) fn set_times(dir: Handle, name: &[u8], times: [(i64, i64); 2]) -> Result<(), Errno> {
    let flags = at_flags(name);
    let specs = [times[0].0, times[0].1, times[1].0, times[1].1];
    let direct = names::at(dir, name, |At { dir, name }| {
        // SAFETY: the host reads the name and two timespecs.
        done(unsafe { sys::call(g::__NR_utimensat, [dir, name, specs.as_ptr() as u64, flags]) })
    });
    broker::or(direct, || {
        let args = [
            specs[0] as u64,
            specs[1] as u64,
            specs[2] as u64,
            specs[3] as u64,
            0,
            0,
        ];
        let request = Request {
            op: Op::SetTimes,
            handle: dir,
            args,
            payload: [name, b""],
            ..Request::NONE
        };
        broker::call(&request, &mut []).map(|_| ())
    })
}

/// Runs `f` on a descriptor of `name` that attribute calls accept. `on_symlink` answers for symlinks, whose attributes
/// (never `user.*`) QKernel does not offer.
fn with_open<R>(
    dir: Handle,
    name: &[u8],
    on_symlink: Errno,
    f: impl FnOnce(u64) -> Result<R, Errno>,
) -> Result<R, Errno> {
    if name.is_empty() {
        // Attribute calls refuse descriptors that are only paths: the broker has other ways.
        return f(dir.0).map_err(|e| if e == Errno::EBADF { Errno::EPERM } else { e });
    }
    let flags = (g::O_RDONLY | g::O_NONBLOCK | g::O_NOFOLLOW | g::O_NOCTTY | g::O_CLOEXEC) as u64;
    let opened = names::at(dir, name, |At { dir, name }| {
        // SAFETY: the host reads the name.
        unsafe { sys::call(g::__NR_openat, [dir, name, flags, 0]) }
    });
    match opened {
        Ok(fd) => {
            let r = f(fd);
            io::close(qlib::qcall::HandleId(fd));
            r
        }
        Err(Errno::ELOOP) => Err(on_symlink),
        // A socket or a device without a driver.
        Err(Errno::ENXIO) | Err(Errno::ENODEV) => Err(Errno::EPERM),
        Err(e) => Err(e),
    }
}

/// Reads an attribute value or a list of names, whose size is asked for first.
fn read_value(f: impl Fn(u64, u64) -> Result<u64, Errno>) -> Result<Vec<u8>, Errno> {
    loop {
        let size = f(0, 0)? as usize;
        let mut value = alloc::vec![0; size];
        if size == 0 {
            return Ok(value);
        }
        match f(value.as_mut_ptr() as u64, size as u64) {
            Ok(n) => {
                value.truncate(n as usize);
                return Ok(value);
            }
            // It grew meanwhile.
            Err(Errno::ERANGE) => {}
            Err(e) => return Err(e),
        }
    }
}

fn broker_value(request: &Request<'_>) -> Result<Vec<u8>, Errno> {
    let mut value = alloc::vec![0; XATTR_BYTES - 64];
    let reply = broker::call(request, &mut value)?;
    value.truncate(reply.len);
    value.shrink_to_fit();
    Ok(value)
}

pub(super) fn get_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<Vec<u8>, Errno> {
    let direct = with_open(dir, name, Errno::ENODATA, |fd| {
        names::with_nul(attr, |a| {
            read_value(|at, len| {
                // SAFETY: the host reads the name and writes at most `len` bytes.
                unsafe { sys::call(g::__NR_fgetxattr, [fd, a, at, len]) }
            })
        })
    });
    broker::or(direct, || {
        xattr_of(dir, name, |handle| {
            broker_value(&Request {
                op: Op::GetXattr,
                handle,
                payload: [attr, b""],
                ..Request::NONE
            })
        })
    })
}

pub(super) fn list_xattr(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let direct = with_open(dir, name, Errno::ENODATA, |fd| {
        read_value(|at, len| {
            // SAFETY: the host writes at most `len` bytes.
            unsafe { sys::call(g::__NR_flistxattr, [fd, at, len]) }
        })
    });
    if direct == Err(Errno::ENODATA) {
        return Ok(Vec::new());
    }
    broker::or(direct, || {
        xattr_of(dir, name, |handle| {
            broker_value(&Request {
                op: Op::ListXattr,
                handle,
                ..Request::NONE
            })
        })
    })
}

pub(super) fn set_xattr(
    dir: Handle,
    name: &[u8],
    attr: &[u8],
    value: &[u8],
    flags: u32,
) -> Result<(), Errno> {
    let direct = with_open(dir, name, Errno::EOPNOTSUPP, |fd| {
        names::with_nul(attr, |a| {
            let args = [fd, a, value.as_ptr() as u64, value.len() as u64, flags as u64];
            // SAFETY: the host reads name and value.
            done(unsafe { sys::call(g::__NR_fsetxattr, args) })
        })
    });
    broker::or(direct, || {
        xattr_of(dir, name, |handle| {
            let args = [attr.len() as u64, flags as u64, 0, 0, 0, 0];
            let request = Request {
                op: Op::SetXattr,
                handle,
                args,
                payload: [attr, value],
                ..Request::NONE
            };
            broker::call(&request, &mut []).map(|_| ())
        })
    })
}

pub(super) fn remove_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<(), Errno> {
    let direct = with_open(dir, name, Errno::EOPNOTSUPP, |fd| {
        names::with_nul(attr, |a| {
            // SAFETY: the host reads the name.
            done(unsafe { sys::call(g::__NR_fremovexattr, [fd, a]) })
        })
    });
    broker::or(direct, || {
        xattr_of(dir, name, |handle| {
            let request = Request {
                op: Op::RemoveXattr,
                handle,
                payload: [attr, b""],
                ..Request::NONE
            };
            broker::call(&request, &mut []).map(|_| ())
        })
    })
}

/// The broker's attribute operations work on an open file: gives them one, which the broker may have to open.
fn xattr_of<R>(dir: Handle, name: &[u8], f: impl FnOnce(Handle) -> Result<R, Errno>) -> Result<R, Errno> {
    if name.is_empty() {
        return f(dir);
    }
    let own = Owner { uid: 0, gid: 0 }; // Nothing is made.
    let handle = files::open(dir, name, g::O_RDONLY, 0, own)?;
    let r = f(handle);
    io::close(handle);
    r
}
