//! Host services: files, sockets, readiness, control messages. Handles are closed when the last [`HostFile`] drops.

use crate::machine;
use crate::user::{UserSlice, copy_in_partial, copy_out_partial};
use alloc::vec::Vec;
use qlib::Errno;
use qlib::qcall::{HandleId, HostStat, HostStatFs};

pub use qlib::qcall::SystemGroup;

/// The guest's name for a host object.
pub type Handle = HandleId;

/// Owner of a file to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Where a read puts its bytes: app memory or a kernel buffer. It is a cursor.
pub struct Dest<'a> {
    kind: DestKind<'a>,
    done: usize,
}

enum DestKind<'a> {
    User(&'a [UserSlice]),
    Kernel(&'a mut [u8]),
}

/// Where a write takes its bytes from: app memory or a kernel buffer. It is a cursor.
pub struct Src<'a> {
    kind: SrcKind<'a>,
    done: usize,
}

enum SrcKind<'a> {
    User(&'a [UserSlice]),
    Kernel(&'a [u8]),
}

fn total(segments: &[UserSlice]) -> usize {
    segments.iter().fold(0usize, |n, s| n.saturating_add(s.len()))
}

/// The part of `segments` after `skip` bytes, one segment at a time.
fn segment_at(segments: &[UserSlice], mut skip: usize) -> Option<UserSlice> {
    for s in segments {
        if skip < s.len() {
            return Some(s.skip(skip));
        }
        skip -= s.len();
    }
    None
}

/// Fills `out` with the segments that begin after `skip` bytes; returns how many there are, at most `out.len()`.
#[allow(dead_code)]
fn fill(segments: &[UserSlice], mut skip: usize, out: &mut [UserSlice]) -> usize {
    let mut n = 0;
    for s in segments {
        if skip >= s.len() {
            skip -= s.len();
            continue;
        }
        let Some(slot) = out.get_mut(n) else { break };
        *slot = s.skip(skip);
        skip = 0;
        n += 1;
    }
    n
}

impl<'a> Dest<'a> {
    /// Bytes go to the app.
    pub fn user(segments: &'a [UserSlice]) -> Self {
        Self {
            kind: DestKind::User(segments),
            done: 0,
        }
    }
    /// Bytes go to a kernel buffer.
    pub fn kernel(buf: &'a mut [u8]) -> Self {
        Self {
            kind: DestKind::Kernel(buf),
            done: 0,
        }
    }
    /// Room left, bytes.
    pub fn remaining(&self) -> usize {
        match &self.kind {
            DestKind::User(s) => total(s) - self.done,
            DestKind::Kernel(b) => b.len() - self.done,
        }
    }
    /// Bytes taken so far.
    pub fn done(&self) -> usize {
        self.done
    }
    /// Takes as much of `bytes` as fits.
    ///
    /// # Errors
    /// EFAULT when not a single byte could be stored for a fault.
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut n = 0;
        match &mut self.kind {
            DestKind::Kernel(b) => {
                n = bytes.len().min(b.len() - self.done);
                b[self.done..self.done + n].copy_from_slice(&bytes[..n]);
                self.done += n;
            }
            DestKind::User(segments) => {
                while n < bytes.len() {
                    let Some(seg) = segment_at(segments, self.done) else {
                        break;
                    };
                    let part = seg.len().min(bytes.len() - n);
                    match copy_out_partial(seg.addr(), &bytes[n..n + part]) {
                        Ok(()) => {}
                        Err(got) => {
                            self.done += got;
                            n += got;
                            return if n == 0 { Err(Errno::EFAULT) } else { Ok(n) };
                        }
                    }
                    self.done += part;
                    n += part;
                }
            }
        }
        Ok(n)
    }
    /// Marks `n` bytes as stored by other means (a direct host call on [`Dest::segments`]).
    pub fn advance(&mut self, n: usize) {
        self.done += n;
    }
    /// Takes the last `n` bytes back, which turned out not to count.
    #[allow(dead_code)]
    pub(crate) fn rewind(&mut self, n: usize) {
        self.done -= n.min(self.done);
    }
    /// The app segments not yet filled, for machines whose host calls take app addresses; `None` for kernel buffers.
    pub fn segments(&self) -> Option<Vec<UserSlice>> {
        match &self.kind {
            DestKind::User(s) => Some(rest(s, self.done)),
            DestKind::Kernel(_) => None,
        }
    }
    /// As [`Dest::segments`], the first of them into `out`; returns how many.
    #[allow(dead_code)]
    pub(crate) fn fill_segments(&self, out: &mut [UserSlice]) -> Option<usize> {
        match &self.kind {
            DestKind::User(s) => Some(fill(s, self.done, out)),
            DestKind::Kernel(_) => None,
        }
    }
    /// The unfilled part of a kernel buffer; `None` for app memory.
    pub fn kernel_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.kind {
            DestKind::Kernel(b) => Some(&mut b[self.done..]),
            DestKind::User(_) => None,
        }
    }
}

