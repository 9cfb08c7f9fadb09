//! What the tests know of aarch64.

#[cfg(target_arch = "aarch64")]
mod native {
    use hal::UserContext;
    use hal::aspace::Access;
    use hal::boot::Trap;

    core::arch::global_asm!(include_str!("programs_aarch64.s"));

    /// Traps of the program of faults after the four page faults.
    pub const FAULTS: [Trap; 4] = [
        Trap::Illegal,
        Trap::PageFault {
            addr: 0xffff_8000_0000_0000,
            access: Access::Read,
        },
        Trap::Breakpoint,
        // An exclusive load, off by one.
        Trap::Alignment {
            addr: crate::app::DATA.start + 1,
        },
    ];

    /// The faulting programs keep the address to go on at in a register.
    pub fn skip_instruction(ctx: &mut UserContext, _trap: Trap) {
        ctx.set_pc(ctx.x[19]);
    }

    /// Carries the current call over to the registers of a new program.
    pub fn keep_call(from: &UserContext, to: &mut UserContext) {
        to.syscallno = from.syscallno;
        to.orig_x0 = from.orig_x0;
    }
}
#[cfg(target_arch = "aarch64")]
pub use native::*;
