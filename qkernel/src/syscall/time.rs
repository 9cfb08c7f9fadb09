//! Clocks, sleeping, timers. Source: the man pages of the same names.

use super::Support::{Full, Partial};
use super::{Args, Ctx, SysResult};
use crate::rows;
use crate::sched::wait::{Events, WaitError, WaitQueue, wait_until};
use crate::syscall::process::process_usage;
use crate::task::creds::cap;
use crate::task::exit::account;
use crate::task::table;
use crate::time::cpu::{self, CpuClock};
use crate::time::posix::{self, PosixTimer};
use crate::time::{Restart, SECOND_NS, absolute_deadline, read_timespec, write_timespec};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::clock::{monotonic_ns, realtime_ns};
use hal::user::{UserPtr, copy_out};
use qlib::Errno;

const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
const CLOCK_MONOTONIC_RAW: i32 = 4;
const CLOCK_REALTIME_COARSE: i32 = 5;
const CLOCK_MONOTONIC_COARSE: i32 = 6;
const CLOCK_BOOTTIME: i32 = 7;
const CLOCK_REALTIME_ALARM: i32 = 8;
const CLOCK_BOOTTIME_ALARM: i32 = 9;
const CLOCK_TAI: i32 = 11;
/// Bit of a negative clock id: a thread's.
const CPU_OF_THREAD: i32 = 4;
const TIMER_ABSTIME: u32 = 1;

/// The clock of CPU time that an id names. Negative ids hold the complement of a pid; then bit 2 = a thread, and what is
/// measured: 0 user and system, 1 user, 2 as 0 but finer.
fn cpu_clock(ctx: &Ctx<'_>, clock: i32) -> SysResult<CpuClock> {
    let me = ctx.task;
    match clock {
        CLOCK_PROCESS_CPUTIME_ID => return Ok(CpuClock::of_process(&me.process, false)),
        CLOCK_THREAD_CPUTIME_ID => return Ok(CpuClock::of_task(me, false)),
        c if c >= 0 || c & 3 == 3 => return Err(Errno::EINVAL),
        _ => {}
    }
    let (id, user) = (!(clock >> 3) as u32, clock & 3 == 1);
    if clock & CPU_OF_THREAD != 0 {
        // Threads know only threads of their own process.
        let t = match id {
            0 => me.clone(),
            _ => table::task_in(me.pid_ns(), id)
                .filter(|t| Arc::ptr_eq(&t.process, &me.process))
                .ok_or(Errno::EINVAL)?,
        };
        return Ok(CpuClock::of_task(&t, user));
    }
    let p = match id {
        0 => me.process.clone(),
        _ => table::process_in(me.pid_ns(), id).ok_or(Errno::EINVAL)?,
    };
    Ok(CpuClock::of_process(&p, user))
}

/// Time of a clock, ns.
fn read_clock(ctx: &Ctx<'_>, clock: i32) -> SysResult<u64> {
    match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_REALTIME_ALARM | CLOCK_TAI => Ok(realtime_ns()),
        CLOCK_MONOTONIC
        | CLOCK_MONOTONIC_RAW
        | CLOCK_MONOTONIC_COARSE
        | CLOCK_BOOTTIME
        | CLOCK_BOOTTIME_ALARM => Ok(monotonic_ns()),
        CLOCK_THREAD_CPUTIME_ID => {
            account(ctx.task);
            Ok(ctx.task.cpu.total_ns())
        }
        // A thread's own number serves for its process, but only to read.
        c if c < 0 && c & 7 < 3 && !(c >> 3) as u32 == ctx.task.own_tid() => {
            CpuClock::of_process(&ctx.task.process, c & 3 == 1).read()
        }
        c => cpu_clock(ctx, c)?.read(),
    }
}

fn sys_clock_gettime(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let now = read_clock(ctx, a.i32(0))?;
    write_timespec(a.u64(1), now)?;
    Ok(0)
}

