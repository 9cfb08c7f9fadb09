//! The kernel image's entry point: `_start(rdi = boot page)` on the boot stack, on either machine.

core::arch::global_asm!(
    ".pushsection .text._start, \"ax\"",
    ".globl _start",
    ".type _start, @function",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call quark_kernel_main",
    "ud2",
    ".size _start, . - _start",
    ".popsection",
);
