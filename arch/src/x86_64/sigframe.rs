//! The app's signal frame: Linux `struct rt_sigframe` (`arch/x86/include/asm/sigframe.h`).

use super::context::{FpState, UserContext};
use crate::signal::{SignalDelivery, SignalReturn, UserMemory};
use qlib::Errno;

/// Magic of an extended frame (`FP_XSTATE_MAGIC1`, `uapi/asm/sigcontext.h`).
const XSTATE_MAGIC1: u32 = 0x4650_5853;
/// Magic behind the XSAVE area (`FP_XSTATE_MAGIC2`).
const XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Offset of `_fpx_sw_bytes` in the legacy area.
const SW_BYTES: usize = 464;
/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const UC_FLAGS: u64 = 7;
/// Bytes of `struct ucontext` up to and including `uc_sigmask`.
const UC_BYTES: usize = 8 + 8 + 24 + 256 + 8;
/// Offset of `uc_mcontext` in `struct ucontext`.
const MCONTEXT: usize = 40;
/// Offset of `uc_sigmask`.
const SIGMASK: usize = MCONTEXT + 256;
/// User code and stack selectors as Linux has them.
const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;
/// Bytes below the stack pointer that the x86_64 ABI leaves to leaf functions.
const RED_ZONE: u64 = 128;

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

/// Order of `gregs` in `struct sigcontext`.
fn gregs(c: &UserContext) -> [u64; 18] {
    [
        c.r8, c.r9, c.r10, c.r11, c.r12, c.r13, c.r14, c.r15, c.rdi, c.rsi, c.rbp, c.rbx, c.rdx, c.rax,
        c.rcx, c.rsp, c.rip, c.rflags,
    ]
}

/// Linux writes no frame below the alternate stack here. Source: `get_sigframe` in `arch/x86/kernel/signal.c`.
pub const GUARDS_ALT_STACK: bool = true;

/// Pushes a frame for `d` and points `ctx` at the handler. `on_alt_stack`: `stack_top` is the top of the alternate
/// stack, so no red zone is skipped.
///
/// # Errors
/// EFAULT when the stack cannot be written.
pub fn push(
    ctx: &mut UserContext,
    fp: &FpState,
    d: &SignalDelivery<'_>,
    on_alt_stack: bool,
    mem: &mut dyn UserMemory,
) -> Result<(), Errno> {
    let mut sp = d.stack_top;
    if !on_alt_stack {
        sp = sp.wrapping_sub(RED_ZONE);
    }
    let extended = fp.features != 0;
    let fp_total = if extended { fp.len + 4 } else { 512 };
    let fp_addr = sp.wrapping_sub(fp_total as u64) & !63;
    // pretcode, ucontext, siginfo
    let frame_bytes = 8 + UC_BYTES + 128;
    // The handler starts as if called: (rsp + 8) is 16-byte aligned.
    let frame = (fp_addr.wrapping_sub(frame_bytes as u64) & !15).wrapping_sub(8);

    let mut image = [0u8; 512];
    image.copy_from_slice(&fp.bytes[..512]);
    image[SW_BYTES..].fill(0);
    if extended {
        image[SW_BYTES..SW_BYTES + 4].copy_from_slice(&XSTATE_MAGIC1.to_le_bytes());
        image[SW_BYTES + 4..SW_BYTES + 8].copy_from_slice(&(fp_total as u32).to_le_bytes());
        put(&mut image, SW_BYTES + 8, fp.features);
        image[SW_BYTES + 16..SW_BYTES + 20].copy_from_slice(&(fp.len as u32).to_le_bytes());
    }
    mem.write(fp_addr, &image)?;
    if extended {
        mem.write(fp_addr + 512, &fp.bytes[512..fp.len])?;
        mem.write(fp_addr + fp.len as u64, &XSTATE_MAGIC2.to_le_bytes())?;
    }

    let mut b = [0u8; 8 + UC_BYTES + 128];
    put(&mut b, 0, d.restorer.0);
    {
        let uc = &mut b[8..8 + UC_BYTES];
        put(uc, 0, if extended { UC_FLAGS } else { UC_FLAGS & !1 });
        put(uc, 16, d.alt_stack.0);
        uc[24..28].copy_from_slice(&d.alt_stack.1.to_le_bytes());
        put(uc, 32, d.alt_stack.2);
        let mut at = MCONTEXT;
        for reg in gregs(ctx) {
            put(uc, at, reg);
            at += 8;
        }
        uc[at..at + 2].copy_from_slice(&USER_CS.to_le_bytes());
        uc[at + 6..at + 8].copy_from_slice(&USER_SS.to_le_bytes());
        put(uc, at + 8, d.trap.1);
        put(uc, at + 16, d.trap.0);
        put(uc, at + 24, d.old_mask);
        put(uc, at + 32, d.fault_addr);
        put(uc, at + 40, fp_addr);
        put(uc, SIGMASK, d.old_mask);
    }
    b[8 + UC_BYTES..].copy_from_slice(d.info);
    mem.write(frame, &b)?;

    ctx.rsp = frame;
    ctx.rip = d.handler.0;
    ctx.rdi = d.signo as u64;
    ctx.rsi = frame + 8 + UC_BYTES as u64;
    ctx.rdx = frame + 8;
    ctx.rax = 0;
    // DF, TF, RF and AC are clear when a handler starts.
    ctx.rflags &= !(0x400 | 0x100 | 0x1_0000 | 0x4_0000);
    ctx.end_syscall();
    Ok(())
}

