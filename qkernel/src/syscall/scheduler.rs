//! Scheduling: CPUs, policies, priorities. What is asked for is kept and shown; the machine's scheduler treats all tasks alike.
//! Source: `sched(7)` and the man pages of the calls.

use super::Support::{Full, Partial};
use super::system::{task_by_pid, task_of};
use super::{Args, Ctx, SysResult};
use crate::rows;
use crate::task::cpus::CpuSet;
use crate::task::creds::{Creds, cap};
use crate::task::policy::{self, Policy};
use crate::task::{Task, table};
use alloc::sync::Arc;
use alloc::vec;
use core::sync::atomic::Ordering;
use hal::user::{UserPtr, copy_in, copy_out};
use qlib::{Errno, PAGE_SIZE};

/// `RLIMIT_NICE` and `RLIMIT_RTPRIO`.
const RLIMIT_NICE: usize = 13;
const RLIMIT_RTPRIO: usize = 14;
/// In a policy of `sched_setscheduler`.
const RESET_ON_FORK: u32 = 0x4000_0000;
/// Length of a round-robin task's turn, and of any other's, ns.
const ROUND_NS: u64 = 100_000_000;
const TURN_NS: u64 = 4_000_000;

/// Whether `me` may change how `it` is scheduled, as its owner.
fn is_own(me: &Creds, it: &Creds) -> bool {
    me.euid == it.euid || me.euid == it.uid
}

/// Whether a task's `RLIMIT_NICE` lets it have `nice` (a nice value + 20) without a capability.
fn limit_permits(task: &Task, nice: u32) -> bool {
    u64::from(40 - nice.min(40)) <= task.process.rlimits.lock()[RLIMIT_NICE].0
}

fn sys_sched_getaffinity(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let task = task_of(ctx, a.i32(0))?;
    let cpus = task.cpus.lock().clone();
    let mask = cpus.to_bytes();
    if (a.u64(1) as usize) < mask.len() || !a.u64(1).is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    copy_out(a.u64(2), &mask)?;
    Ok(mask.len() as u64)
}