fn sys_clock_getres(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    read_clock(ctx, a.i32(0))?;
    // Ticks of 4 ms: the coarse clocks, and CPU time as it was once counted.
    let coarse = match a.i32(0) {
        c if c < 0 => c & 3 != 2,
        c => matches!(c, CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE),
    };
    if a.u64(1) != 0 {
        write_timespec(a.u64(1), if coarse { 4_000_000 } else { 1 })?;
    }
    Ok(0)
}

fn sys_gettimeofday(_ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let now = realtime_ns();
    if a.u64(0) != 0 {
        a.ptr::<[i64; 2]>(0)
            .write(&[(now / SECOND_NS) as i64, (now % SECOND_NS / 1000) as i64])?;
    }
    if a.u64(1) != 0 {
        a.ptr::<[i32; 2]>(1).write(&[0, 0])?;
    }
    Ok(0)
}

fn sys_time(_ctx: &mut Ctx<'_>, addr: u64) -> SysResult {
    let s = realtime_ns() / SECOND_NS;
    if addr != 0 {
        UserPtr::new(addr).write(&s)?;
    }
    Ok(s)
}

fn sys_times(ctx: &mut Ctx<'_>, addr: u64) -> SysResult {
    const TICK_NS: u64 = 10_000_000;
    account(ctx.task);
    if addr != 0 {
        let own = process_usage(&ctx.task.process);
        let sub = *ctx.task.process.child_usage.lock();
        for (i, ns) in [own.user_ns, own.system_ns, sub.user_ns, sub.system_ns]
            .into_iter()
            .enumerate()
        {
            UserPtr::<u64>::new(addr).at(i).write(&(ns / TICK_NS))?;
        }
    }
    Ok(monotonic_ns() / TICK_NS)
}

/// Sleeps until the monotonic deadline; the remaining time of a relative sleep goes to `remaining`.
fn sleep_until(ctx: &mut Ctx<'_>, deadline_ns: u64, remaining: Option<u64>) -> SysResult {
    let queue = crate::sched::wait::WaitQueue::new();
    match wait_until(&queue, Events::all(), Some(deadline_ns), || None::<()>) {
        Err(WaitError::Interrupted) => match remaining {
            // An absolute sleep starts over with the same deadline.
            None => Err(Errno::ERESTARTNOHAND),
            Some(addr) => {
                if addr != 0 {
                    write_timespec(addr, deadline_ns.saturating_sub(monotonic_ns()))?;
                }
                *ctx.task.restart.lock() = Some(Restart::Sleep {
                    deadline_ns,
                    remaining: addr,
                });
                Err(Errno::ERESTART_RESTARTBLOCK)
            }
        },
        _ => Ok(0),
    }
}

fn sys_nanosleep(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let deadline = monotonic_ns().saturating_add(read_timespec(a.u64(0))?);
    sleep_until(ctx, deadline, Some(a.u64(1)))
}

fn sys_clock_nanosleep(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (clock, flags) = (a.i32(0), a.u32(1));
    let realtime = match clock {
        CLOCK_REALTIME | CLOCK_TAI => true,
        CLOCK_MONOTONIC | CLOCK_BOOTTIME => false,
        CLOCK_PROCESS_CPUTIME_ID => false,
        c if c < 0 => false,
        c => {
            read_clock(ctx, c)?;
            return Err(Errno::EOPNOTSUPP);
        }
    };
    let ns = read_timespec(a.u64(2))?;
    if clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID {
        let id = !(clock >> 3) as u32;
        if clock < 0 && clock & CPU_OF_THREAD != 0 && (id == 0 || id == ctx.task.own_tid()) {
            return Err(Errno::EINVAL);
        }
        let (deadline, remaining) = if flags & TIMER_ABSTIME != 0 {
            cpu_clock(ctx, clock)?;
            (ns, None)
        } else {
            let now = cpu_clock(ctx, clock)?.read()?;
            (now.saturating_add(ns), Some(a.u64(3)))
        };
        return cpu_sleep(ctx, clock, deadline, remaining);
    }
    if flags & TIMER_ABSTIME != 0 {
        return sleep_until(ctx, absolute_deadline(ns, realtime), None);
    }
    sleep_until(ctx, monotonic_ns().saturating_add(ns), Some(a.u64(3)))
}

