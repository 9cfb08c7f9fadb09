//! Futexes: waiting for a change of a word of app memory. Source: `futex(2)`, Linux `kernel/futex/`.
//!
//! A waiter enters its bucket first and compares the word after that, so app memory is never touched while a lock is
//! held and no wake is lost: a waker stores, then looks into the bucket.

use crate::mm::Mm;
use crate::sched::wait::WaitError;
use crate::task::{self, Task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use hal::sync::SpinLock;
use hal::thread::{self, ThreadRef};
use hal::user::{is_user_range, load_u32};
use qlib::Errno;

/// What identifies a futex word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A word of one address space: the identity of its [`Mm`], and the address.
    Private(usize, u64),
    /// A word of shared memory: the memory's identity (device and inode, or a memory file's handle), and the offset.
    Shared(u64, u64, u64),
}

/// Buckets; a power of two.
const BUCKETS: usize = 512;

/// Every bit of a wait's bit set.
pub const MATCH_ANY: u32 = u32::MAX;

pub(super) struct Waiter {
    thread: ThreadRef,
    /// Bucket it is in; changes only under the locks of both buckets.
    bucket: AtomicUsize,
    bitset: u32,
    /// Thread id of a waiter for a PI lock, else 0; changes only under the lock of its bucket.
    pi_tid: AtomicU32,
    /// FUTEX_WAIT_REQUEUE_PI: the PI lock it will be moved to, and its thread id.
    moves_to: Option<(Key, u32)>,
    woken: AtomicBool,
}

type Bucket = SpinLock<Vec<(Key, Arc<Waiter>)>>;

static TABLE: [Bucket; BUCKETS] = [const { SpinLock::new(Vec::new()) }; BUCKETS];

fn index(key: &Key) -> usize {
    let (a, b) = match *key {
        Key::Private(mm, addr) => (mm as u64, addr),
        Key::Shared(dev, ino, offset) => (dev ^ ino.rotate_left(32), offset),
    };
    let h = (a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (b >> 2)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (h >> 40) as usize % BUCKETS
}

pub(super) fn bucket(key: &Key) -> &'static Bucket {
    &TABLE[index(key)]
}

/// The key of the word at `addr`.
///
/// # Errors
/// EINVAL when unaligned, EFAULT when nothing is mapped there.
pub fn key(mm: &Arc<Mm>, addr: u64, private: bool) -> Result<Key, Errno> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if !is_user_range(addr, 4) {
        return Err(Errno::EFAULT);
    }
    let own = Key::Private(Arc::as_ptr(mm) as usize, addr);
    if private {
        return Ok(own);
    }
    let (memory, file) = {
        let vmas = mm.vmas.lock();
        let v = vmas.find(addr).ok_or(Errno::EFAULT)?;
        if !v.shared {
            return Ok(own);
        }
        let by = addr - v.start;
        (
            v.memory.as_ref().map(|(m, off)| (m.handle().0, off + by)),
            v.file.as_ref().map(|(f, off)| (f.clone(), off + by)),
        )
    };
    match (memory, file) {
        (Some((handle, offset)), _) => Ok(Key::Shared(u64::MAX, handle, offset)),
        (None, Some((file, offset))) => {
            let s = file.ops().stat(&file)?;
            Ok(Key::Shared(s.dev, s.ino, offset))
        }
        (None, None) => Ok(own),
    }
}

impl Waiter {
    pub(super) fn enqueue(key: Key, bitset: u32, pi_tid: u32) -> Arc<Self> {
        Self::enter(key, bitset, pi_tid, None)
    }

    pub(super) fn enter(key: Key, bitset: u32, pi_tid: u32, moves_to: Option<(Key, u32)>) -> Arc<Self> {
        let at = index(&key);
        let w = Arc::new(Self {
            thread: thread::current(),
            bucket: AtomicUsize::new(at),
            bitset,
            pi_tid: AtomicU32::new(pi_tid),
            moves_to,
            woken: AtomicBool::new(false),
        });
        TABLE[at].lock().push((key, w.clone()));
        w
    }

    /// The thread id with which it waits for a PI lock; 0 when it does not.
    pub(super) fn pi_tid(&self) -> u32 {
        self.pi_tid.load(Ordering::Relaxed)
    }

