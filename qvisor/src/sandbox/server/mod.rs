//! The sandbox process's life: it waits for the guest's events, the command line's requests, signals and its machine.

mod requests;
mod shared;

use super::inside::InsideHook;
use super::machine::Machine;
use super::order::Answer;
use super::protocol::Response;
use super::{Error, init, jail, socket, stdio};
use crate::cgroup::{MemoryWatch, Verdict};
use crate::runtime::signal::exit_code;
use crate::runtime::state::{self, Status, StatusRecord};
use crate::seccomp::Role;
use crate::sys;
use qlib::control::{Command, ContainerId, ContainerSpec, Event, ExecId};
use requests::{Awaits, Connection, process_info, respond};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SendFlags;
use shared::Shared;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

/// How long the guest kernel may take to come up.
const BOOT_TIME: Duration = Duration::from_secs(30);
/// How long the machine may take to end once the container's program has.
const END_TIME: Duration = Duration::from_secs(2);
/// How long the guest may take to end the container's program after SIGKILL before its machine is killed.
const KILL_TIME: Duration = Duration::from_secs(3);
/// How long the parents of processes that stand for programs in the container may take to hear of their end.
const HEARD_TIME: Duration = Duration::from_secs(1);
/// How often memory is looked at while it is scarce.
const MEMORY_PERIOD: Duration = Duration::from_millis(20);
/// Connections at one time; more wait in the socket's queue.
const MAX_CONNECTIONS: usize = 512;
/// Bytes of the guest kernel's last log lines kept for the reason of its end.
const LOG_TAIL: usize = 4096;

/// Where the sandbox is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Booting,
    Creating,
    Created,
    Running,
    Ending,
}

/// What the server is made of.
pub struct Parts {
    /// The container's id.
    pub id: String,
    /// The machine.
    pub machine: Machine,
    /// The container as the guest is told, and what its handles stand for.
    pub container: (ContainerSpec, Vec<OwnedFd>),
    /// The container's directory.
    pub state_dir: OwnedFd,
    /// The control socket, listening.
    pub listener: OwnedFd,
    /// User id that requests come from.
    pub owner: u32,
    /// The creator's end of the start-up channel.
    pub sync: OwnedFd,
    /// The program's terminal, which is this process's controlling one.
    pub terminal: Option<OwnedFd>,
    /// Watches memory when it is limited.
    pub memory: Option<MemoryWatch>,
    /// What runs inside before the container's program.
    pub start_hooks: VecDeque<InsideHook>,
}

/// The server.
pub struct Server {
    parts: Parts,
    signals: OwnedFd,
    sync: Option<OwnedFd>,
    phase: Phase,
    since: Instant,
    connections: Vec<Connection>,
    next_exec: u32,
    /// Containers that share the sandbox.
    shared: Vec<Shared>,
    next_joined: u32,
    /// The guest kernel has stopped the container's processes.
    frozen: bool,
    /// Processes of the host that stand for programs which were started later.
    proxies: Vec<i32>,
    memory_scarce: bool,
    memory_ran_out: bool,
    killed: Option<Instant>,
    /// The hook that runs inside now: its number, its program, until when it may.
    hook: Option<(ExecId, String, Option<Instant>)>,
    init_status: Option<u32>,
    log_tail: Vec<u8>,
    log_partial: Vec<u8>,
}

impl Server {
    /// A server for a machine that has just been started.
    pub fn new(mut parts: Parts, signals: OwnedFd) -> Result<Self, Error> {
        let sync = std::mem::replace(
            &mut parts.sync,
            rustix::io::dup(&signals).map_err(|_| Error::Protocol)?,
        );
        Ok(Self {
            parts,
            signals,
            sync: Some(sync),
            phase: Phase::Booting,
            since: Instant::now(),
            connections: Vec::new(),
            next_exec: 1,
            shared: Vec::new(),
            next_joined: ContainerId::FIRST.0 + 1,
            frozen: false,
            proxies: Vec::new(),
            memory_scarce: false,
            memory_ran_out: false,
            killed: None,
            hook: None,
            init_status: None,
            log_tail: Vec::new(),
            log_partial: Vec::new(),
        })
    }

