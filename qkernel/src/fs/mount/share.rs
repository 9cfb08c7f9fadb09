//! Mounts that spread: peer groups and their slaves. Source: `mount_namespaces(7)`, "SHARED SUBTREES"; Linux
//! `Documentation/filesystems/sharedsubtree.rst`.

use super::{Mount, TABLE, attach, children};
use crate::fs::path::Path;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use qlib::Errno;

/// How mounts made on a mount spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Peer group: what is mounted on one is mounted on all. 0: none.
    pub group: u32,
    /// The peer group it is a slave of: it gets their mounts. 0: none.
    pub master: u32,
    /// No bind mount of it can be made.
    pub unbindable: bool,
}

/// A propagation type, as `mount(2)` sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Propagation {
    Shared,
    Slave,
    Private,
    Unbindable,
}

/// A number no peer group has.
fn new_group() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn all() -> Vec<Arc<Mount>> {
    TABLE.lock().order.clone()
}

/// Gives a mount another propagation type.
pub fn propagate_as(m: &Arc<Mount>, kind: Propagation) {
    let old = *m.share.lock();
    match kind {
        Propagation::Shared => {
            let group = if old.group == 0 { new_group() } else { old.group };
            *m.share.lock() = Share {
                group,
                unbindable: false,
                ..old
            };
        }
        Propagation::Slave if old.group == 0 => {}
        Propagation::Slave => {
            let master = if leave(m) { old.group } else { old.master };
            *m.share.lock() = Share {
                master,
                ..Share::default()
            };
        }
        Propagation::Private | Propagation::Unbindable => {
            leave(m);
            *m.share.lock() = Share {
                unbindable: kind == Propagation::Unbindable,
                ..Share::default()
            };
        }
    }
}

/// Takes a mount out of its peer group; tells whether the group has other members. The slaves of a group that has none
/// any more are its master's.
pub(super) fn leave(m: &Arc<Mount>) -> bool {
    let old = {
        let mut s = m.share.lock();
        let old = *s;
        s.group = 0;
        old
    };
    if old.group == 0 {
        return false;
    }
    let others = all();
    if others.iter().any(|o| o.share.lock().group == old.group) {
        return true;
    }
    for o in others {
        let mut s = o.share.lock();
        if s.master == old.group {
            s.master = old.master;
        }
    }
    false
}

/// Makes every private mount of a new tree shared: what is mounted on a shared mount is.
fn share_tree(tree: &[Arc<Mount>]) {
    for m in tree {
        let mut s = m.share.lock();
        if s.group == 0 {
            s.group = new_group();
        }
    }
}

/// A copy of mounts: `from` with its root moved to `root`, and with `deep` what is mounted below. Not mounted anywhere yet.
///
/// # Errors
/// As [`attach`].
pub(super) fn copy_of(
    from: &Arc<Mount>,
    root: &Arc<crate::fs::path::Dentry>,
    deep: bool,
    share: &dyn Fn(&Mount) -> Share,
) -> Result<Vec<(Arc<Mount>, Arc<Mount>)>, Errno> {
    let top = from.twin(root.clone());
    *top.share.lock() = share(from);
    let mut pairs = alloc::vec![(from.clone(), top)];
    let mut i = 0;
    while deep && i < pairs.len() {
        let (old, new) = pairs[i].clone();
        for m in children(&old) {
            let at = m.at.lock().clone();
            let Some(at) = at else { continue };
            let s = share(&m);
            // What cannot be bound stays behind, with what is mounted on it.
            if s.unbindable || !new.root.is_ancestor_of(&at.dentry) {
                continue;
            }
            let copy = m.twin(m.root.clone());
            *copy.share.lock() = s;
            let place = Path {
                mount: new.clone(),
                dentry: at.dentry,
            };
            if let Err(e) = attach(&copy, &place) {
                super::drop_tree(&pairs[0].1);
                return Err(e);
            }
            pairs.push((m, copy));
        }
        i += 1;
    }
    Ok(pairs)
}

/// The mounts that get what is mounted on `parent`: each with the group it belongs to or is a slave of, masters first.
fn receivers(parent: &Arc<Mount>) -> Vec<(Arc<Mount>, u32)> {
    let first = parent.share.lock().group;
    if first == 0 {
        return Vec::new();
    }
    let everyone = all();
    let mut groups = alloc::vec![first];
    let mut found: Vec<(Arc<Mount>, u32)> = Vec::new();
    let mut i = 0;
    while i < groups.len() {
        let g = groups[i];
        for m in &everyone {
            let s = *m.share.lock();
            let known = Arc::ptr_eq(m, parent) || found.iter().any(|(f, _)| Arc::ptr_eq(f, m));
            if known || s.group != g && s.master != g {
                continue;
            }
            if s.group != 0 && !groups.contains(&s.group) {
                groups.push(s.group);
            }
            found.push((m.clone(), g));
        }
        i += 1;
    }
    found
}

/// Mounts copies of `tree`, which was just mounted at `at`, wherever mounts on `at`'s mount spread to.
///
/// # Errors
/// As [`attach`].
pub(super) fn spread(tree: &Arc<Mount>, at: &Path) -> Result<(), Errno> {
    let group = at.mount.share.lock().group;
    if group == 0 {
        return Ok(());
    }
    share_tree(&super::subtree(tree));
    // By group, the tree its members got.
    let mut sources: Vec<(u32, Arc<Mount>)> = alloc::vec![(group, tree.clone())];
    for (m, g) in receivers(&at.mount) {
        if !m.root.is_ancestor_of(&at.dentry) {
            continue;
        }
        let own = m.share.lock().group;
        let find = |g: u32| sources.iter().find(|(n, _)| *n == g).map(|(_, t)| t.clone());
        let (source, as_peer) = match find(own) {
            Some(t) => (t, true),
            None => match find(g) {
                Some(t) => (t, false),
                None => continue,
            },
        };
        let share = |o: &Mount| {
            let s = *o.share.lock();
            if as_peer {
                return s;
            }
            Share {
                group: if own != 0 { new_group() } else { 0 },
                master: s.group,
                unbindable: false,
            }
        };
        let copy = copy_of(&source, &source.root, true, &share)?.swap_remove(0).1;
        let place = Path {
            mount: m.clone(),
            dentry: at.dentry.clone(),
        };
        attach(&copy, &place)?;
        super::change::to_end(&copy);
        let domain = m.domain.load(Ordering::Relaxed);
        let copied = super::subtree(&copy);
        for c in &copied {
            c.domain.store(domain, Ordering::Relaxed);
        }
        if domain != at.mount.domain.load(Ordering::Relaxed) {
            super::change::lock_tree(&copied);
        }
        if !as_peer && own != 0 {
            sources.push((own, copy));
        }
    }
    Ok(())
}

/// What must be unmounted along with a mount at `at`: the mounts its place's receivers got.
pub(super) fn spread_of(at: &Path) -> Vec<Arc<Mount>> {
    let place = |m: Arc<Mount>| Path {
        mount: m,
        dentry: at.dentry.clone(),
    };
    receivers(&at.mount)
        .into_iter()
        .filter_map(|(m, _)| super::mounted_at(&place(m)))
        .collect()
}
