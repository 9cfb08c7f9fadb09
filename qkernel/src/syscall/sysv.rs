//! shmget, shmat, shmdt, shmctl, semget, semop, semtimedop, semctl, msgget, msgsnd, msgrcv, msgctl.

use super::poll::timespec_ns;
use super::{Args, Ctx, Support::*, SysResult};
use crate::ipc::msgqueue::{self, MsgQueue};
use crate::ipc::semaphore::{self, Actor, Op, SemSet};
use crate::ipc::shm::{self, Segment};
use crate::ipc::sysv::{self, IPC_64, Perm, now_s};
use crate::mm::ops::{Backing, MapRequest, Place};
use crate::mm::vma::Label;
use crate::ns::pid::{self, Pid};
use crate::rows;
use crate::task::creds::{Creds, cap};
use alloc::vec::Vec;
use hal::aspace::Prot;
use hal::uapi::general::__kernel_timespec;
use hal::user::{UserPtr, UserSlice};
use qlib::{Errno, PAGE_SIZE};

rows! {
    shmget: Partial("no huge pages"), |c, a| sys_shmget(c, a);
    shmat: Full, |c, a| sys_shmat(c, a);
    shmdt: Partial("segments of an IPC namespace that was left are EINVAL; munmap takes them away"), |c, a| sys_shmdt(c, a);
    shmctl: Partial("SHM_LOCK only marks; a split attachment counts more than once"), |c, a| sys_shmctl(c, a);
    semget: Full, |c, a| sys_semget(c, a);
    semop: Full, |c, a| semtimedop(c, a, 0);
    semtimedop: Full, |c, a| semtimedop(c, a, a.u64(3));
    semctl: Full, |c, a| sys_semctl(c, a);
    msgget: Full, |c, a| sys_msgget(c, a);
    msgsnd: Full, |c, a| sys_msgsnd(c, a);
    msgrcv: Full, |c, a| sys_msgrcv(c, a);
    msgctl: Full, |c, a| sys_msgctl(c, a);
}

/// Commands that `ipcs` uses.
mod cmd {
    pub const SHM_LOCK: u32 = 11;
    pub const SHM_UNLOCK: u32 = 12;
    pub const SHM_STAT: u32 = 13;
    pub const SHM_INFO: u32 = 14;
    pub const SHM_STAT_ANY: u32 = 15;
    pub const GETPID: u32 = 11;
    pub const GETVAL: u32 = 12;
    pub const GETALL: u32 = 13;
    pub const GETNCNT: u32 = 14;
    pub const GETZCNT: u32 = 15;
    pub const SETVAL: u32 = 16;
    pub const SETALL: u32 = 17;
    pub const SEM_STAT: u32 = 18;
    pub const SEM_INFO: u32 = 19;
    pub const SEM_STAT_ANY: u32 = 20;
    pub const MSG_STAT: u32 = 11;
    pub const MSG_INFO: u32 = 12;
    pub const MSG_STAT_ANY: u32 = 13;
}

/// The rights an IPC_GET's mode asks for.
fn wanted(flags: u32) -> u32 {
    (flags >> 6 | flags >> 3 | flags) & 6
}

fn ints(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| (*v as i32).to_ne_bytes()).collect()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn write(addr: u64, bytes: &[u8]) -> SysResult<()> {
    UserSlice::new(addr, bytes.len() as u64)?.write(bytes)
}

/// What IPC_SET gives: the start of every `*_ds` structure.
fn read_perm(addr: u64, len: u64) -> SysResult<Vec<u8>> {
    UserSlice::new(addr, len)?.to_vec(256)
}

/// A process as the caller knows it.
fn shown(process: &Pid) -> i64 {
    i64::from(process.shown(&pid::current()))
}

// Shared memory.

const SHM_RDONLY: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100000;

fn sys_shmget(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (key, size, flags) = (a.i32(0), a.u64(1), a.u32(2));
    let creds = c.task.creds();
    let pid = c.task.process.numbers.clone();
    shm::sweep();
    let id = c.task.namespaces().ipc.segments.get(
        key,
        flags,
        |s| {
            if size > s.size {
                return Err(Errno::EINVAL);
            }
            s.state.lock().perm.check(&creds, wanted(flags))
        },
        |id| {
            if size == 0 || size > 1 << 46 {
                return Err(Errno::EINVAL);
            }
            Segment::new(id, Perm::new(key, flags, &creds), size, pid)
        },
    )?;
    Ok(id as u64)
}

