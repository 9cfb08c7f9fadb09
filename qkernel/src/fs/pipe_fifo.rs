//! FIFOs: pipes found by the identity of an inode. Source: `fifo(7)`, Linux `fs/pipe.c` (fifo_open).

use crate::fs::file::FileOps;
use crate::fs::pipe::{Pipe, access};
use crate::sched::wait::{Events, wait_until};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use hal::sync::SpinLock;
use hal::uapi::general::{O_NONBLOCK, O_RDONLY, O_WRONLY};
use qlib::Errno;

/// FIFOs that are open somewhere, by (device, inode).
static OPEN: SpinLock<BTreeMap<(u64, u64), Weak<Pipe>>> = SpinLock::new(BTreeMap::new());

fn find(key: (u64, u64)) -> Arc<Pipe> {
    let fresh = Pipe::new();
    let mut open = OPEN.lock();
    if let Some(p) = open.get(&key).and_then(Weak::upgrade) {
        return p;
    }
    open.retain(|_, p| p.strong_count() > 0);
    open.insert(key, Arc::downgrade(&fresh));
    fresh
}

/// Opens a FIFO; waits for the other side unless O_NONBLOCK or O_RDWR is among `flags`.
///
/// # Errors
/// ENXIO for a non-blocking writer without a reader; ERESTARTSYS.
pub fn open_fifo(key: (u64, u64), flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
    let pipe = find(key);
    let mode = access(flags);
    let nonblock = flags & O_NONBLOCK != 0;
    if mode == O_WRONLY && nonblock && pipe.counts().readers == 0 {
        return Err(Errno::ENXIO);
    }
    // What is there is counted with the opening in one step: a partner that came before may leave again at once.
    let (end, there) = pipe.open_end_counted(mode);
    let arrived = || {
        let now = pipe.counts();
        match mode {
            O_RDONLY => there.writers > 0 || now.writer_opens != there.writer_opens,
            O_WRONLY => there.readers > 0 || now.reader_opens != there.reader_opens,
            _ => true,
        }
        .then_some(())
    };
    if !nonblock {
        wait_until(pipe.queue(), Events::all(), None, arrived).map_err(|e| e.restart_or(Errno::EAGAIN))?;
    }
    Ok(end)
}
