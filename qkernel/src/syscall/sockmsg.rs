//! Sending and receiving: sendto, recvfrom, sendmsg, recvmsg and their plural forms.

use super::poll::relative_deadline;
use super::socket::{MAX_ADDRESS, read_address, socket_file, socket_of, write_address};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::epoll_host::used;
use crate::fs::file::File;
use crate::fs::pipe::broken_pipe;
use crate::net::{Outgoing, Patience, Received, SocketFile, cmsg, kind, msg};
use crate::rows;
use crate::sched::wait::Events;
use alloc::vec::Vec;
use hal::host::{Dest, Src};
use hal::uapi::net::{mmsghdr, msghdr};
use hal::user::{UserPtr, UserSlice};
use qlib::Errno;

rows! {
    sendto: Full, |c, a| sys_sendto(c, a);
    recvfrom: Full, |c, a| sys_recvfrom(c, a);
    sendmsg: Partial("no MSG_ZEROCOPY notifications"), |c, a| sys_sendmsg(c, a);
    recvmsg: Full, |c, a| sys_recvmsg(c, a);
    sendmmsg: Full, |c, a| sys_sendmmsg(c, a);
    recvmmsg: Full, |c, a| sys_recvmmsg(c, a);
}

/// Segments in one message at most (UIO_MAXIOV).
const MAX_SEGMENTS: usize = 1024;
/// Control data in one message at most (`net.core.optmem_max`).
const MAX_CONTROL: usize = 128 << 10;

/// Reads an `iovec` array.
///
/// # Errors
/// EMSGSIZE past [`MAX_SEGMENTS`], EINVAL for a total that overflows, EFAULT.
fn segments(iov: u64, count: usize) -> SysResult<Vec<UserSlice>> {
    if count > MAX_SEGMENTS {
        return Err(Errno::EMSGSIZE);
    }
    let raw = UserPtr::<[u64; 2]>::new(iov).read_vec(count)?;
    let mut out = Vec::with_capacity(count);
    let mut total = 0u64;
    for [addr, len] in raw {
        if len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        // As Linux: what is past the largest transfer is cut off.
        let len = len.min((i32::MAX as u64 & !0xfff) - total);
        total += len;
        out.push(UserSlice::new(addr, len)?);
    }
    Ok(out)
}

fn send(file: &File, s: &SocketFile, src: &mut Src<'_>, out: &Outgoing<'_>) -> SysResult<usize> {
    let patience = s.send_patience(file, out.flags & msg::DONTWAIT != 0);
    let r = s.socket().send(src, out, patience);
    used(file, Events::OUT);
    match r {
        Err(Errno::EPIPE) if out.flags & msg::NOSIGNAL == 0 && s.socket().kind() != kind::DGRAM => {
            Err(broken_pipe())
        }
        r => r,
    }
}

fn sys_sendto(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let s = socket_of(&file)?;
    let data = [UserSlice::new(a.u64(1), a.u64(2).min(i32::MAX as u64 & !0xfff))?];
    let addr = match a.u64(4) {
        0 => None,
        p => Some(read_address(p, a.u32(5))?),
    };
    let out = Outgoing {
        addr: addr.as_deref(),
        control: &[],
        flags: a.u32(3),
    };
    send(&file, s, &mut Src::user(&data), &out).map(|n| n as u64)
}

fn receive(
    file: &File,
    s: &SocketFile,
    dst: &mut Dest<'_>,
    flags: u32,
    control_room: usize,
    patience: Patience,
) -> SysResult<Received> {
    crate::fs::sigio::before_use(file);
    let r = s.socket().receive(dst, flags, control_room, patience);
    used(file, Events::IN);
    r
}

fn sys_recvfrom(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let s = socket_of(&file)?;
    let data = [UserSlice::new(a.u64(1), a.u64(2).min(i32::MAX as u64 & !0xfff))?];
    let flags = a.u32(3);
    let patience = s.receive_patience(&file, flags & msg::DONTWAIT != 0);
    let got = receive(&file, s, &mut Dest::user(&data), flags, 0, patience)?;
    if a.u64(4) != 0 {
        write_address(&got.addr, a.u64(4), a.ptr(5))?;
    }
    Ok(got.len as u64)
}

