//! Host services of the fake machine: none; every call answers ENOSYS until a test needs it.

use super::Fake;
use crate::contract::HostService;
use crate::host::{Dest, Handle, MessageIn, Owner, PollItem, Received, Src};
use alloc::vec::Vec;
use qlib::Errno;
use qlib::qcall::{HostStat, HostStatFs};

impl HostService for Fake {
    fn open(_dir: Handle, _name: &[u8], _flags: u32, _mode: u32, _owner: Owner) -> Result<Handle, Errno> {
        Err(Errno::ENOSYS)
    }
    fn close(_h: Handle) {}
    fn stat(_dir: Handle, _name: &[u8]) -> Result<HostStat, Errno> {
        Err(Errno::ENOSYS)
    }
    fn read_link(_dir: Handle, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOSYS)
    }
    fn mkdir(_dir: Handle, _name: &[u8], _mode: u32, _owner: Owner) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn mknod(_dir: Handle, _name: &[u8], _mode: u32, _rdev: u64, _owner: Owner) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn symlink(_dir: Handle, _name: &[u8], _target: &[u8], _owner: Owner) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn link(_old_dir: Handle, _old: &[u8], _new_dir: Handle, _new: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn unlink(_dir: Handle, _name: &[u8], _is_dir: bool) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn rename(
        _old_dir: Handle,
        _old: &[u8],
        _new_dir: Handle,
        _new: &[u8],
        _flags: u32,
    ) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn chmod(_dir: Handle, _name: &[u8], _mode: u32) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn chown(_dir: Handle, _name: &[u8], _uid: u32, _gid: u32) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn set_times(_dir: Handle, _name: &[u8], _times: [(i64, i64); 2]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn truncate(_h: Handle, _len: u64) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn allocate(_h: Handle, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn sync(_h: Handle, _data_only: bool) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn statfs(_h: Handle) -> Result<HostStatFs, Errno> {
        Err(Errno::ENOSYS)
    }
    fn get_xattr(_dir: Handle, _name: &[u8], _attr: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOSYS)
    }
    fn set_xattr(_dir: Handle, _name: &[u8], _attr: &[u8], _value: &[u8], _flags: u32) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn list_xattr(_dir: Handle, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOSYS)
    }
    fn remove_xattr(_dir: Handle, _name: &[u8], _attr: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn read_dir(_h: Handle, _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
    fn seek(_h: Handle, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }
    fn read(_h: Handle, _dest: &mut Dest<'_>, _offset: Option<u64>) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
    fn write(_h: Handle, _src: &mut Src<'_>, _offset: Option<u64>, _append: bool) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
    fn mem_file(_name: &[u8]) -> Result<Handle, Errno> {
        Err(Errno::ENOSYS)
    }
    fn ready(_items: &mut [PollItem]) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
    fn wait_ready(_items: &mut [PollItem], _deadline_ns: Option<u64>) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
    fn ioctl(_h: Handle, _request: u32, _arg: &mut [u8]) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }
    fn socket(_domain: u32, _kind: u32, _protocol: u32) -> Result<Handle, Errno> {
        Err(Errno::ENOSYS)
    }
    fn bind(_h: Handle, _addr: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn connect(_h: Handle, _addr: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn listen(_h: Handle, _backlog: u32) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn accept(_h: Handle) -> Result<(Handle, Vec<u8>), Errno> {
        Err(Errno::ENOSYS)
    }
    fn send_msg(
        _h: Handle,
        _addr: &[u8],
        _control: &[u8],
        _src: &mut Src<'_>,
        _flags: u32,
    ) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
    fn recv_msg(
        _h: Handle,
        _dest: &mut Dest<'_>,
        _control_room: usize,
        _flags: u32,
    ) -> Result<Received, Errno> {
        Err(Errno::ENOSYS)
    }
    fn shutdown(_h: Handle, _how: u32) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn sock_name(_h: Handle) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOSYS)
    }
    fn peer_name(_h: Handle) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOSYS)
    }
    fn get_sock_opt(_h: Handle, _level: u32, _name: u32, _room: usize) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOSYS)
    }
    fn set_sock_opt(_h: Handle, _level: u32, _name: u32, _value: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn control_recv() -> Result<MessageIn, Errno> {
        Err(Errno::ENOSYS)
    }
    fn control_send(_event: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn log(_level: u32, _line: &[u8]) {}
}
