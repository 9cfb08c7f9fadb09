//! Host services by qcalls. Payloads lie in kernel memory that the direct map reaches, so the host finds them by their
//! physical address; it copies before it looks.

use super::qcall::{self, Pending, call, call_value, request};
use super::{Bare, phys, reads, window};
use crate::contract::{Clock, HostService, Threads};
use crate::host::{Dest, Handle, HostEvent, MessageIn, Owner, PollItem, Received, Src};
use crate::uapi::general as g;
use alloc::vec::Vec;
use qlib::Errno;
use qlib::qcall::{HandleId, HostStat, HostStatFs, MAX_DATA, MAX_PAYLOAD, Op, Reply, Request, SystemGroup};
use zerocopy::IntoBytes;

/// Room for a control message.
const CONTROL_ROOM: usize = 1 << 20;
/// Room for a symlink's target.
const PATH_ROOM: usize = 4096;

/// A payload buffer: request bytes first, reply bytes over them.
struct Payload(Vec<u8>);

impl Payload {
    /// A buffer with `parts`, one after the other, and at least `room` bytes.
    fn new(parts: &[&[u8]], room: usize) -> (Self, usize) {
        let len = parts.iter().map(|p| p.len()).sum::<usize>();
        let mut v = alloc::vec![0; len.max(room).max(1)];
        let mut at = 0;
        for p in parts {
            v[at..at + p.len()].copy_from_slice(p);
            at += p.len();
        }
        (Self(v), len)
    }
}

/// Submits `r` with a payload of `parts` and room for `room` reply bytes; returns the reply and the reply bytes.
fn exchange(mut r: Request, parts: &[&[u8]], room: usize) -> Result<(Reply, Vec<u8>), Errno> {
    let (mut p, len) = Payload::new(parts, room);
    if len > MAX_PAYLOAD {
        return Err(Errno::E2BIG);
    }
    r.data_addr = phys::of(p.0.as_ptr()).0;
    r.data_len = len as u32;
    r.reply_cap = room as u32;
    let reply = call(r);
    Errno::from_ret(reply.result)?;
    p.0.truncate((reply.data_len as usize).min(room));
    Ok((reply, p.0))
}

/// As [`exchange`], for the result alone.
fn tell(r: Request, parts: &[&[u8]]) -> Result<u64, Errno> {
    exchange(r, parts, 0).map(|(reply, _)| reply.result as u64)
}

/// Runs `f` on a handle of `name` that attribute requests accept. `on_symlink` answers for symlinks, whose attributes
/// (never `user.*`) QKernel does not offer.
fn with_open<R>(
    dir: Handle,
    name: &[u8],
    on_symlink: Errno,
    f: impl FnOnce(Handle) -> Result<R, Errno>,
) -> Result<R, Errno> {
    if name.is_empty() {
        return f(dir);
    }
    let flags = g::O_RDONLY | g::O_NONBLOCK | g::O_NOFOLLOW;
    match exchange(with_args(Op::Open, dir, [flags as u64]), &[name], 0) {
        Ok((reply, _)) => {
            let r = f(reply.handle);
            Bare::close(reply.handle);
            r
        }
        Err(Errno::ELOOP) => Err(on_symlink),
        // A socket or a device without a driver.
        Err(Errno::ENXIO | Errno::ENODEV) => Err(Errno::EPERM),
        Err(e) => Err(e),
    }
}

fn with_args<const N: usize>(op: Op, h: Handle, args: [u64; N]) -> Request {
    let mut r = request(op, h);
    r.args[..N].copy_from_slice(&args);
    r
}

fn fill<T: zerocopy::FromBytes + IntoBytes>(bytes: &[u8]) -> T {
    let mut v = T::new_zeroed();
    let n = bytes.len().min(size_of::<T>());
    v.as_mut_bytes()[..n].copy_from_slice(&bytes[..n]);
    v
}

fn word(bytes: &[u8], at: usize) -> usize {
    let mut b = [0; 4];
    if let Some(w) = bytes.get(at..at + 4) {
        b.copy_from_slice(w);
    }
    u32::from_le_bytes(b) as usize
}

/// Offset argument: `u64::MAX` = the handle's position.
fn offset_of(offset: Option<u64>) -> u64 {
    offset.unwrap_or(u64::MAX)
}

