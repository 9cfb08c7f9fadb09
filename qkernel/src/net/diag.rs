//! Netlink socket queries (`NETLINK_SOCK_DIAG`): what `ss` lists. Source: `sock_diag(7)`.
//!
//! The kernel answers them itself, from the same tables as `/proc/net`: the host's would know neither the guest's users nor
//! its unix sockets. Dumps only; single look-ups say ENOENT, and no socket can be destroyed this way (EPERM).

use super::tables::{self, Detail};
use super::{Control, Outgoing, Patience, Received, Socket, SocketProvider, family, kind, msg};
use crate::fs::file::PollSource;
use crate::ns::net::{self, NetNs};
use crate::sched::wait::{Events, WaitQueue, wait_until};
use crate::syscall::Ctx;
use crate::task::creds::Creds;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{Dest, Src};
use hal::sync::SpinLock;
use qlib::Errno;

const NETLINK_SOCK_DIAG: u32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_MULTI: u16 = 2;
const NLM_F_DUMP: u16 = 0x300;
/// `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;
/// Longest request taken.
const MAX_REQUEST: usize = 32 << 10;
/// Answers are packed into datagrams of about this size.
const DATAGRAM: usize = 8 << 10;
/// Datagrams that may wait.
const MAX_WAITING: usize = 4096;

/// Makes the sockets.
pub struct DiagProvider;

impl SocketProvider for DiagProvider {
    fn carries(&self, f: u32, protocol: u32) -> bool {
        f == family::NETLINK && protocol == NETLINK_SOCK_DIAG
    }

    fn create(&self, _creds: &Creds, _f: u32, k: u32, _protocol: u32) -> Result<Arc<dyn Socket>, Errno> {
        if !matches!(k, kind::RAW | kind::DGRAM) {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        let port = crate::task::current().map_or(0, |t| t.process.own_pid());
        Ok(Arc::new(DiagSocket {
            net: net::current(),
            kind: k,
            port,
            answers: SpinLock::new(VecDeque::new()),
            queue: WaitQueue::new(),
        }))
    }
}

/// A socket for such queries.
struct DiagSocket {
    net: Arc<NetNs>,
    kind: u32,
    port: u32,
    answers: SpinLock<VecDeque<Vec<u8>>>,
    queue: WaitQueue,
}

/// `struct sockaddr_nl`.
fn address(port: u32) -> Vec<u8> {
    let mut v = vec![0u8; 12];
    v[..2].copy_from_slice(&(family::NETLINK as u16).to_ne_bytes());
    v[4..8].copy_from_slice(&port.to_ne_bytes());
    v
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4)
        .map_or(0, |w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]]))
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).map_or(0, |w| u16::from_ne_bytes([w[0], w[1]]))
}

/// Messages of one answer, packed into datagrams.
struct Answer {
    seq: u32,
    port: u32,
    done: Vec<Vec<u8>>,
    open: Vec<u8>,
}

