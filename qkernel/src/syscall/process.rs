//! Processes: clone, execve, exit, wait, ids, groups, sessions. Source: the man pages of the same names.

use super::Support::{Full, Partial, Refused};
use super::{Args, Ctx, SysResult};
use crate::fs;
use crate::fs::epoll::Epoll;
use crate::fs::fdtable::Fd;
use crate::rows;
use crate::task::clone::{CloneArgs, flag};
use crate::task::inspect::Seeker;
use crate::task::process::Usage;
use crate::task::task::work;
use crate::task::wait::{Change, Who, option};
use crate::task::{Process, Session, Task, clone, pidfd, table, wait};
use crate::trace;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::uapi::general::{clone_args, rusage};
use hal::user::{UserCStr, UserPtr, copy_out};
use qlib::Errno;

/// Longest path, NUL included.
const PATH_MAX: usize = 4096;
/// A number that no process and no group has.
const NOBODY: u32 = 0;
/// Most strings of argv and envp together.
const MAX_STRINGS: usize = 0x10_0000;

fn sys_exit(ctx: &mut Ctx<'_>, code: i32) -> SysResult {
    ctx.task.exit_status.store((code & 0xff) << 8, Ordering::Relaxed);
    ctx.task.work.fetch_or(work::KILL, Ordering::SeqCst);
    Ok(0)
}

fn sys_exit_group(ctx: &mut Ctx<'_>, code: i32) -> SysResult {
    crate::signal::send::kill_group(&ctx.task.process, (code & 0xff) << 8);
    Ok(0)
}

/// The argument order differs by architecture: `clone(flags, stack, ptid, ctid, tls)` on x86_64, tls before ctid on aarch64.
fn sys_clone(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (child_tid, tls) = if hal::native::CLONE_TLS_LAST {
        (a.u64(3), a.u64(4))
    } else {
        (a.u64(4), a.u64(3))
    };
    let flags = a.u64(0) & 0xffff_ffff;
    let args = CloneArgs {
        flags: flags & !flag::CSIGNAL,
        exit_signal: (flags & flag::CSIGNAL) as u32,
        stack: a.u64(1),
        parent_tid: a.u64(2),
        child_tid,
        tls,
        // With CLONE_PIDFD the parent_tid argument is where the descriptor goes.
        pidfd: a.u64(2),
    };
    if flags & flag::PIDFD != 0 && flags & flag::PARENT_SETTID != 0 {
        return Err(Errno::EINVAL);
    }
    clone::clone(ctx, &args)
}

fn sys_clone3(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    const FIRST_VERSION: usize = 64;
    let size = a.u64(1) as usize;
    if size < FIRST_VERSION {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let bytes = hal::user::UserSlice::new(a.u64(0), size as u64)?.to_vec(4096)?;
    let known = size_of::<clone_args>();
    if bytes.iter().skip(known).any(|b| *b != 0) {
        return Err(Errno::E2BIG);
    }
    let word = |i: usize| {
        let mut b = [0u8; 8];
        if let Some(s) = bytes.get(i * 8..i * 8 + 8) {
            b.copy_from_slice(s);
        }
        u64::from_le_bytes(b)
    };
    // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    let (flags, stack, stack_size) = (word(0), word(5), word(6));
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let bad_stack = (stack == 0) != (stack_size == 0);
    if flags & flag::CSIGNAL != 0 || word(4) > 64 || bad_stack || word(9) > 0 || flags & INTO_CGROUP != 0 {
        return Err(Errno::EINVAL);
    }
    let args = CloneArgs {
        flags,
        exit_signal: word(4) as u32,
        stack: stack.wrapping_add(stack_size),
        parent_tid: word(3),
        child_tid: word(2),
        tls: word(7),
        pidfd: word(1),
    };
    clone::clone(ctx, &args)
}

fn sys_fork(ctx: &mut Ctx<'_>, flags: u64) -> SysResult {
    clone::clone(
        ctx,
        &CloneArgs {
            flags,
            exit_signal: crate::signal::signo::SIGCHLD,
            ..CloneArgs::default()
        },
    )
}

fn strings(addr: u64) -> SysResult<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    if addr == 0 {
        return Ok(out);
    }
    let array = UserPtr::<u64>::new(addr);
    let mut total = 0usize;
    loop {
        let p = array.at(out.len()).read()?;
        if p == 0 {
            return Ok(out);
        }
        let s = UserCStr::new(p)
            .read(crate::loader::exec::MAX_STRING - 1)
            .map_err(|e| match e {
                Errno::ENAMETOOLONG => Errno::E2BIG,
                e => e,
            })?;
        total += s.len() + 9;
        if out.len() >= MAX_STRINGS || total > 6 << 20 {
            return Err(Errno::E2BIG);
        }
        out.push(s);
    }
}

