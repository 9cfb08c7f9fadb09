//! Opening files, and operations on open ones.

use super::nodes::{owner, permissions};
use super::path::{self, Place};
use super::{Call, Served, errno};
use qlib::Errno;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FallocateFlags, FileType, MemfdFlags, Mode, OFlags, XattrFlags};
use std::ffi::CString;

/// Open flags a guest may give; the others change nothing for a file, or are ours to set.
const OPEN_FLAGS: OFlags = OFlags::RWMODE
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::TRUNC)
    .union(OFlags::APPEND)
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOATIME)
    .union(OFlags::DIRECT)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC)
    .union(OFlags::PATH)
    .union(OFlags::TMPFILE)
    .union(OFlags::LARGEFILE)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

pub fn serve_open(c: &mut Call<'_>) -> Served {
    let flags = OFlags::from_bits_retain(c.arg32(0)?);
    if !OPEN_FLAGS.contains(flags) {
        return Err(Errno::EINVAL);
    }
    let flags = flags.difference(OFlags::LARGEFILE);
    let name = path::name(c.payload)?;
    let dir = c.fd()?;
    let fd = if flags.contains(OFlags::PATH) {
        let keep = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let flags = flags.intersection(keep) | OFlags::CLOEXEC;
        rustix::fs::openat2(dir, &name, flags, Mode::empty(), path::RESOLVE).map_err(errno)?
    } else {
        // Never wait for the other end of a FIFO, never take a terminal.
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_file(c, dir, &name, flags)?
    };
    c.give(fd)
}

fn open_file(c: &Call<'_>, dir: BorrowedFd<'_>, name: &CString, flags: OFlags) -> Result<OwnedFd, Errno> {
    let unnamed = flags.contains(OFlags::TMPFILE);
    if !flags.contains(OFlags::CREATE) && !unnamed {
        return rustix::fs::openat2(dir, name, flags, Mode::empty(), path::RESOLVE).map_err(errno);
    }
    let mode = permissions(c.arg(1))?;
    let (uid, gid) = owner(c.arg(2), c.arg(3))?;
    if unnamed {
        let flags = flags.difference(OFlags::CREATE);
        let fd = rustix::fs::openat2(dir, name, flags, mode, path::RESOLVE).map_err(errno)?;
        rustix::fs::fchown(&fd, uid, gid).map_err(errno)?;
        return Ok(fd);
    }
    // Only a file that this call creates gets its owner, so whether it does must be known.
    for _ in 0..8 {
        let exclusive = flags | OFlags::EXCL;
        match rustix::fs::openat2(dir, name, exclusive, mode, path::RESOLVE) {
            Ok(fd) => {
                let owned = rustix::fs::fchown(&fd, uid, gid).and_then(|()| {
                    // A change of owner clears the set-id bits.
                    if mode.intersects(Mode::SUID | Mode::SGID) {
                        rustix::fs::fchmod(&fd, mode)
                    } else {
                        Ok(())
                    }
                });
                if let Err(e) = owned {
                    if let Ok(place) = Place::find(dir, name.as_bytes()) {
                        let _ = rustix::fs::unlinkat(place.dir(), &place.name, AtFlags::empty());
                    }
                    return Err(errno(e));
                }
                return Ok(fd);
            }
            Err(rustix::io::Errno::EXIST) if !flags.contains(OFlags::EXCL) => {}
            Err(e) => return Err(errno(e)),
        }
        match rustix::fs::openat2(
            dir,
            name,
            flags.difference(OFlags::CREATE),
            Mode::empty(),
            path::RESOLVE,
        ) {
            // Removed between the two: try again.
            Err(rustix::io::Errno::NOENT) => {}
            other => return other.map_err(errno),
        }
    }
    Err(Errno::EAGAIN)
}