/// Restores what [`push`] saved: the frame lies at the stack pointer, whose return address the handler's `ret` took.
///
/// # Errors
/// EFAULT when the frame cannot be read.
pub fn pop(ctx: &mut UserContext, fp: &mut FpState, mem: &mut dyn UserMemory) -> Result<SignalReturn, Errno> {
    let uc_addr = ctx.rsp;
    let mut uc = [0u8; UC_BYTES];
    mem.read(uc_addr, &mut uc)?;
    let g = |i: usize| get(&uc, MCONTEXT + 8 * i);
    let mut new = UserContext {
        r8: g(0),
        r9: g(1),
        r10: g(2),
        r11: g(3),
        r12: g(4),
        r13: g(5),
        r14: g(6),
        r15: g(7),
        rdi: g(8),
        rsi: g(9),
        rbp: g(10),
        rbx: g(11),
        rdx: g(12),
        rax: g(13),
        rcx: g(14),
        rsp: g(15),
        rip: g(16),
        rflags: g(17),
        fs_base: ctx.fs_base,
        gs_base: ctx.gs_base,
        orig_rax: u64::MAX,
    };
    new.sanitize();
    let fp_addr = g(23);
    if fp_addr == 0 {
        *fp = FpState::initial();
    } else {
        pop_fp(fp, fp_addr, mem)?;
    }
    *ctx = new;
    Ok(SignalReturn {
        mask: get(&uc, SIGMASK),
        alt_stack: (get(&uc, 16), get32(&uc, 24), get(&uc, 32)),
    })
}

/// Reads the floating-point image back. `fp` holds the current state: its size and features bound what is accepted.
fn pop_fp(fp: &mut FpState, addr: u64, mem: &mut dyn UserMemory) -> Result<(), Errno> {
    let mut legacy = [0u8; 512];
    mem.read(addr, &mut legacy)?;
    let magic1 = get32(&legacy, SW_BYTES);
    let size = get32(&legacy, SW_BYTES + 16) as usize;
    let extended = fp.features != 0 && magic1 == XSTATE_MAGIC1 && size >= 576 && size <= fp.len;
    let (len, features) = (fp.len, fp.features);
    fp.bytes[..512].copy_from_slice(&legacy);
    fp.bytes[SW_BYTES..512].fill(0);
    fp.bytes[512..len.max(576)].fill(0);
    // Reserved MXCSR bits fault on restore.
    let mxcsr = get32(&fp.bytes, 24) & 0xffff;
    fp.bytes[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    if extended {
        mem.read(addr + 512, &mut fp.bytes[512..size])?;
        let bv = get(&fp.bytes, 512) & features;
        fp.bytes[520..576].fill(0);
        put(&mut fp.bytes, 512, bv);
    } else if features != 0 {
        // Only x87 and SSE came: the rest returns to its initial state.
        put(&mut fp.bytes, 512, 3);
    }
    fp.len = len;
    Ok(())
}
