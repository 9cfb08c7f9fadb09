//! The VFS on the fake machine: the same behaviour on a host directory and on tmpfs.

mod names;
mod open;
mod tmpfs;
mod walk;
mod watch;

use super::inode::InodeRef;
use super::mount::{self, build::kernel_creds};
use super::open::How;
use super::path::{FsContext, Path};
use super::tmpfs::{Options, Tmpfs};
use super::walk::Flags;
use super::{File, hostfs::HostFs, names as change};
use crate::task::creds::Creds;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::host::{Dest, HostFile, Owner, Src};
use hal::uapi::general::{O_CREAT, O_DIRECTORY, O_PATH, O_RDONLY, O_RDWR};
use qlib::Errno;
use qlib::qcall::HandleId;
use std::os::fd::IntoRawFd;

/// A tree to test on; a host directory is removed with it.
pub(super) struct World {
    pub(super) fs: Arc<FsContext>,
    pub(super) creds: Creds,
    dir: Option<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        mount::drop_tree(&self.fs.root().mount);
        if let Some(d) = &self.dir {
            std::fs::remove_dir_all(d).expect("the test's directory can be removed");
        }
    }
}

impl World {
    fn on(root: InodeRef, dir: Option<String>) -> Self {
        let top = mount::new_tree(root, b"test", b"test", b"", 0).root_path();
        Self {
            fs: FsContext::new(top.clone(), top, 0o022),
            creds: kernel_creds(),
            dir,
        }
    }
    /// On an empty tmpfs.
    pub(super) fn tmp() -> Self {
        Self::on(Tmpfs::create(&Options::default()).root(), None)
    }
    /// On an empty directory of the machine the tests run on.
    pub(super) fn host(exclusive: bool) -> Self {
        use core::sync::atomic::{AtomicU32, Ordering};
        static N: AtomicU32 = AtomicU32::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let dir = format!(
            "{}/quark-fs-{}-{n}",
            std::env::temp_dir().display(),
            std::process::id()
        );
        std::fs::create_dir(&dir).expect("a temporary directory can be made");
        let none = Owner { uid: 0, gid: 0 };
        // The fake machine's handles are descriptors.
        let here = std::fs::File::open(&dir).expect("it can be opened").into_raw_fd();
        let here = HostFile::new(HandleId(here as u64));
        let path =
            hal::host::open(here.handle(), b".", O_PATH | O_DIRECTORY, 0, none).expect("a path handle");
        let fs = HostFs::new(path, exclusive).expect("a host file system");
        Self::on(fs.root(), Some(dir))
    }
    /// One of each kind.
    pub(super) fn all() -> Vec<Self> {
        alloc::vec![Self::tmp(), Self::host(true), Self::host(false)]
    }
    /// As another user without capabilities.
    pub(super) fn user(&self, uid: u32) -> Creds {
        Creds {
            uid,
            euid: uid,
            fsuid: uid,
            gid: uid,
            egid: uid,
            fsgid: uid,
            ..Creds::default()
        }
    }
    pub(super) fn open(&self, path: &str, flags: u32) -> Result<Arc<File>, Errno> {
        let how = How::new(flags, 0o644);
        super::open(&self.fs, &self.creds, None, path.as_bytes(), how)
    }
    pub(super) fn find(&self, path: &str) -> Result<Path, Errno> {
        super::lookup(&self.fs, &self.creds, None, path.as_bytes(), Flags::FOLLOW)
    }
    pub(super) fn lfind(&self, path: &str) -> Result<Path, Errno> {
        super::lookup(&self.fs, &self.creds, None, path.as_bytes(), Flags::empty())
    }
    pub(super) fn parent(&self, path: &str) -> (Path, Vec<u8>) {
        let (dir, name, _) =
            super::lookup_parent(&self.fs, &self.creds, None, path.as_bytes()).expect("a parent");
        (dir, name)
    }
    pub(super) fn mkdir(&self, path: &str) -> Result<(), Errno> {
        let (dir, name) = self.parent(path);
        change::mkdir_at(&dir, &name, 0o755, &self.creds).map(drop)
    }
    pub(super) fn symlink(&self, target: &str, path: &str) -> Result<(), Errno> {
        let (dir, name) = self.parent(path);
        change::symlink_at(&dir, &name, target.as_bytes(), &self.creds)
    }
    pub(super) fn unlink(&self, path: &str) -> Result<(), Errno> {
        let (dir, name) = self.parent(path);
        change::unlink_at(&dir, &name, false, &self.creds)
    }
    pub(super) fn rmdir(&self, path: &str) -> Result<(), Errno> {
        let (dir, name) = self.parent(path);
        change::rmdir_at(&dir, &name, &self.creds)
    }
    pub(super) fn link(&self, old: &str, new: &str) -> Result<(), Errno> {
        let (dir, name) = self.parent(new);
        change::link_at(&self.lfind(old)?, &dir, &name, &self.creds)
    }
    pub(super) fn rename(&self, old: &str, new: &str, flags: u32) -> Result<(), Errno> {
        let (old_dir, old_name) = self.parent(old);
        let (new_dir, new_name) = self.parent(new);
        let old = change::Entry::new(&old_dir, &old_name, false);
        let new = change::Entry::new(&new_dir, &new_name, false);
        change::rename_at(old, new, flags, &self.creds)
    }
    /// Makes a file with some text.
    pub(super) fn put(&self, path: &str, text: &str) -> Arc<File> {
        let f = self.open(path, O_RDWR | O_CREAT).expect("a new file");
        f.ops().truncate(&f, 0).expect("a file can be emptied");
        write(&f, 0, text.as_bytes());
        f
    }
    /// The text of a file.
    pub(super) fn get(&self, path: &str) -> Result<String, Errno> {
        Ok(read(&self.open(path, O_RDONLY)?))
    }
    /// Names in a directory, sorted, without the dots.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let f = self.open(path, O_RDONLY | O_DIRECTORY).expect("a directory");
        let mut names = Names::default();
        f.ops().read_dir(&f, 0, &mut names).expect("entries");
        let mut v: Vec<String> = names.0.into_iter().map(|(n, _)| n).collect();
        v.retain(|n| n != "." && n != "..");
        v.sort();
        v
    }
}

/// Collects names with the positions after them.
#[derive(Default)]
pub(super) struct Names(pub(super) Vec<(String, u64)>);

impl super::file::DirSink for Names {
    fn entry(&mut self, name: &[u8], _ino: u64, _kind: u8, next: u64) -> bool {
        self.0.push((String::from_utf8_lossy(name).into_owned(), next));
        true
    }
}

pub(super) fn write(f: &Arc<File>, at: u64, bytes: &[u8]) {
    let n = f.ops().write(f, &mut Src::kernel(bytes), at).expect("a write");
    assert_eq!(n, bytes.len());
}

pub(super) fn read(f: &Arc<File>) -> String {
    let mut buf = [0; 4096];
    let n = f.ops().read(f, &mut Dest::kernel(&mut buf), 0).expect("a read");
    String::from_utf8_lossy(&buf[..n]).into_owned()
}
