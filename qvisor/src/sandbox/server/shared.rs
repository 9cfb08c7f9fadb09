//! Containers that share this sandbox: each has a host side of its own, whose connection to the control socket carries its
//! commands to the guest kernel and the guest's events about it back.

use super::requests::{Awaits, Connection, respond};
use super::{Phase, Server};
use crate::runtime::state::Status;
use crate::sandbox::link::Told;
use crate::sandbox::protocol::Response;
use crate::sandbox::socket;
use qlib::control::{Command, ContainerId, Event};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::SendFlags;
use std::io::IoSlice;

/// A container that joined.
pub(super) struct Shared {
    /// Its number in the guest kernel.
    number: ContainerId,
    /// Its id.
    id: String,
}

impl Server {
    /// A connection becomes the link of a container that joins.
    pub(super) fn join(
        &mut self,
        index: usize,
        id: String,
        pid_of: Option<String>,
        ipc_of: Option<String>,
    ) -> Result<(), String> {
        if !matches!(self.phase, Phase::Created | Phase::Running) {
            return Err("cannot share the sandbox of a container that is not running".to_owned());
        }
        if self.parts.machine.is_joined() {
            return Err("the container has no sandbox of its own".to_owned());
        }
        let number = ContainerId(self.next_joined);
        let find = |of: Option<String>| match of {
            None => Ok(number),
            Some(of) if of == self.parts.id => Ok(ContainerId::FIRST),
            Some(of) => {
                let found = self.shared.iter().find(|s| s.id == of);
                found
                    .map(|s| s.number)
                    .ok_or(format!("container {of} is not in this sandbox any more"))
            }
        };
        let (pid_of, ipc_of) = (find(pid_of)?, find(ipc_of)?);
        self.next_joined += 1;
        log::info!("container {id} shares the sandbox");
        self.shared.push(Shared { number, id });
        let connection = &mut self.connections[index];
        connection.joined = Some(number);
        respond(
            connection,
            &Response::Joined {
                pid_of: pid_of.0,
                ipc_of: ipc_of.0,
            },
        );
        // The guest kernel has long been up.
        let of = number;
        self.pass_on(Told {
            of,
            event: Event::Ready,
        });
        Ok(())
    }

    /// A command of a container that joined: its number is what this server gave it, whatever it says.
    pub(super) fn forward(&mut self, number: ContainerId, command: &mut [u8], fds: &[OwnedFd]) {
        let Some(own) = command.get_mut(ContainerId::BYTES) else {
            return;
        };
        own.copy_from_slice(&number.0.to_le_bytes());
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        if let Err(e) = self.parts.machine.link.send_encoded(command, &fds) {
            log::error!("a command of a container that shares the sandbox is lost: {e}");
            self.close(number);
        }
    }

    /// An event about a container that joined.
    pub(super) fn pass_on(&mut self, told: Told) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.joined == Some(told.of)) else {
            return;
        };
        let bytes = told.event.encode(ContainerId::FIRST);
        let sent = socket::send(
            &connection.socket,
            &[IoSlice::new(&bytes)],
            &[],
            SendFlags::DONTWAIT,
        );
        if told.event == Event::Ended {
            self.shared.retain(|s| s.number != told.of);
            connection.joined = None;
            connection.closed = true;
        } else if sent.is_err() {
            self.close(told.of);
        }
        self.connections.retain(|c| !c.closed);
    }

    /// The connection of a container that joined is gone: what is left of it ends.
    pub(super) fn leave(&mut self, number: ContainerId) {
        self.shared.retain(|s| s.number != number);
        let _ = self.parts.machine.link.send(number, &Command::End, &[]);
    }

    fn close(&mut self, number: ContainerId) {
        for connection in self.connections.iter_mut().filter(|c| c.joined == Some(number)) {
            connection.closed = true;
        }
        self.leave(number);
    }

    /// Has the guest kernel stop the container's processes or let them go on; `false`: nobody shares the sandbox, which can be
    /// stopped as a whole.
    pub(super) fn freeze(&mut self, index: usize, stop: bool) -> Result<bool, String> {
        if !matches!(self.phase, Phase::Created | Phase::Running) {
            return Err("container not running".to_owned());
        }
        let alone = self.shared.is_empty() && !self.parts.machine.is_joined();
        if if stop { alone } else { !self.frozen } {
            return Ok(false);
        }
        self.connections[index].awaits = Awaits::Freeze;
        self.command(&Command::Freeze(stop), &[])?;
        Ok(true)
    }

    /// The guest kernel has done so.
    pub(super) fn froze(&mut self, stopped: bool) {
        self.frozen = stopped;
        let status = match (stopped, self.phase) {
            (true, _) => Status::Paused,
            (false, Phase::Running) => Status::Running,
            (false, _) => Status::Created,
        };
        self.set_status(status, None, None);
        self.answer(|c: &Connection| c.awaits == Awaits::Freeze, &Response::Done);
    }
}
