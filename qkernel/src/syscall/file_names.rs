//! Names and directories. Source: `mkdir(2)`, `rename(2)`, `link(2)`, `unlink(2)`, `getdents(2)`, `chdir(2)`.

use super::files::{Target, Who, file, io_file, parent, path_arg, target};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::fdtable::Fd;
use crate::fs::file::DirSink;
use crate::fs::inode::FileType;
use crate::fs::names;
use crate::fs::walk::{self, Flags, Last};
use crate::rows;
use crate::task::creds::cap;
use alloc::vec::Vec;
use hal::uapi::general::{
    AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, RENAME_EXCHANGE,
    RENAME_NOREPLACE, RENAME_WHITEOUT,
};
use hal::user::{UserCStr, UserSlice};
use qlib::Errno;

rows! {
    mkdir: Full, |c, a| mkdirat(c, AT_FDCWD, a.cstr(0), a.u32(1));
    mkdirat: Full, |c, a| mkdirat(c, a.i32(0), a.cstr(1), a.u32(2));
    mknod: Full, |c, a| mknodat(c, AT_FDCWD, a.cstr(0), a.u32(1), a.u32(2));
    mknodat: Full, |c, a| mknodat(c, a.i32(0), a.cstr(1), a.u32(2), a.u32(3));
    rmdir: Full, |c, a| rmdir_at(c, AT_FDCWD, a.cstr(0));
    unlink: Full, |c, a| unlink_at(c, AT_FDCWD, a.cstr(0));
    unlinkat: Full, |c, a| sys_unlinkat(c, a);
    rename: Full, |c, a| renameat(c, AT_FDCWD, a.cstr(0), AT_FDCWD, a.cstr(1), 0);
    renameat: Full, |c, a| renameat(c, a.i32(0), a.cstr(1), a.i32(2), a.cstr(3), 0);
    renameat2: Partial("RENAME_WHITEOUT is EINVAL"), |c, a| renameat(c, a.i32(0), a.cstr(1), a.i32(2), a.cstr(3), a.u32(4));
    link: Full, |c, a| linkat(c, AT_FDCWD, a.cstr(0), AT_FDCWD, a.cstr(1), 0);
    linkat: Full, |c, a| linkat(c, a.i32(0), a.cstr(1), a.i32(2), a.cstr(3), a.u32(4));
    symlink: Full, |c, a| symlinkat(c, a.cstr(0), AT_FDCWD, a.cstr(1));
    symlinkat: Full, |c, a| symlinkat(c, a.cstr(0), a.i32(1), a.cstr(2));
    readlink: Full, |c, a| readlinkat(c, AT_FDCWD, a.cstr(0), a.u64(1), a.i32(2));
    readlinkat: Full, |c, a| readlinkat(c, a.i32(0), a.cstr(1), a.u64(2), a.i32(3));
    getdents: Full, |c, a| getdents(c, a, false);
    getdents64: Full, |c, a| getdents(c, a, true);
    chdir: Full, |c, a| sys_chdir(c, a.cstr(0));
    fchdir: Full, |c, a| sys_fchdir(c, a.fd(0));
    getcwd: Full, |c, a| sys_getcwd(c, a);
    chroot: Full, |c, a| sys_chroot(c, a.cstr(0));
}

fn mkdirat(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr, mode: u32) -> SysResult {
    let (dir, name, _) = parent(c, dirfd, &path_arg(path)?)?;
    let who = Who::of(c);
    names::mkdir_at(&dir, &name, who.fs.masked(mode), &who.creds)?;
    Ok(0)
}

fn mknodat(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr, mode: u32, dev: u32) -> SysResult {
    let kind = match mode & 0o170_000 {
        0 => FileType::Regular,
        0o040_000 => return Err(Errno::EPERM),
        0o100_000 | 0o020_000 | 0o060_000 | 0o010_000 | 0o140_000 => FileType::from_mode(mode),
        _ => return Err(Errno::EINVAL),
    };
    let (dir, name, slash) = parent(c, dirfd, &path_arg(path)?)?;
    if slash {
        return Err(Errno::ENOENT);
    }
    let who = Who::of(c);
    // Source: Linux `new_decode_dev`.
    let (major, minor) = (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xf_ff00);
    let rdev = match kind {
        FileType::CharDevice | FileType::BlockDevice => crate::fs::dev::makedev(major, minor),
        _ => 0,
    };
    let mode = who.fs.masked(mode) | kind.mode_bits();
    names::mknod_at(&dir, &name, mode, rdev, &who.creds)?;
    Ok(0)
}

