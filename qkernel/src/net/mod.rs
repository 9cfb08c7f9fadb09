//! Sockets: what every kind can do, who makes which, and the open file around one.
//!
//! Families come from providers, so that one family can be carried by more than one of them: today unix sockets are the
//! kernel's own and the others are the host's.

pub mod cmsg;
pub mod diag;
pub mod file;
pub mod host;
pub mod options;
pub mod tables;
pub mod unix;

pub use file::SocketFile;

use crate::fs::file::{File, PollSource};
use crate::ns::pid::Pid;
use crate::sched::wait::{Events, WaitError};
use crate::syscall::Ctx;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{Dest, Src};
use qlib::Errno;

/// Address families.
#[allow(missing_docs)]
pub mod family {
    pub const UNSPEC: u32 = 0;
    pub const UNIX: u32 = 1;
    pub const INET: u32 = 2;
    pub const INET6: u32 = 10;
    pub const NETLINK: u32 = 16;
    pub const PACKET: u32 = 17;
}

/// Socket types (SOCK_*).
#[allow(missing_docs)]
pub mod kind {
    pub const STREAM: u32 = 1;
    pub const DGRAM: u32 = 2;
    pub const RAW: u32 = 3;
    pub const SEQPACKET: u32 = 5;
}

/// MSG_* flags.
#[allow(missing_docs)]
pub mod msg {
    pub const OOB: u32 = 1;
    pub const PEEK: u32 = 2;
    pub const DONTROUTE: u32 = 4;
    pub const CTRUNC: u32 = 8;
    pub const TRUNC: u32 = 0x20;
    pub const DONTWAIT: u32 = 0x40;
    pub const EOR: u32 = 0x80;
    pub const WAITALL: u32 = 0x100;
    pub const ERRQUEUE: u32 = 0x2000;
    pub const NOSIGNAL: u32 = 0x4000;
    pub const WAITFORONE: u32 = 0x10000;
    pub const CMSG_CLOEXEC: u32 = 0x4000_0000;
}

/// How long an operation may block.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Not at all.
    pub nonblock: bool,
    /// SO_RCVTIMEO or SO_SNDTIMEO, ns; `None` = for ever.
    pub timeout_ns: Option<u64>,
}

impl Patience {
    /// The deadline of an operation that starts now.
    pub fn deadline(&self) -> Option<u64> {
        self.timeout_ns
            .map(|t| hal::clock::monotonic_ns().saturating_add(t))
    }
    /// The error of a wait that failed. With a timeout the call is not restarted after a signal. Source: `signal(7)`.
    pub fn error(&self, e: WaitError, timeout: Errno) -> Errno {
        match e {
            WaitError::TimedOut => timeout,
            WaitError::Interrupted if self.timeout_ns.is_some() => Errno::EINTR,
            WaitError::Interrupted => Errno::ERESTARTSYS,
        }
    }
}

/// Who sent a message or is at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCred {
    /// Process.
    pub pid: Pid,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Control data of a message that was received.
#[derive(Default)]
pub struct Control {
    /// Bytes of the host's own protocols, passed on as they are.
    pub raw: Vec<u8>,
    /// Open files (SCM_RIGHTS).
    pub rights: Vec<Arc<File>>,
    /// The sender (SCM_CREDENTIALS).
    pub cred: Option<PeerCred>,
}

/// A message that was received.
#[derive(Default)]
pub struct Received {
    /// Bytes stored, or the message's real length with MSG_TRUNC.
    pub len: usize,
    /// MSG_* of the result.
    pub flags: u32,
    /// The sender's address; empty = none.
    pub addr: Vec<u8>,
    /// Control data.
    pub control: Control,
}

/// A message to send.
pub struct Outgoing<'a> {
    /// Destination; `None` = the peer.
    pub addr: Option<&'a [u8]>,
    /// Control data as the app gave it.
    pub control: &'a [u8],
    /// MSG_* flags.
    pub flags: u32,
}

/// What a socket can do. Blocking calls obey their [`Patience`].
pub trait Socket: Any + Send + Sync {
    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
    /// SOCK_* type.
    fn kind(&self) -> u32;
    /// Binds.
    fn bind(&self, ctx: &mut Ctx<'_>, addr: &[u8]) -> Result<(), Errno>;
    /// Connects.
    fn connect(&self, ctx: &mut Ctx<'_>, addr: &[u8], patience: Patience) -> Result<(), Errno>;
    /// Listens.
    fn listen(&self, ctx: &mut Ctx<'_>, backlog: i32) -> Result<(), Errno>;
    /// Accepts a connection: the socket and the peer's address.
    fn accept(&self, patience: Patience) -> Result<(Arc<dyn Socket>, Vec<u8>), Errno>;
    /// The socket's own address.
    fn name(&self) -> Result<Vec<u8>, Errno>;
    /// The peer's address.
    fn peer_name(&self) -> Result<Vec<u8>, Errno>;
    /// Sends.
    fn send(&self, src: &mut Src<'_>, out: &Outgoing<'_>, patience: Patience) -> Result<usize, Errno>;
    /// Receives.
    fn receive(
        &self,
        dst: &mut Dest<'_>,
        flags: u32,
        control_room: usize,
        patience: Patience,
    ) -> Result<Received, Errno>;
    /// Shuts directions down: 0 receiving, 1 sending, 2 both.
    fn shutdown(&self, how: u32) -> Result<(), Errno>;
    /// Gets an option; `room` bounds the answer.
    fn get_option(&self, ctx: &mut Ctx<'_>, level: u32, name: u32, room: usize) -> Result<Vec<u8>, Errno>;
    /// Sets an option.
    fn set_option(&self, ctx: &mut Ctx<'_>, level: u32, name: u32, value: &[u8]) -> Result<(), Errno>;
    /// Device control.
    fn ioctl(&self, ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno>;
    /// Readiness now.
    fn poll(&self) -> Events;
    /// How readiness changes are told.
    fn poll_source(&self) -> PollSource<'_>;
    /// Inode number of the host's socket behind it, if there is one.
    fn host_ino(&self) -> Option<u64> {
        None
    }
    /// The last descriptor was closed.
    fn release(&self) {}
}

/// Makes sockets of some families.
pub trait SocketProvider: Sync {
    /// Whether it carries the protocol of the family.
    fn carries(&self, family: u32, protocol: u32) -> bool;
    /// Makes a socket.
    ///
    /// # Errors
    /// As `socket(2)`.
    fn create(&self, creds: &Creds, family: u32, kind: u32, protocol: u32) -> Result<Arc<dyn Socket>, Errno>;
}

/// The providers, in the order they are asked.
static PROVIDERS: [&dyn SocketProvider; 3] = [&unix::UnixProvider, &diag::DiagProvider, &host::HostProvider];

/// Makes a socket.
///
/// # Errors
/// As `socket(2)`.
pub fn create(creds: &Creds, family: u32, kind: u32, protocol: u32) -> Result<Arc<dyn Socket>, Errno> {
    let provider = PROVIDERS.iter().find(|p| p.carries(family, protocol));
    provider
        .ok_or(Errno::EAFNOSUPPORT)?
        .create(creds, family, kind, protocol)
}
