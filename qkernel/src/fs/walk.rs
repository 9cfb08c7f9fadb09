//! Finding places by name. Source: `path_resolution(7)`, `symlink(7)`, `openat2(2)`, Linux `fs/namei.c`.

use crate::fs::dcache;
use crate::fs::file::MagicTarget;
use crate::fs::inode::{Attr, FileType, Stat};
use crate::fs::mount::{self, Mount};
use crate::fs::path::{FsContext, Path};
use crate::task::creds::Creds;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitflags::bitflags;
use hal::uapi::general::MS_NOSYMFOLLOW;
use qlib::Errno;

/// Longest name of one component.
pub const NAME_MAX: usize = 255;
/// Longest path an app may give, without the NUL.
pub const PATH_MAX: usize = 4095;
/// Symlinks followed in one walk.
const MAX_LINKS: u32 = 40;

bitflags! {
    /// How to walk.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Flags: u32 {
        /// A final symlink is followed.
        const FOLLOW = 1;
        /// The result must be a directory.
        const DIRECTORY = 2;
        /// An empty path means the starting place itself.
        const EMPTY = 4;
        /// RESOLVE_NO_XDEV.
        const NO_XDEV = 8;
        /// RESOLVE_NO_MAGICLINKS.
        const NO_MAGICLINKS = 16;
        /// RESOLVE_NO_SYMLINKS.
        const NO_SYMLINKS = 32;
        /// RESOLVE_BENEATH.
        const BENEATH = 64;
        /// RESOLVE_IN_ROOT.
        const IN_ROOT = 128;
    }
}

/// What a walk found.
pub struct Found {
    /// Where.
    pub path: Path,
    /// The status, when the last step learned it anyway.
    pub stat: Option<Stat>,
    /// The open file a magic link led to, when it has no path of its own.
    pub file: Option<Arc<crate::fs::File>>,
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// A name; `true` = slashes follow it.
    Name(Vec<u8>, bool),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// The path is `/`, or what it leads to was reached through a magic link.
    Root,
}

/// A walk in progress.
pub struct Walker<'a> {
    creds: &'a Creds,
    root: Path,
    /// Where the walk is.
    pub here: Path,
    rest: Vec<u8>,
    at: usize,
    links: u32,
    flags: Flags,
    stat: Option<Stat>,
    file: Option<Arc<crate::fs::File>>,
}

/// Whether `creds` may search the directory.
///
/// # Errors
/// EACCES; ENOTDIR.
pub fn may_search(creds: &Creds, dir: &Path) -> Result<(), Errno> {
    let inode = dir.inode();
    if inode.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    check(creds, &inode.attr()?, 1)
}

