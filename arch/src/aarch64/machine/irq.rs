//! GICv3 (Arm IHI 0069) and the virtual timer: the distributor, this CPU's redistributor, and the CPU interface in system
//! registers.

use crate::aarch64::paging::device;
use crate::aarch64::vector;
use crate::trap::Irq;
use aarch64_cpu::registers::{CNTV_CTL_EL0, CNTV_CVAL_EL0, Writeable};
use core::arch::asm;

/// Interrupt numbers from here on mean that nothing is pending.
const SPECIAL: u64 = 1020;
/// Middle priority for all; nothing preempts anything.
const PRIORITY: u32 = 0xa0a0_a0a0;

const DISTRIBUTOR: u64 = device(vector::DISTRIBUTOR);
const REDISTRIBUTORS: u64 = device(vector::REDISTRIBUTORS);

/// Distributor registers; the first five also stand in a redistributor's second frame.
const IGROUPR: u64 = 0x80;
const ISENABLER: u64 = 0x100;
const IPRIORITYR: u64 = 0x400;
const ICFGR: u64 = 0xc00;
const GICD_CTLR: u64 = 0x0;
const GICD_IROUTER: u64 = 0x6000;
/// Register-write pending.
const CTLR_RWP: u32 = 1 << 31;
/// Affinity routing, and group 1 enabled.
const CTLR_ON: u32 = 1 << 4 | 1 << 1;

/// Redistributor: GICR_WAKER, and the frame of software-generated and private interrupts.
const GICR_WAKER: u64 = 0x14;
const WAKER_SLEEP: u32 = 1 << 1;
const WAKER_ASLEEP: u32 = 1 << 2;
const SGI_FRAME: u64 = 0x1_0000;

/// Writes a device register with one plain store, which the hypervisor can decode.
fn write(at: u64, value: u32) {
    // SAFETY: private to this file, which only names registers of the interrupt controller; the boot tables map them.
    unsafe { asm!("str {0:w}, [{1}]", in(reg) value, in(reg) at, options(nostack, preserves_flags)) };
}

/// Reads a device register with one plain load.
fn read(at: u64) -> u32 {
    let value: u32;
    // SAFETY: as for `write`.
    unsafe { asm!("ldr {0:w}, [{1}]", out(reg) value, in(reg) at, options(nostack, preserves_flags)) };
    value
}

/// Switches this CPU's interrupt controller and timer on; CPU 0 also the distributor, whose host interrupt it takes.
/// Interrupts stay masked.
pub fn init_cpu(cpu: u32) {
    if cpu == 0 {
        init_distributor();
    }
    let mine = REDISTRIBUTORS + cpu as u64 * vector::REDISTRIBUTOR_BYTES;
    write(mine + GICR_WAKER, read(mine + GICR_WAKER) & !WAKER_SLEEP);
    while read(mine + GICR_WAKER) & WAKER_ASLEEP != 0 {
        core::hint::spin_loop();
    }
    let private = mine + SGI_FRAME;
    write(private + IGROUPR, u32::MAX);
    write(private + IPRIORITYR + (vector::IPI as u64 & !3), PRIORITY);
    write(private + IPRIORITYR + (vector::TIMER as u64 & !3), PRIORITY);
    write(private + ISENABLER, 1 << vector::IPI | 1 << vector::TIMER);
    // SAFETY: opens this CPU's interface: system registers on, no priority masked, completion deactivates, group 1 on.
    unsafe {
        asm!(
            "mrs {t}, S3_0_C12_C12_5",
            "orr {t}, {t}, #1",
            "msr S3_0_C12_C12_5, {t}",
            "isb",
            "mov {t}, #0xf0",
            "msr S3_0_C4_C6_0, {t}",
            "msr S3_0_C12_C12_4, xzr",
            "mov {t}, #1",
            "msr S3_0_C12_C12_7, {t}",
            "isb",
            t = out(reg) _,
            options(nostack, preserves_flags)
        )
    };
    set_timer(None);
}

fn init_distributor() {
    let n = vector::HOST as u64;
    let affinity = vector::affinity(0);
    let writes = [
        (GICD_CTLR, CTLR_ON),
        (IGROUPR + n / 32 * 4, u32::MAX),
        // Edge-triggered: an irqfd raises and lowers the line at once.
        (ICFGR + n / 16 * 4, 0xaaaa_aaaa),
        (IPRIORITYR + n, PRIORITY),
        (GICD_IROUTER + n * 8, affinity as u32),
        (GICD_IROUTER + n * 8 + 4, (affinity >> 32) as u32),
        (ISENABLER + n / 32 * 4, 1 << (n % 32)),
    ];
    for (register, value) in writes {
        write(DISTRIBUTOR + register, value);
        while read(DISTRIBUTOR + GICD_CTLR) & CTLR_RWP != 0 {
            core::hint::spin_loop();
        }
    }
}

/// Arms this CPU's timer for a value of the counter; `None` disarms it. A past deadline fires at once.
pub fn set_timer(deadline: Option<u64>) {
    match deadline {
        Some(at) => {
            CNTV_CVAL_EL0.set(at);
            CNTV_CTL_EL0.set(1);
        }
        // Off, and masked.
        None => CNTV_CTL_EL0.set(2),
    }
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

/// Interrupts another CPU with [`Irq::Ipi`].
pub fn send_ipi(cpu: u32) {
    let a = vector::affinity(cpu);
    let value = (a >> 16 & 0xff) << 32 | (vector::IPI as u64) << 24 | (a >> 8 & 0xff) << 16 | 1 << (a & 15);
    // SAFETY: ICC_SGI1R_EL1 raises the interrupt; what was stored before must be visible to the other CPU.
    unsafe {
        asm!("dsb ishst", "msr S3_0_C12_C11_5, {}", "isb", in(reg) value, options(nostack, preserves_flags))
    };
}

/// Acknowledges and completes the next pending interrupt and says what it was.
///
/// To complete at once is right for all three: calls and the host's interrupt are edges, and the timer is silenced.
pub(super) fn acknowledge() -> Irq {
    let number: u64;
    // SAFETY: reading ICC_IAR1_EL1 acknowledges.
    unsafe { asm!("mrs {}, S3_0_C12_C12_0", "dsb sy", out(reg) number, options(nostack, preserves_flags)) };
    let number = number & 0xff_ffff;
    if number >= SPECIAL {
        return Irq::Spurious;
    }
    let irq = match number as u32 {
        vector::TIMER => {
            set_timer(None);
            Irq::Timer
        }
        vector::HOST => Irq::Host,
        vector::IPI => Irq::Ipi,
        _ => Irq::Spurious,
    };
    // SAFETY: completes what was acknowledged (ICC_EOIR1_EL1).
    unsafe { asm!("msr S3_0_C12_C12_1, {}", "isb", in(reg) number, options(nostack, preserves_flags)) };
    irq
}
