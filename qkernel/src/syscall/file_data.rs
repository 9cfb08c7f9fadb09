//! Moving and sizing file data: sendfile, copy_file_range, truncate, fallocate, flushing, advice.

use super::files::{Target, file_size_room, io_file, path_arg, target};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::attr;
use crate::fs::file::File;
use crate::fs::inode::FileType;
use crate::fs::notify::{self, mask};
use crate::rows;
use alloc::sync::Arc;
use alloc::vec;
use hal::host::{Dest, Src};
use hal::uapi::general::AT_FDCWD;
use hal::user::{UserCStr, UserPtr};
use qlib::Errno;

rows! {
    sendfile: Full, sys_sendfile;
    copy_file_range: Full, sys_copy_file_range;
    truncate: Full, |c, a| sys_truncate(c, a.cstr(0), a.i64(1));
    ftruncate: Full, |c, a| sys_ftruncate(c, a);
    fallocate: Full, sys_fallocate;
    fsync: Full, |c, a| sync_file(c, a, false);
    fdatasync: Full, |c, a| sync_file(c, a, true);
    sync: Partial("returns at once; data of the host is flushed by fsync and syncfs"), |_, _| Ok(0);
    syncfs: Partial("flushes the file itself"), |c, a| sys_syncfs(c, a);
    sync_file_range: Partial("flushes all data of the file"), |c, a| sys_sync_file_range(c, a);
    fadvise64: Partial("the advice is checked and not acted on"), |c, a| sys_fadvise64(c, a);
    readahead: Partial("nothing is read ahead"), |c, a| sys_readahead(c, a);
}

/// Bytes copied at once.
const CHUNK: usize = 64 * 1024;

/// Copies up to `len` bytes between files; `from` and `to` are positions, or `None` for streams.
fn copy(src: &Arc<File>, mut from: u64, dst: &Arc<File>, mut to: Option<u64>, len: u64) -> SysResult<u64> {
    let mut buf = vec![0; CHUNK.min(len as usize)];
    let mut done = 0u64;
    while done < len {
        let want = buf.len().min((len - done) as usize);
        let got = match src.ops().read(src, &mut Dest::kernel(&mut buf[..want]), from) {
            Ok(0) => break,
            Ok(n) => n,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        };
        let mut part = Src::kernel(&buf[..got]);
        let put = match dst.ops().write(dst, &mut part, to.unwrap_or(0)) {
            Ok(n) => n,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        };
        done += put as u64;
        from += put as u64;
        if let Some(t) = &mut to {
            *t += put as u64;
        }
        if put < got || crate::task::interrupted() && done < len {
            break;
        }
    }
    if done > 0 {
        notify::file(src, mask::ACCESS);
        notify::file(dst, mask::MODIFY);
    }
    Ok(done)
}

fn sys_sendfile(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let out = io_file(c, a.fd(0))?;
    let input = io_file(c, a.fd(1))?;
    if !input.readable() || !out.writable() {
        return Err(Errno::EBADF);
    }
    let offset = UserPtr::<i64>::nonnull(a.u64(2));
    if input.ops().is_stream() {
        return Err(if offset.is_some() {
            Errno::ESPIPE
        } else {
            Errno::EINVAL
        });
    }
    if out.append() {
        return Err(Errno::EINVAL);
    }
    let len = a.u64(3).min(super::files::MAX_RW);
    let start = match offset {
        Some(p) => Some(u64::try_from(p.read()?).map_err(|_| Errno::EINVAL)?),
        None => None,
    };
    // Two positions at most are held, in address order, so that two calls the other way round cannot block each other.
    let same = Arc::ptr_eq(&input, &out);
    let out_has_pos = !out.ops().is_stream();
    let first_in = Arc::as_ptr(&input) < Arc::as_ptr(&out);
    let (mut in_pos, mut out_pos) = (None, None);
    if first_in && start.is_none() {
        in_pos = Some(input.pos.lock());
    }
    if out_has_pos && !(same && start.is_none()) {
        out_pos = Some(out.pos.lock());
    }
    if in_pos.is_none() && start.is_none() {
        in_pos = Some(input.pos.lock());
    }
    let from = match (start, &in_pos) {
        (Some(at), _) => at,
        (None, Some(p)) => input.position(**p)?,
        (None, None) => 0,
    };
    let to = match &out_pos {
        Some(p) => Some(out.position(**p)?),
        None if out_has_pos => Some(from),
        None => None,
    };
    let len = match to {
        Some(t) if out.ops().is_regular() && len > 0 => file_size_room(c, t, len)?,
        _ => len,
    };
    let n = copy(&input, from, &out, to, len)?;
    if let Some(p) = &mut in_pos {
        **p = from + n;
    }
    if let (Some(p), Some(t)) = (&mut out_pos, to) {
        **p = t + n;
    }
    drop((in_pos, out_pos));
    if let (Some(p), Some(at)) = (offset, start) {
        p.write(&((at + n) as i64))?;
    }
    Ok(n)
}

