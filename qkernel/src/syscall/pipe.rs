//! pipe, pipe2.

use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::anon;
use crate::fs::pipe;
use crate::rows;
use hal::uapi::general::{O_CLOEXEC, O_DIRECT, O_NONBLOCK};
use qlib::Errno;

rows! {
    pipe: Full, |c, a| sys_pipe2(c, a, 0);
    pipe2: Partial("no O_NOTIFICATION_PIPE"), |c, a| sys_pipe2(c, a, a.u32(1));
}

fn sys_pipe2(c: &mut Ctx<'_>, a: Args, flags: u32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK | O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let (r, w) = pipe::pipe(flags & !O_CLOEXEC);
    let fds = anon::install_pair(c.task, r, w, flags & O_CLOEXEC != 0)?;
    let written = a.ptr::<[i32; 2]>(0).write(&[fds.0.0, fds.1.0]);
    if let Err(e) = written {
        drop(c.task.files().remove(fds.0));
        drop(c.task.files().remove(fds.1));
        return Err(e);
    }
    Ok(0)
}
