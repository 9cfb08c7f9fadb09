//! `/proc/PID/maps`, `smaps` and `smaps_rollup`.

use super::mounts::shown;
use super::stat::resident;
use super::who::Who;
use crate::fs::dev::{major, minor};
use crate::fs::pseudo::Text;
use crate::mm::remote::Resident;
use crate::mm::vma::Label;
use crate::mm::{Mm, Vma};
use crate::put;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::aspace::Prot;
use qlib::{Errno, PAGE_SIZE};

/// Column of the name.
const NAME_AT: usize = 73;

/// What a line names: device, inode, text.
fn backing(v: &Vma) -> (u64, u64, Vec<u8>) {
    if let Some((file, _)) = &v.file {
        let (dev, ino) = file.ops().stat(file).map_or((0, 0), |s| (s.dev, s.ino));
        let name = match file.path() {
            Some(p) => shown(p),
            None => file.describe(),
        };
        return (dev, ino, name);
    }
    if v.memory.is_some() && v.shared {
        return (crate::fs::dev::makedev(0, 1), 1, b"/dev/zero (deleted)".to_vec());
    }
    let name: &[u8] = match v.label {
        Label::None => b"",
        Label::Heap => b"[heap]",
        Label::Stack => b"[stack]",
        Label::Vdso => b"[vdso]",
        Label::Calls => b"[calls]",
        #[allow(unreachable_patterns)]
        _ => b"",
    };
    (0, 0, name.to_vec())
}

fn line(t: &mut Text, v: &Vma) {
    let from = t.len();
    let bit = |p: Prot, c: char| if v.prot.contains(p) { c } else { '-' };
    let (dev, ino, name) = backing(v);
    let offset = match (&v.file, &v.memory) {
        (Some((_, o)), _) | (None, Some((_, o))) => *o,
        _ => 0,
    };
    put!(t, "{:08x}-{:08x} ", v.start, v.end);
    put!(
        t,
        "{}{}{}",
        bit(Prot::READ, 'r'),
        bit(Prot::WRITE, 'w'),
        bit(Prot::EXEC, 'x')
    );
    put!(t, "{} {offset:08x} ", if v.shared { 's' } else { 'p' });
    put!(t, "{:02x}:{:02x} {ino} ", major(dev), minor(dev));
    if !name.is_empty() {
        t.pad(from, NAME_AT);
        t.escaped(&name, b"\n");
    }
    put!(t, "\n");
}

fn areas(mm: &Mm) -> Vec<Vma> {
    let mut all: Vec<Vma> = mm.vmas.lock().iter().cloned().collect();
    if let Some(v) = crate::mm::vdso::area()
        && !all.iter().any(|a| a.label == Label::Vdso)
    {
        let at = all.partition_point(|a| a.start < v.start);
        all.insert(at, v);
    }
    all
}

fn with(who: &Who, f: impl FnOnce(&Arc<Mm>, &mut Text)) -> Result<Vec<u8>, Errno> {
    who.get()?;
    let mut t = Text::new();
    if let Some(mm) = who.mm() {
        f(&mm, &mut t);
    }
    Ok(t.finish())
}

/// `maps`.
pub fn maps(who: &Who) -> Result<Vec<u8>, Errno> {
    with(who, |mm, t| {
        for v in areas(mm) {
            line(t, &v);
        }
    })
}

/// Sums of `smaps`, KiB.
#[derive(Default)]
struct Sums {
    size: u64,
    rss: u64,
    clean: u64,
    dirty: u64,
    shared: u64,
    /// Private pages that a fork shares.
    forked: u64,
    anonymous: u64,
    locked: u64,
}

