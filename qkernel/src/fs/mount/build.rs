//! Builds a container's tree of mounts from its specification.

use super::{Mount, attach, bind};
use crate::fs::hostfs::HostFs;
use crate::fs::inode::FileType;
use crate::fs::path::{Dentry, FsContext, Path};
use crate::fs::tmpfs::{Options, Tmpfs};
use crate::fs::{names, walk};
use crate::ns::Namespaces;
use crate::ns::ipc::IpcNs;
use crate::ns::pid::PidNs;
use crate::task::creds::{Creds, cap};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::host::HostFile;
use hal::uapi::general::{
    MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_RELATIME, MS_STRICTATIME,
};
use qlib::Errno;
use qlib::control::{Capabilities, ContainerSpec, Mount as Spec, MountKind};
use qlib::qcall::HandleId;

/// The kernel itself: may do everything.
pub fn kernel_creds() -> Creds {
    let all = (1u64 << (cap::LAST + 1)) - 1;
    Creds {
        caps: Capabilities {
            effective: all,
            permitted: all,
            bounding: all,
            ..Capabilities::default()
        },
        ..Creds::default()
    }
}

/// Where a build failed.
#[derive(Clone, Debug)]
pub struct BuildError {
    /// Error number.
    pub errno: Errno,
    /// The mount's destination, or the path that could not be masked.
    pub path: Vec<u8>,
}

/// The root of a new file system for a mount; `pid` and `ipc` are the namespaces that `proc` and `mqueue` show.
///
/// # Errors
/// EBADF for a host mount without a handle; EINVAL for bad options.
pub fn root_dentry(
    m: &Spec,
    spec: &ContainerSpec,
    first: bool,
    pid: &Arc<PidNs>,
    ipc: &Arc<IpcNs>,
) -> Result<Arc<Dentry>, Errno> {
    match m.kind {
        MountKind::Host => {
            if m.handle == HandleId::NONE {
                return Err(Errno::EBADF);
            }
            let fs = HostFs::new(HostFile::new(m.handle), first)?;
            if m.name.is_empty() {
                Ok(Dentry::root(fs.root()))
            } else {
                Ok(Dentry::root(fs.single(&m.name)?))
            }
        }
        MountKind::Tmpfs => Ok(Dentry::root(Tmpfs::create(&Options::parse(&m.options)?).root())),
        MountKind::Dev => {
            let mut options = Options::parse(&m.options)?;
            options.mode &= 0o755;
            let root = Tmpfs::create(&options).root();
            crate::fs::dev::populate(&root, &spec.devices, spec.process.terminal)?;
            Ok(Dentry::root(root))
        }
        MountKind::DevPts => Ok(Dentry::root(crate::fs::devpts::new_root(&m.options))),
        MountKind::Proc => Ok(Dentry::root(crate::fs::proc::new_root(pid))),
        MountKind::Sysfs => Ok(Dentry::root(crate::fs::sys::new_root())),
        MountKind::Cgroup => Ok(Dentry::root(crate::fs::cgroup::new_root())),
        MountKind::Mqueue => Ok(Dentry::root(crate::fs::mqueue::new_root(ipc.clone()))),
    }
}

