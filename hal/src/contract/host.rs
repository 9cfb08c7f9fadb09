//! Host services.

use crate::host::{Dest, Handle, HostEvent, MessageIn, Owner, PollItem, Received, Src};
use alloc::vec::Vec;
use qlib::Errno;
use qlib::qcall::{HostStat, HostStatFs, SystemGroup};

/// What QKernel may ask of the host. Nothing here blocks but [`HostService::wait_ready`] and
/// [`HostService::control_recv`]; names are single path components (or several without symlinks), never absolute.
#[allow(missing_docs)]
pub trait HostService {
    fn open(dir: Handle, name: &[u8], flags: u32, mode: u32, owner: Owner) -> Result<Handle, Errno>;
    fn close(h: Handle);
    fn stat(dir: Handle, name: &[u8]) -> Result<HostStat, Errno>;
    fn read_link(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno>;
    fn mkdir(dir: Handle, name: &[u8], mode: u32, owner: Owner) -> Result<(), Errno>;
    fn mknod(dir: Handle, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<(), Errno>;
    fn symlink(dir: Handle, name: &[u8], target: &[u8], owner: Owner) -> Result<(), Errno>;
    fn link(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8]) -> Result<(), Errno>;
    fn unlink(dir: Handle, name: &[u8], is_dir: bool) -> Result<(), Errno>;
    fn rename(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8], flags: u32) -> Result<(), Errno>;
    fn chmod(dir: Handle, name: &[u8], mode: u32) -> Result<(), Errno>;
    fn chown(dir: Handle, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno>;
    fn set_times(dir: Handle, name: &[u8], times: [(i64, i64); 2]) -> Result<(), Errno>;
    fn truncate(h: Handle, len: u64) -> Result<(), Errno>;
    fn allocate(h: Handle, mode: u32, offset: u64, len: u64) -> Result<(), Errno>;
    fn sync(h: Handle, data_only: bool) -> Result<(), Errno>;
    fn statfs(h: Handle) -> Result<HostStatFs, Errno>;
    fn get_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<Vec<u8>, Errno>;
    fn set_xattr(dir: Handle, name: &[u8], attr: &[u8], value: &[u8], flags: u32) -> Result<(), Errno>;
    fn list_xattr(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno>;
    fn remove_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<(), Errno>;
    fn read_dir(h: Handle, buf: &mut [u8]) -> Result<usize, Errno>;
    fn seek(h: Handle, offset: i64, whence: u32) -> Result<u64, Errno>;
    fn read(h: Handle, dest: &mut Dest<'_>, offset: Option<u64>) -> Result<usize, Errno>;
    fn write(h: Handle, src: &mut Src<'_>, offset: Option<u64>, append: bool) -> Result<usize, Errno>;
    fn mem_file(name: &[u8]) -> Result<Handle, Errno>;
    fn ready(items: &mut [PollItem]) -> Result<usize, Errno>;
    fn wait_ready(items: &mut [PollItem], deadline_ns: Option<u64>) -> Result<usize, Errno>;
    fn epoll_create() -> Result<Handle, Errno> {
        Err(Errno::ENOSYS)
    }
    fn epoll_ctl(epoll: Handle, op: u32, h: Handle, events: u32, data: u64) -> Result<(), Errno> {
        let _ = (epoll, op, h, events, data);
        Err(Errno::ENOSYS)
    }
    fn epoll_wait(epoll: Handle, out: &mut [HostEvent], deadline_ns: Option<u64>) -> Result<usize, Errno> {
        let _ = (epoll, out, deadline_ns);
        Err(Errno::ENOSYS)
    }
    fn ioctl(h: Handle, request: u32, arg: &mut [u8]) -> Result<u64, Errno>;
    fn socket(service: Handle, domain: u32, kind: u32, protocol: u32) -> Result<Handle, Errno>;
    fn system_file(service: Handle, group: SystemGroup, name: &[u8]) -> Result<Handle, Errno> {
        let _ = (service, group, name);
        Err(Errno::ENOSYS)
    }
    fn bind(h: Handle, addr: &[u8]) -> Result<(), Errno>;
    fn connect(h: Handle, addr: &[u8]) -> Result<(), Errno>;
    fn listen(h: Handle, backlog: u32) -> Result<(), Errno>;
    fn accept(h: Handle) -> Result<(Handle, Vec<u8>), Errno>;
    fn send_msg(
        h: Handle,
        addr: &[u8],
        control: &[u8],
        src: &mut Src<'_>,
        flags: u32,
    ) -> Result<usize, Errno>;
    fn recv_msg(h: Handle, dest: &mut Dest<'_>, control_room: usize, flags: u32) -> Result<Received, Errno>;
    fn shutdown(h: Handle, how: u32) -> Result<(), Errno>;
    fn sock_name(h: Handle) -> Result<Vec<u8>, Errno>;
    fn peer_name(h: Handle) -> Result<Vec<u8>, Errno>;
    fn get_sock_opt(h: Handle, level: u32, name: u32, room: usize) -> Result<Vec<u8>, Errno>;
    fn set_sock_opt(h: Handle, level: u32, name: u32, value: &[u8]) -> Result<(), Errno>;
    fn control_recv() -> Result<MessageIn, Errno>;
    fn control_send(event: &[u8]) -> Result<(), Errno>;
    fn log(level: u32, line: &[u8]);
}
