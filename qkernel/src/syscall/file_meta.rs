//! Status, modes, owners, times. Source: `stat(2)`, `statx(2)`, `access(2)`, `chmod(2)`, `chown(2)`, `utimensat(2)`.

use super::files::{Target, Who, file, path_arg, target};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::attr;
use crate::fs::dev::{major, minor};
use crate::fs::fdtable::Fd;
use crate::fs::inode::{FileType, Stat};
use crate::fs::walk::{check, writable};
use crate::rows;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use hal::uapi::Plain;
use hal::uapi::general::{
    self as g, AT_EACCESS, AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, MS_NOEXEC,
    statfs64, statx, timeval,
};
use hal::user::{UserCStr, UserPtr};
use qlib::Errno;
use qlib::qcall::HostStatFs;

rows! {
    stat: Full, |c, a| stat_at(c, AT_FDCWD, a.cstr(0), a.u64(1), 0);
    lstat: Full, |c, a| stat_at(c, AT_FDCWD, a.cstr(0), a.u64(1), AT_SYMLINK_NOFOLLOW);
    fstat: Full, |c, a| sys_fstat(c, a.fd(0), a.u64(1));
    newfstatat: Full, |c, a| sys_newfstatat(c, a);
    statx: Partial("no attributes but mount root"), |c, a| sys_statx(c, a);
    statfs: Full, |c, a| sys_statfs(c, a.cstr(0), a.u64(1));
    fstatfs: Full, |c, a| sys_fstatfs(c, a.fd(0), a.u64(1));
    access: Full, |c, a| faccessat(c, AT_FDCWD, a.cstr(0), a.u32(1), 0);
    faccessat: Full, |c, a| faccessat(c, a.i32(0), a.cstr(1), a.u32(2), 0);
    faccessat2: Full, |c, a| faccessat(c, a.i32(0), a.cstr(1), a.u32(2), a.u32(3));
    chmod: Full, |c, a| fchmodat(c, AT_FDCWD, a.cstr(0), a.u32(1), 0);
    fchmod: Full, |c, a| sys_fchmod(c, a.fd(0), a.u32(1));
    fchmodat: Full, |c, a| fchmodat(c, a.i32(0), a.cstr(1), a.u32(2), 0);
    fchmodat2: Full, |c, a| fchmodat(c, a.i32(0), a.cstr(1), a.u32(2), a.u32(3));
    chown: Full, |c, a| fchownat(c, AT_FDCWD, a.cstr(0), a.u32(1), a.u32(2), 0);
    lchown: Full, |c, a| fchownat(c, AT_FDCWD, a.cstr(0), a.u32(1), a.u32(2), AT_SYMLINK_NOFOLLOW);
    fchown: Full, |c, a| sys_fchown(c, a.fd(0), a.u32(1), a.u32(2));
    fchownat: Full, |c, a| fchownat(c, a.i32(0), a.cstr(1), a.u32(2), a.u32(3), a.u32(4));
    utime: Full, |c, a| sys_utime(c, a.cstr(0), a.u64(1));
    utimes: Full, |c, a| sys_futimesat(c, AT_FDCWD, a.u64(0), a.u64(1));
    futimesat: Full, |c, a| sys_futimesat(c, a.i32(0), a.u64(1), a.u64(2));
    utimensat: Full, |c, a| sys_utimensat(c, a);
}

fn put_stat(addr: u64, s: &Stat) -> SysResult {
    let mut out = g::stat::zeroed();
    out.st_dev = s.dev as _;
    out.st_ino = s.ino as _;
    out.st_nlink = s.nlink as _;
    out.st_mode = s.mode as _;
    let (uid, gid) = crate::ns::shown_owner(s.uid, s.gid);
    out.st_uid = uid as _;
    out.st_gid = gid as _;
    out.st_rdev = s.rdev as _;
    out.st_size = s.size as _;
    out.st_blksize = s.blksize as _;
    out.st_blocks = s.blocks as _;
    out.st_atime = s.atime_s as _;
    out.st_atime_nsec = s.atime_ns as _;
    out.st_mtime = s.mtime_s as _;
    out.st_mtime_nsec = s.mtime_ns as _;
    out.st_ctime = s.ctime_s as _;
    out.st_ctime_nsec = s.ctime_ns as _;
    UserPtr::<g::stat>::new(addr).write(&out)?;
    Ok(0)
}

fn stat_at(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr, out: u64, flags: u32) -> SysResult {
    let t = target(c, dirfd, &path_arg(path)?, flags, true)?;
    put_stat(out, &t.stat()?)
}

fn sys_fstat(c: &mut Ctx<'_>, fd: Fd, out: u64) -> SysResult {
    let t = Target::File(file(c, fd)?);
    put_stat(out, &t.stat()?)
}

fn sys_newfstatat(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let flags = a.u32(3);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    // glibc's fstat comes here with an empty path.
    if flags & AT_EMPTY_PATH != 0 && a.u64(1) == 0 && a.i32(0) >= 0 {
        return sys_fstat(c, a.fd(0), a.u64(2));
    }
    stat_at(c, a.i32(0), a.cstr(1), a.u64(2), flags)
}

