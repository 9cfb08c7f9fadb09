//! System V shared memory. Source: `shmop(2)`, Linux `ipc/shm.c`.
//!
//! A segment is a memory file. Who has it attached is seen from the areas that refer to it, so fork, exit and munmap need
//! no bookkeeping; a segment marked for removal goes when somebody next looks.

use super::sysv::{PRIVATE, Perm, now_s};
use crate::ns::pid::Pid;
use alloc::sync::Arc;
use hal::host::{self, HostFile};
use hal::sync::SpinLock;
use qlib::Errno;

/// What changes in a segment.
pub struct SegmentState {
    /// Owner and mode.
    pub perm: Perm,
    /// Maker, and process of the last attach or detach.
    pub pids: (Pid, Pid),
    /// Last attach, detach, change, s.
    pub times: (u64, u64, u64),
    /// IPC_RMID was asked for; it goes with the last attachment.
    pub doomed: bool,
    /// SHM_LOCK.
    pub locked: bool,
}

/// A segment.
pub struct Segment {
    /// Its id.
    pub id: i32,
    /// Size as asked for, bytes.
    pub size: u64,
    /// The memory.
    pub memory: Arc<HostFile>,
    /// What changes.
    pub state: SpinLock<SegmentState>,
}

impl Segment {
    /// A segment of zeros.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(id: i32, perm: Perm, size: u64, pid: Pid) -> Result<Self, Errno> {
        let memory = host::mem_file(b"SYSV")?;
        let pages = size
            .checked_next_multiple_of(qlib::PAGE_SIZE)
            .ok_or(Errno::ENOMEM)?;
        host::truncate(memory.handle(), pages)?;
        Ok(Self {
            id,
            size,
            memory: Arc::new(memory),
            state: SpinLock::new(SegmentState {
                perm,
                pids: (pid, Pid::default()),
                times: (0, 0, now_s()),
                doomed: false,
                locked: false,
            }),
        })
    }

    /// Areas that refer to the memory. An attachment that was split counts more than once.
    pub fn attachments(&self) -> usize {
        Arc::strong_count(&self.memory) - 1
    }

    /// Memory it takes, bytes.
    pub fn resident(&self) -> u64 {
        /// What `st_blocks` counts.
        const BLOCK: u64 = 512;
        host::stat(self.memory.handle(), b"").map_or(0, |s| s.blocks * BLOCK)
    }

    /// Marks for removal.
    pub fn doom(&self) {
        {
            let mut s = self.state.lock();
            s.doomed = true;
            s.perm.key = PRIVATE;
        }
        crate::ns::current().ipc.segments.forget_key(self.id);
        sweep();
    }
}

/// Removes segments that were marked and are attached nowhere.
pub fn sweep() {
    for (id, s) in crate::ns::current().ipc.segments.list() {
        if s.state.lock().doomed && s.attachments() == 0 {
            drop(crate::ns::current().ipc.segments.remove(id));
        }
    }
}