fn sys_sched_setaffinity(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let n = (a.u64(1) as usize).min(1024);
    let mut mask = vec![0u8; n];
    copy_in(&mut mask, a.u64(2))?;
    let task = task_of(ctx, a.i32(0))?;
    let (me, it) = (ctx.task.creds(), task.creds());
    if !is_own(&me, &it) && !me.capable_in(&it.user, cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let cpus = CpuSet::from_bytes(&mask).ok_or(Errno::EINVAL)?;
    *task.cpus.lock() = cpus;
    Ok(0)
}

fn sys_getcpu(_ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    for i in 0..2 {
        if a.u64(i) != 0 {
            a.ptr::<u32>(i).write(&0)?;
        }
    }
    Ok(0)
}

fn sys_sched_getparam(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let task = task_by_pid(ctx, a.i32(0))?;
    if a.u64(1) == 0 {
        return Err(Errno::EINVAL);
    }
    let priority = task.policy.lock().priority;
    a.ptr::<u32>(1).write(&priority)?;
    Ok(0)
}

fn sys_sched_getscheduler(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let p = *task_by_pid(ctx, a.i32(0))?.policy.lock();
    let reset = if p.reset_on_fork { RESET_ON_FORK } else { 0 };
    Ok(u64::from(p.kind | reset))
}

/// `sched_setscheduler`, and `sched_setparam`, which names no policy.
fn sys_sched_setscheduler(ctx: &mut Ctx<'_>, pid: i32, kind: Option<u32>, param: u64) -> SysResult {
    if param == 0 || pid < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = UserPtr::<u32>::new(param).read()?;
    let task = task_by_pid(ctx, pid)?;
    let old = *task.policy.lock();
    if kind.is_some_and(|k| k & !RESET_ON_FORK == policy::DEADLINE) {
        // The call cannot say which.
        return Err(Errno::EINVAL);
    }
    let new = Policy {
        kind: kind.map_or(old.kind, |k| k & !RESET_ON_FORK),
        priority,
        reset_on_fork: kind.map_or(old.reset_on_fork, |k| k & RESET_ON_FORK != 0),
    };
    set_policy(ctx, &task, new, task.nice.load(Ordering::Relaxed))
}

/// Gives a task a policy and a nice value (+ 20) if the caller may.
fn set_policy(ctx: &Ctx<'_>, task: &Task, new: Policy, nice: u32) -> SysResult {
    let real_time = policy::is_real_time(new.kind);
    // An idle task keeps its nice value and has no use for it.
    let fair = matches!(new.kind, policy::OTHER | policy::BATCH);
    match new.kind {
        policy::OTHER | policy::BATCH | policy::IDLE | policy::FIFO | policy::ROUND_ROBIN => {}
        // Nothing here could keep a deadline.
        policy::DEADLINE => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    }
    if new.priority > 99 || real_time != (new.priority != 0) {
        return Err(Errno::EINVAL);
    }
    let (me, it) = (ctx.task.creds(), task.creds());
    let highest = task.process.rlimits.lock()[RLIMIT_RTPRIO].0;
    let mut kept = task.policy.lock();
    let old = *kept;
    let old_nice = task.nice.load(Ordering::Relaxed);
    let better = if real_time {
        new.kind != old.kind && highest == 0
            || new.priority > old.priority && u64::from(new.priority) > highest
    } else {
        fair && nice < old_nice && !limit_permits(task, nice)
    };
    let leaves_idle = old.kind == policy::IDLE && new.kind != policy::IDLE && !limit_permits(task, old_nice);
    let forgets = old.reset_on_fork && !new.reset_on_fork;
    if (better || leaves_idle || forgets || !is_own(&me, &it)) && !me.capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    *kept = new;
    if fair {
        task.nice.store(nice, Ordering::Relaxed);
    }
    Ok(0)
}

/// `struct sched_attr`: size of the first version and of ours, and the flags.
const FIRST_ATTR: usize = 48;
const ATTR: usize = 56;
const ATTR_RESET_ON_FORK: u64 = 1;
const ATTR_KEEP_POLICY: u64 = 8;
const ATTR_KEEP_PARAMS: u64 = 16;
/// Clamps of utilisation: a matter of kernels built for it.
const ATTR_CLAMPS: u64 = 0x60;
/// With those for deadlines (reclaim, overrun).
const ATTR_FLAGS: u64 = 0x7f;

fn sys_sched_getattr(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let room = a.u32(2) as usize;
    if a.u64(1) == 0 || !(FIRST_ATTR..=PAGE_SIZE as usize).contains(&room) || a.u32(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let t = task_by_pid(ctx, a.i32(0))?;
    let p = *t.policy.lock();
    let mut b = [0u8; ATTR];
    let n = room.min(ATTR);
    let mut put = |at: usize, v: u32| b[at..at + 4].copy_from_slice(&v.to_le_bytes());
    put(0, n as u32);
    put(4, p.kind);
    put(8, u32::from(p.reset_on_fork));
    if policy::is_real_time(p.kind) {
        put(20, p.priority);
    } else {
        put(16, t.nice.load(Ordering::Relaxed).wrapping_sub(20));
    }
    copy_out(a.u64(1), &b[..n])?;
    Ok(0)
}

fn sys_sched_setattr(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (pid, at) = (a.i32(0), a.u64(1));
    if at == 0 || pid < 0 || a.u32(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let told = match UserPtr::<u32>::new(at).read()? as usize {
        0 => FIRST_ATTR,
        n => n,
    };
    let too_big = || {
        UserPtr::<u32>::new(at).write(&(ATTR as u32))?;
        Err(Errno::E2BIG)
    };
    if !(FIRST_ATTR..=PAGE_SIZE as usize).contains(&told) {
        return too_big();
    }
    let mut b = vec![0u8; told.max(ATTR)];
    copy_in(&mut b[..told], at)?;
    if b[ATTR..].iter().any(|x| *x != 0) {
        return too_big();
    }
    let word = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let flags = u64::from(word(8)) | u64::from(word(12)) << 32;
    if flags & ATTR_CLAMPS != 0 && told < ATTR || (word(4) as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let task = task_of(ctx, pid)?;
    let old = *task.policy.lock();
    if flags & !ATTR_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & ATTR_CLAMPS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut new = Policy {
        kind: word(4),
        priority: word(20),
        reset_on_fork: flags & ATTR_RESET_ON_FORK != 0,
    };
    let mut nice = ((word(16) as i32).clamp(-20, 19) + 20) as u32;
    if flags & ATTR_KEEP_POLICY != 0 {
        new.kind = old.kind;
        new.reset_on_fork = old.reset_on_fork;
    }
    if flags & ATTR_KEEP_PARAMS != 0 {
        new.priority = old.priority;
        nice = task.nice.load(Ordering::Relaxed);
    }
    let ns = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    if new.kind == policy::DEADLINE && !is_deadline(ns(24), ns(32), ns(40)) {
        return Err(Errno::EINVAL);
    }
    set_policy(ctx, &task, new, nice)
}

/// Whether `SCHED_DEADLINE` could mean these, ns: the period may be left out.
fn is_deadline(runtime: u64, deadline: u64, period: u64) -> bool {
    const SHORTEST: u64 = 1 << 10;
    let ordered = runtime <= deadline && (period == 0 || deadline <= period);
    ordered && runtime >= SHORTEST && deadline >> 63 == 0 && period >> 63 == 0
}

fn sys_sched_rr_get_interval(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let turn = match task_by_pid(ctx, a.i32(0))?.policy.lock().kind {
        policy::FIFO => 0,
        policy::ROUND_ROBIN => ROUND_NS,
        _ => TURN_NS,
    };
    crate::time::write_timespec(a.u64(1), turn)?;
    Ok(0)
}

fn sys_sched_get_priority(kind: i32, max: bool) -> SysResult {
    match kind as u32 {
        k if policy::is_real_time(k) => Ok(if max { 99 } else { 1 }),
        policy::OTHER | policy::BATCH | policy::IDLE | policy::DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// Tasks that `which`/`who` of get/setpriority name.
fn priority_targets(ctx: &Ctx<'_>, which: i32, who: u32) -> SysResult<alloc::vec::Vec<Arc<Task>>> {
    let tasks_of = |p: Arc<crate::task::Process>| p.tasks.lock().clone();
    let found: alloc::vec::Vec<_> = match which {
        0 if who == 0 => vec![ctx.task.clone()],
        0 => table::task_in(ctx.task.pid_ns(), who).into_iter().collect(),
        1 => {
            let g = match who {
                0 => ctx.task.process.family.lock().pgid,
                n => ctx.task.pid_ns().kernel(n).ok_or(Errno::ESRCH)?,
            };
            table::group(g).into_iter().flat_map(tasks_of).collect()
        }
        2 => {
            let creds = ctx.task.creds();
            let uid = if who == 0 {
                creds.uid
            } else {
                creds.kernel_uid(who).ok_or(Errno::ESRCH)?
            };
            table::processes_in(ctx.task.pid_ns())
                .into_iter()
                .flat_map(|(_, p)| tasks_of(p))
                .filter(|t| t.creds().uid == uid)
                .collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() {
        Err(Errno::ESRCH)
    } else {
        Ok(found)
    }
}

fn sys_getpriority(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let tasks = priority_targets(ctx, a.i32(0), a.u32(1))?;
    // The call returns 20 - nice, the highest priority of all.
    let best = tasks
        .iter()
        .map(|t| t.nice.load(Ordering::Relaxed))
        .min()
        .unwrap_or(20);
    Ok(u64::from(40 - best))
}

fn sys_setpriority(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let nice = a.i32(2).clamp(-20, 19);
    let tasks = priority_targets(ctx, a.i32(0), a.u32(1))?;
    let me = ctx.task.creds();
    for t in tasks {
        let it = t.creds();
        if !is_own(&me, &it) && !me.capable_in(&it.user, cap::SYS_NICE) {
            return Err(Errno::EPERM);
        }
        let value = (nice + 20) as u32;
        if value < t.nice.load(Ordering::Relaxed) && !limit_permits(&t, value) && !me.capable(cap::SYS_NICE) {
            return Err(Errno::EACCES);
        }
        t.nice.store(value, Ordering::Relaxed);
    }
    Ok(0)
}

rows! {
    sched_yield: Full, |_, _| { hal::thread::yield_now(); Ok(0) };
    sched_getaffinity: Full, sys_sched_getaffinity;
    sched_setaffinity: Partial("kept, not enforced"), sys_sched_setaffinity;
    sched_getparam: Full, sys_sched_getparam;
    sched_setparam: Partial("kept, not enforced"), |c, a| sys_sched_setscheduler(c, a.i32(0), None, a.u64(1));
    sched_getscheduler: Full, sys_sched_getscheduler;
    sched_setscheduler: Partial("kept, not enforced"), |c, a| {
        if a.i32(1) < 0 { return Err(Errno::EINVAL); }
        sys_sched_setscheduler(c, a.i32(0), Some(a.u32(1)), a.u64(2))
    };
    sched_get_priority_max: Full, |_, a| sys_sched_get_priority(a.i32(0), true);
    sched_get_priority_min: Full, |_, a| sys_sched_get_priority(a.i32(0), false);
    sched_rr_get_interval: Partial("a fixed interval for each policy"), sys_sched_rr_get_interval;
    sched_getattr: Full, sys_sched_getattr;
    sched_setattr: Partial("kept, not enforced; no deadlines"), sys_sched_setattr;
    getcpu: Partial("always the first CPU"), sys_getcpu;
    getpriority: Full, sys_getpriority;
    setpriority: Partial("kept, not enforced"), sys_setpriority;
}
