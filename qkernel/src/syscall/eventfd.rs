//! eventfd, eventfd2.

use super::{Ctx, Support::*, SysResult};
use crate::fs::{anon, eventfd};
use crate::rows;
use hal::uapi::general::{O_CLOEXEC, O_NONBLOCK};
use qlib::Errno;

/// `EFD_SEMAPHORE`.
const SEMAPHORE: u32 = 1;

rows! {
    eventfd: Full, |c, a| sys_eventfd2(c, a.u32(0), 0);
    eventfd2: Full, |c, a| sys_eventfd2(c, a.u32(0), a.u32(1));
}

fn sys_eventfd2(c: &mut Ctx<'_>, initial: u32, flags: u32) -> SysResult {
    if flags & !(SEMAPHORE | O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = eventfd::eventfd(initial, flags & SEMAPHORE != 0, flags & O_NONBLOCK);
    let fd = anon::install(c.task, file, flags & O_CLOEXEC != 0)?;
    Ok(fd.0 as u64)
}
