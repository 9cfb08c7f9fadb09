//! Inodes of tmpfs.

use super::data::Data;
use super::file::{TmpDir, TmpFile};
use super::{PAGE, Tmpfs};
use crate::fs::file::FileOps;
use crate::fs::inode::{Attr, FileType, Inode, InodeId, InodeRef, SetAttr, Stat};
use crate::fs::names::new_owner;
use crate::fs::special;
use crate::sched::wait::SleepLock;
use crate::task::creds::Creds;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};
use hal::host::{HostFile, Owner};
use hal::sync::SpinLock;
use hal::uapi::general::{O_TRUNC, RENAME_EXCHANGE, UTIME_NOW, UTIME_OMIT, XATTR_CREATE, XATTR_REPLACE};
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// F_SEAL_* of memory files.
#[allow(missing_docs)]
pub mod seal {
    pub const SEAL: u32 = 1;
    pub const SHRINK: u32 = 2;
    pub const GROW: u32 = 4;
    pub const WRITE: u32 = 8;
    pub const FUTURE_WRITE: u32 = 16;
    pub const EXEC: u32 = 32;
}

struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    atime: (i64, i64),
    mtime: (i64, i64),
    ctime: (i64, i64),
    btime: (i64, i64),
}

#[derive(Default)]
struct Entries {
    by_name: BTreeMap<Vec<u8>, (Arc<TmpInode>, u64)>,
    by_cookie: BTreeMap<u64, Vec<u8>>,
    last: u64,
}

impl Entries {
    fn insert(&mut self, name: &[u8], inode: Arc<TmpInode>) {
        // 0 and 1 are `.` and `..`.
        self.last = self.last.max(1) + 1;
        self.by_cookie.insert(self.last, name.to_vec());
        self.by_name.insert(name.to_vec(), (inode, self.last));
    }
    fn remove(&mut self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let (inode, cookie) = self.by_name.remove(name)?;
        self.by_cookie.remove(&cookie);
        Some(inode)
    }
}

enum Node {
    Dir(SpinLock<Entries>),
    File(Box<SleepLock<Data>>),
    Link(Vec<u8>),
    Special(u64),
}

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// An object of a tmpfs.
pub struct TmpInode {
    fs: Arc<Tmpfs>,
    this: Weak<TmpInode>,
    ino: u64,
    kind: FileType,
    meta: SpinLock<Meta>,
    node: Node,
    xattrs: SpinLock<Option<Box<Xattrs>>>,
    seals: AtomicU32,
}

fn now() -> (i64, i64) {
    let ns = hal::clock::realtime_ns();
    ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64)
}

