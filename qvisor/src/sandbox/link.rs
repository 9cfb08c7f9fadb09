//! The control channel to QKernel: commands go down, events come up.

use super::socket;
use qlib::control::{Command, Event};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io::IoSlice;

/// Largest event that is read, bytes: a list of some thousand processes fits.
const MAX_EVENT: usize = 1 << 20;
/// Room for commands on the way, bytes: argument lists may be megabytes.
const SEND_ROOM: i32 = 8 << 20;

/// Why the control channel failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The guest closed its end.
    #[error("the guest kernel closed the control channel")]
    Closed,
    /// The guest sent what is not an event.
    #[error("the guest kernel sent a malformed control event")]
    Malformed,
    /// The command does not fit the channel.
    #[error("arguments and environment are too long for the control channel")]
    TooLong,
    /// A host call failed.
    #[error("control channel: {0}")]
    Os(#[source] std::io::Error),
}

/// A way to command QKernel; one per kind of machine.
pub trait ControlLink {
    /// Sends `command`; its handles are indices into `fds`.
    fn send(&mut self, command: &Command, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError>;
    /// The next event, or `None` when there is none now.
    fn receive(&mut self) -> Result<Option<Event>, LinkError>;
    /// What becomes readable when an event waits.
    fn waiter(&self) -> BorrowedFd<'_>;
}

/// The link of the `process` machine: a message socket; descriptors ride along.
pub struct SocketLink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl SocketLink {
    /// A link over `socket` (`SOCK_SEQPACKET`).
    pub fn new(socket: OwnedFd) -> Self {
        crate::sys::force_send_buffer(&socket, SEND_ROOM);
        Self {
            socket,
            buffer: vec![0; MAX_EVENT],
        }
    }
}

impl ControlLink for SocketLink {
    fn send(&mut self, command: &Command, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let bytes = command.encode();
        // Never blocks: a guest that does not read its commands is a broken guest, not a reason to hang.
        match socket::send(&self.socket, &[IoSlice::new(&bytes)], fds, SendFlags::DONTWAIT) {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE) => Err(LinkError::TooLong),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(LinkError::Closed),
            Err(e) => Err(LinkError::Os(e.into())),
        }
    }

    fn receive(&mut self) -> Result<Option<Event>, LinkError> {
        match socket::receive(&self.socket, &mut self.buffer, RecvFlags::DONTWAIT) {
            Ok(got) if got.truncated => Err(LinkError::Malformed),
            Ok(got) if got.len == 0 => Err(LinkError::Closed),
            Ok(got) => Event::decode(&self.buffer[..got.len])
                .map(Some)
                .map_err(|_| LinkError::Malformed),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::CONNRESET) => Err(LinkError::Closed),
            Err(e) => Err(LinkError::Os(e.into())),
        }
    }

    fn waiter(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qlib::control::{ExecId, ProcessSpec};

    #[test]
    fn commands_and_events_cross() {
        let (host, guest) = socket::message_pair().unwrap();
        let mut link = SocketLink::new(host);
        assert_eq!(link.receive().unwrap(), None);
        let long = ProcessSpec {
            args: vec![vec![b'x'; 100_000]],
            ..ProcessSpec::default()
        };
        link.send(&Command::Exec(ExecId(1), long.clone()), &[guest.as_fd()])
            .unwrap();
        let mut buffer = vec![0; 200_000];
        let got = socket::receive(&guest, &mut buffer, RecvFlags::empty()).unwrap();
        assert_eq!(
            Command::decode(&buffer[..got.len]).unwrap(),
            Command::Exec(ExecId(1), long)
        );
        assert_eq!(got.fds.len(), 1);
        let event = Event::Exited {
            exec: ExecId(1),
            status: 256,
        };
        rustix::io::write(&guest, &event.encode()).unwrap();
        assert_eq!(link.receive().unwrap(), Some(event));
        rustix::io::write(&guest, b"junk").unwrap();
        assert!(matches!(link.receive(), Err(LinkError::Malformed)));
        drop((guest, got));
        assert!(matches!(link.receive(), Err(LinkError::Closed)));
    }
}
