//! Changes of mode, owner, times and length, with their permission checks. Source: `chmod(2)`, `chown(2)`,
//! `utimensat(2)`, `truncate(2)`, Linux `fs/attr.c`.

use crate::fs::inode::{FileType, InodeRef, SetAttr};
use crate::fs::notify::{self, mask};
use crate::fs::path::Path;
use crate::fs::walk::{check, writable};
use crate::task::creds::{Creds, cap};
use hal::uapi::general::{UTIME_NOW, UTIME_OMIT};
use qlib::Errno;

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;

/// An inode and, when it has one, its place (for read-only mounts and events).
pub struct Object {
    /// The inode.
    pub inode: InodeRef,
    /// The place.
    pub path: Option<Path>,
}

impl Object {
    /// The object at a place.
    pub fn at(path: Path) -> Self {
        Self {
            inode: path.inode().clone(),
            path: Some(path),
        }
    }
    /// The object of an open file.
    ///
    /// # Errors
    /// EBADF for files without an inode.
    pub fn of(file: &crate::fs::File) -> Result<Self, Errno> {
        Ok(Self {
            inode: file.inode().ok_or(Errno::EBADF)?,
            path: file.path().cloned(),
        })
    }
    /// Fails on a read-only mount.
    ///
    /// # Errors
    /// EROFS.
    pub fn writable(&self) -> Result<(), Errno> {
        match &self.path {
            Some(p) => writable(&p.mount),
            None => Ok(()),
        }
    }
    fn changed(&self) {
        if let Some(p) = &self.path {
            notify::object(&p.dentry, mask::ATTRIB);
        }
    }
}

/// Sets permission bits.
///
/// # Errors
/// EPERM when neither owner nor CAP_FOWNER; EROFS; EOPNOTSUPP for a symlink.
pub fn chmod(o: &Object, mode: u32, creds: &Creds) -> Result<(), Errno> {
    o.writable()?;
    if o.inode.file_type() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let attr = o.inode.attr()?;
    if attr.uid != creds.fsuid && !creds.capable_over(attr.uid, attr.gid, cap::FOWNER) {
        return Err(Errno::EPERM);
    }
    let mut mode = mode & 0o7777;
    if !creds.in_group(attr.gid) && !creds.capable_over(attr.uid, attr.gid, cap::FSETID) {
        mode &= !S_ISGID;
    }
    o.inode.set_attr(&SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    })?;
    o.changed();
    Ok(())
}

/// Sets owner and group; `None` keeps.
///
/// # Errors
/// EPERM, EROFS.
pub fn chown(o: &Object, uid: Option<u32>, gid: Option<u32>, creds: &Creds) -> Result<(), Errno> {
    o.writable()?;
    let attr = o.inode.attr()?;
    let owner = attr.uid == creds.fsuid;
    let privileged = creds.capable_over(attr.uid, attr.gid, cap::CHOWN);
    if let Some(u) = uid
        && !(privileged || owner && u == attr.uid)
    {
        return Err(Errno::EPERM);
    }
    if let Some(g) = gid
        && !(privileged || owner && (creds.in_group(g) || g == attr.gid))
    {
        return Err(Errno::EPERM);
    }
    // This drops set-user-ID, and set-group-ID of an executable, even where nothing changes.
    let mut mode = None;
    if attr.mode & 0o170_000 != 0o040_000 {
        let mut drop_bits = attr.mode & S_ISUID;
        if attr.mode & 0o010 != 0 {
            drop_bits |= attr.mode & S_ISGID;
        }
        if drop_bits != 0 {
            mode = Some(attr.mode & 0o7777 & !drop_bits);
        }
    }
    if uid.is_some() || gid.is_some() || mode.is_some() {
        o.inode.set_attr(&SetAttr {
            uid,
            gid,
            mode,
            ..SetAttr::default()
        })?;
    }
    o.changed();
    Ok(())
}

/// Sets times: (seconds, nanoseconds or UTIME_*); `None` = both now.
///
/// # Errors
/// EPERM, EACCES, EROFS, EINVAL.
pub fn set_times(o: &Object, times: Option<[(i64, i64); 2]>, creds: &Creds) -> Result<(), Errno> {
    let now = (0, i64::from(UTIME_NOW));
    let times = times.unwrap_or([now, now]);
    let special = |t: (i64, i64)| t.1 == i64::from(UTIME_NOW) || t.1 == i64::from(UTIME_OMIT);
    if times
        .iter()
        .any(|t| !special(*t) && !(0..1_000_000_000).contains(&t.1))
    {
        return Err(Errno::EINVAL);
    }
    let omit = |t: (i64, i64)| t.1 == i64::from(UTIME_OMIT);
    if omit(times[0]) && omit(times[1]) {
        return Ok(());
    }
    o.writable()?;
    let attr = o.inode.attr()?;
    let owner = attr.uid == creds.fsuid || creds.capable_over(attr.uid, attr.gid, cap::FOWNER);
    if !owner {
        let both_now = times.iter().all(|t| t.1 == i64::from(UTIME_NOW));
        if !both_now {
            return Err(Errno::EPERM);
        }
        check(creds, &attr, 2)?;
    }
    let keep = |t: (i64, i64)| (!omit(t)).then_some(t);
    o.inode.set_attr(&SetAttr {
        atime: keep(times[0]),
        mtime: keep(times[1]),
        ..SetAttr::default()
    })?;
    o.changed();
    Ok(())
}

/// Sets the length of a file by place.
///
/// # Errors
/// EISDIR, EINVAL, EACCES, EROFS.
pub fn truncate(path: &Path, len: u64, creds: &Creds) -> Result<(), Errno> {
    match path.inode().file_type() {
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::Regular => {}
        _ => return Err(Errno::EINVAL),
    }
    writable(&path.mount)?;
    check(creds, &path.inode().attr()?, 2)?;
    let _text = crate::fs::text::Use::writing(&**path.inode())?;
    path.inode().truncate(len)?;
    notify::object(&path.dentry, mask::MODIFY);
    Ok(())
}
