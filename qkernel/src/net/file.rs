//! A socket as an open file.

use super::{Outgoing, Patience, Socket};
use crate::fs::anon;
use crate::fs::file::{File, FileOps, PollSource, Signals};
use crate::fs::inode::{FileType, Stat};
use crate::fs::pipe::broken_pipe;
use crate::sched::wait::Events;
use crate::syscall::Ctx;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::host::{Dest, Src};
use hal::sync::Once;
use hal::uapi::general::O_RDWR;
use qlib::Errno;

/// The open file of a socket, with what every kind has.
pub struct SocketFile {
    socket: Arc<dyn Socket>,
    ino: Once<u64>,
    owner: u32,
    /// SO_RCVTIMEO, ns; 0 = none.
    pub receive_timeout_ns: AtomicU64,
    /// SO_SNDTIMEO, ns; 0 = none.
    pub send_timeout_ns: AtomicU64,
}

impl SocketFile {
    /// Wraps a socket; `flags` may hold O_NONBLOCK.
    pub fn open(socket: Arc<dyn Socket>, flags: u32) -> Arc<File> {
        let s = Self {
            socket,
            ino: Once::new(),
            owner: crate::task::current().map_or(0, |t| t.creds().fsuid),
            receive_timeout_ns: AtomicU64::new(0),
            send_timeout_ns: AtomicU64::new(0),
        };
        File::new(Arc::new(s), None, flags | O_RDWR)
    }
    /// The socket.
    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.socket
    }
    /// Inode number, as `/proc/net` shows it: the host's own for sockets of the host, asked for when somebody looks.
    pub fn ino(&self) -> u64 {
        *self
            .ino
            .call_once(|| self.socket.host_ino().unwrap_or_else(anon::next_socket_ino))
    }
    /// User who made it.
    pub fn owner(&self) -> u32 {
        self.owner
    }
    /// How long a receiving call on `file` may block.
    pub fn receive_patience(&self, file: &File, dont_wait: bool) -> Patience {
        patience(file, dont_wait, &self.receive_timeout_ns)
    }
    /// How long a sending call on `file` may block.
    pub fn send_patience(&self, file: &File, dont_wait: bool) -> Patience {
        patience(file, dont_wait, &self.send_timeout_ns)
    }
}

fn patience(file: &File, dont_wait: bool, timeout: &AtomicU64) -> Patience {
    let t = timeout.load(Ordering::Relaxed);
    Patience {
        nonblock: dont_wait || file.nonblock(),
        timeout_ns: (t != 0).then_some(t),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.socket.release();
    }
}

impl FileOps for SocketFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &File, dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        let patience = self.receive_patience(file, false);
        crate::fs::sigio::before_use(file);
        let r = self.socket.receive(dst, 0, 0, patience);
        crate::fs::epoll_host::used(file, Events::IN | Events::RDNORM);
        r.map(|r| r.len)
    }

    fn write(&self, file: &File, src: &mut Src<'_>, _offset: u64) -> Result<usize, Errno> {
        let out = Outgoing {
            addr: None,
            control: &[],
            flags: 0,
        };
        let r = self.socket.send(src, &out, self.send_patience(file, false));
        crate::fs::epoll_host::used(file, Events::OUT | Events::WRNORM);
        match r {
            Err(Errno::EPIPE) => Err(broken_pipe()),
            r => r,
        }
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        Ok(anon::stat(Some(FileType::Socket), anon::SOCKET_DEV, self.ino()))
    }

    fn poll(&self, _file: &File) -> Events {
        self.socket.poll()
    }

    fn signals(&self) -> Signals {
        Signals::Socket
    }
    fn poll_source(&self) -> PollSource<'_> {
        self.socket.poll_source()
    }

    fn ioctl(&self, _file: &File, ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        self.socket.ioctl(ctx, request, arg)
    }

    fn describe(&self) -> Vec<u8> {
        format!("socket:[{}]", self.ino()).into_bytes()
    }
}
