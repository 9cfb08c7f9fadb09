//! fcntl, flock, ioctl. Source: `fcntl(2)`, `flock(2)`, `ioctl(2)`.

use super::files::{file, io_file};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::anon;
use crate::fs::fdtable::Fd;
use crate::fs::file::{File, Signals};
use crate::fs::inode::FileType;
use crate::fs::locks::{self, Kind, Owner, Range};
use crate::fs::sigio::{self, Target};
use crate::fs::{open::FASYNC, pipe};
use crate::ns::pid;
use crate::rows;
use crate::task::creds::cap;
use alloc::sync::Arc;
use hal::uapi::general as g;
use hal::uapi::ioctl as io;
use hal::user::UserPtr;
use qlib::Errno;

rows! {
    fcntl: Partial("no leases, no dnotify"), |c, a| sys_fcntl(c, a.fd(0), a.u32(1), a.u64(2));
    flock: Full, |c, a| sys_flock(c, a.fd(0), a.u32(1));
    ioctl: Partial("requests of file systems and devices that QKernel does not have are ENOTTY"), sys_ioctl;
}

/// Flags F_SETFL changes.
const SETTABLE: u32 = g::O_APPEND | g::O_NONBLOCK | FASYNC | g::O_DIRECT | g::O_NOATIME;

fn sys_fcntl(c: &mut Ctx<'_>, fd: Fd, cmd: u32, arg: u64) -> SysResult {
    let f = file(c, fd)?;
    if f.is_path_only()
        && !matches!(
            cmd,
            g::F_DUPFD | g::F_DUPFD_CLOEXEC | g::F_GETFD | g::F_SETFD | g::F_GETFL
        )
    {
        return Err(Errno::EBADF);
    }
    match cmd {
        g::F_DUPFD | g::F_DUPFD_CLOEXEC => {
            let limit = anon::descriptor_limit(c.task);
            let from = arg as u32 as u64;
            if from >= limit || from > i32::MAX as u64 {
                return Err(Errno::EINVAL);
            }
            let fd = c
                .task
                .files()
                .insert(f, cmd == g::F_DUPFD_CLOEXEC, from as usize, limit)?;
            Ok(fd.0 as u64)
        }
        g::F_GETFD => Ok(u64::from(c.task.files().close_on_exec(fd)?)),
        g::F_SETFD => {
            c.task.files().set_close_on_exec(fd, arg & 1 != 0)?;
            Ok(0)
        }
        g::F_GETFL => Ok(u64::from(f.flags() & !g::O_CLOEXEC)),
        g::F_SETFL => set_flags(c, &f, fd, arg as u32),
        g::F_GETLK | g::F_OFD_GETLK => get_lock(c, &f, cmd == g::F_OFD_GETLK, arg),
        g::F_SETLK | g::F_SETLKW | g::F_OFD_SETLK | g::F_OFD_SETLKW => {
            let description = matches!(cmd, g::F_OFD_SETLK | g::F_OFD_SETLKW);
            let wait = matches!(cmd, g::F_SETLKW | g::F_OFD_SETLKW);
            set_lock(c, &f, description, wait, arg)
        }
        g::F_GETOWN => Ok(owner_number(&f) as i64 as u64),
        g::F_SETOWN => set_owner_number(c, &f, fd, arg as i32),
        g::F_GETOWN_EX => {
            let (kind, who) = owner(&f);
            UserPtr::<[i32; 2]>::new(arg).write(&[kind as i32, who as i32])?;
            Ok(0)
        }
        g::F_SETOWN_EX => {
            let [kind, who] = UserPtr::<[i32; 2]>::new(arg).read()?;
            let who = who as u32;
            let target = match kind as u32 {
                g::F_OWNER_TID | g::F_OWNER_PID | g::F_OWNER_PGRP if who == 0 => Target::Nobody,
                g::F_OWNER_TID => Target::Thread(named(c, who)?),
                g::F_OWNER_PID => Target::Process(named(c, who)?),
                g::F_OWNER_PGRP => Target::Group(named(c, who)?),
                _ => return Err(Errno::EINVAL),
            };
            set_owner(c, &f, fd, target)
        }
        g::F_GETSIG => Ok(u64::from(f.owner.lock().signal)),
        g::F_SETSIG => {
            if arg > 64 {
                return Err(Errno::EINVAL);
            }
            f.owner.lock().signal = arg as u32;
            Ok(0)
        }
        g::F_SETPIPE_SZ => {
            let p = pipe::of(&f).ok_or(Errno::EBADF)?;
            let privileged = c.task.creds().capable(cap::SYS_RESOURCE);
            Ok(p.set_size(arg as u32 as u64, privileged)? as u64)
        }
        g::F_GETPIPE_SZ => Ok(pipe::of(&f).ok_or(Errno::EBADF)?.size() as u64),
        g::F_ADD_SEALS => {
            if f.ops().seals().is_some() && !f.writable() {
                return Err(Errno::EPERM);
            }
            const F_SEAL_WRITE: u64 = 8;
            if f.ops().seals().is_some() && arg & F_SEAL_WRITE != 0 && crate::mm::is_written_through(&f) {
                return Err(Errno::EBUSY);
            }
            f.ops().add_seals(arg as u32)?;
            Ok(0)
        }
        g::F_GET_SEALS => f.ops().seals().map(u64::from).ok_or(Errno::EINVAL),
        // Directories are watched by inotify alone; giving up a watch there never was is no error.
        g::F_NOTIFY if arg as u32 & !g::DN_MULTISHOT == 0 => {
            if f.inode().map(|i| i.file_type()) == Some(FileType::Directory) {
                Ok(0)
            } else {
                Err(Errno::ENOTDIR)
            }
        }
        g::F_GETLEASE => Ok(u64::from(g::F_UNLCK)),
        g::F_DUPFD_QUERY => {
            let other = file(c, Fd(arg as i32))?;
            Ok(u64::from(Arc::ptr_eq(&f, &other)))
        }
        _ => Err(Errno::EINVAL),
    }
}

