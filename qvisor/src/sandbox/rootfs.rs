//! Builds the mount tree of a container in the sandbox's own mount namespace.
//!
//! The namespace ends up with a small tmpfs of ours at the bottom and the container's root mounted over it. Binds that
//! the guest alone can place (beneath its own tmpfs or `/dev`) lie in that tmpfs, out of sight of every path, and are
//! known by descriptor only. Device nodes work on none of these mounts: the guest's devices are its own.

use super::copyup;
use super::mounts::{From, Planned};
use super::options::{self, Options};
use super::resolve::{self, Place};
use super::{Error, order::Order};
use crate::error::{Context, OsError};
use crate::sys::{self, mount_attr};
use qlib::control::{Mount, MountKind};
use qlib::qcall::HandleId;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, move_mount};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A finished tree: the mounts as the guest is told of them, and the descriptors their handles stand for.
pub struct Tree {
    /// Mounts, the root first; handles are indices into `handles`.
    pub mounts: Vec<Mount>,
    /// Directories behind the host mounts.
    pub handles: Vec<OwnedFd>,
    base: PathBuf,
}

struct Builder {
    base: PathBuf,
    root: OwnedFd,
    mounts: Vec<Mount>,
    handles: Vec<OwnedFd>,
    guest: Vec<PathBuf>,
    hidden: usize,
}

fn path_bytes(path: &Path) -> Result<CString, OsError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| rustix::io::Errno::INVAL)
        .at("use path", path)
}

/// The name under which an `O_PATH` descriptor can be mounted on. `/proc` is the host's until the root changes.
fn by_descriptor(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn set_attributes(
    path: &Path,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Result<(), OsError> {
    sys::set_mount_attributes(&path_bytes(path)?, recursive, set, clear, propagation)
        .at("set mount flags of", path)
}

/// Whether the host's later mounts are to show up inside (`rslave`): the only direction a guest can take part in.
fn follows_host(propagation: u64) -> bool {
    propagation & (libc::MS_SLAVE | libc::MS_SHARED) != 0
}

/// Detaches this mount namespace from the host's: nothing that is mounted here is seen there.
pub fn detach_from_host(rootfs_propagation: Option<&str>) -> Result<(), Error> {
    let kind = match rootfs_propagation {
        Some("private" | "rprivate" | "unbindable" | "runbindable") => MountPropagationFlags::PRIVATE,
        // Mounts made on the host later are seen here where a bind asks for it; never the other way.
        _ => MountPropagationFlags::DOWNSTREAM,
    };
    Ok(rustix::mount::mount_change("/", kind | MountPropagationFlags::REC).at("detach mount", "/")?)
}

impl Tree {
    /// Where the container's root file system lies in this mount namespace.
    pub fn rootfs(&self) -> PathBuf {
        self.base.join("rootfs")
    }
}

/// Builds the tree that `order` and `planned` ask for, below the container's directory.
pub fn build(order: &Order, planned: &[Planned]) -> Result<Tree, Error> {
    let base = order.state_dir.join("mnt");
    make_dir(&base)?;
    let none = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", &base, "tmpfs", none, c"mode=755,size=4m").at("mount a tmpfs on", &base)?;
    set_attributes(&base, false, 0, 0, libc::MS_PRIVATE)?;
    let rootfs = base.join("rootfs");
    make_dir(&rootfs)?;
    make_dir(&base.join("hidden"))?;
    if !order.rootfs.is_dir() {
        return Err(Error::NoRootfs(order.rootfs.clone()));
    }
    if order.overlay {
        mount_overlay(&base, &order.rootfs, &rootfs)?;
    } else {
        rustix::mount::mount_bind_recursive(&order.rootfs, &rootfs).at("bind root", &order.rootfs)?;
    }
    set_attributes(&rootfs, true, mount_attr::NODEV, 0, libc::MS_PRIVATE)?;
    let root = open_directory(&rootfs)?;
    let readonly = order
        .spec
        .root()
        .as_ref()
        .and_then(|r| r.readonly())
        .unwrap_or(false);
    let mut b = Builder {
        base,
        root,
        mounts: Vec::new(),
        handles: Vec::new(),
        guest: Vec::new(),
        hidden: 0,
    };
    let handle = b.keep(open_directory(&rootfs)?);
    let flags = libc::MS_NODEV | if readonly { libc::MS_RDONLY } else { 0 };
    b.mounts.push(Mount {
        kind: MountKind::Host,
        destination: b"/".to_vec(),
        source: if order.overlay {
            b"overlay".to_vec()
        } else {
            b"quark".to_vec()
        },
        fstype: if order.overlay {
            b"overlay".to_vec()
        } else {
            b"quarkfs".to_vec()
        },
        flags,
        options: Vec::new(),
        handle,
        name: Vec::new(),
    });
    for plan in planned {
        b.add(plan)?;
    }
    b.make_cwd(order)?;
    if readonly {
        set_attributes(&rootfs, false, mount_attr::RDONLY, 0, 0)?;
    }
    Ok(Tree {
        mounts: b.mounts,
        handles: b.handles,
        base: b.base,
    })
}

fn make_dir(path: &Path) -> Result<(), OsError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e).at("create", path),
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, OsError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at("open", path)
}

