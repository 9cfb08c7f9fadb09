//! mq_open, mq_unlink, mq_timedsend, mq_timedreceive, mq_notify, mq_getsetattr.

use super::poll::timespec_ns;
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::anon;
use crate::fs::file::File;
use crate::ipc::mqueue::{self, MAX_PRIORITY, Notification, QueueFile};
use crate::rows;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::clock::{monotonic_ns, realtime_ns};
use hal::uapi::general::{__kernel_timespec, O_NONBLOCK};
use hal::user::{UserPtr, UserSlice};
use qlib::Errno;

rows! {
    mq_open: Full, |c, a| sys_mq_open(c, a);
    mq_unlink: Full, |c, a| sys_mq_unlink(c, a);
    mq_timedsend: Full, |c, a| sys_mq_timedsend(c, a);
    mq_timedreceive: Full, |c, a| sys_mq_timedreceive(c, a);
    mq_notify: Partial("no SIGEV_THREAD"), |c, a| sys_mq_notify(c, a);
    mq_getsetattr: Full, |c, a| sys_mq_getsetattr(c, a);
}

/// Words of `struct mq_attr`.
const ATTR_WORDS: usize = 8;

fn sys_mq_open(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let name = a.cstr(0).read(4095)?;
    let size = match a.u64(3) {
        0 => None,
        p => {
            let v = UserPtr::<i64>::new(p).read_vec(ATTR_WORDS)?;
            Some((v[1], v[2]))
        }
    };
    let mode = a.u32(2) & !c.task.fs().umask.load(Ordering::Relaxed);
    let file = mqueue::open(&name, a.u32(1), mode, size, &c.task.creds())?;
    Ok(anon::install(c.task, file, true)?.0 as u64)
}

fn sys_mq_unlink(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let name = a.cstr(0).read(4095)?;
    mqueue::unlink(&name, &c.task.creds()).map(|()| 0)
}

/// The open queue of a descriptor.
fn queue(c: &Ctx<'_>, a: &Args) -> SysResult<Arc<File>> {
    let file = c.task.files().get(a.fd(0))?;
    match file.downcast::<QueueFile>() {
        Some(_) => Ok(file),
        None => Err(Errno::EBADF),
    }
}

fn of(file: &File) -> SysResult<&QueueFile> {
    file.downcast::<QueueFile>().ok_or(Errno::EBADF)
}

/// A deadline given as an absolute time of the real-time clock.
fn deadline(addr: u64) -> SysResult<Option<u64>> {
    let Some(p) = UserPtr::<__kernel_timespec>::nonnull(addr) else {
        return Ok(None);
    };
    let t = p.read()?;
    let ns = timespec_ns(t.tv_sec, t.tv_nsec)?;
    Ok(Some(
        monotonic_ns().saturating_add(ns.saturating_sub(realtime_ns())),
    ))
}

fn sys_mq_timedsend(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let priority = a.u32(3);
    if priority >= MAX_PRIORITY {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline(a.u64(4))?;
    let file = queue(c, &a)?;
    let q = &of(&file)?.0;
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    if a.u64(2) > q.max_size {
        return Err(Errno::EMSGSIZE);
    }
    let bytes = a.slice(1)?.to_vec(q.max_size as usize)?;
    q.send(bytes, priority, file.nonblock(), deadline).map(|()| 0)
}

fn sys_mq_timedreceive(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let deadline = deadline(a.u64(4))?;
    let file = queue(c, &a)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    let (bytes, priority) = of(&file)?.0.receive(a.u64(2), file.nonblock(), deadline)?;
    if let Some(p) = UserPtr::<u32>::nonnull(a.u64(3)) {
        p.write(&priority)?;
    }
    UserSlice::new(a.u64(1), bytes.len() as u64)?.write(&bytes)?;
    Ok(bytes.len() as u64)
}

fn sys_mq_notify(c: &mut Ctx<'_>, a: Args) -> SysResult {
    const SIGEV_SIGNAL: i32 = 0;
    const SIGEV_NONE: i32 = 1;
    let event = match a.u64(1) {
        0 => None,
        p => {
            let value = UserPtr::<u64>::new(p).read()?;
            let [signo, how] = UserPtr::<[i32; 2]>::new(p.wrapping_add(8)).read()?;
            match how {
                SIGEV_NONE => Some((0, value)),
                SIGEV_SIGNAL if (0..=64).contains(&signo) => Some((signo as u32, value)),
                SIGEV_SIGNAL => return Err(Errno::EINVAL),
                // The C library makes SIGEV_THREAD of a netlink socket that only the kernel can write to.
                2 => return Err(Errno::ENOSYS),
                _ => return Err(Errno::EINVAL),
            }
        }
    };
    let file = queue(c, &a)?;
    let process = &c.task.process;
    let n = event.map(|(signo, value)| Notification {
        process: Arc::downgrade(process),
        signo,
        value,
    });
    of(&file)?.0.notify(process, n).map(|()| 0)
}

fn sys_mq_getsetattr(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = queue(c, &a)?;
    let new = match UserPtr::<i64>::nonnull(a.u64(1)) {
        Some(p) => Some(p.read()?),
        None => None,
    };
    if new.is_some_and(|f| f & !i64::from(O_NONBLOCK) != 0) {
        return Err(Errno::EINVAL);
    }
    if a.u64(2) != 0 {
        let q = &of(&file)?.0;
        let flags = u64::from(file.flags() & O_NONBLOCK);
        let words = [flags, q.max_messages, q.max_size, q.len() as u64, 0, 0, 0, 0];
        let out = UserPtr::<u64>::new(a.u64(2));
        for (i, w) in words.iter().enumerate() {
            out.at(i).write(w)?;
        }
    }
    if let Some(flags) = new {
        file.set_flags(O_NONBLOCK, flags as u32);
    }
    Ok(0)
}
