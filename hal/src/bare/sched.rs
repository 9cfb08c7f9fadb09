//! The scheduler: one queue of runnable threads for all CPUs, time slices for those in user mode.

use super::cpu::{self, Cpu};
use super::{qcall, stack, thread, timers};
use crate::aspace::SpaceInner;
use crate::native::clock::counter;
use crate::native::{cpu as machine_cpu, fp, irq, mmu, switch};
use crate::sync::SpinLock;
use crate::thread::{Thread, ThreadRef};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use qlib::PhysAddr;

/// How long a thread may stay in user mode while others wait, ns.
const SLICE_NS: u64 = 6_000_000;

static QUEUE: SpinLock<VecDeque<ThreadRef>> = SpinLock::new(VecDeque::new());
/// Threads in the queue.
static WAITING: AtomicU64 = AtomicU64::new(0);
/// The table that maps the kernel's half and nothing else.
static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);

/// Learns the root table the CPUs boot with.
pub(super) fn init(kernel_root: u64) {
    KERNEL_ROOT.store(kernel_root, Ordering::Relaxed);
}

/// Makes a thread runnable.
pub(super) fn enqueue(t: ThreadRef) {
    let mut q = QUEUE.lock();
    q.push_back(t);
    WAITING.store(q.len() as u64, Ordering::SeqCst);
    drop(q);
    // A CPU that waits for an interrupt gets one; the swap keeps a second waker from sending another.
    let me = cpu::this().id;
    for c in cpu::all() {
        if c.id != me && c.idle.load(Ordering::SeqCst) && c.idle.swap(false, Ordering::SeqCst) {
            irq::send_ipi(c.id);
            break;
        }
    }
}

fn dequeue() -> Option<ThreadRef> {
    if WAITING.load(Ordering::SeqCst) == 0 {
        return None;
    }
    let mut q = QUEUE.lock();
    // A thread whose last CPU has not left its stack yet cannot run. Waiting for it could wait in a circle: pass it over.
    let me = core::ptr::from_ref(thread::current());
    let ready = |t: &ThreadRef| Arc::as_ptr(t) == me || !t.machine.on_cpu.load(Ordering::Acquire);
    let t = q.iter().position(ready).and_then(|i| q.remove(i));
    WAITING.store(q.len() as u64, Ordering::SeqCst);
    t
}

/// Whether a thread waits for a CPU.
pub(super) fn others_wait() -> bool {
    WAITING.load(Ordering::SeqCst) != 0
}

/// The calling thread sleeps; whoever wakes it puts it in the queue.
pub(super) fn block() {
    let c = cpu::this();
    match dequeue() {
        Some(next) => switch_to(c, next, false),
        None => switch_to(c, idle_of(c), false),
    }
}

/// Lets a waiting thread run; the calling one goes to the end of the queue.
pub(super) fn yield_now() {
    qcall::reap();
    if let Some(next) = dequeue() {
        enqueue(thread::counted(thread::current()));
        switch_to(cpu::this(), next, false);
    }
}

/// The calling thread is over; its stack is freed by the next one.
pub(super) fn end() -> ! {
    let c = cpu::this();
    let next = dequeue().unwrap_or_else(|| idle_of(c));
    switch_to(c, next, true);
    panic!("a thread that ended runs")
}

fn idle_of(c: &Cpu) -> ThreadRef {
    let p = c.idle_thread.load(Ordering::Relaxed);
    // SAFETY: set when the CPU came up, and never dropped.
    thread::counted(unsafe { &*p })
}

/// Leaves the calling thread for `next`.
fn switch_to(c: &'static Cpu, next: ThreadRef, dead: bool) {
    stack::check();
    let prev = thread::current();
    if Arc::as_ptr(&next) == core::ptr::from_ref(prev) {
        // Woken before it got away.
        return;
    }
    next.machine.on_cpu.store(true, Ordering::Relaxed);
    account(c, prev, false);
    // SAFETY: the calling thread's own state; the vector registers are its app's.
    if let Some(state) = unsafe { (*prev.machine.fp.get()).as_mut() }
        && !dead
    {
        fp::save(state);
    }
    prev.machine.running_on.store(0, Ordering::SeqCst);
    next.machine.running_on.store(c.id + 1, Ordering::SeqCst);
    let base = next.stack.load(Ordering::Acquire);
    let header = base as *mut stack::Header;
    // SAFETY: `next` is switched away from and not on any CPU, so this CPU owns its stack.
    unsafe { (*header).cpu = c };
    let space = next.machine.space.lock().clone();
    if space.is_some() {
        activate(c, space);
    }
    c.prev.set((prev, dead));
    // SAFETY: the tables are this CPU's; the stack is the next thread's.
    unsafe { machine_cpu::set_kernel_stack(c.tables.get(), base + stack::BYTES) };
    c.slice_end
        .set(counter().saturating_add(super::clock::to_ticks(SLICE_NS)));
    // SAFETY: `next` is owned by this CPU since `on_cpu` was taken.
    let load = unsafe { *next.machine.sp.get() };
    // The header of its stack keeps it alive.
    drop(next);
    // SAFETY: `load` was stored by a switch or by `prepare`, and nobody runs on that stack.
    unsafe { switch::switch(prev.machine.sp.get(), load) };
    finish_switch();
}

