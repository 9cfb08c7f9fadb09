//! Operations on names and on what a name stands for.

use super::path::{self, Place};
use super::{Call, Served, errno};
use qlib::Errno;
use qlib::qcall::{HostStat, HostStatFs};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, StatxFlags, Timespec, Timestamps, Uid};
use std::ffi::CStr;
use zerocopy::IntoBytes;

/// `name` under `dir`, or `dir` itself when the name is empty, for calls that take `AT_EMPTY_PATH`.
fn node<'a>(c: &'a Call<'_>) -> Result<(Option<Place<'a>>, AtFlags), Errno> {
    if c.payload.is_empty() {
        return Ok((None, AtFlags::EMPTY_PATH));
    }
    Ok((Some(Place::find(c.fd()?, c.payload)?), AtFlags::SYMLINK_NOFOLLOW))
}

fn parts<'a>(c: &'a Call<'_>, place: &'a Option<Place<'_>>) -> Result<(BorrowedFd<'a>, &'a CStr), Errno> {
    match place {
        Some(p) => Ok((p.dir(), &p.name)),
        None => Ok((c.fd()?, c"")),
    }
}

/// An owner as the guest gives it: `u32::MAX` keeps.
pub fn owner(uid: u64, gid: u64) -> Result<(Option<Uid>, Option<Gid>), Errno> {
    let id = |v: u64| u32::try_from(v).map_err(|_| Errno::EINVAL);
    let (uid, gid) = (id(uid)?, id(gid)?);
    Ok((
        (uid != u32::MAX).then(|| Uid::from_raw(uid)),
        (gid != u32::MAX).then(|| Gid::from_raw(gid)),
    ))
}

/// Permission bits only.
pub fn permissions(mode: u64) -> Result<Mode, Errno> {
    if mode & !0o7777 != 0 {
        Err(Errno::EINVAL)
    } else {
        Ok(Mode::from_raw_mode(mode as u32))
    }
}

