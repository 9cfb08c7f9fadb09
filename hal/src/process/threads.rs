//! Threads: each is a thread of the host; a fork is a fork of the host.

use super::sys;
use super::{Nursery, Process, clock, futex, stack, zygote};
use crate::aspace::{AddressSpace, SpaceInner};
use crate::contract::{Clock, Threads};
use crate::native::{callgate, hosted};
use crate::thread::{Counts, NewSpace, Thread, ThreadRef};
use crate::uapi::general as g;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use qlib::Errno;

/// [`Thread::mode`]: in the kernel.
pub(super) const KERNEL: u32 = 0;
/// In the app.
pub(super) const USER: u32 = callgate::USER;
/// In a host call that the kick signal interrupts.
pub(super) const HOST_WAIT: u32 = 2;
/// Bit: kicked since the last trap; looked at on the way back to the app.
pub(super) const KICKED: u32 = callgate::KICKED;

const EMPTY: u32 = 0;
const TOKEN: u32 = 1;
const PARKED: u32 = 2;

/// Host clock ids of a thread's CPU time. Source: Linux's posix-timers.h.
const CPUCLOCK_THREAD: i32 = 4;
const CPUCLOCK_VIRT: i32 = 1;
const CPUCLOCK_SCHED: i32 = 2;

/// Source: `linux/prctl.h`.
const PR_SET_NAME: u64 = 15;

/// How long a thread looks for its token before it sleeps, ns: about what sleeping and being woken cost.
const SPIN_NS: u64 = 5000;
/// Looks between two looks at the clock.
const SPIN_ROUNDS: u32 = 8;
/// Bounds of [`stack::Header::luck`].
const MAX_LUCK: i8 = 4;
const MIN_LUCK: i8 = -16;

/// Power-off code plus one, once somebody asked.
pub(super) static OFF: AtomicU32 = AtomicU32::new(0);

/// First function of every host thread, on its own stack.
///
/// # Safety
/// Called only by `quark_clone`, on a slot prepared by [`Process::spawn`] or for a hand-over.
#[unsafe(no_mangle)]
unsafe extern "C" fn quark_thread_main(sp: u64) -> ! {
    // `sp` is the very top, which belongs to the next slot.
    let base = (sp - 1) & !(stack::STACK_BYTES - 1);
    let tid = sys::gettid();
    // SAFETY: this thread runs on the slot.
    let header = unsafe { stack::header(base) };
    if header.waits {
        super::handover::wait_for_stack(base, tid);
    }
    if let Some(t) = &header.thread {
        if header.new_process {
            t.host_pid.store(tid, Ordering::Relaxed);
        }
        t.host_tid.store(tid, Ordering::SeqCst);
    }
    if header.new_process {
        // A forked process starts with its parent's alternate stack, which is in use there.
        set_alt_stack(base);
    }
    if let Some(f) = header.entry.take() {
        f();
    }
    Process::exit()
}

/// Makes a slot the host's alternate signal stack of the calling thread.
pub(super) fn set_alt_stack(base: u64) {
    let (start, size) = stack::alt_stack(base);
    let alt = [start, 0, size];
    // SAFETY: the host reads a stack_t: pointer, flags, size.
    let _ = unsafe { sys::call(g::__NR_sigaltstack, [alt.as_ptr() as u64, 0]) };
}

fn fresh_space(cell: &crate::sync::Once<AddressSpace>) -> Arc<SpaceInner> {
    let inner = Arc::new(SpaceInner::new(Default::default()));
    cell.call_once(|| AddressSpace(inner.clone())).0.clone()
}

/// The host's `struct rusage` of the calling thread; zeros where it tells nothing.
fn usage() -> [u64; 18] {
    let mut usage = [0; 18];
    // SAFETY: the host writes a struct rusage of 144 bytes.
    let _ = unsafe {
        sys::call(
            g::__NR_getrusage,
            [g::RUSAGE_THREAD as u64, usage.as_mut_ptr() as u64],
        )
    };
    usage
}

impl Threads for Process {
    fn current() -> ThreadRef {
        match stack::with(|h| h.thread.clone()) {
            Some(t) => t,
            None => panic!("a host thread without a kernel thread"),
        }
    }

