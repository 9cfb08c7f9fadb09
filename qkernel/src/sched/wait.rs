//! Wait queues: how threads and pollers learn that something changed.

use crate::task::task::work;
use crate::task::{self, Task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::host::{self, PollItem};
use hal::sync::SpinLock;
use hal::thread::{self, ThreadRef};
use qlib::Errno;

pub use events::Events;

#[allow(missing_docs)]
mod events {
    use bitflags::bitflags;
    bitflags! {
    /// Readiness, the bits of `poll(2)` and `epoll(7)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Events: u32 {
        const IN = 0x001;
        const PRI = 0x002;
        const OUT = 0x004;
        const ERR = 0x008;
        const HUP = 0x010;
        const NVAL = 0x020;
        const RDNORM = 0x040;
        const RDBAND = 0x080;
        const WRNORM = 0x100;
        const WRBAND = 0x200;
        const MSG = 0x400;
        const RDHUP = 0x2000;
        const EXCLUSIVE = 1 << 28;
        const WAKEUP = 1 << 29;
        const ONESHOT = 1 << 30;
        const ET = 1 << 31;
    }
    }
}

/// Something that wants to know of events: a waiting thread, an epoll item.
pub trait Notify: Send + Sync {
    /// Tells that `events` may hold now; threads to wake go into `wakes`. Called with the queue's lock held: it must not
    /// touch the same queue, nor wait.
    fn notify(&self, events: Events, wakes: &mut Wakes);
}

/// Threads kept in [`Wakes`] without the heap.
const FEW: usize = 4;

/// Threads to wake once the locks are free: one that wakes, perhaps in the place of the waker, finds no lock held.
#[derive(Default)]
pub struct Wakes {
    few: [Option<ThreadRef>; FEW],
    many: Vec<ThreadRef>,
}

impl Wakes {
    fn push(&mut self, t: ThreadRef) {
        match self.few.iter_mut().find(|f| f.is_none()) {
            Some(free) => *free = Some(t),
            None => self.many.push(t),
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        for t in self.few.iter().flatten().chain(&self.many) {
            t.unpark();
        }
    }
}

/// Who is told.
enum Listener {
    /// A thread, which is woken.
    Thread(ThreadRef),
    /// Something else.
    Other(Arc<dyn Notify>),
}

struct Entry {
    token: u64,
    mask: Events,
    listener: Listener,
}

/// A list of those who wait for a change of one object.
#[derive(Default)]
pub struct WaitQueue {
    /// Lock order: before the locks of whatever is notified (epoll ready lists), after the object's own lock.
    entries: SpinLock<Vec<Entry>>,
}

/// Names a registration in one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitToken(u64);

static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            entries: SpinLock::new(Vec::new()),
        }
    }
    /// Registers interest in `mask` (ERR and HUP are always included).
    pub fn add(&self, notify: Arc<dyn Notify>, mask: Events) -> WaitToken {
        self.enter(Listener::Other(notify), mask)
    }
    /// Registers the calling thread, which is then woken from [`park`].
    pub fn add_current(&self, mask: Events) -> WaitToken {
        self.enter(Listener::Thread(thread::current()), mask)
    }
    fn enter(&self, listener: Listener, mask: Events) -> WaitToken {
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
        self.entries.lock().push(Entry {
            token,
            mask: mask | Events::ERR | Events::HUP,
            listener,
        });
        WaitToken(token)
    }
    /// Ends a registration.
    pub fn remove(&self, token: WaitToken) {
        // The entry is dropped after the lock is free: its drop may take other locks.
        let entry = {
            let mut entries = self.entries.lock();
            entries
                .iter()
                .position(|e| e.token == token.0)
                .map(|i| entries.remove(i))
        };
        drop(entry);
    }
    /// Tells everyone whose mask meets `events`.
    pub fn wake(&self, events: Events) {
        let mut wakes = Wakes::default();
        self.tell(events, &mut wakes);
    }
    /// As [`WaitQueue::wake`], but leaves it to the owner of `wakes` to wake threads.
    pub fn tell(&self, events: Events, wakes: &mut Wakes) {
        for e in self.entries.lock().iter() {
            if !e.mask.intersects(events) {
                continue;
            }
            match &e.listener {
                Listener::Thread(t) => wakes.push(t.clone()),
                Listener::Other(n) => n.notify(events, wakes),
            }
        }
    }
    /// Tells everyone.
    pub fn wake_all(&self) {
        self.wake(Events::all());
    }
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }
}

/// Why a wait ended without its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// A signal is to be delivered, or the task is killed.
    Interrupted,
    /// The deadline passed.
    TimedOut,
}

impl WaitError {
    /// The error of calls that restart after a signal (ERESTARTSYS) and fail with `timeout` at the deadline.
    pub fn restart_or(self, timeout: Errno) -> Errno {
        match self {
            WaitError::Interrupted => Errno::ERESTARTSYS,
            WaitError::TimedOut => timeout,
        }
    }
}

/// The calling thread's registration, which ends when the wait does, also when it is left early.
pub struct Registered<'a> {
    queue: &'a WaitQueue,
    token: WaitToken,
}