/// First thing on a stack after a switch to it.
pub(super) fn finish_switch() {
    let c = cpu::this();
    let (prev, dead) = c.prev.replace((core::ptr::null(), false));
    // SAFETY: the header of the stack that was left owns a counted reference to its thread.
    let prev = unsafe { &*prev };
    if dead {
        let base = phys_base(prev);
        // SAFETY: the thread ended on this CPU; the reference of its stack's header is given back here.
        let owned = unsafe { Arc::from_raw(core::ptr::from_ref(prev)) };
        stack::free(base);
        // Drops the thread, perhaps.
        owned.machine.on_cpu.store(false, Ordering::Release);
        leave_dead_space(c);
        drop(owned);
    } else {
        prev.machine.on_cpu.store(false, Ordering::Release);
    }
    // SAFETY: the calling thread's own state.
    if let Some(state) = unsafe { (*thread::current().machine.fp.get()).as_ref() } {
        fp::restore(state);
    }
}

/// The stack's base of a thread that ended ([`Thread::stack`] is 0 then).
fn phys_base(t: &Thread) -> u64 {
    // SAFETY: the thread was switched away from on this CPU, which owns its state.
    let sp = unsafe { *t.machine.sp.get() };
    sp & !(stack::BYTES - 1)
}

/// Lets go of an address space that nobody lives in any more.
fn leave_dead_space(c: &Cpu) {
    // SAFETY: this CPU's own cell.
    let space = unsafe { &*c.space.get() };
    if space
        .as_ref()
        .is_some_and(|s| s.users.load(Ordering::SeqCst) == 0)
    {
        activate(c, None);
    }
}

/// Makes `space` (or the kernel's own) current.
pub(super) fn activate(c: &Cpu, space: Option<Arc<SpaceInner>>) {
    let root = space.as_ref().map_or(0, |s| s.machine.root());
    if c.root.load(Ordering::Relaxed) == root {
        return;
    }
    c.root.store(root, Ordering::SeqCst);
    // From here on shootdowns see this CPU; what was changed before is seen by the flush below.
    c.gate.forget();
    let table = if root == 0 {
        KERNEL_ROOT.load(Ordering::Relaxed)
    } else {
        root
    };
    // SAFETY: every root carries the kernel's half and lives while the CPU holds its space.
    unsafe { mmu::activate(PhysAddr(table)) };
    // SAFETY: this CPU's own cell.
    let old = unsafe { core::mem::replace(&mut *c.space.get(), space) };
    // The tables are not current any more, so they may go.
    drop(old);
}

/// Books the time since the last call to `t`: as the app's or the kernel's.
pub(super) fn account(c: &Cpu, t: &Thread, user: bool) {
    let now = counter();
    let spent = now.saturating_sub(c.stamp.load(Ordering::Relaxed));
    c.stamp.store(now, Ordering::Relaxed);
    let to = if user {
        &t.machine.user_ticks
    } else {
        &t.machine.kernel_ticks
    };
    to.store(to.load(Ordering::Relaxed).wrapping_add(spent), Ordering::Release);
}

/// Sets the timer for what comes first: a deadline, or the end of the time slice. Setting it may cost an exit, so a timer
/// that is set earlier is left alone.
pub(super) fn arm(c: &Cpu, idle: bool) {
    let mut at = timers::earliest();
    if !idle {
        at = at.min(c.slice_end.get());
    }
    if at < c.armed.get() {
        c.armed.set(at);
        irq::set_timer(Some(at));
    }
}

/// The timer fired.
pub(super) fn timer_fired() {
    cpu::this().armed.set(u64::MAX);
    timers::expire(counter());
}

/// On the way to the app: gives the CPU up when the slice is over and others wait.
pub(super) fn preempt() {
    let c = cpu::this();
    let now = counter();
    if now < c.slice_end.get() {
        return;
    }
    c.slice_end
        .set(now.saturating_add(super::clock::to_ticks(SLICE_NS)));
    if others_wait() {
        let preempted = &thread::current().machine.preempted;
        preempted.fetch_add(1, Ordering::Relaxed);
        yield_now();
    }
}

/// What a CPU does when there is nothing to do. Runs on the CPU's first stack.
pub(super) fn idle() -> ! {
    loop {
        let c = cpu::this();
        qcall::reap();
        if let Some(next) = dequeue() {
            switch_to(c, next, false);
            continue;
        }
        leave_dead_space(c);
        c.idle.store(true, Ordering::SeqCst);
        if others_wait() || !qcall::may_sleep() {
            c.idle.store(false, Ordering::SeqCst);
            continue;
        }
        arm(c, true);
        machine_cpu::wait_for_interrupt();
        c.idle.store(false, Ordering::SeqCst);
    }
}
