//! Sockets of the host's network namespace that the sandbox lives in.

use super::super::sys;
use super::broker::{self, Request};
use super::done;
use crate::host::{Dest, Handle, Received, Src};
use crate::uapi::{general as g, net};
use crate::user::UserSlice;
use alloc::vec::Vec;
use qlib::Errno;
use qlib::qcall::{HandleId, Op};

/// Room for any socket address (`struct sockaddr_storage`).
const ADDRESS: usize = 128;
/// App segments handed to the host in one message (UIO_MAXIOV).
const MAX_SEGMENTS: usize = 1024;
/// Longest option value QKernel may ask for.
const MAX_OPTION: usize = 64 << 10;
/// `SOCK_NONBLOCK | SOCK_CLOEXEC`.
const SOCK_FLAGS: u32 = g::O_NONBLOCK | g::O_CLOEXEC;

/// SOCK_RAW.
const RAW: u32 = 3;

pub(super) fn socket(service: Handle, domain: u32, kind: u32, protocol: u32) -> Result<Handle, Errno> {
    // Other network namespaces are beyond the sandbox's reach, raw sockets beyond its rights and its filter.
    if service != Handle::NONE || kind == RAW && domain != net::AF_NETLINK {
        let request = Request {
            op: Op::Socket,
            args: [domain as u64, kind as u64, protocol as u64, 0, 0, 0],
            ..Request::NONE
        };
        return broker::make(service, &request);
    }
    sys::plain(
        g::__NR_socket,
        [domain as u64, (kind | SOCK_FLAGS) as u64, protocol as u64],
    )
    .map(HandleId)
}

fn with_address(nr: u32, h: Handle, addr: &[u8]) -> Result<(), Errno> {
    // SAFETY: the host reads the address.
    done(unsafe { sys::call(nr, [h.0, addr.as_ptr() as u64, addr.len() as u64]) })
}

pub(super) fn bind(h: Handle, addr: &[u8]) -> Result<(), Errno> {
    let request = Request {
        op: Op::Bind,
        handle: h,
        payload: [addr, b""],
        ..Request::NONE
    };
    // Ports below 1024.
    broker::or(with_address(g::__NR_bind, h, addr), || {
        broker::call(&request, &mut []).map(drop)
    })
}

pub(super) fn connect(h: Handle, addr: &[u8]) -> Result<(), Errno> {
    with_address(g::__NR_connect, h, addr)
}

pub(super) fn listen(h: Handle, backlog: u32) -> Result<(), Errno> {
    done(sys::plain(g::__NR_listen, [h.0, backlog as u64]))
}

/// A call that gives an address back: its value and the address.
fn take_address(nr: u32, h: Handle, flags: u64) -> Result<(u64, Vec<u8>), Errno> {
    let mut addr = [0u8; ADDRESS];
    let mut len = ADDRESS as u32;
    let args = [h.0, addr.as_mut_ptr() as u64, &raw mut len as u64, flags];
    // SAFETY: the host writes the address and its length.
    let value = unsafe { sys::call(nr, args) }?;
    Ok((value, addr[..(len as usize).min(ADDRESS)].to_vec()))
}

pub(super) fn accept(h: Handle) -> Result<(Handle, Vec<u8>), Errno> {
    take_address(g::__NR_accept4, h, SOCK_FLAGS as u64).map(|(fd, addr)| (HandleId(fd), addr))
}

pub(super) fn sock_name(h: Handle) -> Result<Vec<u8>, Errno> {
    take_address(g::__NR_getsockname, h, 0).map(|(_, addr)| addr)
}

pub(super) fn peer_name(h: Handle) -> Result<Vec<u8>, Errno> {
    take_address(g::__NR_getpeername, h, 0).map(|(_, addr)| addr)
}

pub(super) fn shutdown(h: Handle, how: u32) -> Result<(), Errno> {
    done(sys::plain(g::__NR_shutdown, [h.0, how as u64]))
}

/// Host `iovec`s of a message's segments.
fn iovecs(segments: Option<Vec<UserSlice>>, kernel: (u64, u64)) -> Result<Vec<[u64; 2]>, Errno> {
    match segments {
        Some(s) if s.len() > MAX_SEGMENTS => Err(Errno::EMSGSIZE),
        Some(s) => Ok(s.iter().map(|s| [s.addr(), s.len() as u64]).collect()),
        None => Ok(alloc::vec![[kernel.0, kernel.1]]),
    }
}

