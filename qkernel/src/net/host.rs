//! Sockets of the host's network: inet, inet6 and netlink, each in the network it was made in.
//!
//! They never block in the host: a call is tried, and where the app may wait the thread parks until the host says ready.

use super::{Control, Outgoing, Patience, Received, Socket, SocketProvider, family, kind, msg};
use crate::fs::file::PollSource;
use crate::fs::poll::{host_ready, wait_host};
use crate::fs::proc::sysctl;
use crate::ns::net::{self, NetNs};
use crate::sched::wait::Events;
use crate::syscall::Ctx;
use crate::task::creds::{Creds, cap};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicI64, Ordering};
use hal::host::{self, Dest, HostFile, Src};
use hal::user::{UserPtr, UserSlice};
use qlib::Errno;
use qlib::qcall::MAX_DATA;

/// Makes sockets of the host.
pub struct HostProvider;

impl SocketProvider for HostProvider {
    fn carries(&self, f: u32, _protocol: u32) -> bool {
        matches!(f, family::INET | family::INET6 | family::NETLINK | family::PACKET)
    }

    fn create(&self, creds: &Creds, f: u32, k: u32, protocol: u32) -> Result<Arc<dyn Socket>, Errno> {
        // The host's filter ends the sandbox on any other kind: what it forbids must be refused here.
        const NETLINK_ROUTE: u32 = 0;
        let net = net::current();
        match (f, k) {
            (family::NETLINK, _) if protocol != NETLINK_ROUTE => return Err(Errno::EPROTONOSUPPORT),
            (family::NETLINK, kind::RAW | kind::DGRAM) => {}
            (family::INET | family::INET6, kind::STREAM | kind::DGRAM) => {}
            (family::PACKET, _) | (_, kind::RAW) if !creds.capable_in(&net.owner, cap::NET_RAW) => {
                return Err(Errno::EPERM);
            }
            (family::PACKET, _) => return Err(Errno::EAFNOSUPPORT),
            (family::INET | family::INET6, kind::RAW) => {}
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        }
        let host = net.socket(f, k, protocol)?;
        Ok(Arc::new(HostSocket::new(net, host, k)))
    }
}

/// Interface queries (SIOCGIF*) on sockets of other families: any inet socket of their network answers them.
///
/// # Errors
/// As `netdevice(7)`; ENOTTY for other requests.
pub fn interface_ioctl(ctx: &mut Ctx<'_>, net: &Arc<NetNs>, request: u32, arg: u64) -> Result<u64, Errno> {
    if !(0x8900..=0x89ff).contains(&request) {
        return Err(Errno::ENOTTY);
    }
    let host = net.socket(family::INET, kind::DGRAM, 0)?;
    HostSocket::new(net.clone(), host, kind::DGRAM).ioctl(ctx, request, arg)
}

/// The port of an inet or inet6 address; `None` for others, and for the port 0, which is any.
fn port(addr: &[u8]) -> Option<u16> {
    let family = u16::from_ne_bytes([*addr.first()?, *addr.get(1)?]);
    if !matches!(u32::from(family), family::INET | family::INET6) {
        return None;
    }
    let port = u16::from_be_bytes([*addr.get(2)?, *addr.get(3)?]);
    (port != 0).then_some(port)
}

/// A socket of the host.
pub struct HostSocket {
    net: Arc<NetNs>,
    host: HostFile,
    kind: u32,
    /// As given to `listen(2)`, if it was.
    backlog: AtomicI64,
}

impl HostSocket {
    /// Takes over a socket the host gave, which is in `net`.
    pub fn new(net: Arc<NetNs>, host: HostFile, kind: u32) -> Self {
        Self {
            net,
            host,
            kind,
            backlog: AtomicI64::new(-1),
        }
    }

    /// The network it is in.
    pub fn net(&self) -> &Arc<NetNs> {
        &self.net
    }

    /// Whether it takes no IPv4: IPV6_V6ONLY.
    pub fn v6_only(&self) -> bool {
        const IPPROTO_IPV6: u32 = 41;
        const IPV6_V6ONLY: u32 = 26;
        let value = host::get_sock_opt(self.host.handle(), IPPROTO_IPV6, IPV6_V6ONLY, 4);
        value.is_ok_and(|v| v.iter().any(|b| *b != 0))
    }

    /// The backlog of a listening socket.
    pub fn backlog(&self) -> Option<u32> {
        u32::try_from(self.backlog.load(Ordering::Relaxed)).ok()
    }