fn open_to_read(path: &Path) -> Result<OwnedFd, OsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at("open", path)
}

/// An overlay whose changes live in memory: the lower directory is never written.
fn mount_overlay(base: &Path, lower: &Path, target: &Path) -> Result<(), Error> {
    let layer = base.join("layer");
    make_dir(&layer)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    rustix::mount::mount("tmpfs", &layer, "tmpfs", flags, c"mode=755").at("mount a tmpfs on", &layer)?;
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    make_dir(&upper)?;
    make_dir(&work)?;
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let data = CString::new(data)
        .map_err(|_| rustix::io::Errno::INVAL)
        .at("use path", lower)?;
    rustix::mount::mount("overlay", target, "overlay", flags, data.as_c_str())
        .at("mount an overlay over", lower)?;
    Ok(())
}

impl Builder {
    fn keep(&mut self, fd: OwnedFd) -> HandleId {
        self.handles.push(fd);
        HandleId(self.handles.len() as u64 - 1)
    }

    fn tell(&mut self, p: &Planned, place: &Place, kind: MountKind, handle: HandleId, name: &[u8]) {
        let host_nodev = if kind == MountKind::Host {
            libc::MS_NODEV
        } else {
            0
        };
        self.mounts.push(Mount {
            kind,
            destination: place.path.as_os_str().as_bytes().to_vec(),
            source: p.source.clone(),
            fstype: p.fstype.clone(),
            flags: p.options.flags | host_nodev,
            options: if kind == MountKind::Host {
                Vec::new()
            } else {
                p.options.data.join(",").into_bytes()
            },
            handle,
            name: name.to_vec(),
        });
    }

    /// Makes the program's working directory where the root file system has none, as runc does.
    fn make_cwd(&self, order: &Order) -> Result<(), Error> {
        let Some(process) = order.spec.process() else {
            return Ok(());
        };
        let place = resolve::resolve(&self.root, process.cwd(), &self.guest)?;
        if !place.in_guest {
            // What cannot be made is missed when the program goes there.
            let _ = resolve::make_directories(&self.root, &place.path);
        }
        Ok(())
    }

    fn wrong(p: &Planned, why: impl Into<String>) -> Error {
        Error::Mount {
            index: p.index,
            destination: p.destination.display().to_string(),
            why: why.into(),
        }
    }

