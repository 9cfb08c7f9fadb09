//! Areas of an address space.

use crate::fs::file::File;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::aspace::Prot;
use qlib::boot::Range;

/// What an area shows besides its file in `/proc/PID/maps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Nothing.
    None,
    /// `[heap]`.
    Heap,
    /// `[stack]`.
    Stack,
    /// `[vdso]`.
    Vdso,
    /// `[calls]`: stubs of patched call sites.
    Calls,
}

/// An area: pages with the same backing and protection.
#[derive(Clone)]
pub struct Vma {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Protection.
    pub prot: Prot,
    /// MAP_SHARED.
    pub shared: bool,
    /// The mapped file and the offset of `start` in it.
    pub file: Option<(Arc<File>, u64)>,
    /// Shared anonymous memory and SysV segments: the memory file, and the offset of `start` in it.
    pub memory: Option<(Arc<hal::host::HostFile>, u64)>,
    /// Text for `/proc`.
    pub label: Label,
    /// MAP_LOCKED or mlock.
    pub locked: bool,
    /// MAP_GROWSDOWN stack.
    pub grows_down: bool,
    /// MADV_DONTFORK.
    pub dont_fork: bool,
}

impl Vma {
    /// The range.
    pub fn range(&self) -> Range {
        Range {
            start: self.start,
            end: self.end,
        }
    }
    /// The part inside `[start, end)`, with offsets moved along.
    #[must_use]
    pub fn slice(&self, start: u64, end: u64) -> Vma {
        let by = start - self.start;
        let mut v = self.clone();
        v.start = start;
        v.end = end;
        if let Some((_, off)) = &mut v.file {
            *off += by;
        }
        if let Some((_, off)) = &mut v.memory {
            *off += by;
        }
        v
    }
    /// Whether `next` continues this area so that both can be one.
    fn continues(&self, next: &Vma) -> bool {
        let same_backing = match (&self.file, &next.file) {
            (None, None) => true,
            (Some((a, ao)), Some((b, bo))) => Arc::ptr_eq(a, b) && ao + (self.end - self.start) == *bo,
            _ => false,
        };
        let same_memory = match (&self.memory, &next.memory) {
            (None, None) => true,
            (Some((a, ao)), Some((b, bo))) => Arc::ptr_eq(a, b) && ao + (self.end - self.start) == *bo,
            _ => false,
        };
        same_backing
            && same_memory
            && self.end == next.start
            && self.prot == next.prot
            && self.shared == next.shared
            && self.label == next.label
            && self.locked == next.locked
            && self.grows_down == next.grows_down
            && self.dont_fork == next.dont_fork
    }
}

/// The areas of an address space by start address; they never overlap.
#[derive(Clone, Default)]
pub struct VmaSet {
    map: BTreeMap<u64, Vma>,
    /// Sum of the lengths, bytes.
    total: u64,
    /// What the last search from the top showed, so that the next need not look there again.
    full: Full,
}

/// Between `from` and `top` no `len` bytes are free.
#[derive(Clone, Copy, Default)]
struct Full {
    from: u64,
    top: u64,
    len: u64,
}

