//! Unix sockets. Source: `unix(7)`, Linux `net/unix/af_unix.c`.
//!
//! A socket owns the queue of messages sent *to* it. Two sockets know each other by weak references; no two sockets'
//! locks are held at once.

pub mod ancillary;
pub mod connect;
mod garbage;
pub mod inbox;
pub mod name;
pub mod options;
mod path;
pub mod transfer;

use super::{Outgoing, Patience, PeerCred, Received, Socket, SocketProvider, family, kind};
use crate::fs::file::PollSource;
use crate::ns::net::{self, NetNs};
use crate::sched::wait::{Events, WaitQueue};
use crate::syscall::Ctx;
use crate::task::Task;
use crate::task::creds::Creds;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{Dest, Src};
use hal::sync::SpinLock;
use inbox::Inbox;
use name::Name;
use qlib::Errno;

/// Default SO_SNDBUF and SO_RCVBUF (`net.core.wmem_default`).
pub const DEFAULT_BUFFER: usize = 212_992;
/// Datagrams that may wait in a socket (`net.unix.max_dgram_qlen`).
pub const MAX_DATAGRAMS: usize = 10;

/// Makes unix sockets.
pub struct UnixProvider;

impl SocketProvider for UnixProvider {
    fn carries(&self, f: u32, _protocol: u32) -> bool {
        f == family::UNIX
    }

    fn create(&self, _creds: &Creds, _f: u32, k: u32, protocol: u32) -> Result<Arc<dyn Socket>, Errno> {
        if protocol != 0 && protocol != family::UNIX {
            return Err(Errno::EPROTONOSUPPORT);
        }
        // As Linux: a raw unix socket is a datagram socket.
        let k = match k {
            kind::STREAM | kind::DGRAM | kind::SEQPACKET => k,
            kind::RAW => kind::DGRAM,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        Ok(UnixSocket::new(net::current(), k))
    }
}

/// What a connection-oriented socket is doing.
pub(super) enum Phase {
    /// Not connected yet; datagram sockets stay here.
    Idle,
    /// `connect` is under way.
    Connecting,
    /// Waits for connections.
    Listening {
        backlog: usize,
        /// Server ends that nobody accepted yet.
        pending: VecDeque<Arc<UnixSocket>>,
    },
    /// Has or had a peer.
    Connected,
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) name: Option<Arc<Name>>,
    pub(super) peer: Weak<UnixSocket>,
    pub(super) inbox: Inbox,
    /// Datagram senders that found the inbox full.
    pub(super) blocked: Vec<Weak<UnixSocket>>,
    /// Nothing more comes in.
    pub(super) shut_read: bool,
    /// Nothing more goes out.
    pub(super) shut_write: bool,
    /// The last descriptor is closed.
    pub(super) released: bool,
    pub(super) error: Option<Errno>,
    pub(super) peer_cred: Option<PeerCred>,
    pub(super) peer_groups: Arc<Vec<u32>>,
    pub(super) pass_cred: bool,
    pub(super) send_buffer: usize,
    pub(super) receive_buffer: usize,
}

/// A unix socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    /// Where abstract names are looked up.
    net: Arc<NetNs>,
    kind: u32,
    state: SpinLock<State>,
    queue: WaitQueue,
}

/// A task as the other end of a connection sees it.
pub(super) fn cred_of(task: &Task) -> PeerCred {
    let c = task.creds();
    PeerCred {
        pid: task.process.numbers.clone(),
        uid: c.euid,
        gid: c.egid,
    }
}

fn current_cred() -> (PeerCred, Arc<Vec<u32>>) {
    match crate::task::current() {
        Some(t) => (cred_of(&t), t.creds().groups.clone()),
        None => Default::default(),
    }
}

/// A unix socket as `/proc/net/unix` shows it.
pub struct Summary {
    /// SOCK_* type.
    pub kind: u32,
    /// It waits for connections.
    pub listening: bool,
    /// It has or had a peer.
    pub connected: bool,
    /// `sun_path`; empty without a name.
    pub path: Vec<u8>,
}

