//! Reading and writing. Source: `read(2)`, `readv(2)`, `lseek(2)`.

use super::files::{buffer, file_size_room, io_file, iovecs};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::fdtable::Fd;
use crate::fs::file::{File, POS_END};
use crate::fs::inode::FileType;
use crate::fs::notify::{self, mask};
use crate::rows;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::host::{Dest, Src};
use hal::user::UserSlice;
use qlib::Errno;

rows! {
    read: Full, |c, a| sys_read(c, a);
    write: Full, |c, a| sys_write(c, a);
    readv: Full, |c, a| { let v = iovecs(a.u64(1), a.u64(2))?; read_some(c, a.fd(0), &v) };
    writev: Full, |c, a| { let v = iovecs(a.u64(1), a.u64(2))?; write_some(c, a.fd(0), &v) };
    pread64: Full, |c, a| { let v = [buffer(a.u64(1), a.u64(2))?]; read_at(c, a.fd(0), &v, a.i64(3)) };
    pwrite64: Full, |c, a| { let v = [buffer(a.u64(1), a.u64(2))?]; write_at(c, a.fd(0), &v, a.i64(3), false) };
    preadv: Full, |c, a| { let v = iovecs(a.u64(1), a.u64(2))?; read_at(c, a.fd(0), &v, a.i64(3)) };
    pwritev: Full, |c, a| { let v = iovecs(a.u64(1), a.u64(2))?; write_at(c, a.fd(0), &v, a.i64(3), false) };
    preadv2: Partial("RWF_NOWAIT reads may wait for storage"), sys_preadv2;
    pwritev2: Partial("RWF_NOWAIT writes may wait for storage; RWF_ATOMIC is refused"), sys_pwritev2;
    lseek: Full, |c, a| sys_lseek(c, a.fd(0), a.i64(1), a.u32(2));
}

/// Field of [`crate::task::Process::io`].
const IO_READ: usize = 0;
const IO_WRITTEN: usize = 1;

fn account(c: &Ctx<'_>, what: usize, n: usize) {
    c.task.process.io[what].fetch_add(n as u64, Ordering::Relaxed);
    c.task.process.io[what + 2].fetch_add(1, Ordering::Relaxed);
}

fn readable(c: &Ctx<'_>, fd: Fd) -> SysResult<Arc<File>> {
    let f = io_file(c, fd)?;
    if f.readable() { Ok(f) } else { Err(Errno::EBADF) }
}

fn writable(c: &Ctx<'_>, fd: Fd) -> SysResult<Arc<File>> {
    let f = io_file(c, fd)?;
    if f.writable() { Ok(f) } else { Err(Errno::EBADF) }
}

fn sys_read(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let f = readable(c, a.fd(0))?;
    read_file(c, &f, &[buffer(a.u64(1), a.u64(2))?])
}

fn sys_write(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let f = writable(c, a.fd(0))?;
    write_file(c, &f, &[buffer(a.u64(1), a.u64(2))?])
}

fn read_some(c: &mut Ctx<'_>, fd: Fd, v: &[UserSlice]) -> SysResult {
    let f = readable(c, fd)?;
    read_file(c, &f, v)
}

fn write_some(c: &mut Ctx<'_>, fd: Fd, v: &[UserSlice]) -> SysResult {
    let f = writable(c, fd)?;
    write_file(c, &f, v)
}

fn read_file(c: &Ctx<'_>, f: &Arc<File>, v: &[UserSlice]) -> SysResult {
    let mut dst = Dest::user(v);
    let n = if f.ops().is_stream() {
        f.ops().read(f, &mut dst, 0)?
    } else {
        let mut pos = f.pos.lock();
        let at = f.position(*pos)?;
        let n = f.ops().read(f, &mut dst, at)?;
        *pos = at + n as u64;
        n
    };
    done_reading(c, f, n);
    Ok(n as u64)
}

fn done_reading(c: &Ctx<'_>, f: &File, n: usize) {
    account(c, IO_READ, n);
    if n > 0 {
        notify::file(f, mask::ACCESS);
    }
}

fn done_writing(c: &Ctx<'_>, f: &File, n: usize) {
    account(c, IO_WRITTEN, n);
    if n > 0 {
        notify::file(f, mask::MODIFY);
    }
}

fn total(v: &[UserSlice]) -> u64 {
    v.iter().map(|s| s.len() as u64).sum()
}

/// The buffers cut to `len` bytes.
fn cut(v: &[UserSlice], mut len: u64) -> Vec<UserSlice> {
    let mut out = Vec::with_capacity(v.len());
    for s in v {
        let part = s.first(len.min(s.len() as u64) as usize);
        len -= part.len() as u64;
        out.push(part);
    }
    out
}

/// Writes at a known position of a file, within the size limit.
fn write_from(c: &Ctx<'_>, f: &File, v: &[UserSlice], at: u64) -> SysResult<usize> {
    let want = total(v);
    if f.ops().is_regular() && want > 0 {
        let at = if f.append() { f.position(POS_END)? } else { at };
        if at > i64::MAX as u64 - want.min(i64::MAX as u64) {
            return Err(Errno::EFBIG);
        }
        let room = limit_room(c, at, want)?;
        if room < want {
            let v = cut(v, room);
            return f.ops().write(f, &mut Src::user(&v), at);
        }
    }
    f.ops().write(f, &mut Src::user(v), at)
}