/// The directory and name of something to remove; `dots` is the error for a path that ends in `.`.
fn victim(
    c: &Ctx<'_>,
    dirfd: i32,
    path: &[u8],
    dots: Errno,
) -> SysResult<(crate::fs::path::Path, Vec<u8>, bool)> {
    let who = Who::of(c);
    let at = super::files::start(c, dirfd, path)?;
    let (dir, last) = walk::parent_of(&who.fs, &who.creds, at.as_ref(), path)?;
    match last {
        Last::Name(name, slash) if name.len() <= walk::NAME_MAX => Ok((dir, name, slash)),
        Last::Name(..) => Err(Errno::ENAMETOOLONG),
        Last::Dot => Err(dots),
        Last::DotDot => Err(if dots == Errno::EINVAL {
            Errno::ENOTEMPTY
        } else {
            dots
        }),
        Last::Root => Err(if dots == Errno::EINVAL { Errno::EBUSY } else { dots }),
    }
}

fn rmdir_at(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr) -> SysResult {
    let (dir, name, _) = victim(c, dirfd, &path_arg(path)?, Errno::EINVAL)?;
    names::rmdir_at(&dir, &name, &c.task.creds())?;
    Ok(0)
}

fn unlink_at(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr) -> SysResult {
    let (dir, name, slash) = victim(c, dirfd, &path_arg(path)?, Errno::EISDIR)?;
    names::unlink_at(&dir, &name, slash, &c.task.creds())?;
    Ok(0)
}

fn sys_unlinkat(c: &mut Ctx<'_>, a: Args) -> SysResult {
    match a.u32(2) {
        0 => unlink_at(c, a.i32(0), a.cstr(1)),
        AT_REMOVEDIR => rmdir_at(c, a.i32(0), a.cstr(1)),
        _ => Err(Errno::EINVAL),
    }
}

fn renameat(
    c: &mut Ctx<'_>,
    old_fd: i32,
    old: UserCStr,
    new_fd: i32,
    new: UserCStr,
    flags: u32,
) -> SysResult {
    if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0 {
        return Err(Errno::EINVAL);
    }
    let (old, new) = (path_arg(old)?, path_arg(new)?);
    let (old_dir, old_name, old_slash) = victim(c, old_fd, &old, Errno::EBUSY)?;
    let taken = if flags & RENAME_NOREPLACE != 0 {
        Errno::EEXIST
    } else {
        Errno::EBUSY
    };
    let (new_dir, new_name, new_slash) = victim(c, new_fd, &new, taken)?;
    names::rename_at(
        names::Entry::new(&old_dir, &old_name, old_slash),
        names::Entry::new(&new_dir, &new_name, new_slash),
        flags,
        &c.task.creds(),
    )?;
    Ok(0)
}

fn linkat(c: &mut Ctx<'_>, old_fd: i32, old: UserCStr, new_fd: i32, new: UserCStr, flags: u32) -> SysResult {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let old = path_arg(old)?;
    let creds = c.task.creds();
    if old.is_empty() && flags & AT_EMPTY_PATH != 0 && !creds.capable(cap::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT);
    }
    let t = target(c, old_fd, &old, flags, false)?;
    let source = t.path().cloned().ok_or(Errno::EXDEV)?;
    let (dir, name, slash) = parent(c, new_fd, &path_arg(new)?)?;
    if slash {
        return Err(Errno::ENOENT);
    }
    names::link_at(&source, &dir, &name, &creds)?;
    Ok(0)
}

fn symlinkat(c: &mut Ctx<'_>, link_target: UserCStr, dirfd: i32, path: UserCStr) -> SysResult {
    let link_target = path_arg(link_target)?;
    if link_target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let (dir, name, slash) = parent(c, dirfd, &path_arg(path)?)?;
    if slash {
        return Err(Errno::ENOENT);
    }
    names::symlink_at(&dir, &name, &link_target, &c.task.creds())?;
    Ok(0)
}

