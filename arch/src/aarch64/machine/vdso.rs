//! Code of the vDSO. It runs in the app; the clock page ([`Clocks`]) lies one page before the image.

use crate::vdso::{Clocks, HEADER_BYTES, Image, Parts, Symbol, link};
use core::arch::global_asm;
use core::mem::offset_of;
use qlib::PAGE_SIZE_USIZE;

const _: () = assert!(offset_of!(Clocks, ns_per_tick) == 0 && offset_of!(Clocks, realtime_offset_ns) == 8);
const _: () = assert!(offset_of!(Clocks, sequence) == 16);

global_asm!(
    r#"
    .pushsection .rodata.quark_vdso, "a"
    .balign 4096
    .globl quark_vdso
quark_vdso:
    .skip {header}

    // x5 = nanoseconds of the monotonic clock, or of the real-time clock when \realtime is not zero.
    // Changes x3–x9 and x11.
    .macro NANOSECONDS realtime
    adr     x3, quark_vdso - 4096
1:  ldr     w4, [x3, #16]
    tbnz    w4, #0, 1b
    dmb     ishld
    isb
    mrs     x5, cntvct_el0
    ldp     x6, x7, [x3]
    umulh   x8, x5, x6
    mul     x9, x5, x6
    extr    x5, x8, x9, #32
    cmp     \realtime, xzr
    csel    x7, x7, xzr, ne
    add     x5, x5, x7
    dmb     ishld
    ldr     w11, [x3, #16]
    cmp     w11, w4
    b.ne    1b
    .endm

    // x6 = seconds, x7 = nanoseconds of x5.
    .macro SPLIT
    movz    x12, #0xca00
    movk    x12, #0x3b9a, lsl #16
    udiv    x6, x5, x12
    msub    x7, x6, x12, x5
    .endm

    // Unwinders know these two instructions.
    .globl quark_vdso_rt_sigreturn
    nop
quark_vdso_rt_sigreturn:
    mov     x8, #139
    svc     #0

    // Clocks: REALTIME 0, MONOTONIC 1, MONOTONIC_RAW 4, the coarse ones 5 and 6, BOOTTIME 7, TAI 11.
    .globl quark_vdso_clock_gettime
quark_vdso_clock_gettime:
    cmp     w0, #11
    b.hi    9f
    mov     w2, #0x8f3
    lsr     w2, w2, w0
    tbz     w2, #0, 9f
    mov     w10, #0x821
    lsr     w10, w10, w0
    and     x10, x10, #1
    NANOSECONDS x10
    SPLIT
    stp     x6, x7, [x1]
    mov     w0, #0
    ret
9:  mov     x8, #113
    svc     #0
    ret

    .globl quark_vdso_gettimeofday
quark_vdso_gettimeofday:
    cbz     x0, 2f
    mov     w10, #1
    NANOSECONDS x10
    SPLIT
    mov     x12, #1000
    udiv    x7, x7, x12
    stp     x6, x7, [x0]
2:  cbz     x1, 3f
    str     xzr, [x1]
3:  mov     w0, #0
    ret

    .globl quark_vdso_clock_getres
quark_vdso_clock_getres:
    cmp     w0, #11
    b.hi    9f
    mov     w2, #0x8f3
    lsr     w2, w2, w0
    tbz     w2, #0, 9f
    cbz     x1, 3f
    mov     w3, #1
    stp     xzr, x3, [x1]
3:  mov     w0, #0
    ret
9:  mov     x8, #114
    svc     #0
    ret
    .globl quark_vdso_end
quark_vdso_end:
    .popsection
    "#,
    header = const HEADER_BYTES,
);

unsafe extern "C" {
    static quark_vdso: Image;
    static quark_vdso_rt_sigreturn: u8;
    static quark_vdso_clock_gettime: u8;
    static quark_vdso_gettimeofday: u8;
    static quark_vdso_clock_getres: u8;
    static quark_vdso_end: u8;
}

/// Makes the image; returns where in it the code that returns from signal handlers is.
pub fn make(image: &mut Image) -> Option<u64> {
    let base = &raw const quark_vdso as usize;
    let starts = [
        (
            "__kernel_rt_sigreturn",
            &raw const quark_vdso_rt_sigreturn as usize,
        ),
        (
            "__kernel_clock_gettime",
            &raw const quark_vdso_clock_gettime as usize,
        ),
        (
            "__kernel_gettimeofday",
            &raw const quark_vdso_gettimeofday as usize,
        ),
        (
            "__kernel_clock_getres",
            &raw const quark_vdso_clock_getres as usize,
        ),
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
    }; 4];
    for (i, (name, at)) in starts.iter().enumerate() {
        let next = starts.get(i + 1).map_or(base + end, |(_, next)| *next);
        symbols[i] = Symbol {
            name,
            offset: at - base,
            size: next - at,
        };
    }
    let parts = Parts {
        machine: crate::aarch64::ELF_MACHINE,
        name: "linux-vdso.so.1",
        version: "LINUX_2.6.39",
        symbols: &symbols,
    };
    link(image, &parts)?;
    Some(symbols[0].offset as u64)
}
