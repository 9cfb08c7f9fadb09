//! The signal frame of aarch64 against one that Linux itself made.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use arch::aarch64::{FpState, UserContext, sigframe};
use arch::signal::{SignalDelivery, UserMemory};
use qlib::{Errno, VirtAddr};
use std::collections::BTreeMap;

const GOLDEN: &str = include_str!("rt_sigframe_aarch64.txt");
/// Where Linux put the frame, and what it called the handler with.
const FRAME: u64 = 0xffff_ebcf_b000;
const RECORD: u64 = FRAME + 0x1250;
const TRAMPOLINE: u64 = 0xffff_8d00_0820;
/// `struct sigcontext` in the frame.
const CONTEXT: u64 = 0x130;
/// `struct fpsimd_context` in the frame, and one past the empty record that ends the list.
const FP: u64 = 0x250;
const END: u64 = FP + 528 + 8;

fn golden() -> BTreeMap<u64, u64> {
    let words = GOLDEN.lines().filter(|l| !l.starts_with('#'));
    let hex = |s: &str| u64::from_str_radix(s, 16).unwrap();
    words
        .map(|l| l.split_once(' ').unwrap())
        .map(|(at, v)| (hex(at), hex(v)))
        .collect()
}

fn word(at: u64) -> u64 {
    golden().get(&at).copied().unwrap_or(0)
}

/// A stack that was full of something else.
struct Stack(BTreeMap<u64, u8>);

impl UserMemory for Stack {
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0
            .extend(bytes.iter().enumerate().map(|(i, b)| (addr + i as u64, *b)));
        Ok(())
    }
    fn read(&mut self, addr: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        for (i, b) in bytes.iter_mut().enumerate() {
            *b = self.0.get(&(addr + i as u64)).copied().unwrap_or(0xaa);
        }
        Ok(())
    }
}

fn context() -> (UserContext, FpState) {
    let mut ctx = UserContext::new(VirtAddr(0), VirtAddr(0));
    for (i, x) in ctx.x.iter_mut().enumerate() {
        *x = word(CONTEXT + 8 + 8 * i as u64);
    }
    ctx.set_sp(word(CONTEXT + 256));
    ctx.set_pc(word(CONTEXT + 264));
    ctx.spsr = word(CONTEXT + 272);
    let mut fp = FpState::initial();
    fp.fpsr = word(FP + 8) as u32;
    fp.fpcr = (word(FP + 8) >> 32) as u32;
    for (i, v) in fp.v.iter_mut().enumerate() {
        let at = FP + 16 + 16 * i as u64;
        *v = word(at) as u128 | (word(at + 8) as u128) << 64;
    }
    (ctx, fp)
}

#[test]
fn push_makes_linux_own_frame_and_pop_takes_it() {
    let (before, fp) = context();
    let mut info = [0u8; 128];
    for (i, b) in info.iter_mut().enumerate() {
        *b = word(i as u64 & !7).to_le_bytes()[i & 7];
    }
    let delivery = SignalDelivery {
        signo: 10,
        info: &info,
        handler: VirtAddr(0x1234_5678),
        restorer: VirtAddr(TRAMPOLINE),
        old_mask: word(0xa8),
        stack_top: before.sp(),
        alt_stack: (word(0x90), word(0x98) as u32, word(0xa0)),
        fault_addr: word(CONTEXT),
        trap: (0, 0),
    };
    let mut stack = Stack(BTreeMap::new());
    let mut ctx = before;
    sigframe::push(&mut ctx, &fp, &delivery, false, &mut stack).unwrap();

    assert_eq!(ctx.sp(), FRAME);
    assert_eq!((ctx.x[0], ctx.x[1], ctx.x[2]), (10, FRAME, FRAME + 0x80));
    assert_eq!(
        (ctx.x[29], ctx.x[30], ctx.pc()),
        (RECORD, TRAMPOLINE, 0x1234_5678)
    );
    for at in (0..END).chain(0x1250..0x1260).step_by(8) {
        let mut bytes = [0; 8];
        stack.read(FRAME + at, &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), word(at), "at {at:#x}");
    }

    // The handler changed every register.
    ctx.x = [0x55; 31];
    let mut back = FpState::initial();
    let returned = sigframe::pop(&mut ctx, &mut back, &mut stack).unwrap();
    assert_eq!(
        (ctx.x, ctx.sp(), ctx.pc(), ctx.spsr),
        (before.x, before.sp(), before.pc(), before.spsr)
    );
    assert_eq!((back.v, back.fpsr, back.fpcr), (fp.v, fp.fpsr, fp.fpcr));
    assert_eq!(returned.mask, word(0xa8));
    assert_eq!(returned.alt_stack, delivery.alt_stack);
}

#[test]
fn an_app_cannot_return_to_the_kernel() {
    let (mut ctx, mut fp) = context();
    let mut stack = Stack(BTreeMap::new());
    let delivery = SignalDelivery {
        signo: 10,
        info: &[0; 128],
        handler: VirtAddr(0),
        restorer: VirtAddr(0),
        old_mask: 0,
        stack_top: ctx.sp(),
        alt_stack: (0, 0, 0),
        fault_addr: 0,
        trap: (0, 0),
    };
    sigframe::push(&mut ctx, &fp, &delivery, false, &mut stack).unwrap();
    // EL1h, interrupts masked, AArch32, single step.
    let pstate = ctx.sp() + CONTEXT + 272;
    stack.write(pstate, &0x0020_03d5u64.to_le_bytes()).unwrap();
    sigframe::pop(&mut ctx, &mut fp, &mut stack).unwrap();
    assert_eq!(ctx.spsr, 0);
    // A record of another size is refused.
    let (mut ctx, mut fp) = (UserContext { sp_el0: FRAME, ..ctx }, fp);
    let mut torn = Stack(BTreeMap::new());
    torn.write(FRAME + FP, &0x4650_8001u32.to_le_bytes()).unwrap();
    assert!(sigframe::pop(&mut ctx, &mut fp, &mut torn).is_err());
}