fn limit_room(c: &Ctx<'_>, at: u64, want: u64) -> SysResult<u64> {
    file_size_room(c, at, want)
}

fn write_file(c: &Ctx<'_>, f: &Arc<File>, v: &[UserSlice]) -> SysResult {
    let n = if f.ops().is_stream() {
        f.ops().write(f, &mut Src::user(v), 0)?
    } else {
        let mut pos = f.pos.lock();
        let append = f.append();
        let at = if append { 0 } else { f.position(*pos)? };
        let n = write_from(c, f, v, at)?;
        // After an append the position is the end; it is asked for only when someone wants to know.
        if !append {
            *pos = at + n as u64;
        } else if n > 0 {
            *pos = POS_END;
        }
        n
    };
    done_writing(c, f, n);
    Ok(n as u64)
}

fn offset(pos: i64) -> SysResult<u64> {
    u64::try_from(pos).map_err(|_| Errno::EINVAL)
}

fn read_at(c: &mut Ctx<'_>, fd: Fd, v: &[UserSlice], pos: i64) -> SysResult {
    let pos = offset(pos)?;
    let f = readable(c, fd)?;
    if f.ops().is_stream() {
        return Err(Errno::ESPIPE);
    }
    let n = f.ops().read(&f, &mut Dest::user(v), pos)?;
    done_reading(c, &f, n);
    Ok(n as u64)
}

fn write_at(c: &mut Ctx<'_>, fd: Fd, v: &[UserSlice], pos: i64, append: bool) -> SysResult {
    let pos = offset(pos)?;
    let f = writable(c, fd)?;
    if f.ops().is_stream() {
        return Err(Errno::ESPIPE);
    }
    let n = if append {
        let _guard = f.pos.lock();
        let end = f.ops().stat(&f)?.size;
        write_from(c, &f, v, end)?
    } else {
        write_from(c, &f, v, pos)?
    };
    done_writing(c, &f, n);
    Ok(n as u64)
}

/// Reads for asynchronous IO: at `pos`, which means nothing to streams.
///
/// # Errors
/// As `pread(2)`.
pub fn read_operation(c: &Ctx<'_>, f: &Arc<File>, v: &[UserSlice], pos: u64) -> SysResult {
    let n = f.ops().read(f, &mut Dest::user(v), pos)?;
    done_reading(c, f, n);
    Ok(n as u64)
}

/// Writes for asynchronous IO, as [`read_operation`] reads.
///
/// # Errors
/// As `pwrite(2)`.
pub fn write_operation(c: &Ctx<'_>, f: &Arc<File>, v: &[UserSlice], pos: u64) -> SysResult {
    let n = write_from(c, f, v, pos)?;
    done_writing(c, f, n);
    Ok(n as u64)
}

/// RWF_* of `preadv2(2)`.
mod rwf {
    pub const HIPRI: u32 = 1;
    pub const DSYNC: u32 = 2;
    pub const SYNC: u32 = 4;
    pub const NOWAIT: u32 = 8;
    pub const APPEND: u32 = 16;
    pub const NOAPPEND: u32 = 32;
}

fn sys_preadv2(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let flags = a.u32(5);
    if flags & !(rwf::HIPRI | rwf::NOWAIT) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let v = iovecs(a.u64(1), a.u64(2))?;
    let f = readable(c, a.fd(0))?;
    if flags & rwf::NOWAIT != 0 && f.ops().is_stream() && !f.nonblock() {
        return Err(Errno::EOPNOTSUPP);
    }
    match a.i64(3) {
        -1 => read_file(c, &f, &v),
        pos => read_at(c, a.fd(0), &v, pos),
    }
}

fn sys_pwritev2(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let flags = a.u32(5);
    let known = rwf::HIPRI | rwf::DSYNC | rwf::SYNC | rwf::NOWAIT | rwf::APPEND | rwf::NOAPPEND;
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & rwf::APPEND != 0 && flags & rwf::NOAPPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let v = iovecs(a.u64(1), a.u64(2))?;
    let f = writable(c, a.fd(0))?;
    if flags & rwf::NOWAIT != 0 && f.ops().is_stream() && !f.nonblock() {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & rwf::NOAPPEND != 0 && f.append() {
        return Err(Errno::EOPNOTSUPP);
    }
    let n = match a.i64(3) {
        -1 if flags & rwf::APPEND == 0 => write_file(c, &f, &v)?,
        pos => write_at(c, a.fd(0), &v, pos.max(0), flags & rwf::APPEND != 0)?,
    };
    if flags & (rwf::DSYNC | rwf::SYNC) != 0 {
        f.ops().sync(&f, flags & rwf::SYNC == 0)?;
    }
    Ok(n)
}

fn sys_lseek(c: &mut Ctx<'_>, fd: Fd, offset: i64, whence: u32) -> SysResult {
    let f = io_file(c, fd)?;
    if f.ops().is_stream() {
        return Err(Errno::ESPIPE);
    }
    if whence > 4 {
        return Err(Errno::EINVAL);
    }
    let mut pos = f.pos.lock();
    let current = if whence == 1 { f.position(*pos)? } else { 0 };
    let at = f.ops().seek(&f, offset, whence, current)?;
    let dir = f.inode().is_some_and(|i| i.file_type() == FileType::Directory);
    if at > i64::MAX as u64 && !dir {
        return Err(Errno::EINVAL);
    }
    *pos = at;
    Ok(at)
}