fn regular(f: &File) -> SysResult<()> {
    match f.inode().map(|i| i.file_type()) {
        Some(FileType::Directory) => Err(Errno::EISDIR),
        _ if f.ops().is_regular() => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

fn sys_copy_file_range(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let input = io_file(c, a.fd(0))?;
    let out = io_file(c, a.fd(2))?;
    if a.u32(5) != 0 {
        return Err(Errno::EINVAL);
    }
    regular(&input)?;
    regular(&out)?;
    if !input.readable() || !out.writable() || out.append() {
        return Err(Errno::EBADF);
    }
    let (in_off, out_off) = (
        UserPtr::<i64>::nonnull(a.u64(1)),
        UserPtr::<i64>::nonnull(a.u64(3)),
    );
    let position = |p: Option<UserPtr<i64>>, f: &Arc<File>| -> SysResult<u64> {
        match p {
            Some(p) => u64::try_from(p.read()?).map_err(|_| Errno::EINVAL),
            None => {
                let pos = *f.pos.lock();
                f.position(pos)
            }
        }
    };
    let from = position(in_off, &input)?;
    let to = position(out_off, &out)?;
    let len = a.u64(4).min(super::files::MAX_RW);
    if from.checked_add(len).is_none() || to.checked_add(len).is_none() {
        return Err(Errno::EOVERFLOW);
    }
    let same = input.inode().map(|i| i.id()) == out.inode().map(|i| i.id());
    if same && from < to + len && to < from + len {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let len = file_size_room(c, to, len)?;
    let n = copy(&input, from, &out, Some(to), len)?;
    let store = |p: Option<UserPtr<i64>>, f: &Arc<File>, at: u64| -> SysResult<()> {
        match p {
            Some(p) => p.write(&(at as i64)),
            None => {
                *f.pos.lock() = at;
                Ok(())
            }
        }
    };
    store(in_off, &input, from + n)?;
    store(out_off, &out, to + n)?;
    Ok(n)
}

fn length(len: i64) -> SysResult<u64> {
    u64::try_from(len).map_err(|_| Errno::EINVAL)
}

fn sys_truncate(c: &mut Ctx<'_>, path: UserCStr, len: i64) -> SysResult {
    let len = length(len)?;
    let t = target(c, AT_FDCWD, &path_arg(path)?, 0, true)?;
    let Target::Place(found) = &t else {
        return Err(Errno::EINVAL);
    };
    file_size_room(c, len, 0)?;
    attr::truncate(&found.path, len, &c.task.creds())?;
    Ok(0)
}

fn sys_ftruncate(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let len = length(a.i64(1))?;
    let f = io_file(c, a.fd(0))?;
    if !f.ops().is_regular() || !f.writable() {
        return Err(Errno::EINVAL);
    }
    if len > f.ops().stat(&f)?.size {
        // Only growth is limited; exactly the limit is allowed.
        file_size_room(c, len.saturating_sub(1), 1)?;
    }
    f.ops().truncate(&f, len)?;
    notify::file(&f, mask::MODIFY);
    Ok(0)
}

fn sys_fallocate(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let f = io_file(c, a.fd(0))?;
    let (mode, offset, len) = (a.u32(1), a.i64(2), a.i64(3));
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    if !f.writable() {
        return Err(Errno::EBADF);
    }
    if !f.ops().is_regular() {
        return Err(match f.ops().stat(&f).map(|s| FileType::from_mode(s.mode)) {
            Ok(FileType::Fifo) => Errno::ESPIPE,
            Ok(FileType::Directory) => Errno::EISDIR,
            _ => Errno::ENODEV,
        });
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    if mode & hal::uapi::general::FALLOC_FL_KEEP_SIZE == 0 {
        file_size_room(c, (end - 1) as u64, 1)?;
    }
    f.ops().allocate(&f, mode, offset as u64, len as u64)?;
    notify::file(&f, mask::MODIFY);
    Ok(0)
}

fn sync_file(c: &mut Ctx<'_>, a: Args, data_only: bool) -> SysResult {
    let f = io_file(c, a.fd(0))?;
    f.ops().sync(&f, data_only)?;
    Ok(0)
}

fn sys_syncfs(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let f = io_file(c, a.fd(0))?;
    match f.ops().sync(&f, false) {
        // What has nothing to flush is flushed.
        Ok(()) | Err(Errno::EINVAL) => Ok(0),
        Err(e) => Err(e),
    }
}

fn sys_sync_file_range(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let f = io_file(c, a.fd(0))?;
    let (offset, len, flags) = (a.i64(1), a.i64(2), a.u32(3));
    if flags & !7 != 0 || offset < 0 || len < 0 {
        return Err(Errno::EINVAL);
    }
    if !f.ops().is_regular() {
        return Err(Errno::ESPIPE);
    }
    if flags != 0 {
        f.ops().sync(&f, true)?;
    }
    Ok(0)
}

fn sys_fadvise64(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let f = io_file(c, a.fd(0))?;
    if f.ops().is_stream() {
        return Err(Errno::ESPIPE);
    }
    if a.i64(2) < 0 || a.u32(3) > 5 {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

fn sys_readahead(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let f = io_file(c, a.fd(0))?;
    if !f.readable() {
        return Err(Errno::EBADF);
    }
    if !f.ops().is_regular() {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}
