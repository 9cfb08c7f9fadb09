//! Host files in guest-physical memory (DAX): the host maps pieces of a file into the window, where the direct map reaches
//! them and address spaces map them. Pieces are shared by all mappings of the same file, and by reads ([`super::reads`]).
//!
//! Pieces that address spaces map stay as long as their file does. Those that only reads use are a bounded cache: the one
//! that was not read for longest goes first.

use super::thread::{self, counted};
use super::{Bare, qcall};
use crate::contract::{HostService, Threads};
use crate::host::Handle;
use crate::readcache::{ClockQueue, Verdict};
use crate::sync::SpinLock;
use crate::thread::ThreadRef;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use qlib::boot::Range;
use qlib::qcall::{HandleId, HostStat, Op};
use qlib::{Errno, PAGE_SIZE, PhysAddr};

/// Bytes of a piece: a 2 MiB block.
pub(super) const CHUNK: u64 = 2 << 20;
/// Files kept though nobody maps them, so that the next start of the same program finds them.
const KEPT_FILES: usize = 256;
/// The part of the window that pieces may fill which only reads use: one in so many. The rest is for mappings, which
/// cannot do without.
const READ_SHARE: u64 = 4;

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
    /// It is in the window.
    Ready(Piece),
}

struct Piece {
    /// Where it is, physical.
    pa: u64,
    /// Copies out of it that are under way.
    readers: u32,
    /// It was read since [`READ_PIECES`] looked last.
    read: bool,
    /// Address spaces may know its pages.
    mapped: bool,
}

/// Pieces that were mapped for reads, by file and number. Lock order: this, then a file's `chunks`.
static READ_PIECES: SpinLock<ClockQueue<(Weak<FileMap>, u64)>> = SpinLock::new(ClockQueue::new());

/// A host file that address spaces map, and reads copy from.
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
    open_known(h, &Bare::stat(h, b"")?, write)
}

/// As [`open`], for who knows the file's status.
///
/// # Errors
/// The host's.
pub(super) fn open_known(h: Handle, st: &HostStat, write: bool) -> Result<Arc<FileMap>, Errno> {
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

/// Empties a piece's room and makes it free.
fn give_back(pa: u64) {
    let mut r = qcall::request(Op::UnmapWindow, HandleId::NONE);
    r.args[0] = pa - WINDOW.lock().base;
    r.args[1] = CHUNK;
    qcall::submit(&r);
    // The next owner's request comes behind this one, and the host keeps their order.
    WINDOW.lock().free.push(pa);
}

/// What becomes of a piece that was mapped for reads when there is no more room for all of them; takes it away from its file
/// where it must go. `closed` gets what may not be dropped under the lock.
fn judge((map, number): &(Weak<FileMap>, u64), closed: &mut Vec<Arc<FileMap>>) -> Verdict {
    let Some(map) = map.upgrade() else {
        return Verdict::Drop;
    };
    let mut chunks = map.chunks.lock();
    let verdict = match chunks.get_mut(number) {
        Some(Chunk::Ready(p)) if p.mapped => Verdict::Drop,
        Some(Chunk::Ready(p)) if p.readers > 0 || p.read => {
            p.read = false;
            Verdict::Keep
        }
        Some(Chunk::Ready(p)) => {
            give_back(p.pa);
            chunks.remove(number);
            Verdict::Drop
        }
        _ => Verdict::Drop,
    };
    drop(chunks);
    closed.push(map);
    verdict
}

/// A piece of a file that stays in the window while this lives.
pub(super) struct Held<'a> {
    map: &'a FileMap,
    number: u64,
    pa: u64,
}

impl Held<'_> {
    /// The physical address of the byte at `offset` of the file, which lies in this piece.
    pub fn at(&self, offset: u64) -> PhysAddr {
        PhysAddr(self.pa + offset % CHUNK)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(Chunk::Ready(piece)) = self.map.chunks.lock().get_mut(&self.number) {
            piece.readers -= 1;
        }
    }
}

/// Where the last page of a file of `size` bytes begins.
pub(super) fn last_page(size: u64) -> u64 {
    size.saturating_sub(1) / PAGE_SIZE * PAGE_SIZE
}

impl FileMap {
    /// The physical address of the page at `offset` of the file, if its piece is mapped and the file reaches that far.
    pub fn page(&self, offset: u64) -> Option<PhysAddr> {
        if offset >= self.size.load(Ordering::Relaxed) {
            return None;
        }
        match self.chunks.lock().get_mut(&(offset / CHUNK)) {
            Some(Chunk::Ready(piece)) => {
                piece.mapped = true;
                Some(PhysAddr(piece.pa + offset % CHUNK))
            }
            _ => None,
        }
    }

    /// Holds the piece that `offset` lies in, for a read, whether or not the file reaches that far. May sleep.
    ///
    /// # Errors
    /// ENOMEM when the window is full; the host's.
    pub fn hold(self: &Arc<Self>, offset: u64) -> Result<Held<'_>, Errno> {
        let number = offset / CHUNK;
        loop {
            if let Some(Chunk::Ready(piece)) = self.chunks.lock().get_mut(&number) {
                piece.readers += 1;
                piece.read = true;
                return Ok(Held {
                    map: self,
                    number,
                    pa: piece.pa,
                });
            }
            if self.load_piece(number)? {
                self.keep_for_reads(number);
            }
        }
    }

    /// A piece was mapped for reads; others may have to go for it.
    fn keep_for_reads(self: &Arc<Self>, number: u64) {
        let most = {
            let w = WINDOW.lock();
            ((w.end - w.base) / CHUNK / READ_SHARE) as usize
        };
        let mut pieces = READ_PIECES.lock();
        pieces.push((Arc::downgrade(self), number));
        let mut closed = Vec::new();
        while pieces.len() > most && pieces.drop_one(|p| judge(p, &mut closed)) {}
        drop(pieces);
        // Files may be closed here.
        drop(closed);
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
        self.load_piece(offset / CHUNK).map(|_| ())
    }

    /// Has the host map a piece; `false`: it was there already. May sleep.
    fn load_piece(&self, n: u64) -> Result<bool, Errno> {
        loop {
            let mut chunks = self.chunks.lock();
            match chunks.get_mut(&n) {
                Some(Chunk::Ready(_)) => return Ok(false),
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
            Ok(pa) => chunks.insert(
                n,
                Chunk::Ready(Piece {
                    pa,
                    readers: 0,
                    read: false,
                    mapped: false,
                }),
            ),
            Err(_) => chunks.remove(&n),
        };
        drop(chunks);
        if let Some(Chunk::Loading(waiters)) = old {
            for w in waiters {
                Bare::unpark(&w);
            }
        }
        made.map(|_| true)
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

    /// Where the file's last page began when it was last looked at.
    pub fn last_page(&self) -> u64 {
        last_page(self.size.load(Ordering::Relaxed))
    }

    /// The file was seen to reach to `end`.
    pub fn reaches(&self, end: u64) {
        self.size.fetch_max(end, Ordering::Relaxed);
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
            if let Chunk::Ready(piece) = c {
                give_back(piece.pa);
            }
        }
        Bare::close(self.handle);
    }
}