    fn wait(
        &self,
        events: Events,
        patience: Patience,
        deadline: Option<u64>,
        timeout: Errno,
    ) -> Result<(), Errno> {
        wait_host(self.host.handle(), events, deadline).map_err(|e| patience.error(e, timeout))
    }

    /// Tries until the host does not say EAGAIN, waiting for `events` in between.
    fn retry<T>(
        &self,
        events: Events,
        patience: Patience,
        mut f: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut deadline = None;
        loop {
            match f() {
                Err(Errno::EAGAIN) if !patience.nonblock => {
                    if deadline.is_none() {
                        deadline = patience.deadline();
                    }
                    self.wait(events, patience, deadline, Errno::EAGAIN)?;
                }
                r => return r,
            }
        }
    }

    /// MSG_WAITALL on a stream: goes on until the buffer is full, the end, or an error.
    fn receive_all(&self, dst: &mut Dest<'_>, flags: u32, patience: Patience) -> Result<usize, Errno> {
        let mut done = 0;
        while dst.remaining() > 0 {
            let r = self.retry(Events::IN | Events::RDHUP, patience, || {
                host::recv_msg(self.host.handle(), dst, 0, flags)
            });
            match r {
                Ok(m) if m.len == 0 => break,
                Ok(m) => done += m.len,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

impl Socket for HostSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> u32 {
        self.kind
    }

    fn bind(&self, ctx: &mut Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        // The host would go by the rights of the sandbox's host side.
        if let Some(port) = port(addr)
            && matches!(self.kind, kind::STREAM | kind::DGRAM)
            && !ctx
                .task
                .creds()
                .capable_in(&self.net.owner, cap::NET_BIND_SERVICE)
            && i64::from(port)
                < sysctl::get_int_in(&self.net, "net/ipv4/ip_unprivileged_port_start").unwrap_or(1024)
        {
            return Err(Errno::EACCES);
        }
        host::bind(self.host.handle(), addr)
    }

    fn connect(&self, _ctx: &mut Ctx<'_>, addr: &[u8], patience: Patience) -> Result<(), Errno> {
        let mut deadline = None;
        loop {
            match host::connect(self.host.handle(), addr) {
                // Asking again after the wait gives the result, as a second connect(2) does.
                Err(Errno::EINPROGRESS | Errno::EALREADY) if !patience.nonblock => {
                    if deadline.is_none() {
                        deadline = patience.deadline();
                    }
                    self.wait(Events::OUT, patience, deadline, Errno::EINPROGRESS)?;
                }
                r => return r,
            }
        }
    }

    fn listen(&self, _ctx: &mut Ctx<'_>, backlog: i32) -> Result<(), Errno> {
        host::listen(self.host.handle(), backlog as u32)?;
        self.backlog.store(i64::from(backlog as u32), Ordering::Relaxed);
        Ok(())
    }

    fn accept(&self, patience: Patience) -> Result<(Arc<dyn Socket>, Vec<u8>), Errno> {
        let (host, addr) = self.retry(Events::IN, patience, || host::accept(self.host.handle()))?;
        Ok((Arc::new(Self::new(self.net.clone(), host, self.kind)), addr))
    }

    fn name(&self) -> Result<Vec<u8>, Errno> {
        host::sock_name(self.host.handle())
    }

    fn peer_name(&self) -> Result<Vec<u8>, Errno> {
        host::peer_name(self.host.handle())
    }

    fn send(&self, src: &mut Src<'_>, out: &Outgoing<'_>, patience: Patience) -> Result<usize, Errno> {
        let flags = out.flags | msg::NOSIGNAL;
        let addr = out.addr.unwrap_or(&[]);
        // A message goes whole or not at all.
        if self.kind != kind::STREAM && src.remaining() > MAX_DATA {
            return Err(Errno::EMSGSIZE);
        }
        let mut done = 0;
        loop {
            let r = self.retry(Events::OUT, patience, || {
                host::send_msg(self.host.handle(), addr, out.control, src, flags)
            });
            match r {
                Ok(n) => done += n,
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
            if patience.nonblock || self.kind != kind::STREAM || src.remaining() == 0 {
                return Ok(done);
            }
        }
    }

    fn receive(
        &self,
        dst: &mut Dest<'_>,
        flags: u32,
        control_room: usize,
        patience: Patience,
    ) -> Result<Received, Errno> {
        let host_flags = flags & !(msg::WAITALL | msg::WAITFORONE);
        if self.kind == kind::STREAM
            && flags & msg::WAITALL != 0
            && flags & (msg::PEEK | msg::ERRQUEUE) == 0
            && !patience.nonblock
        {
            let len = self.receive_all(dst, host_flags, patience)?;
            return Ok(Received {
                len,
                ..Received::default()
            });
        }
        let patience = Patience {
            nonblock: patience.nonblock || flags & msg::ERRQUEUE != 0,
            ..patience
        };
        let m = self.retry(Events::IN | Events::RDHUP, patience, || {
            host::recv_msg(self.host.handle(), dst, control_room, host_flags)
        })?;
        Ok(Received {
            len: m.len,
            flags: m.flags & !msg::CMSG_CLOEXEC,
            addr: m.addr,
            control: Control {
                raw: m.control,
                ..Control::default()
            },
        })
    }

    fn shutdown(&self, how: u32) -> Result<(), Errno> {
        host::shutdown(self.host.handle(), how)
    }

    fn get_option(&self, _ctx: &mut Ctx<'_>, level: u32, name: u32, room: usize) -> Result<Vec<u8>, Errno> {
        host::get_sock_opt(self.host.handle(), level, name, room)
    }

    fn set_option(&self, _ctx: &mut Ctx<'_>, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        host::set_sock_opt(self.host.handle(), level, name, value)
    }

    fn ioctl(&self, _ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        use hal::uapi::ioctl as io;
        const SIOCATMARK: u32 = 0x8905;
        const SIOCGIFCONF: u32 = 0x8912;
        match request {
            io::FIONREAD | io::TIOCOUTQ | SIOCATMARK => {
                let mut b = [0; 4];
                let r = host::ioctl(self.host.handle(), request, &mut b)?;
                UserPtr::<i32>::new(arg).write(&i32::from_ne_bytes(b))?;
                Ok(r)
            }
            SIOCGIFCONF => self.interface_list(arg),
            // SIOCGIF*, SIOCSIF* and SIOCETHTOOL's kin: a struct ifreq of 40 bytes; those with pointers in it are refused.
            0x8910 | 0x8913 | 0x8915 | 0x8917 | 0x8919 | 0x891b | 0x891d | 0x8921 | 0x8927 | 0x8933
            | 0x8942 | 0x8970 => {
                let user = UserSlice::new(arg, 40)?;
                let mut b = user.to_vec(40)?;
                let r = host::ioctl(self.host.handle(), request, &mut b)?;
                user.write(&b)?;
                Ok(r)
            }
            0x8900..=0x89ff => Err(Errno::EPERM),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn poll(&self) -> Events {
        host_ready(self.host.handle())
    }

    fn host_ino(&self) -> Option<u64> {
        host::stat(self.host.handle(), b"").ok().map(|s| s.ino)
    }

    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Host(self.host.handle())
    }
}

impl HostSocket {
    /// SIOCGIFCONF: the structure holds a pointer, so the list is made here, from each interface's name and address.
    fn interface_list(&self, arg: u64) -> Result<u64, Errno> {
        const SIOCGIFNAME: u32 = 0x8910;
        const SIOCGIFADDR: u32 = 0x8915;
        const ENTRY: usize = 40;
        /// Interface numbers looked at.
        const LAST: i32 = 256;
        let header = UserSlice::new(arg, 16)?.to_vec(16)?;
        let mut room = i32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let mut buffer = 0u64.to_ne_bytes();
        buffer.copy_from_slice(&header[8..16]);
        let buffer = u64::from_ne_bytes(buffer);
        let mut list = Vec::new();
        for index in 1..=LAST {
            let mut ifr = vec![0u8; ENTRY];
            ifr[16..20].copy_from_slice(&index.to_ne_bytes());
            if host::ioctl(self.host.handle(), SIOCGIFNAME, &mut ifr).is_err() {
                continue;
            }
            ifr[16..].fill(0);
            // Only interfaces with an address are listed.
            if host::ioctl(self.host.handle(), SIOCGIFADDR, &mut ifr).is_ok() {
                list.extend_from_slice(&ifr);
            }
        }
        if buffer != 0 {
            let fit = (room.max(0) as usize / ENTRY * ENTRY).min(list.len());
            UserSlice::new(buffer, fit as u64)?.write(&list[..fit])?;
            room = fit as i32;
        } else {
            room = list.len() as i32;
        }
        UserPtr::<i32>::new(arg).write(&room)?;
        Ok(0)
    }
}