impl UnixSocket {
    /// What `/proc/net/unix` shows.
    pub fn summary(&self) -> Summary {
        let s = self.state.lock();
        Summary {
            kind: self.kind,
            listening: matches!(s.phase, Phase::Listening { .. }),
            connected: matches!(s.phase, Phase::Connected),
            path: s.name.as_ref().map_or_else(Vec::new, |n| n.path().to_vec()),
        }
    }
    /// The network it was made in.
    pub fn net(&self) -> &Arc<NetNs> {
        &self.net
    }
    /// A socket of `net` without name and peer.
    pub fn new(net: Arc<NetNs>, kind: u32) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            net,
            kind,
            state: SpinLock::new(State {
                phase: Phase::Idle,
                name: None,
                peer: Weak::new(),
                inbox: Inbox::default(),
                blocked: Vec::new(),
                shut_read: false,
                shut_write: false,
                released: false,
                error: None,
                peer_cred: None,
                peer_groups: Arc::default(),
                pass_cred: false,
                send_buffer: DEFAULT_BUFFER,
                receive_buffer: DEFAULT_BUFFER,
            }),
            queue: WaitQueue::new(),
        })
    }

    /// Two connected sockets of the calling task's network.
    pub fn pair(kind: u32) -> (Arc<Self>, Arc<Self>) {
        let net = net::current();
        let (a, b) = (Self::new(net.clone(), kind), Self::new(net, kind));
        let (cred, groups) = current_cred();
        for (x, y) in [(&a, &b), (&b, &a)] {
            let mut s = x.state.lock();
            s.peer = Arc::downgrade(y);
            s.peer_cred = Some(cred.clone());
            s.peer_groups = groups.clone();
            s.phase = Phase::Connected;
        }
        (a, b)
    }

    /// Puts a message into this socket's inbox, whose lock the caller holds.
    pub(super) fn put(&self, state: &mut State, m: inbox::Message) {
        if m.rights.sockets().next().is_some() {
            garbage::holds(self);
        }
        state.inbox.push(m);
    }

    pub(super) fn is_datagram(&self) -> bool {
        self.kind == kind::DGRAM
    }

    pub(super) fn peer(&self) -> Option<Arc<UnixSocket>> {
        self.state.lock().peer.upgrade()
    }

    /// Tells the senders that wait for room here.
    fn wake_senders(&self) {
        let (peer, blocked) = {
            let mut s = self.state.lock();
            (s.peer.upgrade(), core::mem::take(&mut s.blocked))
        };
        if self.is_datagram() {
            for b in blocked.iter().filter_map(Weak::upgrade) {
                b.queue.wake(Events::OUT | Events::WRNORM);
            }
        } else if let Some(p) = peer {
            p.queue.wake(Events::OUT | Events::WRNORM);
        }
    }

    /// Whether a message could be sent to this socket; a datagram sender that finds it full is remembered.
    fn has_room(&self, sender: &UnixSocket, send_buffer: usize) -> bool {
        let mut s = self.state.lock();
        if !self.is_datagram() {
            // As Linux: writable while at most a quarter is in use.
            return s.inbox.charge() * 4 <= send_buffer;
        }
        if s.inbox.len() <= MAX_DATAGRAMS {
            return true;
        }
        if !s.blocked.iter().any(|b| core::ptr::eq(b.as_ptr(), sender)) {
            s.blocked.push(sender.me.clone());
        }
        false
    }
}

impl Socket for UnixSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn kind(&self) -> u32 {
        self.kind
    }
    fn bind(&self, ctx: &mut Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        self.do_bind(ctx, addr)
    }
    fn connect(&self, ctx: &mut Ctx<'_>, addr: &[u8], patience: Patience) -> Result<(), Errno> {
        self.do_connect(ctx.task, addr, patience)
    }
    fn listen(&self, ctx: &mut Ctx<'_>, backlog: i32) -> Result<(), Errno> {
        let cred = cred_of(ctx.task);
        self.do_listen(cred, ctx.task.creds().groups.clone(), backlog)
    }
    fn accept(&self, patience: Patience) -> Result<(Arc<dyn Socket>, Vec<u8>), Errno> {
        let s = self.do_accept(patience)?;
        let peer = s.peer_name().unwrap_or_else(|_| Name::unnamed());
        Ok((s, peer))
    }
    fn name(&self) -> Result<Vec<u8>, Errno> {
        Ok(match &self.state.lock().name {
            Some(n) => n.to_sockaddr(),
            None => Name::unnamed(),
        })
    }
    fn peer_name(&self) -> Result<Vec<u8>, Errno> {
        self.peer().ok_or(Errno::ENOTCONN)?.name()
    }
    fn send(&self, src: &mut Src<'_>, out: &Outgoing<'_>, patience: Patience) -> Result<usize, Errno> {
        self.do_send(src, out, patience)
    }
    fn receive(
        &self,
        dst: &mut Dest<'_>,
        flags: u32,
        _control_room: usize,
        patience: Patience,
    ) -> Result<Received, Errno> {
        self.do_receive(dst, flags, patience)
    }
    fn shutdown(&self, how: u32) -> Result<(), Errno> {
        self.do_shutdown(how)
    }
    fn get_option(&self, ctx: &mut Ctx<'_>, level: u32, name: u32, room: usize) -> Result<Vec<u8>, Errno> {
        self.do_get_option(ctx, level, name, room)
    }
    fn set_option(&self, _ctx: &mut Ctx<'_>, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        self.do_set_option(level, name, value)
    }
    fn ioctl(&self, ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        match self.do_ioctl(request, arg) {
            Err(Errno::ENOTTY) => crate::net::host::interface_ioctl(ctx, &self.net, request, arg),
            r => r,
        }
    }

    fn poll(&self) -> Events {
        let (mut e, peer, send_buffer) = {
            let s = self.state.lock();
            let mut e = Events::empty();
            if s.error.is_some() {
                e |= Events::ERR;
            }
            if let Phase::Listening { pending, .. } = &s.phase {
                if !pending.is_empty() {
                    e |= Events::IN | Events::RDNORM;
                }
                return e;
            }
            if !s.inbox.is_empty() || s.shut_read {
                e |= Events::IN | Events::RDNORM;
            }
            if s.shut_read {
                e |= Events::RDHUP;
            }
            let idle = !self.is_datagram() && !matches!(s.phase, Phase::Connected);
            if s.shut_read && s.shut_write || idle {
                e |= Events::HUP;
            }
            (e, s.peer.upgrade(), s.send_buffer)
        };
        if peer.is_none_or(|p| p.has_room(self, send_buffer)) {
            e |= Events::OUT | Events::WRNORM | Events::WRBAND;
        }
        e
    }

    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.queue)
    }

    fn release(&self) {
        self.do_release();
    }
}

#[cfg(test)]
mod tests;