    fn add(&mut self, p: &Planned) -> Result<(), Error> {
        let place = resolve::resolve(&self.root, &p.destination, &self.guest)?;
        if place.path == Path::new("/") {
            return Err(Self::wrong(
                p,
                "a mount over the container's root is not supported",
            ));
        }
        match &p.from {
            From::Guest(kind) => {
                // What protects /proc and /sys of a container is written by these paths; a link leads elsewhere.
                if matches!(kind, MountKind::Proc | MountKind::Sysfs)
                    && !place.path.components().eq(p.destination.components())
                {
                    return Err(Self::wrong(p, "must be mounted on ordinary directory"));
                }
                if !place.in_guest {
                    // The guest can mount where the host may not write, so a read-only root is no failure here.
                    let there = self.mode_of(&place.path);
                    let _ = resolve::make_directories(&self.root, &place.path);
                    if let (MountKind::Tmpfs, Some(mode)) = (kind, there)
                        && !p.options.data.iter().any(|word| word.starts_with("mode="))
                    {
                        // As runc does: a tmpfs over a directory has that directory's mode.
                        let mut same = p.clone();
                        same.options.data.push(format!("mode={mode:o}"));
                        self.tell(&same, &place, *kind, HandleId::NONE, b"");
                        self.guest.push(place.path);
                        return Ok(());
                    }
                }
                self.tell(p, &place, *kind, HandleId::NONE, b"");
                self.guest.push(place.path);
                Ok(())
            }
            From::Bind(source) => {
                let looked = match &p.taken {
                    Some(tree) => rustix::fs::fstat(tree),
                    None => rustix::fs::stat(source),
                };
                let is_dir = match looked {
                    Ok(stat) => rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir(),
                    Err(e) => return Err(Self::wrong(p, format!("source {}: {e}", source.display()))),
                };
                let (target, name) = self.target(p, &place, is_dir)?;
                if let Some(tree) = &p.taken {
                    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                    move_mount(tree, "", rustix::fs::CWD, &target, whole).at("bind", source)?;
                } else if p.options.recursive_bind {
                    rustix::mount::mount_bind_recursive(source, &target).at("bind", source)?;
                } else {
                    rustix::mount::mount_bind(source, &target).at("bind", source)?;
                }
                self.finish(p, &place, &target, name)
            }
            // Where nothing lies beneath, the guest's own serves as well, and is quicker.
            From::CopiedTmpfs if place.in_guest || self.is_empty(&place.path) => {
                let mut plain = p.clone();
                plain.from = From::Guest(MountKind::Tmpfs);
                self.add(&plain)
            }
            From::CopiedTmpfs => {
                let (target, name) = self.target(p, &place, true)?;
                let beneath = open_to_read(&target)?;
                let data = CString::new(p.options.data.join(","))
                    .map_err(|_| Self::wrong(p, "a NUL byte in the options"))?;
                // Read-only comes last.
                let flags = MountFlags::from_bits_retain(p.options.flags as u32) | MountFlags::NODEV;
                let flags = flags.difference(MountFlags::RDONLY);
                rustix::mount::mount("tmpfs", &target, "tmpfs", flags, data.as_c_str())
                    .at("mount a tmpfs on", &target)?;
                copyup::copy(&beneath, &open_to_read(&target)?).at("copy to the tmpfs on", &place.path)?;
                self.finish(p, &place, &target, name)
            }
            From::HostFs => {
                let (target, name) = self.target(p, &place, true)?;
                let data = CString::new(p.options.data.join(","))
                    .map_err(|_| Self::wrong(p, "a NUL byte in the options"))?;
                let source = Path::new(std::ffi::OsStr::from_bytes(&p.source)).to_path_buf();
                let flags = MountFlags::from_bits_retain(p.options.flags as u32) | MountFlags::NODEV;
                rustix::mount::mount(&source, &target, p.fstype.as_slice(), flags, data.as_c_str())
                    .at("mount", &source)?;
                self.finish(p, &place, &target, name)
            }
        }
    }

    /// The permissions of a directory of the container's that is there.
    fn mode_of(&self, path: &Path) -> Option<u32> {
        let place = resolve::open_place(&self.root, path).ok()?;
        Some(rustix::fs::fstat(place).ok()?.st_mode & 0o7777)
    }

    /// Whether nothing lies in directory `path` of the container, or there is none.
    fn is_empty(&self, path: &Path) -> bool {
        let Ok(place) = resolve::open_place(&self.root, path) else {
            return true;
        };
        let entries = open_to_read(&by_descriptor(&place)).map(rustix::fs::Dir::new);
        match entries {
            Ok(Ok(entries)) => !entries
                .flatten()
                .any(|e| !matches!(e.file_name().to_bytes(), b"." | b"..")),
            _ => true,
        }
    }

    /// Where the host mounts `p`: at its place in the tree, or hidden. With a name: a single file in that directory.
    fn target(
        &mut self,
        p: &Planned,
        place: &Place,
        is_dir: bool,
    ) -> Result<(PathBuf, Option<PathBuf>), Error> {
        if place.in_guest {
            let slot = self.base.join("hidden").join(self.hidden.to_string());
            self.hidden += 1;
            make_dir(&slot)?;
            if is_dir {
                return Ok((slot, None));
            }
            let name = place.path.file_name().unwrap_or_default();
            let file = slot.join(name);
            std::fs::File::create(&file).at("create", &file)?;
            return Ok((file, Some(slot)));
        }
        let made = if is_dir {
            resolve::make_directories(&self.root, &place.path)
        } else {
            resolve::make_file(&self.root, &place.path)
        };
        made.map_err(|e| {
            Self::wrong(
                p,
                format!("cannot create the mount point: {}", std::io::Error::from(e)),
            )
        })?;
        let path = self
            .base
            .join("rootfs")
            .join(place.path.strip_prefix("/").unwrap_or(&place.path));
        Ok((path, (!is_dir).then(PathBuf::new)))
    }

