//! The control channel to QKernel: commands go down, events come up.

use super::socket;
use qlib::control::{Command, ContainerId, Event};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io::IoSlice;

/// Largest event that is read, bytes: a list of some thousand processes fits.
const MAX_EVENT: usize = 1 << 20;
/// Room for commands on the way, bytes: argument lists may be megabytes.
pub const SEND_ROOM: i32 = 8 << 20;

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

/// An event, and whose it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// The container it is about.
    pub of: ContainerId,
    /// What happened.
    pub event: Event,
}

/// A way to command QKernel; one per kind of machine.
pub trait ControlLink {
    /// Sends `command` for container `to`; its handles are indices into `fds`.
    fn send(&mut self, to: ContainerId, command: &Command, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        self.send_encoded(&command.encode(to), fds)
    }
    /// Sends a command that is encoded already.
    fn send_encoded(&mut self, command: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), LinkError>;
    /// The next event, or `None` when there is none now.
    fn receive(&mut self) -> Result<Option<Told>, LinkError>;
    /// What becomes readable when an event waits.
    fn waiter(&self) -> BorrowedFd<'_>;
}

/// A link over a message socket; descriptors ride along. Its other end is the guest kernel's, or, for a container that joined
/// a sandbox, the control socket of that.
pub struct SocketLink {
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// The other end is the guest, whose word is not taken for what the host's kernel can tell.
    guest: bool,
}

impl SocketLink {
    /// A link to the guest kernel over `socket` (`SOCK_SEQPACKET`).
    pub fn to_guest(socket: OwnedFd) -> Self {
        let _ = socket::tell_senders(&socket);
        Self::new(socket, true)
    }

    /// A link to the server of the sandbox that was joined.
    pub fn to_sandbox(socket: OwnedFd) -> Self {
        Self::new(socket, false)
    }

    fn new(socket: OwnedFd, guest: bool) -> Self {
        crate::sys::force_send_buffer(&socket, SEND_ROOM);
        Self {
            socket,
            buffer: vec![0; MAX_EVENT],
            guest,
        }
    }
}

impl ControlLink for SocketLink {
    fn send_encoded(&mut self, command: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        // Never blocks: a guest that does not read its commands is a broken guest, not a reason to hang.
        match socket::send(&self.socket, &[IoSlice::new(command)], fds, SendFlags::DONTWAIT) {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE) => Err(LinkError::TooLong),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(LinkError::Closed),
            Err(e) => Err(LinkError::Os(e.into())),
        }
    }

    fn receive(&mut self) -> Result<Option<Told>, LinkError> {
        let got = match socket::receive(&self.socket, &mut self.buffer, RecvFlags::DONTWAIT) {
            Ok(got) if got.truncated => return Err(LinkError::Malformed),
            Ok(got) if got.len == 0 => return Err(LinkError::Closed),
            Ok(got) => got,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(LinkError::Closed),
            Err(e) => return Err(LinkError::Os(e.into())),
        };
        let (of, mut event) = Event::decode(&self.buffer[..got.len]).map_err(|_| LinkError::Malformed)?;
        if let (Event::Nursery { pid }, true) = (&mut event, self.guest) {
            *pid = got.from.map_or(0, i32::unsigned_abs);
        }
        Ok(Some(Told { of, event }))
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
        let mut link = SocketLink::to_guest(host);
        assert_eq!(link.receive().unwrap(), None);
        let long = ProcessSpec {
            args: vec![vec![b'x'; 100_000]],
            ..ProcessSpec::default()
        };
        let other = ContainerId(3);
        link.send(other, &Command::Exec(ExecId(1), long.clone()), &[guest.as_fd()])
            .unwrap();
        let mut buffer = vec![0; 200_000];
        let got = socket::receive(&guest, &mut buffer, RecvFlags::empty()).unwrap();
        assert_eq!(
            Command::decode(&buffer[..got.len]).unwrap(),
            (other, Command::Exec(ExecId(1), long))
        );
        assert_eq!(got.fds.len(), 1);
        let event = Event::Exited {
            exec: ExecId(1),
            status: 256,
        };
        rustix::io::write(&guest, &event.encode(other)).unwrap();
        assert_eq!(link.receive().unwrap(), Some(Told { of: other, event }));
        // Who sent it is not the guest's to say.
        rustix::io::write(&guest, &Event::Nursery { pid: 1 }.encode(other)).unwrap();
        let event = Event::Nursery {
            pid: std::process::id(),
        };
        assert_eq!(link.receive().unwrap(), Some(Told { of: other, event }));
        rustix::io::write(&guest, b"junk").unwrap();
        assert!(matches!(link.receive(), Err(LinkError::Malformed)));
        drop((guest, got));
        assert!(matches!(link.receive(), Err(LinkError::Closed)));
    }
}
