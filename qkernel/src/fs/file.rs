//! Open files: the file description behind descriptors, and what its kinds implement.

use crate::fs::epoll::Item;
use crate::fs::inode::Stat;
use crate::fs::sigio;
use crate::fs::text::Use;
use crate::sched::wait::{Events, WaitQueue};
use crate::syscall::Ctx;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};
use hal::host::{Dest, Handle, Src};
use hal::sync::SpinLock;
use hal::uapi::general::{O_ACCMODE, O_APPEND, O_NONBLOCK, O_PATH, O_RDONLY, O_WRONLY};
use qlib::Errno;

/// How to learn of an open file's readiness besides asking [`FileOps::poll`].
pub enum PollSource<'a> {
    /// It is always ready (regular files).
    Always,
    /// The kernel wakes this queue.
    Queue(&'a WaitQueue),
    /// The host knows.
    Host(Handle),
    /// The kernel wakes the queue, and the host object's POLLIN means that [`FileOps::poll`] must be asked again (an epoll
    /// instance that also watches host objects).
    Both(&'a WaitQueue, Handle),
}

/// What a mapping of an open file is backed by.
pub enum MapBacking {
    /// Pages of a host file.
    Host(Handle),
    /// Zero-filled memory (`/dev/zero`).
    Anonymous,
}

/// What signals can tell of an open file (`O_ASYNC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signals {
    /// Nothing.
    Never,
    /// That it became ready.
    Readiness,
    /// That too, and of urgent data.
    Socket,
}

/// What a magic link leads to.
pub enum MagicTarget {
    /// An open file (also one without a name).
    File(Arc<File>),
    /// A place in the tree.
    Path(crate::fs::path::Path),
}

/// Receives directory entries.
pub trait DirSink {
    /// Takes an entry: name, inode number, DT_* type, and the position to continue *after* it. `false` = full, the entry was
    /// not taken.
    fn entry(&mut self, name: &[u8], ino: u64, kind: u8, next: u64) -> bool;
}