    /// Sets the flags of what was mounted at `target` and takes the guest's handle of it.
    fn finish(
        &mut self,
        p: &Planned,
        place: &Place,
        target: &Path,
        name: Option<PathBuf>,
    ) -> Result<(), Error> {
        let o: &Options = &p.options;
        let propagation = if follows_host(o.propagation) {
            libc::MS_SLAVE
        } else {
            libc::MS_PRIVATE
        };
        let below = mount_attr::NODEV | options::attributes(o.recursive);
        // The destination was resolved and its directories are ours to trust no more than the image: what is mounted
        // now is found again by descriptor, inside the root.
        let on_top = if place.in_guest {
            target.to_path_buf()
        } else {
            let fd = resolve::open_place(&self.root, &place.path).at("open", &place.path)?;
            let path = by_descriptor(&fd);
            set_attributes(&path, true, below, 0, propagation)?;
            self.flags(&path, o)?;
            drop(fd);
            PathBuf::new()
        };
        if place.in_guest {
            set_attributes(&on_top, true, below, 0, propagation)?;
            self.flags(&on_top, o)?;
        }
        let directory = |path: &Path| open_directory(path);
        let (handle, file) = match name {
            None if place.in_guest => (directory(target)?, Vec::new()),
            None => {
                let fd = resolve::open_place(&self.root, &place.path).at("open", &place.path)?;
                (fd, Vec::new())
            }
            Some(slot) => {
                let base = place.path.file_name().unwrap_or_default().as_bytes().to_vec();
                let parent = place.path.parent().unwrap_or(Path::new("/"));
                let fd = if place.in_guest {
                    directory(&slot)?
                } else {
                    resolve::open_place(&self.root, parent).at("open", parent)?
                };
                (fd, base)
            }
        };
        let handle = self.keep(handle);
        self.tell(p, place, MountKind::Host, handle, &file);
        Ok(())
    }

    fn flags(&self, path: &Path, o: &Options) -> Result<(), OsError> {
        let set = options::attributes(o.flags);
        let atime = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;
        let mut clear = options::attributes(o.cleared & !atime) & !mount_attr::NODEV;
        if o.flags & atime != 0 {
            clear |= mount_attr::ATIME;
        }
        if set == 0 && clear == 0 {
            return Ok(());
        }
        set_attributes(path, false, set, clear, 0)
    }
}

/// Whether the root file system is the one the host booted into (an initramfs that was never left).
fn on_initial_root() -> bool {
    // `f_type` of ramfs and tmpfs: what the initial root file system can be (`linux/magic.h`).
    const KINDS: [i64; 2] = [0x8584_58f6, 0x0102_1994];
    rustix::fs::statfs("/").is_ok_and(|s| KINDS.contains(&{ s.f_type }))
}

/// Makes the tree the root of this mount namespace and of this process; the host's tree is gone from here.
pub fn enter(tree: &Tree) -> Result<(), Error> {
    let base = &tree.base;
    rustix::process::chdir(base).at("enter", base)?;
    match rustix::process::pivot_root(".", ".") {
        // The old root now lies over the new one, at the same place.
        Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH).doing("unmount the host's tree")?,
        // The kernel's initial root file system cannot be left so (pivot_root(2)): there it is covered instead.
        Err(rustix::io::Errno::INVAL) if on_initial_root() => {
            rustix::mount::mount_move(".", "/").doing("cover the host's tree")?;
            rustix::process::chroot(".").doing("change the root")?;
        }
        Err(e) => return Err(e).at("change the root to", base)?,
    }
    rustix::process::chdir("/rootfs").doing("enter the container's root")?;
    rustix::mount::mount_move(".", "/").doing("move the container's root to /")?;
    rustix::process::chroot(".").doing("change the root to the container's")?;
    rustix::process::chdir("/").doing("enter /")?;
    Ok(())
}
