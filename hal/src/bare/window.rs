//! Host files in guest-physical memory (DAX): the host maps pieces of a file into the window, where the direct map reaches
//! them and address spaces map them. Pieces are shared by all mappings of the same file.

use super::thread::{self, counted};
use super::{Bare, qcall};
use crate::contract::{HostService, Threads};
use crate::host::Handle;
use crate::sync::SpinLock;
use crate::thread::ThreadRef;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use qlib::boot::Range;
use qlib::qcall::{HandleId, Op};
use qlib::{Errno, PAGE_SIZE, PhysAddr};

/// Bytes of a piece: a 2 MiB block.
pub(super) const CHUNK: u64 = 2 << 20;
/// Files kept though nobody maps them, so that the next start of the same program finds them.
const KEPT_FILES: usize = 256;

struct Window {
    base: u64,
    /// Pieces never used start here.
    fresh: u64,
    end: u64,
    free: Vec<u64>,
}

static WINDOW: SpinLock<Window> = SpinLock::new(Window {
    base: 0,
    fresh: 0,
    end: 0,
    free: Vec::new(),
});

/// Learns the window.
pub(super) fn init(range: Range) {
    *WINDOW.lock() = Window {
        base: range.start,
        fresh: range.start,
        end: range.end,
        free: Vec::new(),
    };
}

/// A piece of a file.
enum Chunk {
    /// The host is asked; these threads wait.
    Loading(Vec<ThreadRef>),
    /// It is mapped at this physical address.
    Ready(u64),
}

/// A host file that address spaces map.
pub(super) struct FileMap {
    /// Our own handle of it.
    handle: Handle,
    /// Whether pieces are mapped writable.
    pub writable: bool,
    size: AtomicU64,
    chunks: SpinLock<BTreeMap<u64, Chunk>>,
}

/// Device, inode, change time, writable. The change time tells a file from its copy in an overlay's upper layer, which has
/// the same number; two maps of one file are coherent through the host's page cache.
type Key = (u64, u64, (i64, u64), bool);

struct Cache {
    files: BTreeMap<Key, Weak<FileMap>>,
    /// Recently used, the last one youngest.
    kept: Vec<Arc<FileMap>>,
}

static CACHE: SpinLock<Cache> = SpinLock::new(Cache {
    files: BTreeMap::new(),
    kept: Vec::new(),
});

/// Finds or makes the map of a file. `write`: pieces must be writable (the handle must be).
///
/// # Errors
/// The host's.
pub(super) fn open(h: Handle, write: bool) -> Result<Arc<FileMap>, Errno> {
    let st = Bare::stat(h, b"")?;
    let key = (st.dev, st.ino, (st.ctime_s, st.ctime_ns), write);
    if let Some(f) = lookup(key) {
        f.size.store(st.size, Ordering::Relaxed);
        return Ok(f);
    }
    let reply = qcall::call(qcall::request(Op::Dup, h));
    Errno::from_ret(reply.result)?;
    let map = Arc::new(FileMap {
        handle: reply.handle,
        writable: write,
        size: AtomicU64::new(st.size),
        chunks: SpinLock::new(BTreeMap::new()),
    });
    let mut c = CACHE.lock();
    // Another thread may have been faster.
    if let Some(f) = c.files.get(&key).and_then(Weak::upgrade) {
        drop(c);
        return Ok(f);
    }
    c.files.insert(key, Arc::downgrade(&map));
    c.kept.push(map.clone());
    let old = (c.kept.len() > KEPT_FILES).then(|| c.kept.remove(0));
    if c.files.len() > 2 * KEPT_FILES {
        c.files.retain(|_, w| w.strong_count() > 0);
    }
    drop(c);
    drop(old);
    Ok(map)
}

fn lookup(key: Key) -> Option<Arc<FileMap>> {
    let mut c = CACHE.lock();
    let f = c.files.get(&key).and_then(Weak::upgrade)?;
    if let Some(i) = c.kept.iter().position(|k| Arc::ptr_eq(k, &f)) {
        let k = c.kept.remove(i);
        c.kept.push(k);
    }
    Some(f)
}

