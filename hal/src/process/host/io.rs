//! Reading, writing and other calls on one handle.

use super::super::sys;
use super::{done, ready};
use crate::host::{Dest, Handle, Src};
use crate::uapi::general as g;
use crate::user::UserSlice;
use core::sync::atomic::{AtomicU64, Ordering};
use qlib::Errno;

/// App segments handed to the host at a time; more make a short count, or another call.
const SEGMENTS: usize = 16;
/// A write of this size to a pipe that is ready does not block (PIPE_BUF).
const PIPE_BUF: u64 = 4096;
/// Descriptors whose blocking mode is noted.
const NOTED: u64 = 4096;

/// Descriptors that the host could not make non-blocking, because others share their open file: a bit each.
static BLOCKING: [AtomicU64; NOTED as usize / 64] = [const { AtomicU64::new(0) }; NOTED as usize / 64];

/// Notes whether calls on `h` may block.
pub(super) fn note_blocking(h: Handle, blocking: bool) {
    if let Some(word) = BLOCKING.get((h.0 / 64) as usize) {
        let bit = 1 << (h.0 % 64);
        if blocking {
            word.fetch_or(bit, Ordering::Relaxed);
        } else if word.load(Ordering::Relaxed) & bit != 0 {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

fn may_block(h: Handle) -> bool {
    BLOCKING
        .get((h.0 / 64) as usize)
        .is_some_and(|w| w.load(Ordering::Relaxed) >> (h.0 % 64) & 1 != 0)
}

pub(super) fn close(h: Handle) {
    note_blocking(h, false);
    let _ = sys::plain(g::__NR_close, [h.0]);
}

/// Host `iovec`s of app segments.
fn iovecs(segments: &[UserSlice; SEGMENTS], n: usize) -> [[u64; 2]; SEGMENTS] {
    let mut iov = [[0; 2]; SEGMENTS];
    for (i, s) in iov.iter_mut().zip(&segments[..n]) {
        *i = [s.addr(), s.len() as u64];
    }
    iov
}

/// Makes a descriptor that may block look as if it did not: EAGAIN unless it is ready.
fn guard(h: Handle, events: u16) -> Result<(), Errno> {
    if ready::is_ready(h, events)? {
        Ok(())
    } else {
        Err(Errno::EAGAIN)
    }
}

pub(super) fn read(h: Handle, dest: &mut Dest<'_>, offset: Option<u64>) -> Result<usize, Errno> {
    let blocking = offset.is_none() && may_block(h);
    let mut segments = [UserSlice::default(); SEGMENTS];
    let mut total = 0;
    loop {
        let n = dest.fill_segments(&mut segments);
        let asked: usize = match n {
            Some(n) => segments[..n].iter().map(|s| s.len()).sum(),
            None => dest.remaining(),
        };
        if blocking && asked > 0 {
            guard(h, g::POLLIN as u16).or_else(|e| if total > 0 { Ok(()) } else { Err(e) })?;
        }
        let at = offset.map(|o| o + total as u64);
        let got = match n {
            Some(n) => {
                let iov = iovecs(&segments, n);
                read_user(h, &iov[..n], at)
            }
            None => read_kernel(h, dest.kernel_mut().unwrap_or(&mut []), at),
        };
        match got {
            Ok(got) => {
                dest.advance(got);
                total += got;
                // More segments than fit one call: only a regular file's read goes on, as it would have.
                if n != Some(SEGMENTS) || got < asked || offset.is_none() || dest.remaining() == 0 {
                    return Ok(total);
                }
            }
            Err(_) if total > 0 => return Ok(total),
            Err(e) => return Err(e),
        }
    }
}

fn read_user(h: Handle, iov: &[[u64; 2]], offset: Option<u64>) -> Result<usize, Errno> {
    let r = match (offset, iov) {
        // The host checks app addresses itself; the kernel's were refused when the segments were made.
        (Some(o), [one]) => sys::plain(g::__NR_pread64, [h.0, one[0], one[1], o]),
        (None, [one]) => sys::plain(g::__NR_read, [h.0, one[0], one[1]]),
        // SAFETY: the host reads the vector; its segments are the app's.
        (Some(o), iov) => unsafe {
            sys::call(g::__NR_preadv, [h.0, iov.as_ptr() as u64, iov.len() as u64, o, 0])
        },
        // SAFETY: as above.
        (None, iov) => unsafe { sys::call(g::__NR_readv, [h.0, iov.as_ptr() as u64, iov.len() as u64]) },
    };
    r.map(|n| n as usize)
}

fn read_kernel(h: Handle, buf: &mut [u8], offset: Option<u64>) -> Result<usize, Errno> {
    let (at, len) = (buf.as_mut_ptr() as u64, buf.len() as u64);
    let r = match offset {
        // SAFETY: the host writes into the slice.
        Some(o) => unsafe { sys::call(g::__NR_pread64, [h.0, at, len, o]) },
        // SAFETY: as above.
        None => unsafe { sys::call(g::__NR_read, [h.0, at, len]) },
    };
    r.map(|n| n as usize)
}

pub(super) fn write(h: Handle, src: &mut Src<'_>, offset: Option<u64>, append: bool) -> Result<usize, Errno> {
    let blocking = offset.is_none() && may_block(h);
    let mut segments = [UserSlice::default(); SEGMENTS];
    let mut total = 0;
    loop {
        let n = src.fill_segments(&mut segments);
        let mut iov = match n {
            Some(n) => iovecs(&segments, n),
            None => {
                let buf = src.kernel_ref().unwrap_or(&[]);
                let mut iov = [[0; 2]; SEGMENTS];
                iov[0] = [buf.as_ptr() as u64, buf.len() as u64];
                iov
            }
        };
        let mut used = n.unwrap_or(1);
        if blocking && src.remaining() > 0 {
            guard(h, g::POLLOUT as u16).or_else(|e| if total > 0 { Ok(()) } else { Err(e) })?;
            used = used.min(1);
            iov[0][1] = iov[0][1].min(PIPE_BUF);
        }
        let iov = &iov[..used];
        let asked: u64 = iov.iter().map(|i| i[1]).sum();
        let at = offset.map(|o| o + total as u64);
        // SAFETY: the segments are the app's, or the kernel buffer's, which the host only reads.
        match unsafe { write_vector(h, iov, at, append) } {
            Ok(got) => {
                src.advance(got);
                total += got;
                if n != Some(SEGMENTS)
                    || (got as u64) < asked
                    || src.remaining() == 0
                    || (offset.is_none() && !append)
                {
                    return Ok(total);
                }
            }
            Err(_) if total > 0 => return Ok(total),
            Err(e) => return Err(e),
        }
    }
}

/// Writes the segments: at `offset`, at the end, or at the handle's position.
///
/// # Safety
/// The segments are readable, or the app's.
unsafe fn write_vector(
    h: Handle,
    iov: &[[u64; 2]],
    offset: Option<u64>,
    append: bool,
) -> Result<usize, Errno> {
    let (at, n) = (iov.as_ptr() as u64, iov.len() as u64);
    let r = match (offset, iov) {
        _ if append => {
            let args = [h.0, at, n, u64::MAX, u64::MAX, g::RWF_APPEND as u64];
            // SAFETY: the caller vouches for the segments.
            unsafe { sys::call(g::__NR_pwritev2, args) }
        }
        // SAFETY: as above.
        (Some(o), [one]) => unsafe { sys::call(g::__NR_pwrite64, [h.0, one[0], one[1], o]) },
        // SAFETY: as above.
        (None, [one]) => unsafe { sys::call(g::__NR_write, [h.0, one[0], one[1]]) },
        // SAFETY: as above.
        (Some(o), _) => unsafe { sys::call(g::__NR_pwritev, [h.0, at, n, o, 0]) },
        // SAFETY: as above.
        (None, _) => unsafe { sys::call(g::__NR_writev, [h.0, at, n]) },
    };
    r.map(|n| n as usize)
}

pub(super) fn truncate(h: Handle, len: u64) -> Result<(), Errno> {
    done(sys::plain(g::__NR_ftruncate, [h.0, len]))
}

pub(super) fn allocate(h: Handle, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
    done(sys::plain(g::__NR_fallocate, [h.0, mode as u64, offset, len]))
}

pub(super) fn sync(h: Handle, data_only: bool) -> Result<(), Errno> {
    done(sys::plain(
        if data_only {
            g::__NR_fdatasync
        } else {
            g::__NR_fsync
        },
        [h.0],
    ))
}

pub(super) fn read_dir(h: Handle, buf: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the host writes into the slice.
    unsafe {
        sys::call(
            g::__NR_getdents64,
            [h.0, buf.as_mut_ptr() as u64, buf.len() as u64],
        )
    }
    .map(|n| n as usize)
}

pub(super) fn seek(h: Handle, offset: i64, whence: u32) -> Result<u64, Errno> {
    sys::plain(g::__NR_lseek, [h.0, offset as u64, whence as u64])
}

pub(super) fn ioctl(h: Handle, request: u32, arg: &mut [u8]) -> Result<u64, Errno> {
    // Requests say the size of their argument in 14 bits, but the old ones of terminals and sockets, which take no
    // more than an ifreq: a buffer as large as any request that QKernel lets through.
    let mut room = [0u64; 128];
    let bytes = size_of_val(&room);
    if arg.len() > bytes {
        return Err(Errno::EINVAL);
    }
    // SAFETY: any bytes are integers, and `room` is large enough.
    unsafe { core::ptr::copy_nonoverlapping(arg.as_ptr(), room.as_mut_ptr().cast(), arg.len()) };
    // SAFETY: the host reads and writes at most the request's size, which the buffer holds.
    let r = unsafe { sys::call(g::__NR_ioctl, [h.0, request as u64, room.as_mut_ptr() as u64]) };
    // SAFETY: `arg` has room for as many bytes as were copied in.
    unsafe { core::ptr::copy_nonoverlapping(room.as_ptr().cast(), arg.as_mut_ptr(), arg.len()) };
    r
}
