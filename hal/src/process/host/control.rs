//! The control channel and the log.

use super::super::sys;
use super::{io, ready};
use crate::boot;
use crate::host::MessageIn;
use crate::uapi::{general as g, net};
use alloc::vec::Vec;
use qlib::Errno;
use qlib::qcall::HandleId;

/// Longest control message.
const MAX_MESSAGE: usize = 4 << 20;
/// Descriptors in one message (SCM_MAX_FD).
const MAX_FDS: usize = 253;
/// `struct cmsghdr`.
const CMSG_HEADER: usize = 16;

fn recvmsg(fd: i32, message: &mut [u64; 7], flags: u32) -> Result<usize, Errno> {
    loop {
        let args = [fd as u64, message.as_mut_ptr() as u64, flags as u64];
        // SAFETY: the host writes a msghdr and what it points at; the callers keep that alive.
        match unsafe { sys::call(g::__NR_recvmsg, args) } {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => ready::block(fd, g::POLLIN as u16, None),
            r => return r.map(|n| n as usize),
        }
    }
}

pub(super) fn recv() -> Result<MessageIn, Errno> {
    let fd = boot::info().control_fd;
    // A look at the length first: messages are rare and differ much in size.
    let mut nothing = [0u8; 1];
    let iov = [nothing.as_mut_ptr() as u64, 1];
    let mut message = [0, 0, iov.as_ptr() as u64, 1, 0, 0, 0];
    let len = recvmsg(fd, &mut message, net::MSG_PEEK | net::MSG_TRUNC)?;
    if len > MAX_MESSAGE {
        return Err(Errno::EMSGSIZE);
    }
    let mut bytes = alloc::vec![0u8; len];
    let mut control = alloc::vec![0u64; (CMSG_HEADER + 4 * MAX_FDS).div_ceil(8)];
    let iov = [bytes.as_mut_ptr() as u64, len as u64];
    let room = control.len() as u64 * 8;
    let mut message = [0, 0, iov.as_ptr() as u64, 1, control.as_mut_ptr() as u64, room, 0];
    let got = recvmsg(fd, &mut message, net::MSG_CMSG_CLOEXEC)?;
    if got == 0 {
        // QVisor's end is closed.
        return Err(Errno::EPIPE);
    }
    bytes.truncate(got);
    let handles = passed_fds(&control, message[5] as usize);
    for h in &handles {
        io::note_blocking(*h, blocks(*h));
    }
    Ok(MessageIn { bytes, handles })
}

/// The descriptors in a control buffer of `len` bytes.
fn passed_fds(control: &[u64], len: usize) -> Vec<HandleId> {
    let [first, kind, rest @ ..] = control else {
        return Vec::new();
    };
    let end = (*first as usize).min(len);
    let rights = (net::SCM_RIGHTS as u64) << 32 | net::SOL_SOCKET as u64;
    if end <= CMSG_HEADER || *kind != rights {
        return Vec::new();
    }
    let fds = (end - CMSG_HEADER) / 4;
    (0..fds)
        .map(|i| HandleId(rest[i / 2] >> (32 * (i % 2)) & 0xffff_ffff))
        .collect()
}

/// Whether calls on a descriptor from outside may block.
fn blocks(h: HandleId) -> bool {
    let flags = sys::plain(g::__NR_fcntl, [h.0, g::F_GETFL as u64]).unwrap_or(0);
    flags & (g::O_NONBLOCK | g::O_PATH) as u64 == 0
}

pub(super) fn send(event: &[u8]) -> Result<(), Errno> {
    let fd = boot::info().control_fd;
    loop {
        let args = [
            fd as u64,
            event.as_ptr() as u64,
            event.len() as u64,
            net::MSG_NOSIGNAL as u64,
            0,
            0,
        ];
        // SAFETY: the host reads the event.
        match unsafe { sys::call(g::__NR_sendto, args) } {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => ready::block(fd, g::POLLOUT as u16, None),
            r => return super::done(r),
        }
    }
}

pub(super) fn log(level: u32, line: &[u8]) {
    let fd = boot::info().log_fd;
    if fd < 0 {
        return;
    }
    let level: &[u8] = match level {
        0 | 1 => b"ERROR ",
        2 => b"WARN ",
        3 => b"INFO ",
        4 => b"DEBUG ",
        _ => b"TRACE ",
    };
    let part = |b: &[u8]| [b.as_ptr() as u64, b.len() as u64];
    let iov = [part(level), part(line), part(b"\n")];
    // SAFETY: the host reads the three parts. One call, so that lines of different threads do not mix.
    let _ = unsafe { sys::call(g::__NR_writev, [fd as u64, iov.as_ptr() as u64, 3]) };
}
