//! timerfd_create, timerfd_settime, timerfd_gettime, signalfd, signalfd4.

use super::poll::timespec_ns;
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::anon;
use crate::fs::signalfd::{self, SignalFd};
use crate::fs::timerfd::{self, Setting, TimerFd};
use crate::rows;
use crate::signal::SigSet;
use crate::task::creds::cap;
use hal::clock::monotonic_ns;
use hal::uapi::general::*;
use hal::user::UserPtr;
use qlib::Errno;

rows! {
    timerfd_create: Full, |c, a| sys_timerfd_create(c, a);
    timerfd_settime: Partial("TFD_TIMER_CANCEL_ON_SET never cancels"), |c, a| sys_timerfd_settime(c, a);
    timerfd_gettime: Full, |c, a| sys_timerfd_gettime(c, a);
    signalfd: Full, |c, a| signalfd4(c, a, 0);
    signalfd4: Partial("poll tells signals of the process that made it"), |c, a| signalfd4(c, a, a.u32(3));
}

/// TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET.
const ABSTIME: u32 = 1;
const CANCEL_ON_SET: u32 = 2;

fn sys_timerfd_create(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (clock, flags) = (a.u32(0), a.u32(1));
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    match clock {
        CLOCK_REALTIME | CLOCK_MONOTONIC | CLOCK_BOOTTIME => {}
        CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM => {
            if !c.task.creds().capable(cap::WAKE_ALARM) {
                return Err(Errno::EPERM);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    let file = timerfd::timerfd(clock, flags & O_NONBLOCK);
    Ok(anon::install(c.task, file, flags & O_CLOEXEC != 0)?.0 as u64)
}

fn write(p: UserPtr<__kernel_itimerspec>, s: Setting) -> SysResult<()> {
    let part = |ns: u64| __kernel_timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    p.write(&__kernel_itimerspec {
        it_interval: part(s.interval_ns),
        it_value: part(s.value_ns),
    })
}

fn sys_timerfd_settime(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let flags = a.u32(1);
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let new = a.ptr::<__kernel_itimerspec>(2).read()?;
    let value = timespec_ns(new.it_value.tv_sec, new.it_value.tv_nsec)?;
    let interval = timespec_ns(new.it_interval.tv_sec, new.it_interval.tv_nsec)?;
    let file = c.task.files().get(a.fd(0))?;
    let timer = file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?;
    let realtime = matches!(timer.clock(), CLOCK_REALTIME | CLOCK_REALTIME_ALARM);
    let next = match value {
        0 => 0,
        v if flags & ABSTIME == 0 => monotonic_ns().saturating_add(v),
        v if realtime => crate::time::absolute_deadline(v, true).max(1),
        v => v,
    };
    let old = timer.set(next, interval);
    if let Some(p) = UserPtr::nonnull(a.u64(3)) {
        write(p, old)?;
    }
    Ok(0)
}

fn sys_timerfd_gettime(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = c.task.files().get(a.fd(0))?;
    let timer = file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?;
    write(a.ptr(1), timer.get()).map(|()| 0)
}

fn signalfd4(c: &mut Ctx<'_>, a: Args, flags: u32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 || a.u64(2) != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(a.ptr::<u64>(1).read()?);
    if a.i32(0) == -1 {
        let file = signalfd::signalfd(c.task, mask, flags & O_NONBLOCK);
        return Ok(anon::install(c.task, file, flags & O_CLOEXEC != 0)?.0 as u64);
    }
    let file = c.task.files().get(a.fd(0))?;
    file.downcast::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(mask);
    Ok(a.fd(0).0 as u64)
}
