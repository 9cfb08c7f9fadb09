//! The command line's end of a container's control socket.

use super::protocol::{MAX_MESSAGE, Request, Response};
use super::{Error, socket};
use crate::error::Context;
use crate::runtime::state::{CONTROL_SOCKET, ContainerDir};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io::IoSlice;

/// A connection to a sandbox.
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Connects to the sandbox of the container in `dir`.
    pub fn connect(dir: &ContainerDir) -> Result<Self, Error> {
        // A socket's name has 108 bytes at most; the way through the directory's descriptor is always short.
        let fd = dir.descriptor()?;
        let path = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", fd.as_raw_fd());
        let address = SocketAddrUnix::new(path).doing("name the control socket")?;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .doing("make a socket")?;
        rustix::net::connect(&socket, &address)
            .at("reach the sandbox at", dir.path().join(CONTROL_SOCKET))?;
        crate::sys::force_send_buffer(&socket, MAX_MESSAGE as i32);
        Ok(Self { socket })
    }

    /// Sends a request.
    pub fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let bytes = serde_json::to_vec(request).map_err(|_| Error::Protocol)?;
        socket::send(&self.socket, &[IoSlice::new(&bytes)], fds, SendFlags::empty())
            .doing("ask the sandbox")?;
        Ok(())
    }

    /// Waits for the next answer. The end of the connection is the end of the sandbox.
    pub fn receive(&self) -> Result<Response, Error> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let got =
            socket::receive(&self.socket, &mut buffer, RecvFlags::empty()).doing("hear from the sandbox")?;
        if got.len == 0 {
            return Err(Error::Told("the sandbox ended".to_owned()));
        }
        match serde_json::from_slice(&buffer[..got.len]) {
            Ok(Response::Error { message, .. }) => Err(Error::Guest(message)),
            Ok(response) => Ok(response),
            Err(_) => Err(Error::Protocol),
        }
    }

    /// Asks and waits for the answer.
    pub fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Response, Error> {
        self.send(request, fds)?;
        self.receive()
    }

    /// The connection, for what else is to be said on it.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// What becomes readable when an answer waits.
    pub fn waiter(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
