//! The app's side of a terminal.

use super::{Inner, QUEUE, Tty, ctl, job};
use crate::fs::file::{File, FileOps, PollSource, Signals};
use crate::fs::inode::Stat;
use crate::sched::wait::{Events, WaitError, wait_until};
use crate::signal::signo;
use crate::syscall::Ctx;
use crate::task::creds::{Creds, cap};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{Dest, Src};
use hal::uapi::general as g;
use qlib::Errno;

/// Bytes of one write that reach the terminal without another writer's between them.
const CHUNK: usize = 2048;

/// An open file at the app's side.
pub struct SlaveOps {
    tty: Arc<Tty>,
    generation: u64,
}

/// Opens the app's side. Without O_NOCTTY a session leader may get it as its controlling terminal.
///
/// # Errors
/// EIO when the terminal is gone or still locked (TIOCSPTLCK), EBUSY when another has it exclusively.
pub fn open_slave(tty: &Arc<Tty>, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
    let generation = {
        let mut i = tty.inner.lock();
        if i.master_closed || i.locked {
            return Err(Errno::EIO);
        }
        if i.exclusive && i.slaves > 0 && !creds.capable(cap::SYS_ADMIN) {
            return Err(Errno::EBUSY);
        }
        i.slaves += 1;
        i.slave_gone = false;
        i.generation
    };
    if flags & g::O_NOCTTY == 0 {
        job::opened(tty);
    }
    Ok(Arc::new(SlaveOps {
        tty: tty.clone(),
        generation,
    }))
}

impl Drop for SlaveOps {
    fn drop(&mut self) {
        let last = {
            let mut i = self.tty.inner.lock();
            i.slaves -= 1;
            if i.slaves == 0 {
                i.slave_gone = true;
                i.exclusive = false;
            }
            i.slaves == 0
        };
        if last {
            self.tty.master_wait.wake_all();
            if let Some(c) = &self.tty.console {
                c.kick();
            }
        }
    }
}

/// What a read waits for next.
enum Progress {
    Done,
    Wait(Option<u64>),
}

impl SlaveOps {
    /// The terminal.
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }
    fn dead(&self, i: &Inner) -> bool {
        i.master_closed || i.generation != self.generation
    }

    /// Takes input as VMIN, VTIME and the mode say. `got` collects it.
    fn step(&self, got: &mut Vec<u8>, want: usize, first: u64) -> Progress {
        let now = hal::clock::monotonic_ns();
        let mut i = self.tty.inner.lock();
        if self.dead(&i) {
            return Progress::Done;
        }
        let t = i.termios;
        if t.canonical() {
            if i.ldisc.available(&t) == 0 {
                return if got.is_empty() {
                    Progress::Wait(None)
                } else {
                    Progress::Done
                };
            }
            let (mut line, _) = i.ldisc.take(&t, want - got.len());
            got.append(&mut line);
            return Progress::Done;
        }
        let (mut bytes, _) = i.ldisc.take(&t, want - got.len());
        let more = !bytes.is_empty();
        got.append(&mut bytes);
        let min = usize::from(t.cc(g::VMIN));
        let time_ns = u64::from(t.cc(g::VTIME)) * 100_000_000;
        match (min, time_ns) {
            (0, 0) => Progress::Done,
            (0, _) if got.is_empty() => Progress::Wait(Some(first + time_ns)),
            (0, _) => Progress::Done,
            _ if got.len() >= min.min(want) => Progress::Done,
            (_, 0) => Progress::Wait(None),
            _ if got.is_empty() => Progress::Wait(None),
            _ if more => Progress::Wait(Some(now + time_ns)),
            _ => Progress::Wait(Some(now + time_ns)),
        }
    }
}

