//! Mounts: what is mounted where. Each mount belongs to one tree of mounts; a mount namespace is such a tree.

pub mod build;
mod info;

pub use build::build;
pub use info::{MountInfo, flags_text, list};

use crate::fs::dcache;
use crate::fs::inode::InodeRef;
use crate::fs::path::{Dentry, Path};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::sync::SpinLock;
use hal::uapi::general::{
    MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW, MS_RDONLY, MS_RELATIME,
};
use qlib::Errno;

/// Flags that belong to a mount (and not to the call that makes it).
pub const MOUNT_FLAGS: u64 = (MS_RDONLY
    | MS_NOSUID
    | MS_NODEV
    | MS_NOEXEC
    | MS_NOATIME
    | MS_NODIRATIME
    | MS_RELATIME
    | MS_NOSYMFOLLOW) as u64;

/// Mounts per sandbox, as `/proc/sys/fs/mount-max` shows it.
pub const MOUNT_MAX: usize = 100_000;

/// A mounted file system.
pub struct Mount {
    /// Root dentry of this mount.
    pub root: Arc<Dentry>,
    /// Where it is mounted; `None` for the root of a tree.
    pub at: SpinLock<Option<Path>>,
    /// As `/proc/mounts` shows it.
    pub source: Vec<u8>,
    /// File-system type as `/proc/mounts` shows it.
    pub fstype: Vec<u8>,
    /// Options as `/proc/mounts` shows them, besides the flags.
    pub options: Vec<u8>,
    /// MS_* flags.
    pub flags: AtomicU64,
    /// Identity, for `/proc/self/mountinfo`.
    pub id: u32,
}

