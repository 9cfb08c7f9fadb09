//! Copies from and to app memory. A fault inside asks the machine's handler, and fails the copy when that says so: the
//! table at the end names, for each instruction that may fault, where to go on.
//!
//! The functions do not open the app's memory ([`super::mmu::open_user`]): the `process` machine shares them.

use core::arch::global_asm;

global_asm!(
    ".text",
    ".balign 16",
    // rdi = destination, rsi = source, rdx = bytes; returns bytes not copied.
    ".globl quark_user_copy",
    "quark_user_copy:",
    "mov rcx, rdx",
    "shr rcx, 3",
    "and edx, 7",
    "10: rep movsq",
    "mov ecx, edx",
    "11: rep movsb",
    "xor eax, eax",
    "ret",
    // A fault among whole words: what is left goes byte by byte, so that the count is exact.
    "12: lea rcx, [rdx + rcx * 8]",
    "13: rep movsb",
    "xor eax, eax",
    "ret",
    "14: mov rax, rcx",
    "ret",
    // rdi = destination, rsi = bytes; returns bytes not zeroed.
    ".balign 16",
    ".globl quark_user_zero",
    "quark_user_zero:",
    "xor eax, eax",
    "mov rcx, rsi",
    "shr rcx, 3",
    "and esi, 7",
    "20: rep stosq",
    "mov ecx, esi",
    "21: rep stosb",
    "ret",
    "22: lea rcx, [rsi + rcx * 8]",
    "23: rep stosb",
    "ret",
    "24: mov rax, rcx",
    "ret",
    // rdi = address, rsi = where the value goes; returns 0 or 1.
    ".balign 16",
    ".globl quark_user_load32",
    "quark_user_load32:",
    "30: mov eax, [rdi]",
    "mov [rsi], eax",
    "xor eax, eax",
    "ret",
    "31: mov eax, 1",
    "ret",
    // rdi = address, esi = old, edx = new, rcx = where the value found goes; returns 0 or 1.
    ".balign 16",
    ".globl quark_user_cmpxchg32",
    "quark_user_cmpxchg32:",
    "mov eax, esi",
    "40: lock cmpxchg [rdi], edx",
    "mov [rcx], eax",
    "xor eax, eax",
    "ret",
    // rdi = XSAVE or FXSAVE image, rsi = features (0 = FXRSTOR); returns 0 or 1.
    ".balign 16",
    ".globl quark_fp_restore",
    "quark_fp_restore:",
    "test rsi, rsi",
    "jz 51f",
    "mov eax, esi",
    "mov rdx, rsi",
    "shr rdx, 32",
    "50: xrstor64 [rdi]",
    "xor eax, eax",
    "ret",
    "51: fxrstor64 [rdi]",
    "xor eax, eax",
    "ret",
    ".pushsection .rodata.quark_fixups, \"a\"",
    ".balign 4",
    ".globl quark_fixups",
    "quark_fixups:",
    ".long 10b - quark_fixups, 12b - quark_fixups",
    ".long 11b - quark_fixups, 14b - quark_fixups",
    ".long 13b - quark_fixups, 14b - quark_fixups",
    ".long 20b - quark_fixups, 22b - quark_fixups",
    ".long 21b - quark_fixups, 24b - quark_fixups",
    ".long 23b - quark_fixups, 24b - quark_fixups",
    ".long 30b - quark_fixups, 31b - quark_fixups",
    ".long 40b - quark_fixups, 31b - quark_fixups",
    ".long 50b - quark_fixups, 31b - quark_fixups",
    ".long 51b - quark_fixups, 31b - quark_fixups",
    ".globl quark_fixups_end",
    "quark_fixups_end:",
    ".popsection",
);

unsafe extern "C" {
    fn quark_user_copy(dst: *mut u8, src: *const u8, len: usize) -> usize;
    fn quark_user_zero(dst: *mut u8, len: usize) -> usize;
    fn quark_user_load32(addr: *const u32, value: *mut u32) -> u32;
    fn quark_user_cmpxchg32(addr: *mut u32, old: u32, new: u32, found: *mut u32) -> u32;
    pub(super) fn quark_fp_restore(image: *const u8, features: u64) -> u32;
    static quark_fixups: [i32; 2];
    static quark_fixups_end: [i32; 2];
}

/// Where a faulting instruction at `pc` goes on; `None` when it may not fault.
pub fn fixup(pc: u64) -> Option<u64> {
    let base = (&raw const quark_fixups) as usize;
    let end = (&raw const quark_fixups_end) as usize;
    for i in 0..(end - base) / size_of::<[i32; 2]>() {
        let pair = (base as *const [i32; 2]).wrapping_add(i);
        // SAFETY: the table is `end - base` bytes of pairs, assembled above.
        let [at, to] = unsafe { *pair };
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
    unsafe { quark_user_copy(dst, src as *const u8, len) }
}

/// Copies `len` bytes to the app; returns how many were not copied for a fault.
///
/// # Safety
/// `src` is valid for `len` bytes; `dst..dst + len` are app addresses.
pub unsafe fn copy_out(dst: u64, src: *const u8, len: usize) -> usize {
    // SAFETY: as the caller promises; faults on `dst` are fixed up.
    unsafe { quark_user_copy(dst as *mut u8, src, len) }
}

/// Copies `len` bytes of a file in the window to `dst`, both the kernel's addresses; returns how many were not copied
/// because the file has become shorter.
///
/// # Safety
/// `dst` is valid for `len` bytes; `src..src + len` lies in the window.
pub unsafe fn copy_window(dst: *mut u8, src: *const u8, len: usize) -> usize {
    // SAFETY: as the caller promises; where the host has no memory the copy ends.
    unsafe { quark_user_copy(dst, src, len) }
}

/// Copies `len` bytes of a file in the window to the app; returns how many were not copied, for a fault of the app's memory or
/// because the file has become shorter.
///
/// # Safety
/// `dst..dst + len` are app addresses; `src..src + len` lies in the window.
pub unsafe fn copy_window_out(dst: u64, src: *const u8, len: usize) -> usize {
    // SAFETY: as the caller promises; either side's faults end the copy.
    unsafe { quark_user_copy(dst as *mut u8, src, len) }
}

/// Zeroes `len` bytes of the app; returns how many were not zeroed for a fault.
///
/// # Safety
/// `dst..dst + len` are app addresses.
pub unsafe fn zero(dst: u64, len: usize) -> usize {
    // SAFETY: as the caller promises; faults are fixed up.
    unsafe { quark_user_zero(dst as *mut u8, len) }
}

/// Loads an aligned word of the app; `None` on a fault.
///
/// # Safety
/// `addr` is an app address, aligned.
pub unsafe fn load_u32(addr: u64) -> Option<u32> {
    let mut value = 0;
    // SAFETY: as the caller promises; a fault is fixed up.
    let failed = unsafe { quark_user_load32(addr as *const u32, &mut value) };
    (failed == 0).then_some(value)
}

/// Compares and exchanges an aligned word of the app; the value found, or `None` on a fault.
///
/// # Safety
/// `addr` is an app address, aligned.
pub unsafe fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Option<u32> {
    let mut found = 0;
    // SAFETY: as the caller promises; a fault is fixed up.
    let failed = unsafe { quark_user_cmpxchg32(addr as *mut u32, old, new, &mut found) };
    (failed == 0).then_some(found)
}
