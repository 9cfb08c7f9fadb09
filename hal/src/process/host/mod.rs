//! Host services: direct host calls under the filter; what the sandbox's own rights do not reach goes to the broker.

mod broker;
mod control;
mod epoll;
mod files;
mod io;
mod meta;
mod names;
mod ready;
mod sockets;

use super::Process;
use crate::contract::HostService;
use crate::host::{Dest, Handle, HostEvent, MessageIn, Owner, PollItem, Received, Src};
use alloc::vec::Vec;
use qlib::Errno;
use qlib::qcall::{HostStat, HostStatFs, Op, SystemGroup};

impl HostService for Process {
    fn open(dir: Handle, name: &[u8], flags: u32, mode: u32, owner: Owner) -> Result<Handle, Errno> {
        files::open(dir, name, flags, mode, owner)
    }
    fn close(h: Handle) {
        io::close(h)
    }
    fn stat(dir: Handle, name: &[u8]) -> Result<HostStat, Errno> {
        meta::stat(dir, name)
    }
    fn read_link(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        files::read_link(dir, name)
    }
    fn mkdir(dir: Handle, name: &[u8], mode: u32, owner: Owner) -> Result<(), Errno> {
        files::mkdir(dir, name, mode, owner)
    }
    fn mknod(dir: Handle, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<(), Errno> {
        files::mknod(dir, name, mode, rdev, owner)
    }
    fn symlink(dir: Handle, name: &[u8], target: &[u8], owner: Owner) -> Result<(), Errno> {
        files::symlink(dir, name, target, owner)
    }
    fn link(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8]) -> Result<(), Errno> {
        files::link(old_dir, old, new_dir, new)
    }
    fn unlink(dir: Handle, name: &[u8], is_dir: bool) -> Result<(), Errno> {
        files::unlink(dir, name, is_dir)
    }
    fn rename(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8], flags: u32) -> Result<(), Errno> {
        files::rename(old_dir, old, new_dir, new, flags)
    }
    fn chmod(dir: Handle, name: &[u8], mode: u32) -> Result<(), Errno> {
        meta::chmod(dir, name, mode)
    }
    fn chown(dir: Handle, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
        meta::chown(dir, name, uid, gid)
    }
    fn set_times(dir: Handle, name: &[u8], times: [(i64, i64); 2]) -> Result<(), Errno> {
        meta::set_times(dir, name, times)
    }
    fn truncate(h: Handle, len: u64) -> Result<(), Errno> {
        io::truncate(h, len)
    }
    fn allocate(h: Handle, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        io::allocate(h, mode, offset, len)
    }
    fn sync(h: Handle, data_only: bool) -> Result<(), Errno> {
        io::sync(h, data_only)
    }
    fn statfs(h: Handle) -> Result<HostStatFs, Errno> {
        meta::statfs(h)
    }
    fn get_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<Vec<u8>, Errno> {
        meta::get_xattr(dir, name, attr)
    }
    fn set_xattr(dir: Handle, name: &[u8], attr: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        meta::set_xattr(dir, name, attr, value, flags)
    }
    fn list_xattr(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        meta::list_xattr(dir, name)
    }
    fn remove_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<(), Errno> {
        meta::remove_xattr(dir, name, attr)
    }
    fn read_dir(h: Handle, buf: &mut [u8]) -> Result<usize, Errno> {
        io::read_dir(h, buf)
    }
    fn seek(h: Handle, offset: i64, whence: u32) -> Result<u64, Errno> {
        io::seek(h, offset, whence)
    }
    fn read(h: Handle, dest: &mut Dest<'_>, offset: Option<u64>) -> Result<usize, Errno> {
        io::read(h, dest, offset)
    }
    fn write(h: Handle, src: &mut Src<'_>, offset: Option<u64>, append: bool) -> Result<usize, Errno> {
        io::write(h, src, offset, append)
    }
    fn mem_file(name: &[u8]) -> Result<Handle, Errno> {
        files::mem_file(name)
    }
    fn ready(items: &mut [PollItem]) -> Result<usize, Errno> {
        ready::now(items)
    }
    fn wait_ready(items: &mut [PollItem], deadline_ns: Option<u64>) -> Result<usize, Errno> {
        ready::wait(items, deadline_ns)
    }
    fn epoll_create() -> Result<Handle, Errno> {
        epoll::create()
    }
    fn epoll_ctl(epoll: Handle, op: u32, h: Handle, events: u32, data: u64) -> Result<(), Errno> {
        epoll::ctl(epoll, op, h, events, data)
    }
    fn epoll_wait(epoll: Handle, out: &mut [HostEvent], deadline_ns: Option<u64>) -> Result<usize, Errno> {
        epoll::wait(epoll, out, deadline_ns)
    }
    fn ioctl(h: Handle, request: u32, arg: &mut [u8]) -> Result<u64, Errno> {
        io::ioctl(h, request, arg)
    }
    fn socket(service: Handle, domain: u32, kind: u32, protocol: u32) -> Result<Handle, Errno> {
        sockets::socket(service, domain, kind, protocol)
    }
    fn system_file(service: Handle, group: SystemGroup, name: &[u8]) -> Result<Handle, Errno> {
        let request = broker::Request {
            op: Op::SystemFile,
            args: [group as u64, 0, 0, 0, 0, 0],
            payload: [name, b""],
            ..broker::Request::NONE
        };
        broker::make(service, &request)
    }
    fn bind(h: Handle, addr: &[u8]) -> Result<(), Errno> {
        sockets::bind(h, addr)
    }
    fn connect(h: Handle, addr: &[u8]) -> Result<(), Errno> {
        sockets::connect(h, addr)
    }
    fn listen(h: Handle, backlog: u32) -> Result<(), Errno> {
        sockets::listen(h, backlog)
    }
    fn accept(h: Handle) -> Result<(Handle, Vec<u8>), Errno> {
        sockets::accept(h)
    }
    fn send_msg(
        h: Handle,
        addr: &[u8],
        control: &[u8],
        src: &mut Src<'_>,
        flags: u32,
    ) -> Result<usize, Errno> {
        sockets::send_msg(h, addr, control, src, flags)
    }
    fn recv_msg(h: Handle, dest: &mut Dest<'_>, control_room: usize, flags: u32) -> Result<Received, Errno> {
        sockets::recv_msg(h, dest, control_room, flags)
    }
    fn shutdown(h: Handle, how: u32) -> Result<(), Errno> {
        sockets::shutdown(h, how)
    }
    fn sock_name(h: Handle) -> Result<Vec<u8>, Errno> {
        sockets::sock_name(h)
    }
    fn peer_name(h: Handle) -> Result<Vec<u8>, Errno> {
        sockets::peer_name(h)
    }
    fn get_sock_opt(h: Handle, level: u32, name: u32, room: usize) -> Result<Vec<u8>, Errno> {
        sockets::get_sock_opt(h, level, name, room)
    }
    fn set_sock_opt(h: Handle, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        sockets::set_sock_opt(h, level, name, value)
    }
    fn control_recv() -> Result<MessageIn, Errno> {
        control::recv()
    }
    fn control_send(event: &[u8]) -> Result<(), Errno> {
        control::send(event)
    }
    fn log(level: u32, line: &[u8]) {
        control::log(level, line)
    }
}

/// Fit for a result nobody needs the value of.
fn done(r: Result<u64, Errno>) -> Result<(), Errno> {
    r.map(|_| ())
}
