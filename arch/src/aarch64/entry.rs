//! The kernel image's entry point: `_start(x0 = boot page)` on the boot stack, on either machine.

core::arch::global_asm!(
    ".pushsection .text._start, \"ax\"",
    ".globl _start",
    ".type _start, %function",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "bl quark_kernel_main",
    "udf #0",
    ".size _start, . - _start",
    ".popsection",
);