impl VmaSet {
    /// All areas in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.map.values()
    }
    /// Number of areas.
    pub fn len(&self) -> usize {
        self.map.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
    /// Sum of the lengths, bytes.
    pub fn total(&self) -> u64 {
        self.total
    }
    /// The area that holds `addr`.
    pub fn find(&self, addr: u64) -> Option<&Vma> {
        self.map
            .range(..=addr)
            .next_back()
            .map(|(_, v)| v)
            .filter(|v| addr < v.end)
    }
    /// Areas that meet `range`.
    pub fn overlapping(&self, range: Range) -> impl Iterator<Item = &Vma> {
        let first = self.find(range.start).map_or(range.start, |v| v.start);
        self.map.range(first..range.end.max(first)).map(|(_, v)| v)
    }
    /// Whether the whole range is covered by areas.
    pub fn covered(&self, range: Range) -> bool {
        let mut at = range.start;
        for v in self.overlapping(range) {
            if v.start > at {
                return false;
            }
            at = v.end;
        }
        at >= range.end
    }
    /// Cuts `range` out; returns the parts that were there.
    pub fn remove(&mut self, range: Range) -> Vec<Vma> {
        if range.end > self.full.from {
            self.full = Full::default();
        }
        let hit: Vec<u64> = self.overlapping(range).map(|v| v.start).collect();
        let mut out = Vec::with_capacity(hit.len());
        for start in hit {
            let Some(v) = self.map.remove(&start) else {
                continue;
            };
            self.total -= v.end - v.start;
            let (from, to) = (v.start.max(range.start), v.end.min(range.end));
            if v.start < from {
                self.put(v.slice(v.start, from));
            }
            if to < v.end {
                self.put(v.slice(to, v.end));
            }
            out.push(v.slice(from, to));
        }
        out
    }
    fn put(&mut self, v: Vma) {
        self.total += v.end - v.start;
        self.map.insert(v.start, v);
    }
    /// Adds an area where nothing is (see [`VmaSet::remove`]), joined with its neighbours where they match.
    pub fn insert(&mut self, mut v: Vma) {
        if let Some((_, prev)) = self.map.range(..v.start).next_back()
            && prev.continues(&v)
        {
            let start = prev.start;
            if let Some(p) = self.map.remove(&start) {
                self.total -= p.end - p.start;
                let end = v.end;
                v = p;
                v.end = end;
            }
        }
        if let Some(next) = self.map.get(&v.end)
            && v.continues(next)
        {
            let start = next.start;
            if let Some(n) = self.map.remove(&start) {
                self.total -= n.end - n.start;
                v.end = n.end;
            }
        }
        self.put(v);
    }
    /// Changes every part of `range`: each is cut out, changed by `f` and put back.
    pub fn update(&mut self, range: Range, mut f: impl FnMut(&mut Vma)) {
        for mut v in self.remove(range) {
            f(&mut v);
            self.insert(v);
        }
    }
    /// The highest free range of `len` bytes that ends at or below `top` and starts at or above `low`.
    pub fn find_free(&mut self, len: u64, low: u64, top: u64, reserved: &[Range]) -> Option<u64> {
        let known = self.full.top == top && len >= self.full.len;
        let mut end = if known { self.full.from } else { top };
        let mut areas = self.map.range(..end).rev().map(|(_, v)| v.range()).peekable();
        loop {
            // The highest obstacle below `end`: an area or a reserved range.
            while areas.peek().is_some_and(|a| a.start >= end) {
                areas.next();
            }
            let area = areas.peek().copied();
            let fixed = reserved
                .iter()
                .copied()
                .filter(|r| r.start < end)
                .max_by_key(|r| r.end);
            let block = match (area, fixed) {
                (Some(a), Some(f)) => Some(if a.end >= f.end { a } else { f }),
                (a, f) => a.or(f),
            };
            let floor = block.map_or(low, |b| b.end.max(low));
            if end >= floor && end - floor >= len {
                if !known || len == self.full.len {
                    self.full = Full { from: end, top, len };
                }
                return Some(end - len);
            }
            end = block?.start.min(end);
            if end < low.saturating_add(len) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn area(start: u64, end: u64) -> Vma {
        Vma {
            start,
            end,
            prot: Prot::READ,
            shared: false,
            file: None,
            memory: None,
            label: Label::None,
            locked: false,
            grows_down: false,
            dont_fork: false,
        }
    }

    fn ranges(s: &VmaSet) -> Vec<(u64, u64)> {
        s.iter().map(|v| (v.start, v.end)).collect()
    }

    #[test]
    fn neighbours_join_and_holes_split() {
        let mut s = VmaSet::default();
        s.insert(area(0x1000, 0x3000));
        s.insert(area(0x3000, 0x5000));
        assert_eq!(ranges(&s), vec![(0x1000, 0x5000)]);
        s.remove(Range {
            start: 0x2000,
            end: 0x3000,
        });
        assert_eq!(ranges(&s), vec![(0x1000, 0x2000), (0x3000, 0x5000)]);
        assert_eq!(s.total(), 0x3000);
        s.update(
            Range {
                start: 0x4000,
                end: 0x9000,
            },
            |v| v.prot = Prot::WRITE,
        );
        assert_eq!(
            ranges(&s),
            vec![(0x1000, 0x2000), (0x3000, 0x4000), (0x4000, 0x5000)]
        );
        assert!(s.find(0x2000).is_none());
        assert!(s.covered(Range {
            start: 0x3800,
            end: 0x5000
        }));
        assert!(!s.covered(Range {
            start: 0x1800,
            end: 0x4000
        }));
    }

    #[test]
    fn free_ranges_avoid_areas_and_reserved_ranges() {
        let mut s = VmaSet::default();
        s.insert(area(0x8000, 0x9000));
        let reserved = [Range {
            start: 0xa000,
            end: 0xb000,
        }];
        assert_eq!(s.find_free(0x1000, 0x1000, 0xc000, &reserved), Some(0xb000));
        assert_eq!(s.find_free(0x2000, 0x1000, 0xc000, &reserved), Some(0x6000));
        assert_eq!(s.find_free(0x1000, 0x1000, 0xb800, &reserved), Some(0x9000));
        assert_eq!(s.find_free(0x8000, 0x1000, 0xc000, &reserved), None);
    }

    #[test]
    fn what_a_search_remembers_changes_no_answer() {
        const LOW: u64 = 0x1000;
        const TOP: u64 = 0x40_000;
        let mut s = VmaSet::default();
        let mut seed = 12345u64;
        let mut random = |n: u64| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..4000 {
            let len = (1 + random(4)) * 0x1000;
            if random(3) == 0 {
                let start = LOW + random((TOP - LOW) / 0x1000) * 0x1000;
                s.remove(Range {
                    start,
                    end: (start + len).min(TOP),
                });
                continue;
            }
            let mut fresh = s.clone();
            fresh.full = Full::default();
            let at = s.find_free(len, LOW, TOP, &[]);
            assert_eq!(at, fresh.find_free(len, LOW, TOP, &[]));
            if let Some(at) = at {
                let mut v = area(at, at + len);
                v.locked = random(2) == 0;
                s.insert(v);
            }
        }
    }
}