/// Builds the tree for a container with these namespaces; returns its root.
///
/// # Errors
/// Where and why a mount could not be made. ENODEV: no such file system.
pub fn build(spec: &ContainerSpec, set: &Namespaces) -> Result<Path, BuildError> {
    let fail = |path: &[u8]| {
        let path = path.to_vec();
        move |errno| BuildError { errno, path }
    };
    let creds = kernel_creds();
    let mut context: Option<Arc<FsContext>> = None;
    for m in &spec.mounts {
        let root =
            root_dentry(m, spec, context.is_none(), &set.pid, &set.ipc).map_err(fail(&m.destination))?;
        // The root file system stays writable for the kernel until all mount points are made.
        let flags = if context.is_none() {
            m.flags & !u64::from(MS_RDONLY)
        } else {
            m.flags
        };
        // As `mount(2)` has it where nothing is said of access times.
        let said = flags & u64::from(MS_NOATIME | MS_STRICTATIME) != 0;
        let flags = if said {
            flags
        } else {
            flags | u64::from(MS_RELATIME)
        };
        // Version 2 is the only cgroup file system there is: who asks for `cgroup` must not be told it is version 1.
        let fstype = match m.kind {
            MountKind::Cgroup => b"cgroup2".as_slice(),
            _ => &m.fstype,
        };
        let mount = Mount::new(root, &m.source, fstype, &m.options, flags);
        // A bind mount is read-only alone, a new file system as a whole.
        if m.kind != MountKind::Host && flags & u64::from(MS_RDONLY) != 0 {
            mount.sup.read_only.store(true, Ordering::Relaxed);
        }
        match &context {
            None => {
                super::TABLE.lock().order.push(mount.clone());
                let top = mount.root_path();
                context = Some(FsContext::new(top.clone(), top, 0));
            }
            Some(c) => {
                let is_dir = mount.root.inode().file_type() == FileType::Directory;
                let at = mount_point(c, &creds, &m.destination, is_dir).map_err(fail(&m.destination))?;
                attach(&mount, &at).map_err(fail(&m.destination))?;
            }
        }
    }
    let Some(context) = context else {
        return Err(BuildError {
            errno: Errno::EINVAL,
            path: b"/".to_vec(),
        });
    };
    for p in &spec.readonly_paths {
        read_only(&context, &creds, p).map_err(fail(p))?;
    }
    for p in &spec.masked_paths {
        mask(&context, &creds, p).map_err(fail(p))?;
    }
    let root = context.root();
    if let Some(first) = spec.mounts.first() {
        let read_only = first.flags & u64::from(MS_RDONLY);
        root.mount.flags.fetch_or(read_only, Ordering::Relaxed);
    }
    Ok(root)
}

/// Finds a mount point; makes it when it is missing. Where the file system refuses, the directory exists in the kernel
/// only: it is found by name but not listed.
fn mount_point(c: &FsContext, creds: &Creds, path: &[u8], is_dir: bool) -> Result<Path, Errno> {
    match walk::lookup(c, creds, None, path, walk::Flags::FOLLOW) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (parent, name, _) = match walk::lookup_parent(c, creds, None, path) {
        Err(Errno::ENOENT) => {
            let up = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
            mount_point(c, creds, if up == 0 { b"/" } else { &path[..up] }, true)?;
            walk::lookup_parent(c, creds, None, path)?
        }
        other => other?,
    };
    let made = if is_dir {
        names::mkdir_at(&parent, &name, 0o755, creds)
    } else {
        names::mknod_at(&parent, &name, 0o100_644, 0, creds)
    };
    match made {
        Ok(p) => Ok(p),
        Err(Errno::EROFS | Errno::EACCES | Errno::EPERM) => {
            let inode = if is_dir {
                Tmpfs::create(&Options::default()).root()
            } else {
                Tmpfs::create(&Options::default()).loose_node(0o100_644, 0)
            };
            let _guard = parent.dentry.dir_lock.lock();
            Ok(Path {
                mount: parent.mount.clone(),
                dentry: crate::fs::dcache::insert(&parent.dentry, &name, inode),
            })
        }
        Err(e) => Err(e),
    }
}

fn existing(c: &FsContext, creds: &Creds, path: &[u8]) -> Result<Option<Path>, Errno> {
    match walk::lookup(c, creds, None, path, walk::Flags::FOLLOW) {
        Ok(p) => Ok(Some(p)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes `path` read-only by a bind mount on itself.
fn read_only(c: &FsContext, creds: &Creds, path: &[u8]) -> Result<(), Errno> {
    let Some(p) = existing(c, creds, path)? else {
        return Ok(());
    };
    let m = bind(&p, &p, true)?;
    m.flags.fetch_or(u64::from(MS_RDONLY), Ordering::Relaxed);
    Ok(())
}

/// Hides `path`: a directory behind an empty read-only one, anything else behind a null device.
fn mask(c: &FsContext, creds: &Creds, path: &[u8]) -> Result<(), Errno> {
    let Some(p) = existing(c, creds, path)? else {
        return Ok(());
    };
    let fs = Tmpfs::create(&Options::default());
    let root = if p.inode().file_type() == FileType::Directory {
        fs.root()
    } else {
        // Device 1:3 is the null device.
        fs.loose_node(0o020_666, crate::fs::dev::makedev(1, 3))
    };
    let flags = u64::from(MS_RDONLY | MS_NOSUID | MS_NOEXEC);
    let flags = if p.inode().file_type() == FileType::Directory {
        flags | u64::from(MS_NODEV)
    } else {
        flags
    };
    attach(
        &Mount::new(Dentry::root(root), b"tmpfs", b"tmpfs", b"", flags),
        &p,
    )
}