impl Sums {
    fn of(v: &Vma, resident: Resident) -> Self {
        let size = (v.end - v.start) >> 10;
        let rss = resident.pages * (PAGE_SIZE >> 10);
        let forked = resident.shared * (PAGE_SIZE >> 10);
        let file = v.file.is_some();
        let mut s = Self {
            size,
            rss,
            ..Self::default()
        };
        if v.shared {
            s.shared = rss;
        } else if file && !v.prot.contains(Prot::WRITE) {
            s.clean = rss;
        } else {
            s.dirty = rss - forked;
            s.forked = forked;
            s.anonymous = rss;
        }
        if v.locked {
            s.locked = rss;
        }
        s
    }
    fn add(&mut self, o: &Sums) {
        self.size += o.size;
        self.rss += o.rss;
        self.clean += o.clean;
        self.dirty += o.dirty;
        self.shared += o.shared;
        self.forked += o.forked;
        self.anonymous += o.anonymous;
        self.locked += o.locked;
    }
    fn print(&self, t: &mut Text, rollup: bool) {
        if !rollup {
            put!(t, "Size:           {:>8} kB\n", self.size);
            put!(t, "KernelPageSize: {:>8} kB\nMMUPageSize:    {:>8} kB\n", 4, 4);
        }
        put!(
            t,
            "Rss:            {:>8} kB\nPss:            {:>8} kB\n",
            self.rss,
            self.rss
        );
        put!(t, "Pss_Dirty:      {:>8} kB\n", self.dirty + self.forked);
        if rollup {
            put!(t, "Pss_Anon:       {:>8} kB\n", self.anonymous);
            put!(
                t,
                "Pss_File:       {:>8} kB\nPss_Shmem:      {:>8} kB\n",
                self.clean,
                self.shared
            );
        }
        put!(
            t,
            "Shared_Clean:   {:>8} kB\nShared_Dirty:   {:>8} kB\n",
            0,
            self.shared + self.forked
        );
        put!(
            t,
            "Private_Clean:  {:>8} kB\nPrivate_Dirty:  {:>8} kB\n",
            self.clean,
            self.dirty
        );
        put!(
            t,
            "Referenced:     {:>8} kB\nAnonymous:      {:>8} kB\n",
            self.rss,
            self.anonymous
        );
        for name in [
            "KSM:            ",
            "LazyFree:       ",
            "AnonHugePages:  ",
            "ShmemPmdMapped: ",
            "FilePmdMapped:  ",
            "Shared_Hugetlb: ",
            "Private_Hugetlb:",
            "Swap:           ",
            "SwapPss:        ",
        ] {
            put!(t, "{name}{:>8} kB\n", 0);
        }
        put!(t, "Locked:         {:>8} kB\n", self.locked);
    }
}

/// `smaps`.
pub fn smaps(who: &Who) -> Result<Vec<u8>, Errno> {
    with(who, |_, t| {
        for (v, n) in resident(who) {
            line(t, &v);
            Sums::of(&v, n).print(t, false);
            put!(t, "THPeligible:           0\nVmFlags:");
            for (on, flag) in [
                (v.prot.contains(Prot::READ), "rd"),
                (v.prot.contains(Prot::WRITE), "wr"),
                (v.prot.contains(Prot::EXEC), "ex"),
                (v.shared, "sh"),
                (true, "mr"),
                (true, "mw"),
                (true, "me"),
                (v.grows_down, "gd"),
                (v.locked, "lo"),
                (v.dont_fork, "dc"),
            ] {
                if on {
                    put!(t, " {flag}");
                }
            }
            put!(t, " \n");
        }
    })
}

/// `smaps_rollup`.
pub fn rollup(who: &Who) -> Result<Vec<u8>, Errno> {
    with(who, |_, t| {
        let all = resident(who);
        let mut sums = Sums::default();
        for (v, n) in &all {
            sums.add(&Sums::of(v, *n));
        }
        let start = all.first().map_or(0, |(v, _)| v.start);
        let end = all.last().map_or(0, |(v, _)| v.end);
        let from = t.len();
        put!(t, "{start:08x}-{end:08x} ---p 00000000 00:00 0 ");
        t.pad(from, NAME_AT);
        put!(t, "[rollup]\n");
        sums.print(t, true);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_linux() {
        let mut v = Vma {
            start: 0x55d0_a8a0_0000,
            end: 0x55d0_a8a2_1000,
            prot: Prot::READ | Prot::WRITE,
            shared: false,
            file: None,
            memory: None,
            label: Label::Heap,
            locked: false,
            grows_down: false,
            dont_fork: false,
        };
        let mut t = Text::new();
        line(&mut t, &v);
        assert_eq!(
            core::str::from_utf8(&t.finish()).unwrap(),
            "55d0a8a00000-55d0a8a21000 rw-p 00000000 00:00 0                          [heap]\n"
        );
        v.label = Label::None;
        v.prot = Prot::empty();
        let mut t = Text::new();
        line(&mut t, &v);
        assert_eq!(
            core::str::from_utf8(&t.finish()).unwrap(),
            "55d0a8a00000-55d0a8a21000 ---p 00000000 00:00 0 \n"
        );
    }
}
