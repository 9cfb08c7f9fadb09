//! The command line's requests: connections to the control socket, what each asks for and waits for.

use super::{Phase, Server};
use crate::cgroup::MemoryWatch;
use crate::sandbox::link::SEND_ROOM;
use crate::sandbox::protocol::{MAX_MESSAGE, ProcessInfo, Request, Response};
use crate::sandbox::socket;
use crate::sys;
use qlib::control::{Command, ContainerId, ExecId, ProcessSpec};
use qlib::qcall::HandleId;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use std::io::IoSlice;

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    Nothing,
    Start,
    Processes,
    Metrics,
    Memory,
    Freeze,
}

/// A connection to the control socket.
pub(super) struct Connection {
    pub socket: OwnedFd,
    pub awaits: Awaits,
    pub exec: Option<ExecId>,
    kill_on_close: bool,
    /// It is the link of a container that joined the sandbox.
    pub joined: Option<ContainerId>,
    pub closed: bool,
}

impl Server {
    /// Answers every connection that `whose` picks.
    pub(super) fn answer(&mut self, whose: impl Fn(&Connection) -> bool, response: &Response) {
        for connection in self.connections.iter_mut().filter(|c| whose(c)) {
            respond(connection, response);
            connection.awaits = Awaits::Nothing;
        }
    }