pub(super) fn send_msg(
    h: Handle,
    addr: &[u8],
    control: &[u8],
    src: &mut Src<'_>,
    flags: u32,
) -> Result<usize, Errno> {
    let flags = flags | net::MSG_DONTWAIT | net::MSG_NOSIGNAL;
    let kernel = src
        .kernel_ref()
        .map_or((0, 0), |b| (b.as_ptr() as u64, b.len() as u64));
    let mut one = [UserSlice::default()];
    // The common case, a single segment without extras, needs no heap.
    let single = match src.fill_segments(&mut one) {
        Some(1) if src.remaining() == one[0].len() => Some([one[0].addr(), one[0].len() as u64]),
        Some(_) => None,
        None => Some([kernel.0, kernel.1]),
    };
    let many;
    let iov: &[[u64; 2]] = match &single {
        Some(s) => core::slice::from_ref(s),
        None => {
            many = iovecs(src.segments(), kernel)?;
            &many
        }
    };
    let pointer = |b: &[u8]| if b.is_empty() { 0 } else { b.as_ptr() as u64 };
    let message = [
        pointer(addr),
        addr.len() as u64,
        iov.as_ptr() as u64,
        iov.len() as u64,
        pointer(control),
        control.len() as u64,
        0,
    ];
    // SAFETY: the host reads a msghdr and what it points at; segments are the app's or the kernel buffer's.
    let n = unsafe { sys::call(g::__NR_sendmsg, [h.0, message.as_ptr() as u64, flags as u64]) }? as usize;
    src.advance(n);
    Ok(n)
}

pub(super) fn recv_msg(
    h: Handle,
    dest: &mut Dest<'_>,
    control_room: usize,
    flags: u32,
) -> Result<Received, Errno> {
    let flags = flags | net::MSG_DONTWAIT | net::MSG_CMSG_CLOEXEC;
    let mut one = [UserSlice::default()];
    let room = dest.remaining();
    let kernel = dest
        .kernel_mut()
        .map_or((0, 0), |b| (b.as_mut_ptr() as u64, b.len() as u64));
    let single = match dest.fill_segments(&mut one) {
        Some(1) if room == one[0].len() => Some([one[0].addr(), one[0].len() as u64]),
        Some(_) => None,
        None => Some([kernel.0, kernel.1]),
    };
    let many;
    let iov: &[[u64; 2]] = match &single {
        Some(s) => core::slice::from_ref(s),
        None => {
            many = iovecs(dest.segments(), kernel)?;
            &many
        }
    };
    let mut addr = [0u8; ADDRESS];
    let mut control = alloc::vec![0u8; control_room.min(MAX_OPTION)];
    let mut message = [
        addr.as_mut_ptr() as u64,
        ADDRESS as u64,
        iov.as_ptr() as u64,
        iov.len() as u64,
        if control.is_empty() {
            0
        } else {
            control.as_mut_ptr() as u64
        },
        control.len() as u64,
        0,
    ];
    // SAFETY: the host writes a msghdr and what it points at; segments are the app's or the kernel buffer's.
    let len =
        unsafe { sys::call(g::__NR_recvmsg, [h.0, message.as_mut_ptr() as u64, flags as u64]) }? as usize;
    dest.advance(len.min(room));
    control.truncate(message[5] as usize);
    let addr_len = (message[1] as u32 as usize).min(ADDRESS);
    Ok(Received {
        len,
        flags: message[6] as u32,
        addr: addr[..addr_len].to_vec(),
        control,
    })
}

pub(super) fn get_sock_opt(h: Handle, level: u32, name: u32, room: usize) -> Result<Vec<u8>, Errno> {
    let mut value = alloc::vec![0u8; room.min(MAX_OPTION)];
    let mut len = value.len() as u32;
    let args = [
        h.0,
        level as u64,
        name as u64,
        value.as_mut_ptr() as u64,
        &raw mut len as u64,
    ];
    // SAFETY: the host writes at most `len` bytes, and the length.
    unsafe { sys::call(g::__NR_getsockopt, args) }?;
    value.truncate(len as usize);
    Ok(value)
}

pub(super) fn set_sock_opt(h: Handle, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
    let args = [
        h.0,
        level as u64,
        name as u64,
        value.as_ptr() as u64,
        value.len() as u64,
    ];
    // SAFETY: the host reads the value.
    done(unsafe { sys::call(g::__NR_setsockopt, args) })
}