impl Mount {
    /// A mount that is nowhere yet.
    pub fn new(root: Arc<Dentry>, source: &[u8], fstype: &[u8], options: &[u8], flags: u64) -> Arc<Self> {
        Arc::new(Self {
            root,
            at: SpinLock::new(None),
            source: source.to_vec(),
            fstype: fstype.to_vec(),
            options: options.to_vec(),
            flags: AtomicU64::new(flags & MOUNT_FLAGS),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed) as u32,
        })
    }
    /// Whether flag `ms` (MS_*) is set.
    pub fn has(&self, ms: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & u64::from(ms) != 0
    }
    /// The mount's root as a place.
    pub fn root_path(self: &Arc<Self>) -> Path {
        Path {
            mount: self.clone(),
            dentry: self.root.clone(),
        }
    }
    /// The root of the tree of mounts.
    pub fn top(self: &Arc<Self>) -> Arc<Mount> {
        let mut here = self.clone();
        loop {
            let at = here.at.lock().clone();
            match at {
                Some(p) => here = p.mount,
                None => return here,
            }
        }
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(20);

struct Table {
    /// By the mount and dentry they are mounted on.
    by_place: BTreeMap<(u32, usize), Arc<Mount>>,
    /// In mounting order.
    order: Vec<Arc<Mount>>,
}

static TABLE: SpinLock<Table> = SpinLock::new(Table {
    by_place: BTreeMap::new(),
    order: Vec::new(),
});

fn key(p: &Path) -> (u32, usize) {
    (p.mount.id, Arc::as_ptr(&p.dentry) as usize)
}

/// Makes a file system's root inode into a mount that is the root of a new tree.
pub fn new_tree(root: InodeRef, source: &[u8], fstype: &[u8], options: &[u8], flags: u64) -> Arc<Mount> {
    let m = Mount::new(Dentry::root(root), source, fstype, options, flags);
    TABLE.lock().order.push(m.clone());
    m
}

/// The place a walk ends at after `p` was found: the root of whatever is mounted there.
pub fn descend(mut p: Path) -> Path {
    while p.dentry.mounted.load(Ordering::Acquire) > 0 {
        let found = TABLE.lock().by_place.get(&key(&p)).cloned();
        match found {
            Some(m) => {
                let dentry = m.root.clone();
                p = Path { mount: m, dentry };
            }
            None => break,
        }
    }
    p
}

/// Mounts `mount` at `at`, over whatever is mounted there.
///
/// # Errors
/// ENOTDIR or EINVAL when only one of them is a directory; ENOSPC at the limit; ENOENT on a removed directory.
pub fn attach(mount: &Arc<Mount>, at: &Path) -> Result<(), Errno> {
    let at = descend(at.clone());
    let dir = |d: &Dentry| d.inode().file_type() == crate::fs::FileType::Directory;
    if dir(&mount.root) != dir(&at.dentry) {
        return Err(Errno::ENOTDIR);
    }
    if at.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    at.dentry.mounted.fetch_add(1, Ordering::AcqRel);
    let old = (*mount.at.lock()).replace(at.clone());
    drop(old);
    let full = {
        let mut t = TABLE.lock();
        if t.order.len() >= MOUNT_MAX {
            true
        } else {
            t.by_place.insert(key(&at), mount.clone());
            t.order.push(mount.clone());
            false
        }
    };
    if full {
        at.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
        let old = mount.at.lock().take();
        drop(old);
        return Err(Errno::ENOSPC);
    }
    Ok(())
}

/// Takes a mount out of the table; its users keep it alive.
fn unhook(mount: &Arc<Mount>) {
    let at = mount.at.lock().clone();
    let removed = {
        let mut t = TABLE.lock();
        let by_place = at.as_ref().and_then(|p| t.by_place.remove(&key(p)));
        let i = t.order.iter().position(|m| Arc::ptr_eq(m, mount));
        (by_place, i.map(|i| t.order.remove(i)))
    };
    if let Some(p) = at {
        p.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
    }
    drop(removed);
}

/// Mounts directly on `mount`.
fn children(mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let all = TABLE.lock().order.clone();
    let on = |m: &Arc<Mount>| m.at.lock().as_ref().is_some_and(|p| Arc::ptr_eq(&p.mount, mount));
    all.into_iter().filter(on).collect()
}

/// The mount whose root `p` is.
///
/// # Errors
/// EINVAL when it is not the root of a mount.
pub fn of_root(p: &Path) -> Result<Arc<Mount>, Errno> {
    if Arc::ptr_eq(&p.dentry, &p.mount.root) {
        Ok(p.mount.clone())
    } else {
        Err(Errno::EINVAL)
    }
}

/// Unmounts what is mounted at `p`. `lazy` takes it (and what is mounted below) out of sight though it is in use.
///
/// # Errors
/// EINVAL when `p` is not the root of a mount or is the root of the tree; EBUSY when it is in use.
pub fn detach(p: Path, lazy: bool) -> Result<(), Errno> {
    let mount = of_root(&p)?;
    drop(p);
    if mount.at.lock().is_none() {
        return Err(Errno::EINVAL);
    }
    let below = children(&mount);
    if !lazy {
        // The table's two references and ours.
        if !below.is_empty() || Arc::strong_count(&mount) > 3 {
            return Err(Errno::EBUSY);
        }
        unhook(&mount);
        dcache::release_below(&mount.root);
        return Ok(());
    }
    for m in below {
        let root = m.root_path();
        detach(root, true)?;
    }
    unhook(&mount);
    dcache::release_below(&mount.root);
    Ok(())
}

/// Moves a mount.
///
/// # Errors
/// EINVAL for the root of a tree, ELOOP into itself; as [`attach`].
pub fn relocate(from: Path, to: &Path) -> Result<(), Errno> {
    let mount = of_root(&from)?;
    drop(from);
    if mount.at.lock().is_none() {
        return Err(Errno::EINVAL);
    }
    let mut here = Some(to.mount.clone());
    while let Some(m) = here {
        if Arc::ptr_eq(&m, &mount) {
            return Err(Errno::ELOOP);
        }
        here = m.at.lock().as_ref().map(|p| p.mount.clone());
    }
    unhook(&mount);
    attach(&mount, to)
}

/// A second view of `from` (a bind mount), not mounted yet. With `recursive` what is mounted below comes along.
///
/// # Errors
/// As [`attach`].
pub fn bind(from: &Path, to: &Path, recursive: bool) -> Result<Arc<Mount>, Errno> {
    let below = if recursive {
        children(&from.mount)
    } else {
        Vec::new()
    };
    let copy = clone_of(&from.mount, from.dentry.clone());
    attach(&copy, to)?;
    for m in below {
        let at = m.at.lock().clone();
        let Some(at) = at else { continue };
        if !from.dentry.is_ancestor_of(&at.dentry) || Arc::ptr_eq(&m, &copy) {
            continue;
        }
        let target = Path {
            mount: copy.clone(),
            dentry: at.dentry,
        };
        bind(&m.root_path(), &target, true)?;
    }
    Ok(copy)
}

fn clone_of(m: &Arc<Mount>, root: Arc<Dentry>) -> Arc<Mount> {
    let flags = m.flags.load(Ordering::Relaxed);
    Mount::new(root, &m.source, &m.fstype, &m.options, flags)
}

/// Copies a whole tree of mounts (unshare of the mount namespace). Returns how a place in the old tree translates.
///
/// # Errors
/// As [`attach`].
pub fn copy_tree(top: &Arc<Mount>) -> Result<impl Fn(&Path) -> Path + use<>, Errno> {
    let mut pairs: Vec<(Arc<Mount>, Arc<Mount>)> = Vec::new();
    let new_top = clone_of(top, top.root.clone());
    TABLE.lock().order.push(new_top.clone());
    pairs.push((top.clone(), new_top));
    let mut i = 0;
    while i < pairs.len() {
        let (old, new) = pairs[i].clone();
        for m in children(&old) {
            let at = m.at.lock().clone();
            let Some(at) = at else { continue };
            let copy = clone_of(&m, m.root.clone());
            let target = Path {
                mount: new.clone(),
                dentry: at.dentry,
            };
            attach(&copy, &target)?;
            pairs.push((m, copy));
        }
        i += 1;
    }
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
/// EINVAL when `new_root` is not the root of a mount or `put_old` is not below it.
pub fn pivot(old_root: &Path, new_root: &Path, put_old: &Path) -> Result<(), Errno> {
    let new = of_root(new_root)?;
    let old = of_root(old_root)?;
    if Arc::ptr_eq(&new, &old) || Arc::ptr_eq(&put_old.mount, &old) {
        return Err(Errno::EBUSY);
    }
    if !put_old.relative_to(new_root).1 || new.at.lock().is_none() {
        return Err(Errno::EINVAL);
    }
    let at_old = old.at.lock().clone();
    unhook(&new);
    let gone = new.at.lock().take();
    drop(gone);
    unhook(&old);
    match at_old {
        Some(p) => attach(&new, &p)?,
        None => TABLE.lock().order.push(new.clone()),
    }
    attach(&old, put_old)
}

/// Forgets a whole tree (the container is gone).
pub fn drop_tree(top: &Arc<Mount>) {
    for m in children(top) {
        drop_tree(&m);
    }
    unhook(top);
    dcache::release_below(&top.root);
}
