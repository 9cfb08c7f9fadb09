//! `seccomp(2)` and the `prctl(2)` options of it.

use super::Support::Partial;
use super::{Args, Ctx, SysResult};
use crate::rows;
use crate::seccomp::filter::Filter;
use crate::seccomp::{self, Refusal, bpf, ret};
use crate::task::creds::cap;
use hal::user::{UserPtr, UserSlice};
use qlib::Errno;

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const TSYNC: u32 = 1;
const LOG: u32 = 2;
const SPEC_ALLOW: u32 = 4;
const TSYNC_ESRCH: u32 = 16;

fn read_filter(ctx: &Ctx<'_>, addr: u64, logs: bool) -> SysResult<Filter> {
    // struct sock_fprog: a 16-bit count, the address at the next word.
    let head = UserPtr::<u64>::new(addr);
    let (len, code) = (head.read()? as u16 as usize, head.at(1).read()?);
    if len == 0 || len > bpf::MAX_LEN {
        return Err(Errno::EINVAL);
    }
    let creds = ctx.task.creds();
    if !creds.no_new_privs && !creds.has(cap::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    if code == 0 {
        return Err(Errno::EINVAL);
    }
    let bytes = UserSlice::new(code, len as u64 * 8)?.to_vec(bpf::MAX_LEN * 8)?;
    Filter::from_bytes(&bytes, logs)
}

fn set_filter(ctx: &Ctx<'_>, flags: u32, addr: u64) -> SysResult {
    if flags & !(TSYNC | LOG | SPEC_ALLOW | TSYNC_ESRCH) != 0 {
        return Err(Errno::EINVAL);
    }
    let filter = read_filter(ctx, addr, flags & LOG != 0)?;
    match seccomp::add(ctx.task, filter, flags & TSYNC != 0) {
        Ok(()) => Ok(0),
        Err(Refusal::Error(e)) => Err(e),
        Err(Refusal::Thread(_)) if flags & TSYNC_ESRCH != 0 => Err(Errno::ESRCH),
        Err(Refusal::Thread(tid)) => Ok(u64::from(tid)),
    }
}

fn set_strict(ctx: &Ctx<'_>, flags: u32, addr: u64) -> SysResult {
    if flags != 0 || addr != 0 {
        return Err(Errno::EINVAL);
    }
    seccomp::enter_strict(ctx.task)?;
    Ok(0)
}

fn sys_seccomp(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    let (operation, flags, addr) = (a.u32(0), a.u32(1), a.u64(2));
    match operation {
        SET_MODE_STRICT => set_strict(ctx, flags, addr),
        SET_MODE_FILTER => set_filter(ctx, flags, addr),
        GET_ACTION_AVAIL if flags != 0 => Err(Errno::EINVAL),
        GET_ACTION_AVAIL => match UserPtr::<u32>::new(addr).read()? {
            ret::KILL_PROCESS
            | ret::KILL_THREAD
            | ret::TRAP
            | ret::ERRNO
            | ret::TRACE
            | ret::LOG
            | ret::ALLOW => Ok(0),
            _ => Err(Errno::EOPNOTSUPP),
        },
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_GET_SECCOMP`.
///
/// # Errors
/// None; in strict mode nobody lives to ask.
pub fn get(ctx: &Ctx<'_>) -> SysResult {
    Ok(u64::from(ctx.task.seccomp.lock().number()))
}

/// `PR_SET_SECCOMP`.
///
/// # Errors
/// As `prctl(2)`.
pub fn prctl_set(ctx: &Ctx<'_>, a: Args) -> SysResult {
    match a.u64(1) {
        1 => set_strict(ctx, 0, 0),
        2 => set_filter(ctx, 0, a.u64(2)),
        _ => Err(Errno::EINVAL),
    }
}

rows! {
    seccomp: Partial("no SECCOMP_RET_USER_NOTIF: SECCOMP_FILTER_FLAG_NEW_LISTENER is EINVAL, the action ENOSYS"), sys_seccomp;
}