/// Takes what an epoll instance has to tell now.
fn take_events(epoll: Handle, out: &mut [HostEvent]) -> Result<usize, Errno> {
    const EVENT_BYTES: usize = 16;
    let most = out.len().min(MAX_PAYLOAD / EVENT_BYTES);
    let r = with_args(Op::EpollWait, epoll, [most as u64]);
    let (_, b) = exchange(r, &[], most * EVENT_BYTES)?;
    let mut n = 0;
    for (to, from) in out.iter_mut().zip(b.chunks_exact(EVENT_BYTES)) {
        let mut data = [0; 8];
        data.copy_from_slice(&from[8..]);
        *to = HostEvent {
            events: word(from, 0) as u32,
            data: u64::from_le_bytes(data),
        };
        n += 1;
    }
    Ok(n)
}

impl HostService for Bare {
    fn open(dir: Handle, name: &[u8], flags: u32, mode: u32, owner: Owner) -> Result<Handle, Errno> {
        let args = [flags as u64, mode as u64, owner.uid as u64, owner.gid as u64];
        exchange(with_args(Op::Open, dir, args), &[name], 0).map(|(r, _)| r.handle)
    }

    fn close(h: Handle) {
        reads::closed(h);
        // Nobody waits: this may run where sleeping is not possible.
        qcall::submit(&request(Op::Close, h));
    }

    fn stat(dir: Handle, name: &[u8]) -> Result<HostStat, Errno> {
        exchange(request(Op::Stat, dir), &[name], size_of::<HostStat>()).map(|(_, b)| fill(&b))
    }

    fn read_link(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        exchange(request(Op::ReadLink, dir), &[name], PATH_ROOM).map(|(_, b)| b)
    }

    fn mkdir(dir: Handle, name: &[u8], mode: u32, owner: Owner) -> Result<(), Errno> {
        tell(
            with_args(Op::MkDir, dir, [mode as u64, owner.uid as u64, owner.gid as u64]),
            &[name],
        )
        .map(drop)
    }

    fn mknod(dir: Handle, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<(), Errno> {
        tell(
            with_args(
                Op::MkNod,
                dir,
                [mode as u64, rdev, owner.uid as u64, owner.gid as u64],
            ),
            &[name],
        )
        .map(drop)
    }

    fn symlink(dir: Handle, name: &[u8], target: &[u8], owner: Owner) -> Result<(), Errno> {
        let args = [name.len() as u64, owner.uid as u64, owner.gid as u64];
        tell(with_args(Op::SymLink, dir, args), &[name, target]).map(drop)
    }

    fn link(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8]) -> Result<(), Errno> {
        let mut r = with_args(Op::Link, old_dir, [old.len() as u64]);
        r.handle2 = new_dir;
        tell(r, &[old, new]).map(drop)
    }

    fn unlink(dir: Handle, name: &[u8], is_dir: bool) -> Result<(), Errno> {
        /// `AT_REMOVEDIR`.
        const REMOVE_DIR: u64 = 0x200;
        tell(
            with_args(Op::Unlink, dir, [if is_dir { REMOVE_DIR } else { 0 }]),
            &[name],
        )
        .map(drop)
    }

