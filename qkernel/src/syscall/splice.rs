//! splice, tee, vmsplice. Source: their man pages, Linux `fs/splice.c`.
//!
//! Bytes between two pipes are shared, between a pipe and another file copied once.

use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::file::File;
use crate::fs::pipe::{self, Pipe, broken_pipe};
use crate::fs::pipe_buffer::Chunk;
use crate::rows;
use crate::sched::wait::{Events, wait_until};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hal::host::{Dest, Src};
use hal::user::{UserPtr, UserSlice};
use qlib::Errno;

rows! {
    splice: Full, |c, a| sys_splice(c, a);
    tee: Full, |c, a| sys_tee(c, a);
    vmsplice: Partial("copies: gifted pages stay the app's"), |c, a| sys_vmsplice(c, a);
}

/// SPLICE_F_NONBLOCK.
const NONBLOCK: u32 = 2;
/// All SPLICE_F_* flags.
const ALL_FLAGS: u32 = 15;
/// Bytes moved in one step.
const STEP: usize = 65536;

/// Waits until the pipe has bytes, and takes up to `want`; empty = the end.
fn take(p: &Pipe, want: usize, nonblock: bool) -> SysResult<Vec<Chunk>> {
    match p.try_take(want) {
        Some(c) => Ok(c),
        None if nonblock => Err(Errno::EAGAIN),
        None => wait_until(p.queue(), Events::IN, None, || p.try_take(want))
            .map_err(|e| e.restart_or(Errno::EAGAIN)),
    }
}

/// Waits until the pipe has room; tells how much.
fn room(p: &Pipe, nonblock: bool) -> SysResult<usize> {
    let look = || match p.room() {
        _ if !p.has_readers() => Some(Err(Errno::EPIPE)),
        0 => None,
        n => Some(Ok(n)),
    };
    let r = match look() {
        Some(r) => r,
        None if nonblock => Err(Errno::EAGAIN),
        None => wait_until(p.queue(), Events::OUT, None, look).map_err(|e| e.restart_or(Errno::EAGAIN))?,
    };
    r.map_err(|e| if e == Errno::EPIPE { broken_pipe() } else { e })
}

/// An offset argument: the value, or the file's position when there is none.
enum Offset<'a> {
    Given(UserPtr<i64>, u64),
    Position(crate::sched::wait::SleepGuard<'a, u64>),
    None,
}

impl<'a> Offset<'a> {
    fn of(file: &'a File, addr: u64) -> SysResult<Self> {
        match (UserPtr::nonnull(addr), file.ops().is_stream()) {
            (Some(_), true) => Err(Errno::ESPIPE),
            (None, true) => Ok(Self::None),
            (Some(p), false) => {
                let at = u64::try_from(p.read()?).map_err(|_| Errno::EINVAL)?;
                Ok(Self::Given(p, at))
            }
            (None, false) => Ok(Self::Position(file.pos.lock())),
        }
    }
    fn at(&self, done: u64) -> u64 {
        match self {
            Self::Given(_, at) => at + done,
            Self::Position(p) => **p + done,
            Self::None => 0,
        }
    }
    fn finish(self, done: u64) -> SysResult<()> {
        match self {
            Self::Given(p, at) => p.write(&((at + done) as i64)),
            Self::Position(mut p) => {
                *p += done;
                Ok(())
            }
            Self::None => Ok(()),
        }
    }
}

fn sys_splice(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (len, flags) = (a.u64(4).min(i32::MAX as u64) as usize, a.u32(5));
    if flags & !ALL_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let files = c.task.files();
    let (input, output) = (files.get(a.fd(0))?, files.get(a.fd(2))?);
    if !input.readable() || !output.writable() {
        return Err(Errno::EBADF);
    }
    let nonblock = |f: &File| flags & NONBLOCK != 0 || f.nonblock();
    if len == 0 {
        return Ok(0);
    }
    match (pipe::of(&input), pipe::of(&output)) {
        (Some(from), Some(to)) => {
            if a.u64(1) != 0 || a.u64(3) != 0 {
                return Err(Errno::ESPIPE);
            }
            if Arc::ptr_eq(from, to) {
                return Err(Errno::EINVAL);
            }
            let n = room(to, nonblock(&output))?;
            let chunks = take(from, len.min(n), nonblock(&input))?;
            Ok(put(to, chunks) as u64)
        }
        (Some(from), None) => {
            if a.u64(1) != 0 {
                return Err(Errno::ESPIPE);
            }
            if output.append() {
                return Err(Errno::EINVAL);
            }
            let offset = Offset::of(&output, a.u64(3))?;
            let r = from_pipe(from, &output, &offset, len, nonblock(&input));
            offset.finish(*r.as_ref().unwrap_or(&0))?;
            r
        }
        (None, Some(to)) => {
            if a.u64(3) != 0 {
                return Err(Errno::ESPIPE);
            }
            let offset = Offset::of(&input, a.u64(1))?;
            let r = to_pipe(&input, &offset, to, len, nonblock(&output));
            offset.finish(*r.as_ref().unwrap_or(&0))?;
            r
        }
        (None, None) => Err(Errno::EINVAL),
    }
}