pub fn serve_truncate(c: &mut Call<'_>) -> Served {
    let length = c.arg(0);
    if length > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    if c.payload.is_empty() {
        rustix::fs::ftruncate(c.fd()?, length).map_err(errno)?;
        return Ok(0);
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = path::name(c.payload)?;
    let fd = rustix::fs::openat2(c.fd()?, &name, flags, Mode::empty(), path::RESOLVE).map_err(errno)?;
    rustix::fs::ftruncate(&fd, length).map_err(errno)?;
    Ok(0)
}

pub fn serve_allocate(c: &mut Call<'_>) -> Served {
    let mode = FallocateFlags::from_bits(c.arg32(0)?).ok_or(Errno::EOPNOTSUPP)?;
    let (offset, length) = (c.arg(1), c.arg(2));
    if offset > i64::MAX as u64 || length == 0 || length > i64::MAX as u64 - offset {
        return Err(Errno::EINVAL);
    }
    rustix::fs::fallocate(c.fd()?, mode, offset, length).map_err(errno)?;
    Ok(0)
}

pub fn serve_sync(c: &mut Call<'_>) -> Served {
    let fd = c.fd()?;
    if c.arg(0) == 1 {
        rustix::fs::fdatasync(fd)
    } else {
        rustix::fs::fsync(fd)
    }
    .map_err(errno)?;
    Ok(0)
}

pub fn serve_mem_file(c: &mut Call<'_>) -> Served {
    if c.payload.len() > 200 {
        return Err(Errno::EINVAL);
    }
    let name = CString::new(c.payload).map_err(|_| Errno::EINVAL)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(&name, flags).map_err(errno)?;
    c.give(fd)
}

/// Runs `work` on `fd`, or, where `fd` is a directory opened by place only, on the directory opened anew.
fn with_open<T>(
    fd: BorrowedFd<'_>,
    work: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
) -> Result<T, Errno> {
    match work(fd) {
        Err(rustix::io::Errno::BADF) => {}
        other => return other.map_err(errno),
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd).map_err(errno)?.st_mode);
    if kind != FileType::Directory {
        return Err(Errno::EBADF);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat2(fd, c".", flags, Mode::empty(), path::RESOLVE).map_err(errno)?;
    work(open.as_fd()).map_err(errno)
}

fn attribute(bytes: &[u8]) -> Result<CString, Errno> {
    if bytes.is_empty() || bytes.len() > 255 {
        return Err(Errno::ERANGE);
    }
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

pub fn serve_get_xattr(c: &mut Call<'_>) -> Served {
    let name = attribute(c.payload)?;
    let room = c.room();
    let value = with_open(c.fd()?, |fd| {
        let mut value = vec![0u8; room];
        let n = rustix::fs::fgetxattr(fd, &name, &mut value)?;
        // With no room the size alone is asked for.
        value.truncate(n);
        Ok((value, n))
    })?;
    c.put(&value.0)?;
    Ok(value.1 as u64)
}

pub fn serve_set_xattr(c: &mut Call<'_>) -> Served {
    let (name, value) = c.split(c.arg(0))?;
    let name = attribute(name)?;
    let flags = XattrFlags::from_bits(c.arg32(1)?).ok_or(Errno::EINVAL)?;
    with_open(c.fd()?, |fd| rustix::fs::fsetxattr(fd, &name, value, flags))?;
    Ok(0)
}

pub fn serve_list_xattr(c: &mut Call<'_>) -> Served {
    let room = c.room();
    let list = with_open(c.fd()?, |fd| {
        let mut list = vec![0u8; room];
        let n = rustix::fs::flistxattr(fd, &mut list)?;
        list.truncate(n);
        Ok((list, n))
    })?;
    c.put(&list.0)?;
    Ok(list.1 as u64)
}

pub fn serve_remove_xattr(c: &mut Call<'_>) -> Served {
    let name = attribute(c.payload)?;
    with_open(c.fd()?, |fd| rustix::fs::fremovexattr(fd, &name))?;
    Ok(0)
}
