//! Page tables of both architectures against a model: a map from page to frame and rights.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use arch::table::{Attr, BLOCK_SIZE, ENTRIES, Format, LEVELS, Store, Tables, span};
use proptest::prelude::*;
use qlib::{PAGE_SIZE, PhysAddr};
use std::collections::{BTreeMap, BTreeSet};

/// Physical memory that holds nothing but tables.
#[derive(Default)]
struct Memory {
    tables: BTreeMap<u64, [u64; ENTRIES]>,
    next: u64,
    /// Tables still to be had.
    left: usize,
}

impl Memory {
    fn with_room(left: usize) -> Self {
        Self {
            left,
            next: 0x10_0000,
            ..Self::default()
        }
    }
}

impl Store for Memory {
    fn read(&self, table: PhysAddr, index: usize) -> u64 {
        self.tables.get(&table.0).expect("a table that was freed is read")[index]
    }
    fn write(&mut self, table: PhysAddr, index: usize, entry: u64) {
        self.tables
            .get_mut(&table.0)
            .expect("a table that was freed is written")[index] = entry;
    }
    fn alloc(&mut self) -> Option<PhysAddr> {
        self.left = self.left.checked_sub(1)?;
        self.next += PAGE_SIZE;
        self.tables.insert(self.next, [0; ENTRIES]);
        Some(PhysAddr(self.next))
    }
    fn free(&mut self, table: PhysAddr) {
        assert!(self.tables.remove(&table.0).is_some(), "freed twice");
        self.left += 1;
    }
}

/// What the hardware of an architecture makes of a leaf; written from the manuals, not from the format under test.
trait Hardware: Format {
    /// Whether (the app, the kernel) may load, store, fetch.
    fn rights(entry: u64) -> [(bool, bool, bool); 2];
}

impl Hardware for arch::x86_64::paging::Pte {
    fn rights(e: u64) -> [(bool, bool, bool); 2] {
        let (present, write, user, nx) = (e & 1 != 0, e & 2 != 0, e & 4 != 0, e >> 63 != 0);
        // The kernel has WP, SMEP and SMAP on: it does not touch the app's pages.
        [
            (present && user, present && user && write, present && user && !nx),
            (
                present && !user,
                present && !user && write,
                present && !user && !nx,
            ),
        ]
    }
}

impl Hardware for arch::aarch64::paging::Pte {
    fn rights(e: u64) -> [(bool, bool, bool); 2] {
        let (valid, user, read_only) = (e & 1 != 0 && e & 1 << 10 != 0, e & 1 << 6 != 0, e & 1 << 7 != 0);
        let (pxn, uxn) = (e & 1 << 53 != 0, e & 1 << 54 != 0);
        // A page EL0 may write is never fetched from at EL1; PAN keeps EL1 off the app's pages.
        [
            (valid && user, valid && user && !read_only, valid && !uxn),
            (valid && !user, valid && !user && !read_only, valid && !pxn),
        ]
    }
}

fn wanted(attr: Attr) -> [(bool, bool, bool); 2] {
    let read = attr.contains(Attr::READ);
    let rights = (
        read,
        read && attr.contains(Attr::WRITE),
        read && attr.contains(Attr::EXEC),
    );
    if attr.contains(Attr::USER) {
        [rights, (false, false, false)]
    } else {
        [(false, false, false), rights]
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// Sets a page.
    Set(u64, u64, Attr),
    /// Empties a range.
    Clear(u64, u64),
    /// Takes the right to store away from a range (fork).
    Protect(u64, u64),
}

/// Pages around the boundaries of every level, so that tables are shared, begun and ended.
fn page() -> impl Strategy<Value = u64> {
    let near = prop_oneof![
        Just(0u64),
        Just(span(1)),
        Just(span(2)),
        Just(span(3)),
        Just(3 * span(3)),
        Just(1 << 46)
    ];
    (near, -3i64..4).prop_map(|(base, n)| base.saturating_add_signed(n * PAGE_SIZE as i64).max(PAGE_SIZE))
}

fn attr() -> impl Strategy<Value = Attr> {
    (0u32..16).prop_map(Attr::from_bits_truncate)
}

fn frame() -> impl Strategy<Value = u64> {
    (0x4_0000u64..0xfff_ffff).prop_map(|n| n * PAGE_SIZE)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (page(), frame(), attr()).prop_map(|(v, p, a)| Op::Set(v, p, a)),
        1 => (page(), page()).prop_map(|(a, b)| Op::Clear(a.min(b), a.max(b))),
        1 => (page(), page()).prop_map(|(a, b)| Op::Protect(a.min(b), a.max(b))),
    ]
}

