//! Copies from and to app memory. A fault inside asks the machine's handler, and fails the copy when that says so: the
//! table `quark_fixups` names, for each instruction that may fault, where to go on.
//!
//! Loads and stores are the unprivileged LDTR and STTR, so the CPU checks the *app's* rights to the page, with or without
//! PAN, and no kernel address can pass. Only the atomic exchange has no such form and lifts PAN for its length.

use core::arch::global_asm;

global_asm!(
    ".pushsection .text.quark_user, \"ax\"",
    // \name(x0 = destination, x1 = source, x2 = bytes): returns bytes not copied.
    ".macro USER_COPY name, pair, byte",
    ".balign 16",
    ".globl \\name",
    "\\name:",
    "subs x3, x2, #16",
    "b.lo 13f",
    "12:",
    "\\pair",
    "add x0, x0, #16",
    "add x1, x1, #16",
    "subs x3, x3, #16",
    "b.hs 12b",
    // The tail goes byte by byte, and so does a piece in which a fault came, so that the count is exact.
    "13: add x3, x3, #16",
    "cbz x3, 15f",
    "14:",
    "\\byte",
    "add x0, x0, #1",
    "add x1, x1, #1",
    "subs x3, x3, #1",
    "b.ne 14b",
    "15: mov x0, x3",
    "ret",
    ".pushsection .rodata.quark_fixups, \"a\"",
    ".long 20b - quark_fixups, 13b - quark_fixups",
    ".long 21b - quark_fixups, 13b - quark_fixups",
    ".long 22b - quark_fixups, 15b - quark_fixups",
    ".popsection",
    ".endm",
    ".macro LOAD_PAIR",
    "20: ldtr x4, [x1]",
    "21: ldtr x5, [x1, #8]",
    "stp x4, x5, [x0]",
    ".endm",
    ".macro LOAD_BYTE",
    "22: ldtrb w4, [x1]",
    "strb w4, [x0]",
    ".endm",
    ".macro STORE_PAIR",
    "ldp x4, x5, [x1]",
    "20: sttr x4, [x0]",
    "21: sttr x5, [x0, #8]",
    ".endm",
    ".macro STORE_BYTE",
    "ldrb w4, [x1]",
    "22: sttrb w4, [x0]",
    ".endm",
    ".macro WINDOW_PAIR",
    "20: ldr x4, [x1]",
    "21: ldr x5, [x1, #8]",
    "stp x4, x5, [x0]",
    ".endm",
    ".macro WINDOW_BYTE",
    "22: ldrb w4, [x1]",
    "strb w4, [x0]",
    ".endm",
    // Here the load may fault as well as the stores.
    ".macro THROUGH_PAIR",
    "23: ldp x4, x5, [x1]",
    "20: sttr x4, [x0]",
    "21: sttr x5, [x0, #8]",
    ".endm",
    ".macro THROUGH_BYTE",
    "24: ldrb w4, [x1]",
    "22: sttrb w4, [x0]",
    ".endm",
    ".macro ZERO_PAIR",
    "20: sttr xzr, [x0]",
    "21: sttr xzr, [x0, #8]",
    ".endm",
    ".macro ZERO_BYTE",
    "22: sttrb wzr, [x0]",
    ".endm",
    ".pushsection .rodata.quark_fixups, \"a\"",
    ".balign 4",
    ".globl quark_fixups",
    "quark_fixups:",
    ".popsection",
    "USER_COPY quark_user_copy_in, LOAD_PAIR, LOAD_BYTE",
    "USER_COPY quark_user_copy_out, STORE_PAIR, STORE_BYTE",
    "USER_COPY quark_user_zero, ZERO_PAIR, ZERO_BYTE",
    "USER_COPY quark_window_copy, WINDOW_PAIR, WINDOW_BYTE",
    "USER_COPY quark_window_copy_out, THROUGH_PAIR, THROUGH_BYTE",
    ".pushsection .rodata.quark_fixups, \"a\"",
    ".long 23b - quark_fixups, 13b - quark_fixups",
    ".long 24b - quark_fixups, 15b - quark_fixups",
    ".popsection",
    // x0 = an address in a cache line to clean to where instructions are fetched from.
    ".balign 16",
    ".globl quark_clean_line",
    "quark_clean_line:",
    "50: dc cvau, x0",
    "51: ret",
    // x0 = address, x1 = where the value goes; returns 0 or 1.
    ".balign 16",
    ".globl quark_user_load32",
    "quark_user_load32:",
    "30: ldtr w2, [x0]",
    "str w2, [x1]",
    "mov w0, #0",
    "ret",
    "31: mov w0, #1",
    "ret",
    // x0 = address, w1 = old, w2 = new, x3 = where the value found goes; returns 0 or 1.
    ".balign 16",
    ".globl quark_user_cmpxchg32",
    "quark_user_cmpxchg32:",
    "40: ldaxr w4, [x0]",
    "cmp w4, w1",
    "b.ne 42f",
    "41: stlxr w5, w2, [x0]",
    "cbnz w5, 40b",
    "b 43f",
    "42: clrex",
    "43: dmb ish",
    "str w4, [x3]",
    "mov w0, #0",
    "ret",
    ".pushsection .rodata.quark_fixups, \"a\"",
    ".long 30b - quark_fixups, 31b - quark_fixups",
    ".long 40b - quark_fixups, 31b - quark_fixups",
    ".long 41b - quark_fixups, 31b - quark_fixups",
    ".long 50b - quark_fixups, 51b - quark_fixups",
    ".globl quark_fixups_end",
    "quark_fixups_end:",
    ".popsection",
    ".popsection",
);

