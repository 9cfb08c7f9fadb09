//! Terminals: a line discipline between an app's side (the slave, or the console) and the terminal's side (a pty's
//! master, or a terminal of the host). Source: `tty(4)`, `pty(7)`, `termios(3)`.

pub mod console;
mod ctl;
pub mod job;
pub mod ldisc;
mod master;
pub mod output;
mod slave;
pub mod termios;

pub use master::open_ptmx;
pub use slave::{SlaveOps, open_slave};

use crate::sched::wait::{Events, WaitQueue};
use crate::task::Session;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use hal::sync::SpinLock;
use hal::uapi::general as g;
use ldisc::{Effects, Ldisc};
use termios::Termios;

/// Bytes on their way in either direction before the sender waits.
pub const QUEUE: usize = 64 * 1024;

/// Major number of pty slaves (`/dev/pts/N`).
pub const PTS_MAJOR: u32 = 136;

/// Rows, columns and pixel sizes, as `struct winsize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct WinSize {
    pub rows: u16,
    pub cols: u16,
    pub xpixel: u16,
    pub ypixel: u16,
}

/// A terminal: line discipline, foreground group, window size.
pub struct Tty {
    /// N of `/dev/pts/N`.
    pub index: u32,
    /// Lock order: after everything but the wait queues; never held across host calls, copies or signals.
    inner: SpinLock<Inner>,
    /// Who waits at the app's side.
    pub wait: WaitQueue,
    /// Who waits at a pty's master.
    pub master_wait: WaitQueue,
    /// The host's terminal; `None` for ptys.
    console: Option<console::Console>,
}

/// What changes of a terminal.
struct Inner {
    termios: Termios,
    size: WinSize,
    ldisc: Ldisc,
    /// From the terminal, not yet taken by the line discipline.
    input: VecDeque<u8>,
    /// To the terminal.
    output: VecDeque<u8>,
    /// Echo held back while output is stopped.
    held: VecDeque<u8>,
    /// Output is stopped by TCXONC.
    tco_stopped: bool,
    /// Foreground process group, 0 = none.
    pgrp: u32,
    /// The session whose controlling terminal it is.
    session: Weak<Session>,
    /// Open files at the app's side.
    slaves: usize,
    /// The app's side was open and is closed now.
    slave_gone: bool,
    /// The terminal's side is gone.
    master_closed: bool,
    /// Grows with each hangup: files opened before are dead.
    generation: u64,
    /// TIOCPKT, and the status bits not yet read.
    packet: bool,
    status: u8,
    /// TIOCSPTLCK.
    locked: bool,
    /// TIOCEXCL.
    exclusive: bool,
}

impl Inner {
    fn stopped(&self) -> bool {
        self.ldisc.stopped || self.tco_stopped
    }
    fn say(&mut self, status: u32) {
        if self.packet {
            self.status |= status as u8;
        }
    }
    /// Lets the line discipline take what it has room for.
    fn process(&mut self) -> Effects {
        let mut fx = Effects::default();
        let t = self.termios;
        while self.ldisc.room(&t) > 0 {
            let Some(c) = self.input.pop_front() else { break };
            self.ldisc.receive(&t, c, &mut fx);
            if core::mem::take(&mut fx.flush_output) {
                self.held.clear();
                self.output.clear();
                self.say(g::TIOCPKT_FLUSHREAD | g::TIOCPKT_FLUSHWRITE);
            }
        }
        if let Some(stop) = fx.flow {
            self.say(if stop { g::TIOCPKT_STOP } else { g::TIOCPKT_START });
        }
        if !self.stopped() {
            self.output.append(&mut self.held);
        }
        let stopped = self.stopped();
        let queue = if stopped { &mut self.held } else { &mut self.output };
        let room = QUEUE.saturating_sub(queue.len());
        queue.extend(fx.echo.iter().take(room));
        fx
    }
}

