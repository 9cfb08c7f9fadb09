//! Requests that bear a container's service channel: they are passed on over it, and completed when it answers. The workers
//! send, one thread takes what comes for all channels: a service that does not answer keeps only those waiting who asked it.

use super::service::{Service, held};
use crate::sandbox::socket;
use qlib::Errno;
use qlib::qcall::{HandleId, Reply, Request};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::mem::size_of;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes};

/// Requests that may be under way at one time; more are refused (ENOBUFS).
const MOST: usize = 256;
/// A service that has not answered after this time does not: EIO.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 10 });

/// A request that was passed on.
struct Pending {
    /// The guest's tag.
    tag: u64,
    /// Open, so that no other channel gets its number meanwhile.
    channel: Arc<OwnedFd>,
    deadline: Instant,
}

#[derive(Default)]
struct State {
    /// The last tag that was used on a channel.
    last: u64,
    pending: BTreeMap<u64, Pending>,
}

/// The requests under way.
pub struct Relay {
    state: Mutex<State>,
    /// Rung when there are more.
    bell: OwnedFd,
}

/// What a channel brought.
enum Came {
    /// The answer to the request of this tag.
    Answer(u64, Result<OwnedFd, Errno>),
    /// Nothing yet.
    Nothing,
    /// Its end, or something that is no answer.
    End,
}

impl Relay {
    /// Nothing is under way.
    ///
    /// # Errors
    /// The host's.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            bell: rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// Passes `r` on over `channel`. Never waits; the request is completed by [`Relay::run`].
    ///
    /// # Errors
    /// ENOTSOCK for what is no such channel; EIO when nobody serves it; ENOBUFS when it is full, or too much is under way.
    pub fn send(&self, r: &Request, channel: Arc<OwnedFd>, payload: &[u8]) -> Result<(), Errno> {
        let is_channel = socket_domain(&*channel) == Ok(AddressFamily::UNIX)
            && socket_type(&*channel) == Ok(SocketType::SEQPACKET);
        if !is_channel {
            return Err(Errno::ENOTSOCK);
        }
        let mut request = *r;
        (request.handle, request.handle2) = (HandleId::NONE, HandleId::NONE);
        request.data_len = payload.len() as u32;
        (request.data_addr, request.reply_cap, request.reserved) = (0, 0, 0);
        let mut state = held(&self.state);
        if state.pending.len() >= MOST {
            return Err(Errno::ENOBUFS);
        }
        state.last += 1;
        request.tag = state.last;
        let parts = [IoSlice::new(request.as_bytes()), IoSlice::new(payload)];
        match socket::send(&channel, &parts, &[], SendFlags::DONTWAIT) {
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => return Err(Errno::ENOBUFS),
            Err(_) => return Err(Errno::EIO),
        }
        let pending = Pending {
            tag: r.tag,
            channel,
            deadline: Instant::now() + PATIENCE,
        };
        state.pending.insert(request.tag, pending);
        drop(state);
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        Ok(())
    }

    /// The channels that are to answer, and the time until the first request of them is given up.
    fn waited_for(&self) -> (Vec<Arc<OwnedFd>>, Option<Duration>) {
        let state = held(&self.state);
        let channels: BTreeMap<RawFd, &Arc<OwnedFd>> = state
            .pending
            .values()
            .map(|p| (p.channel.as_raw_fd(), &p.channel))
            .collect();
        let first = state.pending.values().map(|p| p.deadline).min();
        (
            channels.into_values().cloned().collect(),
            first.map(|d| d.saturating_duration_since(Instant::now())),
        )
    }

    /// Takes the requests out that `which` is true of.
    fn take(&self, which: impl Fn(u64, &Pending) -> bool) -> Vec<Pending> {
        let mut state = held(&self.state);
        let tags: Vec<u64> = state
            .pending
            .iter()
            .filter(|(tag, p)| which(**tag, p))
            .map(|(tag, _)| *tag)
            .collect();
        tags.iter().filter_map(|t| state.pending.remove(t)).collect()
    }

    /// Completes requests of `service`'s guest as the answers come, for ever.
    pub fn run(&self, service: &Service) {
        loop {
            let (channels, patience) = self.waited_for();
            let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
            fds.extend(channels.iter().map(|c| PollFd::new(c, PollFlags::IN)));
            let timeout = patience.and_then(|p| Timespec::try_from(p).ok());
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Any other error would come at once for ever.
                Err(_) => return,
            }
            let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
            drop(fds);
            if ready[0] {
                let _ = rustix::io::read(&self.bell, &mut [0; 8]);
            }
            for (channel, _) in channels.iter().zip(&ready[1..]).filter(|(_, r)| **r) {
                self.answer(service, channel);
            }
            let now = Instant::now();
            for p in self.take(|_, p| p.deadline <= now) {
                service.complete(Reply::of(p.tag, Err(Errno::EIO)));
            }
        }
    }

    /// Takes one message from `channel`.
    fn answer(&self, service: &Service, channel: &Arc<OwnedFd>) {
        let of_channel = |p: &Pending| Arc::ptr_eq(&p.channel, channel);
        match came(channel) {
            Came::Nothing => {}
            // An answer that came too late has no request any more: what it brought is closed.
            Came::Answer(tag, result) => {
                let Some(p) = self.take(|t, p| t == tag && of_channel(p)).pop() else {
                    return;
                };
                let made = result.and_then(|fd| service.handles.insert(Arc::new(fd)));
                let mut reply = Reply::of(p.tag, made.map(|_| 0));
                reply.handle = made.unwrap_or(HandleId::NONE);
                service.complete(reply);
            }
            Came::End => {
                for p in self.take(|_, p| of_channel(p)) {
                    service.complete(Reply::of(p.tag, Err(Errno::EIO)));
                }
            }
        }
    }
}

/// What `channel` has.
fn came(channel: &OwnedFd) -> Came {
    let mut buffer = [0; size_of::<Reply>()];
    let got = match socket::receive(channel, &mut buffer, RecvFlags::DONTWAIT) {
        Ok(got) => got,
        Err(rustix::io::Errno::AGAIN) => return Came::Nothing,
        Err(_) => return Came::End,
    };
    let Ok(reply) = Reply::read_from_bytes(&buffer[..got.len]) else {
        return Came::End;
    };
    if got.truncated {
        return Came::End;
    }
    let made = got.fds.into_iter().next().ok_or(Errno::EIO);
    let result = Errno::from_ret(reply.result).and(made);
    Came::Answer(reply.tag, result)
}