unsafe extern "C" {
    fn quark_user_copy_in(dst: *mut u8, src: u64, len: usize) -> usize;
    fn quark_user_copy_out(dst: u64, src: *const u8, len: usize) -> usize;
    fn quark_user_zero(dst: u64, unused: u64, len: usize) -> usize;
    fn quark_window_copy(dst: *mut u8, src: *const u8, len: usize) -> usize;
    fn quark_window_copy_out(dst: u64, src: *const u8, len: usize) -> usize;
    fn quark_clean_line(addr: u64);
    fn quark_user_load32(addr: u64, value: *mut u32) -> u32;
    fn quark_user_cmpxchg32(addr: u64, old: u32, new: u32, found: *mut u32) -> u32;
    static quark_fixups: [i32; 2];
    static quark_fixups_end: [i32; 2];
}

/// Where a faulting instruction at `pc` goes on; `None` when it may not fault.
pub fn fixup(pc: u64) -> Option<u64> {
    let base = (&raw const quark_fixups) as usize;
    let end = (&raw const quark_fixups_end) as usize;
    for i in 0..(end - base) / size_of::<[i32; 2]>() {
        let entry = (base as *const [i32; 2]).wrapping_add(i);
        // SAFETY: the table is `end - base` bytes of pairs, assembled above.
        let [at, to] = unsafe { *entry };
        if base.wrapping_add_signed(at as isize) as u64 == pc {
            return Some(base.wrapping_add_signed(to as isize) as u64);
        }
    }
    None
}

/// Copies `len` bytes from the app; returns how many were not copied for a fault.
///
/// # Safety
/// `dst` is valid for `len` bytes; `src..src + len` are app addresses.
pub unsafe fn copy_in(dst: *mut u8, src: u64, len: usize) -> usize {
    // SAFETY: as the caller promises; faults on `src` are fixed up.
    unsafe { quark_user_copy_in(dst, src, len) }
}

/// Copies `len` bytes to the app; returns how many were not copied for a fault.
///
/// # Safety
/// `src` is valid for `len` bytes; `dst..dst + len` are app addresses.
pub unsafe fn copy_out(dst: u64, src: *const u8, len: usize) -> usize {
    // SAFETY: as the caller promises; faults on `dst` are fixed up.
    unsafe { quark_user_copy_out(dst, src, len) }
}

/// Copies `len` bytes of a file in the window to `dst`, both the kernel's addresses; returns how many were not copied
/// because the file has become shorter.
///
/// # Safety
/// `dst` is valid for `len` bytes; `src..src + len` lies in the window.
pub unsafe fn copy_window(dst: *mut u8, src: *const u8, len: usize) -> usize {
    // SAFETY: as the caller promises; where the host has no memory the copy ends.
    unsafe { quark_window_copy(dst, src, len) }
}

/// Copies `len` bytes of a file in the window to the app; returns how many were not copied, for a fault of the app's memory or
/// because the file has become shorter.
///
/// # Safety
/// `dst..dst + len` are app addresses; `src..src + len` lies in the window.
pub unsafe fn copy_window_out(dst: u64, src: *const u8, len: usize) -> usize {
    // SAFETY: as the caller promises; either side's faults end the copy.
    unsafe { quark_window_copy_out(dst, src, len) }
}

/// Cleans a cache line of the kernel's memory, or of a file in the window, to where instructions are fetched from.
pub(super) fn clean_line(addr: u64) {
    // SAFETY: to clean a line changes no value; where the host has no memory nothing is cleaned.
    unsafe { quark_clean_line(addr) };
}

/// Zeroes `len` bytes of the app; returns how many were not zeroed for a fault.
///
/// # Safety
/// `dst..dst + len` are app addresses.
pub unsafe fn zero(dst: u64, len: usize) -> usize {
    // SAFETY: as the caller promises; faults are fixed up.
    unsafe { quark_user_zero(dst, 0, len) }
}

/// Loads an aligned word of the app; `None` on a fault.
///
/// # Safety
/// `addr` is an app address, aligned.
pub unsafe fn load_u32(addr: u64) -> Option<u32> {
    let mut value = 0;
    // SAFETY: as the caller promises; a fault is fixed up.
    let failed = unsafe { quark_user_load32(addr, &mut value) };
    (failed == 0).then_some(value)
}

/// Compares and exchanges an aligned word of the app; the value found, or `None` on a fault.
///
/// # Safety
/// `addr` is an app address, aligned.
pub unsafe fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Option<u32> {
    let mut found = 0;
    super::mmu::open_user();
    // SAFETY: as the caller promises; a fault is fixed up.
    let failed = unsafe { quark_user_cmpxchg32(addr, old, new, &mut found) };
    super::mmu::close_user();
    (failed == 0).then_some(found)
}
