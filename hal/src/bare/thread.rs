//! Threads of the bare machine.

use super::{Bare, cpu, ports_stop, sched, space, stack, timers};
use crate::aspace::{AddressSpace, SpaceInner};
use crate::contract::Threads;
use crate::native::switch;
use crate::sync::SpinLock;
use crate::thread::{Counts, NewSpace, Thread, ThreadRef};
use crate::{FpState, native};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use qlib::Errno;

/// Park word: nothing.
const EMPTY: u32 = 0;
/// A wake-up that nobody waited for.
const TOKEN: u32 = 1;
/// The thread sleeps.
const PARKED: u32 = 2;

/// What a thread runs first.
type Entry = Box<dyn FnOnce() + Send>;

/// What the bare scheduler keeps of a thread.
#[derive(Default)]
pub(crate) struct ThreadState {
    /// Stack position while switched away. The CPU that switches owns it.
    pub(super) sp: UnsafeCell<u64>,
    /// A CPU runs on the stack (or is about to leave it).
    pub(super) on_cpu: AtomicBool,
    /// Index + 1 of the CPU that runs the thread, 0 = none.
    pub(super) running_on: AtomicU32,
    /// Somebody kicked; looked at on the way back to the app.
    pub(super) kicked: AtomicBool,
    /// The app's vector state while switched away; `None` for kernel threads. Owned by the thread's CPU.
    pub(super) fp: UnsafeCell<Option<Box<FpState>>>,
    /// The address space it lives in.
    pub(super) space: SpinLock<Option<Arc<SpaceInner>>>,
    /// Where the timer last found the app, and how often in a row.
    pub(super) tick_pc: AtomicU64,
    pub(super) still_ticks: AtomicU32,
    /// Counter ticks in the app and in the kernel.
    pub(super) user_ticks: AtomicU64,
    pub(super) kernel_ticks: AtomicU64,
    /// Faults of app memory that were resolved.
    pub(super) faults: AtomicU64,
    /// How often it gave its CPU to another because it waited, and because its time was up.
    waited: AtomicU64,
    pub(super) preempted: AtomicU64,
    entry: SpinLock<Option<Entry>>,
}

// SAFETY: `sp` and `fp` are touched only by the CPU that runs or switches the thread, one at a time (`on_cpu`).
unsafe impl Sync for ThreadState {}
// SAFETY: nothing in it is tied to a CPU while the thread is switched away.
unsafe impl Send for ThreadState {}

/// The calling thread, borrowed: it lives as long as it runs.
pub(super) fn current() -> &'static Thread {
    // SAFETY: the stack owns a counted reference until the thread has ended and left it.
    let thread = unsafe { (*stack::header()).thread };
    // SAFETY: as above; the header holds a counted reference.
    unsafe { &*thread }
}

/// A counted reference to a thread.
pub(super) fn counted(t: &Thread) -> ThreadRef {
    let p = core::ptr::from_ref(t);
    // SAFETY: every `Thread` lives in an `Arc` (`thread::new_thread`, `thread::spawn`), and the borrow keeps it alive.
    unsafe { Arc::increment_strong_count(p) };
    // SAFETY: the count was just raised for this reference.
    unsafe { Arc::from_raw(p) }
}

/// The address space of the calling thread.
pub(super) fn current_space() -> Option<Arc<SpaceInner>> {
    current().machine.space.lock().clone()
}

/// Gives the calling thread an address space (and vector state) and makes it current.
pub(super) fn adopt(space: Arc<SpaceInner>) {
    let me = current();
    space.users.fetch_add(1, Ordering::SeqCst);
    let old = me.machine.space.lock().replace(space.clone());
    // SAFETY: the calling thread's own state.
    let fp = unsafe { &mut *me.machine.fp.get() };
    if fp.is_none() {
        *fp = Some(Box::new(FpState::initial()));
        native::fp::restore(&FpState::initial());
    }
    sched::activate(cpu::this(), Some(space));
    if let Some(o) = old {
        o.users.fetch_sub(1, Ordering::SeqCst);
    }
}

extern "C" fn thread_main() -> ! {
    sched::finish_switch();
    let entry = current().machine.entry.lock().take();
    if let Some(f) = entry {
        f();
    }
    Bare::exit()
}

fn store_space(cell: &crate::sync::Once<AddressSpace>, inner: Arc<SpaceInner>) -> Arc<SpaceInner> {
    cell.call_once(|| AddressSpace(inner)).0.clone()
}

impl Threads for Bare {
    fn current() -> ThreadRef {
        counted(current())
    }