impl TmpInode {
    fn make(fs: &Arc<Tmpfs>, ino: u64, mode: u32, owner: Owner, node: Node) -> Arc<Self> {
        let t = now();
        let kind = FileType::from_mode(mode);
        Arc::new_cyclic(|this| Self {
            fs: fs.clone(),
            this: this.clone(),
            ino,
            kind,
            meta: SpinLock::new(Meta {
                mode,
                uid: owner.uid,
                gid: owner.gid,
                nlink: if kind == FileType::Directory { 2 } else { 1 },
                atime: t,
                mtime: t,
                ctime: t,
                btime: t,
            }),
            node,
            xattrs: SpinLock::new(None),
            seals: AtomicU32::new(seal::SEAL),
        })
    }
    /// The file system it is in.
    pub fn tmpfs(&self) -> &Arc<Tmpfs> {
        &self.fs
    }
    pub(super) fn directory(fs: &Arc<Tmpfs>, mode: u32, owner: Owner, ino: u64) -> InodeRef {
        let ino = if ino == 0 {
            fs.take_inode().unwrap_or(1)
        } else {
            ino
        };
        let mode = mode & 0o7777 | FileType::Directory.mode_bits();
        Self::make(fs, ino, mode, owner, Node::Dir(SpinLock::default()))
    }
    pub(super) fn loose(fs: &Arc<Tmpfs>, mode: u32, rdev: u64) -> InodeRef {
        let owner = Owner { uid: 0, gid: 0 };
        let ino = fs.take_inode().unwrap_or(1);
        let node = match FileType::from_mode(mode) {
            FileType::Regular => Node::File(Box::default()),
            _ => Node::Special(rdev),
        };
        Self::make(fs, ino, mode, owner, node)
    }
    /// A regular file without a name.
    ///
    /// # Errors
    /// ENOSPC.
    pub fn unnamed(fs: &Arc<Tmpfs>, mode: u32, owner: Owner) -> Result<Arc<Self>, Errno> {
        let ino = fs.take_inode()?;
        let mode = mode & 0o7777 | FileType::Regular.mode_bits();
        let inode = Self::make(fs, ino, mode, owner, Node::File(Box::default()));
        inode.meta.lock().nlink = 0;
        Ok(inode)
    }
    /// Sets the first seals of a memory file.
    pub fn set_seals(&self, seals: u32) {
        self.seals.store(seals, Ordering::Release);
    }
    pub(super) fn fs(&self) -> &Arc<Tmpfs> {
        &self.fs
    }
    pub(super) fn ino(&self) -> u64 {
        self.ino
    }
    pub(super) fn seals(&self) -> u32 {
        self.seals.load(Ordering::Acquire)
    }
    pub(super) fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        const ALL: u32 =
            seal::SEAL | seal::SHRINK | seal::GROW | seal::WRITE | seal::FUTURE_WRITE | seal::EXEC;
        if seals & !ALL != 0 {
            return Err(Errno::EINVAL);
        }
        let add = |old: u32| (old & seal::SEAL == 0).then_some(old | seals);
        self.seals
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)
            .map(|_| ())
            .map_err(|_| Errno::EPERM)
    }
    pub(super) fn file(&self) -> Result<&SleepLock<Data>, Errno> {
        match &self.node {
            Node::File(d) => Ok(d),
            _ => Err(Errno::EINVAL),
        }
    }
    fn dir(&self) -> Result<&SpinLock<Entries>, Errno> {
        match &self.node {
            Node::Dir(d) => Ok(d),
            _ => Err(Errno::ENOTDIR),
        }
    }
    /// Contents were read: the access time moves as with `relatime`.
    pub(super) fn accessed(&self) {
        let mut m = self.meta.lock();
        if m.atime <= m.mtime || m.atime <= m.ctime {
            m.atime = now();
        }
    }
    /// What gave rights to the file as it was gives none to what it becomes.
    fn drop_file_caps(&self) {
        if let Some(x) = self.xattrs.lock().as_mut() {
            x.remove(&b"security.capability"[..]);
        }
    }
    /// Contents changed; a write also drops set-user-ID and capabilities.
    pub(super) fn modified(&self, written: bool) {
        if written {
            self.drop_file_caps();
        }
        let privileged = !written
            || crate::task::current().is_none_or(|t| t.creds().capable(crate::task::creds::cap::FSETID));
        let t = now();
        let mut m = self.meta.lock();
        m.mtime = t;
        m.ctime = t;
        if !privileged && m.mode & 0o6000 != 0 {
            m.mode &= !0o4000;
            if m.mode & 0o010 != 0 {
                m.mode &= !0o2000;
            }
        }
    }
    /// The contents are about to be mapped: moving them to the host's memory was no change.
    pub(super) fn mapped(&self) -> Result<Arc<HostFile>, Errno> {
        let mut data = self.file()?.lock();
        if let Some(h) = data.host() {
            return Ok(h.clone());
        }
        let h = data.to_host()?;
        let at = self.meta.lock().mtime;
        data.set_modified(at);
        Ok(h)
    }
    fn changed(&self) {
        self.meta.lock().ctime = now();
    }
    /// The first entry at or after position `pos`: position, name, inode, DT_* type.
    pub(super) fn entry_from(&self, pos: u64) -> Option<(u64, Vec<u8>, u64, u8)> {
        let dir = self.dir().ok()?.lock();
        let (cookie, name) = dir.by_cookie.range(pos..).next()?;
        let (inode, _) = dir.by_name.get(name)?;
        Some((*cookie, name.clone(), inode.ino, inode.kind.dirent_type()))
    }
    /// Puts a new inode under `name`.
    fn add(&self, name: &[u8], mode: u32, creds: &Creds, node: Node) -> Result<Arc<TmpInode>, Errno> {
        let owner = new_owner(&self.attr()?, creds);
        if self.meta.lock().nlink == 0 {
            return Err(Errno::ENOENT);
        }
        let ino = self.fs.take_inode()?;
        let inode = Self::make(&self.fs, ino, mode, owner, node);
        let taken = {
            let mut dir = self.dir()?.lock();
            if dir.by_name.contains_key(name) {
                true
            } else {
                dir.insert(name, inode.clone());
                false
            }
        };
        if taken {
            return Err(Errno::EEXIST);
        }
        if inode.kind == FileType::Directory {
            self.meta.lock().nlink += 1;
        }
        self.modified(false);
        Ok(inode)
    }
    fn find(&self, name: &[u8]) -> Result<Arc<TmpInode>, Errno> {
        let dir = self.dir()?.lock();
        dir.by_name.get(name).map(|(i, _)| i.clone()).ok_or(Errno::ENOENT)
    }
    /// Takes an entry out.
    fn take(&self, name: &[u8]) -> Result<Arc<TmpInode>, Errno> {
        let inode = self.dir()?.lock().remove(name).ok_or(Errno::ENOENT)?;
        let t = now();
        {
            let mut m = inode.meta.lock();
            m.nlink = m
                .nlink
                .saturating_sub(if inode.kind == FileType::Directory { 2 } else { 1 });
            m.ctime = t;
        }
        if inode.kind == FileType::Directory {
            let mut m = self.meta.lock();
            m.nlink = m.nlink.saturating_sub(1);
        }
        self.modified(false);
        Ok(inode)
    }
    fn is_empty_dir(&self) -> bool {
        self.dir().is_ok_and(|d| d.lock().by_name.is_empty())
    }
    fn as_tmp(i: &InodeRef) -> Result<Arc<TmpInode>, Errno> {
        let t = i.as_any().downcast_ref::<TmpInode>().ok_or(Errno::EXDEV)?;
        t.this.upgrade().ok_or(Errno::ENOENT)
    }
}

