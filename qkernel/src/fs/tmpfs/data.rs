//! Contents of tmpfs files: in kernel memory while small, in a host memory file once large or mapped.

use super::{PAGE, Tmpfs};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::host::{self, Dest, HostFile, Src};
use qlib::Errno;

/// Largest contents kept in kernel memory, bytes.
const SMALL_MAX: u64 = 8192;
/// Largest file, bytes.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Which pages are accounted: start → end, in pages; neighbours are joined.
#[derive(Default)]
struct Pages(BTreeMap<u64, u64>);

impl Pages {
    /// Pages of `[from, to)` that are not in the set.
    fn missing(&self, from: u64, to: u64) -> u64 {
        let mut there = 0;
        for (s, e) in self.overlapping(from, to) {
            there += e.min(to) - s.max(from);
        }
        to - from - there
    }
    fn overlapping(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let before = self.0.range(..from).next_back().filter(|(_, e)| **e > from);
        before
            .into_iter()
            .chain(self.0.range(from..to))
            .map(|(s, e)| (*s, *e))
    }
    fn add(&mut self, mut from: u64, mut to: u64) {
        // Ranges that touch are joined too.
        let before = self.0.range(..=from).next_back().filter(|(_, e)| **e >= from);
        if let Some((s, e)) = before.map(|(s, e)| (*s, *e)) {
            self.0.remove(&s);
            from = s;
            to = to.max(e);
        }
        while let Some((s, e)) = self.0.range(from..=to).next().map(|(s, e)| (*s, *e)) {
            self.0.remove(&s);
            to = to.max(e);
        }
        self.0.insert(from, to);
    }
    /// Takes `[from, to)` out; returns how many pages were in it.
    fn remove(&mut self, from: u64, to: u64) -> u64 {
        let hit: Vec<(u64, u64)> = self.overlapping(from, to).collect();
        let mut n = 0;
        for (s, e) in hit {
            self.0.remove(&s);
            if s < from {
                self.0.insert(s, from);
            }
            if e > to {
                self.0.insert(to, e);
            }
            n += e.min(to) - s.max(from);
        }
        n
    }
    fn total(&self) -> u64 {
        self.0.iter().map(|(s, e)| e - s).sum()
    }
}

enum Store {
    Small(Vec<u8>),
    Host(Arc<HostFile>),
}

/// The bytes of one file.
pub struct Data {
    store: Store,
    size: u64,
    pages: Pages,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            store: Store::Small(Vec::new()),
            size: 0,
            pages: Pages::default(),
        }
    }
}

