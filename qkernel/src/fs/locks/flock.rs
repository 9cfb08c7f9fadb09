//! `flock`: one lock per open file description on the whole file.

use super::{Held, description, id_of, locks_of, tidy};
use crate::fs::file::File;
use crate::fs::inode::InodeId;
use crate::sched::wait::{Events, wait_until};
use alloc::vec::Vec;
use hal::uapi::general::{LOCK_EX, LOCK_MAND, LOCK_NB, LOCK_SH, LOCK_UN};
use qlib::Errno;

/// Holders of one inode's lock: description, exclusive, process.
#[derive(Default)]
pub(super) struct Flocks(Vec<(usize, bool, u32)>);

impl Flocks {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Ends the description's lock; tells whether it had one.
    pub(super) fn release(&mut self, who: usize) -> bool {
        let before = self.0.len();
        self.0.retain(|(d, _, _)| *d != who);
        self.0.len() != before
    }
    fn try_take(&mut self, who: usize, exclusive: bool, pid: u32) -> bool {
        let conflict = self.0.iter().any(|(d, x, _)| *d != who && (*x || exclusive));
        if !conflict {
            self.release(who);
            self.0.push((who, exclusive, pid));
        }
        !conflict
    }
    pub(super) fn list(&self, id: InodeId, out: &mut Vec<Held>) {
        out.extend(self.0.iter().map(|(_, write, pid)| Held {
            class: "FLOCK",
            write: *write,
            pid: i64::from(*pid),
            id,
            start: 0,
            last: u64::MAX,
        }));
    }
}

/// Takes, converts or ends a lock. As in Linux a conversion first gives up the old lock.
///
/// # Errors
/// EINVAL, EWOULDBLOCK, ERESTARTSYS, EBADF for files that cannot be locked.
pub fn flock(file: &File, op: u32) -> Result<(), Errno> {
    // Mandatory locks are gone from Linux; asking for one is accepted and does nothing.
    if op & LOCK_MAND != 0 {
        return Ok(());
    }
    let id = id_of(file).ok_or(Errno::EBADF)?;
    let me = description(file);
    let exclusive = match op & !LOCK_NB {
        LOCK_UN => {
            let locks = locks_of(id);
            let had = locks.flocks.lock().release(me);
            if had {
                locks.queue.wake_all();
            }
            drop(locks);
            tidy(id);
            return Ok(());
        }
        LOCK_SH => false,
        LOCK_EX => true,
        _ => return Err(Errno::EINVAL),
    };
    let locks = locks_of(id);
    let pid = crate::task::current().map_or(0, |t| t.process.pid);
    let converts = {
        let flocks = locks.flocks.lock();
        flocks.0.iter().any(|(d, x, _)| *d == me && *x != exclusive)
    };
    if locks.flocks.lock().try_take(me, exclusive, pid) {
        if converts {
            locks.queue.wake_all();
        }
        return Ok(());
    }
    if converts {
        locks.flocks.lock().release(me);
        locks.queue.wake_all();
    }
    let result = if op & LOCK_NB != 0 {
        Err(Errno::EAGAIN)
    } else {
        let take = || locks.flocks.lock().try_take(me, exclusive, pid).then_some(());
        wait_until(&locks.queue, Events::all(), None, take).map_err(|e| e.restart_or(Errno::EAGAIN))
    };
    drop(locks);
    if result.is_err() {
        tidy(id);
    }
    result
}
