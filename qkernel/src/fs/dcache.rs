//! The dentry tree as a cache: finding children, keeping them for a while, forgetting them.

use crate::fs::inode::{InodeRef, Stat};
use crate::fs::path::Dentry;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;
use hal::sync::SpinLock;
use qlib::Errno;

/// Directories kept while unused: each may hold a host descriptor.
const MAX_DIRS: usize = 1500;
/// Other dentries kept while unused: each keeps its parent directory.
const MAX_OTHERS: usize = 4000;

struct Kept {
    by_age: BTreeMap<u64, Arc<Dentry>>,
    next: u64,
}

impl Kept {
    const fn new() -> Self {
        Self {
            by_age: BTreeMap::new(),
            next: 1,
        }
    }
    fn push(&mut self, d: Arc<Dentry>) {
        let n = self.next;
        self.next += 1;
        d.kept.store(n, Ordering::Relaxed);
        self.by_age.insert(n, d);
    }
    /// Takes one that was not used since it was last looked at.
    fn evict(&mut self) -> Option<Arc<Dentry>> {
        loop {
            let (_, d) = self.by_age.pop_first()?;
            if d.used.swap(false, Ordering::Relaxed) {
                self.push(d);
            } else {
                d.kept.store(0, Ordering::Relaxed);
                return Some(d);
            }
        }
    }
}

/// Kept dentries: directories, others. Lock order: innermost.
static KEPT: [SpinLock<Kept>; 2] = [SpinLock::new(Kept::new()), SpinLock::new(Kept::new())];

fn class(d: &Dentry) -> usize {
    !matches!(d.inode().file_type(), crate::fs::FileType::Directory) as usize
}

/// Keeps a dentry until it is the one unused longest.
fn keep(d: &Arc<Dentry>) {
    let class = class(d);
    let max = [MAX_DIRS, MAX_OTHERS][class];
    let evicted = {
        let mut kept = KEPT[class].lock();
        kept.push(d.clone());
        if kept.by_age.len() > max {
            kept.evict()
        } else {
            None
        }
    };
    drop(evicted);
}

/// Forgets a kept dentry.
fn release(d: &Dentry) {
    let removed = {
        let mut kept = KEPT[class(d)].lock();
        let n = d.kept.swap(0, Ordering::Relaxed);
        kept.by_age.remove(&n)
    };
    drop(removed);
}

/// Forgets every kept dentry below `root` (unmount).
pub fn release_below(root: &Arc<Dentry>) {
    for kept in &KEPT {
        let all: alloc::vec::Vec<_> = kept.lock().by_age.values().cloned().collect();
        for d in all {
            if root.is_ancestor_of(&d) {
                release(&d);
            }
        }
    }
}

/// The live dentry of a name, if there is one.
pub fn cached(dir: &Dentry, name: &[u8]) -> Option<Arc<Dentry>> {
    let weak = dir.children.lock().get(name).cloned();
    weak.as_ref().and_then(Weak::upgrade)
}

/// Finds a child; asks the file system when the name is not known or may have changed behind the kernel's back.
///
/// # Errors
/// ENOENT; the file system's.
pub fn child(dir: &Arc<Dentry>, name: &[u8]) -> Result<(Arc<Dentry>, Option<Stat>), Errno> {
    if let Some(d) = hit(dir, name) {
        return Ok((d, None));
    }
    let _guard = dir.dir_lock.lock();
    child_locked(dir, name)
}

fn hit(dir: &Arc<Dentry>, name: &[u8]) -> Option<Arc<Dentry>> {
    let d = cached(dir, name)?;
    let valid = dir.inode().cacheable() || d.mounted.load(Ordering::Relaxed) > 0;
    d.used.store(true, Ordering::Relaxed);
    valid.then_some(d)
}

/// As [`child`], with the directory's lock held by the caller.
///
/// # Errors
/// As [`child`].
pub fn child_locked(dir: &Arc<Dentry>, name: &[u8]) -> Result<(Arc<Dentry>, Option<Stat>), Errno> {
    if let Some(d) = hit(dir, name) {
        return Ok((d, None));
    }
    if dir.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let old = cached(dir, name);
    let (inode, stat) = match dir.inode().lookup_stat(name) {
        Ok(found) => found,
        Err(e) => {
            if e == Errno::ENOENT
                && let Some(d) = old
            {
                forget(dir, &d);
            }
            return Err(e);
        }
    };
    if let Some(d) = old {
        if d.inode().same_object(&*inode) {
            if let Some(s) = &stat {
                d.inode().refresh(s);
            }
            return Ok((d, stat));
        }
        forget(dir, &d);
    }
    Ok((insert(dir, name, inode), stat))
}

/// Makes the dentry of a name that was just found or made. The directory's lock is held.
pub fn insert(dir: &Arc<Dentry>, name: &[u8], inode: InodeRef) -> Arc<Dentry> {
    let d = Dentry::child(dir, name, inode);
    dir.children.lock().insert(name.to_vec(), Arc::downgrade(&d));
    if dir.inode().keep_entries() {
        keep(&d);
    }
    d
}

/// The name of `d` is gone: no walk finds it any more. The directory's lock is held.
pub fn forget(dir: &Arc<Dentry>, d: &Arc<Dentry>) {
    let name = d.name();
    {
        let mut children = dir.children.lock();
        if children.get(&name).is_some_and(|w| w.as_ptr() == Arc::as_ptr(d)) {
            children.remove(&name);
        }
    }
    d.deleted.store(true, Ordering::Release);
    d.inode().unlinked();
    release(d);
}

/// Gives `d` a new name. The locks of both directories are held.
pub fn moved(old_dir: &Arc<Dentry>, d: &Arc<Dentry>, new_dir: &Arc<Dentry>, new_name: &[u8]) {
    let old_name = d.name();
    {
        let mut children = old_dir.children.lock();
        if children
            .get(&old_name)
            .is_some_and(|w| w.as_ptr() == Arc::as_ptr(d))
        {
            children.remove(&old_name);
        }
    }
    d.relink(new_dir, new_name);
    new_dir
        .children
        .lock()
        .insert(new_name.to_vec(), Arc::downgrade(d));
    d.inode().moved(new_dir.inode(), new_name);
}
