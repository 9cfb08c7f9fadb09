//! Saving and loading the FP/SIMD registers. The kernel is compiled without them, so between a trap and the return they
//! hold the app's values; only a switch of threads moves them.

use crate::aarch64::context::FpState;
use core::arch::naked_asm;
use core::mem::offset_of;

const _: () = assert!(offset_of!(FpState, fpsr) == 512 && offset_of!(FpState, fpcr) == 516);

/// Learns what the CPU has: FP and SIMD always, and the boot plan never traps them.
pub fn init_cpu() {}

/// Stores the live vector registers.
pub fn save(fp: &mut FpState) {
    // SAFETY: a reference is valid for writes.
    unsafe { store(fp) };
}

/// Loads the vector registers.
pub fn restore(fp: &FpState) {
    // SAFETY: a reference is valid for reads.
    unsafe { load(fp) };
}

#[unsafe(naked)]
unsafe extern "C" fn store(to: *mut FpState) {
    naked_asm!(
        ".arch_extension simd",
        "stp q0, q1, [x0, #32 * 0]",
        "stp q2, q3, [x0, #32 * 1]",
        "stp q4, q5, [x0, #32 * 2]",
        "stp q6, q7, [x0, #32 * 3]",
        "stp q8, q9, [x0, #32 * 4]",
        "stp q10, q11, [x0, #32 * 5]",
        "stp q12, q13, [x0, #32 * 6]",
        "stp q14, q15, [x0, #32 * 7]",
        "stp q16, q17, [x0, #32 * 8]",
        "stp q18, q19, [x0, #32 * 9]",
        "stp q20, q21, [x0, #32 * 10]",
        "stp q22, q23, [x0, #32 * 11]",
        "stp q24, q25, [x0, #32 * 12]",
        "stp q26, q27, [x0, #32 * 13]",
        "stp q28, q29, [x0, #32 * 14]",
        "stp q30, q31, [x0, #32 * 15]",
        "mrs x1, fpsr",
        "mrs x2, fpcr",
        "str w1, [x0, #512]",
        "str w2, [x0, #516]",
        "ret",
        ".arch_extension nosimd",
    )
}

#[unsafe(naked)]
unsafe extern "C" fn load(from: *const FpState) {
    naked_asm!(
        ".arch_extension simd",
        "ldp q0, q1, [x0, #32 * 0]",
        "ldp q2, q3, [x0, #32 * 1]",
        "ldp q4, q5, [x0, #32 * 2]",
        "ldp q6, q7, [x0, #32 * 3]",
        "ldp q8, q9, [x0, #32 * 4]",
        "ldp q10, q11, [x0, #32 * 5]",
        "ldp q12, q13, [x0, #32 * 6]",
        "ldp q14, q15, [x0, #32 * 7]",
        "ldp q16, q17, [x0, #32 * 8]",
        "ldp q18, q19, [x0, #32 * 9]",
        "ldp q20, q21, [x0, #32 * 10]",
        "ldp q22, q23, [x0, #32 * 11]",
        "ldp q24, q25, [x0, #32 * 12]",
        "ldp q26, q27, [x0, #32 * 13]",
        "ldp q28, q29, [x0, #32 * 14]",
        "ldp q30, q31, [x0, #32 * 15]",
        "ldr w1, [x0, #512]",
        "ldr w2, [x0, #516]",
        "msr fpsr, x1",
        "msr fpcr, x2",
        "ret",
        ".arch_extension nosimd",
    )
}