/// A file's length was changed through `h`: pages past its end are not to be mapped any more.
pub(super) fn resized(h: Handle, len: u64) {
    if CACHE.lock().files.is_empty() {
        return;
    }
    let Ok(st) = Bare::stat(h, b"") else { return };
    let first = (st.dev, st.ino, (i64::MIN, 0), false);
    let last = (st.dev, st.ino, (i64::MAX, u64::MAX), true);
    let c = CACHE.lock();
    let found = c.files.range(first..=last);
    let maps: Vec<_> = found.filter_map(|(_, f)| f.upgrade()).collect();
    drop(c);
    // The last reference may go here, and closes the file: not under the lock.
    for f in maps {
        f.size.store(len, Ordering::Relaxed);
    }
}

/// Takes room for a piece; lets go of files nobody maps when there is none.
fn take_room() -> Option<u64> {
    loop {
        {
            let mut w = WINDOW.lock();
            if let Some(pa) = w.free.pop() {
                return Some(pa);
            }
            if w.fresh + CHUNK <= w.end {
                w.fresh += CHUNK;
                return Some(w.fresh - CHUNK);
            }
        }
        let mut c = CACHE.lock();
        let i = c.kept.iter().position(|f| Arc::strong_count(f) == 1)?;
        let victim = c.kept.remove(i);
        drop(c);
        drop(victim);
    }
}

impl FileMap {
    /// The physical address of the page at `offset` of the file, if its piece is mapped and the file reaches that far.
    pub fn page(&self, offset: u64) -> Option<PhysAddr> {
        if offset >= self.size.load(Ordering::Relaxed) {
            return None;
        }
        match self.chunks.lock().get(&(offset / CHUNK)) {
            Some(Chunk::Ready(pa)) => Some(PhysAddr(pa + offset % CHUNK)),
            _ => None,
        }
    }

    /// Makes [`FileMap::page`] succeed for `offset`. May sleep.
    ///
    /// # Errors
    /// ENXIO past the end of the file; ENOMEM when the window is full; the host's.
    pub fn load(&self, offset: u64) -> Result<(), Errno> {
        if offset >= self.size.load(Ordering::Relaxed) {
            self.look_again();
            if offset >= self.end() {
                return Err(Errno::ENXIO);
            }
        }
        let n = offset / CHUNK;
        loop {
            let mut chunks = self.chunks.lock();
            match chunks.get_mut(&n) {
                Some(Chunk::Ready(_)) => return Ok(()),
                Some(Chunk::Loading(waiters)) => {
                    waiters.push(counted(thread::current()));
                    drop(chunks);
                    Bare::park(None);
                }
                None => {
                    chunks.insert(n, Chunk::Loading(Vec::new()));
                    drop(chunks);
                    break;
                }
            }
        }
        let made = self.map_chunk(n);
        let mut chunks = self.chunks.lock();
        let old = match made {
            Ok(pa) => chunks.insert(n, Chunk::Ready(pa)),
            Err(_) => chunks.remove(&n),
        };
        drop(chunks);
        if let Some(Chunk::Loading(waiters)) = old {
            for w in waiters {
                Bare::unpark(&w);
            }
        }
        made.map(|_| ())
    }

    fn map_chunk(&self, n: u64) -> Result<u64, Errno> {
        let pa = take_room().ok_or(Errno::ENOMEM)?;
        let mut r = qcall::request(Op::MapWindow, self.handle);
        let prot = if self.writable { 3 } else { 1 };
        r.args = [n * CHUNK, CHUNK, pa - WINDOW.lock().base, prot, 0, 0];
        match qcall::call_value(r) {
            Ok(_) => Ok(pa),
            Err(e) => {
                WINDOW.lock().free.push(pa);
                Err(e)
            }
        }
    }

    /// Asks the host for the file's size. May sleep.
    pub fn look_again(&self) {
        let size = Bare::stat(self.handle, b"").map_or(0, |st| st.size);
        self.size.store(size, Ordering::Relaxed);
    }

    /// Where the file's last page ended when it was last looked at.
    pub fn end(&self) -> u64 {
        self.size.load(Ordering::Relaxed).next_multiple_of(PAGE_SIZE)
    }

    /// The handle, for operations on the file.
    pub fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        let chunks = core::mem::take(self.chunks.get_mut());
        for (_, c) in chunks {
            if let Chunk::Ready(pa) = c {
                let mut r = qcall::request(Op::UnmapWindow, HandleId::NONE);
                r.args[0] = pa - WINDOW.lock().base;
                r.args[1] = CHUNK;
                qcall::submit(&r);
                // The next owner's request comes behind this one, and the host keeps their order.
                WINDOW.lock().free.push(pa);
            }
        }
        Bare::close(self.handle);
    }
}
