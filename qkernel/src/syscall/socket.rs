//! socket, socketpair, bind, connect, listen, accept, names, options, shutdown.

use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::anon;
use crate::fs::fdtable::Fd;
use crate::fs::file::File;
use crate::net::unix::UnixSocket;
use crate::net::{self, SocketFile, family, kind, options};
use crate::rows;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::uapi::general::{O_CLOEXEC, O_NONBLOCK};
use hal::user::{UserPtr, UserSlice};
use qlib::Errno;

rows! {
    socket: Partial("families unix, inet, inet6, netlink, packet"), |c, a| sys_socket(c, a);
    socketpair: Full, |c, a| sys_socketpair(c, a);
    bind: Full, |c, a| sys_bind(c, a);
    connect: Full, |c, a| sys_connect(c, a);
    listen: Full, |c, a| sys_listen(c, a);
    accept: Full, |c, a| accept(c, a, 0);
    accept4: Full, |c, a| accept(c, a, a.u32(3));
    getsockname: Full, |c, a| sys_getsockname(c, a);
    getpeername: Full, |c, a| sys_getpeername(c, a);
    getsockopt: Full, |c, a| sys_getsockopt(c, a);
    setsockopt: Partial("no socket filters"), |c, a| sys_setsockopt(c, a);
    shutdown: Full, |c, a| sys_shutdown(c, a);
}

/// Largest socket address (`struct sockaddr_storage`).
pub(super) const MAX_ADDRESS: u32 = 128;
/// Longest option value.
const MAX_OPTION: u32 = 64 << 10;

/// The open file of a descriptor that must be a socket.
///
/// # Errors
/// EBADF, ENOTSOCK.
pub(super) fn socket_file(c: &Ctx<'_>, fd: Fd) -> SysResult<Arc<File>> {
    let file = c.task.files().get(fd)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    match file.downcast::<SocketFile>() {
        Some(_) => Ok(file),
        None => Err(Errno::ENOTSOCK),
    }
}

/// The socket of a file that [`socket_file`] gave.
///
/// # Errors
/// ENOTSOCK.
pub(super) fn socket_of(file: &File) -> SysResult<&SocketFile> {
    file.downcast::<SocketFile>().ok_or(Errno::ENOTSOCK)
}

/// Reads a socket address.
///
/// # Errors
/// EINVAL for a length no address has, EFAULT.
pub(super) fn read_address(addr: u64, len: u32) -> SysResult<Vec<u8>> {
    if len > MAX_ADDRESS {
        return Err(Errno::EINVAL);
    }
    UserSlice::new(addr, u64::from(len))?.to_vec(MAX_ADDRESS as usize)
}

/// Stores an address and its full length; a small buffer cuts it.
///
/// # Errors
/// EINVAL for a negative room, EFAULT.
pub(super) fn write_address(bytes: &[u8], addr: u64, len: UserPtr<i32>) -> SysResult<()> {
    let room = len.read()?;
    if room < 0 {
        return Err(Errno::EINVAL);
    }
    let n = bytes.len().min(room as usize);
    if n > 0 {
        UserSlice::new(addr, n as u64)?.write(&bytes[..n])?;
    }
    len.write(&(bytes.len() as i32))
}

/// Splits a type argument into type and O_* flags.
fn split(kind: u32) -> SysResult<(u32, u32)> {
    let flags = kind & !0xf;
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok((kind & 0xf, flags))
}

fn sys_socket(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (kind, flags) = split(a.u32(1))?;
    let creds = c.task.creds();
    let socket = net::create(&creds, a.u32(0), kind, a.u32(2))?;
    let file = SocketFile::open(socket, flags & O_NONBLOCK);
    let fd = anon::install(c.task, file, flags & O_CLOEXEC != 0)?;
    Ok(fd.0 as u64)
}