impl<'a> Registered<'a> {
    /// Registers the calling thread.
    pub fn new(queue: &'a WaitQueue, mask: Events) -> Self {
        let token = queue.add_current(mask);
        Self { queue, token }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.queue.remove(self.token);
    }
}

/// CPU time of a task is looked at when it goes to sleep, but not more often than this, ns.
const LOOK_NS: u64 = 10_000_000;

fn asleep<T>(sleep: impl FnOnce() -> T) -> T {
    let me = thread::current();
    let Some(task) = me.data::<Task>() else {
        return sleep();
    };
    let now = hal::clock::monotonic_ns();
    if now.saturating_sub(task.looked_ns.load(Ordering::Relaxed)) > LOOK_NS {
        task.look_at_cpu(now);
    }
    task.state.store(u32::from(b'S'), Ordering::Relaxed);
    let r = sleep();
    if task.work.load(Ordering::SeqCst) & work::CALL != 0 {
        // Still counts as asleep: the wait goes on, and looking at a task must not make it look busy.
        task.run_calls();
    } else {
        task.state.store(u32::from(b'R'), Ordering::Relaxed);
    }
    r
}

/// Sleeps as [`thread::park`] does; what other tasks asked of this one is done before it returns. Waits of tasks use this,
/// so that `/proc` sees them sleep and they answer it. No lock may be held.
pub fn park(deadline_ns: Option<u64>) {
    asleep(|| thread::park(deadline_ns));
}

/// Waits for host objects as [`host::wait_ready`] does, otherwise as [`park`].
///
/// # Errors
/// The host's.
pub fn wait_ready(items: &mut [PollItem], deadline_ns: Option<u64>) -> Result<usize, Errno> {
    asleep(|| host::wait_ready(items, deadline_ns))
}

/// Waits until `cond` gives a value; it is tried first, and again after each wake of `queue`. No lock may be held.
///
/// # Errors
/// Interrupted by a signal of the current task, or the deadline (monotonic ns) passed.
pub fn wait_until<T>(
    queue: &WaitQueue,
    mask: Events,
    deadline_ns: Option<u64>,
    mut cond: impl FnMut() -> Option<T>,
) -> Result<T, WaitError> {
    if let Some(v) = cond() {
        return Ok(v);
    }
    let _registered = Registered::new(queue, mask);
    loop {
        if let Some(v) = cond() {
            return Ok(v);
        }
        let end = if task::interrupted() {
            WaitError::Interrupted
        } else if deadline_ns.is_some_and(|d| hal::clock::monotonic_ns() >= d) {
            WaitError::TimedOut
        } else {
            park(deadline_ns);
            continue;
        };
        // What ended the wait may have come together with what was waited for.
        return cond().ok_or(end);
    }
}

/// As [`wait_until`], but only a fatal signal ends it early.
///
/// # Errors
/// Interrupted when the task is being killed.
pub fn wait_killable<T>(queue: &WaitQueue, mut cond: impl FnMut() -> Option<T>) -> Result<T, WaitError> {
    if let Some(v) = cond() {
        return Ok(v);
    }
    let _registered = Registered::new(queue, Events::all());
    loop {
        if let Some(v) = cond() {
            return Ok(v);
        }
        if task::killed() {
            return Err(WaitError::Interrupted);
        }
        park(None);
    }
}

/// A lock that may be held across waits (for the host or other threads). Its waiters sleep.
pub struct SleepLock<T> {
    held: SpinLock<bool>,
    queue: WaitQueue,
    value: SpinLock<Option<T>>,
}

/// Access to a [`SleepLock`]'s value.
pub struct SleepGuard<'a, T> {
    lock: &'a SleepLock<T>,
    value: Option<T>,
}

impl<T> SleepLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self {
            held: SpinLock::new(false),
            queue: WaitQueue::new(),
            value: SpinLock::new(Some(value)),
        }
    }
    /// Takes the lock unless it is held.
    pub fn try_lock(&self) -> Option<SleepGuard<'_, T>> {
        let mut held = self.held.lock();
        if core::mem::replace(&mut *held, true) {
            return None;
        }
        drop(held);
        Some(SleepGuard {
            lock: self,
            value: self.value.lock().take(),
        })
    }
    /// Takes the lock; sleeps while another holds it (not interruptible).
    pub fn lock(&self) -> SleepGuard<'_, T> {
        let take = || {
            let mut held = self.held.lock();
            (!core::mem::replace(&mut *held, true)).then_some(())
        };
        if take().is_none() {
            let _registered = Registered::new(&self.queue, Events::all());
            while take().is_none() {
                thread::park(None);
            }
        }
        SleepGuard {
            lock: self,
            value: self.value.lock().take(),
        }
    }
}

impl<T> core::ops::Deref for SleepGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        match &self.value {
            Some(v) => v,
            None => unreachable!("a held SleepLock has its value in the guard"),
        }
    }
}

impl<T> core::ops::DerefMut for SleepGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.value {
            Some(v) => v,
            None => unreachable!("a held SleepLock has its value in the guard"),
        }
    }
}

impl<T> Drop for SleepGuard<'_, T> {
    fn drop(&mut self) {
        *self.lock.value.lock() = self.value.take();
        *self.lock.held.lock() = false;
        self.lock.queue.wake_all();
    }
}

impl<T: Default> Default for SleepLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}