impl Inode for TmpInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        self.kind
    }
    fn id(&self) -> InodeId {
        InodeId {
            dev: self.fs.dev,
            ino: self.ino,
        }
    }
    fn attr(&self) -> Result<Attr, Errno> {
        let m = self.meta.lock();
        Ok(Attr {
            mode: m.mode,
            uid: m.uid,
            gid: m.gid,
        })
    }
    fn stat(&self) -> Result<Stat, Errno> {
        let mut written = None;
        let (size, blocks, rdev) = match &self.node {
            Node::Dir(d) => (d.lock().by_name.len() as u64 * 20 + 40, 0, 0),
            Node::File(d) => {
                let d = d.lock();
                let (blocks, at) = d.usage();
                written = at;
                (d.size(), blocks, 0)
            }
            Node::Link(t) => (t.len() as u64, 0, 0),
            Node::Special(rdev) => (0, 0, *rdev),
        };
        let mut m = self.meta.lock();
        if let Some(at) = written.filter(|at| *at > m.mtime) {
            m.mtime = at;
            m.ctime = m.ctime.max(at);
        }
        Ok(Stat {
            dev: self.fs.dev,
            ino: self.ino,
            mode: m.mode,
            nlink: m.nlink,
            uid: m.uid,
            gid: m.gid,
            rdev,
            size,
            blksize: PAGE,
            blocks,
            atime_s: m.atime.0,
            atime_ns: m.atime.1 as u64,
            mtime_s: m.mtime.0,
            mtime_ns: m.mtime.1 as u64,
            ctime_s: m.ctime.0,
            ctime_ns: m.ctime.1 as u64,
            btime_s: m.btime.0,
            btime_ns: m.btime.1 as u64,
        })
    }
    fn keep_entries(&self) -> bool {
        true
    }
    fn open(&self, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        let me = self.this.upgrade().ok_or(Errno::ENOENT)?;
        match &self.node {
            Node::File(_) => {
                if flags & O_TRUNC != 0 {
                    self.truncate(0)?;
                }
                Ok(TmpFile::new(me))
            }
            Node::Dir(_) => Ok(TmpDir::new(me)),
            Node::Link(_) => Err(Errno::ELOOP),
            Node::Special(rdev) => match self.kind {
                FileType::Fifo => special::open_fifo(self.id(), flags),
                FileType::CharDevice => special::open_device(false, *rdev, flags, creds),
                FileType::BlockDevice => special::open_device(true, *rdev, flags, creds),
                _ => Err(Errno::ENXIO),
            },
        }
    }
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        Ok(self.find(name)?)
    }
    fn create(
        &self,
        name: &[u8],
        mode: u32,
        _flags: u32,
        creds: &Creds,
    ) -> Result<(InodeRef, Arc<dyn FileOps>), Errno> {
        let mode = mode & 0o7777 | FileType::Regular.mode_bits();
        let inode = self.add(name, mode, creds, Node::File(Box::default()))?;
        let ops = TmpFile::new(inode.clone());
        Ok((inode, ops))
    }
    fn tmpfile(&self, mode: u32, _flags: u32, creds: &Creds) -> Result<(InodeRef, Arc<dyn FileOps>), Errno> {
        let inode = Self::unnamed(&self.fs, mode, new_owner(&self.attr()?, creds))?;
        let ops = TmpFile::new(inode.clone());
        Ok((inode, ops))
    }
    fn mkdir(&self, name: &[u8], mode: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        let mode = mode & 0o7777 | FileType::Directory.mode_bits();
        Ok(self.add(name, mode, creds, Node::Dir(SpinLock::default()))?)
    }
    fn mknod(&self, name: &[u8], mode: u32, rdev: u64, creds: &Creds) -> Result<InodeRef, Errno> {
        let kind = FileType::from_mode(mode);
        let node = match kind {
            FileType::Regular => Node::File(Box::default()),
            _ => Node::Special(rdev),
        };
        Ok(self.add(name, mode & 0o7777 | kind.mode_bits(), creds, node)?)
    }
    fn symlink(&self, name: &[u8], target: &[u8], creds: &Creds) -> Result<InodeRef, Errno> {
        let mode = FileType::Symlink.mode_bits() | 0o777;
        Ok(self.add(name, mode, creds, Node::Link(target.to_vec()))?)
    }
    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        let target = Self::as_tmp(target)?;
        if !Arc::ptr_eq(&self.fs, &target.fs) {
            return Err(Errno::EXDEV);
        }
        if self.meta.lock().nlink == 0 {
            return Err(Errno::ENOENT);
        }
        {
            let mut dir = self.dir()?.lock();
            if dir.by_name.contains_key(name) {
                return Err(Errno::EEXIST);
            }
            dir.insert(name, target.clone());
        }
        {
            let mut m = target.meta.lock();
            m.nlink += 1;
            m.ctime = now();
        }
        self.modified(false);
        Ok(())
    }
    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        self.take(name).map(drop)
    }
    fn rmdir(&self, name: &[u8]) -> Result<(), Errno> {
        if !self.find(name)?.is_empty_dir() {
            return Err(Errno::ENOTEMPTY);
        }
        self.take(name).map(drop)
    }
    fn rename(&self, name: &[u8], new_dir: &InodeRef, new_name: &[u8], flags: u32) -> Result<(), Errno> {
        let to = Self::as_tmp(new_dir)?;
        if !Arc::ptr_eq(&self.fs, &to.fs) {
            return Err(Errno::EXDEV);
        }
        let source = self.find(name)?;
        let target = to.find(new_name).ok();
        let dirs = |i: &TmpInode| (i.kind == FileType::Directory) as u32;
        if flags & RENAME_EXCHANGE != 0 {
            let target = target.ok_or(Errno::ENOENT)?;
            // The names keep their positions; only what they lead to is exchanged.
            if let Some(e) = self.dir()?.lock().by_name.get_mut(name) {
                e.0 = target.clone();
            }
            if let Some(e) = to.dir()?.lock().by_name.get_mut(new_name) {
                e.0 = source.clone();
            }
            if to.ino != self.ino {
                let mut m = self.meta.lock();
                m.nlink = m.nlink + dirs(&target) - dirs(&source);
                drop(m);
                let mut m = to.meta.lock();
                m.nlink = m.nlink + dirs(&source) - dirs(&target);
            }
            target.changed();
        } else {
            if let Some(t) = &target {
                if t.kind == FileType::Directory && !t.is_empty_dir() {
                    return Err(Errno::ENOTEMPTY);
                }
                drop(to.take(new_name)?);
            }
            let moved = self.dir()?.lock().remove(name).ok_or(Errno::ENOENT)?;
            to.dir()?.lock().insert(new_name, moved);
            if source.kind == FileType::Directory {
                self.meta.lock().nlink -= 1;
                to.meta.lock().nlink += 1;
            }
        }
        source.changed();
        self.modified(false);
        to.modified(false);
        Ok(())
    }
    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        match &self.node {
            Node::Link(t) => Ok(t.clone()),
            _ => Err(Errno::EINVAL),
        }
    }
    fn set_attr(&self, a: &SetAttr) -> Result<(), Errno> {
        let t = now();
        let mut m = self.meta.lock();
        if let Some(mode) = a.mode {
            if self.seals() & seal::EXEC != 0 && (m.mode ^ mode) & 0o111 != 0 {
                return Err(Errno::EPERM);
            }
            m.mode = m.mode & !0o7777 | mode & 0o7777;
        }
        m.uid = a.uid.unwrap_or(m.uid);
        m.gid = a.gid.unwrap_or(m.gid);
        let stamp = |old: (i64, i64), new: Option<(i64, i64)>| match new {
            None => old,
            Some((_, ns)) if ns == i64::from(UTIME_OMIT) => old,
            Some((_, ns)) if ns == i64::from(UTIME_NOW) => t,
            Some(v) => v,
        };
        m.atime = stamp(m.atime, a.atime);
        m.mtime = stamp(m.mtime, a.mtime);
        m.ctime = t;
        let at = m.mtime;
        drop(m);
        if a.uid.is_some() || a.gid.is_some() {
            self.drop_file_caps();
        }
        if let (Node::File(d), Some(_)) = (&self.node, a.mtime) {
            d.lock().set_modified(at);
        }
        Ok(())
    }
    fn truncate(&self, len: u64) -> Result<(), Errno> {
        let seals = self.seals();
        {
            let mut data = self.file()?.lock();
            if len < data.size() && seals & seal::SHRINK != 0 || len > data.size() && seals & seal::GROW != 0
            {
                return Err(Errno::EPERM);
            }
            data.truncate(&self.fs, len)?;
        }
        self.modified(true);
        Ok(())
    }
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let x = self.xattrs.lock();
        x.as_ref()
            .and_then(|x| x.get(name))
            .cloned()
            .ok_or(Errno::ENODATA)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        if !xattr_kept(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        {
            let mut x = self.xattrs.lock();
            let x = x.get_or_insert_with(Box::default);
            let there = x.contains_key(name);
            if there && flags & XATTR_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            if !there && flags & XATTR_REPLACE != 0 {
                return Err(Errno::ENODATA);
            }
            // Bounds what one inode can make the kernel keep.
            let total: usize = x.iter().map(|(k, v)| k.len() + v.len()).sum();
            if total + name.len() + value.len() > 128 * 1024 {
                return Err(Errno::ENOSPC);
            }
            x.insert(name.to_vec(), value.to_vec());
        }
        self.changed();
        Ok(())
    }
    fn list_xattr(&self) -> Result<Vec<u8>, Errno> {
        let x = self.xattrs.lock();
        let mut out = Vec::new();
        for name in x.iter().flat_map(|x| x.keys()) {
            out.extend_from_slice(name);
            out.push(0);
        }
        Ok(out)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        let gone = self.xattrs.lock().as_mut().and_then(|x| x.remove(name));
        gone.ok_or(Errno::ENODATA)?;
        self.changed();
        Ok(())
    }
    fn statfs(&self) -> Result<HostStatFs, Errno> {
        Ok(self.fs.statfs())
    }
}

fn xattr_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"trusted.") || name.starts_with(b"security.")
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        self.fs.give_inode();
        if let Node::File(d) = &self.node {
            d.lock().release(&self.fs);
        }
        // Deep trees must not recurse when a whole file system goes.
        if let Node::Dir(d) = &mut self.node {
            let mut todo: Vec<Arc<TmpInode>> = core::mem::take(d.get_mut())
                .by_name
                .into_values()
                .map(|(i, _)| i)
                .collect();
            while let Some(i) = todo.pop() {
                if let Some(mut inode) = Arc::into_inner(i)
                    && let Node::Dir(d) = &mut inode.node
                {
                    todo.extend(core::mem::take(d.get_mut()).by_name.into_values().map(|(i, _)| i));
                }
            }
        }
    }
}