fn sys_socketpair(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let (kind, flags) = split(a.u32(1))?;
    match a.u32(0) {
        family::UNIX => {}
        family::INET | family::INET6 => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EAFNOSUPPORT),
    }
    if a.u32(2) != 0 && a.u32(2) != family::UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let kind = match kind {
        kind::STREAM | kind::DGRAM | kind::SEQPACKET => kind,
        kind::RAW => kind::DGRAM,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    let (x, y) = UnixSocket::pair(kind);
    let (x, y) = (
        SocketFile::open(x, flags & O_NONBLOCK),
        SocketFile::open(y, flags & O_NONBLOCK),
    );
    let fds = anon::install_pair(c.task, x, y, flags & O_CLOEXEC != 0)?;
    let written = a.ptr::<[i32; 2]>(3).write(&[fds.0.0, fds.1.0]);
    if let Err(e) = written {
        drop(c.task.files().remove(fds.0));
        drop(c.task.files().remove(fds.1));
        return Err(e);
    }
    Ok(0)
}

fn sys_bind(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let addr = read_address(a.u64(1), a.u32(2))?;
    socket_of(&file)?.socket().bind(c, &addr).map(|()| 0)
}

fn sys_connect(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let addr = read_address(a.u64(1), a.u32(2))?;
    let s = socket_of(&file)?;
    s.socket()
        .connect(c, &addr, s.send_patience(&file, false))
        .map(|()| 0)
}

fn sys_listen(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    socket_of(&file)?.socket().listen(c, a.i32(1)).map(|()| 0)
}

fn accept(c: &mut Ctx<'_>, a: Args, flags: u32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = socket_file(c, a.fd(0))?;
    let s = socket_of(&file)?;
    crate::fs::sigio::before_use(&file);
    let r = s.socket().accept(s.receive_patience(&file, false));
    crate::fs::epoll_host::used(&file, crate::sched::wait::Events::IN);
    let (socket, peer) = r?;
    let new = SocketFile::open(socket, flags & O_NONBLOCK);
    if a.u64(1) != 0 {
        write_address(&peer, a.u64(1), a.ptr(2))?;
    }
    let fd = anon::install(c.task, new, flags & O_CLOEXEC != 0)?;
    Ok(fd.0 as u64)
}

fn sys_getsockname(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let name = socket_of(&file)?.socket().name()?;
    write_address(&name, a.u64(1), a.ptr(2)).map(|()| 0)
}

fn sys_getpeername(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let name = socket_of(&file)?.socket().peer_name()?;
    write_address(&name, a.u64(1), a.ptr(2)).map(|()| 0)
}

fn sys_getsockopt(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let s = socket_of(&file)?;
    let len = a.ptr::<i32>(4);
    let room = len.read()?;
    if room < 0 {
        return Err(Errno::EINVAL);
    }
    let room = (room as u32).min(MAX_OPTION) as usize;
    let (level, name) = (a.u32(1), a.u32(2));
    let value = match options::get(s, level, name) {
        Some(v) => v,
        None => s.socket().get_option(c, level, name, room)?,
    };
    let n = value.len().min(room);
    UserSlice::new(a.u64(3), n as u64)?.write(&value[..n])?;
    len.write(&(n as i32))?;
    Ok(0)
}

fn sys_setsockopt(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    let s = socket_of(&file)?;
    if a.i32(4) < 0 {
        return Err(Errno::EINVAL);
    }
    let (level, name, len) = (a.u32(1), a.u32(2), a.u32(4).min(MAX_OPTION));
    if options::is_refused(level, name) {
        return Err(Errno::ENOPROTOOPT);
    }
    let value = UserSlice::new(a.u64(3), u64::from(len))?.to_vec(MAX_OPTION as usize)?;
    match options::set(s, level, name, &value) {
        Some(r) => r?,
        None => s.socket().set_option(c, level, name, &value)?,
    }
    Ok(0)
}

fn sys_shutdown(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = socket_file(c, a.fd(0))?;
    socket_of(&file)?.socket().shutdown(a.u32(1)).map(|()| 0)
}
