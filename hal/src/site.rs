//! What an address space knows of its patched call sites: where their stubs lie, and which calls trap often.

use crate::sync::SpinLock;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use qlib::Errno;
use qlib::boot::Range;

/// Bytes of an area of stubs.
pub const AREA_BYTES: u64 = 64 << 10;
/// An area serves sites at most this far away, with room to spare for the displacement of a jump.
pub const REACH: u64 = 1 << 30;
/// Areas of an address space: a site in a program, in its libraries, and some more.
const AREAS: usize = 8;
/// Counters of trapped calls, which sites share.
const COUNTERS: usize = 64;
/// So many traps of a site are worth the price of patching it.
const OFTEN: u8 = 8;

/// What becomes of text whose patched sites are made what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes: only sites of which a part stays matter.
    Goes,
    /// It changes where it is, and threads may be running there.
    Changes,
    /// It moves elsewhere; no thread runs there any more.
    Moves,
}

/// Areas of stubs of one address space.
#[allow(dead_code)]
pub struct Areas {
    /// First byte of each; 0 = none.
    starts: [AtomicU64; AREAS],
    /// Stubs used in each. Lock order: innermost.
    used: SpinLock<[u16; AREAS]>,
    traps: [AtomicU8; COUNTERS],
    /// The site whose bytes are being changed at this moment; 0 = none.
    pub(crate) changing: AtomicU64,
    /// No more sites are patched: the app wanted the memory of the stubs for something else.
    pub(crate) off: AtomicBool,
    /// The host was asked to serialise this process's threads on request.
    pub(crate) registered: AtomicBool,
}

// Only the process machine patches, on the architecture that has it.
#[allow(dead_code)]
impl Areas {
    pub(crate) const fn new() -> Self {
        Self {
            starts: [const { AtomicU64::new(0) }; AREAS],
            used: SpinLock::new([0; AREAS]),
            traps: [const { AtomicU8::new(0) }; COUNTERS],
            changing: AtomicU64::new(0),
            off: AtomicBool::new(false),
            registered: AtomicBool::new(false),
        }
    }
    pub(crate) fn copy_from(&self, parent: &Areas) {
        for (to, from) in self.starts.iter().zip(&parent.starts) {
            to.store(from.load(Ordering::Acquire), Ordering::Release);
        }
        let used = *parent.used.lock();
        *self.used.lock() = used;
        self.off
            .store(parent.off.load(Ordering::Acquire), Ordering::Release);
    }
    /// Forgets every area; no more sites are patched.
    pub(crate) fn drop_all(&self) {
        self.off.store(true, Ordering::Release);
        let _used = self.used.lock();
        for s in &self.starts {
            s.store(0, Ordering::Release);
        }
    }
    fn ranges(&self) -> impl Iterator<Item = Range> {
        let starts = self.starts.iter().map(|s| s.load(Ordering::Acquire));
        starts.filter(|s| *s != 0).map(|start| Range {
            start,
            end: start + AREA_BYTES,
        })
    }
    /// The area that holds `addr`.
    pub(crate) fn holding(&self, addr: u64) -> Option<Range> {
        self.ranges().find(|r| r.contains(addr))
    }
    /// Every area.
    pub(crate) fn all(&self) -> impl Iterator<Item = Range> {
        self.ranges()
    }
    /// An area within reach of `addr` that has room.
    pub(crate) fn near(&self, addr: u64) -> Option<Range> {
        if self.off.load(Ordering::Acquire) {
            return None;
        }
        let used = *self.used.lock();
        let room = |i: usize| used[i] < (AREA_BYTES / 64) as u16;
        let at = self.starts.iter().enumerate().find(|(i, s)| {
            let start = s.load(Ordering::Acquire);
            start != 0 && start.abs_diff(addr) < REACH && room(*i)
        });
        at.map(|(_, s)| {
            let start = s.load(Ordering::Acquire);
            Range {
                start,
                end: start + AREA_BYTES,
            }
        })
    }
    /// Takes the next free stub of an area.
    pub(crate) fn take(&self, area: Range) -> Option<u64> {
        let i = self
            .starts
            .iter()
            .position(|s| s.load(Ordering::Acquire) == area.start)?;
        let mut used = self.used.lock();
        let n = u64::from(used[i]);
        if (n + 1) * 64 > AREA_BYTES {
            return None;
        }
        used[i] += 1;
        Some(area.start + n * 64)
    }
    /// Stubs used in an area.
    pub(crate) fn count(&self, area: Range) -> u64 {
        let used = *self.used.lock();
        let i = self
            .starts
            .iter()
            .position(|s| s.load(Ordering::Acquire) == area.start);
        i.map_or(0, |i| u64::from(used[i]))
    }
    pub(crate) fn add(&self, range: Range) -> Result<(), Errno> {
        let _used = self.used.lock();
        if self.off.load(Ordering::Acquire) {
            return Err(Errno::ENOSPC);
        }
        let free = self.starts.iter().find(|s| s.load(Ordering::Acquire) == 0);
        free.ok_or(Errno::ENOSPC)?.store(range.start, Ordering::Release);
        Ok(())
    }
    /// Counts a trap of the call at `pc`; whether there were enough now.
    pub(crate) fn often(&self, pc: u64) -> bool {
        let n = &self.traps[(pc ^ pc >> 6 ^ pc >> 12) as usize % COUNTERS];
        if n.fetch_add(1, Ordering::Relaxed) < OFTEN {
            return false;
        }
        n.store(0, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_serves_what_is_near_until_it_is_full() {
        let a = Areas::new();
        let range = Range {
            start: 0x7000_0000_0000,
            end: 0x7000_0000_0000 + AREA_BYTES,
        };
        assert!(a.near(range.start).is_none());
        a.add(range).unwrap();
        assert!(a.near(range.start + REACH / 2).is_some());
        assert!(a.near(range.start + REACH + AREA_BYTES).is_none());
        for n in 0..AREA_BYTES / 64 {
            assert_eq!(a.take(range), Some(range.start + n * 64));
        }
        assert_eq!(a.take(range), None);
        assert!(a.near(range.start).is_none());
        let child = Areas::new();
        child.copy_from(&a);
        assert_eq!(child.count(range), AREA_BYTES / 64);
        assert!(child.holding(range.end - 1).is_some());
    }

    #[test]
    fn a_site_is_worth_it_when_it_trapped_often() {
        let a = Areas::new();
        assert_eq!(
            (0..100).filter(|_| a.often(0x40_1000)).count(),
            100 / (OFTEN as usize + 1)
        );
    }
}