/// Checks `mask` (4 read, 2 write, 1 execute or search) against mode and owner.
///
/// # Errors
/// EACCES.
pub fn check(creds: &Creds, attr: &Attr, mask: u32) -> Result<(), Errno> {
    if creds.may_access(attr.mode, attr.uid, attr.gid, mask) {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

impl<'a> Walker<'a> {
    /// Starts at `at`, or at the working directory; an absolute path starts at the root.
    ///
    /// # Errors
    /// ENOENT for an empty path without [`Flags::EMPTY`]; EXDEV for an absolute path that must stay beneath.
    pub fn new(
        fs: &FsContext,
        creds: &'a Creds,
        at: Option<&Path>,
        path: &[u8],
        flags: Flags,
    ) -> Result<Self, Errno> {
        if path.is_empty() && !flags.contains(Flags::EMPTY) {
            return Err(Errno::ENOENT);
        }
        let start = match at {
            Some(p) => p.clone(),
            None => fs.cwd(),
        };
        let scoped = flags.intersects(Flags::BENEATH | Flags::IN_ROOT);
        let root = if scoped { start.clone() } else { fs.root() };
        let here = if path.first() == Some(&b'/') {
            if flags.contains(Flags::BENEATH) {
                return Err(Errno::EXDEV);
            }
            root.clone()
        } else {
            start.clone()
        };
        if flags.contains(Flags::NO_XDEV) && !Arc::ptr_eq(&here.mount, &start.mount) {
            return Err(Errno::EXDEV);
        }
        Ok(Self {
            creds,
            root,
            here,
            rest: path.to_vec(),
            at: 0,
            links: 0,
            flags,
            stat: None,
            file: None,
        })
    }

    /// The next component and whether it is the last, and whether slashes follow it.
    fn next(&mut self) -> Option<(Vec<u8>, bool, bool)> {
        while self.rest.get(self.at) == Some(&b'/') {
            self.at += 1;
        }
        let from = self.at;
        while self.at < self.rest.len() && self.rest[self.at] != b'/' {
            self.at += 1;
        }
        if from == self.at {
            return None;
        }
        let name = self.rest[from..self.at].to_vec();
        let slash = self.at < self.rest.len();
        let last = self.rest[self.at..].iter().all(|b| *b == b'/');
        Some((name, last, slash && last))
    }

    fn set_here(&mut self, to: Path) -> Result<(), Errno> {
        if self.flags.contains(Flags::NO_XDEV) && !Arc::ptr_eq(&to.mount, &self.here.mount) {
            return Err(Errno::EXDEV);
        }
        self.here = to;
        Ok(())
    }

    fn up(&mut self) -> Result<(), Errno> {
        if self.here.same(&self.root) {
            return if self.flags.contains(Flags::BENEATH) {
                Err(Errno::EXDEV)
            } else {
                Ok(())
            };
        }
        let parent = mount::descend(self.here.parent());
        self.set_here(parent)
    }

    /// Follows a symlink found at `link`; its target goes before the rest of the path.
    ///
    /// # Errors
    /// ELOOP; what the flags forbid; EACCES.
    pub fn follow(&mut self, link: &Path) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS || self.flags.contains(Flags::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        if link.mount.has(MS_NOSYMFOLLOW) {
            return Err(Errno::ELOOP);
        }
        if let Some(target) = link.inode().magic_link() {
            if self.flags.contains(Flags::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            if self.flags.intersects(Flags::BENEATH | Flags::IN_ROOT) {
                return Err(Errno::EXDEV);
            }
            match target? {
                MagicTarget::Path(p) => return self.set_here(p),
                MagicTarget::File(f) => {
                    if let Some(p) = f.path() {
                        let p = p.clone();
                        self.file = Some(f);
                        return self.set_here(p);
                    }
                    // Without a path the file itself is the target; `here` keeps the link's directory.
                    self.file = Some(f);
                    return Ok(());
                }
            }
        }
        let mut target = link.inode().read_link()?;
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target[0] == b'/' {
            if self.flags.contains(Flags::BENEATH) {
                return Err(Errno::EXDEV);
            }
            let root = self.root.clone();
            self.set_here(root)?;
        }
        // What is left keeps its leading slash, so a trailing slash still asks for a directory.
        target.extend_from_slice(&self.rest[self.at..]);
        self.rest = target;
        self.at = 0;
        Ok(())
    }

    /// Finds `name` in the directory the walk is at, and what is mounted there.
    ///
    /// # Errors
    /// ENOENT; EACCES.
    pub fn step(&mut self, name: &[u8]) -> Result<Path, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let (dentry, stat) = dcache::child(&self.here.dentry, name)?;
        let found = Path {
            mount: self.here.mount.clone(),
            dentry,
        };
        let below = mount::descend(found.clone());
        self.stat = if Arc::ptr_eq(&below.mount, &found.mount) {
            stat
        } else {
            None
        };
        if self.flags.contains(Flags::NO_XDEV) && !Arc::ptr_eq(&below.mount, &found.mount) {
            return Err(Errno::EXDEV);
        }
        Ok(below)
    }

    /// Walks to the directory of the last component.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG.
    pub fn to_parent(&mut self) -> Result<Last, Errno> {
        loop {
            let Some((name, last, slash)) = self.next() else {
                return Ok(Last::Root);
            };
            if self.file.as_ref().is_some_and(|f| f.path().is_none()) {
                return Err(Errno::ENOTDIR);
            }
            self.file = None;
            may_search(self.creds, &self.here)?;
            match name.as_slice() {
                b"." if last => return Ok(Last::Dot),
                b".." if last => return Ok(Last::DotDot),
                b"." => continue,
                b".." => {
                    self.up()?;
                    continue;
                }
                _ if last => return Ok(Last::Name(name, slash)),
                _ => {}
            }
            let found = self.step(&name)?;
            match found.inode().file_type() {
                FileType::Directory => self.here = found,
                FileType::Symlink => self.follow(&found)?,
                _ => return Err(Errno::ENOTDIR),
            }
        }
    }

    /// Walks to the end.
    ///
    /// # Errors
    /// As [`Walker::to_parent`].
    pub fn to_end(mut self) -> Result<Found, Errno> {
        loop {
            match self.to_parent()? {
                Last::Root | Last::Dot => break,
                Last::DotDot => {
                    self.up()?;
                    break;
                }
                Last::Name(name, slash) => {
                    let found = self.step(&name)?;
                    let kind = found.inode().file_type();
                    let follow = self.flags.contains(Flags::FOLLOW) || slash;
                    if kind == FileType::Symlink && follow {
                        self.stat = None;
                        self.follow(&found)?;
                        continue;
                    }
                    if slash && kind != FileType::Directory {
                        return Err(Errno::ENOTDIR);
                    }
                    self.here = found;
                    return self.finish();
                }
            }
        }
        self.stat = None;
        self.finish()
    }

    fn finish(self) -> Result<Found, Errno> {
        let pathless = self.file.as_ref().is_some_and(|f| f.path().is_none());
        if self.flags.contains(Flags::DIRECTORY)
            && (pathless || self.here.inode().file_type() != FileType::Directory)
        {
            return Err(Errno::ENOTDIR);
        }
        Ok(Found {
            path: self.here,
            stat: self.stat,
            file: self.file,
        })
    }

    /// The file a magic link led to.
    pub fn magic_file(&self) -> Option<&Arc<crate::fs::File>> {
        self.file.as_ref()
    }
    /// Goes to `..` of the place the walk is at, not above its root.
    ///
    /// # Errors
    /// EXDEV where the flags forbid it.
    pub fn step_up(&mut self) -> Result<(), Errno> {
        self.up()
    }
    /// The status the last [`Walker::step`] learned.
    pub fn last_stat(&self) -> Option<Stat> {
        self.stat
    }
}

/// Finds a place. A magic link to an object without a path gives ENXIO; see [`find`].
///
/// # Errors
/// As `path_resolution(7)`.
pub fn lookup(
    fs: &FsContext,
    creds: &Creds,
    at: Option<&Path>,
    path: &[u8],
    flags: Flags,
) -> Result<Path, Errno> {
    let found = find(fs, creds, at, path, flags)?;
    match found.file {
        Some(f) if f.path().is_none() => Err(Errno::ENXIO),
        _ => Ok(found.path),
    }
}

/// Finds a place and what the walk learned besides.
///
/// # Errors
/// As `path_resolution(7)`.
pub fn find(
    fs: &FsContext,
    creds: &Creds,
    at: Option<&Path>,
    path: &[u8],
    flags: Flags,
) -> Result<Found, Errno> {
    Walker::new(fs, creds, at, path, flags)?.to_end()
}

/// Finds the directory of a path's last component: directory, name, and whether slashes follow the name.
///
/// # Errors
/// As [`lookup`]; EEXIST when the path ends in `.`, `..` or is the root (callers that remove map it).
pub fn lookup_parent(
    fs: &FsContext,
    creds: &Creds,
    at: Option<&Path>,
    path: &[u8],
) -> Result<(Path, Vec<u8>, bool), Errno> {
    let mut w = Walker::new(fs, creds, at, path, Flags::empty())?;
    match w.to_parent()? {
        Last::Name(name, slash) => {
            if name.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            Ok((w.here, name, slash))
        }
        _ => Err(Errno::EEXIST),
    }
}

/// As [`lookup_parent`], telling what kind of last component there is.
///
/// # Errors
/// As [`lookup`].
pub fn parent_of(
    fs: &FsContext,
    creds: &Creds,
    at: Option<&Path>,
    path: &[u8],
) -> Result<(Path, Last), Errno> {
    let mut w = Walker::new(fs, creds, at, path, Flags::empty())?;
    let last = w.to_parent()?;
    Ok((w.here, last))
}

/// Whether a change on the mount is refused.
///
/// # Errors
/// EROFS.
pub fn writable(mount: &Mount) -> Result<(), Errno> {
    if mount.read_only() {
        Err(Errno::EROFS)
    } else {
        Ok(())
    }
}
