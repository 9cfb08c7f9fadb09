//! Registers as `ptrace(2)` and core files show them. Source: `arch/arm64/include/uapi/asm/ptrace.h`, the `user_regset`s of
//! `arch/arm64/kernel/ptrace.c`.

use super::context::{FpState, UserContext};

/// Words of `struct user_pt_regs`.
pub const REGS: usize = 34;
/// Note types besides NT_PRSTATUS (1) and NT_PRFPREG (2).
const NT_ARM_TLS: u32 = 0x401;
const NT_ARM_SYSTEM_CALL: u32 = 0x404;
/// Condition flags: what a debugger may change of PSTATE.
const FLAGS: u64 = 0xf000_0000;

/// The registers in the order of `struct user_pt_regs`.
pub fn regs(c: &UserContext) -> [u64; REGS] {
    let mut r = [0; REGS];
    r[..31].copy_from_slice(&c.x);
    r[31] = c.sp_el0;
    r[32] = c.elr;
    r[33] = c.spsr;
    r
}

/// Sets the registers; those an app cannot choose stay.
pub fn set_regs(c: &mut UserContext, r: &[u64; REGS], _limit: u64) {
    c.x.copy_from_slice(&r[..31]);
    if c.in_syscall() {
        // At the entry the arguments are taken from here.
        c.orig_x0 = r[0];
    }
    c.sp_el0 = r[31];
    c.elr = r[32];
    c.spsr = c.spsr & !FLAGS | r[33] & FLAGS;
    c.sanitize();
}

/// There is no PTRACE_PEEKUSER.
pub fn in_user(_offset: u64) -> bool {
    false
}

/// There is no PTRACE_PEEKUSER.
pub fn user_word(_c: &UserContext, _offset: u64) -> u64 {
    0
}

/// Single steps need the debug exceptions of the processor, which are not set up: `false`.
pub fn set_single_step(_c: &mut UserContext, on: bool) -> bool {
    !on
}

/// What a tracer sees while a call has not run: the arguments, as they are.
pub fn begin_syscall(_c: &mut UserContext) {}

/// The bytes of `struct user_fpsimd_state`; `None`: there is no such set.
pub fn fp_bytes(note: u32, fp: &FpState) -> Option<alloc::vec::Vec<u8>> {
    if note != 2 {
        return None;
    }
    let mut b = alloc::vec::Vec::with_capacity(528);
    for v in fp.v {
        b.extend_from_slice(&v.to_le_bytes());
    }
    b.extend_from_slice(&fp.fpsr.to_le_bytes());
    b.extend_from_slice(&fp.fpcr.to_le_bytes());
    b.resize(528, 0);
    Some(b)
}

/// Nothing to prepare.
pub fn show_fp(_fp: &mut FpState) {}

/// Sets the state from (a prefix of) its bytes; `false`: there is no such set.
pub fn set_fp_bytes(note: u32, fp: &mut FpState, bytes: &[u8]) -> bool {
    let Some(mut all) = fp_bytes(note, fp) else {
        return false;
    };
    let n = bytes.len().min(all.len());
    all[..n].copy_from_slice(&bytes[..n]);
    let (v, rest) = all.split_at(512);
    for (to, from) in fp.v.iter_mut().zip(v.as_chunks::<16>().0) {
        *to = u128::from_le_bytes(*from);
    }
    let word = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
    fp.fpsr = word(0);
    fp.fpcr = word(4);
    true
}

/// A register set of integers besides the general ones: thread pointer, number of the system call.
pub fn other_set(note: u32, c: &UserContext) -> Option<u64> {
    match note {
        NT_ARM_TLS => Some(c.tpidr),
        NT_ARM_SYSTEM_CALL => Some(c.syscallno & 0xffff_ffff),
        _ => None,
    }
}

/// Sets one; `false`: there is no such set.
pub fn set_other(note: u32, c: &mut UserContext, v: u64) -> bool {
    match note {
        NT_ARM_TLS => c.tpidr = v,
        NT_ARM_SYSTEM_CALL => c.syscallno = if v as i32 == -1 { u64::MAX } else { v & 0xffff_ffff },
        _ => return false,
    }
    true
}

/// Whether the requests with register structures of this architecture (PTRACE_GETREGS and relatives) exist.
pub const HAS_GETREGS: bool = false;
