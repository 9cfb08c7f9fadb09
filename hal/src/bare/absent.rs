//! Stands in for the bare machine until it is built: every door panics.

use super::Bare;
use crate::aspace::{Access, Advice, FaultOutcome, Prot, SpaceInner};
use crate::contract::{Clock, HostService, Spaces, Threads, UserAccess};
use crate::host::{Dest, Handle, MessageIn, Owner, PollItem, Received, Src};
use crate::thread::{NewSpace, Thread, ThreadRef};
use crate::{FpState, UserContext};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::boot::Range;
use qlib::qcall::{HostStat, HostStatFs};
use qlib::{Errno, VirtAddr};

impl HostService for Bare {
    fn open(_dir: Handle, _name: &[u8], _flags: u32, _mode: u32, _owner: Owner) -> Result<Handle, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn close(_h: Handle) {
        panic!("the bare machine is not built yet")
    }
    fn stat(_dir: Handle, _name: &[u8]) -> Result<HostStat, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn read_link(_dir: Handle, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn mkdir(_dir: Handle, _name: &[u8], _mode: u32, _owner: Owner) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn mknod(_dir: Handle, _name: &[u8], _mode: u32, _rdev: u64, _owner: Owner) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn symlink(_dir: Handle, _name: &[u8], _target: &[u8], _owner: Owner) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn link(_old_dir: Handle, _old: &[u8], _new_dir: Handle, _new: &[u8]) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn unlink(_dir: Handle, _name: &[u8], _is_dir: bool) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn rename(
        _old_dir: Handle,
        _old: &[u8],
        _new_dir: Handle,
        _new: &[u8],
        _flags: u32,
    ) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn chmod(_dir: Handle, _name: &[u8], _mode: u32) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn chown(_dir: Handle, _name: &[u8], _uid: u32, _gid: u32) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn set_times(_dir: Handle, _name: &[u8], _times: [(i64, i64); 2]) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn truncate(_h: Handle, _len: u64) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn allocate(_h: Handle, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn sync(_h: Handle, _data_only: bool) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn statfs(_h: Handle) -> Result<HostStatFs, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn get_xattr(_dir: Handle, _name: &[u8], _attr: &[u8]) -> Result<Vec<u8>, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn set_xattr(_dir: Handle, _name: &[u8], _attr: &[u8], _value: &[u8], _flags: u32) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn list_xattr(_dir: Handle, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn remove_xattr(_dir: Handle, _name: &[u8], _attr: &[u8]) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn read_dir(_h: Handle, _buf: &mut [u8]) -> Result<usize, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn seek(_h: Handle, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn read(_h: Handle, _dest: &mut Dest<'_>, _offset: Option<u64>) -> Result<usize, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn write(_h: Handle, _src: &mut Src<'_>, _offset: Option<u64>, _append: bool) -> Result<usize, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn mem_file(_name: &[u8]) -> Result<Handle, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn ready(_items: &mut [PollItem]) -> Result<usize, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn wait_ready(_items: &mut [PollItem], _deadline_ns: Option<u64>) -> Result<usize, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn ioctl(_h: Handle, _request: u32, _arg: &mut [u8]) -> Result<u64, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn socket(_domain: u32, _kind: u32, _protocol: u32) -> Result<Handle, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn bind(_h: Handle, _addr: &[u8]) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn connect(_h: Handle, _addr: &[u8]) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn listen(_h: Handle, _backlog: u32) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn accept(_h: Handle) -> Result<(Handle, Vec<u8>), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn send_msg(
        _h: Handle,
        _addr: &[u8],
        _control: &[u8],
        _src: &mut Src<'_>,
        _flags: u32,
    ) -> Result<usize, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn recv_msg(
        _h: Handle,
        _dest: &mut Dest<'_>,
        _control_room: usize,
        _flags: u32,
    ) -> Result<Received, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn shutdown(_h: Handle, _how: u32) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn sock_name(_h: Handle) -> Result<Vec<u8>, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn peer_name(_h: Handle) -> Result<Vec<u8>, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn get_sock_opt(_h: Handle, _level: u32, _name: u32, _room: usize) -> Result<Vec<u8>, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn set_sock_opt(_h: Handle, _level: u32, _name: u32, _value: &[u8]) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn control_recv() -> Result<MessageIn, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn control_send(_event: &[u8]) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn log(_level: u32, _line: &[u8]) {
        panic!("the bare machine is not built yet")
    }
}

impl Spaces for Bare {
    fn user_range() -> Range {
        panic!("the bare machine is not built yet")
    }
    fn reserved() -> &'static [Range] {
        panic!("the bare machine is not built yet")
    }
    fn replace(_old: &Arc<SpaceInner>) -> Result<Arc<SpaceInner>, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn map_anon(_space: &SpaceInner, _range: Range, _prot: Prot) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn map_file(
        _space: &SpaceInner,
        _range: Range,
        _prot: Prot,
        _handle: Handle,
        _offset: u64,
        _shared: bool,
    ) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn unmap(_space: &SpaceInner, _range: Range) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn protect(_space: &SpaceInner, _range: Range, _prot: Prot) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn remap(_space: &SpaceInner, _old: Range, _new: Range) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn advise(_space: &SpaceInner, _range: Range, _advice: Advice) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn resident(_space: &SpaceInner, _range: Range, _out: &mut [u8]) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn fault(_space: &SpaceInner, _addr: VirtAddr, _access: Access) -> FaultOutcome {
        panic!("the bare machine is not built yet")
    }
}

impl Threads for Bare {
    fn current() -> ThreadRef {
        panic!("the bare machine is not built yet")
    }
    fn spawn(_thread: &Arc<Thread>, _space: NewSpace<'_>, _f: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
        panic!("the bare machine is not built yet")
    }
    fn exit() -> ! {
        panic!("the bare machine is not built yet")
    }
    fn park(_deadline_ns: Option<u64>) {
        panic!("the bare machine is not built yet")
    }
    fn unpark(_thread: &Thread) {
        panic!("the bare machine is not built yet")
    }
    fn kick(_thread: &Thread) {
        panic!("the bare machine is not built yet")
    }
    fn yield_now() {
        panic!("the bare machine is not built yet")
    }
    fn cpu_time_ns() -> (u64, u64) {
        panic!("the bare machine is not built yet")
    }
    fn power_off(_code: i32, _reason: &str) -> ! {
        panic!("the bare machine is not built yet")
    }
}

impl Clock for Bare {
    fn monotonic_ns() -> u64 {
        panic!("the bare machine is not built yet")
    }
    fn realtime_ns() -> u64 {
        panic!("the bare machine is not built yet")
    }
    fn random(_buf: &mut [u8]) {
        panic!("the bare machine is not built yet")
    }
}

impl UserAccess for Bare {
    fn copy_in(_dst: &mut [u8], _src: u64) -> Result<(), usize> {
        panic!("the bare machine is not built yet")
    }
    fn copy_out(_dst: u64, _src: &[u8]) -> Result<(), usize> {
        panic!("the bare machine is not built yet")
    }
    fn zero(_dst: u64, _len: usize) -> Result<(), usize> {
        panic!("the bare machine is not built yet")
    }
    fn load_u32(_addr: u64) -> Result<u32, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn cmpxchg_u32(_addr: u64, _old: u32, _new: u32) -> Result<u32, Errno> {
        panic!("the bare machine is not built yet")
    }
    fn enter(_ctx: &UserContext, _fp: Option<&FpState>) -> ! {
        panic!("the bare machine is not built yet")
    }
    fn save_fp(_fp: &mut FpState) {
        panic!("the bare machine is not built yet")
    }
    fn restore_fp(_fp: &FpState) {
        panic!("the bare machine is not built yet")
    }
}
