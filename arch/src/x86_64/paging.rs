//! The x86_64 page-table entry (SDM volume 3A, section 4.5).

use crate::table::{Attr, Format};
use qlib::PhysAddr;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const NO_CACHE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// A 2 MiB block (in levels above 0).
const BLOCK: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
/// Software: keeps its page while the hardware sees nothing.
const HELD: u64 = 1 << 9;
const NO_EXEC: u64 = 1 << 63;
const ADDR: u64 = 0x000f_ffff_ffff_f000;

/// Lowest virtual address of the kernel's half.
pub const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
/// One past the last address apps may use: a page below the non-canonical gap.
pub const USER_END: u64 = (1 << 47) - 4096;
/// Whether both halves hang on one root table, so that each root needs the kernel's entries (256..512).
pub const SHARED_ROOT: bool = true;
/// Devices (virtual address, physical address, bytes) that the boot tables map: none, the machine has ports and MSRs.
pub const DEVICE_MAPS: &[(u64, u64, u64)] = &[];

/// Entries of x86_64.
pub struct Pte;

impl Format for Pte {
    fn table(next: PhysAddr) -> u64 {
        // Rights are decided by the leaf.
        next.0 & ADDR | PRESENT | WRITE | USER | ACCESSED
    }

    fn leaf(page: PhysAddr, attr: Attr, level: u32) -> u64 {
        // Accessed and dirty are set beforehand: nobody reads them, and the hardware need not write.
        let mut e = page.0 & ADDR | ACCESSED | DIRTY;
        if attr.contains(Attr::WRITE) {
            e |= WRITE;
        }
        if attr.contains(Attr::USER) {
            e |= USER;
        }
        if !attr.contains(Attr::EXEC) {
            e |= NO_EXEC;
        }
        if attr.contains(Attr::GLOBAL) {
            e |= GLOBAL;
        }
        if attr.contains(Attr::DEVICE) {
            e |= NO_CACHE | WRITE_THROUGH;
        }
        if level > 0 {
            e |= BLOCK;
        }
        if attr.contains(Attr::READ) {
            e | PRESENT
        } else {
            // The address is inverted, so that no speculation follows it (L1TF).
            (e ^ ADDR) | HELD
        }
    }

    fn is_table(entry: u64) -> bool {
        entry & (PRESENT | BLOCK) == PRESENT
    }

    fn addr(entry: u64) -> PhysAddr {
        if entry & PRESENT != 0 {
            PhysAddr(entry & ADDR)
        } else {
            PhysAddr((entry ^ ADDR) & ADDR)
        }
    }

    fn attr(entry: u64) -> Attr {
        let mut a = Attr::empty();
        a.set(Attr::READ, entry & PRESENT != 0);
        a.set(Attr::WRITE, entry & WRITE != 0);
        a.set(Attr::USER, entry & USER != 0);
        a.set(Attr::EXEC, entry & NO_EXEC == 0);
        a.set(Attr::GLOBAL, entry & GLOBAL != 0);
        a.set(Attr::DEVICE, entry & NO_CACHE != 0);
        a
    }
}
