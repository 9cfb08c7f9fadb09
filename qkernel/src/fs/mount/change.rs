//! Changes of the trees of mounts. The callers hold [`super::CHANGE`].

use super::share::{copy_of, leave, spread, spread_of};
use super::{MOUNT_FLAGS, Mount, Share, TABLE, attach, children, descend, of_root, subtree, unhook};
use crate::fs::dcache;
use crate::fs::inode::FileType;
use crate::fs::path::Path;
use crate::ns::file::NsInode;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::uapi::general::{MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_RELATIME};
use qlib::Errno;

/// References to a mount that is in the table and held by one function: the table's two, and one.
const IDLE: usize = 3;
/// Flags about access times.
const ATIME: u64 = (MS_NOATIME | MS_NODIRATIME | MS_RELATIME) as u64;

fn is_dir(d: &crate::fs::path::Dentry) -> bool {
    d.inode().file_type() == FileType::Directory
}

/// Mounts a new tree of mounts at `at`, and copies of it where mounts there spread to.
///
/// # Errors
/// As [`attach`].
pub fn graft(tree: &Arc<Mount>, at: &Path) -> Result<(), Errno> {
    let at = descend(at.clone());
    if is_dir(&tree.root) != is_dir(&at.dentry) {
        return Err(Errno::ENOTDIR);
    }
    attach(tree, &at)?;
    to_end(tree);
    let domain = at.mount.domain.load(Ordering::Relaxed);
    for m in subtree(tree) {
        m.domain.store(domain, Ordering::Relaxed);
    }
    spread(tree, &at)
}

/// The tree comes from a more privileged namespace: its mounts get no more rights, and what covers something stays.
pub(super) fn lock_tree(all: &[Arc<Mount>]) {
    let stay = u64::from(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC) | ATIME;
    for (i, m) in all.iter().enumerate() {
        let flags = m.flags.load(Ordering::Relaxed) & stay;
        m.locked_flags.fetch_or(flags, Ordering::Relaxed);
        if i > 0 {
            m.locked.store(true, Ordering::Relaxed);
        }
    }
}

/// Lists what is mounted below a tree that was built before it was mounted after its root.
pub(super) fn to_end(tree: &Arc<Mount>) {
    let below = subtree(tree);
    let mut t = TABLE.lock();
    for m in below.iter().skip(1) {
        if let Some(i) = t.order.iter().position(|o| Arc::ptr_eq(o, m)) {
            let m = t.order.remove(i);
            t.order.push(m);
        }
    }
}

/// Unmounts what is mounted at `p`. `lazy` takes it (and what is mounted below) out of sight though it is in use.
///
/// # Errors
/// EINVAL when `p` is not the root of a mount, is the root of the tree or must stay; EBUSY when it is in use.
pub fn detach(p: Path, lazy: bool) -> Result<(), Errno> {
    let mount = of_root(&p)?;
    drop(p);
    let at = mount.at.lock().clone().ok_or(Errno::EINVAL)?;
    if mount.locked.load(Ordering::Relaxed) {
        return Err(Errno::EINVAL);
    }
    if !lazy && (!children(&mount).is_empty() || Arc::strong_count(&mount) > IDLE) {
        return Err(Errno::EBUSY);
    }
    // The copies go too, but for those with mounts of their own on them.
    for m in subtree(&mount).iter().rev() {
        let place = m.at.lock().clone();
        let Some(place) = place else { continue };
        for copy in spread_of(&place) {
            if children(&copy).is_empty() {
                remove(&copy);
            }
        }
    }
    drop(at);
    drop_tree(&mount);
    Ok(())
}

fn remove(m: &Arc<Mount>) {
    leave(m);
    unhook(m);
    // It is the root of its own tree now, for those who still use it.
    let at = m.at.lock().take();
    drop(at);
    dcache::release_below(&m.root);
}

