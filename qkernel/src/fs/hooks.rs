//! Doors to kinds of files that other parts of the kernel make: they register once at boot.

use crate::fs::file::FileOps;
use crate::fs::inode::InodeId;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use hal::sync::Once;
use qlib::Errno;

/// Opens the pipe of a FIFO inode; may wait for the other side. (identity, O_* flags)
pub type OpenFifo = fn(id: InodeId, flags: u32) -> Result<Arc<dyn FileOps>, Errno>;
/// Opens a device by number. (block device, rdev, O_* flags, credentials)
pub type OpenDevice = fn(block: bool, rdev: u64, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno>;

static FIFO: Once<OpenFifo> = Once::new();
static DEVICE: Once<OpenDevice> = Once::new();

/// Sets who opens FIFOs; only the first call counts.
pub fn register_fifo(f: OpenFifo) {
    FIFO.call_once(|| f);
}

/// Sets who opens devices; only the first call counts.
pub fn register_device(f: OpenDevice) {
    DEVICE.call_once(|| f);
}

/// Opens the pipe of a FIFO.
///
/// # Errors
/// As `fifo(7)`; ENXIO when there are no pipes.
pub fn open_fifo(id: InodeId, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
    FIFO.get().ok_or(Errno::ENXIO)?(id, flags)
}

/// Opens a device.
///
/// # Errors
/// ENXIO when there is no such device.
pub fn open_device(block: bool, rdev: u64, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
    DEVICE.get().ok_or(Errno::ENXIO)?(block, rdev, flags, creds)
}