    /// An ordinary waiter, which FUTEX_WAKE and FUTEX_REQUEUE deal with.
    fn is_plain(&self) -> bool {
        self.pi_tid() == 0 && self.moves_to.is_none()
    }

    /// Leaves the bucket; `false` when a waker took it out already.
    pub(super) fn dequeue(self: &Arc<Self>) -> bool {
        loop {
            let at = self.bucket.load(Ordering::Acquire);
            let mut b = TABLE[at].lock();
            if self.bucket.load(Ordering::Acquire) != at {
                continue;
            }
            let found = b.iter().position(|(_, w)| Arc::ptr_eq(w, self));
            // Bound here, dropped after the lock.
            let entry = found.map(|i| b.remove(i));
            drop(b);
            return entry.is_some();
        }
    }

    /// Lets the waiter go on. It must be out of its bucket.
    pub(super) fn release(&self) {
        let thread = self.thread.clone();
        self.woken.store(true, Ordering::Release);
        thread.unpark();
    }

    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// A waker has taken it out and is about to release it.
    pub(super) fn await_release(&self) {
        while !self.is_woken() {
            thread::park(None);
        }
    }

    /// Sleeps until released.
    pub(super) fn sleep(self: &Arc<Self>, deadline_ns: Option<u64>) -> Result<(), WaitError> {
        loop {
            if self.is_woken() {
                return Ok(());
            }
            let end = if task::interrupted() {
                WaitError::Interrupted
            } else if deadline_ns.is_some_and(|d| hal::clock::monotonic_ns() >= d) {
                WaitError::TimedOut
            } else {
                crate::sched::wait::park(deadline_ns);
                continue;
            };
            if self.dequeue() {
                return Err(end);
            }
            self.await_release();
            return Ok(());
        }
    }
}

/// Why [`wait`] ended without a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWoken {
    /// The word differs (EAGAIN) or cannot be read (EFAULT).
    Error(Errno),
    /// A signal, or the deadline.
    Wait(WaitError),
}

/// FUTEX_WAIT_BITSET: sleeps while the word at `addr` is `expected`.
///
/// # Errors
/// EAGAIN, EFAULT; interrupted or timed out.
pub fn wait(
    key: Key,
    addr: u64,
    expected: u32,
    bitset: u32,
    deadline_ns: Option<u64>,
) -> Result<(), NotWoken> {
    wait_as(addr, expected, deadline_ns, || Waiter::enqueue(key, bitset, 0)).map_err(|(e, _)| e)
}

/// Sleeps in the queue that `enter` enters while the word at `addr` is `expected`. With an error it tells whether the
/// waiter had been moved to a PI lock.
pub(super) fn wait_as(
    addr: u64,
    expected: u32,
    deadline_ns: Option<u64>,
    enter: impl FnOnce() -> Arc<Waiter>,
) -> Result<(), (NotWoken, bool)> {
    let check = || match load_u32(addr) {
        Ok(v) if v == expected => Ok(()),
        Ok(_) => Err((NotWoken::Error(Errno::EAGAIN), false)),
        Err(e) => Err((NotWoken::Error(e), false)),
    };
    check()?;
    let w = enter();
    if let Err(e) = check() {
        if w.dequeue() {
            return Err(e);
        }
        // A waker spent its wake on this waiter: it counts as woken.
        w.await_release();
        return Ok(());
    }
    w.sleep(deadline_ns)
        .map_err(|e| (NotWoken::Wait(e), w.pi_tid() != 0))
}

/// FUTEX_WAKE_BITSET: wakes up to `n` waiters whose bit sets meet `bitset`; returns how many.
pub fn wake_key(key: &Key, n: usize, bitset: u32) -> usize {
    let b = bucket(key);
    let mut count = 0;
    while count < n {
        // Taken out in batches, released without the lock.
        let mut batch: [Option<Arc<Waiter>>; 16] = Default::default();
        let mut taken = 0;
        {
            let mut waiters = b.lock();
            let mut i = 0;
            while i < waiters.len() && taken < batch.len() && count + taken < n {
                let (k, w) = &waiters[i];
                if k == key && w.bitset & bitset != 0 && w.is_plain() {
                    batch[taken] = Some(waiters.remove(i).1);
                    taken += 1;
                } else {
                    i += 1;
                }
            }
        }
        for w in batch.iter().flatten() {
            w.release();
        }
        count += taken;
        if taken < batch.len() {
            break;
        }
    }
    count
}

