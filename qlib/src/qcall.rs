//! Requests from QKernel to QVisor (qcalls).
//!
//! A request is a fixed header, followed by `data_len` bytes of payload: on `kvm` header and payload
//! lie in the shared ring area, on `process` they are one `SOCK_SEQPACKET` message to a broker channel.

use crate::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The guest's name for a host object. On `kvm` it is index and generation of QVisor's table;
/// on `process` the number of a descriptor in the sandbox's shared table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct HandleId(pub u64);

impl Default for HandleId {
    fn default() -> Self {
        Self::NONE
    }
}

impl HandleId {
    /// No handle.
    pub const NONE: HandleId = HandleId(u64::MAX);
    /// Builds a `kvm` handle.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self(index as u64 | (generation as u64) << 32)
    }
    /// Slot in the host's handle table (`kvm`).
    pub const fn index(self) -> u32 {
        self.0 as u32
    }
    /// Generation the slot must have (`kvm`).
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Most bytes of a file's or a socket's data in one request or reply: no datagram of IP is longer.
pub const MAX_DATA: usize = 64 * 1024;

/// Largest payload of one request or reply, bytes: data, and the address and the control messages that go with it.
pub const MAX_PAYLOAD: usize = MAX_DATA + 8 * 1024;

/// A request header, 96 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Request {
    /// Chosen by the guest; the reply carries it back.
    pub tag: u64,
    /// [`Op`] as an integer.
    pub op: u32,
    /// Bytes of payload behind the header (or in `data_addr` on `kvm`).
    pub data_len: u32,
    /// The object the request is about.
    pub handle: HandleId,
    /// A second object (rename, link, copy), else [`HandleId::NONE`].
    pub handle2: HandleId,
    /// Arguments; their meaning is documented at each [`Op`].
    pub args: [u64; 6],
    /// Guest-physical address of the payload buffer (`kvm`), else 0.
    pub data_addr: u64,
    /// Room for reply data in bytes (in the payload buffer on `kvm`).
    pub reply_cap: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// A reply header, 32 bytes; reply data follows (`process`) or lies in the payload buffer (`kvm`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reply {
    /// The request's tag.
    pub tag: u64,
    /// Value, or a negated error number.
    pub result: i64,
    /// A new handle (`kvm`), else [`HandleId::NONE`]; on `process` a descriptor rides as SCM_RIGHTS.
    pub handle: HandleId,
    /// Bytes of reply data.
    pub data_len: u32,
    /// Zero.
    pub reserved: u32,
}

