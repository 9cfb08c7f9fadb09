//! Mounts: what is mounted where. Each mount belongs to one tree of mounts; a mount namespace is such a tree.

pub mod build;
mod change;
mod info;
mod share;

pub use build::build;
pub use change::{bind, copy_tree, detach, drop_tree, expire, graft, pivot, relocate, remount};
pub use info::{MountInfo, flags_text, is_seen, list};
pub use share::{Propagation, Share, propagate_as};

use crate::fs::inode::InodeRef;
use crate::fs::path::{Dentry, Path};
use crate::ns::FIRST_USER;
use crate::ns::user::UserRef;
use crate::sched::wait::{SleepGuard, SleepLock};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// What all mounts of one file system share.
pub struct Super {
    /// No mount of it may be written.
    pub read_only: AtomicBool,
    /// The user namespace it was made in: whose capabilities count over the file system as a whole.
    pub owner: UserRef,
    /// Options as `/proc/mounts` shows them, besides the flags.
    pub options: SpinLock<Vec<u8>>,
}

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
    /// The file system's own state.
    pub sup: Arc<Super>,
    /// MS_* flags.
    pub flags: AtomicU64,
    /// Identity, for `/proc/self/mountinfo`.
    pub id: u32,
    /// How mounts made on it spread. Lock order: after [`Mount::at`], before nothing.
    pub share: SpinLock<Share>,
    /// A more privileged namespace put it there: it stays, with these of its MS_* flags. Source: `mount_namespaces(7)`.
    pub locked: AtomicBool,
    /// Flags that may not be cleared.
    pub locked_flags: AtomicU64,
    /// Number of the user namespace whose mount namespace it is in.
    domain: AtomicU64,
    /// Mounts that stayed when both were unmounted, and where: what a more privileged namespace covered stays covered.
    /// Lock order: before nothing.
    covered: SpinLock<Vec<(Arc<Dentry>, Arc<Mount>)>>,
    /// MNT_EXPIRE was asked once since.
    expiring: AtomicBool,
}

impl Drop for Mount {
    fn drop(&mut self) {
        // One after the other: a deep tree must not recurse.
        let mut all = core::mem::take(&mut *self.covered.lock());
        while let Some((at, mount)) = all.pop() {
            at.mounted.fetch_sub(1, Ordering::AcqRel);
            if let Some(m) = Arc::into_inner(mount) {
                all.append(&mut m.covered.lock());
            }
        }
    }
}

impl Mount {
    /// A mount that is nowhere yet.
    pub fn new(root: Arc<Dentry>, source: &[u8], fstype: &[u8], options: &[u8], flags: u64) -> Arc<Self> {
        Self::owned(root, source, fstype, options, flags, None)
    }
    /// A mount of a file system made in a user namespace, that is nowhere yet.
    pub fn owned(
        root: Arc<Dentry>,
        source: &[u8],
        fstype: &[u8],
        options: &[u8],
        flags: u64,
        owner: UserRef,
    ) -> Arc<Self> {
        let sup = Arc::new(Super {
            read_only: AtomicBool::new(false),
            owner,
            options: SpinLock::new(options.to_vec()),
        });
        Self::over(root, sup, source, fstype, flags)
    }
    fn over(root: Arc<Dentry>, sup: Arc<Super>, source: &[u8], fstype: &[u8], flags: u64) -> Arc<Self> {
        Arc::new(Self {
            root,
            at: SpinLock::new(None),
            source: source.to_vec(),
            fstype: fstype.to_vec(),
            sup,
            flags: AtomicU64::new(flags & MOUNT_FLAGS),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed) as u32,
            share: SpinLock::default(),
            locked: AtomicBool::new(false),
            locked_flags: AtomicU64::new(0),
            domain: AtomicU64::new(FIRST_USER),
            covered: SpinLock::default(),
            expiring: AtomicBool::new(false),
        })
    }
    /// Another view of the same file system.
    fn twin(&self, root: Arc<Dentry>) -> Arc<Self> {
        let flags = self.flags.load(Ordering::Relaxed);
        let twin = Self::over(root, self.sup.clone(), &self.source, &self.fstype, flags);
        let locked = self.locked_flags.load(Ordering::Relaxed);
        twin.locked_flags.store(locked, Ordering::Relaxed);
        twin
    }
    /// Whether nothing can be changed through it.
    pub fn read_only(&self) -> bool {
        self.has(MS_RDONLY) || self.sup.read_only.load(Ordering::Relaxed)
    }
    /// What it is mounted on.
    pub fn parent(&self) -> Option<Arc<Mount>> {
        self.at.lock().as_ref().map(|p| p.mount.clone())
    }
    /// Whether flag `ms` (MS_*) is set.
    pub fn has(&self, ms: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & u64::from(ms) != 0
    }
    /// What stayed mounted on `d` when this was unmounted.
    fn cover_of(&self, d: &Arc<Dentry>) -> Option<Arc<Mount>> {
        let covered = self.covered.lock();
        covered
            .iter()
            .find(|(at, _)| Arc::ptr_eq(at, d))
            .map(|(_, m)| m.clone())
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

/// Held while the trees change in more than one step (the calls that mount and unmount). Lock order: before every lock of
/// the file systems.
static CHANGE: SleepLock<()> = SleepLock::new(());
/// Trees of mount namespaces that are gone, to be unmounted by who holds [`CHANGE`] next.
static DOOMED: SpinLock<Vec<Arc<Mount>>> = SpinLock::new(Vec::new());

/// [`CHANGE`] held.
pub struct Change {
    _held: SleepGuard<'static, ()>,
}

/// Takes [`CHANGE`].
pub fn change() -> Change {
    Change { _held: CHANGE.lock() }
}

impl Drop for Change {
    fn drop(&mut self) {
        loop {
            let Some(t) = DOOMED.lock().pop() else { return };
            drop_tree(&t);
        }
    }
}

/// Unmounts the tree of a mount namespace that is gone: now, or when who is changing mounts has done so.
pub fn doom(top: Arc<Mount>) {
    DOOMED.lock().push(top);
    drop(CHANGE.try_lock().map(|held| Change { _held: held }));
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
            None => match p.mount.cover_of(&p.dentry) {
                Some(m) => p = m.root_path(),
                None => break,
            },
        }
    }
    p
}

/// Whether something is mounted on `d` in the caller's tree of mounts. What others mounted there is no reason to keep it.
pub fn is_mount_point(d: &Arc<Dentry>) -> bool {
    if d.mounted.load(Ordering::Acquire) == 0 {
        return false;
    }
    let Some(top) = crate::ns::current().mnt.top() else {
        return true;
    };
    let all = TABLE.lock().order.clone();
    all.iter().any(|m| {
        let at = m.at.lock().clone();
        at.is_some_and(|p| Arc::ptr_eq(&p.dentry, d) && Arc::ptr_eq(&p.mount.top(), &top))
    })
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

/// Mounts directly on `mount`, in mounting order.
fn children(mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let all = TABLE.lock().order.clone();
    let on = |m: &Arc<Mount>| m.at.lock().as_ref().is_some_and(|p| Arc::ptr_eq(&p.mount, mount));
    all.into_iter().filter(on).collect()
}

/// `mount` and everything mounted below it, parents first.
pub fn subtree(mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let mut all = alloc::vec![mount.clone()];
    let mut i = 0;
    while i < all.len() {
        all.extend(children(&all[i].clone()));
        i += 1;
    }
    all
}

/// What is mounted right at `p`.
fn mounted_at(p: &Path) -> Option<Arc<Mount>> {
    TABLE.lock().by_place.get(&key(p)).cloned()
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