/// Wakes up to `n` waiters of a word, those of other processes that share it too.
pub fn wake(mm: &Arc<Mm>, addr: u64, n: usize) -> usize {
    match key(mm, addr, false) {
        Ok(k) => {
            let own = Key::Private(Arc::as_ptr(mm) as usize, addr);
            let first = wake_key(&k, n, MATCH_ANY);
            if k == own || first >= n {
                first
            } else {
                first + wake_key(&own, n - first, MATCH_ANY)
            }
        }
        Err(_) => 0,
    }
}

/// Moves up to `n` waiters of `from` that `which` takes to `to`; returns how many. `which` runs under the locks.
pub(super) fn move_waiters(from: &Key, to: &Key, n: usize, which: impl Fn(&Waiter) -> bool) -> usize {
    let (a, b) = (index(from), index(to));
    let mut moved = 0;
    let take = |v: &mut Vec<(Key, Arc<Waiter>)>, start: usize| {
        v[start..]
            .iter()
            .position(|(k, w)| k == from && which(w))
            .map(|i| start + i)
    };
    if a == b {
        let mut v = TABLE[a].lock();
        let mut i = 0;
        while moved < n
            && let Some(at) = take(&mut v, i)
        {
            v[at].0 = *to;
            i = at + 1;
            moved += 1;
        }
        return moved;
    }
    // Lock order: the lower bucket first.
    let (mut low, mut high) = (TABLE[a.min(b)].lock(), TABLE[a.max(b)].lock());
    let (src, dst) = if a < b {
        (&mut *low, &mut *high)
    } else {
        (&mut *high, &mut *low)
    };
    while moved < n
        && let Some(at) = take(src, 0)
    {
        let (_, w) = src.remove(at);
        w.bucket.store(b, Ordering::Release);
        dst.push((*to, w));
        moved += 1;
    }
    moved
}

/// FUTEX_CMP_REQUEUE_PI's move: up to `n` waiters of `from` become waiters for the PI lock `to`; returns how many.
///
/// # Errors
/// EINVAL when a waiter came by another call than FUTEX_WAIT_REQUEUE_PI with this lock.
pub(super) fn move_to_lock(from: &Key, to: &Key, n: usize) -> Result<usize, Errno> {
    let fits = |w: &Waiter| w.moves_to.is_some_and(|(lock, _)| lock == *to);
    if bucket(from).lock().iter().any(|(k, w)| k == from && !fits(w)) {
        return Err(Errno::EINVAL);
    }
    Ok(move_waiters(from, to, n, |w| match w.moves_to {
        Some((lock, tid)) if lock == *to => {
            w.pi_tid.store(tid, Ordering::Relaxed);
            true
        }
        _ => false,
    }))
}

/// FUTEX_REQUEUE: wakes up to `wake` waiters of `from` and moves up to `requeue` others to `to`; returns (woken, moved).
pub fn requeue(from: &Key, to: &Key, wake: usize, requeue: usize) -> (usize, usize) {
    let woken = wake_key(from, wake, MATCH_ANY);
    if from == to {
        return (woken, 0);
    }
    (woken, move_waiters(from, to, requeue, Waiter::is_plain))
}

/// FUTEX_WAITV: sleeps until one of several words is woken; returns its index.
///
/// # Errors
/// EAGAIN when a word differs, EFAULT; interrupted or timed out.
pub fn wait_many(words: &[(Key, u64, u32)], deadline_ns: Option<u64>) -> Result<usize, NotWoken> {
    let waiters: Vec<_> = words
        .iter()
        .map(|(k, _, _)| Waiter::enqueue(*k, MATCH_ANY, 0))
        .collect();
    let leave = || {
        let mut hit = None;
        for (i, w) in waiters.iter().enumerate() {
            if !w.dequeue() {
                w.await_release();
                hit = hit.or(Some(i));
            }
        }
        hit
    };
    for (_, addr, expected) in words {
        let e = match load_u32(*addr) {
            Ok(v) if v == *expected => continue,
            Ok(_) => Errno::EAGAIN,
            Err(e) => e,
        };
        return leave().ok_or(NotWoken::Error(e));
    }
    loop {
        let end = if waiters.iter().any(|w| w.is_woken()) {
            None
        } else if task::interrupted() {
            Some(WaitError::Interrupted)
        } else if deadline_ns.is_some_and(|d| hal::clock::monotonic_ns() >= d) {
            Some(WaitError::TimedOut)
        } else {
            crate::sched::wait::park(deadline_ns);
            continue;
        };
        return match (leave(), end) {
            (Some(i), _) => Ok(i),
            (None, Some(e)) => Err(NotWoken::Wait(e)),
            (None, None) => Ok(0),
        };
    }
}

