//! What `/proc/self/mounts` and `mountinfo` tell.

use super::{Mount, Share, TABLE};
use crate::fs::path::Path;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::uapi::general::{
    MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW, MS_RDONLY, MS_RELATIME,
};

/// One mount as a process with some root sees it.
#[derive(Clone, Debug)]
pub struct MountInfo {
    /// Identity.
    pub id: u32,
    /// Identity of the mount it is mounted on; its own for the root.
    pub parent: u32,
    /// Device of the file system.
    pub dev: u64,
    /// Which part of the file system is mounted.
    pub root: Vec<u8>,
    /// Where.
    pub point: Vec<u8>,
    /// MS_* flags.
    pub flags: u64,
    /// Type.
    pub fstype: Vec<u8>,
    /// Source.
    pub source: Vec<u8>,
    /// The file system as a whole is read-only.
    pub super_read_only: bool,
    /// How mounts made on it spread.
    pub share: Share,
    /// Options besides the flags.
    pub options: Vec<u8>,
}

/// Whether a file system of the type is to be seen in the tree at `top` as a whole and with these flags. Who rules over a user
/// namespace only may mount it again only then: it shows nothing new. Source: Linux `mnt_already_visible`.
pub fn is_seen(top: &Arc<Mount>, fstype: &[u8], flags: u64) -> bool {
    const ATIME: u64 = (MS_NOATIME | MS_NODIRATIME | MS_RELATIME) as u64;
    let all = super::subtree(top);
    let covers = |c: &Arc<Mount>, m: &Arc<Mount>| {
        c.locked.load(Ordering::Relaxed) && c.parent().is_some_and(|p| Arc::ptr_eq(&p, m))
    };
    all.iter()
        .filter(|m| m.fstype == fstype && m.root.parent().is_none())
        .any(|m| {
            let locked = m.locked_flags.load(Ordering::Relaxed);
            let read_only = locked & u64::from(MS_RDONLY) & !flags == 0;
            let atime = locked & ATIME == 0 || locked & ATIME == flags & ATIME;
            read_only && atime && !all.iter().any(|c| covers(c, m))
        })
}

/// The flags as mount options: `rw,nosuid,…`.
pub fn flags_text(flags: u64) -> Vec<u8> {
    let mut out = if flags & u64::from(MS_RDONLY) != 0 {
        b"ro".to_vec()
    } else {
        b"rw".to_vec()
    };
    for (bit, name) in [
        (MS_NOSUID, ",nosuid"),
        (MS_NODEV, ",nodev"),
        (MS_NOEXEC, ",noexec"),
        (MS_NOATIME, ",noatime"),
        (MS_NODIRATIME, ",nodiratime"),
        (MS_RELATIME, ",relatime"),
        (MS_NOSYMFOLLOW, ",nosymfollow"),
    ] {
        if flags & u64::from(bit) != 0 {
            out.extend_from_slice(name.as_bytes());
        }
    }
    out
}

/// Mounts that can be reached from `root`, in mounting order. Calls the file systems: no lock may be held.
pub fn list(root: &Path) -> Vec<MountInfo> {
    let all: Vec<Arc<Mount>> = TABLE.lock().order.clone();
    let mut out = Vec::new();
    for m in all {
        let at = m.at.lock().clone();
        let (point, below) = m.root_path().relative_to(root);
        if !below {
            continue;
        }
        let fs_root = Path {
            mount: m.clone(),
            dentry: m.root.clone(),
        };
        out.push(MountInfo {
            id: m.id,
            parent: at.map_or(m.id, |p| p.mount.id),
            dev: m.root.inode().id().dev,
            root: dentry_path(&fs_root),
            point,
            flags: m.flags.load(Ordering::Relaxed),
            fstype: m.fstype.clone(),
            source: m.source.clone(),
            super_read_only: m.sup.read_only.load(Ordering::Relaxed),
            share: *m.share.lock(),
            options: m.sup.options.lock().clone(),
        });
    }
    out
}

/// The path of a dentry in its own file system.
fn dentry_path(p: &Path) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut d = p.dentry.clone();
    while let Some(up) = d.parent() {
        parts.push(d.name());
        d = up;
    }
    let mut out = Vec::new();
    for name in parts.iter().rev() {
        out.push(b'/');
        out.extend_from_slice(name);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}
