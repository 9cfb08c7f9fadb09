//! Translation-table entries: VMSAv8-64, 4 KiB granule, 48 bits (Arm ARM D8.3).

use super::boot::{MAIR_DEVICE, RAM_BASE};
use crate::table::{Attr, Format};
use qlib::PhysAddr;

/// Lowest virtual address of the kernel's half that images and the direct map may use; the hardware's half begins at
/// [`DEVICES`].
pub const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
/// One past the last address apps may use: all 48 bits but the last page.
pub const USER_END: u64 = (1 << 48) - 4096;
/// Whether both halves hang on one root table, so that each root needs the kernel's entries.
pub const SHARED_ROOT: bool = false;
/// Where the kernel sees the devices.
const DEVICES: u64 = 0xffff_0000_0000_0000;
/// Devices (virtual address, physical address, bytes) that the boot tables map, with [`Attr::DEVICE`]: all below RAM.
pub const DEVICE_MAPS: &[(u64, u64, u64)] = &[(DEVICES, 0, RAM_BASE)];

/// The kernel's address of a device register at guest-physical `phys`.
pub const fn device(phys: u64) -> u64 {
    DEVICES + phys
}

/// The encoding of this architecture.
///
/// The app's pages are never writable or executable by the kernel's privilege beyond what the app may do: PXN is set on
/// all of them, and what the app may only read the kernel may only read.
pub struct Pte;

/// The entry is live.
const VALID: u64 = 1 << 0;
/// Table at levels above the last, page at the last; a block has it clear.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// Index into MAIR: [`MAIR_DEVICE`].
const ATTR_DEVICE: u64 = MAIR_DEVICE << 2;
/// AP[1]: EL0 may access.
const USER: u64 = 1 << 6;
/// AP[2]: no stores.
const READ_ONLY: u64 = 1 << 7;
/// Inner shareable.
const INNER: u64 = 3 << 8;
/// Access flag: without it the first touch faults.
const ACCESSED: u64 = 1 << 10;
/// Not global: tagged with the ASID.
const NOT_GLOBAL: u64 = 1 << 11;
/// No fetch at EL1.
const PXN: u64 = 1 << 53;
/// No fetch at EL0.
const UXN: u64 = 1 << 54;
/// Software bits: an entry the hardware does not see keeps its page, and here what it is.
const SOFT_PRESENT: u64 = 1 << 55;
/// Software: the page may not be read (PROT_NONE); see [`VALID`].
const SOFT_NONE: u64 = 1 << 56;
/// Bits 47–12.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

impl Format for Pte {
    fn table(next: PhysAddr) -> u64 {
        next.0 & ADDRESS | SOFT_PRESENT | TABLE_OR_PAGE | VALID
    }

    fn leaf(page: PhysAddr, attr: Attr, level: u32) -> u64 {
        let mut e = page.0 & ADDRESS | SOFT_PRESENT | ACCESSED | UXN | PXN;
        if level == 0 {
            e |= TABLE_OR_PAGE;
        }
        e |= if attr.contains(Attr::DEVICE) {
            ATTR_DEVICE
        } else {
            INNER
        };
        if !attr.contains(Attr::WRITE) {
            e |= READ_ONLY;
        }
        if attr.contains(Attr::USER) {
            e |= USER;
        }
        if !attr.contains(Attr::GLOBAL) {
            e |= NOT_GLOBAL;
        }
        if attr.contains(Attr::EXEC) {
            e &= !(if attr.contains(Attr::USER) { UXN } else { PXN });
        }
        e | if attr.contains(Attr::READ) {
            VALID
        } else {
            SOFT_NONE
        }
    }

    fn is_table(entry: u64) -> bool {
        // A leaf always has the access flag; in a table entry that bit is ignored, and never set here.
        entry & (TABLE_OR_PAGE | ACCESSED | VALID) == TABLE_OR_PAGE | VALID
    }

    fn addr(entry: u64) -> PhysAddr {
        PhysAddr(entry & ADDRESS)
    }

    fn attr(entry: u64) -> Attr {
        let user = entry & USER != 0;
        let mut a = Attr::empty();
        a.set(Attr::READ, entry & VALID != 0);
        a.set(Attr::WRITE, entry & READ_ONLY == 0);
        a.set(Attr::EXEC, entry & (if user { UXN } else { PXN }) == 0);
        a.set(Attr::USER, user);
        a.set(Attr::GLOBAL, entry & NOT_GLOBAL == 0);
        a.set(Attr::DEVICE, entry & 7 << 2 == ATTR_DEVICE);
        a
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_comes_back() {
        for bits in 0..64 {
            let attr = Attr::from_bits_truncate(bits);
            for level in [0, 1] {
                let e = Pte::leaf(PhysAddr(0x1234_5600_0000), attr, level);
                assert_eq!(Pte::attr(e), attr, "{attr:?}");
                assert_eq!(Pte::addr(e), PhysAddr(0x1234_5600_0000));
                assert!(!Pte::is_table(e));
            }
        }
        let t = Pte::table(PhysAddr(0x8000_1000));
        assert!(Pte::is_table(t) && Pte::addr(t) == PhysAddr(0x8000_1000));
    }

    /// The bits the CPU looks at, against the Arm ARM by hand.
    #[test]
    fn golden_bits() {
        let hw = |e: u64| e & !(SOFT_PRESENT | SOFT_NONE);
        let text = Pte::leaf(PhysAddr(0x4020_0000), Attr::READ | Attr::EXEC | Attr::GLOBAL, 1);
        assert_eq!(hw(text), 0x0040_0000_4020_0781);
        let user = Pte::leaf(PhysAddr(0x5000_1000), Attr::READ | Attr::WRITE | Attr::USER, 0);
        assert_eq!(hw(user), 0x0060_0000_5000_1f43);
        let user_text = Pte::leaf(PhysAddr(0x5000_1000), Attr::READ | Attr::EXEC | Attr::USER, 0);
        assert_eq!(hw(user_text), 0x0020_0000_5000_1fc3);
        let none = Pte::leaf(PhysAddr(0x5000_1000), Attr::USER, 0);
        assert_eq!(none & VALID, 0);
        let device = Pte::leaf(
            PhysAddr(0x0800_0000),
            Attr::READ | Attr::WRITE | Attr::GLOBAL | Attr::DEVICE,
            0,
        );
        assert_eq!(hw(device), 0x0060_0000_0800_0407);
    }
}