/// Sleeps until a clock of CPU time shows the deadline.
fn cpu_sleep(ctx: &mut Ctx<'_>, clock: i32, deadline_ns: u64, remaining: Option<u64>) -> SysResult {
    let c = cpu_clock(ctx, clock)?;
    let over = Arc::new((AtomicBool::new(false), WaitQueue::new()));
    let theirs = over.clone();
    let alarm = cpu::at(&c, deadline_ns, move || {
        theirs.0.store(true, Ordering::SeqCst);
        theirs.1.wake_all();
    });
    let alarm = alarm.ok_or(Errno::EINVAL)?;
    let waited = wait_until(&over.1, Events::all(), None, || {
        over.0.load(Ordering::SeqCst).then_some(())
    });
    cpu::cancel(&alarm);
    if waited.is_ok() {
        return Ok(0);
    }
    let Some(addr) = remaining else {
        return Err(Errno::ERESTARTNOHAND);
    };
    if addr != 0 {
        write_timespec(
            addr,
            deadline_ns.saturating_sub(c.glance().unwrap_or(deadline_ns)),
        )?;
    }
    *ctx.task.restart.lock() = Some(Restart::CpuSleep {
        clock,
        deadline_ns,
        remaining: addr,
    });
    Err(Errno::ERESTART_RESTARTBLOCK)
}

fn sys_restart_syscall(ctx: &mut Ctx<'_>) -> SysResult {
    let restart = ctx.task.restart.lock().take();
    match restart {
        Some(Restart::Sleep {
            deadline_ns,
            remaining,
        }) => sleep_until(ctx, deadline_ns, Some(remaining)),
        Some(Restart::CpuSleep {
            clock,
            deadline_ns,
            remaining,
        }) => cpu_sleep(ctx, clock, deadline_ns, Some(remaining)),
        Some(other) => super::restart_wait(ctx, other),
        None => Err(Errno::EINTR),
    }
}

fn timeval(addr: u64) -> SysResult<u64> {
    let [s, us] = UserPtr::<[i64; 2]>::new(addr).read()?;
    if s < 0 || !(0..1_000_000).contains(&us) {
        return Err(Errno::EINVAL);
    }
    Ok((s as u64)
        .saturating_mul(SECOND_NS)
        .saturating_add(us as u64 * 1000))
}

fn put_itimer(addr: u64, left: u64, interval: u64) -> SysResult<()> {
    if addr == 0 {
        return Ok(());
    }
    let p = UserPtr::<[i64; 2]>::new(addr);
    let tv = |ns: u64| [(ns / SECOND_NS) as i64, (ns % SECOND_NS / 1000) as i64];
    p.write(&tv(interval))?;
    p.at(1).write(&tv(left))
}

fn sys_setitimer(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    if !(0..3).contains(&a.i32(0)) {
        return Err(Errno::EINVAL);
    }
    let (interval, first) = if a.u64(1) == 0 {
        (0, 0)
    } else {
        (timeval(a.u64(1))?, timeval(a.u64(1).wrapping_add(16))?)
    };
    let p = &ctx.task.process;
    let (left, old) = match a.i32(0) {
        0 => posix::set_real(p, first, interval),
        which => posix::set_cpu(p, which as usize - 1, first, interval),
    };
    put_itimer(a.u64(2), left, old)?;
    Ok(0)
}

fn sys_getitimer(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let p = &ctx.task.process;
    let (left, interval) = match a.i32(0) {
        0 => match p.timers.lock().real {
            (0, interval) => (0, interval),
            (at, interval) => (at.saturating_sub(monotonic_ns()).max(1000), interval),
        },
        which @ 1..=2 => posix::cpu_left(p, which as usize - 1),
        _ => return Err(Errno::EINVAL),
    };
    put_itimer(a.u64(1), left, interval)?;
    Ok(0)
}

fn sys_alarm(ctx: &mut Ctx<'_>, seconds: u32) -> SysResult {
    let (left, _) = posix::set_real(&ctx.task.process, u64::from(seconds) * SECOND_NS, 0);
    Ok(left.div_ceil(SECOND_NS))
}

