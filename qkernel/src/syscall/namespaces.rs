//! Namespaces. Source: `unshare(2)`, `setns(2)`.

use super::{Args, Ctx, Support::Partial, SysResult};
use crate::ns::{self, new};
use crate::rows;
use crate::task::clone::flag;
use crate::task::pidfd::PidFd;
use alloc::sync::Arc;
use qlib::Errno;

rows! {
    unshare: Partial("net and time namespaces are EINVAL: none can be made"), |c, a| sys_unshare(c, a.u64(0));
    setns: Partial("the time namespace can be entered only where it is the caller's already"), sys_setns;
}

fn sys_unshare(c: &mut Ctx<'_>, flags: u64) -> SysResult {
    const TOGETHER: u64 = flag::THREAD | flag::SIGHAND | flag::VM;
    const OTHERS: u64 = flag::FILES | flag::FS | flag::SYSVSEM;
    if flags & !(new::ALL | OTHERS | TOGETHER) != 0 {
        return Err(Errno::EINVAL);
    }
    // What threads share they cannot stop sharing.
    if flags & TOGETHER != 0 && c.task.process.tasks.lock().len() > 1 {
        return Err(Errno::EINVAL);
    }
    if flags & new::ALL != 0 {
        ns::unshare(c.task, flags & new::ALL)?;
    }
    if flags & flag::FS != 0 {
        c.task.unshare_fs();
    }
    if flags & flag::FILES != 0 {
        let files = c.task.files();
        // One reference here and one in the task: nobody else has the table.
        if Arc::strong_count(&files) > 2 {
            let old = core::mem::replace(&mut *c.task.files.lock(), files.copy());
            drop(old);
        }
    }
    Ok(0)
}

fn sys_setns(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let flags = a.u64(1) & 0xffff_ffff;
    let file = c.task.files().get(a.fd(0))?;
    if let Some(n) = ns::file::of(&file) {
        if flags != 0 && flags != n.flag() {
            return Err(Errno::EINVAL);
        }
        ns::enter(c.task, &[n])?;
        return Ok(0);
    }
    let target = file.downcast::<PidFd>().ok_or(Errno::EINVAL)?;
    if flags == 0 || flags & !new::ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let task = target.process.tasks.lock().first().cloned().ok_or(Errno::ESRCH)?;
    if !super::process::may_inspect(c, &task) {
        return Err(Errno::EPERM);
    }
    ns::enter(c.task, &ns::Any::of(&task, flags))?;
    Ok(0)
}
