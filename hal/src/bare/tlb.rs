//! Keeping the CPUs' TLBs in step with the tables.
//!
//! A CPU in the kernel does not touch app memory but in user copies; so a change of tables waits only for CPUs that run the
//! app or copy right now, and others flush before they touch app memory again. Nobody waits for a CPU that waits itself:
//! a waiting CPU is in the kernel. Tables are freed with their address space only, so stale walks are harmless.

use super::cpu;
use crate::native::{irq, mmu};
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

/// Makes every CPU forget what it knows of the address space under `root`. Its tables were changed before.
pub(super) fn shootdown(root: u64) {
    mmu::publish_tables();
    let me = cpu::this();
    if mmu::BROADCAST || me.root.load(Ordering::Relaxed) == root {
        mmu::flush_user();
    }
    if !mmu::BROADCAST {
        interrupt(Some(root));
    }
}

/// Interrupts every other CPU that runs an app (of the address space under `root`, or any) and waits until it has been in
/// the kernel; a CPU that is there already flushes, and passes a barrier, before it runs the app again.
pub(super) fn interrupt(root: Option<u64>) {
    let me = cpu::this();
    fence(Ordering::SeqCst);
    let mut asked = Vec::new();
    for c in cpu::all() {
        if c.id == me.id || root.is_some_and(|r| c.root.load(Ordering::SeqCst) != r) {
            continue;
        }
        if c.gate.tell() {
            irq::send_ipi(c.id);
            asked.push(c);
        }
    }
    for c in asked {
        while c.gate.waits() {
            core::hint::spin_loop();
        }
    }
}

/// Declares that this CPU is about to touch app memory (or to run the app).
pub(super) fn enter_user() {
    cpu::this().gate.enter(mmu::flush_user);
}

/// Declares that it does not any more.
pub(super) fn leave_user() {
    cpu::this().gate.leave();
}