const RLIMIT_SIGPENDING: usize = 11;

fn sys_timer_create(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    const SIGEV_SIGNAL: u32 = 0;
    const SIGEV_NONE: u32 = 1;
    const SIGEV_THREAD_ID: u32 = 4;
    let clock = a.i32(0);
    let cpu = match clock {
        CLOCK_REALTIME | CLOCK_MONOTONIC | CLOCK_BOOTTIME | CLOCK_TAI => None,
        CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM if ctx.task.creds().capable(cap::WAKE_ALARM) => None,
        CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM => return Err(Errno::EPERM),
        CLOCK_MONOTONIC_RAW | CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE => {
            return Err(Errno::EOPNOTSUPP);
        }
        c => Some(cpu_clock(ctx, c)?),
    };
    let p = &ctx.task.process;
    // As with Linux every timer has a signal set aside.
    let most = p.rlimits.lock()[RLIMIT_SIGPENDING].0;
    let id = {
        let mut t = p.timers.lock();
        if t.posix.len() as u64 >= most {
            return Err(Errno::EAGAIN);
        }
        let mut id = t.next_id;
        while t.posix.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(0);
        }
        t.next_id = id.checked_add(1).unwrap_or(0);
        id
    };
    let (mut signo, mut value, mut tid) = (crate::signal::signo::SIGALRM, id as u64, 0);
    if a.u64(1) != 0 {
        let w = UserPtr::<u64>::new(a.u64(1));
        value = w.read()?;
        let word = w.at(1).read()?;
        let notify = (word >> 32) as u32;
        signo = word as u32;
        match notify {
            SIGEV_NONE => signo = 0,
            SIGEV_SIGNAL => {}
            SIGEV_THREAD_ID => {
                let number = w.at(2).read()? as u32;
                let named = table::task_in(p.pid_ns(), number).filter(|t| t.process.pid == p.pid);
                tid = named.ok_or(Errno::EINVAL)?.tid();
            }
            _ => return Err(Errno::EINVAL),
        }
        if notify != SIGEV_NONE && (signo == 0 || signo > crate::signal::signo::MAX) {
            return Err(Errno::EINVAL);
        }
    }
    a.ptr::<i32>(2).write(&id)?;
    let timer = PosixTimer {
        clock,
        cpu,
        signo,
        value,
        tid,
        at_ns: 0,
        interval_ns: 0,
        waiting: false,
        overrun: 0,
        alarm: None,
    };
    p.timers.lock().posix.insert(id, timer);
    Ok(0)
}

/// A POSIX timer of the caller, and what its clock shows.
fn timer_now(ctx: &Ctx<'_>, id: i32) -> SysResult<u64> {
    let clock = {
        let timers = ctx.task.process.timers.lock();
        timers.posix.get(&id).ok_or(Errno::EINVAL)?.cpu.clone()
    };
    // The clock of what has ended stands still.
    Ok(clock.map_or_else(monotonic_ns, |c| c.read().unwrap_or(0)))
}

fn put_timer(addr: u64, left: u64, interval: u64) -> SysResult<()> {
    if addr == 0 {
        return Ok(());
    }
    write_timespec(addr, interval)?;
    write_timespec(addr.wrapping_add(16), left)
}

fn sys_timer_settime(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (id, flags) = (a.i32(0), a.u32(1));
    let (interval, first) = (
        read_timespec(a.u64(2))?,
        read_timespec(a.u64(2).wrapping_add(16))?,
    );
    let p = &ctx.task.process;
    let now = timer_now(ctx, id)?;
    let (old, alarm) = {
        let mut timers = p.timers.lock();
        let t = timers.posix.get_mut(&id).ok_or(Errno::EINVAL)?;
        let old = (t.left_ns(now), t.interval_ns);
        t.interval_ns = interval;
        t.overrun = 0;
        t.waiting = false;
        t.at_ns = match first {
            0 => 0,
            f if flags & TIMER_ABSTIME != 0 => absolute_deadline(
                f,
                matches!(t.clock, CLOCK_REALTIME | CLOCK_REALTIME_ALARM | CLOCK_TAI),
            )
            .max(1),
            f => now.saturating_add(f),
        };
        (old, t.alarm.take())
    };
    if let Some(al) = alarm {
        al.cancel();
    }
    posix::arm(p, id);
    put_timer(a.u64(3), old.0, old.1)?;
    Ok(0)
}

