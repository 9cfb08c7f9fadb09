//! What lies where in an address space: regions, which never overlap.

use super::window::FileMap;
use crate::aspace::Prot;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::boot::Range;

/// Where the content of a region comes from.
#[derive(Clone)]
pub(super) enum Source {
    /// Zeroes.
    Anon,
    /// A file.
    File {
        /// The file.
        map: Arc<FileMap>,
        /// Offset in the file of the region's first byte.
        offset: u64,
        /// Stores go to the file; else they make private copies.
        shared: bool,
    },
}

/// A mapping.
#[derive(Clone)]
pub(super) struct Region {
    pub end: u64,
    pub prot: Prot,
    pub source: Source,
    /// MADV_DONTFORK.
    pub dont_fork: bool,
    /// MADV_WIPEONFORK.
    pub wipe_on_fork: bool,
}

impl Region {
    pub fn new(end: u64, prot: Prot, source: Source) -> Self {
        Self {
            end,
            prot,
            source,
            dont_fork: false,
            wipe_on_fork: false,
        }
    }
    /// Whether stores are seen by others.
    pub fn is_shared(&self) -> bool {
        matches!(self.source, Source::File { shared: true, .. })
    }
    /// The same mapping starting `bytes` later.
    fn skip(&self, bytes: u64) -> Self {
        let mut r = self.clone();
        if let Source::File { offset, .. } = &mut r.source {
            *offset += bytes;
        }
        r
    }
}

/// Regions by their first address.
#[derive(Default)]
pub(super) struct Regions(BTreeMap<u64, Region>);

impl Regions {
    /// The region that holds `addr`, with its start.
    pub fn find(&self, addr: u64) -> Option<(u64, &Region)> {
        let (start, r) = self.0.range(..=addr).next_back()?;
        (addr < r.end).then_some((*start, r))
    }

    /// Makes `at` a boundary.
    fn split(&mut self, at: u64) {
        let Some((start, r)) = self.find(at) else { return };
        if start == at {
            return;
        }
        let tail = r.skip(at - start);
        if let Some(head) = self.0.get_mut(&start) {
            head.end = at;
        }
        self.0.insert(at, tail);
    }

    /// Takes out all regions in `range`, split at its ends.
    pub fn take(&mut self, range: Range) -> Vec<(u64, Region)> {
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> = self.0.range(range.start..range.end).map(|(s, _)| *s).collect();
        starts
            .into_iter()
            .filter_map(|s| self.0.remove(&s).map(|r| (s, r)))
            .collect()
    }

    /// Puts a region where nothing is.
    pub fn insert(&mut self, start: u64, r: Region) {
        // Growing anonymous memory in steps (brk, stacks) stays one region.
        let plain = |r: &Region| matches!(r.source, Source::Anon) && !r.dont_fork && !r.wipe_on_fork;
        if plain(&r)
            && let Some((_, before)) = self.0.range_mut(..start).next_back()
            && before.end == start
            && before.prot == r.prot
            && plain(before)
        {
            before.end = r.end;
            return;
        }
        self.0.insert(start, r);
    }

    /// Changes every region in `range`.
    pub fn change(&mut self, range: Range, mut f: impl FnMut(&mut Region)) {
        self.split(range.start);
        self.split(range.end);
        for (_, r) in self.0.range_mut(range.start..range.end) {
            f(r);
        }
    }

    /// All regions that begin in `range`, after its ends were made boundaries.
    pub fn within(&mut self, range: Range) -> impl Iterator<Item = (u64, &Region)> {
        self.split(range.start);
        self.split(range.end);
        self.0.range(range.start..range.end).map(|(s, r)| (*s, r))
    }

    /// All regions.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Region)> {
        self.0.iter().map(|(s, r)| (*s, r))
    }
}
