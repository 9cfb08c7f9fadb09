//! A container's service, under the real filter of its thread: what it does, and that it does nothing else.

use super::*;
use crate::sandbox::jail;
use crate::seccomp::Role;
use rustix::fs::OFlags;
use std::io::Read;
use zerocopy::FromZeros;

/// A guest's end of a service.
struct Guest {
    channel: OwnedFd,
    tag: u64,
}

fn request(op: Op, args: &[u64], payload: &[u8]) -> Request {
    let mut r = Request::new_zeroed();
    r.op = op as u32;
    (r.handle, r.handle2) = (HandleId::NONE, HandleId::NONE);
    r.args[..args.len()].copy_from_slice(args);
    r.data_len = payload.len() as u32;
    r
}

impl Guest {
    fn new() -> Self {
        let (host, channel) = socket::message_pair().unwrap();
        super::super::system::open(&[]);
        spawn_service(host, || {
            jail::confine_thread(Role::Service).map_err(std::io::Error::other)
        })
        .unwrap();
        Self { channel, tag: 0 }
    }

    fn send(&self, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) {
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        socket::send(&self.channel, &parts, fds, SendFlags::empty()).unwrap();
    }

    fn receive(&self) -> (Reply, Vec<OwnedFd>) {
        let mut buffer = [0; 256];
        let got = socket::receive(&self.channel, &mut buffer, RecvFlags::empty()).unwrap();
        let (reply, rest) = Reply::read_from_prefix(&buffer[..got.len]).unwrap();
        assert_eq!(reply.data_len as usize, rest.len());
        (reply, got.fds)
    }

    fn ask(&mut self, op: Op, args: &[u64], payload: &[u8]) -> Result<OwnedFd, Errno> {
        self.tag += 1;
        let mut r = request(op, args, payload);
        r.tag = self.tag;
        self.send(&[r.as_bytes(), payload], &[]);
        let (reply, mut fds) = self.receive();
        assert_eq!(reply.tag, self.tag);
        let result = Errno::from_ret(reply.result);
        assert_eq!(fds.len(), usize::from(result.is_ok()), "{op:?}");
        result.map(|_| fds.remove(0))
    }

    fn works(&mut self) {
        self.ask(Op::Socket, &[libc::AF_INET as u64, 1, 0], b"").unwrap();
    }
}

#[test]
fn sockets_and_texts_are_served() {
    let mut g = Guest::new();
    let socket = g.ask(Op::Socket, &[libc::AF_INET as u64, 1, 0], b"").unwrap();
    let flags = rustix::fs::fcntl_getfl(&socket).unwrap();
    assert!(flags.contains(OFlags::NONBLOCK));
    let domain = rustix::net::sockopt::socket_domain(&socket).unwrap();
    assert_eq!(domain, rustix::net::AddressFamily::INET);
    g.ask(Op::Socket, &[libc::AF_NETLINK as u64, 3, 0], b"").unwrap();
    let text = g.ask(Op::SystemFile, &[0], b"dev").unwrap();
    let mut shown = String::new();
    std::fs::File::from(text).read_to_string(&mut shown).unwrap();
    assert!(shown.contains("lo:"), "{shown}");
    let setting = b"sys/net/ipv4/ip_default_ttl";
    g.ask(Op::SystemFile, &[1], setting).unwrap();
    for (group, name, expected) in [
        (0, "../stat", Errno::ENOENT),
        (0, "", Errno::ENOENT),
        (1, "kcore", Errno::ENOENT),
        (1, "sys/kernel/hostname", Errno::ENOENT),
        (7, "dev", Errno::EINVAL),
    ] {
        let refused = g.ask(Op::SystemFile, &[group], name.as_bytes());
        assert_eq!(refused.err(), Some(expected), "{group} {name}");
    }
    for args in [
        [libc::AF_PACKET as u64, 3, 0],
        [libc::AF_VSOCK as u64, 1, 0],
        [libc::AF_NETLINK as u64, 3, libc::NETLINK_AUDIT as u64],
        [libc::AF_INET as u64, 5, 0],
        [u64::MAX, u64::MAX, u64::MAX],
    ] {
        assert!(g.ask(Op::Socket, &args, b"").is_err(), "{args:?}");
    }
    g.works();
}

#[test]
fn nothing_else_is_served() {
    let mut g = Guest::new();
    for op in Op::ALL {
        if !matches!(op, Op::Socket | Op::SystemFile) {
            assert_eq!(g.ask(*op, &[0; 6], b"x").err(), Some(Errno::ENOSYS), "{op:?}");
        }
    }
    g.works();
}

#[test]
fn a_malformed_request_does_no_harm() {
    let mut g = Guest::new();
    let good = request(Op::Socket, &[libc::AF_INET as u64, 1, 0], b"");
    let refused = |g: &Guest, parts: &[&[u8]], fds: &[BorrowedFd<'_>]| {
        g.send(parts, fds);
        let (reply, fds) = g.receive();
        assert_eq!(Errno::from_ret(reply.result), Err(Errno::EINVAL));
        assert!(fds.is_empty());
    };
    refused(&g, &[b"short"], &[]);
    let mut odd = good;
    odd.reserved = 1;
    refused(&g, &[odd.as_bytes()], &[]);
    odd = good;
    odd.data_len = 7;
    refused(&g, &[odd.as_bytes()], &[]);
    odd.data_len = 60_000;
    refused(&g, &[odd.as_bytes(), &[0; 60_000]], &[]);
    // A descriptor that no handle announces, and a handle without a descriptor.
    let file = std::fs::File::open("/dev/null").unwrap();
    refused(&g, &[good.as_bytes()], &[file.as_fd()]);
    odd = good;
    odd.handle = HandleId(7);
    refused(&g, &[odd.as_bytes()], &[]);
    odd = good;
    odd.op = u32::MAX;
    g.send(&[odd.as_bytes()], &[]);
    assert_eq!(Errno::from_ret(g.receive().0.result), Err(Errno::ENOSYS));
    g.works();
}
