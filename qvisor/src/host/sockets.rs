//! Sockets in the container's network namespace. All are non-blocking; nothing here waits.

use super::options::{control_is_plain, permitted, unknown_to_get, unknown_to_set};
use super::{Call, Served, errno};
use crate::sys::net::{self, MAX_ADDRESS};
use qlib::Errno;
use rustix::fd::BorrowedFd;
use rustix::fs::OFlags;

/// Longest option value, bytes: `struct tcp_info` and then some.
const MAX_OPTION: usize = 1024;
/// Longest control data, bytes.
const MAX_CONTROL: usize = 4096;
/// Message flags a guest may give; never to wait, never about descriptors.
const SEND_FLAGS: i32 = libc::MSG_OOB
    | libc::MSG_DONTROUTE
    | libc::MSG_EOR
    | libc::MSG_MORE
    | libc::MSG_CONFIRM
    | libc::MSG_DONTWAIT
    | libc::MSG_NOSIGNAL
    | libc::MSG_FASTOPEN;
const RECEIVE_FLAGS: i32 =
    libc::MSG_OOB | libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE;

fn arg(c: &Call<'_>, index: usize) -> Result<i32, Errno> {
    Ok(c.arg32(index)? as i32)
}

/// The families and types of the allow-list of `process`; raw sockets where the host side has the capability.
pub fn serve_socket(c: &mut Call<'_>) -> Served {
    let (domain, kind, protocol) = (arg(c, 0)?, arg(c, 1)?, arg(c, 2)?);
    let kind = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    let fits = match domain {
        libc::AF_INET | libc::AF_INET6 => {
            matches!(kind, libc::SOCK_STREAM | libc::SOCK_DGRAM | libc::SOCK_RAW)
        }
        libc::AF_UNIX => matches!(kind, libc::SOCK_STREAM | libc::SOCK_DGRAM | libc::SOCK_SEQPACKET),
        libc::AF_NETLINK => {
            matches!(kind, libc::SOCK_RAW | libc::SOCK_DGRAM) && protocol == libc::NETLINK_ROUTE
        }
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    if !fits {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    let fd = net::socket(domain, kind, protocol).map_err(errno)?;
    c.give(fd)
}

/// An address the guest gives. Paths of unix sockets are resolved by nobody here: the host side's root is the
/// container's, but its rights are not.
fn address(bytes: &[u8]) -> Result<&[u8], Errno> {
    if bytes.len() < 2 || bytes.len() > MAX_ADDRESS {
        return Err(Errno::EINVAL);
    }
    let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
    match family {
        libc::AF_INET | libc::AF_INET6 | libc::AF_NETLINK | libc::AF_UNSPEC => Ok(bytes),
        libc::AF_UNIX if bytes.get(2) == Some(&0) => Ok(bytes),
        libc::AF_UNIX => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn non_blocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(errno)?;
    if flags.contains(OFlags::NONBLOCK) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

pub fn serve_bind(c: &mut Call<'_>) -> Served {
    net::bind(c.fd()?, address(c.payload)?).map_err(errno)?;
    Ok(0)
}

pub fn serve_connect(c: &mut Call<'_>) -> Served {
    let fd = c.fd()?;
    // One that may block would hold this thread for as long as the peer likes.
    non_blocking(fd)?;
    net::connect(fd, address(c.payload)?).map_err(errno)?;
    Ok(0)
}

pub fn serve_listen(c: &mut Call<'_>) -> Served {
    rustix::net::listen(c.fd()?, arg(c, 0)?).map_err(errno)?;
    Ok(0)
}

pub fn serve_accept(c: &mut Call<'_>) -> Served {
    let fd = c.fd()?;
    non_blocking(fd)?;
    let (new, address, len) = net::accept(fd).map_err(errno)?;
    let room = c.room_for(len as u64);
    c.put(&address[..room])?;
    c.give(new)
}

pub fn serve_send(c: &mut Call<'_>) -> Served {
    let flags = arg(c, 0)?;
    if flags & !SEND_FLAGS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let (to, rest) = c.split(c.arg(1))?;
    let control_len = usize::try_from(c.arg(2)).map_err(|_| Errno::EINVAL)?;
    let (control, bytes) = rest.split_at_checked(control_len).ok_or(Errno::EINVAL)?;
    if !to.is_empty() {
        address(to)?;
    }
    if control.len() > MAX_CONTROL || !control_is_plain(control) {
        return Err(Errno::EINVAL);
    }
    // The host reads control messages at their alignment; the payload has none.
    let mut aligned = vec![0u64; control.len().div_ceil(8)];
    let view = zerocopy::IntoBytes::as_mut_bytes(aligned.as_mut_slice());
    view[..control.len()].copy_from_slice(control);
    let n = net::send_message(c.fd()?, to, &view[..control.len()], bytes, flags).map_err(errno)?;
    Ok(n as u64)
}

pub fn serve_receive(c: &mut Call<'_>) -> Served {
    const HEADER: usize = 12;
    let flags = arg(c, 0)?;
    if flags & !RECEIVE_FLAGS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let room = c.room().checked_sub(HEADER).ok_or(Errno::EINVAL)?;
    let fd = c.fd()?;
    let bounded = |index: usize, most: usize| usize::try_from(c.arg(index)).unwrap_or(usize::MAX).min(most);
    let address_room = bounded(1, MAX_ADDRESS).min(room);
    // Over unix sockets descriptors could arrive, and they would be ours: no room for them, and the host drops them.
    let unix = rustix::net::sockopt::socket_domain(fd).map_err(errno)? == rustix::net::AddressFamily::UNIX;
    let control_room = if unix {
        0
    } else {
        bounded(2, MAX_CONTROL).min(room - address_room)
    };
    let data_room = bounded(3, room - address_room - control_room);
    let mut from = [0u8; MAX_ADDRESS];
    let mut control = vec![0u64; control_room / 8];
    let mut bytes = vec![0u8; data_room];
    let view = zerocopy::IntoBytes::as_mut_bytes(control.as_mut_slice());
    let got = net::receive_message(fd, &mut from[..address_room], view, &mut bytes, flags).map_err(errno)?;
    let mut out = Vec::with_capacity(HEADER + got.address + got.control + data_room);
    for word in [got.flags as u32, got.address as u32, got.control as u32] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&from[..got.address]);
    out.extend_from_slice(&view[..got.control]);
    out.extend_from_slice(&bytes[..got.data.min(bytes.len())]);
    c.put(&out)?;
    Ok(got.data as u64)
}

pub fn serve_shutdown(c: &mut Call<'_>) -> Served {
    use rustix::net::Shutdown;
    let how = match arg(c, 0)? {
        libc::SHUT_RD => Shutdown::Read,
        libc::SHUT_WR => Shutdown::Write,
        libc::SHUT_RDWR => Shutdown::Both,
        _ => return Err(Errno::EINVAL),
    };
    rustix::net::shutdown(c.fd()?, how).map_err(errno)?;
    Ok(0)
}

pub fn serve_name(c: &mut Call<'_>, peer: bool) -> Served {
    let (address, len) = net::name(c.fd()?, peer).map_err(errno)?;
    let room = c.room_for(len as u64);
    c.put(&address[..room])?;
    Ok(len as u64)
}

pub fn serve_get_option(c: &mut Call<'_>) -> Served {
    let (level, option) = (arg(c, 0)?, arg(c, 1)?);
    if !permitted(level, option) {
        return Err(unknown_to_get(c.fd()?, level));
    }
    let mut value = [0u8; MAX_OPTION];
    let room = c.room_for(c.arg(2)).min(MAX_OPTION);
    let n = net::get_option(c.fd()?, level, option, &mut value[..room]).map_err(errno)?;
    c.put(&value[..n])?;
    Ok(n as u64)
}

pub fn serve_set_option(c: &mut Call<'_>) -> Served {
    let (level, option) = (arg(c, 0)?, arg(c, 1)?);
    if !permitted(level, option) {
        return Err(unknown_to_set(level, c.payload.len()));
    }
    if c.payload.len() > MAX_OPTION {
        return Err(Errno::EINVAL);
    }
    net::set_option(c.fd()?, level, option, c.payload).map_err(errno)?;
    Ok(0)
}
