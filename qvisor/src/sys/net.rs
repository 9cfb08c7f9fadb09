//! Socket calls on raw bytes: addresses and options are the guest's, checked by the caller, and passed on as they are.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::io;

/// Longest socket address, bytes: `sizeof(struct sockaddr_storage)`.
pub const MAX_ADDRESS: usize = 128;

fn length(bytes: &[u8]) -> libc::socklen_t {
    bytes.len() as libc::socklen_t
}

/// A socket, close-on-exec and non-blocking.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(domain, kind, protocol) }.into())?;
    // SAFETY: the descriptor was just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `bind(2)`.
pub fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the address is live and of the given length.
    check(unsafe { libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), length(address)) }.into())?;
    Ok(())
}

/// `connect(2)`.
pub fn connect(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the address is live and of the given length.
    check(unsafe { libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), length(address)) }.into())?;
    Ok(())
}

/// `accept4(2)`: the connection, and the peer's address with its length.
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, [u8; MAX_ADDRESS], usize)> {
    let mut address = [0u8; MAX_ADDRESS];
    let mut len = MAX_ADDRESS as libc::socklen_t;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let to = address.as_mut_ptr().cast();
    // SAFETY: address and length are live locals, and the length is the buffer's.
    let r = unsafe { libc::accept4(fd.as_raw_fd(), to, &mut len, flags) };
    let new = check(r.into())? as RawFd;
    // SAFETY: the descriptor was just made for us.
    let new = unsafe { OwnedFd::from_raw_fd(new) };
    Ok((new, address, (len as usize).min(MAX_ADDRESS)))
}

/// The socket's own address, or its peer's.
pub fn name(fd: BorrowedFd<'_>, peer: bool) -> io::Result<([u8; MAX_ADDRESS], usize)> {
    let mut address = [0u8; MAX_ADDRESS];
    let mut len = MAX_ADDRESS as libc::socklen_t;
    let call = if peer {
        libc::getpeername
    } else {
        libc::getsockname
    };
    // SAFETY: address and length are live locals, and the length is the buffer's.
    check(unsafe { call(fd.as_raw_fd(), address.as_mut_ptr().cast(), &mut len) }.into())?;
    Ok((address, (len as usize).min(MAX_ADDRESS)))
}

/// `getsockopt(2)`: the value's length.
pub fn get_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: &mut [u8]) -> io::Result<usize> {
    let mut len = length(value);
    let to = value.as_mut_ptr().cast();
    // SAFETY: value and length are live, and the length is the buffer's. The caller picked an option without addresses.
    let r = unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, to, &mut len) };
    check(r.into())?;
    Ok((len as usize).min(value.len()))
}

/// `setsockopt(2)`.
pub fn set_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let (from, len) = (value.as_ptr().cast(), length(value));
    // SAFETY: the value is live and of the given length. The caller picked an option without addresses.
    let r = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, from, len) };
    check(r.into()).map(drop)
}

/// Sends a message without waiting. The caller has checked the control data.
pub fn send_message(
    fd: BorrowedFd<'_>,
    address: &[u8],
    control: &[u8],
    bytes: &[u8],
    flags: i32,
) -> io::Result<usize> {
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain data for which zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    if !address.is_empty() {
        message.msg_name = address.as_ptr().cast_mut().cast();
        message.msg_namelen = length(address);
    }
    if !control.is_empty() {
        message.msg_control = control.as_ptr().cast_mut().cast();
        message.msg_controllen = control.len() as _;
    }
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: all the message points to is live, of the given lengths, and only read.
    Ok(check(unsafe { libc::sendmsg(fd.as_raw_fd(), &message, flags) } as libc::c_long)? as usize)
}

/// What came with a received message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths {
    /// Bytes of data (the real length with `MSG_TRUNC`).
    pub data: usize,
    /// Bytes of address.
    pub address: usize,
    /// Bytes of control data.
    pub control: usize,
    /// `msg_flags`.
    pub flags: i32,
}

/// Receives a message without waiting. Descriptors cannot arrive where `control` is empty.
pub fn receive_message(
    fd: BorrowedFd<'_>,
    address: &mut [u8],
    control: &mut [u8],
    bytes: &mut [u8],
    flags: i32,
) -> io::Result<Lengths> {
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain data for which zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    if !address.is_empty() {
        message.msg_name = address.as_mut_ptr().cast();
        message.msg_namelen = length(address);
    }
    if !control.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len() as _;
    }
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: all the message points to is live and of the given lengths.
    let n = check(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) } as libc::c_long)?;
    Ok(Lengths {
        data: n as usize,
        address: (message.msg_namelen as usize).min(address.len()),
        control: (message.msg_controllen as usize).min(control.len()),
        flags: message.msg_flags,
    })
}