impl FileOps for SlaveOps {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn stat(&self, file: &File) -> Result<Stat, Errno> {
        match file.path() {
            Some(p) => p.inode().stat(),
            None => crate::fs::devpts::stat(self.tty.index),
        }
    }
    fn read(&self, file: &File, dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        job::check(&self.tty, signo::SIGTTIN)?;
        let want = dst.remaining().min(super::ldisc::BUFFER);
        if want == 0 {
            return Ok(0);
        }
        let mut got = Vec::new();
        let first = hal::clock::monotonic_ns();
        loop {
            let deadline = match self.step(&mut got, want, first) {
                Progress::Done => break,
                Progress::Wait(d) => d,
            };
            self.tty.pull();
            if file.nonblock() {
                if got.is_empty() {
                    return Err(Errno::EAGAIN);
                }
                break;
            }
            let mask = Events::IN | Events::RDNORM;
            let ready = || {
                let i = self.tty.inner.lock();
                (self.dead(&i) || i.ldisc.available(&i.termios) > 0).then_some(())
            };
            match wait_until(&self.tty.wait, mask, deadline, ready) {
                Ok(()) => {}
                Err(WaitError::TimedOut) => break,
                Err(WaitError::Interrupted) if got.is_empty() => return Err(Errno::ERESTARTSYS),
                Err(WaitError::Interrupted) => break,
            }
        }
        self.tty.pull();
        if got.is_empty() {
            return Ok(0);
        }
        dst.put(&got)
    }
    fn write(&self, file: &File, src: &mut Src<'_>, _offset: u64) -> Result<usize, Errno> {
        if self.tty.inner.lock().termios.local(g::TOSTOP) {
            job::check(&self.tty, signo::SIGTTOU)?;
        }
        let start = src.done();
        let mut chunk = vec![0; CHUNK.min(src.remaining())];
        loop {
            let n = src.take(&mut chunk)?;
            if n == 0 {
                return Ok(src.done() - start);
            }
            let taken = self.put(&chunk[..n])?;
            src.rewind(n - taken);
            self.tty.output_changed();
            if taken == n {
                continue;
            }
            let done = src.done() - start;
            if file.nonblock() {
                return if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) };
            }
            let ready = || {
                let i = self.tty.inner.lock();
                (self.dead(&i) || !i.stopped() && i.output.len() < QUEUE).then_some(())
            };
            match wait_until(&self.tty.wait, Events::OUT | Events::WRNORM, None, ready) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(_) => return Err(Errno::ERESTARTSYS),
            }
        }
    }
    fn poll(&self, _file: &File) -> Events {
        let i = self.tty.inner.lock();
        if self.dead(&i) {
            return Events::IN | Events::OUT | Events::ERR | Events::HUP | Events::RDNORM | Events::WRNORM;
        }
        let mut e = Events::empty();
        if i.ldisc.readable(&i.termios) {
            e |= Events::IN | Events::RDNORM;
        }
        if !i.stopped() && i.output.len() < QUEUE {
            e |= Events::OUT | Events::WRNORM;
        }
        e
    }
    fn signals(&self) -> Signals {
        Signals::Readiness
    }
    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.tty.wait)
    }
    fn ioctl(&self, _file: &File, ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        if self.dead(&self.tty.inner.lock()) {
            return Err(if request == hal::uapi::ioctl::TIOCSPGRP {
                Errno::ENOTTY
            } else {
                Errno::EIO
            });
        }
        ctl::slave(&self.tty, ctx.task, request, arg)
    }
    fn describe(&self) -> Vec<u8> {
        alloc::format!("/dev/pts/{}", self.tty.index).into_bytes()
    }
    fn fdinfo(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl SlaveOps {
    /// Appends processed output; returns how many bytes were taken.
    fn put(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut i = self.tty.inner.lock();
        if self.dead(&i) {
            return Err(Errno::EIO);
        }
        if i.stopped() {
            return Ok(0);
        }
        let t = i.termios;
        let mut out = Vec::with_capacity(bytes.len() + 16);
        let mut n = 0;
        for b in bytes {
            if i.output.len() + out.len() >= QUEUE {
                break;
            }
            i.ldisc.column.emit(&t, *b, &mut out);
            n += 1;
        }
        i.output.extend(out);
        Ok(n)
    }
}
