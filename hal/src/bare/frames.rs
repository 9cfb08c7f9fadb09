//! Physical frames: a buddy allocator whose book-keeping lies apart from the frames, so that free memory is never
//! touched. Memory never used is carved off at the end: it costs the host nothing until then. Free memory that was used
//! costs the host still, until [`super::reclaim`] gives it back.

use super::{phys, reclaim};
use crate::sync::SpinLock;
use arch::table::Store;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use qlib::{PAGE_SIZE, PhysAddr};

/// Largest block: 64 MiB.
const ORDERS: usize = 15;
const NONE: u32 = u32::MAX;
/// Free blocks from this order on (256 KiB) are worth giving back.
const GIVE_ORDER: usize = 6;
/// So many frames in such blocks are worth the trouble: 16 MiB.
const GIVE_FRAMES: u64 = 4096;

/// What is known of one frame. `order` is meaningful for the first frame of a free block only; else it is `NONE`.
#[repr(C)]
struct Frame {
    /// How many mappings share the frame (frames of apps). Of a free block's first frame: whether the block was used since
    /// the host last had it.
    refs: AtomicU32,
    order: u32,
    next: u32,
    prev: u32,
}

struct Buddy {
    frames: *mut Frame,
    /// Free blocks by order: those the host has, then those that were used.
    heads: [[u32; ORDERS]; 2],
    /// Frames in used free blocks of at least [`GIVE_ORDER`].
    used: u64,
    /// Number of the first frame behind the book.
    first: u32,
    /// Frames from here on were never used.
    fresh: u32,
    end: u32,
}

// SAFETY: the array of frames is the allocator's own memory; the lock around it serialises access.
unsafe impl Send for Buddy {}

static BUDDY: SpinLock<Buddy> = SpinLock::new(Buddy {
    frames: core::ptr::null_mut(),
    heads: [[NONE; ORDERS]; 2],
    used: 0,
    first: 0,
    fresh: 0,
    end: 0,
});
static BASE: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
static RAM_END: AtomicU64 = AtomicU64::new(0);

/// Takes over `[start, end)`, page-aligned RAM that nobody uses and that reads as zero.
pub(super) fn init(start: u64, end: u64) {
    let total = (end - start) / PAGE_SIZE;
    let book = (total * size_of::<Frame>() as u64).next_multiple_of(PAGE_SIZE);
    // Blocks are aligned by their frame number, so number 0 must be aligned as the largest block; it may lie before RAM.
    let base = start & !((PAGE_SIZE << (ORDERS - 1)) - 1);
    let skipped = (start - base) / PAGE_SIZE;
    let first = skipped + book / PAGE_SIZE;
    // The book starts at frame `skipped`; entries of frames before it do not exist.
    let array = phys::ptr(PhysAddr(start))
        .cast::<Frame>()
        .wrapping_sub(skipped as usize);
    BASE.store(base, Ordering::Relaxed);
    RAM_END.store(end, Ordering::Relaxed);
    FRAMES.store(array as u64, Ordering::Relaxed);
    let mut b = BUDDY.lock();
    b.frames = array;
    b.first = first as u32;
    b.fresh = first as u32;
    b.end = (skipped + total) as u32;
}

impl Buddy {
    fn frame(&mut self, n: u32) -> &mut Frame {
        // SAFETY: numbers in lists and below `end` have an entry in the array; the borrow is exclusive but for `refs`,
        // which is atomic and only used for frames that are handed out.
        unsafe { &mut *self.frames.wrapping_add(n as usize) }
    }

    fn push(&mut self, n: u32, order: usize, used: bool) {
        let head = self.heads[used as usize][order];
        let f = self.frame(n);
        f.refs.store(used as u32, Ordering::Relaxed);
        f.order = order as u32;
        f.prev = NONE;
        f.next = head;
        if head != NONE {
            self.frame(head).prev = n;
        }
        self.heads[used as usize][order] = n;
        if used && order >= GIVE_ORDER {
            self.used += 1 << order;
        }
    }

    /// Takes a free block out of its list; whether it was used.
    fn unlink(&mut self, n: u32, order: usize) -> bool {
        let f = self.frame(n);
        let used = f.refs.load(Ordering::Relaxed) != 0;
        f.order = NONE;
        let (next, prev) = (f.next, f.prev);
        if next != NONE {
            self.frame(next).prev = prev;
        }
        if prev != NONE {
            self.frame(prev).next = next;
        } else {
            self.heads[used as usize][order] = next;
        }
        if used && order >= GIVE_ORDER {
            self.used -= 1 << order;
        }
        used
    }

    /// Moves the largest aligned piece of fresh memory, at most 2 MiB or what `order` needs, to the free lists.
    fn carve(&mut self, order: usize) -> bool {
        let left = self.end - self.fresh;
        if left == 0 {
            return false;
        }
        let aligned = (self.fresh.trailing_zeros() as usize).min(ORDERS - 1);
        let mut o = aligned.min(order.max(9));
        while 1u32 << o > left {
            o -= 1;
        }
        let n = self.fresh;
        self.fresh += 1 << o;
        self.push(n, o, false);
        true
    }

    fn alloc(&mut self, order: usize) -> Option<u32> {
        loop {
            // What was used costs nothing more.
            let found = (order..ORDERS).find_map(|o| {
                let n = [1, 0]
                    .map(|used| self.heads[used][o])
                    .into_iter()
                    .find(|n| *n != NONE);
                n.map(|n| (n, o))
            });
            if let Some((n, from)) = found {
                let used = self.unlink(n, from);
                for o in (order..from).rev() {
                    self.push(n + (1 << o), o, used);
                }
                return Some(n);
            }
            if !self.carve(order) {
                return None;
            }
        }
    }