/// What an open file of some kind can do. Defaults refuse as Linux does. Implementations block (with
/// [`crate::sched::wait`]) unless the file is non-blocking, and return ERESTARTSYS when interrupted.
#[allow(unused_variables)]
pub trait FileOps: Any + Send + Sync {
    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
    /// Reads. `offset` means nothing to streams.
    fn read(&self, file: &File, dst: &mut Dest<'_>, offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }
    /// Writes. `offset` means nothing to streams and to O_APPEND files.
    fn write(&self, file: &File, src: &mut Src<'_>, offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }
    /// Whether there is no file position (pipes, sockets, terminals): `lseek` and `pread` fail with ESPIPE.
    fn is_stream(&self) -> bool {
        false
    }
    /// The new position for `lseek`; the default knows SEEK_SET, SEEK_CUR, SEEK_END (by `stat`).
    fn seek(&self, file: &File, offset: i64, whence: u32, current: u64) -> Result<u64, Errno> {
        let base = match whence {
            0 => 0,
            1 => current as i64,
            2 => self.stat(file)?.size as i64,
            _ => return Err(Errno::EINVAL),
        };
        base.checked_add(offset)
            .filter(|p| *p >= 0)
            .map(|p| p as u64)
            .ok_or(Errno::EINVAL)
    }
    /// Status of the open object; the default asks the inode of the file's path.
    fn stat(&self, file: &File) -> Result<Stat, Errno> {
        match file.path() {
            Some(p) => p.inode().stat(),
            None => self.inode().ok_or(Errno::EBADF)?.stat(),
        }
    }
    /// Readiness now.
    fn poll(&self, file: &File) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }
    /// How readiness changes are told.
    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Always
    }
    /// What signals can tell of it.
    fn signals(&self) -> Signals {
        Signals::Never
    }
    /// Device control.
    fn ioctl(&self, file: &File, ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        Err(Errno::ENOTTY)
    }
    /// What a mapping is backed by.
    fn map(&self, file: &File) -> Result<MapBacking, Errno> {
        Err(Errno::ENODEV)
    }
    /// Gives directory entries from position `pos`; returns the position after the last one taken.
    fn read_dir(&self, file: &File, pos: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        Err(Errno::ENOTDIR)
    }
    /// Sets the length.
    fn truncate(&self, file: &File, len: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    /// Allocates space (FALLOC_FL_*).
    fn allocate(&self, file: &File, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        Err(Errno::ENODEV)
    }
    /// Flushes.
    fn sync(&self, file: &File, data_only: bool) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    /// The inode of a file that has no path (memfd, O_TMPFILE).
    fn inode(&self) -> Option<crate::fs::inode::InodeRef> {
        None
    }
    /// Whether positions and sizes are those of a regular file, so that RLIMIT_FSIZE and record locks apply.
    fn is_regular(&self) -> bool {
        false
    }
    /// The memfd seals (F_SEAL_*), where the file has them.
    fn seals(&self) -> Option<u32> {
        None
    }
    /// Adds memfd seals.
    fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    /// The host handle of the data, where there is one (sendfile, copy_file_range, fadvise).
    fn host_handle(&self) -> Option<Handle> {
        None
    }
    /// Status flags changed by `fcntl(F_SETFL)`.
    fn flags_changed(&self, file: &File) {}
    /// A descriptor of the file was closed in some table (POSIX record locks, dnotify).
    fn descriptor_closed(&self, file: &File) {}
    /// The target text of `/proc/PID/fd/N` for objects without a path (`pipe:[7]`, `anon_inode:[eventfd]`).
    fn describe(&self) -> Vec<u8> {
        b"anon_inode:[unknown]".to_vec()
    }
    /// Extra lines of `/proc/PID/fdinfo/N`.
    fn fdinfo(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// Value of [`File::pos`] after an append: the end of the file, asked for only when someone wants to know.
pub const POS_END: u64 = u64::MAX;

/// An open file description, shared by duplicated descriptors.
pub struct File {
    ops: Arc<dyn FileOps>,
    path: Option<crate::fs::path::Path>,
    /// O_* status flags and access mode.
    flags: AtomicU32,
    /// File position; held across reads and writes of seekable files as in Linux.
    pub pos: crate::sched::wait::SleepLock<u64>,
    /// Whom signals of readiness go to (`F_SETOWN`, `F_SETSIG`).
    pub owner: SpinLock<sigio::Owner>,
    /// Epoll items that watch the file; they end with it.
    watchers: SpinLock<Vec<Weak<Item>>>,
    /// What the description is to programs that run: a writer, or one of them.
    text: SpinLock<Option<Use>>,
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.is_path_only() {
            crate::fs::locks::file_closed(self);
            crate::fs::notify::file_closed(self);
        }
        for item in core::mem::take(self.watchers.get_mut()) {
            if let Some(item) = item.upgrade() {
                item.file_closed(self);
            }
        }
    }
}

impl File {
    /// Makes a description. `path` is where it was opened, `None` for pipes and the like.
    pub fn new(ops: Arc<dyn FileOps>, path: Option<crate::fs::path::Path>, flags: u32) -> Arc<Self> {
        Arc::new(Self {
            ops,
            path,
            flags: AtomicU32::new(flags),
            pos: crate::sched::wait::SleepLock::new(0),
            owner: SpinLock::default(),
            watchers: SpinLock::default(),
            text: SpinLock::default(),
        })
    }
    /// Sets what the description is to programs that run, for as long as it is open.
    pub(crate) fn set_text_use(&self, text: Option<Use>) {
        let old = core::mem::replace(&mut *self.text.lock(), text);
        drop(old);
    }
    /// Ties an epoll item's life to the file's.
    pub(super) fn add_watcher(&self, item: &Arc<Item>) {
        let mut w = self.watchers.lock();
        if w.len() == w.capacity() {
            w.retain(|i| i.strong_count() > 0);
        }
        w.push(Arc::downgrade(item));
    }
    /// The epoll items that watch the file.
    pub(super) fn watchers(&self) -> Vec<Arc<Item>> {
        self.watchers.lock().iter().filter_map(Weak::upgrade).collect()
    }
    /// The kind's operations.
    pub fn ops(&self) -> &dyn FileOps {
        &*self.ops
    }
    /// The kind's operations, counted.
    pub fn ops_arc(&self) -> Arc<dyn FileOps> {
        self.ops.clone()
    }
    /// The kind's own type.
    pub fn downcast<T: Any>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }
    /// Where it was opened.
    pub fn path(&self) -> Option<&crate::fs::path::Path> {
        self.path.as_ref()
    }
    /// The inode: of the path, or the kind's own.
    pub fn inode(&self) -> Option<crate::fs::inode::InodeRef> {
        match &self.path {
            Some(p) => Some(p.inode().clone()),
            None => self.ops.inode(),
        }
    }
    /// O_* flags.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }
    /// Replaces the status flags in `mask`.
    pub fn set_flags(&self, mask: u32, value: u32) {
        let old = self.flags();
        self.flags.store(old & !mask | value & mask, Ordering::Relaxed);
        self.ops.flags_changed(self);
    }
    /// Whether O_NONBLOCK is set.
    pub fn nonblock(&self) -> bool {
        self.flags() & O_NONBLOCK != 0
    }
    /// Whether O_APPEND is set.
    pub fn append(&self) -> bool {
        self.flags() & O_APPEND != 0
    }
    /// Whether it was opened for reading.
    pub fn readable(&self) -> bool {
        self.flags() & (O_ACCMODE | O_PATH) != O_WRONLY && self.flags() & O_PATH == 0
    }
    /// Whether it was opened for writing.
    pub fn writable(&self) -> bool {
        self.flags() & O_ACCMODE != O_RDONLY && self.flags() & O_PATH == 0
    }
    /// Whether it is only a reference to a path.
    pub fn is_path_only(&self) -> bool {
        self.flags() & O_PATH != 0
    }
    /// Reads a whole buffer from `offset` into kernel memory; short at the end of the file.
    ///
    /// # Errors
    /// The file's.
    pub fn read_kernel(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        while done < buf.len() {
            let mut dst = Dest::kernel(&mut buf[done..]);
            match self.ops.read(self, &mut dst, offset + done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }
    /// The current position; resolves the end-of-file mark that appends leave.
    ///
    /// # Errors
    /// The file's.
    pub fn position(&self, pos: u64) -> Result<u64, Errno> {
        if pos == POS_END {
            self.ops.stat(self).map(|s| s.size)
        } else {
            Ok(pos)
        }
    }
    /// What `/proc/PID/fd/N` shows.
    pub fn describe(&self) -> Vec<u8> {
        match &self.path {
            Some(p) => p.absolute(),
            None => self.ops.describe(),
        }
    }
}
