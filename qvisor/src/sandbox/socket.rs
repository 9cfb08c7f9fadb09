//! Messages with descriptors over unix sockets.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Most descriptors one message carries. Source: `SCM_MAX_FD` in `include/net/scm.h`.
pub const MAX_FDS: usize = 253;

/// A connected pair of message sockets, close-on-exec.
pub fn message_pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Sends `parts` as one message, with `fds`. Never raises SIGPIPE.
pub fn send(
    socket: impl AsFd,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> rustix::io::Result<usize> {
    if fds.len() > MAX_FDS {
        return Err(Errno::TOOBIG);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, parts, &mut control, flags | SendFlags::NOSIGNAL)
    })
}

/// A received message.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes of data; 0 = the other side closed.
    pub len: usize,
    /// Descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// The message was longer than the buffer.
    pub truncated: bool,
    /// The process that sent it, where the socket was asked to tell ([`tell_senders`]).
    pub from: Option<i32>,
}

/// Has every message that `socket` receives tell which process sent it.
pub fn tell_senders(socket: impl AsFd) -> rustix::io::Result<()> {
    rustix::net::sockopt::set_socket_passcred(socket, true)
}

/// Receives one message into `buffer`.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> rustix::io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = loop {
        match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    let mut from = None;
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
            RecvAncillaryMessage::ScmCredentials(sender) => from = Some(sender.pid.as_raw_nonzero().get()),
            _ => {}
        }
    }
    Ok(Received {
        len: got.bytes,
        fds,
        truncated: got.flags.contains(ReturnFlags::TRUNC),
        from,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_bounds_and_its_descriptors() {
        let (a, b) = message_pair().unwrap();
        let (r, w) = rustix::pipe::pipe().unwrap();
        send(
            &a,
            &[IoSlice::new(b"he"), IoSlice::new(b"llo")],
            &[w.as_fd()],
            SendFlags::empty(),
        )
        .unwrap();
        send(&a, &[IoSlice::new(b"second")], &[], SendFlags::empty()).unwrap();
        drop(w);
        let mut buffer = [0; 16];
        let first = receive(&b, &mut buffer, RecvFlags::empty()).unwrap();
        assert_eq!(
            (&buffer[..first.len], first.fds.len(), first.truncated),
            (b"hello".as_slice(), 1, false)
        );
        rustix::io::write(&first.fds[0], b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&r, &mut byte), Ok(1));
        let second = receive(&b, &mut buffer[..3], RecvFlags::empty()).unwrap();
        assert!(second.truncated);
        drop(a);
        assert_eq!(receive(&b, &mut buffer, RecvFlags::empty()).unwrap().len, 0);
    }
}
