//! What the tests know of aarch64.

#[cfg(target_arch = "aarch64")]
mod native {
    use super::super::protections::{Attempt, Probe};
    use alloc::vec;
    use alloc::vec::Vec;
    use core::arch::asm;
    use hal::UserContext;
    use hal::aspace::Access;
    use hal::boot::Trap;

    core::arch::global_asm!(include_str!("programs_aarch64.s"));

    /// Traps of the program of faults after the four page faults.
    pub fn faults() -> Vec<Trap> {
        vec![
            Trap::Illegal,
            Trap::PageFault {
                addr: 0xffff_8000_0000_0000,
                access: Access::Read,
            },
            // A return to an address of the kernel's half.
            Trap::PageFault {
                addr: NOWHERE,
                access: Access::Execute,
            },
            Trap::Breakpoint,
            // An exclusive load, off by one.
            Trap::Alignment {
                addr: crate::app::DATA.start + 1,
            },
        ]
    }

    /// The faulting programs keep the address to go on at in a register.
    pub fn skip_instruction(ctx: &mut UserContext, _trap: Trap) {
        ctx.set_pc(ctx.x[19]);
    }

    /// Carries the current call over to the registers of a new program.
    pub fn keep_call(from: &UserContext, to: &mut UserContext) {
        to.syscallno = from.syscallno;
        to.orig_x0 = from.orig_x0;
    }

    /// The address the faulting programs return to by call 7.
    pub const NOWHERE: u64 = 0xffff_8000_0000_0000;
    /// A function of the app that only returns.
    pub const RETURN: &[u8] = &[0xc0, 0x03, 0x5f, 0xd6];

    fn has_pan() -> bool {
        let features: u64;
        // SAFETY: reading an ID register has no effect.
        unsafe {
            asm!("mrs {}, id_aa64mmfr1_el1", out(reg) features, options(nomem, nostack, preserves_flags))
        };
        features >> 20 & 15 != 0
    }

    /// Protections the CPU has, and whether each is on.
    pub fn protections() -> Vec<(&'static str, bool)> {
        if !has_pan() {
            return Vec::new();
        }
        let (sctlr, pan): (u64, u64);
        // SAFETY: reading SCTLR_EL1 at EL1 has no effect.
        unsafe { asm!("mrs {}, sctlr_el1", out(reg) sctlr, options(nomem, nostack, preserves_flags)) };
        // SAFETY: the CPU has PAN, so the register (S3_0_C4_C2_3) exists; reading it has no effect.
        unsafe { asm!("mrs {}, s3_0_c4_c2_3", out(reg) pan, options(nomem, nostack, preserves_flags)) };
        // SCTLR.SPAN clear: a trap sets PAN.
        vec![
            ("PAN", pan >> 22 & 1 != 0),
            ("PAN at traps", sctlr >> 23 & 1 == 0),
        ]
    }

    /// Whether the kernel's plain loads of app memory fault on this CPU.
    pub fn app_memory_is_closed() -> bool {
        has_pan()
    }

    // What the attempts need: vectors that only take note and go on. Interrupts are masked meanwhile.
    core::arch::global_asm!(
        ".text",
        // x0 = what, x1 = address; returns 0, or bit 63 and the syndrome.
        ".globl machine_test_attempt",
        "machine_test_attempt:",
        "mrs x9, vbar_el1",
        "adr x2, 7f",
        "adr x10, 9f",
        "mov x11, x30",
        "msr vbar_el1, x2",
        "isb",
        "cmp x0, #1",
        "b.eq 1f",
        "b.hi 2f",
        "ldrb w3, [x1]",
        "b 8f",
        "1: ldrb w3, [x1]",
        "strb w3, [x1]",
        "b 8f",
        "2: blr x1",
        "8: mov x0, #0",
        "9: msr vbar_el1, x9",
        "isb",
        "mov x30, x11",
        "ret",
        // The vector table; a synchronous exception of this level comes at 0x200.
        ".balign 2048",
        "7: .skip 0x200",
        "mrs x0, esr_el1",
        "orr x0, x0, #1 << 63",
        "msr elr_el1, x10",
        "eret",
        ".skip 0x5f0",
    );
    unsafe extern "C" {
        fn machine_test_attempt(what: u64, addr: u64) -> u64;
    }

    /// Tries what the CPU must refuse.
    pub fn attempt(what: Attempt, addr: u64) -> Probe {
        // SAFETY: the attempt faults, and the vector goes on behind it; if it does not fault it changes nothing.
        match unsafe { machine_test_attempt(what as u64, addr) } {
            0 => Probe::Permitted,
            // A permission fault at level 0 to 3.
            code if code >> 2 & 15 == 3 => Probe::Refused,
            code => Probe::Other(code),
        }
    }
}
#[cfg(target_arch = "aarch64")]
pub use native::*;