fn sys_timer_gettime(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let now = timer_now(ctx, a.i32(0))?;
    let (left, interval) = {
        let timers = ctx.task.process.timers.lock();
        let t = timers.posix.get(&a.i32(0)).ok_or(Errno::EINVAL)?;
        (t.left_ns(now), t.interval_ns)
    };
    if a.u64(1) == 0 {
        return Err(Errno::EFAULT);
    }
    put_timer(a.u64(1), left, interval)?;
    Ok(0)
}

fn sys_timer_getoverrun(ctx: &mut Ctx<'_>, id: i32) -> SysResult {
    let timers = ctx.task.process.timers.lock();
    timers
        .posix
        .get(&id)
        .map(|t| t.overrun as u64)
        .ok_or(Errno::EINVAL)
}

fn sys_timer_delete(ctx: &mut Ctx<'_>, id: i32) -> SysResult {
    let t = ctx
        .task
        .process
        .timers
        .lock()
        .posix
        .remove(&id)
        .ok_or(Errno::EINVAL)?;
    if let Some(alarm) = t.alarm {
        alarm.cancel();
    }
    Ok(0)
}

fn sys_adjtimex(_ctx: &mut Ctx<'_>, addr: u64) -> SysResult {
    // Reading is allowed to all; the guest's clock is the host's, nothing can be set.
    let modes = UserPtr::<u32>::new(addr).read()?;
    if modes != 0 {
        return Err(Errno::EPERM);
    }
    copy_out(addr, &[0u8; 208])?;
    Ok(0)
}

/// Nothing can be set; what no Linux would set is told first.
fn sys_clock_settime(ctx: &Ctx<'_>, a: Args) -> SysResult {
    match a.i32(0) {
        CLOCK_REALTIME => {
            read_timespec(a.u64(1))?;
            Err(Errno::EPERM)
        }
        c if c < 0 => cpu_clock(ctx, c).and(Err(Errno::EPERM)),
        _ => Err(Errno::EINVAL),
    }
}

fn sys_settimeofday(a: Args) -> SysResult {
    if let Some(p) = UserPtr::<[i64; 2]>::nonnull(a.u64(0)) {
        let [s, us] = p.read()?;
        if s < 0 || !(0..1_000_000).contains(&us) {
            return Err(Errno::EINVAL);
        }
    }
    Err(Errno::EPERM)
}

rows! {
    clock_gettime: Full, sys_clock_gettime;
    clock_getres: Full, sys_clock_getres;
    clock_settime: Partial("EPERM for what could be set: the clock is the host's"), |c, a| sys_clock_settime(c, a);
    settimeofday: Partial("EPERM for what could be set: the clock is the host's"), |_, a| sys_settimeofday(a);
    clock_adjtime: Partial("reads only"), |c, a| sys_adjtimex(c, a.u64(1));
    adjtimex: Partial("reads only"), |c, a| sys_adjtimex(c, a.u64(0));
    gettimeofday: Full, sys_gettimeofday;
    time: Full, |c, a| sys_time(c, a.u64(0));
    times: Full, |c, a| sys_times(c, a.u64(0));
    nanosleep: Full, sys_nanosleep;
    clock_nanosleep: Full, sys_clock_nanosleep;
    restart_syscall: Full, |c, _| sys_restart_syscall(c);
    setitimer: Full, sys_setitimer;
    getitimer: Full, sys_getitimer;
    alarm: Full, |c, a| sys_alarm(c, a.u32(0));
    timer_create: Full, sys_timer_create;
    timer_settime: Full, sys_timer_settime;
    timer_gettime: Full, sys_timer_gettime;
    timer_getoverrun: Full, |c, a| sys_timer_getoverrun(c, a.i32(0));
    timer_delete: Full, |c, a| sys_timer_delete(c, a.i32(0));
}
