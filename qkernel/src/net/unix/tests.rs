use super::*;
use crate::fs::eventfd::eventfd;
use crate::fs::file::File;
use crate::net::{SocketFile, msg};
use crate::ns::pid::Pid;
use alloc::vec;
use hal::host::{Dest, Src};
use inbox::{Message, Rights};
use std::time::Duration;

const WAIT: Patience = Patience {
    nonblock: false,
    timeout_ns: None,
};
const NOW: Patience = Patience {
    nonblock: true,
    timeout_ns: None,
};

fn send(s: &UnixSocket, b: &[u8]) -> Result<usize, Errno> {
    let out = Outgoing {
        addr: None,
        control: &[],
        flags: 0,
    };
    s.do_send(&mut Src::kernel(b), &out, NOW)
}
fn send_to(s: &UnixSocket, b: &[u8], addr: &[u8]) -> Result<usize, Errno> {
    let out = Outgoing {
        addr: Some(addr),
        control: &[],
        flags: 0,
    };
    s.do_send(&mut Src::kernel(b), &out, NOW)
}
fn receive(s: &UnixSocket, n: usize, flags: u32) -> Result<(Vec<u8>, Received), Errno> {
    let mut b = vec![0; n];
    let got = s.do_receive(&mut Dest::kernel(&mut b), flags, NOW)?;
    b.truncate(got.len.min(n));
    Ok((b, got))
}
fn bytes(s: &UnixSocket, n: usize) -> Result<Vec<u8>, Errno> {
    receive(s, n, 0).map(|(b, _)| b)
}
fn abstract_name(n: &str) -> Vec<u8> {
    let mut v = Name::unnamed();
    v.push(0);
    v.extend_from_slice(n.as_bytes());
    v
}
/// Puts a message with files into `to`'s inbox, as a sender with a task would.
fn push_rights(to: &UnixSocket, b: &[u8], files: Vec<Arc<File>>) {
    to.state.lock().inbox.push(Message {
        data: crate::fs::pipe_buffer::Chunk::new(b.to_vec(), false),
        rights: Rights::new(files).unwrap(),
        cred: PeerCred {
            pid: Pid::of(7),
            uid: 8,
            gid: 9,
        },
        from: None,
    });
}
fn listener(k: u32, n: &str) -> (Arc<UnixSocket>, Vec<u8>) {
    let s = UnixSocket::new(net::current(), k);
    let addr = abstract_name(n);
    let name = name::bind_abstract(&addr, &s).unwrap();
    s.state.lock().name = Some(name);
    s.do_listen(PeerCred::default(), Arc::default(), 1).unwrap();
    (s, addr)
}

#[test]
fn a_stream_joins_messages_and_ends() {
    let (a, b) = UnixSocket::pair(kind::STREAM);
    assert_eq!(bytes(&b, 9), Err(Errno::EAGAIN));
    assert_eq!((send(&a, b"hello "), send(&a, b"world")), (Ok(6), Ok(5)));
    assert_eq!(receive(&b, 8, msg::PEEK).unwrap().0, b"hello wo");
    assert_eq!(bytes(&b, 8).unwrap(), b"hello wo");
    assert_eq!(bytes(&b, 8).unwrap(), b"rld");
    a.do_shutdown(1).unwrap();
    assert_eq!(bytes(&b, 8).unwrap(), b"");
    assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
    assert!(b.poll().contains(Events::RDHUP | Events::IN));
    assert!(!b.poll().contains(Events::HUP));
    assert_eq!(send(&b, b"still open"), Ok(10));
    a.do_release();
    assert!(b.poll().contains(Events::HUP));
    // There was something unread: a reset, once.
    assert_eq!(send(&b, b"x"), Err(Errno::ECONNRESET));
    assert_eq!(send(&b, b"x"), Err(Errno::EPIPE));
}

