//! Events of the tree for inotify: who watches what, and what the VFS reports.

use crate::fs::file::File;
use crate::fs::inode::{FileType, InodeId};
use crate::fs::inotify::Queue;
use crate::fs::path::Dentry;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use hal::sync::SpinLock;

/// IN_* bits.
#[allow(missing_docs)]
pub mod mask {
    pub const ACCESS: u32 = 0x1;
    pub const MODIFY: u32 = 0x2;
    pub const ATTRIB: u32 = 0x4;
    pub const CLOSE_WRITE: u32 = 0x8;
    pub const CLOSE_NOWRITE: u32 = 0x10;
    pub const OPEN: u32 = 0x20;
    pub const MOVED_FROM: u32 = 0x40;
    pub const MOVED_TO: u32 = 0x80;
    pub const CREATE: u32 = 0x100;
    pub const DELETE: u32 = 0x200;
    pub const DELETE_SELF: u32 = 0x400;
    pub const MOVE_SELF: u32 = 0x800;
    pub const UNMOUNT: u32 = 0x2000;
    pub const Q_OVERFLOW: u32 = 0x4000;
    pub const IGNORED: u32 = 0x8000;
    pub const EXCL_UNLINK: u32 = 0x0400_0000;
    pub const ISDIR: u32 = 0x4000_0000;
    pub const ONESHOT: u32 = 0x8000_0000;
    pub const ALL: u32 = 0xfff;
}

/// One watch of one inotify instance.
pub struct Watch {
    /// Who gets the events.
    pub queue: Weak<Queue>,
    /// Watch descriptor.
    pub wd: i32,
    /// IN_* wanted, with the flags.
    pub mask: u32,
}

/// Watches by inode. Lock order: before the queues.
static WATCHES: SpinLock<BTreeMap<InodeId, Vec<Watch>>> = SpinLock::new(BTreeMap::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static COOKIE: AtomicU32 = AtomicU32::new(1);

/// Whether anybody watches anything.
pub fn active() -> bool {
    COUNT.load(Ordering::Acquire) > 0
}

/// Adds or changes (`add`: widens) the watch of `queue` on an inode; `fresh` gives the new descriptor.
/// Returns the descriptor and whether it is new.
pub fn watch(id: InodeId, queue: &Arc<Queue>, mask: u32, add: bool, fresh: i32) -> (i32, bool) {
    let mut watches = WATCHES.lock();
    let list = watches.entry(id).or_default();
    for w in list.iter_mut() {
        if w.queue.as_ptr() == Arc::as_ptr(queue) {
            w.mask = if add { w.mask | mask } else { mask };
            return (w.wd, false);
        }
    }
    list.push(Watch {
        queue: Arc::downgrade(queue),
        wd: fresh,
        mask,
    });
    COUNT.fetch_add(1, Ordering::AcqRel);
    (fresh, true)
}

/// Whether `queue` watches the inode.
pub fn is_watched(id: InodeId, queue: &Arc<Queue>) -> bool {
    let watches = WATCHES.lock();
    watches
        .get(&id)
        .is_some_and(|l| l.iter().any(|w| w.queue.as_ptr() == Arc::as_ptr(queue)))
}

/// Ends a watch.
pub fn unwatch(id: InodeId, wd: i32, queue: *const Queue) {
    let mut watches = WATCHES.lock();
    let Some(list) = watches.get_mut(&id) else {
        return;
    };
    let before = list.len();
    list.retain(|w| w.queue.as_ptr() != queue || w.wd != wd);
    COUNT.fetch_sub(before - list.len(), Ordering::AcqRel);
    if list.is_empty() {
        watches.remove(&id);
    }
}

/// Delivers an event to the watches of one inode.
fn deliver(id: InodeId, event: u32, cookie: u32, name: &[u8]) {
    let mut ended = Vec::new();
    {
        let watches = WATCHES.lock();
        let Some(list) = watches.get(&id) else { return };
        for w in list {
            let Some(q) = w.queue.upgrade() else { continue };
            if w.mask & event & mask::ALL != 0 {
                q.push(w.wd, event, cookie, name);
                if w.mask & mask::ONESHOT != 0 {
                    ended.push((q, w.wd));
                    continue;
                }
            }
            // The counted reference must not be the last one while the lock is held.
            ended.push((q, -1));
        }
    }
    for (q, wd) in ended {
        if wd >= 0 {
            q.end_watch(wd);
        }
    }
}

/// An entry of a directory changed.
pub fn entry(dir: &Arc<Dentry>, event: u32, cookie: u32, name: &[u8]) {
    if active() {
        deliver(dir.inode().id(), event, cookie, name);
    }
}

/// Something happened to an object: its own watches and those of its directory are told.
pub fn object(d: &Arc<Dentry>, event: u32) {
    if !active() {
        return;
    }
    let event = if d.inode().file_type() == FileType::Directory {
        event | mask::ISDIR
    } else {
        event
    };
    if let Some(dir) = d.parent() {
        deliver(dir.inode().id(), event, 0, &d.name());
    }
    deliver(d.inode().id(), event, 0, b"");
}

/// Something happened to an open file.
pub fn file(file: &File, event: u32) {
    if active()
        && let Some(p) = file.path()
    {
        object(&p.dentry, event);
    }
}

/// The last descriptor of an open file is gone.
pub fn file_closed(f: &File) {
    file(
        f,
        if f.writable() {
            mask::CLOSE_WRITE
        } else {
            mask::CLOSE_NOWRITE
        },
    );
}

/// Whether the name about to be removed is the object's last; asked beforehand, when somebody watches.
pub fn last_link(d: &Arc<Dentry>) -> bool {
    active() && {
        // The identity is remembered now: later the host may not know the object any more.
        d.inode().id();
        d.inode()
            .stat()
            .is_ok_and(|s| s.nlink <= 1 || s.mode & 0o170_000 == 0o040_000)
    }
}

/// The number of an object's links changed: only its own watches are told.
pub fn link_count(d: &Arc<Dentry>) {
    if active() {
        deliver(d.inode().id(), mask::ATTRIB, 0, b"");
    }
}

/// A name was removed; `last`: it was the object's last one.
pub fn removed(d: &Arc<Dentry>, last: bool) {
    if !active() {
        return;
    }
    let id = d.inode().id();
    if last {
        deliver(id, mask::DELETE_SELF, 0, b"");
        end_all(id);
    }
}

/// The object is gone: its watches end.
fn end_all(id: InodeId) {
    let list = {
        let watches = WATCHES.lock();
        let Some(list) = watches.get(&id) else { return };
        list.iter()
            .filter_map(|w| w.queue.upgrade().map(|q| (q, w.wd)))
            .collect::<Vec<_>>()
    };
    for (q, wd) in list {
        q.end_watch(wd);
    }
}

/// A rename happened.
pub fn renamed(old_dir: &Arc<Dentry>, old: &[u8], new_dir: &Arc<Dentry>, new: &[u8], what: &Arc<Dentry>) {
    if !active() {
        return;
    }
    let cookie = COOKIE.fetch_add(1, Ordering::Relaxed);
    let dir = if what.inode().file_type() == FileType::Directory {
        mask::ISDIR
    } else {
        0
    };
    deliver(old_dir.inode().id(), mask::MOVED_FROM | dir, cookie, old);
    deliver(new_dir.inode().id(), mask::MOVED_TO | dir, cookie, new);
    deliver(what.inode().id(), mask::MOVE_SELF | dir, 0, b"");
}
