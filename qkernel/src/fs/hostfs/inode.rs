//! Inodes of host files: a name under a directory, opened only when needed.

use super::dir::HostDir;
use super::file::HostRegular;
use super::{HostFs, Opened};
use crate::fs::file::FileOps;
use crate::fs::inode::{Attr, FileType, Inode, InodeId, InodeRef, SetAttr, Stat};
use crate::fs::names::new_owner;
use crate::fs::special;
use crate::task::creds::Creds;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{self, Handle, HostFile, Owner};
use hal::sync::{Once, SpinLock};
use hal::uapi::general::{
    O_ACCMODE, O_CREAT, O_DIRECTORY, O_DSYNC, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, O_SYNC,
    O_TMPFILE, O_TRUNC, UTIME_OMIT,
};
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// Nothing is created: the owner does not matter.
const NO_OWNER: Owner = Owner {
    uid: u32::MAX,
    gid: u32::MAX,
};

/// Flags of an open that the host must know.
const HOST_FLAGS: u32 = O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC;

/// Where the object is found on the host.
#[derive(Clone)]
enum Place {
    /// The file system's own directory.
    Root,
    /// An entry of a directory.
    Name(Arc<HostInode>, Vec<u8>),
    /// The name was removed.
    Gone,
}

/// An object of a host directory tree.
pub struct HostInode {
    fs: Arc<HostFs>,
    this: Weak<HostInode>,
    /// Known from the first lookup; asked for when the kernel made the file itself.
    id: Once<InodeId>,
    kind: FileType,
    rdev: u64,
    /// Cached attributes and the generation they belong to.
    attr: SpinLock<(Attr, u64)>,
    place: SpinLock<Place>,
    /// A directory's handle, opened when it is first needed.
    dir: SpinLock<Option<Arc<HostFile>>>,
    opened: SpinLock<Vec<Opened>>,
}

/// What a host call works on: a handle, and a name under it or nothing.
struct Target {
    handle: Arc<HostFile>,
    name: Vec<u8>,
}

impl Target {
    fn handle(&self) -> Handle {
        self.handle.handle()
    }
}

impl HostInode {
    pub(super) fn root(fs: &Arc<HostFs>, handle: Arc<HostFile>, stat: &Stat) -> Arc<Self> {
        Self::make(fs, Place::Root, Some(handle), stat)
    }

    fn make(fs: &Arc<HostFs>, place: Place, dir: Option<Arc<HostFile>>, stat: &Stat) -> Arc<Self> {
        let id = Once::new();
        if stat.ino != 0 {
            id.call_once(|| InodeId {
                dev: stat.dev,
                ino: stat.ino,
            });
        }
        Arc::new_cyclic(|this| Self {
            fs: fs.clone(),
            this: this.clone(),
            id,
            kind: FileType::from_mode(stat.mode),
            rdev: stat.rdev,
            attr: SpinLock::new((Attr::of(stat), fs.generation())),
            place: SpinLock::new(place),
            dir: SpinLock::new(dir),
            opened: SpinLock::default(),
        })
    }

    /// This directory as the place of entry `name`.
    fn entry(&self, name: &[u8]) -> Result<Place, Errno> {
        let me = self.this.upgrade().ok_or(Errno::ENOENT)?;
        Ok(Place::Name(me, name.to_vec()))
    }

    /// The inode of an entry this kernel just made.
    fn made(&self, name: &[u8], mode: u32, owner: Owner, rdev: u64) -> Result<Arc<Self>, Errno> {
        let stat = Stat {
            mode,
            uid: owner.uid,
            gid: owner.gid,
            rdev,
            ..Stat::default()
        };
        Ok(Self::make(&self.fs, self.entry(name)?, None, &stat))
    }

    fn owner(&self, creds: &Creds) -> Result<Owner, Errno> {
        Ok(new_owner(&self.attr()?, creds))
    }

    /// The handle of a directory for calls on its entries.
    fn dir_handle(&self) -> Result<Arc<HostFile>, Errno> {
        if let Some(h) = self.dir.lock().clone() {
            return Ok(h);
        }
        let target = self.named()?;
        let flags = O_PATH | O_DIRECTORY | O_NOFOLLOW;
        let fresh = Arc::new(host::open(target.handle(), &target.name, flags, 0, NO_OWNER)?);
        let mut dir = self.dir.lock();
        let handle = dir.get_or_insert_with(|| fresh.clone()).clone();
        drop(dir);
        Ok(handle)
    }