    fn rename(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8], flags: u32) -> Result<(), Errno> {
        let mut r = with_args(Op::Rename, old_dir, [old.len() as u64, flags as u64]);
        r.handle2 = new_dir;
        tell(r, &[old, new]).map(drop)
    }

    fn chmod(dir: Handle, name: &[u8], mode: u32) -> Result<(), Errno> {
        tell(with_args(Op::ChMod, dir, [mode as u64]), &[name]).map(drop)
    }

    fn chown(dir: Handle, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
        tell(with_args(Op::ChOwn, dir, [uid as u64, gid as u64]), &[name]).map(drop)
    }

    fn set_times(dir: Handle, name: &[u8], times: [(i64, i64); 2]) -> Result<(), Errno> {
        let [(a, an), (m, mn)] = times;
        tell(
            with_args(Op::SetTimes, dir, [a as u64, an as u64, m as u64, mn as u64]),
            &[name],
        )
        .map(drop)
    }

    fn truncate(h: Handle, len: u64) -> Result<(), Errno> {
        call_value(with_args(Op::Truncate, h, [len]))?;
        window::resized(h, len);
        Ok(())
    }

    fn allocate(h: Handle, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        call_value(with_args(Op::Allocate, h, [mode as u64, offset, len])).map(drop)
    }

    fn sync(h: Handle, data_only: bool) -> Result<(), Errno> {
        call_value(with_args(Op::Sync, h, [data_only as u64])).map(drop)
    }

    fn statfs(h: Handle) -> Result<HostStatFs, Errno> {
        exchange(request(Op::StatFs, h), &[], size_of::<HostStatFs>()).map(|(_, b)| fill(&b))
    }

    fn get_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<Vec<u8>, Errno> {
        with_open(dir, name, Errno::ENODATA, |h| {
            exchange(request(Op::GetXattr, h), &[attr], MAX_PAYLOAD).map(|(_, b)| b)
        })
    }

    fn set_xattr(dir: Handle, name: &[u8], attr: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        with_open(dir, name, Errno::EOPNOTSUPP, |h| {
            let r = with_args(Op::SetXattr, h, [attr.len() as u64, flags as u64]);
            tell(r, &[attr, value]).map(drop)
        })
    }

    fn list_xattr(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let list = with_open(dir, name, Errno::ENODATA, |h| {
            exchange(request(Op::ListXattr, h), &[], MAX_PAYLOAD).map(|(_, b)| b)
        });
        if list == Err(Errno::ENODATA) {
            return Ok(Vec::new());
        }
        list
    }

    fn remove_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<(), Errno> {
        with_open(dir, name, Errno::EOPNOTSUPP, |h| {
            tell(request(Op::RemoveXattr, h), &[attr]).map(drop)
        })
    }

    fn read_dir(h: Handle, buf: &mut [u8]) -> Result<usize, Errno> {
        let (_, b) = exchange(request(Op::ReadDir, h), &[], buf.len().min(MAX_PAYLOAD))?;
        buf[..b.len()].copy_from_slice(&b);
        Ok(b.len())
    }

    fn seek(h: Handle, offset: i64, whence: u32) -> Result<u64, Errno> {
        call_value(with_args(Op::Seek, h, [offset as u64, whence as u64]))
    }

    fn read(h: Handle, dest: &mut Dest<'_>, offset: Option<u64>) -> Result<usize, Errno> {
        let mut total = 0;
        let mut buf = Vec::new();
        loop {
            if let Some(o) = offset {
                let n = reads::copy(h, dest, o + total as u64);
                total += n;
                if n > 0 && dest.remaining() == 0 {
                    return Ok(total);
                }
            }
            if buf.is_empty() {
                buf = alloc::vec![0u8; dest.remaining().clamp(1, MAX_DATA)];
            }
            let want = dest.remaining().min(buf.len());
            let at = offset.map(|o| o + total as u64);
            let r = with_args(
                Op::Read,
                h,
                [offset_of(at), want as u64, phys::of(buf.as_mut_ptr()).0],
            );
            let n = match call_value(r) {
                Ok(n) => (n as usize).min(want),
                Err(_) if total > 0 => return Ok(total),
                Err(e) => return Err(e),
            };
            let stored = match dest.put(&buf[..n]) {
                Ok(s) => s,
                Err(_) if total > 0 => return Ok(total),
                Err(e) => return Err(e),
            };
            total += stored;
            if let Some(o) = offset
                && n > 0
            {
                reads::requested(h, o + (total - stored + n) as u64);
            }
            if n < want || stored < n || dest.remaining() == 0 {
                return Ok(total);
            }
        }
    }

    fn write(h: Handle, src: &mut Src<'_>, offset: Option<u64>, append: bool) -> Result<usize, Errno> {
        let mut total = 0;
        let mut buf = alloc::vec![0u8; src.remaining().clamp(1, MAX_DATA)];
        loop {
            let have = match src.take(&mut buf) {
                Ok(n) => n,
                Err(_) if total > 0 => return Ok(total),
                Err(e) => return Err(e),
            };
            let at = offset.map(|o| o + total as u64);
            let args = [
                offset_of(at),
                have as u64,
                phys::of(buf.as_ptr()).0,
                append as u64,
            ];
            let n = match call_value(with_args(Op::Write, h, args)) {
                Ok(n) => (n as usize).min(have),
                Err(e) => {
                    src.rewind(have);
                    return if total > 0 { Ok(total) } else { Err(e) };
                }
            };
            src.rewind(have - n);
            total += n;
            if n < have || src.remaining() == 0 {
                return Ok(total);
            }
        }
    }

    fn mem_file(name: &[u8]) -> Result<Handle, Errno> {
        exchange(request(Op::MemFile, HandleId::NONE), &[name], 0).map(|(r, _)| r.handle)
    }

    fn ready(items: &mut [PollItem]) -> Result<usize, Errno> {
        // All at once: the host answers them while the last one is still being asked.
        let pending: Vec<Pending> = items.iter().map(|_| Pending::new()).collect();
        for (i, p) in items.iter().zip(&pending) {
            let mut r = with_args(Op::Poll, i.handle, [i.events as u64]);
            r.tag = p.tag();
            qcall::submit(&r);
        }
        let mut found = 0;
        for (i, p) in items.iter_mut().zip(&pending) {
            i.revents = Errno::from_ret(p.wait().result).map_or(POLLNVAL, |v| v as u16);
            found += (i.revents != 0) as usize;
        }
        Ok(found)
    }

    fn wait_ready(items: &mut [PollItem], deadline_ns: Option<u64>) -> Result<usize, Errno> {
        let pending: Vec<Pending> = items.iter().map(|_| Pending::new()).collect();
        for (i, p) in items.iter().zip(&pending) {
            let mut r = with_args(Op::PollWait, i.handle, [i.events as u64]);
            r.tag = p.tag();
            qcall::submit(&r);
        }
        // One wake-up: a completion, an unpark, or the deadline. A completion that came before leaves a token.
        if !pending.iter().any(Pending::is_done) && deadline_ns.is_none_or(|d| Self::monotonic_ns() < d) {
            Self::park(deadline_ns);
        }
        for p in pending.iter().filter(|p| !p.is_done()) {
            qcall::submit(&with_args(Op::Cancel, HandleId::NONE, [p.tag()]));
        }
        let mut found = 0;
        for (i, p) in items.iter_mut().zip(&pending) {
            i.revents = match Errno::from_ret(p.wait().result) {
                Ok(v) => v as u16,
                Err(Errno::ECANCELED) => 0,
                Err(_) => POLLNVAL,
            };
            found += (i.revents != 0) as usize;
        }
        Ok(found)
    }

    fn epoll_create() -> Result<Handle, Errno> {
        exchange(request(Op::EpollCreate, HandleId::NONE), &[], 0).map(|(r, _)| r.handle)
    }

    fn epoll_ctl(epoll: Handle, op: u32, h: Handle, events: u32, data: u64) -> Result<(), Errno> {
        let mut r = with_args(Op::EpollCtl, epoll, [op as u64, events as u64, data]);
        r.handle2 = h;
        call_value(r).map(drop)
    }

    fn epoll_wait(epoll: Handle, out: &mut [HostEvent], deadline_ns: Option<u64>) -> Result<usize, Errno> {
        let n = take_events(epoll, out)?;
        if n > 0 || deadline_ns == Some(0) {
            return Ok(n);
        }
        let mut item = [PollItem {
            handle: epoll,
            events: POLLIN,
            revents: 0,
        }];
        match Self::wait_ready(&mut item, deadline_ns)? {
            0 => Ok(0),
            _ => take_events(epoll, out),
        }
    }

    fn ioctl(h: Handle, request_code: u32, arg: &mut [u8]) -> Result<u64, Errno> {
        let r = with_args(Op::Ioctl, h, [request_code as u64]);
        let (reply, b) = exchange(r, &[arg], arg.len())?;
        let n = b.len().min(arg.len());
        arg[..n].copy_from_slice(&b[..n]);
        Ok(reply.result as u64)
    }

    fn socket(service: Handle, domain: u32, kind: u32, protocol: u32) -> Result<Handle, Errno> {
        let args = [domain as u64, kind as u64, protocol as u64];
        exchange(with_args(Op::Socket, service, args), &[], 0).map(|(r, _)| r.handle)
    }

    fn system_file(service: Handle, group: SystemGroup, name: &[u8]) -> Result<Handle, Errno> {
        let r = with_args(Op::SystemFile, service, [group as u64]);
        exchange(r, &[name], 0).map(|(r, _)| r.handle)
    }

    fn bind(h: Handle, addr: &[u8]) -> Result<(), Errno> {
        tell(request(Op::Bind, h), &[addr]).map(drop)
    }

    fn connect(h: Handle, addr: &[u8]) -> Result<(), Errno> {
        tell(request(Op::Connect, h), &[addr]).map(drop)
    }

    fn listen(h: Handle, backlog: u32) -> Result<(), Errno> {
        call_value(with_args(Op::Listen, h, [backlog as u64])).map(drop)
    }

    fn accept(h: Handle) -> Result<(Handle, Vec<u8>), Errno> {
        exchange(request(Op::Accept, h), &[], 128).map(|(r, b)| (r.handle, b))
    }

    fn send_msg(
        h: Handle,
        addr: &[u8],
        control: &[u8],
        src: &mut Src<'_>,
        flags: u32,
    ) -> Result<usize, Errno> {
        let mut data = alloc::vec![0u8; src.remaining().min(MAX_DATA)];
        let have = src.take(&mut data)?;
        let args = [flags as u64, addr.len() as u64, control.len() as u64];
        match tell(with_args(Op::SendMsg, h, args), &[addr, control, &data[..have]]) {
            Ok(n) => {
                let n = (n as usize).min(have);
                src.rewind(have - n);
                Ok(n)
            }
            Err(e) => {
                src.rewind(have);
                Err(e)
            }
        }
    }

    fn recv_msg(h: Handle, dest: &mut Dest<'_>, control_room: usize, flags: u32) -> Result<Received, Errno> {
        const ADDR_ROOM: usize = 128;
        let control_room = control_room.min(4096);
        let data_room = dest.remaining().min(MAX_DATA);
        let args = [
            flags as u64,
            ADDR_ROOM as u64,
            control_room as u64,
            data_room as u64,
        ];
        let room = 12 + ADDR_ROOM + control_room + data_room;
        let (reply, b) = exchange(with_args(Op::RecvMsg, h, args), &[], room)?;
        let (addr_len, control_len) = (word(&b, 4), word(&b, 8));
        let addr_end = (12 + addr_len).min(b.len());
        let control_end = (addr_end + control_len).min(b.len());
        let start = 12.min(b.len());
        dest.put(&b[control_end..])?;
        Ok(Received {
            len: reply.result as usize,
            flags: word(&b, 0) as u32,
            addr: b[start..addr_end].to_vec(),
            control: b[addr_end..control_end].to_vec(),
        })
    }

    fn shutdown(h: Handle, how: u32) -> Result<(), Errno> {
        call_value(with_args(Op::Shutdown, h, [how as u64])).map(drop)
    }

    fn sock_name(h: Handle) -> Result<Vec<u8>, Errno> {
        exchange(request(Op::SockName, h), &[], 128).map(|(_, b)| b)
    }

    fn peer_name(h: Handle) -> Result<Vec<u8>, Errno> {
        exchange(request(Op::PeerName, h), &[], 128).map(|(_, b)| b)
    }

    fn get_sock_opt(h: Handle, level: u32, name: u32, room: usize) -> Result<Vec<u8>, Errno> {
        let room = room.min(MAX_PAYLOAD);
        let r = with_args(Op::GetSockOpt, h, [level as u64, name as u64, room as u64]);
        exchange(r, &[], room).map(|(_, b)| b)
    }

    fn set_sock_opt(h: Handle, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        tell(
            with_args(Op::SetSockOpt, h, [level as u64, name as u64]),
            &[value],
        )
        .map(drop)
    }

    fn control_recv() -> Result<MessageIn, Errno> {
        let (reply, b) = exchange(request(Op::ControlRecv, HandleId::NONE), &[], CONTROL_ROOM)?;
        // The result counts the handles, which come first.
        let n = (reply.result as usize).min(b.len() / 8);
        let mut handles = Vec::with_capacity(n);
        for h in b[..8 * n].chunks_exact(8) {
            let mut w = [0; 8];
            w.copy_from_slice(h);
            handles.push(HandleId(u64::from_le_bytes(w)));
        }
        Ok(MessageIn {
            bytes: b[8 * n..].to_vec(),
            handles,
        })
    }

    fn control_send(event: &[u8]) -> Result<(), Errno> {
        tell(request(Op::ControlSend, HandleId::NONE), &[event]).map(drop)
    }

    fn log(level: u32, line: &[u8]) {
        qcall::log(level, line);
    }
}

/// `POLLIN`.
const POLLIN: u16 = 1;
/// `POLLNVAL`.
const POLLNVAL: u16 = 0x20;