fn set_flags(c: &Ctx<'_>, f: &Arc<File>, fd: Fd, value: u32) -> SysResult {
    if value & g::O_NOATIME & !f.flags() != 0 {
        let creds = c.task.creds();
        let owner = f
            .inode()
            .and_then(|i| i.attr().ok())
            .is_some_and(|a| a.uid == creds.fsuid);
        if !owner && !creds.capable(cap::FOWNER) {
            return Err(Errno::EPERM);
        }
    }
    // A memory file sealed against writing or any append-only file could object here; QKernel has none.
    let changed = (f.flags() ^ value) & FASYNC != 0;
    if changed {
        set_async(f, fd, value & FASYNC != 0)?;
    }
    f.set_flags(SETTABLE, value);
    Ok(0)
}

/// Turns signals of readiness on or off.
fn set_async(f: &Arc<File>, fd: Fd, on: bool) -> Result<(), Errno> {
    let flag = |on| f.set_flags(FASYNC, if on { FASYNC } else { 0 });
    flag(on);
    sigio::watch(f, fd.0).inspect_err(|_| flag(!on))
}

/// Whom signals of the file go to, as `struct f_owner_ex` says it; 0 where that is gone.
fn owner(f: &File) -> (u32, u32) {
    let target = f.owner.lock().target;
    let (kind, who) = match target {
        Target::Nobody => (g::F_OWNER_TID, 0),
        Target::Thread(n) => (g::F_OWNER_TID, n),
        Target::Process(n) => (g::F_OWNER_PID, n),
        Target::Group(n) => (g::F_OWNER_PGRP, n),
    };
    (kind, if target.exists() { pid::shown(who) } else { 0 })
}

/// The same as one number, a group's negative.
fn owner_number(f: &File) -> i32 {
    match owner(f) {
        (g::F_OWNER_PGRP, n) => -(n as i32),
        (_, n) => n as i32,
    }
}

/// The number in the root namespace of whom the caller names.
fn named(c: &Ctx<'_>, number: u32) -> SysResult<u32> {
    c.task.pid_ns().kernel(number).ok_or(Errno::ESRCH)
}

fn set_owner_number(c: &Ctx<'_>, f: &Arc<File>, fd: Fd, who: i32) -> SysResult {
    let target = match who {
        i32::MIN => return Err(Errno::EINVAL),
        0 => Target::Nobody,
        n if n < 0 => Target::Group(named(c, n.unsigned_abs())?),
        n => Target::Process(named(c, n as u32)?),
    };
    set_owner(c, f, fd, target)
}

fn set_owner(c: &Ctx<'_>, f: &Arc<File>, fd: Fd, target: Target) -> SysResult {
    if !target.exists() {
        return Err(Errno::ESRCH);
    }
    let creds = c.task.creds();
    {
        let mut o = f.owner.lock();
        (o.target, o.uid, o.euid) = (target, creds.uid, creds.euid);
    }
    if f.ops().signals() == Signals::Socket {
        sigio::watch(f, fd.0)?;
    }
    Ok(0)
}