/// MNT_EXPIRE: marks what is mounted at `p`, and unmounts it when it was marked and not used since.
///
/// # Errors
/// EAGAIN: marked now; EINVAL; EBUSY.
pub fn expire(p: Path) -> Result<(), Errno> {
    let mount = of_root(&p)?;
    drop(p);
    if mount.at.lock().is_none() || mount.locked.load(Ordering::Relaxed) {
        return Err(Errno::EINVAL);
    }
    if !children(&mount).is_empty() || Arc::strong_count(&mount) > IDLE {
        return Err(Errno::EBUSY);
    }
    if !mount.expiring.swap(true, Ordering::Relaxed) {
        return Err(Errno::EAGAIN);
    }
    let root = mount.root_path();
    drop(mount);
    detach(root, false)
}

/// Changes the flags of what is mounted at `p`; with `whole` also whether the file system as a whole is read-only.
///
/// # Errors
/// EINVAL when `p` is not the root of a mount; EPERM for flags that must stay.
pub fn remount(p: &Path, flags: u64, keep_atime: bool, whole: bool) -> Result<(), Errno> {
    let m = of_root(p)?;
    let old = m.flags.load(Ordering::Relaxed);
    let locked = m.locked_flags.load(Ordering::Relaxed);
    let mut new = flags & MOUNT_FLAGS;
    if keep_atime {
        new = new & !ATIME | old & ATIME;
    }
    if locked & !new & !ATIME != 0 || locked & ATIME != 0 && new & ATIME != old & ATIME {
        return Err(Errno::EPERM);
    }
    m.flags.store(new, Ordering::Relaxed);
    if whole {
        let read_only = flags & u64::from(MS_RDONLY) != 0;
        m.sup.read_only.store(read_only, Ordering::Relaxed);
    }
    Ok(())
}

fn is_shared(m: &Mount) -> bool {
    m.share.lock().group != 0
}

/// Moves a mount.
///
/// # Errors
/// EINVAL for what is not the root of a mount, for the root of a tree, from a shared mount, or where only one of both is a
/// directory; ELOOP into itself; as [`attach`].
pub fn relocate(from: Path, to: &Path) -> Result<(), Errno> {
    let mount = of_root(&from)?;
    drop(from);
    let to = descend(to.clone());
    let mut here = Some(to.mount.clone());
    while let Some(m) = here {
        if Arc::ptr_eq(&m, &mount) {
            return Err(Errno::ELOOP);
        }
        here = m.parent();
    }
    let parent = mount.parent().ok_or(Errno::EINVAL)?;
    if is_shared(&parent)
        || mount.locked.load(Ordering::Relaxed)
        || is_dir(&mount.root) != is_dir(&to.dentry)
        || is_shared(&to.mount) && subtree(&mount).iter().any(|m| m.share.lock().unbindable)
    {
        return Err(Errno::EINVAL);
    }
    if to.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    unhook(&mount);
    attach(&mount, &to)?;
    spread(&mount, &to)
}

/// A second view of `from` (a bind mount) at `to`. With `recursive` what is mounted below comes along.
///
/// # Errors
/// EINVAL for a mount that is unbindable, or where a mount that must stay would come off; as [`attach`].
pub fn bind(from: &Path, to: &Path, recursive: bool) -> Result<Arc<Mount>, Errno> {
    if from.mount.share.lock().unbindable {
        return Err(Errno::EINVAL);
    }
    let covers = |m: &Arc<Mount>| {
        let at = m.at.lock().clone();
        m.locked.load(Ordering::Relaxed) && at.is_some_and(|p| from.dentry.is_ancestor_of(&p.dentry))
    };
    if !recursive && children(&from.mount).iter().any(covers) {
        return Err(Errno::EINVAL);
    }
    let pairs = copy_of(&from.mount, &from.dentry, recursive, &|m| *m.share.lock())?;
    for (old, new) in pairs.iter().skip(1) {
        let locked = old.locked.load(Ordering::Relaxed);
        new.locked.store(locked, Ordering::Relaxed);
    }
    let copy = pairs[0].1.clone();
    drop(pairs);
    if let Err(e) = graft(&copy, to) {
        drop_tree(&copy);
        return Err(e);
    }
    Ok(copy)
}