fn rest(segments: &[UserSlice], mut skip: usize) -> Vec<UserSlice> {
    let mut v = Vec::with_capacity(segments.len());
    for s in segments {
        if skip >= s.len() {
            skip -= s.len();
        } else {
            v.push(s.skip(skip));
            skip = 0;
        }
    }
    v
}

impl<'a> Src<'a> {
    /// Bytes come from the app.
    pub fn user(segments: &'a [UserSlice]) -> Self {
        Self {
            kind: SrcKind::User(segments),
            done: 0,
        }
    }
    /// Bytes come from a kernel buffer.
    pub fn kernel(buf: &'a [u8]) -> Self {
        Self {
            kind: SrcKind::Kernel(buf),
            done: 0,
        }
    }
    /// Bytes left.
    pub fn remaining(&self) -> usize {
        match &self.kind {
            SrcKind::User(s) => total(s) - self.done,
            SrcKind::Kernel(b) => b.len() - self.done,
        }
    }
    /// Bytes given so far.
    pub fn done(&self) -> usize {
        self.done
    }
    /// Fills as much of `buf` as there is.
    ///
    /// # Errors
    /// EFAULT when not a single byte could be read for a fault.
    pub fn take(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut n = 0;
        match &self.kind {
            SrcKind::Kernel(b) => {
                n = buf.len().min(b.len() - self.done);
                buf[..n].copy_from_slice(&b[self.done..self.done + n]);
                self.done += n;
            }
            SrcKind::User(segments) => {
                while n < buf.len() {
                    let Some(seg) = segment_at(segments, self.done) else {
                        break;
                    };
                    let part = seg.len().min(buf.len() - n);
                    match copy_in_partial(&mut buf[n..n + part], seg.addr()) {
                        Ok(()) => {}
                        Err(got) => {
                            self.done += got;
                            n += got;
                            return if n == 0 { Err(Errno::EFAULT) } else { Ok(n) };
                        }
                    }
                    self.done += part;
                    n += part;
                }
            }
        }
        Ok(n)
    }
    /// Gives back the last `n` bytes (a consumer that could not use them).
    pub fn rewind(&mut self, n: usize) {
        self.done -= n.min(self.done);
    }
    /// Marks `n` bytes as consumed by other means (a direct host call on [`Src::segments`]).
    pub fn advance(&mut self, n: usize) {
        self.done += n;
    }
    /// The app segments not yet consumed; `None` for kernel buffers.
    pub fn segments(&self) -> Option<Vec<UserSlice>> {
        match &self.kind {
            SrcKind::User(s) => Some(rest(s, self.done)),
            SrcKind::Kernel(_) => None,
        }
    }
    /// As [`Src::segments`], the first of them into `out`; returns how many.
    #[allow(dead_code)]
    pub(crate) fn fill_segments(&self, out: &mut [UserSlice]) -> Option<usize> {
        match &self.kind {
            SrcKind::User(s) => Some(fill(s, self.done, out)),
            SrcKind::Kernel(_) => None,
        }
    }
    /// The unconsumed part of a kernel buffer; `None` for app memory.
    pub fn kernel_ref(&self) -> Option<&[u8]> {
        match &self.kind {
            SrcKind::Kernel(b) => Some(&b[self.done..]),
            SrcKind::User(_) => None,
        }
    }
}

/// One handle to wait for.
#[derive(Clone, Copy, Debug)]
pub struct PollItem {
    /// The object.
    pub handle: Handle,
    /// POLL* asked for.
    pub events: u16,
    /// POLL* found.
    pub revents: u16,
}

/// What [`epoll_wait`] tells of one object.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostEvent {
    /// EPOLL* found.
    pub events: u32,
    /// What [`epoll_ctl`] was given for the object.
    pub data: u64,
}

/// What [`recv_msg`] brought besides the bytes.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes stored (or the datagram's real length with MSG_TRUNC).
    pub len: usize,
    /// MSG_* of the result.
    pub flags: u32,
    /// Sender's sockaddr, may be empty.
    pub addr: Vec<u8>,
    /// Control data (cmsgs of the host's own protocols).
    pub control: Vec<u8>,
}

