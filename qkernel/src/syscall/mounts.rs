//! Mounting. Source: `mount(2)`, `umount2(2)`, `pivot_root(2)`.

use super::files::{Who, path_arg};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::mount::{self, MOUNT_FLAGS, Mount, Propagation};
use crate::fs::path::{Dentry, Path};
use crate::fs::tmpfs::{self, TmpInode};
use crate::fs::walk::{self, Flags};
use crate::ns;
use crate::rows;
use crate::task::creds::{Creds, cap};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::uapi::general::{
    MS_BIND, MS_MGC_MSK, MS_MGC_VAL, MS_MOVE, MS_NOATIME, MS_NODIRATIME, MS_PRIVATE, MS_RDONLY, MS_REC,
    MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SILENT, MS_SLAVE, MS_STRICTATIME, MS_UNBINDABLE,
};
use hal::user::UserCStr;
use qlib::Errno;
use qlib::control::{ContainerSpec, Mount as Spec, MountKind};
use qlib::qcall::HandleId;

rows! {
    mount: Partial("tmpfs, proc, sysfs, devpts, mqueue, cgroup2; other types are ENODEV, overlay and file systems on devices among them"), sys_mount;
    umount2: Full, |c, a| sys_umount2(c, a.cstr(0), a.u32(1));
    pivot_root: Full, |c, a| sys_pivot_root(c, a.cstr(0), a.cstr(1));
    open_tree: Refused(Errno::ENOSYS, "the new mount interface; libraries fall back to mount(2)");
    move_mount: Refused(Errno::ENOSYS, "the new mount interface; libraries fall back to mount(2)");
    fsopen: Refused(Errno::ENOSYS, "the new mount interface; libraries fall back to mount(2)");
    fsconfig: Refused(Errno::ENOSYS, "the new mount interface; libraries fall back to mount(2)");
    fsmount: Refused(Errno::ENOSYS, "the new mount interface; libraries fall back to mount(2)");
    fspick: Refused(Errno::ENOSYS, "the new mount interface; libraries fall back to mount(2)");
    mount_setattr: Refused(Errno::ENOSYS, "the new mount interface; libraries fall back to mount(2)");
    statmount: Refused(Errno::ENOSYS, "use /proc/self/mountinfo");
    listmount: Refused(Errno::ENOSYS, "use /proc/self/mountinfo");
    name_to_handle_at: Refused(Errno::EOPNOTSUPP, "no file system of QKernel has file handles");
    open_by_handle_at: Refused(Errno::EOPNOTSUPP, "no file system of QKernel has file handles");
    cachestat: Refused(Errno::ENOSYS, "the page cache is the host's");
    ustat: Refused(Errno::ENOSYS, "use statfs");
    sysfs: Refused(Errno::ENOSYS, "use /proc/filesystems");
}

fn find(who: &Who, path: &[u8], follow: bool) -> SysResult<Path> {
    let flags = if follow { Flags::FOLLOW } else { Flags::empty() };
    walk::lookup(&who.fs, &who.creds, None, path, flags)
}

fn optional(p: UserCStr, addr: u64) -> SysResult<Vec<u8>> {
    if addr == 0 { Ok(Vec::new()) } else { path_arg(p) }
}

