//! The app's signal frame: Linux `struct rt_sigframe` (`arch/arm64/kernel/signal.c`, `uapi/asm/sigcontext.h`).

use super::context::{FpState, UserContext};
use crate::signal::{SignalDelivery, SignalReturn, UserMemory};
use qlib::Errno;

/// `FPSIMD_MAGIC` and the record's size.
const FPSIMD_MAGIC: u32 = 0x4650_8001;
const FPSIMD_BYTES: usize = 528;
/// Offset of `uc_sigmask` in `struct ucontext`.
const SIGMASK: usize = 40;
/// Offset of `uc_mcontext`: the mask is padded to 1024 bits, the context aligned to 16.
const MCONTEXT: usize = 176;
/// Offset of `__reserved` in `struct sigcontext` (fault_address, 31 regs, sp, pc, pstate; aligned to 16).
const RESERVED: usize = MCONTEXT + 288;
/// Bytes of `struct rt_sigframe`: siginfo, then ucontext with 4096 reserved bytes.
const FRAME_BYTES: usize = 128 + RESERVED + 4096;

fn put(buf: &mut [u8], at: usize, v: u64) {
    buf[at..at + 8].copy_from_slice(&v.to_le_bytes());
}

fn get(buf: &[u8], at: usize) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&buf[at..at + 8]);
    u64::from_le_bytes(b)
}

fn get32(buf: &[u8], at: usize) -> u32 {
    let mut b = [0; 4];
    b.copy_from_slice(&buf[at..at + 4]);
    u32::from_le_bytes(b)
}

/// Linux does not look whether a frame fits on the alternate stack here. Source: `get_sigframe` in `arch/arm64/kernel/signal.c`.
pub const GUARDS_ALT_STACK: bool = false;

/// Pushes a frame for `d` and points `ctx` at the handler.
///
/// # Errors
/// EFAULT when the stack cannot be written.
pub fn push(
    ctx: &mut UserContext,
    fp: &FpState,
    d: &SignalDelivery<'_>,
    _on_alt_stack: bool,
    mem: &mut dyn UserMemory,
) -> Result<(), Errno> {
    let top = d.stack_top & !15;
    // A frame record (fp, lr) for unwinders lies above the frame.
    let record = top.wrapping_sub(16);
    let frame = record.wrapping_sub(FRAME_BYTES as u64) & !15;
    let mut link = [0u8; 16];
    put(&mut link, 0, ctx.x[29]);
    put(&mut link, 8, ctx.x[30]);
    mem.write(record, &link)?;

    const USED: usize = 128 + RESERVED + FPSIMD_BYTES + 8;
    let mut b = [0u8; USED];
    b[..128].copy_from_slice(d.info);
    let uc = &mut b[128..];
    put(uc, 16, d.alt_stack.0);
    uc[24..28].copy_from_slice(&d.alt_stack.1.to_le_bytes());
    put(uc, 32, d.alt_stack.2);
    put(uc, SIGMASK, d.old_mask);
    put(uc, MCONTEXT, d.fault_addr);
    for (i, x) in ctx.x.iter().enumerate() {
        put(uc, MCONTEXT + 8 + 8 * i, *x);
    }
    put(uc, MCONTEXT + 256, ctx.sp_el0);
    put(uc, MCONTEXT + 264, ctx.elr);
    put(uc, MCONTEXT + 272, ctx.spsr);
    uc[RESERVED..RESERVED + 4].copy_from_slice(&FPSIMD_MAGIC.to_le_bytes());
    uc[RESERVED + 4..RESERVED + 8].copy_from_slice(&(FPSIMD_BYTES as u32).to_le_bytes());
    uc[RESERVED + 8..RESERVED + 12].copy_from_slice(&fp.fpsr.to_le_bytes());
    uc[RESERVED + 12..RESERVED + 16].copy_from_slice(&fp.fpcr.to_le_bytes());
    for (i, v) in fp.v.iter().enumerate() {
        let at = RESERVED + 16 + 16 * i;
        uc[at..at + 16].copy_from_slice(&v.to_le_bytes());
    }
    mem.write(frame, &b)?;

    ctx.x[0] = d.signo as u64;
    ctx.x[1] = frame;
    ctx.x[2] = frame + 128;
    ctx.x[29] = record;
    ctx.x[30] = d.restorer.0;
    ctx.sp_el0 = frame;
    ctx.elr = d.handler.0;
    // BTYPE = indirect call, so that a handler under BTI starts at a landing pad; TCO clear.
    ctx.spsr &= !(3 << 10 | 1 << 25);
    ctx.end_syscall();
    Ok(())
}

/// Restores what [`push`] saved: the frame lies at the stack pointer.
///
/// # Errors
/// EFAULT when the frame cannot be read or its FP record is malformed.
pub fn pop(ctx: &mut UserContext, fp: &mut FpState, mem: &mut dyn UserMemory) -> Result<SignalReturn, Errno> {
    let mut uc = [0u8; RESERVED + FPSIMD_BYTES];
    mem.read(ctx.sp_el0.wrapping_add(128), &mut uc)?;
    let mut new = UserContext {
        tpidr: ctx.tpidr,
        syscallno: u64::MAX,
        orig_x0: 0,
        ..UserContext::default()
    };
    for (i, x) in new.x.iter_mut().enumerate() {
        *x = get(&uc, MCONTEXT + 8 + 8 * i);
    }
    new.sp_el0 = get(&uc, MCONTEXT + 256);
    new.elr = get(&uc, MCONTEXT + 264);
    new.spsr = get(&uc, MCONTEXT + 272);
    new.sanitize();
    if get32(&uc, RESERVED) != FPSIMD_MAGIC || get32(&uc, RESERVED + 4) as usize != FPSIMD_BYTES {
        return Err(Errno::EFAULT);
    }
    fp.fpsr = get32(&uc, RESERVED + 8);
    fp.fpcr = get32(&uc, RESERVED + 12);
    for (i, v) in fp.v.iter_mut().enumerate() {
        let at = RESERVED + 16 + 16 * i;
        *v = (get(&uc, at) as u128) | (get(&uc, at + 8) as u128) << 64;
    }
    *ctx = new;
    Ok(SignalReturn {
        mask: get(&uc, SIGMASK),
        alt_stack: (get(&uc, 16), get32(&uc, 24), get(&uc, 32)),
    })
}
