//! Opening, closing and duplicating descriptors. Source: `open(2)`, `openat2(2)`, `dup(2)`, `close_range(2)`.

use super::files::{Who, file, path_arg, start};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::anon;
use crate::fs::fdtable::{self, Fd};
use crate::fs::memfd;
use crate::fs::open::{self, How};
use crate::fs::walk::Flags;
use crate::rows;
use core::sync::atomic::Ordering;
use hal::uapi::general::{
    AT_FDCWD, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_LARGEFILE, O_PATH, O_TMPFILE, O_TRUNC, O_WRONLY,
    RESOLVE_BENEATH, RESOLVE_CACHED, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV, open_how,
};
use hal::user::{UserCStr, UserPtr};
use qlib::Errno;

rows! {
    open: Full, |c, a| sys_openat(c, AT_FDCWD, a.cstr(0), a.u32(1), a.u32(2));
    openat: Full, |c, a| sys_openat(c, a.i32(0), a.cstr(1), a.u32(2), a.u32(3));
    openat2: Partial("RESOLVE_CACHED always says EAGAIN"), |c, a| sys_openat2(c, a);
    creat: Full, |c, a| sys_openat(c, AT_FDCWD, a.cstr(0), O_CREAT | O_WRONLY | O_TRUNC, a.u32(1));
    close: Full, |c, a| sys_close(c, a.fd(0));
    close_range: Full, |c, a| sys_close_range(c, a.u32(0), a.u32(1), a.u32(2));
    dup: Full, |c, a| sys_dup(c, a.fd(0));
    dup2: Full, |c, a| sys_dup2(c, a.fd(0), a.fd(1));
    dup3: Full, |c, a| sys_dup3(c, a.fd(0), a.fd(1), a.u32(2));
    umask: Full, |c, a| Ok(u64::from(c.task.fs().umask.swap(a.u32(0) & 0o777, Ordering::Relaxed)));
    memfd_create: Partial("no huge pages"), |c, a| sys_memfd_create(c, a.cstr(0), a.u32(1));
}

fn open_fd(c: &Ctx<'_>, dirfd: i32, path: UserCStr, how: How) -> SysResult {
    let path = path_arg(path)?;
    let who = Who::of(c);
    let at = start(c, dirfd, &path)?;
    let file = open::open(&who.fs, &who.creds, at.as_ref(), &path, how)?;
    let fd = anon::install(c.task, file, how.flags & O_CLOEXEC != 0)?;
    Ok(fd.0 as u64)
}

fn sys_openat(c: &mut Ctx<'_>, dirfd: i32, path: UserCStr, flags: u32, mode: u32) -> SysResult {
    let mut flags = open::sanitize(flags);
    if flags & O_PATH == 0 {
        flags |= O_LARGEFILE;
    }
    open_fd(c, dirfd, path, How::new(flags, mode))
}

fn sys_openat2(c: &mut Ctx<'_>, a: Args) -> SysResult {
    const SIZE: u64 = size_of::<open_how>() as u64;
    let (addr, size) = (a.u64(2), a.u64(3));
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let how = UserPtr::<open_how>::new(addr).read()?;
    // A longer structure is fine as long as what this kernel does not know is zero.
    let extra = hal::user::UserSlice::new(addr.wrapping_add(SIZE), size - SIZE)?.to_vec(4096)?;
    if extra.iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG);
    }
    let flags = u32::try_from(how.flags).map_err(|_| Errno::EINVAL)?;
    if flags & !open::VALID_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let creates = flags & O_CREAT != 0 || flags & O_TMPFILE == O_TMPFILE;
    if how.mode != 0 && !creates || how.mode & !0o7777 != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & O_PATH != 0
        && flags & !(O_PATH | O_CLOEXEC | O_DIRECTORY | hal::uapi::general::O_NOFOLLOW) != 0
    {
        return Err(Errno::EINVAL);
    }
    let resolve = u32::try_from(how.resolve).map_err(|_| Errno::EINVAL)?;
    let mut walk = Flags::empty();
    for (bit, flag) in [
        (RESOLVE_NO_XDEV, Flags::NO_XDEV),
        (RESOLVE_NO_MAGICLINKS, Flags::NO_MAGICLINKS),
        (RESOLVE_NO_SYMLINKS, Flags::NO_SYMLINKS),
        (RESOLVE_BENEATH, Flags::BENEATH),
        (RESOLVE_IN_ROOT, Flags::IN_ROOT),
    ] {
        walk.set(flag, resolve & bit != 0);
    }
    let known = RESOLVE_NO_XDEV
        | RESOLVE_NO_MAGICLINKS
        | RESOLVE_NO_SYMLINKS
        | RESOLVE_BENEATH
        | RESOLVE_IN_ROOT
        | RESOLVE_CACHED;
    if resolve & !known != 0 || walk.contains(Flags::BENEATH | Flags::IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    if resolve & RESOLVE_CACHED != 0 {
        return Err(Errno::EAGAIN);
    }
    let mut flags = open::sanitize(flags);
    if flags & O_PATH == 0 {
        flags |= O_LARGEFILE;
    }
    let how = How {
        flags,
        mode: how.mode as u32,
        walk,
    };
    let path = a.cstr(1);
    // An absolute path inside a scope starts at the directory, so the descriptor counts there too.
    let bytes = path_arg(path)?;
    let who = Who::of(c);
    let scoped = walk.intersects(Flags::IN_ROOT | Flags::BENEATH);
    let at = start(c, a.i32(0), if scoped { b"" } else { &bytes })?;
    let file = open::open(&who.fs, &who.creds, at.as_ref(), &bytes, how)?;
    let fd = anon::install(c.task, file, how.flags & O_CLOEXEC != 0)?;
    Ok(fd.0 as u64)
}

