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
    /// Tells that `events` may hold now. Called with the queue's lock held: it must not touch the same queue, nor wait.
    fn notify(&self, events: Events);
}

struct Entry {
    token: u64,
    mask: Events,
    notify: Arc<dyn Notify>,
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
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
        self.entries.lock().push(Entry {
            token,
            mask: mask | Events::ERR | Events::HUP,
            notify,
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
        for e in self.entries.lock().iter() {
            if e.mask.intersects(events) {
                e.notify.notify(events);
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

/// A thread that waits: a notification unparks it.
pub struct ThreadWaiter(ThreadRef);

impl ThreadWaiter {
    /// A waiter for the calling thread.
    pub fn current() -> Arc<Self> {
        Arc::new(Self(thread::current()))
    }
}

impl Notify for ThreadWaiter {
    fn notify(&self, _events: Events) {
        self.0.unpark();
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

/// Registrations that end when the wait does, also when it is left early.
pub struct Registered<'a> {
    queues: Vec<(&'a WaitQueue, WaitToken)>,
}

impl<'a> Registered<'a> {
    /// Registers the calling thread in every queue.
    pub fn new(queues: &[&'a WaitQueue], mask: Events) -> Self {
        let waiter = ThreadWaiter::current();
        let queues = queues.iter().map(|q| (*q, q.add(waiter.clone(), mask))).collect();
        Self { queues }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for (q, t) in &self.queues {
            q.remove(*t);
        }
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
    let _registered = Registered::new(&[queue], mask);
    loop {
        if let Some(v) = cond() {
            return Ok(v);
        }
        if task::interrupted() {
            return Err(WaitError::Interrupted);
        }
        if deadline_ns.is_some_and(|d| hal::clock::monotonic_ns() >= d) {
            return Err(WaitError::TimedOut);
        }
        park(deadline_ns);
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
    let _registered = Registered::new(&[queue], Events::all());
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
    /// Takes the lock; sleeps while another holds it (not interruptible).
    pub fn lock(&self) -> SleepGuard<'_, T> {
        let take = || {
            let mut held = self.held.lock();
            (!core::mem::replace(&mut *held, true)).then_some(())
        };
        if take().is_none() {
            let _registered = Registered::new(&[&self.queue], Events::all());
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
