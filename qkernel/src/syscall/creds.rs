//! Credentials and capabilities. Source: `setresuid(2)` and relatives, `capset(2)`, `prctl(2)`.

use super::Support::{Full, Refused};
use super::{Args, Ctx, SysResult};
use crate::ns::user::{self, Kind};
use crate::rows;
use crate::task::creds::{Creds, cap, securebit};
use crate::task::table;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::user::{UserPtr, copy_in, copy_out};
use qlib::Errno;

/// "Keep" in the setre*/setres* calls.
const KEEP: u32 = u32::MAX;

/// Replaces the credentials by a changed copy.
pub fn change(ctx: &Ctx<'_>, f: impl FnOnce(&mut Creds)) {
    let mut slot = ctx.task.creds.lock();
    let mut c = (**slot).clone();
    f(&mut c);
    if c.gains_over(&slot) {
        ctx.task.process.dumpable.store(0, Ordering::Relaxed);
        ctx.task.death_signal.store(0, Ordering::Relaxed);
    }
    *slot = Arc::new(c);
}

/// The capability rules when user ids change. Source: `capabilities(7)`, "Effect of user ID changes".
fn fix_caps(old: &Creds, c: &mut Creds) {
    if c.securebits & securebit::NO_SETUID_FIXUP != 0 {
        return;
    }
    let Some(zero) = c.root() else { return };
    let root = |c: &Creds| c.uid == zero || c.euid == zero || c.suid == zero;
    if root(old) && !root(c) {
        if c.securebits & securebit::KEEP_CAPS == 0 {
            c.caps.permitted = 0;
            c.caps.effective = 0;
        }
        c.caps.ambient = 0;
    }
    if old.euid == zero && c.euid != zero {
        c.caps.effective = 0;
    }
    if old.euid != zero && c.euid == zero {
        c.caps.effective = c.caps.permitted;
    }
}

/// The user or group an app of the caller's user namespace means, [`KEEP`] as it is.
///
/// # Errors
/// EINVAL for a number that means nobody there.
fn number(c: &Creds, kind: Kind, v: u32) -> SysResult<u32> {
    if v == KEEP {
        return Ok(KEEP);
    }
    user::to_kernel(&c.user, kind, v).ok_or(Errno::EINVAL)
}

fn sys_setuid(ctx: &mut Ctx<'_>, uid: u32) -> SysResult {
    let old = ctx.task.creds();
    let privileged = old.has(cap::SETUID);
    if uid == KEEP {
        return Err(Errno::EINVAL);
    }
    let uid = old.kernel_uid(uid).ok_or(Errno::EINVAL)?;
    if !privileged && uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM);
    }
    change(ctx, |c| {
        if privileged {
            c.uid = uid;
            c.suid = uid;
        }
        c.euid = uid;
        c.fsuid = uid;
        fix_caps(&old, c);
    });
    Ok(0)
}

fn sys_setgid(ctx: &mut Ctx<'_>, gid: u32) -> SysResult {
    let old = ctx.task.creds();
    let privileged = old.has(cap::SETGID);
    if gid == KEEP {
        return Err(Errno::EINVAL);
    }
    let gid = old.kernel_gid(gid).ok_or(Errno::EINVAL)?;
    if !privileged && gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM);
    }
    change(ctx, |c| {
        if privileged {
            c.gid = gid;
            c.sgid = gid;
        }
        c.egid = gid;
        c.fsgid = gid;
    });
    Ok(0)
}

fn sys_setresuid(ctx: &mut Ctx<'_>, r: u32, e: u32, s: u32) -> SysResult {
    let old = ctx.task.creds();
    let number = |v: u32| number(&old, Kind::Uid, v);
    let (r, e, s) = (number(r)?, number(e)?, number(s)?);
    let may = |v: u32| v == KEEP || [old.uid, old.euid, old.suid].contains(&v) || old.has(cap::SETUID);
    if !may(r) || !may(e) || !may(s) {
        return Err(Errno::EPERM);
    }
    let pick = |v: u32, was: u32| if v == KEEP { was } else { v };
    change(ctx, |c| {
        c.uid = pick(r, c.uid);
        c.suid = pick(s, c.suid);
        c.euid = pick(e, c.euid);
        c.fsuid = c.euid;
        fix_caps(&old, c);
    });
    Ok(0)
}

