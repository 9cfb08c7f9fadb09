//! Life of a unix socket: bind, listen, connect, accept, shut down, release.

use super::{Phase, UnixSocket, cred_of, name};
use crate::net::{Patience, PeerCred, family, kind};
use crate::sched::wait::{Events, wait_until};
use crate::syscall::Ctx;
use crate::task::Task;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use qlib::Errno;

/// Largest backlog (`net.core.somaxconn`).
const MAX_BACKLOG: i32 = 4096;

impl UnixSocket {
    pub(super) fn do_bind(&self, ctx: &mut Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        {
            let s = self.state.lock();
            // Binding by family alone twice is fine, as Linux has it.
            if s.name.is_some() {
                return if addr.len() == 2 {
                    Ok(())
                } else {
                    Err(Errno::EINVAL)
                };
            }
        }
        let n = name::bind(ctx.task, addr, self)?;
        self.state.lock().name = Some(n);
        Ok(())
    }

    pub(super) fn do_listen(&self, cred: PeerCred, groups: Arc<Vec<u32>>, backlog: i32) -> Result<(), Errno> {
        if self.is_datagram() {
            return Err(Errno::EOPNOTSUPP);
        }
        // A negative backlog is a large one.
        let limit = if backlog < 0 {
            MAX_BACKLOG
        } else {
            backlog.min(MAX_BACKLOG)
        } as usize;
        {
            let mut s = self.state.lock();
            if s.name.is_none() {
                return Err(Errno::EINVAL);
            }
            match &mut s.phase {
                Phase::Listening { backlog, .. } => *backlog = limit,
                Phase::Idle => {
                    s.phase = Phase::Listening {
                        backlog: limit,
                        pending: VecDeque::new(),
                    }
                }
                _ => return Err(Errno::EINVAL),
            }
            s.peer_cred = Some(cred);
            s.peer_groups = groups;
        }
        self.queue.wake(Events::OUT);
        Ok(())
    }

    pub(super) fn do_connect(&self, task: &Task, addr: &[u8], patience: Patience) -> Result<(), Errno> {
        self.connect_as(cred_of(task), task.creds().groups.clone(), addr, patience)
    }

    /// Connects on behalf of somebody.
    pub(super) fn connect_as(
        &self,
        cred: PeerCred,
        groups: Arc<Vec<u32>>,
        addr: &[u8],
        patience: Patience,
    ) -> Result<(), Errno> {
        if addr.len() < 2 {
            return Err(Errno::EINVAL);
        }
        let unspecified = u16::from_ne_bytes([addr[0], addr[1]]) as u32 == family::UNSPEC;
        if self.is_datagram() {
            return self.connect_datagram(addr, unspecified);
        }
        {
            let mut s = self.state.lock();
            match s.phase {
                Phase::Idle => s.phase = Phase::Connecting,
                Phase::Connected => return Err(Errno::EISCONN),
                Phase::Connecting => return Err(Errno::EALREADY),
                Phase::Listening { .. } => return Err(Errno::EINVAL),
            }
        }
        let r = self.connect_stream(cred, groups, addr, patience);
        if r.is_err() {
            self.state.lock().phase = Phase::Idle;
        }
        r
    }

    fn connect_datagram(&self, addr: &[u8], unspecified: bool) -> Result<(), Errno> {
        let target = if unspecified {
            None
        } else {
            Some(name::find(&self.net, addr, kind::DGRAM)?)
        };
        if let Some(t) = &target {
            let s = t.state.lock();
            if let Some(p) = s.peer.upgrade()
                && !core::ptr::eq(&*p, self)
            {
                return Err(Errno::EPERM);
            }
        }
        let mut s = self.state.lock();
        s.phase = if target.is_some() {
            Phase::Connected
        } else {
            Phase::Idle
        };
        s.peer = target.map_or_else(Weak::new, |t| Arc::downgrade(&t));
        Ok(())
    }