/// A control message: bytes of a [`qlib::control::Command`] with its handles already replaced by usable ones.
pub struct MessageIn {
    /// The encoded command.
    pub bytes: Vec<u8>,
    /// Handles that came along, in order; the command's [`HandleId`]s are indices into it.
    pub handles: Vec<Handle>,
}

/// An owned host object: closes its handle when dropped.
#[derive(Debug)]
pub struct HostFile(Handle);

impl HostFile {
    /// Takes ownership.
    pub fn new(h: Handle) -> Self {
        Self(h)
    }
    /// The handle, valid as long as `self`.
    pub fn handle(&self) -> Handle {
        self.0
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        if self.0 != Handle::NONE {
            machine!(HostService::close(self.0));
        }
    }
}

macro_rules! doors {
    ($($(#[$doc:meta])* $f:ident ( $($arg:ident : $ty:ty),* ) -> $ret:ty;)*) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// The host's, as the man page of the same call lists them.
        pub fn $f($($arg: $ty),*) -> $ret {
            machine!(HostService::$f($($arg),*))
        })*
    };
}

doors! {
    /// Gets the status of `name` under `dir`, or of `dir` itself when the name is empty; never follows a symlink.
    stat(dir: Handle, name: &[u8]) -> Result<HostStat, Errno>;
    /// Reads the target of symlink `name`.
    read_link(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno>;
    /// Makes a directory.
    mkdir(dir: Handle, name: &[u8], mode: u32, owner: Owner) -> Result<(), Errno>;
    /// Makes a node.
    mknod(dir: Handle, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<(), Errno>;
    /// Makes a symlink.
    symlink(dir: Handle, name: &[u8], target: &[u8], owner: Owner) -> Result<(), Errno>;
    /// Makes a hard link; an empty `old` means `old_dir` itself.
    link(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8]) -> Result<(), Errno>;
    /// Removes a name.
    unlink(dir: Handle, name: &[u8], is_dir: bool) -> Result<(), Errno>;
    /// Renames; `flags` are RENAME_*.
    rename(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8], flags: u32) -> Result<(), Errno>;
    /// Sets permission bits of `name`, or of `dir` itself when the name is empty.
    chmod(dir: Handle, name: &[u8], mode: u32) -> Result<(), Errno>;
    /// Sets owner and group (`u32::MAX` keeps).
    chown(dir: Handle, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno>;
    /// Sets access and modification time: (seconds, nanoseconds or UTIME_*).
    set_times(dir: Handle, name: &[u8], times: [(i64, i64); 2]) -> Result<(), Errno>;
    /// Sets the length.
    truncate(h: Handle, len: u64) -> Result<(), Errno>;
    /// Allocates or punches (FALLOC_FL_*).
    allocate(h: Handle, mode: u32, offset: u64, len: u64) -> Result<(), Errno>;
    /// Flushes to storage.
    sync(h: Handle, data_only: bool) -> Result<(), Errno>;
    /// File-system status.
    statfs(h: Handle) -> Result<HostStatFs, Errno>;
    /// Gets an extended attribute.
    get_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<Vec<u8>, Errno>;
    /// Sets an extended attribute.
    set_xattr(dir: Handle, name: &[u8], attr: &[u8], value: &[u8], flags: u32) -> Result<(), Errno>;
    /// Lists attribute names, NUL-separated.
    list_xattr(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno>;
    /// Removes an extended attribute.
    remove_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<(), Errno>;
    /// Reads `linux_dirent64` records from the handle's position; 0 = end.
    read_dir(h: Handle, buf: &mut [u8]) -> Result<usize, Errno>;
    /// Moves the handle's position.
    seek(h: Handle, offset: i64, whence: u32) -> Result<u64, Errno>;
    /// Reads without blocking (EAGAIN); `None` = from the handle's position.
    read(h: Handle, dest: &mut Dest<'_>, offset: Option<u64>) -> Result<usize, Errno>;
    /// Writes without blocking (EAGAIN); `None` = at the handle's position.
    write(h: Handle, src: &mut Src<'_>, offset: Option<u64>, append: bool) -> Result<usize, Errno>;
    /// Looks at readiness now; returns how many items have `revents`.
    ready(items: &mut [PollItem]) -> Result<usize, Errno>;
    /// Parks until an item is ready, the thread is unparked (returns 0), or the deadline (returns 0).
    wait_ready(items: &mut [PollItem], deadline_ns: Option<u64>) -> Result<usize, Errno>;
    /// Adds, changes or removes an object of an epoll instance (EPOLL_CTL_*, EPOLL* events).
    epoll_ctl(epoll: Handle, op: u32, h: Handle, events: u32, data: u64) -> Result<(), Errno>;
    /// Parks as [`wait_ready`] until the epoll instance has events, and takes them; the deadline 0 only looks.
    epoll_wait(epoll: Handle, out: &mut [HostEvent], deadline_ns: Option<u64>) -> Result<usize, Errno>;
    /// Device control; `arg` goes in and comes back.
    ioctl(h: Handle, request: u32, arg: &mut [u8]) -> Result<u64, Errno>;
    /// Binds a socket.
    bind(h: Handle, addr: &[u8]) -> Result<(), Errno>;
    /// Starts to connect (EINPROGRESS).
    connect(h: Handle, addr: &[u8]) -> Result<(), Errno>;
    /// Listens.
    listen(h: Handle, backlog: u32) -> Result<(), Errno>;
    /// Sends a message without blocking.
    send_msg(h: Handle, addr: &[u8], control: &[u8], src: &mut Src<'_>, flags: u32) -> Result<usize, Errno>;
    /// Receives a message without blocking.
    recv_msg(h: Handle, dest: &mut Dest<'_>, control_room: usize, flags: u32) -> Result<Received, Errno>;
    /// Shuts a connection down.
    shutdown(h: Handle, how: u32) -> Result<(), Errno>;
    /// The socket's own address.
    sock_name(h: Handle) -> Result<Vec<u8>, Errno>;
    /// The peer's address.
    peer_name(h: Handle) -> Result<Vec<u8>, Errno>;
    /// Gets a socket option.
    get_sock_opt(h: Handle, level: u32, name: u32, room: usize) -> Result<Vec<u8>, Errno>;
    /// Sets a socket option.
    set_sock_opt(h: Handle, level: u32, name: u32, value: &[u8]) -> Result<(), Errno>;
    /// Waits for the next control message.
    control_recv() -> Result<MessageIn, Errno>;
    /// Sends an encoded [`qlib::control::Event`].
    control_send(event: &[u8]) -> Result<(), Errno>;
}

/// Opens `name` under `dir` (O_* flags; O_CLOEXEC and O_NONBLOCK are implied). Never follows a final symlink (ELOOP).
///
/// # Errors
/// As `openat(2)`.
pub fn open(dir: Handle, name: &[u8], flags: u32, mode: u32, owner: Owner) -> Result<HostFile, Errno> {
    machine!(HostService::open(dir, name, flags, mode, owner)).map(HostFile)
}

/// Makes an unnamed memory file, which can be mapped and sized.
///
/// # Errors
/// As `memfd_create(2)`.
pub fn mem_file(name: &[u8]) -> Result<HostFile, Errno> {
    machine!(HostService::mem_file(name)).map(HostFile)
}

/// Makes an epoll instance of the host, for machines where host objects can be watched that way.
///
/// # Errors
/// ENOSYS where they cannot: [`wait_ready`] does it there.
pub fn epoll_create() -> Result<HostFile, Errno> {
    machine!(HostService::epoll_create()).map(HostFile)
}

/// Opens a non-blocking socket in the network namespace of the container whose service channel `service` is;
/// [`Handle::NONE`] is the sandbox's own. A socket stays where it was made, so that nothing else asks for a service.
///
/// # Errors
/// As `socket(2)`; EIO when nobody serves the channel any more.
pub fn socket(service: Handle, domain: u32, kind: u32, protocol: u32) -> Result<HostFile, Errno> {
    machine!(HostService::socket(service, domain, kind, protocol)).map(HostFile)
}

/// Opens one of the host's texts about the sandbox, or about the container behind `service`, for reading.
///
/// # Errors
/// ENOENT where the host has none of that name; ENOSYS where nobody serves them; EIO as [`socket`].
pub fn system_file(service: Handle, group: SystemGroup, name: &str) -> Result<HostFile, Errno> {
    machine!(HostService::system_file(service, group, name.as_bytes())).map(HostFile)
}

/// Accepts a connection: the non-blocking socket and the peer's address.
///
/// # Errors
/// As `accept(2)`.
pub fn accept(h: Handle) -> Result<(HostFile, Vec<u8>), Errno> {
    machine!(HostService::accept(h)).map(|(h, a)| (HostFile(h), a))
}

/// Writes a log line to the host. Levels: 1 error … 5 trace.
pub fn log(level: u32, line: &[u8]) {
    machine!(HostService::log(level, line));
}