impl Data {
    /// Length, bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// The memory file, when there is one.
    pub fn host(&self) -> Option<&Arc<HostFile>> {
        match &self.store {
            Store::Host(h) => Some(h),
            Store::Small(_) => None,
        }
    }
    /// 512-byte blocks in use, and when a mapping last changed the contents, if one did.
    pub fn usage(&self) -> (u64, Option<(i64, i64)>) {
        match &self.store {
            // What happens through mappings only the host knows.
            Store::Host(h) => host::stat(h.handle(), b"")
                .map_or((0, None), |s| (s.blocks, Some((s.mtime_s, s.mtime_ns as i64)))),
            Store::Small(_) => (self.pages.total() * (PAGE / 512), None),
        }
    }
    /// Tells the host when the contents last changed, where it keeps them.
    pub fn set_modified(&self, at: (i64, i64)) {
        const OMIT: i64 = hal::uapi::general::UTIME_OMIT as i64;
        if let Store::Host(h) = &self.store {
            // Times of a memory file are for `usage` alone: without them a mapping's changes are told late.
            let _ = host::set_times(h.handle(), b"", [(0, OMIT), at]);
        }
    }
    /// Moves the bytes to a memory file, which can be mapped.
    pub fn to_host(&mut self) -> Result<Arc<HostFile>, Errno> {
        let bytes = match &self.store {
            Store::Host(h) => return Ok(h.clone()),
            Store::Small(bytes) => bytes,
        };
        let file = Arc::new(host::mem_file(b"tmpfs")?);
        let mut src = Src::kernel(bytes);
        while src.remaining() > 0 {
            let at = src.done() as u64;
            host::write(file.handle(), &mut src, Some(at), false)?;
        }
        if self.size != bytes.len() as u64 {
            host::truncate(file.handle(), self.size)?;
        }
        self.store = Store::Host(file.clone());
        Ok(file)
    }
    /// Reads at `offset`.
    pub fn read(&self, dst: &mut Dest<'_>, offset: u64) -> Result<usize, Errno> {
        if offset >= self.size {
            return Ok(0);
        }
        match &self.store {
            Store::Host(h) => host::read(h.handle(), dst, Some(offset)),
            Store::Small(bytes) => dst.put(&bytes[offset as usize..]),
        }
    }
    /// Writes at `offset`; less than all when the file system becomes full.
    pub fn write(&mut self, fs: &Tmpfs, src: &mut Src<'_>, offset: u64) -> Result<usize, Errno> {
        let want = src.remaining() as u64;
        if want == 0 {
            return Ok(0);
        }
        if offset >= MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        let want = want.min(MAX_SIZE - offset);
        let len = self.reserve(fs, offset, want)?;
        let end = offset + len;
        if end > SMALL_MAX {
            self.to_host()?;
        }
        let n = match &mut self.store {
            Store::Small(bytes) => {
                let (from, to) = (offset as usize, end as usize);
                if bytes.len() < to {
                    bytes.resize(to, 0);
                }
                let took = src.take(&mut bytes[from..to]);
                let kept = from + *took.as_ref().unwrap_or(&0);
                bytes.truncate(kept.max(self.size as usize));
                took?
            }
            Store::Host(h) if len == src.remaining() as u64 => {
                host::write(h.handle(), src, Some(offset), false)?
            }
            Store::Host(h) => {
                // Only a part fits: it goes through a kernel buffer, because a source cannot be cut short.
                let mut part = alloc::vec![0; len.min(64 * 1024) as usize];
                let got = src.take(&mut part)?;
                let mut cut = Src::kernel(&part[..got]);
                host::write(h.handle(), &mut cut, Some(offset), false)?
            }
        };
        self.size = self.size.max(offset + n as u64);
        Ok(n)
    }
    /// Accounts the pages of `[offset, offset + len)`; returns how many bytes from `offset` on are covered.
    fn reserve(&mut self, fs: &Tmpfs, offset: u64, len: u64) -> Result<u64, Errno> {
        let (from, to) = (offset / PAGE, (offset + len).div_ceil(PAGE));
        let missing = self.pages.missing(from, to);
        if missing == 0 {
            return Ok(len);
        }
        if fs.take_pages(missing).is_ok() {
            self.pages.add(from, to);
            return Ok(len);
        }
        // What fits from the front.
        let mut covered = from;
        while covered < to {
            let need = self.pages.missing(covered, covered + 1);
            if need > 0 && fs.take_pages(need).is_err() {
                break;
            }
            self.pages.add(covered, covered + 1);
            covered += 1;
        }
        if covered == from {
            return Err(Errno::ENOSPC);
        }
        Ok(covered * PAGE - offset)
    }
    /// Sets the length.
    pub fn truncate(&mut self, fs: &Tmpfs, len: u64) -> Result<(), Errno> {
        if len > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        if len > SMALL_MAX {
            self.to_host()?;
        }
        match &mut self.store {
            Store::Small(bytes) => bytes.resize(len as usize, 0),
            Store::Host(h) => host::truncate(h.handle(), len)?,
        }
        self.size = len;
        fs.give_pages(self.pages.remove(len.div_ceil(PAGE), u64::MAX));
        Ok(())
    }
    /// Accounts and fills a range (FALLOC_FL_KEEP_SIZE leaves the length).
    pub fn allocate(&mut self, fs: &Tmpfs, offset: u64, len: u64, keep_size: bool) -> Result<(), Errno> {
        let end = offset
            .checked_add(len)
            .filter(|e| *e <= MAX_SIZE)
            .ok_or(Errno::EFBIG)?;
        let (from, to) = (offset / PAGE, end.div_ceil(PAGE));
        fs.take_pages(self.pages.missing(from, to))?;
        self.pages.add(from, to);
        if !keep_size && end > self.size {
            self.truncate(fs, end)?;
        }
        Ok(())
    }
    /// Makes a range read as zeros and frees whole pages of it.
    pub fn punch(&mut self, fs: &Tmpfs, offset: u64, len: u64) -> Result<(), Errno> {
        let end = offset.saturating_add(len);
        match &mut self.store {
            Store::Small(bytes) => {
                let (from, to) = (offset.min(bytes.len() as u64), end.min(bytes.len() as u64));
                bytes[from as usize..to as usize].fill(0);
            }
            Store::Host(h) => {
                let mode = hal::uapi::general::FALLOC_FL_PUNCH_HOLE | hal::uapi::general::FALLOC_FL_KEEP_SIZE;
                host::allocate(h.handle(), mode, offset, len)?;
            }
        }
        let (from, to) = (offset.div_ceil(PAGE), end / PAGE);
        if from < to {
            fs.give_pages(self.pages.remove(from, to));
        }
        Ok(())
    }
    /// Gives all accounted pages back.
    pub fn release(&mut self, fs: &Tmpfs) {
        fs.give_pages(self.pages.remove(0, u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_are_a_set(steps in proptest::collection::vec((any::<bool>(), 0u64..40, 1u64..12), 1..60)) {
            let mut pages = Pages::default();
            let mut model = std::collections::BTreeSet::new();
            for (add, from, len) in steps {
                let to = from + len;
                let there = (from..to).filter(|p| model.contains(p)).count() as u64;
                prop_assert_eq!(pages.missing(from, to), len - there);
                if add {
                    pages.add(from, to);
                    model.extend(from..to);
                } else {
                    prop_assert_eq!(pages.remove(from, to), there);
                    (from..to).for_each(|p| { model.remove(&p); });
                }
                prop_assert_eq!(pages.total(), model.len() as u64);
            }
        }
    }
}
