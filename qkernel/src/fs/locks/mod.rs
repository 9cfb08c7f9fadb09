//! Advisory file locks: POSIX record locks (per process), open file description locks, `flock`.
//! Source: `fcntl_locking(2)`, `flock(2)`.

mod flock;
mod record;

pub use flock::flock;
pub use record::{Kind, Owner, Range, get, set};

use crate::fs::file::File;
use crate::fs::inode::InodeId;
use crate::sched::wait::WaitQueue;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::sync::SpinLock;

/// Locks on one inode.
struct InodeLocks {
    records: SpinLock<record::Records>,
    flocks: SpinLock<flock::Flocks>,
    queue: WaitQueue,
}

/// Inodes with locks. Lock order: before the locks of one inode.
static TABLE: SpinLock<BTreeMap<InodeId, Arc<InodeLocks>>> = SpinLock::new(BTreeMap::new());

/// Number of inodes in the table, so that closing files costs nothing while nobody uses locks.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

fn locks_of(id: InodeId) -> Arc<InodeLocks> {
    let mut table = TABLE.lock();
    let locks = table.entry(id).or_insert_with(|| {
        IN_USE.fetch_add(1, Ordering::AcqRel);
        Arc::new(InodeLocks {
            records: SpinLock::default(),
            flocks: SpinLock::default(),
            queue: WaitQueue::new(),
        })
    });
    locks.clone()
}

fn existing(id: InodeId) -> Option<Arc<InodeLocks>> {
    TABLE.lock().get(&id).cloned()
}

/// Forgets inodes without locks and without waiters.
fn tidy(id: InodeId) {
    let removed = {
        let mut table = TABLE.lock();
        let idle = table.get(&id).is_some_and(|l| {
            // The table's own reference is the only one: nobody waits or is about to lock.
            Arc::strong_count(l) == 1 && l.records.lock().is_empty() && l.flocks.lock().is_empty()
        });
        if idle {
            IN_USE.fetch_sub(1, Ordering::AcqRel);
            table.remove(&id)
        } else {
            None
        }
    };
    drop(removed);
}

fn any() -> bool {
    IN_USE.load(Ordering::Acquire) > 0
}

/// The identity of a file's inode, for its locks.
fn id_of(file: &File) -> Option<InodeId> {
    file.inode().map(|i| i.id()).filter(|id| id.ino != 0)
}

/// Identity of an open file description.
fn description(file: &File) -> usize {
    core::ptr::from_ref(file) as usize
}

/// The last descriptor of a description is gone: its `flock` and OFD locks end.
pub fn file_closed(file: &File) {
    if !any() {
        return;
    }
    let Some(id) = id_of(file) else { return };
    let Some(locks) = existing(id) else { return };
    let me = description(file);
    let changed = locks.flocks.lock().release(me) | locks.records.lock().release(Owner::Description(me));
    if changed {
        locks.queue.wake_all();
    }
    drop(locks);
    tidy(id);
}

/// A process closed some descriptor of the file: all its record locks on the inode end, as POSIX wants.
pub fn descriptor_closed(file: &File, owner: usize) {
    if !any() {
        return;
    }
    let Some(id) = id_of(file) else { return };
    let Some(locks) = existing(id) else { return };
    let changed = locks.records.lock().release(Owner::Process(owner));
    if changed {
        locks.queue.wake_all();
    }
    drop(locks);
    tidy(id);
}

/// One held lock, as `/proc/locks` shows it.
#[derive(Clone, Debug)]
pub struct Held {
    /// `POSIX`, `OFDLCK` or `FLOCK`.
    pub class: &'static str,
    /// Exclusive.
    pub write: bool,
    /// Process that took it, -1 for OFD locks.
    pub pid: i64,
    /// On what.
    pub id: InodeId,
    /// First byte.
    pub start: u64,
    /// Last byte, `u64::MAX` = the end of the file.
    pub last: u64,
}

/// All held locks.
pub fn list() -> alloc::vec::Vec<Held> {
    let all: alloc::vec::Vec<(InodeId, Arc<InodeLocks>)> =
        TABLE.lock().iter().map(|(k, v)| (*k, v.clone())).collect();
    let mut out = alloc::vec::Vec::new();
    for (id, l) in &all {
        l.records.lock().list(*id, &mut out);
        l.flocks.lock().list(*id, &mut out);
    }
    out
}
