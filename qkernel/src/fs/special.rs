//! Opening special files: FIFOs lead to pipes, device nodes to the guest's own devices.

use crate::fs::file::FileOps;
use crate::fs::inode::InodeId;
use crate::fs::{dev, pipe_fifo};
use crate::task::creds::Creds;
use alloc::sync::Arc;
use qlib::Errno;

/// Opens the pipe of a FIFO; may wait for the other side.
///
/// # Errors
/// As `fifo(7)`.
pub fn open_fifo(id: InodeId, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
    pipe_fifo::open_fifo((id.dev, id.ino), flags)
}

/// Opens a device by number.
///
/// # Errors
/// ENXIO when there is no such device; there are no block devices.
pub fn open_device(block: bool, rdev: u64, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
    if block {
        return Err(Errno::ENXIO);
    }
    dev::open(rdev, flags, creds)
}
