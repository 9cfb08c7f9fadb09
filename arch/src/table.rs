//! Page tables of either architecture: four levels of 512 entries over 4 KiB pages. What an entry looks like is the
//! architecture's [`Format`]; where tables live is the caller's [`Store`].

use bitflags::bitflags;
use core::marker::PhantomData;
use qlib::{PAGE_SIZE, PhysAddr};

bitflags! {
    /// What a mapping permits. Without `READ` an entry keeps its page but the hardware sees nothing (PROT_NONE).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Attr: u32 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches (by the app when `USER`, else by the kernel; never both).
        const EXEC = 4;
        /// Belongs to the app.
        const USER = 8;
        /// The same in every address space.
        const GLOBAL = 16;
        /// Device registers: no caching, no speculation.
        const DEVICE = 32;
    }
}

/// Entries in one table.
pub const ENTRIES: usize = 512;
/// Levels; level 0 holds 4 KiB pages, level 1 may hold 2 MiB blocks.
pub const LEVELS: u32 = 4;
/// Bytes of a level-1 block.
pub const BLOCK_SIZE: u64 = 2 << 20;

/// How an architecture encodes an entry. An entry of 0 is empty.
pub trait Format {
    /// A pointer to the next level's table.
    fn table(next: PhysAddr) -> u64;
    /// A page (level 0) or block (level 1).
    fn leaf(page: PhysAddr, attr: Attr, level: u32) -> u64;
    /// Whether a non-empty entry of level 1 or above points to a table.
    fn is_table(entry: u64) -> bool;
    /// The physical address in a non-empty entry.
    fn addr(entry: u64) -> PhysAddr;
    /// What a leaf permits.
    fn attr(entry: u64) -> Attr;
}

/// Where tables live.
pub trait Store {
    /// Reads an entry.
    fn read(&self, table: PhysAddr, index: usize) -> u64;
    /// Writes an entry, in one store the hardware may observe at any time.
    fn write(&mut self, table: PhysAddr, index: usize, entry: u64);
    /// A zeroed page for a table; `None` when memory is out.
    fn alloc(&mut self) -> Option<PhysAddr>;
    /// Takes a table back.
    fn free(&mut self, table: PhysAddr);
}

/// No memory for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// Bytes that one entry of `level` covers.
pub const fn span(level: u32) -> u64 {
    PAGE_SIZE << (9 * level)
}

/// The index of `va` in a table of `level`.
pub const fn index(va: u64, level: u32) -> usize {
    ((va >> (12 + 9 * level)) & 511) as usize
}

/// A tree of tables.
pub struct Tables<'s, F, S> {
    root: PhysAddr,
    store: &'s mut S,
    format: PhantomData<F>,
}

impl<'s, F: Format, S: Store> Tables<'s, F, S> {
    /// Works on the tree under `root`.
    pub fn new(root: PhysAddr, store: &'s mut S) -> Self {
        Self {
            root,
            store,
            format: PhantomData,
        }
    }

    /// The leaf that maps `va`: its entry and level; `None` when there is none.
    pub fn lookup(&self, va: u64) -> Option<(u64, u32)> {
        let mut table = self.root;
        let mut level = LEVELS - 1;
        loop {
            let entry = self.store.read(table, index(va, level));
            if entry == 0 {
                return None;
            }
            if level == 0 || !F::is_table(entry) {
                return Some((entry, level));
            }
            table = F::addr(entry);
            level -= 1;
        }
    }

    /// Maps `len` bytes at `va` to `pa`, with blocks where both are aligned; all multiples of the page size. Meant for
    /// ranges that are empty so far (boot); what was there is overwritten, tables under a new block are not freed.
    ///
    /// # Errors
    /// [`NoMemory`]; part of the range may be mapped then.
    pub fn map_range(&mut self, va: u64, pa: PhysAddr, len: u64, attr: Attr) -> Result<(), NoMemory> {
        let mut done = 0;
        while done < len {
            let (v, p) = (va.wrapping_add(done), pa.0 + done);
            let block =
                (v | p) & (BLOCK_SIZE - 1) == 0 && len - done >= BLOCK_SIZE && attr.contains(Attr::READ);
            let level = block as u32;
            let table = self.table_for(v, level)?;
            self.store
                .write(table, index(v, level), F::leaf(PhysAddr(p), attr, level));
            done += span(level);
        }
        Ok(())
    }

    /// The table of `level` that covers `va`, made when missing. Blocks in the way count as a bug of the caller and are
    /// replaced.
    fn table_for(&mut self, va: u64, level: u32) -> Result<PhysAddr, NoMemory> {
        let mut table = self.root;
        for l in (level + 1..LEVELS).rev() {
            let i = index(va, l);
            let entry = self.store.read(table, i);
            table = if entry != 0 && F::is_table(entry) {
                F::addr(entry)
            } else {
                let next = self.store.alloc().ok_or(NoMemory)?;
                self.store.write(table, i, F::table(next));
                next
            };
        }
        Ok(table)
    }

    /// Sets the page entry of `va`, making tables as needed; returns the entry that was there.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn set(&mut self, va: u64, entry: u64) -> Result<u64, NoMemory> {
        let table = self.table_for(va, 0)?;
        let i = index(va, 0);
        let old = self.store.read(table, i);
        self.store.write(table, i, entry);
        Ok(old)
    }

    /// Calls `f(va, entry)` for every non-empty page entry in `[start, end)` and stores what it returns (0 empties).
    /// Absent tables are skipped. `end` must not wrap.
    pub fn update(&mut self, start: u64, end: u64, f: &mut dyn FnMut(u64, u64) -> u64) {
        self.update_level(self.root, LEVELS - 1, start, end, f);
    }

    fn update_level(
        &mut self,
        table: PhysAddr,
        level: u32,
        start: u64,
        end: u64,
        f: &mut dyn FnMut(u64, u64) -> u64,
    ) {
        let mut va = start;
        while va < end {
            let next = (va & !(span(level) - 1)).saturating_add(span(level)).min(end);
            let i = index(va, level);
            let entry = self.store.read(table, i);
            if entry != 0 {
                if level > 0 && F::is_table(entry) {
                    self.update_level(F::addr(entry), level - 1, va, next, f);
                } else {
                    let new = f(va, entry);
                    if new != entry {
                        self.store.write(table, i, new);
                    }
                }
            }
            va = next;
        }
    }

    /// Frees every table below the root that covers `[start, end)` (multiples of what a top-level entry covers) and
    /// empties its root entry. Leaves are dropped without a look: [`Tables::update`] them away before.
    pub fn free_tables(&mut self, start: u64, end: u64) {
        let top = LEVELS - 1;
        let mut va = start;
        while va < end {
            let i = index(va, top);
            let entry = self.store.read(self.root, i);
            if entry != 0 && F::is_table(entry) {
                self.store.write(self.root, i, 0);
                self.free_level(F::addr(entry), top - 1);
            }
            va = va.saturating_add(span(top));
        }
    }

    fn free_level(&mut self, table: PhysAddr, level: u32) {
        if level > 0 {
            for i in 0..ENTRIES {
                let entry = self.store.read(table, i);
                if entry != 0 && F::is_table(entry) {
                    self.free_level(F::addr(entry), level - 1);
                }
            }
        }
        self.store.free(table);
    }
}