impl Answer {
    fn put(&mut self, kind: u16, flags: u16, body: &[u8]) {
        if self.open.len() + HEADER + body.len() > DATAGRAM && !self.open.is_empty() {
            self.done.push(core::mem::take(&mut self.open));
        }
        let m = &mut self.open;
        m.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        m.extend_from_slice(&kind.to_ne_bytes());
        m.extend_from_slice(&flags.to_ne_bytes());
        m.extend_from_slice(&self.seq.to_ne_bytes());
        m.extend_from_slice(&self.port.to_ne_bytes());
        m.extend_from_slice(body);
        m.resize(m.len().next_multiple_of(4), 0);
    }
    fn error(&mut self, e: Errno, request: &[u8]) {
        let mut body = (-e.0).to_ne_bytes().to_vec();
        body.extend_from_slice(&request[..HEADER.min(request.len())]);
        self.put(NLMSG_ERROR, 0, &body);
    }
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// An address and port of the tables, as `struct inet_diag_sockid` has them: network order.
fn end_point(text: &str) -> Option<([u8; 2], [u8; 16])> {
    let (addr, port) = text.split_once(':')?;
    let mut bytes = [0u8; 16];
    for (i, word) in bytes.chunks_mut(4).take(addr.len() / 8).enumerate() {
        let v = u32::from_str_radix(addr.get(8 * i..8 * i + 8)?, 16).ok()?;
        word.copy_from_slice(&v.to_ne_bytes());
    }
    Some((u16::from_str_radix(port, 16).ok()?.to_be_bytes(), bytes))
}

/// One line of a table as `struct inet_diag_msg`; `None` when its state is not wanted.
fn inet_message(f: u32, line: &str, states: u32, detail: &dyn Fn(u64) -> Detail) -> Option<Vec<u8>> {
    const CLOSE: u8 = 7;
    const LISTEN: u8 = 10;
    const INET_DIAG_SKV6ONLY: u16 = 11;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let hex = |s: &str| u32::from_str_radix(s, 16).ok();
    let state = hex(words.get(3)?)? as u8;
    if states & 1u32.checked_shl(u32::from(state))? == 0 {
        return None;
    }
    let (sport, src) = end_point(words.get(1)?)?;
    let (dport, dst) = end_point(words.get(2)?)?;
    let (sending, receiving) = words.get(4)?.split_once(':')?;
    let (timer, when) = words.get(5)?.split_once(':')?;
    let ino: u64 = words.get(9)?.parse().ok()?;
    let mut m = vec![f as u8, state, hex(timer)? as u8, hex(words.get(6)?)? as u8];
    m.extend_from_slice(&sport);
    m.extend_from_slice(&dport);
    m.extend_from_slice(&src);
    m.extend_from_slice(&dst);
    m.extend_from_slice(&0u32.to_ne_bytes());
    m.extend_from_slice(&ino.to_ne_bytes());
    let known = detail(ino);
    let waiting = if state == LISTEN {
        known.backlog
    } else {
        hex(sending)?
    };
    // The tables count time in hundredths, the message in thousandths.
    for v in [
        hex(when)?.saturating_mul(10),
        hex(receiving)?,
        waiting,
        words.get(7)?.parse().ok()?,
        ino as u32,
    ] {
        m.extend_from_slice(&v.to_ne_bytes());
    }
    if f == family::INET6 && matches!(state, LISTEN | CLOSE) {
        attribute(&mut m, INET_DIAG_SKV6ONLY, &[u8::from(known.v6_only)]);
    }
    Some(m)
}

fn inet_dump(net: &NetNs, request: &[u8], answer: &mut Answer) {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const UDPLITE: u8 = 136;
    const RAW: u8 = 255;
    let f = u32::from(request[HEADER]);
    let name = match (request.get(HEADER + 1), f) {
        (Some(&TCP), family::INET) => "tcp",
        (Some(&TCP), _) => "tcp6",
        (Some(&UDP), family::INET) => "udp",
        (Some(&UDP), _) => "udp6",
        (Some(&UDPLITE), family::INET) => "udplite",
        (Some(&UDPLITE), _) => "udplite6",
        (Some(&RAW), family::INET) => "raw",
        (Some(&RAW), _) => "raw6",
        // Of other protocols there are no sockets.
        _ => return,
    };
    let states = u32_at(request, HEADER + 4);
    let Some(text) = tables::of_host(net, name).and_then(|t| String::from_utf8(t).ok()) else {
        return;
    };
    let details = tables::details(net);
    let detail = |ino: u64| details.get(&ino).copied().unwrap_or_default();
    for line in text.lines().skip(1) {
        if let Some(m) = inet_message(f, line, states, &detail) {
            answer.put(SOCK_DIAG_BY_FAMILY, NLM_F_MULTI, &m);
        }
    }
}

fn unix_dump(net: &NetNs, request: &[u8], answer: &mut Answer) {
    const ESTABLISHED: u8 = 1;
    const CLOSE: u8 = 7;
    const LISTEN: u8 = 10;
    const NAME: u16 = 0;
    const QUEUES: u16 = 4;
    const UID: u16 = 7;
    let states = u32_at(request, HEADER + 4);
    for (ino, owner, s) in tables::unix_sockets(net) {
        let state = match (s.listening, s.connected) {
            (true, _) => LISTEN,
            (_, true) => ESTABLISHED,
            _ => CLOSE,
        };
        if states & 1 << state == 0 {
            continue;
        }
        let mut m = vec![family::UNIX as u8, s.kind as u8, state, 0];
        m.extend_from_slice(&(ino as u32).to_ne_bytes());
        m.extend_from_slice(&ino.to_ne_bytes());
        if !s.path.is_empty() {
            attribute(&mut m, NAME, &s.path);
        }
        attribute(&mut m, QUEUES, &[0; 8]);
        attribute(&mut m, UID, &owner.to_ne_bytes());
        answer.put(SOCK_DIAG_BY_FAMILY, NLM_F_MULTI, &m);
    }
}

/// Answers one request about a network.
fn serve(net: &NetNs, request: &[u8], answer: &mut Answer) {
    let kind = u16_at(request, 4);
    let flags = u16_at(request, 6);
    match kind {
        SOCK_DIAG_BY_FAMILY if request.len() < HEADER + 8 => answer.error(Errno::EINVAL, request),
        SOCK_DIAG_BY_FAMILY if flags & NLM_F_DUMP != NLM_F_DUMP => answer.error(Errno::ENOENT, request),
        SOCK_DIAG_BY_FAMILY => {
            match u32::from(request[HEADER]) {
                family::INET | family::INET6 => inet_dump(net, request, answer),
                family::UNIX => unix_dump(net, request, answer),
                _ => {}
            }
            answer.put(NLMSG_DONE, NLM_F_MULTI, &0u32.to_ne_bytes());
        }
        SOCK_DESTROY => answer.error(Errno::EPERM, request),
        _ => answer.error(Errno::EINVAL, request),
    }
}

impl Socket for DiagSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> u32 {
        self.kind
    }