fn sys_setresgid(ctx: &mut Ctx<'_>, r: u32, e: u32, s: u32) -> SysResult {
    let old = ctx.task.creds();
    let number = |v: u32| number(&old, Kind::Gid, v);
    let (r, e, s) = (number(r)?, number(e)?, number(s)?);
    let may = |v: u32| v == KEEP || [old.gid, old.egid, old.sgid].contains(&v) || old.has(cap::SETGID);
    if !may(r) || !may(e) || !may(s) {
        return Err(Errno::EPERM);
    }
    let pick = |v: u32, was: u32| if v == KEEP { was } else { v };
    change(ctx, |c| {
        c.gid = pick(r, c.gid);
        c.sgid = pick(s, c.sgid);
        c.egid = pick(e, c.egid);
        c.fsgid = c.egid;
    });
    Ok(0)
}

fn sys_setreuid(ctx: &mut Ctx<'_>, r: u32, e: u32) -> SysResult {
    let old = ctx.task.creds();
    let (r, e) = (number(&old, Kind::Uid, r)?, number(&old, Kind::Uid, e)?);
    let privileged = old.has(cap::SETUID);
    let real = r == KEEP || r == old.uid || r == old.euid || privileged;
    let effective = e == KEEP || [old.uid, old.euid, old.suid].contains(&e) || privileged;
    if !real || !effective {
        return Err(Errno::EPERM);
    }
    change(ctx, |c| {
        if r != KEEP {
            c.uid = r;
        }
        if e != KEEP {
            c.euid = e;
        }
        if r != KEEP || e != KEEP && e != old.uid {
            c.suid = c.euid;
        }
        c.fsuid = c.euid;
        fix_caps(&old, c);
    });
    Ok(0)
}

fn sys_setregid(ctx: &mut Ctx<'_>, r: u32, e: u32) -> SysResult {
    let old = ctx.task.creds();
    let (r, e) = (number(&old, Kind::Gid, r)?, number(&old, Kind::Gid, e)?);
    let privileged = old.has(cap::SETGID);
    let real = r == KEEP || r == old.gid || r == old.egid || privileged;
    let effective = e == KEEP || [old.gid, old.egid, old.sgid].contains(&e) || privileged;
    if !real || !effective {
        return Err(Errno::EPERM);
    }
    change(ctx, |c| {
        if r != KEEP {
            c.gid = r;
        }
        if e != KEEP {
            c.egid = e;
        }
        if r != KEEP || e != KEEP && e != old.gid {
            c.sgid = c.egid;
        }
        c.fsgid = c.egid;
    });
    Ok(0)
}

fn sys_setfsuid(ctx: &mut Ctx<'_>, uid: u32) -> SysResult {
    const FS_CAPS: u64 = 1 << cap::CHOWN
        | 1 << cap::DAC_OVERRIDE
        | 1 << cap::DAC_READ_SEARCH
        | 1 << cap::FOWNER
        | 1 << cap::FSETID
        | 1 << cap::LINUX_IMMUTABLE
        | 1 << cap::MKNOD
        | 1 << cap::MAC_OVERRIDE;
    let old = ctx.task.creds();
    let shown = u64::from(old.shown_uid(old.fsuid));
    let Some(uid) = old.kernel_uid(uid) else {
        return Ok(shown);
    };
    let zero = old.root();
    if [old.uid, old.euid, old.suid, old.fsuid].contains(&uid) || old.has(cap::SETUID) {
        change(ctx, |c| {
            c.fsuid = uid;
            if c.securebits & securebit::NO_SETUID_FIXUP != 0 {
                return;
            }
            if Some(old.fsuid) == zero && Some(uid) != zero {
                c.caps.effective &= !FS_CAPS;
            } else if Some(old.fsuid) != zero && Some(uid) == zero {
                c.caps.effective |= c.caps.permitted & FS_CAPS;
            }
        });
    }
    Ok(shown)
}

