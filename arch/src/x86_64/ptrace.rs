//! Registers as `ptrace(2)` and core files show them. Source: `arch/x86/include/asm/user_64.h`, `user_regset`s of `arch/x86/kernel/ptrace.c`.

use super::context::{FpState, UserContext};

/// Words of `struct user_regs_struct`.
pub const REGS: usize = 27;
/// Bytes of `struct user`.
const USER_BYTES: u64 = 928;
/// `orig_rax`.
const ORIG: usize = 15;
/// RFLAGS.TF.
const TRAP_FLAG: u64 = 0x100;
/// Selectors of an app.
const CS: u64 = 0x33;
const SS: u64 = 0x2b;
/// Bytes of `struct user_fpregs_struct`: the legacy area.
const FP_BYTES: usize = 512;
/// Where the legacy area keeps what the XSAVE format says of itself for software.
const SW_BYTES: usize = 464;
/// Note types besides NT_PRSTATUS (1) and NT_PRFPREG (2).
const NT_X86_XSTATE: u32 = 0x202;

/// The registers in the order of `struct user_regs_struct`.
pub fn regs(c: &UserContext) -> [u64; REGS] {
    [
        c.r15, c.r14, c.r13, c.r12, c.rbp, c.rbx, c.r11, c.r10, c.r9, c.r8, c.rax, c.rcx, c.rdx, c.rsi,
        c.rdi, c.orig_rax, c.rip, CS, c.rflags, c.rsp, SS, c.fs_base, c.gs_base, 0, 0, 0, 0,
    ]
}

/// Sets the registers; those an app cannot choose stay. `limit` is the end of the app's addresses.
pub fn set_regs(c: &mut UserContext, r: &[u64; REGS], limit: u64) {
    [
        c.r15, c.r14, c.r13, c.r12, c.rbp, c.rbx, c.r11, c.r10, c.r9, c.r8, c.rax, c.rcx, c.rdx, c.rsi, c.rdi,
    ] = [
        r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14],
    ];
    // As a 32-bit -1 it means: no system call.
    c.orig_rax = if r[ORIG] as i32 == -1 { u64::MAX } else { r[ORIG] };
    c.rip = r[16];
    c.rflags = r[18];
    c.rsp = r[19];
    if r[21] < limit {
        c.fs_base = r[21];
    }
    if r[22] < limit {
        c.gs_base = r[22];
    }
    c.sanitize();
}

/// Whether PTRACE_PEEKUSER reaches a word.
pub fn in_user(offset: u64) -> bool {
    offset.is_multiple_of(8) && offset < USER_BYTES
}

/// A word of `struct user` that is not a register: debug registers and the like read as zero.
pub fn user_word(c: &UserContext, offset: u64) -> u64 {
    regs(c).get(offset as usize / 8).copied().unwrap_or(0)
}

/// Has the app trap after its next instruction, or not.
pub fn set_single_step(c: &mut UserContext, on: bool) -> bool {
    if on {
        c.rflags |= TRAP_FLAG;
    } else {
        c.rflags &= !TRAP_FLAG;
    }
    true
}

/// What a tracer sees in the result register while a call has not run.
pub fn begin_syscall(c: &mut UserContext) {
    const ENOSYS: i64 = 38;
    c.set_return(-ENOSYS);
}

/// The bytes of a register set of vector state; `None`: there is no such set.
pub fn fp_bytes(note: u32, fp: &FpState) -> Option<alloc::vec::Vec<u8>> {
    match note {
        2 => Some(fp.bytes[..FP_BYTES].to_vec()),
        NT_X86_XSTATE if fp.features != 0 => Some(fp.bytes[..fp.len].to_vec()),
        _ => None,
    }
}

/// Prepares the state that [`fp_bytes`] shows: the components' mask stands where debuggers look for it.
pub fn show_fp(fp: &mut FpState) {
    fp.bytes[SW_BYTES..SW_BYTES + 8].copy_from_slice(&fp.features.to_le_bytes());
}

/// Sets a register set of vector state from (a prefix of) its bytes; `false`: there is no such set, or it is too short.
pub fn set_fp_bytes(note: u32, fp: &mut FpState, bytes: &[u8]) -> bool {
    let room = match note {
        2 => FP_BYTES,
        NT_X86_XSTATE if fp.features != 0 && bytes.len() >= 576 => fp.len,
        _ => return false,
    };
    let n = bytes.len().min(room);
    fp.bytes[..n].copy_from_slice(&bytes[..n]);
    if note == 2 && fp.features != 0 {
        // x87 and SSE are in use from now on.
        fp.bytes[512] |= 3;
    }
    true
}

/// A register set of integers besides the general ones.
pub fn other_set(_note: u32, _c: &UserContext) -> Option<u64> {
    None
}

/// Sets one; `false`: there is no such set.
pub fn set_other(_note: u32, _c: &mut UserContext, _v: u64) -> bool {
    false
}

/// Whether the requests with register structures of this architecture (PTRACE_GETREGS and relatives) exist.
pub const HAS_GETREGS: bool = true;
