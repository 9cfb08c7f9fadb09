//! Changes of the tree: make, remove, link and rename entries. Source: `inode(7)`, Linux `fs/namei.c`.

use crate::fs::dcache;
use crate::fs::inode::{Attr, FileType};
use crate::fs::mount::is_mount_point;
use crate::fs::notify::{self, mask};
use crate::fs::path::{Dentry, Path};
use crate::fs::walk::{check, writable};
use crate::ns::user::{self, Kind};
use crate::sched::wait::SleepLock;
use crate::task::creds::{Creds, cap};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::host::Owner;
use hal::uapi::general::{RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};
use qlib::Errno;

/// Held across renames between directories. Lock order: before every directory's lock.
static RENAME: SleepLock<()> = SleepLock::new(());

const S_ISGID: u32 = 0o2000;
const S_ISVTX: u32 = 0o1000;

/// Owner of a new entry of a directory.
pub fn new_owner(dir: &Attr, creds: &Creds) -> Owner {
    Owner {
        uid: creds.fsuid,
        gid: if dir.mode & S_ISGID != 0 {
            dir.gid
        } else {
            creds.fsgid
        },
    }
}

/// Mode of a new entry: directories inherit set-group-ID, and nobody makes set-group-ID files of a foreign group.
pub fn new_mode(dir: &Attr, mode: u32, is_dir: bool, creds: &Creds) -> u32 {
    if dir.mode & S_ISGID == 0 {
        return mode;
    }
    if is_dir {
        return mode | S_ISGID;
    }
    let foreign = !creds.in_group(dir.gid) && !creds.capable_over(dir.uid, dir.gid, cap::FSETID);
    if mode & (S_ISGID | 0o010) == S_ISGID | 0o010 && foreign {
        return mode & !S_ISGID;
    }
    mode
}

/// Checks that an entry may be made in the directory; returns its attributes.
///
/// # Errors
/// EROFS, EACCES, ENOENT on a removed directory; EOVERFLOW for a maker the file system has no number for.
pub fn may_create(dir: &Path, creds: &Creds) -> Result<Attr, Errno> {
    if dir.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let attr = dir.inode().attr()?;
    writable(&dir.mount)?;
    check(creds, &attr, 3)?;
    // A file system of a user namespace holds no owners that mean nobody there.
    let home = &dir.mount.sup.owner;
    if !user::mapped(home, Kind::Uid, creds.fsuid) || !user::mapped(home, Kind::Gid, creds.fsgid) {
        return Err(Errno::EOVERFLOW);
    }
    Ok(attr)
}

/// Checks that `victim` may be removed from (or replaced in) the directory.
fn may_delete(dir: &Path, victim: &Dentry, creds: &Creds) -> Result<(), Errno> {
    let attr = dir.inode().attr()?;
    check(creds, &attr, 3)?;
    if attr.mode & S_ISVTX != 0 && attr.uid != creds.fsuid {
        let v = victim.inode().attr()?;
        if v.uid != creds.fsuid && !creds.capable_over(v.uid, v.gid, cap::FOWNER) {
            return Err(Errno::EPERM);
        }
    }
    Ok(())
}

fn place(dir: &Path, dentry: Arc<Dentry>) -> Path {
    Path {
        mount: dir.mount.clone(),
        dentry,
    }
}

/// Keeps an object reachable that loses its name while others than the caller and the cache hold it.
fn pin_if_used(d: &Arc<Dentry>) {
    let cached = (d.kept.load(Ordering::Relaxed) != 0) as usize;
    if Arc::strong_count(d) > 1 + cached {
        d.inode().pin();
    }
}

