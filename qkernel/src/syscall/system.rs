//! The system and its limits: names, limits, prctl, randomness. Source: the man pages of the same names.

use super::Support::{Full, Partial, Refused};
use super::{Args, Ctx, SysResult};
use crate::kernel;
use crate::rows;
use crate::task::creds::cap;
use crate::task::process::RLIMITS;
use crate::task::{Task, table};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::user::{UserPtr, UserSlice, copy_out};
use qlib::Errno;

fn sys_uname(_ctx: &mut Ctx<'_>, addr: u64) -> SysResult {
    const FIELD: usize = 65;
    let (host, domain) = crate::ns::current().uts.names();
    let fields: [&[u8]; 6] = [
        b"Linux",
        &host,
        kernel::RELEASE.as_bytes(),
        kernel::VERSION.as_bytes(),
        hal::native::MACHINE_NAME.as_bytes(),
        &domain,
    ];
    let mut b = [0u8; FIELD * 6];
    for (i, f) in fields.iter().enumerate() {
        let n = f.len().min(FIELD - 1);
        b[i * FIELD..i * FIELD + n].copy_from_slice(&f[..n]);
    }
    copy_out(addr, &b)?;
    Ok(0)
}

fn sys_sethostname(ctx: &mut Ctx<'_>, a: Args, domain: bool) -> SysResult {
    let uts = ctx.task.namespaces().uts.clone();
    if !ctx.task.creds().capable_in(&uts.owner, cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if a.u64(1) > 64 {
        return Err(Errno::EINVAL);
    }
    let name = a.slice(0)?.to_vec(64)?;
    uts.set(domain, &name);
    Ok(0)
}

fn sys_sysinfo(_ctx: &mut Ctx<'_>, addr: u64) -> SysResult {
    let m = crate::fs::proc::memory::figures();
    let mut b = [0u8; 112];
    let mut put = |at: usize, v: u64| b[at..at + 8].copy_from_slice(&v.to_le_bytes());
    put(0, hal::clock::monotonic_ns() / crate::time::SECOND_NS);
    for (i, load) in crate::fs::proc::load::averages().into_iter().enumerate() {
        // SI_LOAD_SHIFT is 16.
        put(8 + 8 * i, load << (16 - crate::fs::proc::load::SHIFT));
    }
    for (i, kib) in [m.total, m.free, m.shmem, m.buffers, m.swap_total, m.swap_free]
        .into_iter()
        .enumerate()
    {
        put(32 + 8 * i, kib << 10);
    }
    b[80..82].copy_from_slice(&(table::task_count().min(65535) as u16).to_le_bytes());
    b[104..108].copy_from_slice(&1u32.to_le_bytes());
    copy_out(addr, &b)?;
    Ok(0)
}

/// Sets and gets a limit of a process.
fn prlimit(ctx: &Ctx<'_>, target: &Task, resource: u32, new: Option<(u64, u64)>) -> SysResult<(u64, u64)> {
    const RLIMIT_CPU: usize = 0;
    const RLIMIT_NOFILE: usize = 7;
    const NR_OPEN: u64 = 1 << 20;
    let i = resource as usize;
    if i >= RLIMITS {
        return Err(Errno::EINVAL);
    }
    let mut limits = target.process.rlimits.lock();
    let old = limits[i];
    if let Some((soft, hard)) = new {
        if soft > hard {
            return Err(Errno::EINVAL);
        }
        let raises = hard > old.1;
        if raises && !ctx.task.creds().capable(cap::SYS_RESOURCE) || i == RLIMIT_NOFILE && hard > NR_OPEN {
            return Err(Errno::EPERM);
        }
        limits[i] = (soft, hard);
    }
    drop(limits);
    if i == RLIMIT_CPU && new.is_some() {
        crate::time::cpu::limit_changed(&target.process);
    }
    Ok(old)
}

fn limit_at(addr: u64) -> SysResult<Option<(u64, u64)>> {
    if addr == 0 {
        return Ok(None);
    }
    let [soft, hard] = UserPtr::<[u64; 2]>::new(addr).read()?;
    Ok(Some((soft, hard)))
}

fn sys_prlimit64(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let target = task_of(ctx, a.i32(0))?;
    if !Arc::ptr_eq(&target.process, &ctx.task.process) {
        let (me, it) = (ctx.task.creds(), target.creds());
        let same = [it.uid, it.euid, it.suid].iter().all(|u| *u == me.uid)
            && [it.gid, it.egid, it.sgid].iter().all(|g| *g == me.gid);
        if !same && !me.capable_in(&it.user, cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
    }
    let new = limit_at(a.u64(2))?;
    let old = prlimit(ctx, &target, a.u32(1), new)?;
    if a.u64(3) != 0 {
        a.ptr::<[u64; 2]>(3).write(&[old.0, old.1])?;
    }
    Ok(0)
}

/// The task a pid names, for calls that know no negative pids.
pub(super) fn task_of(ctx: &Ctx<'_>, pid: i32) -> SysResult<Arc<Task>> {
    match pid {
        0 => Ok(ctx.task.clone()),
        p => u32::try_from(p)
            .ok()
            .and_then(|n| table::task_in(ctx.task.pid_ns(), n))
            .ok_or(Errno::ESRCH),
    }
}

/// As [`task_of`], for calls that refuse negative pids as such.
pub(super) fn task_by_pid(ctx: &Ctx<'_>, pid: i32) -> SysResult<Arc<Task>> {
    if pid < 0 {
        Err(Errno::EINVAL)
    } else {
        task_of(ctx, pid)
    }
}

fn sys_prctl(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let option = a.u32(0);
    if let Some(r) = super::creds::prctl(ctx, option, a) {
        return r;
    }
    let t = ctx.task.clone();
    let put = |v: u32| -> SysResult {
        a.ptr::<u32>(1).write(&v)?;
        Ok(0)
    };
    match option {
        1 if a.u64(1) > 64 => Err(Errno::EINVAL),
        1 => {
            t.death_signal.store(a.u32(1), Ordering::Relaxed);
            Ok(0)
        }
        2 => put(t.death_signal.load(Ordering::Relaxed)),
        3 => Ok(u64::from(t.process.dumpable.load(Ordering::Relaxed))),
        4 if a.u64(1) > 1 => Err(Errno::EINVAL),
        4 => {
            t.process.dumpable.store(a.u32(1), Ordering::Relaxed);
            Ok(0)
        }
        15 => super::creds::task_name(ctx, a.u64(1), true),
        16 => super::creds::task_name(ctx, a.u64(1), false),
        21 => super::seccomp::get(ctx),
        22 => super::seccomp::prctl_set(ctx, a),
        29 => {
            let ns = if a.u64(1) == 0 { 50_000 } else { a.u64(1) };
            t.timer_slack_ns.store(ns, Ordering::Relaxed);
            Ok(0)
        }
        30 => Ok(t.timer_slack_ns.load(Ordering::Relaxed)),
        36 => {
            t.process.subreaper.store(a.u64(1) != 0, Ordering::Relaxed);
            Ok(0)
        }
        37 => put(u32::from(t.process.subreaper.load(Ordering::Relaxed))),
        // PR_SET_THP_DISABLE, PR_GET_THP_DISABLE
        41 | 42 => Ok(0),
        // PR_SET_VMA: names of anonymous areas are not kept.
        0x53564d41 => Err(Errno::EINVAL),
        _ => Err(Errno::EINVAL),
    }
}

fn sys_arch_prctl(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    const SET_GS: u64 = 0x1001;
    const SET_FS: u64 = 0x1002;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    let (code, addr) = (a.u64(0), a.u64(1));
    let user = || hal::aspace::user_range().end > addr;
    match code {
        SET_FS | SET_GS if !user() => Err(Errno::EPERM),
        SET_FS => {
            ctx.regs.set_tls(addr);
            Ok(0)
        }
        GET_FS => {
            UserPtr::new(addr).write(&ctx.regs.tls())?;
            Ok(0)
        }
        SET_GS => ctx.regs.set_second_tls(addr).map(|()| 0),
        GET_GS => {
            let v = ctx.regs.second_tls()?;
            UserPtr::new(addr).write(&v)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn sys_getrandom(_ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    if a.u32(2) & !7 != 0 || a.u32(2) & 6 == 6 {
        return Err(Errno::EINVAL);
    }
    let len = a.u64(1).min(0x7fff_f000);
    let buf = UserSlice::new(a.u64(0), len)?;
    let mut chunk = [0u8; 256];
    let mut done = 0;
    while done < buf.len() {
        let n = (buf.len() - done).min(chunk.len());
        hal::clock::random(&mut chunk[..n]);
        if copy_out(buf.addr() + done as u64, &chunk[..n]).is_err() {
            return if done == 0 {
                Err(Errno::EFAULT)
            } else {
                Ok(done as u64)
            };
        }
        done += n;
    }
    Ok(done as u64)
}

fn sys_personality(ctx: &mut Ctx<'_>, persona: u32) -> SysResult {
    let p = &ctx.task.process.personality;
    let old = p.load(Ordering::Relaxed);
    if persona != u32::MAX {
        p.store(persona, Ordering::Relaxed);
    }
    Ok(u64::from(old))
}

fn sys_syslog(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    match a.i32(0) {
        // Sizes: an empty buffer.
        9 | 10 => Ok(0),
        _ if ctx.task.creds().capable(cap::SYS_ADMIN) => Ok(0),
        _ => Err(Errno::EPERM),
    }
}

rows! {
    uname: Full, |c, a| sys_uname(c, a.u64(0));
    sethostname: Full, |c, a| sys_sethostname(c, a, false);
    setdomainname: Full, |c, a| sys_sethostname(c, a, true);
    sysinfo: Full, |c, a| sys_sysinfo(c, a.u64(0));
    getrlimit: Full, |c, a| { let l = prlimit(c, c.task, a.u32(0), None)?; a.ptr::<[u64; 2]>(1).write(&[l.0, l.1])?; Ok(0) };
    setrlimit: Full, |c, a| { let n = limit_at(a.u64(1))?.ok_or(Errno::EFAULT)?; prlimit(c, c.task, a.u32(0), Some(n))?; Ok(0) };
    prlimit64: Full, sys_prlimit64;
    ioprio_get: Partial("always none"), |_, _| Ok(0);
    ioprio_set: Partial("accepted, no effect"), |_, _| Ok(0);
    prctl: Partial("names, death signal, dumpable, capabilities, subreaper, timer slack, seccomp"), sys_prctl;
    arch_prctl: Partial("FS and GS base"), sys_arch_prctl;
    getrandom: Full, sys_getrandom;
    personality: Partial("kept, no effect"), |c, a| sys_personality(c, a.u32(0));
    syslog: Partial("an empty log"), sys_syslog;
    io_uring_setup: Refused(Errno::ENOSYS, "apps use epoll");
    io_uring_enter: Refused(Errno::ENOSYS, "apps use epoll");
    io_uring_register: Refused(Errno::ENOSYS, "apps use epoll");
    bpf: Refused(Errno::EPERM, "no BPF in the guest");
    perf_event_open: Refused(Errno::ENOSYS, "no performance counters");
    fanotify_init: Refused(Errno::ENOSYS, "not offered");
    fanotify_mark: Refused(Errno::ENOSYS, "not offered");
    init_module: Refused(Errno::EPERM, "no modules");
    finit_module: Refused(Errno::EPERM, "no modules");
    delete_module: Refused(Errno::EPERM, "no modules");
    kexec_load: Refused(Errno::EPERM, "not offered");
    kexec_file_load: Refused(Errno::EPERM, "not offered");
    reboot: Refused(Errno::EPERM, "the runtime stops containers");
    swapon: Refused(Errno::EPERM, "no swap");
    swapoff: Refused(Errno::EPERM, "no swap");
    iopl: Refused(Errno::EPERM, "no ports");
    ioperm: Refused(Errno::EPERM, "no ports");
    modify_ldt: Refused(Errno::ENOSYS, "64-bit only");
    set_thread_area: Refused(Errno::ENOSYS, "64-bit only");
    get_thread_area: Refused(Errno::ENOSYS, "64-bit only");
    vhangup: Refused(Errno::EPERM, "not offered");
    quotactl: Refused(Errno::ENOSYS, "no quotas");
    quotactl_fd: Refused(Errno::ENOSYS, "no quotas");
    lookup_dcookie: Refused(Errno::ENOSYS, "obsolete");
    nfsservctl: Refused(Errno::ENOSYS, "obsolete");
    landlock_create_ruleset: Refused(Errno::ENOSYS, "not offered");
    landlock_add_rule: Refused(Errno::ENOSYS, "not offered");
    landlock_restrict_self: Refused(Errno::ENOSYS, "not offered");
}