pub fn serve_stat(c: &mut Call<'_>) -> Served {
    let (place, flags) = node(c)?;
    let (dir, name) = parts(c, &place)?;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let s = rustix::fs::statx(dir, name, flags | AtFlags::NO_AUTOMOUNT, mask).map_err(errno)?;
    let stat = HostStat {
        dev: rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        mode: s.stx_mode.into(),
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: rustix::fs::makedev(s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blksize: s.stx_blksize.into(),
        blocks: s.stx_blocks,
        atime_s: s.stx_atime.tv_sec,
        atime_ns: s.stx_atime.tv_nsec.into(),
        mtime_s: s.stx_mtime.tv_sec,
        mtime_ns: s.stx_mtime.tv_nsec.into(),
        ctime_s: s.stx_ctime.tv_sec,
        ctime_ns: s.stx_ctime.tv_nsec.into(),
        btime_s: s.stx_btime.tv_sec,
        btime_ns: s.stx_btime.tv_nsec.into(),
    };
    drop(place);
    c.put(stat.as_bytes())?;
    Ok(0)
}

pub fn serve_statfs(c: &mut Call<'_>) -> Served {
    let s = rustix::fs::fstatfs(c.fd()?).map_err(errno)?;
    let out = HostStatFs {
        kind: s.f_type as u64,
        bsize: s.f_bsize as u64,
        blocks: s.f_blocks,
        bfree: s.f_bfree,
        bavail: s.f_bavail,
        files: s.f_files,
        ffree: s.f_ffree,
        namelen: s.f_namelen as u64,
        flags: s.f_flags as u64,
    };
    c.put(out.as_bytes())?;
    Ok(0)
}

pub fn serve_readlink(c: &mut Call<'_>) -> Served {
    let (place, _) = node(c)?;
    let (dir, name) = parts(c, &place)?;
    let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(errno)?;
    drop(place);
    let target = target.as_bytes();
    let room = c.room_for(target.len() as u64);
    c.put(&target[..room])?;
    Ok(room as u64)
}

/// Gives a new node its owner; a node that cannot have it is taken away again.
fn own(place: &Place<'_>, uid: u64, gid: u64, remove: AtFlags) -> Result<(), Errno> {
    let (uid, gid) = owner(uid, gid)?;
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    rustix::fs::chownat(place.dir(), &place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| {
        let _ = rustix::fs::unlinkat(place.dir(), &place.name, remove);
        errno(e)
    })
}

pub fn serve_mkdir(c: &mut Call<'_>) -> Served {
    let place = Place::find(c.fd()?, c.payload)?;
    let mode = permissions(c.arg(0))?;
    // The umask is zero, and mkdir leaves set-id bits out: the guest asks for those with ChMod.
    rustix::fs::mkdirat(place.dir(), &place.name, mode).map_err(errno)?;
    own(&place, c.arg(1), c.arg(2), AtFlags::REMOVEDIR)?;
    Ok(0)
}

pub fn serve_mknod(c: &mut Call<'_>) -> Served {
    let place = Place::find(c.fd()?, c.payload)?;
    let mode = c.arg32(0)?;
    let kind = FileType::from_raw_mode(mode);
    // Device nodes can be kept, as an image may hold them; no mount of the sandbox lets one be opened.
    let known = [
        FileType::RegularFile,
        FileType::Fifo,
        FileType::Socket,
        FileType::CharacterDevice,
        FileType::BlockDevice,
    ];
    if !known.contains(&kind) {
        return Err(Errno::EINVAL);
    }
    let bits = permissions(u64::from(mode & !libc::S_IFMT))?;
    rustix::fs::mknodat(place.dir(), &place.name, kind, bits, c.arg(1)).map_err(errno)?;
    own(&place, c.arg(2), c.arg(3), AtFlags::empty())?;
    Ok(0)
}

pub fn serve_symlink(c: &mut Call<'_>) -> Served {
    let (name, target) = c.split(c.arg(0))?;
    let place = Place::find(c.fd()?, name)?;
    if target.is_empty() || target.len() >= libc::PATH_MAX as usize || target.contains(&0) {
        return Err(if target.is_empty() {
            Errno::ENOENT
        } else {
            Errno::EINVAL
        });
    }
    rustix::fs::symlinkat(target, place.dir(), &place.name).map_err(errno)?;
    own(&place, c.arg(1), c.arg(2), AtFlags::empty())?;
    Ok(0)
}

pub fn serve_link(c: &mut Call<'_>) -> Served {
    let (old, new) = c.split(c.arg(0))?;
    let new = Place::find(c.fd2()?, new)?;
    if old.is_empty() {
        rustix::fs::linkat(c.fd()?, c"", new.dir(), &new.name, AtFlags::EMPTY_PATH).map_err(errno)?;
        return Ok(0);
    }
    let old = Place::find(c.fd()?, old)?;
    rustix::fs::linkat(old.dir(), &old.name, new.dir(), &new.name, AtFlags::empty()).map_err(errno)?;
    Ok(0)
}

pub fn serve_unlink(c: &mut Call<'_>) -> Served {
    let flags = match c.arg(0) {
        0 => AtFlags::empty(),
        f if f == libc::AT_REMOVEDIR as u64 => AtFlags::REMOVEDIR,
        _ => return Err(Errno::EINVAL),
    };
    let place = Place::find(c.fd()?, c.payload)?;
    rustix::fs::unlinkat(place.dir(), &place.name, flags).map_err(errno)?;
    Ok(0)
}

pub fn serve_rename(c: &mut Call<'_>) -> Served {
    let flags = RenameFlags::from_bits(c.arg32(1)?).ok_or(Errno::EINVAL)?;
    let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE | RenameFlags::WHITEOUT;
    if !known.contains(flags) {
        return Err(Errno::EINVAL);
    }
    let (old, new) = c.split(c.arg(0))?;
    let new = Place::find(c.fd2()?, new)?;
    if old.is_empty() {
        rustix::fs::linkat(c.fd()?, c"", new.dir(), &new.name, AtFlags::EMPTY_PATH).map_err(errno)?;
        return Ok(0);
    }
    let old = Place::find(c.fd()?, old)?;
    rustix::fs::renameat_with(old.dir(), &old.name, new.dir(), &new.name, flags).map_err(errno)?;
    Ok(0)
}

pub fn serve_chmod(c: &mut Call<'_>) -> Served {
    let mode = permissions(c.arg(0))?;
    if c.payload.is_empty() {
        return change_mode(c.fd()?, mode).map(|()| 0);
    }
    let place = Place::find(c.fd()?, c.payload)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        rustix::fs::openat2(place.dir(), &place.name, flags, Mode::empty(), path::RESOLVE).map_err(errno)?;
    change_mode(fd.as_fd(), mode).map(|()| 0)
}

/// Sets the mode of an open file, also of one opened by place only.
fn change_mode(fd: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
    use rustix::io::Errno as Host;
    match rustix::fs::fchmod(fd, mode) {
        Err(Host::BADF) => {}
        other => return other.map_err(errno),
    }
    match crate::sys::change_mode_of(fd, mode.as_raw_mode()) {
        // Linux 6.6 has fchmodat2; before it a place must be opened.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {}
        other => return other.map_err(errno),
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd).map_err(errno)?.st_mode);
    if kind != FileType::Directory {
        return Err(Errno::EOPNOTSUPP);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat2(fd, c".", flags, Mode::empty(), path::RESOLVE).map_err(errno)?;
    rustix::fs::fchmod(open, mode).map_err(errno)
}

pub fn serve_chown(c: &mut Call<'_>) -> Served {
    let (uid, gid) = owner(c.arg(0), c.arg(1))?;
    let (place, flags) = node(c)?;
    let (dir, name) = parts(c, &place)?;
    rustix::fs::chownat(dir, name, uid, gid, flags).map_err(errno)?;
    Ok(0)
}

pub fn serve_set_times(c: &mut Call<'_>) -> Served {
    let time = |s: u64, ns: u64| -> Result<Timespec, Errno> {
        let special = ns == libc::UTIME_NOW as u64 || ns == libc::UTIME_OMIT as u64;
        if ns >= 1_000_000_000 && !special {
            return Err(Errno::EINVAL);
        }
        Ok(Timespec {
            tv_sec: s as i64,
            tv_nsec: ns as _,
        })
    };
    let times = Timestamps {
        last_access: time(c.arg(0), c.arg(1))?,
        last_modification: time(c.arg(2), c.arg(3))?,
    };
    let (place, flags) = node(c)?;
    let (dir, name) = parts(c, &place)?;
    rustix::fs::utimensat(dir, name, &times, flags).map_err(errno)?;
    Ok(0)
}