fn sys_close(c: &mut Ctx<'_>, fd: Fd) -> SysResult {
    fdtable::close(c.task.files().remove(fd)?);
    Ok(0)
}

fn sys_close_range(c: &mut Ctx<'_>, first: u32, last: u32, flags: u32) -> SysResult {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    if flags & !(UNSHARE | CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    if flags & UNSHARE != 0 {
        let copy = c.task.files().copy();
        let old = core::mem::replace(&mut *c.task.files.lock(), copy);
        drop(old);
    }
    let files = c.task.files();
    let range = first as i64..=last as i64;
    for (fd, _) in files
        .list()
        .into_iter()
        .filter(|(fd, _)| range.contains(&i64::from(fd.0)))
    {
        if flags & CLOEXEC != 0 {
            // Another thread may have closed it meanwhile.
            let _ = files.set_close_on_exec(fd, true);
        } else if let Ok(f) = files.remove(fd) {
            fdtable::close(f);
        }
    }
    Ok(0)
}

fn sys_dup(c: &mut Ctx<'_>, fd: Fd) -> SysResult {
    let f = file(c, fd)?;
    Ok(anon::install(c.task, f, false)?.0 as u64)
}

fn replace(c: &Ctx<'_>, from: Fd, to: Fd, close_on_exec: bool) -> SysResult {
    let f = file(c, from)?;
    let limit = anon::descriptor_limit(c.task);
    if let Some(old) = c.task.files().replace(to, f, close_on_exec, limit)? {
        fdtable::close(old);
    }
    Ok(to.0 as u64)
}

fn sys_dup2(c: &mut Ctx<'_>, from: Fd, to: Fd) -> SysResult {
    if from == to {
        file(c, from)?;
        return Ok(to.0 as u64);
    }
    replace(c, from, to, false)
}

fn sys_dup3(c: &mut Ctx<'_>, from: Fd, to: Fd, flags: u32) -> SysResult {
    if from == to || flags & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    replace(c, from, to, flags & O_CLOEXEC != 0)
}

fn sys_memfd_create(c: &mut Ctx<'_>, name: UserCStr, flags: u32) -> SysResult {
    const CLOEXEC: u32 = 1;
    const ALLOW_SEALING: u32 = 2;
    const HUGETLB: u32 = 4;
    const NOEXEC_SEAL: u32 = 8;
    const EXEC: u32 = 16;
    if flags & HUGETLB != 0 {
        return Err(Errno::ENOSYS);
    }
    if flags & !(CLOEXEC | ALLOW_SEALING | NOEXEC_SEAL | EXEC) != 0
        || flags & (NOEXEC_SEAL | EXEC) == NOEXEC_SEAL | EXEC
    {
        return Err(Errno::EINVAL);
    }
    // NAME_MAX less the "memfd:" that /proc shows before it.
    let name = name.read(249).map_err(|e| match e {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        e => e,
    })?;
    let file = memfd::create(
        &name,
        flags & ALLOW_SEALING != 0,
        flags & NOEXEC_SEAL != 0,
        &c.task.creds(),
    )?;
    let fd = anon::install(c.task, file, flags & CLOEXEC != 0)?;
    Ok(fd.0 as u64)
}