fn sys_shmat(c: &mut Ctx<'_>, a: Args) -> SysResult {
    const RLIMIT_AS: usize = 9;
    let (addr, flags) = (a.u64(1), a.u32(2));
    let segment = c.task.namespaces().ipc.segments.find(a.i32(0))?;
    let place = match addr {
        0 if flags & SHM_REMAP != 0 => return Err(Errno::EINVAL),
        0 => Place::Hint(0),
        _ => {
            let at = if flags & SHM_RND != 0 {
                addr & !(PAGE_SIZE - 1)
            } else {
                addr
            };
            if at % PAGE_SIZE != 0 {
                return Err(Errno::EINVAL);
            }
            if flags & SHM_REMAP != 0 {
                Place::Fixed(at)
            } else {
                Place::FixedNoReplace(at)
            }
        }
    };
    let mut prot = Prot::READ;
    let mut need = 4;
    if flags & SHM_RDONLY == 0 {
        prot |= Prot::WRITE;
        need |= 2;
    }
    if flags & SHM_EXEC != 0 {
        prot |= Prot::EXEC;
        need |= 1;
    }
    let creds = c.task.creds();
    let perm = segment.state.lock().perm;
    perm.check(&creds, need)?;
    let mm = c.task.mm().ok_or(Errno::EINVAL)?;
    let request = MapRequest {
        place,
        len: segment.size,
        prot,
        label: Label::None,
        grows_down: false,
        locked: false,
        limit: c.task.process.rlimits.lock()[RLIMIT_AS].0,
    };
    let backing = Backing::Memory {
        memory: segment.memory.clone(),
        offset: 0,
    };
    let at = mm
        .map(&request, backing)
        .map_err(|e| if e == Errno::EEXIST { Errno::EINVAL } else { e })?;
    let mut s = segment.state.lock();
    s.pids.1 = c.task.process.numbers.clone();
    s.times.0 = now_s();
    Ok(at)
}

fn sys_shmdt(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let addr = a.u64(0);
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let mm = c.task.mm().ok_or(Errno::EINVAL)?;
    let segments = c.task.namespaces().ipc.segments.list();
    let (segment, parts) = {
        let vmas = mm.vmas.lock();
        let first = vmas.iter().find_map(|v| {
            let (m, offset) = v.memory.as_ref()?;
            let starts = v.start.checked_sub(*offset)? == addr;
            let s = segments
                .iter()
                .find(|(_, s)| alloc::sync::Arc::ptr_eq(&s.memory, m))?;
            starts.then(|| s.1.clone())
        });
        let segment = first.ok_or(Errno::EINVAL)?;
        let part = |v: &crate::mm::Vma| {
            let (m, offset) = v.memory.as_ref()?;
            let same =
                alloc::sync::Arc::ptr_eq(m, &segment.memory) && v.start.checked_sub(*offset) == Some(addr);
            same.then_some((v.start, v.end - v.start))
        };
        let parts: Vec<(u64, u64)> = vmas.iter().filter_map(part).collect();
        (segment, parts)
    };
    for (start, len) in parts {
        mm.unmap(start, len)?;
    }
    {
        let mut s = segment.state.lock();
        s.pids.1 = c.task.process.numbers.clone();
        s.times.1 = now_s();
    }
    drop(segments);
    shm::sweep();
    Ok(0)
}

fn segment_stat(s: &Segment) -> Vec<u8> {
    let attached = s.attachments() as u64;
    let st = s.state.lock();
    let mut perm = st.perm;
    // SHM_DEST and SHM_LOCKED.
    perm.mode |= u32::from(st.doomed) << 9 | u32::from(st.locked) << 10;
    let mut b = perm.to_bytes(s.id).to_vec();
    b.extend(longs(&[s.size, st.times.0, st.times.1, st.times.2]));
    b.extend(ints(&[shown(&st.pids.0), shown(&st.pids.1)]));
    b.extend(longs(&[attached, 0, 0]));
    b
}

