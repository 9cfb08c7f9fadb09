//! futex, futex_waitv, set_robust_list, get_robust_list.

use super::poll::timespec_ns;
use super::{Args, Ctx, Support::*, SysResult};
use crate::ipc::futex::{self, Key, MATCH_ANY, NotWoken, wake_key};
use crate::ipc::futex_pi;
use crate::mm::Mm;
use crate::rows;
use crate::sched::wait::WaitError;
use crate::task::creds::cap;
use crate::task::table;
use crate::time::Restart;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::uapi::general::*;
use hal::user::{UserPtr, cmpxchg_u32, load_u32};
use qlib::Errno;

rows! {
    futex: Partial("no FUTEX_FD; PI locks without priorities"), |c, a| sys_futex(c, a);
    futex_waitv: Full, |c, a| sys_futex_waitv(c, a);
    futex_wake: Refused(Errno::ENOSYS, "libc falls back to futex");
    futex_wait: Refused(Errno::ENOSYS, "libc falls back to futex");
    futex_requeue: Refused(Errno::ENOSYS, "libc falls back to futex");
    set_robust_list: Full, |c, a| sys_set_robust_list(c, a);
    get_robust_list: Full, |c, a| sys_get_robust_list(c, a);
}

fn mm(c: &Ctx<'_>) -> SysResult<Arc<Mm>> {
    c.task.mm().ok_or(Errno::ESRCH)
}

/// Monotonic deadline of an absolute time of the real-time clock.
fn from_realtime(ns: u64) -> u64 {
    let left = ns.saturating_sub(hal::clock::realtime_ns());
    hal::clock::monotonic_ns().saturating_add(left)
}

/// The deadline of a wait.
fn deadline(addr: u64, relative: bool, realtime: bool) -> SysResult<Option<u64>> {
    let Some(p) = UserPtr::<__kernel_timespec>::nonnull(addr) else {
        return Ok(None);
    };
    let t = p.read()?;
    let ns = timespec_ns(t.tv_sec, t.tv_nsec)?;
    Ok(Some(match (relative, realtime) {
        (true, _) => hal::clock::monotonic_ns().saturating_add(ns),
        (false, true) => from_realtime(ns),
        (false, false) => ns,
    }))
}

