//! poll, ppoll, select, pselect6.

use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::anon::descriptor_limit;
use crate::fs::fdtable::Fd;
use crate::fs::poll::{PollEntry, poll};
use crate::rows;
use crate::sched::wait::{Events, WaitError};
use crate::signal::SigSet;
use crate::signal::deliver::set_mask;
use crate::task::Task;
use crate::time::Restart;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hal::uapi::general::{__kernel_timespec, pollfd};
use hal::user::{UserPtr, UserSlice, copy_in};
use qlib::Errno;

rows! {
    poll: Full, |c, a| sys_poll(c, a);
    ppoll: Full, |c, a| sys_ppoll(c, a);
    select: Full, |c, a| sys_select(c, a);
    pselect6: Full, |c, a| sys_pselect6(c, a);
}

/// Reads a `timespec` and makes a deadline of it; null = none, zero = look once.
///
/// # Errors
/// EFAULT, EINVAL.
pub fn relative_deadline(p: UserPtr<__kernel_timespec>) -> SysResult<Option<u64>> {
    if p.is_null() {
        return Ok(None);
    }
    let t = p.read()?;
    let ns = timespec_ns(t.tv_sec, t.tv_nsec)?;
    Ok(Some(deadline_after(ns)))
}

/// Nanoseconds of a time that must not be negative; huge ones saturate.
///
/// # Errors
/// EINVAL.
pub fn timespec_ns(sec: i64, nsec: i64) -> SysResult<u64> {
    if sec < 0 || !(0..1_000_000_000).contains(&nsec) {
        return Err(Errno::EINVAL);
    }
    Ok((sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(nsec as u64))
}

/// The deadline `ns` from now; 0 stays 0, which means looking once.
pub fn deadline_after(ns: u64) -> u64 {
    match ns {
        0 => 0,
        n => hal::clock::monotonic_ns().saturating_add(n),
    }
}

/// Writes what is left until the deadline.
fn write_remaining(p: UserPtr<__kernel_timespec>, deadline_ns: Option<u64>) {
    if let Some(d) = deadline_ns
        && !p.is_null()
    {
        let left = if d == 0 {
            0
        } else {
            d.saturating_sub(hal::clock::monotonic_ns())
        };
        // As Linux: a time that cannot be stored does not fail the call.
        let _ = p.write(&__kernel_timespec {
            tv_sec: (left / 1_000_000_000) as i64,
            tv_nsec: (left % 1_000_000_000) as i64,
        });
    }
}

/// Sets the signal mask for the time of a call; address 0 = leave it.
///
/// # Errors
/// EFAULT; EINVAL when the size is not that of a signal set.
pub fn set_temporary_mask(task: &Arc<Task>, addr: u64, size: u64) -> SysResult<()> {
    if addr == 0 {
        return Ok(());
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = UserPtr::<u64>::new(addr).read()?;
    {
        let mut s = task.signals.lock();
        s.saved = Some(s.blocked);
    }
    set_mask(task, SigSet(mask));
    Ok(())
}

/// Ends [`set_temporary_mask`]. After an interruption the mask stays until the handler's frame has taken the saved one.
pub fn restore_mask<T>(task: &Arc<Task>, r: &SysResult<T>) {
    let interrupted = matches!(
        r,
        Err(Errno::EINTR | Errno::ERESTARTSYS | Errno::ERESTARTNOHAND | Errno::ERESTART_RESTARTBLOCK)
    );
    if !interrupted {
        let saved = task.signals.lock().saved.take();
        if let Some(mask) = saved {
            set_mask(task, mask);
        }
    }
}

fn do_poll(c: &mut Ctx<'_>, fds: u64, count: u32, deadline_ns: Option<u64>) -> Result<u64, PollFail> {
    if u64::from(count) > descriptor_limit(c.task) {
        return Err(PollFail::Error(Errno::EINVAL));
    }
    let user = UserSlice::new(fds, u64::from(count) * size_of::<pollfd>() as u64)?;
    let raw = user.to_vec(64 << 20)?;
    let files = c.task.files();
    let mut set: Vec<PollEntry> = raw
        .chunks_exact(8)
        .map(|b| {
            let fd = i32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
            let events = Events::from_bits_truncate(u32::from(u16::from_ne_bytes([b[4], b[5]])));
            let file = if fd < 0 { None } else { files.get(Fd(fd)).ok() };
            let bad = fd >= 0 && file.as_ref().is_none_or(|f| f.is_path_only());
            PollEntry {
                file: if bad { None } else { file },
                events,
                revents: if bad { Events::NVAL } else { Events::empty() },
            }
        })
        .collect();
    let n = match poll(&mut set, deadline_ns) {
        Ok(n) => n,
        Err(WaitError::TimedOut) => 0,
        Err(WaitError::Interrupted) => return Err(PollFail::Interrupted),
    };
    for (i, e) in set.iter().enumerate() {
        let at = user.addr() + i as u64 * 8 + 6;
        hal::user::copy_out(at, &(e.revents.bits() as u16).to_ne_bytes())?;
    }
    Ok(n as u64)
}

enum PollFail {
    Interrupted,
    Error(Errno),
}

impl From<Errno> for PollFail {
    fn from(e: Errno) -> Self {
        Self::Error(e)
    }
}

/// Goes on with a `poll` that a stop interrupted (`restart_syscall`).
///
/// # Errors
/// As `poll(2)`.
pub fn resume_poll(c: &mut Ctx<'_>, fds: u64, count: u32, deadline_ns: Option<u64>) -> SysResult {
    match do_poll(c, fds, count, deadline_ns) {
        Ok(n) => Ok(n),
        Err(PollFail::Error(e)) => Err(e),
        Err(PollFail::Interrupted) => {
            *c.task.restart.lock() = Some(Restart::Poll {
                fds,
                count,
                deadline_ns,
            });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
    }
}

fn sys_poll(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let deadline = match a.i32(2) {
        t if t < 0 => None,
        t => Some(deadline_after(t as u64 * 1_000_000)),
    };
    resume_poll(c, a.u64(0), a.u32(1), deadline)
}

fn sys_ppoll(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let time = a.ptr::<__kernel_timespec>(2);
    let deadline = relative_deadline(time)?;
    set_temporary_mask(c.task, a.u64(3), a.u64(4))?;
    let r = match do_poll(c, a.u64(0), a.u32(1), deadline) {
        Ok(n) => Ok(n),
        Err(PollFail::Error(e)) => Err(e),
        Err(PollFail::Interrupted) => Err(Errno::ERESTARTNOHAND),
    };
    restore_mask(c.task, &r);
    write_remaining(time, deadline);
    r
}

/// What each of the three sets of `select` means. Source: Linux `fs/select.c`.
const SET_EVENTS: [(Events, Events); 3] = [
    (
        Events::IN,
        Events::IN
            .union(Events::RDNORM)
            .union(Events::RDBAND)
            .union(Events::HUP)
            .union(Events::ERR),
    ),
    (
        Events::OUT,
        Events::OUT
            .union(Events::WRNORM)
            .union(Events::WRBAND)
            .union(Events::ERR),
    ),
    (Events::PRI, Events::PRI),
];

fn do_select(c: &mut Ctx<'_>, a: &Args, deadline_ns: Option<u64>) -> SysResult {
    let n = a.i32(0);
    if n < 0 {
        return Err(Errno::EINVAL);
    }
    // Numbers past the table's end cannot be open; Linux cuts the count the same way.
    let n = (n as usize).min(65536);
    let bytes = n.div_ceil(64) * 8;
    let mut sets: [Vec<u8>; 3] = [vec![0; bytes], vec![0; bytes], vec![0; bytes]];
    for (i, s) in sets.iter_mut().enumerate() {
        if a.u64(i + 1) != 0 {
            copy_in(s, a.u64(i + 1))?;
        }
    }
    let files = c.task.files();
    let mut set = Vec::new();
    let mut numbers = Vec::new();
    for fd in 0..n {
        let mut events = Events::empty();
        for (s, (want, _)) in sets.iter().zip(&SET_EVENTS) {
            if s[fd / 8] & (1 << (fd % 8)) != 0 {
                events |= *want;
            }
        }
        if events.is_empty() {
            continue;
        }
        set.push(PollEntry {
            file: Some(files.get(Fd(fd as i32))?),
            events,
            revents: Events::empty(),
        });
        numbers.push(fd);
    }
    match poll(&mut set, deadline_ns) {
        Ok(_) | Err(WaitError::TimedOut) => {}
        Err(WaitError::Interrupted) => return Err(Errno::ERESTARTNOHAND),
    }
    let mut count = 0;
    let mut out: [Vec<u8>; 3] = [vec![0; bytes], vec![0; bytes], vec![0; bytes]];
    for (e, fd) in set.iter().zip(numbers) {
        for (s, (want, means)) in out.iter_mut().zip(&SET_EVENTS) {
            if e.events.intersects(*want) && e.revents.intersects(*means) {
                s[fd / 8] |= 1 << (fd % 8);
                count += 1;
            }
        }
    }
    for (i, s) in out.iter().enumerate() {
        if a.u64(i + 1) != 0 {
            hal::user::copy_out(a.u64(i + 1), s)?;
        }
    }
    Ok(count)
}

fn sys_select(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let time = a.ptr::<hal::uapi::general::timeval>(4);
    let deadline = if time.is_null() {
        None
    } else {
        let t = time.read()?;
        if t.tv_sec < 0 || t.tv_usec < 0 {
            return Err(Errno::EINVAL);
        }
        let ns = (t.tv_sec as u64)
            .saturating_mul(1_000_000_000)
            .saturating_add((t.tv_usec as u64).saturating_mul(1000));
        Some(deadline_after(ns))
    };
    let r = do_select(c, &a, deadline);
    if let Some(d) = deadline
        && d != 0
    {
        let left = d.saturating_sub(hal::clock::monotonic_ns());
        let _ = time.write(&hal::uapi::general::timeval {
            tv_sec: (left / 1_000_000_000) as i64,
            tv_usec: (left % 1_000_000_000 / 1000) as i64,
        });
    }
    r
}

fn sys_pselect6(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let time = a.ptr::<__kernel_timespec>(4);
    let deadline = relative_deadline(time)?;
    let (mask, size) = match UserPtr::<[u64; 2]>::nonnull(a.u64(5)) {
        Some(p) => p.read()?.into(),
        None => (0, 0),
    };
    set_temporary_mask(c.task, mask, size)?;
    let r = do_select(c, &a, deadline);
    restore_mask(c.task, &r);
    write_remaining(time, deadline);
    r
}
