//! The local APIC in x2APIC mode, with its timer in TSC-deadline mode (SDM volume 3A, chapter 11).

use crate::trap::Irq;
use crate::x86_64::vector;
use core::arch::asm;

const IA32_APIC_BASE: u32 = 0x1b;
const APIC_ENABLE: u64 = 1 << 11;
const X2APIC_ENABLE: u64 = 1 << 10;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_TPR: u32 = 0x808;
const X2APIC_EOI: u32 = 0x80b;
const X2APIC_SVR: u32 = 0x80f;
const X2APIC_ICR: u32 = 0x830;
const X2APIC_LVT_TIMER: u32 = 0x832;
const SVR_ENABLE: u64 = 1 << 8;
const LVT_TSC_DEADLINE: u64 = 2 << 17;

/// Writes a model-specific register.
///
/// # Safety
/// The register exists and the value keeps the kernel's invariants.
pub(super) unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: by the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    };
}

fn rdmsr(msr: u32) -> u64 {
    let (lo, hi): (u32, u32);
    // SAFETY: only called for architectural registers that exist on every CPU with an APIC.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") lo, out("edx") hi, options(nomem, nostack, preserves_flags))
    };
    lo as u64 | (hi as u64) << 32
}

/// Switches this CPU's interrupt controller and timer on. Interrupts stay masked.
pub fn init_cpu(_cpu: u32) {
    let base = rdmsr(IA32_APIC_BASE) | APIC_ENABLE | X2APIC_ENABLE;
    let settings = [
        (IA32_APIC_BASE, base),
        (X2APIC_TPR, 0),
        (X2APIC_SVR, SVR_ENABLE | vector::SPURIOUS as u64),
        (X2APIC_LVT_TIMER, LVT_TSC_DEADLINE | vector::TIMER as u64),
    ];
    for (msr, value) in settings {
        // SAFETY: QVisor's CPUID filter requires x2APIC and TSC-deadline; the vectors have gates.
        unsafe { wrmsr(msr, value) };
    }
}

/// Arms this CPU's timer for a value of the counter; `None` disarms it. A past deadline fires at once.
pub fn set_timer(deadline: Option<u64>) {
    // 0 disarms, so a deadline of 0 becomes 1.
    let value = deadline.map_or(0, |d| d.max(1));
    // SAFETY: the register exists (see `init_cpu`); the timer's vector has a gate.
    unsafe { wrmsr(IA32_TSC_DEADLINE, value) };
}

/// Interrupts another CPU with [`Irq::Ipi`].
pub fn send_ipi(cpu: u32) {
    // x2APIC WRMSR is not ordering: earlier stores must be visible before the interrupt is.
    // SAFETY: fences have no operands.
    unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
    // SAFETY: the ICR exists; APIC ids are CPU indices (QVisor's CPUID filter) and the vector has a gate.
    unsafe { wrmsr(X2APIC_ICR, (cpu as u64) << 32 | vector::IPI as u64) };
}

/// Acknowledges the interrupt `vector` and says what it was.
pub(super) fn acknowledge(v: u64) -> Irq {
    let irq = match v as u8 {
        vector::TIMER => Irq::Timer,
        vector::HOST => Irq::Host,
        vector::IPI => Irq::Ipi,
        _ => return Irq::Spurious,
    };
    // SAFETY: the EOI register exists; 0 is the only value it takes.
    unsafe { wrmsr(X2APIC_EOI, 0) };
    irq
}