/// Copies a whole tree of mounts (a new mount namespace). For a less privileged one the mounts stay where they are and get
/// no more rights, and mounts only spread to it. Returns how a place in the old tree translates.
///
/// # Errors
/// As [`attach`].
pub fn copy_tree(top: &Arc<Mount>, domain: u64) -> Result<impl Fn(&Path) -> Path + use<>, Errno> {
    let less = top.domain.load(Ordering::Relaxed) != domain;
    let share = |m: &Mount| {
        let s = *m.share.lock();
        // A mount namespace bound in another that is bound in it would never go.
        if m.root
            .inode()
            .as_any()
            .downcast_ref::<NsInode>()
            .is_some_and(NsInode::is_mounts)
        {
            return Share {
                unbindable: true,
                ..Share::default()
            };
        }
        if less && s.group != 0 {
            return Share {
                group: 0,
                master: s.group,
                ..s
            };
        }
        // Unbindable mounts are copied too: the mark is set afterwards.
        Share {
            unbindable: false,
            ..s
        }
    };
    let pairs = copy_of(top, &top.root, true, &share)?;
    for (old, new) in &pairs {
        let unbindable = old.share.lock().unbindable;
        new.share.lock().unbindable = unbindable;
        let locked = old.locked.load(Ordering::Relaxed);
        new.locked.store(locked, Ordering::Relaxed);
        new.domain.store(domain, Ordering::Relaxed);
    }
    if less {
        let all: Vec<_> = pairs.iter().map(|(_, new)| new.clone()).collect();
        lock_tree(&all);
    }
    TABLE.lock().order.push(pairs[0].1.clone());
    Ok(move |p: &Path| {
        let mount = pairs
            .iter()
            .find(|(old, _)| Arc::ptr_eq(old, &p.mount))
            .map_or(p.mount.clone(), |(_, new)| new.clone());
        Path {
            mount,
            dentry: p.dentry.clone(),
        }
    })
}

/// Makes `new_root` the root of the tree and puts the old root at `put_old`. Source: `pivot_root(2)`.
///
/// # Errors
/// EBUSY when `new_root` or `put_old` is on the current root mount; EINVAL when `new_root` or the root is not the root of a
/// mount, `put_old` is not below `new_root`, or one of the mounts they are on is shared; ENOENT.
pub fn pivot(old_root: &Path, new_root: &Path, put_old: &Path) -> Result<(), Errno> {
    let put_old = descend(put_old.clone());
    if is_shared(&put_old.mount)
        || [&new_root.mount, &old_root.mount]
            .iter()
            .any(|m| m.parent().is_some_and(|p| is_shared(&p)))
    {
        return Err(Errno::EINVAL);
    }
    if new_root.mount.locked.load(Ordering::Relaxed) {
        return Err(Errno::EINVAL);
    }
    if new_root.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    if Arc::ptr_eq(&new_root.mount, &old_root.mount) || Arc::ptr_eq(&put_old.mount, &old_root.mount) {
        return Err(Errno::EBUSY);
    }
    let new = of_root(new_root)?;
    let old = of_root(old_root)?;
    if !put_old.relative_to(new_root).1 || !new_root.relative_to(old_root).1 || new.at.lock().is_none() {
        return Err(Errno::EINVAL);
    }
    let at_old = old.at.lock().clone();
    unhook(&new);
    let gone = new.at.lock().take();
    drop(gone);
    unhook(&old);
    // The old root's right to stay passes to the new one.
    let stays = old.locked.swap(false, Ordering::Relaxed);
    new.locked.store(stays, Ordering::Relaxed);
    match at_old {
        Some(p) => attach(&new, &p)?,
        None => TABLE.lock().order.push(new.clone()),
    }
    attach(&old, &put_old)
}

/// Unmounts a tree with everything in it (a lazy unmount; the container or the namespace is gone).
pub fn drop_tree(top: &Arc<Mount>) {
    // The last mounted first: deep trees must not recurse.
    for m in subtree(top).into_iter().rev() {
        let stays = m.locked.load(Ordering::Relaxed) && !Arc::ptr_eq(&m, top);
        let at = m.at.lock().clone();
        remove(&m);
        // Who still holds the mount below does not get to see what this one covers.
        if stays && let Some(p) = at {
            p.dentry.mounted.fetch_add(1, Ordering::AcqRel);
            p.mount.covered.lock().push((p.dentry, m));
        }
    }
}