fn send_one(c: &mut Ctx<'_>, file: &File, m: UserPtr<msghdr>, flags: u32) -> SysResult<usize> {
    let _ = &c;
    let s = socket_of(file)?;
    let m = m.read()?;
    let data = segments(m.msg_iov as u64, m.msg_iovlen)?;
    let name = m.msg_name as u64;
    if m.msg_namelen < 0 {
        return Err(Errno::EINVAL);
    }
    let addr = match (name, m.msg_namelen as u32) {
        (0, _) | (_, 0) => None,
        (p, len) => Some(read_address(p, len.min(MAX_ADDRESS))?),
    };
    if m.msg_controllen > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    let control = UserSlice::new(m.msg_control as u64, m.msg_controllen as u64)?.to_vec(MAX_CONTROL)?;
    let out = Outgoing {
        addr: addr.as_deref(),
        control: &control,
        flags,
    };
    send(file, s, &mut Src::user(&data), &out)
}

fn sys_sendmsg(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    send_one(c, &file, a.ptr(1), a.u32(2)).map(|n| n as u64)
}

fn receive_one(
    c: &mut Ctx<'_>,
    file: &File,
    at: UserPtr<msghdr>,
    flags: u32,
    patience: Patience,
) -> SysResult<usize> {
    let s = socket_of(file)?;
    let mut m = at.read()?;
    let data = segments(m.msg_iov as u64, m.msg_iovlen)?;
    if m.msg_namelen < 0 {
        return Err(Errno::EINVAL);
    }
    let room = m.msg_controllen.min(MAX_CONTROL);
    let buffer = UserSlice::new(m.msg_control as u64, room as u64)?;
    let got = receive(file, s, &mut Dest::user(&data), flags, room, patience)?;
    let close_on_exec = flags & msg::CMSG_CLOEXEC != 0;
    let (used, truncated) = cmsg::deliver(c.task, got.control, buffer, close_on_exec)?;
    if m.msg_name as u64 != 0 {
        let n = got.addr.len().min(m.msg_namelen as usize);
        UserSlice::new(m.msg_name as u64, n as u64)?.write(&got.addr[..n])?;
        m.msg_namelen = got.addr.len() as i32;
    }
    m.msg_controllen = used;
    m.msg_flags = got.flags | truncated | flags & msg::CMSG_CLOEXEC;
    at.write(&m)?;
    Ok(got.len)
}

fn sys_recvmsg(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let flags = a.u32(2);
    let patience = socket_of(&file)?.receive_patience(&file, flags & msg::DONTWAIT != 0);
    receive_one(c, &file, a.ptr(1), flags, patience).map(|n| n as u64)
}

/// Address of the `i`-th message's header, and of its length.
fn plural(base: u64, i: usize) -> (UserPtr<msghdr>, UserPtr<u32>) {
    let at = UserPtr::<mmsghdr>::new(base).at(i).addr();
    (
        UserPtr::new(at),
        UserPtr::new(at.wrapping_add(core::mem::offset_of!(mmsghdr, msg_len) as u64)),
    )
}

fn sys_sendmmsg(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let count = (a.u32(2) as usize).min(MAX_SEGMENTS);
    for i in 0..count {
        let (m, len) = plural(a.u64(1), i);
        match send_one(c, &file, m, a.u32(3)).and_then(|n| len.write(&(n as u32))) {
            Ok(()) => {}
            Err(_) if i > 0 => return Ok(i as u64),
            Err(e) => return Err(e),
        }
    }
    Ok(count as u64)
}

fn sys_recvmmsg(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let count = (a.u32(2) as usize).min(MAX_SEGMENTS);
    let mut flags = a.u32(3);
    let deadline = relative_deadline(a.ptr(4))?;
    for i in 0..count {
        let patience = socket_of(&file)?.receive_patience(&file, flags & msg::DONTWAIT != 0);
        let (m, len) = plural(a.u64(1), i);
        let r = receive_one(c, &file, m, flags & !msg::WAITFORONE, patience);
        match r.and_then(|n| len.write(&(n as u32))) {
            Ok(()) => {}
            Err(_) if i > 0 => return Ok(i as u64),
            Err(e) => return Err(e),
        }
        if flags & msg::WAITFORONE != 0 {
            flags |= msg::DONTWAIT;
        }
        // As Linux: the time is looked at after each message only.
        if deadline.is_some_and(|d| hal::clock::monotonic_ns() >= d) {
            return Ok(i as u64 + 1);
        }
    }
    Ok(count as u64)
}