fn follows_the_model<F: Hardware>(ops: &[Op], room: usize) {
    let mut memory = Memory::with_room(room + 1);
    let root = memory.alloc().unwrap();
    let mut model: BTreeMap<u64, (u64, Attr)> = BTreeMap::new();
    let mut touched = BTreeSet::new();
    for op in ops {
        let mut tables = Tables::<F, _>::new(root, &mut memory);
        match *op {
            Op::Set(va, pa, attr) => {
                touched.insert(va);
                let before = model.get(&va).copied();
                // Out of memory leaves the page as it was.
                if let Ok(old) = tables.set(va, F::leaf(PhysAddr(pa), attr, 0)) {
                    assert_eq!((old != 0).then(|| (F::addr(old).0, F::attr(old))), before);
                    model.insert(va, (pa, attr));
                } else {
                    assert!(before.is_none());
                }
            }
            Op::Clear(from, to) => {
                let mut seen = Vec::new();
                tables.update(from, to, &mut |va, e| {
                    seen.push((va, F::addr(e).0));
                    0
                });
                let gone: Vec<_> = model.range(from..to).map(|(va, (pa, _))| (*va, *pa)).collect();
                assert_eq!(seen, gone);
                model.retain(|va, _| !(from..to).contains(va));
            }
            Op::Protect(from, to) => {
                tables.update(from, to, &mut |_, e| {
                    F::leaf(F::addr(e), F::attr(e) - Attr::WRITE, 0)
                });
                for (_, (_, attr)) in model.range_mut(from..to) {
                    *attr -= Attr::WRITE;
                }
            }
        }
        let tables = Tables::<F, _>::new(root, &mut memory);
        for va in &touched {
            let found = tables.lookup(*va);
            assert_eq!(
                found.map(|(e, level)| (F::addr(e).0, F::attr(e), level)),
                model.get(va).map(|(p, a)| (*p, *a, 0))
            );
            if let Some((e, _)) = found {
                assert_eq!(F::rights(e), wanted(F::attr(e)), "{e:#x}");
            }
        }
    }
    Tables::<F, _>::new(root, &mut memory).free_tables(0, span(LEVELS - 1) * (ENTRIES as u64 / 2));
    assert_eq!(memory.tables.keys().collect::<Vec<_>>(), [&root.0], "tables leak");
    assert!(memory.tables[&root.0].iter().all(|e| *e == 0));
}

fn maps_ranges<F: Hardware>(va: u64, pa: u64, pages: u64, attr: Attr) {
    let mut memory = Memory::with_room(64);
    let root = memory.alloc().unwrap();
    let mut tables = Tables::<F, _>::new(root, &mut memory);
    tables
        .map_range(va, PhysAddr(pa), pages * PAGE_SIZE, attr)
        .unwrap();
    for n in 0..pages {
        let at = va + n * PAGE_SIZE;
        let (e, level) = tables.lookup(at).expect("mapped");
        assert_eq!(F::addr(e).0 + (at & (span(level) - 1)), pa + n * PAGE_SIZE);
        assert_eq!(F::attr(e), attr);
        assert_eq!(F::rights(e), wanted(attr));
        let aligned = (va ^ pa) & (BLOCK_SIZE - 1) == 0;
        assert!(level == 0 || aligned);
    }
    assert!(tables.lookup(va - PAGE_SIZE).is_none());
    assert!(tables.lookup(va + pages * PAGE_SIZE).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn x86_64_follows_the_model(ops in prop::collection::vec(op(), 1..60), room in 3usize..40) {
        follows_the_model::<arch::x86_64::paging::Pte>(&ops, room);
    }

    #[test]
    fn aarch64_follows_the_model(ops in prop::collection::vec(op(), 1..60), room in 3usize..40) {
        follows_the_model::<arch::aarch64::paging::Pte>(&ops, room);
    }

    #[test]
    fn ranges_become_pages_and_blocks(
        va in (1u64..0x7fff_ffff).prop_map(|n| n * PAGE_SIZE),
        skew in prop_oneof![Just(0u64), 0u64..512],
        base in (0x2000u64..0x4_0000).prop_map(|n| n * BLOCK_SIZE),
        pages in 1u64..2000,
        attr in (0u32..16).prop_map(|b| Attr::from_bits_truncate(b | 1)),
    ) {
        let pa = base + (va & (BLOCK_SIZE - 1)) + skew * PAGE_SIZE;
        maps_ranges::<arch::x86_64::paging::Pte>(va, pa, pages, attr);
        maps_ranges::<arch::aarch64::paging::Pte>(va, pa, pages, attr);
    }
}
