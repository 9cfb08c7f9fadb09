//! User namespaces: numbers of users and groups, and what capabilities reach. Source: `user_namespaces(7)`, Linux
//! `kernel/user_namespace.c`. Inside the kernel every user and group has the number of the first namespace; numbers are
//! translated where an app gives or gets them.

use super::Id;
use crate::task::creds::{Creds, cap};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::sync::SpinLock;
use qlib::Errno;

/// What a number without a place in the namespace is shown as.
pub const OVERFLOW: u32 = 65534;
/// Deepest nesting.
const MAX_LEVEL: u32 = 32;
/// Most lines of a map.
const MAX_EXTENTS: usize = 340;

/// A user namespace; `None` is the first one, where every number means itself.
pub type UserRef = Option<Arc<UserNs>>;

/// A run of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First number inside.
    pub inside: u32,
    /// First number in the first namespace.
    pub kernel: u32,
    /// How many.
    pub count: u32,
}

/// A user namespace that an app made.
pub struct UserNs {
    /// Its number.
    pub id: Id,
    /// The one it was made in.
    pub parent: UserRef,
    level: u32,
    /// Who made it.
    pub owner: u32,
    /// The maker could write file capabilities.
    owner_had_setfcap: bool,
    uids: SpinLock<Vec<Extent>>,
    gids: SpinLock<Vec<Extent>>,
    setgroups: AtomicBool,
}

/// Which of the two maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Users.
    Uid,
    /// Groups.
    Gid,
}

fn within(at: u32, start: u32, count: u32) -> Option<u32> {
    at.checked_sub(start).filter(|d| *d < count)
}

/// Whether both are the same namespace.
pub fn same(a: &UserRef, b: &UserRef) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// Number of a namespace.
pub fn id_of(ns: &UserRef) -> u64 {
    ns.as_ref().map_or(super::FIRST_USER, |n| n.id.0)
}

impl fmt::Debug for UserNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user:[{}]", self.id.0)
    }
}