/// Fails with EEXIST when the name is there. The directory's lock is held.
fn absent(dir: &Path, name: &[u8]) -> Result<(), Errno> {
    match dcache::child_locked(&dir.dentry, name) {
        Ok(_) => Err(Errno::EEXIST),
        Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes a directory. `mode` has the umask applied.
///
/// # Errors
/// EEXIST, EROFS, EACCES, and the file system's.
pub fn mkdir_at(dir: &Path, name: &[u8], mode: u32, creds: &Creds) -> Result<Path, Errno> {
    let _guard = dir.dentry.dir_lock.lock();
    absent(dir, name)?;
    let attr = may_create(dir, creds)?;
    let mode = new_mode(&attr, mode & 0o1777, true, creds);
    let inode = dir.inode().mkdir(name, mode, creds)?;
    let d = dcache::insert(&dir.dentry, name, inode);
    notify::entry(&dir.dentry, mask::CREATE | mask::ISDIR, 0, name);
    Ok(place(dir, d))
}

/// Makes a node or an empty regular file. `mode` has type and permission bits, with the umask applied.
///
/// # Errors
/// EEXIST, EROFS, EACCES, EPERM for devices without CAP_MKNOD.
pub fn mknod_at(dir: &Path, name: &[u8], mode: u32, rdev: u64, creds: &Creds) -> Result<Path, Errno> {
    let _guard = dir.dentry.dir_lock.lock();
    absent(dir, name)?;
    let attr = may_create(dir, creds)?;
    let kind = FileType::from_mode(mode);
    let whiteout = kind == FileType::CharDevice && rdev == 0;
    if matches!(kind, FileType::CharDevice | FileType::BlockDevice) && !whiteout && !creds.capable(cap::MKNOD)
    {
        return Err(Errno::EPERM);
    }
    let mode = new_mode(&attr, mode, false, creds);
    let inode = dir.inode().mknod(name, mode, rdev, creds)?;
    let d = dcache::insert(&dir.dentry, name, inode);
    notify::entry(&dir.dentry, mask::CREATE, 0, name);
    Ok(place(dir, d))
}

/// Makes a symlink.
///
/// # Errors
/// EEXIST, EROFS, EACCES.
pub fn symlink_at(dir: &Path, name: &[u8], target: &[u8], creds: &Creds) -> Result<(), Errno> {
    let _guard = dir.dentry.dir_lock.lock();
    absent(dir, name)?;
    may_create(dir, creds)?;
    let inode = dir.inode().symlink(name, target, creds)?;
    dcache::insert(&dir.dentry, name, inode);
    notify::entry(&dir.dentry, mask::CREATE, 0, name);
    Ok(())
}

/// Makes a hard link to `old`.
///
/// # Errors
/// EEXIST, EXDEV, EPERM (a directory), EROFS, EACCES.
pub fn link_at(old: &Path, dir: &Path, name: &[u8], creds: &Creds) -> Result<(), Errno> {
    let _guard = dir.dentry.dir_lock.lock();
    absent(dir, name)?;
    may_create(dir, creds)?;
    if !Arc::ptr_eq(&old.mount, &dir.mount) {
        return Err(Errno::EXDEV);
    }
    if old.inode().file_type() == FileType::Directory {
        return Err(Errno::EPERM);
    }
    dir.inode().link(name, old.inode())?;
    notify::entry(&dir.dentry, mask::CREATE, 0, name);
    notify::link_count(&old.dentry);
    Ok(())
}

/// Removes a name that is not a directory. `slash`: slashes followed it.
///
/// # Errors
/// ENOENT, EISDIR, ENOTDIR, EACCES, EPERM, EROFS, EBUSY.
pub fn unlink_at(dir: &Path, name: &[u8], slash: bool, creds: &Creds) -> Result<(), Errno> {
    let victim = {
        let _guard = dir.dentry.dir_lock.lock();
        let (d, _) = dcache::child_locked(&dir.dentry, name)?;
        let is_dir = d.inode().file_type() == FileType::Directory;
        if slash {
            return Err(if is_dir { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        writable(&dir.mount)?;
        may_delete(dir, &d, creds)?;
        if is_dir {
            return Err(Errno::EISDIR);
        }
        if is_mount_point(&d) {
            return Err(Errno::EBUSY);
        }
        let seen = notify::last_link(&d);
        pin_if_used(&d);
        dir.inode().unlink(name)?;
        dcache::forget(&dir.dentry, &d);
        notify::link_count(&d);
        notify::entry(&dir.dentry, mask::DELETE, 0, name);
        notify::removed(&d, seen);
        d
    };
    // Its data may go here, with no lock held.
    drop(victim);
    Ok(())
}

/// Removes an empty directory.
///
/// # Errors
/// ENOENT, ENOTDIR, ENOTEMPTY, EACCES, EPERM, EROFS, EBUSY.
pub fn rmdir_at(dir: &Path, name: &[u8], creds: &Creds) -> Result<(), Errno> {
    let _guard = dir.dentry.dir_lock.lock();
    let (d, _) = dcache::child_locked(&dir.dentry, name)?;
    writable(&dir.mount)?;
    may_delete(dir, &d, creds)?;
    if d.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    if is_mount_point(&d) {
        return Err(Errno::EBUSY);
    }
    // The victim's own lock: nobody may be adding an entry to it.
    let _inner = d.dir_lock.lock();
    pin_if_used(&d);
    dir.inode().rmdir(name)?;
    dcache::forget(&dir.dentry, &d);
    notify::entry(&dir.dentry, mask::DELETE | mask::ISDIR, 0, name);
    notify::removed(&d, true);
    Ok(())
}

/// A name in a directory, as the app gave it.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    dir: &'a Path,
    name: &'a [u8],
    slash: bool,
}

impl<'a> Entry<'a> {
    /// `slash`: slashes followed the name.
    pub fn new(dir: &'a Path, name: &'a [u8], slash: bool) -> Self {
        Self { dir, name, slash }
    }
}

/// Renames.
///
/// # Errors
/// As `rename(2)` and `renameat2(2)`.
pub fn rename_at(old: Entry<'_>, new: Entry<'_>, flags: u32, creds: &Creds) -> Result<(), Errno> {
    let (old_dir, old_name, old_slash) = (old.dir, old.name, old.slash);
    let (new_dir, new_name, new_slash) = (new.dir, new.name, new.slash);
    if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0
        || flags & RENAME_EXCHANGE != 0 && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0
    {
        return Err(Errno::EINVAL);
    }
    if flags & RENAME_WHITEOUT != 0 {
        return Err(Errno::EINVAL);
    }
    if !Arc::ptr_eq(&old_dir.mount, &new_dir.mount) {
        return Err(Errno::EXDEV);
    }
    let same_dir = Arc::ptr_eq(&old_dir.dentry, &new_dir.dentry);
    let _global = (!same_dir).then(|| RENAME.lock());
    // Ancestors first; unrelated directories by address.
    let first_old = old_dir.dentry.is_ancestor_of(&new_dir.dentry)
        || !new_dir.dentry.is_ancestor_of(&old_dir.dentry)
            && Arc::as_ptr(&old_dir.dentry) < Arc::as_ptr(&new_dir.dentry);
    let (first, second) = if first_old {
        (old_dir, new_dir)
    } else {
        (new_dir, old_dir)
    };
    let _first = first.dentry.dir_lock.lock();
    let _second = (!same_dir).then(|| second.dentry.dir_lock.lock());

    let (source, _) = dcache::child_locked(&old_dir.dentry, old_name)?;
    let target = match dcache::child_locked(&new_dir.dentry, new_name) {
        Ok((d, _)) => Some(d),
        Err(Errno::ENOENT) => None,
        Err(e) => return Err(e),
    };
    let exchange = flags & RENAME_EXCHANGE != 0;
    if flags & RENAME_NOREPLACE != 0 && target.is_some() {
        return Err(Errno::EEXIST);
    }
    if exchange && target.is_none() {
        return Err(Errno::ENOENT);
    }
    let is_dir = |d: &Dentry| d.inode().file_type() == FileType::Directory;
    let source_dir = is_dir(&source);
    if !source_dir && (old_slash || !exchange && new_slash) {
        return Err(Errno::ENOTDIR);
    }
    if exchange && new_slash && target.as_ref().is_some_and(|t| !is_dir(t)) {
        return Err(Errno::ENOTDIR);
    }
    if source_dir && source.is_ancestor_of(&new_dir.dentry) {
        return Err(Errno::EINVAL);
    }
    if let Some(t) = &target
        && t.is_ancestor_of(&old_dir.dentry)
    {
        return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    writable(&old_dir.mount)?;
    may_delete(old_dir, &source, creds)?;
    match &target {
        None => {
            may_create(new_dir, creds)?;
        }
        Some(t) => {
            may_delete(new_dir, t, creds)?;
            if !exchange {
                match (source_dir, is_dir(t)) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => {}
                }
            }
        }
    }
    // Moving a directory to another parent changes its `..`.
    if !same_dir && source_dir {
        check(creds, &source.inode().attr()?, 2)?;
    }
    if exchange
        && !same_dir
        && let Some(t) = target.as_ref().filter(|t| is_dir(t))
    {
        check(creds, &t.inode().attr()?, 2)?;
    }
    if let Some(t) = &target
        && (Arc::ptr_eq(t, &source) || source.inode().id() == t.inode().id())
    {
        // Two names of one file: nothing is done.
        return Ok(());
    }
    if is_mount_point(&source) || target.as_ref().is_some_and(is_mount_point) {
        return Err(Errno::EBUSY);
    }
    let seen = target.as_ref().is_some_and(notify::last_link);
    if let Some(t) = &target {
        pin_if_used(t);
    }
    old_dir
        .inode()
        .rename(old_name, new_dir.inode(), new_name, flags)?;
    if let Some(t) = &target
        && !exchange
    {
        dcache::forget(&new_dir.dentry, t);
    }
    dcache::moved(&old_dir.dentry, &source, &new_dir.dentry, new_name);
    if let Some(t) = &target
        && exchange
    {
        dcache::moved(&new_dir.dentry, t, &old_dir.dentry, old_name);
    }
    notify::renamed(&old_dir.dentry, old_name, &new_dir.dentry, new_name, &source);
    if let Some(t) = &target {
        if exchange {
            notify::renamed(&new_dir.dentry, new_name, &old_dir.dentry, old_name, t);
        } else {
            notify::link_count(t);
            notify::removed(t, seen);
        }
    }
    Ok(())
}
