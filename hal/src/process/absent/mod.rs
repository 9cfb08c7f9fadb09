//! Stands in for the process machine where it is not built: every door panics.

use crate::aspace::{Access, Advice, FaultOutcome, Prot, SpaceInner};
use crate::contract::{Clock, HostService, Spaces, Threads, UserAccess};
use crate::host::{Dest, Handle, MessageIn, Owner, PollItem, Received, Src};
use crate::thread::{Counts, NewSpace, Thread, ThreadRef};
use crate::{FpState, UserContext};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::boot::Range;
use qlib::qcall::{HostStat, HostStatFs};
use qlib::{Errno, VirtAddr};

/// Implements the contract by refusing.
pub(crate) struct Process;

/// Where the host starts processes.
pub enum Nursery {}

/// Stops at boot.
pub(crate) fn start(_sound: bool) -> ! {
    panic!("the process machine is not built for this architecture")
}

/// The host's futex.
pub(crate) mod futex {
    use core::sync::atomic::AtomicU32;
    pub(crate) fn wait(_word: &AtomicU32, _value: u32, _deadline_ns: Option<u64>) {}
    pub(crate) fn wake(_word: &AtomicU32, _n: u32) {}
}

impl HostService for Process {
    fn open(_dir: Handle, _name: &[u8], _flags: u32, _mode: u32, _owner: Owner) -> Result<Handle, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn close(_h: Handle) {
        panic!("the process machine is not built for this architecture")
    }
    fn stat(_dir: Handle, _name: &[u8]) -> Result<HostStat, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn read_link(_dir: Handle, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn mkdir(_dir: Handle, _name: &[u8], _mode: u32, _owner: Owner) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn mknod(_dir: Handle, _name: &[u8], _mode: u32, _rdev: u64, _owner: Owner) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn symlink(_dir: Handle, _name: &[u8], _target: &[u8], _owner: Owner) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn link(_old_dir: Handle, _old: &[u8], _new_dir: Handle, _new: &[u8]) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn unlink(_dir: Handle, _name: &[u8], _is_dir: bool) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn rename(
        _old_dir: Handle,
        _old: &[u8],
        _new_dir: Handle,
        _new: &[u8],
        _flags: u32,
    ) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn chmod(_dir: Handle, _name: &[u8], _mode: u32) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn chown(_dir: Handle, _name: &[u8], _uid: u32, _gid: u32) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn set_times(_dir: Handle, _name: &[u8], _times: [(i64, i64); 2]) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn truncate(_h: Handle, _len: u64) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn allocate(_h: Handle, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn sync(_h: Handle, _data_only: bool) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn statfs(_h: Handle) -> Result<HostStatFs, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn get_xattr(_dir: Handle, _name: &[u8], _attr: &[u8]) -> Result<Vec<u8>, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn set_xattr(_dir: Handle, _name: &[u8], _attr: &[u8], _value: &[u8], _flags: u32) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn list_xattr(_dir: Handle, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn remove_xattr(_dir: Handle, _name: &[u8], _attr: &[u8]) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn read_dir(_h: Handle, _buf: &mut [u8]) -> Result<usize, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn seek(_h: Handle, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn read(_h: Handle, _dest: &mut Dest<'_>, _offset: Option<u64>) -> Result<usize, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn write(_h: Handle, _src: &mut Src<'_>, _offset: Option<u64>, _append: bool) -> Result<usize, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn mem_file(_name: &[u8]) -> Result<Handle, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn ready(_items: &mut [PollItem]) -> Result<usize, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn wait_ready(_items: &mut [PollItem], _deadline_ns: Option<u64>) -> Result<usize, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn ioctl(_h: Handle, _request: u32, _arg: &mut [u8]) -> Result<u64, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn socket(_service: Handle, _domain: u32, _kind: u32, _protocol: u32) -> Result<Handle, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn bind(_h: Handle, _addr: &[u8]) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn connect(_h: Handle, _addr: &[u8]) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn listen(_h: Handle, _backlog: u32) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn accept(_h: Handle) -> Result<(Handle, Vec<u8>), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn send_msg(
        _h: Handle,
        _addr: &[u8],
        _control: &[u8],
        _src: &mut Src<'_>,
        _flags: u32,
    ) -> Result<usize, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn recv_msg(
        _h: Handle,
        _dest: &mut Dest<'_>,
        _control_room: usize,
        _flags: u32,
    ) -> Result<Received, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn shutdown(_h: Handle, _how: u32) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn sock_name(_h: Handle) -> Result<Vec<u8>, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn peer_name(_h: Handle) -> Result<Vec<u8>, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn get_sock_opt(_h: Handle, _level: u32, _name: u32, _room: usize) -> Result<Vec<u8>, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn set_sock_opt(_h: Handle, _level: u32, _name: u32, _value: &[u8]) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn control_recv() -> Result<MessageIn, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn control_send(_event: &[u8]) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn log(_level: u32, _line: &[u8]) {
        panic!("the process machine is not built for this architecture")
    }
}

impl Spaces for Process {
    fn user_range() -> Range {
        panic!("the process machine is not built for this architecture")
    }
    fn reserved() -> &'static [Range] {
        panic!("the process machine is not built for this architecture")
    }
    fn replace(_old: &Arc<SpaceInner>) -> Result<Arc<SpaceInner>, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn map_anon(_space: &SpaceInner, _range: Range, _prot: Prot) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn map_file(
        _space: &SpaceInner,
        _range: Range,
        _prot: Prot,
        _handle: Handle,
        _offset: u64,
        _shared: bool,
    ) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn unmap(_space: &SpaceInner, _range: Range) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn protect(_space: &SpaceInner, _range: Range, _prot: Prot) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn remap(_space: &SpaceInner, _old: Range, _new: Range) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn barrier(_space: Option<&SpaceInner>) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn advise(_space: &SpaceInner, _range: Range, _advice: Advice) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn resident(_space: &SpaceInner, _range: Range, _out: &mut [u8]) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn fault(_space: &SpaceInner, _addr: VirtAddr, _access: Access) -> FaultOutcome {
        panic!("the process machine is not built for this architecture")
    }
}

impl Threads for Process {
    fn current() -> ThreadRef {
        panic!("the process machine is not built for this architecture")
    }
    fn spawn(_thread: &Arc<Thread>, _space: NewSpace<'_>, _f: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn exit() -> ! {
        panic!("the process machine is not built for this architecture")
    }
    fn park(_deadline_ns: Option<u64>) {
        panic!("the process machine is not built for this architecture")
    }
    fn unpark(_thread: &Thread) {
        panic!("the process machine is not built for this architecture")
    }
    fn kick(_thread: &Thread) {
        panic!("the process machine is not built for this architecture")
    }
    fn yield_now() {
        panic!("the process machine is not built for this architecture")
    }
    fn cpu_time_ns() -> (u64, u64) {
        panic!("the process machine is not built for this architecture")
    }
    fn cpu_time_of(_thread: &Thread) -> Option<(u64, u64)> {
        panic!("the process machine is not built for this architecture")
    }
    fn counts() -> Counts {
        panic!("the process machine is not built for this architecture")
    }
    fn power_off(_code: i32, _reason: &str) -> ! {
        panic!("the process machine is not built for this architecture")
    }
}

impl Clock for Process {
    fn monotonic_ns() -> u64 {
        panic!("the process machine is not built for this architecture")
    }
    fn realtime_ns() -> u64 {
        panic!("the process machine is not built for this architecture")
    }
    fn random(_buf: &mut [u8]) {
        panic!("the process machine is not built for this architecture")
    }
}

impl UserAccess for Process {
    fn copy_in(_dst: &mut [u8], _src: u64) -> Result<(), usize> {
        panic!("the process machine is not built for this architecture")
    }
    fn copy_out(_dst: u64, _src: &[u8]) -> Result<(), usize> {
        panic!("the process machine is not built for this architecture")
    }
    fn zero(_dst: u64, _len: usize) -> Result<(), usize> {
        panic!("the process machine is not built for this architecture")
    }
    fn load_u32(_addr: u64) -> Result<u32, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn cmpxchg_u32(_addr: u64, _old: u32, _new: u32) -> Result<u32, Errno> {
        panic!("the process machine is not built for this architecture")
    }
    fn enter(_ctx: &UserContext, _fp: Option<&FpState>) -> ! {
        panic!("the process machine is not built for this architecture")
    }
    fn save_fp(_fp: &mut FpState) {
        panic!("the process machine is not built for this architecture")
    }
    fn restore_fp(_fp: &FpState) {
        panic!("the process machine is not built for this architecture")
    }
}