    fn connect_stream(
        &self,
        cred: PeerCred,
        groups: Arc<Vec<u32>>,
        addr: &[u8],
        patience: Patience,
    ) -> Result<(), Errno> {
        let listener = name::find(&self.net, addr, self.kind)?;
        // As Linux: of the network of who connects.
        let server = UnixSocket::new(self.net.clone(), self.kind);
        {
            let mut s = server.state.lock();
            s.phase = Phase::Connected;
            s.peer = self.me.clone();
            s.peer_cred = Some(cred);
            s.peer_groups = groups;
        }
        let try_enter = || {
            let mut l = listener.state.lock();
            let (name, pass_cred) = (l.name.clone(), l.pass_cred);
            let Phase::Listening { backlog, pending } = &mut l.phase else {
                return Some(Err(Errno::ECONNREFUSED));
            };
            if pending.len() > *backlog {
                return None;
            }
            {
                // Nobody else knows the new socket yet: its lock is free.
                let mut s = server.state.lock();
                s.name = name;
                s.pass_cred = pass_cred;
            }
            pending.push_back(server.clone());
            let (cred, groups) = (l.peer_cred.clone(), l.peer_groups.clone());
            Some(Ok((cred, groups)))
        };
        let (cred, groups) = match try_enter() {
            Some(r) => r?,
            None if patience.nonblock => return Err(Errno::EAGAIN),
            None => wait_until(&listener.queue, Events::OUT, patience.deadline(), try_enter)
                .map_err(|e| patience.error(e, Errno::EAGAIN))??,
        };
        {
            let mut s = self.state.lock();
            s.peer = Arc::downgrade(&server);
            s.peer_cred = cred;
            s.peer_groups = groups;
            s.phase = Phase::Connected;
        }
        // The listener may have gone between the entry and now, and released the new socket.
        if server.state.lock().released {
            self.peer_gone(Some(Errno::ECONNRESET));
        }
        listener.queue.wake(Events::IN | Events::RDNORM);
        self.queue.wake(Events::OUT | Events::WRNORM);
        Ok(())
    }

    pub(super) fn do_accept(&self, patience: Patience) -> Result<Arc<UnixSocket>, Errno> {
        if self.is_datagram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let take = || {
            let mut s = self.state.lock();
            let shut = s.shut_read;
            match &mut s.phase {
                Phase::Listening { pending, .. } => match pending.pop_front() {
                    Some(p) => Some(Ok(p)),
                    None if shut => Some(Err(Errno::EINVAL)),
                    None => None,
                },
                _ => Some(Err(Errno::EINVAL)),
            }
        };
        let s = match take() {
            Some(r) => r?,
            None if patience.nonblock => return Err(Errno::EAGAIN),
            None => wait_until(&self.queue, Events::IN, patience.deadline(), take)
                .map_err(|e| patience.error(e, Errno::EAGAIN))??,
        };
        self.queue.wake(Events::OUT);
        Ok(s)
    }

    pub(super) fn do_shutdown(&self, how: u32) -> Result<(), Errno> {
        if how > 2 {
            return Err(Errno::EINVAL);
        }
        let (read, write) = (how != 1, how != 0);
        let peer = {
            let mut s = self.state.lock();
            let peer = s.peer.upgrade();
            s.shut_read |= read;
            s.shut_write |= write;
            peer
        };
        self.queue.wake_all();
        // Datagram sockets have no other end that would notice.
        if let Some(p) = peer
            && !self.is_datagram()
        {
            {
                let mut s = p.state.lock();
                s.shut_read |= write;
                s.shut_write |= read;
            }
            p.queue.wake_all();
        }
        Ok(())
    }

    /// The other end of a connection is gone.
    fn peer_gone(&self, error: Option<Errno>) {
        {
            let mut s = self.state.lock();
            s.shut_read = true;
            s.shut_write = true;
            s.error = s.error.or(error);
        }
        self.queue.wake_all();
    }

    pub(super) fn do_release(&self) {
        let (name, peer, unread, pending, blocked) = {
            let mut s = self.state.lock();
            s.released = true;
            s.shut_read = true;
            s.shut_write = true;
            let pending = match &mut s.phase {
                Phase::Listening { pending, .. } => core::mem::take(pending),
                _ => VecDeque::new(),
            };
            (
                s.name.take(),
                s.peer.upgrade(),
                s.inbox.clear(),
                pending,
                core::mem::take(&mut s.blocked),
            )
        };
        if let Some(n) = name
            && self.owns(&n)
        {
            name::release(&n);
        }
        if let Some(p) = peer
            && !self.is_datagram()
        {
            p.peer_gone((!unread.is_empty()).then_some(Errno::ECONNRESET));
        }
        // Connections that nobody accepted are reset.
        for p in pending {
            let client = p.peer();
            p.do_release();
            if let Some(c) = client {
                c.peer_gone(Some(Errno::ECONNRESET));
            }
        }
        for b in blocked.iter().filter_map(Weak::upgrade) {
            b.queue.wake_all();
        }
        self.queue.wake_all();
        // Files that were under way close here, with no lock held.
        drop(unread);
        super::garbage::closed(self);
    }

    /// Whether the name is this socket's own: accepted sockets show their listener's.
    fn owns(&self, n: &Arc<name::Name>) -> bool {
        name::is_owner(n, self)
    }
}