#[test]
fn a_full_stream_blocks_until_it_is_read() {
    let (a, b) = UnixSocket::pair(kind::STREAM);
    let block = vec![1; 65536];
    let mut sent = 0;
    loop {
        match send(&a, &block) {
            Ok(n) => sent += n,
            Err(e) => {
                assert_eq!(e, Errno::EAGAIN);
                break;
            }
        }
    }
    assert!(sent >= DEFAULT_BUFFER);
    assert!(!a.poll().contains(Events::OUT));
    let writer = a.clone();
    let t = std::thread::spawn(move || {
        let out = Outgoing {
            addr: None,
            control: &[],
            flags: 0,
        };
        writer.do_send(&mut Src::kernel(&[2; 10]), &out, WAIT)
    });
    std::thread::sleep(Duration::from_millis(10));
    // The writer goes on as soon as there is room: its bytes may come with the others or after them.
    let mut got = Vec::new();
    while got.len() < sent {
        got.extend(bytes(&b, 100_000).unwrap());
    }
    assert_eq!(t.join().unwrap(), Ok(10));
    if got.len() == sent {
        got.extend(bytes(&b, 100).unwrap());
    }
    assert!(a.poll().contains(Events::OUT));
    assert_eq!(got[sent..], [2; 10]);
}

#[test]
fn files_come_with_their_own_byte() {
    let (a, b) = UnixSocket::pair(kind::STREAM);
    let f = eventfd(5, false, 0);
    send(&a, b"ab").unwrap();
    push_rights(&b, b"cd", vec![f.clone()]);
    send(&a, b"ef").unwrap();
    let (first, got) = receive(&b, 100, 0).unwrap();
    assert_eq!((&first[..], got.control.rights.len()), (&b"ab"[..], 0));
    let (peeked, got) = receive(&b, 1, msg::PEEK).unwrap();
    assert_eq!((&peeked[..], got.control.rights.len()), (&b"c"[..], 1));
    drop(got);
    let (second, got) = receive(&b, 1, 0).unwrap();
    assert_eq!((&second[..], got.control.rights.len()), (&b"c"[..], 1));
    assert!(Arc::ptr_eq(&got.control.rights[0], &f));
    let (third, got) = receive(&b, 100, 0).unwrap();
    assert_eq!((&third[..], got.control.rights.len()), (&b"def"[..], 0));
    // Files that nobody received close with the socket.
    push_rights(&b, b"x", vec![f.clone()]);
    b.do_release();
    drop(got);
    // Left are the test's own and the one received above.
    assert_eq!(Arc::strong_count(&f), 2);
}

#[test]
fn credentials_come_when_asked_for() {
    let (_a, b) = UnixSocket::pair(kind::STREAM);
    b.state.lock().pass_cred = true;
    push_rights(&b, b"x", Vec::new());
    let (_, got) = receive(&b, 10, 0).unwrap();
    assert_eq!(
        got.control.cred.map(|c| (c.pid.number(), c.uid, c.gid)),
        Some((7, 8, 9))
    );
}

#[test]
fn packets_keep_their_borders() {
    for k in [kind::SEQPACKET, kind::DGRAM] {
        let (a, b) = UnixSocket::pair(k);
        send(&a, b"first").unwrap();
        send(&a, b"").unwrap();
        send(&a, b"third").unwrap();
        let (part, got) = receive(&b, 2, msg::TRUNC).unwrap();
        assert_eq!((&part[..], got.len), (&b"fi"[..], 5));
        assert_ne!(got.flags & msg::TRUNC, 0);
        assert_eq!(bytes(&b, 10).unwrap(), b"");
        assert_eq!(bytes(&b, 10).unwrap(), b"third");
        let too_long = vec![0; DEFAULT_BUFFER + 1];
        assert_eq!(send(&a, &too_long), Err(Errno::EMSGSIZE));
    }
}

#[test]
fn datagrams_by_name() {
    crate::tests::boot();
    let addr = abstract_name("datagrams_by_name");
    let server = UnixSocket::new(net::current(), kind::DGRAM);
    let name = name::bind_abstract(&addr, &server).unwrap();
    server.state.lock().name = Some(name);
    let again = UnixSocket::new(net::current(), kind::DGRAM);
    assert_eq!(name::bind_abstract(&addr, &again).err(), Some(Errno::EADDRINUSE));
    let client = UnixSocket::new(net::current(), kind::DGRAM);
    assert_eq!(send(&client, b"x"), Err(Errno::ENOTCONN));
    assert_eq!(send_to(&client, b"hi", &addr), Ok(2));
    assert_eq!(bytes(&server, 10).unwrap(), b"hi");
    let stranger = UnixSocket::new(net::current(), kind::STREAM);
    assert_eq!(
        name::find(&stranger.net, &addr, stranger.kind).err(),
        Some(Errno::EPROTOTYPE)
    );
    // The queue is short, and the sender learns when there is room.
    while send_to(&client, b"x", &addr).is_ok() {}
    assert_eq!(server.state.lock().inbox.len(), MAX_DATAGRAMS + 1);
    let blocked = client.clone();
    let to = addr.clone();
    let t = std::thread::spawn(move || {
        let out = Outgoing {
            addr: Some(&to),
            control: &[],
            flags: 0,
        };
        blocked.do_send(&mut Src::kernel(b"late"), &out, WAIT)
    });
    std::thread::sleep(Duration::from_millis(10));
    bytes(&server, 10).unwrap();
    assert_eq!(t.join().unwrap(), Ok(4));
    server.do_release();
    assert_eq!(send_to(&client, b"hi", &addr), Err(Errno::ECONNREFUSED));
}

