//! The terminal's side of a pty (`/dev/ptmx`).

use super::{QUEUE, Tty, ctl};
use crate::fs::devpts;
use crate::fs::file::{File, FileOps, PollSource, Signals};
use crate::fs::inode::Stat;
use crate::sched::wait::{Events, wait_until};
use crate::syscall::Ctx;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{Dest, Src};
use hal::uapi::general as g;
use qlib::Errno;

/// An open master. The pty ends with it.
pub struct MasterOps {
    pub(super) tty: Arc<Tty>,
}

/// Opens a new pty's master.
///
/// # Errors
/// ENOSPC when there are too many ptys.
pub fn open_ptmx(creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
    let tty = devpts::allocate(creds, |index| Tty::new(index, None))?;
    tty.inner.lock().locked = true;
    Ok(Arc::new(MasterOps { tty }))
}

impl Drop for MasterOps {
    fn drop(&mut self) {
        devpts::release(self.tty.index);
        self.tty.inner.lock().master_closed = true;
        self.tty.hang_up(false);
    }
}

impl MasterOps {
    /// Takes output (or a packet); `None` = nothing there.
    fn take(&self, want: usize) -> Option<Vec<u8>> {
        let mut i = self.tty.inner.lock();
        if i.packet && i.status != 0 {
            return Some(vec![core::mem::take(&mut i.status)]);
        }
        if i.output.is_empty() {
            return i.slave_gone.then(Vec::new);
        }
        let mut out = Vec::new();
        let mut room = want;
        if i.packet {
            out.push(g::TIOCPKT_DATA as u8);
            room -= 1;
        }
        let n = room.min(i.output.len());
        out.extend(i.output.drain(..n));
        Some(out)
    }
}

impl FileOps for MasterOps {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn stat(&self, file: &File) -> Result<Stat, Errno> {
        match file.path() {
            Some(p) => p.inode().stat(),
            None => devpts::ptmx_stat(),
        }
    }
    fn read(&self, file: &File, dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        let want = dst.remaining().min(QUEUE);
        if want == 0 {
            return Ok(0);
        }
        let got = match self.take(want) {
            Some(b) => b,
            None if file.nonblock() => return Err(Errno::EAGAIN),
            None => {
                let mask = Events::IN | Events::RDNORM | Events::PRI;
                wait_until(&self.tty.master_wait, mask, None, || self.take(want))
                    .map_err(|e| e.restart_or(Errno::EIO))?
            }
        };
        if got.is_empty() {
            // The app's side is closed.
            return Err(Errno::EIO);
        }
        self.tty.wait.wake(Events::OUT | Events::WRNORM);
        dst.put(&got)
    }
    fn write(&self, file: &File, src: &mut Src<'_>, _offset: u64) -> Result<usize, Errno> {
        let start = src.done();
        let mut chunk = vec![0; src.remaining().min(4096)];
        loop {
            let n = src.take(&mut chunk)?;
            if n == 0 {
                return Ok(src.done() - start);
            }
            let taken = self.tty.input(&chunk[..n]);
            src.rewind(n - taken);
            if taken == n {
                continue;
            }
            let done = src.done() - start;
            if file.nonblock() {
                return if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) };
            }
            let room = || (self.tty.inner.lock().input.len() < QUEUE).then_some(());
            let waited = wait_until(&self.tty.master_wait, Events::OUT | Events::WRNORM, None, room);
            match waited {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(_) => return Err(Errno::ERESTARTSYS),
            }
        }
    }
    fn poll(&self, _file: &File) -> Events {
        let i = self.tty.inner.lock();
        let mut e = Events::empty();
        if !i.output.is_empty() {
            e |= Events::IN | Events::RDNORM;
        }
        if i.packet && i.status != 0 {
            e |= Events::IN | Events::RDNORM | Events::PRI;
        }
        if i.slave_gone {
            e |= Events::HUP;
        }
        if i.input.len() < QUEUE {
            e |= Events::OUT | Events::WRNORM;
        }
        e
    }
    fn signals(&self) -> Signals {
        Signals::Readiness
    }
    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.tty.master_wait)
    }
    fn ioctl(&self, file: &File, ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        ctl::master(&self.tty, file, ctx.task, request, arg)
    }
    fn describe(&self) -> Vec<u8> {
        b"/dev/ptmx".to_vec()
    }
    fn fdinfo(&self) -> Vec<u8> {
        alloc::format!("tty-index:\t{}\n", self.tty.index).into_bytes()
    }
}
