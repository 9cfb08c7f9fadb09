//! What the tests know of x86_64.

#[cfg(target_arch = "x86_64")]
mod native {
    use hal::UserContext;
    use hal::boot::Trap;

    core::arch::global_asm!(include_str!("programs_x86_64.s"));

    /// Traps of the program of faults after the four page faults.
    pub const FAULTS: [Trap; 5] = [
        Trap::Illegal,
        Trap::Arithmetic(1),
        Trap::GeneralProtection,
        Trap::Breakpoint,
        Trap::Step,
    ];

    /// The faulting programs keep the address to go on at in a register.
    pub fn skip_instruction(ctx: &mut UserContext, trap: Trap) {
        if trap != Trap::Breakpoint && trap != Trap::Step {
            ctx.set_pc(ctx.rbx);
        }
    }

    /// Carries the current call over to the registers of a new program.
    pub fn keep_call(from: &UserContext, to: &mut UserContext) {
        to.orig_rax = from.orig_rax;
    }
}
#[cfg(target_arch = "x86_64")]
pub use native::*;