    fn spawn(thread: &Arc<Thread>, space: NewSpace<'_>, f: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
        let (my_pid, my_space, my_nursery) = stack::with(|h| {
            let me = h.thread.as_ref();
            (
                me.map_or(0, |t| t.host_pid.load(Ordering::Relaxed)),
                h.space.clone(),
                me.and_then(|t| t.nursery.get().cloned()),
            )
        });
        if let (NewSpace::Shared | NewSpace::Fork(_), Some(nursery)) = (&space, my_nursery) {
            thread.nursery.call_once(|| nursery);
        }
        let (pid, inner) = match &space {
            NewSpace::Kernel => (sys::ZYGOTE.load(Ordering::Relaxed), None),
            NewSpace::Shared => (my_pid, Some(my_space.ok_or(Errno::EINVAL)?)),
            NewSpace::Fork(cell) => {
                let parent = my_space.ok_or(Errno::EINVAL)?;
                let child = fresh_space(cell);
                child.sites.copy_from(&parent.sites);
                (0, Some(child))
            }
            NewSpace::Fresh(cell) => (0, Some(fresh_space(cell))),
        };
        let base = stack::alloc().ok_or(Errno::ENOMEM)?;
        // SAFETY: the slot was just taken, and no thread runs on it.
        let header = unsafe { stack::header(base) };
        header.thread = Some(thread.clone());
        header.entry = Some(f);
        header.new_process = matches!(space, NewSpace::Fork(_) | NewSpace::Fresh(_));
        if let Some(i) = &inner {
            i.users.fetch_add(1, Ordering::SeqCst);
        }
        header.space = inner;
        thread.host_pid.store(pid, Ordering::Relaxed);
        thread.mode.store(KERNEL, Ordering::Relaxed);
        thread.stack.store(base, Ordering::Release);
        let started = match space {
            NewSpace::Kernel if sys::in_zygote(my_pid) => start(sys::THREAD_FLAGS, base),
            NewSpace::Kernel => zygote::start_thread(base),
            NewSpace::Shared => start(sys::THREAD_FLAGS, base),
            NewSpace::Fork(_) => start(sys::FORK_FLAGS, base),
            NewSpace::Fresh(_) => zygote::start_process(thread.nursery.get().map(|n| &**n), base),
        };
        started.inspect_err(|_| {
            thread.stack.store(0, Ordering::Relaxed);
            clear(base);
            stack::free(base);
        })
    }

    fn exit() -> ! {
        let base = stack::here();
        if stack::with(|h| h.by_gate) {
            // One under way would land on a stack that has its next user already.
            sys::block_kicks(true);
        }
        stack::with(|h| {
            if !stack::is_sound(h) {
                Self::power_off(super::FAULT_CODE, "a kernel stack overflowed");
            }
            if let Some(t) = &h.thread {
                t.host_tid.store(0, Ordering::SeqCst);
                t.stack.store(0, Ordering::Relaxed);
            }
        });
        clear(base);
        stack::exit_thread()
    }