fn sys_execve(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let path = a.cstr(0).read(PATH_MAX - 1)?;
    let (argv, envp) = (strings(a.u64(1))?, strings(a.u64(2))?);
    let file = fs::open_exec(ctx.task, &path)?;
    exec(ctx, file, &path, argv, envp)
}

fn sys_execveat(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let path = a.cstr(1).read(PATH_MAX - 1)?;
    let (argv, envp) = (strings(a.u64(2))?, strings(a.u64(3))?);
    let file = fs::open_exec_at(ctx.task, a.fd(0), &path, a.u32(4))?;
    let shown = if path.is_empty() || !path.starts_with(b"/") && a.i32(0) >= 0 {
        let mut s = alloc::format!("/dev/fd/{}", a.i32(0)).into_bytes();
        if !path.is_empty() {
            s.push(b'/');
            s.extend_from_slice(&path);
        }
        s
    } else {
        path
    };
    exec(ctx, file, &shown, argv, envp)
}

fn exec(
    ctx: &mut Ctx<'_>,
    file: Arc<fs::File>,
    path: &[u8],
    mut argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> SysResult {
    if argv.is_empty() {
        // As Linux since 5.18: a program always gets argv[0].
        argv.push(Vec::new());
    }
    let program = crate::loader::exec::prepare(ctx.task, file, path, argv, envp)?;
    let before = ctx.task.numbers.lock().clone();
    crate::loader::exec::run(ctx.task, ctx.regs, program)?;
    trace::after_exec(ctx, &before);
    Ok(0)
}

fn put_usage(addr: u64, u: &Usage) -> SysResult<()> {
    use hal::uapi::Plain;
    if addr == 0 {
        return Ok(());
    }
    let mut r = rusage::zeroed();
    let time = |ns: u64| hal::uapi::general::__kernel_old_timeval {
        tv_sec: (ns / 1_000_000_000) as _,
        tv_usec: (ns % 1_000_000_000 / 1000) as _,
    };
    r.ru_utime = time(u.user_ns);
    r.ru_stime = time(u.system_ns);
    let c = &u.counts;
    r.ru_maxrss = c.peak_rss_kib as _;
    r.ru_minflt = c.minor_faults as _;
    r.ru_majflt = c.major_faults as _;
    r.ru_inblock = c.blocks_read as _;
    r.ru_oublock = c.blocks_written as _;
    r.ru_nvcsw = c.voluntary as _;
    r.ru_nivcsw = c.involuntary as _;
    UserPtr::new(addr).write(&r)
}

fn sys_wait4(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (pid, status, options, usage) = (a.i32(0), a.u64(1), a.u32(2), a.u64(3));
    use option::*;
    if options & !(NOHANG | STOPPED | CONTINUED | NOTHREAD | ALL | CLONE) != 0 {
        return Err(Errno::EINVAL);
    }
    let kernel = |n: u32| ctx.task.pid_ns().kernel(n).unwrap_or(NOBODY);
    let who = match pid {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Who::Any,
        0 => Who::Group(ctx.task.process.family.lock().pgid),
        p if p < 0 => Who::Group(kernel(p.unsigned_abs())),
        p => Who::Pid(kernel(p as u32)),
    };
    let Some(c) = wait::wait(ctx.task, who, options | EXITED)? else {
        return Ok(0);
    };
    if status != 0 {
        copy_out(status, &c.status.to_le_bytes())?;
    }
    put_usage(usage, &c.usage)?;
    Ok(u64::from(c.pid))
}

fn sys_waitid(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    use option::*;
    let (kind, id, info, options, usage) = (a.u32(0), a.i32(1), a.u64(2), a.u32(3), a.u64(4));
    if options & !(NOHANG | STOPPED | EXITED | CONTINUED | NOWAIT | NOTHREAD | ALL | CLONE) != 0
        || options & (STOPPED | EXITED | CONTINUED) == 0
    {
        return Err(Errno::EINVAL);
    }
    let mut options = options;
    let mut nonblock = false;
    let kernel = |n: u32| ctx.task.pid_ns().kernel(n).unwrap_or(NOBODY);
    let who = match kind {
        0 => Who::Any,
        1 if id > 0 => Who::Pid(kernel(id as u32)),
        2 if id == 0 => Who::Group(ctx.task.process.family.lock().pgid),
        2 if id > 0 => Who::Group(kernel(id as u32)),
        3 => {
            let file = ctx.task.files().get(crate::fs::Fd(id))?;
            nonblock = file.nonblock();
            let target = file.downcast::<pidfd::PidFd>().ok_or(Errno::EBADF)?;
            Who::Pid(target.process.pid)
        }
        _ => return Err(Errno::EINVAL),
    };
    if nonblock {
        options |= NOHANG;
    }
    let change = wait::wait(ctx.task, who, options)?;
    if nonblock && change.is_none() && a.u32(3) & NOHANG == 0 {
        return Err(Errno::EAGAIN);
    }
    if info != 0 {
        let mut b = [0u8; 128];
        if let Some(Change {
            pid,
            uid,
            code,
            value,
            ..
        }) = change
        {
            b[0..4].copy_from_slice(&crate::signal::signo::SIGCHLD.to_le_bytes());
            b[8..12].copy_from_slice(&code.to_le_bytes());
            b[16..20].copy_from_slice(&pid.to_le_bytes());
            let uid = crate::ns::shown_owner(uid, 0).0;
            b[20..24].copy_from_slice(&uid.to_le_bytes());
            b[24..28].copy_from_slice(&value.to_le_bytes());
        }
        copy_out(info, &b)?;
    }
    if let Some(c) = change {
        put_usage(usage, &c.usage)?;
    }
    Ok(0)
}

fn sys_getppid(ctx: &mut Ctx<'_>) -> SysResult {
    Ok(u64::from(ctx.task.process.parent_in(ctx.task.pid_ns())))
}

/// The process whose number, or the number of one of whose tasks, the caller knows.
pub(super) fn by_number(ctx: &Ctx<'_>, number: u32) -> Option<Arc<Process>> {
    let kernel = ctx.task.pid_ns().kernel(number)?;
    table::process(kernel).or_else(|| table::task(kernel).map(|t| t.process.clone()))
}

/// The process `pid` names, 0 = the caller's.
fn find(ctx: &Ctx<'_>, pid: i32) -> SysResult<Arc<Process>> {
    match pid {
        0 => Ok(ctx.task.process.clone()),
        p if p < 0 => Err(Errno::ESRCH),
        p => by_number(ctx, p as u32).ok_or(Errno::ESRCH),
    }
}

fn sys_setpgid(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (pid, pgid) = (a.i32(0), a.i32(1));
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let target = find(ctx, pid)?;
    let me = &ctx.task.process;
    let _tree = table::TREE.lock();
    let my_session = me.family.lock().session.as_ref().map(|s| s.sid);
    if !Arc::ptr_eq(&target, me) {
        let f = target.family.lock();
        let is_child = f
            .parent
            .as_ref()
            .and_then(|w| w.upgrade())
            .is_some_and(|p| Arc::ptr_eq(&p, me));
        if !is_child {
            return Err(Errno::ESRCH);
        }
        if f.session.as_ref().map(|s| s.sid) != my_session {
            return Err(Errno::EPERM);
        }
        if target.did_exec.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
    }
    if target
        .family
        .lock()
        .session
        .as_ref()
        .is_some_and(|s| s.sid == target.pid)
    {
        return Err(Errno::EPERM);
    }
    let pgid = match pgid as u32 {
        0 => target.pid,
        n => ctx.task.pid_ns().kernel(n).ok_or(Errno::EPERM)?,
    };
    if pgid != target.pid {
        let in_session = table::group(pgid)
            .iter()
            .any(|p| p.family.lock().session.as_ref().map(|s| s.sid) == my_session);
        if !in_session {
            return Err(Errno::EPERM);
        }
    }
    target.family.lock().join(pgid);
    Ok(0)
}

fn sys_getpgid(ctx: &mut Ctx<'_>, pid: i32) -> SysResult {
    let p = find(ctx, pid)?;
    let pgid = p.family.lock().group.shown(ctx.task.pid_ns());
    Ok(u64::from(pgid))
}

fn sys_getsid(ctx: &mut Ctx<'_>, pid: i32) -> SysResult {
    let p = find(ctx, pid)?;
    let session = p.family.lock().session.clone();
    Ok(session.map_or(0, |s| u64::from(s.numbers.shown(ctx.task.pid_ns()))))
}

fn sys_setsid(ctx: &mut Ctx<'_>) -> SysResult {
    let me = &ctx.task.process;
    let _tree = table::TREE.lock();
    if !table::group(me.pid).is_empty() {
        return Err(Errno::EPERM);
    }
    let mut f = me.family.lock();
    f.join(me.pid);
    f.session = Some(Session::new(&me.numbers));
    Ok(u64::from(me.own_pid()))
}

fn sys_pidfd_open(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    const NONBLOCK: u32 = hal::uapi::general::O_NONBLOCK;
    if a.u32(1) & !NONBLOCK != 0 || a.i32(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    let p = table::process_in(ctx.task.pid_ns(), a.u32(0)).ok_or(Errno::ESRCH)?;
    pidfd::install(ctx.task, &p, a.u32(1)).map(|fd| fd.0 as u64)
}

fn sys_pidfd_getfd(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    if a.u32(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.task.files().get(a.fd(0))?;
    let target = &file.downcast::<pidfd::PidFd>().ok_or(Errno::EBADF)?.process;
    let task = target.tasks.lock().first().cloned().ok_or(Errno::ESRCH)?;
    if !may_inspect(ctx, &task) {
        return Err(Errno::EPERM);
    }
    let got = task.files().get(a.fd(1))?;
    let limit = ctx.task.process.rlimits.lock()[7].0;
    ctx.task.files().insert(got, true, 0, limit).map(|fd| fd.0 as u64)
}

/// The rule of `ptrace(2)` for looking into another task (PTRACE_MODE_READ_REALCREDS).
pub fn may_inspect(ctx: &Ctx<'_>, target: &crate::task::Task) -> bool {
    let me = ctx.task.creds();
    let seeker = Seeker {
        creds: &me,
        uid: me.uid,
        gid: me.gid,
        caps: me.caps.permitted,
    };
    Arc::ptr_eq(&ctx.task.process, &target.process) || seeker.may_inspect(target)
}

fn sys_set_tid_address(ctx: &mut Ctx<'_>, addr: u64) -> SysResult {
    ctx.task.clear_tid.store(addr, Ordering::Relaxed);
    Ok(u64::from(ctx.task.own_tid()))
}

fn sys_getrusage(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    crate::task::exit::account(ctx.task);
    let p = &ctx.task.process;
    let usage = match a.i32(0) {
        0 => process_usage(p),
        -1 => *p.child_usage.lock(),
        1 => ctx.task.usage(),
        _ => return Err(Errno::EINVAL),
    };
    if a.u64(1) == 0 {
        return Err(Errno::EFAULT);
    }
    put_usage(a.u64(1), &usage)?;
    Ok(0)
}

/// Usage of a process: its ended tasks, and its live ones as far as can be seen from here.
pub fn process_usage(p: &Process) -> Usage {
    crate::time::cpu::look(p);
    crate::fs::proc::ident::usage(p)
}

const KCMP_EPOLL_TFD: u32 = 7;

/// Compares what two tasks have. Source: `kcmp(2)`.
fn sys_kcmp(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let find = |id: u32| table::task_in(ctx.task.pid_ns(), id).ok_or(Errno::ESRCH);
    let (one, two) = (find(a.u32(0))?, find(a.u32(1))?);
    if !may_inspect(ctx, &one) || !may_inspect(ctx, &two) {
        return Err(Errno::EPERM);
    }
    // Addresses tell same from different, and in which order; their values stay here.
    let file = |t: &Arc<Task>, fd: Fd| t.files().get(fd).map(|f| Arc::as_ptr(&f) as usize);
    let order = |one: usize, two: usize| match one.cmp(&two) {
        core::cmp::Ordering::Equal => 0,
        core::cmp::Ordering::Less => 1,
        core::cmp::Ordering::Greater => 2,
    };
    if a.u32(2) == KCMP_EPOLL_TFD {
        // The second file is one that an epoll instance watches: `struct kcmp_epoll_slot`.
        let [instance, fd, nth] = UserPtr::<[u32; 3]>::new(a.u64(4)).read()?;
        let one = file(&one, a.fd(3))?;
        let instance = two.files().get(Fd(instance as i32))?;
        let epoll = instance.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
        let two = epoll.watched(fd as i32, nth as usize).ok_or(Errno::ENOENT)?;
        return Ok(order(one, two));
    }
    let id = |t: &Arc<Task>, fd: Fd| -> SysResult<usize> {
        Ok(match a.u32(2) {
            0 => file(t, fd)?,
            1 => t.mm().map_or(0, |m| Arc::as_ptr(&m) as usize),
            2 => Arc::as_ptr(&t.files()) as usize,
            3 => Arc::as_ptr(&t.fs()) as usize,
            4 => Arc::as_ptr(&t.process.handlers.lock()) as usize,
            // I/O contexts and System V undo lists belong to the process here.
            5 | 6 => Arc::as_ptr(&t.process) as usize,
            _ => return Err(Errno::EINVAL),
        })
    };
    Ok(order(id(&one, a.fd(3))?, id(&two, a.fd(4))?))
}

rows! {
    exit: Full, |c, a| sys_exit(c, a.i32(0));
    exit_group: Full, |c, a| sys_exit_group(c, a.i32(0));
    clone: Partial("new mount, user, uts, ipc, cgroup and pid namespaces; net is EINVAL"), sys_clone;
    clone3: Partial("new mount, user, uts, ipc, cgroup and pid namespaces; net and time are EINVAL; no set_tid, no CLONE_INTO_CGROUP"), sys_clone3;
    fork: Full, |c, _| sys_fork(c, 0);
    vfork: Full, |c, _| sys_fork(c, flag::VM | flag::VFORK);
    execve: Full, sys_execve;
    execveat: Full, sys_execveat;
    wait4: Full, sys_wait4;
    waitid: Full, sys_waitid;
    getpid: Full, |c, _| Ok(u64::from(c.task.process.own_pid()));
    gettid: Full, |c, _| Ok(u64::from(c.task.own_tid()));
    getppid: Full, |c, _| sys_getppid(c);
    setpgid: Full, sys_setpgid;
    getpgid: Full, |c, a| sys_getpgid(c, a.i32(0));
    getpgrp: Full, |c, _| sys_getpgid(c, 0);
    getsid: Full, |c, a| sys_getsid(c, a.i32(0));
    setsid: Full, |c, _| sys_setsid(c);
    pidfd_open: Partial("no PIDFD_THREAD"), sys_pidfd_open;
    pidfd_getfd: Full, sys_pidfd_getfd;
    set_tid_address: Full, |c, a| sys_set_tid_address(c, a.u64(0));
    getrusage: Partial("on process the resident set holds the kernel's own pages; on kvm no blocks of storage"), sys_getrusage;
    kcmp: Full, sys_kcmp;
    process_mrelease: Refused(Errno::ENOSYS, "not offered");
    acct: Refused(Errno::ENOSYS, "no accounting");
    uselib: Refused(Errno::ENOSYS, "obsolete");
    rseq: Refused(Errno::ENOSYS, "libc copes");
}