    /// The object by its name.
    fn named(&self) -> Result<Target, Errno> {
        let place = self.place.lock().clone();
        match place {
            Place::Root => Ok(Target {
                handle: self.fs.handle.clone(),
                name: Vec::new(),
            }),
            Place::Name(parent, name) => Ok(Target {
                handle: parent.dir_handle()?,
                name,
            }),
            Place::Gone => Err(Errno::ENOENT),
        }
    }

    /// The object by its name, or by an open handle when the name is gone.
    fn target(&self) -> Result<Target, Errno> {
        match self.named() {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let mut handle = self.dir.lock().clone();
        if handle.is_none() {
            handle = self.opened.lock().iter().find_map(|o| o.handle.upgrade());
        }
        Ok(Target {
            handle: handle.ok_or(Errno::ENOENT)?,
            name: Vec::new(),
        })
    }

    /// Calls the host with the object's place, again when it was renamed meanwhile.
    fn at<T>(&self, f: impl Fn(Handle, &[u8]) -> Result<T, Errno>) -> Result<T, Errno> {
        for _ in 0..3 {
            let t = self.target()?;
            match f(t.handle(), &t.name) {
                Err(Errno::ENOENT) if !t.name.is_empty() => {
                    let again = self.target()?;
                    if again.name == t.name && Arc::ptr_eq(&again.handle, &t.handle) {
                        return Err(Errno::ENOENT);
                    }
                }
                other => return other,
            }
        }
        Err(Errno::ENOENT)
    }

    /// Remembers an open handle, by which the object is reached when its name is gone.
    fn remember(&self, access: u32, handle: &Arc<HostFile>) {
        let mut opened = self.opened.lock();
        opened.retain(|o| o.handle.strong_count() > 0);
        opened.push(Opened {
            access,
            handle: Arc::downgrade(handle),
        });
    }

    /// An open handle that allows `access`.
    fn open_handle(&self, access: u32) -> Option<Arc<HostFile>> {
        let allows = |o: &Opened| o.access == access || o.access == O_RDWR;
        let opened = self.opened.lock();
        opened
            .iter()
            .filter(|o| allows(o))
            .find_map(|o| o.handle.upgrade())
    }

    fn set_cached(&self, change: impl FnOnce(&mut Attr)) {
        change(&mut self.attr.lock().0);
        if self.kind != FileType::Directory {
            self.fs.attributes_changed();
            self.attr.lock().1 = self.fs.generation();
        }
    }

    /// Drops set-user-ID and set-group-ID, as a write by someone without CAP_FSETID does.
    pub(super) fn drop_privileges(&self) {
        let mode = self.attr.lock().0.mode;
        let mut drop_bits = mode & 0o4000;
        if mode & 0o2010 == 0o2010 {
            drop_bits |= 0o2000;
        }
        let privileged =
            crate::task::current().is_none_or(|t| t.creds().capable(crate::task::creds::cap::FSETID));
        if drop_bits != 0 && !privileged {
            // Failing to drop them is no reason to fail the write that was already allowed.
            let _ = self.set_attr(&SetAttr {
                mode: Some(mode & !drop_bits & 0o7777),
                ..SetAttr::default()
            });
        }
    }

    fn open_regular(&self, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        let access = flags & O_ACCMODE;
        let opened = self
            .named()
            .and_then(|t| host::open(t.handle(), &t.name, flags & HOST_FLAGS | O_NOFOLLOW, 0, NO_OWNER));
        let handle = match opened {
            Ok(h) => Arc::new(h),
            // Without a name only what is open already can be had again.
            Err(Errno::ENOENT) => {
                let h = self.open_handle(access).ok_or(Errno::ENOENT)?;
                if flags & O_TRUNC != 0 {
                    host::truncate(h.handle(), 0)?;
                }
                h
            }
            Err(e) => return Err(e),
        };
        self.remember(access, &handle);
        let me = self.this.upgrade().ok_or(Errno::ENOENT)?;
        Ok(HostRegular::new(me, handle))
    }
}

impl Inode for HostInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        self.kind
    }
    fn id(&self) -> InodeId {
        if let Some(id) = self.id.get() {
            return *id;
        }
        let Ok(s) = self.stat() else {
            return InodeId::default();
        };
        *self.id.call_once(|| InodeId {
            dev: s.dev,
            ino: s.ino,
        })
    }
    fn attr(&self) -> Result<Attr, Errno> {
        let (attr, generation) = *self.attr.lock();
        if self.kind == FileType::Directory || generation == self.fs.generation() {
            return Ok(attr);
        }
        self.stat().map(|s| Attr::of(&s))
    }
    fn stat(&self) -> Result<Stat, Errno> {
        let generation = self.fs.generation();
        let s = self.at(host::stat)?;
        *self.attr.lock() = (Attr::of(&s), generation);
        Ok(s)
    }
    fn refresh(&self, stat: &Stat) {
        *self.attr.lock() = (Attr::of(stat), self.fs.generation());
    }
    fn cacheable(&self) -> bool {
        self.fs.exclusive
    }
    fn keep_entries(&self) -> bool {
        true
    }
    fn open(&self, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        match self.kind {
            FileType::Regular => self.open_regular(flags),
            FileType::Directory => {
                let t = self.target()?;
                let name: &[u8] = if t.name.is_empty() { b"." } else { &t.name };
                let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
                let handle = Arc::new(host::open(t.handle(), name, flags, 0, NO_OWNER)?);
                self.remember(O_RDONLY, &handle);
                let root = matches!(*self.place.lock(), Place::Root);
                Ok(HostDir::new(handle, root.then(|| self.id().ino)))
            }
            FileType::Fifo => special::open_fifo(self.id(), flags),
            FileType::CharDevice | FileType::BlockDevice => {
                special::open_device(self.kind == FileType::BlockDevice, self.rdev, flags, creds)
            }
            FileType::Symlink => Err(Errno::ELOOP),
            FileType::Socket => Err(Errno::ENXIO),
        }
    }
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        self.lookup_stat(name).map(|(i, _)| i)
    }
    fn lookup_stat(&self, name: &[u8]) -> Result<(InodeRef, Option<Stat>), Errno> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let dir = self.dir_handle()?;
        let s = host::stat(dir.handle(), name)?;
        let inode = Self::make(&self.fs, self.entry(name)?, None, &s);
        Ok((inode, Some(s)))
    }
    fn moved(&self, new_dir: &InodeRef, new_name: &[u8]) {
        let Some(parent) = new_dir.as_any().downcast_ref::<HostInode>() else {
            return;
        };
        if let Ok(place) = parent.entry(new_name) {
            let old = core::mem::replace(&mut *self.place.lock(), place);
            drop(old);
        }
    }
    fn pin(&self) {
        let open =
            self.dir.lock().is_some() || self.opened.lock().iter().any(|o| o.handle.strong_count() > 0);
        if open {
            return;
        }
        // Without a handle the object is merely out of reach afterwards, as on a network file system.
        if let Ok(t) = self.named()
            && let Ok(h) = host::open(t.handle(), &t.name, O_PATH | O_NOFOLLOW, 0, NO_OWNER)
        {
            *self.dir.lock() = Some(Arc::new(h));
        }
    }
    fn unlinked(&self) {
        let old = core::mem::replace(&mut *self.place.lock(), Place::Gone);
        drop(old);
    }
    fn create(
        &self,
        name: &[u8],
        mode: u32,
        flags: u32,
        creds: &Creds,
    ) -> Result<(InodeRef, Arc<dyn FileOps>), Errno> {
        let dir = self.dir_handle()?;
        let owner = self.owner(creds)?;
        let host_flags = flags & HOST_FLAGS | O_CREAT | O_EXCL | O_NOFOLLOW;
        let handle = Arc::new(host::open(dir.handle(), name, host_flags, mode & 0o7777, owner)?);
        let mode = mode & 0o7777 | FileType::Regular.mode_bits();
        let inode = self.made(name, mode, owner, 0)?;
        inode.remember(flags & O_ACCMODE, &handle);
        let ops = HostRegular::new(inode.clone(), handle);
        Ok((inode, ops))
    }
    fn tmpfile(&self, mode: u32, flags: u32, creds: &Creds) -> Result<(InodeRef, Arc<dyn FileOps>), Errno> {
        let dir = self.dir_handle()?;
        let owner = self.owner(creds)?;
        let host_flags = flags & (HOST_FLAGS | O_EXCL) & !O_TRUNC | O_TMPFILE;
        let handle = Arc::new(host::open(dir.handle(), b".", host_flags, mode & 0o7777, owner)?);
        let mode = mode & 0o7777 | FileType::Regular.mode_bits();
        let inode = self.made(b"", mode, owner, 0)?;
        inode.unlinked();
        inode.remember(flags & O_ACCMODE, &handle);
        let ops = HostRegular::new(inode.clone(), handle);
        Ok((inode, ops))
    }
    fn mkdir(&self, name: &[u8], mode: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        let owner = self.owner(creds)?;
        let dir = self.dir_handle()?;
        host::mkdir(dir.handle(), name, mode & 0o7777, owner)?;
        if mode & 0o6000 != 0 {
            // `mkdir` takes no set-ID bits; the host's own inheritance does not see the owner that was asked for.
            host::chmod(dir.handle(), name, mode & 0o7777)?;
        }
        let mode = mode & 0o7777 | FileType::Directory.mode_bits();
        Ok(self.made(name, mode, owner, 0)?)
    }
    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, creds: &Creds) -> Result<InodeRef, Errno> {
        let owner = self.owner(creds)?;
        host::mknod(self.dir_handle()?.handle(), name, mode, rdev, owner)?;
        let mode = if mode & 0o170_000 == 0 {
            mode | FileType::Regular.mode_bits()
        } else {
            mode
        };
        Ok(self.made(name, mode, owner, rdev)?)
    }
    fn symlink(&self, name: &[u8], target: &[u8], creds: &Creds) -> Result<InodeRef, Errno> {
        let owner = self.owner(creds)?;
        host::symlink(self.dir_handle()?.handle(), name, target, owner)?;
        Ok(self.made(name, FileType::Symlink.mode_bits() | 0o777, owner, 0)?)
    }
    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        let target = target.as_any().downcast_ref::<HostInode>().ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&self.fs, &target.fs) {
            return Err(Errno::EXDEV);
        }
        let dir = self.dir_handle()?;
        target.at(|h, old| host::link(h, old, dir.handle(), name))?;
        // An O_TMPFILE file gets its first name here.
        if matches!(*target.place.lock(), Place::Gone) {
            let place = self.entry(name)?;
            *target.place.lock() = place;
        }
        Ok(())
    }
    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        host::unlink(self.dir_handle()?.handle(), name, false)
    }
    fn rmdir(&self, name: &[u8]) -> Result<(), Errno> {
        host::unlink(self.dir_handle()?.handle(), name, true)
    }
    fn rename(&self, name: &[u8], new_dir: &InodeRef, new_name: &[u8], flags: u32) -> Result<(), Errno> {
        let to = new_dir.as_any().downcast_ref::<HostInode>().ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&self.fs, &to.fs) {
            return Err(Errno::EXDEV);
        }
        let from = self.dir_handle()?;
        host::rename(from.handle(), name, to.dir_handle()?.handle(), new_name, flags)
    }
    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        if self.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        self.at(host::read_link)
    }
    fn set_attr(&self, a: &SetAttr) -> Result<(), Errno> {
        if a.uid.is_some() || a.gid.is_some() {
            let (uid, gid) = (a.uid.unwrap_or(u32::MAX), a.gid.unwrap_or(u32::MAX));
            self.at(|h, n| host::chown(h, n, uid, gid))?;
            self.set_cached(|attr| {
                attr.uid = a.uid.unwrap_or(attr.uid);
                attr.gid = a.gid.unwrap_or(attr.gid);
            });
        }
        if let Some(mode) = a.mode {
            self.at(|h, n| host::chmod(h, n, mode & 0o7777))?;
            self.set_cached(|attr| attr.mode = attr.mode & !0o7777 | mode & 0o7777);
        }
        if a.atime.is_some() || a.mtime.is_some() {
            let omit = (0, i64::from(UTIME_OMIT));
            let times = [a.atime.unwrap_or(omit), a.mtime.unwrap_or(omit)];
            self.at(|h, n| host::set_times(h, n, times))?;
        }
        Ok(())
    }
    fn truncate(&self, len: u64) -> Result<(), Errno> {
        let handle = match self.open_handle(hal::uapi::general::O_WRONLY) {
            Some(h) => h,
            None => {
                let t = self.named()?;
                let flags = hal::uapi::general::O_WRONLY | O_NOFOLLOW;
                Arc::new(host::open(t.handle(), &t.name, flags, 0, NO_OWNER)?)
            }
        };
        host::truncate(handle.handle(), len)?;
        self.drop_privileges();
        Ok(())
    }
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.at(|h, n| host::get_xattr(h, n, name))
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        self.at(|h, n| host::set_xattr(h, n, name, value, flags))
    }
    fn list_xattr(&self) -> Result<Vec<u8>, Errno> {
        self.at(host::list_xattr)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.at(|h, n| host::remove_xattr(h, n, name))
    }
    fn statfs(&self) -> Result<HostStatFs, Errno> {
        let place = self.place.lock().clone();
        let dir = match place {
            Place::Name(parent, _) if self.kind != FileType::Directory => parent.dir_handle()?,
            Place::Gone => self.target()?.handle,
            _ => self.dir_handle()?,
        };
        host::statfs(dir.handle())
    }
}

impl Drop for HostInode {
    fn drop(&mut self) {
        // A chain of directories that only their entries kept alive is taken apart in a loop, not by recursion.
        let mut next = core::mem::replace(self.place.get_mut(), Place::Gone);
        while let Place::Name(parent, _) = next {
            next = match Arc::into_inner(parent) {
                Some(mut p) => core::mem::replace(p.place.get_mut(), Place::Gone),
                None => Place::Gone,
            };
        }
    }
}