/// The bytes a `struct flock` names. Source: Linux `flock64_to_posix_lock`.
fn lock_range(f: &Arc<File>, l: &g::flock) -> SysResult<Range> {
    let base = match l.l_whence as u32 {
        0 => 0,
        1 => {
            let pos = *f.pos.lock();
            f.position(pos)? as i64
        }
        2 => f.ops().stat(f)?.size as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(l.l_start).ok_or(Errno::EOVERFLOW)?;
    if start < 0 {
        return Err(Errno::EINVAL);
    }
    let (start, last) = match l.l_len {
        0 => (start, u64::MAX),
        n if n > 0 => {
            let last = start.checked_add(n - 1).ok_or(Errno::EOVERFLOW)?;
            (start, if last == i64::MAX { u64::MAX } else { last as u64 })
        }
        n => {
            let first = start.checked_add(n).filter(|s| *s >= 0).ok_or(Errno::EINVAL)?;
            (first, (start - 1) as u64)
        }
    };
    Ok(Range {
        start: start as u64,
        last,
    })
}

fn lock_owner(c: &Ctx<'_>, f: &Arc<File>, description: bool) -> Owner {
    if description {
        Owner::Description(Arc::as_ptr(f) as usize)
    } else {
        Owner::Process(Arc::as_ptr(&c.task.files()) as usize)
    }
}

fn lock_kind(l: &g::flock) -> SysResult<Option<Kind>> {
    match l.l_type as u32 {
        g::F_RDLCK => Ok(Some(Kind::Read)),
        g::F_WRLCK => Ok(Some(Kind::Write)),
        g::F_UNLCK => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

fn get_lock(c: &Ctx<'_>, f: &Arc<File>, description: bool, arg: u64) -> SysResult {
    let p = UserPtr::<g::flock>::new(arg);
    let mut l = p.read()?;
    let kind = lock_kind(&l)?.ok_or(Errno::EINVAL)?;
    if description && l.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let range = lock_range(f, &l)?;
    match locks::get(f, lock_owner(c, f, description), kind, range)? {
        None => l.l_type = g::F_UNLCK as _,
        Some((kind, range, pid)) => {
            l.l_type = match kind {
                Kind::Read => g::F_RDLCK,
                Kind::Write => g::F_WRLCK,
            } as _;
            l.l_whence = 0;
            l.l_start = range.start as _;
            l.l_len = if range.last == u64::MAX {
                0
            } else {
                (range.last - range.start + 1) as _
            };
            l.l_pid = if pid > 0 {
                pid::shown(pid as u32) as i32
            } else {
                pid
            };
        }
    }
    p.write(&l)?;
    Ok(0)
}

fn set_lock(c: &Ctx<'_>, f: &Arc<File>, description: bool, wait: bool, arg: u64) -> SysResult {
    let l = UserPtr::<g::flock>::new(arg).read()?;
    let kind = lock_kind(&l)?;
    if description && l.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    match kind {
        Some(Kind::Read) if !f.readable() => return Err(Errno::EBADF),
        Some(Kind::Write) if !f.writable() => return Err(Errno::EBADF),
        _ => {}
    }
    let range = lock_range(f, &l)?;
    locks::set(f, lock_owner(c, f, description), kind, range, wait)?;
    Ok(0)
}

fn sys_flock(c: &mut Ctx<'_>, fd: Fd, op: u32) -> SysResult {
    let f = io_file(c, fd)?;
    locks::flock(&f, op)?;
    Ok(0)
}

fn sys_ioctl(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let f = io_file(c, a.fd(0))?;
    let (request, arg) = (a.u32(1), a.u64(2));
    match request {
        io::FIOCLEX | io::FIONCLEX => {
            c.task
                .files()
                .set_close_on_exec(a.fd(0), request == io::FIOCLEX)?;
            return Ok(0);
        }
        io::FIONBIO => {
            let on = UserPtr::<i32>::new(arg).read()? != 0;
            f.set_flags(g::O_NONBLOCK, if on { g::O_NONBLOCK } else { 0 });
            return Ok(0);
        }
        io::FIOASYNC => {
            let on = UserPtr::<i32>::new(arg).read()? != 0;
            if on == (f.flags() & FASYNC != 0) {
                return Ok(0);
            }
            if f.ops().signals() == Signals::Never {
                return Err(Errno::ENOTTY);
            }
            return set_async(&f, a.fd(0), on).map(|()| 0);
        }
        io::FIOSETOWN | io::SIOCSPGRP if f.ops().signals() == Signals::Socket => {
            let who = UserPtr::<i32>::new(arg).read()?;
            return set_owner_number(c, &f, a.fd(0), who);
        }
        io::FIOGETOWN | io::SIOCGPGRP if f.ops().signals() == Signals::Socket => {
            UserPtr::<i32>::new(arg).write(&owner_number(&f))?;
            return Ok(0);
        }
        io::FIONREAD if f.ops().is_regular() => {
            let size = f.ops().stat(&f)?.size;
            let pos = {
                let pos = *f.pos.lock();
                f.position(pos)?
            };
            let left = (size as i64).saturating_sub(pos as i64);
            UserPtr::<i32>::new(arg).write(&(left as i32))?;
            return Ok(0);
        }
        _ => {}
    }
    let r = f.ops().ioctl(&f, c, request, arg);
    match (r, request) {
        (Err(Errno::ENOTTY), io::FIGETBSZ) => {
            let kind = f.inode().map(|i| i.file_type());
            if !matches!(kind, Some(FileType::Regular | FileType::Directory)) {
                return Err(Errno::ENOTTY);
            }
            UserPtr::<i32>::new(arg).write(&(f.ops().stat(&f)?.blksize as i32))?;
            Ok(0)
        }
        (Err(Errno::ENOTTY), io::FICLONE | io::FICLONERANGE) if f.ops().is_regular() => {
            Err(Errno::EOPNOTSUPP)
        }
        (r, _) => r,
    }
}
