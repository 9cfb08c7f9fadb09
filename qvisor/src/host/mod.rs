//! Serves what QKernel may ask of the host (qcalls). The guest's words are copied, then checked, then acted on.

pub mod channel;
mod table;

pub use table::{HandleTable, Named};

use qlib::Errno;
use qlib::qcall::{HandleId, Op, Reply, Request};
use rustix::fd::{BorrowedFd, OwnedFd};

/// What a guest's handles stand for.
pub trait Handles {
    /// The object behind `id`.
    fn get(&self, id: HandleId) -> Result<BorrowedFd<'_>, Errno>;
    /// Keeps a new object for the guest.
    fn insert(&mut self, fd: OwnedFd) -> Result<HandleId, Errno>;
    /// Forgets `id`.
    fn remove(&mut self, id: HandleId) -> Result<(), Errno>;
}

/// Serves one request. `data` receives the reply's data, never more than the request leaves room for.
pub fn serve(request: &Request, payload: &[u8], handles: &mut dyn Handles, data: &mut Vec<u8>) -> Reply {
    let _ = (payload, &handles);
    data.clear();
    let result = match Op::try_from(request.op) {
        Ok(Op::Nop) => Ok(request.args[0]),
        Ok(_) => Err(Errno::ENOSYS),
        Err(e) => Err(e),
    };
    Reply::of(request.tag, result)
}