fn sys_setfsgid(ctx: &mut Ctx<'_>, gid: u32) -> SysResult {
    let old = ctx.task.creds();
    let shown = u64::from(old.shown_gid(old.fsgid));
    let Some(gid) = old.kernel_gid(gid) else {
        return Ok(shown);
    };
    if [old.gid, old.egid, old.sgid, old.fsgid].contains(&gid) || old.has(cap::SETGID) {
        change(ctx, |c| c.fsgid = gid);
    }
    Ok(shown)
}

fn put3(a: Args, values: [u32; 3]) -> SysResult {
    for (i, v) in values.into_iter().enumerate() {
        a.ptr::<u32>(i).write(&v)?;
    }
    Ok(0)
}

fn sys_getgroups(ctx: &mut Ctx<'_>, size: i32, list: UserPtr<u32>) -> SysResult {
    let c = ctx.task.creds();
    let n = c.groups.len();
    if size < 0 || size > 0 && (size as usize) < n {
        return Err(Errno::EINVAL);
    }
    if size > 0 {
        for (i, g) in c.groups.iter().enumerate() {
            list.at(i).write(&c.shown_gid(*g))?;
        }
    }
    Ok(n as u64)
}

fn sys_setgroups(ctx: &mut Ctx<'_>, size: u64, list: UserPtr<u32>) -> SysResult {
    let creds = ctx.task.creds();
    let allowed = creds
        .user
        .as_ref()
        .is_none_or(|n| n.may_setgroups() && n.has_groups());
    if !creds.has(cap::SETGID) || !allowed {
        return Err(Errno::EPERM);
    }
    if size > 65536 {
        return Err(Errno::EINVAL);
    }
    let mut groups = list.read_vec(size as usize)?;
    for g in &mut groups {
        *g = creds.kernel_gid(*g).ok_or(Errno::EINVAL)?;
    }
    groups.sort_unstable();
    change(ctx, |c| c.groups = Arc::new(groups));
    Ok(0)
}

/// Versions of the capability header; 2 and 3 hold 64 bits in two parts.
const CAP_V1: u32 = 0x1998_0330;
const CAP_V2: u32 = 0x2007_1026;
const CAP_V3: u32 = 0x2008_0522;

fn cap_header(addr: u64) -> SysResult<(u32, i32)> {
    let h = UserPtr::<u32>::new(addr);
    let version = h.read()?;
    let pid = h.at(1).read()? as i32;
    if !matches!(version, CAP_V1 | CAP_V2 | CAP_V3) {
        h.write(&CAP_V3)?;
        return Err(Errno::EINVAL);
    }
    Ok((version, pid))
}

fn sys_capget(ctx: &mut Ctx<'_>, header: u64, data: u64) -> SysResult {
    let (version, pid) = match cap_header(header) {
        // Asking for the version with a null pointer is no error.
        Err(Errno::EINVAL) if data == 0 => return Ok(0),
        r => r?,
    };
    if pid < 0 {
        return Err(Errno::EINVAL);
    }
    let creds = if pid == 0 {
        ctx.task.creds()
    } else {
        table::task_in(ctx.task.pid_ns(), pid as u32)
            .ok_or(Errno::ESRCH)?
            .creds()
    };
    if data == 0 {
        return Ok(0);
    }
    let c = creds.caps;
    let out = UserPtr::<u32>::new(data);
    let parts = if version == CAP_V1 { 1 } else { 2 };
    for part in 0..parts {
        for (i, set) in [c.effective, c.permitted, c.inheritable].into_iter().enumerate() {
            out.at(part * 3 + i).write(&((set >> (32 * part)) as u32))?;
        }
    }
    Ok(0)
}

