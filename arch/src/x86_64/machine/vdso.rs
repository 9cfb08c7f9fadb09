//! Code of the vDSO. It runs in the app; the clock page ([`Clocks`]) lies one page before the image.

use crate::vdso::{Clocks, HEADER_BYTES, Image, Parts, Symbol, link};
use core::arch::global_asm;
use core::mem::offset_of;
use qlib::PAGE_SIZE_USIZE;

const _: () = assert!(offset_of!(Clocks, ns_per_tick) == 0 && offset_of!(Clocks, realtime_offset_ns) == 8);
const _: () = assert!(offset_of!(Clocks, sequence) == 16);

global_asm!(
    ".pushsection .rodata.quark_vdso, \"a\"",
    ".balign 4096",
    ".globl quark_vdso",
    "quark_vdso:",
    ".skip {header}",
    // rax = nanoseconds of the monotonic clock; with bit 0 of r10 of the real-time clock. Changes rdx, r8, r9.
    ".macro VDSO_NANOSECONDS",
    "lea r8, [rip + quark_vdso - 4096]",
    "3: mov r9d, [r8 + 16]",
    "test r9d, 1",
    "jnz 3b",
    "lfence",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "mul qword ptr [r8]",
    "shrd rax, rdx, 32",
    "test r10d, 1",
    "jz 4f",
    "add rax, [r8 + 8]",
    "4: cmp r9d, [r8 + 16]",
    "jne 3b",
    ".endm",
    // rax = seconds, rdx = nanoseconds of rax. Changes rcx.
    ".macro VDSO_SPLIT",
    "xor edx, edx",
    "mov ecx, 1000000000",
    "div rcx",
    ".endm",
    // Clocks: REALTIME 0, MONOTONIC 1, MONOTONIC_RAW 4, the coarse ones 5 and 6, BOOTTIME 7, TAI 11.
    ".balign 16",
    ".globl quark_vdso_clock_gettime",
    "quark_vdso_clock_gettime:",
    "cmp edi, 11",
    "ja 9f",
    "mov eax, 0x8f3",
    "bt eax, edi",
    "jnc 9f",
    "mov r10d, 0x821",
    "mov ecx, edi",
    "shr r10d, cl",
    "VDSO_NANOSECONDS",
    "VDSO_SPLIT",
    "mov [rsi], rax",
    "mov [rsi + 8], rdx",
    "xor eax, eax",
    "ret",
    "9: mov eax, 228",
    "syscall",
    "ret",
    ".balign 16",
    ".globl quark_vdso_gettimeofday",
    "quark_vdso_gettimeofday:",
    "test rdi, rdi",
    "jz 5f",
    "mov r10d, 1",
    "VDSO_NANOSECONDS",
    "VDSO_SPLIT",
    "mov [rdi], rax",
    "mov rax, rdx",
    "xor edx, edx",
    "mov ecx, 1000",
    "div rcx",
    "mov [rdi + 8], rax",
    "5: test rsi, rsi",
    "jz 6f",
    "mov qword ptr [rsi], 0",
    "6: xor eax, eax",
    "ret",
    ".balign 16",
    ".globl quark_vdso_time",
    "quark_vdso_time:",
    "mov r10d, 1",
    "VDSO_NANOSECONDS",
    "VDSO_SPLIT",
    "test rdi, rdi",
    "jz 7f",
    "mov [rdi], rax",
    "7: ret",
    ".balign 16",
    ".globl quark_vdso_clock_getres",
    "quark_vdso_clock_getres:",
    "cmp edi, 11",
    "ja 9f",
    "mov eax, 0x8f3",
    "bt eax, edi",
    "jnc 9f",
    "test rsi, rsi",
    "jz 8f",
    "mov qword ptr [rsi], 0",
    "mov qword ptr [rsi + 8], 1",
    "8: xor eax, eax",
    "ret",
    "9: mov eax, 229",
    "syscall",
    "ret",
    ".balign 16",
    ".globl quark_vdso_getcpu",
    "quark_vdso_getcpu:",
    "mov eax, 309",
    "syscall",
    "ret",
    ".globl quark_vdso_end",
    "quark_vdso_end:",
    ".popsection",
    header = const HEADER_BYTES,
);

unsafe extern "C" {
    static quark_vdso: Image;
    static quark_vdso_clock_gettime: u8;
    static quark_vdso_gettimeofday: u8;
    static quark_vdso_time: u8;
    static quark_vdso_clock_getres: u8;
    static quark_vdso_getcpu: u8;
    static quark_vdso_end: u8;
}

/// Makes the image; returns where in it the code that returns from signal handlers is: nowhere, apps bring their own.
pub fn make(image: &mut Image) -> Option<u64> {
    let base = &raw const quark_vdso as usize;
    let starts = [
        (
            "__vdso_clock_gettime",
            &raw const quark_vdso_clock_gettime as usize,
        ),
        ("__vdso_gettimeofday", &raw const quark_vdso_gettimeofday as usize),
        ("__vdso_time", &raw const quark_vdso_time as usize),
        ("__vdso_clock_getres", &raw const quark_vdso_clock_getres as usize),
        ("__vdso_getcpu", &raw const quark_vdso_getcpu as usize),
    ];
    let end = &raw const quark_vdso_end as usize - base;
    if end > PAGE_SIZE_USIZE {
        return None;
    }
    // SAFETY: the assembler reserved at least `end` bytes there.
    let code = unsafe { core::slice::from_raw_parts(base as *const u8, end) };
    image[..end].copy_from_slice(code);
    let mut symbols = [Symbol {
        name: "",
        offset: 0,
        size: 0,
    }; 5];
    for (i, (name, at)) in starts.iter().enumerate() {
        let next = starts.get(i + 1).map_or(base + end, |(_, next)| *next);
        symbols[i] = Symbol {
            name,
            offset: at - base,
            size: next - at,
        };
    }
    let parts = Parts {
        machine: crate::x86_64::ELF_MACHINE,
        name: "linux-vdso.so.1",
        version: "LINUX_2.6",
        symbols: &symbols,
    };
    link(image, &parts)?;
    Some(0)
}