fn sys_statx(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (flags, want) = (a.u32(2), a.u32(3));
    let sync = flags & g::AT_STATX_SYNC_TYPE;
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | g::AT_STATX_SYNC_TYPE) != 0
        || sync == g::AT_STATX_SYNC_TYPE
        || want & g::STATX__RESERVED != 0
    {
        return Err(Errno::EINVAL);
    }
    let path = if a.u64(1) == 0 && flags & AT_EMPTY_PATH != 0 {
        alloc::vec::Vec::new()
    } else {
        path_arg(a.cstr(1))?
    };
    let t = target(c, a.i32(0), &path, flags, true)?;
    let s = t.stat()?;
    let mut out = statx::zeroed();
    out.stx_mask = g::STATX_BASIC_STATS;
    if s.btime_s != 0 || s.btime_ns != 0 {
        out.stx_mask |= g::STATX_BTIME;
    }
    out.stx_blksize = s.blksize as u32;
    out.stx_nlink = s.nlink;
    (out.stx_uid, out.stx_gid) = crate::ns::shown_owner(s.uid, s.gid);
    out.stx_mode = s.mode as u16;
    out.stx_ino = s.ino;
    out.stx_size = s.size;
    out.stx_blocks = s.blocks;
    let stamp = |sec: i64, ns: u64| {
        let mut t = out.stx_atime;
        t.tv_sec = sec;
        t.tv_nsec = ns as u32;
        t
    };
    let (atime, mtime) = (stamp(s.atime_s, s.atime_ns), stamp(s.mtime_s, s.mtime_ns));
    let (ctime, btime) = (stamp(s.ctime_s, s.ctime_ns), stamp(s.btime_s, s.btime_ns));
    out.stx_atime = atime;
    out.stx_mtime = mtime;
    out.stx_ctime = ctime;
    out.stx_btime = btime;
    out.stx_rdev_major = major(s.rdev);
    out.stx_rdev_minor = minor(s.rdev);
    out.stx_dev_major = major(s.dev);
    out.stx_dev_minor = minor(s.dev);
    out.stx_attributes_mask = u64::from(g::STATX_ATTR_MOUNT_ROOT);
    if let Some(p) = t.path() {
        out.stx_mask |= want & (g::STATX_MNT_ID | g::STATX_MNT_ID_UNIQUE);
        out.stx_mnt_id = u64::from(p.mount.id);
        if Arc::ptr_eq(&p.mount.root, &p.dentry) {
            out.stx_attributes |= u64::from(g::STATX_ATTR_MOUNT_ROOT);
        }
    }
    UserPtr::<statx>::new(a.u64(4)).write(&out)?;
    Ok(0)
}

fn put_statfs(addr: u64, s: &HostStatFs, mount_flags: u64) -> SysResult {
    let mut out = statfs64::zeroed();
    out.f_type = s.kind as _;
    out.f_bsize = s.bsize as _;
    out.f_blocks = s.blocks as _;
    out.f_bfree = s.bfree as _;
    out.f_bavail = s.bavail as _;
    out.f_files = s.files as _;
    out.f_ffree = s.ffree as _;
    out.f_namelen = s.namelen as _;
    out.f_frsize = s.bsize as _;
    // ST_VALID, and the flags of this mount: ST_RDONLY to ST_NOEXEC equal MS_*, ST_RELATIME differs.
    let relatime = mount_flags & u64::from(g::MS_RELATIME) != 0;
    out.f_flags = (0x20 | mount_flags & 0xf | mount_flags & 0xc00 | if relatime { 0x1000 } else { 0 }) as _;
    UserPtr::<statfs64>::new(addr).write(&out)?;
    Ok(0)
}

fn statfs_of(t: &Target, out: u64) -> SysResult {
    match t.path() {
        Some(p) => put_statfs(out, &p.inode().statfs()?, p.mount_flags()),
        None => {
            // Pipes, sockets and the like lie on file systems that are nowhere mounted.
            const ANON_INODE_MAGIC: u64 = 0x0904_1934;
            let s = HostStatFs {
                kind: ANON_INODE_MAGIC,
                bsize: 4096,
                namelen: 255,
                ..HostStatFs::default()
            };
            put_statfs(out, &s, 0)
        }
    }
}

fn sys_statfs(c: &mut Ctx<'_>, path: UserCStr, out: u64) -> SysResult {
    let t = target(c, AT_FDCWD, &path_arg(path)?, 0, true)?;
    statfs_of(&t, out)
}

fn sys_fstatfs(c: &mut Ctx<'_>, fd: Fd, out: u64) -> SysResult {
    let f = file(c, fd)?;
    statfs_of(&Target::File(f), out)
}

/// Credentials `access` checks with: the real ids, and capabilities only for the real root.
fn real_creds(creds: &Creds) -> Creds {
    let mut real = creds.clone();
    real.fsuid = creds.uid;
    real.fsgid = creds.gid;
    real.caps.effective = if Some(creds.uid) == creds.root() {
        creds.caps.permitted
    } else {
        0
    };
    real
}

