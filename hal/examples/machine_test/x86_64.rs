//! What the tests know of x86_64.

#[cfg(target_arch = "x86_64")]
mod native {
    use super::super::protections::{Attempt, Probe};
    use alloc::vec;
    use alloc::vec::Vec;
    use core::arch::asm;
    use core::arch::x86_64::__cpuid_count;
    use hal::UserContext;
    use hal::boot::Trap;

    core::arch::global_asm!(include_str!("programs_x86_64.s"));

    /// Traps of the program of faults after the four page faults.
    pub fn faults() -> Vec<Trap> {
        let mut traps = vec![Trap::Illegal, Trap::Arithmetic(1), Trap::GeneralProtection];
        if cr4() & UMIP != 0 {
            // SGDT.
            traps.push(Trap::GeneralProtection);
        }
        // A return to an address that is not canonical.
        traps.push(Trap::GeneralProtection);
        traps.push(Trap::Breakpoint);
        // The trap flag is on for four instructions: from the one after the POPF that sets it to the POPF that clears it.
        traps.extend([Trap::Step; 4]);
        traps
    }

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

    /// The address the faulting programs return to by call 7.
    pub const NOWHERE: u64 = 1 << 47;
    /// A function of the app that only returns.
    pub const RETURN: &[u8] = &[0xc3];

    const UMIP: u64 = 1 << 11;

    fn cr4() -> u64 {
        let v: u64;
        // SAFETY: reading CR4 in ring 0 has no effect.
        unsafe { asm!("mov {}, cr4", out(reg) v, options(nomem, nostack, preserves_flags)) };
        v
    }

    /// Protections the CPU has, and whether each is on.
    pub fn protections() -> Vec<(&'static str, bool)> {
        let (cr0, efer): (u64, u32);
        // SAFETY: reading CR0 in ring 0 has no effect.
        unsafe { asm!("mov {}, cr0", out(reg) cr0, options(nomem, nostack, preserves_flags)) };
        // SAFETY: EFER exists in 64-bit mode; reading it has no effect.
        unsafe {
            asm!("rdmsr", in("ecx") 0xc000_0080u32, out("eax") efer, out("edx") _, options(nomem, nostack))
        };
        let leaf = __cpuid_count(7, 0);
        let mut found = vec![("WP", cr0 >> 16 & 1 != 0), ("NX", efer >> 11 & 1 != 0)];
        for (name, has, bit) in [
            ("SMEP", leaf.ebx >> 7 & 1, 20),
            ("SMAP", leaf.ebx >> 20 & 1, 21),
            ("UMIP", leaf.ecx >> 2 & 1, 11),
        ] {
            if has != 0 {
                found.push((name, cr4() >> bit & 1 != 0));
            }
        }
        found
    }

    /// Whether the kernel's plain loads of app memory fault on this CPU.
    pub fn app_memory_is_closed() -> bool {
        cr4() >> 21 & 1 != 0
    }

    // What the attempts need: a gate for page faults that only takes note and goes on. Interrupts are masked meanwhile.
    core::arch::global_asm!(
        ".text",
        // rdi = what, rsi = address, rdx = the gates' descriptor; returns 0, or bit 63 and the error code.
        ".globl machine_test_attempt",
        "machine_test_attempt:",
        "sub rsp, 24",
        "sidt [rsp]",
        "mov r8, rsp",
        "lea r10, [rip + 9f]",
        "lidt [rdx]",
        "cmp edi, 1",
        "je 1f",
        "cmp edi, 2",
        "je 2f",
        "mov al, [rsi]",
        "jmp 8f",
        "1: mov al, [rsi]",
        "mov [rsi], al",
        "jmp 8f",
        "2: call rsi",
        "8: xor eax, eax",
        "9: mov rsp, r8",
        "lidt [rsp]",
        "add rsp, 24",
        "ret",
        ".globl machine_test_fault",
        "machine_test_fault:",
        "mov rax, [rsp]",
        "bts rax, 63",
        "jmp r10",
    );
    unsafe extern "C" {
        fn machine_test_attempt(what: u64, addr: u64, gates: *const [u16; 5]) -> u64;
        fn machine_test_fault();
    }

    /// Tries what the CPU must refuse.
    pub fn attempt(what: Attempt, addr: u64) -> Probe {
        let at = machine_test_fault as *const () as u64;
        let mut gates = [[0u64; 2]; 15];
        gates[14] = [
            at & 0xffff | 0x10 << 16 | 0x8e << 40 | (at >> 16 & 0xffff) << 48,
            at >> 32,
        ];
        let base = (&raw const gates) as u64;
        let [b0, b1, b2, b3] = [0, 16, 32, 48].map(|shift| (base >> shift) as u16);
        let pointer = [size_of_val(&gates) as u16 - 1, b0, b1, b2, b3];
        // SAFETY: the attempt faults, and the gate goes on behind it; if it does not fault it changes nothing.
        match unsafe { machine_test_attempt(what as u64, addr, &pointer) } {
            0 => Probe::Permitted,
            // A page fault on a page that is there.
            code if code & 1 != 0 => Probe::Refused,
            code => Probe::Other(code),
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub use native::*;