fn sys_shmctl(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (id, command, buf) = (a.i32(0), a.u32(1) & !IPC_64, a.u64(2));
    let creds = c.task.creds();
    shm::sweep();
    match command {
        sysv::INFO => {
            let max = u64::MAX - (1 << 24);
            write(buf, &longs(&[max, 1, 4096, 4096, max, 0, 0, 0, 0]))?;
            Ok(c.task.namespaces().ipc.segments.usage().1 as u64)
        }
        cmd::SHM_INFO => {
            let all = c.task.namespaces().ipc.segments.list();
            let pages: u64 = all.iter().map(|(_, s)| s.size.div_ceil(PAGE_SIZE)).sum();
            let resident: u64 = all.iter().map(|(_, s)| s.resident() / PAGE_SIZE).sum();
            let (used, top) = c.task.namespaces().ipc.segments.usage();
            write(buf, &longs(&[used as u64, pages, resident, 0, 0, 0]))?;
            Ok(top as u64)
        }
        cmd::SHM_STAT | cmd::SHM_STAT_ANY => {
            let (id, s) = c.task.namespaces().ipc.segments.at_index(id)?;
            if command == cmd::SHM_STAT {
                s.state.lock().perm.check(&creds, 4)?;
            }
            write(buf, &segment_stat(&s))?;
            Ok(id as u64)
        }
        sysv::STAT => {
            let s = c.task.namespaces().ipc.segments.find(id)?;
            s.state.lock().perm.check(&creds, 4)?;
            write(buf, &segment_stat(&s)).map(|()| 0)
        }
        sysv::SET => {
            let b = read_perm(buf, 112)?;
            let s = c.task.namespaces().ipc.segments.find(id)?;
            let mut st = s.state.lock();
            st.perm.check_owner(&creds)?;
            st.perm.set(&b, &creds)?;
            st.times.2 = now_s();
            Ok(0)
        }
        sysv::RMID => {
            let s = c.task.namespaces().ipc.segments.find(id)?;
            s.state.lock().perm.check_owner(&creds)?;
            s.doom();
            Ok(0)
        }
        cmd::SHM_LOCK | cmd::SHM_UNLOCK => {
            let s = c.task.namespaces().ipc.segments.find(id)?;
            let mut st = s.state.lock();
            if !creds.capable(cap::IPC_LOCK) {
                st.perm.check_owner(&creds)?;
            }
            st.locked = command == cmd::SHM_LOCK;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

// Semaphores.

fn sys_semget(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (key, n, flags) = (a.i32(0), a.i32(1), a.u32(2));
    if n < 0 || n as usize > semaphore::MAX_SET {
        return Err(Errno::EINVAL);
    }
    let creds = c.task.creds();
    let id = c.task.namespaces().ipc.sets.get(
        key,
        flags,
        |s| {
            let st = s.state.lock();
            if n as usize > st.sems.len() {
                return Err(Errno::EINVAL);
            }
            st.perm.check(&creds, wanted(flags))
        },
        |id| match n {
            0 => Err(Errno::EINVAL),
            n => Ok(SemSet::new(id, Perm::new(key, flags, &creds), n as usize)),
        },
    )?;
    Ok(id as u64)
}

fn semtimedop(c: &mut Ctx<'_>, a: Args, timeout: u64) -> SysResult {
    let n = a.u64(2);
    if n == 0 {
        return Err(Errno::EINVAL);
    }
    if n > semaphore::MAX_OPS as u64 {
        return Err(Errno::E2BIG);
    }
    let raw = UserSlice::new(a.u64(1), n * 6)?.to_vec(semaphore::MAX_OPS * 6)?;
    let half = |b: &[u8], i: usize| u16::from_ne_bytes([b[i], b[i + 1]]);
    let ops: Vec<Op> = raw
        .chunks_exact(6)
        .map(|b| Op {
            index: half(b, 0),
            by: half(b, 2) as i16,
            flags: half(b, 4),
        })
        .collect();
    let deadline = match UserPtr::<__kernel_timespec>::nonnull(timeout) {
        Some(p) => {
            let t = p.read()?;
            Some(hal::clock::monotonic_ns().saturating_add(timespec_ns(t.tv_sec, t.tv_nsec)?))
        }
        None => None,
    };
    let set = c.task.namespaces().ipc.sets.find(a.i32(0))?;
    let perm = set.state.lock().perm;
    let changes = ops.iter().any(|o| o.by != 0);
    perm.check(&c.task.creds(), if changes { 2 } else { 4 })?;
    let actor = Actor {
        pid: &c.task.process.numbers,
        undo: &c.task.process.sem_undo,
    };
    set.operate(&ops, actor, deadline).map(|()| 0)
}

/// `struct semid64_ds`: x86_64 has a spare word behind each time.
fn set_stat(s: &SemSet) -> Vec<u8> {
    let st = s.state.lock();
    let mut b = st.perm.to_bytes(s.id).to_vec();
    if hal::native::SEMID_TIME_PADDING {
        b.extend(longs(&[st.otime, 0, st.ctime, 0, st.sems.len() as u64, 0, 0]));
    } else {
        b.extend(longs(&[st.otime, st.ctime, st.sems.len() as u64, 0, 0]));
    }
    b
}

fn sys_semctl(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (id, index, command, arg) = (a.i32(0), a.i32(1), a.u32(2) & !IPC_64, a.u64(3));
    let creds = c.task.creds();
    let stat = |s: &SemSet| write(arg, &set_stat(s));
    match command {
        sysv::INFO | cmd::SEM_INFO => {
            let sets = c.task.namespaces().ipc.sets.list();
            let (mut used, mut sems) = (20, 32767);
            if command == cmd::SEM_INFO {
                used = sets.len() as i64;
                sems = sets.iter().map(|(_, s)| s.state.lock().sems.len() as i64).sum();
            }
            let max = semaphore::MAX_SET as i64;
            write(
                arg,
                &ints(&[
                    1_024_000_000,
                    max,
                    1_024_000_000,
                    1_024_000_000,
                    max,
                    500,
                    500,
                    used,
                    32767,
                    sems,
                ]),
            )?;
            return Ok(c.task.namespaces().ipc.sets.usage().1 as u64);
        }
        cmd::SEM_STAT | cmd::SEM_STAT_ANY => {
            let (id, s) = c.task.namespaces().ipc.sets.at_index(id)?;
            if command == cmd::SEM_STAT {
                s.state.lock().perm.check(&creds, 4)?;
            }
            stat(&s)?;
            return Ok(id as u64);
        }
        _ => {}
    }
    let set = c.task.namespaces().ipc.sets.find(id)?;
    match command {
        sysv::STAT => {
            set.state.lock().perm.check(&creds, 4)?;
            stat(&set).map(|()| 0)
        }
        sysv::SET => {
            let b = read_perm(arg, 48)?;
            let mut s = set.state.lock();
            s.perm.check_owner(&creds)?;
            s.perm.set(&b, &creds)?;
            s.ctime = now_s();
            Ok(0)
        }
        sysv::RMID => {
            set.state.lock().perm.check_owner(&creds)?;
            set.remove();
            Ok(0)
        }
        cmd::GETALL => {
            let values: Vec<u8> = {
                let s = set.state.lock();
                s.perm.check(&creds, 4)?;
                s.sems
                    .iter()
                    .flat_map(|s| (s.value as u16).to_ne_bytes())
                    .collect()
            };
            write(arg, &values).map(|()| 0)
        }
        cmd::SETALL => {
            let n = set.state.lock().sems.len();
            let raw = UserSlice::new(arg, n as u64 * 2)?.to_vec(semaphore::MAX_SET * 2)?;
            let values: Vec<i32> = raw
                .chunks_exact(2)
                .map(|b| i32::from(u16::from_ne_bytes([b[0], b[1]])))
                .collect();
            set_values(c, &set, &creds, None, &values)
        }
        cmd::SETVAL => {
            let value = arg as i32;
            let n = set.state.lock().sems.len();
            let index = usize::try_from(index)
                .ok()
                .filter(|i| *i < n)
                .ok_or(Errno::EINVAL)?;
            set_values(c, &set, &creds, Some(index), &[value])
        }
        cmd::GETVAL | cmd::GETPID | cmd::GETNCNT | cmd::GETZCNT => {
            let s = set.state.lock();
            s.perm.check(&creds, 4)?;
            let sem = usize::try_from(index)
                .ok()
                .and_then(|i| s.sems.get(i))
                .ok_or(Errno::EINVAL)?;
            Ok(match command {
                cmd::GETVAL => sem.value as u64,
                cmd::GETPID => u64::from(sem.pid.shown(c.task.pid_ns())),
                cmd::GETNCNT => u64::from(sem.growing),
                _ => u64::from(sem.zero),
            })
        }
        _ => Err(Errno::EINVAL),
    }
}

fn set_values(c: &Ctx<'_>, set: &SemSet, creds: &Creds, index: Option<usize>, values: &[i32]) -> SysResult {
    {
        let mut s = set.state.lock();
        s.perm.check(creds, 2)?;
        if values.iter().any(|v| !(0..=semaphore::MAX_VALUE).contains(v)) {
            return Err(Errno::ERANGE);
        }
        let first = index.unwrap_or(0);
        for (sem, v) in s.sems.iter_mut().skip(first).zip(values) {
            sem.value = *v;
            sem.pid = c.task.process.numbers.clone();
        }
        s.ctime = now_s();
    }
    set.forget_undo(index.map(|i| i as u32));
    set.changed();
    Ok(0)
}

// Message queues.

fn sys_msgget(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (key, flags) = (a.i32(0), a.u32(1));
    let creds = c.task.creds();
    let id = c.task.namespaces().ipc.queues.get(
        key,
        flags,
        |q| q.state.lock().perm.check(&creds, wanted(flags)),
        |id| Ok(MsgQueue::new(id, Perm::new(key, flags, &creds))),
    )?;
    Ok(id as u64)
}

fn sys_msgsnd(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (len, flags) = (a.u64(2), a.u32(3));
    if len > msgqueue::MAX_MESSAGE as u64 || a.i32(0) < 0 {
        return Err(Errno::EINVAL);
    }
    let kind = a.ptr::<i64>(1).read()?;
    if kind < 1 {
        return Err(Errno::EINVAL);
    }
    let text = UserSlice::new(a.u64(1).wrapping_add(8), len)?.to_vec(msgqueue::MAX_MESSAGE)?;
    let queue = c.task.namespaces().ipc.queues.find(a.i32(0))?;
    let perm = queue.state.lock().perm;
    perm.check(&c.task.creds(), 2)?;
    let wait = flags & sysv::NOWAIT == 0;
    queue.send(msgqueue::Message { kind, text }, &c.task.process.numbers, wait)?;
    Ok(0)
}

fn sys_msgrcv(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (room, kind, flags) = (a.i64(2), a.i64(3), a.u32(4));
    if room < 0 || a.i32(0) < 0 {
        return Err(Errno::EINVAL);
    }
    if flags & msgqueue::COPY != 0 && (flags & msgqueue::EXCEPT != 0 || flags & sysv::NOWAIT == 0) {
        return Err(Errno::EINVAL);
    }
    let queue = c.task.namespaces().ipc.queues.find(a.i32(0))?;
    let perm = queue.state.lock().perm;
    perm.check(&c.task.creds(), 4)?;
    let m = queue.receive(kind, room as usize, flags, &c.task.process.numbers)?;
    a.ptr::<i64>(1).write(&m.kind)?;
    write(a.u64(1).wrapping_add(8), &m.text)?;
    Ok(m.text.len() as u64)
}

fn queue_stat(q: &MsgQueue) -> Vec<u8> {
    let s = q.state.lock();
    let mut b = s.perm.to_bytes(q.id).to_vec();
    b.extend(longs(&[
        s.times.0,
        s.times.1,
        s.times.2,
        s.bytes as u64,
        s.messages.len() as u64,
        s.max_bytes as u64,
    ]));
    b.extend(ints(&[shown(&s.last_pids.0), shown(&s.last_pids.1)]));
    b.extend(longs(&[0, 0]));
    b
}

fn sys_msgctl(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (id, command, buf) = (a.i32(0), a.u32(1) & !IPC_64, a.u64(2));
    let creds = c.task.creds();
    match command {
        sysv::INFO | cmd::MSG_INFO => {
            let queues = c.task.namespaces().ipc.queues.list();
            let (mut pool, mut map, mut tql) = (32000 * 16384 / 1024, 16384, 16384);
            if command == cmd::MSG_INFO {
                pool = queues.len() as i64;
                map = queues
                    .iter()
                    .map(|(_, q)| q.state.lock().messages.len() as i64)
                    .sum();
                tql = queues.iter().map(|(_, q)| q.state.lock().bytes as i64).sum();
            }
            write(buf, &ints(&[pool, map, 8192, 16384, 32000, 16, tql, 0xffff]))?;
            Ok(c.task.namespaces().ipc.queues.usage().1 as u64)
        }
        cmd::MSG_STAT | cmd::MSG_STAT_ANY => {
            let (id, q) = c.task.namespaces().ipc.queues.at_index(id)?;
            if command == cmd::MSG_STAT {
                q.state.lock().perm.check(&creds, 4)?;
            }
            write(buf, &queue_stat(&q))?;
            Ok(id as u64)
        }
        sysv::STAT => {
            let q = c.task.namespaces().ipc.queues.find(id)?;
            q.state.lock().perm.check(&creds, 4)?;
            write(buf, &queue_stat(&q)).map(|()| 0)
        }
        sysv::SET => {
            let b = read_perm(buf, 96)?;
            let q = c.task.namespaces().ipc.queues.find(id)?;
            {
                let mut s = q.state.lock();
                s.perm.check_owner(&creds)?;
                let mut word = [0; 8];
                word.copy_from_slice(&b[88..96]);
                let max = u64::from_ne_bytes(word) as usize;
                if max > msgqueue::MAX_BYTES && !creds.capable(cap::SYS_RESOURCE) {
                    return Err(Errno::EPERM);
                }
                s.perm.set(&b, &creds)?;
                s.max_bytes = max;
                s.times.2 = now_s();
            }
            q.changed();
            Ok(0)
        }
        sysv::RMID => {
            let q = c.task.namespaces().ipc.queues.find(id)?;
            q.state.lock().perm.check_owner(&creds)?;
            q.remove();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