fn readlinkat(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr, buf: u64, size: i32) -> SysResult {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    let path = path_arg(path)?;
    // An empty path means the O_PATH descriptor of a symlink itself.
    let flags = AT_SYMLINK_NOFOLLOW | if dirfd == AT_FDCWD { 0 } else { AT_EMPTY_PATH };
    let t = target(c, dirfd, &path, flags, false)?;
    let text = match &t {
        Target::Place(f) => f.path.inode().read_link()?,
        Target::File(f) => match f.path() {
            Some(p) if p.inode().file_type() == FileType::Symlink => p.inode().read_link()?,
            _ => return Err(Errno::ENOENT),
        },
    };
    let n = text.len().min(size as usize);
    UserSlice::new(buf, n as u64)?.write(&text[..n])?;
    Ok(n as u64)
}

/// Packs directory entries as the app wants them.
struct Packer {
    out: Vec<u8>,
    room: usize,
    wide: bool,
    /// An entry did not fit.
    full: bool,
}

impl DirSink for Packer {
    fn entry(&mut self, name: &[u8], ino: u64, kind: u8, next: u64) -> bool {
        // linux_dirent64: ino, off, reclen, type, name, NUL. linux_dirent: ino, off, reclen, name, NUL, …, type.
        let fixed = if self.wide { 19 } else { 18 };
        let tail = if self.wide { 1 } else { 2 };
        let len = (fixed + name.len() + tail).next_multiple_of(8);
        if self.out.len() + len > self.room {
            self.full = true;
            return false;
        }
        let end = self.out.len() + len;
        self.out.extend_from_slice(&ino.to_le_bytes());
        self.out.extend_from_slice(&next.to_le_bytes());
        self.out.extend_from_slice(&(len as u16).to_le_bytes());
        if self.wide {
            self.out.push(kind);
        }
        self.out.extend_from_slice(name);
        self.out.resize(end, 0);
        if !self.wide {
            self.out[end - 1] = kind;
        }
        true
    }
}

fn getdents(c: &mut Ctx<'_>, a: Args, wide: bool) -> SysResult {
    let f = io_file(c, a.fd(0))?;
    let room = a.u32(2) as usize;
    let dst = UserSlice::new(a.u64(1), room as u64)?;
    let mut sink = Packer {
        out: Vec::new(),
        room: room.min(256 * 1024),
        wide,
        full: false,
    };
    if f.path()
        .is_none_or(|p| p.inode().file_type() != FileType::Directory)
    {
        return Err(Errno::ENOTDIR);
    }
    if f.path().is_some_and(|p| p.dentry.is_deleted()) {
        return Err(Errno::ENOENT);
    }
    let mut pos = f.pos.lock();
    let next = f.ops().read_dir(&f, *pos, &mut sink)?;
    if sink.out.is_empty() && sink.full {
        return Err(Errno::EINVAL);
    }
    dst.write(&sink.out)?;
    *pos = next;
    Ok(sink.out.len() as u64)
}

fn sys_chdir(c: &mut Ctx<'_>, path: UserCStr) -> SysResult {
    let path = path_arg(path)?;
    let who = Who::of(c);
    let to = walk::lookup(&who.fs, &who.creds, None, &path, Flags::FOLLOW | Flags::DIRECTORY)?;
    walk::may_search(&who.creds, &to)?;
    who.fs.set_cwd(to);
    Ok(0)
}

fn sys_fchdir(c: &mut Ctx<'_>, fd: Fd) -> SysResult {
    let f = file(c, fd)?;
    let who = Who::of(c);
    let to = f.path().cloned().ok_or(Errno::ENOTDIR)?;
    walk::may_search(&who.creds, &to)?;
    who.fs.set_cwd(to);
    Ok(0)
}

fn sys_getcwd(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let who = Who::of(c);
    let cwd = who.fs.cwd();
    if cwd.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let (mut text, below) = cwd.relative_to(&who.fs.root());
    if !below {
        text.splice(0..0, *b"(unreachable)");
    }
    text.push(0);
    if text.len() as u64 > a.u64(1) {
        return Err(Errno::ERANGE);
    }
    UserSlice::new(a.u64(0), text.len() as u64)?.write(&text)?;
    Ok(text.len() as u64)
}

fn sys_chroot(c: &mut Ctx<'_>, path: UserCStr) -> SysResult {
    let path = path_arg(path)?;
    let who = Who::of(c);
    let to = walk::lookup(&who.fs, &who.creds, None, &path, Flags::FOLLOW | Flags::DIRECTORY)?;
    walk::may_search(&who.creds, &to)?;
    if !who.creds.has(cap::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    who.fs.set_root(to);
    Ok(0)
}