fn sys_capset(ctx: &mut Ctx<'_>, header: u64, data: u64) -> SysResult {
    let (version, pid) = cap_header(header)?;
    if pid != 0 && pid as u32 != ctx.task.own_tid() {
        return Err(Errno::EPERM);
    }
    let input = UserPtr::<u32>::new(data);
    let parts = if version == CAP_V1 { 1 } else { 2 };
    let mut sets = [0u64; 3];
    for part in 0..parts {
        for (i, set) in sets.iter_mut().enumerate() {
            *set |= u64::from(input.at(part * 3 + i).read()?) << (32 * part);
        }
    }
    let [effective, permitted, inheritable] = sets;
    let old = ctx.task.creds().caps;
    let capable = ctx.task.creds().has(cap::SETPCAP);
    let own = if capable {
        u64::MAX
    } else {
        old.inheritable | old.permitted
    };
    let may_inherit = own & (old.inheritable | old.bounding);
    if permitted & !old.permitted != 0 || effective & !permitted != 0 || inheritable & !may_inherit != 0 {
        return Err(Errno::EPERM);
    }
    change(ctx, |c| {
        c.caps.effective = effective;
        c.caps.permitted = permitted;
        c.caps.inheritable = inheritable;
        c.caps.ambient &= permitted & inheritable;
    });
    Ok(0)
}

/// Whether a task may set its security bits to `bits`.
fn may_set_securebits(c: &Creds, bits: u64) -> bool {
    let locks = securebit::ALL << 1;
    let old = c.securebits;
    let known = bits & !u64::from(securebit::ALL | locks) == 0;
    let changed = old ^ bits as u32;
    let locked = (old & locks) >> 1 & changed | old & locks & !(bits as u32);
    let harmless = securebit::ADVISORY | securebit::ADVISORY << 1;
    known && locked == 0 && (c.has(cap::SETPCAP) || changed != 0 && changed & !harmless == 0)
}

/// `prctl` options about capabilities; `None` = not one of them.
pub fn prctl(ctx: &mut Ctx<'_>, option: u32, a: Args) -> Option<SysResult> {
    const CAPBSET_READ: u32 = 23;
    const CAPBSET_DROP: u32 = 24;
    const GET_SECUREBITS: u32 = 27;
    const SET_SECUREBITS: u32 = 28;
    const GET_KEEPCAPS: u32 = 7;
    const SET_KEEPCAPS: u32 = 8;
    const SET_NO_NEW_PRIVS: u32 = 38;
    const GET_NO_NEW_PRIVS: u32 = 39;
    const CAP_AMBIENT: u32 = 47;
    let c = ctx.task.creds();
    let number = a.u64(1);
    let known = number <= u64::from(cap::LAST);
    Some(match option {
        CAPBSET_READ if known => Ok(c.caps.bounding >> number & 1),
        CAPBSET_DROP if known && !c.has(cap::SETPCAP) => Err(Errno::EPERM),
        CAPBSET_DROP if known => {
            change(ctx, |c| c.caps.bounding &= !(1 << number));
            Ok(0)
        }
        CAPBSET_READ | CAPBSET_DROP => Err(Errno::EINVAL),
        GET_SECUREBITS => Ok(u64::from(c.securebits)),
        SET_SECUREBITS if !may_set_securebits(&c, number) => Err(Errno::EPERM),
        SET_SECUREBITS => {
            change(ctx, |c| c.securebits = number as u32);
            Ok(0)
        }
        GET_KEEPCAPS => Ok(u64::from(c.securebits & securebit::KEEP_CAPS != 0)),
        SET_KEEPCAPS if number > 1 => Err(Errno::EINVAL),
        SET_KEEPCAPS if c.securebits & securebit::KEEP_CAPS << 1 != 0 => Err(Errno::EPERM),
        SET_KEEPCAPS => {
            change(ctx, |c| {
                c.securebits &= !securebit::KEEP_CAPS;
                c.securebits |= securebit::KEEP_CAPS * number as u32;
            });
            Ok(0)
        }
        GET_NO_NEW_PRIVS if (1..5).any(|i| a.u64(i) != 0) => Err(Errno::EINVAL),
        GET_NO_NEW_PRIVS => Ok(u64::from(c.no_new_privs)),
        SET_NO_NEW_PRIVS if number != 1 || (2..5).any(|i| a.u64(i) != 0) => Err(Errno::EINVAL),
        SET_NO_NEW_PRIVS => {
            change(ctx, |c| c.no_new_privs = true);
            Ok(0)
        }
        CAP_AMBIENT if a.u64(3) != 0 || a.u64(4) != 0 => Err(Errno::EINVAL),
        CAP_AMBIENT => ambient(ctx, a.u64(1), a.u64(2)),
        _ => return None,
    })
}

