//! Finds where a mount's destination lies in the container's tree, following its symbolic links inside the root only.

use crate::error::{Context, OsError};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// Where a destination lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Absolute path without links, `.` or `..`.
    pub path: PathBuf,
    /// It lies beneath a mount of the guest's own, where the host sees nothing.
    pub in_guest: bool,
}

/// Resolves `destination` below `root`; `guest` are the mounts of the guest's own so far.
pub fn resolve(root: impl AsFd, destination: &Path, guest: &[PathBuf]) -> Result<Place, OsError> {
    let names = |path: &Path| -> Vec<OsString> {
        path.components()
            .filter_map(|c| match c {
                Component::Normal(name) => Some(name.to_owned()),
                Component::ParentDir => Some(OsString::from("..")),
                _ => None,
            })
            .collect()
    };
    let mut todo: VecDeque<OsString> = names(destination).into();
    let mut done = PathBuf::from("/");
    let mut links = 0;
    let mut in_guest = false;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            done.pop();
            in_guest = guest.iter().any(|g| done.starts_with(g));
            continue;
        }
        done.push(&name);
        // The top of a guest mount itself is a place of the host's tree; what lies beneath is not.
        if in_guest {
            continue;
        }
        let relative = done.strip_prefix("/").unwrap_or(&done);
        match rustix::fs::readlinkat(root.as_fd(), relative, Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP).at("resolve", destination);
                }
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                done.pop();
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                for part in names(&target).into_iter().rev() {
                    todo.push_front(part);
                }
            }
            // Not a link, or nothing there yet.
            Err(_) => in_guest = guest.contains(&done) && !todo.is_empty(),
        }
    }
    Ok(Place { path: done, in_guest })
}

/// Opens `path` below `root` as a place (`O_PATH`): links and `..` stay inside, mounts are crossed.
pub fn open_place(root: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(
        root,
        relative.as_os_str().as_bytes(),
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
}

/// Makes what is missing of directory `path` (resolved) below `root`.
pub fn make_directories(root: impl AsFd, path: &Path) -> rustix::io::Result<()> {
    let mut at = PathBuf::from("/");
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        let parent = open_place(root.as_fd(), &at)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            // A read-only tree that has the directory already says so first.
            Err(Errno::ROFS) if open_place(root.as_fd(), &at.join(name)).is_ok() => {}
            Err(e) => return Err(e),
        }
        at.push(name);
    }
    Ok(())
}

/// Makes file `path` (resolved) below `root` if it is missing, with its directories.
pub fn make_file(root: impl AsFd, path: &Path) -> rustix::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::ISDIR);
    };
    make_directories(root.as_fd(), parent)?;
    if open_place(root.as_fd(), path).is_ok() {
        return Ok(());
    }
    let parent = open_place(root, parent)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o755)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree(name: &str) -> (PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("quark-resolve-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("run")).unwrap();
        std::fs::create_dir_all(path.join("var")).unwrap();
        symlink("/run", path.join("var/run")).unwrap();
        symlink("../../../../../etc", path.join("var/up")).unwrap();
        symlink("loop", path.join("loop")).unwrap();
        symlink("/dev/shm", path.join("run/shm")).unwrap();
        let fd = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (path, fd)
    }

    #[test]
    fn links_stay_inside_the_root() {
        let (path, fd) = tree("links");
        let at = |p: &str| resolve(&fd, Path::new(p), &[]).unwrap().path;
        assert_eq!(at("/var/run/x"), Path::new("/run/x"));
        assert_eq!(at("/var/up/passwd"), Path::new("/etc/passwd"));
        assert_eq!(at("/../../a/./b/.."), Path::new("/a"));
        assert!(resolve(&fd, Path::new("/loop/x"), &[]).is_err());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn beneath_a_guest_mount_the_host_sees_nothing() {
        let (path, fd) = tree("guest");
        let guest = [PathBuf::from("/dev"), PathBuf::from("/run")];
        let at = |p: &str| resolve(&fd, Path::new(p), &guest).unwrap();
        assert_eq!(
            at("/dev"),
            Place {
                path: "/dev".into(),
                in_guest: false
            }
        );
        assert_eq!(
            at("/dev/a/b"),
            Place {
                path: "/dev/a/b".into(),
                in_guest: true
            }
        );
        assert_eq!(
            at("/run/shm/x"),
            Place {
                path: "/run/shm/x".into(),
                in_guest: true
            },
            "not through the host's link"
        );
        assert_eq!(
            at("/dev/../etc"),
            Place {
                path: "/etc".into(),
                in_guest: false
            }
        );
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn makes_mountpoints_inside() {
        let (path, fd) = tree("make");
        make_directories(&fd, Path::new("/new/dir")).unwrap();
        make_file(&fd, Path::new("/new/file")).unwrap();
        make_file(&fd, Path::new("/new/file")).unwrap();
        assert!(path.join("new/dir").is_dir() && path.join("new/file").is_file());
        std::fs::remove_dir_all(path).unwrap();
    }
}