impl UserNs {
    /// Makes a namespace for `creds`.
    ///
    /// # Errors
    /// ENOSPC when nested too deep; EPERM when the maker has no number in its own.
    pub fn create(creds: &Creds) -> Result<Arc<Self>, Errno> {
        let level = creds.user.as_ref().map_or(0, |n| n.level) + 1;
        if level > MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        if !mapped(&creds.user, Kind::Uid, creds.euid) || !mapped(&creds.user, Kind::Gid, creds.egid) {
            return Err(Errno::EPERM);
        }
        Ok(Arc::new(Self {
            id: Id::new(),
            parent: creds.user.clone(),
            level,
            owner: creds.euid,
            owner_had_setfcap: creds.has(cap::SETFCAP),
            uids: SpinLock::default(),
            gids: SpinLock::default(),
            setgroups: AtomicBool::new(creds.user.as_ref().is_none_or(|n| n.may_setgroups())),
        }))
    }
    fn map(&self, kind: Kind) -> &SpinLock<Vec<Extent>> {
        match kind {
            Kind::Uid => &self.uids,
            Kind::Gid => &self.gids,
        }
    }
    /// Whether `setgroups` was not denied.
    pub fn may_setgroups(&self) -> bool {
        self.setgroups.load(Ordering::Relaxed)
    }
    /// Whether there is a map of groups.
    pub fn has_groups(&self) -> bool {
        !self.gids.lock().is_empty()
    }
    /// What a `setgroups` file is written.
    ///
    /// # Errors
    /// EPERM once there is a map of groups, or once it was denied; EINVAL.
    pub fn write_setgroups(&self, text: &[u8]) -> Result<(), Errno> {
        match text.trim_ascii_end() {
            b"allow" if self.may_setgroups() => Ok(()),
            b"allow" => Err(Errno::EPERM),
            b"deny" => {
                let gids = self.gids.lock();
                if !gids.is_empty() {
                    return Err(Errno::EPERM);
                }
                self.setgroups.store(false, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }
    /// Sets a map, once. `opener` opened the file: a privileged program that was only talked into writing to it lends it
    /// nothing.
    ///
    /// # Errors
    /// EPERM when it is set, or one of both may not; EINVAL for a bad text.
    pub fn write_map(
        self: &Arc<Self>,
        kind: Kind,
        text: &[u8],
        opener: &Creds,
        writer: &Creds,
    ) -> Result<(), Errno> {
        let me = Some(self.clone());
        if !same(&opener.user, &me) && !same(&opener.user, &self.parent) {
            return Err(Errno::EPERM);
        }
        if !self.map(kind).lock().is_empty() || !opener.capable_in(&me, cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let lines = parse(text)?;
        self.permitted(kind, &lines, opener, writer)?;
        let mut map = Vec::new();
        for (inside, outside, count) in lines {
            let kernel = range_in(&self.parent, kind, outside, count).ok_or(Errno::EPERM)?;
            map.push(Extent {
                inside,
                kernel,
                count,
            });
        }
        let mut slot = self.map(kind).lock();
        if !slot.is_empty() {
            return Err(Errno::EPERM);
        }
        *slot = map;
        Ok(())
    }
    fn permitted(
        self: &Arc<Self>,
        kind: Kind,
        lines: &[(u32, u32, u32)],
        opener: &Creds,
        writer: &Creds,
    ) -> Result<(), Errno> {
        // Who maps the parent's root could write file capabilities that count there.
        let root = kind == Kind::Uid && lines.iter().any(|l| within(0, l.1, l.2).is_some());
        let in_parent = same(&opener.user, &self.parent);
        let setfcap = if in_parent {
            opener.capable_in(&self.parent, cap::SETFCAP)
        } else {
            self.owner_had_setfcap
        };
        if root && !setfcap {
            return Err(Errno::EPERM);
        }
        if let [(_, outside, 1)] = lines
            && opener.euid == self.owner
        {
            let target = to_kernel(&self.parent, kind, *outside);
            let own = match kind {
                Kind::Uid => target == Some(opener.euid),
                Kind::Gid => !self.may_setgroups() && target == Some(opener.egid),
            };
            if own {
                return Ok(());
            }
        }
        let needed = match kind {
            Kind::Uid => cap::SETUID,
            Kind::Gid => cap::SETGID,
        };
        if writer.capable_in(&self.parent, needed) && opener.capable_in(&self.parent, needed) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}

/// The lines of a map: inside, outside, count.
fn parse(text: &[u8]) -> Result<Vec<(u32, u32, u32)>, Errno> {
    if text.len() >= 4096 {
        return Err(Errno::EINVAL);
    }
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    let mut all: Vec<(u32, u32, u32)> = Vec::new();
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        let mut words = line.split_ascii_whitespace().map(|w| w.parse::<u32>());
        let mut next = || words.next().and_then(Result::ok).ok_or(Errno::EINVAL);
        let (inside, outside, count) = (next()?, next()?, next()?);
        let fits = |start: u32| start.checked_add(count).is_some_and(|_| start != u32::MAX);
        if words.next().is_some() || count == 0 || !fits(inside) || !fits(outside) {
            return Err(Errno::EINVAL);
        }
        let touches = |a: u32, b: u32, n: u32| within(a, b, n).is_some() || within(b, a, count).is_some();
        if all
            .iter()
            .any(|l| touches(inside, l.0, l.2) || touches(outside, l.1, l.2))
        {
            return Err(Errno::EINVAL);
        }
        all.push((inside, outside, count));
    }
    if all.is_empty() || all.len() > MAX_EXTENTS {
        return Err(Errno::EINVAL);
    }
    Ok(all)
}

/// The number in the first namespace of a whole run.
fn range_in(ns: &UserRef, kind: Kind, first: u32, count: u32) -> Option<u32> {
    let Some(ns) = ns else { return Some(first) };
    let map = ns.map(kind).lock();
    map.iter().find_map(|e| {
        let d = within(first, e.inside, e.count)?;
        (count <= e.count - d).then(|| e.kernel + d)
    })
}

/// The number in the first namespace.
pub fn to_kernel(ns: &UserRef, kind: Kind, number: u32) -> Option<u32> {
    match ns {
        None => Some(number),
        Some(_) => range_in(ns, kind, number, 1),
    }
}

/// The number inside, if it has one.
pub fn from_kernel(ns: &UserRef, kind: Kind, number: u32) -> Option<u32> {
    let Some(ns) = ns else { return Some(number) };
    let map = ns.map(kind).lock();
    map.iter()
        .find_map(|e| within(number, e.kernel, e.count).map(|d| e.inside + d))
}

/// The number inside, or [`OVERFLOW`].
pub fn shown(ns: &UserRef, kind: Kind, number: u32) -> u32 {
    match ns {
        None => number,
        Some(_) => from_kernel(ns, kind, number).unwrap_or(OVERFLOW),
    }
}

/// Whether the number has one inside.
pub fn mapped(ns: &UserRef, kind: Kind, number: u32) -> bool {
    ns.is_none() || from_kernel(ns, kind, number).is_some()
}

/// The map as `/proc/PID/uid_map` shows it to a reader in `reader`.
pub fn extents(ns: &UserRef, kind: Kind, reader: &UserRef) -> Vec<Extent> {
    let Some(n) = ns else {
        return alloc::vec![Extent {
            inside: 0,
            kernel: 0,
            count: u32::MAX,
        }];
    };
    // Its own members see the numbers of the namespace above.
    let view = if same(ns, reader) { &n.parent } else { reader };
    let map = n.map(kind).lock().clone();
    map.into_iter()
        .map(|e| Extent {
            kernel: from_kernel(view, kind, e.kernel).unwrap_or(u32::MAX),
            ..e
        })
        .collect()
}

/// Whether `creds` has `capability` over what belongs to `target`. Source: Linux `cap_capable`.
pub fn capable_in(creds: &Creds, target: &UserRef, capability: u32) -> bool {
    let mut ns = target.clone();
    loop {
        if same(&ns, &creds.user) {
            return creds.has(capability);
        }
        let Some(n) = ns else { return false };
        // Who made a namespace has every capability over it, from the one above.
        if same(&n.parent, &creds.user) && n.owner == creds.euid {
            return true;
        }
        ns = n.parent.clone();
    }
}

/// Whether user `uid` is the root of `ns` or of one above it.
pub fn is_root_above(ns: &UserRef, uid: u32) -> bool {
    let mut ns = ns.clone();
    loop {
        if to_kernel(&ns, Kind::Uid, 0) == Some(uid) {
            return true;
        }
        let Some(n) = ns else { return false };
        ns = n.parent.clone();
    }
}

/// The credentials of a task that enters `ns`: all capabilities in it.
pub fn enter(creds: &mut Creds, ns: UserRef) {
    let all = (1u64 << (cap::LAST + 1)) - 1;
    creds.user = ns;
    creds.securebits = 0;
    creds.caps.inheritable = 0;
    creds.caps.permitted = all;
    creds.caps.effective = all;
    creds.caps.bounding = all;
    creds.caps.ambient = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> Creds {
        Creds {
            uid,
            euid: uid,
            egid: uid,
            ..Creds::default()
        }
    }

    #[test]
    fn one_may_map_oneself_only() {
        let maker = user(1000);
        let ns = UserNs::create(&maker).unwrap();
        let me = Some(ns.clone());
        let mut inside = user(1000);
        enter(&mut inside, me.clone());
        assert_eq!(
            ns.write_map(Kind::Uid, b"0 1001 1", &inside, &inside),
            Err(Errno::EPERM)
        );
        assert_eq!(
            ns.write_map(Kind::Uid, b"0 1000 2", &inside, &inside),
            Err(Errno::EPERM)
        );
        assert_eq!(
            ns.write_map(Kind::Uid, b"0 1000", &inside, &inside),
            Err(Errno::EINVAL)
        );
        assert_eq!(ns.write_map(Kind::Uid, b"0 1000 1\n", &inside, &inside), Ok(()));
        assert_eq!(
            ns.write_map(Kind::Uid, b"0 1000 1\n", &inside, &inside),
            Err(Errno::EPERM)
        );
        assert_eq!(
            ns.write_map(Kind::Gid, b"0 1000 1\n", &inside, &inside),
            Err(Errno::EPERM)
        );
        assert_eq!(ns.write_setgroups(b"deny\n"), Ok(()));
        assert_eq!(ns.write_map(Kind::Gid, b"0 1000 1\n", &inside, &inside), Ok(()));
        assert_eq!(ns.write_setgroups(b"allow"), Err(Errno::EPERM));
        assert_eq!(shown(&me, Kind::Uid, 1000), 0);
        assert_eq!(shown(&me, Kind::Uid, 0), OVERFLOW);
        assert_eq!(to_kernel(&me, Kind::Uid, 0), Some(1000));
        assert_eq!(to_kernel(&me, Kind::Uid, 1), None);
    }

    #[test]
    fn a_privileged_writer_lends_the_opener_nothing() {
        let maker = user(1000);
        let ns = UserNs::create(&maker).unwrap();
        let mut root = user(0);
        root.caps.effective = u64::MAX;
        let write = |opener: &Creds, writer: &Creds| ns.write_map(Kind::Uid, b"0 0 1\n", opener, writer);
        assert_eq!(write(&maker, &root), Err(Errno::EPERM));
        assert_eq!(write(&root, &maker), Err(Errno::EPERM));
        assert_eq!(write(&root, &root), Ok(()));
    }

    #[test]
    fn capabilities_reach_down_only() {
        let maker = user(1000);
        let ns = Some(UserNs::create(&maker).unwrap());
        let mut inside = user(1000);
        enter(&mut inside, ns.clone());
        assert!(inside.capable_in(&ns, cap::SYS_ADMIN));
        assert!(!inside.capable_in(&None, cap::SYS_ADMIN));
        assert!(!inside.capable(cap::SYS_ADMIN));
        assert!(maker.capable_in(&ns, cap::SYS_ADMIN));
        assert!(!user(1001).capable_in(&ns, cap::SYS_ADMIN));
    }

    #[test]
    fn maps_nest_and_do_not_overlap() {
        let mut root = user(0);
        root.caps.effective = u64::MAX;
        let ns = UserNs::create(&root).unwrap();
        assert_eq!(
            ns.write_map(Kind::Uid, b"0 1000 10\n5 2000 10\n", &root, &root),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            ns.write_map(Kind::Uid, b"0 1000 10\n10 2000 10\n", &root, &root),
            Ok(())
        );
        assert_eq!(ns.write_map(Kind::Gid, b"0 1000 10\n", &root, &root), Ok(()));
        let mut inside = user(1000);
        enter(&mut inside, Some(ns.clone()));
        let deeper = UserNs::create(&inside).unwrap();
        assert_eq!(
            deeper.write_map(Kind::Uid, b"100 8 4\n", &inside, &inside),
            Err(Errno::EPERM)
        );
        assert_eq!(
            deeper.write_map(Kind::Uid, b"100 12 4\n", &inside, &inside),
            Ok(())
        );
        assert_eq!(to_kernel(&Some(deeper), Kind::Uid, 103), Some(2005));
    }
}