    fn park(deadline_ns: Option<u64>) {
        // The header keeps the thread alive as long as it runs.
        let me = stack::with(|h| h.thread.as_ref().map(|t| &raw const t.park));
        let Some(word) = me else { return };
        // SAFETY: as above.
        let word = unsafe { &*word };
        spin(word, deadline_ns);
        if word
            .compare_exchange(EMPTY, PARKED, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
        {
            futex::wait(word, PARKED, deadline_ns);
        }
        word.store(EMPTY, Ordering::SeqCst);
    }

    fn unpark(thread: &Thread) {
        if thread.park.swap(TOKEN, Ordering::SeqCst) == PARKED {
            futex::wake(&thread.park, 1);
        }
        if thread.mode.load(Ordering::SeqCst) & HOST_WAIT != 0 {
            signal(thread);
        }
    }

    fn kick(thread: &Thread) {
        let mode = thread.mode.fetch_or(KICKED, Ordering::SeqCst);
        Self::unpark(thread);
        // One signal is enough: USER with KICKED set is already on its way.
        if mode & (USER | KICKED) == USER {
            signal(thread);
        }
    }

    fn yield_now() {
        let _ = sys::plain(g::__NR_sched_yield, []);
    }

    fn cpu_time_ns() -> (u64, u64) {
        let usage = usage();
        let user = usage[0] * 1_000_000_000 + usage[1] * 1000;
        // The clock is the sum, and finer.
        let total = clock::cpu(g::CLOCK_THREAD_CPUTIME_ID as i32).unwrap_or(user);
        let spent = stack::with(|h| h.thread.as_ref().map_or((0, 0), |t| spent(t)));
        let user = user.min(total);
        (spent.0 + user, spent.1 + total - user)
    }

    fn cpu_time_of(thread: &Thread) -> Option<(u64, u64)> {
        // The host tells a thread's time to threads of its process only.
        let me = stack::with(|h| h.thread.clone())?;
        if core::ptr::eq(&raw const *me, thread) {
            return Some(Self::cpu_time_ns());
        }
        let tid = thread.host_tid.load(Ordering::SeqCst);
        if tid <= 0 || thread.host_pid.load(Ordering::SeqCst) != me.host_pid.load(Ordering::Relaxed) {
            return None;
        }
        let total = clock::cpu(!tid << 3 | CPUCLOCK_THREAD | CPUCLOCK_SCHED)?;
        let user = clock::cpu(!tid << 3 | CPUCLOCK_THREAD | CPUCLOCK_VIRT)?.min(total);
        let spent = spent(thread);
        Some((spent.0 + user, spent.1 + total - user))
    }

    fn set_host_name(name: &[u8; 16]) {
        // SAFETY: the host reads a string of 16 bytes at most.
        let _ = unsafe { sys::call(g::__NR_prctl, [PR_SET_NAME, name.as_ptr() as u64]) };
    }

    fn counts() -> Counts {
        // The fields of struct rusage in their order.
        let u = usage();
        Counts {
            peak_rss_kib: u[4],
            minor_faults: u[8],
            major_faults: u[9],
            blocks_read: u[11],
            blocks_written: u[12],
            voluntary: u[16],
            involuntary: u[17],
        }
    }

    fn new_nursery(hello: Box<dyn FnOnce() + Send>) -> Result<Option<Arc<Nursery>>, Errno> {
        zygote::new_nursery(hello).map(Some)
    }

    fn close_nursery(nursery: &Nursery) {
        nursery.close();
    }

    fn power_off(code: i32, reason: &str) -> ! {
        zygote::power_off(code, reason)
    }
}

/// Looks for the token for a short while, where that has paid off lately: when who will leave it runs on another processor
/// at this moment. On one processor, or a busy machine, it only keeps that thread from running.
fn spin(word: &AtomicU32, deadline_ns: Option<u64>) {
    let there = || word.load(Ordering::Relaxed) == TOKEN;
    if there() {
        return;
    }
    let luck = stack::with(|h| h.luck);
    if luck < 0 {
        // Tries again after a while.
        stack::with(|h| h.luck = if luck == MIN_LUCK { 0 } else { luck - 1 });
        return;
    }
    let end = Process::monotonic_ns().saturating_add(SPIN_NS);
    let end = deadline_ns.map_or(end, |d| d.min(end));
    let paid = loop {
        for _ in 0..SPIN_ROUNDS {
            core::hint::spin_loop();
        }
        if there() {
            break true;
        }
        if Process::monotonic_ns() >= end {
            break false;
        }
    };
    stack::with(|h| h.luck = if paid { (luck + 1).min(MAX_LUCK) } else { luck - 1 });
}

/// What a thread used before it came to its present host process.
fn spent(t: &Thread) -> (u64, u64) {
    let [user, system] = &t.spent_ns;
    (user.load(Ordering::Relaxed), system.load(Ordering::Relaxed))
}

/// Drops what a header holds: the thread, and its share of the address space.
fn clear(base: u64) {
    // SAFETY: the caller runs on the slot, or no thread does.
    let header = unsafe { stack::header(base) };
    let (space, thread, entry) = (header.space.take(), header.thread.take(), header.entry.take());
    if let Some(s) = &space {
        s.users.fetch_sub(1, Ordering::SeqCst);
    }
    drop((space, thread, entry));
}

/// Starts a host thread on a prepared slot.
pub(super) fn start(flags: u64, base: u64) -> Result<(), Errno> {
    // SAFETY: the slot is prepared and nobody runs on it; the region is MAP_SHARED, so it stays shared without CLONE_VM.
    Errno::from_ret(unsafe { hosted::clone(flags, stack::top(base)) }).map(|_| ())
}

fn signal(thread: &Thread) {
    sys::send_kick(
        thread.host_pid.load(Ordering::SeqCst),
        thread.host_tid.load(Ordering::SeqCst),
    );
}