fn sys_futex(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (addr, op, value) = (a.u64(0), a.u32(1), a.u32(2));
    let private = op & FUTEX_PRIVATE_FLAG != 0;
    let realtime = op & FUTEX_CLOCK_REALTIME != 0;
    let cmd = op & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    if realtime
        && !matches!(
            cmd,
            FUTEX_WAIT | FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2
        )
    {
        return Err(Errno::ENOSYS);
    }
    let mm = mm(c)?;
    let key = |addr: u64| futex::key(&mm, addr, private);
    // Counts are ints in Linux; a negative one means "at least one".
    let count = |v: u32| if (v as i32) < 0 { 1 } else { v as usize };
    match cmd {
        FUTEX_WAIT => {
            let d = deadline(a.u64(3), true, false)?;
            wait(c, key(addr)?, addr, value, MATCH_ANY, d, private)
        }
        FUTEX_WAIT_BITSET => {
            let d = deadline(a.u64(3), false, realtime)?;
            if a.u32(5) == 0 {
                return Err(Errno::EINVAL);
            }
            wait(c, key(addr)?, addr, value, a.u32(5), d, private)
        }
        FUTEX_WAKE => Ok(wake_key(&key(addr)?, count(value).max(1), MATCH_ANY) as u64),
        FUTEX_WAKE_BITSET => {
            if a.u32(5) == 0 {
                return Err(Errno::EINVAL);
            }
            Ok(wake_key(&key(addr)?, count(value).max(1), a.u32(5)) as u64)
        }
        FUTEX_REQUEUE | FUTEX_CMP_REQUEUE => {
            let (wakes, moves) = (value as i32, a.i32(3));
            if wakes < 0 || moves < 0 {
                return Err(Errno::EINVAL);
            }
            let (from, to) = (key(addr)?, key(a.u64(4))?);
            if cmd == FUTEX_CMP_REQUEUE && load_u32(addr)? != a.u32(5) {
                return Err(Errno::EAGAIN);
            }
            let (woken, moved) = futex::requeue(&from, &to, wakes as usize, moves as usize);
            Ok((woken + moved) as u64)
        }
        FUTEX_WAKE_OP => {
            let (first, second) = (key(addr)?, key(a.u64(4))?);
            let hit = wake_op(a.u64(4), a.u32(5))?;
            let mut n = wake_key(&first, count(value).max(1), MATCH_ANY);
            if hit {
                n += wake_key(&second, count(a.u32(3)).max(1), MATCH_ANY);
            }
            Ok(n as u64)
        }
        FUTEX_LOCK_PI => {
            let d = deadline(a.u64(3), false, true)?;
            futex_pi::lock(key(addr)?, addr, c.task.own_tid(), d, true).map(|()| 0)
        }
        FUTEX_LOCK_PI2 => {
            let d = deadline(a.u64(3), false, realtime)?;
            futex_pi::lock(key(addr)?, addr, c.task.own_tid(), d, true).map(|()| 0)
        }
        FUTEX_WAIT_REQUEUE_PI => {
            let d = deadline(a.u64(3), false, realtime)?;
            let (from, lock) = (key(addr)?, key(a.u64(4))?);
            futex_pi::wait_requeue(from, addr, value, lock, c.task.own_tid(), d).map(|()| 0)
        }
        FUTEX_CMP_REQUEUE_PI => {
            let moves = a.i32(3);
            if value != 1 || moves < 0 {
                return Err(Errno::EINVAL);
            }
            let (from, to) = (key(addr)?, key(a.u64(4))?);
            if load_u32(addr)? != a.u32(5) {
                return Err(Errno::EAGAIN);
            }
            futex_pi::cmp_requeue(&from, &to, a.u64(4), moves as usize).map(|n| n as u64)
        }
        FUTEX_TRYLOCK_PI => futex_pi::lock(key(addr)?, addr, c.task.own_tid(), None, false).map(|()| 0),
        FUTEX_UNLOCK_PI => futex_pi::unlock(key(addr)?, addr, c.task.own_tid()).map(|()| 0),
        _ => Err(Errno::ENOSYS),
    }
}

fn wait(
    c: &mut Ctx<'_>,
    key: Key,
    addr: u64,
    value: u32,
    bitset: u32,
    deadline_ns: Option<u64>,
    private: bool,
) -> SysResult {
    match futex::wait(key, addr, value, bitset, deadline_ns) {
        Ok(()) => Ok(0),
        Err(NotWoken::Error(e)) => Err(e),
        Err(NotWoken::Wait(WaitError::TimedOut)) => Err(Errno::ETIMEDOUT),
        Err(NotWoken::Wait(WaitError::Interrupted)) => match deadline_ns {
            None => Err(Errno::ERESTARTSYS),
            Some(deadline_ns) => {
                *c.task.restart.lock() = Some(Restart::Futex {
                    addr,
                    value,
                    bitset,
                    private,
                    deadline_ns,
                });
                Err(Errno::ERESTART_RESTARTBLOCK)
            }
        },
    }
}

/// Goes on with a `FUTEX_WAIT` that a stop interrupted (`restart_syscall`).
///
/// # Errors
/// As `futex(2)`.
pub fn resume_wait(
    c: &mut Ctx<'_>,
    addr: u64,
    value: u32,
    bitset: u32,
    private: bool,
    deadline_ns: u64,
) -> SysResult {
    let mm = mm(c)?;
    let key = futex::key(&mm, addr, private)?;
    wait(c, key, addr, value, bitset, Some(deadline_ns), private)
}

