//! Namespaces as files: `/proc/PID/ns/*`. Source: `namespaces(7)`, `ioctl_ns(2)`, Linux `fs/nsfs.c`.

use super::Any;
use super::user::UserRef;
use crate::fs::file::{File, FileOps};
use crate::fs::inode::{FileType, Inode, Stat};
use crate::fs::mount::Mount;
use crate::fs::path::{Dentry, Path};
use crate::fs::pseudo::{Meta, new_dev_of};
use crate::syscall::Ctx;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any;
use hal::sync::Once;
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// NSFS_MAGIC.
const MAGIC: u64 = 0x6e73_6673;

fn dev() -> u64 {
    static DEV: Once<u64> = Once::new();
    *DEV.call_once(|| new_dev_of(MAGIC))
}

/// The inode of a namespace: it keeps the namespace alive while it is open or bound somewhere.
pub struct NsInode(pub Any);

impl NsInode {
    /// Whether it is a mount namespace.
    pub fn is_mounts(&self) -> bool {
        matches!(self.0, Any::Mnt(_))
    }
    fn status(&self) -> Stat {
        let meta = Meta {
            dev: dev(),
            ino: self.0.ino(),
            perm: 0o444,
            uid: 0,
            gid: 0,
        };
        meta.stat(FileType::Regular)
    }
}

impl Inode for NsInode {
    fn as_any(&self) -> &dyn any::Any {
        self
    }
    fn file_type(&self) -> FileType {
        FileType::Regular
    }
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.status())
    }
    fn open(&self, _flags: u32, _creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(NsFile(self.0.clone())))
    }
    fn statfs(&self) -> Result<HostStatFs, Errno> {
        Ok(crate::fs::pseudo::statfs(dev()))
    }
}

/// The text of a namespace's link: `uts:[4026531838]`.
pub fn text(ns: &Any) -> Vec<u8> {
    alloc::format!("{}:[{}]", ns.kind(), ns.ino()).into_bytes()
}

/// A namespace as a place, for links that lead to it and for bind mounts of it.
pub fn place(ns: Any) -> Path {
    let name = text(&ns);
    let inode = Arc::new(NsInode(ns));
    let root = Dentry::root(inode.clone());
    let mount = Mount::new(root.clone(), b"nsfs", b"nsfs", &name, 0);
    // Its name is not below the mount's root, so that paths show it alone.
    Path { mount, dentry: root }
}

/// An open namespace.
pub struct NsFile(pub Any);

impl FileOps for NsFile {
    fn as_any(&self) -> &dyn any::Any {
        self
    }
    fn ioctl(&self, _file: &File, ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        const GET_USERNS: u32 = 0xb701;
        const GET_PARENT: u32 = 0xb702;
        const GET_NSTYPE: u32 = 0xb703;
        const GET_OWNER_UID: u32 = 0xb704;
        match request {
            GET_NSTYPE => Ok(self.0.flag()),
            GET_USERNS if matches!(&self.0, Any::User(None)) => Err(Errno::EPERM),
            GET_USERNS => give_user(ctx, self.0.owner()),
            GET_PARENT => match &self.0 {
                Any::User(None) => Err(Errno::EPERM),
                Any::User(Some(n)) => give_user(ctx, n.parent.clone()),
                Any::Pid(n) => match &n.parent {
                    Some(p) if p.is_within(ctx.task.pid_ns()) => give(ctx, Any::Pid(p.clone())),
                    _ => Err(Errno::EPERM),
                },
                _ => Err(Errno::EINVAL),
            },
            GET_OWNER_UID => match &self.0 {
                Any::User(n) => {
                    let owner = n.as_ref().map_or(0, |n| n.owner);
                    let shown = super::user::shown(&ctx.task.creds().user, super::user::Kind::Uid, owner);
                    hal::user::copy_out(arg, &shown.to_ne_bytes())?;
                    Ok(0)
                }
                _ => Err(Errno::EINVAL),
            },
            _ => Err(Errno::ENOTTY),
        }
    }
}

/// Opens a user namespace for the caller, who must be in it or above it.
fn give_user(ctx: &Ctx<'_>, ns: UserRef) -> Result<u64, Errno> {
    let own = ctx.task.creds().user.clone();
    let mut above = ns.clone();
    while !super::user::same(&above, &own) {
        // A namespace above the caller's is none of its business.
        above = match above {
            Some(n) => n.parent.clone(),
            None => return Err(Errno::EPERM),
        };
    }
    give(ctx, Any::User(ns))
}

/// Opens a namespace for the caller.
fn give(ctx: &Ctx<'_>, ns: Any) -> Result<u64, Errno> {
    const RLIMIT_NOFILE: usize = 7;
    let place = place(ns.clone());
    let file = File::new(Arc::new(NsFile(ns)), Some(place), 0);
    let limit = ctx.task.process.rlimits.lock()[RLIMIT_NOFILE].0;
    ctx.task
        .files()
        .insert(file, true, 0, limit)
        .map(|fd| fd.0 as u64)
}

/// The namespace an open file is.
pub fn of(file: &File) -> Option<Any> {
    file.downcast::<NsFile>().map(|f| f.0.clone())
}