    fn free(&mut self, mut n: u32, mut order: usize, mut used: bool) {
        while order < ORDERS - 1 {
            let buddy = n ^ (1 << order);
            // Fresh frames are in no list; frames before the first have no entry.
            if buddy < self.first || buddy >= self.fresh || self.frame(buddy).order != order as u32 {
                break;
            }
            used |= self.unlink(buddy, order);
            n &= !(1 << order);
            order += 1;
        }
        self.push(n, order, used);
    }
}

fn number(pa: PhysAddr) -> u32 {
    ((pa.0 - BASE.load(Ordering::Relaxed)) / PAGE_SIZE) as u32
}

fn address(n: u32) -> PhysAddr {
    PhysAddr(BASE.load(Ordering::Relaxed) + n as u64 * PAGE_SIZE)
}

/// Takes `2^order` frames, aligned to their size; their content is undefined.
pub(super) fn alloc_block(order: usize) -> Option<PhysAddr> {
    let mut b = BUDDY.lock();
    let n = b.alloc(order)?;
    b.frame(n).order = NONE;
    Some(address(n))
}

/// Gives a block back.
pub(super) fn free_block(pa: PhysAddr, order: usize) {
    let mut b = BUDDY.lock();
    b.free(number(pa), order, true);
    let enough = b.used >= GIVE_FRAMES;
    drop(b);
    if enough {
        reclaim::wake();
    }
}

/// Takes a free block that was used and is worth giving to the host: its address and order.
pub(super) fn take_used() -> Option<(PhysAddr, usize)> {
    let mut b = BUDDY.lock();
    let (n, order) = (GIVE_ORDER..ORDERS)
        .rev()
        .map(|o| (b.heads[1][o], o))
        .find(|(n, _)| *n != NONE)?;
    b.unlink(n, order);
    Some((address(n), order))
}

/// Frees a block that the host has; `used` when it did not take it.
pub(super) fn put_back(pa: PhysAddr, order: usize, used: bool) {
    BUDDY.lock().free(number(pa), order, used);
}

/// Takes a zeroed frame with one reference.
pub(super) fn alloc_zeroed() -> Option<PhysAddr> {
    let pa = alloc()?;
    // SAFETY: the frame was just taken.
    unsafe { phys::zero(pa) };
    Some(pa)
}

/// Takes a frame with one reference; its content is undefined.
pub(super) fn alloc() -> Option<PhysAddr> {
    let pa = alloc_block(0)?;
    refs_of(pa).store(1, Ordering::Relaxed);
    Some(pa)
}

fn refs_of(pa: PhysAddr) -> &'static AtomicU32 {
    let array = FRAMES.load(Ordering::Relaxed) as *mut Frame;
    let f = array.wrapping_add(number(pa) as usize);
    // SAFETY: `pa` is a frame of RAM that was handed out, so it has an entry; the counter is atomic.
    unsafe { &(*f).refs }
}

/// Whether an address is a frame of RAM (and not of the window).
pub(super) fn is_ram(pa: PhysAddr) -> bool {
    pa.0 >= BASE.load(Ordering::Relaxed) && pa.0 < RAM_END.load(Ordering::Relaxed)
}

/// Adds a reference.
pub(super) fn share(pa: PhysAddr) {
    refs_of(pa).fetch_add(1, Ordering::Relaxed);
}

/// Whether the frame has one reference only. The caller's lock keeps others from adding one.
pub(super) fn is_sole(pa: PhysAddr) -> bool {
    refs_of(pa).load(Ordering::Acquire) == 1
}

/// Drops a reference; the last one frees the frame.
pub(super) fn release(pa: PhysAddr) {
    if refs_of(pa).fetch_sub(1, Ordering::AcqRel) == 1 {
        free_block(pa, 0);
    }
}

/// The heap's source: blocks of at least 256 KiB.
pub(super) fn heap_source(min: usize) -> Option<(usize, usize)> {
    let len = min.max(256 << 10).next_power_of_two();
    let order = (len as u64 / PAGE_SIZE).trailing_zeros() as usize;
    if order >= ORDERS {
        return None;
    }
    Some((phys::ptr(alloc_block(order)?) as usize, len))
}

/// Page tables in frames.
pub(super) struct FrameStore;

/// Address of an entry of a table.
fn entry_ptr(table: PhysAddr, index: usize) -> *mut u64 {
    phys::ptr(table).cast::<u64>().wrapping_add(index)
}

impl Store for FrameStore {
    fn read(&self, table: PhysAddr, index: usize) -> u64 {
        // SAFETY: tables are frames that the page-table code owns; entries are accessed atomically because the hardware
        // reads them.
        unsafe { AtomicU64::from_ptr(entry_ptr(table, index)) }.load(Ordering::Relaxed)
    }
    fn write(&mut self, table: PhysAddr, index: usize, entry: u64) {
        // SAFETY: as in `read`.
        unsafe { AtomicU64::from_ptr(entry_ptr(table, index)) }.store(entry, Ordering::Release);
    }
    fn alloc(&mut self) -> Option<PhysAddr> {
        alloc_zeroed()
    }
    fn free(&mut self, table: PhysAddr) {
        free_block(table, 0);
    }
}