fn ambient(ctx: &mut Ctx<'_>, what: u64, number: u64) -> SysResult {
    const IS_SET: u64 = 1;
    const RAISE: u64 = 2;
    const LOWER: u64 = 3;
    const CLEAR_ALL: u64 = 4;
    if what == CLEAR_ALL && number == 0 {
        change(ctx, |c| c.caps.ambient = 0);
        return Ok(0);
    }
    if number > u64::from(cap::LAST) {
        return Err(Errno::EINVAL);
    }
    let c = ctx.task.creds();
    let bit = 1 << number;
    match what {
        IS_SET => Ok(c.caps.ambient >> number & 1),
        RAISE
            if c.caps.permitted & c.caps.inheritable & bit == 0
                || c.securebits & securebit::NO_AMBIENT_RAISE != 0 =>
        {
            Err(Errno::EPERM)
        }
        RAISE => {
            change(ctx, |c| c.caps.ambient |= bit);
            Ok(0)
        }
        LOWER => {
            change(ctx, |c| c.caps.ambient &= !bit);
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

rows! {
    getuid: Full, |c, _| { let k = c.task.creds(); Ok(u64::from(k.shown_uid(k.uid))) };
    geteuid: Full, |c, _| { let k = c.task.creds(); Ok(u64::from(k.shown_uid(k.euid))) };
    getgid: Full, |c, _| { let k = c.task.creds(); Ok(u64::from(k.shown_gid(k.gid))) };
    getegid: Full, |c, _| { let k = c.task.creds(); Ok(u64::from(k.shown_gid(k.egid))) };
    setuid: Full, |c, a| sys_setuid(c, a.u32(0));
    setgid: Full, |c, a| sys_setgid(c, a.u32(0));
    setreuid: Full, |c, a| sys_setreuid(c, a.u32(0), a.u32(1));
    setregid: Full, |c, a| sys_setregid(c, a.u32(0), a.u32(1));
    setresuid: Full, |c, a| sys_setresuid(c, a.u32(0), a.u32(1), a.u32(2));
    setresgid: Full, |c, a| sys_setresgid(c, a.u32(0), a.u32(1), a.u32(2));
    getresuid: Full, |c, a| { let k = c.task.creds(); put3(a, [k.uid, k.euid, k.suid].map(|v| k.shown_uid(v))) };
    getresgid: Full, |c, a| { let k = c.task.creds(); put3(a, [k.gid, k.egid, k.sgid].map(|v| k.shown_gid(v))) };
    setfsuid: Full, |c, a| sys_setfsuid(c, a.u32(0));
    setfsgid: Full, |c, a| sys_setfsgid(c, a.u32(0));
    getgroups: Full, |c, a| sys_getgroups(c, a.i32(0), a.ptr(1));
    setgroups: Full, |c, a| sys_setgroups(c, a.u64(0), a.ptr(1));
    capget: Full, |c, a| sys_capget(c, a.u64(0), a.u64(1));
    capset: Full, |c, a| sys_capset(c, a.u64(0), a.u64(1));
    add_key: Refused(Errno::ENOSYS, "no key retention service");
    request_key: Refused(Errno::ENOSYS, "no key retention service");
    keyctl: Refused(Errno::ENOSYS, "no key retention service");
}

/// Copies a NUL-padded name of 16 bytes between the app and the task (`PR_SET_NAME`, `PR_GET_NAME`).
///
/// # Errors
/// EFAULT.
pub fn task_name(ctx: &mut Ctx<'_>, addr: u64, set: bool) -> SysResult {
    if set {
        let mut name = [0u8; 16];
        // The string may end before 16 readable bytes do.
        for (i, b) in name.iter_mut().take(15).enumerate() {
            copy_in(core::slice::from_mut(b), addr.wrapping_add(i as u64))?;
            if *b == 0 {
                break;
            }
        }
        ctx.task.set_comm(name);
    } else {
        let name = *ctx.task.comm.lock();
        copy_out(addr, &name)?;
    }
    Ok(0)
}