    pub(super) fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.parts.listener, flags) else {
            return;
        };
        match sys::peer_uid(socket.as_fd()) {
            Ok(uid) if uid == self.parts.owner || uid == 0 => {}
            _ => return,
        }
        sys::force_send_buffer(&socket, MAX_MESSAGE as i32);
        self.connections.push(Connection {
            socket,
            awaits: Awaits::Nothing,
            exec: None,
            kill_on_close: false,
            joined: None,
            closed: false,
        });
    }

    pub(super) fn read_request(&mut self, index: usize) {
        // A command's arguments are checked for their length by who sends it.
        let mut buffer = vec![0; MAX_MESSAGE.max(SEND_ROOM as usize)];
        let got = match socket::receive(&self.connections[index].socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok(got) if got.len > 0 && !got.truncated => got,
            Err(Errno::AGAIN) => return,
            _ => {
                let connection = &mut self.connections[index];
                connection.closed = true;
                if let (true, Some(exec)) = (connection.kill_on_close, connection.exec) {
                    let command = Command::Signal {
                        exec,
                        signo: libc::SIGKILL as u32,
                        all: false,
                    };
                    let _ = self.command(&command, &[]);
                }
                if let Some(number) = self.connections[index].joined {
                    self.leave(number);
                }
                return;
            }
        };
        if let Some(number) = self.connections[index].joined {
            return self.forward(number, &mut buffer[..got.len], &got.fds);
        }
        let outcome = match serde_json::from_slice(&buffer[..got.len]) {
            Ok(request) => self.on_request(index, request, got.fds),
            Err(e) => Err(format!("request: {e}")),
        };
        let connection = &mut self.connections[index];
        match outcome {
            Ok(Some(response)) => respond(connection, &response),
            Ok(None) => {}
            Err(message) => {
                connection.awaits = Awaits::Nothing;
                respond(connection, &Response::Error { message, errno: 0 });
            }
        }
    }

    fn on_request(
        &mut self,
        index: usize,
        r: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Response>, String> {
        log::debug!("request: {}", r.name());
        match r {
            Request::Start => {
                match self.phase {
                    Phase::Created if self.connections.iter().all(|c| c.awaits != Awaits::Start) => {}
                    Phase::Running => return Err("cannot start an already running container".to_owned()),
                    Phase::Created => return Err("the container is being started".to_owned()),
                    _ => return Err("cannot start a container that has stopped".to_owned()),
                }
                // The terminal got its size after the process was described: a program must see it from its first call.
                self.pass_size_on();
                self.connections[index].awaits = Awaits::Start;
                self.next_hook_or_start()?;
                Ok(None)
            }
            Request::Exec {
                process,
                kill_on_close,
            } => {
                if !matches!(self.phase, Phase::Created | Phase::Running) {
                    return Err("cannot exec in a container that is not running".to_owned());
                }
                let mut spec = crate::runtime::process::to_guest(&process).map_err(|e| e.to_string())?;
                spec.stdio = (0..fds.len() as u64).map(HandleId).collect();
                let exec = self.exec(spec, &fds)?;
                self.proxies.retain(|p| sys::exists(*p));
                self.proxies
                    .extend(sys::peer_pid(self.connections[index].socket.as_fd()));
                let connection = &mut self.connections[index];
                (connection.exec, connection.awaits) = (Some(exec), Awaits::Start);
                connection.kill_on_close = kill_on_close;
                Ok(None)
            }
            Request::Signal { signo, all } => {
                match self.connections[index].exec {
                    Some(exec) => {
                        self.command(
                            &Command::Signal {
                                exec,
                                signo,
                                all: false,
                            },
                            &[],
                        )?;
                        return Ok(None);
                    }
                    None => self.signal_init(signo, all)?,
                }
                Ok(Some(Response::Done))
            }
            Request::Resize { rows, cols } => {
                let own = self.connections[index].exec;
                self.command(
                    &Command::Resize {
                        exec: own.unwrap_or(ExecId::INIT),
                        rows,
                        cols,
                    },
                    &[],
                )?;
                Ok(own.is_none().then_some(Response::Done))
            }
            Request::Processes => {
                if self.phase != Phase::Running {
                    return Err("container not running".to_owned());
                }
                self.connections[index].awaits = Awaits::Processes;
                self.command(&Command::Processes, &[])?;
                Ok(None)
            }
            Request::Join { id, pid_of, ipc_of } => self.join(index, id, pid_of, ipc_of).map(|()| None),
            Request::Freeze { stop } => Ok((!self.freeze(index, stop)?).then_some(Response::Alone)),
            Request::Metrics => {
                if self.phase != Phase::Running {
                    return Err("container not running".to_owned());
                }
                self.connections[index].awaits = Awaits::Metrics;
                self.command(&Command::Metrics, &[])?;
                Ok(None)
            }
            Request::WatchMemory => {
                self.connections[index].awaits = Awaits::Memory;
                Ok(None)
            }
            Request::Limits { memory, pids } => {
                if !matches!(self.phase, Phase::Created | Phase::Running) {
                    return Err("container not running".to_owned());
                }
                if let Some(limit) = Some(memory).filter(|l| *l != 0) {
                    self.parts.memory = match fds.into_iter().next() {
                        Some(dir) if limit != u64::MAX => {
                            Some(MemoryWatch::open(dir, limit).map_err(|e| e.to_string())?)
                        }
                        _ => None,
                    };
                    self.memory_scarce = false;
                }
                self.command(&Command::Limits { memory, pids }, &[])?;
                Ok(Some(Response::Done))
            }
        }
    }

    pub(super) fn exec(&mut self, spec: ProcessSpec, fds: &[OwnedFd]) -> Result<ExecId, String> {
        let exec = ExecId(self.next_exec);
        self.next_exec += 1;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        self.command(&Command::Exec(exec, spec), &fds)?;
        Ok(exec)
    }
}

pub(super) fn process_info(entry: qlib::control::ProcessEntry) -> ProcessInfo {
    let words: Vec<String> = entry
        .cmdline
        .split(|b| *b == 0)
        .filter(|w| !w.is_empty())
        .map(|w| String::from_utf8_lossy(w).into_owned())
        .collect();
    ProcessInfo {
        pid: entry.pid,
        ppid: entry.ppid,
        uid: entry.uid,
        state: char::from(entry.state),
        start_s: entry.start_s,
        tty: entry.tty,
        cpu_ms: entry.cpu_ms,
        command: words.join(" "),
    }
}

pub(super) fn respond(connection: &Connection, response: &Response) {
    let bytes = serde_json::to_vec(response).unwrap_or_default();
    let _ = socket::send(
        &connection.socket,
        &[IoSlice::new(&bytes)],
        &[],
        SendFlags::DONTWAIT,
    );
}
