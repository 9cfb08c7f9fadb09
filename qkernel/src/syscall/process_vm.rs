//! `process_vm_readv(2)`, `process_vm_writev(2)`.

use super::Support::Full;
use super::process::may_inspect;
use super::{Args, Ctx, SysResult};
use crate::mm::remote;
use crate::rows;
use crate::task::{Task, table};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::user::{UserPtr, copy_in, copy_out};
use qlib::Errno;

/// Most entries of a vector (`UIO_MAXIOV`).
const MAX_IOV: u64 = 1024;
/// Bytes moved at once.
const CHUNK: u64 = 64 << 10;

fn vector(addr: u64, count: u64) -> SysResult<Vec<(u64, u64)>> {
    if count > MAX_IOV {
        return Err(Errno::EINVAL);
    }
    let mut total = 0u64;
    let mut out = Vec::with_capacity(count as usize);
    for i in 0..count as usize {
        let [base, len] = UserPtr::<[u64; 2]>::new(addr).at(i).read()?;
        total = total
            .checked_add(len)
            .filter(|t| *t <= i64::MAX as u64)
            .ok_or(Errno::EINVAL)?;
        out.push((base, len));
    }
    Ok(out)
}

/// The part of `v` that begins `done` bytes in.
fn at(v: &[(u64, u64)], mut done: u64) -> Option<(u64, u64)> {
    for (base, len) in v {
        if done < *len {
            return Some((base.wrapping_add(done), len - done));
        }
        done -= len;
    }
    None
}

fn move_part(task: &Arc<Task>, own: u64, other: u64, len: u64, write: bool) -> SysResult<u64> {
    if write {
        let mut buf = alloc::vec![0u8; len as usize];
        copy_in(&mut buf, own)?;
        remote::write(task, other, &buf, false)?;
        return Ok(len);
    }
    let got = remote::read(task, other, len)?;
    if got.is_empty() {
        return Err(Errno::EFAULT);
    }
    copy_out(own, &got)?;
    Ok(got.len() as u64)
}

fn process_vm(ctx: &mut Ctx<'_>, a: Args, write: bool) -> SysResult {
    if a.u64(5) != 0 {
        return Err(Errno::EINVAL);
    }
    let local = vector(a.u64(1), a.u64(2))?;
    let other = vector(a.u64(3), a.u64(4))?;
    let task = u32::try_from(a.i32(0))
        .ok()
        .and_then(|n| table::task_in(ctx.task.pid_ns(), n))
        .ok_or(Errno::ESRCH)?;
    if !may_inspect(ctx, &task) {
        return Err(Errno::EPERM);
    }
    let mut done = 0;
    while let (Some((own, room)), Some((theirs, have))) = (at(&local, done), at(&other, done)) {
        // Page by page at the ends, so that what is there is moved before the first address that is not.
        let page = qlib::PAGE_SIZE - theirs % qlib::PAGE_SIZE;
        let len = room.min(have).min(if theirs.is_multiple_of(qlib::PAGE_SIZE) {
            CHUNK
        } else {
            page
        });
        let moved = move_part(&task, own, theirs, len, write).or_else(|e| {
            let short = len.min(page);
            if e == Errno::EFAULT && short < len {
                move_part(&task, own, theirs, short, write)
            } else {
                Err(e)
            }
        });
        match moved {
            Ok(n) => done += n,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

rows! {
    process_vm_readv: Full, |c, a| process_vm(c, a, false);
    process_vm_writev: Full, |c, a| process_vm(c, a, true);
}