impl Reply {
    /// A reply that carries only a result.
    pub const fn of(tag: u64, r: Result<u64, Errno>) -> Self {
        Self {
            tag,
            result: Errno::to_ret(r),
            handle: HandleId::NONE,
            data_len: 0,
            reserved: 0,
        }
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $n:literal),* $(,)?) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Op { $($(#[$doc])* $name = $n),* }
        impl TryFrom<u32> for Op {
            type Error = Errno;
            fn try_from(v: u32) -> Result<Self, Errno> {
                match v { $($n => Ok(Op::$name),)* _ => Err(Errno::ENOSYS) }
            }
        }
        impl Op {
            /// Every operation, for tests that walk them.
            pub const ALL: &'static [Op] = &[$(Op::$name),*];
        }
    };
}

ops! {
    /// Does nothing; the reply's result is `args[0]`.
    Nop = 0,
    /// Opens `payload` (one path component, or several without symlinks) under directory `handle`. args: flags (O_*),
    /// mode, owner uid, owner gid (of a file this creates). Reply: new handle. Never follows a symlink (ELOOP), never blocks.
    Open = 1,
    /// Closes `handle`.
    Close = 2,
    /// Status of `payload` under `handle`, or of `handle` itself when the payload is empty. Reply data: [`HostStat`].
    Stat = 3,
    /// Target of symlink `payload` under `handle`. Reply data: the target.
    ReadLink = 4,
    /// Makes directory `payload`. args: mode, uid, gid.
    MkDir = 5,
    /// Makes a node `payload`. args: mode with type, rdev, uid, gid.
    MkNod = 6,
    /// Makes a symlink. args: length of the name, uid, gid; payload: name then target.
    SymLink = 7,
    /// Hard link. args: length of the old name; payload: old name (under `handle`; none = `handle` itself, as an unnamed file
    /// gets a name) then new name (under `handle2`).
    Link = 8,
    /// Removes `payload`. args: flags (AT_REMOVEDIR).
    Unlink = 9,
    /// Renames. args: length of the old name, flags (RENAME_*); payload: old name (under `handle`), new name (under `handle2`).
    Rename = 10,
    /// Sets mode of `payload` (or `handle` when empty). args: mode.
    ChMod = 11,
    /// Sets owner. args: uid, gid (`u32::MAX` = keep). Follows no symlink.
    ChOwn = 12,
    /// Sets times. args: atime s, atime ns (UTIME_*), mtime s, mtime ns. Follows no symlink.
    SetTimes = 13,
    /// Truncates. args: length.
    Truncate = 14,
    /// Allocates. args: mode (FALLOC_FL_*), offset, length.
    Allocate = 15,
    /// Flushes. args: 1 = data only.
    Sync = 16,
    /// File-system status. Reply data: [`HostStatFs`].
    StatFs = 17,
    /// Gets attribute `payload`. Reply data: value.
    GetXattr = 18,
    /// Sets an attribute. args: length of the name, flags; payload: name then value.
    SetXattr = 19,
    /// Lists attribute names. Reply data: NUL-separated names.
    ListXattr = 20,
    /// Removes attribute `payload`.
    RemoveXattr = 21,
    /// Reads directory entries from the handle's position. Reply data: `linux_dirent64` records.
    ReadDir = 22,
    /// Seeks. args: offset, whence. Reply: new position.
    Seek = 23,
    /// Reads. args: offset (`u64::MAX` = the handle's position), length, buffer (guest-physical, `kvm`). Never blocks.
    Read = 24,
    /// Writes. args as for [`Op::Read`], flags in `args[3]` (1 = append).
    Write = 25,
    /// An unnamed memory file. Reply: new handle. payload: name.
    MemFile = 26,
    /// Readiness now. args: events (POLL*). Reply: revents.
    Poll = 27,
    /// Completes when `handle` has one of `args[0]` (POLL*), or when cancelled (`ECANCELED`).
    PollWait = 28,
    /// Cancels the request whose tag is `args[0]`.
    Cancel = 29,
    /// Device control. args: request, value. payload/reply data: the argument's bytes.
    Ioctl = 30,
    /// Maps a file range into the window (`kvm`). args: offset, length, window offset, protection.
    MapWindow = 31,
    /// Unmaps a window range (`kvm`). args: window offset, length.
    UnmapWindow = 32,
    /// Gives RAM back (`kvm`). args: physical address, length.
    FreeRam = 33,
    /// A further handle of the same object (`kvm`): mappings keep their file by it. Reply: new handle.
    Dup = 34,
    /// Makes an instance that tells of the readiness of other objects (`epoll(7)`). Reply: new handle.
    EpollCreate = 35,
    /// Changes what the instance `handle` tells of `handle2`. args: EPOLL_CTL_*, EPOLL*, data.
    EpollCtl = 36,
    /// Takes events from the instance; never blocks. args: most. Reply data: for each `u32` EPOLL*, `u32` zero, `u64` data.
    /// Result: how many.
    EpollWait = 37,
    /// Opens a socket. args: domain, type, protocol. `handle`: the service channel of the container whose network namespace it
    /// is to be in, [`HandleId::NONE`] = the sandbox's own. Reply: new handle (non-blocking).
    Socket = 40,
    /// Binds to `payload` (sockaddr bytes).
    Bind = 41,
    /// Connects to `payload`. Never blocks (EINPROGRESS).
    Connect = 42,
    /// Listens. args: backlog.
    Listen = 43,
    /// Accepts. Reply: new handle; data: peer address.
    Accept = 44,
    /// Sends. args: MSG_* flags, length of the address, length of control data; payload: address, control, data.
    SendMsg = 45,
    /// Receives. args: MSG_* flags, address room, control room, data room. Reply data: `u32` msg_flags, `u32` address length,
    /// `u32` control length, then address, control, data. Result: bytes received (real length with MSG_TRUNC).
    RecvMsg = 46,
    /// Shuts down. args: how.
    Shutdown = 47,
    /// Own address. Reply data: sockaddr.
    SockName = 48,
    /// Peer's address. Reply data: sockaddr.
    PeerName = 49,
    /// Gets an option. args: level, name, room. Reply data: value.
    GetSockOpt = 50,
    /// Sets an option. args: level, name. payload: value.
    SetSockOpt = 51,
    /// Opens one of the host's texts about the sandbox for reading, or about the container behind the service channel `handle`.
    /// args: [`SystemGroup`]; payload: a name of those that are served. Reply: new handle.
    SystemFile = 52,
    /// Receives the next control message; completes when there is one. Reply data: see [`crate::control`].
    ControlRecv = 60,
    /// Sends the control event in the payload.
    ControlSend = 61,
    /// A log line. args: level.
    Log = 62,
    /// The guest stops. args: exit code; payload: reason (may be empty).
    PowerOff = 63,
}

/// Whose text [`Op::SystemFile`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SystemGroup {
    /// `/proc/net` of the container's network namespace.
    Net = 0,
    /// The host's `/proc`; `sys/net` is the container's network namespace's.
    Proc = 1,
    /// The container's cgroup, of whichever version.
    Cgroup = 2,
}

impl TryFrom<u64> for SystemGroup {
    type Error = Errno;
    fn try_from(v: u64) -> Result<Self, Errno> {
        match v {
            0 => Ok(Self::Net),
            1 => Ok(Self::Proc),
            2 => Ok(Self::Cgroup),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// File status as the host reports it, 144 bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostStat {
    /// Device of the file system, as Linux encodes it in `stat.st_dev`.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a node.
    pub rdev: u64,
    /// Size, bytes.
    pub size: u64,
    /// Preferred block size, bytes.
    pub blksize: u64,
    /// 512-byte blocks.
    pub blocks: u64,
    /// Access time, s.
    pub atime_s: i64,
    /// Access time, ns.
    pub atime_ns: u64,
    /// Modification time, s.
    pub mtime_s: i64,
    /// Modification time, ns.
    pub mtime_ns: u64,
    /// Change time, s.
    pub ctime_s: i64,
    /// Change time, ns.
    pub ctime_ns: u64,
    /// Birth time, s; 0 with `btime_ns` 0 when unknown.
    pub btime_s: i64,
    /// Birth time, ns.
    pub btime_ns: u64,
}

/// File-system status, 72 bytes. Source: `statfs(2)`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs)]
pub struct HostStatFs {
    pub kind: u64,
    pub bsize: u64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub namelen: u64,
    pub flags: u64,
}
