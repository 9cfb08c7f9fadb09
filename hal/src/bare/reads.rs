//! Reads of the host's files that are copies out of the window, without a request to the host.
//!
//! The window shows the host's page cache, so what is copied is what a read would give at that moment, whoever wrote it. Only
//! the file's length is not to be seen there, and others may change it. So a copy counts only when, after it, the page behind
//! its end can be touched: the file reaches further than the copy did. Where the file has become shorter the touch fails
//! as the copy itself may, and the request decides. The last page of a file, which no page follows, is always a request's,
//! and so is the end of the file. A copy that counts is as good as a read that took place between the copy and the touch.

use super::window::{self, FileMap};
use super::{Bare, phys, user};
use crate::contract::HostService;
use crate::host::{Dest, Handle};
use crate::readcache::Rent;
use crate::sync::SpinLock;
use crate::user::UserSlice;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};
use qlib::PAGE_SIZE;

/// File systems (`statfs::f_type`) whose reads and shared mappings show the same pages, on a host that alone changes them:
/// ext4 and its elders, XFS, Btrfs, F2FS, tmpfs, ramfs, EROFS, SquashFS, ISO 9660. Not here are overlays, where a read follows
/// a file to its copy in the upper layer and a mapping does not, and file systems of other machines (NFS, SMB, 9P, FUSE), which a
/// read asks whether their pages are still true.
const COHERENT: [u64; 9] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x0102_1994,
    0x8584_58f6,
    0xe0f5_e1e2,
    0x7371_7368,
    0x9660,
];

/// What is known of a handle that is read from.
#[derive(Default)]
struct Reader {
    rent: Rent,
    /// Its file, once it was mapped; the window may give it up meanwhile.
    map: Weak<FileMap>,
}

static READERS: SpinLock<BTreeMap<u64, Reader>> = SpinLock::new(BTreeMap::new());
/// Bytes copied out of the window.
static COPIED: AtomicU64 = AtomicU64::new(0);

/// Bytes of reads that were no requests.
pub(super) fn copied_bytes() -> u64 {
    COPIED.load(Ordering::Relaxed)
}

/// A handle's number means nothing any more.
pub(super) fn closed(h: Handle) {
    let old = READERS.lock().remove(&h.0);
    drop(old);
}

/// A request read a part of the file that ends at `end`.
pub(super) fn requested(h: Handle, end: u64) {
    let map = {
        let mut readers = READERS.lock();
        let r = readers.entry(h.0).or_default();
        r.rent.pay();
        r.map.upgrade()
    };
    if let Some(map) = map {
        map.reaches(end);
    }
}

/// Copies as much as can be had from the window of what `dest` wants from `offset` on; returns the bytes. May sleep.
pub(super) fn copy(h: Handle, dest: &mut Dest<'_>, offset: u64) -> usize {
    let Some(map) = map_of(h, offset) else { return 0 };
    let mut done = 0;
    loop {
        let at = offset + done as u64;
        let piece_end = (at / window::CHUNK + 1) * window::CHUNK;
        let end = at
            .saturating_add(dest.remaining() as u64)
            .min(map.last_page())
            .min(piece_end);
        if end <= at {
            return done;
        }
        let n = (end - at) as usize;
        if !copy_proved(&map, dest, at, n) {
            map.look_again();
            return done;
        }
        done += n;
        COPIED.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Copies `n` bytes that lie in one piece. `false`: they do not count, and `dest` is as it was.
fn copy_proved(map: &Arc<FileMap>, dest: &mut Dest<'_>, at: u64, n: usize) -> bool {
    let Ok(piece) = map.hold(at) else { return false };
    let behind = (at + n as u64).next_multiple_of(PAGE_SIZE);
    let Ok(next) = map.hold(behind) else { return false };
    let before = dest.done();
    let mut moved = 0;
    while moved < n {
        let from = piece.at(at + moved as u64);
        let mut part = n - moved;
        let copied = if let Some(to) = dest.kernel_mut() {
            part = part.min(to.len());
            // SAFETY: the piece is held; `to` is a buffer of `part` bytes or more.
            unsafe { phys::copy_out(to.as_mut_ptr(), from, part) }
        } else {
            let mut segment = [UserSlice::default()];
            dest.fill_segments(&mut segment);
            part = part.min(segment[0].len());
            // SAFETY: the piece is held, and is as long as `part`.
            unsafe { user::copy_out_of_window(segment[0].addr(), phys::ptr(from), part) }
        };
        if !copied || part == 0 {
            break;
        }
        dest.advance(part);
        moved += part;
    }
    let mut byte = 0;
    // SAFETY: the piece is held.
    if moved == n && unsafe { phys::copy_out(&raw mut byte, next.at(behind), 1) } {
        return true;
    }
    dest.rewind(dest.done() - before);
    false
}

/// The map of the handle's file, if it has one, or gets one now because requests have become too many.
fn map_of(h: Handle, offset: u64) -> Option<Arc<FileMap>> {
    {
        let readers = READERS.lock();
        let r = readers.get(&h.0)?;
        if let Some(map) = r.map.upgrade() {
            return Some(map);
        }
        if !r.rent.due() {
            return None;
        }
    }
    let map = open(h, offset);
    let mut readers = READERS.lock();
    if let Some(r) = readers.get_mut(&h.0) {
        match &map {
            Some(map) => {
                r.rent.bought();
                r.map = Arc::downgrade(map);
            }
            None => r.rent.refused(),
        }
    }
    drop(readers);
    map
}

/// The map of a file from which bytes at `offset` can be had, if it may be read so.
fn open(h: Handle, offset: u64) -> Option<Arc<FileMap>> {
    if !COHERENT.contains(&Bare::statfs(h).ok()?.kind) {
        return None;
    }
    let st = Bare::stat(h, b"").ok()?;
    if offset >= window::last_page(st.size) {
        return None;
    }
    let map = window::open_known(h, &st, false).ok()?;
    // A handle that may not be mapped is found out here.
    map.hold(offset).ok().map(drop)?;
    Some(map)
}