/// Does FUTEX_WAKE_OP's operation on the second word; tells whether its comparison holds.
fn wake_op(addr: u64, encoded: u32) -> SysResult<bool> {
    let op = encoded >> 28;
    let cmp = encoded >> 24 & 15;
    let sign_extend = |v: u32| ((v << 20) as i32) >> 20;
    let mut arg = sign_extend(encoded >> 12 & 0xfff) as u32;
    let cmp_arg = sign_extend(encoded & 0xfff);
    if op & FUTEX_OP_OPARG_SHIFT != 0 {
        arg = 1 << (arg & 31);
    }
    let mut old = load_u32(addr)?;
    loop {
        let new = match op & 7 {
            FUTEX_OP_SET => arg,
            FUTEX_OP_ADD => old.wrapping_add(arg),
            FUTEX_OP_OR => old | arg,
            FUTEX_OP_ANDN => old & !arg,
            FUTEX_OP_XOR => old ^ arg,
            _ => return Err(Errno::ENOSYS),
        };
        match cmpxchg_u32(addr, old, new)? {
            found if found == old => break,
            found => old = found,
        }
    }
    let old = old as i32;
    Ok(match cmp {
        FUTEX_OP_CMP_EQ => old == cmp_arg,
        FUTEX_OP_CMP_NE => old != cmp_arg,
        FUTEX_OP_CMP_LT => old < cmp_arg,
        FUTEX_OP_CMP_LE => old <= cmp_arg,
        FUTEX_OP_CMP_GT => old > cmp_arg,
        FUTEX_OP_CMP_GE => old >= cmp_arg,
        _ => return Err(Errno::ENOSYS),
    })
}

fn sys_futex_waitv(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (n, flags, clock) = (a.u32(1), a.u32(2), a.u32(4));
    if n == 0 || n > FUTEX_WAITV_MAX || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let d = match clock {
        CLOCK_MONOTONIC => deadline(a.u64(3), false, false)?,
        CLOCK_REALTIME => deadline(a.u64(3), false, true)?,
        _ if a.u64(3) == 0 => None,
        _ => return Err(Errno::EINVAL),
    };
    let mm = mm(c)?;
    let raw = a.ptr::<u64>(0).read_vec(n as usize * 3)?;
    let mut words = Vec::with_capacity(n as usize);
    for w in raw.chunks_exact(3) {
        let (flags, reserved) = (w[2] as u32, (w[2] >> 32) as u32);
        if flags & !FUTEX_PRIVATE_FLAG != FUTEX_32 || reserved != 0 || w[0] >> 32 != 0 {
            return Err(Errno::EINVAL);
        }
        words.push((
            futex::key(&mm, w[1], flags & FUTEX_PRIVATE_FLAG != 0)?,
            w[1],
            w[0] as u32,
        ));
    }
    match futex::wait_many(&words, d) {
        Ok(i) => Ok(i as u64),
        Err(NotWoken::Error(e)) => Err(e),
        Err(NotWoken::Wait(e)) => Err(e.restart_or(Errno::ETIMEDOUT)),
    }
}

/// `sizeof(struct robust_list_head)`.
const ROBUST_HEAD: u64 = 24;

fn sys_set_robust_list(c: &mut Ctx<'_>, a: Args) -> SysResult {
    if a.u64(1) != ROBUST_HEAD {
        return Err(Errno::EINVAL);
    }
    c.task.robust_list.store(a.u64(0), Ordering::Relaxed);
    Ok(0)
}

fn sys_get_robust_list(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let task = match a.u32(0) {
        0 => c.task.clone(),
        tid => table::task_in(c.task.pid_ns(), tid).ok_or(Errno::ESRCH)?,
    };
    let (mine, theirs) = (c.task.creds(), task.creds());
    let same = mine.uid == theirs.uid && mine.gid == theirs.gid;
    if !Arc::ptr_eq(&task.process, &c.task.process)
        && !same
        && !mine.capable_in(&theirs.user, cap::SYS_PTRACE)
    {
        return Err(Errno::EPERM);
    }
    a.ptr::<u64>(2).write(&ROBUST_HEAD)?;
    a.ptr::<u64>(1).write(&task.robust_list.load(Ordering::Relaxed))?;
    Ok(0)
}
