//! Staying in the foreground: signals are passed on, and a terminal is carried to ours.

use super::Error;
use crate::error::Context;
use crate::runtime::state::{ContainerDir, Record};
use crate::sandbox::client::Client;
use crate::sandbox::protocol::Request;
use crate::sandbox::{socket, stdio};
use crate::sys;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags};
use rustix::termios::{OptionalActions, Termios, Winsize};

/// A pair over which a terminal's master is handed from the sandbox to us, if `wanted`.
pub fn console(wanted: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>), Error> {
    if !wanted {
        return Ok((None, None));
    }
    let (ours, theirs) = socket::message_pair().doing("make a console socket")?;
    Ok((Some(ours), Some(theirs)))
}

/// A container's terminal that is carried to ours. Ours is raw until this is dropped.
pub struct Terminal {
    master: OwnedFd,
    saved: Option<Termios>,
    /// Typed, but not yet taken by the container's terminal.
    pending: Vec<u8>,
    stdin_open: bool,
}

impl Terminal {
    /// Takes the master that comes over `console`.
    pub fn receive(console: OwnedFd) -> Result<Self, Error> {
        let mut name = [0; 64];
        let got = socket::receive(&console, &mut name, RecvFlags::empty()).doing("receive the terminal")?;
        match got.fds.into_iter().next() {
            Some(master) => Self::new(master),
            None => Err(Error::Usage("the sandbox sent no terminal")),
        }
    }

    /// Carries the terminal of `master`.
    pub fn new(master: OwnedFd) -> Result<Self, Error> {
        let flags = rustix::fs::fcntl_getfl(&master).doing("prepare the terminal")?;
        rustix::fs::fcntl_setfl(&master, flags | rustix::fs::OFlags::NONBLOCK)
            .doing("prepare the terminal")?;
        let stdin = std::io::stdin();
        let mut saved = None;
        if let Ok(modes) = rustix::termios::tcgetattr(&stdin) {
            let mut raw = modes.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(&stdin, OptionalActions::Now, &raw)
                .doing("set the terminal's modes")?;
            saved = Some(modes);
        }
        let terminal = Self {
            master,
            saved,
            pending: Vec::new(),
            stdin_open: true,
        };
        terminal.copy_size();
        Ok(terminal)
    }

    /// Gives the container's terminal the size of ours.
    fn copy_size(&self) -> Option<(u32, u32)> {
        let (rows, cols) = stdio::size_of(std::io::stdin()).or_else(|| stdio::size_of(std::io::stdout()))?;
        let size = Winsize {
            ws_row: rows as u16,
            ws_col: cols as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let _ = rustix::termios::tcsetwinsize(&self.master, size);
        Some((rows, cols))
    }

    /// Copies what the container wrote to our stdout; gives whether more may come.
    fn show(&self) -> bool {
        let mut bytes = [0u8; 16384];
        match rustix::io::read(&self.master, &mut bytes) {
            Ok(0) => false,
            Ok(n) => write_all(std::io::stdout().as_fd(), &bytes[..n]),
            Err(Errno::AGAIN | Errno::INTR) => true,
            // EIO: the last slave was closed.
            Err(_) => false,
        }
    }

    fn take_input(&mut self) {
        let mut bytes = [0u8; 4096];
        match rustix::io::read(std::io::stdin(), &mut bytes) {
            Ok(0) => self.stdin_open = false,
            Ok(n) => self.pending.extend_from_slice(&bytes[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.stdin_open = false,
        }
    }

    fn give_input(&mut self) {
        match rustix::io::write(&self.master, &self.pending) {
            Ok(n) => drop(self.pending.drain(..n)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.pending.clear(),
        }
    }

    /// Shows what is left once the program has ended.
    fn drain(&self) {
        loop {
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let now = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let ready = rustix::event::poll(&mut fds, Some(&now)).unwrap_or(0) > 0;
            if !ready || !fds[0].revents().contains(PollFlags::IN) || !self.show() {
                return;
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, saved);
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                let _ = rustix::event::poll(&mut fds, None);
            }
            Err(_) => return false,
        }
    }
    true
}

/// From here on signals are read, not suffered.
pub fn catch_signals() -> Result<OwnedFd, Error> {
    sys::block_signals(true).doing("block signals")?;
    Ok(sys::signal_fd().doing("make a signal descriptor")?)
}

/// What is done for the program in the foreground.
pub struct Session<'a> {
    /// Readable (or hung up) when the program has ended.
    pub done: BorrowedFd<'a>,
    /// Passes a signal on.
    pub signal: &'a dyn Fn(u32),
    /// Passes our terminal's size on.
    pub resize: &'a dyn Fn(u32, u32),
}

/// Passes signals and the terminal's bytes on until the program has ended.
pub fn pump(session: &Session<'_>, signals: &OwnedFd, mut terminal: Option<Terminal>) -> Result<(), Error> {
    let stdin = std::io::stdin();
    let mut shown_all = terminal.is_none();
    loop {
        let ready: Vec<PollFlags> = {
            let nothing = PollFlags::empty();
            let mut fds = vec![
                PollFd::from_borrowed_fd(session.done, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            if let Some(t) = &terminal {
                let out = if t.pending.is_empty() {
                    nothing
                } else {
                    PollFlags::OUT
                };
                if !shown_all {
                    fds.push(PollFd::new(&t.master, PollFlags::IN | out));
                }
                if t.stdin_open && t.pending.is_empty() {
                    fds.push(PollFd::new(&stdin, PollFlags::IN));
                }
            }
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Ok(Err(e).doing("wait")?),
            }
            fds.iter().map(PollFd::revents).collect()
        };
        if let Some(t) = &mut terminal {
            let mut next = 2;
            if !shown_all {
                let master = ready[next];
                next += 1;
                if master.contains(PollFlags::OUT) {
                    t.give_input();
                }
                if master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    shown_all = !t.show();
                }
            }
            if ready.get(next).is_some_and(|r| !r.is_empty()) {
                t.take_input();
                t.give_input();
            }
        }
        while let Some(signo) = sys::next_signal(signals.as_fd()) {
            match signo {
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => {}
                libc::SIGWINCH => {
                    if let Some((rows, cols)) = terminal.as_ref().and_then(Terminal::copy_size) {
                        (session.resize)(rows, cols);
                    }
                }
                _ => (session.signal)(signo as u32),
            }
        }
        if !ready[0].is_empty() {
            if let Some(t) = &terminal {
                t.drain();
            }
            return Ok(());
        }
    }
}

/// Attends a container's own program until its sandbox process has ended.
pub fn attend(
    dir: &ContainerDir,
    record: &Record,
    signals: OwnedFd,
    terminal: Option<Terminal>,
) -> Result<(), Error> {
    let pid = Pid::from_raw(record.pid).ok_or(Error::Usage("the container has no process"))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).doing("watch the sandbox process")?;
    let signal = |signo: u32| {
        if let Ok(client) = Client::connect(dir) {
            let _ = client.ask(&Request::Signal { signo, all: false }, &[]);
        }
    };
    // The size went to the terminal itself, which tells the sandbox.
    let session = Session {
        done: pidfd.as_fd(),
        signal: &signal,
        resize: &|_, _| {},
    };
    pump(&session, &signals, terminal)
}