impl Tty {
    /// A terminal that is `/dev/pts/<index>`.
    fn new(index: u32, console: Option<console::Console>) -> Arc<Self> {
        Arc::new(Self {
            index,
            inner: SpinLock::new(Inner {
                termios: Termios::default(),
                size: WinSize::default(),
                ldisc: Ldisc::default(),
                input: VecDeque::new(),
                output: VecDeque::new(),
                held: VecDeque::new(),
                tco_stopped: false,
                pgrp: 0,
                session: Weak::new(),
                slaves: 0,
                slave_gone: false,
                master_closed: false,
                generation: 0,
                packet: false,
                status: 0,
                locked: false,
                exclusive: false,
            }),
            wait: WaitQueue::new(),
            master_wait: WaitQueue::new(),
            console,
        })
    }
    /// `st_rdev` of the app's side.
    pub fn rdev(&self) -> u64 {
        crate::fs::dev::makedev(PTS_MAJOR + (self.index >> 8), self.index & 0xff)
    }
    /// Foreground process group, 0 = none.
    pub fn foreground(&self) -> u32 {
        self.inner.lock().pgrp
    }
    /// The window size.
    pub fn size(&self) -> WinSize {
        self.inner.lock().size
    }
    /// Sets the window size; the foreground group gets SIGWINCH when it changed.
    pub fn set_size(&self, size: WinSize) {
        let pgrp = {
            let mut i = self.inner.lock();
            if core::mem::replace(&mut i.size, size) == size {
                return;
            }
            i.pgrp
        };
        job::signal_group(pgrp, crate::signal::signo::SIGWINCH);
    }
    /// Takes bytes from the terminal's side; returns how many there was room for.
    fn input(&self, bytes: &[u8]) -> usize {
        let (n, fx) = {
            let mut i = self.inner.lock();
            let n = bytes.len().min(QUEUE - i.input.len().min(QUEUE));
            i.input.extend(&bytes[..n]);
            (n, i.process())
        };
        self.apply(fx);
        n
    }
    /// Goes on with input that waited for room.
    fn pull(&self) {
        let fx = {
            let mut i = self.inner.lock();
            if i.input.is_empty() {
                return;
            }
            i.process()
        };
        self.apply(fx);
        self.master_wait.wake(Events::OUT | Events::WRNORM);
        if let Some(c) = &self.console {
            c.kick();
        }
    }
    /// Carries out what the line discipline said.
    fn apply(&self, fx: Effects) {
        if !fx.signals.is_empty() {
            let pgrp = self.foreground();
            for s in &fx.signals {
                job::signal_group(pgrp, *s);
            }
        }
        if fx.readable {
            self.wait.wake(Events::IN | Events::RDNORM);
        }
        if fx.flow.is_some() {
            self.wait.wake(Events::OUT | Events::WRNORM);
        }
        self.output_changed();
    }
    /// There may be output for the terminal's side.
    fn output_changed(&self) {
        match &self.console {
            Some(c) => c.flush(self),
            None => self.master_wait.wake(Events::IN | Events::RDNORM | Events::PRI),
        }
    }
    /// Ends the app's side: open files are dead, the session's leader gets SIGHUP and SIGCONT.
    fn hang_up(&self, exiting: bool) {
        let (session, pgrp) = {
            let mut i = self.inner.lock();
            i.generation += 1;
            i.input.clear();
            i.ldisc.flush();
            let pgrp = core::mem::take(&mut i.pgrp);
            (core::mem::take(&mut i.session).upgrade(), pgrp)
        };
        if let Some(s) = session {
            *s.tty.lock() = None;
            job::hang_up_session(&s, pgrp, exiting);
        }
        self.wait.wake_all();
        self.master_wait.wake_all();
    }
}

/// A session's leader ended: its terminal is hung up and free for another session.
pub fn leader_exited(session: &Session) {
    let tty = session.tty.lock().take();
    if let Some(tty) = tty {
        tty.hang_up(true);
    }
}

#[cfg(test)]
mod tests;
