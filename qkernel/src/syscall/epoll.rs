//! epoll_create, epoll_ctl, epoll_wait and their kin.

use super::poll::{deadline_after, relative_deadline, restore_mask, set_temporary_mask};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::anon;
use crate::fs::epoll::Epoll;
use crate::rows;
use crate::sched::wait::{Events, WaitError};
use hal::uapi::general::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, O_CLOEXEC, epoll_event};
use hal::user::UserPtr;
use qlib::Errno;

rows! {
    epoll_create: Full, |c, a| if a.i32(0) <= 0 { Err(Errno::EINVAL) } else { create(c, 0) };
    epoll_create1: Full, |c, a| create(c, a.u32(0));
    epoll_ctl: Full, |c, a| sys_epoll_ctl(c, a);
    epoll_wait: Full, |c, a| {
        let deadline = milliseconds(a.i32(3));
        wait(c, &a, deadline)
    };
    epoll_pwait: Full, |c, a| {
        let deadline = milliseconds(a.i32(3));
        pwait(c, &a, deadline)
    };
    epoll_pwait2: Full, |c, a| {
        let deadline = relative_deadline(a.ptr(3))?;
        pwait(c, &a, deadline)
    };
    epoll_ctl_old: Refused(Errno::ENOSYS, "never implemented by Linux");
    epoll_wait_old: Refused(Errno::ENOSYS, "never implemented by Linux");
}

fn create(c: &mut Ctx<'_>, flags: u32) -> SysResult {
    if flags & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let fd = anon::install(c.task, Epoll::create(), flags & O_CLOEXEC != 0)?;
    Ok(fd.0 as u64)
}

fn sys_epoll_ctl(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (op, fd) = (a.u32(1), a.fd(2));
    let event = match op {
        EPOLL_CTL_DEL => None,
        _ => Some(a.ptr::<epoll_event>(3).read()?),
    };
    let files = c.task.files();
    let own = files.get(a.fd(0))?;
    let file = files.get(fd)?;
    let epoll = own.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    if alloc::sync::Arc::ptr_eq(&own, &file) {
        return Err(Errno::EINVAL);
    }
    let (events, data) = event.map_or((Events::empty(), 0), |e| {
        let (bits, data) = (e.events, e.data);
        (Events::from_bits_truncate(bits), data)
    });
    match op {
        EPOLL_CTL_ADD => epoll.add(fd.0, &file, events, data),
        EPOLL_CTL_MOD => epoll.modify(fd.0, &file, events, data),
        EPOLL_CTL_DEL => epoll.remove(fd.0, &file),
        _ => Err(Errno::EINVAL),
    }
    .map(|()| 0)
}

fn milliseconds(t: i32) -> Option<u64> {
    (t >= 0).then(|| deadline_after(t as u64 * 1_000_000))
}

fn wait(c: &mut Ctx<'_>, a: &Args, deadline_ns: Option<u64>) -> SysResult {
    let max = a.i32(2);
    let size = size_of::<epoll_event>();
    if max <= 0 || max as usize > i32::MAX as usize / size {
        return Err(Errno::EINVAL);
    }
    if !hal::user::is_user_range(a.u64(1), max as u64 * size as u64) {
        return Err(Errno::EFAULT);
    }
    let own = c.task.files().get(a.fd(0))?;
    let epoll = own.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    let events = match epoll.wait(max as usize, deadline_ns) {
        Ok(e) => e,
        Err(WaitError::TimedOut) => return Ok(0),
        Err(WaitError::Interrupted) => return Err(Errno::EINTR),
    };
    let out = UserPtr::<epoll_event>::new(a.u64(1));
    for (i, (e, data)) in events.iter().enumerate() {
        let event = epoll_event {
            events: e.bits(),
            data: *data,
        };
        out.at(i).write(&event)?;
    }
    Ok(events.len() as u64)
}

fn pwait(c: &mut Ctx<'_>, a: &Args, deadline_ns: Option<u64>) -> SysResult {
    set_temporary_mask(c.task, a.u64(4), a.u64(5))?;
    let r = wait(c, a, deadline_ns);
    restore_mask(c.task, &r);
    r
}
