//! Extended attributes. Source: `xattr(7)`, Linux `fs/xattr.c`.

use super::files::{Target, io_file, path_arg, target};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::attr::Object;
use crate::fs::inode::FileType;
use crate::fs::walk::check;
use crate::loader::privileges::FileCaps;
use crate::rows;
use crate::task::creds::{Creds, cap};
use alloc::vec::Vec;
use hal::uapi::general::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, XATTR_CREATE, XATTR_REPLACE};
use hal::user::{UserCStr, UserSlice};
use qlib::Errno;

rows! {
    setxattr: Partial("no POSIX ACLs"), |c, a| { let o = place(c, a, true)?; set(c, &o, a) };
    lsetxattr: Partial("no POSIX ACLs"), |c, a| { let o = place(c, a, false)?; set(c, &o, a) };
    fsetxattr: Partial("no POSIX ACLs"), |c, a| { let o = opened(c, a)?; set(c, &o, a) };
    getxattr: Partial("no POSIX ACLs"), |c, a| { let o = place(c, a, true)?; get(c, &o, a) };
    lgetxattr: Partial("no POSIX ACLs"), |c, a| { let o = place(c, a, false)?; get(c, &o, a) };
    fgetxattr: Partial("no POSIX ACLs"), |c, a| { let o = opened(c, a)?; get(c, &o, a) };
    listxattr: Full, |c, a| { let o = place(c, a, true)?; list(c, &o, a) };
    llistxattr: Full, |c, a| { let o = place(c, a, false)?; list(c, &o, a) };
    flistxattr: Full, |c, a| { let o = opened(c, a)?; list(c, &o, a) };
    removexattr: Partial("no POSIX ACLs"), |c, a| { let o = place(c, a, true)?; remove(c, &o, a) };
    lremovexattr: Partial("no POSIX ACLs"), |c, a| { let o = place(c, a, false)?; remove(c, &o, a) };
    fremovexattr: Partial("no POSIX ACLs"), |c, a| { let o = opened(c, a)?; remove(c, &o, a) };
}

/// Largest value and list, bytes.
const SIZE_MAX: u64 = 65536;

fn place(c: &Ctx<'_>, a: Args, follow: bool) -> SysResult<Object> {
    let flags = if follow { 0 } else { AT_SYMLINK_NOFOLLOW };
    target(c, AT_FDCWD, &path_arg(a.cstr(0))?, flags, true)?.object()
}

fn opened(c: &Ctx<'_>, a: Args) -> SysResult<Object> {
    Target::File(io_file(c, a.fd(0))?)
        .object()
        .map_err(|_| Errno::EOPNOTSUPP)
}

fn name_arg(p: UserCStr) -> SysResult<Vec<u8>> {
    let name = p.read(255).map_err(|e| match e {
        Errno::ENAMETOOLONG => Errno::ERANGE,
        e => e,
    })?;
    if name.is_empty() {
        return Err(Errno::ERANGE);
    }
    Ok(name)
}

/// Checks the name space of an attribute; `write`: it is to be changed.
fn permit(o: &Object, name: &[u8], creds: &Creds, write: bool) -> SysResult<()> {
    if write {
        o.writable()?;
    }
    let denied = if write { Errno::EPERM } else { Errno::ENODATA };
    if name.starts_with(b"user.") {
        let attr = o.inode.attr()?;
        let kind = o.inode.file_type();
        if !matches!(kind, FileType::Regular | FileType::Directory) {
            return Err(denied);
        }
        let sticky = kind == FileType::Directory && attr.mode & 0o1000 != 0;
        if write && sticky && attr.uid != creds.fsuid && !creds.capable_over(attr.uid, attr.gid, cap::FOWNER)
        {
            return Err(Errno::EPERM);
        }
        return check(creds, &attr, if write { 2 } else { 4 });
    }
    if name.starts_with(b"trusted.") {
        return if creds.capable(cap::SYS_ADMIN) {
            Ok(())
        } else {
            Err(denied)
        };
    }
    if name.starts_with(b"security.") {
        let needed = if name == FileCaps::NAME {
            cap::SETFCAP
        } else {
            cap::SYS_ADMIN
        };
        return if !write || creds.capable(needed) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        };
    }
    // `system.` is access-control lists, which QKernel's permission checks do not know.
    Err(Errno::EOPNOTSUPP)
}

fn set(c: &Ctx<'_>, o: &Object, a: Args) -> SysResult {
    let flags = a.u32(4);
    if flags & !(XATTR_CREATE | XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = name_arg(a.cstr(1))?;
    if a.u64(3) > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let value = UserSlice::new(a.u64(2), a.u64(3))?.to_vec(SIZE_MAX as usize)?;
    if name == FileCaps::NAME && !value.is_empty() {
        FileCaps::check(&value)?;
    }
    permit(o, &name, &c.task.creds(), true)?;
    o.inode.set_xattr(&name, &value, flags)?;
    Ok(0)
}

/// Hands bytes to a buffer of `size`; a size of 0 asks for the length only.
fn give(addr: u64, size: u64, bytes: &[u8]) -> SysResult {
    if size != 0 {
        if bytes.len() as u64 > size {
            return Err(Errno::ERANGE);
        }
        UserSlice::new(addr, bytes.len() as u64)?.write(bytes)?;
    }
    Ok(bytes.len() as u64)
}

fn get(c: &Ctx<'_>, o: &Object, a: Args) -> SysResult {
    let name = name_arg(a.cstr(1))?;
    permit(o, &name, &c.task.creds(), false)?;
    let mut value = o.inode.get_xattr(&name)?;
    if name == FileCaps::NAME && c.task.creds().user.is_none() {
        FileCaps::show(&mut value);
    }
    give(a.u64(2), a.u64(3), &value)
}

fn list(c: &Ctx<'_>, o: &Object, a: Args) -> SysResult {
    let all = o.inode.list_xattr()?;
    let admin = c.task.creds().capable(cap::SYS_ADMIN);
    let mut out = Vec::with_capacity(all.len());
    for name in all.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if name.starts_with(b"system.") || name.starts_with(b"trusted.") && !admin {
            continue;
        }
        out.extend_from_slice(name);
        out.push(0);
    }
    give(a.u64(1), a.u64(2), &out)
}

fn remove(c: &Ctx<'_>, o: &Object, a: Args) -> SysResult {
    let name = name_arg(a.cstr(1))?;
    permit(o, &name, &c.task.creds(), true)?;
    o.inode.remove_xattr(&name)?;
    Ok(0)
}
