//! Open files on host handles that the container's starter gave: pipes, files, devices and sockets as stdin, stdout and
//! stderr.

use crate::fs::file::{File, FileOps, MapBacking, PollSource, Signals};
use crate::fs::inode::{FileType, Stat};
use crate::fs::tty::{WinSize, console};
use crate::fs::{epoll_host, sigio};
use crate::sched::wait::{Events, wait_ready};
use crate::syscall::Ctx;
use crate::task;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{self, Dest, Handle, HostFile, PollItem, Src};
use hal::uapi::{general as g, ioctl as io};
use hal::user::UserSlice;
use qlib::Errno;
use qlib::control::ProcessSpec;

/// Waits until the host says that `handle` has one of `events`.
///
/// # Errors
/// ERESTARTSYS when a signal comes first; the host's.
pub fn wait_handle(handle: Handle, events: Events) -> Result<(), Errno> {
    loop {
        if task::interrupted() {
            return Err(Errno::ERESTARTSYS);
        }
        let mut items = [PollItem {
            handle,
            events: events.bits() as u16,
            revents: 0,
        }];
        match wait_ready(&mut items, None) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// A host object as an open file.
pub struct HostIo {
    host: HostFile,
    stat: Stat,
    stream: bool,
}

impl HostIo {
    /// Takes a handle; the host tells what it is.
    ///
    /// # Errors
    /// The host's.
    pub fn new(host: HostFile) -> Result<Self, Errno> {
        let stat = host::stat(host.handle(), b"")?;
        let stream = FileType::from_mode(stat.mode) != FileType::Regular;
        Ok(Self { host, stat, stream })
    }
    fn offset(&self, offset: u64) -> Option<u64> {
        (!self.stream).then_some(offset)
    }
    /// Keeps the host's position where the app's is: the starter's other programs share it.
    fn moved(&self, to: u64) {
        if !self.stream {
            let _ = host::seek(self.host.handle(), to as i64, 0);
        }
    }
    fn blocking<T>(
        &self,
        file: &File,
        events: Events,
        mut op: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        loop {
            match op() {
                Err(Errno::EAGAIN) if !file.nonblock() => wait_handle(self.host.handle(), events)?,
                Err(Errno::EINTR) => {}
                r => return r,
            }
        }
    }
}

impl FileOps for HostIo {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn is_stream(&self) -> bool {
        self.stream
    }
    fn read(&self, file: &File, dst: &mut Dest<'_>, offset: u64) -> Result<usize, Errno> {
        let h = self.host.handle();
        sigio::before_use(file);
        let r = self.blocking(file, Events::IN, || host::read(h, dst, self.offset(offset)));
        epoll_host::used(file, Events::IN | Events::RDNORM);
        let n = r?;
        self.moved(offset + n as u64);
        Ok(n)
    }
    fn write(&self, file: &File, src: &mut Src<'_>, offset: u64) -> Result<usize, Errno> {
        let h = self.host.handle();
        if !self.stream {
            let n = host::write(h, src, self.offset(offset), file.append())?;
            self.moved(offset + n as u64);
            return Ok(n);
        }
        let mut done = 0;
        while src.remaining() > 0 {
            let r = self.blocking(file, Events::OUT, || host::write(h, src, None, false));
            epoll_host::used(file, Events::OUT | Events::WRNORM);
            match r {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
    fn seek(&self, file: &File, offset: i64, whence: u32, current: u64) -> Result<u64, Errno> {
        let base = match whence {
            0 => 0,
            1 => current as i64,
            2 => self.stat(file)?.size as i64,
            _ => return Err(Errno::EINVAL),
        };
        let to = base
            .checked_add(offset)
            .filter(|p| *p >= 0)
            .ok_or(Errno::EINVAL)? as u64;
        self.moved(to);
        Ok(to)
    }
    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        if self.stream {
            return Ok(self.stat);
        }
        host::stat(self.host.handle(), b"")
    }
    fn poll(&self, _file: &File) -> Events {
        let every = Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM;
        if !self.stream {
            return every;
        }
        let mut items = [PollItem {
            handle: self.host.handle(),
            events: (every | Events::PRI | Events::RDHUP).bits() as u16,
            revents: 0,
        }];
        match host::ready(&mut items) {
            Ok(_) => Events::from_bits_truncate(u32::from(items[0].revents)),
            Err(_) => every,
        }
    }
    fn signals(&self) -> Signals {
        match FileType::from_mode(self.stat.mode) {
            FileType::Socket => Signals::Socket,
            _ if self.stream => Signals::Readiness,
            _ => Signals::Never,
        }
    }
    fn poll_source(&self) -> PollSource<'_> {
        if self.stream {
            PollSource::Host(self.host.handle())
        } else {
            PollSource::Always
        }
    }
    fn ioctl(&self, _file: &File, _ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        // Size of the argument, and whether it goes in and comes out.
        let (size, input, output) = match request {
            io::FIONREAD => (4, false, true),
            io::TCGETS => (size_of::<g::termios>(), false, true),
            io::TCSETS | io::TCSETSW | io::TCSETSF => (size_of::<g::termios>(), true, false),
            io::TIOCGWINSZ => (size_of::<g::winsize>(), false, true),
            _ => return Err(Errno::ENOTTY),
        };
        let is_device = FileType::from_mode(self.stat.mode) == FileType::CharDevice;
        if request != io::FIONREAD && !is_device {
            return Err(Errno::ENOTTY);
        }
        let user = UserSlice::new(arg, size as u64)?;
        let mut buf = if input { user.to_vec(size)? } else { vec![0; size] };
        let r = host::ioctl(self.host.handle(), request, &mut buf)?;
        if output {
            user.write(&buf)?;
        }
        Ok(r)
    }
    fn map(&self, _file: &File) -> Result<MapBacking, Errno> {
        if self.stream {
            Err(Errno::ENODEV)
        } else {
            Ok(MapBacking::Host(self.host.handle()))
        }
    }
    fn truncate(&self, _file: &File, len: u64) -> Result<(), Errno> {
        if self.stream {
            return Err(Errno::EINVAL);
        }
        host::truncate(self.host.handle(), len)
    }
    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        if self.stream {
            return Err(Errno::EINVAL);
        }
        host::sync(self.host.handle(), data_only)
    }
    fn host_handle(&self) -> Option<Handle> {
        Some(self.host.handle())
    }
    fn describe(&self) -> Vec<u8> {
        match FileType::from_mode(self.stat.mode) {
            FileType::Fifo => alloc::format!("pipe:[{}]", self.stat.ino).into_bytes(),
            FileType::Socket => alloc::format!("socket:[{}]", self.stat.ino).into_bytes(),
            FileType::CharDevice if self.stat.rdev == crate::fs::dev::makedev(1, 3) => b"/dev/null".to_vec(),
            FileType::CharDevice => b"/dev/host-tty".to_vec(),
            _ => alloc::format!("/host-file:[{}]", self.stat.ino).into_bytes(),
        }
    }
}

/// Opens one host handle as descriptor `number` of a new process. A pipe is opened for the direction of its number.
///
/// # Errors
/// The host's.
pub fn open_handle(handle: HostFile, number: usize) -> Result<Arc<File>, Errno> {
    let io = HostIo::new(handle)?;
    let flags = match (FileType::from_mode(io.stat.mode), number) {
        (FileType::Fifo, 0) => g::O_RDONLY,
        (FileType::Fifo, 1 | 2) => g::O_WRONLY,
        _ => g::O_RDWR,
    };
    let start = if io.stream {
        0
    } else {
        host::seek(io.host.handle(), 0, 1).unwrap_or(0)
    };
    let file = File::new(Arc::new(io), None, flags);
    *file.pos.lock() = start;
    Ok(file)
}

/// Opens one stdio handle: a terminal QKernel runs (`terminal`), or a host object as it is.
///
/// # Errors
/// The host's; ENOSPC when there are too many terminals.
pub fn open_stdio(handle: Handle, terminal: bool) -> Result<Arc<File>, Errno> {
    let host = HostFile::new(handle);
    if terminal {
        console::open(host, WinSize::default(), &Creds::default())
    } else {
        open_handle(host, 3)
    }
}

/// Opens all descriptors of a new process in order; `None` = closed. With a terminal, 0, 1 and 2 are it, and the caller
/// makes it the controlling one ([`console::tty_of`], [`crate::fs::tty::job::take`]).
///
/// # Errors
/// The host's.
pub fn open_all(spec: &ProcessSpec, creds: &Creds) -> Result<Vec<Option<Arc<File>>>, Errno> {
    let mut out: Vec<Option<Arc<File>>> = Vec::new();
    let mut handles = spec.stdio.iter().copied();
    if spec.terminal {
        let first = handles
            .next()
            .filter(|h| *h != Handle::NONE)
            .ok_or(Errno::EBADF)?;
        let size = WinSize {
            rows: spec.rows as u16,
            cols: spec.cols as u16,
            ..WinSize::default()
        };
        let tty = console::open(HostFile::new(first), size, creds)?;
        out.extend([Some(tty.clone()), Some(tty.clone()), Some(tty)]);
        // The other two standard handles, if given, are the same terminal.
        for h in handles.by_ref().take(2).filter(|h| *h != Handle::NONE) {
            drop(HostFile::new(h));
        }
    }
    for h in handles {
        if h == Handle::NONE {
            out.push(None);
            continue;
        }
        let file = open_handle(HostFile::new(h), out.len())?;
        // `> file 2>&1` is one open file on the host and must share its position here.
        let twin = out.iter().flatten().find(|f| same_regular(f, &file)).cloned();
        out.push(Some(twin.unwrap_or(file)));
    }
    Ok(out)
}

fn same_regular(a: &File, b: &File) -> bool {
    match (a.downcast::<HostIo>(), b.downcast::<HostIo>()) {
        (Some(a), Some(b)) => !a.stream && !b.stream && (a.stat.dev, a.stat.ino) == (b.stat.dev, b.stat.ino),
        _ => false,
    }
}
