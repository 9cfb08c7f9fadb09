//! A terminal of the host: QKernel does all line processing, the host's side is raw.
//!
//! A kernel thread reads what is typed, so that `^C` works while nobody reads; writers write themselves and leave the
//! rest to the thread when the host is slow.

use super::{QUEUE, SlaveOps, Tty, WinSize, open_slave};
use crate::fs::devpts;
use crate::fs::file::File;
use crate::sched::wait::{Events, SleepLock};
use crate::task::creds::Creds;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hal::host::{self, Dest, HostFile, PollItem, Src};
use hal::sync::{Once, SpinLock};
use hal::thread::{self, NewSpace, ThreadRef};
use hal::uapi::general as g;
use qlib::Errno;

/// Bytes read from or written to the host at once.
const CHUNK: usize = 4096;

/// The host's side.
pub(super) struct Console {
    host: HostFile,
    /// Held while output goes to the host, so that it stays in order.
    flushing: SleepLock<()>,
    pump: Once<ThreadRef>,
}

/// The container's console: the terminal of its first process.
static CONSOLE: SpinLock<Weak<Tty>> = SpinLock::new(Weak::new());

/// The terminal behind `/dev/console`.
pub fn current() -> Option<Arc<Tty>> {
    CONSOLE.lock().upgrade()
}

/// Makes the host terminal `host` a terminal of the guest and opens it; it is a `/dev/pts/N` for apps.
///
/// # Errors
/// ENOSPC when there are too many terminals; EAGAIN or ENOMEM when its thread cannot start.
pub fn open(host: HostFile, size: WinSize, creds: &Creds) -> Result<Arc<File>, Errno> {
    let console = Console {
        host,
        flushing: SleepLock::new(()),
        pump: Once::new(),
    };
    let tty = devpts::allocate(creds, |index| Tty::new(index, Some(console)))?;
    tty.inner.lock().size = size;
    let opened = open_slave(&tty, g::O_RDWR | g::O_NOCTTY, creds);
    let ops = opened.inspect_err(|_| devpts::release(tty.index))?;
    let runner = tty.clone();
    let pump = thread::spawn("console", None, NewSpace::Kernel, move || run(&runner));
    let pump = pump.inspect_err(|_| devpts::release(tty.index))?;
    if let Some(c) = &tty.console {
        c.pump.call_once(|| pump);
    }
    let mut first = CONSOLE.lock();
    if first.upgrade().is_none() {
        *first = Arc::downgrade(&tty);
    }
    drop(first);
    Ok(File::new(ops, None, g::O_RDWR))
}

/// The terminal behind an open file, if it is one.
pub fn tty_of(file: &File) -> Option<Arc<Tty>> {
    file.downcast::<SlaveOps>().map(|s| s.tty().clone())
}

impl Console {
    /// Makes the thread look again.
    pub(super) fn kick(&self) {
        if let Some(t) = self.pump.get() {
            t.unpark();
        }
    }
    /// Sends output to the host as long as it takes some.
    pub(super) fn flush(&self, tty: &Tty) {
        if tty.inner.lock().output.is_empty() {
            return;
        }
        let guard = self.flushing.lock();
        loop {
            let chunk: Vec<u8> = tty.inner.lock().output.iter().take(CHUNK).copied().collect();
            if chunk.is_empty() {
                break;
            }
            match host::write(self.host.handle(), &mut Src::kernel(&chunk), None, false) {
                Ok(n) => {
                    let mut i = tty.inner.lock();
                    let n = n.min(i.output.len());
                    i.output.drain(..n);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.kick();
                    break;
                }
                Err(_) => {
                    // The thread finds the hangup too; output has nowhere to go.
                    tty.inner.lock().output.clear();
                    self.kick();
                    break;
                }
            }
        }
        drop(guard);
        tty.wait.wake(Events::OUT | Events::WRNORM);
    }
    fn read(&self, tty: &Tty, room: usize) -> Result<(), Errno> {
        let mut buf = [0; CHUNK];
        let room = room.min(CHUNK);
        match host::read(self.host.handle(), &mut Dest::kernel(&mut buf[..room]), None) {
            Ok(0) => Err(Errno::EIO),
            Ok(n) => {
                tty.input(&buf[..n]);
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// The thread: moves bytes until the host hangs up or the app's side is closed for good.
fn run(tty: &Arc<Tty>) {
    if let Some(console) = &tty.console {
        while step(tty, console).is_ok() {}
    }
    devpts::release(tty.index);
    let gone = {
        let mut i = tty.inner.lock();
        i.output.clear();
        core::mem::replace(&mut i.master_closed, true)
    };
    if !gone {
        tty.hang_up(false);
    }
}

fn step(tty: &Tty, console: &Console) -> Result<(), Errno> {
    let (room, pending) = {
        let i = tty.inner.lock();
        if i.master_closed || i.slave_gone && i.output.is_empty() {
            return Err(Errno::EIO);
        }
        (QUEUE.saturating_sub(i.input.len()), !i.output.is_empty())
    };
    let input = if room > 0 { Events::IN } else { Events::empty() };
    let output = if pending { Events::OUT } else { Events::empty() };
    let mut items = [PollItem {
        handle: console.host.handle(),
        events: (input | output).bits() as u16,
        revents: 0,
    }];
    match host::wait_ready(&mut items, None) {
        Ok(0) | Err(Errno::EINTR) => return Ok(()),
        Ok(_) => {}
        Err(e) => return Err(e),
    }
    let found = Events::from_bits_truncate(u32::from(items[0].revents));
    if found.contains(Events::OUT) {
        console.flush(tty);
    }
    if found.contains(Events::IN) {
        return console.read(tty, room);
    }
    if found.intersects(Events::HUP | Events::ERR | Events::NVAL) {
        return Err(Errno::EIO);
    }
    Ok(())
}
