//! The app's vector state, by XSAVE.

use crate::x86_64::boot::CR4_OSXSAVE;
use crate::x86_64::context::{FP_BYTES, FpState};
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// XCR0 as QVisor set it; 0 = no XSAVE, FXSAVE is used.
static FEATURES: AtomicU64 = AtomicU64::new(0);
/// Bytes of the XSAVE area for it.
static SIZE: AtomicUsize = AtomicUsize::new(512);

/// Learns what QVisor enabled (CR4.OSXSAVE, XCR0). Called once per CPU; all CPUs are alike.
pub fn init_cpu() {
    let cr4: u64;
    // SAFETY: reading CR4 in ring 0 has no effect.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags)) };
    if cr4 & CR4_OSXSAVE == 0 {
        return;
    }
    let (lo, hi): (u32, u32);
    // SAFETY: OSXSAVE is on, so XGETBV of XCR0 exists.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") lo, out("edx") hi, options(nomem, nostack)) };
    let size = __cpuid_count(0xd, 0).ebx as usize;
    if size > FP_BYTES {
        panic!("the XSAVE area is larger than FpState");
    }
    FEATURES.store(lo as u64 | (hi as u64) << 32, Ordering::Relaxed);
    SIZE.store(size, Ordering::Relaxed);
}

/// Stores the live vector registers.
pub fn save(fp: &mut FpState) {
    let features = FEATURES.load(Ordering::Relaxed);
    fp.features = features;
    fp.len = SIZE.load(Ordering::Relaxed);
    let p = fp.bytes.as_mut_ptr();
    if features == 0 {
        // SAFETY: the area is 64-byte aligned (FpState's alignment) and 512 bytes are inside it.
        unsafe { asm!("fxsave64 [{}]", in(reg) p, options(nostack)) };
        return;
    }
    // XSAVE leaves the header's reserved part alone: it must be zero for XRSTOR.
    fp.bytes[512..576].fill(0);
    // SAFETY: the area is 64-byte aligned and `SIZE`, at most FP_BYTES, is what XSAVE writes.
    unsafe {
        asm!("xsave64 [{}]", in(reg) p, in("eax") features as u32, in("edx") (features >> 32) as u32, options(nostack))
    };
}

/// Loads the vector registers. An image the CPU refuses loads the initial state instead.
pub fn restore(fp: &FpState) {
    if !try_restore(fp) {
        try_restore(&FpState::initial());
    }
}

fn try_restore(fp: &FpState) -> bool {
    let features = FEATURES.load(Ordering::Relaxed);
    let p = fp.bytes.as_ptr();
    // SAFETY: the function reads at most SIZE bytes of the aligned area; a refusal (#GP) is fixed up.
    unsafe { super::usercopy::quark_fp_restore(p, features) == 0 }
}