    fn spawn(thread: &Arc<Thread>, space: NewSpace<'_>, f: Entry) -> Result<(), Errno> {
        let space = match space {
            NewSpace::Kernel => None,
            NewSpace::Shared => Some(current_space().ok_or(Errno::EINVAL)?),
            NewSpace::Fork(cell) => {
                let parent = current_space().ok_or(Errno::EINVAL)?;
                let child = space::fork(&parent.machine)?;
                Some(store_space(cell, Arc::new(SpaceInner::new(child))))
            }
            NewSpace::Fresh(cell) => {
                let fresh = space::BareSpace::create()?;
                Some(store_space(cell, Arc::new(SpaceInner::new(fresh))))
            }
        };
        let base = stack::alloc().ok_or(Errno::ENOMEM)?;
        let state = &thread.machine;
        if let Some(s) = &space {
            s.users.fetch_add(1, Ordering::SeqCst);
            let mut fp = Box::new(FpState::initial());
            // SAFETY: the calling thread's own state.
            if unsafe { (*current().machine.fp.get()).is_some() } {
                native::fp::save(&mut fp);
            }
            // SAFETY: the new thread does not run yet.
            unsafe { *state.fp.get() = Some(fp) };
        }
        *state.space.lock() = space;
        *state.entry.lock() = Some(f);
        // SAFETY: the stack was just taken; the header's reference is counted and dropped when the stack is freed.
        unsafe { stack::set_header(base, Arc::into_raw(thread.clone()), cpu::this()) };
        // SAFETY: the stack is not in use.
        let sp = unsafe { switch::prepare(base + stack::BYTES, thread_main) };
        // SAFETY: the new thread does not run yet.
        unsafe { *state.sp.get() = sp };
        thread.stack.store(base, Ordering::Release);
        sched::enqueue(thread.clone());
        Ok(())
    }

    fn exit() -> ! {
        let me = current();
        me.stack.store(0, Ordering::Release);
        let space = me.machine.space.lock().take();
        if let Some(s) = space {
            s.users.fetch_sub(1, Ordering::SeqCst);
            // The CPU keeps a reference while the tables are current.
            drop(s);
        }
        sched::end()
    }

    fn park(deadline_ns: Option<u64>) {
        let me = current();
        if me
            .park
            .compare_exchange(TOKEN, EMPTY, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
        {
            return;
        }
        let timer = deadline_ns.map(|d| timers::add(d, counted(me)));
        if me
            .park
            .compare_exchange(EMPTY, PARKED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            me.machine.waited.fetch_add(1, Ordering::Relaxed);
            sched::block();
        } else {
            me.park.store(EMPTY, Ordering::Relaxed);
        }
        if let Some(t) = timer {
            timers::remove(t);
        }
    }

    fn unpark(thread: &Thread) {
        loop {
            let (from, to) = match thread.park.load(Ordering::Acquire) {
                EMPTY => (EMPTY, TOKEN),
                PARKED => (PARKED, EMPTY),
                _ => return,
            };
            if thread
                .park
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                if from == PARKED {
                    sched::enqueue(counted(thread));
                }
                return;
            }
        }
    }

    fn kick(thread: &Thread) {
        thread.machine.kicked.store(true, Ordering::SeqCst);
        Self::unpark(thread);
        let on = thread.machine.running_on.load(Ordering::SeqCst);
        if on != 0 && on - 1 != cpu::this().id {
            native::irq::send_ipi(on - 1);
        }
    }

    fn yield_now() {
        sched::yield_now();
    }

    fn cpu_time_ns() -> (u64, u64) {
        let s = &current().machine;
        let (u, k) = (
            s.user_ticks.load(Ordering::Relaxed),
            s.kernel_ticks.load(Ordering::Relaxed),
        );
        let now = native::clock::counter().saturating_sub(cpu::this().stamp.load(Ordering::Relaxed));
        (super::clock::to_ns(u), super::clock::to_ns(k + now))
    }

    fn cpu_time_of(thread: &Thread) -> Option<(u64, u64)> {
        let s = &thread.machine;
        // The stamp is moved before the time is booked and looked at after: what is booked at this moment counts later.
        let (mut u, mut k) = (
            s.user_ticks.load(Ordering::Acquire),
            s.kernel_ticks.load(Ordering::Acquire),
        );
        let on = s.running_on.load(Ordering::SeqCst);
        if let Some(c) = (on as usize).checked_sub(1).and_then(|i| cpu::all().get(i)) {
            let now = native::clock::counter().saturating_sub(c.stamp.load(Ordering::Relaxed));
            if c.gate.is_inside() {
                u += now;
            } else {
                k += now;
            }
        }
        Some((super::clock::to_ns(u), super::clock::to_ns(k)))
    }

    fn counts() -> Counts {
        let s = &current().machine;
        let peak = current_space().map_or(0, |s| s.machine.peak_bytes());
        Counts {
            peak_rss_kib: peak >> 10,
            minor_faults: s.faults.load(Ordering::Relaxed),
            voluntary: s.waited.load(Ordering::Relaxed),
            involuntary: s.preempted.load(Ordering::Relaxed),
            ..Counts::default()
        }
    }

    fn power_off(code: i32, reason: &str) -> ! {
        ports_stop(code, reason)
    }
}