fn faccessat(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr, mode: u32, flags: u32) -> SysResult {
    if mode & !7 != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = path_arg(path)?;
    let who = Who::of(c);
    let creds = if flags & AT_EACCESS != 0 {
        who.creds.clone()
    } else {
        Arc::new(real_creds(&who.creds))
    };
    let t = if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
        target(c, dirfd, &path, flags, true)?
    } else {
        let at = super::files::start(c, dirfd, &path)?;
        let mut walk = crate::fs::walk::Flags::empty();
        walk.set(crate::fs::walk::Flags::FOLLOW, flags & AT_SYMLINK_NOFOLLOW == 0);
        Target::Place(crate::fs::walk::find(&who.fs, &creds, at.as_ref(), &path, walk)?)
    };
    if mode == 0 {
        return Ok(0);
    }
    let o = t.object()?;
    let kind = o.inode.file_type();
    if let Some(p) = &o.path {
        if mode & 1 != 0 && kind == FileType::Regular && p.mount.has(MS_NOEXEC) {
            return Err(Errno::EACCES);
        }
        if mode & 2 != 0 && matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink) {
            check(&creds, &o.inode.attr()?, mode)?;
            writable(&p.mount)?;
            return Ok(0);
        }
    }
    check(&creds, &o.inode.attr()?, mode)?;
    Ok(0)
}

fn fchmodat(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr, mode: u32, flags: u32) -> SysResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let t = target(c, dirfd, &path_arg(path)?, flags, true)?;
    attr::chmod(&t.object()?, mode, &c.task.creds())?;
    Ok(0)
}

fn sys_fchmod(c: &mut Ctx<'_>, fd: Fd, mode: u32) -> SysResult {
    let f = super::files::io_file(c, fd)?;
    attr::chmod(&Target::File(f).object()?, mode, &c.task.creds())?;
    Ok(0)
}

/// What `chown` is told: the numbers of the caller's user namespace, -1 keeps.
fn owners(c: &Ctx<'_>, uid: u32, gid: u32) -> SysResult<(Option<u32>, Option<u32>)> {
    let creds = c.task.creds();
    let number = |v: u32, kernel: Option<u32>| match v {
        u32::MAX => Ok(None),
        _ => kernel.map(Some).ok_or(Errno::EINVAL),
    };
    Ok((
        number(uid, creds.kernel_uid(uid))?,
        number(gid, creds.kernel_gid(gid))?,
    ))
}

fn fchownat(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr, uid: u32, gid: u32, flags: u32) -> SysResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let t = target(c, dirfd, &path_arg(path)?, flags, true)?;
    let (uid, gid) = owners(c, uid, gid)?;
    attr::chown(&t.object()?, uid, gid, &c.task.creds())?;
    Ok(0)
}

fn sys_fchown(c: &mut Ctx<'_>, fd: Fd, uid: u32, gid: u32) -> SysResult {
    let f = super::files::io_file(c, fd)?;
    let (uid, gid) = owners(c, uid, gid)?;
    attr::chown(&Target::File(f).object()?, uid, gid, &c.task.creds())?;
    Ok(0)
}

fn sys_utime(c: &mut Ctx<'_>, path: UserCStr, times: u64) -> SysResult {
    let times = match UserPtr::<[i64; 2]>::nonnull(times) {
        None => None,
        Some(p) => {
            let [atime, mtime] = p.read()?;
            Some([(atime, 0), (mtime, 0)])
        }
    };
    let t = target(c, AT_FDCWD, &path_arg(path)?, 0, true)?;
    attr::set_times(&t.object()?, times, &c.task.creds())?;
    Ok(0)
}

fn sys_futimesat(c: &mut Ctx<'_>, dirfd: i32, path: u64, times: u64) -> SysResult {
    let times = match UserPtr::<timeval>::nonnull(times) {
        None => None,
        Some(p) => {
            let mut out = [(0, 0); 2];
            for (i, o) in out.iter_mut().enumerate() {
                let t = p.at(i).read()?;
                if !(0..1_000_000).contains(&t.tv_usec) {
                    return Err(Errno::EINVAL);
                }
                *o = (t.tv_sec, t.tv_usec * 1000);
            }
            Some(out)
        }
    };
    let t = if path == 0 {
        Target::File(file(c, Fd(dirfd))?)
    } else {
        target(c, dirfd, &path_arg(UserCStr::new(path))?, 0, true)?
    };
    attr::set_times(&t.object()?, times, &c.task.creds())?;
    Ok(0)
}

fn sys_utimensat(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let flags = a.u32(3);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let times = match UserPtr::<[i64; 2]>::nonnull(a.u64(2)) {
        None => None,
        Some(p) => {
            let (x, y) = (p.read()?, p.at(1).read()?);
            Some([(x[0], x[1]), (y[0], y[1])])
        }
    };
    let t = if a.u64(1) == 0 {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        Target::File(super::files::io_file(c, a.fd(0))?)
    } else {
        target(c, a.i32(0), &path_arg(a.cstr(1))?, flags, true)?
    };
    attr::set_times(&t.object()?, times, &c.task.creds())?;
    Ok(0)
}
