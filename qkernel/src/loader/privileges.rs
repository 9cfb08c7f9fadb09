//! What a program is given by its file: set-user-ID, set-group-ID, capabilities. Source: `execve(2)`, `capabilities(7)`
//! (transformation of capabilities), Linux `security/commoncap.c`.

use crate::fs::attr::Object;
use crate::fs::file::File;
use crate::fs::mount_flags::NOSUID;
use crate::fs::path::Path;
use crate::ns::user::{self, Kind};
use crate::task::Task;
use crate::task::creds::{Creds, cap, securebit};
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::Errno;

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o010;

/// The capabilities in a file's attribute `security.capability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCaps {
    permitted: u64,
    inheritable: u64,
    effective: bool,
    /// They count only below the namespace whose root this user is.
    root: Option<u32>,
}

impl FileCaps {
    /// Name of the attribute.
    pub const NAME: &[u8] = b"security.capability";
    /// Bytes of the second and the third version.
    const LEN_2: usize = 20;
    const LEN_3: usize = 24;

    /// Checks a value that an app writes: the first version is only read.
    ///
    /// # Errors
    /// EINVAL.
    pub fn check(value: &[u8]) -> Result<(), Errno> {
        Self::parse(value)?;
        if value.len() < Self::LEN_2 {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
    /// Makes of a value what the first user namespace sees: where its root is meant it is the second version.
    pub fn show(value: &mut Vec<u8>) {
        if value.len() == Self::LEN_3 && value.ends_with(&[0; 4]) {
            value.truncate(Self::LEN_2);
            value[3] = 2;
        }
    }
    /// Reads the attribute (`struct vfs_cap_data`, `struct vfs_ns_cap_data`).
    ///
    /// # Errors
    /// EINVAL for what is none of the known versions.
    pub fn parse(value: &[u8]) -> Result<Self, Errno> {
        const EFFECTIVE: u32 = 1;
        let (words, rest) = value.as_chunks::<4>();
        let word = |i: usize| words.get(i).map_or(0, |w| u32::from_le_bytes(*w));
        let both =
            |i: usize, wide: bool| u64::from(word(i)) | if wide { u64::from(word(i + 2)) << 32 } else { 0 };
        let (len, wide) = match word(0) >> 24 {
            1 => (3, false),
            2 => (5, true),
            3 => (6, true),
            _ => return Err(Errno::EINVAL),
        };
        if words.len() != len || !rest.is_empty() {
            return Err(Errno::EINVAL);
        }
        let known = (1 << (cap::LAST + 1)) - 1;
        Ok(Self {
            permitted: both(1, wide) & known,
            inheritable: both(2, wide) & known,
            effective: word(0) & EFFECTIVE != 0,
            root: (len == 6).then(|| word(5)),
        })
    }
    /// The attribute of an open file that counts for `creds`.
    fn of(file: &File, creds: &Creds) -> Result<Option<Self>, Errno> {
        let Ok(object) = Object::of(file) else {
            return Ok(None);
        };
        let value = match object.inode.get_xattr(Self::NAME) {
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => return Ok(None),
            v => v?,
        };
        let caps = Self::parse(&value)?;
        let counts = caps
            .root
            .is_none_or(|root| user::is_root_above(&creds.user, root));
        Ok(counts.then_some(caps))
    }
}

/// Whether somebody traces the task who has no right to what the program would get.
fn meddled_with(task: &Task, creds: &Creds) -> bool {
    let tracer = task.trace.lock().tracer.clone();
    let Some(tracer) = tracer.and_then(|w| w.upgrade()) else {
        return false;
    };
    let who = tracer.tasks.lock().first().map(|t| t.creds());
    !who.is_some_and(|w| w.capable_in(&creds.user, cap::SYS_PTRACE))
}

/// What an exec makes of a task's rights.
pub struct Privileges {
    /// The credentials.
    pub creds: Arc<Creds>,
    /// The program must not trust its environment (AT_SECURE).
    pub secure: bool,
    /// The process may be looked into by its user (`PR_GET_DUMPABLE`).
    pub dumpable: bool,
}

/// The rights of a task after it executed `file`.
///
/// # Errors
/// EPERM when the file says that it needs capabilities which it cannot get; EINVAL for a broken attribute; as `fstat(2)`.
pub fn after_exec(task: &Task, file: &File) -> Result<Privileges, Errno> {
    let stat = file.ops().stat(file)?;
    let old = task.creds();
    let mut new = (*old).clone();
    // What somebody mounted in a namespace of their own gives nobody else rights.
    let top = task.namespaces().mnt.top();
    let here = file
        .path()
        .zip(top)
        .is_some_and(|(p, t)| Arc::ptr_eq(&p.mount.top(), &t));
    let trusted = here && file.path().map_or(0, Path::mount_flags) & NOSUID == 0;
    let known = user::mapped(&new.user, Kind::Uid, stat.uid) && user::mapped(&new.user, Kind::Gid, stat.gid);
    if trusted && known && !old.no_new_privs {
        if stat.mode & S_ISUID != 0 {
            new.euid = stat.uid;
        }
        if stat.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP {
            new.egid = stat.gid;
        }
    }
    let caps = if trusted { FileCaps::of(file, &new)? } else { None };
    let secure = transform(&old, &mut new, caps, meddled_with(task, &old))?;
    let readable = old.may_access(stat.mode, stat.uid, stat.gid, 4);
    let dumpable = readable && new.euid == new.uid && new.egid == new.gid && !new.gains_over(&old);
    Ok(Privileges {
        creds: Arc::new(new),
        secure,
        dumpable,
    })
}

/// Works out the capabilities; effective user and group are in `new` already. Returns whether the program must not trust its
/// environment.
fn transform(old: &Creds, new: &mut Creds, file: Option<FileCaps>, meddled: bool) -> Result<bool, Errno> {
    let mut effective = file.is_some_and(|f| f.effective);
    new.caps.permitted = file.map_or(0, |f| {
        new.caps.bounding & f.permitted | new.caps.inheritable & f.inheritable
    });
    if let Some(f) = file
        && f.effective
        && f.permitted & !new.caps.permitted != 0
    {
        return Err(Errno::EPERM);
    }
    let zero = new.root();
    let is_zero = |uid: u32| Some(uid) == zero;
    // A set-user-ID-root program with capabilities of its own gets those, and not root's.
    let own = file.is_some() && !is_zero(new.uid) && is_zero(new.euid);
    if new.securebits & securebit::NOROOT == 0 && !own && (is_zero(new.euid) || is_zero(new.uid)) {
        new.caps.permitted = new.caps.bounding | new.caps.inheritable;
        effective |= is_zero(new.euid);
    }
    let changed = |new: &Creds| new.euid != old.euid || !old.in_egroup(new.egid);
    let gained = new.caps.permitted & !old.caps.permitted != 0;
    if (changed(new) || gained) && (old.no_new_privs || meddled) {
        if !new.has(cap::SETUID) || old.no_new_privs {
            new.euid = new.uid;
            new.egid = new.gid;
        }
        new.caps.permitted &= old.caps.permitted;
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    let changed = changed(new);
    if file.is_some() || changed {
        new.caps.ambient = 0;
    }
    new.caps.permitted |= new.caps.ambient;
    new.caps.effective = if effective {
        new.caps.permitted
    } else {
        new.caps.ambient
    };
    new.securebits &= !securebit::KEEP_CAPS;
    let grown = new.caps.permitted & !new.caps.ambient != 0;
    Ok(changed || new.euid != old.uid || new.egid != old.gid || !is_zero(new.uid) && (effective || grown))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET_RAW: u64 = 1 << cap::NET_RAW;
    const CHOWN: u64 = 1 << cap::CHOWN;

    fn user(uid: u32) -> Creds {
        let mut c = Creds {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            ..Creds::default()
        };
        c.caps.bounding = NET_RAW | CHOWN;
        c
    }

    fn ping(effective: bool) -> FileCaps {
        FileCaps {
            permitted: NET_RAW,
            inheritable: 0,
            effective,
            root: None,
        }
    }

    fn run(old: &Creds, file: Option<FileCaps>) -> (Creds, bool) {
        let mut new = old.clone();
        let secure = transform(old, &mut new, file, false).unwrap();
        (new, secure)
    }

    #[test]
    fn the_attribute_is_read_in_each_version() {
        let words = |w: &[u32]| -> Vec<u8> { w.iter().flat_map(|w| w.to_le_bytes()).collect() };
        let two = FileCaps::parse(&words(&[0x0200_0001, 1 << 13, 2, 1, 0])).unwrap();
        assert_eq!((two.permitted, two.inheritable), (1 << 13 | 1 << 32, 2));
        assert!(two.effective && two.root.is_none());
        let three = FileCaps::parse(&words(&[0x0300_0000, 1, 0, 0, 0, 1000])).unwrap();
        assert!(!three.effective && three.root == Some(1000));
        assert_eq!(
            FileCaps::parse(&words(&[0x0100_0000, 1, 2])).unwrap().inheritable,
            2
        );
        for broken in [&[0x0200_0000, 1, 2][..], &[0x0400_0000, 1, 2, 3, 4], &[]] {
            assert_eq!(FileCaps::parse(&words(broken)), Err(Errno::EINVAL));
        }
        assert_eq!(FileCaps::parse(&[0, 0, 0, 2, 1]), Err(Errno::EINVAL));
    }

    #[test]
    fn a_file_gives_what_is_in_bounds() {
        let (c, secure) = run(&user(1000), Some(ping(true)));
        assert_eq!(
            (c.caps.permitted, c.caps.effective, secure),
            (NET_RAW, NET_RAW, true)
        );
        let (c, secure) = run(&user(1000), Some(ping(false)));
        assert_eq!((c.caps.permitted, c.caps.effective, secure), (NET_RAW, 0, true));
        let mut bound = user(1000);
        bound.caps.bounding = CHOWN;
        let mut new = bound.clone();
        assert_eq!(
            transform(&bound, &mut new, Some(ping(true)), false),
            Err(Errno::EPERM)
        );
        let (c, _) = run(&bound, Some(ping(false)));
        assert_eq!(c.caps.permitted, 0);
    }

    #[test]
    fn no_new_rights_means_none() {
        let mut old = user(1000);
        old.no_new_privs = true;
        let (c, _) = run(&old, Some(ping(true)));
        assert_eq!((c.caps.permitted, c.caps.effective), (0, 0));
    }

    #[test]
    fn ambient_capabilities_stay_unless_the_file_has_its_own() {
        let mut old = user(1000);
        old.caps.permitted = CHOWN;
        old.caps.inheritable = CHOWN;
        old.caps.ambient = CHOWN;
        let (c, secure) = run(&old, None);
        assert_eq!(
            (c.caps.permitted, c.caps.effective, secure),
            (CHOWN, CHOWN, false)
        );
        let (c, _) = run(&old, Some(ping(true)));
        assert_eq!((c.caps.permitted, c.caps.ambient), (NET_RAW, 0));
    }

    #[test]
    fn root_gets_all_unless_told_otherwise() {
        let (c, secure) = run(&user(0), None);
        assert_eq!((c.caps.effective, secure), (NET_RAW | CHOWN, false));
        let mut plain = user(0);
        plain.securebits = securebit::NOROOT;
        assert_eq!(run(&plain, None).0.caps.permitted, 0);
        // Set-user-ID root with capabilities of its own.
        let old = user(1000);
        let mut new = old.clone();
        new.euid = 0;
        assert_eq!(transform(&old, &mut new, Some(ping(true)), false), Ok(true));
        assert_eq!(new.caps.permitted, NET_RAW);
    }
}