/// # Errors
/// EPERM for who may not change the tree of mounts.
fn may_mount(who: &Who) -> SysResult<()> {
    if who.creds.capable_in(&ns::current().mnt.owner, cap::SYS_ADMIN) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// # Errors
/// EINVAL for what is not in the caller's tree of mounts (another namespace, or unmounted lazily).
fn in_tree(p: &Path) -> SysResult<()> {
    let own = ns::current().mnt.top();
    if own.is_some_and(|t| Arc::ptr_eq(&t, &p.mount.top())) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// Flags that say what `mount(2)` does, and those that change how a file system as a whole works.
const PROPAGATION: u32 = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;
const ATIME: u32 = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;

fn sys_mount(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let fstype = optional(a.cstr(2), a.u64(2))?;
    let source = optional(a.cstr(0), a.u64(0))?;
    let data = optional(a.cstr(4), a.u64(4))?;
    let dest = path_arg(a.cstr(1))?;
    let mut flags = a.u32(3);
    if flags & MS_MGC_MSK == MS_MGC_VAL {
        flags &= !MS_MGC_MSK;
    }
    let who = Who::of(c);
    let at = find(&who, &dest, true)?;
    may_mount(&who)?;
    let mut keep = u64::from(flags) & MOUNT_FLAGS;
    if flags & (MS_NOATIME | MS_STRICTATIME) == 0 {
        keep |= u64::from(MS_RELATIME);
    }
    let _change = mount::change();
    if flags & MS_REMOUNT != 0 {
        in_tree(&at)?;
        mount::of_root(&at)?;
        let whole = flags & MS_BIND == 0;
        if whole && !who.creds.capable_in(&at.mount.sup.owner, cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        if whole && let Some(t) = at.mount.root.inode().as_any().downcast_ref::<TmpInode>() {
            t.tmpfs().reconfigure(&data)?;
            if !data.is_empty() {
                *at.mount.sup.options.lock() = data;
            }
        }
        mount::remount(&at, keep, flags & ATIME == 0, whole)?;
    } else if flags & MS_BIND != 0 {
        let from = find_source(&who, &source)?;
        in_tree(&at)?;
        // A namespace is nowhere until it is bound somewhere.
        match from.inode().as_any().downcast_ref::<ns::file::NsInode>() {
            Some(n) => ns::current().mnt.may_hold(&n.0)?,
            None => in_tree(&from)?,
        }
        mount::bind(&from, &at, flags & MS_REC != 0)?;
    } else if flags & PROPAGATION != 0 {
        change_propagation(&at, flags)?;
    } else if flags & MS_MOVE != 0 {
        let from = find_source(&who, &source)?;
        in_tree(&at)?;
        in_tree(&from)?;
        mount::relocate(from, &at)?;
    } else {
        if a.u64(2) == 0 {
            return Err(Errno::EINVAL);
        }
        let root = new_root(&who.creds, &fstype, &source, &data, keep)?;
        in_tree(&at)?;
        let new = Mount::owned(root, &source, &fstype, &data, keep, who.creds.user.clone());
        let read_only = flags & MS_RDONLY != 0;
        new.sup.read_only.store(read_only, Ordering::Relaxed);
        mount::graft(&new, &at)?;
    }
    Ok(0)
}

/// What a bind mount or a move starts from.
fn find_source(who: &Who, source: &[u8]) -> SysResult<Path> {
    if source.is_empty() {
        return Err(Errno::EINVAL);
    }
    find(who, source, true)
}

fn change_propagation(at: &Path, flags: u32) -> SysResult<()> {
    let kind = match flags & !(MS_REC | MS_SILENT) {
        MS_SHARED => Propagation::Shared,
        MS_SLAVE => Propagation::Slave,
        MS_PRIVATE => Propagation::Private,
        MS_UNBINDABLE => Propagation::Unbindable,
        _ => return Err(Errno::EINVAL),
    };
    let m = mount::of_root(at)?;
    in_tree(at)?;
    let all = if flags & MS_REC != 0 {
        mount::subtree(&m)
    } else {
        vec![m]
    };
    for m in &all {
        mount::propagate_as(m, kind);
    }
    Ok(())
}

fn new_root(creds: &Creds, fstype: &[u8], source: &[u8], data: &[u8], flags: u64) -> SysResult<Arc<Dentry>> {
    let kind = match fstype {
        b"tmpfs" | b"ramfs" => MountKind::Tmpfs,
        b"proc" => MountKind::Proc,
        b"sysfs" => MountKind::Sysfs,
        b"devpts" => MountKind::DevPts,
        b"mqueue" => MountKind::Mqueue,
        b"cgroup2" => MountKind::Cgroup,
        _ => return Err(Errno::ENODEV),
    };
    let set = ns::current();
    // Whose namespace a file system shows must allow it. There is one net namespace, the container's.
    let owner = match kind {
        MountKind::Proc => ns::pid::current().owner.clone(),
        MountKind::Sysfs => None,
        MountKind::Mqueue => set.ipc.owner.clone(),
        MountKind::Cgroup => set.cgroup.owner.clone(),
        _ => creds.user.clone(),
    };
    if !creds.capable_in(&owner, cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let seen = || set.mnt.top().is_some_and(|t| mount::is_seen(&t, fstype, flags));
    if kind == MountKind::Proc && set.mnt.owner.is_some() && !seen() {
        return Err(Errno::EPERM);
    }
    if kind == MountKind::Tmpfs {
        // The root directory belongs to who mounts it; numbers are those of its user namespace.
        let mut o = tmpfs::Options::parse(data)?;
        let says = |key: &[u8]| data.split(|b| *b == b',').any(|p| p.starts_with(key));
        o.uid = match says(b"uid=") {
            true => creds.kernel_uid(o.uid).ok_or(Errno::EINVAL)?,
            false => creds.fsuid,
        };
        o.gid = match says(b"gid=") {
            true => creds.kernel_gid(o.gid).ok_or(Errno::EINVAL)?,
            false => creds.fsgid,
        };
        return Ok(Dentry::root(tmpfs::Tmpfs::create(&o).root()));
    }
    let spec = Spec {
        kind,
        destination: Vec::new(),
        source: source.to_vec(),
        fstype: fstype.to_vec(),
        flags,
        // The terminals are the sandbox's: how new ones are made is not for others to say.
        options: if creds.user.is_none() {
            data.to_vec()
        } else {
            Vec::new()
        },
        handle: HandleId::NONE,
        name: Vec::new(),
    };
    mount::build::root_dentry(
        &spec,
        &ContainerSpec::default(),
        false,
        &ns::pid::current(),
        &set.ipc,
    )
}

fn sys_umount2(c: &mut Ctx<'_>, path: UserCStr, flags: u32) -> SysResult {
    const FORCE: u32 = 1;
    const DETACH: u32 = 2;
    const EXPIRE: u32 = 4;
    const NOFOLLOW: u32 = 8;
    if flags & !(FORCE | DETACH | EXPIRE | NOFOLLOW) != 0
        || flags & EXPIRE != 0 && flags & (FORCE | DETACH) != 0
    {
        return Err(Errno::EINVAL);
    }
    let path = path_arg(path)?;
    let who = Who::of(c);
    // What is mounted on the working directory or the root counts too.
    let at = mount::descend(find(&who, &path, flags & NOFOLLOW == 0)?);
    may_mount(&who)?;
    let _change = mount::change();
    mount::of_root(&at)?;
    in_tree(&at)?;
    if flags & EXPIRE != 0 {
        mount::expire(at)?;
    } else {
        mount::detach(at, flags & DETACH != 0)?;
    }
    Ok(0)
}

fn sys_pivot_root(c: &mut Ctx<'_>, new_root: UserCStr, put_old: UserCStr) -> SysResult {
    let who = Who::of(c);
    may_mount(&who)?;
    let new_root = walk::lookup(
        &who.fs,
        &who.creds,
        None,
        &path_arg(new_root)?,
        Flags::FOLLOW | Flags::DIRECTORY,
    )?;
    let put_old = walk::lookup(
        &who.fs,
        &who.creds,
        None,
        &path_arg(put_old)?,
        Flags::FOLLOW | Flags::DIRECTORY,
    )?;
    let old_root = who.fs.root();
    let _change = mount::change();
    for p in [&new_root, &put_old] {
        in_tree(p)?;
    }
    mount::pivot(&old_root, &new_root, &put_old)?;
    let mnt = ns::current().mnt.clone();
    if mnt.top().is_some_and(|t| Arc::ptr_eq(&t, &old_root.mount)) {
        mnt.set_top(new_root.mount.clone());
    }
    // Every process whose root or working directory was the old root moves along.
    for p in crate::task::table::processes() {
        let tasks = p.tasks.lock().clone();
        for t in tasks {
            let fs = t.fs();
            if fs.root().same(&old_root) {
                fs.set_root(new_root.clone());
            }
            if fs.cwd().same(&old_root) {
                fs.set_cwd(new_root.clone());
            }
        }
    }
    Ok(0)
}