    /// Serves until the machine has ended; gives the exit code of this process. Confines the calling thread first, and
    /// only then lets the machine go.
    pub fn run(mut self) -> i32 {
        if let Err(e) = jail::confine_thread(Role::Server) {
            return self.end(Some(&e.to_string()));
        }
        self.parts.machine.let_go();
        loop {
            if let Some(code) = self.turn() {
                return code;
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let left = |time: Duration| time.saturating_sub(self.since.elapsed()) + Duration::from_millis(1);
        let until = |t: Instant| t.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let phase = match self.phase {
            Phase::Created => self.hook.as_ref().and_then(|h| h.2).map(until),
            Phase::Booting | Phase::Creating => Some(left(BOOT_TIME)),
            Phase::Ending => Some(left(END_TIME)),
            _ => self
                .killed
                .map(|t| KILL_TIME.saturating_sub(t.elapsed()) + Duration::from_millis(1)),
        };
        if self.memory_scarce {
            Some(phase.map_or(MEMORY_PERIOD, |p| p.min(MEMORY_PERIOD)))
        } else {
            phase
        }
    }

    /// Waits once and handles what came. Gives the exit code at the end.
    fn turn(&mut self) -> Option<i32> {
        let timeout = self.timeout().and_then(|t| Timespec::try_from(t).ok());
        let ready = {
            let link = self.parts.machine.link.waiter();
            let memory = self.parts.memory.as_ref().map(MemoryWatch::event);
            let mut fds = vec![
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::from_borrowed_fd(link, PollFlags::IN),
                match &self.parts.machine.log {
                    Some(log) => PollFd::new(log, PollFlags::IN),
                    None => PollFd::new(&self.signals, PollFlags::IN),
                },
                PollFd::new(
                    &self.parts.listener,
                    if self.connections.len() < MAX_CONNECTIONS {
                        PollFlags::IN
                    } else {
                        PollFlags::empty()
                    },
                ),
                match &self.sync {
                    Some(sync) => PollFd::new(sync, PollFlags::empty()),
                    None => PollFd::new(&self.signals, PollFlags::IN),
                },
                match memory {
                    Some((fd, flags)) if !self.memory_scarce => PollFd::from_borrowed_fd(fd, flags),
                    _ => PollFd::new(&self.signals, PollFlags::IN),
                },
            ];
            fds.extend(
                self.connections
                    .iter()
                    .map(|c| PollFd::new(&c.socket, PollFlags::IN)),
            );
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Some(self.end(Some(&format!("waiting for events failed: {e}")))),
            }
            fds.iter().map(|f| !f.revents().is_empty()).collect::<Vec<bool>>()
        };
        // The log first: it tells why what follows happened.
        if ready[2] {
            self.read_log();
        }
        if ready[1] {
            self.read_events();
        }
        let died = ready[0] && self.read_signals() || self.parts.machine.has_left();
        if self.parts.memory.is_some() && (ready[5] || self.memory_scarce) {
            self.look_at_memory();
        }
        for index in (0..self.connections.len()).rev() {
            if ready.get(6 + index) == Some(&true) {
                self.read_request(index);
            }
        }
        self.connections.retain(|c| !c.closed);
        if ready[3] {
            self.accept();
        }
        if died {
            // What it said before it died is still to be heard.
            self.read_log();
            self.read_events();
            return Some(self.end(None));
        }
        if self.sync.is_some() && ready[4] {
            return Some(self.end(Some("the creator went away")));
        }
        match self.phase {
            Phase::Booting | Phase::Creating if self.since.elapsed() >= BOOT_TIME => {
                Some(self.end(Some("the guest kernel did not come up in time")))
            }
            Phase::Ending if self.since.elapsed() >= END_TIME => Some(self.end(None)),
            Phase::Created => {
                if self
                    .hook
                    .as_ref()
                    .and_then(|h| h.2)
                    .is_some_and(|t| t <= Instant::now())
                {
                    self.hook_failed("took longer than its timeout");
                }
                None
            }
            Phase::Running if self.killed.is_some_and(|t| t.elapsed() >= KILL_TIME) => {
                log::error!("the guest kernel does not answer SIGKILL: its machine is killed");
                self.init_status = Some(libc::SIGKILL as u32);
                Some(self.end(None))
            }
            _ => None,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    fn command(&mut self, command: &Command, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        self.parts
            .machine
            .link
            .send(ContainerId::FIRST, command, fds)
            .map_err(|e| e.to_string())
    }

    fn set_status(&self, status: Status, exit_code: Option<i32>, reason: Option<String>) {
        let record = StatusRecord {
            status,
            exit_code,
            reason,
        };
        if let Err(e) = state::write_status(&self.parts.state_dir, &record) {
            log::error!("cannot record the container's status: {e}");
        }
    }

    fn tell_creator(&mut self, answer: &Answer) {
        if let Some(sync) = self.sync.take() {
            let bytes = serde_json::to_vec(answer).unwrap_or_default();
            let _ = socket::send(&sync, &[IoSlice::new(&bytes)], &[], SendFlags::empty());
        }
    }

    /// Ends the machine and this process's work; gives the exit code.
    fn end(&mut self, why: Option<&str>) -> i32 {
        self.parts.machine.kill();
        let how = self.parts.machine.wait();
        let starting = self.sync.is_some();
        let (code, reason) = match (self.init_status, why) {
            (Some(status), _) => (exit_code(status), None),
            (None, Some(why)) => (1, Some(why.to_owned())),
            (None, None) => {
                let tail = self.last_log_lines();
                let reason = if tail.is_empty() {
                    how.clone()
                } else {
                    format!("{how}; its last words: {tail}")
                };
                (
                    if how.contains("SIGKILL") { 137 } else { 1 },
                    Some(format!("the guest kernel ended: {reason}")),
                )
            }
        };
        if let Some(reason) = &reason {
            log::error!("{reason}");
        }
        if starting {
            let said = reason
                .clone()
                .unwrap_or_else(|| "the container's program ended at once".to_owned());
            self.tell_creator(&Answer::Failed(said));
        }
        for connection in &self.connections {
            let response = match (connection.exec, connection.awaits) {
                (Some(_), Awaits::Nothing) => Response::Exited { code: 137 },
                // A container that shares the sandbox sees the end of its connection.
                (_, Awaits::Nothing | Awaits::Memory) => continue,
                _ => Response::Error {
                    message: "the container stopped".to_owned(),
                    errno: libc::ESRCH,
                },
            };
            respond(connection, &response);
        }
        if let (true, Some(memory)) = (self.memory_ran_out, &self.parts.memory) {
            memory.announce();
        }
        self.wait_for_proxies();
        self.set_status(Status::Stopped, Some(code), reason);
        code
    }

    /// Lets the processes that stand for programs of the container end first, and their parents hear of it, as the end of a
    /// pid namespace's first process waits for all others: engines know no program of a container that has ended.
    fn wait_for_proxies(&self) {
        let until = Instant::now() + HEARD_TIME;
        while Instant::now() < until && self.proxies.iter().any(|p| sys::exists(*p)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The last lines of the guest kernel's log, in one.
    fn last_log_lines(&self) -> String {
        let text = String::from_utf8_lossy(&self.log_tail);
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" | ")
    }

    fn read_log(&mut self) {
        let mut bytes = [0u8; 4096];
        let Some(log) = &self.parts.machine.log else {
            return;
        };
        // Bounded: a guest that never stops logging must not keep us from the rest.
        for _ in 0..16 {
            let Ok(n) = rustix::io::read(log, &mut bytes) else {
                return;
            };
            if n == 0 {
                break;
            }
            self.log_tail.extend_from_slice(&bytes[..n]);
            let extra = self.log_tail.len().saturating_sub(LOG_TAIL);
            self.log_tail.drain(..extra);
            self.log_partial.extend_from_slice(&bytes[..n]);
            while let Some(end) = self.log_partial.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.log_partial.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                let (level, text) = log_level(text.trim_end());
                log::log!(target: "qkernel", level, "{text}");
            }
            if self.log_partial.len() > LOG_TAIL {
                self.log_partial.clear();
            }
        }
    }

    /// Tells the guest the size of the container's terminal.
    fn pass_size_on(&mut self) {
        let size = self.parts.terminal.as_ref().and_then(stdio::size_of);
        if let Some((rows, cols)) = size {
            let exec = ExecId::INIT;
            let _ = self.command(&Command::Resize { exec, rows, cols }, &[]);
        }
    }

    /// Reads signals; gives whether the machine has ended.
    fn read_signals(&mut self) -> bool {
        let mut died = false;
        while let Some(signo) = sys::next_signal(self.signals.as_fd()) {
            match signo {
                libc::SIGCHLD => died |= self.parts.machine.has_ended(),
                libc::SIGWINCH => {
                    self.pass_size_on();
                }
                // A hang-up of the terminal reaches the guest through the terminal.
                libc::SIGHUP if self.parts.terminal.is_some() => {}
                libc::SIGPIPE
                | libc::SIGCONT
                | libc::SIGTSTP
                | libc::SIGTTIN
                | libc::SIGTTOU
                | libc::SIGURG => {}
                _ => {
                    let _ = self.signal_init(signo as u32, false);
                }
            }
        }
        died
    }

    /// Sends a signal to the container's program; before it is started, a signal ends the container.
    fn signal_init(&mut self, signo: u32, all: bool) -> Result<(), String> {
        match self.phase {
            // Whether it could be sent is all that is asked.
            Phase::Created | Phase::Running if signo == 0 => Ok(()),
            Phase::Running => {
                let kill = signo == libc::SIGKILL as u32;
                if kill {
                    self.killed.get_or_insert_with(Instant::now);
                }
                let command = Command::Signal {
                    exec: ExecId::INIT,
                    signo,
                    all,
                };
                // A guest that takes no more commands is killed with its machine, in a while.
                self.command(&command, &[])
                    .or_else(|e| if kill { Ok(()) } else { Err(e) })
            }
            Phase::Created => {
                if !matches!(
                    signo as i32,
                    libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH
                ) {
                    self.init_status = Some(signo & 0x7f);
                    self.parts.machine.kill();
                    self.enter(Phase::Ending);
                }
                Ok(())
            }
            _ => Err("container not running".to_owned()),
        }
    }

    fn look_at_memory(&mut self) {
        let verdict = match &mut self.parts.memory {
            Some(memory) => memory.look(),
            None => Verdict::Fine,
        };
        self.memory_scarce = verdict != Verdict::Fine;
        if verdict == Verdict::OutOfMemory {
            log::warn!("the container is out of memory: its guest kernel kills the largest process");
            let _ = self.command(&Command::OutOfMemory, &[]);
        }
    }

    fn read_events(&mut self) {
        loop {
            match self.parts.machine.link.receive() {
                Ok(Some(told)) if told.of == ContainerId::FIRST => self.on_event(told.event),
                Ok(Some(told)) => self.pass_on(told),
                Ok(None) => return,
                Err(super::link::LinkError::Malformed) => {
                    log::error!("the guest kernel sent a malformed event: the sandbox ends");
                    self.parts.machine.kill();
                    return;
                }
                Err(_) if self.parts.machine.is_joined() => return self.parts.machine.left(),
                Err(_) => {
                    // Closed: the machine is ending; SIGCHLD tells when it has. Polling a dead socket would spin.
                    if self.phase != Phase::Ending {
                        self.enter(Phase::Ending);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                    return;
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Ready if self.phase != Phase::Booting => {}
            Event::Ready => {
                log::debug!(
                    "the guest kernel is up after {} ms",
                    self.since.elapsed().as_millis()
                );
                let (spec, handles) = std::mem::take(&mut self.parts.container);
                let fds: Vec<BorrowedFd<'_>> = handles.iter().map(AsFd::as_fd).collect();
                let create = Command::Create(spec);
                let sent = self.parts.machine.link.send(ContainerId::FIRST, &create, &fds);
                match sent {
                    Ok(()) => self.enter(Phase::Creating),
                    Err(e) => self.fail_start(&e.to_string()),
                }
            }
            Event::Nursery { pid } => {
                let placed = match &self.sync {
                    Some(sync) => init::handshake(sync, Some(&Answer::NeedCgroup(pid))),
                    None => Ok(()),
                };
                if let Err(e) = placed {
                    self.fail_start(&e.to_string());
                }
            }
            Event::Ended => self.parts.machine.left(),
            Event::Frozen(stopped) => self.froze(stopped),
            Event::Created if self.phase != Phase::Creating => {}
            Event::Created => {
                self.enter(Phase::Created);
                self.set_status(Status::Created, None, None);
                self.tell_creator(&Answer::Created);
            }
            Event::Started { exec, .. } if self.is_hook(exec) => {}
            Event::Started { exec, pid } => {
                log::info!("{} runs as process {pid}", program_name(exec));
                if exec == ExecId::INIT {
                    self.enter(Phase::Running);
                    self.set_status(Status::Running, None, None);
                    self.answer(
                        |c| c.exec.is_none() && c.awaits == Awaits::Start,
                        &Response::Started { pid },
                    );
                } else {
                    self.answer(
                        |c| c.exec == Some(exec) && c.awaits == Awaits::Start,
                        &Response::Started { pid },
                    );
                }
            }
            Event::Failed { exec, message, .. } if self.is_hook(exec) => {
                self.hook_failed(&String::from_utf8_lossy(&message));
            }
            Event::Exited { exec, status } if self.is_hook(exec) => {
                let outcome = match exit_code(status) {
                    0 => {
                        self.hook = None;
                        self.next_hook_or_start()
                    }
                    code => Err(format!("exit status {code}")),
                };
                if let Err(why) = outcome {
                    self.hook_failed(&why);
                }
            }
            Event::Failed { exec, errno, message } => self.on_failed(exec, errno, message),
            Event::Exited {
                exec: ExecId::INIT,
                status,
            } => {
                log::info!(
                    "the container's program has ended: exit code {}",
                    exit_code(status)
                );
                self.init_status = Some(status);
                self.enter(Phase::Ending);
            }
            Event::Exited { exec, status } => {
                log::info!(
                    "{} has ended: exit code {}",
                    program_name(exec),
                    exit_code(status)
                );
                let response = Response::Exited {
                    code: exit_code(status),
                };
                for connection in self.connections.iter_mut().filter(|c| c.exec == Some(exec)) {
                    respond(connection, &response);
                    connection.closed = true;
                }
                self.connections.retain(|c| !c.closed);
            }
            Event::Processes(list) => {
                let list = list.into_iter().map(process_info).collect();
                self.answer(|c| c.awaits == Awaits::Processes, &Response::Processes { list });
            }
            Event::Metrics(list) => {
                let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
                let list = list
                    .into_iter()
                    .map(|(name, value)| (text(name), value))
                    .collect();
                self.answer(|c| c.awaits == Awaits::Metrics, &Response::Metrics { list });
            }
            Event::OomKilled { pid } => {
                log::warn!("the guest kernel killed process {pid}: out of memory");
                self.memory_ran_out = true;
                for connection in self.connections.iter().filter(|c| c.awaits == Awaits::Memory) {
                    respond(connection, &Response::OutOfMemory);
                }
            }
        }
    }

    fn is_hook(&self, exec: ExecId) -> bool {
        self.hook.as_ref().is_some_and(|h| h.0 == exec)
    }

    /// Runs the next hook inside, or, when none is left, the container's program.
    fn next_hook_or_start(&mut self) -> Result<(), String> {
        let Some(hook) = self.parts.start_hooks.pop_front() else {
            return self.command(&Command::Start, &[]);
        };
        let (path, until) = (hook.path.clone(), hook.timeout.map(|t| Instant::now() + t));
        let exec = ExecId(self.next_exec);
        self.hook = Some((exec, path, until));
        let (program, fds) = hook.program();
        self.exec(program, &fds).map(drop)
    }

    /// A hook that fails ends the container before its program has run.
    fn hook_failed(&mut self, why: &str) {
        let path = self.hook.take().map(|h| h.1).unwrap_or_default();
        let response = Response::Error {
            message: format!("startContainer hook {path}: {why}"),
            errno: 0,
        };
        self.answer(|c| c.exec.is_none() && c.awaits == Awaits::Start, &response);
        self.init_status = Some(1 << 8);
        self.parts.machine.kill();
        self.enter(Phase::Ending);
    }

    fn on_failed(&mut self, exec: ExecId, errno: i32, message: Vec<u8>) {
        let message = String::from_utf8_lossy(&message).into_owned();
        if matches!(self.phase, Phase::Booting | Phase::Creating) {
            return self.fail_start(&message);
        }
        let response = Response::Error { message, errno };
        if exec == ExecId::INIT {
            self.answer(|c| c.exec.is_none() && c.awaits == Awaits::Start, &response);
            // A container whose program could not be started has nothing to live for.
            self.init_status = Some(if errno == libc::ENOENT { 127 << 8 } else { 126 << 8 });
            self.parts.machine.kill();
            self.enter(Phase::Ending);
        } else {
            self.answer(|c| c.exec == Some(exec), &response);
        }
    }

    fn fail_start(&mut self, why: &str) {
        self.tell_creator(&Answer::Failed(why.to_owned()));
        self.init_status = Some(1 << 8);
        self.parts.machine.kill();
        self.enter(Phase::Ending);
    }
}

/// A program in words.
fn program_name(exec: ExecId) -> String {
    match exec {
        ExecId::INIT => "the container's program".to_owned(),
        ExecId(number) => format!("exec {number}"),
    }
}

/// The level that a line of the guest kernel begins with, and the rest.
fn log_level(line: &str) -> (log::Level, &str) {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word.parse() {
        Ok(level) => (level, rest),
        Err(_) => (log::Level::Warn, line),
    }
}
