//! Serves what QKernel may ask of the host (qcalls). The guest's words are copied, then checked, then acted on.
//!
//! The same functions serve every machine: what a handle stands for, and how requests come and go, is behind
//! [`Handles`] and the transports. Nothing here blocks on what a guest can hold back: files are opened without
//! blocking, sockets and pipes are asked first.

pub mod channel;
mod epoll;
mod files;
mod io;
mod nodes;
mod options;
mod path;
mod sockets;
pub mod system;
mod table;

pub use io::{APPEND, without_waiting};
pub use table::{HandleTable, Named};

use qlib::Errno;
use qlib::qcall::{HandleId, MAX_PAYLOAD, Op, Reply, Request};
use rustix::fd::{BorrowedFd, OwnedFd};

/// What a guest's handles stand for.
pub trait Handles {
    /// The object behind `id`; [`Errno::EBADF`] when there is none.
    fn get(&self, id: HandleId) -> Result<BorrowedFd<'_>, Errno>;
    /// Keeps a new object for the guest.
    fn insert(&mut self, fd: OwnedFd) -> Result<HandleId, Errno>;
    /// Forgets `id`.
    fn remove(&mut self, id: HandleId) -> Result<(), Errno>;
}

/// One request in the hands of an operation.
struct Call<'a> {
    request: &'a Request,
    payload: &'a [u8],
    handles: &'a mut dyn Handles,
    data: &'a mut Vec<u8>,
    made: Option<OwnedFd>,
}

/// What an operation gives: a value, or an error number.
type Served = Result<u64, Errno>;

impl Call<'_> {
    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.handles.get(self.request.handle)
    }
    fn fd2(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.handles.get(self.request.handle2)
    }
    fn arg(&self, index: usize) -> u64 {
        self.request.args.get(index).copied().unwrap_or(0)
    }
    /// An argument of 32 bits; more is [`Errno::EINVAL`].
    fn arg32(&self, index: usize) -> Result<u32, Errno> {
        u32::try_from(self.arg(index)).map_err(|_| Errno::EINVAL)
    }
    /// Room for reply data, bytes.
    fn room(&self) -> usize {
        (self.request.reply_cap as usize).min(MAX_PAYLOAD)
    }
    /// A count asked for by the guest, bounded by the room for it.
    fn room_for(&self, wanted: u64) -> usize {
        usize::try_from(wanted).unwrap_or(usize::MAX).min(self.room())
    }
    /// Puts `bytes` into the reply; [`Errno::ERANGE`] when there is no room.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > self.room() {
            return Err(Errno::ERANGE);
        }
        self.data.extend_from_slice(bytes);
        Ok(())
    }
    /// Gives the guest a new object.
    fn give(&mut self, fd: OwnedFd) -> Served {
        self.made = Some(fd);
        Ok(0)
    }
    /// The payload in two: its first `len` bytes, and the rest.
    fn split(&self, len: u64) -> Result<(&[u8], &[u8]), Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        self.payload.split_at_checked(len).ok_or(Errno::EINVAL)
    }
}

/// Serves one request. `data` receives the reply's data, never more than the request leaves room for.
///
/// Operations on the machine itself and on its rings (`PollWait`, `Cancel`, windows, RAM, control, log, power) are the
/// transport's: here they answer [`Errno::ENOSYS`].
pub fn serve(request: &Request, payload: &[u8], handles: &mut dyn Handles, data: &mut Vec<u8>) -> Reply {
    data.clear();
    let op = match Op::try_from(request.op) {
        Ok(op) => op,
        Err(e) => return Reply::of(request.tag, Err(e)),
    };
    let mut call = Call {
        request,
        payload,
        handles,
        data,
        made: None,
    };
    let mut result = dispatch(op, &mut call);
    let made = call.made.take();
    let mut handle = HandleId::NONE;
    if let (Ok(_), Some(fd)) = (&result, made) {
        match handles.insert(fd) {
            Ok(id) => handle = id,
            Err(e) => result = Err(e),
        }
    }
    if result.is_err() {
        data.clear();
    }
    let mut reply = Reply::of(request.tag, result);
    reply.handle = handle;
    reply.data_len = data.len() as u32;
    reply
}

fn dispatch(op: Op, c: &mut Call<'_>) -> Served {
    match op {
        // A value, whatever was sent: the sign is the error's.
        Op::Nop => Ok(c.arg(0) & i64::MAX as u64),
        Op::Open => files::serve_open(c),
        Op::Close => {
            let id = c.request.handle;
            c.handles.remove(id).map(|()| 0)
        }
        Op::Stat => nodes::serve_stat(c),
        Op::ReadLink => nodes::serve_readlink(c),
        Op::MkDir => nodes::serve_mkdir(c),
        Op::MkNod => nodes::serve_mknod(c),
        Op::SymLink => nodes::serve_symlink(c),
        Op::Link => nodes::serve_link(c),
        Op::Unlink => nodes::serve_unlink(c),
        Op::Rename => nodes::serve_rename(c),
        Op::ChMod => nodes::serve_chmod(c),
        Op::ChOwn => nodes::serve_chown(c),
        Op::SetTimes => nodes::serve_set_times(c),
        Op::Truncate => files::serve_truncate(c),
        Op::Allocate => files::serve_allocate(c),
        Op::Sync => files::serve_sync(c),
        Op::StatFs => nodes::serve_statfs(c),
        Op::GetXattr => files::serve_get_xattr(c),
        Op::SetXattr => files::serve_set_xattr(c),
        Op::ListXattr => files::serve_list_xattr(c),
        Op::RemoveXattr => files::serve_remove_xattr(c),
        Op::ReadDir => io::serve_read_dir(c),
        Op::Seek => io::serve_seek(c),
        Op::Read => io::serve_read(c),
        Op::Write => io::serve_write(c),
        Op::MemFile => files::serve_mem_file(c),
        Op::Poll => io::serve_poll(c),
        Op::Ioctl => io::serve_ioctl(c),
        Op::EpollCreate => epoll::serve_epoll_create(c),
        Op::EpollCtl => epoll::serve_epoll_ctl(c),
        Op::EpollWait => epoll::serve_epoll_wait(c),
        Op::Socket => sockets::serve_socket(c),
        Op::Bind => sockets::serve_bind(c),
        Op::Connect => sockets::serve_connect(c),
        Op::Listen => sockets::serve_listen(c),
        Op::Accept => sockets::serve_accept(c),
        Op::SendMsg => sockets::serve_send(c),
        Op::RecvMsg => sockets::serve_receive(c),
        Op::Shutdown => sockets::serve_shutdown(c),
        Op::SockName => sockets::serve_name(c, false),
        Op::PeerName => sockets::serve_name(c, true),
        Op::GetSockOpt => sockets::serve_get_option(c),
        Op::SetSockOpt => sockets::serve_set_option(c),
        Op::SystemFile => system::serve_open(c),
        _ => Err(Errno::ENOSYS),
    }
}

/// The guest's number of a host error.
fn errno(e: impl Into<std::io::Error>) -> Errno {
    Errno(e.into().raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests;
