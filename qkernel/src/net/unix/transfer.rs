//! Sending and receiving on unix sockets.

use super::inbox::{Message, Rights};
use super::{Phase, UnixSocket, ancillary};
use crate::fs::pipe_buffer::Chunk;
use crate::net::{Control, Outgoing, Patience, PeerCred, Received, kind, msg};
use crate::sched::wait::{Events, wait_until};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::host::{Dest, Src};
use qlib::Errno;

/// Bytes a stream puts into one message.
const STREAM_CHUNK: usize = 65536;

/// What one look into an inbox gave.
struct Taken {
    chunks: Vec<Chunk>,
    rights: Option<Rights>,
    cred: PeerCred,
    from: Option<Arc<super::name::Name>>,
    /// Length of the whole message (datagrams).
    total: usize,
}

impl UnixSocket {
    pub(super) fn do_send(
        &self,
        src: &mut Src<'_>,
        out: &Outgoing<'_>,
        patience: Patience,
    ) -> Result<usize, Errno> {
        if out.flags & msg::OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let given = ancillary::parse(out.control)?;
        if self.is_datagram() {
            return self.send_datagram(src, out, given, patience);
        }
        if out.addr.is_some_and(|a| !a.is_empty()) {
            let connected = matches!(self.state.lock().phase, Phase::Connected);
            return Err(if connected {
                Errno::EISCONN
            } else {
                Errno::EOPNOTSUPP
            });
        }
        let mut rights = Rights::send(given.rights)?;
        let mut done = 0;
        let packet = self.kind == kind::SEQPACKET;
        if packet && src.remaining() > self.state.lock().send_buffer {
            return Err(Errno::EMSGSIZE);
        }
        if !packet && src.remaining() == 0 {
            self.connected_peer()?;
            return Ok(0);
        }
        let mut deadline = None;
        while src.remaining() > 0 || packet && done == 0 {
            let limit = if packet { usize::MAX } else { STREAM_CHUNK };
            let data = match Chunk::read_from(src, limit, packet) {
                Ok(c) => c,
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            };
            let len = data.len();
            let mut message = Some(Message {
                data,
                rights: core::mem::take(&mut rights),
                cred: given.cred.clone(),
                from: None,
            });
            let mut push = || self.try_push(&mut message);
            let r = match push() {
                Some(r) => r,
                None if patience.nonblock => Err(Errno::EAGAIN),
                None => {
                    if deadline.is_none() {
                        deadline = patience.deadline();
                    }
                    wait_until(&self.queue, Events::OUT, deadline, push)
                        .unwrap_or_else(|e| Err(patience.error(e, Errno::EAGAIN)))
                }
            };
            match r {
                Ok(()) => done += len,
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
            if packet {
                break;
            }
        }
        Ok(done)
    }

    fn connected_peer(&self) -> Result<Arc<UnixSocket>, Errno> {
        let s = self.state.lock();
        if s.shut_write {
            return Err(Errno::EPIPE);
        }
        match s.phase {
            Phase::Connected => s.peer.upgrade().ok_or(Errno::EPIPE),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Puts a message into the peer's inbox; `None` = no room.
    fn try_push(&self, message: &mut Option<Message>) -> Option<Result<(), Errno>> {
        let send_buffer = {
            let mut s = self.state.lock();
            if let Some(e) = s.error.take() {
                return Some(Err(e));
            }
            s.send_buffer
        };
        let peer = match self.connected_peer() {
            Ok(p) => p,
            Err(e) => return Some(Err(e)),
        };
        {
            let mut p = peer.state.lock();
            if p.shut_read || p.released {
                return Some(Err(Errno::EPIPE));
            }
            if p.inbox.charge() >= send_buffer {
                return None;
            }
            if let Some(m) = message.take() {
                peer.put(&mut p, m);
            }
        }
        peer.queue.wake(Events::IN | Events::RDNORM);
        Some(Ok(()))
    }

    fn send_datagram(
        &self,
        src: &mut Src<'_>,
        out: &Outgoing<'_>,
        given: ancillary::Given,
        patience: Patience,
    ) -> Result<usize, Errno> {
        let named = match out.addr {
            Some(a) if !a.is_empty() => Some(super::name::find(&self.net, a, kind::DGRAM)?),
            _ => None,
        };
        let (from, send_buffer) = {
            let mut s = self.state.lock();
            if let Some(e) = s.error.take() {
                return Err(e);
            }
            if s.shut_write {
                return Err(Errno::EPIPE);
            }
            (s.name.clone(), s.send_buffer)
        };
        if src.remaining() > send_buffer.saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        let to_peer = named.is_none();
        let target = match named {
            Some(t) => t,
            None => {
                let s = self.state.lock();
                match (s.peer.upgrade(), &s.phase) {
                    (Some(p), _) => p,
                    (None, Phase::Connected) => return Err(Errno::ECONNREFUSED),
                    (None, _) => return Err(Errno::ENOTCONN),
                }
            }
        };
        let data = Chunk::read_from(src, usize::MAX, true)?;
        let len = data.len();
        let mut message = Some(Message {
            data,
            rights: Rights::send(given.rights)?,
            cred: given.cred.clone(),
            from,
        });
        let mut push = || {
            let mut t = target.state.lock();
            if t.released {
                return Some(Err(Errno::ECONNREFUSED));
            }
            if t.shut_read {
                return Some(Err(Errno::EPIPE));
            }
            // A connected socket hears its peer only.
            if let Some(p) = t.peer.upgrade()
                && !core::ptr::eq(&*p, self)
            {
                return Some(Err(Errno::EPERM));
            }
            if t.inbox.len() > super::MAX_DATAGRAMS {
                if !t.blocked.iter().any(|b| core::ptr::eq(b.as_ptr(), self)) {
                    t.blocked.push(self.me.clone());
                }
                return None;
            }
            if let Some(m) = message.take() {
                target.put(&mut t, m);
            }
            Some(Ok(()))
        };
        let r = match push() {
            Some(r) => r,
            None if patience.nonblock => Err(Errno::EAGAIN),
            None => wait_until(&self.queue, Events::OUT, patience.deadline(), push)
                .unwrap_or_else(|e| Err(patience.error(e, Errno::EAGAIN))),
        };
        if to_peer && r == Err(Errno::ECONNREFUSED) {
            self.state.lock().peer = alloc::sync::Weak::new();
        }
        r?;
        target.queue.wake(Events::IN | Events::RDNORM);
        Ok(len)
    }

    pub(super) fn do_receive(
        &self,
        dst: &mut Dest<'_>,
        flags: u32,
        patience: Patience,
    ) -> Result<Received, Errno> {
        if flags & (msg::OOB | msg::ERRQUEUE) != 0 {
            return Err(if flags & msg::OOB != 0 {
                Errno::EINVAL
            } else {
                Errno::EAGAIN
            });
        }
        let stream = self.kind == kind::STREAM;
        let mut got = Received::default();
        let mut deadline = None;
        loop {
            let want = dst.remaining();
            let peek = flags & msg::PEEK != 0;
            let look = || self.try_take(want, peek, stream);
            let taken = match look() {
                Some(t) => t,
                None if patience.nonblock => Err(Errno::EAGAIN),
                None => {
                    if deadline.is_none() {
                        deadline = patience.deadline();
                    }
                    wait_until(&self.queue, Events::IN, deadline, look)
                        .unwrap_or_else(|e| Err(patience.error(e, Errno::EAGAIN)))
                }
            };
            let taken = match taken {
                Ok(Some(t)) => t,
                Ok(None) => return Ok(got),
                Err(_) if got.len > 0 => return Ok(got),
                Err(e) => return Err(e),
            };
            if !peek {
                self.wake_senders();
            }
            let had_rights = taken.rights.as_ref().is_some_and(|r| !r.is_empty());
            let stop = self.store(dst, taken, &mut got, flags, peek)?;
            let all = stream && flags & msg::WAITALL != 0 && !peek && !had_rights;
            if stop || !all || dst.remaining() == 0 {
                return Ok(got);
            }
        }
    }

    /// Stores what was taken; `true` = a fault or a border ends the call.
    fn store(
        &self,
        dst: &mut Dest<'_>,
        taken: Taken,
        got: &mut Received,
        flags: u32,
        peek: bool,
    ) -> Result<bool, Errno> {
        let stream = self.kind == kind::STREAM;
        let mut stored = 0;
        let mut chunks = taken.chunks.into_iter();
        let mut fault = None;
        while let Some(mut c) = chunks.next() {
            let r = dst.put(c.bytes());
            let n = *r.as_ref().unwrap_or(&0);
            stored += n;
            if n < c.len() && (stream || r.is_err()) {
                fault = r.err().or(Some(Errno::EFAULT));
                if stream && !peek {
                    c.skip(n);
                    let mut s = self.state.lock();
                    let left: Vec<Chunk> = core::iter::once(c).chain(chunks).collect();
                    for data in left.into_iter().rev() {
                        s.inbox.give_back(Message {
                            data,
                            rights: Rights::default(),
                            cred: taken.cred.clone(),
                            from: taken.from.clone(),
                        });
                    }
                }
                break;
            }
        }
        if stored == 0
            && let Some(e) = fault
        {
            return if got.len > 0 { Ok(true) } else { Err(e) };
        }
        got.len += stored;
        if !stream && taken.total > stored {
            got.flags |= msg::TRUNC;
            if flags & msg::TRUNC != 0 {
                got.len = taken.total;
            }
        }
        if self.kind == kind::SEQPACKET {
            got.flags |= msg::EOR;
        }
        if let Some(from) = &taken.from {
            got.addr = from.to_sockaddr();
        }
        if self.state.lock().pass_cred {
            got.control.cred.get_or_insert(taken.cred);
        }
        if let Some(r) = taken.rights {
            let files = if peek { r.copy() } else { r.arrive() };
            if got.control.rights.is_empty() {
                got.control = Control {
                    rights: files,
                    ..core::mem::take(&mut got.control)
                };
            }
        }
        Ok(fault.is_some())
    }

    /// Takes what one call may get; `None` = nothing there yet, `Ok(None)` = the end.
    fn try_take(&self, want: usize, peek: bool, stream: bool) -> Option<Result<Option<Taken>, Errno>> {
        let mut s = self.state.lock();
        let Some(first) = s.inbox.front() else {
            if let Some(e) = s.error.take() {
                return Some(Err(e));
            }
            if s.shut_read {
                return Some(Ok(None));
            }
            if !self.is_datagram() && !matches!(s.phase, Phase::Connected) {
                return Some(Err(if stream { Errno::EINVAL } else { Errno::ENOTCONN }));
            }
            return None;
        };
        let mut taken = Taken {
            chunks: Vec::new(),
            rights: None,
            cred: first.cred.clone(),
            from: first.from.clone(),
            total: first.data.len(),
        };
        if !stream {
            if peek {
                taken.chunks.push(first.data.clone());
                taken.rights = Some(Rights::new(first.rights.copy()).unwrap_or_default());
            } else if let Some(m) = s.inbox.pop() {
                taken.chunks.push(m.data);
                taken.rights = Some(m.rights);
            }
            return Some(Ok(Some(taken)));
        }
        if want == 0 {
            return Some(Ok(Some(taken)));
        }
        if peek {
            self.peek_stream(&s, want, &mut taken);
            return Some(Ok(Some(taken)));
        }
        let pass_cred = s.pass_cred;
        let mut left = want;
        while left > 0 {
            let Some(m) = s.inbox.front() else { break };
            let more = !taken.chunks.is_empty();
            // Files mark a border: they come with the first byte of their own message.
            let border = !m.rights.is_empty() || pass_cred && m.cred != taken.cred;
            if more && border {
                break;
            }
            let Some((chunk, rights)) = s.inbox.take_bytes(left) else {
                break;
            };
            left -= chunk.len();
            taken.chunks.push(chunk);
            if !rights.is_empty() {
                taken.rights = Some(rights);
                break;
            }
        }
        Some(Ok(Some(taken)))
    }

    fn peek_stream(&self, s: &super::State, want: usize, taken: &mut Taken) {
        let mut left = want;
        for m in s.inbox.iter() {
            let border = !m.rights.is_empty() || s.pass_cred && m.cred != taken.cred;
            if left == 0 || !taken.chunks.is_empty() && border {
                break;
            }
            let part = m.data.clone().split_front(left);
            left -= part.len();
            taken.chunks.push(part);
            if !m.rights.is_empty() {
                taken.rights = Some(Rights::new(m.rights.copy()).unwrap_or_default());
                break;
            }
        }
    }
}