    fn bind(&self, _ctx: &mut Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        if addr.len() < 12 || u32::from(u16_at(addr, 0)) != family::NETLINK {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn connect(&self, ctx: &mut Ctx<'_>, addr: &[u8], _patience: Patience) -> Result<(), Errno> {
        self.bind(ctx, addr)
    }

    fn listen(&self, _ctx: &mut Ctx<'_>, _backlog: i32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self, _patience: Patience) -> Result<(Arc<dyn Socket>, Vec<u8>), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn name(&self) -> Result<Vec<u8>, Errno> {
        Ok(address(self.port))
    }

    fn peer_name(&self) -> Result<Vec<u8>, Errno> {
        Ok(address(0))
    }

    fn send(&self, src: &mut Src<'_>, _out: &Outgoing<'_>, _patience: Patience) -> Result<usize, Errno> {
        let len = src.remaining();
        if len > MAX_REQUEST {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = vec![0u8; len];
        let got = src.take(&mut bytes)?;
        bytes.truncate(got);
        let mut rest = &bytes[..];
        while rest.len() >= HEADER {
            let n = u32_at(rest, 0) as usize;
            if n < HEADER || n > rest.len() {
                break;
            }
            let mut answer = Answer {
                seq: u32_at(rest, 8),
                port: self.port,
                done: Vec::new(),
                open: Vec::new(),
            };
            serve(&self.net, &rest[..n], &mut answer);
            let mut answers = self.answers.lock();
            if answers.len() > MAX_WAITING {
                return Err(Errno::ENOBUFS);
            }
            answers.extend(answer.done);
            answers.push_back(answer.open);
            rest = &rest[n.next_multiple_of(4).min(rest.len())..];
        }
        self.queue.wake(Events::IN | Events::RDNORM);
        Ok(got)
    }

    fn receive(
        &self,
        dst: &mut Dest<'_>,
        flags: u32,
        _room: usize,
        patience: Patience,
    ) -> Result<Received, Errno> {
        let take = || {
            let mut answers = self.answers.lock();
            if flags & msg::PEEK != 0 {
                answers.front().cloned()
            } else {
                answers.pop_front()
            }
        };
        let datagram = match take() {
            Some(d) => d,
            None if patience.nonblock => return Err(Errno::EAGAIN),
            None => wait_until(&self.queue, Events::IN, patience.deadline(), take)
                .map_err(|e| patience.error(e, Errno::EAGAIN))?,
        };
        let stored = dst.put(&datagram)?;
        let cut = stored < datagram.len();
        Ok(Received {
            len: if flags & msg::TRUNC != 0 {
                datagram.len()
            } else {
                stored
            },
            flags: if cut { msg::TRUNC } else { 0 },
            addr: address(0),
            control: Control::default(),
        })
    }

    fn shutdown(&self, _how: u32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn get_option(&self, _ctx: &mut Ctx<'_>, level: u32, name: u32, _room: usize) -> Result<Vec<u8>, Errno> {
        use super::options::{SOL_SOCKET, so};
        let value = match (level, name) {
            (SOL_SOCKET, so::TYPE) => self.kind,
            (SOL_SOCKET, so::DOMAIN) => family::NETLINK,
            (SOL_SOCKET, so::PROTOCOL) => NETLINK_SOCK_DIAG,
            (SOL_SOCKET, so::ERROR) => 0,
            (SOL_SOCKET, so::SNDBUF | so::RCVBUF) => super::unix::DEFAULT_BUFFER as u32,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().to_vec())
    }

    fn set_option(&self, _ctx: &mut Ctx<'_>, level: u32, _name: u32, _value: &[u8]) -> Result<(), Errno> {
        const SOL_NETLINK: u32 = 270;
        // Sizes of buffers and details of error messages: nothing here depends on them.
        match level {
            super::options::SOL_SOCKET | SOL_NETLINK => Ok(()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn ioctl(&self, ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        super::host::interface_ioctl(ctx, &self.net, request, arg)
    }

    fn poll(&self) -> Events {
        let out = Events::OUT | Events::WRNORM;
        if self.answers.lock().is_empty() {
            out
        } else {
            out | Events::IN | Events::RDNORM
        }
    }

    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_becomes_a_message() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0 0 10 0";
        let known = |_| Detail {
            backlog: 7,
            v6_only: false,
        };
        assert_eq!(inet_message(2, line, 1 << 1, &known), None);
        let m = inet_message(2, line, u32::MAX, &known).unwrap();
        assert_eq!(m.len(), 72);
        assert_eq!(m[..8], [2, 10, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(m[8..12], [127, 0, 0, 1]);
        assert_eq!((u32_at(&m, 60), u32_at(&m, 64), u32_at(&m, 68)), (7, 1000, 12345));
    }

    fn fresh() -> Answer {
        Answer {
            seq: 1,
            port: 2,
            done: Vec::new(),
            open: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn hostile_requests_never_panic(b in proptest::collection::vec(any::<u8>(), HEADER..100), dump in any::<bool>()) {
            let mut b = b;
            b[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            if dump {
                b[6..8].copy_from_slice(&NLM_F_DUMP.to_ne_bytes());
            }
            serve(&net::current(), &b, &mut fresh());
        }

        #[test]
        fn hostile_lines_never_panic(line in "[0-9A-F: ]{0,120}") {
            let _ = inet_message(10, &line, u32::MAX, &|_| Detail::default());
        }
    }
}