#[test]
fn listen_connect_accept() {
    crate::tests::boot();
    let (server, addr) = listener(kind::STREAM, "listen_connect_accept");
    assert_eq!(server.do_accept(NOW).err(), Some(Errno::EAGAIN));
    let connect = |s: &UnixSocket, p| s.connect_as(PeerCred::default(), Arc::default(), &addr, p);
    let clients: Vec<_> = (0..3)
        .map(|_| UnixSocket::new(net::current(), kind::STREAM))
        .collect();
    connect(&clients[0], NOW).unwrap();
    connect(&clients[1], NOW).unwrap();
    assert_eq!(connect(&clients[2], NOW), Err(Errno::EAGAIN));
    assert_eq!(connect(&clients[0], NOW), Err(Errno::EISCONN));
    assert!(server.poll().contains(Events::IN));
    // Bytes may be sent before the connection is accepted.
    send(&clients[0], b"early").unwrap();
    let end = server.do_accept(NOW).unwrap();
    assert_eq!(bytes(&end, 10).unwrap(), b"early");
    assert_eq!(end.name().unwrap(), addr);
    let third = clients[2].clone();
    let late = addr.clone();
    let t = std::thread::spawn(move || third.connect_as(PeerCred::default(), Arc::default(), &late, WAIT));
    std::thread::sleep(Duration::from_millis(5));
    server.do_accept(NOW).unwrap().do_release();
    t.join().unwrap().unwrap();
    assert_eq!(bytes(&clients[1], 1).unwrap(), b"");
    // The listener goes: who was not accepted is reset, who was stays.
    server.do_release();
    assert_eq!(bytes(&clients[2], 1), Err(Errno::ECONNRESET));
    assert_eq!(send(&end, b"x"), Ok(1));
    let fresh = UnixSocket::new(net::current(), kind::STREAM);
    assert_eq!(connect(&fresh, NOW), Err(Errno::ECONNREFUSED));
}

#[test]
fn an_open_file_releases_its_socket() {
    let (a, b) = UnixSocket::pair(kind::STREAM);
    let f = SocketFile::open(a, 0);
    assert!(b.poll().contains(Events::OUT));
    drop(f);
    assert!(b.poll().contains(Events::HUP));
}

#[test]
fn abstract_names_are_known_in_their_network() {
    crate::tests::boot();
    let addr = abstract_name("abstract_names_are_known_in_their_network");
    let nets = [NetNs::new(None, None), NetNs::new(None, None)];
    let listen = |net: &Arc<NetNs>| {
        let s = UnixSocket::new(net.clone(), kind::STREAM);
        let name = name::bind_abstract(&addr, &s)?;
        s.state.lock().name = Some(name);
        s.do_listen(PeerCred::default(), Arc::default(), 1).unwrap();
        Ok(s)
    };
    let connect = |net: &Arc<NetNs>| {
        let s = UnixSocket::new(net.clone(), kind::STREAM);
        s.connect_as(PeerCred::default(), Arc::default(), &addr, NOW)
            .map(|()| s)
    };
    let first = listen(&nets[0]).unwrap();
    assert_eq!(listen(&nets[0]).err(), Some(Errno::EADDRINUSE));
    assert_eq!(connect(&nets[1]).err(), Some(Errno::ECONNREFUSED));
    let second = listen(&nets[1]).unwrap();
    let client = connect(&nets[1]).unwrap();
    assert_eq!(first.do_accept(NOW).err(), Some(Errno::EAGAIN));
    let end = second.do_accept(NOW).unwrap();
    assert!(Arc::ptr_eq(end.net(), &nets[1]));
    send(&client, b"x").unwrap();
    assert_eq!(bytes(&end, 1).unwrap(), b"x");
    // The end of one name leaves the other.
    first.do_release();
    assert!(connect(&nets[0]).is_err() && connect(&nets[1]).is_ok());
    second.do_release();
}