/// What a task that ends leaves: robust locks. Called by the task itself while it still has its memory.
pub fn exit_task(task: &Task) {
    super::futex_robust::walk(task);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::futex_pi;
    use hal::aspace::Prot;
    use hal::thread::NewSpace;
    use hal::user::UserPtr;
    use qlib::boot::Range;
    use std::sync::mpsc;
    use std::time::Duration;

    const BASE: u64 = 0x20_0000;

    fn memory() {
        crate::tests::boot();
        let range = Range {
            start: BASE,
            end: BASE + 4096,
        };
        hal::fake::with_space()
            .map_anon(range, Prot::READ | Prot::WRITE)
            .unwrap();
    }
    fn store(at: u64, v: u32) {
        UserPtr::<u32>::new(BASE + at).write(&v).unwrap();
    }
    fn load(at: u64) -> u32 {
        load_u32(BASE + at).unwrap()
    }
    /// Runs in a thread of the same address space; the result comes through the channel.
    fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
        let (tx, rx) = mpsc::channel();
        hal::thread::spawn("t", None, NewSpace::Shared, move || {
            let _ = tx.send(f());
        })
        .unwrap();
        rx
    }
    fn until(mut f: impl FnMut() -> bool) {
        let start = std::time::Instant::now();
        while !f() {
            assert!(start.elapsed() < Duration::from_secs(10), "never happened");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    fn waiters(k: &Key) -> usize {
        bucket(k).lock().iter().filter(|(q, _)| q == k).count()
    }
    fn short() -> Option<u64> {
        Some(hal::clock::monotonic_ns() + 5_000_000)
    }

    #[test]
    fn wait_compares_times_out_and_counts_wakes() {
        memory();
        let k = Key::Private(1, BASE);
        store(0, 7);
        assert_eq!(
            wait(k, BASE, 8, MATCH_ANY, None),
            Err(NotWoken::Error(Errno::EAGAIN))
        );
        let timed_out = Err(NotWoken::Wait(WaitError::TimedOut));
        assert_eq!(wait(k, BASE, 7, MATCH_ANY, short()), timed_out);
        assert_eq!(waiters(&k), 0);
        let threads: Vec<_> = (0..5)
            .map(|_| run(move || wait(k, BASE, 7, MATCH_ANY, None)))
            .collect();
        until(|| waiters(&k) == 5);
        assert_eq!(wake_key(&k, 2, MATCH_ANY), 2);
        assert_eq!(waiters(&k), 3);
        assert_eq!(wake_key(&k, usize::MAX, MATCH_ANY), 3);
        assert_eq!(wake_key(&k, 1, MATCH_ANY), 0);
        for t in threads {
            assert_eq!(t.recv().unwrap(), Ok(()));
        }
    }

    #[test]
    fn bit_sets_select() {
        memory();
        let k = Key::Private(2, BASE);
        store(0, 1);
        let a = run(move || wait(k, BASE, 1, 0b01, None));
        let b = run(move || wait(k, BASE, 1, 0b10, None));
        until(|| waiters(&k) == 2);
        assert_eq!(wake_key(&k, 10, 0b10), 1);
        assert_eq!(b.recv().unwrap(), Ok(()));
        assert_eq!(wake_key(&k, 10, 0b11), 1);
        assert_eq!(a.recv().unwrap(), Ok(()));
    }

    #[test]
    fn requeued_waiters_are_woken_at_the_other_word() {
        memory();
        let (k, l) = (Key::Private(3, BASE), Key::Private(3, BASE + 64));
        store(0, 1);
        let threads: Vec<_> = (0..4)
            .map(|_| run(move || wait(k, BASE, 1, MATCH_ANY, None)))
            .collect();
        until(|| waiters(&k) == 4);
        assert_eq!(requeue(&k, &l, 1, 2), (1, 2));
        assert_eq!((waiters(&k), waiters(&l)), (1, 2));
        assert_eq!(wake_key(&l, 10, MATCH_ANY), 2);
        assert_eq!(wake_key(&k, 10, MATCH_ANY), 1);
        for t in threads {
            assert_eq!(t.recv().unwrap(), Ok(()));
        }
    }

    #[test]
    fn a_requeued_waiter_that_times_out_leaves_its_new_bucket() {
        memory();
        let (k, l) = (Key::Private(4, BASE), Key::Private(4, BASE + 128));
        store(0, 1);
        let t = run(move || {
            wait(
                k,
                BASE,
                1,
                MATCH_ANY,
                Some(hal::clock::monotonic_ns() + 100_000_000),
            )
        });
        until(|| waiters(&k) == 1);
        requeue(&k, &l, 0, 1);
        assert_eq!(t.recv().unwrap(), Err(NotWoken::Wait(WaitError::TimedOut)));
        assert_eq!((waiters(&k), waiters(&l)), (0, 0));
    }

    #[test]
    fn one_of_many_words_wakes() {
        memory();
        let words: Vec<_> = (0..3u64)
            .map(|i| (Key::Private(5, BASE + i * 4), BASE + i * 4, 0))
            .collect();
        for i in 0..3 {
            store(i * 4, 0);
        }
        let k = words[2].0;
        let t = run(move || wait_many(&words, None));
        until(|| waiters(&k) == 1);
        assert_eq!(wake_key(&k, 1, MATCH_ANY), 1);
        assert_eq!(t.recv().unwrap(), Ok(2));
        assert_eq!(waiters(&Key::Private(5, BASE)), 0);
    }

    #[test]
    fn pi_locks_are_handed_on() {
        memory();
        let (k, addr) = (Key::Private(6, BASE + 256), BASE + 256);
        store(256, 0);
        assert_eq!(futex_pi::lock(k, addr, 11, None, true), Ok(()));
        assert_eq!(load(256), 11);
        assert_eq!(futex_pi::lock(k, addr, 11, None, true), Err(Errno::EDEADLK));
        assert_eq!(futex_pi::lock(k, addr, 12, None, false), Err(Errno::EAGAIN));
        assert_eq!(futex_pi::unlock(k, addr, 12), Err(Errno::EPERM));
        // Thread 11 is not in the task table: its lock has no owner the kernel knows.
        assert_eq!(futex_pi::lock(k, addr, 12, None, true), Err(Errno::ESRCH));
        let w = run(move || {
            let w = Waiter::enqueue(k, MATCH_ANY, 12);
            w.sleep(None)
        });
        until(|| waiters(&k) == 1);
        assert_eq!(futex_pi::unlock(k, addr, 11), Ok(()));
        assert_eq!(w.recv().unwrap(), Ok(()));
        assert_eq!(load(256), 12);
        assert_eq!(futex_pi::unlock(k, addr, 12), Ok(()));
        assert_eq!(load(256), 0);
    }

    #[test]
    fn many_threads_never_lose_a_wake() {
        memory();
        // A lock as glibc makes it: 0 free, 1 held, 2 held and waited for; a counter behind it.
        let k = Key::Private(7, BASE + 512);
        let addr = BASE + 512;
        store(512, 0);
        store(516, 0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                run(move || {
                    for _ in 0..500 {
                        if cas(addr, 0, 1) != 0 {
                            loop {
                                let v = load_u32(addr).unwrap();
                                if v == 2 || v == 1 && cas(addr, 1, 2) == 1 {
                                    let _ = wait(k, addr, 2, MATCH_ANY, None);
                                }
                                if cas(addr, 0, 2) == 0 {
                                    break;
                                }
                            }
                        }
                        let n = load_u32(addr + 4).unwrap();
                        UserPtr::<u32>::new(addr + 4).write(&(n + 1)).unwrap();
                        if cas(addr, 1, 0) != 1 {
                            assert_eq!(cas(addr, 2, 0), 2);
                            wake_key(&k, 1, MATCH_ANY);
                        }
                    }
                })
            })
            .collect();
        for t in threads {
            t.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        assert_eq!(load(516), 2000);
    }

    fn cas(addr: u64, old: u32, new: u32) -> u32 {
        hal::user::cmpxchg_u32(addr, old, new).unwrap()
    }
}