/// Puts chunks a pipe has room for; returns the bytes.
fn put(p: &Pipe, chunks: Vec<Chunk>) -> usize {
    let n = chunks.iter().map(Chunk::len).sum();
    p.put_all(chunks);
    n
}

/// What was moved so far, or the error when nothing was.
fn result(done: u64, e: Errno) -> SysResult {
    if done > 0 { Ok(done) } else { Err(e) }
}

fn from_pipe(from: &Pipe, out: &File, offset: &Offset<'_>, len: usize, nonblock: bool) -> SysResult {
    let mut done = 0u64;
    while (done as usize) < len {
        let want = STEP.min(len - done as usize);
        // Once something was moved the call does not wait for more.
        let chunks = match take(from, want, nonblock || done > 0) {
            Ok(c) if c.is_empty() => break,
            Ok(c) => c,
            Err(e) => return result(done, e),
        };
        let mut rest = chunks.into_iter();
        while let Some(mut chunk) = rest.next() {
            let r = out
                .ops()
                .write(out, &mut Src::kernel(chunk.bytes()), offset.at(done));
            let n = *r.as_ref().unwrap_or(&0);
            done += n as u64;
            chunk.skip(n);
            if !chunk.is_empty() {
                from.give_back(core::iter::once(chunk).chain(rest).collect());
                return match r {
                    Ok(_) => Ok(done),
                    Err(e) => result(done, e),
                };
            }
        }
    }
    Ok(done)
}

fn to_pipe(input: &File, offset: &Offset<'_>, to: &Pipe, len: usize, nonblock: bool) -> SysResult {
    let mut done = 0u64;
    while (done as usize) < len {
        let n = match room(to, nonblock || done > 0) {
            Ok(n) => n.min(STEP).min(len - done as usize),
            Err(e) => return result(done, e),
        };
        let mut data = vec![0; n];
        let got = match input
            .ops()
            .read(input, &mut Dest::kernel(&mut data), offset.at(done))
        {
            Ok(0) => break,
            Ok(got) => got,
            Err(e) => return result(done, e),
        };
        data.truncate(got);
        to.put_all(vec![Chunk::new(data, false)]);
        done += got as u64;
        if input.ops().is_stream() {
            break;
        }
    }
    Ok(done)
}

fn sys_tee(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (len, flags) = (a.u64(2).min(i32::MAX as u64) as usize, a.u32(3));
    if flags & !ALL_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let files = c.task.files();
    let (input, output) = (files.get(a.fd(0))?, files.get(a.fd(1))?);
    if !input.readable() || !output.writable() {
        return Err(Errno::EBADF);
    }
    let (Some(from), Some(to)) = (pipe::of(&input), pipe::of(&output)) else {
        return Err(Errno::EINVAL);
    };
    if Arc::ptr_eq(from, to) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let nonblock = |f: &File| flags & NONBLOCK != 0 || f.nonblock();
    let n = room(to, nonblock(&output))?;
    let want = len.min(n);
    let chunks = match from.try_peek(want) {
        Some(c) => c,
        None if nonblock(&input) => return Err(Errno::EAGAIN),
        None => wait_until(from.queue(), Events::IN, None, || from.try_peek(want))
            .map_err(|e| e.restart_or(Errno::EAGAIN))?,
    };
    Ok(put(to, chunks) as u64)
}

fn sys_vmsplice(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (count, flags) = (a.u64(2), a.u32(3));
    if flags & !ALL_FLAGS != 0 || count > 1024 {
        return Err(Errno::EINVAL);
    }
    let file = c.task.files().get(a.fd(0))?;
    if pipe::of(&file).is_none() {
        return Err(Errno::EBADF);
    }
    let raw = a.ptr::<[u64; 2]>(1).read_vec(count as usize)?;
    let segments = raw
        .iter()
        .map(|[addr, len]| UserSlice::new(*addr, *len))
        .collect::<SysResult<Vec<_>>>()?;
    // The flag is the call's own; the description may be shared with others that block.
    let waits = |ready: Events| flags & NONBLOCK != 0 && !file.ops().poll(&file).intersects(ready);
    if file.writable() {
        if waits(Events::OUT | Events::ERR) {
            return Err(Errno::EAGAIN);
        }
        return file
            .ops()
            .write(&file, &mut Src::user(&segments), 0)
            .map(|n| n as u64);
    }
    if waits(Events::IN | Events::HUP) {
        return Err(Errno::EAGAIN);
    }
    file.ops()
        .read(&file, &mut Dest::user(&segments), 0)
        .map(|n| n as u64)
}
